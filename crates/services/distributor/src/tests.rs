//! Requests against the routes, with an ingester that writes down what it gets.

mod grpc;
mod happy;
mod hostile;
mod limits;

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, LogsData, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, MetricsData, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use parking_lot::Mutex;
use tower::ServiceExt;
use triptych_config::{Limits, TenantLimits};
use triptych_intake::wire::{put_bytes, put_fixed64, put_varint, wrap};
use triptych_model::batch::{self, LogsReader, MetricsReader, MetricsRecord, TracesReader};
use triptych_model::push::PushReport;
use triptych_model::{Error, Labels, Result, Signal};
use triptych_ring::{Member, Peer, Replication};
use triptych_rpc::{Ingest, WriteContext};
use triptych_runtime::{ManualClock, MemoryBudget};

use crate::{Config, Deps, Distributor};

/// 2026-11-20 10:00:00 UTC.
const NOW_S: i64 = 1_795_168_800;
const NOW_MS: i64 = NOW_S * 1000;
const NOW_NS: i64 = NOW_MS * 1_000_000;

/// Writes down every item, one line each.
#[derive(Default)]
struct Recorder {
    lines: Mutex<Vec<String>>,
    answer: Mutex<Option<Result<PushReport>>>,
}

#[async_trait]
impl Ingest for Recorder {
    async fn push(&self, ctx: &WriteContext, signal: Signal, sealed: Bytes) -> Result<PushReport> {
        if let Some(answer) = self.answer.lock().clone() {
            return answer;
        }
        let plain = batch::open(&sealed, 1 << 30)?;
        let mut accepted = 0;
        let mut lines = self.lines.lock();
        let mut line = |text: String| lines.push(format!("{} {text}", ctx.tenant));
        match signal {
            Signal::Metrics => {
                for record in MetricsReader::new(&plain)? {
                    match record? {
                        MetricsRecord::Series { hash, labels, samples } => {
                            let labels = Labels::from_encoded(labels)?;
                            assert_eq!(hash, labels.hash64());
                            accepted += samples.len();
                            let samples: Vec<String> =
                                samples.iter().map(|s| format!("{}@{}", s.value, s.t_ms - NOW_MS)).collect();
                            line(format!("{labels} {}", samples.join(" ")));
                        }
                        MetricsRecord::Metadata { metric, kind, help, unit } => {
                            line(format!("# {metric} {} {help:?} {unit:?}", kind.as_str()));
                        }
                        MetricsRecord::Exemplar { labels, exemplar_labels, sample, .. } => line(format!(
                            "{} # {} {}",
                            Labels::from_encoded(labels)?,
                            Labels::from_encoded(exemplar_labels)?,
                            sample.value
                        )),
                    }
                }
            }
            Signal::Logs => {
                for record in LogsReader::new(&plain)? {
                    let record = record?;
                    let labels = Labels::from_encoded(record.labels)?;
                    assert_eq!(record.hash, labels.hash64());
                    assert!(!record.is_empty());
                    for e in record.entries() {
                        accepted += 1;
                        let metadata = Labels::from_encoded(e.metadata)?;
                        line(format!("{labels} {} {:?} {metadata}", e.ts_ns - NOW_NS, e.line));
                    }
                }
            }
            Signal::Traces => {
                for record in TracesReader::new(&plain)? {
                    let record = record?;
                    accepted += record.spans as usize;
                    let id = hex::encode(record.trace_id);
                    line(format!("{id} {} {} {}", record.start_ns, record.end_ns, record.spans));
                }
            }
        }
        Ok(PushReport { accepted: accepted as u64, ..PushReport::default() })
    }
}

/// Members of one zone, `ingester-0` and so on.
fn ingesters(all: impl IntoIterator<Item = Arc<Recorder>>) -> crate::Ingesters {
    triptych_ring::peers::fixed(all.into_iter().enumerate().map(|(i, service)| Peer {
        member: Arc::new(Member::new(&format!("ingester-{i}"), "a", "")),
        service: service as Arc<dyn Ingest>,
    }))
}

struct Setup {
    distributors: tokio::sync::watch::Sender<usize>,
    distributor: Distributor,
    ingester: Arc<Recorder>,
    clock: Arc<ManualClock>,
    /// Memory that the test itself holds.
    held: usize,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn setup_with(config: Config, limits: Limits) -> Setup {
    setup_all(config, limits, false, memory())
}

fn memory() -> MemoryBudget {
    MemoryBudget::new("memory of pushes under way", 1 << 30)
}

/// Every push must name its tenant.
fn setup_tenants() -> Setup {
    setup_all(Config::default(), Limits::default(), true, memory())
}

fn setup_all(config: Config, limits: Limits, multitenancy: bool, memory: MemoryBudget) -> Setup {
    let ingester = Arc::new(Recorder::default());
    let clock = ManualClock::at_ns(NOW_NS);
    let distributors = tokio::sync::watch::Sender::new(1);
    let deps = Deps {
        ingesters: ingesters([ingester.clone()]),
        replication: Replication::new(1),
        distributors: distributors.subscribe(),
        limits: TenantLimits::new(&limits, &Default::default()).unwrap(),
        clock: clock.clone(),
        multitenancy,
        memory,
    };
    Setup { distributors, distributor: config.build(deps).unwrap(), ingester, clock, held: 0 }
}

fn setup() -> Setup {
    setup_with(Config::default(), Limits::default())
}

impl Setup {
    async fn send(&self, request: Request<Body>) -> Answer {
        let app = self.distributor.routes().merge(self.distributor.otlp_grpc().into_axum_router());
        let response = app.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned();
        let answer =
            Answer { status: parts.status, headers: parts.headers, body: collected.to_bytes(), trailers };
        let (used, _) = self.distributor.in_flight_bytes();
        assert_eq!(used, self.held, "memory is given back");
        answer
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(Method::POST).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.ingester.lines.lock())
    }

    fn ingester_answers(&self, answer: Result<PushReport>) {
        *self.ingester.answer.lock() = Some(answer);
    }
}

fn snappy(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    e.write_all(plain).unwrap();
    e.finish().unwrap()
}

fn message(out: &mut Vec<u8>, number: u32, build: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    build(out);
    wrap(out, start, number);
}

/// Labels, and samples with times relative to now in ms.
type Series<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

/// A remote write request; times relative to now in ms.
fn write_request(series: &[Series<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (labels, samples) in series {
        message(&mut out, 1, |out| {
            for (name, value) in *labels {
                message(out, 1, |out| {
                    put_bytes(out, 1, name.as_bytes());
                    put_bytes(out, 2, value.as_bytes());
                });
            }
            for (t, value) in *samples {
                message(out, 2, |out| {
                    put_fixed64(out, 1, value.to_bits());
                    put_varint(out, 2, (NOW_MS + t) as u64);
                });
            }
        });
    }
    out
}

/// A Loki push; times relative to now in seconds.
fn push_request(labels: &str, entries: &[(i64, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, 1, |out| {
        put_bytes(out, 1, labels.as_bytes());
        for (t, line) in entries {
            message(out, 2, |out| {
                message(out, 1, |out| put_varint(out, 1, (NOW_S + t) as u64));
                put_bytes(out, 2, line.as_bytes());
            });
        }
    });
    out
}

fn push_json(labels: &str, entries: &[(i64, &str)]) -> String {
    let values: Vec<serde_json::Value> = entries
        .iter()
        .map(|(t, line)| serde_json::json!([(NOW_NS + t * 1_000_000_000).to_string(), line]))
        .collect();
    format!(r#"{{"streams":[{{"stream":{labels},"values":{}}}]}}"#, serde_json::to_string(&values).unwrap())
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn resource() -> Option<Resource> {
    Some(Resource { attributes: vec![attribute("service.name", "api")], ..Default::default() })
}

fn otlp_logs(body: &str) -> LogsData {
    let record = LogRecord {
        time_unix_nano: NOW_NS as u64,
        body: Some(AnyValue { value: Some(Value::StringValue(body.into())) }),
        ..Default::default()
    };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..Default::default() }];
    LogsData { resource_logs: vec![ResourceLogs { resource: resource(), scope_logs, ..Default::default() }] }
}

fn otlp_metrics() -> MetricsData {
    let point = NumberDataPoint {
        time_unix_nano: NOW_NS as u64,
        value: Some(number_data_point::Value::AsDouble(2.5)),
        ..Default::default()
    };
    let metric = Metric {
        name: "queue.length".into(),
        data: Some(Data::Gauge(Gauge { data_points: vec![point] })),
        ..Default::default()
    };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..Default::default() }];
    MetricsData {
        resource_metrics: vec![ResourceMetrics { resource: resource(), scope_metrics, ..Default::default() }],
    }
}

/// Spans of (trace, span).
fn otlp_traces(spans: &[(u8, u8)]) -> TracesData {
    let spans = spans.iter().map(|(trace, id)| Span {
        trace_id: vec![*trace; 16],
        span_id: vec![*id; 8],
        name: "x".into(),
        start_time_unix_nano: 5,
        end_time_unix_nano: 9,
        ..Default::default()
    });
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..Default::default() }];
    TracesData {
        resource_spans: vec![ResourceSpans { resource: resource(), scope_spans, ..Default::default() }],
    }
}

fn unavailable() -> Error {
    Error::unavailable("ingester is starting")
}
