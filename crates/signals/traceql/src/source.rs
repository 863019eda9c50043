//! What TraceQL needs from storage.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use triptych_model::Result;
use triptych_model::traces::{SpanId, TraceId, Value};
use triptych_runtime::QueryContext;

/// Where an attribute is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// `.name`: span first, then resource.
    Any,
    Span,
    Resource,
    Event,
    Link,
    Instrumentation,
}

/// What every span or its trace has without being an attribute. Ids are strings of lower-case hex digits at full length (32 for
/// traces, 16 for spans); the parent id of a root is the empty string. Times and durations are [`Value::Duration`], `Status` and
/// `Kind` are [`Value::Status`] and [`Value::SpanKind`], counts are integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Intrinsic {
    Name,
    Duration,
    Status,
    StatusMessage,
    Kind,
    ChildCount,
    TraceId,
    SpanId,
    ParentId,
    TraceDuration,
    RootName,
    RootServiceName,
    NestedSetLeft,
    NestedSetRight,
    NestedSetParent,
    EventName,
    EventTimeSinceStart,
    LinkTraceId,
    LinkSpanId,
    InstrumentationName,
    InstrumentationVersion,
}

/// What a condition or a selection names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    Intrinsic(Intrinsic),
    Named(Scope, Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompareOp {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// Anchored at both ends, as Tempo does.
    Regex,
    NotRegex,
}

/// Something about a span that the store can test early.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub attribute: Attribute,
    /// `None`: the attribute is there at all.
    pub test: Option<(CompareOp, Value)>,
}

/// What to fetch. The source returns every trace in range in which some span may match, and of it every span that may match; it
/// may return more, the evaluator tests again. With `all_conditions` a span that fails any condition may be left out;
/// without it, one that fails all of them. No condition at all: every span.
///
/// [`crate::Test`] is a condition made ready to be asked; a source that asks something else (a column's statistics, a
/// dictionary) must not be stricter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FetchSpans {
    pub conditions: Vec<Condition>,
    pub all_conditions: bool,
    /// What the evaluator reads of each returned span; [`Span::values`] is parallel to it.
    pub attributes: Vec<Attribute>,
    /// Whether `nested_left`, `nested_right`, `nested_parent` are read; where false they may be 0.
    pub nested_sets: bool,
    /// Whether the root's names and the services of [`TraceSpans`] are read; where false they may be empty. The start and the
    /// duration of the trace are always read.
    pub summary: bool,
    /// Traces that overlap this range; 0: unbounded.
    pub start_ns: i64,
    pub end_ns: i64,
}

/// A trace with the spans that may match.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSpans {
    pub trace_id: TraceId,
    pub start_ns: i64,
    pub duration_ns: i64,
    /// Empty where the root is not there.
    pub root_service: Arc<str>,
    pub root_name: Arc<str>,
    /// (service, spans, spans with an error).
    pub services: Vec<(Arc<str>, u32, u32)>,
    pub spans: Vec<Span>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub span_id: SpanId,
    pub name: Arc<str>,
    pub start_ns: i64,
    pub duration_ns: i64,
    /// Nested sets answer ancestor and descendant questions: `left < other.left && other.right < right`. 0: not known (the
    /// span's parent is missing).
    pub nested_left: i32,
    pub nested_right: i32,
    /// `nested_left` of the parent; -1 for a root.
    pub nested_parent: i32,
    /// Parallel to [`FetchSpans::attributes`]. Event and link attributes may have several values.
    pub values: Vec<Values>,
}

/// None, one, or (events, links, arrays) several values.
pub type Values = smallvec::SmallVec<[Value; 1]>;

/// Implemented by live traces and parquet blocks.
#[async_trait]
pub trait SpanSource: Send + Sync {
    /// Traces in ascending order of id, each once.
    async fn fetch(
        &self,
        ctx: &QueryContext,
        fetch: &FetchSpans,
    ) -> Result<BoxStream<'static, Result<TraceSpans>>>;
}
