//! PromQL: lexer, parser with positions, typed plan, evaluator.
//!
//! **Owns** the language: syntax, types, evaluation, how a query is split.
//! **Must not know** storage: it asks a [`SeriesSource`], which the stores implement. Nor HTTP, gRPC, chunk encodings.

pub mod source;

pub use source::{SampleIter, Series, SeriesSource, SeriesStream};
