//! Our own counters, away from the logic.

use triptych_model::push::PushReport;
use triptych_model::{Kind, Signal};

triptych_model::telemetry! {
    /// Push requests by protocol and HTTP status.
    counter requests(protocol, status) = "triptych_distributor_requests_total";
    /// Bytes of decoded requests.
    counter received_bytes(signal) = "triptych_distributor_received_bytes_total";
    /// Samples, log lines and spans that were acknowledged.
    counter accepted_items(signal) = "triptych_distributor_accepted_items_total";
    /// Samples, log lines and spans that were refused, by reason.
    counter refused_items(signal, reason) = "triptych_distributor_refused_items_total";
    /// Batches that an ingester did not take, by the kind of its error; the write may have succeeded without it.
    counter replica_failures(signal, ingester, kind) = "triptych_distributor_replica_failures_total";
}

pub(crate) fn request(protocol: &'static str, status: u16) {
    requests(protocol, status.to_string()).increment(1);
}

/// A request that was decoded, whatever became of its items.
pub(crate) fn batch(signal: Signal, bytes: u64, report: &PushReport) {
    let signal = signal.as_str();
    received_bytes(signal).increment(bytes);
    accepted_items(signal).increment(report.accepted);
    for (reason, refused) in &report.refused {
        refused_items(signal, reason.clone()).increment(refused.items);
    }
}

/// Items of a request that came too fast.
pub(crate) fn rate_limited(signal: Signal, items: u64) {
    refused_items(signal.as_str(), "rate_limited").increment(items);
}

/// A member that did not take a batch; the write may have succeeded without it.
pub(crate) fn push_failed(signal: Signal, member: &str, kind: Kind) {
    replica_failures(signal.as_str(), member.to_owned(), kind.as_str()).increment(1);
}
