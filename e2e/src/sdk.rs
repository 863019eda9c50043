//! An application that is instrumented with the OpenTelemetry SDK: traces over gRPC, logs and metrics over HTTP (protobuf).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{Span, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    LogExporter, MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::Deployment;

pub struct Application {
    traces: SdkTracerProvider,
    logs: SdkLoggerProvider,
    metrics: SdkMeterProvider,
}

/// What the application did.
#[derive(Debug, Clone, Default)]
pub struct Done {
    pub traces: Vec<DoneTrace>,
    /// Sum of the counter `e2e.orders`.
    pub orders: u64,
}

#[derive(Debug, Clone)]
pub struct DoneTrace {
    pub id: [u8; 16],
    /// Ids with names; the first is the root.
    pub spans: Vec<([u8; 8], String)>,
    /// What was logged in its context.
    pub line: String,
}

/// The SDK's exporters run on threads of their own; the requests run where the test's runtime is.
#[derive(Debug, Clone)]
struct Http {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

#[async_trait::async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let task = self.runtime.spawn(async move {
            let response = client.execute(reqwest::Request::try_from(request)?).await?;
            let status = response.status();
            let body = response.bytes().await?;
            Ok::<_, HttpError>(Response::builder().status(status).body(body)?)
        });
        task.await?
    }
}

impl Application {
    /// Needs a runtime with several threads.
    pub fn new(service: &str, deployment: &impl Deployment) -> Result<Self> {
        // Installs the TLS provider that reqwest asks for.
        let _ = deployment.client()?;
        let (otlp_grpc, otlp_http) = deployment.otlp()?;
        let http = Http { client: reqwest::Client::new(), runtime: tokio::runtime::Handle::current() };
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", service.to_owned()),
                KeyValue::new("service.instance.id", "one"),
            ])
            .build();
        let timeout = Duration::from_secs(20);
        let spans =
            SpanExporter::builder().with_tonic().with_endpoint(otlp_grpc).with_timeout(timeout).build()?;
        let logs = LogExporter::builder()
            .with_http()
            .with_http_client(http.clone())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/logs", otlp_http))
            .with_timeout(timeout)
            .build()?;
        let metrics = MetricExporter::builder()
            .with_http()
            .with_http_client(http)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/metrics", otlp_http))
            .with_timeout(timeout)
            .build()?;
        Ok(Self {
            traces: SdkTracerProvider::builder()
                .with_batch_exporter(spans)
                .with_resource(resource.clone())
                .build(),
            logs: SdkLoggerProvider::builder()
                .with_batch_exporter(logs)
                .with_resource(resource.clone())
                .build(),
            metrics: SdkMeterProvider::builder()
                .with_periodic_exporter(metrics)
                .with_resource(resource)
                .build(),
        })
    }

    /// Handles some orders: a root span with two below it, a log line in their context, a count.
    pub fn work(&self, orders: u64) -> Done {
        let tracer = self.traces.tracer("e2e");
        let logger = self.logs.logger("e2e");
        let counter = self.metrics.meter("e2e").u64_counter("e2e.orders").with_unit("{order}").build();
        let mut done = Done { orders, ..Done::default() };
        for order in 0..orders {
            counter.add(1, &[KeyValue::new("kind", "book")]);
            let root = tracer
                .span_builder("order")
                .with_attributes([KeyValue::new("order.number", order as i64)])
                .start_with_context(&tracer, &Context::new());
            let mut spans = vec![(root.span_context().span_id().to_bytes(), "order".to_owned())];
            let id = root.span_context().trace_id().to_bytes();
            let context = Context::new().with_span(root);
            for name in ["pay", "ship"] {
                let mut span = tracer.start_with_context(name, &context);
                spans.push((span.span_context().span_id().to_bytes(), name.to_owned()));
                span.end();
            }
            let line = format!("order {order} is on its way");
            let mut record = logger.create_log_record();
            record.set_body(AnyValue::from(line.clone()));
            record.set_timestamp(SystemTime::now().max(UNIX_EPOCH));
            record.set_severity_number(Severity::Warn);
            record.set_severity_text("WARN");
            record.add_attribute("order.number", order as i64);
            let span = context.span();
            record.set_trace_context(span.span_context().trace_id(), span.span_context().span_id(), None);
            logger.emit(record);
            span.end();
            done.traces.push(DoneTrace { id, spans, line });
        }
        done
    }

    /// Sends everything; fails where something was not taken.
    pub async fn flush(self) -> Result<()> {
        let flush = tokio::task::spawn_blocking(move || {
            self.traces.force_flush().context("traces")?;
            self.logs.force_flush().context("logs")?;
            self.metrics.force_flush().context("metrics")?;
            self.traces.shutdown().context("traces, shutdown")?;
            self.logs.shutdown().context("logs, shutdown")?;
            self.metrics.shutdown().context("metrics, shutdown")
        });
        match tokio::time::timeout(Duration::from_secs(60), flush).await {
            Ok(flushed) => flushed?,
            Err(_) => bail!("the SDK did not get rid of its data"),
        }
    }
}
