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
use triptych_model::{Error, Result, span};
use triptych_promql::split as promql;
use triptych_rpc::Query;
use triptych_rpc::traits::Stream;
use triptych_runtime::{QueryContext, Reservation};
use triptych_traceql::split as traceql;

use super::Front;

/// An answer that waits for the others, and the memory it takes.
struct Held<T> {
    value: T,
    _memory: Reservation,
}

impl Held<QueryValue> {
    fn new(ctx: &QueryContext, value: QueryValue) -> Result<Self> {
        let of = |s: &SeriesSamples| size_of_val(&s.samples[..]) + s.labels.as_encoded().len() + 64;
        let bytes = match &value {
            QueryValue::Vector(series) | QueryValue::Matrix(series) => series.iter().map(of).sum(),
            QueryValue::Scalar(_) | QueryValue::String { .. } => 0,
        };
        Ok(Self { value, _memory: ctx.reserve(bytes)? })
    }
}

/// The answers in their order; at most so many questions are under way.
async fn buffered<T: Send>(
    questions: Vec<BoxFuture<'_, Result<Held<T>>>>,
    at_once: usize,
) -> Result<(Vec<T>, Vec<Reservation>)> {
    let held: Vec<Held<T>> = stream::iter(questions).buffered(at_once).try_collect().await?;
    Ok(held.into_iter().map(|held| (held.value, held._memory)).unzip())
}

impl Front {
    /// How many spans of a question are asked for at a time, so that at most `subqueries_per_request_max` of its sub-queries run;
    /// `parts`: of each span.
    fn spans_at_once(&self, parts: usize) -> usize {
        (self.0.settings.subqueries_per_request_max / parts.max(1)).max(1)
    }

    async fn metrics_span(
        &self,
        ctx: &QueryContext,
        expr: &triptych_promql::Expr,
        span: &MetricsQuery,
        memory_shares: usize,
    ) -> Result<QueryValue> {
        let Some(sharded) = self.0.promql.shard(span, expr, self.0.settings.shards) else {
            return self.ask_metrics(ctx, span, memory_shares).await;
        };
        let parts = sharded.parts();
        let questions = parts.iter().map(|part| {
            async move { Held::new(ctx, self.ask_metrics(ctx, part, memory_shares).await?) }.boxed()
        });
        let (answers, _memory) = buffered(questions.collect(), parts.len()).await?;
        self.0.promql.merge(ctx, span, &sharded, answers).await
    }

    async fn ask_metrics(
        &self,
        ctx: &QueryContext,
        query: &MetricsQuery,
        memory_shares: usize,
    ) -> Result<QueryValue> {
        self.ask(ctx, memory_shares, |backend, ctx| {
            let query = query.clone();
            Box::pin(async move { backend.query.metrics(&ctx, &query).await })
        })
        .await
    }

    /// Window by window in the query's direction, until the limit is full.
    async fn lines(&self, ctx: &QueryContext, query: &LogsQuery) -> Result<Vec<LogEntry>> {
        let windows = match query.limit {
            0 => vec![query.clone()],
            _ => logql::windows(query, self.0.settings.split_interval_ns()),
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

    async fn logs_span(
        &self,
        ctx: &QueryContext,
        expr: &triptych_logql::MetricExpr,
        span: &LogsQuery,
        memory_shares: usize,
    ) -> Result<QueryValue> {
        let Some(sharded) = logql::Sharded::new(span, expr, self.0.settings.shards) else {
            return metric(self.ask_logs(ctx, span, memory_shares).await?);
        };
        let parts = sharded.parts();
        let questions = parts.iter().map(|part| {
            async move { Held::new(ctx, metric(self.ask_logs(ctx, part, memory_shares).await?)?) }.boxed()
        });
        let (answers, _memory) = buffered(questions.collect(), parts.len()).await?;
        self.0.logql.merge(ctx, span, &sharded, answers).await
    }

    async fn ask_logs(
        &self,
        ctx: &QueryContext,
        query: &LogsQuery,
        memory_shares: usize,
    ) -> Result<LogsValue> {
        self.ask(ctx, memory_shares, |backend, ctx| {
            let query = query.clone();
            Box::pin(async move { backend.query.logs(&ctx, &query).await })
        })
        .await
    }

    async fn ask_traces(
        &self,
        ctx: &QueryContext,
        query: &TracesMetricsQuery,
        memory_shares: usize,
    ) -> Result<QueryValue> {
        self.ask(ctx, memory_shares, |backend, ctx| {
            let query = query.clone();
            Box::pin(async move { backend.query.traces(&ctx, &query).await })
        })
        .await
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
        let settings = &self.0.settings;
        let expr = triptych_promql::parse(&query.expr)?;
        let spans = promql::spans(&expr, query, settings.split_interval_ms());
        let parts = self.0.promql.shard(query, &expr, settings.shards).map_or(1, |s| s.parts().len());
        if spans.len() == 1 {
            return self.metrics_span(ctx, &expr, &spans[0], parts).await;
        }
        let (expr, at_once) = (&expr, self.spans_at_once(parts).min(spans.len()));
        let questions = spans.iter().map(|span| {
            async move { Held::new(ctx, self.metrics_span(ctx, expr, span, at_once * parts).await?) }.boxed()
        });
        let (answers, _memory) = buffered(questions.collect(), at_once).await?;
        span::join(answers)
    }

    async fn logs(&self, ctx: &QueryContext, query: &LogsQuery) -> Result<LogsValue> {
        let expr = match triptych_logql::parse(&query.expr)? {
            triptych_logql::Expr::Log(_) => return self.lines(ctx, query).await.map(LogsValue::Entries),
            triptych_logql::Expr::Metric(expr) => expr,
        };
        let settings = &self.0.settings;
        let spans = logql::spans(&expr, query, settings.split_interval_ns());
        let parts = logql::Sharded::new(query, &expr, settings.shards).map_or(1, |s| s.parts().len());
        if spans.len() == 1 {
            return self.logs_span(ctx, &expr, &spans[0], parts).await.map(LogsValue::Metric);
        }
        let (expr, at_once) = (&expr, self.spans_at_once(parts).min(spans.len()));
        let questions = spans.iter().map(|span| {
            async move { Held::new(ctx, self.logs_span(ctx, expr, span, at_once * parts).await?) }.boxed()
        });
        let (answers, _memory) = buffered(questions.collect(), at_once).await?;
        self.0.logql.join(answers).map(LogsValue::Metric)
    }

    async fn traces(&self, ctx: &QueryContext, query: &TracesMetricsQuery) -> Result<QueryValue> {
        let Some(split) = traceql::Split::new(query, self.0.settings.split_interval_ns())? else {
            return self.ask_traces(ctx, query, 1).await;
        };
        let parts = split.parts();
        let at_once = self.spans_at_once(1).min(parts.len());
        let questions = parts
            .iter()
            .map(|part| async move { Held::new(ctx, self.ask_traces(ctx, part, at_once).await?) }.boxed());
        let (answers, _memory) = buffered(questions.collect(), at_once).await?;
        split.merge(ctx, answers)
    }

    async fn read_samples(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesSamples>> {
        let select = select.clone();
        self.open(ctx, move |backend, ctx| {
            let select = select.clone();
            Box::pin(async move { backend.query.read_samples(&ctx, &select).await })
        })
        .await
    }

    async fn read_chunks(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        let select = select.clone();
        self.open(ctx, move |backend, ctx| {
            let select = select.clone();
            Box::pin(async move { backend.query.read_chunks(&ctx, &select).await })
        })
        .await
    }
}
