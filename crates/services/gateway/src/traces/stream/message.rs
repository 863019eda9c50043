//! From the model to the messages of `tempopb`.

use triptych_model::Labels;
use triptych_model::metrics::SeriesSamples;
use triptych_model::traces::{SpanMatch, SpanSet, TraceMatch, Value};

use super::tempopb::{self, any_value};
use crate::request::Asked;
use crate::traces::answer::root_service;

/// What a search or a metrics query has cost so far. Until it is done one job is open.
pub fn search_cost(asked: &Asked, done: bool) -> tempopb::SearchMetrics {
    let report = asked.ctx.report();
    tempopb::SearchMetrics {
        inspected_bytes: report.read_bytes,
        total_blocks: report.blocks as u32,
        completed_jobs: u32::from(done),
        total_jobs: 1 + report.missed.len() as u32,
        inspected_spans: report.rows,
    }
}

/// What a look for names or values cost.
pub fn tags_cost(asked: &Asked) -> tempopb::MetadataMetrics {
    let cost = search_cost(asked, true);
    tempopb::MetadataMetrics {
        inspected_bytes: cost.inspected_bytes,
        total_jobs: cost.total_jobs,
        completed_jobs: cost.completed_jobs,
        total_blocks: cost.total_blocks,
    }
}

/// Whether the answer is partial, and why.
pub fn status(asked: &Asked) -> (i32, String) {
    let missed = asked.ctx.report().missed;
    let status =
        if missed.is_empty() { tempopb::PartialStatus::Complete } else { tempopb::PartialStatus::Partial };
    (status.into(), missed.join("; "))
}

fn attribute(key: String, value: Value) -> tempopb::KeyValue {
    let value = match value {
        Value::Int(i) => any_value::Value::IntValue(i),
        Value::Float(f) => any_value::Value::DoubleValue(f),
        Value::Bool(b) => any_value::Value::BoolValue(b),
        other => any_value::Value::StringValue(other.to_string()),
    };
    tempopb::KeyValue { key, value: Some(tempopb::AnyValue { value: Some(value) }) }
}

fn attributes(list: Vec<(String, Value)>) -> Vec<tempopb::KeyValue> {
    list.into_iter().map(|(key, value)| attribute(key, value)).collect()
}

fn span(span: SpanMatch) -> tempopb::Span {
    tempopb::Span {
        span_id: hex::encode(span.span_id),
        name: span.name,
        start_time_unix_nano: span.start_ns as u64,
        duration_nanos: span.duration_ns as u64,
        attributes: attributes(span.attributes),
    }
}

fn span_set(set: SpanSet) -> tempopb::SpanSet {
    tempopb::SpanSet {
        spans: set.spans.into_iter().map(span).collect(),
        matched: set.matched,
        attributes: attributes(set.attributes),
    }
}

pub fn trace(found: TraceMatch) -> tempopb::TraceSearchMetadata {
    let span_sets: Vec<_> = found.span_sets.into_iter().map(span_set).collect();
    let services = found.services.into_iter().map(|(service, span_count, error_count)| {
        (service, tempopb::ServiceStats { span_count, error_count })
    });
    tempopb::TraceSearchMetadata {
        trace_id: hex::encode(found.trace_id).trim_start_matches('0').to_owned(),
        root_service_name: root_service(&found.root_service).to_owned(),
        root_trace_name: found.root_name,
        start_time_unix_nano: found.start_ns as u64,
        duration_ms: u32::try_from(found.duration_ns / 1_000_000).unwrap_or(u32::MAX),
        span_set: span_sets.first().cloned(),
        span_sets,
        service_stats: services.collect(),
    }
}

fn labels(labels: &Labels) -> Vec<tempopb::KeyValue> {
    labels.iter().map(|(name, value)| attribute(name.to_owned(), Value::String(value.to_owned()))).collect()
}

pub fn range_series(series: SeriesSamples) -> tempopb::TimeSeries {
    let samples = series.samples.iter().map(|s| tempopb::Sample { timestamp_ms: s.t_ms, value: s.value });
    tempopb::TimeSeries { labels: labels(&series.labels), samples: samples.collect() }
}

/// `None` where there is no value.
pub fn instant_series(series: SeriesSamples) -> Option<tempopb::InstantSeries> {
    let value = series.samples.last()?.value;
    Some(tempopb::InstantSeries { labels: labels(&series.labels), value })
}
