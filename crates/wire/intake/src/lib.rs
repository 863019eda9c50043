//! triptych-intake
