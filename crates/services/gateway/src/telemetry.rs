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
    /// Extents of range queries that were looked for among remembered answers, by outcome: `hit`, `shared` where somebody else was making
    /// the answer, `miss`, or `stale` where the data has changed since.
    counter result_cache_extents(signal, outcome) = "triptych_gateway_result_cache_extents_total";
    /// Remembered answers that left to make room for others.
    counter result_cache_evictions() = "triptych_gateway_result_cache_evictions_total";
    /// Memory of the remembered answers.
    gauge result_cache_bytes() = "triptych_gateway_result_cache_bytes";
    /// Pushes that a distributor did not answer; they went to another one where that was possible.
    counter distributor_failures(distributor) = "triptych_gateway_distributor_failures_total";
    /// Sub-queries that a querier did not answer and that were sent again, or given up.
    counter querier_failures(querier) = "triptych_gateway_querier_failures_total";
    /// Answers to sub-queries that had missed something, by outcome: `mended` where another attempt brought a whole one, or `taken` as they
    /// were.
    counter partial_answers(outcome) = "triptych_gateway_partial_answers_total";
}
