//! Our own metrics, logs and traces. The word *metrics* belongs to the signal, so everything of ours is *telemetry*.
//!
//! **Owns** how a process logs (text or JSON, to stderr and to a file that the agent tails), how it exposes `/metrics`, how its
//! requests are traced (OTLP to itself by default) and how trace context travels.
//! **Must not know** the services. They count with the `metrics` facade, through what
//! they declare with `triptych_model::telemetry!`, and log with `tracing`.
//!
//! Start with [`Config::start`]; keep the returned [`Telemetry`] until the process ends.

pub mod config;
pub mod exposition;
mod log_file;
pub mod trace;

pub use config::{Config, Telemetry};
