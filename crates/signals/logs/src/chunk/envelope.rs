//! What stands around a chunk in an object, and the object's key.
//!
//! ```text
//! object = u32 BE length of the header, these 4 bytes included | header: JSON in a snappy frame | u32 BE length | chunk
//! key    = <tenant>/<fingerprint hex>/<from ms hex>:<through ms hex>:<crc32c of the object, hex>
//! ```

use std::io::{Read, Write};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use triptych_blob::object_store::path::Path;
use triptych_model::{Error, Labels, Result, TenantId};

use super::{Chunk, damaged};

/// Loki's number for log chunks in the header's `encoding`.
const ENCODING_LOGS: u8 = 129;
/// Largest header that is read.
const HEADER_BYTES_MAX: usize = 1 << 20;

/// What finds a chunk: its stream's fingerprint, its times (rounded outwards) and its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkRef {
    pub fingerprint: u64,
    pub from_ms: i64,
    pub through_ms: i64,
    pub checksum: u32,
}

/// Go prints negative numbers with a sign, also in hex.
struct SignedHex(i64);

impl std::fmt::Display for SignedHex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{:x}", self.0.unsigned_abs())
    }
}

impl ChunkRef {
    /// The object's place in the bucket.
    pub fn path(&self, tenant: &TenantId) -> Result<Path> {
        let ChunkRef { fingerprint, from_ms, through_ms, checksum } = *self;
        let (from, through) = (SignedHex(from_ms), SignedHex(through_ms));
        crate::layout::path(format!("logs/{tenant}/{fingerprint:x}/{from}:{through}:{checksum:x}"))
    }

    /// The reference a place in the bucket means; `None` for what is not a chunk.
    pub fn from_path(tenant: &TenantId, path: &Path) -> Option<Self> {
        let rest = path.as_ref().strip_prefix("logs/")?.strip_prefix(tenant.as_str())?.strip_prefix('/')?;
        let (fingerprint, rest) = rest.split_once('/')?;
        let mut parts = rest.split(':');
        let chunk = Self {
            fingerprint: u64::from_str_radix(fingerprint, 16).ok()?,
            from_ms: i64::from_str_radix(parts.next()?, 16).ok()?,
            through_ms: i64::from_str_radix(parts.next()?, 16).ok()?,
            checksum: u32::from_str_radix(parts.next()?, 16).ok()?,
        };
        parts.next().is_none().then_some(chunk)
    }
}

/// A time in milliseconds as a JSON number of seconds: `1.5`, `1700000000`.
fn seconds(ms: i64) -> Box<serde_json::value::RawValue> {
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    let mut text = format!("{sign}{}", ms / 1000);
    if ms % 1000 != 0 {
        text.push_str(format!(".{:03}", ms % 1000).trim_end_matches('0'));
    }
    serde_json::value::RawValue::from_string(text).unwrap_or_default()
}

fn milliseconds(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = part.chars().chain("000".chars()).take(3).collect();
    let ms = whole.parse::<i64>().ok()?.checked_mul(1000)?;
    let part = digits.parse::<i64>().ok()?;
    ms.checked_add(if whole.starts_with('-') { -part } else { part })
}

#[derive(Serialize)]
struct HeaderOut<'a> {
    fingerprint: u64,
    #[serde(rename = "userID")]
    user_id: &'a str,
    from: Box<serde_json::value::RawValue>,
    through: Box<serde_json::value::RawValue>,
    metric: serde_json::Map<String, serde_json::Value>,
    encoding: u8,
}

#[derive(Deserialize)]
struct HeaderIn<'a> {
    fingerprint: u64,
    #[serde(rename = "userID")]
    user_id: String,
    #[serde(borrow)]
    from: &'a serde_json::value::RawValue,
    #[serde(borrow)]
    through: &'a serde_json::value::RawValue,
}

/// Milliseconds around a range of nanoseconds, as Loki rounds a chunk's bounds.
pub fn round_outwards_ms(from_ns: i64, through_ns: i64) -> (i64, i64) {
    let through_ms = through_ns.div_euclid(1_000_000) + i64::from(through_ns.rem_euclid(1_000_000) != 0);
    (from_ns.div_euclid(1_000_000), through_ms)
}

/// The object for a chunk and its reference. `labels` are the stream's.
pub fn wrap(
    tenant: &TenantId,
    fingerprint: u64,
    labels: &Labels,
    (from_ms, through_ms): (i64, i64),
    chunk: &[u8],
) -> Result<(ChunkRef, Bytes)> {
    let failed = |e: &dyn std::fmt::Display| Error::internal(format!("chunk header: {e}"));
    // Loki adds the name `logs` in the header, but neither to the fingerprint nor to the index.
    let mut metric = serde_json::Map::new();
    metric.insert("__name__".to_owned(), "logs".into());
    metric.extend(labels.iter().map(|(n, v)| (n.to_owned(), v.into())));
    let header = HeaderOut {
        fingerprint,
        user_id: tenant.as_str(),
        from: seconds(from_ms),
        through: seconds(through_ms),
        metric,
        encoding: ENCODING_LOGS,
    };
    let mut json = serde_json::to_vec(&header).map_err(|e| failed(&e))?;
    json.push(b'\n');

    let mut to = snap::write::FrameEncoder::new(vec![0u8; 4]);
    to.write_all(&json).map_err(|e| failed(&e))?;
    let mut out = to.into_inner().map_err(|e| failed(&e))?;
    let too_large = |_| Error::invalid("chunk: larger than 4 GiB");
    let header_length = u32::try_from(out.len()).map_err(too_large)?;
    out[..4].copy_from_slice(&header_length.to_be_bytes());
    out.reserve_exact(4 + chunk.len());
    out.extend_from_slice(&u32::try_from(chunk.len()).map_err(too_large)?.to_be_bytes());
    out.extend_from_slice(chunk);
    let checksum = crc32c::crc32c(&out);
    Ok((ChunkRef { fingerprint, from_ms, through_ms, checksum }, out.into()))
}

/// The chunk in an object. Fails unless checksum, tenant, fingerprint and times are those of the reference.
pub fn unwrap(tenant: &TenantId, wanted: &ChunkRef, object: Bytes) -> Result<Chunk> {
    let checksum = crc32c::crc32c(&object);
    if checksum != wanted.checksum {
        return Err(damaged(&format!("checksum is {checksum:x}, the key says {:x}", wanted.checksum)));
    }
    let torn = || damaged("torn header");
    let length = object.first_chunk::<4>().map(|b| u32::from_be_bytes(*b) as usize).ok_or_else(torn)?;
    let header = object.get(4..length).ok_or_else(torn)?;
    let mut json = Vec::new();
    snap::read::FrameDecoder::new(header)
        .take(HEADER_BYTES_MAX as u64)
        .read_to_end(&mut json)
        .map_err(|e| damaged(&format!("header: {e}")))?;
    let header: HeaderIn<'_> = serde_json::from_slice(&json).map_err(|e| damaged(&format!("header: {e}")))?;
    let times = (milliseconds(header.from.get()), milliseconds(header.through.get()));
    if header.user_id != tenant.as_str()
        || header.fingerprint != wanted.fingerprint
        || times != (Some(wanted.from_ms), Some(wanted.through_ms))
    {
        return Err(damaged("the header is another chunk's"));
    }
    let data_length = object.get(length..).and_then(|d| d.first_chunk::<4>()).ok_or_else(torn)?;
    let start = length + 4;
    if object.len() - start != u32::from_be_bytes(*data_length) as usize {
        return Err(damaged("length of the data differs"));
    }
    Chunk::parse(object.slice(start..))
}
