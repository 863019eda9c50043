//! The store-gateway's own metrics.

triptych_model::telemetry! {
    /// Looks through the bucket for what is new or gone, by outcome (`success`, `error`).
    counter syncs(signal, outcome) = "triptych_store_gateway_syncs_total";
    /// Time of one look through the bucket.
    histogram sync_seconds(signal) = "triptych_store_gateway_sync_seconds";
}
