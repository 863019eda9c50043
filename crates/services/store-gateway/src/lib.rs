//! triptych-store-gateway
