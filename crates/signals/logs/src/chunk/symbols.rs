//! The names and values of structured metadata, each string kept once per chunk, referred to by number in order of appearance.

use std::sync::Arc;

use hashbrown::HashMap;
use triptych_model::labels::{put_uvarint, take_uvarint};
use triptych_model::{Labels, Result};

use super::damaged;

/// The strings by number. Cheap to share with readers; a writer keeps [`Symbols`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct SymbolTable {
    text: String,
    ends: Vec<u32>,
}

/// Most strings in one chunk that are read.
const SYMBOLS_MAX: usize = 1 << 22;

impl SymbolTable {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all strings.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Memory it holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    pub fn get(&self, number: u64) -> Option<&str> {
        let i = usize::try_from(number).ok()?;
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { *self.ends.get(i - 1)? as usize };
        self.text.get(start..end)
    }

    pub(crate) fn push(&mut self, symbol: &str) -> Option<u32> {
        let end = u32::try_from(self.text.len() + symbol.len()).ok()?;
        self.text.push_str(symbol);
        self.ends.push(end);
        Some(self.ends.len() as u32 - 1)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len() as u64).filter_map(|i| self.get(i))
    }

    /// The strings as a chunk keeps them, before compression.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len() + 2 * self.ends.len());
        for symbol in self.iter() {
            put_uvarint(&mut out, symbol.len() as u64);
            out.extend_from_slice(symbol.as_bytes());
        }
        out
    }

    /// Reads `count` strings. Bytes that are not UTF-8 are replaced: labels are text.
    pub fn decode(plain: &[u8], count: usize) -> Result<Self> {
        if count > SYMBOLS_MAX || count > plain.len() {
            return Err(damaged(&format!("{count} symbols in {} bytes", plain.len())));
        }
        let mut table = SymbolTable::default();
        let mut rest = plain;
        for _ in 0..count {
            let symbol =
                triptych_model::labels::take_bytes(&mut rest).ok_or_else(|| damaged("torn symbols"))?;
            table.push(&String::from_utf8_lossy(symbol)).ok_or_else(|| damaged("symbols exceed 4 GiB"))?;
        }
        Ok(table)
    }

    /// The label set that an entry's references mean.
    pub fn labels(&self, refs: &[u8]) -> Result<Labels> {
        if refs.is_empty() {
            return Ok(Labels::empty());
        }
        let mut rest = refs;
        let mut pairs = smallvec::SmallVec::<[(&str, &str); 16]>::new();
        while !rest.is_empty() {
            let mut next = || take_uvarint(&mut rest).and_then(|n| self.get(n));
            match (next(), next()) {
                (Some(name), Some(value)) => pairs.push((name, value)),
                _ => return Err(damaged("a symbol that is not in the table")),
            }
        }
        if pairs.windows(2).all(|w| w[0].0 < w[1].0) {
            return Ok(Labels::from_sorted(pairs));
        }
        Ok(Labels::from_pairs(pairs))
    }
}

/// The table on the writing side: finds the number of a string it knows.
#[derive(Debug, Default, Clone)]
pub struct Symbols {
    table: Arc<SymbolTable>,
    numbers: HashMap<Box<str>, u32>,
}

impl Symbols {
    /// What readers look strings up in. Shared until the next new string.
    pub fn table(&self) -> &Arc<SymbolTable> {
        &self.table
    }

    /// The number of a string; `None` when the table is full.
    pub fn intern(&mut self, symbol: &str) -> Option<u32> {
        if let Some(number) = self.numbers.get(symbol) {
            return Some(*number);
        }
        if self.numbers.len() >= SYMBOLS_MAX {
            return None;
        }
        let number = Arc::make_mut(&mut self.table).push(symbol)?;
        self.numbers.insert(symbol.into(), number);
        Some(number)
    }

    /// The table of a chunk that gets no more strings, without room to spare.
    pub fn finish(mut self) -> Arc<SymbolTable> {
        if let Some(table) = Arc::get_mut(&mut self.table) {
            table.text.shrink_to_fit();
            table.ends.shrink_to_fit();
        }
        self.table
    }

    /// Memory it holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.table.memory_bytes() + self.numbers.allocation_size() + self.table.text_bytes()
    }
}
