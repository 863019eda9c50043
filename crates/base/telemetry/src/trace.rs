//! Trace context: into outgoing requests, out of incoming ones, and the span each incoming request gets.

use http::{HeaderMap, HeaderName, HeaderValue, Request};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tower_http::classify::{ServerErrorsAsFailures, SharedClassifier};
use tower_http::trace::{MakeSpan, TraceLayer};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

struct MetadataInjector<'a>(&'a mut MetadataMap);

impl Injector for MetadataInjector<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) =
            (MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value))
        {
            self.0.insert(key, value);
        }
    }
}

struct HeaderInjector<'a>(&'a mut HeaderMap);

impl Injector for HeaderInjector<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (HeaderName::from_bytes(key.as_bytes()), HeaderValue::try_from(value)) {
            self.0.insert(key, value);
        }
    }
}

struct HeaderExtractor<'a>(&'a HeaderMap);

impl Extractor for HeaderExtractor<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Writes the current span's context into gRPC metadata (`traceparent`).
pub fn inject(metadata: &mut MetadataMap) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut MetadataInjector(metadata));
}

/// Writes the current span's context into HTTP headers.
pub fn inject_headers(headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut HeaderInjector(headers));
}

/// Makes the span of an incoming request, as a child of the caller's.
#[derive(Debug, Clone, Copy)]
pub struct RequestSpan {
    role: &'static str,
}

impl<B> MakeSpan<B> for RequestSpan {
    fn make_span(&mut self, request: &Request<B>) -> Span {
        let path = request.uri().path();
        // What arrives at the push doors is not traced: with OTLP to ourselves, each batch of spans would make new spans.
        if is_push(path) {
            return Span::none();
        }
        let span = tracing::info_span!(
            "request",
            otel.name = format!("{} {path}", request.method()),
            otel.kind = "server",
            role = self.role,
            http.request.method = %request.method(),
            url.path = path,
        );
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(request.headers()));
        let _ = span.set_parent(parent);
        span
    }
}

fn is_push(path: &str) -> bool {
    path.starts_with("/opentelemetry.proto.collector")
        || path == "/triptych.v1.Ingest/Push"
        || matches!(
            path,
            "/v1/traces"
                | "/v1/logs"
                | "/v1/metrics"
                | "/otlp/v1/traces"
                | "/otlp/v1/logs"
                | "/otlp/v1/metrics"
                | "/api/v1/write"
                | "/api/v1/push"
                | "/loki/api/v1/push"
                | "/metrics"
                | "/ready"
        )
}

/// The layer that gives every request its span. `role` tells which service answered.
pub fn layer(
    role: &'static str,
) -> TraceLayer<SharedClassifier<ServerErrorsAsFailures>, RequestSpan, (), ()> {
    TraceLayer::new_for_http().make_span_with(RequestSpan { role }).on_request(()).on_response(())
}
