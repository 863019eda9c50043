//! Evaluation over spans in memory: what the language costs beside the store.

use std::hint::black_box;
use std::sync::Arc;

use async_trait::async_trait;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::executor::block_on;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use smallvec::smallvec;
use triptych_model::traces::{SpanSampleSelect, TraceSearch, TracesMetricsQuery, Value};
use triptych_model::{Result, TenantId};
use triptych_runtime::{QueryContext, QueryLimits};
use triptych_traceql::source::{Attribute, Scope, Span};
use triptych_traceql::{FetchSpans, SpanSource, TraceSpans, evaluate, leaves, parse, samples, search};

/// `traces` traces of `spans` spans each: a chain of parents with two leaves on every link.
struct Memory {
    traces: u32,
    spans: i32,
}

fn trace(n: u32, spans: i32, fetch: &FetchSpans) -> TraceSpans {
    let name: [Arc<str>; 4] = ["GET", "query", "render", "auth"].map(Into::into);
    let values = |at: i32, a: &Attribute| match a {
        Attribute::Named(Scope::Resource, _) => Value::String(format!("service-{}", at % 7)),
        Attribute::Named(..) => Value::Int(i64::from(200 + 100 * (at % 4))),
        Attribute::Intrinsic(_) => Value::Status(if at % 10 == 0 { "error" } else { "unset" }.to_owned()),
    };
    let links = spans / 3;
    let spans = (0..spans).map(|at| {
        let (link, leaf) = (at / 3, at % 3);
        // A link encloses its leaves and then the next link.
        let left = link * 5 + 1 + 2 * leaf - i32::from(leaf > 0);
        Span {
            span_id: (at as u64 + 1).to_be_bytes(),
            name: name[at as usize % 4].clone(),
            start_ns: i64::from(n) * 1_000_000 + i64::from(at),
            duration_ns: 1_000_000 + i64::from(at) * 1000,
            nested_left: left,
            nested_right: if leaf > 0 { left + 1 } else { links * 10 - link },
            nested_parent: if leaf > 0 { link * 5 + 1 } else { (link - 1).max(0) * 5 + 1 },
            values: fetch.attributes.iter().map(|a| smallvec![values(at, a)]).collect(),
        }
    });
    let mut trace_id = [0; 16];
    trace_id[12..].copy_from_slice(&n.to_be_bytes());
    TraceSpans {
        trace_id,
        start_ns: i64::from(n) * 1_000_000,
        duration_ns: 5_000_000,
        root_service: "service-0".into(),
        root_name: "GET".into(),
        services: Vec::new(),
        spans: spans.collect(),
    }
}

struct Ready(Vec<TraceSpans>);

#[async_trait]
impl SpanSource for Ready {
    async fn fetch(
        &self,
        _: &QueryContext,
        _: &FetchSpans,
    ) -> Result<BoxStream<'static, Result<TraceSpans>>> {
        Ok(stream::iter(self.0.clone().into_iter().map(Ok)).boxed())
    }
}

fn queries(c: &mut Criterion) {
    let limits = QueryLimits { timeout: std::time::Duration::from_secs(3600), ..QueryLimits::default() };
    let ctx = QueryContext::new(TenantId::single(), limits);
    let many = Memory { traces: 2000, spans: 30 };
    let one = Memory { traces: 1, spans: 90_000 };
    for (what, memory, query) in [
        ("filter", &many, "{ resource.service.name = `service-3` && span.code >= 400 }"),
        ("regex", &many, "{ resource.service.name =~ `.*-[35]` }"),
        ("group", &many, "{ status = error } | by(resource.service.name) | count() > 1"),
        ("descendants", &many, "{ status = error } >> { span.code >= 400 }"),
        ("descendants of one large trace", &one, "{ status = error } >> { span.code >= 400 }"),
        ("siblings in one large trace", &one, "{ status = error } ~ { span.code >= 400 }"),
        ("rate by", &many, "{ span.code >= 400 } | rate() by (resource.service.name)"),
        ("quantile", &many, "{} | quantile_over_time(duration, 0.9, 0.99) by (name)"),
    ] {
        let fetch = parse(query).expect("query").fetch(0, 0);
        let source = Ready((0..memory.traces).map(|n| trace(n, memory.spans, &fetch)).collect());
        let mut group = c.benchmark_group("evaluate");
        group
            .sample_size(10)
            .throughput(Throughput::Elements(u64::from(memory.traces) * memory.spans as u64));
        group.bench_function(what, |b| {
            b.iter(|| {
                block_on(async {
                    if query.contains("_over_time") || query.contains("rate()") {
                        let query = TracesMetricsQuery {
                            query: query.to_owned(),
                            start_ns: 0,
                            end_ns: 3_000_000_000,
                            step_ns: 100_000_000,
                        };
                        let leaf: SpanSampleSelect = leaves(&query)?.remove(0);
                        let stream = samples(&ctx, &source, &leaf).await?;
                        black_box(evaluate(&ctx, &query, vec![stream]).await?);
                    } else {
                        let search_all = TraceSearch {
                            query: query.to_owned(),
                            start_ns: 0,
                            end_ns: 0,
                            limit: usize::MAX,
                            spans_per_set: 3,
                        };
                        let found: Vec<_> = search(&ctx, &source, &search_all).await?.try_collect().await?;
                        black_box(found);
                    }
                    Ok::<(), triptych_model::Error>(())
                })
                .expect("answer")
            })
        });
    }
    c.bench_function("copy of the spans, contained in every figure", |b| {
        let fetch =
            parse("{ span.code >= 400 } | rate() by (resource.service.name)").expect("query").fetch(0, 0);
        let traces: Vec<TraceSpans> = (0..many.traces).map(|n| trace(n, many.spans, &fetch)).collect();
        b.iter(|| black_box(traces.clone()))
    });
}

criterion_group!(benches, queries);
criterion_main!(benches);
