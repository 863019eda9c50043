//! The one HTTP door: Prometheus', Loki's and Tempo's read APIs, tenancy, the page at `/`; in a cluster pushes too, which it passes on.
//!
//! **Owns** HTTP parameters, status codes and JSON of the originals' read APIs, and how a request becomes a question with
//! budgets and a deadline.
//! **Must not know** storage, evaluation, how a language works inside (it parses what an API takes parsed, and shows its tree).
//!
//! | module | what is in it |
//! |---|---|
//! | [`metrics`] | `/api/v1/...`, also below `/prometheus` |
//! | [`logs`] | `/loki/api/v1/...` |
//! | [`traces`] | `/api/traces`, `/api/search`, `/api/metrics`, also below `/tempo`; gRPC `tempopb.StreamingQuerier` |
//! | [`json`], [`numbers`] | what answers are written with |
//! | [`params`] | query string and form, times, durations, limits |
//! | [`front`] | between the handlers and the queriers: turns, queriers that fail, sub-queries |
//! | [`held`] | answers that wait for a slow client |
//! | [`push`] | pushes, passed on to a distributor |
//! | [`request`] | tenant, limits, deadline, cancellation when the client goes |
//! | [`ui`] | the page |
//!
//! When you add an endpoint: handler and route in the signal's folder, a row in `docs/http-api.md`, a case in its tests.

pub mod front;
mod held;
pub mod json;
pub mod logs;
pub mod metrics;
pub mod numbers;
pub mod params;
pub mod push;
pub mod request;
mod telemetry;
pub mod traces;
pub mod ui;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use triptych_config::TenantLimits;
use triptych_ring::Peers;
use triptych_rpc::{LogsStore, MetricsStore, Query, TracesStore};
use triptych_runtime::MemoryBudget;

pub use telemetry::TELEMETRY;

use front::{Backend, Engines, Front, Settings};

/// The HTTP door.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Sub-queries that one querier is asked at a time; more wait, and tenants that wait take turns.
    pub running_per_querier_max: usize,
    /// Of all sub-queries that run, those of one tenant, in percent. Counts where there are several tenants.
    pub tenant_share_percent: usize,
    /// Sub-queries of one tenant that wait; a request with more is refused with 429.
    pub queued_per_tenant_max: usize,
    /// Sub-queries of one request that run at a time.
    pub subqueries_per_request_max: usize,
    /// Range queries longer than this are cut at multiples of it, and the spans evaluated at the same time; 0: they are not.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub split_interval: Duration,
    /// Into how many parts the series of a query are cut, to be evaluated at the same time; 1: they are not; 0: as many as this
    /// machine has cores.
    pub shards: u32,
    /// Remember the answers of range queries (PromQL, LogQL and TraceQL metrics) for as long as the data they were made from stays the
    /// same. `Cache-Control: no-store` asks for an answer made anew.
    pub result_cache: bool,
    /// Memory that remembered answers may take. 0: a share of `memory_limit`.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub result_cache_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            running_per_querier_max: 16,
            tenant_share_percent: 50,
            queued_per_tenant_max: 1000,
            subqueries_per_request_max: 8,
            split_interval: Duration::from_secs(86_400),
            shards: 0,
            result_cache: true,
            result_cache_bytes_max: 0,
        }
    }
}

/// What the scraper knows of its targets: the `data` of `/api/v1/targets`, and the `scrapePools` of `/api/v1/scrape_pools`.
pub type Targets = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What the gateway is built from.
pub struct Deps {
    pub queriers: Peers<Backend>,
    pub engines: Engines,
    pub limits: TenantLimits,
    /// What remembered answers may take, where the config does not say.
    pub memory: MemoryBudget,
    /// Read the tenant from `X-Scope-OrgID`; otherwise there is one.
    pub multitenancy: bool,
    pub targets: Option<Targets>,
    /// Where pushes go, and what those under way may take; `None`: this process has a distributor of its own.
    pub pushes: Option<(Peers<push::Distributor>, MemoryBudget)>,
    /// The configuration in use, YAML, secrets hidden: `/api/v1/status/config`.
    pub config: String,
}

/// What every handler shares. The four services are the front.
pub struct Shared {
    pub(crate) metrics: Arc<dyn MetricsStore>,
    pub(crate) logs: Arc<dyn LogsStore>,
    pub(crate) traces: Arc<dyn TracesStore>,
    pub(crate) query: Arc<dyn Query>,
    /// As `query`, with every answer made anew.
    pub(crate) fresh: Arc<dyn Query>,
    pub(crate) limits: TenantLimits,
    pub(crate) multitenancy: bool,
    pub(crate) targets: Option<Targets>,
    pub(crate) config: String,
}

pub struct Gateway {
    queriers: Peers<Backend>,
    shared: Arc<Shared>,
    push: Option<Arc<push::Push>>,
}

impl Config {
    pub fn build(self, deps: Deps) -> Gateway {
        let Deps { queriers, engines, limits, memory, multitenancy, targets, pushes, config } = deps;
        let settings = Settings {
            running_per_querier_max: self.running_per_querier_max,
            tenant_share_percent: if multitenancy { self.tenant_share_percent } else { 100 },
            queued_per_tenant_max: self.queued_per_tenant_max,
            subqueries_per_request_max: self.subqueries_per_request_max,
            split_interval: self.split_interval,
            shards: match self.shards {
                0 => std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
                shards => shards,
            },
        };
        let results = self.result_cache.then(|| match self.result_cache_bytes_max {
            0 => memory,
            bytes => memory.below("remembered answers", bytes as usize),
        });
        let front = Arc::new(Front::new(settings, queriers.clone(), engines, results));
        Gateway {
            queriers,
            push: pushes
                .map(|(distributors, memory)| Arc::new(push::Push::new(distributors, memory, multitenancy))),
            shared: Arc::new(Shared {
                metrics: front.clone(),
                logs: front.clone(),
                traces: front.clone(),
                fresh: Arc::new(front.fresh()),
                query: front,
                limits,
                multitenancy,
                targets,
                config,
            }),
        }
    }
}

impl Gateway {
    /// Whether there is a querier to ask.
    pub fn is_ready(&self) -> bool {
        self.queriers.borrow().iter().any(|peer| peer.member.is_serving())
    }

    /// All read APIs and the page, and pushes where they are passed on.
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
            .merge(self.push.clone().map(push::routes).unwrap_or_default())
            // Answers are text that compresses well; the layer leaves small ones and clients that do not ask alone.
            .layer(tower_http::compression::CompressionLayer::new())
            // Inside of compression: the span times the work, not the client's reading speed.
            .layer(triptych_telemetry::trace::layer("gateway"))
    }
}

#[cfg(test)]
mod tests;
