//! The store-gateway's own metrics.

triptych_model::telemetry! {
    /// Looks through the bucket for what is new or gone, by outcome (`success`, `error`).
    counter syncs(signal, outcome) = "triptych_store_gateway_syncs_total";
    /// Time of one look through the bucket.
    histogram sync_seconds(signal) = "triptych_store_gateway_sync_seconds";
    /// Blocks of metrics and traces, index files of logs: those that this store-gateway owns, as the ring shows it (`owned`), and
    /// those of which it has the index in memory (`open`).
    gauge blocks(signal, state) = "triptych_store_gateway_blocks";
    /// Blocks and index files that were opened before anybody asked for them.
    counter opened(signal) = "triptych_store_gateway_opened_blocks_total";
}
