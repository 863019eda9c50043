//! Throughput of line pipelines, in bytes of log lines per second. `cargo bench -p triptych-logql`.

#![allow(clippy::unwrap_used, reason = "a benchmark stops where its query does not compile")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use triptych_logql::{LogLeaf, SampleLeaf};
use triptych_model::Labels;

fn lines(make: impl Fn(usize) -> String) -> Vec<String> {
    (0..2000).map(make).collect()
}

fn logfmt(i: usize) -> String {
    format!(
        "level={} ts=2026-11-20T10:00:{:02}.123456Z caller=http.go:{} method=GET path=/api/v1/items/{i} status={} duration={}ms bytes={} msg=\"request done\" trace_id=4bf92f3577b34da6a3ce929d0e0e{i:04x}",
        if i.is_multiple_of(50) { "error" } else { "info" },
        i % 60,
        i % 300,
        if i.is_multiple_of(50) { 500 } else { 200 },
        i % 977,
        i * 13 % 65_536,
    )
}

fn json(i: usize) -> String {
    format!(
        r#"{{"level":"{}","ts":"2026-11-20T10:00:{:02}.123456Z","caller":"http.go:{}","request":{{"method":"GET","path":"/api/v1/items/{i}","headers":{{"ua":"curl/8.1"}}}},"status":{},"duration_ms":{},"tags":["a","b"],"msg":"request done","trace_id":"4bf92f3577b34da6a3ce929d0e0e{i:04x}"}}"#,
        if i.is_multiple_of(50) { "error" } else { "info" },
        i % 60,
        i % 300,
        if i.is_multiple_of(50) { 500 } else { 200 },
        i % 977,
    )
}

fn pipelines(c: &mut Criterion) {
    let stream =
        Labels::from_pairs([("app", "web"), ("cluster", "eu-1"), ("namespace", "shop"), ("pod", "web-7d9f")]);
    let logfmt = lines(logfmt);
    let json = lines(json);
    let mut group = c.benchmark_group("log");
    group.sample_size(20);
    for (name, lines, expr) in [
        ("contains, rare", &logfmt, r#"|= "level=error""#),
        ("contains, none", &logfmt, r#"|= "no such text""#),
        ("contains, all", &logfmt, r#"|= "caller""#),
        ("regex (?i)", &logfmt, r#"|~ "(?i)LEVEL=ERROR""#),
        ("regex", &logfmt, r#"|~ "status=5\\d\\d""#),
        ("json, all fields", &json, "| json"),
        ("json, filtered by a field", &json, "| json | status >= 500"),
        ("json path", &json, r#"| json status="status" | status >= 500"#),
        ("logfmt, all fields", &logfmt, "| logfmt"),
        ("logfmt, filtered by a field", &logfmt, "| logfmt | status >= 500"),
        ("pattern", &logfmt, "| pattern `level=<level> <_> status=<status> <_>` | status >= 500"),
        ("line_format", &logfmt, "| logfmt | line_format `{{.level}} {{.msg}}`"),
    ] {
        let leaf = LogLeaf::compile(&format!("{{app=\"web\"}} {expr}")).unwrap();
        group.throughput(Throughput::Bytes(lines.iter().map(|l| l.len() as u64).sum()));
        group.bench_function(name, |b| {
            let mut pipeline = leaf.pipeline().for_stream(&stream);
            b.iter(|| {
                for line in lines {
                    black_box(pipeline.process(1, line, []));
                }
            });
        });
    }
    group.finish();
    let mut group = c.benchmark_group("samples");
    group.sample_size(20);
    for (name, lines, expr) in [
        ("count", &logfmt, r#"count_over_time({app="web"}[1m])"#),
        (
            "sum by stream label",
            &logfmt,
            r#"sum by (namespace) (count_over_time({app="web"} |= "error" [1m]))"#,
        ),
        ("sum by json field", &json, r#"sum by (level) (count_over_time({app="web"} | json [1m]))"#),
        ("sum by logfmt field", &logfmt, r#"sum by (level) (count_over_time({app="web"} | logfmt [1m]))"#),
        (
            "unwrap",
            &logfmt,
            r#"max_over_time({app="web"} | logfmt | unwrap duration(duration) [1m]) by (status)"#,
        ),
    ] {
        let leaf = SampleLeaf::compile(expr).unwrap();
        group.throughput(Throughput::Bytes(lines.iter().map(|l| l.len() as u64).sum()));
        group.bench_function(name, |b| {
            let mut extractor = leaf.for_stream(&stream);
            b.iter(|| {
                for line in lines {
                    black_box(extractor.process(1, line, []));
                }
            });
        });
    }
    group.finish();
    let block: Vec<u8> = logfmt.join("\u{1}").into_bytes();
    let filter = LogLeaf::compile(r#"{app="web"} |= "no such text""#).unwrap().prefilter().unwrap();
    let mut group = c.benchmark_group("blocks");
    group.throughput(Throughput::Bytes(block.len() as u64));
    group.bench_function("prefilter, none", |b| b.iter(|| black_box(filter.may_match(&block))));
    group.finish();
}

criterion_group!(benches, pipelines);
criterion_main!(benches);
