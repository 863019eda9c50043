//! triptych-telemetry
