//! Object storage: the bucket that everything ends up in.
//!
//! **Owns** how a bucket is built from the config (local directory, S3-compatible), what its errors mean, and the wrappers
//! around it. Every wrapper is an [`object_store::ObjectStore`] itself.
//! **Must not know** what the objects mean.
//!
//! | module | what is in it |
//! |---|---|
//! | [`config`] | [`BucketConfig`] and what `build` makes of it |
//! | [`error`] | from object_store's errors to our kinds |
//! | [`count`] | [`CountedBucket`]: operations, outcomes, bytes, latency |
//! | [`cache`] | [`CachedBucket`]: aligned ranges of immutable objects, bounded in bytes, fetched once |
//! | [`warm`] | opening what will be asked for before anybody asks |
//! | [`fenced`] | [`FencedBucket`]: writes only as long as it may |
//! | [`probe`] | whether conditional puts are honoured |
//! | [`failing`] | [`FailingBucket`]: the twin that fails or hesitates on demand or by seed, for tests |
//!
//! A bucket from the config is `count(S3 client)` or `count(local directory)`; a reader of immutable objects puts a cache around it.
//! Retries are the S3 client's own (capped exponential backoff with jitter; only what is worth another try; a body that breaks off is
//! resumed). A local directory is not retried: what fails there fails again.
//!
//! # Consistency
//! A put that returned is durable: S3 says so itself; in a directory the file is written under another name, synced, renamed, and
//! the directory is synced. A reader sees the whole object or none. Nothing here relies on conditional puts, which some
//! S3-compatible servers ignore.
//!
//! # Memory
//! [`CachedBucket`] holds at most `bytes_max` plus what is being fetched. The others hold nothing.
//!
//! # Known holes
//! - A crash in the middle of a put to a directory leaves a staging file (`name#1`) behind, which listings do not show and nobody
//!   removes.
//! - Deleting from a directory is not synced: a deleted object may be back after power loss. Deletions are repeated anyway.

use std::sync::Arc;

pub mod cache;
pub mod config;
pub mod count;
pub mod error;
pub mod failing;
pub mod fenced;
pub mod probe;
#[cfg(test)]
mod suite;
mod telemetry;
pub mod warm;

pub use object_store;

pub use cache::{CacheConfig, CachedBucket};
pub use config::{BucketConfig, FilesystemConfig, S3Config, Secret, local};
pub use count::{CountedBucket, Operation};
pub use error::store_error;
pub use failing::FailingBucket;
pub use fenced::FencedBucket;
pub use telemetry::TELEMETRY;
pub use warm::WarmReport;

/// The bucket as everybody sees it.
pub type Bucket = Arc<dyn object_store::ObjectStore>;

/// A bucket in memory, for tests.
pub fn memory() -> Bucket {
    Arc::new(object_store::memory::InMemory::new())
}
