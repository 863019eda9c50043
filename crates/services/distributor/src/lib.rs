//! triptych-distributor
