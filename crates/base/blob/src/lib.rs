//! Object storage: the bucket that everything ends up in.
//!
//! **Owns** how a bucket is built from the config (local directory, S3-compatible), and the wrappers around it: retries with a
//! cap and jitter, request counting, a bounded cache of byte ranges, the failing twin for tests. Every wrapper is an
//! [`object_store::ObjectStore`] itself.
//! **Must not know** what the objects mean.

use std::sync::Arc;

pub use object_store;

/// The bucket as everybody sees it.
pub type Bucket = Arc<dyn object_store::ObjectStore>;
