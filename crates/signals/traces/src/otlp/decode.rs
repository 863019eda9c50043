//! Protobuf wire format to borrowed messages. Bounded by the input: every allocated element was at least two bytes of it.

use std::borrow::Cow;

use triptych_model::traces::TraceId;

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

/// Reads a `TracesData` message. The spans' own trace ids are not looked at: `trace_id` stands for all of them.
pub fn decode(trace_id: TraceId, bytes: &[u8]) -> Result<Trace<'_>> {
    let mut message = Message(bytes);
    let mut trace = Trace { trace_id, resource_spans: Vec::new() };
    while let Some((number, field)) = message.field()? {
        if let (1, Field::Bytes(bytes)) = (number, field) {
            trace.resource_spans.push(resource_spans(bytes)?);
        }
    }
    Ok(trace)
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

fn resource_spans(bytes: &[u8]) -> Result<ResourceSpans<'_>> {
    let mut message = Message(bytes);
    let mut out = ResourceSpans::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(b)) => out.resource = resource(b)?,
            (2, Field::Bytes(b)) => out.scope_spans.push(scope_spans(b)?),
            (3, Field::Bytes(b)) => out.schema_url = text(b)?,
            _ => {}
        }
    }
    Ok(out)
}

fn resource(bytes: &[u8]) -> Result<Resource<'_>> {
    let mut message = Message(bytes);
    let mut out = Resource::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(b)) => out.attributes.push(key_value(b, 0)?),
            (2, Field::Varint(v)) => out.dropped_attributes = v as u32,
            _ => {}
        }
    }
    Ok(out)
}

fn scope_spans(bytes: &[u8]) -> Result<ScopeSpans<'_>> {
    let mut message = Message(bytes);
    let mut out = ScopeSpans::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(b)) => out.scope = scope(b)?,
            (2, Field::Bytes(b)) => out.spans.push(span(b)?),
            (3, Field::Bytes(b)) => out.schema_url = text(b)?,
            _ => {}
        }
    }
    Ok(out)
}

fn scope(bytes: &[u8]) -> Result<InstrumentationScope<'_>> {
    let mut message = Message(bytes);
    let mut out = InstrumentationScope::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(b)) => out.name = text(b)?,
            (2, Field::Bytes(b)) => out.version = text(b)?,
            (3, Field::Bytes(b)) => out.attributes.push(key_value(b, 0)?),
            (4, Field::Varint(v)) => out.dropped_attributes = v as u32,
            _ => {}
        }
    }
    Ok(out)
}

fn span(bytes: &[u8]) -> Result<Span<'_>> {
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
            (9, Field::Bytes(b)) => out.attributes.push(key_value(b, 0)?),
            (10, Field::Varint(v)) => out.dropped_attributes = v as u32,
            (11, Field::Bytes(b)) => out.events.push(event(b)?),
            (12, Field::Varint(v)) => out.dropped_events = v as u32,
            (13, Field::Bytes(b)) => out.links.push(link(b)?),
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

fn event(bytes: &[u8]) -> Result<Event<'_>> {
    let mut message = Message(bytes);
    let mut out = Event::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Fixed64(v)) => out.time_ns = v,
            (2, Field::Bytes(b)) => out.name = text(b)?,
            (3, Field::Bytes(b)) => out.attributes.push(key_value(b, 0)?),
            (4, Field::Varint(v)) => out.dropped_attributes = v as u32,
            _ => {}
        }
    }
    Ok(out)
}

fn link(bytes: &[u8]) -> Result<Link<'_>> {
    let mut message = Message(bytes);
    let mut out = Link::default();
    while let Some(field) = message.field()? {
        match field {
            (1, Field::Bytes(b)) => out.trace_id = b,
            (2, Field::Bytes(b)) => out.span_id = b,
            (3, Field::Bytes(b)) => out.trace_state = text(b)?,
            (4, Field::Bytes(b)) => out.attributes.push(key_value(b, 0)?),
            (5, Field::Varint(v)) => out.dropped_attributes = v as u32,
            (6, Field::Fixed32(v)) => out.flags = v,
            _ => {}
        }
    }
    Ok(out)
}

fn key_value(bytes: &[u8], depth: usize) -> Result<KeyValue<'_>> {
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
