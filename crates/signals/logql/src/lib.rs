//! LogQL: lexer, parser with positions, typed plan, line pipelines, evaluator.
//!
//! **Owns** the language: syntax, pipelines (filters, parsers, formats), sample extraction, evaluation.
//! **Must not know** storage: it asks a [`StreamSource`], which the stores implement with the pipelines that this crate
//! compiles. Nor HTTP, gRPC, chunk encodings.

pub mod engine;
pub mod extract;
pub mod pipeline;
pub mod source;
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
