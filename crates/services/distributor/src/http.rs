//! HTTP doors: routes, bodies, answers.

use std::borrow::Cow;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, StatusCode, header};
use http_body_util::BodyExt;
use triptych_intake::body::{self, Encoding};
use triptych_intake::remote_write::{self, Version};
use triptych_intake::wire::{put_bytes, put_varint};
use triptych_intake::{loki_push, otlp};
use triptych_model::push::PushReport;
use triptych_model::{Result, Signal, TenantId};
use triptych_runtime::Reservation;

use crate::distributor::{Batch, Distributor, Shards};
use crate::logs::LogsDoor;
use crate::metrics::MetricsDoor;
use crate::refusal::Refusal;
use crate::telemetry;
use crate::traces::TracesDoor;

/// What stands in a decoded body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    RemoteWrite,
    RemoteWrite2,
    LokiProtobuf,
    LokiJson,
    Otlp { signal: Signal, json: bool },
}

impl Payload {
    /// Remote write and Loki's protobuf are snappy unless the header says otherwise.
    fn default_encoding(self) -> Encoding {
        match self {
            Payload::RemoteWrite | Payload::RemoteWrite2 | Payload::LokiProtobuf => Encoding::Snappy,
            Payload::LokiJson | Payload::Otlp { .. } => Encoding::Identity,
        }
    }
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct Taken {
    pub report: PushReport,
    pub exemplars: u64,
}

/// A request body that was read, and the memory it takes.
pub(crate) struct Received {
    pub bytes: Bytes,
    pub memory: Reservation,
}

impl Distributor {
    /// The push paths of Prometheus, Loki and OTLP for the main port. GET on them is 405.
    pub fn routes(&self) -> Router {
        let write = || post(remote_write_handler);
        Router::new()
            .route("/api/v1/write", write())
            .route("/api/v1/push", write())
            .route("/loki/api/v1/push", post(loki_handler))
            .route("/api/v1/otlp/v1/metrics", otlp_handler(Signal::Metrics))
            .route("/otlp/v1/metrics", otlp_handler(Signal::Metrics))
            .route("/otlp/v1/logs", otlp_handler(Signal::Logs))
            .route("/otlp/v1/traces", otlp_handler(Signal::Traces))
            .with_state(self.clone())
            .merge(self.otlp_http_routes())
    }

    /// The standard OTLP paths alone, for the OTLP HTTP port (4318).
    pub fn otlp_http_routes(&self) -> Router {
        Router::new()
            .route("/v1/metrics", otlp_handler(Signal::Metrics))
            .route("/v1/logs", otlp_handler(Signal::Logs))
            .route("/v1/traces", otlp_handler(Signal::Traces))
            .with_state(self.clone())
    }

    /// Reads a body of at most `body_bytes_max`, in time, within the budget.
    pub(crate) async fn read_body(
        &self,
        tenant: &TenantId,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Received, Refusal> {
        let config = &self.0.config;
        let max = config.body_bytes_max;
        let too_large = |bytes: u64| {
            Refusal::too_large(format!("request body is {bytes} bytes or more, the limit is {max}"))
        };
        let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if let Some(length) = length.filter(|length| *length > max as u64) {
            return Err(too_large(length));
        }
        let mut memory = self.0.memory.tenant(tenant).reserve(0).map_err(Refusal::memory)?;
        let read = async {
            let mut body = body;
            let mut first = Bytes::new();
            let mut all: Vec<u8> = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| Refusal::invalid(format!("reading the request body: {e}")))?;
                let Ok(data) = frame.into_data() else { continue };
                memory.grow(data.len()).map_err(Refusal::memory)?;
                if memory.bytes() > max {
                    return Err(too_large(memory.bytes() as u64));
                }
                // A body in one frame is taken as it is.
                if first.is_empty() && all.is_empty() {
                    first = data;
                } else {
                    if all.is_empty() {
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&data);
                }
            }
            Ok(if all.is_empty() { first } else { Bytes::from(all) })
        };
        match tokio::time::timeout(config.body_timeout, read).await {
            Ok(bytes) => Ok(Received { bytes: bytes?, memory }),
            Err(_) => Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the request body did not arrive within {:?}", config.body_timeout),
            )),
        }
    }

    /// Decompresses, decodes, sends.
    pub(crate) async fn take(
        &self,
        tenant: &TenantId,
        payload: Payload,
        encoding: Encoding,
        received: Received,
    ) -> Result<Taken, Refusal> {
        let Received { bytes, mut memory } = received;
        let plain = {
            let max = self.0.config.request_bytes_max;
            let mut reserve = |more: usize| memory.grow(more);
            match body::decode(&bytes, encoding, max, &mut reserve)? {
                Cow::Borrowed(_) => bytes,
                Cow::Owned(plain) => {
                    drop(bytes);
                    Bytes::from(plain)
                }
            }
        };
        let held = plain.len();
        memory.shrink(memory.bytes().saturating_sub(held));
        self.push_plain(tenant, payload, plain, memory).await
    }

    /// Decodes a plain body, sends what is in it.
    async fn push_plain(
        &self,
        tenant: &TenantId,
        payload: Payload,
        plain: Bytes,
        mut memory: Reservation,
    ) -> Result<Taken, Refusal> {
        // JSON becomes protobuf of about its own size before it is walked.
        if let Payload::Otlp { json: true, .. } = payload {
            memory.grow(plain.len()).map_err(Refusal::memory)?;
        }
        let limits = self.limits(tenant);
        let now_ns = self.0.clock.now_ns();
        match payload {
            Payload::RemoteWrite | Payload::RemoteWrite2 | Payload::Otlp { signal: Signal::Metrics, .. } => {
                let mut door = MetricsDoor::new(&self.0, tenant, &limits.metrics);
                let decoded = match payload {
                    Payload::RemoteWrite => remote_write::decode(&plain, &mut door),
                    Payload::RemoteWrite2 => remote_write::v2::decode(&plain, &mut door),
                    Payload::Otlp { json: true, .. } => otlp::metrics::decode_json(&plain, &mut door),
                    _ => otlp::metrics::decode(&plain, &mut door),
                };
                let shards = settle(decoded, door.shards)?;
                drop(plain);
                self.send_taken(tenant, shards, &mut memory).await
            }
            Payload::LokiProtobuf | Payload::LokiJson | Payload::Otlp { signal: Signal::Logs, .. } => {
                let mut door = LogsDoor::new(&self.0, tenant, &limits.logs);
                let decoded = match payload {
                    Payload::LokiProtobuf => loki_push::decode_protobuf(&plain, &mut door),
                    Payload::LokiJson => loki_push::decode_json(&plain, &mut door),
                    Payload::Otlp { json: true, .. } => otlp::logs::decode_json(&plain, now_ns, &mut door),
                    _ => otlp::logs::decode(&plain, now_ns, &mut door),
                };
                let shards = settle(decoded, door.shards)?;
                drop(plain);
                self.send_taken(tenant, shards, &mut memory).await
            }
            Payload::Otlp { signal: Signal::Traces, json } => {
                let mut door = TracesDoor::new(&self.0, tenant, &limits.traces);
                let decoded = match json {
                    true => otlp::traces::decode_json(&plain, &mut door),
                    false => otlp::traces::decode(&plain, &mut door),
                };
                let shards = settle(decoded, door.shards)?;
                drop(plain);
                self.send_taken(tenant, shards, &mut memory).await
            }
        }
    }

    async fn send_taken<B: Batch>(
        &self,
        tenant: &TenantId,
        shards: Shards<B>,
        memory: &mut Reservation,
    ) -> Result<Taken, Refusal> {
        let exemplars = shards.exemplars;
        Ok(Taken { report: self.send(tenant, shards, memory).await?, exemplars })
    }

    /// The common part of the HTTP handlers.
    async fn receive(&self, headers: &HeaderMap, body: Body, payload: Payload) -> Result<Taken, Refusal> {
        let tenant = self.tenant(headers)?;
        let encoding = match text(headers, &header::CONTENT_ENCODING)? {
            None | Some("") => payload.default_encoding(),
            name => Encoding::from_header(name)?,
        };
        let received = self.read_body(&tenant, headers, body).await?;
        self.take(&tenant, payload, encoding, received).await
    }
}

/// What a decoder left behind: everything, or nothing.
fn settle<B>(decoded: Result<()>, shards: Shards<B>) -> Result<Shards<B>, Refusal> {
    match decoded {
        Ok(()) => Ok(shards),
        Err(error) if shards.over => Err(Refusal::too_large(error.message)),
        Err(error) => Err(error.into()),
    }
}

/// A header as text; `None` where it is absent.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    match headers.get(name) {
        None => Ok(None),
        Some(value) => match value.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Refusal::invalid(format!("header {name} is not ASCII text"))),
        },
    }
}

/// Without parameters, in lower case.
fn essence(content_type: Option<&str>) -> String {
    content_type.unwrap_or("").split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// What a 2.0 sender must be told, or it takes the receiver for one that knows 1.0 only and the data for lost.
fn written_headers(taken: Option<&Taken>) -> [(HeaderName, u64); 3] {
    let count = |count: fn(&Taken) -> u64| taken.map_or(0, count);
    [
        (HeaderName::from_static("x-prometheus-remote-write-samples-written"), count(|t| t.report.accepted)),
        (HeaderName::from_static("x-prometheus-remote-write-histograms-written"), 0),
        (HeaderName::from_static("x-prometheus-remote-write-exemplars-written"), count(|t| t.exemplars)),
    ]
}

async fn remote_write_handler(
    State(distributor): State<Distributor>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let content_type = match text(&headers, &header::CONTENT_TYPE) {
        Ok(content_type) => content_type,
        Err(refusal) => return plain_answer("remote_write", Err(refusal)),
    };
    let payload = match remote_write::version(content_type) {
        Some(Version::V1) => Payload::RemoteWrite,
        Some(Version::V2) => Payload::RemoteWrite2,
        None => {
            let refusal = Refusal::unsupported_media(format!(
                "content type {:?} is not supported; send application/x-protobuf",
                content_type.unwrap_or("")
            ));
            return plain_answer("remote_write", Err(refusal));
        }
    };
    let result = distributor.receive(&headers, body, payload).await;
    let written = (payload == Payload::RemoteWrite2).then(|| written_headers(result.as_ref().ok()));
    let mut response = plain_answer("remote_write", result);
    for (name, count) in written.into_iter().flatten() {
        response.headers_mut().insert(name, count.into());
    }
    response
}

async fn loki_handler(State(distributor): State<Distributor>, headers: HeaderMap, body: Body) -> Response {
    let result = async {
        let payload = match essence(text(&headers, &header::CONTENT_TYPE)?).as_str() {
            "application/json" => Payload::LokiJson,
            "" | "application/x-protobuf" => Payload::LokiProtobuf,
            other => {
                return Err(Refusal::unsupported_media(format!(
                    "content type {other:?} is not supported; send application/json or application/x-protobuf"
                )));
            }
        };
        distributor.receive(&headers, body, payload).await
    };
    plain_answer("loki_push", result.await)
}

/// 204, or 400 with examples where some items were refused (the others are written).
fn plain_answer(protocol: &'static str, result: Result<Taken, Refusal>) -> Response {
    let response = match result.map(|taken| taken.report) {
        Ok(report) if report.refused.is_empty() => StatusCode::NO_CONTENT.into_response(),
        Ok(report) => Refusal::invalid(examples(&report)).text(),
        Err(refusal) => refusal.text(),
    };
    telemetry::request(protocol, response.status().as_u16());
    response
}

/// One sentence for each reason.
pub(crate) fn examples(report: &PushReport) -> String {
    let mut out = String::new();
    for (reason, refused) in &report.refused {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!("{} (refused: {}, reason: {reason})", refused.example, refused.items));
    }
    out
}

fn otlp_handler(signal: Signal) -> MethodRouter<Distributor> {
    post(move |State(distributor): State<Distributor>, headers: HeaderMap, body: Body| {
        otlp_push(distributor, signal, headers, body).boxed()
    })
}

async fn otlp_push(distributor: Distributor, signal: Signal, headers: HeaderMap, body: Body) -> Response {
    let content_type = essence(text(&headers, &header::CONTENT_TYPE).unwrap_or(None));
    let json = match content_type.as_str() {
        "application/json" => Some(true),
        "application/x-protobuf" | "application/protobuf" => Some(false),
        _ => None,
    };
    let response = match json {
        None => Refusal::unsupported_media(format!(
            "content type {content_type:?} is not supported; send application/x-protobuf or application/json"
        ))
        .text(),
        Some(json) => match distributor.receive(&headers, body, Payload::Otlp { signal, json }).await {
            Ok(Taken { report, .. }) if json => {
                let body = export_response_json(signal, &report);
                ([(header::CONTENT_TYPE, "application/json")], body).into_response()
            }
            Ok(Taken { report, .. }) => {
                let body = export_response(&report);
                ([(header::CONTENT_TYPE, "application/x-protobuf")], body).into_response()
            }
            Err(refusal) => refusal.otlp(json),
        },
    };
    telemetry::request("otlp_http", response.status().as_u16());
    response
}

/// `Export*ServiceResponse { 1 partial_success { 1 rejected_*, 2 error_message } }`, the same numbers for all three signals.
pub(crate) fn export_response(report: &PushReport) -> Vec<u8> {
    let mut out = Vec::new();
    if !report.refused.is_empty() {
        let mut partial = Vec::new();
        put_varint(&mut partial, 1, report.refused_items());
        put_bytes(&mut partial, 2, examples(report).as_bytes());
        put_bytes(&mut out, 1, &partial);
    }
    out
}

fn export_response_json(signal: Signal, report: &PushReport) -> String {
    if report.refused.is_empty() {
        return r#"{"partialSuccess":{}}"#.to_owned();
    }
    let rejected = match signal {
        Signal::Metrics => "rejectedDataPoints",
        Signal::Logs => "rejectedLogRecords",
        Signal::Traces => "rejectedSpans",
    };
    let partial = serde_json::json!({
        rejected: report.refused_items().to_string(),
        "errorMessage": examples(report),
    });
    serde_json::json!({ "partialSuccess": partial }).to_string()
}
