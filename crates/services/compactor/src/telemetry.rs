//! The compactor's own metrics.

triptych_model::telemetry! {
    /// Rounds over one tenant: merge, retention, leftovers; by outcome (`success`, `error`, `handed_over`: another process owns the
    /// tenant now).
    counter rounds(signal, outcome) = "triptych_compactor_rounds_total";
    /// Time of one round over one tenant.
    histogram round_seconds(signal) = "triptych_compactor_round_seconds";
    /// Tenants that this process owned in its last round.
    gauge owned_tenants(signal) = "triptych_compactor_owned_tenants";
    /// Copies of samples, lines or spans that merges have removed for good.
    counter copies_removed(signal) = "triptych_compactor_copies_removed_total";
    /// 1: the bucket refuses to create an object that is there (conditional puts); 0: it does not, or is not known to.
    gauge conditional_puts() = "triptych_compactor_conditional_puts";
}
