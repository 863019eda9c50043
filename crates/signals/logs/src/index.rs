//! Loki's TSDB index: which streams there are, and where their chunks lie. Version 3 is written, 2 and 3 (and 4 but for its extra
//! field) are read. Byte by byte in `docs/formats/logs.md`.
//!
//! It descends from Prometheus' block index; what differs: series are ordered by fingerprint, which stands in the series; a
//! chunk is described by times, size and checksum (its name) instead of an offset; chunks come in pages of 16; there is a table
//! of fingerprints.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::io::{Read, Write};

use triptych_model::{Error, Labels, Result};

pub use reader::IndexFile;
pub use writer::encode;

/// In files of several tenants the label that says whose a stream is.
pub const TENANT_LABEL: &str = "__loki_tenant__";

pub(crate) const MAGIC: u32 = 0xBAAA_D700;
pub(crate) const VERSION: u8 = 3;
/// Chunks of a page.
pub(crate) const PAGE: usize = 16;
/// Every so many series the table of fingerprints has an entry.
pub(crate) const FINGERPRINT_INTERVAL: usize = 1024;
/// Nine numbers and a checksum.
pub(crate) const TOC_BYTES: usize = 9 * 8 + 4;

/// A chunk of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkMeta {
    pub from_ms: i64,
    pub through_ms: i64,
    pub checksum: u32,
    /// Uncompressed size, rounded to kilobytes.
    pub kb: u32,
    pub entries: u32,
}

impl ChunkMeta {
    /// What makes it the same chunk.
    pub(crate) fn identity(&self) -> (i64, i64, u32) {
        (self.from_ms, self.through_ms, self.checksum)
    }
}

/// A stream and its chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesMeta {
    pub fingerprint: u64,
    pub labels: Labels,
    pub chunks: Vec<ChunkMeta>,
}

/// Orders and unites what is to be written: series by fingerprint and labels, chunks by time, copies once.
pub fn normalise(mut series: Vec<SeriesMeta>) -> Vec<SeriesMeta> {
    series.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint).then_with(|| a.labels.cmp(&b.labels)));
    let mut out: Vec<SeriesMeta> = Vec::with_capacity(series.len());
    for next in series {
        match out.last_mut() {
            Some(last) if last.fingerprint == next.fingerprint && last.labels == next.labels => {
                last.chunks.extend(next.chunks);
            }
            _ => out.push(next),
        }
    }
    for series in &mut out {
        series.chunks.sort();
        series.chunks.dedup_by_key(|c| c.identity());
    }
    out.retain(|s| !s.chunks.is_empty());
    out
}

/// Compresses an index file as it lies in the bucket.
pub fn gzip(plain: &[u8]) -> Result<Vec<u8>> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    to.write_all(plain)
        .and_then(|()| to.finish())
        .map_err(|e| Error::internal(format!("index: compression failed: {e}")))
}

/// Decompresses; refuses what inflates past `bytes_max`.
pub fn gunzip(data: &[u8], bytes_max: usize) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(data)
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|e| damaged(format!("gzip: {e}")))?;
    if out.len() > bytes_max {
        return Err(Error::exhausted(format!("index file inflates past {bytes_max} bytes")));
    }
    Ok(out)
}

pub(crate) fn damaged(what: impl std::fmt::Display) -> Error {
    Error::damaged(format!("index file: {what}"))
}
