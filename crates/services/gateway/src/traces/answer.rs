//! JSON of searches and of metrics over spans.
//!
//! tempo-cli refuses a field that Tempo's messages do not have, so there is none: what could not be read is told by Tempo's
//! `status` and `message` where a message has them, else by fewer jobs completed than there were and the header [`MISSED`].

use http::HeaderName;
use serde_json::{Value as Json, json};
use triptych_model::Labels;
use triptych_model::metrics::SeriesSamples;
use triptych_model::traces::{SpanSet, TraceMatch, Value};
use triptych_runtime::ReadReport;

/// Why an answer is partial, one text after the other.
pub const MISSED: HeaderName = HeaderName::from_static("x-triptych-missed");

/// What a search or a metrics query cost (`SearchMetrics`).
pub fn search_cost(report: &ReadReport) -> Json {
    let mut cost = tags_cost(report);
    cost["inspectedSpans"] = report.rows.to_string().into();
    cost
}

/// What a look for names or values cost (`MetadataMetrics`).
pub fn tags_cost(report: &ReadReport) -> Json {
    json!({
        "inspectedBytes": report.read_bytes.to_string(),
        "totalBlocks": report.blocks,
        "completedJobs": 1,
        "totalJobs": 1 + report.missed.len(),
    })
}

/// The root's service, or Tempo's text where the root was not among what was read.
pub fn root_service(name: &str) -> &str {
    if name.is_empty() { "<root span not yet received>" } else { name }
}

fn value(value: &Value) -> Json {
    match value {
        Value::Int(i) => json!({"intValue": i.to_string()}),
        Value::Float(f) => json!({"doubleValue": f}),
        Value::Bool(b) => json!({"boolValue": b}),
        other => json!({"stringValue": other.to_string()}),
    }
}

fn attributes(list: &[(String, Value)]) -> Json {
    list.iter().map(|(key, v)| json!({"key": key, "value": value(v)})).collect()
}

fn span_set(set: &SpanSet) -> Json {
    let spans: Vec<Json> = set
        .spans
        .iter()
        .map(|s| {
            let mut span = json!({
                "spanID": hex::encode(s.span_id),
                "startTimeUnixNano": s.start_ns.to_string(),
                "durationNanos": s.duration_ns.to_string(),
            });
            if !s.name.is_empty() {
                span["name"] = s.name.clone().into();
            }
            if !s.attributes.is_empty() {
                span["attributes"] = attributes(&s.attributes);
            }
            span
        })
        .collect();
    let mut answer = json!({"spans": spans, "matched": set.matched});
    if !set.attributes.is_empty() {
        answer["attributes"] = attributes(&set.attributes);
    }
    answer
}

pub fn trace(found: &TraceMatch) -> Json {
    let id = hex::encode(found.trace_id);
    let sets: Vec<Json> = found.span_sets.iter().map(span_set).collect();
    let services: serde_json::Map<String, Json> = found
        .services
        .iter()
        .map(|(service, spans, errors)| {
            let mut counts = json!({"spanCount": spans});
            if *errors > 0 {
                counts["errorCount"] = (*errors).into();
            }
            (service.clone(), counts)
        })
        .collect();
    let mut answer = json!({
        "traceID": id.trim_start_matches('0'),
        "rootServiceName": root_service(&found.root_service),
        "rootTraceName": found.root_name,
        "startTimeUnixNano": found.start_ns.to_string(),
        "durationMs": found.duration_ns / 1_000_000,
    });
    if let Some(first) = sets.first() {
        answer["spanSet"] = first.clone();
        answer["spanSets"] = sets.into();
    }
    if !services.is_empty() {
        answer["serviceStats"] = services.into();
    }
    answer
}

fn series_labels(labels: &Labels) -> Json {
    labels.iter().map(|(key, v)| json!({"key": key, "value": {"stringValue": v}})).collect()
}

pub fn range_series(series: &SeriesSamples) -> Json {
    let samples: Vec<Json> =
        series.samples.iter().map(|s| json!({"timestampMs": s.t_ms.to_string(), "value": s.value})).collect();
    json!({"labels": series_labels(&series.labels), "samples": samples})
}

pub fn instant_series(series: &SeriesSamples) -> Option<Json> {
    let sample = series.samples.last()?;
    Some(json!({"labels": series_labels(&series.labels), "value": sample.value}))
}
