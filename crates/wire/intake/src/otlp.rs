//! OTLP: the three signals as protobuf; JSON is turned into protobuf first, by the tables of [`schema`].
//!
//! | module | |
//! |---|---|
//! | [`traces`] | regroups spans by trace id, copies slices |
//! | [`logs`] | to Loki streams, as Loki's own OTLP endpoint does |
//! | [`metrics`] | to Prometheus series, as Prometheus' own OTLP endpoint does by default |
//! | [`schema`], [`json`] | the messages as tables; OTLP/JSON to protobuf; a check of structure without decoding |
//! | [`value`], [`names`] | `AnyValue` as text; attribute and metric names as labels |

pub mod json;
pub mod logs;
pub mod metrics;
pub mod names;
pub mod schema;
pub mod traces;
pub mod value;

/// Most messages inside messages. prost, which reads stored traces, stops at 100.
pub const DEPTH_MAX: usize = 64;
