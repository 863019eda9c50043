//! triptych-metrics

pub mod chunk;
pub mod head;
mod select;

pub use head::{Head, HeadConfig};
