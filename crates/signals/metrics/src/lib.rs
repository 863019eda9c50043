//! triptych-metrics

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
pub use merge::{merge, merge_chunks};
