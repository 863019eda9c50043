//! Ingest into existing series, chunk coding, select. `cargo bench -p triptych-metrics`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;
use triptych_metrics::{Head, HeadConfig, chunk, merge};
use triptych_model::batch::MetricsBuilder;
use triptych_model::metrics::{Sample, SeriesSelect};
use triptych_model::{Labels, Matcher, TenantId};
use triptych_runtime::QueryContext;

fn labels(i: usize) -> Labels {
    let pod = format!("checkout-7d9f8b6c5d-{:05}", i / 100);
    let instance = format!("10.{}.{}.{}:9090", i / 25_600 % 256, i / 100 % 256, i % 7);
    Labels::from_pairs([
        ("__name__", format!("http_request_duration_seconds_{}", i % 100).as_str()),
        ("cluster", "eu-central-1"),
        ("container", "checkout"),
        ("endpoint", "/api/v1/orders"),
        ("instance", &instance),
        ("job", "default/checkout"),
        ("namespace", "shop"),
        ("pod", &pod),
        ("service", "checkout"),
        ("zone", ["a", "b", "c"][i % 3]),
    ])
}

/// One scrape of all series.
fn scrape(all: &[(u64, Labels)], t_ms: i64, builder: &mut MetricsBuilder) {
    builder.clear();
    for (i, (hash, labels)) in all.iter().enumerate() {
        let value = (t_ms / 1000 * (i as i64 % 50)) as f64;
        builder.series(*hash, labels.as_encoded(), &[Sample { t_ms, value }]);
    }
}

fn ingest(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    group.sample_size(20);
    for (name, series, samples) in [
        ("10k series, 1 sample each", 10_000, 1),
        ("200k series, 1 sample each", 200_000, 1),
        ("10k series, 10 samples each", 10_000, 10),
    ] {
        let all: Vec<(u64, Labels)> = (0..series).map(labels).map(|l| (l.hash64(), l)).collect();
        let head = Head::new(HeadConfig::default());
        let mut t_ms = 1_600_000_000_000;
        let mut builder = MetricsBuilder::default();
        scrape(&all, t_ms, &mut builder);
        head.append(builder.plain()).expect("batch");
        group.throughput(Throughput::Elements(series as u64 * samples as u64));
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    let mut builder = MetricsBuilder::default();
                    if samples == 1 {
                        t_ms += 15_000;
                        scrape(&all, t_ms, &mut builder);
                    } else {
                        for (i, (hash, labels)) in all.iter().enumerate() {
                            let run: Vec<Sample> = (1..=samples as i64)
                                .map(|n| Sample {
                                    t_ms: t_ms + n * 15_000,
                                    value: (n * (i as i64 % 50)) as f64,
                                })
                                .collect();
                            builder.series(*hash, labels.as_encoded(), &run);
                        }
                        t_ms += samples as i64 * 15_000;
                    }
                    builder
                },
                |builder| black_box(head.append(builder.plain()).expect("batch")),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn coding(c: &mut Criterion) {
    let samples: Vec<Sample> = (0..120)
        .map(|i| Sample { t_ms: 1_600_000_000_000 + i * 15_000 + i % 3, value: (i * i) as f64 * 0.25 })
        .collect();
    let data = chunk::encode(&samples);
    let mut group = c.benchmark_group("xor");
    group.throughput(Throughput::Elements(120));
    group.bench_function("encode", |b| b.iter(|| chunk::encode(black_box(&samples))));
    let mut out = Vec::with_capacity(120);
    group.bench_function("decode", |b| {
        b.iter(|| {
            out.clear();
            chunk::decode(black_box(&data), &mut out).expect("chunk");
            out.len()
        });
    });
    group.finish();
}

fn select(c: &mut Criterion) {
    let head = Head::new(HeadConfig::default());
    let all: Vec<(u64, Labels)> = (0..100_000).map(labels).map(|l| (l.hash64(), l)).collect();
    let mut builder = MetricsBuilder::default();
    for n in 0..120 {
        scrape(&all, 1_600_000_000_000 + n * 15_000, &mut builder);
        head.append(builder.plain()).expect("batch");
    }
    let mut group = c.benchmark_group("select");
    group.sample_size(20);
    group.throughput(Throughput::Elements(120_000));
    group.bench_function("1k of 100k series, 2 h, merged and decoded", |b| {
        b.iter(|| {
            let ctx = QueryContext::unlimited(TenantId::single());
            let select = SeriesSelect {
                matchers: vec![
                    Matcher::equal("__name__", "http_request_duration_seconds_7"),
                    Matcher::equal("job", "default/checkout"),
                ],
                start_ms: i64::MIN,
                end_ms: i64::MAX,
                skip_chunks: false,
                shard: None,
            };
            let merged = merge(vec![head.select(&ctx, &select).expect("select")]);
            let mut samples = 0;
            futures::executor::block_on(async {
                let mut merged = merged;
                let mut out = Vec::new();
                while let Some(series) = merged.next().await {
                    let mut series = series.expect("series");
                    out.clear();
                    while series.samples.next_run(&mut out).expect("chunk") {}
                    samples += out.len();
                }
            });
            assert_eq!(samples, 120_000);
        });
    });
    group.finish();
}

criterion_group!(benches, ingest, coding, select);
criterion_main!(benches);
