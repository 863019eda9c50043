//! Append, chunk encode and decode, filter scans; throughput counts the bytes of lines. What is measured is the processor time of
//! the thread, so that the numbers mean something on a busy machine.

#![allow(clippy::unwrap_used, reason = "a benchmark that fails may end")]

use std::hint::black_box;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;
use triptych_logs::chunk::{Chunk, Codec, EntryReader, OpenBlock, Symbols, encode};
use triptych_logs::{Head, HeadConfig};
use triptych_model::batch::{LogRecordEntry, LogsBuilder};
use triptych_model::logs::{Direction, EntrySelect, SampleSelect};
use triptych_model::{Labels, TenantId};
use triptych_runtime::QueryContext;

/// Nanoseconds this thread has run, from the scheduler's books.
struct CpuTime;

fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

impl Measurement for CpuTime {
    type Intermediate = u64;
    type Value = u64;
    fn start(&self) -> u64 {
        cpu_ns()
    }
    fn end(&self, start: u64) -> u64 {
        cpu_ns() - start
    }
    fn add(&self, a: &u64, b: &u64) -> u64 {
        a + b
    }
    fn zero(&self) -> u64 {
        0
    }
    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

const START_NS: i64 = 1_700_000_000_000_000_000;

/// Lines that look like logs: some 130 bytes, a part of which changes.
fn lines(count: usize) -> Vec<String> {
    let paths = ["/api/v1/query", "/api/v1/push", "/healthz", "/login", "/static/app.js"];
    (0..count as u64)
        .map(|i| {
            let r = i.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(17).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            format!(
                "level={} ts=2026-11-20T11:{:02}:{:02}.{:03}Z caller=handler.go:{} method=GET path={} status={} duration={}ms trace={r:016x}",
                if r.is_multiple_of(50) { "error" } else { "info" },
                i / 60 % 60,
                i % 60,
                r % 1000,
                100 + r % 7,
                paths[(r % 5) as usize],
                if r.is_multiple_of(50) { 500 } else { 200 },
                r % 900,
            )
        })
        .collect()
}

fn batches(lines: &[String]) -> (Vec<LogsBuilder>, u64) {
    let mut bytes = 0;
    let batches = lines
        .chunks(1000)
        .enumerate()
        .map(|(i, part)| {
            let labels = Labels::from_pairs([("app", "bench".to_owned()), ("pod", format!("p{}", i % 8))]);
            let mut out = LogsBuilder::default();
            let entries = part.iter().enumerate().map(|(j, line)| {
                bytes += line.len() as u64;
                LogRecordEntry { ts_ns: START_NS + (i * 1000 + j) as i64 * 1_000_000, line, metadata: &[] }
            });
            out.stream(labels.hash64(), labels.as_encoded(), entries.collect::<Vec<_>>().into_iter());
            out
        })
        .collect();
    (batches, bytes)
}

fn head_of(batches: &[LogsBuilder], config: HeadConfig) -> Head {
    let head = Head::new(config);
    for batch in batches {
        head.append(batch.plain()).unwrap();
    }
    head
}

fn append(c: &mut Criterion<CpuTime>) {
    let (batches, bytes) = batches(&lines(200_000));
    let mut group = c.benchmark_group("append");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    let level = |compression_level| HeadConfig { compression_level, ..HeadConfig::default() };
    let none = HeadConfig { codec: Codec::None, ..HeadConfig::default() };
    for (name, config) in [("none", none), ("zstd-1", level(1)), ("zstd-3", level(3))] {
        group.bench_function(name, |b| b.iter(|| black_box(head_of(&batches, config.clone()).bytes())));
    }
    group.finish();
}

fn chunk(c: &mut Criterion<CpuTime>) {
    let lines = lines(50_000);
    let bytes: usize = lines.iter().map(String::len).sum();
    let mut group = c.benchmark_group("chunk");
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(10);
    let build = |codec: Codec| {
        let (mut open, mut blocks) = (OpenBlock::new(256 << 10), Vec::new());
        for (i, line) in lines.iter().enumerate() {
            if open.plain_bytes() + line.len() > 256 << 10 {
                blocks.extend(open.cut(codec, 1).unwrap());
            }
            open.append(START_NS + i as i64, line.as_bytes(), 0, &[]);
        }
        blocks.extend(open.cut(codec, 1).unwrap());
        encode(codec, 1, Symbols::default().table(), &blocks).unwrap()
    };
    for codec in [Codec::Zstd, Codec::Snappy] {
        group.bench_function(format!("encode {codec:?}"), |b| b.iter(|| black_box(build(codec).len())));
        let data = bytes::Bytes::from(build(codec));
        group.bench_function(format!("decode {codec:?}"), |b| {
            b.iter(|| {
                let chunk = Chunk::parse(data.clone()).unwrap();
                let mut sum = 0;
                for meta in &chunk.blocks {
                    let plain = chunk.read_block(meta).unwrap();
                    sum += EntryReader::new(&plain, 4).map(|e| e.unwrap().line.len()).sum::<usize>();
                }
                assert_eq!(sum, bytes);
            });
        });
    }
    group.finish();
}

fn scan(c: &mut Criterion<CpuTime>) {
    let (batches, bytes) = batches(&lines(200_000));
    let head = head_of(&batches, HeadConfig::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    for (name, expr) in [
        ("absent", r#"{app="bench"} |= "nowhere to be found""#),
        ("rare", r#"{app="bench"} |= "trace=0000""#),
        ("errors", r#"{app="bench"} |= "level=error""#),
        ("regex", r#"{app="bench"} |~ "status=5.. duration=8[0-9]+ms""#),
        ("logfmt", r#"{app="bench"} | logfmt | status="500""#),
        ("all", r#"{app="bench"}"#),
    ] {
        let select = EntrySelect {
            expr: expr.into(),
            start_ns: 0,
            end_ns: i64::MAX,
            direction: Direction::Backward,
            limit: 0,
        };
        group.bench_function(name, |b| {
            b.iter(|| {
                let ctx = QueryContext::unlimited(TenantId::single());
                runtime.block_on(async {
                    let mut stream = head.entries(&ctx, &select).await.unwrap();
                    let mut rows = 0;
                    while let Some(batch) = stream.next().await {
                        rows += batch.unwrap().len();
                    }
                    black_box(rows)
                })
            });
        });
    }
    for (name, expr) in [
        ("rate", r#"sum(rate({app="bench"}[1m]))"#),
        ("rate of errors by path", r#"sum by (path) (rate({app="bench"} |= "level=error" | logfmt [1m]))"#),
    ] {
        let select = SampleSelect { expr: expr.into(), start_ns: 0, end_ns: i64::MAX, shard: None };
        group.bench_function(name, |b| {
            b.iter(|| {
                let ctx = QueryContext::unlimited(TenantId::single());
                runtime.block_on(async {
                    let mut stream = head.samples(&ctx, &select).await.unwrap();
                    let mut rows = 0;
                    while let Some(batch) = stream.next().await {
                        rows += batch.unwrap().iter().map(|run| run.samples.len()).sum::<usize>();
                    }
                    black_box(rows)
                })
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = append, chunk, scan
}
criterion_main!(benches);
