//! `meta.json`: Prometheus' part (`tsdb/block.go`, `BlockMeta`) and Thanos' (`pkg/block/metadata/meta.go`), and the marks.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use triptych_model::{Error, Result};
use ulid::Ulid;

/// A block's ULID. Its time is when the block was made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(Ulid);

impl BlockId {
    /// A new one, made at `now_ms`.
    pub fn new(now_ms: i64) -> Self {
        Self(Ulid::from_parts(now_ms.max(0) as u64, triptych_runtime::random::random_u128()))
    }

    pub fn parse(text: &str) -> Option<Self> {
        // 26 characters of upper case, as they are written: other spellings would be other paths.
        Ulid::from_string(text).ok().map(Self).filter(|id| id.to_string() == text)
    }

    pub fn made_ms(self) -> i64 {
        i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for BlockId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a ULID")))
    }
}

/// What a block is, `meta.json`. Unknown keys are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockMeta {
    pub ulid: BlockId,
    /// Inclusive.
    #[serde(rename = "minTime")]
    pub start_ms: i64,
    /// Exclusive.
    #[serde(rename = "maxTime")]
    pub end_ms: i64,
    #[serde(default)]
    pub stats: BlockStats,
    pub compaction: Compaction,
    pub version: u32,
    #[serde(default)]
    pub thanos: ThanosMeta,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BlockStats {
    #[serde(rename = "numSamples", default)]
    pub samples: u64,
    #[serde(rename = "numSeries", default)]
    pub series: u64,
    #[serde(rename = "numChunks", default)]
    pub chunks: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Compaction {
    /// 1: straight from a head.
    pub level: u32,
    /// The level-1 blocks whose samples are in here.
    #[serde(default)]
    pub sources: Vec<BlockId>,
    /// The blocks this one was made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    pub ulid: BlockId,
    #[serde(rename = "minTime")]
    pub start_ms: i64,
    #[serde(rename = "maxTime")]
    pub end_ms: i64,
}

/// Thanos' part. A block straight from Prometheus has none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ThanosMeta {
    #[serde(default, skip_serializing_if = "is_zero")]
    pub version: u32,
    /// External labels: who made the block.
    #[serde(default, deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub downsample: Downsample,
    #[serde(default)]
    pub source: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub segment_files: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub files: Vec<BlockFile>,
    #[serde(default)]
    pub index_stats: IndexStats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Downsample {
    /// Milliseconds; 0: raw samples.
    pub resolution: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockFile {
    pub rel_path: String,
    #[serde(default, skip_serializing_if = "is_zero_u64")]
    pub size_bytes: u64,
}

/// Sizes of the largest series record and chunk, so that readers can ask for enough at once. 0: unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IndexStats {
    #[serde(rename = "series_max_size", default, skip_serializing_if = "is_zero_u64")]
    pub series_bytes_max: u64,
    #[serde(rename = "chunk_max_size", default, skip_serializing_if = "is_zero_u64")]
    pub chunk_bytes_max: u64,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}

/// Go writes an empty map or slice as `null`.
fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

impl BlockMeta {
    pub fn parse(json: &[u8]) -> Result<Self> {
        let meta: Self =
            serde_json::from_slice(json).map_err(|e| Error::damaged(format!("meta.json: {e}")))?;
        if meta.version != 1 {
            return Err(Error::damaged(format!("meta.json: version {} is unknown", meta.version)));
        }
        if meta.thanos.version > 1 {
            return Err(Error::damaged(format!(
                "meta.json: thanos version {} is unknown",
                meta.thanos.version
            )));
        }
        if meta.start_ms > meta.end_ms {
            return Err(Error::damaged("meta.json: minTime is after maxTime"));
        }
        Ok(meta)
    }

    pub fn to_json(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, indent);
        self.serialize(&mut serializer).map_err(|e| Error::internal(format!("meta.json: {e}")))?;
        out.push(b'\n');
        Ok(out)
    }

    /// Whether samples may lie in the range, both ends inclusive.
    pub fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        self.start_ms <= end_ms && self.end_ms > start_ms
    }

    /// The block itself where it names no sources.
    pub fn sources(&self) -> Vec<BlockId> {
        if self.compaction.sources.is_empty() { vec![self.ulid] } else { self.compaction.sources.clone() }
    }
}

/// `deletion-mark.json`: the block leaves after a delay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletionMark {
    pub id: BlockId,
    pub version: u32,
    #[serde(default)]
    pub details: String,
    /// Unix seconds.
    pub deletion_time: i64,
}

/// `no-compact-mark.json`: the compactor leaves the block alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoCompactMark {
    pub id: BlockId,
    pub version: u32,
    #[serde(default)]
    pub details: String,
    /// Unix seconds.
    pub no_compact_time: i64,
    pub reason: String,
}
