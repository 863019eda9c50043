//! LogQL: lexer, parser with positions, typed plan, line pipelines, evaluator.
//!
//! **Owns** the language: syntax, pipelines (filters, parsers, formats), sample extraction, evaluation.
//! **Must not know** storage: it asks a [`StreamSource`], which the stores implement with the pipelines that this crate
//! compiles. Nor HTTP, gRPC, chunk encodings.

pub mod source;

pub use source::StreamSource;
