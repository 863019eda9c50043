//! LogQL: lexer, parser with positions, typed plan, line pipelines, evaluator.
//!
//! **Owns** the language: syntax, pipelines (filters, parsers, formats), sample extraction, evaluation.
//! **Must not know** storage: it asks a [`StreamSource`], which the stores implement with the pipelines that this crate
//! compiles. Nor HTTP, gRPC, chunk encodings.
//!
//! # The flow
//! 1. [`parse`] makes an [`Expr`]; its `Display` is the canonical text, which parses back to the same tree.
//! 2. [`Engine::query`] sends the log part as text to the source: an `EntrySelect` for a log query, a `SampleSelect` for each
//!    range aggregation (inside the `sum by` around it, where that may drop labels early).
//! 3. The leaf compiles the text to a [`LogLeaf`] or [`SampleLeaf`], skips blocks by [`LogLeaf::prefilter`], and runs one
//!    [`StreamPipeline`] or [`StreamExtractor`] per stream.
//! 4. The engine folds the samples into windows and columns.
//!
//! | module | what is in it |
//! |---|---|
//! | [`syntax`] | `lexer`, `parser`, `ast`, `display`, `units` (durations, sizes) |
//! | [`pipeline`] | stages compiled and run: `labels` (of the line at hand), `line_filter` (and the filter for blocks), `label_filter`, `json`, `parsers` (logfmt, regexp, pattern), `regexes` (Go's dialect) |
//! | [`template`] | Go's text/template, as far as `line_format` and `label_format` go |
//! | [`extract`] | leaves: from text to pipelines and sample extractors |
//! | [`engine`] | evaluation: `range` (folding samples), `vector`, `binary` |
//! | [`patterns`] | what lines have in common, for the patterns of a stream |
//! | [`split`] | into which parts a query can be cut, and how their answers are put together |
//! | [`source`] | what storage must offer; `MemorySource` for tests (feature `testing`) |
//!
//! # Rules
//! - A line that a stage cannot work on is not lost: it gets [`ERROR_LABEL`] and goes on. A metric query fails on such a
//!   series, unless it filters or keeps the error on purpose.
//! - Of what parsers find under one name the first value counts; a name that the stream has becomes `<name>_extracted`.
//! - Samples are wanted without copies, stream by stream; copies are removed by the source (see [`StreamSource`]).
//! - Metric queries extract only what is read; a parser stops when it has that. So damage behind the last wanted field goes
//!   unseen, as in Loki; a query that mentions `__error__` reads every line to its end.
//!
//! # Limits
//! Text 128 KiB, 64 levels of nesting, 200 binary operators, 1 MiB per compiled regex; a template: 200,000 steps and 1 MiB per
//! line; JSON: 128 levels. Memory of the evaluator is reserved on the query's context: entries of the answer, a segment per
//! series and set of windows, a value per series and step. Per stream a pipeline keeps scratch space the size of its longest
//! line, an extractor up to 4096 label sets.
//!
//! # When you change..
//! - a stage: `syntax/ast.rs`, `parser.rs`, `display.rs`, `pipeline/mod.rs` (compile, run, what it reads), a case in
//!   `pipeline/tests.rs` and in `testdata/`.
//! - an aggregation: `syntax/ast.rs`, `engine/range.rs` or `engine/vector.rs`, a case in `testdata/`.
//! - a template function: `template/functions.rs`, `template/tests.rs`.
//!
//! # Known holes
//! - A label with an empty value is an absent label, so `logfmt --keep-empty` shows no empty labels.
//! - `approx_topk` is exact, and may be asked over a range, too.
//! - No `distinct`, `variants`, multi-variant queries, `@` modifier; no template `define`, `block`, `break`, methods.
//! - Label matchers of stream selectors (crate `model`) use the regex crate's dialect, not Go's.
//! - Escapes `\xff` in strings are code points, as lines are UTF-8 here; Loki reads bytes.
//! - `toDate` and `now` count in UTC whatever the server's zone; zones other than UTC need the system's zone files.

pub mod engine;
pub mod extract;
pub mod patterns;
pub mod pipeline;
pub mod source;
pub mod split;
pub mod syntax;
pub mod template;

pub use engine::{Engine, EngineConfig};
pub use extract::{LogLeaf, SampleLeaf, StreamExtractor};
pub use pipeline::{LineFilter, Pipeline, Processed, StreamPipeline};
pub use source::StreamSource;
pub use syntax::ast::{Expr, LogExpr, MetricExpr};
pub use syntax::parser::{parse, parse_selector};

/// What went wrong with a line in its pipeline: `JSONParserErr`, `LogfmtParserErr`, `SampleExtractionErr`, `LabelFilterErr`,
/// `TemplateFormatErr`.
pub const ERROR_LABEL: &str = "__error__";
pub const ERROR_DETAILS_LABEL: &str = "__error_details__";
/// `"true"` lets a metric query keep series with [`ERROR_LABEL`] instead of failing.
pub const PRESERVE_ERROR_LABEL: &str = "__preserve_error__";
