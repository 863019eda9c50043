//! triptych-wal
