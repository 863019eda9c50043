//! Classic histograms: series with a label `le`, one per bucket, cumulative.

use futures::StreamExt;
use hashbrown::HashMap;
use triptych_model::labels::METRIC_NAME;
use triptych_model::{Labels, Result};
use triptych_runtime::Reservation;

use super::column::{ABSENT, Column, ColumnStream, Held, ScalarColumn, Steps, is_absent, merge_same};
use super::{Eval, general_text};
use crate::ast::Span;
use crate::lexer::parse_number;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    upper: f64,
    count: f64,
}

/// The buckets of one histogram.
struct Histogram {
    labels: Labels,
    drop_name: bool,
    /// (upper bound, counts), sorted by bound.
    buckets: Vec<(f64, Vec<f64>)>,
}

/// Counts that differ by less, relatively, are taken for rounding errors (Prometheus' tolerance).
const SMALL_DELTA: f64 = 1e-12;

impl Eval<'_> {
    async fn histograms(
        &self,
        mut columns: ColumnStream<'_>,
        span: Span,
    ) -> Result<(Vec<Histogram>, Reservation)> {
        let mut index: HashMap<Labels, usize> = HashMap::new();
        let mut all: Vec<Histogram> = Vec::new();
        let mut held = self.ctx.reserve(0)?;
        while let Some(column) = columns.next().await {
            let column = column?;
            let le = column.labels.value("le");
            let Some(upper) = bound(le) else {
                let mut text = format!("bucket label \"le\" is missing or has a malformed value of {le:?}");
                let name = column.labels.value(METRIC_NAME);
                if self.delayed && !name.is_empty() {
                    text += &format!(" for metric name {name:?}");
                }
                self.warn(span, text);
                continue;
            };
            held.grow(column.bytes())?;
            let labels = column.labels.filter(|name| name != "le");
            let at = *index.entry(labels.clone()).or_insert_with(|| {
                all.push(Histogram { labels, drop_name: column.drop_name, buckets: Vec::new() });
                all.len() - 1
            });
            all[at].drop_name |= column.drop_name;
            all[at].buckets.push((upper, column.values));
        }
        for histogram in &mut all {
            histogram.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        Ok((all, held))
    }

    pub(super) async fn histogram_quantile<'a>(
        &'a self,
        quantiles: Vec<(ScalarColumn, Span)>,
        label: Option<&str>,
        columns: ColumnStream<'a>,
        span: Span,
        steps: Steps,
    ) -> Result<ColumnStream<'a>> {
        for (q, at) in &quantiles {
            if let Some(bad) = q.values().iter().find(|v| !(0.0..=1.0).contains(*v)) {
                let text = general_text(*bad);
                self.warn(*at, format!("quantile value should be between 0 and 1, got {text}"));
            }
        }
        let (histograms, _held) = self.histograms(columns, span).await?;
        let mut out = Held::new(self.ctx)?;
        let mut buckets = Vec::new();
        for (q, _) in &quantiles {
            for histogram in &histograms {
                self.ctx.check()?;
                let mut values = vec![ABSENT; steps.count];
                let mut forced = false;
                for (i, value) in values.iter_mut().enumerate() {
                    histogram.at(i, &mut buckets);
                    if !buckets.is_empty() {
                        let (quantile, mended) = bucket_quantile(q.at(i), &mut buckets);
                        *value = quantile;
                        forced |= mended;
                    }
                }
                if forced {
                    self.note_forced(histogram, span);
                }
                let labels = match label {
                    Some(name) => {
                        histogram.labels.to_builder().set(name, &open_metrics_number(q.at(0))).build()
                    }
                    None => histogram.labels.clone(),
                };
                out.push(Column { labels, drop_name: histogram.drop_name, values })?;
            }
        }
        self.drop_names(out.into_stream(), false).await
    }

    fn note_forced(&self, histogram: &Histogram, span: Span) {
        let mut text = "input to histogram_quantile needed to be fixed for monotonicity (see \
                        https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)"
            .to_owned();
        let name = histogram.labels.value(METRIC_NAME);
        if self.delayed && !name.is_empty() {
            text += &format!(" for metric name {name:?}");
        }
        self.info(span, text);
    }

    pub(super) async fn histogram_fraction<'a>(
        &'a self,
        lower: ScalarColumn,
        upper: ScalarColumn,
        columns: ColumnStream<'a>,
        span: Span,
        steps: Steps,
    ) -> Result<ColumnStream<'a>> {
        let (histograms, _held) = self.histograms(columns, span).await?;
        let mut out = Held::new(self.ctx)?;
        let mut buckets = Vec::new();
        for histogram in &histograms {
            self.ctx.check()?;
            let mut values = vec![ABSENT; steps.count];
            for (i, value) in values.iter_mut().enumerate() {
                histogram.at(i, &mut buckets);
                if !buckets.is_empty() {
                    *value = bucket_fraction(lower.at(i), upper.at(i), &mut buckets);
                }
            }
            out.push(Column { labels: histogram.labels.clone(), drop_name: histogram.drop_name, values })?;
        }
        out.columns = merge_same(out.columns)?;
        self.drop_names(out.into_stream(), false).await
    }
}

impl Histogram {
    /// The buckets that are there at a step, by bound; equal bounds are added up.
    fn at(&self, step: usize, out: &mut Vec<Bucket>) {
        out.clear();
        for (upper, counts) in &self.buckets {
            let count = counts[step];
            if is_absent(count) {
                continue;
            }
            match out.last_mut() {
                Some(last) if last.upper == *upper => last.count += count,
                _ => out.push(Bucket { upper: *upper, count }),
            }
        }
    }
}

/// The value of a label `le`.
fn bound(le: &str) -> Option<f64> {
    let plain = le.strip_prefix(['+', '-']).unwrap_or(le);
    if le.contains('_') || plain.starts_with("0x") {
        return None;
    }
    if plain.eq_ignore_ascii_case("inf") || plain.eq_ignore_ascii_case("infinity") {
        return Some(if le.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    // Without a sign in front, `parse_number` reads leading zeros as octal: labels are decimal.
    parse_number(plain)?;
    le.parse().ok().filter(|v: &f64| !v.is_nan())
}

/// Makes the counts ascend; whether that took more than mending rounding errors.
fn make_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut forced = false;
    let mut previous = buckets[0].count;
    for bucket in &mut buckets[1..] {
        let count = bucket.count;
        if count == previous {
            continue;
        }
        if almost_equal(previous, count, SMALL_DELTA) {
            bucket.count = previous;
        } else if count < previous {
            bucket.count = previous;
            forced = true;
        } else {
            previous = count;
        }
    }
    forced
}

/// Relatively equal; the absolute difference counts near zero.
pub(crate) fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    if a.is_nan() || b.is_nan() {
        return a.is_nan() && b.is_nan();
    }
    if a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < epsilon * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < epsilon
}

/// The quantile, interpolated within its bucket; whether counts had to be forced into order.
fn bucket_quantile(q: f64, buckets: &mut [Bucket]) -> (f64, bool) {
    if q.is_nan() {
        return (f64::NAN, false);
    }
    if !(0.0..=1.0).contains(&q) {
        return (if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY }, false);
    }
    let last = buckets.len() - 1;
    if buckets[last].upper != f64::INFINITY {
        return (f64::NAN, false);
    }
    let forced = make_monotonic(buckets);
    let observations = buckets[last].count;
    if buckets.len() < 2 || observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    let at = buckets[..last].partition_point(|b| b.count < rank || b.count.is_nan() || rank.is_nan());
    let value = if at == last {
        buckets[last - 1].upper
    } else if at == 0 && buckets[0].upper <= 0.0 {
        buckets[0].upper
    } else {
        let (mut start, end, mut count) = (0.0, buckets[at].upper, buckets[at].count);
        if at > 0 {
            start = buckets[at - 1].upper;
            count -= buckets[at - 1].count;
            rank -= buckets[at - 1].count;
        }
        start + (end - start) * (rank / count)
    };
    (value, forced)
}

/// The share of observations between two values.
fn bucket_fraction(lower: f64, upper: f64, buckets: &mut [Bucket]) -> f64 {
    let last = buckets.len() - 1;
    let count = buckets[last].count;
    if buckets[last].upper != f64::INFINITY || count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    // How many observations lie below `value`.
    let below = |value: f64| {
        let mut start = if buckets[0].upper <= 0.0 { f64::NEG_INFINITY } else { 0.0 };
        let mut rank = 0.0;
        for bucket in buckets.iter() {
            if start >= value {
                return rank;
            }
            if bucket.upper > value {
                // Nothing can be said within a bucket without a lower end.
                if start == f64::NEG_INFINITY {
                    return bucket.count;
                }
                return rank + (bucket.count - rank) * (value - start) / (bucket.upper - start);
            }
            rank = bucket.count;
            start = bucket.upper;
        }
        count
    };
    (below(upper).min(count) - below(lower).min(count)) / count
}

/// A number as OpenMetrics writes label values: always with a fraction or an exponent.
fn open_metrics_number(value: f64) -> String {
    let text = general_text(value);
    if value.is_finite() && !text.contains(['.', 'e']) { text + ".0" } else { text }
}
