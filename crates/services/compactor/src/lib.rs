//! triptych-compactor
