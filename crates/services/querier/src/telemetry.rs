//! The querier's own metrics.

triptych_model::telemetry! {
    /// Queries by outcome: `success`, or the kind of the error.
    counter queries(signal, outcome) = "triptych_querier_queries_total";
    /// Time of a query, the wait for its turn included.
    histogram query_seconds(signal) = "triptych_querier_query_seconds";
    /// Ingesters and store-gateways that did not answer a query, which went on without them.
    counter source_failures(signal, source) = "triptych_querier_source_failures_total";
}
