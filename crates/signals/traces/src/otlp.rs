//! OTLP trace messages as this store needs them: borrowed, decoded by hand, encoded again.
//!
//! Source of the field numbers: opentelemetry-proto `trace/v1/trace.proto`, `common/v1/common.proto`. The same types are filled
//! from parquet columns, so that everything downstream (evaluation, tags, merging, encoding) exists once.
//!
//! Not kept: `entity_refs` of a resource, unknown fields, the deprecated `instrumentation_library_spans`.

use std::borrow::Cow;

use triptych_model::traces::{SpanId, TraceId};

mod decode;
mod encode;
mod json;

pub use decode::{DecodeError, KEEP_ALL, Keep, Names, decode, decode_kept};
pub(crate) use decode::{Place, first_bytes, key_value as decode_key_value, visit_texts};
pub use encode::encode;
pub(crate) use encode::key_value as encode_key_value;
pub use json::{from_json, to_json};

/// Deepest nesting of lists inside an attribute value that is read; what lies deeper is dropped. The JSON that blocks keep of
/// such values takes three levels each, and its reader stops at 128.
pub const VALUE_DEPTH_MAX: usize = 32;

pub const STATUS_ERROR: i32 = 2;
pub const KIND_SERVER: i32 = 2;
pub const KIND_CLIENT: i32 = 3;

/// Attribute that names the service; lives in a column of its own.
pub const SERVICE_NAME: &str = "service.name";

/// Spans of one trace.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Trace<'a> {
    pub trace_id: TraceId,
    pub resource_spans: Vec<ResourceSpans<'a>>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ResourceSpans<'a> {
    pub resource: Resource<'a>,
    pub scope_spans: Vec<ScopeSpans<'a>>,
    pub schema_url: &'a str,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resource<'a> {
    pub attributes: Vec<KeyValue<'a>>,
    pub dropped_attributes: u32,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ScopeSpans<'a> {
    pub scope: InstrumentationScope<'a>,
    pub spans: Vec<Span<'a>>,
    pub schema_url: &'a str,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct InstrumentationScope<'a> {
    pub name: &'a str,
    pub version: &'a str,
    pub attributes: Vec<KeyValue<'a>>,
    pub dropped_attributes: u32,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Span<'a> {
    /// Shorter ids are padded on the left.
    pub span_id: SpanId,
    /// `None` for a root: an empty id or one of zeros.
    pub parent_id: Option<SpanId>,
    pub trace_state: &'a str,
    pub name: &'a str,
    pub kind: i32,
    pub start_ns: u64,
    pub end_ns: u64,
    pub attributes: Vec<KeyValue<'a>>,
    pub dropped_attributes: u32,
    pub events: Vec<Event<'a>>,
    pub dropped_events: u32,
    pub links: Vec<Link<'a>>,
    pub dropped_links: u32,
    pub status_code: i32,
    pub status_message: &'a str,
    /// Not stored in blocks: vParquet has no column for it.
    pub flags: u32,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event<'a> {
    pub time_ns: u64,
    pub name: &'a str,
    pub attributes: Vec<KeyValue<'a>>,
    pub dropped_attributes: u32,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Link<'a> {
    pub trace_id: &'a [u8],
    pub span_id: &'a [u8],
    pub trace_state: &'a str,
    pub attributes: Vec<KeyValue<'a>>,
    pub dropped_attributes: u32,
    /// Not stored in blocks.
    pub flags: u32,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeyValue<'a> {
    pub key: Cow<'a, str>,
    pub value: AnyValue<'a>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub enum AnyValue<'a> {
    /// The message is there, no value is set.
    #[default]
    None,
    String(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Array(Vec<AnyValue<'a>>),
    KvList(Vec<KeyValue<'a>>),
    Bytes(Cow<'a, [u8]>),
}

impl<'a> AnyValue<'a> {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            AnyValue::String(s) => Some(s),
            _ => None,
        }
    }
}

impl<'a> KeyValue<'a> {
    pub fn new(key: &'a str, value: AnyValue<'a>) -> Self {
        Self { key: Cow::Borrowed(key), value }
    }
}

/// The value of `key`, the first one where a key occurs twice.
pub fn attribute<'t, 'a>(attributes: &'t [KeyValue<'a>], key: &str) -> Option<&'t AnyValue<'a>> {
    attributes.iter().find(|a| a.key == key).map(|a| &a.value)
}

impl Resource<'_> {
    /// `service.name`, empty where it is missing or no string.
    pub fn service_name(&self) -> &str {
        self.attributes
            .iter()
            .find_map(|a| if a.key == SERVICE_NAME { a.value.as_str() } else { None })
            .unwrap_or("")
    }
}

impl Span<'_> {
    pub fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

impl<'a> Trace<'a> {
    pub fn spans(&self) -> impl Iterator<Item = (&Resource<'a>, &InstrumentationScope<'a>, &Span<'a>)> {
        self.resource_spans.iter().flat_map(|rs| {
            rs.scope_spans
                .iter()
                .flat_map(move |ss| ss.spans.iter().map(move |span| (&rs.resource, &ss.scope, span)))
        })
    }

    pub fn span_count(&self) -> usize {
        self.resource_spans.iter().flat_map(|rs| &rs.scope_spans).map(|ss| ss.spans.len()).sum()
    }
}

/// Whether the values are all strings, all integers, all doubles or all booleans. An empty list is. Other lists have no columns
/// in a block, and no values in TraceQL.
pub(crate) fn same_kind(values: &[AnyValue<'_>]) -> bool {
    let kind = |v: &AnyValue<'_>| match v {
        AnyValue::String(_) => 1,
        AnyValue::Int(_) => 2,
        AnyValue::Double(_) => 3,
        AnyValue::Bool(_) => 4,
        _ => 0,
    };
    values.first().is_none_or(|first| kind(first) != 0 && values.iter().all(|v| kind(v) == kind(first)))
}

/// Pads a span id on the left; `None` where it is empty, all zeros, or too long.
pub(crate) fn span_id(bytes: &[u8]) -> Option<SpanId> {
    if bytes.len() > 8 || bytes.iter().all(|b| *b == 0) {
        return None;
    }
    let mut id = [0; 8];
    id[8 - bytes.len()..].copy_from_slice(bytes);
    Some(id)
}

#[cfg(test)]
mod tests;
