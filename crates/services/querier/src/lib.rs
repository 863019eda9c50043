//! triptych-querier
