//! triptych-logs
