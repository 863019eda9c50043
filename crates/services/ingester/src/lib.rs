//! triptych-ingester
