//! Our own counters, away from the logic.

use triptych_model::Signal;
use triptych_model::push::PushReport;

pub(crate) fn request(protocol: &'static str, status: u16) {
    metrics::counter!(
        "triptych_distributor_requests_total", "protocol" => protocol, "status" => status.to_string()
    )
    .increment(1);
}

/// A request that was decoded, whatever became of its items.
pub(crate) fn batch(signal: Signal, bytes: u64, report: &PushReport) {
    let signal = signal.as_str();
    metrics::counter!("triptych_distributor_received_bytes_total", "signal" => signal).increment(bytes);
    metrics::counter!("triptych_distributor_accepted_items_total", "signal" => signal)
        .increment(report.accepted);
    for (reason, refused) in &report.refused {
        metrics::counter!(
            "triptych_distributor_refused_items_total", "signal" => signal, "reason" => reason.clone()
        )
        .increment(refused.items);
    }
}

/// Items of a request that came too fast.
pub(crate) fn rate_limited(signal: Signal, items: u64) {
    metrics::counter!(
        "triptych_distributor_refused_items_total", "signal" => signal.as_str(), "reason" => "rate_limited"
    )
    .increment(items);
}
