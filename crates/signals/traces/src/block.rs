//! A Tempo block: `traces/<tenant>/<uuid>/{data.parquet, bloom-<n>, index, meta.json}`.
//!
//! Written as vParquet5, read as vParquet4 and vParquet5. `meta.json` is written last; a block without it does not exist.

pub mod bloom;
pub mod fetch;
pub mod meta;
pub mod read;
pub mod rows;
pub mod schema;
pub mod upload;
pub mod windows;
pub mod write;

pub use meta::BlockMeta;
pub use read::Block;
pub use schema::DedicatedColumn;
pub use upload::{BlockUpload, Uploaded};
pub use windows::{WINDOW_S, WindowUploads};
pub use write::{BlockOptions, BlockWriter};

/// The bucket's prefix of everything here.
pub const PREFIX: &str = "traces";
pub const DATA_NAME: &str = "data.parquet";
pub const INDEX_NAME: &str = "index";
pub const META_NAME: &str = "meta.json";
pub const COMPACTED_META_NAME: &str = "meta.compacted.json";
/// Somebody's wish (an operator's, a tool's) that a block be left alone.
pub const NO_COMPACT_NAME: &str = "nocompact.flg";

pub fn bloom_name(shard: usize) -> String {
    format!("bloom-{shard}")
}
