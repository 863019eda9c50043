//! Messages back to protobuf. Nested messages are written behind a one-byte length that is widened where that is too short.

use super::{
    AnyValue, Event, InstrumentationScope, KeyValue, Link, Resource, ResourceSpans, ScopeSpans, Span, Trace,
};

/// Writes a `TracesData` message.
pub fn encode(trace: &Trace<'_>, out: &mut Vec<u8>) {
    for rs in &trace.resource_spans {
        message(out, 1, |out| resource_spans(out, rs, &trace.trace_id));
    }
}

#[cfg(test)]
pub(super) fn encode_nested_for_tests(out: &mut Vec<u8>, inner: &[u8]) {
    message(out, 5, |out| bytes(out, 1, inner));
}

#[inline]
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
fn key(out: &mut Vec<u8>, number: u32, wire: u32) {
    varint(out, u64::from(number << 3 | wire));
}

fn message(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    key(out, number, 2);
    let at = out.len();
    out.push(0);
    write(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(10);
    varint(&mut prefix, length as u64);
    out.splice(at..=at, prefix);
}

#[inline]
fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    key(out, number, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Left out where empty, as proto3 does.
#[inline]
fn optional_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    if !value.is_empty() {
        bytes(out, number, value);
    }
}

#[inline]
fn uint(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        key(out, number, 0);
        varint(out, value);
    }
}

#[inline]
fn fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    if value != 0 {
        key(out, number, 1);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

#[inline]
fn fixed32(out: &mut Vec<u8>, number: u32, value: u32) {
    if value != 0 {
        key(out, number, 5);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn resource_spans(out: &mut Vec<u8>, rs: &ResourceSpans<'_>, trace_id: &[u8; 16]) {
    message(out, 1, |out| resource(out, &rs.resource));
    for ss in &rs.scope_spans {
        message(out, 2, |out| scope_spans(out, ss, trace_id));
    }
    optional_bytes(out, 3, rs.schema_url.as_bytes());
}

fn resource(out: &mut Vec<u8>, resource: &Resource<'_>) {
    attributes(out, 1, &resource.attributes);
    uint(out, 2, u64::from(resource.dropped_attributes));
}

fn scope_spans(out: &mut Vec<u8>, ss: &ScopeSpans<'_>, trace_id: &[u8; 16]) {
    message(out, 1, |out| scope(out, &ss.scope));
    for s in &ss.spans {
        message(out, 2, |out| span(out, s, trace_id));
    }
    optional_bytes(out, 3, ss.schema_url.as_bytes());
}

fn scope(out: &mut Vec<u8>, scope: &InstrumentationScope<'_>) {
    optional_bytes(out, 1, scope.name.as_bytes());
    optional_bytes(out, 2, scope.version.as_bytes());
    attributes(out, 3, &scope.attributes);
    uint(out, 4, u64::from(scope.dropped_attributes));
}

fn span(out: &mut Vec<u8>, span: &Span<'_>, trace_id: &[u8; 16]) {
    bytes(out, 1, trace_id);
    bytes(out, 2, &span.span_id);
    optional_bytes(out, 3, span.trace_state.as_bytes());
    if let Some(parent) = &span.parent_id {
        bytes(out, 4, parent);
    }
    optional_bytes(out, 5, span.name.as_bytes());
    uint(out, 6, span.kind as i64 as u64);
    fixed64(out, 7, span.start_ns);
    fixed64(out, 8, span.end_ns);
    attributes(out, 9, &span.attributes);
    uint(out, 10, u64::from(span.dropped_attributes));
    for e in &span.events {
        message(out, 11, |out| event(out, e));
    }
    uint(out, 12, u64::from(span.dropped_events));
    for l in &span.links {
        message(out, 13, |out| link(out, l));
    }
    uint(out, 14, u64::from(span.dropped_links));
    message(out, 15, |out| {
        optional_bytes(out, 2, span.status_message.as_bytes());
        uint(out, 3, span.status_code as i64 as u64);
    });
    fixed32(out, 16, span.flags);
}

fn event(out: &mut Vec<u8>, event: &Event<'_>) {
    fixed64(out, 1, event.time_ns);
    optional_bytes(out, 2, event.name.as_bytes());
    attributes(out, 3, &event.attributes);
    uint(out, 4, u64::from(event.dropped_attributes));
}

fn link(out: &mut Vec<u8>, link: &Link<'_>) {
    optional_bytes(out, 1, link.trace_id);
    optional_bytes(out, 2, link.span_id);
    optional_bytes(out, 3, link.trace_state.as_bytes());
    attributes(out, 4, &link.attributes);
    uint(out, 5, u64::from(link.dropped_attributes));
    fixed32(out, 6, link.flags);
}

fn attributes(out: &mut Vec<u8>, number: u32, attributes: &[KeyValue<'_>]) {
    for a in attributes {
        message(out, number, |out| key_value(out, a));
    }
}

pub(crate) fn key_value(out: &mut Vec<u8>, a: &KeyValue<'_>) {
    optional_bytes(out, 1, a.key.as_bytes());
    message(out, 2, |out| any_value(out, &a.value));
}

/// Members of a `oneof` are written even where they are zero.
fn any_value(out: &mut Vec<u8>, value: &AnyValue<'_>) {
    match value {
        AnyValue::None => {}
        AnyValue::String(s) => bytes(out, 1, s.as_bytes()),
        AnyValue::Bool(b) => {
            key(out, 2, 0);
            out.push(u8::from(*b));
        }
        AnyValue::Int(i) => {
            key(out, 3, 0);
            varint(out, *i as u64);
        }
        AnyValue::Double(v) => {
            key(out, 4, 1);
            out.extend_from_slice(&v.to_bits().to_le_bytes());
        }
        AnyValue::Array(values) => message(out, 5, |out| {
            for v in values {
                message(out, 1, |out| any_value(out, v));
            }
        }),
        AnyValue::KvList(values) => message(out, 6, |out| {
            for a in values {
                message(out, 1, |out| key_value(out, a));
            }
        }),
        AnyValue::Bytes(b) => bytes(out, 7, b),
    }
}
