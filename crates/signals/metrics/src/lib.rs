//! The metrics store: what samples look like in memory and in the bucket, and how they are found again.
//!
//! **Owns** XOR chunks, the head, Prometheus TSDB blocks in the bucket, their cache, merge, compaction, retention.
//! **Must not know** PromQL (it implements [`triptych_promql::SeriesSource`], no more), HTTP, gRPC, the WAL, other signals, the
//! wall clock: `now_ms` comes from outside.
//!
//! | module | what is in it |
//! |---|---|
//! | [`chunk`] | the Gorilla XOR chunk, bit for bit Prometheus' |
//! | [`head`] | what one tenant wrote in one generation: append, reads, flush |
//! | [`block`] | Prometheus TSDB blocks: writer and reader, caches for indexes |
//! | [`bucket_store`] | all tenants' blocks, reads over them |
//! | [`mod@merge`] | several sources into one, without copies |
//! | [`compact`] | merge blocks, retention, removal; one round for one tenant |
//!
//! # Vocabulary
//! A *series* is a label set with samples; a *chunk* is up to 120 samples of a series, encoded; a *block* is the chunks of one
//! span of time with an index over them; a *source* of a block is a level-1 block whose samples it holds. Times are
//! milliseconds; ranges include both ends, except `maxTime` of a block.
//!
//! # Consistency
//! - A sample is (series, time). Copies are shown once; of two values for a time one is chosen, the same one everywhere
//!   ([`merge::prefer`]).
//! - A block exists from its `meta.json` on, which is written last and removed first. Objects never change; new content has a
//!   new ULID.
//! - Whatever cannot be read is named in [`triptych_runtime::QueryContext::missed`].
//!
//! # Memory
//! - An empty head takes about 3 KiB. A million series of ten labels with half a chunk each take less than 1 GiB
//!   (`tests/memory.rs`); [`Head::bytes`] says how much.
//! - A select holds 24 bytes per matching series of a head (4 of a block) and some batches of chunks, both reserved on the
//!   query's budget. Indexes are held in [`block::BlockCaches`], limited in bytes.
//! - Writing a block takes its symbols and 4 bytes per (series, label).
//!
//! # Known holes
//! - Native histograms: chunks in foreign blocks survive compaction, but are not ingested and not evaluated; a query that
//!   meets them says so.
//! - External labels of foreign (Thanos) blocks are not added to series; blocks that differ in them are not merged either.
//!   Downsampled blocks are not read, and none are made. Tombstones are ignored.
//! - Metadata and exemplars live in heads only.
//! - Retention goes by whole blocks and one period per tenant.
//! - Index version 1 (before Prometheus 2.0's release) is refused.

pub mod block;
pub mod bucket_store;
pub mod chunk;
pub mod compact;
pub mod head;
mod listing;
pub mod merge;
mod postings;
mod select;
mod source;
#[cfg(test)]
mod testing;

pub use bucket_store::{BucketStore, BucketStoreConfig, SyncReport};
pub use compact::{CompactConfig, CompactReport, compact_tenant, tenants};
pub use head::{FlushOptions, FlushReport, Head, HeadConfig};
pub use listing::completes;
pub use merge::{merge, merge_chunks};
