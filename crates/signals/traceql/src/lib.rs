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
//! | `eval`, [`search`](mod@search) | a pipeline run on one trace; [`search()`](search::search), [`samples`] over a source |
//! | [`merge`] | matches and samples of several sources |
//! | [`split`] | into which parts of time a query can be cut, and how their answers are put together |
//! | [`metrics`] | [`leaves`], [`evaluate`]: samples to series |
//!
//! Memory: one trace at a time, as the source hands it over; the series of a metrics query, reserved from the query's budget.
//!
//! Known holes: `parent.` attributes and `compare()` are refused with an error that says so; comparisons between two pipelines
//! (`({} | count()) > ({} | count())`) too. A trace whose spans came in over a longer time lies in parts: in the heads of several
//! generations and in blocks. Every head and the bucket are sources of their own, and each evaluates its part: `count()`, `avg()`
//! and the like, `{} && {}`, and operators that relate spans see one part at a time. Parts in several blocks are put together
//! before they are evaluated, but a span's place in the tree is known within its block alone, so `>`, `>>`, `~` and their kind do
//! not see across blocks, until these are merged. Filters of single spans are not touched by any of this: they find every span.

pub mod ast;
mod display;
mod eval;
mod lexer;
pub mod merge;
pub mod metrics;
pub mod parser;
pub mod plan;
pub mod search;
pub mod source;
pub mod split;
pub mod value;

pub use ast::Query;
pub use lexer::QUERY_BYTES_MAX;
pub use merge::{MatchMerge, merge_matches, merge_samples, merge_tags, merge_values};
pub use metrics::{evaluate, leaves};
pub use parser::{parse, parse_attribute};
pub use plan::{filter_conditions, is_by_span};
pub use search::{samples, search};
pub use source::{FetchSpans, SpanSource, TraceSpans};
pub use split::Split;
pub use value::Test;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
