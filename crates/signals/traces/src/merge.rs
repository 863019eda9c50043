//! Parts of a trace into one trace, streams of several sources into one: without copies.
//!
//! A span's natural key is (trace, span id, kind, start): Zipkin's client and server halves share a span id and must both
//! survive, replicas of one span must not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use hashbrown::{HashMap, HashSet};
use triptych_model::Result;
use triptych_model::traces::{SpanId, TraceId};
use triptych_traceql::TraceSpans;

use crate::otlp::{self, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span, Trace};

/// Merges OTLP `TracesData` messages of one trace into one message: spans once, grouped by resource and scope, sorted by start.
/// Empty where there are no spans. A part that is no OTLP is an error of kind `Damaged`.
pub fn combine(parts: Vec<Bytes>) -> Result<Bytes> {
    let mut trace_id = None;
    let mut traces = Vec::with_capacity(parts.len());
    for part in &parts {
        let trace_id = *trace_id.get_or_insert_with(|| first_trace_id(part));
        traces.push(otlp::decode(trace_id, part)?);
    }
    let trace = combine_traces(trace_id.unwrap_or_default(), traces);
    let mut out = Vec::with_capacity(parts.iter().map(Bytes::len).max().unwrap_or_default());
    otlp::encode(&trace, &mut out);
    Ok(out.into())
}

/// The trace id that the first span carries; zeros where there is none.
pub fn first_trace_id(otlp: &[u8]) -> TraceId {
    // TracesData.1 ResourceSpans -> .2 ScopeSpans -> .2 Span -> .1 trace_id
    otlp::first_bytes(otlp, &[1, 2, 2, 1])
        .filter(|id| id.len() <= 16)
        .map(|id| {
            let mut out = [0; 16];
            out[16 - id.len()..].copy_from_slice(id);
            out
        })
        .unwrap_or_default()
}

/// As [`combine`], over decoded parts.
pub fn combine_traces<'a>(trace_id: TraceId, parts: Vec<Trace<'a>>) -> Trace<'a> {
    /// Where a resource stands in the result, and where its scopes stand in it.
    type Places = (usize, HashMap<Vec<u8>, usize>);
    let mut out = Trace { trace_id, resource_spans: Vec::new() };
    let mut resources: HashMap<Vec<u8>, Places> = HashMap::new();
    let mut seen: HashSet<(SpanId, i32, u64)> = HashSet::new();
    for rs in parts.into_iter().flat_map(|t| t.resource_spans) {
        let key = resource_key(&rs.resource);
        let (at, scopes) = resources.entry(key).or_insert_with(|| (usize::MAX, HashMap::new()));
        for ss in rs.scope_spans {
            let mut spans: Vec<Span<'a>> = ss.spans;
            spans.retain(|s| seen.insert((s.span_id, s.kind, s.start_ns)));
            if spans.is_empty() {
                continue;
            }
            if *at == usize::MAX {
                *at = out.resource_spans.len();
                out.resource_spans.push(ResourceSpans {
                    resource: rs.resource.clone(),
                    scope_spans: Vec::new(),
                    schema_url: rs.schema_url,
                });
            }
            let into = &mut out.resource_spans[*at].scope_spans;
            let scope_at = *scopes.entry(scope_key(&ss.scope)).or_insert_with(|| {
                into.push(ScopeSpans { scope: ss.scope, spans: Vec::new(), schema_url: ss.schema_url });
                into.len() - 1
            });
            let target = &mut into[scope_at].spans;
            if target.is_empty() { *target = spans } else { target.append(&mut spans) }
        }
    }
    let start = |spans: &[Span<'_>]| spans.first().map_or(u64::MAX, |s| s.start_ns);
    for rs in &mut out.resource_spans {
        for ss in &mut rs.scope_spans {
            ss.spans.sort_by_key(|s| (s.start_ns, s.span_id));
        }
        rs.scope_spans.sort_by_key(|ss| start(&ss.spans));
    }
    out.resource_spans.sort_by_key(|rs| rs.scope_spans.first().map_or(u64::MAX, |ss| start(&ss.spans)));
    out
}

/// Attributes in any order make the same key: blocks give them back in another order than they came.
fn put_sorted(out: &mut Vec<u8>, attributes: &[KeyValue<'_>]) {
    let mut encoded: Vec<Vec<u8>> = attributes
        .iter()
        .map(|a| {
            let mut bytes = Vec::with_capacity(64);
            otlp::encode_key_value(&mut bytes, a);
            bytes
        })
        .collect();
    encoded.sort_unstable();
    for bytes in encoded {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&bytes);
    }
}

fn resource_key(resource: &Resource<'_>) -> Vec<u8> {
    let mut key = resource.dropped_attributes.to_le_bytes().to_vec();
    put_sorted(&mut key, &resource.attributes);
    key
}

fn scope_key(scope: &InstrumentationScope<'_>) -> Vec<u8> {
    let mut key = scope.dropped_attributes.to_le_bytes().to_vec();
    for text in [scope.name, scope.version] {
        key.extend_from_slice(&(text.len() as u32).to_le_bytes());
        key.extend_from_slice(text.as_bytes());
    }
    put_sorted(&mut key, &scope.attributes);
    key
}

/// What a k-way merge needs of its items.
trait Keyed: Send + 'static {
    fn key(&self) -> TraceId;
    fn absorb(&mut self, other: Self);
}

impl Keyed for TraceSpans {
    fn key(&self) -> TraceId {
        self.trace_id
    }
    /// Nested-set numbers of the two sides speak of different trees: the absorbed side's are moved out of the way, so that no
    /// relation appears that neither side knew.
    fn absorb(&mut self, other: Self) {
        let seen: HashSet<(SpanId, i64)> = self.spans.iter().map(|s| (s.span_id, s.start_ns)).collect();
        let shift = self.spans.iter().map(|s| s.nested_right).max().unwrap_or_default();
        let end = (self.start_ns + self.duration_ns).max(other.start_ns + other.duration_ns);
        self.start_ns = match (self.start_ns, other.start_ns) {
            (0, start) | (start, 0) => start,
            (a, b) => a.min(b),
        };
        self.duration_ns = end - self.start_ns;
        if self.root_name.is_empty() && self.root_service.is_empty() {
            self.root_name = other.root_name;
            self.root_service = other.root_service;
        }
        for (service, spans, errors) in other.services {
            // Replicas count the same spans, parts count different ones: the larger side is the better guess.
            match self.services.iter_mut().find(|(s, ..)| *s == service) {
                Some(own) => *own = (service, own.1.max(spans), own.2.max(errors)),
                None => self.services.push((service, spans, errors)),
            }
        }
        self.services.sort();
        for mut span in other.spans {
            if seen.contains(&(span.span_id, span.start_ns)) {
                continue;
            }
            for bound in [&mut span.nested_left, &mut span.nested_right, &mut span.nested_parent] {
                if *bound > 0 {
                    *bound = bound.saturating_add(shift);
                }
            }
            self.spans.push(span);
        }
    }
}

/// Merges streams in ascending order of trace id. Ends with the first error.
fn merge_keyed<T: Keyed>(streams: Vec<BoxStream<'static, Result<T>>>) -> BoxStream<'static, Result<T>> {
    async_stream::try_stream! {
        let mut streams = streams;
        let mut heads: Vec<Option<T>> = Vec::with_capacity(streams.len());
        let mut heap = BinaryHeap::new();
        // The first items of all sources at once: they do their I/O side by side.
        let firsts = futures::future::join_all(streams.iter_mut().map(|s| s.next())).await;
        for (i, first) in firsts.into_iter().enumerate() {
            let first = first.transpose()?;
            if let Some(item) = &first {
                heap.push(Reverse((item.key(), i)));
            }
            heads.push(first);
        }
        while let Some(Reverse((key, i))) = heap.pop() {
            let mut item = heads[i].take();
            let mut drained = vec![i];
            while let Some(Reverse((next, j))) = heap.peek().copied() && next == key {
                heap.pop();
                drained.push(j);
                if let (Some(item), Some(other)) = (&mut item, heads[j].take()) {
                    item.absorb(other);
                }
            }
            for j in drained {
                while let Some(next) = streams[j].next().await.transpose()? {
                    if next.key() != key {
                        heap.push(Reverse((next.key(), j)));
                        heads[j] = Some(next);
                        break;
                    }
                    // A block that has a trace twice. Tempo has written such blocks.
                    if let Some(item) = &mut item {
                        item.absorb(next);
                    }
                }
            }
            if let Some(item) = item {
                yield item;
            }
        }
    }
    .boxed()
}

/// Merges what several sources fetched: each trace once, each span once.
pub fn spans(streams: Vec<BoxStream<'static, Result<TraceSpans>>>) -> BoxStream<'static, Result<TraceSpans>> {
    merge_keyed(streams)
}

#[cfg(test)]
mod tests;
