//! triptych-metrics
