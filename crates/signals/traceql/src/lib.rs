//! TraceQL: lexer, parser with positions, typed plan, conditions for the store, evaluator.
//!
//! **Owns** the language: syntax, types, what to fetch, evaluation over the fetched spans, metrics, how answers of several
//! sources become one.
//! **Must not know** storage: it asks a [`SpanSource`], which the stores implement. Nor HTTP, gRPC, parquet.
//!
//! | module | what is in it |
//! |---|---|
//! | [`parser`], [`ast`] | text to a checked tree; `Display` writes it back |
//! | [`source`], [`plan`] | what a store is asked for ([`FetchSpans`]) and answers |
//! | [`value`] | how values compare; [`Test`], a condition ready to be asked |

pub mod ast;
mod display;
mod lexer;
pub mod parser;
pub mod plan;
pub mod source;
pub mod value;

pub use ast::Query;
pub use lexer::QUERY_BYTES_MAX;
pub use parser::{parse, parse_attribute};
pub use plan::filter_conditions;
pub use source::{FetchSpans, SpanSource, TraceSpans};
pub use value::Test;
