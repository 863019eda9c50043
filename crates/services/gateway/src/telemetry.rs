//! The gateway's own metrics.

triptych_model::telemetry! {
    /// Sub-queries that run.
    gauge running() = "triptych_gateway_running";
    /// Sub-queries that wait for their turn.
    gauge queue_length() = "triptych_gateway_queue_length";
    /// Time that sub-queries waited, of those that had to.
    histogram queue_wait_seconds() = "triptych_gateway_queue_wait_seconds";
    /// Requests refused because too many sub-queries of their tenant waited already.
    counter queue_refusals() = "triptych_gateway_queue_refusals_total";
    /// Sub-queries that a querier did not answer and that were sent again, or given up.
    counter querier_failures(querier) = "triptych_gateway_querier_failures_total";
}
