//! Traces: what is selected and what comes back. Times are nanoseconds since the epoch; ranges include both ends.
//!
//! TraceQL travels to the leaves as text. Whole traces travel as OTLP `TracesData` bytes.

use bytes::Bytes;

use crate::Labels;

pub type TraceId = [u8; 16];
pub type SpanId = [u8; 8];

/// A value of an attribute or an intrinsic, as answers carry it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    String(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// `ok`, `error`, `unset`.
    Status(String),
    /// `server`, `client`, ...
    SpanKind(String),
    Nil,
}

impl Value {
    /// The type's name in Tempo's tag-values answers.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::String(_) => "string",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Bool(_) => "bool",
            Value::Duration(_) => "duration",
            Value::Status(_) | Value::SpanKind(_) => "keyword",
            Value::Nil => "nil",
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::String(s) | Value::Status(s) | Value::SpanKind(s) => f.write_str(s),
            Value::Int(i) => write!(f, "{i}"),
            Value::Float(v) => write!(f, "{v}"),
            Value::Bool(b) => write!(f, "{b}"),
            Value::Duration(ns) => write!(f, "{ns}ns"),
            Value::Nil => f.write_str("nil"),
        }
    }
}

/// A search. 0 as an end of the range means unbounded.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSearch {
    /// TraceQL, `{}` for everything.
    pub query: String,
    pub start_ns: i64,
    pub end_ns: i64,
    /// Traces wanted; 0: Tempo's default of 20.
    pub limit: usize,
    /// Spans kept per span set; 0: Tempo's default of 3.
    pub spans_per_set: usize,
}

/// A trace that matched. The same trace may come from several sources with part of its spans each.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceMatch {
    pub trace_id: TraceId,
    /// Empty where the root span was not among what this source holds.
    pub root_service: String,
    pub root_name: String,
    pub start_ns: i64,
    pub duration_ns: i64,
    pub span_sets: Vec<SpanSet>,
    /// (service, spans, spans with an error).
    pub services: Vec<(String, u32, u32)>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpanSet {
    pub spans: Vec<SpanMatch>,
    /// How many matched, `spans` may hold fewer.
    pub matched: u32,
    /// Of the set: `by(..)` keys, aggregates.
    pub attributes: Vec<(String, Value)>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SpanMatch {
    pub span_id: SpanId,
    pub name: String,
    pub start_ns: i64,
    pub duration_ns: i64,
    pub attributes: Vec<(String, Value)>,
}

/// Which spans feed a TraceQL metrics query. Answers come in ascending order of trace id.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanSampleSelect {
    /// `{ .. } | rate() by (..)`. The leaf extracts; it does not fold.
    pub query: String,
    pub start_ns: i64,
    pub end_ns: i64,
}

/// The samples that one trace gives.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSamples {
    pub trace_id: TraceId,
    pub samples: Vec<SpanSample>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SpanSample {
    pub labels: Labels,
    pub ts_ns: i64,
    pub value: f64,
    /// Copies of one span share it.
    pub span_id: SpanId,
}

/// Where a tag lives, `/api/v2/search/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScopeTags {
    /// `resource`, `span`, `event`, `link`, `instrumentation`, `intrinsic`.
    pub scope: String,
    pub tags: Vec<String>,
}

/// Which tags, or which values of the tag `name` (`resource.service.name`, `.http.method`, `status`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TagsSelect {
    /// Empty: all scopes.
    pub scope: String,
    /// For values only.
    pub name: String,
    /// A TraceQL filter that spans must pass; empty: none.
    pub query: String,
    pub start_ns: i64,
    pub end_ns: i64,
    pub limit: usize,
}

/// One source's part of a trace: OTLP `TracesData` messages to be combined.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TraceParts {
    pub otlp: Vec<Bytes>,
}

/// A TraceQL metrics question. `step_ns` 0: one value over the whole range.
#[derive(Debug, Clone, PartialEq)]
pub struct TracesMetricsQuery {
    pub query: String,
    pub start_ns: i64,
    pub end_ns: i64,
    pub step_ns: i64,
}
