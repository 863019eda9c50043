//! Range aggregations: samples are folded into segments as they come, segments into windows at the end.
//!
//! All samples that lie in the same windows are one *segment*: the steps `first..=last` whose windows contain them. As time
//! goes up, both ends of it go up, so a series' segments are a sorted list. The samples of one stream come in the order of time,
//! and those of the next begin anew: a segment is looked for near the last one first. A sample costs one fold, however much the
//! windows overlap.

use std::mem::size_of;

use futures::StreamExt;
use hashbrown::HashMap;
use triptych_model::logs::SampleSelect;
use triptych_model::{Error, Labels, MatchOp, Matcher, Result, Shard};

use super::{Columns, Scope, Steps};
use crate::syntax::ast::{RangeAgg, RangeOp, VectorAgg, VectorOp};
use crate::{ERROR_LABEL, PRESERVE_ERROR_LABEL};

pub async fn eval(scope: Scope<'_>, range: &RangeAgg, outer: Option<&VectorAgg>) -> Result<Columns> {
    let Scope { ctx, source, steps, shard, .. } = scope;
    let select = select(range, outer, steps, shard);
    let mut series: Vec<Folded> = Vec::new();
    let mut index: HashMap<Labels, usize> = HashMap::new();
    let mut memory = ctx.reserve(0)?;
    let windows = Windows::of(range, steps);
    // Time goes up within a stream, so most samples lie in the windows of the one before.
    let mut span = Span::default();
    let mut positions: Vec<Option<usize>> = Vec::new();
    let mut batches = source.samples(ctx, &select).await?;
    while let Some(batch) = batches.next().await {
        ctx.check()?;
        let mut grown = 0;
        for run in batch? {
            // Looked up when the first sample comes that lies in a window.
            positions.clear();
            positions.resize(run.series.len(), None);
            for sample in run.samples {
                if sample.ts_ns < span.from_ns || sample.ts_ns > span.until_ns {
                    span = windows.span(sample.ts_ns);
                }
                let Some((first_step, last_step)) = span.steps else { continue };
                let (Some(position), Some(labels)) =
                    (positions.get_mut(sample.series as usize), run.series.get(sample.series as usize))
                else {
                    return Err(Error::internal("a sample of a series that is not there"));
                };
                let known = position.or_else(|| index.get(labels).copied());
                let at = match known {
                    Some(at) => at,
                    None => {
                        check_error(labels)?;
                        grown += 2 * (size_of::<Folded>() + labels.as_encoded().len());
                        series.push(Folded { labels: labels.clone(), segments: Vec::new(), last: 0 });
                        index.insert(labels.clone(), series.len() - 1);
                        series.len() - 1
                    }
                };
                *position = Some(at);
                grown += series[at].fold(range.op, first_step, last_step, sample.ts_ns, sample.value);
            }
        }
        memory.grow(grown)?;
    }
    drop(index);
    if range.op == RangeOp::Absent {
        return absent(scope, range, &series);
    }
    let mut columns = Columns::new(ctx)?;
    for folded in series {
        ctx.check()?;
        let column = columns.add(folded.labels, steps.count)?;
        fill(range, steps, &windows, &folded.segments, &mut column.values);
    }
    Ok(columns)
}

/// The question to the source. A `sum` around an additive aggregation lets the leaf drop labels already.
fn select(range: &RangeAgg, outer: Option<&VectorAgg>, steps: Steps, shard: Option<Shard>) -> SampleSelect {
    let expr = match outer {
        Some(outer) if outer.op == VectorOp::Sum && range.op.is_additive() && range.grouping.is_none() => {
            match &outer.grouping {
                Some(grouping) => format!("sum {grouping} ({range})"),
                None => format!("sum({range})"),
            }
        }
        _ => range.to_string(),
    };
    let last_ns = steps.t_ns(steps.count.saturating_sub(1));
    SampleSelect {
        expr,
        start_ns: steps
            .start_ns
            .saturating_sub(range.offset_ns)
            .saturating_sub(range.range_ns)
            .saturating_add(1),
        end_ns: last_ns.saturating_sub(range.offset_ns).saturating_add(1),
        shard,
    }
}

fn check_error(labels: &Labels) -> Result<()> {
    match labels.get(ERROR_LABEL) {
        Some(error) if labels.get(PRESERVE_ERROR_LABEL) != Some("true") => Err(Error::invalid(format!(
            "pipeline error: '{error}' for series: '{labels}'. Lines that fail can be left out on purpose: \
             | {ERROR_LABEL}!=\"{error}\" for this error, | {ERROR_LABEL}=\"\" for all, behind the parser or behind unwrap"
        ))),
        _ => Ok(()),
    }
}

/// Which windows an instant lies in.
struct Windows {
    start: i128,
    step: i128,
    last: i128,
    range: i128,
}

impl Windows {
    fn of(range: &RangeAgg, steps: Steps) -> Self {
        Self {
            start: i128::from(steps.start_ns) - i128::from(range.offset_ns),
            step: i128::from(steps.step_ns.max(1)),
            last: steps.count as i128 - 1,
            range: i128::from(range.range_ns),
        }
    }

    /// What holds from `ts_ns` on, and until when.
    fn span(&self, ts_ns: i64) -> Span {
        let x = i128::from(ts_ns) - self.start;
        let ceil = |value: i128| -(-value).div_euclid(self.step);
        let first = ceil(x).max(0);
        let end = ceil(x + self.range);
        // The first step is left behind after its end; a step beyond the last known one is entered `range` before its end.
        let until = (first * self.step).min(end * self.step - self.range) + self.start;
        let last = (end - 1).min(self.last);
        Span {
            from_ns: ts_ns,
            until_ns: i64::try_from(until).unwrap_or(i64::MAX),
            steps: (first <= last).then_some((first as u32, last as u32)),
        }
    }

    /// End of a step's window.
    fn end(&self, step: usize) -> i128 {
        self.start + self.step * step as i128
    }
}

/// Between these instants (both inclusive) all samples lie in the windows of the same steps; none: in a gap or outside.
struct Span {
    from_ns: i64,
    until_ns: i64,
    steps: Option<(u32, u32)>,
}

impl Default for Span {
    fn default() -> Self {
        Self { from_ns: i64::MAX, until_ns: i64::MIN, steps: None }
    }
}

struct Folded {
    labels: Labels,
    /// In the order of time.
    segments: Vec<Segment>,
    /// The segment that was folded into last.
    last: usize,
}

#[derive(Debug, Clone)]
struct Segment {
    first_step: u32,
    last_step: u32,
    acc: Acc,
}

impl Folded {
    /// Bytes by which it grew.
    fn fold(&mut self, op: RangeOp, first_step: u32, last_step: u32, ts_ns: i64, value: f64) -> usize {
        let key = (first_step, last_step);
        let is_at = |at: usize| self.segments.get(at).is_some_and(|s| (s.first_step, s.last_step) == key);
        let at = if is_at(self.last) {
            self.last
        } else if is_at(self.last + 1) {
            self.last + 1
        } else {
            match self.segments.binary_search_by(|s| (s.first_step, s.last_step).cmp(&key)) {
                Ok(at) => at,
                Err(at) => {
                    let acc = Acc::new(op, ts_ns, value);
                    self.segments.insert(at, Segment { first_step, last_step, acc });
                    self.last = at;
                    return size_of::<Segment>() + 16;
                }
            }
        };
        self.last = at;
        self.segments[at].acc.merge(&Acc::new(op, ts_ns, value))
    }
}

/// What a segment or a window has seen, in any order.
#[derive(Debug, Clone)]
enum Acc {
    Sum(f64),
    Mean {
        sum: f64,
        count: f64,
    },
    Min(f64),
    Max(f64),
    /// Welford: count, mean, sum of squared differences.
    Variance {
        count: f64,
        mean: f64,
        m2: f64,
    },
    One(f64),
    Values(Vec<f64>),
    First {
        ts_ns: i64,
        value: f64,
    },
    Last {
        ts_ns: i64,
        value: f64,
    },
    /// For counters, whose order matters: time and value.
    Points(Vec<(i64, f64)>),
}

impl Acc {
    fn new(op: RangeOp, ts_ns: i64, value: f64) -> Self {
        match op {
            RangeOp::Rate
            | RangeOp::Count
            | RangeOp::BytesRate
            | RangeOp::Bytes
            | RangeOp::Sum
            | RangeOp::Absent => Acc::Sum(value),
            RangeOp::Avg => Acc::Mean { sum: value, count: 1.0 },
            RangeOp::Min => Acc::Min(value),
            RangeOp::Max => Acc::Max(value),
            RangeOp::Stdvar | RangeOp::Stddev => Acc::Variance { count: 1.0, mean: value, m2: 0.0 },
            RangeOp::Quantile => Acc::One(value),
            RangeOp::First => Acc::First { ts_ns, value },
            RangeOp::Last => Acc::Last { ts_ns, value },
            RangeOp::RateCounter => Acc::Points(vec![(ts_ns, value)]),
        }
    }

    /// Bytes by which it grew.
    fn merge(&mut self, other: &Acc) -> usize {
        match (&mut *self, other) {
            (Acc::Sum(a), Acc::Sum(b)) => *a += b,
            (Acc::Mean { sum, count }, Acc::Mean { sum: s, count: c }) => {
                *sum += s;
                *count += c;
            }
            (Acc::Min(a), Acc::Min(b)) if *b < *a || a.is_nan() => *a = *b,
            (Acc::Max(a), Acc::Max(b)) if *b > *a || a.is_nan() => *a = *b,
            (Acc::Variance { count, mean, m2 }, Acc::Variance { count: c, mean: m, m2: n }) => {
                let total = *count + c;
                let delta = m - *mean;
                *m2 += n + delta * delta * *count * c / total;
                *mean += delta * c / total;
                *count = total;
            }
            (Acc::One(a), b) => {
                let mut values = vec![*a];
                b.values_into(&mut values);
                *self = Acc::Values(values);
                return 2 * size_of::<f64>();
            }
            (Acc::Values(values), b) => {
                let before = values.len();
                b.values_into(values);
                return (values.len() - before) * size_of::<f64>() * 2;
            }
            (Acc::First { ts_ns, value }, Acc::First { ts_ns: t, value: v }) if t < ts_ns => {
                *ts_ns = *t;
                *value = *v;
            }
            (Acc::Last { ts_ns, value }, Acc::Last { ts_ns: t, value: v }) if t >= ts_ns => {
                *ts_ns = *t;
                *value = *v;
            }
            (Acc::Points(a), Acc::Points(b)) => {
                a.extend_from_slice(b);
                return 2 * size_of_val(&b[..]);
            }
            _ => {}
        }
        0
    }

    fn values_into(&self, out: &mut Vec<f64>) {
        match self {
            Acc::One(value) => out.push(*value),
            Acc::Values(values) => out.extend_from_slice(values),
            _ => {}
        }
    }

    fn value(&mut self, range: &RangeAgg, end_ns: i128) -> f64 {
        let range_s = range.range_ns as f64 / 1e9;
        match self {
            Acc::Sum(sum) if matches!(range.op, RangeOp::Rate | RangeOp::BytesRate) => *sum / range_s,
            Acc::Sum(sum) => *sum,
            Acc::Mean { sum, count } => *sum / *count,
            Acc::Min(value) | Acc::Max(value) | Acc::First { value, .. } | Acc::Last { value, .. } => *value,
            Acc::Variance { count, m2, .. } if range.op == RangeOp::Stddev => (*m2 / *count).sqrt(),
            Acc::Variance { count, m2, .. } => *m2 / *count,
            Acc::One(value) => quantile(range.param.unwrap_or(0.5), &mut [*value]),
            Acc::Values(values) => quantile(range.param.unwrap_or(0.5), values),
            Acc::Points(points) => counter_rate(points, range.range_ns, end_ns),
        }
    }
}

/// Per second, extrapolated to the window's ends as Prometheus' `rate` does; 0 for a single sample.
fn counter_rate(points: &mut [(i64, f64)], range_ns: i64, end_ns: i128) -> f64 {
    points.sort_by_key(|(ts_ns, _)| *ts_ns);
    let ([(first_ns, first), ..], [.., (last_ns, _)]) = (&*points, &*points) else { return 0.0 };
    // A counter that went down started anew from 0.
    let grown = |w: &[(i64, f64)]| if w[1].1 < w[0].1 { w[1].1 } else { w[1].1 - w[0].1 };
    let increase: f64 = points.windows(2).map(grown).sum();
    let seconds = |ns: i128| ns as f64 / 1e9;
    let sampled = seconds(i128::from(*last_ns) - i128::from(*first_ns));
    if sampled <= 0.0 {
        return 0.0;
    }
    let mut to_start = seconds(i128::from(*first_ns) - (end_ns - i128::from(range_ns)));
    let to_end = seconds(end_ns - i128::from(*last_ns));
    let average = sampled / (points.len() - 1) as f64;
    // A counter does not go below 0: it cannot have started earlier than where the line meets it.
    if increase > 0.0 && *first >= 0.0 {
        to_start = to_start.min(sampled * (first / increase));
    }
    let near = average * 1.1;
    let covered = sampled
        + if to_start < near { to_start } else { average / 2.0 }
        + if to_end < near { to_end } else { average / 2.0 };
    increase * (covered / sampled) / (range_ns as f64 / 1e9)
}

/// Interpolated between the two nearest ranks, as Prometheus.
fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(f64::total_cmp);
    let rank = q * (values.len() - 1) as f64;
    let low = rank.floor() as usize;
    let high = (low + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[low] * (1.0 - weight) + values[high] * weight
}

fn fill(range: &RangeAgg, steps: Steps, windows: &Windows, segments: &[Segment], out: &mut [Option<f64>]) {
    // Counts and bytes are whole numbers: adding and taking away is exact, and overlap costs nothing.
    let exact = range.unwrap.is_none();
    let (mut low, mut high) = (0, 0);
    let mut running = 0.0;
    let sum_of = |segment: &Segment| match segment.acc {
        Acc::Sum(sum) => sum,
        _ => 0.0,
    };
    for (step, slot) in out.iter_mut().enumerate().take(steps.count) {
        let now = step as u32;
        while segments.get(high).is_some_and(|s| s.first_step <= now) {
            running += sum_of(&segments[high]);
            high += 1;
        }
        while low < high && segments[low].last_step < now {
            running -= sum_of(&segments[low]);
            low += 1;
        }
        let inside = &segments[low..high];
        let Some((first, rest)) = inside.split_first() else { continue };
        let mut acc = if exact {
            Acc::Sum(running)
        } else {
            let mut acc = first.acc.clone();
            for segment in rest {
                acc.merge(&segment.acc);
            }
            acc
        };
        *slot = Some(acc.value(range, windows.end(step)));
    }
}

/// 1 in each step without samples, with the labels that the selector asks for by equality.
fn absent(scope: Scope<'_>, range: &RangeAgg, series: &[Folded]) -> Result<Columns> {
    let count = scope.steps.count;
    let mut seen = vec![false; count];
    for segment in series.iter().flat_map(|s| &s.segments) {
        let (first, last) = (segment.first_step as usize, segment.last_step as usize);
        seen[first.min(count)..(last + 1).min(count)].fill(true);
    }
    let once = |m: &&Matcher| range.log.matchers.iter().filter(|o| o.name == m.name).count() == 1;
    let labels = Labels::from_pairs(
        range
            .log
            .matchers
            .iter()
            .filter(|m| m.op == MatchOp::Equal)
            .filter(once)
            .map(|m| (&m.name, &m.value)),
    );
    let mut columns = Columns::new(scope.ctx)?;
    let column = columns.add(labels, count)?;
    for (slot, seen) in column.values.iter_mut().zip(seen) {
        *slot = (!seen).then_some(1.0);
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn spans_are_the_windows(
            start in -50i128..50, step in 1i128..20, count in 1i128..12, range in 1i128..40, ts in -120i64..400,
        ) {
            let windows = Windows { start, step, last: count - 1, range };
            let inside = |ts: i64| -> Vec<i128> {
                (0..count).filter(|k| {
                    let end = start + k * step;
                    i128::from(ts) > end - range && i128::from(ts) <= end
                }).collect()
            };
            let span = windows.span(ts);
            prop_assert!(span.from_ns <= ts && ts <= span.until_ns);
            let steps: Vec<i128> = span.steps.map_or(Vec::new(), |(f, l)| (i128::from(f)..=i128::from(l)).collect());
            for t in ts..=span.until_ns.min(ts + 60) {
                prop_assert_eq!(&inside(t), &steps, "{} of {}..{}", t, ts, span.until_ns);
            }
        }
    }
}
