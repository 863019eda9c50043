//! Evaluation over a [`StreamSource`].
//!
//! A log query is one stream of entries, taken until the limit is full. A metric query sends each range aggregation to the
//! source as a sample selection, folds the samples as they come (`range`), and does the rest on columns: one value per series
//! and step (`vector`, `binary`). No raw sample is kept, but for `quantile_over_time`.
//!
//! Windows are `(t - range, t]`, shifted back by the offset; steps are `start, start + step, .. <= end`.

mod binary;
mod parts;
mod range;
mod vector;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use triptych_model::logs::{EntrySelect, LogEntry, LogSamples, LogsQuery, LogsValue, SampleSelect};
use triptych_model::metrics::{QueryValue, Sample, SeriesSamples};
use triptych_model::{Error, Labels, Result, Shard, span};
use triptych_runtime::{QueryContext, Reservation};

use crate::source::StreamSource;
use crate::split::Sharded;
use crate::syntax::ast::{Expr, LabelReplace, MetricExpr, VectorAgg, VectorOp};
use crate::syntax::parser::parse;

/// Limits of the evaluator. Time, bytes, rows and memory are limited by the [`QueryContext`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineConfig {
    /// Series in the answer of a metric query; 0: no limit. Loki's `max_query_series`.
    pub series_max: usize,
    /// Steps of a range query; Loki and Prometheus allow as many points per series.
    pub steps_max: usize,
    /// Entries in an answer, also where the question asks for more or for all (0); 0: no limit. They are held in memory.
    pub entries_max: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { series_max: 500, steps_max: 11_000, entries_max: 0 }
    }
}

/// Answers LogQL. Holds nothing but its limits.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    config: EngineConfig,
}

/// The instants at which a metric query is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    pub start_ns: i64,
    /// 1 where there is one instant only.
    pub step_ns: i64,
    pub count: usize,
}

impl Steps {
    fn of(query: &LogsQuery, max: usize) -> Result<Self> {
        if query.step_ns < 0 {
            return Err(Error::invalid(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        if query.step_ns == 0 {
            return Ok(Self { start_ns: query.end_ns, step_ns: 1, count: 1 });
        }
        if query.end_ns < query.start_ns {
            return Err(Error::invalid("end timestamp must not be before start time"));
        }
        let count = (i128::from(query.end_ns) - i128::from(query.start_ns)) / i128::from(query.step_ns) + 1;
        match usize::try_from(count) {
            Ok(count) if max == 0 || count <= max => {
                Ok(Self { start_ns: query.start_ns, step_ns: query.step_ns, count })
            }
            _ => Err(Error::invalid(format!(
                "exceeded maximum resolution of {max} points per time series: the query has {count}. Try increasing the value of the step parameter"
            ))),
        }
    }

    fn t_ns(&self, at: usize) -> i64 {
        self.start_ns.saturating_add(self.step_ns.saturating_mul(at as i64))
    }
}

/// One series over all steps.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub labels: Labels,
    pub values: Vec<Option<f64>>,
}

/// What an expression is worth.
#[derive(Debug)]
pub(crate) enum Evaluated {
    Scalar(f64),
    Columns(Columns),
}

/// Columns and the memory they are accounted with.
#[derive(Debug)]
pub(crate) struct Columns {
    pub list: Vec<Column>,
    pub memory: Reservation,
}

impl Columns {
    pub fn new(ctx: &QueryContext) -> Result<Self> {
        Ok(Self { list: Vec::new(), memory: ctx.reserve(0)? })
    }

    /// Adds a column without values.
    pub fn add(&mut self, labels: Labels, steps: usize) -> Result<&mut Column> {
        self.memory.grow(column_bytes(&labels, steps))?;
        let at = self.list.len();
        self.list.push(Column { labels, values: vec![None; steps] });
        Ok(&mut self.list[at])
    }
}

impl Columns {
    fn copied(&self, ctx: &QueryContext) -> Result<Self> {
        Ok(Self { list: self.list.clone(), memory: ctx.reserve(self.memory.bytes())? })
    }
}

/// Where there is nothing to read any more.
struct Nowhere;

#[async_trait]
impl StreamSource for Nowhere {
    async fn entries(
        &self,
        _: &QueryContext,
        _: &EntrySelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogEntry>>>> {
        Err(Error::internal("what is left of a sharded query reads no lines"))
    }

    async fn samples(
        &self,
        _: &QueryContext,
        _: &SampleSelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogSamples>>>> {
        Err(Error::internal("what is left of a sharded query reads no lines"))
    }
}

fn column_bytes(labels: &Labels, steps: usize) -> usize {
    size_of::<Column>() + labels.as_encoded().len() + steps * size_of::<Option<f64>>()
}

/// What all parts of one evaluation share.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub ctx: &'a QueryContext,
    pub source: &'a dyn StreamSource,
    pub steps: Steps,
    /// Only these streams.
    pub shard: Option<Shard>,
    /// What other queriers have evaluated.
    pub given: &'a [(&'a MetricExpr, Columns)],
}

impl Scope<'_> {
    fn given(&self, expr: &MetricExpr) -> Option<&Columns> {
        self.given.iter().find(|(leaf, _)| std::ptr::eq(*leaf, expr)).map(|(_, columns)| columns)
    }
}

/// Keeps entries that are apart by an interval, in either direction.
struct Sparse {
    interval_ns: i64,
    last_ns: Option<i64>,
}

impl Sparse {
    fn keeps(&mut self, ts_ns: i64) -> bool {
        let keeps = self.last_ns.is_none_or(|last| last.abs_diff(ts_ns) >= self.interval_ns.unsigned_abs());
        if keeps {
            self.last_ns = Some(ts_ns);
        }
        keeps
    }
}

impl Engine {
    pub fn new(config: EngineConfig) -> Self {
        Self { config }
    }

    /// Parses and answers. Errors: `Invalid` for what cannot be asked (syntax, pipeline errors, series that cannot be
    /// matched), `Exhausted` for a limit, and whatever the source fails with.
    pub async fn query(
        &self,
        ctx: &QueryContext,
        source: &dyn StreamSource,
        query: &LogsQuery,
    ) -> Result<LogsValue> {
        let expr = parse(&query.expr)?;
        if query.shard.is_some() && !crate::split::is_part(&expr) {
            return Err(Error::invalid("a shard of this expression cannot be merged with others"));
        }
        match expr {
            Expr::Log(log) => self.entries(ctx, source, query, log.to_string()).await.map(LogsValue::Entries),
            Expr::Metric(metric) => self.metric(ctx, source, query, &metric).await.map(LogsValue::Metric),
        }
    }

    async fn entries(
        &self,
        ctx: &QueryContext,
        source: &dyn StreamSource,
        query: &LogsQuery,
        expr: String,
    ) -> Result<Vec<LogEntry>> {
        let limit = match (query.limit, self.config.entries_max) {
            (0, max) => max,
            (limit, 0) => limit,
            (limit, max) => limit.min(max),
        };
        let select = EntrySelect {
            expr,
            start_ns: query.start_ns,
            end_ns: query.end_ns,
            direction: query.direction,
            // How many are left out on the way is not known before.
            limit: if query.interval_ns > 0 { 0 } else { limit },
        };
        let mut memory = ctx.reserve(0)?;
        let mut sparse = Sparse { interval_ns: query.interval_ns.max(0), last_ns: None };
        let mut out: Vec<LogEntry> = Vec::new();
        let mut batches = source.entries(ctx, &select).await?;
        while let Some(batch) = batches.next().await {
            ctx.check()?;
            let mut batch = batch?;
            batch.retain(|entry| sparse.keeps(entry.ts_ns));
            if limit != 0 {
                batch.truncate(limit - out.len());
            }
            memory.grow(batch.iter().map(entry_bytes).sum())?;
            out.append(&mut batch);
            if limit != 0 && out.len() >= limit {
                break;
            }
        }
        Ok(out)
    }

    async fn metric(
        &self,
        ctx: &QueryContext,
        source: &dyn StreamSource,
        query: &LogsQuery,
        expr: &MetricExpr,
    ) -> Result<QueryValue> {
        let steps = Steps::of(query, self.config.steps_max)?;
        let scope = Scope { ctx, source, steps, shard: query.shard, given: &[] };
        self.answer(scope, query, expr).await
    }

    /// Puts the answers of [`Sharded::parts`] together, in their order: evaluates the rest of the expression over them.
    pub async fn merge(
        &self,
        ctx: &QueryContext,
        query: &LogsQuery,
        sharded: &Sharded,
        answers: Vec<QueryValue>,
    ) -> Result<QueryValue> {
        let steps = Steps::of(query, self.config.steps_max)?;
        let given = parts::gather(ctx, sharded, steps, answers)?;
        let scope = Scope { ctx, source: &Nowhere, steps, shard: None, given: &given };
        self.answer(scope, query, sharded.expr()).await
    }

    /// Puts the answers of [`spans`](crate::split::spans) together, in their order.
    pub fn join(&self, answers: Vec<QueryValue>) -> Result<QueryValue> {
        let joined = span::join(answers)?;
        match &joined {
            QueryValue::Matrix(series) => self.check_series(series.len()).map(|()| joined),
            _ => Ok(joined),
        }
    }

    fn check_series(&self, series: usize) -> Result<()> {
        let max = self.config.series_max;
        if max != 0 && series > max {
            return Err(Error::exhausted(format!(
                "maximum of series ({max}) reached for a single query: narrow the selector, or aggregate with sum, count or topk"
            )));
        }
        Ok(())
    }

    async fn answer(&self, scope: Scope<'_>, query: &LogsQuery, expr: &MetricExpr) -> Result<QueryValue> {
        let steps = scope.steps;
        let instant = query.step_ns == 0;
        let mut columns = match eval(scope, expr).await? {
            Evaluated::Scalar(value) if instant => {
                return Ok(QueryValue::Scalar(Sample { t_ms: ms(steps.start_ns), value }));
            }
            Evaluated::Scalar(value) => constant(scope, value)?,
            Evaluated::Columns(columns) => columns,
        };
        columns.list.retain(|c| c.values.iter().any(Option::is_some));
        // Of a shard more series may come than of the whole, where they are aggregated.
        if query.shard.is_none() {
            self.check_series(columns.list.len())?;
        }
        columns.list.sort_by(|a, b| a.labels.cmp(&b.labels));
        if instant && let Some(descending) = order_by_value(expr) {
            // Stable: equal values stay in the order of labels. NaN comes last either way.
            columns.list.sort_by(|a, b| {
                let (x, y) = (a.values[0].unwrap_or(f64::NAN), b.values[0].unwrap_or(f64::NAN));
                match (x.is_nan(), y.is_nan()) {
                    (false, false) if descending => y.total_cmp(&x),
                    (false, false) => x.total_cmp(&y),
                    (x, y) => x.cmp(&y),
                }
            });
        }
        let series = columns
            .list
            .into_iter()
            .map(|column| SeriesSamples {
                labels: column.labels,
                samples: column
                    .values
                    .iter()
                    .enumerate()
                    .filter_map(|(i, value)| Some(Sample { t_ms: ms(steps.t_ns(i)), value: (*value)? }))
                    .collect(),
            })
            .collect();
        Ok(if instant { QueryValue::Vector(series) } else { QueryValue::Matrix(series) })
    }
}

fn ms(ns: i64) -> i64 {
    ns.div_euclid(1_000_000)
}

fn entry_bytes(entry: &LogEntry) -> usize {
    size_of::<LogEntry>()
        + entry.line.len()
        + entry.metadata.as_encoded().len()
        + entry.parsed.as_encoded().len()
}

/// Whether an instant answer is in the order of values: `Some(true)` where it descends.
fn order_by_value(expr: &MetricExpr) -> Option<bool> {
    let MetricExpr::Vector(vector) = expr else { return None };
    match vector.op {
        VectorOp::Sort | VectorOp::Bottomk => Some(false),
        VectorOp::SortDesc | VectorOp::Topk | VectorOp::ApproxTopk => Some(true),
        _ => None,
    }
}

fn constant(scope: Scope<'_>, value: f64) -> Result<Columns> {
    let mut columns = Columns::new(scope.ctx)?;
    columns.add(Labels::empty(), scope.steps.count)?.values.fill(Some(value));
    Ok(columns)
}

/// Evaluates one node; both sides of an operator at once.
pub(crate) fn eval<'a>(scope: Scope<'a>, expr: &'a MetricExpr) -> BoxFuture<'a, Result<Evaluated>> {
    Box::pin(async move {
        scope.ctx.check()?;
        if let Some(given) = scope.given(expr) {
            return Ok(Evaluated::Columns(given.copied(scope.ctx)?));
        }
        Ok(match expr {
            MetricExpr::Literal(value) => Evaluated::Scalar(*value),
            MetricExpr::VectorLiteral(value) => Evaluated::Columns(constant(scope, *value)?),
            MetricExpr::Range(range) => Evaluated::Columns(range::eval(scope, range, None).await?),
            MetricExpr::Vector(aggregation) => Evaluated::Columns(vector_agg(scope, aggregation).await?),
            MetricExpr::Binary(binary) => {
                let (left, right) =
                    futures::try_join!(eval(scope, &binary.left), eval(scope, &binary.right))?;
                binary::eval(scope, binary, left, right)?
            }
            MetricExpr::LabelReplace(replace) => {
                let inner = columns_of(scope, eval(scope, &replace.inner).await?)?;
                Evaluated::Columns(label_replace(replace, inner)?)
            }
        })
    })
}

async fn vector_agg(scope: Scope<'_>, aggregation: &VectorAgg) -> Result<Columns> {
    let inner = match &aggregation.inner {
        MetricExpr::Range(range) if scope.given(&aggregation.inner).is_none() => {
            range::eval(scope, range, Some(aggregation)).await?
        }
        other => columns_of(scope, eval(scope, other).await?)?,
    };
    vector::aggregate(scope, aggregation, inner)
}

/// A literal where a vector is wanted is one series without labels.
fn columns_of(scope: Scope<'_>, evaluated: Evaluated) -> Result<Columns> {
    match evaluated {
        Evaluated::Scalar(value) => constant(scope, value),
        Evaluated::Columns(columns) => Ok(columns),
    }
}

fn label_replace(replace: &LabelReplace, mut columns: Columns) -> Result<Columns> {
    let regex = crate::pipeline::regexes::compile(&format!("^(?s:{})$", replace.regex))?;
    let mut seen = hashbrown::HashSet::new();
    for column in &mut columns.list {
        if let Some(captures) = regex.captures(column.labels.value(&replace.src)) {
            let mut value = String::new();
            captures.expand(&replace.replacement, &mut value);
            let mut builder = column.labels.to_builder();
            builder.set(&replace.dst, &value);
            column.labels = builder.build();
        }
        if !seen.insert(column.labels.clone()) {
            return Err(Error::invalid(format!(
                "label_replace: vector cannot contain series with the same labelset {}",
                column.labels
            )));
        }
    }
    Ok(columns)
}
