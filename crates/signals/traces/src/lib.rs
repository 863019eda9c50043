//! The traces store.

pub mod block;
pub mod head;
pub mod merge;
pub mod otlp;
mod query;
pub mod tags;
pub mod view;

pub use head::{Head, HeadConfig};
pub use merge::combine;

#[cfg(test)]
mod testing;
