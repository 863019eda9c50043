//! The internal contracts between services, as Rust traits over `model` types, each with a gRPC server and client.
//!
//! **Owns** `proto/triptych/v1/*.proto`, the conversions between them and `model`, deadlines, tenants and trace context in
//! gRPC metadata and HTTP headers, the table from error kinds to gRPC and HTTP, the in-process channel.
//! **Must not know** stores, languages, HTTP APIs.
//!
//! | trait | served by | asked by | server, client |
//! |---|---|---|---|
//! | [`Ingest`] | ingester | distributor | [`ingest`] |
//! | [`MetricsStore`], [`LogsStore`], [`TracesStore`] | ingester, store-gateway; merged: querier | querier; gateway | [`metrics`], [`logs`], [`traces`] |
//! | [`Query`] | querier | gateway, ruler | [`query`] |
//! | [`Write`] | distributor | scraper, agent, ruler | [`write`] |
//!
//! Besides: [`status`], what an error is to gRPC and HTTP; [`tenant`], who a request is from; [`pool`], on which threads a service
//! works.
//!
//! In one process, still gRPC: [`channel::local`] serves the same tonic services through a pipe, so that `all` and a cluster
//! run one code path. A question carries its context (tenant, time left, budgets) in the message, and the trace it belongs
//! to in `traceparent` metadata; the report of what was read and missed comes back in the last frame.

pub mod channel;
mod context;
mod convert;
pub mod ingest;
pub mod logs;
pub mod metrics;
pub mod pool;
pub mod query;
pub mod status;
pub mod tenant;
pub mod traces;
pub mod traits;
pub mod write;

/// Generated from `proto/`.
#[allow(missing_docs, clippy::all, rust_2018_idioms, reason = "generated")]
pub mod proto {
    tonic::include_proto!("triptych.v1");
}

pub use ingest::{IngestClient, IngestServer};
pub use logs::{LogsStoreClient, LogsStoreServer};
pub use metrics::{MetricsStoreClient, MetricsStoreServer};
pub use pool::OnPool;
pub use query::{QueryClient, QueryServer};
pub use status::{Door, http_status};
pub use tenant::tenant_of;
pub use traces::{TracesStoreClient, TracesStoreServer};
pub use traits::{Ingest, LogsStore, MetricsStore, Query, TracesStore, Write, WriteContext};
pub use write::{WriteClient, WriteServer};

/// A request that carries the current span's trace context.
fn traced<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    triptych_telemetry::trace::inject(request.metadata_mut());
    request
}

#[cfg(test)]
mod tests;
