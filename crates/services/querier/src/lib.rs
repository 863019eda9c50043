//! Answers the three languages over everything that holds data, and offers all of it as one Store API.
//!
//! **Owns** asking all sources at once, what happens when one of them fails, on which pool evaluation runs, how many queries run
//! at a time.
//! **Must not know** formats or languages: the doors (`metrics`, `logs`, `traces`) join the merges of the signal's crates with
//! the engines of its language. Nor HTTP.
//!
//! | module | |
//! |---|---|
//! | `fan` | one question to many sources: concurrency, failures, cancellation |
//! | `metrics`, `logs`, `traces` | the doors: the merged Store API, and the language over it |
//!
//! **Failures.** A source that fails is named in the query's report ([`QueryContext::missed`]) and the answer goes on without it,
//! also when it fails half way through its stream. The query fails when every source has failed (with the first error), and at
//! once when the question is wrong (`Invalid`), a limit of the query is spent (`Exhausted`), or the query was cancelled or is too
//! late.
//!
//! **Cancellation.** Everything runs in tasks on the query pool that are aborted when the answer is dropped, the context is
//! cancelled, or the deadline passes.
//!
//! **Memory**: what the engines and merges reserve from the query's budget; per source a hand-over of two batches.
//!
//! Known holes: figures (`stats`, `volume`) are added up over sources, so what several of them hold counts several times. A
//! source that hangs is waited for until the query's deadline.

mod fan;
mod logs;
mod metrics;
mod telemetry;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use triptych_model::logs::{LogsQuery, LogsValue};
use triptych_model::metrics::{MetricsQuery, QueryValue};
use triptych_model::traces::TracesMetricsQuery;
use triptych_model::{Error, Result, Signal};
use triptych_rpc::{LogsStore, MetricsStore, Query, TracesStore};
use triptych_runtime::QueryContext;

pub use telemetry::TELEMETRY;

use fan::Fan;

/// Evaluates queries over ingesters and store-gateways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Queries evaluated at a time; more wait until one is done or their deadline passes.
    pub queries_max: usize,
    /// PromQL: how long a sample stands for its series.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub lookback: Duration,
    /// PromQL: the resolution of subqueries that name none.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub subquery_step: Duration,
    /// PromQL: metric names are dropped at the end of a query, not on the way (Prometheus' experimental
    /// `promql-delayed-name-removal`).
    pub promql_delayed_name_removal: bool,
    /// Most points in a series of an answer (PromQL and LogQL).
    pub points_max: usize,
    /// Most series in the answer of a LogQL metric query; 0: no limit.
    pub logs_series_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queries_max: 20,
            lookback: Duration::from_secs(300),
            subquery_step: Duration::from_secs(60),
            promql_delayed_name_removal: false,
            points_max: 11_000,
            logs_series_max: 500,
        }
    }
}

/// Something that answers a part of the Store API: an ingester or a store-gateway.
pub struct Source<S: ?Sized> {
    /// Shown to people where it fails: `ingester-0`.
    pub name: Arc<str>,
    pub store: Arc<S>,
}

impl<S: ?Sized> Source<S> {
    pub fn new(name: impl Into<Arc<str>>, store: Arc<S>) -> Self {
        Self { name: name.into(), store }
    }
}

impl<S: ?Sized> Clone for Source<S> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), store: self.store.clone() }
    }
}

/// Everything that is asked, per signal.
#[derive(Default)]
pub struct Sources {
    pub metrics: Vec<Source<dyn MetricsStore>>,
    pub logs: Vec<Source<dyn LogsStore>>,
    pub traces: Vec<Source<dyn TracesStore>>,
}

/// What the querier is built from.
pub struct Deps {
    pub sources: Sources,
    /// Where evaluation runs.
    pub query: Handle,
}

/// Sources of one signal, exchanged as a whole.
struct Pool<S: ?Sized>(Arc<RwLock<Arc<[Source<S>]>>>);

impl<S: ?Sized> Pool<S> {
    fn new(sources: Vec<Source<S>>) -> Self {
        Self(Arc::new(RwLock::new(sources.into())))
    }

    fn set(&self, sources: Vec<Source<S>>) {
        *self.0.write() = sources.into();
    }

    fn all(&self) -> Arc<[Source<S>]> {
        self.0.read().clone()
    }
}

impl<S: ?Sized> Clone for Pool<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub struct Querier {
    metrics: Arc<metrics::Door>,
    logs: Arc<logs::Door>,
    traces: Arc<traces::Door>,
    languages: Arc<Languages>,
}

impl Config {
    pub fn build(self, deps: Deps) -> Querier {
        let Sources { metrics, logs, traces } = deps.sources;
        let fan = |signal| Fan::new(signal, deps.query.clone());
        let metrics = Arc::new(metrics::Door::new(&self, fan(Signal::Metrics), Pool::new(metrics)));
        let logs = Arc::new(logs::Door::new(&self, fan(Signal::Logs), Pool::new(logs)));
        let traces = Arc::new(traces::Door::new(fan(Signal::Traces), Pool::new(traces)));
        let languages = Arc::new(Languages {
            metrics: metrics.clone(),
            logs: logs.clone(),
            traces: traces.clone(),
            running: Semaphore::new(self.queries_max.clamp(1, Semaphore::MAX_PERMITS)),
        });
        Querier { metrics, logs, traces, languages }
    }
}

impl Querier {
    /// The Store API over all sources.
    pub fn metrics(&self) -> Arc<dyn MetricsStore> {
        self.metrics.clone()
    }

    /// The Store API over all sources.
    pub fn logs(&self) -> Arc<dyn LogsStore> {
        self.logs.clone()
    }

    /// The Store API over all sources.
    pub fn traces(&self) -> Arc<dyn TracesStore> {
        self.traces.clone()
    }

    /// The languages over all sources.
    pub fn query(&self) -> Arc<dyn Query> {
        self.languages.clone()
    }

    /// Asks others from now on; what runs already goes on with those it began with.
    pub fn set_sources(&self, sources: Sources) {
        self.metrics.set_sources(sources.metrics);
        self.logs.set_sources(sources.logs);
        self.traces.set_sources(sources.traces);
    }
}

struct Languages {
    metrics: Arc<metrics::Door>,
    logs: Arc<logs::Door>,
    traces: Arc<traces::Door>,
    running: Semaphore,
}

impl Languages {
    /// Waits for a place, runs, counts.
    async fn admitted<T>(
        &self,
        ctx: &QueryContext,
        signal: Signal,
        query: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let began = tokio::time::Instant::now();
        let outcome = match fan::in_time(ctx, async {
            self.running.acquire().await.map_err(|_| Error::unavailable("the querier is shutting down"))
        })
        .await
        {
            Ok(_place) => query.await,
            Err(e) => Err(e),
        };
        let kind = outcome.as_ref().map_or_else(|e| e.kind.as_str(), |_| "success");
        telemetry::queries(signal.as_str(), kind).increment(1);
        telemetry::query_seconds(signal.as_str()).record(began.elapsed().as_secs_f64());
        outcome
    }
}

#[async_trait]
impl Query for Languages {
    async fn metrics(&self, ctx: &QueryContext, query: &MetricsQuery) -> Result<QueryValue> {
        self.admitted(ctx, Signal::Metrics, self.metrics.query(ctx, query)).await
    }

    async fn logs(&self, ctx: &QueryContext, query: &LogsQuery) -> Result<LogsValue> {
        self.admitted(ctx, Signal::Logs, self.logs.query(ctx, query)).await
    }

    async fn traces(&self, ctx: &QueryContext, query: &TracesMetricsQuery) -> Result<QueryValue> {
        self.admitted(ctx, Signal::Traces, self.traces.query(ctx, query)).await
    }
}

#[cfg(test)]
mod tests;
