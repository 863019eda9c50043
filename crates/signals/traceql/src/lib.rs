//! TraceQL: lexer, parser with positions, typed plan, conditions for the store, evaluator.
//!
//! **Owns** the language: syntax, types, what to fetch, evaluation over the fetched spans, metrics.
//! **Must not know** storage: it asks a [`SpanSource`], which the stores implement. Nor HTTP, gRPC, parquet.

pub mod source;

pub use source::{SpanSource, TraceSpans};
