//! The compactor's own metrics.

triptych_model::telemetry! {
    /// Rounds over one tenant: merge, retention, leftovers; by outcome (`success`, `error`).
    counter rounds(signal, outcome) = "triptych_compactor_rounds_total";
    /// Time of one round over one tenant.
    histogram round_seconds(signal) = "triptych_compactor_round_seconds";
}
