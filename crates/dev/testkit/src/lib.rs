//! triptych-testkit
