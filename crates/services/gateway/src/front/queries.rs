//! The three languages: a question is cut by time and by series as its language says, the sub-queries are asked, and their answers
//! put together.

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use triptych_logql::split as logql;
use triptych_model::logs::{LogEntry, LogsQuery, LogsValue};
use triptych_model::metrics::{MetricsQuery, QueryValue, SeriesChunks, SeriesSamples, SeriesSelect};
use triptych_model::traces::TracesMetricsQuery;
use triptych_model::{Error, Result, Signal, Version, span};
use triptych_promql::split as promql;
use triptych_rpc::traits::Stream;
use triptych_rpc::{LogsStore, MetricsStore, Query, TracesStore, question};
use triptych_runtime::{QueryContext, Reservation};
use triptych_traceql::split as traceql;

use super::Front;
use super::extents::Ranged;

/// An answer that waits for the others, and the memory it takes.
pub(super) struct Held<T> {
    pub value: T,
    pub memory: Reservation,
}

impl Held<QueryValue> {
    pub fn new(ctx: &QueryContext, value: QueryValue) -> Result<Self> {
        let of = |s: &SeriesSamples| size_of_val(&s.samples[..]) + s.labels.as_encoded().len() + 64;
        let bytes = match &value {
            QueryValue::Vector(series) | QueryValue::Matrix(series) => series.iter().map(of).sum(),
            QueryValue::Scalar(_) | QueryValue::String { .. } => 0,
        };
        Ok(Self { value, memory: ctx.reserve(bytes)? })
    }
}

/// The answers in their order; at most so many questions are under way.
async fn buffered<T: Send>(
    questions: Vec<BoxFuture<'_, Result<Held<T>>>>,
    at_once: usize,
) -> Result<(Vec<T>, Vec<Reservation>)> {
    let held: Vec<Held<T>> = stream::iter(questions).buffered(at_once).try_collect().await?;
    Ok(held.into_iter().map(|held| (held.value, held.memory)).unzip())
}

impl Front {
    /// How many spans of a question are asked for at a time, so that at most `subqueries_per_request_max` of its sub-queries run;
    /// `parts`: of each span.
    fn spans_at_once(&self, parts: usize) -> usize {
        (self.inner.settings.subqueries_per_request_max / parts.max(1)).max(1)
    }

    /// By time, and each span by series.
    async fn metrics_cut(
        &self,
        ctx: &QueryContext,
        expr: &triptych_promql::Expr,
        query: &MetricsQuery,
    ) -> Result<QueryValue> {
        let settings = &self.inner.settings;
        let spans = promql::spans(expr, query, settings.split_interval_ms());
        let parts = self.inner.promql.shard(query, expr, settings.shards).map_or(1, |s| s.parts().len());
        if spans.len() == 1 {
            return self.metrics_span(ctx, expr, &spans[0], parts).await;
        }
        let at_once = self.spans_at_once(parts).min(spans.len());
        let questions = spans.iter().map(|span| {
            async move { Held::new(ctx, self.metrics_span(ctx, expr, span, at_once * parts).await?) }.boxed()
        });
        let (answers, _memory) = buffered(questions.collect(), at_once).await?;
        span::join(answers)
    }

    async fn metrics_span(
        &self,
        ctx: &QueryContext,
        expr: &triptych_promql::Expr,
        span: &MetricsQuery,
        memory_shares: usize,
    ) -> Result<QueryValue> {
        let Some(sharded) = self.inner.promql.shard(span, expr, self.inner.settings.shards) else {
            return self.ask_metrics(ctx, span, memory_shares).await;
        };
        let parts = sharded.parts();
        let questions = parts.iter().map(|part| {
            async move { Held::new(ctx, self.ask_metrics(ctx, part, memory_shares).await?) }.boxed()
        });
        let (answers, _memory) = buffered(questions.collect(), parts.len()).await?;
        self.inner.promql.merge(ctx, span, &sharded, answers).await
    }

    async fn ask_metrics(
        &self,
        ctx: &QueryContext,
        query: &MetricsQuery,
        memory_shares: usize,
    ) -> Result<QueryValue> {
        self.ask(ctx, memory_shares, question!(backend.query.metrics(&query))).await
    }

    /// Window by window in the query's direction, until the limit is full.
    async fn lines(&self, ctx: &QueryContext, query: &LogsQuery) -> Result<Vec<LogEntry>> {
        let windows = match query.limit {
            0 => vec![query.clone()],
            _ => logql::windows(query, self.inner.settings.split_interval_ns()),
        };
        let mut memory = ctx.reserve(0)?;
        let mut found: Vec<LogEntry> = Vec::new();
        for window in windows {
            let window = LogsQuery { limit: query.limit.saturating_sub(found.len()), ..window };
            let LogsValue::Entries(mut more) = self.ask_logs(ctx, &window, 1).await? else {
                return Err(Error::damaged("a log query was answered with a metric"));
            };
            memory.grow(more.iter().map(|e| size_of::<LogEntry>() + e.line.len()).sum())?;
            found.append(&mut more);
            if query.limit > 0 && found.len() >= query.limit {
                break;
            }
        }
        Ok(found)
    }

    /// By time, and each span by stream.
    async fn logs_cut(
        &self,
        ctx: &QueryContext,
        expr: &triptych_logql::MetricExpr,
        query: &LogsQuery,
    ) -> Result<QueryValue> {
        let settings = &self.inner.settings;
        let spans = logql::spans(expr, query, settings.split_interval_ns());
        let parts = logql::Sharded::new(query, expr, settings.shards).map_or(1, |s| s.parts().len());
        if spans.len() == 1 {
            return self.logs_span(ctx, expr, &spans[0], parts).await;
        }
        let at_once = self.spans_at_once(parts).min(spans.len());
        let questions = spans.iter().map(|span| {
            async move { Held::new(ctx, self.logs_span(ctx, expr, span, at_once * parts).await?) }.boxed()
        });
        let (answers, _memory) = buffered(questions.collect(), at_once).await?;
        self.inner.logql.join(answers)
    }

    async fn logs_span(
        &self,
        ctx: &QueryContext,
        expr: &triptych_logql::MetricExpr,
        span: &LogsQuery,
        memory_shares: usize,
    ) -> Result<QueryValue> {
        let Some(sharded) = logql::Sharded::new(span, expr, self.inner.settings.shards) else {
            return metric(self.ask_logs(ctx, span, memory_shares).await?);
        };
        let parts = sharded.parts();
        let questions = parts.iter().map(|part| {
            async move { Held::new(ctx, metric(self.ask_logs(ctx, part, memory_shares).await?)?) }.boxed()
        });
        let (answers, _memory) = buffered(questions.collect(), parts.len()).await?;
        self.inner.logql.merge(ctx, span, &sharded, answers).await
    }

    async fn ask_logs(
        &self,
        ctx: &QueryContext,
        query: &LogsQuery,
        memory_shares: usize,
    ) -> Result<LogsValue> {
        self.ask(ctx, memory_shares, question!(backend.query.logs(&query))).await
    }

    /// By time, and function by function.
    async fn traces_cut(
        &self,
        ctx: &QueryContext,
        query: &TracesMetricsQuery,
        split: &traceql::Split,
    ) -> Result<QueryValue> {
        if split.is_whole() {
            return self.ask_traces(ctx, query, 1).await;
        }
        let parts = split.parts();
        let at_once = self.spans_at_once(1).min(parts.len());
        let questions = parts
            .iter()
            .map(|part| async move { Held::new(ctx, self.ask_traces(ctx, part, at_once).await?) }.boxed());
        let (answers, _memory) = buffered(questions.collect(), at_once).await?;
        split.merge(ctx, answers)
    }

    async fn ask_traces(
        &self,
        ctx: &QueryContext,
        query: &TracesMetricsQuery,
        memory_shares: usize,
    ) -> Result<QueryValue> {
        self.ask(ctx, memory_shares, question!(backend.query.traces(&query))).await
    }
}

struct MetricsRange<'a> {
    front: &'a Front,
    expr: &'a triptych_promql::Expr,
    query: &'a MetricsQuery,
}

#[async_trait]
impl Ranged for MetricsRange<'_> {
    const SIGNAL: Signal = Signal::Metrics;
    const PER_MS: i64 = 1;

    fn text(&self) -> &str {
        &self.query.expr
    }

    fn steps(&self) -> (i64, i64, i64) {
        (self.query.start_ms, self.query.end_ms, self.query.step_ms)
    }

    fn lookback_ms(&self) -> i64 {
        self.query.lookback_ms
    }

    fn whole_ms(&self) -> Option<(i64, i64)> {
        promql::part(self.expr, self.query, (self.query.start_ms, self.query.end_ms)).whole_ms
    }

    fn reads(&self, steps: (i64, i64)) -> Option<(i64, i64)> {
        self.front.inner.promql.reads(&promql::part(self.expr, self.query, steps), self.expr)
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        MetricsStore::versions(self.front, ctx, ranges).await
    }

    async fn evaluate(&self, ctx: &QueryContext, steps: (i64, i64)) -> Result<QueryValue> {
        self.front.metrics_cut(ctx, self.expr, &promql::part(self.expr, self.query, steps)).await
    }
}

struct LogsRange<'a> {
    front: &'a Front,
    expr: &'a triptych_logql::MetricExpr,
    query: &'a LogsQuery,
}

impl LogsRange<'_> {
    fn part(&self, (start_ns, end_ns): (i64, i64)) -> LogsQuery {
        LogsQuery { start_ns, end_ns, ..self.query.clone() }
    }
}

#[async_trait]
impl Ranged for LogsRange<'_> {
    const SIGNAL: Signal = Signal::Logs;
    const PER_MS: i64 = 1_000_000;

    fn text(&self) -> &str {
        &self.query.expr
    }

    fn steps(&self) -> (i64, i64, i64) {
        (self.query.start_ns, self.query.end_ns, self.query.step_ns)
    }

    fn reads(&self, steps: (i64, i64)) -> Option<(i64, i64)> {
        logql::reads(self.expr, &self.part(steps))
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        LogsStore::versions(self.front, ctx, ranges).await
    }

    async fn evaluate(&self, ctx: &QueryContext, steps: (i64, i64)) -> Result<QueryValue> {
        self.front.logs_cut(ctx, self.expr, &self.part(steps)).await
    }
}

/// One function of a TraceQL query.
struct TracesRange<'a> {
    front: &'a Front,
    leaf: &'a TracesMetricsQuery,
}

#[async_trait]
impl Ranged for TracesRange<'_> {
    const SIGNAL: Signal = Signal::Traces;
    const PER_MS: i64 = 1_000_000;

    fn text(&self) -> &str {
        &self.leaf.query
    }

    fn steps(&self) -> (i64, i64, i64) {
        (self.leaf.start_ns, self.leaf.end_ns, self.leaf.step_ns)
    }

    fn reads(&self, steps: (i64, i64)) -> Option<(i64, i64)> {
        traceql::reads(&traceql::part(self.leaf, steps))
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        TracesStore::versions(self.front, ctx, ranges).await
    }

    async fn evaluate(&self, ctx: &QueryContext, steps: (i64, i64)) -> Result<QueryValue> {
        let part = traceql::part(self.leaf, steps);
        let split = traceql::Split::new(&part, self.front.inner.settings.split_interval_ns())?;
        self.front.traces_cut(ctx, &part, &split).await
    }
}

fn metric(value: LogsValue) -> Result<QueryValue> {
    match value {
        LogsValue::Metric(value) => Ok(value),
        LogsValue::Entries(_) => Err(Error::damaged("a metric query was answered with lines")),
    }
}

#[async_trait]
impl Query for Front {
    async fn metrics(&self, ctx: &QueryContext, query: &MetricsQuery) -> Result<QueryValue> {
        let expr = triptych_promql::parse(&query.expr)?;
        match self.remembered(ctx, &MetricsRange { front: self, expr: &expr, query }).await? {
            Some((answers, _memory)) => span::join(answers),
            None => self.metrics_cut(ctx, &expr, query).await,
        }
    }

    async fn logs(&self, ctx: &QueryContext, query: &LogsQuery) -> Result<LogsValue> {
        let expr = match triptych_logql::parse(&query.expr)? {
            triptych_logql::Expr::Log(_) => return self.lines(ctx, query).await.map(LogsValue::Entries),
            triptych_logql::Expr::Metric(expr) => expr,
        };
        let value = match self.remembered(ctx, &LogsRange { front: self, expr: &expr, query }).await? {
            Some((answers, _memory)) => self.inner.logql.join(answers),
            None => self.logs_cut(ctx, &expr, query).await,
        };
        value.map(LogsValue::Metric)
    }

    async fn traces(&self, ctx: &QueryContext, query: &TracesMetricsQuery) -> Result<QueryValue> {
        let split = traceql::Split::new(query, self.inner.settings.split_interval_ns())?;
        let (mut answers, mut held) = (Vec::new(), Vec::new());
        for leaf in &split.leaves() {
            match self.remembered(ctx, &TracesRange { front: self, leaf }).await? {
                Some((of_leaf, memory)) => {
                    answers.push(of_leaf);
                    held.push(memory);
                }
                None => return self.traces_cut(ctx, query, &split).await,
            }
        }
        split.merge_leaves(ctx, answers)
    }

    async fn read_samples(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesSamples>> {
        self.open(ctx, question!(backend.query.read_samples(&select))).await
    }

    async fn read_chunks(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        self.open(ctx, question!(backend.query.read_chunks(&select))).await
    }
}
