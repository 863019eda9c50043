//! The evaluator: a plan becomes a stream of columns, each one series with its values at every step.
//!
//! Series pass through one at a time. Held in memory are only: the window of the series being read, the groups of an
//! aggregation, the two sides of a join, what must be sorted or ranked, and the answer; all of it is reserved on the
//! query's context. After every 64 series the task yields.

pub(crate) mod aggregate;
pub mod binary;
pub(crate) mod column;
pub(crate) mod histogram;
pub(crate) mod join;
pub(crate) mod labels;
pub mod math;
pub mod over_time;
pub(crate) mod parts;
pub(crate) mod rank;
pub(crate) mod select;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use triptych_model::metrics::{MetricsQuery, QueryValue, Sample, SeriesSamples, SeriesSelect};
use triptych_model::{Error, Labels, Result, Shard};
use triptych_runtime::QueryContext;

use crate::ast::{BinaryOp, Expr, Span};
use crate::format::number_text;
use crate::plan::{Plan, Scalar, Times, Vector, plan};
use crate::source::{SeriesSource, SeriesStream};
use crate::split::Sharded;
use column::{
    ABSENT, Column, ColumnStream, Held, ScalarColumn, Steps, hold, is_absent, merge_same, without_name,
};
use math::MathFn;

/// A task gives way to others after this many series.
const SERIES_PER_YIELD: usize = 64;

/// How queries are evaluated, unless they say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineConfig {
    /// How long a sample stands for its series, in milliseconds.
    pub lookback_ms: i64,
    /// Resolution of subqueries that name none, in milliseconds (Prometheus' global evaluation interval).
    pub subquery_step_ms: i64,
    /// Most points in a series of an answer.
    pub points_max: i64,
    /// Prometheus' experimental `promql-delayed-name-removal`: names are dropped at the end of the query, so that
    /// `label_replace` still sees them.
    pub delayed_name_removal: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            lookback_ms: 300_000,
            subquery_step_ms: 60_000,
            points_max: 11_000,
            delayed_name_removal: false,
        }
    }
}

/// Evaluates PromQL over any [`SeriesSource`]. Cheap; holds no state between queries.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    config: EngineConfig,
}

impl Engine {
    pub fn new(config: EngineConfig) -> Self {
        Self { config }
    }

    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Answers `query` from `source`. An instant query (`step_ms` 0) gives whatever type the expression has; a range query
    /// gives a matrix sorted by labels. Warnings and infos go to `ctx`.
    ///
    /// Fails with `Invalid` for what is wrong with the question (syntax, types, ambiguous matches, too many points), with
    /// `Exhausted`, `Unavailable`, `Cancelled` when the context's limits are reached, and with the source's own errors.
    pub async fn query(
        &self,
        ctx: &QueryContext,
        source: &dyn SeriesSource,
        query: &MetricsQuery,
    ) -> Result<QueryValue> {
        let expr = crate::parser::parse(&query.expr)?;
        if query.shard.is_some() && !crate::split::is_part(&expr) {
            return Err(Error::invalid("a shard of this expression cannot be merged with others"));
        }
        let (mut plan, steps) = self.plan(&expr, query, &[])?;
        if query.shard.is_some() {
            plan.make_partial();
        }
        self.eval(ctx, source, query, &[]).answer(&plan, steps).await
    }

    /// How the query can be evaluated by `count` shards; `None` where it must stay whole. With delayed name removal everything does:
    /// names go at the end of the whole.
    pub fn shard(&self, query: &MetricsQuery, expr: &Expr, count: u32) -> Option<Sharded> {
        if self.config.delayed_name_removal { None } else { Sharded::new(query, expr, count) }
    }

    /// Puts the answers of [`Sharded::parts`] together, in their order: evaluates the rest of the expression over them.
    pub async fn merge(
        &self,
        ctx: &QueryContext,
        query: &MetricsQuery,
        sharded: &Sharded,
        answers: Vec<QueryValue>,
    ) -> Result<QueryValue> {
        let spans: Vec<Span> = sharded.leaves().iter().map(|leaf| leaf.span).collect();
        let (plan, steps) = self.plan(sharded.expr(), query, &spans)?;
        let given = parts::gather(ctx, sharded, steps, answers)?;
        self.eval(ctx, &Nowhere, query, &given).answer(&plan, steps).await
    }

    fn eval<'q>(
        &self,
        ctx: &'q QueryContext,
        source: &'q dyn SeriesSource,
        query: &'q MetricsQuery,
        given: &'q [Held],
    ) -> Eval<'q> {
        Eval {
            ctx,
            source,
            text: &query.expr,
            lookback_ms: self.lookback_ms(query),
            delayed: self.config.delayed_name_removal,
            instant: query.step_ms == 0,
            shard: query.shard,
            given,
        }
    }

    /// How long a sample stands for its series in this query.
    pub(crate) fn lookback_ms(&self, query: &MetricsQuery) -> i64 {
        if query.lookback_ms > 0 { query.lookback_ms } else { self.config.lookback_ms }
    }

    /// The times that the query speaks of.
    pub(crate) fn times(&self, query: &MetricsQuery) -> Times {
        let end_ms = if query.step_ms == 0 { query.start_ms } else { query.end_ms };
        let (start_ms, end_ms) = query.whole_ms.unwrap_or((query.start_ms, end_ms));
        Times { start_ms, end_ms, step_ms: query.step_ms, subquery_step_ms: self.config.subquery_step_ms }
    }

    /// Checks the question's times and plans it. What stands at `given` is not evaluated, but given.
    fn plan(&self, expr: &Expr, query: &MetricsQuery, given: &[Span]) -> Result<(Plan, Steps)> {
        let instant = query.step_ms == 0;
        let end_ms = if instant { query.start_ms } else { query.end_ms };
        let span_ms = end_ms
            .checked_sub(query.start_ms)
            .filter(|_| time_is_sane(query.start_ms) && time_is_sane(end_ms));
        let Some(span_ms) = span_ms else {
            return Err(Error::invalid("start or end time out of bounds"));
        };
        if query.step_ms < 0 {
            return Err(Error::invalid(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        if span_ms < 0 {
            return Err(Error::invalid("end timestamp must not be before start time"));
        }
        if !instant && span_ms / query.step_ms > self.config.points_max {
            return Err(Error::invalid(format!(
                "exceeded maximum resolution of {} points per timeseries. Try decreasing the query resolution (?step=XX)",
                thousands(self.config.points_max)
            )));
        }
        let steps = Steps {
            start_ms: query.start_ms,
            step_ms: query.step_ms,
            count: if instant { 1 } else { (span_ms / query.step_ms) as usize + 1 },
        };
        let times = self.times(query);
        if !time_is_sane(times.start_ms) || !time_is_sane(times.end_ms) {
            return Err(Error::invalid("start or end time out of bounds"));
        }
        Ok((plan(expr, times, given)?, steps))
    }
}

/// Where there is nothing to read any more.
struct Nowhere;

#[async_trait]
impl SeriesSource for Nowhere {
    async fn select(&self, _: &QueryContext, _: &SeriesSelect) -> Result<SeriesStream> {
        Err(Error::internal("what is left of a sharded query reads no series"))
    }
}

/// Far enough from the ends of i64 that offsets and ranges (at most 292 years) can be added.
fn time_is_sane(ms: i64) -> bool {
    ms.unsigned_abs() < 1 << 62
}

fn thousands(n: i64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A vector being prepared: what can be answered at once is (groups, joins), the rest streams.
type Pending<'a> = BoxFuture<'a, Result<ColumnStream<'a>>>;

/// One query under way.
pub(crate) struct Eval<'q> {
    ctx: &'q QueryContext,
    source: &'q dyn SeriesSource,
    text: &'q str,
    lookback_ms: i64,
    delayed: bool,
    instant: bool,
    /// Only these series.
    shard: Option<Shard>,
    /// What other queriers have evaluated.
    given: &'q [Held],
}

impl<'q> Eval<'q> {
    async fn answer(&self, plan: &Plan, steps: Steps) -> Result<QueryValue> {
        match plan {
            Plan::String(value) if self.instant => {
                Ok(QueryValue::String { t_ms: steps.start_ms, value: value.clone() })
            }
            Plan::Matrix(arg) if self.instant => {
                let held = self.raw_windows(arg, steps).await?;
                Ok(QueryValue::Matrix(held))
            }
            Plan::String(_) | Plan::Matrix(_) => {
                let got = if matches!(plan, Plan::String(_)) { "string" } else { "range vector" };
                Err(Error::invalid(format!(
                    "invalid expression type \"{got}\" for range query, must be Scalar or instant Vector"
                )))
            }
            Plan::Scalar(scalar) => {
                let values = self.scalar(scalar, steps).await?;
                if self.instant {
                    return Ok(QueryValue::Scalar(Sample { t_ms: steps.start_ms, value: values.at(0) }));
                }
                let samples =
                    (0..steps.count).map(|i| Sample { t_ms: steps.at(i), value: values.at(i) }).collect();
                Ok(QueryValue::Matrix(vec![SeriesSamples { labels: Labels::empty(), samples }]))
            }
            Plan::Vector(vector) => {
                let Held { mut columns, reservation: _held } =
                    hold(self.ctx, self.vector(vector, steps).await?).await?;
                if self.delayed {
                    for column in columns.iter_mut().filter(|c| c.drop_name) {
                        column.labels = without_name(&column.labels);
                    }
                }
                let columns = merge_same(columns)?;
                let mut series: Vec<SeriesSamples> = columns
                    .into_iter()
                    .map(|c| SeriesSamples {
                        labels: c.labels,
                        samples: c
                            .values
                            .iter()
                            .enumerate()
                            .filter(|(_, v)| !is_absent(**v))
                            .map(|(i, v)| Sample { t_ms: steps.at(i), value: *v })
                            .collect(),
                    })
                    .filter(|s| !s.samples.is_empty())
                    .collect();
                if self.instant {
                    return Ok(QueryValue::Vector(series));
                }
                series.sort_by(|a, b| a.labels.cmp(&b.labels));
                Ok(QueryValue::Matrix(series))
            }
        }
    }

    /// `PromQL warning: <text> (line:column)`
    fn warn(&self, span: Span, text: impl std::fmt::Display) {
        self.ctx.warn(format!("PromQL warning: {text} ({})", span.position(self.text)));
    }

    /// `PromQL info: <text> (line:column)`
    fn info(&self, span: Span, text: impl std::fmt::Display) {
        self.ctx.info(format!("PromQL info: {text} ({})", span.position(self.text)));
    }

    /// Room for one more column of this many steps, or the honest refusal, before it is allocated.
    fn absent_column(&self, steps: Steps) -> Result<Vec<f64>> {
        if steps.count > 1 << 16 {
            // Only subqueries get this long: their resolution is the asker's.
            self.ctx.reserve(steps.count.saturating_mul(8))?;
        }
        Ok(vec![ABSENT; steps.count])
    }

    pub(crate) fn scalar<'a>(
        &'a self,
        plan: &'a Scalar,
        steps: Steps,
    ) -> BoxFuture<'a, Result<ScalarColumn>> {
        async move {
            Ok(match plan {
                Scalar::Const(v) => ScalarColumn::Const(*v),
                Scalar::Time => {
                    self.absent_column(steps)?;
                    ScalarColumn::Each((0..steps.count).map(|i| steps.at(i) as f64 / 1000.0).collect())
                }
                Scalar::Invariant(inner) => {
                    let value = self.scalar(inner, steps.first()).await?;
                    ScalarColumn::Const(value.at(0))
                }
                Scalar::Negative(inner) => self.scalar(inner, steps).await?.map(|v| -v),
                Scalar::Binary { op, left, right } => {
                    let l = self.scalar(left, steps).await?;
                    let r = self.scalar(right, steps).await?;
                    l.zip(r, steps, |l, r| binary::scalar_op(*op, l, r))
                }
                Scalar::MinOf(left, right) => {
                    let l = self.scalar(left, steps).await?;
                    l.zip(self.scalar(right, steps).await?, steps, math::min)
                }
                Scalar::MaxOf(left, right) => {
                    let l = self.scalar(left, steps).await?;
                    l.zip(self.scalar(right, steps).await?, steps, math::max)
                }
                Scalar::OfVector(vector) => {
                    let mut stream = self.vector(vector, steps).await?;
                    let mut values = self.absent_column(steps)?;
                    let mut several = vec![false; steps.count];
                    while let Some(column) = stream.next().await {
                        for (i, v) in column?.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                            several[i] |= !is_absent(values[i]);
                            values[i] = *v;
                        }
                    }
                    // Exactly one series, or no number.
                    for (v, several) in values.iter_mut().zip(several) {
                        if several || is_absent(*v) {
                            *v = f64::NAN;
                        }
                    }
                    ScalarColumn::Each(values)
                }
            })
        }
        .boxed()
    }

    async fn scalars(&self, plans: &[Scalar], steps: Steps) -> Result<Vec<ScalarColumn>> {
        let mut out = Vec::with_capacity(plans.len());
        for plan in plans {
            out.push(self.scalar(plan, steps).await?);
        }
        Ok(out)
    }

    /// Every kind of plan has a future of its own: in one that held them all, each level of a deep expression would take the
    /// stack of the largest.
    pub(crate) fn vector<'a>(&'a self, plan: &'a Vector, steps: Steps) -> Pending<'a> {
        match plan {
            Vector::Given(at) => Box::pin(async move { self.given(*at) }),
            Vector::Nothing => Box::pin(async { Ok(futures::stream::empty().boxed()) }),
            Vector::Select { selector, timestamps } => Box::pin(async move {
                let columns = self.select(selector, *timestamps, steps).await?;
                if *timestamps {
                    self.drop_names(columns, plan.unique_without_name()).await
                } else {
                    Ok(columns)
                }
            }),
            Vector::Invariant(inner) => Box::pin(self.repeated(inner, steps)),
            Vector::OfScalar(scalar) => Box::pin(async move {
                let values = self.scalar(scalar, steps).await?;
                let values = (0..steps.count).map(|i| values.at(i)).collect();
                let column = Column { labels: Labels::empty(), drop_name: false, values };
                Ok(futures::stream::iter([Ok(column)]).boxed())
            }),
            Vector::OverTime { func, arg, params, param_span } => {
                Box::pin(self.over_time(*func, arg, params, *param_span, steps))
            }
            Vector::Math { func, arg, params } => Box::pin(self.math(*func, arg, params, steps)),
            Vector::StepTime(arg) => Box::pin(self.step_time(arg, steps)),
            Vector::ScalarBinary { op, return_bool, vector, scalar, scalar_left } => {
                Box::pin(self.with_scalar(*op, *return_bool, vector, scalar, *scalar_left, steps))
            }
            Vector::Binary { op, return_bool, left, right, matching } => Box::pin(async move {
                let left = hold(self.ctx, self.vector(left, steps).await?).await?;
                let right = hold(self.ctx, self.vector(right, steps).await?).await?;
                let joined = if op.is_set() {
                    join::set(self.ctx, *op, left, right, matching)?
                } else {
                    let how =
                        join::Join { op: *op, return_bool: *return_bool, matching, delayed: self.delayed };
                    how.run(self.ctx, left, right, steps)?
                };
                tokio::task::yield_now().await;
                Ok(joined.into_stream())
            }),
            Vector::Aggregate { op, arg, param, label, without, labels, param_span, partial } => {
                Box::pin(async move {
                    let param = match param {
                        Some(param) => Some(self.scalar(param, steps).await?),
                        None => None,
                    };
                    let (without, param_span, partial) = (*without, *param_span, *partial);
                    let how = aggregate::Aggregation {
                        op: *op,
                        param,
                        label,
                        without,
                        labels,
                        param_span,
                        partial,
                    };
                    self.aggregate(how, arg, steps).await
                })
            }
            Vector::Absent { arg, labels } => Box::pin(async move {
                let columns = self.vector(arg, steps).await?;
                self.absent(columns, labels, steps).await
            }),
            Vector::AbsentOverTime { arg, labels } => Box::pin(async move {
                let present = over_time::RangeFn::Present;
                let columns = self.windows(present, arg, Vec::new(), Span::default(), steps).await?;
                self.absent(columns, labels, steps).await
            }),
            Vector::HistogramQuantile { quantiles, label, arg, span } => Box::pin(async move {
                let mut qs = Vec::with_capacity(quantiles.len());
                for (quantile, at) in quantiles {
                    qs.push((self.scalar(quantile, steps).await?, *at));
                }
                let buckets = self.vector(arg, steps).await?;
                self.histogram_quantile(qs, label.as_deref(), buckets, *span, steps).await
            }),
            Vector::HistogramFraction { lower, upper, arg, span } => Box::pin(async move {
                let (lower, upper) = (self.scalar(lower, steps).await?, self.scalar(upper, steps).await?);
                let buckets = self.vector(arg, steps).await?;
                self.histogram_fraction(lower, upper, buckets, *span, steps).await
            }),
            Vector::LabelReplace { arg, target, replacement, source, regex } => Box::pin(async move {
                let columns = self.vector(arg, steps).await?;
                let change = labels::Replace { target, replacement, source, regex };
                self.relabel(columns, move |l| change.apply(l), target == "__name__").await
            }),
            Vector::LabelJoin { arg, target, separator, sources } => Box::pin(async move {
                let columns = self.vector(arg, steps).await?;
                let change = move |l: &Labels| Some(labels::join(l, target, separator, sources));
                self.relabel(columns, change, target == "__name__").await
            }),
            Vector::Sort { arg, descending, span } => Box::pin(async move {
                let columns = self.vector(arg, steps).await?;
                self.sorted(columns, *span, |columns| labels::sort_by_value(columns, *descending)).await
            }),
            Vector::SortByLabel { arg, labels, descending, span } => Box::pin(async move {
                let columns = self.vector(arg, steps).await?;
                self.sorted(columns, *span, |columns| labels::sort_by_label(columns, labels, *descending))
                    .await
            }),
        }
    }

    async fn repeated<'a>(&'a self, inner: &'a Vector, steps: Steps) -> Result<ColumnStream<'a>> {
        let columns = self.vector(inner, steps.first()).await?;
        if steps.count == 1 {
            return Ok(columns);
        }
        let repeated = move |mut column: Column| {
            let value = column.values.first().copied().unwrap_or(ABSENT);
            column.values = self.absent_column(steps)?;
            column.values.fill(value);
            Ok(column)
        };
        Ok(columns.map(move |c| c.and_then(repeated)).boxed())
    }

    async fn math<'a>(
        &'a self,
        func: MathFn,
        arg: &'a Vector,
        params: &'a [Scalar],
        steps: Steps,
    ) -> Result<ColumnStream<'a>> {
        let params = self.scalars(params, steps).await?;
        let columns = self.vector(arg, steps).await?;
        let columns = columns
            .map_ok(move |mut column| {
                apply_math(func, &params, &mut column.values);
                column
            })
            .boxed();
        self.drop_names(columns, arg.unique_without_name()).await
    }

    async fn step_time<'a>(&'a self, arg: &'a Vector, steps: Steps) -> Result<ColumnStream<'a>> {
        let columns = self.vector(arg, steps).await?;
        let columns = columns
            .map_ok(move |mut column| {
                for (i, v) in column.values.iter_mut().enumerate().filter(|(_, v)| !is_absent(**v)) {
                    *v = steps.at(i) as f64 / 1000.0;
                }
                column
            })
            .boxed();
        self.drop_names(columns, arg.unique_without_name()).await
    }

    async fn with_scalar<'a>(
        &'a self,
        op: BinaryOp,
        return_bool: bool,
        vector: &'a Vector,
        scalar: &'a Scalar,
        scalar_left: bool,
        steps: Steps,
    ) -> Result<ColumnStream<'a>> {
        let scalar = self.scalar(scalar, steps).await?;
        let columns = self.vector(vector, steps).await?;
        let columns = columns
            .map_ok(move |mut column| {
                binary::with_scalar(op, return_bool, scalar_left, &scalar, &mut column.values);
                column
            })
            .boxed();
        if op.is_comparison() && !return_bool {
            return Ok(columns);
        }
        self.drop_names(columns, vector.unique_without_name()).await
    }

    /// Sorts for an instant answer; a range answer is sorted by labels anyway, and says so.
    async fn sorted<'a>(
        &'a self,
        columns: ColumnStream<'a>,
        span: Span,
        sort: impl FnOnce(&mut [Column]),
    ) -> Result<ColumnStream<'a>> {
        if !self.instant {
            self.warn(
                span,
                "sort is ineffective for range queries since results are always ordered by labels",
            );
            return Ok(columns);
        }
        let mut held = hold(self.ctx, columns).await?;
        sort(&mut held.columns);
        Ok(held.into_stream())
    }

    /// The values are no longer the metric's: its name goes. `unique` says that no two series can become equal by that.
    pub(crate) async fn drop_names<'a>(
        &'a self,
        columns: ColumnStream<'a>,
        unique: bool,
    ) -> Result<ColumnStream<'a>> {
        let delayed = self.delayed;
        let dropped = columns
            .map_ok(move |mut column| {
                if delayed {
                    column.drop_name = true;
                } else {
                    column.labels = without_name(&column.labels);
                }
                column
            })
            .boxed();
        if unique || delayed {
            return Ok(dropped);
        }
        let mut held = hold(self.ctx, dropped).await?;
        held.columns = merge_same(held.columns)?;
        Ok(held.into_stream())
    }

    /// Changes label sets; `change` gives `None` where a set stays as it is.
    async fn relabel<'a>(
        &'a self,
        mut columns: ColumnStream<'a>,
        change: impl Fn(&Labels) -> Option<Labels> + Send + 'a,
        names: bool,
    ) -> Result<ColumnStream<'a>> {
        let mut held = Held::new(self.ctx)?;
        while let Some(column) = columns.next().await {
            let mut column = column?;
            if let Some(labels) = change(&column.labels) {
                column.labels = labels;
                column.drop_name &= !names;
            }
            held.push(column)?;
        }
        held.columns = merge_same(held.columns)?;
        Ok(held.into_stream())
    }

    /// 1 where no series has a value.
    async fn absent<'a>(
        &'a self,
        mut columns: ColumnStream<'a>,
        labels: &'a [(String, String)],
        steps: Steps,
    ) -> Result<ColumnStream<'a>> {
        let mut values = self.absent_column(steps)?;
        values.fill(1.0);
        while let Some(column) = columns.next().await {
            for (out, v) in values.iter_mut().zip(&column?.values) {
                if !is_absent(*v) {
                    *out = ABSENT;
                }
            }
        }
        let labels = Labels::from_pairs(labels.iter().map(|(n, v)| (n, v)));
        let column = Column { labels, drop_name: false, values };
        let some = (!column.is_empty()).then_some(Ok(column));
        Ok(futures::stream::iter(some).boxed())
    }
}

fn apply_math(func: MathFn, params: &[ScalarColumn], values: &mut [f64]) {
    let param = |index: usize, step: usize, default: f64| params.get(index).map_or(default, |p| p.at(step));
    for (i, v) in values.iter_mut().enumerate().filter(|(_, v)| !is_absent(**v)) {
        *v = match func {
            MathFn::Plain(f) => f(*v),
            MathFn::Clamp => {
                let (min, max) = (param(0, i, f64::NEG_INFINITY), param(1, i, f64::INFINITY));
                if max < min { ABSENT } else { math::max(min, math::min(max, *v)) }
            }
            MathFn::ClampMin => math::max(param(0, i, f64::NEG_INFINITY), *v),
            MathFn::ClampMax => math::min(param(0, i, f64::INFINITY), *v),
            MathFn::Round => math::round(*v, param(0, i, 1.0)),
        };
    }
}

/// A number as Go's `%g` writes it, for warnings.
pub(crate) fn general_text(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || !value.is_finite() || (1e-4..1e21).contains(&magnitude) {
        return number_text(value);
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests;
