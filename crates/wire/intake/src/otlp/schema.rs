//! The OTLP messages as tables (opentelemetry-proto `opentelemetry/proto/*/v1/*.proto`): names for JSON, numbers and wire types
//! for protobuf. [`check`] walks a message by its table without decoding it.

use triptych_model::{Error, Result};

use super::DEPTH_MAX;
use crate::wire::{self, Fields};

/// The type of a field.
#[derive(Clone, Copy)]
pub enum Type {
    Text,
    /// Base64 in JSON.
    Bytes,
    /// Hexadecimal in JSON: ids of traces and spans.
    Id,
    Bool,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    /// A number; the names' common prefix and the names in order from 0, for senders that write names.
    Enum(&'static str, &'static [&'static str]),
    Message(&'static Message),
}

pub struct Field {
    /// lowerCamelCase.
    pub json: &'static str,
    pub number: u32,
    pub kind: Type,
    pub repeated: bool,
    /// Presence matters (`oneof`, `optional`): a zero is written too.
    pub always: bool,
}

pub struct Message {
    pub name: &'static str,
    pub fields: &'static [Field],
}

impl Message {
    #[inline]
    pub fn by_number(&self, number: u32) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.number == number)
    }

    /// Accepts `resourceSpans` and `resource_spans`.
    pub fn by_name(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.json == name).or_else(|| {
            name.contains('_').then(|| self.fields.iter().find(|f| is_snake_case_of(name, f.json)))?
        })
    }
}

fn is_snake_case_of(snake: &str, camel: &str) -> bool {
    let mut snake = snake.bytes();
    for c in camel.bytes() {
        if c.is_ascii_uppercase() && snake.next() != Some(b'_') {
            return false;
        }
        if snake.next() != Some(c.to_ascii_lowercase()) {
            return false;
        }
    }
    snake.next().is_none()
}

use Type::{
    Bool, Bytes, Double, Fixed32, Fixed64, Id, Int64, Message as Inner, Sfixed64, Sint32, Text, Uint32,
    Uint64,
};

macro_rules! message {
    ($($constant:ident $name:literal { $($json:ident = $number:literal $kind:expr $(, $flag:ident)*;)* })*) => {
        $(
            pub static $constant: Message = Message {
                name: $name,
                fields: &[$(Field {
                    json: stringify!($json),
                    number: $number,
                    kind: $kind,
                    repeated: flags(&[$(stringify!($flag)),*]).0,
                    always: flags(&[$(stringify!($flag)),*]).1,
                }),*],
            };
        )*
    };
}

const fn flags(names: &[&str]) -> (bool, bool) {
    let (mut repeated, mut always) = (false, false);
    let mut i = 0;
    while i < names.len() {
        match names[i].as_bytes() {
            b"repeated" => repeated = true,
            b"always" => always = true,
            _ => panic!("unknown flag"),
        }
        i += 1;
    }
    (repeated, always)
}

const SPAN_KIND: Type =
    Type::Enum("SPAN_KIND_", &["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]);
const STATUS_CODE: Type = Type::Enum("STATUS_CODE_", &["UNSET", "OK", "ERROR"]);
const TEMPORALITY: Type = Type::Enum("AGGREGATION_TEMPORALITY_", &["UNSPECIFIED", "DELTA", "CUMULATIVE"]);
const SEVERITY: Type = Type::Enum(
    "SEVERITY_NUMBER_",
    &[
        "UNSPECIFIED",
        "TRACE",
        "TRACE2",
        "TRACE3",
        "TRACE4",
        "DEBUG",
        "DEBUG2",
        "DEBUG3",
        "DEBUG4",
        "INFO",
        "INFO2",
        "INFO3",
        "INFO4",
        "WARN",
        "WARN2",
        "WARN3",
        "WARN4",
        "ERROR",
        "ERROR2",
        "ERROR3",
        "ERROR4",
        "FATAL",
        "FATAL2",
        "FATAL3",
        "FATAL4",
    ],
);

message! {
    ANY_VALUE "AnyValue" {
        stringValue = 1 Text, always;
        boolValue = 2 Bool, always;
        intValue = 3 Int64, always;
        doubleValue = 4 Double, always;
        arrayValue = 5 Inner(&ARRAY_VALUE), always;
        kvlistValue = 6 Inner(&KEY_VALUE_LIST), always;
        bytesValue = 7 Bytes, always;
    }
    ARRAY_VALUE "ArrayValue" { values = 1 Inner(&ANY_VALUE), repeated; }
    KEY_VALUE_LIST "KeyValueList" { values = 1 Inner(&KEY_VALUE), repeated; }
    KEY_VALUE "KeyValue" { key = 1 Text; value = 2 Inner(&ANY_VALUE); }
    SCOPE "InstrumentationScope" {
        name = 1 Text;
        version = 2 Text;
        attributes = 3 Inner(&KEY_VALUE), repeated;
        droppedAttributesCount = 4 Uint32;
    }
    ENTITY_REF "EntityRef" {
        schemaUrl = 1 Text;
        type = 2 Text;
        idKeys = 3 Text, repeated;
        descriptionKeys = 4 Text, repeated;
    }
    RESOURCE "Resource" {
        attributes = 1 Inner(&KEY_VALUE), repeated;
        droppedAttributesCount = 2 Uint32;
        entityRefs = 3 Inner(&ENTITY_REF), repeated;
    }

    TRACES "TracesData" { resourceSpans = 1 Inner(&RESOURCE_SPANS), repeated; }
    RESOURCE_SPANS "ResourceSpans" {
        resource = 1 Inner(&RESOURCE);
        scopeSpans = 2 Inner(&SCOPE_SPANS), repeated;
        schemaUrl = 3 Text;
    }
    SCOPE_SPANS "ScopeSpans" {
        scope = 1 Inner(&SCOPE);
        spans = 2 Inner(&SPAN), repeated;
        schemaUrl = 3 Text;
    }
    SPAN "Span" {
        traceId = 1 Id;
        spanId = 2 Id;
        traceState = 3 Text;
        parentSpanId = 4 Id;
        name = 5 Text;
        kind = 6 SPAN_KIND;
        startTimeUnixNano = 7 Fixed64;
        endTimeUnixNano = 8 Fixed64;
        attributes = 9 Inner(&KEY_VALUE), repeated;
        droppedAttributesCount = 10 Uint32;
        events = 11 Inner(&EVENT), repeated;
        droppedEventsCount = 12 Uint32;
        links = 13 Inner(&LINK), repeated;
        droppedLinksCount = 14 Uint32;
        status = 15 Inner(&STATUS);
        flags = 16 Fixed32;
    }
    EVENT "Span.Event" {
        timeUnixNano = 1 Fixed64;
        name = 2 Text;
        attributes = 3 Inner(&KEY_VALUE), repeated;
        droppedAttributesCount = 4 Uint32;
    }
    LINK "Span.Link" {
        traceId = 1 Id;
        spanId = 2 Id;
        traceState = 3 Text;
        attributes = 4 Inner(&KEY_VALUE), repeated;
        droppedAttributesCount = 5 Uint32;
        flags = 6 Fixed32;
    }
    STATUS "Status" { message = 2 Text; code = 3 STATUS_CODE; }

    LOGS "LogsData" { resourceLogs = 1 Inner(&RESOURCE_LOGS), repeated; }
    RESOURCE_LOGS "ResourceLogs" {
        resource = 1 Inner(&RESOURCE);
        scopeLogs = 2 Inner(&SCOPE_LOGS), repeated;
        schemaUrl = 3 Text;
    }
    SCOPE_LOGS "ScopeLogs" {
        scope = 1 Inner(&SCOPE);
        logRecords = 2 Inner(&LOG_RECORD), repeated;
        schemaUrl = 3 Text;
    }
    LOG_RECORD "LogRecord" {
        timeUnixNano = 1 Fixed64;
        severityNumber = 2 SEVERITY;
        severityText = 3 Text;
        body = 5 Inner(&ANY_VALUE);
        attributes = 6 Inner(&KEY_VALUE), repeated;
        droppedAttributesCount = 7 Uint32;
        flags = 8 Fixed32;
        traceId = 9 Id;
        spanId = 10 Id;
        observedTimeUnixNano = 11 Fixed64;
        eventName = 12 Text;
    }

    METRICS "MetricsData" { resourceMetrics = 1 Inner(&RESOURCE_METRICS), repeated; }
    RESOURCE_METRICS "ResourceMetrics" {
        resource = 1 Inner(&RESOURCE);
        scopeMetrics = 2 Inner(&SCOPE_METRICS), repeated;
        schemaUrl = 3 Text;
    }
    SCOPE_METRICS "ScopeMetrics" {
        scope = 1 Inner(&SCOPE);
        metrics = 2 Inner(&METRIC), repeated;
        schemaUrl = 3 Text;
    }
    METRIC "Metric" {
        name = 1 Text;
        description = 2 Text;
        unit = 3 Text;
        gauge = 5 Inner(&GAUGE), always;
        sum = 7 Inner(&SUM), always;
        histogram = 9 Inner(&HISTOGRAM), always;
        exponentialHistogram = 10 Inner(&EXPONENTIAL_HISTOGRAM), always;
        summary = 11 Inner(&SUMMARY), always;
        metadata = 12 Inner(&KEY_VALUE), repeated;
    }
    GAUGE "Gauge" { dataPoints = 1 Inner(&NUMBER_POINT), repeated; }
    SUM "Sum" {
        dataPoints = 1 Inner(&NUMBER_POINT), repeated;
        aggregationTemporality = 2 TEMPORALITY;
        isMonotonic = 3 Bool;
    }
    HISTOGRAM "Histogram" {
        dataPoints = 1 Inner(&HISTOGRAM_POINT), repeated;
        aggregationTemporality = 2 TEMPORALITY;
    }
    EXPONENTIAL_HISTOGRAM "ExponentialHistogram" {
        dataPoints = 1 Inner(&EXPONENTIAL_POINT), repeated;
        aggregationTemporality = 2 TEMPORALITY;
    }
    SUMMARY "Summary" { dataPoints = 1 Inner(&SUMMARY_POINT), repeated; }
    NUMBER_POINT "NumberDataPoint" {
        startTimeUnixNano = 2 Fixed64;
        timeUnixNano = 3 Fixed64;
        asDouble = 4 Double, always;
        exemplars = 5 Inner(&EXEMPLAR), repeated;
        asInt = 6 Sfixed64, always;
        attributes = 7 Inner(&KEY_VALUE), repeated;
        flags = 8 Uint32;
    }
    HISTOGRAM_POINT "HistogramDataPoint" {
        startTimeUnixNano = 2 Fixed64;
        timeUnixNano = 3 Fixed64;
        count = 4 Fixed64;
        sum = 5 Double, always;
        bucketCounts = 6 Fixed64, repeated;
        explicitBounds = 7 Double, repeated;
        exemplars = 8 Inner(&EXEMPLAR), repeated;
        attributes = 9 Inner(&KEY_VALUE), repeated;
        flags = 10 Uint32;
        min = 11 Double, always;
        max = 12 Double, always;
    }
    EXPONENTIAL_POINT "ExponentialHistogramDataPoint" {
        attributes = 1 Inner(&KEY_VALUE), repeated;
        startTimeUnixNano = 2 Fixed64;
        timeUnixNano = 3 Fixed64;
        count = 4 Fixed64;
        sum = 5 Double, always;
        scale = 6 Sint32;
        zeroCount = 7 Fixed64;
        positive = 8 Inner(&BUCKETS);
        negative = 9 Inner(&BUCKETS);
        flags = 10 Uint32;
        exemplars = 11 Inner(&EXEMPLAR), repeated;
        min = 12 Double, always;
        max = 13 Double, always;
        zeroThreshold = 14 Double;
    }
    BUCKETS "Buckets" { offset = 1 Sint32; bucketCounts = 2 Uint64, repeated; }
    SUMMARY_POINT "SummaryDataPoint" {
        startTimeUnixNano = 2 Fixed64;
        timeUnixNano = 3 Fixed64;
        count = 4 Fixed64;
        sum = 5 Double;
        quantileValues = 6 Inner(&QUANTILE), repeated;
        attributes = 7 Inner(&KEY_VALUE), repeated;
        flags = 8 Uint32;
    }
    QUANTILE "ValueAtQuantile" { quantile = 1 Double; value = 2 Double; }
    EXEMPLAR "Exemplar" {
        timeUnixNano = 2 Fixed64;
        asDouble = 3 Double, always;
        spanId = 4 Id;
        traceId = 5 Id;
        asInt = 6 Sfixed64, always;
        filteredAttributes = 7 Inner(&KEY_VALUE), repeated;
    }
}

/// Checks that `bytes` is a well-formed `message` down to its leaves: wire types, UTF-8, nesting. Unknown fields pass.
pub fn check(message: &'static Message, bytes: &[u8]) -> Result<()> {
    check_at(message, bytes, 0)
}

fn check_at(message: &'static Message, bytes: &[u8], depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(too_deep(message));
    }
    for field in Fields::new(bytes) {
        let (number, value) = field?;
        let Some(field) = message.by_number(number) else { continue };
        let what = field.json;
        match field.kind {
            Type::Message(inner) => check_at(inner, value.bytes(what)?, depth + 1)?,
            Type::Text => {
                value.text(what)?;
            }
            Type::Bytes | Type::Id => {
                value.bytes(what)?;
            }
            Type::Fixed32 => {
                value.fixed32(what)?;
            }
            Type::Fixed64 | Type::Sfixed64 | Type::Double if field.repeated => {
                wire::each_fixed64(value, what, |_| ())?;
            }
            Type::Fixed64 | Type::Sfixed64 | Type::Double => {
                value.fixed64(what)?;
            }
            _ if field.repeated => wire::each_varint(value, what, |_| ())?,
            Type::Bool | Type::Int64 | Type::Uint32 | Type::Uint64 | Type::Sint32 | Type::Enum(..) => {
                value.varint(what)?;
            }
        }
    }
    Ok(())
}

#[cold]
pub(crate) fn too_deep(message: &'static Message) -> Error {
    Error::invalid(format!("{}: nested deeper than {DEPTH_MAX} messages", message.name))
}
