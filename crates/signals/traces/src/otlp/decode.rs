//! Protobuf wire format to borrowed messages. Bounded by the input: every allocated element was at least two bytes of it.

use std::borrow::Cow;
use std::sync::Arc;

use triptych_model::traces::TraceId;
use triptych_traceql::source::Scope;

use super::{
    AnyValue, Event, InstrumentationScope, KeyValue, Link, Resource, ResourceSpans, ScopeSpans, Span, Trace,
    VALUE_DEPTH_MAX, span_id,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("OTLP: message is cut short")]
    Short,
    #[error("OTLP: number longer than ten bytes")]
    Varint,
    #[error("OTLP: field {0} has an unknown wire type")]
    WireType(u32),
    #[error("OTLP: text is not UTF-8")]
    Utf8,
}

impl From<DecodeError> for triptych_model::Error {
    fn from(e: DecodeError) -> Self {
        triptych_model::Error::damaged(e.to_string())
    }
}

type Result<T> = std::result::Result<T, DecodeError>;

/// A field's payload.
enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    #[inline]
    fn varint(&mut self) -> Result<u64> {
        if let [first, rest @ ..] = self.0
            && *first < 0x80
        {
            self.0 = rest;
            return Ok(u64::from(*first));
        }
        let mut value = 0u64;
        for (i, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i).min(63);
            if *byte < 0x80 {
                self.0 = &self.0[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.0.len() < 10 { DecodeError::Short } else { DecodeError::Varint })
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| DecodeError::Short)?;
        let (head, tail) = self.0.split_at_checked(length).ok_or(DecodeError::Short)?;
        self.0 = tail;
        Ok(head)
    }

    /// The next field's number and payload; `None` at the end.
    #[inline]
    fn field(&mut self) -> Result<Option<(u32, Field<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = (key >> 3) as u32;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => {
                let (head, tail) = self.0.split_first_chunk::<8>().ok_or(DecodeError::Short)?;
                self.0 = tail;
                Field::Fixed64(u64::from_le_bytes(*head))
            }
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                let (head, tail) = self.0.split_first_chunk::<4>().ok_or(DecodeError::Short)?;
                self.0 = tail;
                Field::Fixed32(u32::from_le_bytes(*head))
            }
            _ => return Err(DecodeError::WireType(number)),
        };
        Ok(Some((number, field)))
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
}

/// Which parts of a trace are decoded. Resources, scopes and spans always are, with everything but their attributes. What is left
/// out is not checked either.
#[derive(Debug, Clone)]
pub struct Keep {
    pub resource: Names,
    pub scope: Names,
    pub span: Names,
    /// `None`: no events at all.
    pub event: Option<Names>,
    /// `None`: no links at all.
    pub link: Option<Names>,
}

/// Names of attributes.
#[derive(Debug, Clone)]
pub enum Names {
    All,
    These(Vec<Arc<str>>),
}

/// Everything.
pub const KEEP_ALL: &Keep = &Keep {
    resource: Names::All,
    scope: Names::All,
    span: Names::All,
    event: Some(Names::All),
    link: Some(Names::All),
};

impl Names {
    /// Decodes an attribute, or leaves it out. Its key comes first, as every sender writes it, or it is decoded.
    fn push<'a>(&self, out: &mut Vec<KeyValue<'a>>, bytes: &'a [u8]) -> Result<()> {
        if let Names::These(names) = self {
            if names.is_empty() {
                return Ok(());
            }
            if let Ok(Some((1, Field::Bytes(key)))) = Message(bytes).field()
                && !names.iter().any(|name| name.as_bytes() == key)
            {
                return Ok(());
            }
        }
        out.push(key_value(bytes, 0)?);
        Ok(())
    }
}

/// Reads a `TracesData` message. The spans' own trace ids are not looked at: `trace_id` stands for all of them.
pub fn decode(trace_id: TraceId, bytes: &[u8]) -> Result<Trace<'_>> {
    decode_kept(trace_id, bytes, KEEP_ALL)
}

/// As [`decode`], without what nobody asks for.
pub fn decode_kept<'a>(trace_id: TraceId, bytes: &'a [u8], keep: &Keep) -> Result<Trace<'a>> {
    let mut message = Message(bytes);
    let mut trace = Trace { trace_id, resource_spans: Vec::new() };
    while let Some((number, field)) = message.field()? {
        if let (1, Field::Bytes(bytes)) = (number, field) {
            trace.resource_spans.push(resource_spans(bytes, keep)?);
        }
    }
    Ok(trace)
}

/// Where a text of a trace stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The name of a span.
    Name,
    /// An attribute: an encoded `KeyValue`.
    Attribute(Scope),
}

/// Calls `f` with the bytes of every span's name and of every attribute of a `TracesData` message, none of them decoded.
pub(crate) fn visit_texts<'a>(bytes: &'a [u8], f: &mut impl FnMut(Place, &'a [u8])) -> Result<()> {
    // What the fields with sub-messages are, by the message they stand in.
    #[derive(Clone, Copy)]
    enum Kind {
        Data,
        ResourceSpans,
        Resource,
        ScopeSpans,
        Scope,
        Span,
        Event,
        Link,
    }
    fn walk<'a>(kind: Kind, bytes: &'a [u8], f: &mut impl FnMut(Place, &'a [u8])) -> Result<()> {
        let mut message = Message(bytes);
        while let Some((number, field)) = message.field()? {
            let Field::Bytes(bytes) = field else { continue };
            match (kind, number) {
                (Kind::Data, 1) => walk(Kind::ResourceSpans, bytes, f)?,
                (Kind::ResourceSpans, 1) => walk(Kind::Resource, bytes, f)?,
                (Kind::ResourceSpans, 2) => walk(Kind::ScopeSpans, bytes, f)?,
                (Kind::Resource, 1) => f(Place::Attribute(Scope::Resource), bytes),
                (Kind::ScopeSpans, 1) => walk(Kind::Scope, bytes, f)?,
                (Kind::ScopeSpans, 2) => walk(Kind::Span, bytes, f)?,
                (Kind::Scope, 3) => f(Place::Attribute(Scope::Instrumentation), bytes),
                (Kind::Span, 5) => f(Place::Name, bytes),
                (Kind::Span, 9) => f(Place::Attribute(Scope::Span), bytes),
                (Kind::Span, 11) => walk(Kind::Event, bytes, f)?,
                (Kind::Span, 13) => walk(Kind::Link, bytes, f)?,
                (Kind::Event, 3) => f(Place::Attribute(Scope::Event), bytes),
                (Kind::Link, 4) => f(Place::Attribute(Scope::Link), bytes),
                _ => {}
            }
        }
        Ok(())
    }
    walk(Kind::Data, bytes, f)
}

/// Walks down `path` through the first field of each number and returns its bytes.
pub(crate) fn first_bytes<'a>(bytes: &'a [u8], path: &[u32]) -> Option<&'a [u8]> {
    let Some((wanted, path)) = path.split_first() else {
        return Some(bytes);
    };
    let mut message = Message(bytes);
    while let Ok(Some((number, field))) = message.field() {
        if let Field::Bytes(inner) = field
            && number == *wanted
            && let Some(found) = first_bytes(inner, path)
        {
            return Some(found);
        }
    }
    None
}

fn resource_spans<'a>(bytes: &'a [u8], keep: &Keep) -> Result<ResourceSpans<'a>> {
    let mut message = Message(bytes);
    let mut out = ResourceSpans::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(b)) => out.resource = resource(b, &keep.resource)?,
            (2, Field::Bytes(b)) => out.scope_spans.push(scope_spans(b, keep)?),
            (3, Field::Bytes(b)) => out.schema_url = text(b)?,
            _ => {}
        }
    }
    Ok(out)
}

fn resource<'a>(bytes: &'a [u8], names: &Names) -> Result<Resource<'a>> {
    let mut message = Message(bytes);
    let mut out = Resource::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(b)) => names.push(&mut out.attributes, b)?,
            (2, Field::Varint(v)) => out.dropped_attributes = v as u32,
            _ => {}
        }
    }
    Ok(out)
}

fn scope_spans<'a>(bytes: &'a [u8], keep: &Keep) -> Result<ScopeSpans<'a>> {
    let mut message = Message(bytes);
    let mut out = ScopeSpans::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(b)) => out.scope = scope(b, &keep.scope)?,
            (2, Field::Bytes(b)) => out.spans.push(span(b, keep)?),
            (3, Field::Bytes(b)) => out.schema_url = text(b)?,
            _ => {}
        }
    }
    Ok(out)
}

fn scope<'a>(bytes: &'a [u8], names: &Names) -> Result<InstrumentationScope<'a>> {
    let mut message = Message(bytes);
    let mut out = InstrumentationScope::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(b)) => out.name = text(b)?,
            (2, Field::Bytes(b)) => out.version = text(b)?,
            (3, Field::Bytes(b)) => names.push(&mut out.attributes, b)?,
            (4, Field::Varint(v)) => out.dropped_attributes = v as u32,
            _ => {}
        }
    }
    Ok(out)
}

fn span<'a>(bytes: &'a [u8], keep: &Keep) -> Result<Span<'a>> {
    let mut message = Message(bytes);
    let mut out = Span::default();
    while let Some(field) = message.field()? {
        match field {
            (2, Field::Bytes(b)) => out.span_id = span_id(b).unwrap_or_default(),
            (3, Field::Bytes(b)) => out.trace_state = text(b)?,
            (4, Field::Bytes(b)) => out.parent_id = span_id(b),
            (5, Field::Bytes(b)) => out.name = text(b)?,
            (6, Field::Varint(v)) => out.kind = v as i32,
            (7, Field::Fixed64(v)) => out.start_ns = v,
            (8, Field::Fixed64(v)) => out.end_ns = v,
            (9, Field::Bytes(b)) => keep.span.push(&mut out.attributes, b)?,
            (10, Field::Varint(v)) => out.dropped_attributes = v as u32,
            (11, Field::Bytes(b)) => {
                if let Some(names) = &keep.event {
                    out.events.push(event(b, names)?);
                }
            }
            (12, Field::Varint(v)) => out.dropped_events = v as u32,
            (13, Field::Bytes(b)) => {
                if let Some(names) = &keep.link {
                    out.links.push(link(b, names)?);
                }
            }
            (14, Field::Varint(v)) => out.dropped_links = v as u32,
            (15, Field::Bytes(b)) => {
                let mut status = Message(b);
                while let Some(field) = status.field()? {
                    match field {
                        (2, Field::Bytes(b)) => out.status_message = text(b)?,
                        (3, Field::Varint(v)) => out.status_code = v as i32,
                        _ => {}
                    }
                }
            }
            (16, Field::Fixed32(v)) => out.flags = v,
            _ => {}
        }
    }
    Ok(out)
}

fn event<'a>(bytes: &'a [u8], names: &Names) -> Result<Event<'a>> {
    let mut message = Message(bytes);
    let mut out = Event::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Fixed64(v)) => out.time_ns = v,
            (2, Field::Bytes(b)) => out.name = text(b)?,
            (3, Field::Bytes(b)) => names.push(&mut out.attributes, b)?,
            (4, Field::Varint(v)) => out.dropped_attributes = v as u32,
            _ => {}
        }
    }
    Ok(out)
}

fn link<'a>(bytes: &'a [u8], names: &Names) -> Result<Link<'a>> {
    let mut message = Message(bytes);
    let mut out = Link::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(b)) => out.trace_id = b,
            (2, Field::Bytes(b)) => out.span_id = b,
            (3, Field::Bytes(b)) => out.trace_state = text(b)?,
            (4, Field::Bytes(b)) => names.push(&mut out.attributes, b)?,
            (5, Field::Varint(v)) => out.dropped_attributes = v as u32,
            (6, Field::Fixed32(v)) => out.flags = v,
            _ => {}
        }
    }
    Ok(out)
}

pub(crate) fn key_value(bytes: &[u8], depth: usize) -> Result<KeyValue<'_>> {
    let mut message = Message(bytes);
    let mut out = KeyValue::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(b)) => out.key = Cow::Borrowed(text(b)?),
            (2, Field::Bytes(b)) => out.value = any_value(b, depth)?,
            _ => {}
        }
    }
    Ok(out)
}

/// What is nested too deeply is left out.
fn any_value(bytes: &[u8], depth: usize) -> Result<AnyValue<'_>> {
    if depth > VALUE_DEPTH_MAX {
        return Ok(AnyValue::None);
    }
    let mut message = Message(bytes);
    let mut out = AnyValue::None;
    while let Some(field) = message.field()? {
        out = match field {
            (1, Field::Bytes(b)) => AnyValue::String(Cow::Borrowed(text(b)?)),
            (2, Field::Varint(v)) => AnyValue::Bool(v != 0),
            (3, Field::Varint(v)) => AnyValue::Int(v as i64),
            (4, Field::Fixed64(v)) => AnyValue::Double(f64::from_bits(v)),
            (5, Field::Bytes(b)) => {
                let mut list = Message(b);
                let mut values = Vec::new();
                while let Some(field) = list.field()? {
                    if let (1, Field::Bytes(b)) = field {
                        values.push(any_value(b, depth + 1)?);
                    }
                }
                AnyValue::Array(values)
            }
            (6, Field::Bytes(b)) => {
                let mut list = Message(b);
                let mut values = Vec::new();
                while let Some(field) = list.field()? {
                    if let (1, Field::Bytes(b)) = field {
                        values.push(key_value(b, depth + 1)?);
                    }
                }
                AnyValue::KvList(values)
            }
            (7, Field::Bytes(b)) => AnyValue::Bytes(Cow::Borrowed(b)),
            _ => continue,
        };
    }
    Ok(out)
}
