//! What is configured, and how it starts.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};
use triptych_model::{Error, Result};

use crate::log_file::LogFile;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Our own logs and traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which log lines: `info`, `warn`, or per module `info,triptych_ingester=debug`.
    pub log_filter: String,
    /// `text` or `json`, on standard error.
    pub log_format: LogFormat,
    /// Trace our own requests.
    pub trace_enabled: bool,
    /// Where our spans go (OTLP gRPC), for example `http://collector:4317`. Empty: to our own receiver, where this process has
    /// one.
    pub trace_endpoint: String,
    /// Share of requests that are traced, 0 to 1. Requests that come with a sampled trace are always traced.
    pub trace_ratio: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_filter: "info".to_owned(),
            log_format: LogFormat::Text,
            trace_enabled: true,
            trace_endpoint: String::new(),
            trace_ratio: 1.0,
        }
    }
}

/// Keeps the exporters alive; [`Telemetry::shutdown`] sends what is left.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Config {
    /// Starts logging, tracing and the metrics recorder. `role` becomes `service.name`; `own_receiver` is the OTLP gRPC address
    /// of this process, if it has one; `log_file` gets every line as JSON besides. Must run inside a tokio runtime.
    pub fn start(
        &self,
        role: &str,
        own_receiver: Option<&str>,
        log_file: Option<&Path>,
    ) -> Result<Telemetry> {
        crate::exposition::install()?;
        let filter = |text: &str| {
            EnvFilter::try_new(text).map_err(|e| Error::invalid(format!("telemetry.log_filter: {e}")))
        };
        let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
        let stderr = tracing_subscriber::fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        layers.push(match self.log_format {
            LogFormat::Text => stderr.with_filter(filter(&self.log_filter)?).boxed(),
            LogFormat::Json => stderr.json().with_filter(filter(&self.log_filter)?).boxed(),
        });
        if let Some(path) = log_file {
            let file = LogFile::open(path)
                .map_err(|e| Error::invalid(format!("log file {}: {e}", path.display())))?;
            let layer = tracing_subscriber::fmt::layer().json().with_writer(Mutex::new(file));
            layers.push(layer.with_filter(filter(&self.log_filter)?).boxed());
        }
        let endpoint = match (self.trace_endpoint.as_str(), own_receiver) {
            ("", own) => own.map(str::to_owned),
            (endpoint, _) => Some(endpoint.to_owned()),
        };
        let traces = match endpoint.filter(|_| self.trace_enabled) {
            Some(endpoint) => Some(self.provider(role, &endpoint)?),
            None => None,
        };
        if let Some(provider) = &traces {
            let layer = tracing_opentelemetry::layer()
                .with_location(false)
                .with_threads(false)
                .with_tracer(provider.tracer("triptych"));
            // Spans of our own crates only: an exporter that traced itself would never end.
            layers.push(layer.with_filter(filter("off,triptych=info")?).boxed());
        }
        let _ = tracing_subscriber::registry().with(layers).try_init();
        Ok(Telemetry { traces })
    }

    fn provider(&self, role: &str, endpoint: &str) -> Result<SdkTracerProvider> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(|e| Error::invalid(format!("telemetry.trace_endpoint {endpoint}: {e}")))?;
        let resource = Resource::builder()
            .with_service_name("triptych")
            .with_attribute(KeyValue::new("service.namespace", "triptych"))
            .with_attribute(KeyValue::new("triptych.role", role.to_owned()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                self.trace_ratio.clamp(0.0, 1.0),
            ))))
            .with_resource(resource)
            .build())
    }
}

impl Telemetry {
    /// Sends the spans that are left; blocks for some seconds at most.
    pub fn shutdown(self) {
        if let Some(provider) = self.traces {
            let _ = provider.shutdown_with_timeout(std::time::Duration::from_secs(2));
        }
    }
}
