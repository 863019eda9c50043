//! The ingester's own metrics, all in one place.

use std::time::Duration;

use triptych_model::Signal;
use triptych_model::push::PushReport;

pub(crate) fn pushed(signal: Signal, sealed_bytes: usize, report: &PushReport) {
    ::metrics::counter!("triptych_ingester_received_bytes_total", "signal" => signal.as_str())
        .increment(sealed_bytes as u64);
    ::metrics::counter!("triptych_ingester_appended_items_total", "signal" => signal.as_str())
        .increment(report.accepted);
    for (reason, refused) in &report.refused {
        ::metrics::counter!(
            "triptych_ingester_refused_items_total",
            "signal" => signal.as_str(),
            "reason" => reason.clone()
        )
        .increment(refused.items);
    }
}

/// A push that was not taken at all.
pub(crate) fn push_failed(signal: Signal, kind: &'static str) {
    ::metrics::counter!(
        "triptych_ingester_failed_pushes_total",
        "signal" => signal.as_str(),
        "kind" => kind
    )
    .increment(1);
}

/// Written by the tick.
pub(crate) struct Gauges {
    pub current_bytes: usize,
    pub frozen: usize,
    pub retained: usize,
    pub tenants: usize,
    /// Series, streams or traces of the current generation.
    pub items: usize,
    pub wal_queued_bytes: usize,
    pub wal_disk_bytes: u64,
}

pub(crate) fn gauges(signal: Signal, gauges: &Gauges) {
    let signal = signal.as_str();
    for (state, count) in [("current", 1), ("frozen", gauges.frozen), ("retained", gauges.retained)] {
        ::metrics::gauge!("triptych_ingester_generations", "signal" => signal, "state" => state)
            .set(count as f64);
    }
    ::metrics::gauge!("triptych_ingester_head_bytes", "signal" => signal).set(gauges.current_bytes as f64);
    ::metrics::gauge!("triptych_ingester_head_items", "signal" => signal).set(gauges.items as f64);
    ::metrics::gauge!("triptych_ingester_tenants", "signal" => signal).set(gauges.tenants as f64);
    ::metrics::gauge!("triptych_wal_queued_bytes", "wal" => signal).set(gauges.wal_queued_bytes as f64);
    ::metrics::gauge!("triptych_wal_disk_bytes", "wal" => signal).set(gauges.wal_disk_bytes as f64);
}

pub(crate) fn memory(used: usize, max: usize) {
    ::metrics::gauge!("triptych_ingester_memory_bytes").set(used as f64);
    ::metrics::gauge!("triptych_ingester_memory_limit_bytes").set(max as f64);
}

pub(crate) fn flushed(signal: Signal, took: Duration, objects: u64, bytes: u64) {
    let signal = signal.as_str();
    ::metrics::histogram!("triptych_ingester_flush_seconds", "signal" => signal).record(took.as_secs_f64());
    ::metrics::counter!("triptych_ingester_flushed_objects_total", "signal" => signal).increment(objects);
    ::metrics::counter!("triptych_ingester_flushed_bytes_total", "signal" => signal).increment(bytes);
}

pub(crate) fn flush_failed(signal: Signal) {
    ::metrics::counter!("triptych_ingester_flush_failures_total", "signal" => signal.as_str()).increment(1);
}

pub(crate) fn replayed(
    signal: Signal,
    took: Duration,
    records: u64,
    skipped: u64,
    damaged_bytes: u64,
    torn_bytes: u64,
) {
    let signal = signal.as_str();
    ::metrics::gauge!("triptych_ingester_replay_seconds", "signal" => signal).set(took.as_secs_f64());
    ::metrics::counter!("triptych_ingester_replayed_records_total", "signal" => signal).increment(records);
    ::metrics::counter!("triptych_ingester_replay_skipped_records_total", "signal" => signal)
        .increment(skipped);
    ::metrics::counter!("triptych_ingester_replay_damaged_bytes_total", "signal" => signal)
        .increment(damaged_bytes);
    ::metrics::counter!("triptych_ingester_replay_torn_bytes_total", "signal" => signal)
        .increment(torn_bytes);
}
