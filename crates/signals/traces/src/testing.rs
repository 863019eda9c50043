//! Traces for tests: the same seed gives the same trace.

use std::borrow::Cow;

use triptych_model::batch::{TracesBuilder, TracesReader};
use triptych_model::traces::TraceId;

use crate::head::{Head, HeadConfig};
use crate::otlp::*;
use crate::view::Derived;

/// Seconds since the epoch at which all test traces begin.
pub const BASE_NS: u64 = 1_700_000_000_000_000_000;

pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides.max(1)
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize]
    }
}

pub fn text(s: &'static str) -> AnyValue<'static> {
    AnyValue::String(Cow::Borrowed(s))
}

pub fn id(seed: u64) -> TraceId {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut id = [0; 16];
    // Every eighth trace has a 64-bit id.
    let from = if seed % 8 == 7 { 8 } else { 0 };
    id[from..].iter_mut().for_each(|b| *b = dice.roll(256) as u8);
    id[15] = seed as u8 | 1;
    id
}

const SERVICES: [&str; 4] = ["checkout", "cart", "payment", "frontend"];
const NAMES: [&str; 5] = ["GET /", "POST /pay", "select", "render", "publish"];

fn values(dice: &mut Dice) -> Vec<KeyValue<'static>> {
    let all: [(&'static str, AnyValue<'static>); 14] = [
        ("str", text("värde")),
        ("empty", text("")),
        ("int", AnyValue::Int(-42)),
        ("big", AnyValue::Int(i64::MAX)),
        ("float", AnyValue::Double(2.5)),
        ("yes", AnyValue::Bool(true)),
        ("no", AnyValue::Bool(false)),
        ("strings", AnyValue::Array(vec![text("a"), text("b")])),
        ("ints", AnyValue::Array(vec![AnyValue::Int(1), AnyValue::Int(2), AnyValue::Int(3)])),
        ("mixed", AnyValue::Array(vec![AnyValue::Int(1), text("x")])),
        ("bools", AnyValue::Array(vec![AnyValue::Bool(true)])),
        ("floats", AnyValue::Array(vec![AnyValue::Double(0.5), AnyValue::Double(-1.0)])),
        (
            "map",
            AnyValue::KvList(vec![
                KeyValue::new("k", AnyValue::Bytes(Cow::Borrowed(b"\x00\xff"))),
                KeyValue::new("n", AnyValue::None),
            ]),
        ),
        ("nothing", AnyValue::Array(vec![])),
    ];
    all.into_iter().filter(|_| dice.roll(3) == 0).map(|(k, v)| KeyValue::new(k, v)).collect()
}

/// A trace of a few spans with everything that the format knows.
pub fn rich(seed: u64) -> Trace<'static> {
    let mut dice = Dice(seed + 1);
    let start = BASE_NS + seed * 1_000_000_000;
    let mut trace = Trace { trace_id: id(seed), resource_spans: Vec::new() };
    let resources = 1 + dice.roll(3);
    let mut number = 0u64;
    for r in 0..resources {
        let mut resource =
            Resource { attributes: values(&mut dice), dropped_attributes: dice.roll(2) as u32 };
        resource.attributes.push(KeyValue::new("service.name", text(SERVICES[r as usize])));
        resource
            .attributes
            .push(KeyValue::new("k8s.pod.name", text(dice.pick(&["pod-1", "pod-2", "pod-3"]))));
        let mut rs = ResourceSpans { resource, ..ResourceSpans::default() };
        for scope in 0..1 + dice.roll(2) {
            let mut ss = ScopeSpans {
                scope: InstrumentationScope {
                    name: ["otel", "zipkin"][scope as usize],
                    version: dice.pick(&["", "1.0"]),
                    attributes: values(&mut dice),
                    dropped_attributes: 0,
                },
                ..ScopeSpans::default()
            };
            for _ in 0..1 + dice.roll(4) {
                number += 1;
                let begin = start + number * 1_000_000;
                let mut attributes = values(&mut dice);
                if dice.roll(2) == 0 {
                    attributes
                        .push(KeyValue::new("http.status_code", AnyValue::Int(dice.pick(&[200, 404, 500]))));
                    attributes.push(KeyValue::new("http.method", text(dice.pick(&["GET", "POST"]))));
                    attributes.push(KeyValue::new("http.url", AnyValue::Array(vec![text("/a"), text("/b")])));
                }
                ss.spans.push(Span {
                    span_id: number.to_be_bytes(),
                    parent_id: (number > 1).then(|| (1 + dice.roll(number - 1)).to_be_bytes()),
                    trace_state: dice.pick(&["", "a=b"]),
                    name: dice.pick(&NAMES),
                    kind: dice.roll(6) as i32,
                    start_ns: begin,
                    end_ns: begin + dice.roll(50) * 1_000_000,
                    attributes,
                    dropped_attributes: dice.roll(3) as u32,
                    events: (0..dice.roll(3))
                        .map(|i| Event {
                            time_ns: begin + i * 1000,
                            name: dice.pick(&["exception", "log"]),
                            attributes: values(&mut dice),
                            dropped_attributes: dice.roll(2) as u32,
                        })
                        .collect(),
                    dropped_events: dice.roll(2) as u32,
                    links: (0..dice.roll(2))
                        .map(|_| Link {
                            trace_id: &[7; 16],
                            span_id: &[9; 8],
                            trace_state: "s",
                            attributes: values(&mut dice),
                            dropped_attributes: 1,
                            flags: 0,
                        })
                        .collect(),
                    dropped_links: dice.roll(2) as u32,
                    status_code: dice.roll(3) as i32,
                    status_message: dice.pick(&["", "boom"]),
                    flags: 0,
                });
            }
            rs.scope_spans.push(ss);
        }
        trace.resource_spans.push(rs);
    }
    trace
}

pub fn bytes(trace: &Trace<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(trace, &mut out);
    out
}

/// The same content in one order, for comparing: attributes sorted, resources and scopes merged.
pub fn canonical<'a>(trace: Trace<'a>) -> Trace<'a> {
    let mut trace = crate::merge::combine_traces(trace.trace_id, vec![trace]);
    let sort = |a: &mut Vec<KeyValue<'a>>| a.sort_by(|x, y| x.key.cmp(&y.key));
    for rs in &mut trace.resource_spans {
        sort(&mut rs.resource.attributes);
        for ss in &mut rs.scope_spans {
            sort(&mut ss.scope.attributes);
            for span in &mut ss.spans {
                sort(&mut span.attributes);
                span.events.iter_mut().for_each(|e| sort(&mut e.attributes));
                span.links.iter_mut().for_each(|l| sort(&mut l.attributes));
            }
        }
    }
    trace
}

pub fn batch(traces: &[Trace<'_>]) -> TracesBuilder {
    let mut batch = TracesBuilder::default();
    for trace in traces {
        let derived = Derived::of(trace);
        batch.trace(
            &trace.trace_id,
            derived.start_ns as i64,
            derived.end_ns as i64,
            trace.span_count() as u32,
            &bytes(trace),
        );
    }
    batch
}

/// A head that holds these traces, each cut into two parts that share a span.
pub fn head(traces: &[Trace<'_>]) -> Head {
    let head = Head::new(HeadConfig::default());
    for half in 0..2 {
        let parts: Vec<_> = traces
            .iter()
            .map(|t| {
                let mut part = t.clone();
                let mut n = 0;
                for ss in part.resource_spans.iter_mut().flat_map(|rs| &mut rs.scope_spans) {
                    ss.spans.retain(|_| {
                        n += 1;
                        n == 1 || n % 2 == half
                    });
                }
                part
            })
            .collect();
        let batch = batch(&parts);
        let report = head.append(TracesReader::new(batch.plain()).unwrap()).unwrap();
        assert_eq!(report.refused_items(), 0);
    }
    head
}
