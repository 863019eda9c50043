//! The logs store: Loki's chunks and index in the bucket, heads in memory.
//!
//! **Owns** encoding and reading of chunks and index files, the head of a tenant, the reads of the Store API over heads and
//! bucket, the merge of several sources, compaction and retention.
//! **Must not know** HTTP, gRPC, the WAL, when something is flushed or compacted. LogQL it knows only as compiled leaves.
//!
//! | module | |
//! |---|---|
//! | [`chunk`] | Loki's chunk: blocks, structured metadata, checksums, the object around it |
//! | [`index`] | Loki's TSDB index: which stream has which chunks |
//! | [`layout`] | where objects lie |
//! | [`head`] | what one tenant wrote in one generation; `flush` |
//! | [`bucket_store`] | all tenants' chunks in the bucket |
//! | [`merge`], `runs` | several sources into one, without copies |
//! | [`compact`] | merging index files and chunks, retention, orphans |
//! | `upload` | a finished chunk into the bucket |
//! | `scan`, `leaf` | how blocks become an answer in the order of time; the seam to LogQL |
//! | `postings`, `figures`, `fields` | label index of a head; stats and volumes; detected fields |
//!
//! **Layout on disk**: `docs/formats/logs.md`. Everything is Loki's (schema v13: chunk v4, TSDB index v3); a bucket prefix is a
//! valid Loki bucket, and Loki's is one of ours.
//!
//! **Consistency**: chunks are written before the index file that names them; a chunk that no index names is not there. A chunk
//! object's name is its content, so writing twice is harmless. The natural key of an entry is stream, time, line and metadata:
//! copies by it (replicas, head and bucket, a client that sent again) are shown once.
//!
//! **Memory**: a head holds compressed blocks and one open block (256 KiB) per stream; [`Head::bytes`] says how much. A read of
//! lines holds one decompressed block at a time, one of samples eight, opened in parallel; beside that what passed of the blocks
//! whose turn has come (reserved in the query's budget), and a bounded read-ahead of chunks. The bucket store's two caches have a size in bytes.

pub mod bucket_store;
pub mod chunk;
pub mod compact;
mod fields;
pub(crate) mod figures;
pub mod head;
pub mod index;
pub mod layout;
pub(crate) mod leaf;
pub mod merge;
pub(crate) mod postings;
pub(crate) mod runs;
pub(crate) mod scan;
#[cfg(test)]
mod suite;
pub(crate) mod upload;

pub use bucket_store::{BucketStore, BucketStoreConfig, SyncReport};
pub use compact::{CompactConfig, CompactReport, compact_tenant, tenants};
pub use head::{FlushOptions, FlushReport, Head, HeadConfig};
pub use merge::{merge_entries, merge_samples};
