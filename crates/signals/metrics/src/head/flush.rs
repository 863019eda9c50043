//! From a head to blocks.

/// What the next flush may skip: filled in by `flush`.
#[derive(Debug, Default)]
pub(super) struct Flushed {}

/// How to write blocks.
#[derive(Debug, Clone, Default)]
pub struct FlushOptions {}

/// What a flush wrote.
#[derive(Debug, Clone, Default)]
pub struct FlushReport {}
