//! triptych-gateway
