//! Queries over a [`SpanSource`]: search, and the extraction of samples for metrics.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use futures::stream::{self, BoxStream, StreamExt};
use hashbrown::HashMap;
use triptych_model::traces::{
    SpanMatch, SpanSample, SpanSampleSelect, SpanSet, TraceMatch, TraceSamples, TraceSearch, Value,
};
use triptych_model::{Error, Labels, LabelsBuilder, Result};
use triptych_runtime::QueryContext;

use crate::ast::{Body, MetricsLeaf, MetricsOp, Query};
use crate::eval::{Program, Read, Set};
use crate::parser::parse;
use crate::source::{Attribute, FetchSpans, Intrinsic, Span, SpanSource, TraceSpans};

/// Traces of an answer where nothing is asked for (Tempo's default).
pub const TRACES_DEFAULT: usize = 20;
/// Spans kept per span set where nothing is asked for (Tempo's default).
pub const SPANS_PER_SET_DEFAULT: usize = 3;

/// After so many traces without a match the task yields.
const YIELD_TRACES: usize = 64;

/// Streams the traces that match, in the source's order, and stops at the limit. With the hint `most_recent=true` the whole
/// range is searched, and the newest come, newest first.
pub async fn search(
    ctx: &QueryContext,
    source: &dyn SpanSource,
    search: &TraceSearch,
) -> Result<BoxStream<'static, Result<TraceMatch>>> {
    let query = parse(&search.query)?;
    let Body::Spans(pipeline) = &query.body else {
        return Err(Error::invalid("this is a metrics query: it cannot be searched with"));
    };
    let fetch = query.fetch(search.start_ns, search.end_ns);
    let searcher = Searcher {
        program: Program::new(pipeline, &fetch)?,
        shown: shown(&query, &fetch)?,
        spans_per_set: or_default(search.spans_per_set, SPANS_PER_SET_DEFAULT),
    };
    let limit = or_default(search.limit, TRACES_DEFAULT);
    let traces = source.fetch(ctx, &fetch).await?;
    let matches = evaluated(ctx, traces, move |trace| searcher.run(trace));
    if query.is_most_recent() {
        return Ok(stream::once(newest(matches, limit)).flat_map(stream::iter).boxed());
    }
    Ok(matches.take(limit).boxed())
}

/// Streams the samples of a metrics query that has one leaf, in ascending order of trace id. A sample stands at its span's start,
/// which lies in the range asked for, both ends included.
pub async fn samples(
    ctx: &QueryContext,
    source: &dyn SpanSource,
    select: &SpanSampleSelect,
) -> Result<BoxStream<'static, Result<TraceSamples>>> {
    let query = parse(&select.query)?;
    let leaf = match &query.body {
        Body::Metrics(expr) => match expr.leaves()[..] {
            [leaf] => leaf,
            _ => return Err(Error::invalid("samples are extracted for one metrics function at a time")),
        },
        Body::Spans(_) => return Err(Error::invalid("not a metrics query: it makes no samples")),
    };
    let fetch = query.fetch(select.start_ns, select.end_ns);
    let mut extractor = Extractor::new(leaf, &fetch)?;
    let traces = source.fetch(ctx, &fetch).await?;
    Ok(evaluated(ctx, traces, move |trace| extractor.run(trace)))
}

fn or_default(asked: usize, default: usize) -> usize {
    if asked == 0 { default } else { asked }
}

impl Query {
    /// `with(most_recent=true)`.
    pub fn is_most_recent(&self) -> bool {
        self.hints.iter().any(|(key, value)| key == "most_recent" && *value == Value::Bool(true))
    }
}

/// Runs `evaluate` on every trace; ends with the first error.
fn evaluated<T: Send + 'static>(
    ctx: &QueryContext,
    traces: BoxStream<'static, Result<TraceSpans>>,
    evaluate: impl FnMut(&TraceSpans) -> Option<T> + Send + 'static,
) -> BoxStream<'static, Result<T>> {
    let state = Some((traces, ctx.clone(), evaluate));
    stream::unfold(state, async |state| {
        let (mut traces, ctx, mut evaluate) = state?;
        let mut seen = 0;
        loop {
            let found = match traces.next().await? {
                Ok(trace) => ctx.check().map(|()| evaluate(&trace)),
                Err(e) => Err(e),
            };
            match found {
                Ok(Some(found)) => return Some((Ok(found), Some((traces, ctx, evaluate)))),
                Ok(None) => {}
                Err(e) => return Some((Err(e), None)),
            }
            seen += 1;
            if seen % YIELD_TRACES == 0 {
                tokio::task::yield_now().await;
            }
        }
    })
    .boxed()
}

async fn newest(
    mut matches: BoxStream<'static, Result<TraceMatch>>,
    limit: usize,
) -> Vec<Result<TraceMatch>> {
    // The oldest kept is on top.
    let mut kept: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
    let mut found: HashMap<usize, TraceMatch> = HashMap::new();
    for n in 0.. {
        let Some(next) = matches.next().await else { break };
        let next = match next {
            Ok(next) => next,
            Err(e) => return vec![Err(e)],
        };
        if kept.len() >= limit {
            match kept.peek() {
                Some(Reverse((oldest_ns, _))) if next.start_ns > *oldest_ns => {}
                _ => continue,
            }
            if let Some(Reverse((_, gone))) = kept.pop() {
                found.remove(&gone);
            }
        }
        kept.push(Reverse((next.start_ns, n)));
        found.insert(n, next);
    }
    let mut all: Vec<TraceMatch> = found.into_values().collect();
    all.sort_by(|a, b| b.start_ns.cmp(&a.start_ns).then_with(|| a.trace_id.cmp(&b.trace_id)));
    all.into_iter().map(Ok).collect()
}

/// What of a span an answer shows, by key: all that the query names and the answer has no field of its own for.
fn shown(query: &Query, fetch: &FetchSpans) -> Result<Vec<(String, Read)>> {
    let mut all: Vec<(String, Read)> = Vec::new();
    let mut error = None;
    if let Body::Spans(pipeline) = &query.body {
        pipeline.visit_attributes(&mut |a| {
            let has_field = matches!(
                a,
                Attribute::Intrinsic(
                    Intrinsic::Name
                        | Intrinsic::Duration
                        | Intrinsic::SpanId
                        | Intrinsic::TraceId
                        | Intrinsic::TraceDuration
                        | Intrinsic::RootName
                        | Intrinsic::RootServiceName
                )
            );
            if has_field || all.iter().any(|(key, _)| key == a.key()) {
                return;
            }
            match Read::new(a, fetch) {
                Ok(read) => all.push((a.key().to_owned(), read)),
                Err(e) => error = Some(e),
            }
        });
    }
    error.map_or(Ok(all), Err)
}

struct Searcher {
    program: Program,
    shown: Vec<(String, Read)>,
    spans_per_set: usize,
}

impl Searcher {
    fn run(&self, trace: &TraceSpans) -> Option<TraceMatch> {
        let sets = self.program.run(trace);
        if sets.is_empty() {
            return None;
        }
        Some(TraceMatch {
            trace_id: trace.trace_id,
            root_service: trace.root_service.to_string(),
            root_name: trace.root_name.to_string(),
            start_ns: trace.start_ns,
            duration_ns: trace.duration_ns,
            span_sets: sets.into_iter().map(|set| self.span_set(trace, set)).collect(),
            services: trace
                .services
                .iter()
                .map(|(name, spans, errors)| (name.to_string(), *spans, *errors))
                .collect(),
        })
    }

    /// Keeps the first spans by time, so that copies of a trace keep the same ones.
    fn span_set(&self, trace: &TraceSpans, set: Set) -> SpanSet {
        let matched = set.spans.len() as u32;
        let mut spans: Vec<&Span> = set.spans.iter().map(|at| &trace.spans[*at as usize]).collect();
        spans.sort_by_key(|s| (s.start_ns, s.span_id));
        spans.truncate(self.spans_per_set);
        let spans = spans.into_iter().map(|span| SpanMatch {
            span_id: span.span_id,
            name: span.name.to_string(),
            start_ns: span.start_ns,
            duration_ns: span.duration_ns,
            attributes: self
                .shown
                .iter()
                .filter_map(|(key, read)| Some((key.clone(), read.run(trace, span).shown()?)))
                .collect(),
        });
        SpanSet { spans: spans.collect(), matched, attributes: set.attributes }
    }
}

/// Label sets kept for the next span; more than so many and the cache starts anew.
const LABELS_CACHED_MAX: usize = 10_000;

/// Makes samples of spans. The value is: 1 for counts; the attribute's number for `min`, `max`, `sum`, `avg` (durations in
/// seconds); the bucket's upper end for quantiles and histograms.
struct Extractor {
    program: Program,
    by: Vec<(String, Read)>,
    value: Option<Read>,
    bucketed: bool,
    start_ns: i64,
    end_ns: i64,
    /// Reused.
    key: Vec<u8>,
    cache: HashMap<Box<[u8]>, Labels>,
}

impl Extractor {
    fn new(leaf: &MetricsLeaf, fetch: &FetchSpans) -> Result<Self> {
        Ok(Self {
            program: Program::new(&leaf.pipeline, fetch)?,
            by: leaf.by.iter().map(|a| Ok((a.to_string(), Read::new(a, fetch)?))).collect::<Result<_>>()?,
            value: leaf.op.attribute().map(|a| Read::new(a, fetch)).transpose()?,
            bucketed: matches!(leaf.op, MetricsOp::QuantileOverTime(..) | MetricsOp::HistogramOverTime(_)),
            start_ns: fetch.start_ns,
            end_ns: if fetch.end_ns == 0 { i64::MAX } else { fetch.end_ns },
            key: Vec::new(),
            cache: HashMap::new(),
        })
    }

    fn run(&mut self, trace: &TraceSpans) -> Option<TraceSamples> {
        let mut sets = self.program.run(trace);
        let spans = match sets.len() {
            0 => return None,
            1 => sets.remove(0).spans,
            _ => {
                let mut all: Vec<u32> = sets.into_iter().flat_map(|s| s.spans).collect();
                all.sort_unstable();
                all.dedup();
                all
            }
        };
        let mut samples = Vec::with_capacity(spans.len());
        for at in spans {
            let span = &trace.spans[at as usize];
            if span.start_ns < self.start_ns || span.start_ns > self.end_ns {
                continue;
            }
            let Some(value) = self.value_of(trace, span) else { continue };
            let labels = self.labels_of(trace, span);
            samples.push(SpanSample { labels, ts_ns: span.start_ns, value, span_id: span.span_id });
        }
        (!samples.is_empty()).then_some(TraceSamples { trace_id: trace.trace_id, samples })
    }

    fn value_of(&self, trace: &TraceSpans, span: &Span) -> Option<f64> {
        let Some(read) = self.value else { return Some(1.0) };
        let number = read.run(trace, span).into_number()?;
        let (value, unit) = match number {
            Value::Duration(ns) => (ns as f64, 1e9),
            Value::Int(i) => (i as f64, 1.0),
            Value::Float(f) => (f, 1.0),
            _ => return None,
        };
        if !self.bucketed {
            return Some(value / unit).filter(|v| !v.is_nan());
        }
        // Durations are bucketed by nanoseconds, and only what is at least 2 has a bucket, as in Tempo; floats below
        // that, which Tempo leaves out, have theirs here.
        if value < 2.0 && !matches!(number, Value::Float(_)) {
            return None;
        }
        bucket(value).map(|b| b / unit)
    }

    fn labels_of(&mut self, trace: &TraceSpans, span: &Span) -> Labels {
        if self.by.is_empty() {
            return Labels::empty();
        }
        // What the values are, as one key: each behind its length, or what is not there as a byte of its own.
        self.key.clear();
        for (_, read) in &self.by {
            let at = self.key.len();
            self.key.extend_from_slice(&[0; 5]);
            if read.write_text(trace, span, &mut self.key) {
                let length = (self.key.len() - at - 5) as u32;
                self.key[at] = 1;
                self.key[at + 1..at + 5].copy_from_slice(&length.to_le_bytes());
            }
        }
        if let Some(labels) = self.cache.get(self.key.as_slice()) {
            return labels.clone();
        }
        let mut builder = LabelsBuilder::default();
        let mut none = true;
        for (name, read) in &self.by {
            if let Some(value) = read.run(trace, span).shown() {
                let text = value.to_string();
                builder.set(name, if text.is_empty() { "<empty>" } else { &text });
                none = false;
            }
        }
        // What is not there makes no label, but a series needs one.
        if none {
            builder.set(&self.by[0].0, "nil");
        }
        let labels = builder.build();
        if self.cache.len() >= LABELS_CACHED_MAX {
            self.cache.clear();
        }
        self.cache.insert(self.key.as_slice().into(), labels.clone());
        labels
    }
}

/// The smallest power of two that is not smaller; `None` for what has none.
fn bucket(value: f64) -> Option<f64> {
    if value <= 0.0 || !value.is_finite() {
        return None;
    }
    let exponent = value.log2().ceil() as i32;
    // `log2` of large values may round either way.
    let b = 2f64.powi(exponent);
    Some(if b < value {
        b * 2.0
    } else if b / 2.0 >= value {
        b / 2.0
    } else {
        b
    })
}

#[cfg(test)]
mod tests;
