//! Receives every push protocol, checks it against the tenant's limits, and hands sealed batches to the ingesters.
//!
//! **Owns** the HTTP and gRPC doors of the write path, tenants of requests, rate limits, validation, which ingester a series,
//! stream or trace goes to, and how refusals are told in each protocol.
//! **Must not know** storage, query languages, wire formats (`intake` decodes them).
//!
//! | module | what is in it |
//! |---|---|
//! | [`config`] | [`Config`] and `build` |
//! | `distributor` | the part itself: budgets, rate limit, a batch per replica set |
//! | `replicate` | where batches go, and when they count as written |
//! | `http`, `grpc` | routes and bodies; OTLP over gRPC without decoding twice |
//! | `metrics`, `logs`, `traces` | the doors: a sink that validates and fills batches |
//! | `level` | the level of a log line, for `detected_level` |
//! | `refusal` | why a request was not taken, as HTTP text, OTLP status, gRPC status |
//! | `write` | [`triptych_rpc::Write`] for parts in the same process |
//! | [`limiter`], `telemetry` | token buckets; our own counters |
//!
//! **The path of a request:** tenant, content type, room in the budget, body, decode into batches (one per replica set), rate limit
//! over the bytes of the batches, send, answer. Nothing is sent before the whole request was decoded, so a damaged one writes
//! nothing. Items that break a limit are left out, the others are written; the answer then is 400 with examples (remote write,
//! Loki push) or a partial success (OTLP).
//! **Memory:** compressed body, decoded body and batches of all requests together stay below the share `pushes` of the process' budget,
//! shared out fairly among the tenants; one request below `body_bytes_max`, `request_bytes_max` and `batch_bytes_max`. Above it the
//! answer is 429 for a tenant that holds more than its part, else 503, to be retried.
//!
//! A write is acknowledged when a quorum of zones has synced it. One that fails may be there all the same, on some or on all ingesters:
//! the sender sends it again, and copies are merged by their natural key.
//!
//! Known holes: no HA-pair deduplication.

pub mod config;
mod distributor;
mod grpc;
mod http;
mod level;
pub mod limiter;
mod logs;
mod metrics;
mod refusal;
mod replicate;
mod telemetry;
mod traces;
mod write;

pub use config::Config;
pub use distributor::{Deps, Distributor};
pub use replicate::Ingesters;
pub use telemetry::TELEMETRY;

#[cfg(test)]
mod tests;
