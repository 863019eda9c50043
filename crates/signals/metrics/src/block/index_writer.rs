//! Writes an index of version 2 as a stream. What it keeps in memory: symbols, and four bytes per (series, label).

use std::sync::Arc;

use hashbrown::HashMap;
use triptych_blob::Bucket;
use triptych_blob::object_store::path::Path;
use triptych_model::labels::put_uvarint;
use triptych_model::{Error, Labels, Result};

use super::upload::Upload;
use super::{INDEX_MAGIC, INDEX_VERSION};

/// A chunk as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkMeta {
    pub start_ms: i64,
    pub end_ms: i64,
    /// Segment << 32 | offset.
    pub reference: u64,
}

pub(super) struct IndexWriter {
    out: Upload,
    symbols: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
    postings: HashMap<(u32, u32), Vec<u32>>,
    all: Vec<u32>,
    previous: Option<Labels>,
    scratch: Vec<u8>,
    series_start: u64,
    pub series_bytes_max: u64,
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    put_uvarint(out, (value << 1 ^ value >> 63) as u64);
}

impl IndexWriter {
    /// `symbols`: every name and value that will be used, in any order.
    pub async fn new(bucket: &Bucket, path: Path, mut names: Vec<Arc<str>>) -> Result<Self> {
        names.push(Arc::from(""));
        names.sort_unstable();
        names.dedup();
        let mut out = Upload::new(bucket, path);
        out.put(&INDEX_MAGIC.to_be_bytes());
        out.put(&[INDEX_VERSION]);

        let mut crc = Section::default();
        let text: usize = names.iter().map(|s| s.len() + uvarint_bytes(s.len() as u64)).sum();
        out.put(&section_length(4 + text)?);
        let mut scratch = Vec::new();
        crc.put(&mut out, &count(names.len())?);
        for name in &names {
            scratch.clear();
            put_uvarint(&mut scratch, name.len() as u64);
            scratch.extend_from_slice(name.as_bytes());
            crc.put(&mut out, &scratch);
            out.drain().await?;
        }
        crc.end(&mut out);
        let symbols = names.iter().zip(0..).map(|(s, i)| (s.clone(), i)).collect();
        let series_start = out.position();
        Ok(Self {
            out,
            symbols,
            names,
            postings: HashMap::new(),
            all: Vec::new(),
            previous: None,
            scratch,
            series_start,
            series_bytes_max: 0,
        })
    }

    /// Series in ascending order of labels, each once.
    pub async fn series(&mut self, labels: &Labels, chunks: &[ChunkMeta]) -> Result<()> {
        if self.previous.as_ref().is_some_and(|p| p >= labels) {
            return Err(Error::internal(format!("index: series out of order at {labels}")));
        }
        self.previous = Some(labels.clone());
        self.out.align(16);
        let id = u32::try_from(self.out.position() / 16)
            .map_err(|_| Error::exhausted("index: more than 64 GiB of series"))?;

        let body = &mut self.scratch;
        body.clear();
        put_uvarint(body, labels.len() as u64);
        for (name, value) in labels {
            let missing = || Error::internal("index: a label is not among the symbols");
            let name = *self.symbols.get(name).ok_or_else(missing)?;
            let value = *self.symbols.get(value).ok_or_else(missing)?;
            put_uvarint(body, u64::from(name));
            put_uvarint(body, u64::from(value));
            self.postings.entry((name, value)).or_default().push(id);
        }
        self.all.push(id);
        put_uvarint(body, chunks.len() as u64);
        let (mut end_ms, mut reference) = (0i64, 0u64);
        for (i, chunk) in chunks.iter().enumerate() {
            if i == 0 {
                put_varint(body, chunk.start_ms);
                put_uvarint(body, chunk.end_ms.wrapping_sub(chunk.start_ms) as u64);
                put_uvarint(body, chunk.reference);
            } else {
                put_uvarint(body, chunk.start_ms.wrapping_sub(end_ms) as u64);
                put_uvarint(body, chunk.end_ms.wrapping_sub(chunk.start_ms) as u64);
                put_varint(body, chunk.reference.wrapping_sub(reference) as i64);
            }
            (end_ms, reference) = (chunk.end_ms, chunk.reference);
        }
        let crc = crc32c::crc32c(body);
        let mut length = Vec::with_capacity(10);
        put_uvarint(&mut length, body.len() as u64);
        self.series_bytes_max = self.series_bytes_max.max((length.len() + body.len() + 4) as u64);
        self.out.put(&length);
        self.out.put(body);
        self.out.put(&crc.to_be_bytes());
        self.out.drain().await
    }

    /// Postings, table, TOC. Returns the size of the index.
    pub async fn finish(mut self) -> Result<u64> {
        let out = &mut self.out;
        let label_indices = out.position();
        out.align(4);
        let postings_start = out.position();

        // Symbols ascend, so their numbers sort as the strings do; the pair of empty strings comes first.
        let mut keys: Vec<(u32, u32)> = self.postings.keys().copied().collect();
        keys.sort_unstable();
        let mut offsets = Vec::with_capacity(keys.len() + 1);
        offsets.push(put_postings(out, &self.all)?);
        for key in &keys {
            if let Some(ids) = self.postings.remove(key) {
                offsets.push(put_postings(out, &ids)?);
                out.drain().await?;
            }
        }
        let label_indices_table = out.position();
        let table_start = out.position();

        let entry = |body: &mut Vec<u8>, name: &str, value: &str, offset: u64| {
            body.push(2);
            for text in [name, value] {
                put_uvarint(body, text.len() as u64);
                body.extend_from_slice(text.as_bytes());
            }
            put_uvarint(body, offset);
        };
        let symbol = |i: u32| self.names.get(i as usize).map_or("", |s| &**s);
        let entries = || std::iter::once((0, 0)).chain(keys.iter().copied()).zip(&offsets);
        let mut body = Vec::new();
        let mut bytes = 4;
        for ((name, value), offset) in entries() {
            body.clear();
            entry(&mut body, symbol(name), symbol(value), *offset);
            bytes += body.len();
        }
        out.put(&section_length(bytes)?);
        let mut crc = Section::default();
        crc.put(out, &count(offsets.len())?);
        for ((name, value), offset) in entries() {
            body.clear();
            entry(&mut body, symbol(name), symbol(value), *offset);
            crc.put(out, &body);
            out.drain().await?;
        }
        crc.end(out);

        let mut toc = Vec::with_capacity(super::TOC_BYTES);
        for offset in [5, self.series_start, label_indices, label_indices_table, postings_start, table_start]
        {
            toc.extend_from_slice(&offset.to_be_bytes());
        }
        let crc = crc32c::crc32c(&toc);
        toc.extend_from_slice(&crc.to_be_bytes());
        out.put(&toc);
        self.out.finish().await
    }

    pub async fn abort(self) {
        self.out.abort().await;
    }
}

/// Writes through and keeps the checksum.
#[derive(Default)]
struct Section(u32);

impl Section {
    fn put(&mut self, out: &mut Upload, bytes: &[u8]) {
        self.0 = crc32c::crc32c_append(self.0, bytes);
        out.put(bytes);
    }

    fn end(self, out: &mut Upload) {
        out.put(&self.0.to_be_bytes());
    }
}

fn put_postings(out: &mut Upload, ids: &[u32]) -> Result<u64> {
    out.align(4);
    let offset = out.position();
    out.put(&section_length(4 + 4 * ids.len())?);
    let mut crc = Section::default();
    crc.put(out, &count(ids.len())?);
    for id in ids {
        crc.put(out, &id.to_be_bytes());
    }
    crc.end(out);
    Ok(offset)
}

fn section_length(bytes: usize) -> Result<[u8; 4]> {
    let bytes = u32::try_from(bytes).map_err(|_| Error::exhausted("index: a section has more than 4 GiB"))?;
    Ok(bytes.to_be_bytes())
}

fn count(n: usize) -> Result<[u8; 4]> {
    section_length(n)
}

fn uvarint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
