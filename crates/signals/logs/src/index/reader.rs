//! Reads an index file that lies in memory: postings and symbols are found through small tables, series are decoded when asked.

use std::collections::BTreeMap;

use bytes::Bytes;
use triptych_model::labels::{take_bytes, take_uvarint};
use triptych_model::{Labels, Matcher, Result};

use super::{ChunkMeta, MAGIC, SeriesMeta, TOC_BYTES, damaged};
use crate::chunk::take_varint;

/// An index file, checked: header, table of contents, symbols, tables. Postings and series are checked when they are read.
pub struct IndexFile {
    data: Bytes,
    version: u8,
    /// Where each symbol's text lies.
    symbols: Vec<(u32, u32)>,
    /// Name, value, place of the list of series.
    postings: BTreeMap<Box<str>, BTreeMap<Box<str>, usize>>,
    from_ms: i64,
    through_ms: i64,
    memory_bytes: usize,
}

impl std::fmt::Debug for IndexFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IndexFile({} bytes, {}..={} ms)", self.data.len(), self.from_ms, self.through_ms)
    }
}

fn be32(data: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_be_bytes(*data.get(at..)?.first_chunk::<4>()?) as usize)
}

fn take_be32(rest: &mut &[u8]) -> Option<u32> {
    let (head, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    Some(u32::from_be_bytes(*head))
}

/// The body of `length u32 | body | crc32c`.
fn section<'a>(data: &'a [u8], at: usize, what: &str) -> Result<&'a [u8]> {
    let get = || {
        let length = be32(data, at)?;
        let (body, rest) = data.get(at + 4..)?.split_at_checked(length)?;
        Some((body, be32(rest, 0)?))
    };
    let (body, crc) = get().ok_or_else(|| damaged(format!("{what} lie outside")))?;
    if crc32c::crc32c(body) as usize != crc {
        return Err(damaged(format!("checksum of {what} differs")));
    }
    Ok(body)
}

impl IndexFile {
    /// Checks the file (uncompressed).
    pub fn parse(data: Bytes) -> Result<Self> {
        if be32(&data, 0) != Some(MAGIC as usize) {
            return Err(damaged("magic number"));
        }
        let version = data.get(4).copied().unwrap_or_default();
        if !(2..=4).contains(&version) {
            return Err(damaged(format!("unknown version {version}")));
        }
        let toc_at = data.len().checked_sub(TOC_BYTES).ok_or_else(|| damaged("torn"))?;
        let (toc, crc) = data[toc_at..].split_at(TOC_BYTES - 4);
        if be32(crc, 0) != Some(crc32c::crc32c(toc) as usize) {
            return Err(damaged("checksum of the table of contents differs"));
        }
        let numbers: Vec<u64> = toc.as_chunks::<8>().0.iter().map(|b| u64::from_be_bytes(*b)).collect();
        let [symbols_at, _, _, _, _, postings_table_at, _, from_ms, through_ms] = numbers[..] else {
            return Err(damaged("torn"));
        };
        let place = |at: u64| usize::try_from(at).map_err(|_| damaged("a section lies outside"));
        let symbols = parse_symbols(&data, place(symbols_at)?)?;
        let table = section(&data, place(postings_table_at)?, "postings table")?;
        let (postings, postings_bytes) =
            parse_postings_table(table).ok_or_else(|| damaged("torn postings table"))?;
        let memory_bytes = data.len() + symbols.len() * 8 + postings_bytes + 256;
        let (from_ms, through_ms) = (from_ms as i64, through_ms as i64);
        Ok(Self { data, version, symbols, postings, from_ms, through_ms, memory_bytes })
    }

    /// First and last time of all chunks, in milliseconds.
    pub fn bounds_ms(&self) -> (i64, i64) {
        (self.from_ms, self.through_ms)
    }

    /// Memory this takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    fn symbol(&self, number: u64) -> Option<&str> {
        let (start, end) = *self.symbols.get(usize::try_from(number).ok()?)?;
        std::str::from_utf8(self.data.get(start as usize..end as usize)?).ok()
    }

    fn list(&self, at: usize) -> Result<Vec<u32>> {
        let mut rest = section(&self.data, at, "postings")?;
        let count = take_be32(&mut rest).ok_or_else(|| damaged("torn postings"))? as usize;
        let (list, _) = rest.as_chunks::<4>();
        if list.len() != count {
            return Err(damaged("torn postings"));
        }
        Ok(list.iter().map(|b| u32::from_be_bytes(*b)).collect())
    }

    fn union(&self, name: &str, mut test: impl FnMut(&str) -> bool) -> Result<Vec<u32>> {
        let mut out = Vec::new();
        for (_, at) in self.postings.get(name).into_iter().flatten().filter(|(value, _)| test(value)) {
            out.extend(self.list(*at)?);
        }
        out.sort_unstable();
        out.dedup();
        Ok(out)
    }

    fn all(&self) -> Result<Vec<u32>> {
        match self.postings.get("").and_then(|values| values.get("")) {
            Some(at) => self.list(*at),
            None => Ok(Vec::new()),
        }
    }

    /// References of the series that pass all matchers, ascending (which is the order of fingerprints).
    pub fn select(&self, matchers: &[Matcher]) -> Result<Vec<u32>> {
        let mut hits: Option<Vec<u32>> = None;
        for matcher in matchers.iter().filter(|m| !m.matches_empty()) {
            let with = match matcher.set_values() {
                Some(set) => self.union(&matcher.name, |value| set.contains(&value))?,
                None => self.union(&matcher.name, |value| matcher.matches(value))?,
            };
            hits = Some(match hits {
                Some(hits) => hits.into_iter().filter(|r| with.binary_search(r).is_ok()).collect(),
                None => with,
            });
        }
        let mut hits = match hits {
            Some(hits) => hits,
            None => self.all()?,
        };
        for matcher in matchers.iter().filter(|m| m.matches_empty()) {
            let without = self.union(&matcher.name, |value| !matcher.matches(value))?;
            hits.retain(|r| without.binary_search(r).is_err());
        }
        Ok(hits)
    }

    /// A series, with the chunks that touch `from_ms..=through_ms`.
    pub fn series(&self, reference: u32, from_ms: i64, through_ms: i64) -> Result<SeriesMeta> {
        let at = reference as usize * 16;
        let torn = || damaged("torn series");
        let mut rest = self.data.get(at..).ok_or_else(torn)?;
        let length = take_uvarint(&mut rest).and_then(|n| usize::try_from(n).ok()).ok_or_else(torn)?;
        let (body, crc) = rest.split_at_checked(length).ok_or_else(torn)?;
        if be32(crc, 0) != Some(crc32c::crc32c(body) as usize) {
            return Err(damaged("checksum of a series differs"));
        }
        self.parse_series(body, from_ms, through_ms).ok_or_else(torn)
    }

    fn parse_series(&self, mut rest: &[u8], from_ms: i64, through_ms: i64) -> Option<SeriesMeta> {
        let (fingerprint, tail) = rest.split_first_chunk::<8>()?;
        rest = tail;
        let count = take_uvarint(&mut rest)?;
        let mut pairs = smallvec::SmallVec::<[(&str, &str); 16]>::new();
        for _ in 0..count {
            let name = self.symbol(take_uvarint(&mut rest)?)?;
            pairs.push((name, self.symbol(take_uvarint(&mut rest)?)?));
        }
        let sorted = pairs.windows(2).all(|w| w[0].0 < w[1].0);
        let labels = if sorted { Labels::from_sorted(pairs) } else { Labels::from_pairs(pairs) };
        let count = take_uvarint(&mut rest)?;
        if self.version >= 3 {
            let markers = take_be32(&mut rest)? as usize;
            if count > 0 {
                rest = rest.get(markers..)?;
            }
        }
        let mut chunks = Vec::new();
        let mut previous_through = 0i64;
        for _ in 0..count {
            let from = previous_through.wrapping_add(take_varint(&mut rest)?);
            let through = from.wrapping_add(take_uvarint(&mut rest)? as i64);
            let kb = take_uvarint(&mut rest)? as u32;
            let entries = take_uvarint(&mut rest)? as u32;
            let checksum = take_be32(&mut rest)?;
            if self.version >= 4 {
                take_uvarint(&mut rest)?;
            }
            previous_through = through;
            if from <= through_ms && through >= from_ms {
                chunks.push(ChunkMeta { from_ms: from, through_ms: through, checksum, kb, entries });
            }
        }
        Some(SeriesMeta { fingerprint: u64::from_be_bytes(*fingerprint), labels, chunks })
    }

    /// Sorted names of all labels, from the postings table.
    pub fn label_names(&self) -> impl Iterator<Item = &str> {
        self.postings.keys().map(AsRef::as_ref).filter(|name| !name.is_empty())
    }

    /// Sorted values of a label, from the postings table.
    pub fn label_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.postings.get(name).into_iter().flat_map(|values| values.keys().map(AsRef::as_ref))
    }

    /// All of it, for merging.
    pub fn read_all(&self) -> Result<Vec<SeriesMeta>> {
        self.all()?.into_iter().map(|r| self.series(r, i64::MIN, i64::MAX)).collect()
    }
}

fn parse_symbols(data: &[u8], at: usize) -> Result<Vec<(u32, u32)>> {
    let torn = || damaged("torn symbols");
    if data.len() > u32::MAX as usize {
        return Err(damaged("larger than 4 GiB"));
    }
    let body = section(data, at, "symbols")?;
    let mut rest = body;
    let count = take_be32(&mut rest).ok_or_else(torn)? as usize;
    if count > rest.len() {
        return Err(torn());
    }
    let start = at + 4;
    let mut symbols = Vec::with_capacity(count);
    for _ in 0..count {
        let text = take_bytes(&mut rest).ok_or_else(torn)?;
        let end = start + body.len() - rest.len();
        symbols.push(((end - text.len()) as u32, end as u32));
    }
    Ok(symbols)
}

type PostingsTable = BTreeMap<Box<str>, BTreeMap<Box<str>, usize>>;

fn parse_postings_table(mut rest: &[u8]) -> Option<(PostingsTable, usize)> {
    let count = take_be32(&mut rest)?;
    let mut table = PostingsTable::new();
    let mut memory_bytes = 0;
    for _ in 0..count {
        if take_uvarint(&mut rest)? != 2 {
            return None;
        }
        let name = std::str::from_utf8(take_bytes(&mut rest)?).ok()?;
        let value = std::str::from_utf8(take_bytes(&mut rest)?).ok()?;
        let at = usize::try_from(take_uvarint(&mut rest)?).ok()?;
        memory_bytes += value.len() + 48;
        if !table.contains_key(name) {
            table.insert(name.into(), BTreeMap::new());
        }
        table.get_mut(name)?.insert(value.into(), at);
    }
    Some((table, memory_bytes))
}
