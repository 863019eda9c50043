//! OTLP metrics as Prometheus series, as Prometheus' own OTLP endpoint does by default.
//!
//! - Names: `UnderscoreEscapingWithSuffixes`, see [`names`](super::names). Attributes that become the same label are joined
//!   with `;` in order of their names.
//! - `job` is `service.namespace/service.name`, `instance` is `service.instance.id`; the other resource attributes stand on
//!   `target_info`. Scopes leave no labels.
//! - Gauges, cumulative sums, histograms with explicit buckets (`_bucket`, `_sum`, `_count`) and summaries are taken. Delta
//!   temporality and exponential histograms are counted as refused.
//! - The flag "no recorded value" is Prometheus' stale marker. Timestamps are cut to milliseconds.

mod labels;

use std::fmt::Write as _;

use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::{MetricKind, STALE_NAN_BITS, Sample};
use triptych_model::{Error, Result};

use super::names::{self, MetricShape, metric_name, unit_name};
use super::schema;
use super::value::{AnyValue, each_pair, read_pair};
use crate::remote_write::NATIVE_HISTOGRAMS_UNSUPPORTED;
use crate::sink::{MetricsSink, recycle, sort_last_wins};
use crate::wire::{Fields, each_fixed64};
use labels::{Labels, Target};

/// Reason of data points with delta temporality.
pub const DELTA_TEMPORALITY: &str = "delta_temporality";
/// Reason of data points of a sum or histogram that does not say which temporality it has.
pub const UNSPECIFIED_TEMPORALITY: &str = "unspecified_temporality";
/// Reason of data points without a value.
pub const MISSING_VALUE: &str = "missing_value";
/// Reason of metrics whose name has no letter or digit.
pub const INVALID_METRIC_NAME: &str = "metric_name_invalid";

/// Most runes of an exemplar's labels (OpenMetrics 1.0); above it the attributes are left out, the ids stay.
const EXEMPLAR_RUNES_MAX: usize = 128;
/// `target_info` is repeated so often that an instant query with the default lookback of five minutes finds it.
const TARGET_INFO_STEP_MS: i64 = 150_000;
/// Most `target_info` samples per resource and request.
const TARGET_INFO_SAMPLES_MAX: i64 = 100;

/// Decodes `ExportMetricsServiceRequest` (the same bytes as `MetricsData`).
pub fn decode(body: &[u8], sink: &mut impl MetricsSink) -> Result<()> {
    let mut scratch = Scratch::default();
    for field in Fields::new(body) {
        if let (1, v) = field? {
            resource_metrics(v.bytes("resource_metrics")?, &mut scratch, sink)?;
        }
    }
    Ok(())
}

/// The same from OTLP/JSON.
pub fn decode_json(body: &[u8], sink: &mut impl MetricsSink) -> Result<()> {
    decode(&super::json::to_protobuf(&schema::METRICS, body)?, sink)
}

/// Memory that all points of a request share.
#[derive(Default)]
struct Scratch<'a> {
    labels: Labels<'a>,
    attributes: Vec<&'a [u8]>,
    exemplars: Vec<&'a [u8]>,
    bounds: Vec<f64>,
    counts: Vec<u64>,
    quantiles: Vec<(f64, f64)>,
    /// A series' name and its `le` or `quantile`.
    name: String,
    extra: String,
    /// Empty between uses.
    pairs: Vec<(&'static str, &'static str)>,
}

fn resource_metrics<'a>(
    message: &'a [u8],
    scratch: &mut Scratch<'a>,
    sink: &mut impl MetricsSink,
) -> Result<()> {
    let target = Target::read(message)?;
    let mut times = Times::default();
    for field in Fields::new(message) {
        let (2, scope_metrics) = field? else { continue };
        for field in Fields::new(scope_metrics.bytes("ResourceMetrics.scope_metrics")?) {
            if let (2, v) = field? {
                metric(v.bytes("ScopeMetrics.metrics")?, &target, &mut times, scratch, sink)?;
            }
        }
    }
    target_info(&target, &times, sink)
}

/// The earliest and latest data point of a resource.
#[derive(Default)]
struct Times(Option<(i64, i64)>);

impl Times {
    fn add(&mut self, t_ms: i64) {
        let (min, max) = self.0.unwrap_or((t_ms, t_ms));
        self.0 = Some((min.min(t_ms), max.max(t_ms)));
    }
}

fn target_info(target: &Target<'_>, times: &Times, sink: &mut impl MetricsSink) -> Result<()> {
    let Some((min, max)) = times.0 else { return Ok(()) };
    let Some(info) = target.info()? else { return Ok(()) };
    let mut pairs: Vec<(&str, &str)> = info.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    sort_last_wins(&mut pairs);
    let step = TARGET_INFO_STEP_MS.max(max.saturating_sub(min) / TARGET_INFO_SAMPLES_MAX);
    let mut samples = Vec::new();
    let mut t_ms = min;
    while t_ms < max {
        samples.push(Sample { t_ms, value: 1.0 });
        t_ms = t_ms.saturating_add(step);
    }
    samples.push(Sample { t_ms: max, value: 1.0 });
    sink.metadata("target_info", MetricKind::Gauge, "Target metadata", "")?;
    sink.series(&pairs, &samples)
}

/// What is common to the points of a metric.
struct Metric<'m> {
    /// As in OTLP.
    otlp_name: &'m str,
    name: String,
}

fn metric<'a>(
    message: &'a [u8],
    target: &Target<'a>,
    times: &mut Times,
    scratch: &mut Scratch<'a>,
    sink: &mut impl MetricsSink,
) -> Result<()> {
    let (mut otlp_name, mut help, mut unit) = ("", "", "");
    let mut data: Option<(u32, &[u8])> = None;
    for field in Fields::new(message) {
        match field? {
            (1, v) => otlp_name = v.text("Metric.name")?,
            (2, v) => help = v.text("Metric.description")?,
            (3, v) => unit = v.text("Metric.unit")?,
            (n @ (5 | 7 | 9 | 10 | 11), v) => data = Some((n, v.bytes("Metric.data")?)),
            _ => {}
        }
    }
    let Some((number, data)) = data else { return Ok(()) };
    let (mut points, mut temporality, mut monotonic) = (0u64, 0, false);
    for field in Fields::new(data) {
        match (number, field?) {
            (_, (1, _)) => points += 1,
            (7 | 9 | 10, (2, v)) => temporality = v.varint("aggregation_temporality")?,
            (7, (3, v)) => monotonic = v.varint("Sum.is_monotonic")? != 0,
            _ => {}
        }
    }
    if points == 0 {
        return Ok(());
    }
    let (kind, shape) = match number {
        5 => (MetricKind::Gauge, MetricShape::Gauge),
        7 if monotonic => (MetricKind::Counter, MetricShape::Counter),
        7 => (MetricKind::Gauge, MetricShape::Other),
        9 => (MetricKind::Histogram, MetricShape::Other),
        11 => (MetricKind::Summary, MetricShape::Other),
        _ => {
            sink.refuse(
                NATIVE_HISTOGRAMS_UNSUPPORTED,
                points,
                format_args!("exponential histograms are not supported: metric {otlp_name:?}"),
            );
            return Ok(());
        }
    };
    if matches!(number, 7 | 9) && temporality != 2 {
        let (reason, name) = match temporality {
            1 => (DELTA_TEMPORALITY, "delta"),
            _ => (UNSPECIFIED_TEMPORALITY, "unspecified"),
        };
        sink.refuse(
            reason,
            points,
            format_args!("{name} temporality is not supported, send cumulative: metric {otlp_name:?}"),
        );
        return Ok(());
    }
    let name = metric_name(otlp_name, unit, shape);
    if !name.contains(|c: char| c.is_ascii_alphanumeric()) {
        let why = format_args!("normalization for metric {otlp_name:?} resulted in invalid name {name:?}");
        sink.refuse(INVALID_METRIC_NAME, points, why);
        return Ok(());
    }
    sink.metadata(&name, kind, help, &unit_name(unit))?;
    let metric = Metric { otlp_name, name };
    for field in Fields::new(data) {
        let (1, v) = field? else { continue };
        let point = v.bytes("data_points")?;
        let t_ms = match number {
            5 | 7 => number_point(point, &metric, number == 7, target, scratch, sink)?,
            9 => histogram_point(point, &metric, target, scratch, sink)?,
            _ => summary_point(point, &metric, target, scratch, sink)?,
        };
        times.add(t_ms);
    }
    Ok(())
}

/// Most attributes, and most exemplars, on one data point or resource: they are kept as slices, sorted and joined.
const ATTRIBUTES_MAX: usize = 1024;

fn too_many() -> Error {
    Error::invalid(format!(
        "more than {ATTRIBUTES_MAX} attributes or exemplars on one data point or resource"
    ))
}

fn push_slice<'a>(list: &mut Vec<&'a [u8]>, item: &'a [u8]) -> Result<()> {
    if list.len() == ATTRIBUTES_MAX {
        return Err(too_many());
    }
    list.push(item);
    Ok(())
}

/// Cut to milliseconds.
fn ms(ns: u64) -> i64 {
    (ns / 1_000_000) as i64
}

fn stale_or(value: f64, flags: u64) -> f64 {
    if flags & 1 != 0 { f64::from_bits(STALE_NAN_BITS) } else { value }
}

fn number_point<'a>(
    point: &'a [u8],
    metric: &Metric<'_>,
    with_exemplars: bool,
    target: &Target<'a>,
    scratch: &mut Scratch<'a>,
    sink: &mut impl MetricsSink,
) -> Result<i64> {
    scratch.attributes.clear();
    scratch.exemplars.clear();
    let (mut t_ms, mut value, mut flags) = (0, None, 0);
    for field in Fields::new(point) {
        match field? {
            (3, v) => t_ms = ms(v.fixed64("NumberDataPoint.time_unix_nano")?),
            (4, v) => value = Some(v.double("NumberDataPoint.as_double")?),
            (5, v) => push_slice(&mut scratch.exemplars, v.bytes("NumberDataPoint.exemplars")?)?,
            (6, v) => value = Some(v.fixed64("NumberDataPoint.as_int")? as i64 as f64),
            (7, v) => push_slice(&mut scratch.attributes, v.bytes("NumberDataPoint.attributes")?)?,
            (8, v) => flags = v.varint("NumberDataPoint.flags")?,
            _ => {}
        }
    }
    if value.is_none() && flags & 1 == 0 {
        sink.refuse(
            MISSING_VALUE,
            1,
            format_args!("data point without a value: metric {:?}", metric.otlp_name),
        );
        return Ok(t_ms);
    }
    scratch.labels.read(&scratch.attributes, target)?;
    let sample = Sample { t_ms, value: stale_or(value.unwrap_or(0.0), flags) };
    let mut pairs = recycle(std::mem::take(&mut scratch.pairs));
    scratch.labels.series(&metric.name, None, &mut pairs);
    sink.series(&pairs, &[sample])?;
    if with_exemplars {
        for exemplar in &scratch.exemplars {
            Exemplar::read(exemplar)?.emit(&pairs, sink)?;
        }
    }
    scratch.pairs = recycle(pairs);
    Ok(t_ms)
}

fn histogram_point<'a>(
    point: &'a [u8],
    metric: &Metric<'_>,
    target: &Target<'a>,
    scratch: &mut Scratch<'a>,
    sink: &mut impl MetricsSink,
) -> Result<i64> {
    let Scratch { labels, attributes, exemplars, bounds, counts, name, extra, pairs, .. } = scratch;
    attributes.clear();
    exemplars.clear();
    bounds.clear();
    counts.clear();
    let (mut t_ms, mut count, mut sum, mut flags) = (0, 0, None, 0);
    for field in Fields::new(point) {
        match field? {
            (3, v) => t_ms = ms(v.fixed64("HistogramDataPoint.time_unix_nano")?),
            (4, v) => count = v.fixed64("HistogramDataPoint.count")?,
            (5, v) => sum = Some(v.double("HistogramDataPoint.sum")?),
            (6, v) => each_fixed64(v, "HistogramDataPoint.bucket_counts", |n| counts.push(n))?,
            (7, v) => {
                each_fixed64(v, "HistogramDataPoint.explicit_bounds", |b| bounds.push(f64::from_bits(b)))?
            }
            (8, v) => push_slice(exemplars, v.bytes("HistogramDataPoint.exemplars")?)?,
            (9, v) => push_slice(attributes, v.bytes("HistogramDataPoint.attributes")?)?,
            (10, v) => flags = v.varint("HistogramDataPoint.flags")?,
            _ => {}
        }
    }
    labels.read(attributes, target)?;
    let mut emit = |suffix: &str, le: Option<&str>, value: f64, sink: &mut _| -> Result<()> {
        name.clear();
        name.push_str(&metric.name);
        name.push_str(suffix);
        let mut series = recycle(std::mem::take(pairs));
        labels.series(name, le.map(|le| ("le", le)), &mut series);
        MetricsSink::series(sink, &series, &[Sample { t_ms, value: stale_or(value, flags) }])?;
        *pairs = recycle(series);
        Ok(())
    };
    if let Some(sum) = sum {
        emit("_sum", None, sum, sink)?;
    }
    emit("_count", None, count as f64, sink)?;
    let mut cumulative = 0u64;
    for (bound, n) in bounds.iter().zip(counts.iter()) {
        cumulative = cumulative.wrapping_add(*n);
        bound_text(*bound, extra);
        emit("_bucket", Some(extra), cumulative as f64, sink)?;
    }
    emit("_bucket", Some("+Inf"), count as f64, sink)?;
    for exemplar in exemplars.iter() {
        let exemplar = Exemplar::read(exemplar)?;
        let buckets = bounds.len().min(counts.len());
        match bounds[..buckets].iter().find(|bound| exemplar.sample.value <= **bound) {
            Some(bound) => bound_text(*bound, extra),
            None => bound_text(f64::INFINITY, extra),
        }
        name.clear();
        name.push_str(&metric.name);
        name.push_str("_bucket");
        let mut series = Vec::new();
        labels.series(name, Some(("le", extra)), &mut series);
        exemplar.emit(&series, sink)?;
    }
    Ok(t_ms)
}

fn summary_point<'a>(
    point: &'a [u8],
    metric: &Metric<'_>,
    target: &Target<'a>,
    scratch: &mut Scratch<'a>,
    sink: &mut impl MetricsSink,
) -> Result<i64> {
    let Scratch { labels, attributes, quantiles, name, extra, pairs, .. } = scratch;
    attributes.clear();
    quantiles.clear();
    let (mut t_ms, mut count, mut sum, mut flags) = (0, 0, 0.0, 0);
    for field in Fields::new(point) {
        match field? {
            (3, v) => t_ms = ms(v.fixed64("SummaryDataPoint.time_unix_nano")?),
            (4, v) => count = v.fixed64("SummaryDataPoint.count")?,
            (5, v) => sum = v.double("SummaryDataPoint.sum")?,
            (6, v) => {
                let (mut quantile, mut value) = (0.0, 0.0);
                for field in Fields::new(v.bytes("SummaryDataPoint.quantile_values")?) {
                    match field? {
                        (1, v) => quantile = v.double("ValueAtQuantile.quantile")?,
                        (2, v) => value = v.double("ValueAtQuantile.value")?,
                        _ => {}
                    }
                }
                if quantiles.len() == ATTRIBUTES_MAX {
                    return Err(Error::invalid(format!(
                        "more than {ATTRIBUTES_MAX} quantiles on one data point"
                    )));
                }
                quantiles.push((quantile, value));
            }
            (7, v) => push_slice(attributes, v.bytes("SummaryDataPoint.attributes")?)?,
            (8, v) => flags = v.varint("SummaryDataPoint.flags")?,
            _ => {}
        }
    }
    labels.read(attributes, target)?;
    let mut emit = |suffix: &str, quantile: Option<&str>, value: f64, sink: &mut _| -> Result<()> {
        name.clear();
        name.push_str(&metric.name);
        name.push_str(suffix);
        let mut series = recycle(std::mem::take(pairs));
        labels.series(name, quantile.map(|q| ("quantile", q)), &mut series);
        MetricsSink::series(sink, &series, &[Sample { t_ms, value: stale_or(value, flags) }])?;
        *pairs = recycle(series);
        Ok(())
    };
    emit("_sum", None, sum, sink)?;
    emit("_count", None, count as f64, sink)?;
    for (quantile, value) in quantiles.iter() {
        bound_text(*quantile, extra);
        emit("", Some(extra), *value, sink)?;
    }
    Ok(t_ms)
}

/// A bound or quantile as Go's `strconv.FormatFloat(v, 'f', -1, 64)` writes it.
fn bound_text(value: f64, out: &mut String) {
    out.clear();
    let _ = if value.is_infinite() {
        write!(out, "{}Inf", if value > 0.0 { '+' } else { '-' })
    } else {
        write!(out, "{value}")
    };
}

struct Exemplar {
    sample: Sample,
    labels: Vec<(String, String)>,
}

impl Exemplar {
    fn read(message: &[u8]) -> Result<Self> {
        let mut sample = Sample { t_ms: 0, value: 0.0 };
        let mut ids: Vec<(String, String)> = Vec::new();
        let mut attributes: Vec<(String, String)> = Vec::new();
        let mut id = |name: &str, bytes: &[u8]| {
            if ids.len() < 2 && bytes.len() <= 16 && bytes.iter().any(|b| *b != 0) {
                ids.push((name.to_owned(), hex::encode(bytes)));
            }
        };
        for field in Fields::new(message) {
            match field? {
                (2, v) => sample.t_ms = ms(v.fixed64("Exemplar.time_unix_nano")?),
                (3, v) => sample.value = v.double("Exemplar.as_double")?,
                (6, v) => sample.value = v.fixed64("Exemplar.as_int")? as i64 as f64,
                (4, v) => id("span_id", v.bytes("Exemplar.span_id")?),
                (5, v) => id("trace_id", v.bytes("Exemplar.trace_id")?),
                (7, v) => {
                    let (key, value) = read_pair(v.bytes("Exemplar.filtered_attributes")?)?;
                    let mut text = String::new();
                    value.append_text(&mut text)?;
                    // Each has a rune at least: more would be left out anyway.
                    if attributes.len() <= EXEMPLAR_RUNES_MAX && !key.is_empty() {
                        attributes.push((key.to_owned(), text));
                    }
                }
                _ => {}
            }
        }
        let runes = |pairs: &[(String, String)]| -> usize {
            pairs.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum()
        };
        if runes(&ids) + runes(&attributes) > EXEMPLAR_RUNES_MAX {
            attributes.clear();
        }
        attributes.append(&mut ids);
        Ok(Self { sample, labels: attributes })
    }

    fn emit(&self, series: &[(&str, &str)], sink: &mut impl MetricsSink) -> Result<()> {
        let mut pairs: Vec<(&str, &str)> =
            self.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        sort_last_wins(&mut pairs);
        sink.exemplar(series, &pairs, self.sample)
    }
}

#[cfg(test)]
mod tests;
