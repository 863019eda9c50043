//! Where the logs' objects lie in the bucket.
//!
//! ```text
//! logs/<tenant>/<fingerprint hex>/<from ms hex>:<through ms hex>:<crc hex>      chunks
//! logs/index/<prefix><days since the epoch>/<tenant>/<name>.tsdb.gz             one tenant's index files
//! logs/index/<prefix><days since the epoch>/<unix s>-<node>.tsdb.gz             Loki's own, several tenants in one file
//! ```

use bytes::Bytes;
use triptych_blob::Bucket;
use triptych_blob::object_store::ObjectStoreExt;
use triptych_blob::object_store::path::Path;
use triptych_model::{Error, Result, TenantId};

/// The table prefix of `schema_config` in Loki's own examples.
pub const INDEX_PREFIX: &str = "index_";

/// A table holds one day (Loki's `index.period: 24h`, the only one TSDB allows).
pub const DAY_MS: i64 = 86_400_000;

/// A key as it is; nothing in it is percent-encoded. The alphabet of tenant ids keeps out what would not survive.
pub fn path(key: String) -> Result<Path> {
    Path::parse(&key).map_err(|e| Error::internal(format!("object key {key:?}: {e}")))
}

pub fn index_root() -> Path {
    Path::from_iter(["logs", "index"])
}

pub fn chunks_root(tenant: &TenantId) -> Result<Path> {
    path(format!("logs/{tenant}"))
}

pub fn index_path(prefix: &str, day: i64, tenant: &TenantId, name: &str) -> Result<Path> {
    path(format!("logs/index/{prefix}{day}/{tenant}/{name}"))
}

/// An index file by its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IndexPlace {
    /// The table's name: prefix and day.
    pub table: String,
    pub day: i64,
    /// `None` for Loki's files of several tenants.
    pub tenant: Option<TenantId>,
    pub name: String,
}

impl IndexPlace {
    /// `None` for what is not an index file: other prefixes' tables, delete requests, temporary objects.
    pub fn parse(path: &Path) -> Option<Self> {
        let rest = path.as_ref().strip_prefix("logs/index/")?;
        let parts: Vec<&str> = rest.split('/').collect();
        let (table, tenant, name) = match parts.as_slice() {
            [table, name] => (*table, None, *name),
            [table, tenant, name] => (*table, Some(TenantId::new(tenant).ok()?), *name),
            _ => return None,
        };
        if !name.ends_with(".tsdb.gz") && !name.ends_with(".tsdb") {
            return None;
        }
        let digits = table.len() - table.bytes().rev().take_while(u8::is_ascii_digit).count();
        let day = table.get(digits..)?.parse().ok()?;
        Some(Self { table: table.to_owned(), day, tenant, name: name.to_owned() })
    }
}

/// Whether the object makes others (chunks) visible: it must be written last and deleted first.
pub fn completes(path: &Path) -> bool {
    IndexPlace::parse(path).is_some()
}

/// Days since the epoch that a range of milliseconds touches.
pub fn days(from_ms: i64, through_ms: i64) -> std::ops::RangeInclusive<i64> {
    from_ms.div_euclid(DAY_MS)..=through_ms.div_euclid(DAY_MS)
}

/// An object, unless it is larger than `bytes_max`.
pub(crate) async fn get(bucket: &Bucket, path: &Path, bytes_max: u64) -> Result<Bytes> {
    let object = bucket.get(path).await.map_err(|e| failed("reading", path, &e))?;
    if object.meta.size > bytes_max {
        let size = object.meta.size;
        return Err(Error::exhausted(format!("{path} has {size} bytes, the limit is {bytes_max}")));
    }
    object.bytes().await.map_err(|e| failed("reading", path, &e))
}

/// An object store's error as ours.
pub(crate) fn failed(doing: &str, path: &Path, error: &triptych_blob::object_store::Error) -> Error {
    use triptych_blob::object_store::Error as E;
    let text = format!("{doing} {path}: {error}");
    match error {
        E::NotFound { .. } => Error::not_found(text),
        E::Precondition { .. } | E::AlreadyExists { .. } => Error::conflict(text),
        _ => Error::unavailable(text),
    }
}
