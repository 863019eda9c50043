//! The runtime's own metrics.

triptych_model::telemetry! {
    /// Times that an invariant of `docs/ARCHITECTURE.md` did not hold. Stays at 0; anything else is a bug of ours.
    counter invariant_violations(invariant) = "triptych_invariant_violations_total";
}
