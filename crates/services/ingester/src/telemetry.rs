//! The ingester's own metrics, all in one place.

use std::time::Duration;

use triptych_model::Signal;
use triptych_model::push::PushReport;

triptych_model::telemetry! {
    /// Bytes of the sealed write batches that came in.
    counter received_bytes(signal) = "triptych_ingester_received_bytes_total";
    /// Samples, log lines and spans that were kept.
    counter appended_items(signal) = "triptych_ingester_appended_items_total";
    /// Samples, log lines and spans that were refused, by reason.
    counter refused_items(signal, reason) = "triptych_ingester_refused_items_total";
    /// Pushes that were not taken at all, by the kind of the error.
    counter failed_pushes(signal, kind) = "triptych_ingester_failed_pushes_total";
    /// Generations: the `current` one, those being flushed (`frozen`), and those readable until the store-gateways see
    /// their blocks (`retained`).
    gauge generations(signal, state) = "triptych_ingester_generations";
    /// Memory of the current generation's heads.
    gauge head_bytes(signal) = "triptych_ingester_head_bytes";
    /// Series, streams or traces of the current generation.
    gauge head_items(signal) = "triptych_ingester_head_items";
    /// Tenants with data in the current generation.
    gauge tenants(signal) = "triptych_ingester_tenants";
    /// Bytes that wait for the write-ahead log's disk.
    gauge wal_queued_bytes(wal) = "triptych_wal_queued_bytes";
    /// Bytes of the write-ahead log on disk.
    gauge wal_disk_bytes(wal) = "triptych_wal_disk_bytes";
    /// Flushes on the local disk that wait for the bucket.
    gauge spool_units(signal) = "triptych_ingester_spool_units";
    /// Bytes of flushes on the local disk, those included that are in the bucket and not deleted here yet.
    gauge spool_bytes(signal) = "triptych_ingester_spool_bytes";
    /// What write-ahead logs and spools together may hold (`ingester.disk_bytes_max`); over it pushes are refused.
    gauge disk_limit_bytes() = "triptych_ingester_disk_limit_bytes";
    /// Generations that went to the local disk because the bucket did not take them.
    counter spooled_generations(signal) = "triptych_ingester_spooled_generations_total";
    /// Time of one flush of a generation to the bucket.
    histogram flush_seconds(signal) = "triptych_ingester_flush_seconds";
    /// Objects that were flushed to the bucket.
    counter flushed_objects(signal) = "triptych_ingester_flushed_objects_total";
    /// Bytes that were flushed to the bucket.
    counter flushed_bytes(signal) = "triptych_ingester_flushed_bytes_total";
    /// Flushes that failed and are tried again.
    counter flush_failures(signal) = "triptych_ingester_flush_failures_total";
    /// Time the replay of the write-ahead log took at the start.
    gauge replay_seconds(signal) = "triptych_ingester_replay_seconds";
    /// Records that were replayed.
    counter replayed_records(signal) = "triptych_ingester_replayed_records_total";
    /// Records that were whole but could not be applied at replay.
    counter replay_skipped_records(signal) = "triptych_ingester_replay_skipped_records_total";
    /// Bytes of the write-ahead log that failed their checksum.
    counter replay_damaged_bytes(signal) = "triptych_ingester_replay_damaged_bytes_total";
    /// Bytes of writes that a crash left unfinished; nothing of them was acknowledged.
    counter replay_torn_bytes(signal) = "triptych_ingester_replay_torn_bytes_total";
}

pub(crate) fn pushed(signal: Signal, sealed_bytes: usize, report: &PushReport) {
    let signal = signal.as_str();
    received_bytes(signal).increment(sealed_bytes as u64);
    appended_items(signal).increment(report.accepted);
    for (reason, refused) in &report.refused {
        refused_items(signal, reason.clone()).increment(refused.items);
    }
}

/// A push that was not taken at all.
pub(crate) fn push_failed(signal: Signal, kind: &'static str) {
    failed_pushes(signal.as_str(), kind).increment(1);
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
    /// Flushes on the local disk that are not in the bucket.
    pub spool_units: usize,
    pub spool_bytes: u64,
    pub disk_limit_bytes: u64,
}

pub(crate) fn gauges(signal: Signal, gauges: &Gauges) {
    let signal = signal.as_str();
    for (state, count) in [("current", 1), ("frozen", gauges.frozen), ("retained", gauges.retained)] {
        generations(signal, state).set(count as f64);
    }
    head_bytes(signal).set(gauges.current_bytes as f64);
    head_items(signal).set(gauges.items as f64);
    tenants(signal).set(gauges.tenants as f64);
    wal_queued_bytes(signal).set(gauges.wal_queued_bytes as f64);
    wal_disk_bytes(signal).set(gauges.wal_disk_bytes as f64);
    spool_units(signal).set(gauges.spool_units as f64);
    spool_bytes(signal).set(gauges.spool_bytes as f64);
    disk_limit_bytes().set(gauges.disk_limit_bytes as f64);
}

pub(crate) fn flushed(signal: Signal, took: Duration, objects: u64, bytes: u64) {
    let signal = signal.as_str();
    flush_seconds(signal).record(took.as_secs_f64());
    flushed_objects(signal).increment(objects);
    flushed_bytes(signal).increment(bytes);
}

/// A generation went to the local disk.
pub(crate) fn spooled(signal: Signal) {
    spooled_generations(signal.as_str()).increment(1);
}

pub(crate) fn flush_failed(signal: Signal) {
    flush_failures(signal.as_str()).increment(1);
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
    replay_seconds(signal).set(took.as_secs_f64());
    replayed_records(signal).increment(records);
    replay_skipped_records(signal).increment(skipped);
    replay_damaged_bytes(signal).increment(damaged_bytes);
    replay_torn_bytes(signal).increment(torn_bytes);
}
