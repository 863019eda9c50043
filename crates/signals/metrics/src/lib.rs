//! triptych-metrics

pub mod block;
pub mod chunk;
pub mod head;
pub mod merge;
mod postings;
mod select;

pub use head::{FlushOptions, FlushReport, Head, HeadConfig};
pub use merge::{merge, merge_chunks};
