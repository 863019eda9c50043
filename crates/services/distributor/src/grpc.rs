//! OTLP over gRPC: `Export` of the three services, unary, with the message's bytes handed to the walker as they are.
//!
//! Written on HTTP rather than on generated services for three reasons: nothing is decoded twice; the body is read within the
//! budget and its limits; and a message that is too large is `INVALID_ARGUMENT` (tonic answers `OUT_OF_RANGE`, which OTLP
//! senders repeat for ever).
//!
//! ```text
//! request, response body = compressed flag (1 B) | length u32 BE | message          trailers: grpc-status
//! ```

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::{BodyExt, Full};
use tonic::Status;
use tonic::service::Routes;
use triptych_intake::body::Encoding;
use triptych_model::Signal;

use crate::distributor::Distributor;
use crate::http::{Payload, Received, export_response, text};
use crate::refusal::Refusal;
use crate::telemetry;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const ACCEPTED: HeaderValue = HeaderValue::from_static("identity,gzip,zstd,deflate");
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");
const HEADER_BYTES: usize = 5;

impl Distributor {
    /// TraceService, LogsService and MetricsService of OTLP, for [`tonic::transport::Server`] (`add_routes`) on the OTLP gRPC
    /// port (4317), or merged into an axum router.
    pub fn otlp_grpc(&self) -> Routes {
        let unknown = async || Status::unimplemented("no such method").into_http::<Body>();
        Routes::from(self.otlp_grpc_routes().fallback(unknown))
    }

    /// The paths of [`Distributor::otlp_grpc`] alone.
    pub fn otlp_grpc_routes(&self) -> Router {
        let service = |signal: Signal, name: &str, service: &str| {
            let path = format!("/opentelemetry.proto.collector.{name}.v1.{service}/Export");
            Router::<Self>::new().route(&path, export(signal))
        };
        let router = service(Signal::Traces, "trace", "TraceService")
            .merge(service(Signal::Logs, "logs", "LogsService"))
            .merge(service(Signal::Metrics, "metrics", "MetricsService"));
        router.with_state(self.clone())
    }

    async fn export(&self, signal: Signal, headers: HeaderMap, body: Body) -> Result<Vec<u8>, Status> {
        let refuse = |refusal: Refusal| refusal.grpc();
        let tenant = self.tenant(&headers).map_err(refuse)?;
        let encoding = match text(&headers, &GRPC_ENCODING).map_err(refuse)? {
            None | Some("identity") => Encoding::Identity,
            Some("gzip") => Encoding::Gzip,
            Some("zstd") => Encoding::Zstd,
            Some("deflate") => Encoding::Deflate,
            Some(other) => {
                return Err(Status::unimplemented(format!(
                    "grpc-encoding {:?} is not supported; use gzip, zstd or deflate",
                    other.chars().take(40).collect::<String>()
                )));
            }
        };
        let Received { bytes, memory } = self.read_body(&tenant, &headers, body).await.map_err(refuse)?;
        let (compressed, message) = message(bytes).map_err(refuse)?;
        let encoding = match (compressed, encoding) {
            (false, _) => Encoding::Identity,
            (true, Encoding::Identity) => {
                return Err(Status::invalid_argument("message is compressed, but grpc-encoding is not set"));
            }
            (true, encoding) => encoding,
        };
        let payload = Payload::Otlp { signal, json: false };
        let received = Received { bytes: message, memory };
        let taken = self.take(&tenant, payload, encoding, received).await.map_err(refuse)?;
        Ok(export_response(&taken.report))
    }
}

fn export(signal: Signal) -> MethodRouter<Distributor> {
    post(move |State(distributor): State<Distributor>, headers: HeaderMap, body: Body| {
        async move {
            let result = distributor.export(signal, headers, body).await;
            let status = result.as_ref().map_or_else(|status| status.code() as u16, |_| 0);
            telemetry::request("otlp_grpc", status);
            respond(result)
        }
        .boxed()
    })
}

/// The one message of a unary request, and whether it is compressed.
fn message(bytes: Bytes) -> Result<(bool, Bytes), Refusal> {
    let Some(([flag, length @ ..], rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Refusal::invalid(format!("gRPC frame is cut off after {} bytes", bytes.len())));
    };
    let length = u32::from_be_bytes(*length) as usize;
    if *flag > 1 {
        return Err(Refusal::invalid(format!("gRPC frame has the compression flag {flag}")));
    }
    if rest.len() != length {
        return Err(Refusal::invalid(format!("gRPC frame claims {length} bytes, {} are there", rest.len())));
    }
    Ok((*flag == 1, bytes.slice(HEADER_BYTES..)))
}

fn respond(result: Result<Vec<u8>, Status>) -> Response {
    let mut response = match result {
        Ok(message) => {
            let mut frame = vec![0];
            frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
            frame.extend_from_slice(&message);
            let mut trailers = HeaderMap::new();
            trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
            let body = Full::new(Bytes::from(frame)).with_trailers(async { Some(Ok(trailers)) });
            let mut response = Response::new(Body::new(body));
            response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
            response
        }
        Err(status) => status.into_http::<Body>(),
    };
    response.headers_mut().insert(GRPC_ACCEPT_ENCODING, ACCEPTED);
    response
}
