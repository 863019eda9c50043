//! How fast the hot decoders are, into a sink that only counts.

#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::fmt;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message as _;
use triptych_intake::exposition::{self, ExposedSample, ExpositionSink, Format};
use triptych_intake::sink::{LogsSink, MetricsSink, Pairs, TracesSink};
use triptych_intake::wire::{put_bytes, put_fixed64, put_varint, wrap};
use triptych_intake::{loki_push, otlp, remote_write};
use triptych_model::Result;
use triptych_model::metrics::{MetricKind, Sample};
use triptych_model::traces::TraceId;

#[derive(Default)]
struct Count(usize);

impl MetricsSink for Count {
    fn series(&mut self, labels: &Pairs<'_>, samples: &[Sample]) -> Result<()> {
        self.0 += samples.len() + black_box(labels).len();
        Ok(())
    }
    fn metadata(&mut self, _: &str, _: MetricKind, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
    fn exemplar(&mut self, _: &Pairs<'_>, _: &Pairs<'_>, _: Sample) -> Result<()> {
        Ok(())
    }
    fn refuse(&mut self, _: &'static str, _: u64, _: fmt::Arguments<'_>) {}
}

impl LogsSink for Count {
    fn stream(&mut self, labels: &Pairs<'_>) -> Result<()> {
        self.0 += black_box(labels).len();
        Ok(())
    }
    fn entry(&mut self, _: i64, line: &str, metadata: &Pairs<'_>) -> Result<()> {
        self.0 += black_box(line).len() + black_box(metadata).len();
        Ok(())
    }
    fn refuse(&mut self, _: &'static str, _: u64, _: fmt::Arguments<'_>) {}
}

impl TracesSink for Count {
    fn spans(&mut self, _: &TraceId, _: i64, _: i64, count: u32, otlp: &[u8]) -> Result<()> {
        self.0 += count as usize + black_box(otlp).len();
        Ok(())
    }
    fn refuse(&mut self, _: &'static str, _: u64, _: fmt::Arguments<'_>) {}
}

impl ExpositionSink for Count {
    fn sample(&mut self, sample: &ExposedSample<'_>) -> Result<()> {
        self.0 += black_box(sample).labels.len();
        Ok(())
    }
}

fn message(out: &mut Vec<u8>, number: u32, build: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    build(out);
    wrap(out, start, number);
}

fn labels(i: usize) -> [(&'static str, String); 6] {
    [
        ("__name__", "http_requests_total".to_owned()),
        ("code", "200".to_owned()),
        ("instance", format!("10.0.0.{}:9090", i % 250)),
        ("job", "kubernetes-pods".to_owned()),
        ("namespace", "production".to_owned()),
        ("pod", format!("frontend-{i}")),
    ]
}

const SERIES: usize = 2000;

fn write_request() -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..SERIES {
        message(&mut out, 1, |out| {
            for (name, value) in labels(i) {
                message(out, 1, |out| {
                    put_bytes(out, 1, name.as_bytes());
                    put_bytes(out, 2, value.as_bytes());
                });
            }
            message(out, 2, |out| {
                put_fixed64(out, 1, (i as f64).to_bits());
                put_varint(out, 2, 1_700_000_000_000);
            });
        });
    }
    out
}

const LINE: &str = r#"level=info ts=2026-11-20T10:00:00Z caller=main.go:42 msg="request done" method=GET path=/api/v1/items status=200 duration=12.5ms"#;

fn push_request() -> Vec<u8> {
    let mut out = Vec::new();
    for stream in 0..20 {
        message(&mut out, 1, |out| {
            put_bytes(
                out,
                1,
                format!("{{app=\"a{stream}\", namespace=\"prod\", pod=\"p-{stream}\"}}").as_bytes(),
            );
            for i in 0..500u64 {
                message(out, 2, |out| {
                    message(out, 1, |out| {
                        put_varint(out, 1, 1_700_000_000 + i);
                        put_varint(out, 2, i);
                    });
                    put_bytes(out, 2, LINE.as_bytes());
                });
            }
        });
    }
    out
}

fn push_json() -> String {
    let line = serde_json::to_string(LINE).unwrap();
    let values: Vec<String> = (0..10_000).map(|i| format!("[\"17000000000000{i:05}\",{line}]")).collect();
    format!(r#"{{"streams":[{{"stream":{{"app":"a"}},"values":[{}]}}]}}"#, values.join(","))
}

fn traces(spans: usize, per_trace: usize) -> Vec<u8> {
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }),
        ..Default::default()
    };
    let span = |i: usize| Span {
        trace_id: ((i / per_trace) as u128 + 1).to_be_bytes().to_vec(),
        span_id: (i as u64 + 1).to_be_bytes().to_vec(),
        name: "GET /api/v1/items".into(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_000_000_000,
        end_time_unix_nano: 1_700_000_000_100_000_000,
        attributes: ["http.method", "http.route", "http.status_code", "net.peer.name", "user.id"]
            .map(|k| attribute(k, "some value"))
            .to_vec(),
        ..Default::default()
    };
    let resource = Resource {
        attributes: ["service.name", "k8s.pod.name", "k8s.namespace.name"]
            .map(|k| attribute(k, "abc"))
            .to_vec(),
        ..Default::default()
    };
    TracesData {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope { name: "lib".into(), ..Default::default() }),
                spans: (0..spans).map(span).collect(),
                ..Default::default()
            }],
            ..Default::default()
        }],
    }
    .encode_to_vec()
}

fn exposed() -> String {
    (0..SERIES)
        .map(|i| {
            let pairs: Vec<String> = labels(i)[1..].iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
            format!("http_requests_total{{{}}} {i}\n", pairs.join(","))
        })
        .collect()
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let body = write_request();
    group.throughput(Throughput::Elements(SERIES as u64));
    group.bench_function("remote_write, samples", |b| {
        b.iter(|| {
            let mut sink = Count::default();
            remote_write::decode(black_box(&body), &mut sink).unwrap();
            sink.0
        })
    });
    let body = exposed();
    group.bench_function("exposition text, samples", |b| {
        b.iter(|| {
            let mut sink = Count::default();
            exposition::parse(black_box(body.as_bytes()), Format::Text, &mut sink).unwrap();
            sink.0
        })
    });
    let body = push_request();
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("loki protobuf, bytes", |b| {
        b.iter(|| {
            let mut sink = Count::default();
            loki_push::decode_protobuf(black_box(&body), &mut sink).unwrap();
            sink.0
        })
    });
    let body = push_json();
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("loki json, bytes", |b| {
        b.iter(|| {
            let mut sink = Count::default();
            loki_push::decode_json(black_box(body.as_bytes()), &mut sink).unwrap();
            sink.0
        })
    });
    let body = traces(2000, 10);
    group.throughput(Throughput::Elements(2000));
    group.bench_function("otlp traces, spans", |b| {
        b.iter(|| {
            let mut sink = Count::default();
            otlp::traces::decode(black_box(&body), &mut sink).unwrap();
            sink.0
        })
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
