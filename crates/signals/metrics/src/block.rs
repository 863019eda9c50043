//! Prometheus TSDB blocks in the bucket: written and read as Prometheus and Thanos do.
//!
//! ```text
//! metrics/<tenant>/<ULID>/chunks/000001 ..   segments of at most 512 MiB      (written first)
//!                         index              symbols, series, postings
//!                         meta.json          with a `thanos` section          (written last: the block exists from here on)
//!                         deletion-mark.json, no-compact-mark.json            (written by the compactor)
//! ```
//! Segment (`tsdb/docs/format/chunks.md`), big endian:
//! ```text
//! magic 0x85BD40DD u32 | version 1 | padding 3 B | chunk*
//! chunk = length of data uvarint | encoding 1 B | data | CRC32C of encoding and data u32
//! ```
//! Index (`tsdb/docs/format/index.md`, version 2), big endian, every section with a CRC32C of its content:
//! ```text
//! magic 0xBAAAD700 u32 | version 2
//! symbols         = length u32 | count u32 | (length uvarint, bytes)* ascending | crc u32
//! series*         = (aligned to 16) length uvarint | labels uvarint | (name symbol uvarint, value symbol uvarint)*
//!                 | chunks uvarint | mint varint, maxt - mint uvarint, ref uvarint
//!                 | (mint - previous maxt uvarint, maxt - mint uvarint, ref - previous ref varint)* | crc u32
//! postings*       = (aligned to 4) length u32 | count u32 | series id u32 * | crc u32
//! postings table  = length u32 | count u32 | (2, name, value, offset uvarint)* ascending | crc u32
//! TOC             = offsets u64 of symbols, series, label indices, label indices table, postings, postings table | crc u32
//! ```
//! Series id = offset / 16. Chunk ref = (segment - 1) << 32 | offset in the segment. The pair of empty strings is the list of
//! all series. Label index sections are not written; their two offsets point at empty spans around the postings.
//!
//! Within a series chunks ascend and do not overlap ([`crate::merge::tidy_chunks`] sees to it): Prometheus relies on it.

pub(crate) mod cache;
pub(crate) mod header;
mod index_writer;
pub mod meta;
pub(crate) mod reader;
mod upload;
pub(crate) mod writer;

use triptych_blob::object_store;
use triptych_blob::object_store::path::Path;
use triptych_model::{Error, TenantId};

pub use cache::BlockCaches;
pub use meta::{BlockId, BlockMeta};
pub use reader::Block;
pub use writer::BlockWriter;

pub(crate) const INDEX_MAGIC: u32 = 0xBAAA_D700;
pub(crate) const INDEX_VERSION: u8 = 2;
pub(crate) const SEGMENT_MAGIC: u32 = 0x85BD_40DD;
pub(crate) const SEGMENT_VERSION: u8 = 1;
pub(crate) const SEGMENT_HEADER_BYTES: usize = 8;
/// Prometheus' `DefaultChunkSegmentSize`.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 512 << 20;
pub(crate) const TOC_BYTES: usize = 6 * 8 + 4;

/// Everything of this signal lies below.
pub const PREFIX: &str = "metrics";
pub const META_FILE: &str = "meta.json";
pub const INDEX_FILE: &str = "index";
pub const DELETION_MARK_FILE: &str = "deletion-mark.json";
pub const NO_COMPACT_MARK_FILE: &str = "no-compact-mark.json";

/// `metrics/<tenant>`.
pub fn tenant_path(tenant: &TenantId) -> Path {
    // As it is: `Path::from` would write `*`, which a tenant id may contain, as `%2A`. The alphabet of ids keeps this safe.
    Path::parse(format!("{PREFIX}/{tenant}")).unwrap_or_else(|_| Path::from_iter([PREFIX, tenant.as_str()]))
}

/// `metrics/<tenant>/<ULID>`.
pub fn block_path(tenant: &TenantId, id: BlockId) -> Path {
    tenant_path(tenant).join(id.to_string())
}

/// `chunks/000001` for the first segment, 0.
pub(crate) fn segment_name(segment: u32) -> String {
    format!("chunks/{:06}", u64::from(segment) + 1)
}

pub(crate) fn file_path(dir: &Path, file: &str) -> Path {
    file.split('/').fold(dir.clone(), |path, part| path.join(part))
}

/// What the bucket says, in our kinds.
pub(crate) fn bucket_error(doing: impl std::fmt::Display, e: object_store::Error) -> Error {
    match e {
        object_store::Error::NotFound { .. } => Error::not_found(format!("{doing}: {e}")),
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
            Error::conflict(format!("{doing}: {e}"))
        }
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Error::internal(format!("{doing}: {e}"))
        }
        e => Error::unavailable(format!("{doing}: {e}")),
    }
}

#[cfg(test)]
mod tests;
