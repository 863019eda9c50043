//! triptych-traces
