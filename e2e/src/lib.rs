//! The whole product from outside: a real process, real clients, nothing but its ports and its exit.
//!
//! | module | what |
//! |---|---|
//! | `binary` | finds the `triptych` binary beside the test, builds it where it is missing or old |
//! | `process` | starts it, kills it (`kill -9`), stops it (SIGTERM), starts it again over the same data |
//! | `cluster` | each role its own process, several of each, found by gossip |
//! | `deployment` | one process or a cluster, for scenarios that run against both |
//! | `network` | an address for each member of a cluster, and doors between them that can be shut, slow or lossy |
//! | `client` | small typed clients: remote write, Loki push (JSON, protobuf), OTLP, and the read APIs |
//! | `grpc` | Tempo's streaming search |
//! | `sdk` | the OpenTelemetry SDK as an application uses it: traces over gRPC, logs and metrics over HTTP |
//! | `dataset` | a known set of samples, lines and spans; writes it and checks that exactly it is read back |
//! | `load` | a load of all three signals that knows what was acknowledged, and readers that check it meanwhile |
//! | `s3` | an S3-compatible server in this process, which can be away |
//!
//! Scenarios lie in `tests/`, one file each. `TRIPTYCH_BIN` names another binary to test (a release build, an image's).
//!
//! May use: ports on 127.0.0.1, for clusters further addresses of 127.0.0.0/8, temporary directories, a process, or a cluster, at a time per test. Knows no internals: what it needs of the
//! formats it brings along (the messages in `client`) or takes from the OpenTelemetry crates.

#![allow(clippy::disallowed_methods, reason = "real time, from outside of the process")]

pub mod binary;
pub mod client;
pub mod cluster;
pub mod dataset;
pub mod deployment;
pub mod grpc;
pub mod load;
pub mod network;
pub mod process;
pub mod s3;
pub mod sdk;

pub use client::Client;
pub use cluster::Cluster;
pub use deployment::Deployment;
pub use process::{Options, Process};

/// Nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

pub fn now_ms() -> i64 {
    now_ns() / 1_000_000
}
