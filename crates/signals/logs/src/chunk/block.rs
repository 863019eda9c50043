//! Entries on their way into a block and out of one.
//!
//! ```text
//! entry = ts varint (ns) | uvarint length | line | uvarint length of the rest | uvarint pairs | pairs x (uvarint name, uvarint value)
//! ```
//! Entries are ordered by time, then arrival. Before version 4 an entry ends with its line.

use bytes::Bytes;
use triptych_model::Result;
use triptych_model::labels::{put_uvarint, take_bytes, take_uvarint};

use super::{Codec, damaged, put_varint, take_varint};

/// Most entries of an open block: keeps the search for duplicates at one instant short.
pub const BLOCK_ENTRIES_MAX: usize = 32 * 1024;

/// A finished, compressed block.
#[derive(Debug, Clone)]
pub struct Block {
    pub entries: u32,
    pub from_ns: i64,
    pub through_ns: i64,
    /// Loki's count: lines, and 8 bytes per pair of metadata.
    pub uncompressed_bytes: u32,
    pub data: Bytes,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    ts_ns: i64,
    start: u32,
    end: u32,
}

/// A block that is being filled. Its bytes are in the final encoding already, in order of arrival; `slots` are in the order of
/// time. Lines that arrive in order therefore cost one copy and nothing else.
#[derive(Debug, Clone, Default)]
pub struct OpenBlock {
    arena: Vec<u8>,
    slots: Vec<Slot>,
    in_order: bool,
    uncompressed_bytes: usize,
    /// See [`OpenBlock::new`].
    block_bytes: usize,
}

/// What an entry takes at most beside line and metadata.
const ENTRY_OVERHEAD_BYTES: usize = 32;

impl OpenBlock {
    /// `block_bytes`: the size at which it will be cut. More memory than that is taken only where an entry needs it.
    pub fn new(block_bytes: usize) -> Self {
        Self { in_order: true, block_bytes, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub fn entries(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of the encoding so far.
    pub fn plain_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Loki's count, see [`Block::uncompressed_bytes`].
    pub fn uncompressed_bytes(&self) -> usize {
        self.uncompressed_bytes
    }

    /// First and last time.
    pub fn bounds_ns(&self) -> Option<(i64, i64)> {
        Some((self.slots.first()?.ts_ns, self.slots.last()?.ts_ns))
    }

    pub fn memory_bytes(&self) -> usize {
        self.arena.capacity() + self.slots.capacity() * size_of::<Slot>()
    }

    /// Adds an entry in its place; `refs` are the encoded pairs of symbol numbers, `pairs` how many. False where the same entry
    /// is there already.
    pub fn append(&mut self, ts_ns: i64, line: &[u8], pairs: usize, refs: &[u8]) -> bool {
        let start = self.arena.len();
        self.make_room(line.len() + refs.len() + ENTRY_OVERHEAD_BYTES);
        put_varint(&mut self.arena, ts_ns);
        put_uvarint(&mut self.arena, line.len() as u64);
        self.arena.extend_from_slice(line);
        if pairs == 0 {
            self.arena.extend_from_slice(&[1, 0]);
        } else {
            let length = refs.len() + uvarint_length(pairs as u64);
            put_uvarint(&mut self.arena, length as u64);
            put_uvarint(&mut self.arena, pairs as u64);
            self.arena.extend_from_slice(refs);
        }
        let slot = Slot { ts_ns, start: start as u32, end: self.arena.len() as u32 };
        let at = match self.slots.last() {
            Some(last) if last.ts_ns >= ts_ns => self.slots.partition_point(|s| s.ts_ns <= ts_ns),
            _ => self.slots.len(),
        };
        // Equal entries have equal bytes: same time, line and symbol numbers.
        let added = self.arena.get(start..).unwrap_or_default();
        let same = |s: &Slot| {
            (s.end - s.start) as usize == added.len()
                && self.arena.get(s.start as usize..s.end as usize) == Some(added)
        };
        if self.slots[..at].iter().rev().take_while(|s| s.ts_ns == ts_ns).any(same) {
            self.arena.truncate(start);
            return false;
        }
        if at < self.slots.len() {
            self.in_order = false;
        }
        self.slots.insert(at, slot);
        self.uncompressed_bytes += line.len() + 8 * pairs;
        true
    }

    /// Doubles, as a vector would, but not past the size at which the block is cut.
    fn make_room(&mut self, bytes: usize) {
        let wanted = self.arena.len() + bytes;
        if wanted > self.arena.capacity() {
            let doubled = (2 * self.arena.capacity()).min(self.block_bytes);
            self.arena.reserve_exact(wanted.max(doubled) - self.arena.len());
        }
    }

    /// The encoding in the order of time.
    pub fn plain(&self) -> Vec<u8> {
        if self.in_order {
            return self.arena.clone();
        }
        let mut out = Vec::with_capacity(self.arena.len());
        for slot in &self.slots {
            out.extend_from_slice(&self.arena[slot.start as usize..slot.end as usize]);
        }
        out
    }

    /// Compresses what is in it and makes it empty. `None` where it was empty.
    pub fn cut(&mut self, codec: Codec, level: i32) -> Result<Option<Block>> {
        let Some((from_ns, through_ns)) = self.bounds_ns() else { return Ok(None) };
        let data = if self.in_order {
            codec.compress(&self.arena, level)?
        } else {
            codec.compress(&self.plain(), level)?
        };
        let block = Block {
            entries: self.slots.len() as u32,
            from_ns,
            through_ns,
            uncompressed_bytes: self.uncompressed_bytes as u32,
            // Kept for long: without room to spare.
            data: data.into_boxed_slice().into(),
        };
        self.arena.clear();
        self.slots.clear();
        self.in_order = true;
        self.uncompressed_bytes = 0;
        Ok(Some(block))
    }
}

fn uvarint_length(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// An entry as it lies in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEntry<'a> {
    pub ts_ns: i64,
    pub line: &'a [u8],
    /// Encoded pairs of symbol numbers, see [`super::SymbolTable::labels`].
    pub refs: &'a [u8],
}

/// Walks a decompressed block. Ends after the first error.
#[derive(Debug, Clone)]
pub struct EntryReader<'a> {
    rest: &'a [u8],
    has_refs: bool,
}

impl<'a> EntryReader<'a> {
    /// `version` is the chunk's.
    pub fn new(plain: &'a [u8], version: u8) -> Self {
        Self { rest: plain, has_refs: version >= 4 }
    }

    #[inline]
    fn entry(&mut self) -> Option<RawEntry<'a>> {
        let ts_ns = take_varint(&mut self.rest)?;
        let line = take_bytes(&mut self.rest)?;
        let refs = if self.has_refs {
            let mut section = take_bytes(&mut self.rest)?;
            let pairs = take_uvarint(&mut section)?;
            // A pair takes two bytes at least.
            if pairs > section.len() as u64 / 2 {
                return None;
            }
            section
        } else {
            &[]
        };
        Some(RawEntry { ts_ns, line, refs })
    }
}

impl<'a> Iterator for EntryReader<'a> {
    type Item = Result<RawEntry<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match self.entry() {
            Some(entry) => Some(Ok(entry)),
            None => {
                self.rest = &[];
                Some(Err(damaged("torn entry")))
            }
        }
    }
}
