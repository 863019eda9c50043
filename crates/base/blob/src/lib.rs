//! triptych-blob
