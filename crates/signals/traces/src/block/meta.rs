//! `meta.json`, `meta.compacted.json`, `index` and the tenant's `index.json.gz`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use triptych_model::traces::TraceId;
use triptych_model::{Error, Result};
use uuid::Uuid;

use super::schema::DedicatedColumn;

/// The version that is written.
pub const FORMAT: &str = "vParquet5";
const FORMATS_READ: [&str; 2] = ["vParquet4", "vParquet5"];

/// What a block says of itself. Names are Tempo's (`tempodb/backend/v1/v1.proto`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockMeta {
    pub format: String,
    #[serde(rename = "blockID", serialize_with = "put_uuid", deserialize_with = "take_uuid")]
    pub block_id: Uuid,
    #[serde(rename = "tenantID")]
    pub tenant_id: String,
    #[serde(rename = "startTime", serialize_with = "put_time", deserialize_with = "take_time")]
    pub start_s: i64,
    #[serde(rename = "endTime", serialize_with = "put_time", deserialize_with = "take_time")]
    pub end_s: i64,
    /// Traces.
    #[serde(rename = "totalObjects", default)]
    pub total_objects: u64,
    /// Of `data.parquet`, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub size: u64,
    #[serde(rename = "compactionLevel", default)]
    pub compaction_level: u32,
    /// Of an older format; always 0.
    #[serde(rename = "indexPageSize", default)]
    pub index_page_size: u32,
    /// Row groups.
    #[serde(rename = "totalRecords", default)]
    pub total_records: u32,
    #[serde(rename = "bloomShards", default)]
    pub bloom_shards: u32,
    /// Of the parquet file's footer without its last 8 bytes.
    #[serde(rename = "footerSize", default)]
    pub footer_size: u32,
    #[serde(rename = "dedicatedColumns", default, skip_serializing_if = "Vec::is_empty")]
    pub dedicated_columns: Vec<DedicatedColumn>,
    /// 1: copies were merged. Tempo computes metrics from such blocks only.
    #[serde(rename = "replicationFactor", default, skip_serializing_if = "is_zero_u32")]
    pub replication_factor: u32,
}

fn is_zero(v: &u64) -> bool {
    *v == 0
}
fn is_zero_u32(v: &u32) -> bool {
    *v == 0
}
fn put_uuid<S: Serializer>(id: &Uuid, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_str(&id.hyphenated())
}
fn take_uuid<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Uuid, D::Error> {
    String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
}
fn put_maybe_uuid<S: Serializer>(id: &Option<Uuid>, s: S) -> std::result::Result<S::Ok, S::Error> {
    id.map(|id| id.hyphenated().to_string()).serialize(s)
}
fn take_maybe_uuid<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<Option<Uuid>, D::Error> {
    let text = Option::<String>::deserialize(d)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}
fn put_time<S: Serializer>(seconds: &i64, s: S) -> std::result::Result<S::Ok, S::Error> {
    s.collect_str(&Timestamp::from_second(*seconds).map_err(serde::ser::Error::custom)?)
}
fn take_time<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<i64, D::Error> {
    let time: Timestamp = String::deserialize(d)?.parse().map_err(serde::de::Error::custom)?;
    Ok(time.as_second())
}

impl BlockMeta {
    pub fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|e| Error::damaged(format!("meta.json: {e}")))
    }

    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::internal(format!("meta.json: {e}")))
    }

    /// An error where the block's format is one that this crate does not read.
    pub fn check_format(&self) -> Result<()> {
        if FORMATS_READ.contains(&self.format.as_str()) {
            return Ok(());
        }
        Err(Error::invalid(format!("block {}: format {:?} is not read here", self.block_id, self.format)))
    }

    /// Whether the block may hold spans in the range; 0 as an end: unbounded.
    pub fn overlaps(&self, start_ns: i64, end_ns: i64) -> bool {
        let end_of_second = self.end_s.saturating_add(1).saturating_mul(1_000_000_000);
        crate::view::overlaps(start_ns, end_ns, self.start_s.saturating_mul(1_000_000_000), end_of_second)
    }
}

/// A block that is on its way out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompactedMeta {
    #[serde(flatten)]
    pub meta: BlockMeta,
    #[serde(rename = "compactedTime", serialize_with = "put_time", deserialize_with = "take_time")]
    pub compacted_s: i64,
    /// The block that holds its spans now. `None`: they are gone for good (retention), or somebody else's mark, which does not say. Ours;
    /// Tempo's readers take no notice.
    #[serde(
        rename = "replacedBy",
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "put_maybe_uuid",
        deserialize_with = "take_maybe_uuid"
    )]
    pub replaced_by: Option<Uuid>,
}

impl CompactedMeta {
    pub fn parse(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|e| Error::damaged(format!("meta.compacted.json: {e}")))
    }

    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::internal(format!("meta.compacted.json: {e}")))
    }
}

/// `index`: the largest trace id of each row group.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RowGroupIndex(pub Vec<TraceId>);

#[derive(Serialize, Deserialize)]
struct IndexJson {
    #[serde(rename = "rowGroups", default)]
    row_groups: Option<Vec<String>>,
}

impl RowGroupIndex {
    pub fn parse(json: &[u8]) -> Result<Self> {
        let damaged = |e: String| Error::damaged(format!("index: {e}"));
        let json: IndexJson = serde_json::from_slice(json).map_err(|e| damaged(e.to_string()))?;
        let ids = json.row_groups.unwrap_or_default().into_iter().map(|text| {
            let id = BASE64.decode(&text).map_err(|e| damaged(e.to_string()))?;
            id.try_into().map_err(|_| damaged(format!("{text:?} is no trace id")))
        });
        Ok(Self(ids.collect::<Result<_>>()?))
    }

    pub fn to_json(&self) -> Result<Vec<u8>> {
        let row_groups = Some(self.0.iter().map(|id| BASE64.encode(id)).collect());
        serde_json::to_vec(&IndexJson { row_groups }).map_err(|e| Error::internal(format!("index: {e}")))
    }

    /// The row group in which the id lies if it is there at all.
    pub fn find(&self, id: &TraceId) -> Option<usize> {
        let at = self.0.partition_point(|last| last < id);
        (at < self.0.len()).then_some(at)
    }
}

/// `index.json.gz`: all blocks of a tenant, which spares Tempo's readers the listing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TenantIndex {
    #[serde(rename = "created_at", serialize_with = "put_time", deserialize_with = "take_time")]
    pub created_s: i64,
    #[serde(default)]
    pub meta: Vec<BlockMeta>,
    #[serde(default)]
    pub compacted: Vec<CompactedMeta>,
}

impl TenantIndex {
    pub fn to_gzip(&self) -> Result<Vec<u8>> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        serde_json::to_writer(&mut out, self).map_err(|e| Error::internal(format!("index.json.gz: {e}")))?;
        out.finish().map_err(|e| Error::internal(format!("index.json.gz: {e}")))
    }
}

#[cfg(test)]
mod tests;
