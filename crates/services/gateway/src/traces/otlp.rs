//! Whole traces: from OTLP bytes to the JSON that Tempo's clients read (protobuf JSON: ids in base64, 64-bit numbers as text,
//! enums by name).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message;
use serde_json::{Map, Value as Json, json};
use triptych_model::{Error, Result};

/// `[{"resource":..,"scopeSpans":[..]}]`.
pub fn resource_spans(otlp: &[u8]) -> Result<Json> {
    let data = TracesData::decode(otlp).map_err(|e| Error::damaged(format!("trace: {e}")))?;
    Ok(data.resource_spans.iter().map(resource).collect())
}

/// `tempopb.TraceByIDResponse`: trace = 1, status = 3 (1: partial), message = 4.
pub fn by_id_response(otlp: &[u8], missed: Option<String>) -> Vec<u8> {
    let mut out = Vec::with_capacity(otlp.len() + 16);
    let mut bytes_field = |tag: u8, bytes: &[u8]| {
        out.push(tag);
        prost::encoding::encode_varint(bytes.len() as u64, &mut out);
        out.extend_from_slice(bytes);
    };
    bytes_field(0x0a, otlp);
    if let Some(message) = missed {
        bytes_field(0x22, message.as_bytes());
        out.extend_from_slice(&[0x18, 1]);
    }
    out
}

fn put(object: &mut Json, key: &str, value: impl Into<Json>) {
    let value = value.into();
    let empty = match &value {
        Json::Null => true,
        Json::String(s) => s.is_empty(),
        Json::Array(a) => a.is_empty(),
        Json::Number(n) => n.as_u64() == Some(0),
        _ => false,
    };
    if !empty {
        object[key] = value;
    }
}

fn resource(spans: &ResourceSpans) -> Json {
    let attributes = spans.resource.as_ref().map(|r| attributes(&r.attributes)).unwrap_or_else(|| json!([]));
    let scopes: Vec<Json> = spans.scope_spans.iter().map(scope).collect();
    let mut out = json!({"resource": {"attributes": attributes}, "scopeSpans": scopes});
    put(&mut out, "schemaUrl", spans.schema_url.as_str());
    out
}

fn scope(spans: &ScopeSpans) -> Json {
    let mut out = json!({"scope": spans.scope.as_ref().map(instrumentation).unwrap_or_else(|| json!({}))});
    out["spans"] = spans.spans.iter().map(span).collect();
    put(&mut out, "schemaUrl", spans.schema_url.as_str());
    out
}

fn instrumentation(scope: &InstrumentationScope) -> Json {
    let mut out = json!({});
    put(&mut out, "name", scope.name.as_str());
    put(&mut out, "version", scope.version.as_str());
    put(&mut out, "attributes", attributes(&scope.attributes));
    out
}

fn span(span: &Span) -> Json {
    let mut out =
        json!({"traceId": STANDARD.encode(&span.trace_id), "spanId": STANDARD.encode(&span.span_id)});
    put(&mut out, "traceState", span.trace_state.as_str());
    put(&mut out, "parentSpanId", STANDARD.encode(&span.parent_span_id));
    put(&mut out, "flags", span.flags);
    put(&mut out, "name", span.name.as_str());
    let kind = SpanKind::try_from(span.kind).unwrap_or_default();
    if kind != SpanKind::Unspecified {
        put(&mut out, "kind", kind.as_str_name());
    }
    put(&mut out, "startTimeUnixNano", span.start_time_unix_nano.to_string());
    put(&mut out, "endTimeUnixNano", span.end_time_unix_nano.to_string());
    put(&mut out, "attributes", attributes(&span.attributes));
    put(&mut out, "droppedAttributesCount", span.dropped_attributes_count);
    let events: Vec<Json> = span
        .events
        .iter()
        .map(|e| {
            let mut event = json!({"timeUnixNano": e.time_unix_nano.to_string(), "name": e.name});
            put(&mut event, "attributes", attributes(&e.attributes));
            put(&mut event, "droppedAttributesCount", e.dropped_attributes_count);
            event
        })
        .collect();
    put(&mut out, "events", events);
    put(&mut out, "droppedEventsCount", span.dropped_events_count);
    let links: Vec<Json> = span
        .links
        .iter()
        .map(|l| {
            let mut link =
                json!({"traceId": STANDARD.encode(&l.trace_id), "spanId": STANDARD.encode(&l.span_id)});
            put(&mut link, "traceState", l.trace_state.as_str());
            put(&mut link, "attributes", attributes(&l.attributes));
            link
        })
        .collect();
    put(&mut out, "links", links);
    put(&mut out, "droppedLinksCount", span.dropped_links_count);
    let mut status = json!({});
    if let Some(s) = &span.status {
        put(&mut status, "message", s.message.as_str());
        let code = StatusCode::try_from(s.code).unwrap_or_default();
        if code != StatusCode::Unset {
            put(&mut status, "code", code.as_str_name());
        }
    }
    out["status"] = status;
    out
}

fn attributes(list: &[KeyValue]) -> Json {
    list.iter()
        .map(|kv| json!({"key": kv.key, "value": kv.value.as_ref().map(any_value).unwrap_or_else(|| json!({}))}))
        .collect()
}

/// Depth is bounded by prost's recursion limit, which the bytes have passed.
fn any_value(value: &AnyValue) -> Json {
    match &value.value {
        None => json!({}),
        Some(Value::StringValue(s)) => json!({"stringValue": s}),
        Some(Value::BoolValue(b)) => json!({"boolValue": b}),
        Some(Value::IntValue(i)) => json!({"intValue": i.to_string()}),
        Some(Value::DoubleValue(d)) if d.is_finite() => json!({"doubleValue": d}),
        Some(Value::DoubleValue(d)) => {
            json!({"doubleValue": if d.is_nan() { "NaN" } else if *d > 0.0 { "Infinity" } else { "-Infinity" }})
        }
        Some(Value::BytesValue(b)) => json!({"bytesValue": STANDARD.encode(b)}),
        Some(Value::ArrayValue(a)) => {
            json!({"arrayValue": {"values": a.values.iter().map(any_value).collect::<Vec<_>>()}})
        }
        Some(Value::KvlistValue(l)) => json!({"kvlistValue": {"values": attributes(&l.values)}}),
        #[allow(unreachable_patterns, reason = "OTLP may grow kinds of values; unknown ones are shown empty")]
        Some(_) => Json::Object(Map::new()),
    }
}
