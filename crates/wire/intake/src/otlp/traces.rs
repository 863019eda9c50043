//! OTLP traces: regroups the spans of a request by trace id, by copying slices.
//!
//! ```text
//! ExportTraceServiceRequest = TracesData { 1 resource_spans* }
//! ResourceSpans { 1 resource, 2 scope_spans*, 3 schema_url }
//! ScopeSpans    { 1 scope, 2 spans*, 3 schema_url }
//! Span          { 1 trace_id, 2 span_id, 7 start fixed64 ns, 8 end fixed64 ns, .. }
//! ```
//! A trace's output repeats the resource and scope of its spans, in order of arrival. The structure of every message is checked
//! down to its leaves, nothing is decoded. Spans whose ids are not 16 and 8 bytes, or all zero, are refused.

use triptych_model::Result;
use triptych_model::labels::put_uvarint;
use triptych_model::traces::TraceId;

use super::schema;
use crate::sink::TracesSink;
use crate::wire::{Fields, put_bytes, put_tag, varint_len};

/// Reason of spans with ids that are not ids.
pub const INVALID_SPAN_ID: &str = "invalid_span_id";
/// Reason of spans with a trace id that is none.
pub const INVALID_TRACE_ID: &str = "invalid_trace_id";
/// Reason of spans above [`TracesSink::span_bytes_max`].
pub const SPAN_TOO_LARGE: &str = "span_too_large";

/// Decodes `ExportTraceServiceRequest` (the same bytes as `TracesData`).
pub fn decode(body: &[u8], sink: &mut impl TracesSink) -> Result<()> {
    let mut request = Request::default();
    request.read(body, sink)?;
    request.write(sink)
}

/// The same from OTLP/JSON.
pub fn decode_json(body: &[u8], sink: &mut impl TracesSink) -> Result<()> {
    decode(&super::json::to_protobuf(&schema::TRACES, body)?, sink)
}

struct SpanRef<'a> {
    trace_id: &'a TraceId,
    /// Index in `scopes`: groups neighbours under one resource and scope.
    scope: u32,
    start_ns: u64,
    end_ns: u64,
    bytes: &'a [u8],
}

/// What stands beside the repeated part of a `ResourceSpans` or `ScopeSpans`.
#[derive(Clone, Copy, Default)]
struct Header<'a> {
    /// Field 1: the resource, or the scope.
    inner: Option<&'a [u8]>,
    schema_url: &'a [u8],
}

impl<'a> Header<'a> {
    fn len(&self) -> usize {
        let field = |bytes: &[u8]| 1 + varint_len(bytes.len() as u64) + bytes.len();
        self.inner.map_or(0, field) + if self.schema_url.is_empty() { 0 } else { field(self.schema_url) }
    }

    fn put_inner(&self, out: &mut Vec<u8>) {
        if let Some(inner) = self.inner {
            put_bytes(out, 1, inner);
        }
    }

    fn put_schema_url(&self, out: &mut Vec<u8>) {
        if !self.schema_url.is_empty() {
            put_bytes(out, 3, self.schema_url);
        }
    }
}

#[derive(Default)]
struct Request<'a> {
    resources: Vec<Header<'a>>,
    /// Scope, and the index of its resource.
    scopes: Vec<(Header<'a>, u32)>,
    spans: Vec<SpanRef<'a>>,
}

impl<'a> Request<'a> {
    fn read(&mut self, body: &'a [u8], sink: &mut impl TracesSink) -> Result<()> {
        for field in Fields::new(body) {
            let (1, resource_spans) = field? else { continue };
            let resource = self.resources.len() as u32;
            let mut header = Header::default();
            for field in Fields::new(resource_spans.bytes("resource_spans")?) {
                match field? {
                    (1, v) => {
                        let bytes = v.bytes("ResourceSpans.resource")?;
                        schema::check(&schema::RESOURCE, bytes)?;
                        header.inner = Some(bytes);
                    }
                    (2, v) => self.read_scope(resource, v.bytes("ResourceSpans.scope_spans")?, sink)?,
                    (3, v) => header.schema_url = v.text("ResourceSpans.schema_url")?.as_bytes(),
                    _ => {}
                }
            }
            // Empty ones leave nothing behind: they take two bytes on the wire.
            if self.scopes.last().is_some_and(|(_, of)| *of == resource) {
                self.resources.push(header);
            }
        }
        Ok(())
    }

    fn read_scope(&mut self, resource: u32, scope_spans: &'a [u8], sink: &mut impl TracesSink) -> Result<()> {
        let (scope, before) = (self.scopes.len() as u32, self.spans.len());
        let mut header = Header::default();
        for field in Fields::new(scope_spans) {
            match field? {
                (1, v) => {
                    let bytes = v.bytes("ScopeSpans.scope")?;
                    schema::check(&schema::SCOPE, bytes)?;
                    header.inner = Some(bytes);
                }
                (2, v) => self.read_span(scope, v.bytes("ScopeSpans.spans")?, sink)?,
                (3, v) => header.schema_url = v.text("ScopeSpans.schema_url")?.as_bytes(),
                _ => {}
            }
        }
        if self.spans.len() > before {
            self.scopes.push((header, resource));
        }
        Ok(())
    }

    fn read_span(&mut self, scope: u32, span: &'a [u8], sink: &mut impl TracesSink) -> Result<()> {
        schema::check(&schema::SPAN, span)?;
        let (mut trace_id, mut span_id) = (&b""[..], &b""[..]);
        let (mut start_ns, mut end_ns) = (0, 0);
        for field in Fields::new(span) {
            match field? {
                (1, v) => trace_id = v.bytes("Span.trace_id")?,
                (2, v) => span_id = v.bytes("Span.span_id")?,
                (7, v) => start_ns = v.fixed64("Span.start_time_unix_nano")?,
                (8, v) => end_ns = v.fixed64("Span.end_time_unix_nano")?,
                _ => {}
            }
        }
        let Some(trace_id) = <&TraceId>::try_from(trace_id).ok().filter(|id| **id != [0; 16]) else {
            let shown = hex::encode(&trace_id[..trace_id.len().min(32)]);
            sink.refuse(
                INVALID_TRACE_ID,
                1,
                format_args!(
                    "trace ids must be 16 bytes and not all zero, received {} bytes: {shown}",
                    trace_id.len()
                ),
            );
            return Ok(());
        };
        if span_id.len() != 8 || span_id == [0; 8] {
            sink.refuse(
                INVALID_SPAN_ID,
                1,
                format_args!(
                    "span ids must be 8 bytes and not all zero, received {} bytes in trace {}",
                    span_id.len(),
                    hex::encode(trace_id)
                ),
            );
            return Ok(());
        }
        let bytes_max = sink.span_bytes_max();
        if span.len() > bytes_max {
            sink.refuse(
                SPAN_TOO_LARGE,
                1,
                format_args!(
                    "span of {} bytes in trace {}, the limit is {bytes_max}",
                    span.len(),
                    hex::encode(trace_id)
                ),
            );
            return Ok(());
        }
        self.spans.push(SpanRef { trace_id, scope, start_ns, end_ns, bytes: span });
        Ok(())
    }

    fn write(&mut self, sink: &mut impl TracesSink) -> Result<()> {
        // Stable, so that order of arrival stays within a trace, and scopes ascend.
        self.spans.sort_by_key(|s| s.trace_id);
        let mut out = Vec::new();
        for trace in self.spans.chunk_by(|a, b| a.trace_id == b.trace_id) {
            out.clear();
            for of_resource in trace.chunk_by(|a, b| self.resource_of(a) == self.resource_of(b)) {
                self.put_resource(of_resource, &mut out);
            }
            let start_ns = trace.iter().map(|s| s.start_ns).min().unwrap_or(0);
            let end_ns = trace.iter().map(|s| s.end_ns).max().unwrap_or(0);
            sink.spans(trace[0].trace_id, to_i64(start_ns), to_i64(end_ns), trace.len() as u32, &out)?;
        }
        Ok(())
    }

    fn resource_of(&self, span: &SpanRef<'_>) -> u32 {
        self.scopes[span.scope as usize].1
    }

    fn put_resource(&self, spans: &[SpanRef<'a>], out: &mut Vec<u8>) {
        let field = |length: usize| 1 + varint_len(length as u64) + length;
        let resource = &self.resources[self.resource_of(&spans[0]) as usize];
        let by_scope = || spans.chunk_by(|a, b| a.scope == b.scope);
        let scope_len = |spans: &[SpanRef<'a>]| {
            self.scopes[spans[0].scope as usize].0.len()
                + spans.iter().map(|s| field(s.bytes.len())).sum::<usize>()
        };
        put_tag(out, 1, 2);
        put_uvarint(out, (resource.len() + by_scope().map(|s| field(scope_len(s))).sum::<usize>()) as u64);
        resource.put_inner(out);
        for spans in by_scope() {
            let scope = &self.scopes[spans[0].scope as usize].0;
            put_tag(out, 2, 2);
            put_uvarint(out, scope_len(spans) as u64);
            scope.put_inner(out);
            for span in spans {
                put_bytes(out, 2, span.bytes);
            }
            scope.put_schema_url(out);
        }
        resource.put_schema_url(out);
    }
}

fn to_i64(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
