//! The parts of an index that every read needs: symbols and the table of postings. Parsed and checked once.

use std::ops::Range;

use bytes::Bytes;
use triptych_model::labels::{take_bytes, take_uvarint};
use triptych_model::{Error, Result};

use super::TOC_BYTES;

fn damaged(what: &str) -> Error {
    Error::damaged(format!("index: {what}"))
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_be_bytes(*head))
}

/// The content of `length u32 | content | crc u32`, checked. What follows is ignored.
pub(crate) fn section<'a>(bytes: &'a [u8], what: &str) -> Result<&'a [u8]> {
    let mut rest = bytes;
    let length = take_u32(&mut rest).ok_or_else(|| damaged(what))? as usize;
    let (content, mut rest) = rest.split_at_checked(length).ok_or_else(|| damaged(what))?;
    let crc = take_u32(&mut rest).ok_or_else(|| damaged(what))?;
    if crc32c::crc32c(content) != crc {
        return Err(damaged(&format!("checksum of {what}")));
    }
    Ok(content)
}

/// Where the sections begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Toc {
    pub symbols: u64,
    pub series: u64,
    pub label_indices: u64,
    pub label_indices_table: u64,
    pub postings: u64,
    pub postings_table: u64,
}

impl Toc {
    /// From the last bytes of an index of `size` bytes.
    pub fn parse(bytes: &[u8], size: u64) -> Result<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>().ok_or_else(|| damaged("TOC"))?;
        if bytes.len() != TOC_BYTES || crc32c::crc32c(content) != u32::from_be_bytes(*crc) {
            return Err(damaged("checksum of the TOC"));
        }
        let mut offsets = content.as_chunks::<8>().0.iter().map(|c| u64::from_be_bytes(*c));
        let mut next = || offsets.next().unwrap_or_default();
        let toc = Self {
            symbols: next(),
            series: next(),
            label_indices: next(),
            label_indices_table: next(),
            postings: next(),
            postings_table: next(),
        };
        let end = size.saturating_sub(TOC_BYTES as u64);
        let ordered =
            toc.symbols <= toc.series && toc.series <= toc.postings && toc.postings <= toc.postings_table;
        if !ordered || toc.postings_table > end {
            return Err(damaged("TOC points outside of the index"));
        }
        Ok(toc)
    }

    /// Where the series end at the latest.
    pub fn series_end(&self) -> u64 {
        if self.label_indices >= self.series && self.label_indices != 0 {
            self.label_indices.min(self.postings)
        } else {
            self.postings
        }
    }

    /// Where the postings end at the latest.
    fn postings_end(&self) -> u64 {
        if self.label_indices_table >= self.postings { self.label_indices_table } else { self.postings_table }
    }
}

#[derive(Debug)]
pub(crate) struct IndexHeader {
    pub toc: Toc,
    symbols: Bytes,
    /// Where each symbol's length stands.
    symbol_offsets: Vec<u32>,
    table: Bytes,
    /// Where each entry of the table begins, without the entry of all series.
    entries: Vec<u32>,
    /// Ascending; the entries of a name.
    names: Vec<(String, Range<u32>)>,
    all: u64,
}

/// An entry of the postings table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PostingsEntry<'a> {
    pub value: &'a str,
    /// Where the list is; its end may be too late, never too early.
    pub range: Range<u64>,
}

impl IndexHeader {
    /// `symbols` and `table` are the sections with their lengths and checksums.
    pub fn parse(toc: Toc, symbols: &Bytes, table: &Bytes) -> Result<Self> {
        let symbols = symbols.slice_ref(section(symbols, "symbols")?);
        let table = table.slice_ref(section(table, "postings table")?);

        let mut rest = &symbols[..];
        let count = take_u32(&mut rest).ok_or_else(|| damaged("symbols"))? as usize;
        if count > rest.len() {
            return Err(damaged("more symbols than bytes"));
        }
        let mut symbol_offsets = Vec::with_capacity(count);
        for _ in 0..count {
            symbol_offsets.push((symbols.len() - rest.len()) as u32);
            let symbol = take_bytes(&mut rest).ok_or_else(|| damaged("symbols"))?;
            std::str::from_utf8(symbol).map_err(|_| damaged("a symbol is not UTF-8"))?;
        }

        let mut rest = &table[..];
        let count = take_u32(&mut rest).ok_or_else(|| damaged("postings table"))? as usize;
        if count > rest.len() {
            return Err(damaged("more postings than bytes"));
        }
        let mut entries = Vec::with_capacity(count);
        let mut names: Vec<(String, Range<u32>)> = Vec::new();
        let mut all = None;
        let mut last_value: &str = "";
        for _ in 0..count {
            let at = (table.len() - rest.len()) as u32;
            let (name, value, offset) = take_entry(&mut rest).ok_or_else(|| damaged("postings table"))?;
            if offset < toc.postings.min(toc.label_indices) || offset >= toc.postings_table {
                return Err(damaged("a list of postings lies outside of the postings"));
            }
            if name.is_empty() && value.is_empty() {
                all = Some(offset);
                continue;
            }
            let entry = entries.len() as u32;
            entries.push(at);
            match names.last_mut() {
                Some((last, range)) if last == name => {
                    if value <= last_value {
                        return Err(damaged("postings table is not sorted"));
                    }
                    range.end = entry + 1;
                }
                Some((last, _)) if last.as_str() > name => {
                    return Err(damaged("postings table is not sorted"));
                }
                _ => names.push((name.to_owned(), entry..entry + 1)),
            }
            last_value = value;
        }
        let all = all.ok_or_else(|| damaged("no list of all series"))?;
        Ok(Self { toc, symbols, symbol_offsets, table, entries, names, all })
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        let names: usize = self.names.iter().map(|(n, _)| n.len() + size_of::<(String, Range<u32>)>()).sum();
        self.symbols.len()
            + self.table.len()
            + 4 * (self.symbol_offsets.len() + self.entries.len())
            + names
            + 256
    }

    pub fn symbol(&self, number: u64) -> Option<&str> {
        let offset = *self.symbol_offsets.get(usize::try_from(number).ok()?)?;
        let mut rest = self.symbols.get(offset as usize..)?;
        std::str::from_utf8(take_bytes(&mut rest)?).ok()
    }

    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        (0..self.symbol_offsets.len() as u64).filter_map(|i| self.symbol(i))
    }

    /// Label names with their numbers of values, ascending.
    pub fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.names.iter().map(|(name, range)| (name.as_str(), range.len()))
    }

    /// The list of all series.
    pub fn all(&self) -> Range<u64> {
        self.all..self.end_of(self.all, self.entries.first().copied())
    }

    /// The values of a name, ascending.
    pub fn values(&self, name: &str) -> impl Iterator<Item = PostingsEntry<'_>> {
        self.range(name).filter_map(|i| self.entry(i))
    }

    pub fn lookup(&self, name: &str, value: &str) -> Option<PostingsEntry<'_>> {
        let Range { mut start, mut end } = self.range(name);
        while start < end {
            let middle = start + (end - start) / 2;
            let entry = self.entry(middle)?;
            match entry.value.cmp(value) {
                std::cmp::Ordering::Less => start = middle + 1,
                std::cmp::Ordering::Equal => return Some(entry),
                std::cmp::Ordering::Greater => end = middle,
            }
        }
        None
    }

    fn range(&self, name: &str) -> Range<u32> {
        match self.names.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(i) => self.names[i].1.clone(),
            Err(_) => 0..0,
        }
    }

    fn entry(&self, i: u32) -> Option<PostingsEntry<'_>> {
        let mut rest = self.table.get(*self.entries.get(i as usize)? as usize..)?;
        let (_, value, offset) = take_entry(&mut rest)?;
        let next = self.entries.get(i as usize + 1).copied();
        Some(PostingsEntry { value, range: offset..self.end_of(offset, next) })
    }

    /// The next list's offset where lists stand in the order of the table (as Prometheus writes them), or the end of all.
    fn end_of(&self, offset: u64, next: Option<u32>) -> u64 {
        let next = next.and_then(|at| {
            let mut rest = self.table.get(at as usize..)?;
            Some(take_entry(&mut rest)?.2)
        });
        match next {
            Some(next) if next > offset => next,
            _ => self.toc.postings_end().max(offset),
        }
    }
}

fn take_entry<'a>(rest: &mut &'a [u8]) -> Option<(&'a str, &'a str, u64)> {
    if take_uvarint(rest)? != 2 {
        return None;
    }
    let name = std::str::from_utf8(take_bytes(rest)?).ok()?;
    let value = std::str::from_utf8(take_bytes(rest)?).ok()?;
    Some((name, value, take_uvarint(rest)?))
}

/// The ids of a list, `length u32 | count u32 | id u32 * | crc u32`.
pub(crate) fn decode_postings(bytes: &[u8]) -> Result<Vec<u32>> {
    let mut content = section(bytes, "postings")?;
    let count = take_u32(&mut content).ok_or_else(|| damaged("postings"))? as usize;
    let (ids, rest) = content.as_chunks::<4>();
    if ids.len() != count || !rest.is_empty() {
        return Err(damaged("postings: count does not fit the length"));
    }
    let ids: Vec<u32> = ids.iter().map(|c| u32::from_be_bytes(*c)).collect();
    if ids.is_sorted_by(|a, b| a < b) { Ok(ids) } else { Err(damaged("postings are not sorted")) }
}
