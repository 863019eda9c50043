//! triptych-agent
