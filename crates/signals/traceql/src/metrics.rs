//! TraceQL metrics: samples of spans folded into series on a grid of steps.
//!
//! The grid is Tempo's: the range is widened to multiples of the step; the point at `t` covers `(t - step, t]`; without a step
//! there is one point at the end that covers the whole range, both ends included. Points without a value (an average of nothing)
//! are left out; counts and rates are 0.
//!
//! Labels are Tempo's: the attributes of `by(..)` as written; a lone series has `__name__`; quantiles have `p`; histograms
//! `__bucket`, the upper end of a power of two (durations in seconds). A quantile lies between the ends of its bucket, by
//! exponential interpolation.
//!
//! Known holes: `sample` hints are not followed (the answer is exact), no exemplars, no `compare()`.

use futures::stream::{BoxStream, StreamExt};
use hashbrown::HashMap;
use smallvec::SmallVec;
use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::{QueryValue, Sample, SeriesSamples};
use triptych_model::traces::{SpanSampleSelect, TraceSamples, TracesMetricsQuery};
use triptych_model::{Error, Labels, Result};
use triptych_runtime::{QueryContext, Reservation};

use crate::ast::{ArithmeticOp, Body, MetricsExpr, MetricsLeaf, MetricsOp, SecondStage};
use crate::parser::parse;

/// Most points of a series (Prometheus' limit of a range query).
pub const POINTS_MAX: i64 = 11_000;

/// After so many traces the task yields.
const YIELD_TRACES: usize = 64;

/// The label of a quantile.
const QUANTILE_LABEL: &str = "p";
/// The label of a histogram's bucket.
const BUCKET_LABEL: &str = "__bucket";

/// Where points stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Of the first point.
    first_ns: i64,
    /// 0: one point.
    pub step_ns: i64,
    pub points: usize,
    /// What the first point covers begins here (included).
    start_ns: i64,
    end_ns: i64,
}

impl Grid {
    pub fn new(query: &TracesMetricsQuery) -> Result<Self> {
        let TracesMetricsQuery { start_ns, end_ns, step_ns, .. } = *query;
        if start_ns < 0 || end_ns <= start_ns {
            return Err(Error::invalid(format!("the range {start_ns}..{end_ns} ns is empty")));
        }
        if step_ns < 0 {
            return Err(Error::invalid(format!("the step is {step_ns} ns; it must not be negative")));
        }
        if step_ns == 0 {
            return Ok(Self { first_ns: end_ns, step_ns: 0, points: 1, start_ns, end_ns });
        }
        let first_ns = start_ns - start_ns % step_ns;
        let last_ns = match end_ns % step_ns {
            0 => end_ns,
            over => {
                end_ns.checked_add(step_ns - over).ok_or_else(|| Error::invalid("the range ends too late"))?
            }
        };
        let points = (last_ns - first_ns) / step_ns + 1;
        if points > POINTS_MAX {
            return Err(Error::invalid(format!(
                "a series would have {points} points, the limit is {POINTS_MAX}: ask for a longer step"
            )));
        }
        let start_ns = first_ns.saturating_sub(step_ns).saturating_add(1).max(0);
        Ok(Self { first_ns, step_ns, points: points as usize, start_ns, end_ns: last_ns })
    }

    fn place(&self, ts_ns: i64) -> Option<usize> {
        if ts_ns < self.start_ns || ts_ns > self.end_ns {
            return None;
        }
        if self.step_ns == 0 {
            return Some(0);
        }
        let since = ts_ns - (self.first_ns - self.step_ns) - 1;
        Some((since / self.step_ns) as usize).filter(|at| *at < self.points)
    }

    /// First and last point.
    pub fn range(&self) -> (i64, i64) {
        (self.first_ns, self.end_ns)
    }

    /// First and last instant that the points are about.
    pub fn covers(self) -> (i64, i64) {
        (self.start_ns, self.end_ns)
    }

    pub fn t_ms(&self, place: usize) -> i64 {
        (self.first_ns + place as i64 * self.step_ns) / 1_000_000
    }

    /// What a rate is divided by.
    fn seconds(&self) -> f64 {
        let ns = if self.step_ns == 0 { self.end_ns - self.start_ns } else { self.step_ns };
        ns as f64 / 1e9
    }
}

/// The samples that the leaves of a metrics query need, from left to right; [`evaluate`] takes one stream for each.
pub fn leaves(query: &TracesMetricsQuery) -> Result<Vec<SpanSampleSelect>> {
    let grid = Grid::new(query)?;
    let parsed = parse(&query.query)?;
    let Body::Metrics(expr) = &parsed.body else {
        return Err(Error::invalid("not a metrics query: it needs a function such as `| rate()`"));
    };
    let select = |leaf: &MetricsLeaf| SpanSampleSelect {
        query: leaf.to_string(),
        start_ns: grid.start_ns,
        end_ns: grid.end_ns,
    };
    Ok(expr.leaves().into_iter().map(select).collect())
}

/// Folds the samples of every leaf (see [`leaves`]; copies already removed) into the answer: a matrix, or with step 0 a vector.
pub async fn evaluate(
    ctx: &QueryContext,
    query: &TracesMetricsQuery,
    streams: Vec<BoxStream<'static, Result<TraceSamples>>>,
) -> Result<QueryValue> {
    let grid = Grid::new(query)?;
    let parsed = parse(&query.query)?;
    let Body::Metrics(expr) = &parsed.body else {
        return Err(Error::invalid("not a metrics query: it needs a function such as `| rate()`"));
    };
    let all = expr.leaves();
    if all.len() != streams.len() {
        return Err(Error::internal(format!("{} streams for {} leaves", streams.len(), all.len())));
    }
    // Held until the answer is made.
    let mut memory = ctx.reserve(0)?;
    let mut folded = Vec::with_capacity(all.len());
    for (leaf, mut stream) in all.into_iter().zip(streams) {
        let mut fold = Fold::new(leaf, grid);
        let mut seen = 0usize;
        while let Some(samples) = stream.next().await {
            let samples = samples?;
            ctx.check()?;
            seen += 1;
            if seen.is_multiple_of(YIELD_TRACES) {
                tokio::task::yield_now().await;
            }
            for sample in &samples.samples {
                fold.add(&sample.labels, sample.ts_ns, sample.value, &mut memory)?;
            }
        }
        folded.push(fold.finish());
    }
    Ok(answer(expr, grid, folded))
}

/// What a query answers whose leaves came to `folded`.
pub(crate) fn answer(expr: &MetricsExpr, grid: Grid, folded: Vec<Vec<Row>>) -> QueryValue {
    let mut rows = combined(expr, &mut folded.into_iter());
    rows.retain(|row| row.values.iter().any(|v| !v.is_nan()));
    rows.sort_by(|a, b| a.labels.cmp(&b.labels));
    let series = rows.into_iter().map(|row| SeriesSamples {
        labels: row.labels,
        samples: row
            .values
            .into_iter()
            .enumerate()
            .filter(|(_, v)| !v.is_nan())
            .map(|(at, value)| Sample { t_ms: grid.t_ms(at), value })
            .collect(),
    });
    if grid.step_ns == 0 {
        QueryValue::Vector(series.collect())
    } else {
        QueryValue::Matrix(series.collect())
    }
}

/// A series on the grid; NaN where it has no point.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub labels: Labels,
    pub values: Vec<f64>,
}

/// One point while it is folded.
#[derive(Debug, Clone)]
enum Cells {
    /// Counts, minima, maxima.
    One(Vec<f64>),
    /// Sum, what rounding lost (Neumaier), count.
    Sum(Vec<(f64, f64, u64)>),
    /// (upper end, count), sorted.
    Buckets(Vec<SmallVec<[(f64, u64); 4]>>),
}

impl Cells {
    #[inline]
    fn add(&mut self, op: &MetricsOp, at: usize, value: f64, memory: &mut Reservation) -> Result<()> {
        match self {
            Cells::One(cells) => match op {
                MetricsOp::MinOverTime(_) => cells[at] = cells[at].min(value),
                MetricsOp::MaxOverTime(_) => cells[at] = cells[at].max(value),
                _ => cells[at] += 1.0,
            },
            Cells::Sum(cells) => {
                let (sum, lost, count) = &mut cells[at];
                let total = *sum + value;
                *lost +=
                    if sum.abs() >= value.abs() { (*sum - total) + value } else { (value - total) + *sum };
                *sum = total;
                *count += 1;
            }
            Cells::Buckets(cells) => {
                let buckets = &mut cells[at];
                match buckets.binary_search_by(|(end, _)| end.total_cmp(&value)) {
                    Ok(known) => buckets[known].1 += 1,
                    Err(place) => {
                        if buckets.len() >= 4 {
                            memory.grow(16)?;
                        }
                        buckets.insert(place, (value, 1));
                    }
                }
            }
        }
        Ok(())
    }
}

struct Fold<'a> {
    leaf: &'a MetricsLeaf,
    grid: Grid,
    series: HashMap<Labels, Cells>,
}

impl<'a> Fold<'a> {
    fn new(leaf: &'a MetricsLeaf, grid: Grid) -> Self {
        Self { leaf, grid, series: HashMap::new() }
    }

    fn empty_cells(&self) -> (Cells, usize) {
        let n = self.grid.points;
        match self.leaf.op {
            MetricsOp::Rate | MetricsOp::CountOverTime => (Cells::One(vec![0.0; n]), n * 8),
            MetricsOp::MinOverTime(_) | MetricsOp::MaxOverTime(_) => (Cells::One(vec![f64::NAN; n]), n * 8),
            MetricsOp::SumOverTime(_) | MetricsOp::AvgOverTime(_) => {
                (Cells::Sum(vec![(0.0, 0.0, 0); n]), n * 24)
            }
            MetricsOp::QuantileOverTime(..) | MetricsOp::HistogramOverTime(_) => (
                Cells::Buckets(vec![SmallVec::new(); n]),
                n * std::mem::size_of::<SmallVec<[(f64, u64); 4]>>(),
            ),
        }
    }

    fn add(&mut self, labels: &Labels, ts_ns: i64, value: f64, memory: &mut Reservation) -> Result<()> {
        let Some(at) = self.grid.place(ts_ns) else { return Ok(()) };
        if value.is_nan() {
            return Ok(());
        }
        if let Some(cells) = self.series.get_mut(labels) {
            return cells.add(&self.leaf.op, at, value, memory);
        }
        let (mut cells, bytes) = self.empty_cells();
        // The answer's row comes on top of the cells.
        memory.grow(bytes + self.grid.points * 8 + labels.as_encoded().len() + 128)?;
        cells.add(&self.leaf.op, at, value, memory)?;
        self.series.insert(labels.clone(), cells);
        Ok(())
    }

    fn finish(mut self) -> Vec<Row> {
        let lone = self.leaf.by.is_empty();
        let counts = matches!(self.leaf.op, MetricsOp::Rate | MetricsOp::CountOverTime);
        if lone && counts && self.series.is_empty() {
            // Nothing happened, and that is a number.
            self.series.insert(Labels::empty(), Cells::One(vec![0.0; self.grid.points]));
        }
        let per_second = 1.0 / self.grid.seconds();
        let mut rows = Vec::with_capacity(self.series.len());
        for (labels, cells) in self.series {
            let named = || match lone {
                true => Labels::from_sorted([(METRIC_NAME, self.leaf.op.name())]),
                false => labels.clone(),
            };
            match (&self.leaf.op, cells) {
                (MetricsOp::Rate, Cells::One(mut values)) => {
                    values.iter_mut().for_each(|v| *v *= per_second);
                    rows.push(Row { labels: named(), values });
                }
                (_, Cells::One(values)) => rows.push(Row { labels: named(), values }),
                (op, Cells::Sum(cells)) => {
                    let average = matches!(op, MetricsOp::AvgOverTime(_));
                    let value = |(sum, lost, count): (f64, f64, u64)| {
                        // Infinite sums have lost NaN.
                        let sum = if lost.is_finite() { sum + lost } else { sum };
                        match count {
                            0 => f64::NAN,
                            _ if average => sum / count as f64,
                            _ => sum,
                        }
                    };
                    rows.push(Row { labels: named(), values: cells.into_iter().map(value).collect() });
                }
                (MetricsOp::QuantileOverTime(_, quantiles), Cells::Buckets(cells)) => {
                    for q in quantiles {
                        let labels = with_label(&labels, QUANTILE_LABEL, &q.to_string());
                        rows.push(Row { labels, values: cells.iter().map(|b| quantile(*q, b)).collect() });
                    }
                }
                (_, Cells::Buckets(cells)) => {
                    let mut ends: Vec<f64> = cells.iter().flatten().map(|(end, _)| *end).collect();
                    ends.sort_by(f64::total_cmp);
                    ends.dedup();
                    for end in ends {
                        let count = |buckets: &SmallVec<[(f64, u64); 4]>| {
                            buckets.iter().find(|(e, _)| *e == end).map_or(0.0, |(_, n)| *n as f64)
                        };
                        let labels = with_label(&labels, BUCKET_LABEL, &end.to_string());
                        rows.push(Row { labels, values: cells.iter().map(count).collect() });
                    }
                }
            }
        }
        rows
    }
}

fn with_label(labels: &Labels, name: &str, value: &str) -> Labels {
    labels.to_builder().set(name, value).build()
}

/// The quantile of counts in buckets given by their upper ends. The rank is rounded up; a rank that ends with a bucket gives its
/// upper end; within a bucket values are taken to be spread exponentially.
fn quantile(q: f64, buckets: &[(f64, u64)]) -> f64 {
    let total: u64 = buckets.iter().map(|(_, n)| n).sum();
    if total == 0 {
        return f64::NAN;
    }
    let rank = ((q * total as f64).ceil() as u64).clamp(1, total);
    let mut before = 0;
    let mut lower = None;
    for (upper, count) in buckets {
        if before + count == rank {
            return *upper;
        }
        if before + count > rank {
            let share = (rank - before) as f64 / *count as f64;
            let low = lower.unwrap_or(upper / 2.0).log2();
            return (low + (upper.log2() - low) * share).exp2();
        }
        before += count;
        lower = Some(*upper);
    }
    lower.unwrap_or(f64::NAN)
}

// --- Second stages and arithmetic

fn combined(expr: &MetricsExpr, leaves: &mut impl Iterator<Item = Vec<Row>>) -> Vec<Row> {
    match expr {
        MetricsExpr::Leaf(_) => leaves.next().unwrap_or_default(),
        MetricsExpr::Number(_) => Vec::new(),
        MetricsExpr::Second { of, stages } => {
            let mut rows = combined(of, leaves);
            for stage in stages {
                match stage {
                    SecondStage::Topk(k) => keep_ranked(&mut rows, *k, true),
                    SecondStage::Bottomk(k) => keep_ranked(&mut rows, *k, false),
                    SecondStage::Filter(op, bound) => {
                        let passes = |v: f64| v.partial_cmp(bound).is_some_and(|order| op.holds(order));
                        rows.iter_mut()
                            .flat_map(|r| &mut r.values)
                            .filter(|v| !passes(**v))
                            .for_each(|v| *v = f64::NAN);
                    }
                }
            }
            rows
        }
        MetricsExpr::Math { op, left, right } => {
            let scalar = |mut rows: Vec<Row>, f: &dyn Fn(f64) -> f64| {
                rows.iter_mut().flat_map(|r| &mut r.values).for_each(|v| *v = f(*v));
                rows
            };
            match (&**left, &**right) {
                (MetricsExpr::Number(l), right) => {
                    scalar(combined(right, leaves), &|r| calculate(*op, *l, r))
                }
                (left, MetricsExpr::Number(r)) => scalar(combined(left, leaves), &|l| calculate(*op, l, *r)),
                (left, right) => {
                    let left = combined(left, leaves);
                    let right = combined(right, leaves);
                    joined(*op, left, right)
                }
            }
        }
    }
}

/// Dividing by zero gives nothing, as in Tempo.
fn calculate(op: ArithmeticOp, l: f64, r: f64) -> f64 {
    match op {
        ArithmeticOp::Add => l + r,
        ArithmeticOp::Sub => l - r,
        ArithmeticOp::Mul => l * r,
        ArithmeticOp::Div if r == 0.0 => f64::NAN,
        ArithmeticOp::Div => l / r,
        ArithmeticOp::Mod | ArithmeticOp::Pow => f64::NAN,
    }
}

/// Series with the same labels, the name aside; a lone series without labels goes with every series of the other side.
fn joined(op: ArithmeticOp, left: Vec<Row>, right: Vec<Row>) -> Vec<Row> {
    let keyed = |rows: Vec<Row>| -> Vec<Row> {
        rows.into_iter()
            .map(|r| Row { labels: r.labels.filter(|n| n != METRIC_NAME), values: r.values })
            .collect()
    };
    let (left, right) = (keyed(left), keyed(right));
    let pair = |labels: &Labels, l: &Row, r: &Row| Row {
        labels: labels.clone(),
        values: l.values.iter().zip(&r.values).map(|(l, r)| calculate(op, *l, *r)).collect(),
    };
    match (&left[..], &right[..]) {
        (all, [one]) if one.labels.is_empty() => all.iter().map(|l| pair(&l.labels, l, one)).collect(),
        ([one], all) if one.labels.is_empty() => all.iter().map(|r| pair(&r.labels, one, r)).collect(),
        _ => {
            let right: HashMap<&Labels, &Row> = right.iter().map(|r| (&r.labels, r)).collect();
            left.iter().filter_map(|l| right.get(&l.labels).map(|r| pair(&l.labels, l, r))).collect()
        }
    }
}

/// Of every point the `k` largest or smallest; among equals those first by labels.
fn keep_ranked(rows: &mut [Row], k: usize, largest: bool) {
    if rows.len() <= k {
        return;
    }
    rows.sort_by(|a, b| a.labels.cmp(&b.labels));
    let points = rows.first().map_or(0, |r| r.values.len());
    let mut order: Vec<usize> = Vec::with_capacity(rows.len());
    for at in 0..points {
        order.clear();
        order.extend((0..rows.len()).filter(|r| !rows[*r].values[at].is_nan()));
        order.sort_by(|a, b| {
            let (a, b) = (rows[*a].values[at], rows[*b].values[at]);
            if largest { b.total_cmp(&a) } else { a.total_cmp(&b) }
        });
        for gone in order.iter().skip(k) {
            rows[*gone].values[at] = f64::NAN;
        }
    }
}

#[cfg(test)]
mod tests;
