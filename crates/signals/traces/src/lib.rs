//! The traces store.

pub mod block;
pub mod bucket_store;
pub mod compact;
pub mod head;
pub mod merge;
pub mod otlp;
mod query;
pub mod tags;
pub mod view;

pub use bucket_store::{BucketStore, BucketStoreConfig, tenants};
pub use compact::{CompactConfig, CompactReport, compact_tenant};
pub use head::{FlushOptions, FlushReport, Head, HeadConfig};
pub use merge::combine;

#[cfg(test)]
mod suite;
#[cfg(test)]
mod testing;
