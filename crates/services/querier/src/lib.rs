//! Answers the three languages over everything that holds data, and offers all of it as one Store API.
//!
//! **Owns** asking all sources at once, what happens when one of them fails, on which pool evaluation runs, how many queries run
//! at a time.
//! **Must not know** formats or languages: the doors (`metrics`, `logs`, `traces`) join the merges of the signal's crates with
//! the engines of its language. Nor HTTP.
//!
//! | module | |
//! |---|---|
//! | `sources` | who is asked: ingesters and store-gateways as the ring shows them |
//! | `fan` | one question to many sources: concurrency, failures, cancellation |
//! | `metrics`, `logs`, `traces` | the doors: the merged Store API, and the language over it |
//!
//! **Failures.** The answer goes on without a source that fails, also when it fails half way through its stream:
//!
//! - *ingesters*: an acknowledged item is in a quorum of zones. As long as fewer zones than that are incomplete, the answer is whole
//!   ([`triptych_ring::Coverage`]); beyond it the failures are named in the query's report ([`QueryContext::missed`]);
//! - *store-gateways* divide the tenant's blocks between those that are asked (`limits.store_gateways_max`). For one that fails the others
//!   are asked once more, for its part alone, twice at most; only what then still fails is missed. What cannot be read because it
//!   is damaged is missed at once: another one would find the same. A search that looks at traces as wholes
//!   (`triptych_traceql::is_by_span`) is asked of one store-gateway for all blocks, so that its answer does not depend on how many there
//!   are.
//!
//! The query fails when every source has failed (with the first error), and at once when the question is wrong (`Invalid`), a
//! limit of the query is spent (`Exhausted`), or the query was cancelled or is too late.
//!
//! **Cancellation.** Everything runs in tasks on the query pool that are aborted when the answer is dropped, the context is
//! cancelled, or the deadline passes.
//!
//! **Memory**: what the engines and merges reserve from the query's budget; per source a hand-over of two batches.
//!
//! Known holes: figures (`stats`, `volume`, cardinality) of ingesters are divided by the number of copies, which is exact only while all
//! replicas hold the same; what is both in heads and in the bucket counts twice for as long as flushed data are retained. A source that
//! hangs is waited for until the query's deadline, or until the ring thinks that it is dead.
//! Series that are read for others (`read_samples`, `read_chunks`) are on their way when a source fails: they are not asked for again,
//! what was missed is told.

mod fan;
mod logs;
mod metrics;
mod sources;
mod telemetry;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use triptych_config::TenantLimits;
use triptych_model::logs::{LogsQuery, LogsValue};
use triptych_model::metrics::{MetricsQuery, QueryValue, SeriesChunks, SeriesSamples, SeriesSelect};
use triptych_model::traces::TracesMetricsQuery;
use triptych_model::{Error, Result, Signal};
use triptych_rpc::traits::Stream;
use triptych_rpc::{LogsStore, MetricsStore, Query, TracesStore};
use triptych_runtime::QueryContext;

use fan::{ATTEMPTS_MAX, Fan};
use sources::Pool;
pub use sources::{Sources, Stores};
pub use telemetry::TELEMETRY;

/// Evaluates queries over ingesters and store-gateways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A querier that starts waits for so long until it knows whom to ask for a whole answer, and is not asked before. Then it answers as
    /// whole as it can, and says what is missing.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub whole_wait_max: Duration,
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
            whole_wait_max: Duration::from_secs(15),
            queries_max: 20,
            lookback: Duration::from_secs(300),
            subquery_step: Duration::from_secs(60),
            promql_delayed_name_removal: false,
            points_max: 11_000,
            logs_series_max: 500,
        }
    }
}

/// What the querier is built from.
pub struct Deps {
    pub sources: Sources,
    pub limits: TenantLimits,
    /// Where evaluation runs.
    pub query: Handle,
}

pub struct Querier {
    sources: Sources,
    /// Until then it waits for sources that make answers whole.
    waits_until: Instant,
    metrics: Arc<metrics::Door>,
    logs: Arc<logs::Door>,
    traces: Arc<traces::Door>,
    languages: Arc<Languages>,
}

impl Config {
    /// How PromQL is evaluated.
    pub fn promql(&self) -> triptych_promql::Engine {
        triptych_promql::Engine::new(triptych_promql::EngineConfig {
            lookback_ms: self.lookback.as_millis() as i64,
            subquery_step_ms: self.subquery_step.as_millis() as i64,
            points_max: self.points_max as i64,
            delayed_name_removal: self.promql_delayed_name_removal,
        })
    }

    /// How LogQL is evaluated.
    pub fn logql(&self) -> triptych_logql::Engine {
        triptych_logql::Engine::new(triptych_logql::EngineConfig {
            series_max: self.logs_series_max,
            steps_max: self.points_max,
            ..triptych_logql::EngineConfig::default()
        })
    }

    pub fn build(self, deps: Deps) -> Querier {
        let Deps { sources, limits, query } = deps;
        let metrics = Pool::new(sources.clone(), limits.clone(), |s| s.metrics.clone());
        let logs = Pool::new(sources.clone(), limits.clone(), |s| s.logs.clone());
        let traces = Pool::new(sources.clone(), limits, |s| s.traces.clone());
        let metrics = Arc::new(metrics::Door::new(&self, Fan::new(Signal::Metrics, metrics, query.clone())));
        let logs = Arc::new(logs::Door::new(&self, Fan::new(Signal::Logs, logs, query.clone())));
        let traces = Arc::new(traces::Door::new(Fan::new(Signal::Traces, traces, query)));
        let languages = Arc::new(Languages {
            metrics: metrics.clone(),
            logs: logs.clone(),
            traces: traces.clone(),
            running: Arc::new(Semaphore::new(self.queries_max.clamp(1, Semaphore::MAX_PERMITS))),
        });
        Querier {
            sources,
            waits_until: Instant::now() + self.whole_wait_max,
            metrics,
            logs,
            traces,
            languages,
        }
    }
}

impl Querier {
    /// Whether the sources are known that it takes to answer whole, or any after [`Config::whole_wait_max`]. Before that, other queriers
    /// should be asked.
    pub fn is_ready(&self) -> bool {
        self.sources.are_whole() || (Instant::now() >= self.waits_until && self.sources.are_any())
    }

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
}

struct Languages {
    metrics: Arc<metrics::Door>,
    logs: Arc<logs::Door>,
    traces: Arc<traces::Door>,
    running: Arc<Semaphore>,
}

impl Languages {
    /// Waits for a place.
    async fn place(&self, ctx: &QueryContext) -> Result<OwnedSemaphorePermit> {
        let running = self.running.clone();
        fan::in_time(ctx, async {
            running.acquire_owned().await.map_err(|_| Error::unavailable("the querier is shutting down"))
        })
        .await
    }

    /// Waits for a place, runs, counts. Runs again when a store-gateway failed under it half way, as `failures` shows: then another one is
    /// asked. What the query read in vain counts.
    async fn evaluated<T, F: Future<Output = Result<T>> + Send>(
        &self,
        ctx: &QueryContext,
        signal: Signal,
        failures: impl Fn() -> u64 + Send,
        attempt: impl Fn(QueryContext) -> F + Send,
    ) -> Result<T> {
        let began = Instant::now();
        let outcome = match self.place(ctx).await {
            Ok(_place) => made_whole(ctx, failures, attempt).await,
            Err(e) => Err(e),
        };
        let kind = outcome.as_ref().map_or_else(|e| e.kind.as_str(), |_| "success");
        telemetry::queries(signal.as_str(), kind).increment(1);
        telemetry::query_seconds(signal.as_str()).record(began.elapsed().as_secs_f64());
        outcome
    }
}

async fn made_whole<T, F: Future<Output = Result<T>>>(
    ctx: &QueryContext,
    failures: impl Fn() -> u64,
    attempt: impl Fn(QueryContext) -> F,
) -> Result<T> {
    let mut attempts = ATTEMPTS_MAX;
    loop {
        attempts -= 1;
        let (before, part) = (failures(), ctx.part());
        let outcome = attempt(part.clone()).await;
        let mut report = part.report();
        let is_again =
            attempts > 0 && !report.missed.is_empty() && failures() != before && ctx.check().is_ok();
        if is_again {
            report.missed.clear();
        }
        ctx.add_report(report);
        if !is_again {
            return outcome;
        }
    }
}

#[async_trait]
impl Query for Languages {
    async fn metrics(&self, ctx: &QueryContext, query: &MetricsQuery) -> Result<QueryValue> {
        let door = &self.metrics;
        let attempt = |ctx| async move { door.query(&ctx, query).await };
        self.evaluated(ctx, Signal::Metrics, || door.failures(), attempt).await
    }

    async fn logs(&self, ctx: &QueryContext, query: &LogsQuery) -> Result<LogsValue> {
        let door = &self.logs;
        let attempt = |ctx| async move { door.query(&ctx, query).await };
        self.evaluated(ctx, Signal::Logs, || door.failures(), attempt).await
    }

    async fn traces(&self, ctx: &QueryContext, query: &TracesMetricsQuery) -> Result<QueryValue> {
        let door = &self.traces;
        let attempt = |ctx| async move { door.query(&ctx, query).await };
        self.evaluated(ctx, Signal::Traces, || door.failures(), attempt).await
    }

    async fn read_samples(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesSamples>> {
        let place = self.place(ctx).await?;
        Ok(held(self.metrics.read_samples(ctx, select).await?, place))
    }

    async fn read_chunks(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        let place = self.place(ctx).await?;
        Ok(held(self.metrics.read_chunks(ctx, select).await?, place))
    }
}

/// A stream that keeps its place until it ends.
fn held<T: Send + 'static>(stream: Stream<T>, place: OwnedSemaphorePermit) -> Stream<T> {
    stream
        .inspect(move |_| {
            let _ = &place;
        })
        .boxed()
}

#[cfg(test)]
mod tests;
