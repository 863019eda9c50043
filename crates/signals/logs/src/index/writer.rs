//! Writes an index file of version 3.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use triptych_model::labels::put_uvarint;
use triptych_model::{Error, Result};

use super::{ChunkMeta, FINGERPRINT_INTERVAL, MAGIC, PAGE, SeriesMeta, VERSION};
use crate::chunk::put_varint;

/// The file, uncompressed, and what Loki's file name says of it: first and last time in milliseconds, and the checksum of the
/// table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub bytes: Vec<u8>,
    pub from_ms: i64,
    pub through_ms: i64,
    pub checksum: u32,
}

fn put_be32(out: &mut Vec<u8>, value: usize) -> Result<()> {
    let value = u32::try_from(value).map_err(|_| Error::invalid("index file: a section exceeds 4 GiB"))?;
    out.extend_from_slice(&value.to_be_bytes());
    Ok(())
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    put_uvarint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// `length u32 | body | crc32c of the body`.
fn put_section(out: &mut Vec<u8>, body: &[u8]) -> Result<()> {
    put_be32(out, body.len())?;
    out.extend_from_slice(body);
    out.extend_from_slice(&crc32c::crc32c(body).to_be_bytes());
    Ok(())
}

/// `series` as [`super::normalise`] leaves them.
pub fn encode(series: &[SeriesMeta]) -> Result<Encoded> {
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.push(VERSION);

    // Symbols: all names and values, sorted.
    let texts: BTreeSet<&str> =
        series.iter().flat_map(|s| s.labels.iter()).flat_map(|(n, v)| [n, v]).collect();
    let symbols: HashMap<&str, u32> = texts.iter().zip(0u32..).map(|(s, i)| (*s, i)).collect();
    let symbols_at = out.len();
    let mut body = Vec::new();
    put_be32(&mut body, texts.len())?;
    texts.iter().for_each(|text| put_str(&mut body, text));
    put_section(&mut out, &body)?;
    let number = |text: &str| symbols.get(text).copied().unwrap_or_default();

    // Series, 16-byte aligned; a reference is the offset / 16.
    let series_at = out.len();
    let mut all = Vec::with_capacity(series.len());
    let mut postings: BTreeMap<(&str, &str), Vec<u32>> = BTreeMap::new();
    let mut fingerprints: Vec<(u64, u64)> = Vec::new();
    let (mut from_ms, mut through_ms) = (i64::MAX, i64::MIN);
    for (i, one) in series.iter().enumerate() {
        pad(&mut out, 16);
        let reference =
            u32::try_from(out.len() / 16).map_err(|_| Error::invalid("index file: exceeds 64 GiB"))?;
        all.push(reference);
        if i % FINGERPRINT_INTERVAL == 0 {
            fingerprints.push((u64::from(reference), one.fingerprint));
        }
        body.clear();
        body.extend_from_slice(&one.fingerprint.to_be_bytes());
        put_uvarint(&mut body, one.labels.len() as u64);
        for (name, value) in &one.labels {
            put_uvarint(&mut body, u64::from(number(name)));
            put_uvarint(&mut body, u64::from(number(value)));
            postings.entry((name, value)).or_default().push(reference);
        }
        put_chunks(&mut body, &one.chunks)?;
        for chunk in &one.chunks {
            from_ms = from_ms.min(chunk.from_ms);
            through_ms = through_ms.max(chunk.through_ms);
        }
        put_uvarint(&mut out, body.len() as u64);
        out.extend_from_slice(&body);
        out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    }
    if from_ms > through_ms {
        (from_ms, through_ms) = (0, 0);
    }

    // Label indices: the values of each name, by symbol.
    let mut label_offsets: Vec<(&str, usize)> = Vec::new();
    let label_indices_at = out.len();
    let mut values_of: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (name, value) in postings.keys() {
        values_of.entry(name).or_default().push(number(value));
    }
    for (name, values) in &values_of {
        pad(&mut out, 4);
        label_offsets.push((name, out.len()));
        body.clear();
        put_be32(&mut body, 1)?;
        put_be32(&mut body, values.len())?;
        values.iter().for_each(|v| body.extend_from_slice(&v.to_be_bytes()));
        put_section(&mut out, &body)?;
    }

    // Postings: the references of each pair, and of all series under the empty pair. The table of contents gets the place before
    // the padding, as Loki writes it.
    let postings_at = out.len();
    let mut posting_offsets: Vec<(&str, &str, usize)> = Vec::with_capacity(postings.len() + 1);
    let lists = std::iter::once((&("", ""), &all)).chain(&postings);
    for ((name, value), references) in lists {
        pad(&mut out, 4);
        posting_offsets.push((name, value, out.len()));
        body.clear();
        put_be32(&mut body, references.len())?;
        references.iter().for_each(|r| body.extend_from_slice(&r.to_be_bytes()));
        put_section(&mut out, &body)?;
    }

    let label_indices_table_at = out.len();
    body.clear();
    put_be32(&mut body, label_offsets.len())?;
    for (name, offset) in label_offsets {
        put_uvarint(&mut body, 1);
        put_str(&mut body, name);
        put_uvarint(&mut body, offset as u64);
    }
    put_section(&mut out, &body)?;

    let postings_table_at = out.len();
    body.clear();
    put_be32(&mut body, posting_offsets.len())?;
    for (name, value, offset) in posting_offsets {
        put_uvarint(&mut body, 2);
        put_str(&mut body, name);
        put_str(&mut body, value);
        put_uvarint(&mut body, offset as u64);
    }
    put_section(&mut out, &body)?;

    let fingerprints_at = out.len();
    body.clear();
    put_be32(&mut body, fingerprints.len())?;
    for (reference, fingerprint) in fingerprints {
        body.extend_from_slice(&reference.to_be_bytes());
        body.extend_from_slice(&fingerprint.to_be_bytes());
    }
    put_section(&mut out, &body)?;

    body.clear();
    for at in [
        symbols_at,
        series_at,
        label_indices_at,
        label_indices_table_at,
        postings_at,
        postings_table_at,
        fingerprints_at,
    ] {
        body.extend_from_slice(&(at as u64).to_be_bytes());
    }
    body.extend_from_slice(&from_ms.to_be_bytes());
    body.extend_from_slice(&through_ms.to_be_bytes());
    let checksum = crc32c::crc32c(&body);
    out.extend_from_slice(&body);
    out.extend_from_slice(&checksum.to_be_bytes());
    Ok(Encoded { bytes: out, from_ms, through_ms, checksum })
}

/// `uvarint chunks | length of the markers u32 | markers | chunks`; markers sum up pages of 16, so that a reader may skip them.
fn put_chunks(out: &mut Vec<u8>, chunks: &[ChunkMeta]) -> Result<()> {
    put_uvarint(out, chunks.len() as u64);
    let mut markers = Vec::new();
    let mut metas = Vec::new();
    put_uvarint(&mut markers, chunks.len().div_ceil(PAGE) as u64);
    let mut previous_through = 0i64;
    for page in chunks.chunks(PAGE) {
        let offset = metas.len();
        let (mut kb, mut entries) = (0u32, 0u32);
        // Loki starts from 0 for the last time.
        let (mut from_ms, mut through_ms) = (i64::MAX, 0i64);
        for chunk in page {
            kb = kb.wrapping_add(chunk.kb);
            entries = entries.wrapping_add(chunk.entries);
            from_ms = from_ms.min(chunk.from_ms);
            through_ms = through_ms.max(chunk.through_ms);
            put_varint(&mut metas, chunk.from_ms.wrapping_sub(previous_through));
            put_uvarint(&mut metas, chunk.through_ms.wrapping_sub(chunk.from_ms) as u64);
            put_uvarint(&mut metas, u64::from(chunk.kb));
            put_uvarint(&mut metas, u64::from(chunk.entries));
            metas.extend_from_slice(&chunk.checksum.to_be_bytes());
            previous_through = chunk.through_ms;
        }
        put_uvarint(&mut markers, page.len() as u64);
        markers.extend_from_slice(&kb.to_be_bytes());
        markers.extend_from_slice(&entries.to_be_bytes());
        put_uvarint(&mut markers, offset as u64);
        put_varint(&mut markers, from_ms);
        put_varint(&mut markers, through_ms.wrapping_sub(from_ms));
    }
    // Loki leaves the length 0 where there are no chunks.
    put_be32(out, if chunks.is_empty() { 0 } else { markers.len() })?;
    out.extend_from_slice(&markers);
    out.extend_from_slice(&metas);
    Ok(())
}
