//! The protocols of others: push protocols and exposition formats, from bytes to the calls of a sink, and Prometheus' remote read.
//!
//! **Owns** what remote write and read, Loki push, OTLP and the exposition formats mean; content encodings and their limits.
//! **Must not know** tenants, limits per tenant, batches, shards, HTTP, gRPC, async.
//!
//! | module | what is in it |
//! |---|---|
//! | [`sink`] | what a receiver implements: series, streams, spans |
//! | [`body`] | snappy, gzip, zstd, deflate with hard limits |
//! | [`wire`] | protobuf over borrowed bytes |
//! | [`remote_write`] | Prometheus remote write 1.0 and 2.0 |
//! | [`remote_read`] | Prometheus remote read: the question, both forms of the answer |
//! | [`loki_push`] | Loki's push, protobuf and JSON |
//! | [`otlp`] | OTLP traces, logs and metrics, protobuf and JSON |
//! | [`exposition`] | Prometheus text 0.0.4 and OpenMetrics 1.0 |
//!
//! **Memory:** a decoder keeps slices of the body and scratch space of the size of its largest item; nothing is allocated per
//! sample, line or span on the protobuf paths. What a small body may unfold into (labels repeated per bucket, a resource repeated
//! per trace) is bounded by the sink, whose errors end the decoding.
//! **Errors** are [`triptych_model::Error`]s of kind `Invalid` and concern the whole request; single items that cannot be taken
//! are handed to the sink's `refuse`, in the originals' words.
//!
//! Known holes: native histograms are counted as refused, in every protocol.

pub mod body;
pub mod exposition;
pub mod loki_push;
pub mod otlp;
pub mod remote_read;
pub mod remote_write;
pub mod sink;
pub mod wire;

#[cfg(test)]
mod testing;
