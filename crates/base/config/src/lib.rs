//! triptych-config
