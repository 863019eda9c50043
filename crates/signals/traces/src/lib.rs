//! The traces store: live traces in memory, Tempo blocks in the bucket, and how parts become whole traces.
//!
//! **Owns** the OTLP messages as they rest and travel, the head, the block format (vParquet5 written, 4 and 5 read), the reads of
//! both, flush, compaction, retention.
//! **Must not know** gRPC, HTTP, WAL, configuration files, who asks; nor how TraceQL is evaluated: it hands spans to
//! `triptych-traceql` as a [`SpanSource`](triptych_traceql::SpanSource).
//!
//! | module | what is in it |
//! |---|---|
//! | [`otlp`] | borrowed messages, hand-written decoder and encoder; the one model of a trace everywhere here |
//! | [`head`] | [`Head`]: what one tenant wrote in one generation |
//! | [`view`] | a trace as TraceQL sees it: nested sets, root, services; conditions; values |
//! | [`tags`] | tag names and values |
//! | [`merge`] | [`combine`]: parts of a trace to one; streams of several sources to one |
//! | [`block`] | the parquet file: [`schema`](block::schema), [`write`](block::write), [`upload`](block::upload), [`read`](block::read), [`rows`](block::rows) (columns to traces), [`fetch`](block::fetch) (reads with pushdown), [`bloom`](block::bloom), [`meta`](block::meta) |
//! | [`bucket_store`] | [`BucketStore`]: all tenants' blocks |
//! | [`compact`](mod@compact) | [`compact_tenant`]: merge, retention, removal |
//!
//! [`Head`] and [`BucketStore`] offer the same reads with the arguments of the Store API: `find`, `search`, `samples`, `tag_names`,
//! `tag_values`. A suite of tests asks both the same and compares.
//!
//! # In the bucket
//! `traces/<tenant>/<uuid>/{data.parquet, bloom-<n>, index, meta.json | meta.compacted.json}` and `traces/<tenant>/index.json.gz`;
//! byte by byte in `docs/formats/traces.md`.
//!
//! # Consistency
//! A block is there when its `meta.json` is; that object is written last and replaced by `meta.compacted.json` when a larger block has
//! taken over. Copies of a span (replicas, a crash after a flush, a crash inside of a compaction) have the key (trace id, span id, kind,
//! start) and are shown once.
//!
//! # Memory
//! A head: received bytes, LZ4 in chunks of 64 KiB, about 100 bytes per trace, an index of tags up to about 8 MiB where somebody asks
//! for tags; bounded by [`HeadConfig`]. A flush or merge: about twice
//! [`BlockOptions::row_group_bytes`](block::BlockOptions), and 16 MiB of upload. A merge also holds an eighth of a row group per
//! source, decoded. A read: the column chunks of as many row groups as `blocks_ahead`, results reserved from the query's budget per
//! row group; caches as configured.
//!
//! # When you change X, also touch Y
//! - a column: `block::schema`, `block::write` (order of columns), `block::rows`, `block::fetch` (`intrinsic_column`, `Wanted`).
//! - an intrinsic of TraceQL: `view::SpanView::visit_intrinsic`, `block::fetch::intrinsic_column`.
//!
//! # Known holes
//! - A question for tags without a filter is answered for all of a head whose times touch the range.
//! - vParquet has no columns for `schema_url`, span and link `flags`: blocks lose them, as Tempo's do.
//! - In a trace whose spans lie in several blocks, nested sets are known per block only, until they are merged.
//! - The page index is used to skip pages of rows that failed a condition, not (yet) to skip pages by their bounds.
//! - `index.pb.zst` (Tempo's newer tenant index) is not written; Tempo falls back to `index.json.gz`.
//! - A trace that is too large is bounded on its way into a head, not again when parts of it meet in a merge.
//! - A parquet page may claim more bytes than its block's metadata; the parquet crate allocates what the page claims (up to 2 GiB).

pub mod block;
pub mod bucket_store;
pub mod compact;
pub mod head;
pub mod merge;
pub mod otlp;
mod query;
pub mod tags;
pub mod view;

pub use block::{BlockMeta, BlockOptions, DedicatedColumn};
pub use bucket_store::{BucketStore, BucketStoreConfig, SyncReport, completes, tenants};
pub use compact::{CompactConfig, CompactReport, compact_tenant};
pub use head::{FlushOptions, FlushReport, Head, HeadConfig};
pub use merge::combine;

#[cfg(test)]
mod suite;
#[cfg(test)]
mod testing;
