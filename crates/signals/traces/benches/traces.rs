//! Spans per second on one core: into the head, into a block, out of both.

#![allow(clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::TryStreamExt;
use triptych_model::TenantId;
use triptych_model::batch::{TracesBuilder, TracesReader};
use triptych_model::traces::TraceSearch;
use triptych_runtime::QueryContext;
use triptych_traces::otlp::*;
use triptych_traces::view::Derived;
use triptych_traces::{BucketStore, BucketStoreConfig, FlushOptions, Head, HeadConfig};

const TRACES: u64 = 5_000;
const SPANS: u64 = 20;

/// A web shop's traces: 20 spans of 4 services, 8 attributes each, an event now and then.
fn trace(n: u64) -> Trace<'static> {
    let mut x = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut roll = move |sides: u64| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 33) % sides
    };
    let mut trace_id = [0; 16];
    trace_id[..8].copy_from_slice(&(roll(1 << 31) << 32 | roll(1 << 31)).to_be_bytes());
    trace_id[8..].copy_from_slice(&n.to_be_bytes());
    let start = 1_700_000_000_000_000_000 + n * 1_000_000;
    let mut id = 0u64;
    let resource_spans = ["frontend", "cart", "checkout", "payment"]
        .map(|service| {
            let text = |k, v: &'static str| KeyValue::new(k, AnyValue::String(v.into()));
            let spans = (0..SPANS / 4)
                .map(|_| {
                    id += 1;
                    Span {
                        span_id: (n << 16 | id).to_be_bytes(),
                        parent_id: (id > 1).then(|| (n << 16 | (1 + roll(id - 1))).to_be_bytes()),
                        name: ["GET /api/products", "SELECT shop.orders", "rpc.Charge", "publish orders"]
                            [roll(4) as usize],
                        kind: roll(6) as i32,
                        start_ns: start + id * 10_000,
                        end_ns: start + id * 10_000 + roll(50_000_000),
                        attributes: vec![
                            text("http.method", ["GET", "POST"][roll(2) as usize]),
                            KeyValue::new(
                                "http.status_code",
                                AnyValue::Int([200, 404, 500][roll(3) as usize]),
                            ),
                            text("http.url", "https://shop.example.com/api/products"),
                            text("net.peer.name", "10.0.0.17"),
                            KeyValue::new(
                                "app.user.id",
                                AnyValue::String(format!("user-{}", roll(10_000)).into()),
                            ),
                            KeyValue::new("app.items", AnyValue::Int(roll(20) as i64)),
                            KeyValue::new("cached", AnyValue::Bool(roll(2) == 0)),
                            text("thread.name", "worker-3"),
                        ],
                        events: (0..u64::from(roll(8) == 0))
                            .map(|_| Event {
                                time_ns: start,
                                name: "exception",
                                attributes: vec![text("exception.type", "Timeout")],
                                dropped_attributes: 0,
                            })
                            .collect(),
                        status_code: i32::from(roll(20) == 0) * 2,
                        ..Span::default()
                    }
                })
                .collect();
            ResourceSpans {
                resource: Resource {
                    attributes: vec![
                        text("service.name", service),
                        text("k8s.pod.name", "pod-7f9c"),
                        text("host.name", "node-1"),
                    ],
                    dropped_attributes: 0,
                },
                scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
                schema_url: "",
            }
        })
        .into();
    Trace { trace_id, resource_spans }
}

fn traces(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tenant = TenantId::single();
    let mut batch = TracesBuilder::default();
    for n in 0..TRACES {
        let trace = trace(n);
        let derived = Derived::of(&trace);
        let mut otlp = Vec::new();
        encode(&trace, &mut otlp);
        batch.trace(&trace.trace_id, derived.start_ns as i64, derived.end_ns as i64, SPANS as u32, &otlp);
    }
    let filled = || {
        let head = Head::new(HeadConfig::default());
        head.append(TracesReader::new(batch.plain()).unwrap()).unwrap();
        head
    };
    let head = filled();
    println!("head: {} bytes received, {} kept", batch.bytes(), head.bytes());
    let mut group = c.benchmark_group("traces");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(TRACES * SPANS));
    group.bench_function("head append", |b| b.iter(|| black_box(filled())));
    group.bench_function("flush to a block", |b| {
        b.iter(|| {
            runtime.block_on(head.flush(&triptych_blob::memory(), &tenant, &FlushOptions::default())).unwrap()
        });
    });
    let bucket = triptych_blob::memory();
    let report = runtime.block_on(head.flush(&bucket, &tenant, &FlushOptions::default())).unwrap();
    println!("block: {} bytes for {} spans", report.bytes, report.spans);
    let store = BucketStore::new(bucket, BucketStoreConfig::default());
    runtime.block_on(store.sync()).unwrap();
    for (name, query) in [
        ("error in checkout", r#"{ resource.service.name = "checkout" && status = error }"#),
        ("one user", r#"{ span.app.user.id = "user-77" }"#),
        ("absent service", r#"{ resource.service.name = "nobody" }"#),
    ] {
        let search =
            TraceSearch { query: query.into(), start_ns: 0, end_ns: 0, limit: 100_000, spans_per_set: 3 };
        let run = |in_head: bool| {
            runtime.block_on(async {
                let ctx = QueryContext::unlimited(tenant.clone());
                let found: Vec<_> = match in_head {
                    true => head.search(&ctx, &search).await.unwrap().try_collect().await.unwrap(),
                    false => store.search(&ctx, &search).await.unwrap().try_collect().await.unwrap(),
                };
                found.len()
            })
        };
        assert_eq!(run(true), run(false));
        group.bench_function(format!("head search: {name}"), |b| b.iter(|| run(true)));
        group.bench_function(format!("block search: {name}"), |b| b.iter(|| run(false)));
    }
    group.throughput(Throughput::Elements(1));
    let wanted = trace(TRACES / 2).trace_id;
    group.bench_function("block find", |b| {
        b.iter(|| {
            let ctx = QueryContext::unlimited(tenant.clone());
            assert_eq!(runtime.block_on(store.find(&ctx, &wanted, 0, 0)).unwrap().otlp.len(), 1);
        });
    });
}

criterion_group!(benches, traces);
criterion_main!(benches);
