//! The one HTTP door: Prometheus', Loki's and Tempo's read APIs, tenancy, and the page at `/`.
//!
//! **Owns** HTTP parameters, status codes and JSON of the originals' read APIs, and how a request becomes a question with
//! budgets and a deadline.
//! **Must not know** storage, evaluation, how a language works inside (it parses a selector where an API takes one, no more).
//!
//! | module | what is in it |
//! |---|---|
//! | [`metrics`] | `/api/v1/...`, also below `/prometheus` |
//! | [`logs`] | `/loki/api/v1/...` |
//! | [`traces`] | `/api/traces`, `/api/search`, `/api/metrics`, also below `/tempo`; gRPC `tempopb.StreamingQuerier` |
//! | [`params`] | query string and form, times, durations, limits |
//! | [`request`] | tenant, limits, deadline, cancellation when the client goes |
//! | [`ui`] | the page |
//!
//! When you add an endpoint: handler and route in the signal's folder, a row in `docs/http-api.md`, a case in its tests.

pub mod json;
pub mod logs;
pub mod metrics;
pub mod params;
pub mod request;
pub mod traces;
pub mod ui;

use std::sync::Arc;

use axum::Router;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use triptych_config::TenantLimits;
use triptych_rpc::{LogsStore, MetricsStore, Query, TracesStore};

/// The HTTP door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Questions answered at the same time; more wait, and are refused with 503 when their deadline passes.
    pub concurrent_queries_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { concurrent_queries_max: 64 }
    }
}

/// What the scraper knows of its targets, for `/api/v1/targets`: the `data` of the answer.
pub type Targets = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What the gateway is built from.
pub struct Deps {
    pub metrics: Arc<dyn MetricsStore>,
    pub logs: Arc<dyn LogsStore>,
    pub traces: Arc<dyn TracesStore>,
    pub query: Arc<dyn Query>,
    pub limits: TenantLimits,
    /// Read the tenant from `X-Scope-OrgID`; otherwise there is one.
    pub multitenancy: bool,
    pub targets: Option<Targets>,
}

/// What every handler shares.
pub struct Shared {
    pub(crate) metrics: Arc<dyn MetricsStore>,
    pub(crate) logs: Arc<dyn LogsStore>,
    pub(crate) traces: Arc<dyn TracesStore>,
    pub(crate) query: Arc<dyn Query>,
    pub(crate) limits: TenantLimits,
    pub(crate) multitenancy: bool,
    pub(crate) targets: Option<Targets>,
    pub(crate) slots: tokio::sync::Semaphore,
}

pub struct Gateway {
    shared: Arc<Shared>,
}

impl Config {
    pub fn build(self, deps: Deps) -> Gateway {
        let Deps { metrics, logs, traces, query, limits, multitenancy, targets } = deps;
        let slots = tokio::sync::Semaphore::new(self.concurrent_queries_max.max(1));
        Gateway {
            shared: Arc::new(Shared { metrics, logs, traces, query, limits, multitenancy, targets, slots }),
        }
    }
}

impl Gateway {
    /// All read APIs and the page.
    pub fn routes(&self) -> Router {
        let shared = self.shared.clone();
        Router::new()
            .merge(metrics::routes(shared.clone()))
            .nest("/prometheus", metrics::routes(shared.clone()))
            .merge(logs::routes(shared.clone()))
            .merge(traces::routes(shared.clone()))
            .nest("/tempo", traces::routes(shared.clone()))
            .merge(traces::stream::routes(shared))
            .merge(ui::routes())
            // Answers are text that compresses well; the layer leaves small ones and clients that do not ask alone.
            .layer(tower_http::compression::CompressionLayer::new())
            // Inside of compression: the span times the work, not the client's reading speed.
            .layer(triptych_telemetry::trace::layer("gateway"))
    }
}

#[cfg(test)]
mod tests;
