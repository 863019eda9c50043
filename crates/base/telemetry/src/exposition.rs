//! `/metrics`: the recorder behind the `metrics` facade, with buckets, so that durations are histograms.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use triptych_model::telemetry::{Metric, MetricKind};
use triptych_model::{Error, Result};

/// Seconds, from fsyncs to long queries.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Records per group of the write-ahead log.
const FRAME_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1024.0];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder; once per process, later calls do nothing.
pub fn install() -> Result<()> {
    if HANDLE.get().is_some() {
        return Ok(());
    }
    let failed =
        |e: metrics_exporter_prometheus::BuildError| Error::internal(format!("metrics recorder: {e}"));
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &DURATION_BUCKETS)
        .map_err(failed)?
        .set_buckets_for_metric(Matcher::Suffix("_frames".to_owned()), &FRAME_BUCKETS)
        .map_err(failed)?
        .install_recorder()
        .map_err(failed)?;
    let _ = HANDLE.set(handle);
    Ok(())
}

/// Gives metrics their `# HELP` lines.
pub fn describe<'a>(declared: impl Iterator<Item = &'a Metric>) {
    for metric in declared {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.meaning()),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.meaning()),
            MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.meaning()),
        }
    }
}

/// The text of `/metrics` (Prometheus text format 0.0.4).
pub fn render() -> String {
    match HANDLE.get() {
        Some(handle) => {
            handle.run_upkeep();
            handle.render()
        }
        None => String::new(),
    }
}
