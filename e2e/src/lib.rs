//! triptych-e2e
