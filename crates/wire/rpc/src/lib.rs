//! The internal contracts between services, as Rust traits over `model` types, each with a gRPC server and client.
//!
//! **Owns** `proto/triptych/v1/*.proto`, the conversions between them and `model`, deadlines, tenants and trace context in
//! gRPC metadata, the table from error kinds to gRPC and HTTP, the in-process channel.
//! **Must not know** stores, languages, HTTP APIs.
//!
//! | trait | served by | asked by |
//! |---|---|---|
//! | [`Ingest`] | ingester | distributor |
//! | [`MetricsStore`], [`LogsStore`], [`TracesStore`] | ingester, store-gateway; merged: querier | querier; gateway |
//! | [`Query`] | querier | gateway, ruler |
//! | [`Write`] | distributor (in process: scraper, agent, ruler) | |

pub mod traits;

pub use traits::{Ingest, LogsStore, MetricsStore, Query, TracesStore, Write, WriteContext};
