//! PromQL: lexer, parser with positions, typed plan, evaluator.
//!
//! **Owns** the language: syntax, types, evaluation, how a query is split.
//! **Must not know** storage: it asks a [`SeriesSource`], which the stores implement. Nor HTTP, gRPC, chunk encodings.
//!
//! | module | what is in it |
//! |---|---|
//! | [`lexer`], [`parser`], `check` | text to a checked tree; errors say `line:column` |
//! | [`ast`], [`format`], [`functions`] | the tree; the tree as canonical text; names and signatures |
//! | [`plan`] | the tree for one query's times: typed, durations resolved, what does not vary found |
//! | [`eval`] | plan to columns |
//! | [`split`] | into which parts a query can be cut, and how their answers are put together |
//! | [`source`] | what the language asks of storage |
//! | `promqltest` (feature) | Prometheus' test language, over any engine |
//!
//! A query is parsed, checked, planned and run:
//! ```text
//! text -> Expr -> Plan -> stream of columns -> QueryValue
//! ```
//! A *column* is one series with a value or nothing for each step. Selectors pull a series' samples in runs, range functions
//! slide a window over them, and the column goes on to the next operator; no operator sees two steps as two vectors.
//!
//! **Memory**: the window of the series being read, groups of aggregations, both sides of joins, whatever is ranked or
//! sorted, and the answer; all reserved on the query's context. Text and nesting of a query are bounded by the parser. One task
//! evaluates a query; the parts of one that is split may be evaluated at the same time.
//!
//! **Semantics** are those of Prometheus 3: ranges and lookback are open at the left, staleness markers end a series,
//! sums are compensated, rates extrapolated. Its experimental functions, duration expressions and `fill` are always on.
//!
//! **Known holes**: native histograms (the sample type has none: functions and operators for them give nothing), `info()`,
//! `anchored` and `smoothed`, start timestamps. A selector
//! that stands in a query twice is read twice. `topk` and its like hold their whole argument.
//!
//! **Speed**: `cargo bench -p triptych-promql`.

pub mod ast;
mod check;
pub mod eval;
pub mod format;
pub mod functions;
pub mod lexer;
pub mod parser;
pub mod plan;
#[cfg(feature = "promqltest")]
pub mod promqltest;
pub mod source;
pub mod split;

pub use ast::Expr;
pub use eval::{Engine, EngineConfig};
pub use parser::{ParseError, parse, parse_metric, parse_selector};
pub use source::{SampleIter, Series, SeriesSource, SeriesStream};
