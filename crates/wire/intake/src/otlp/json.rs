//! OTLP/JSON to OTLP protobuf, by the tables of [`schema`](super::schema).
//!
//! The rules of the OTLP specification: lowerCamelCase names (snake_case is taken too), ids in hexadecimal, other bytes in
//! base64, enums as numbers (names are taken too), 64-bit integers as strings or numbers, unknown names ignored, `null` means
//! absent. The text is walked once; the result needs about as many bytes as the text.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use triptych_model::{Error, Result};

use super::DEPTH_MAX;
use super::schema::{Field, Message, Type};
use crate::wire::{put_bytes, put_fixed64, put_tag, put_varint, wrap};

/// Most bytes of one id in hexadecimal that are looked at.
const ID_HEX_BYTES_MAX: usize = 64;

/// Converts a document to the bytes of `message`.
pub fn to_protobuf(message: &'static Message, json: &[u8]) -> Result<Vec<u8>> {
    let text = std::str::from_utf8(json).map_err(|e| crate::wire::not_utf8("OTLP JSON", &e))?;
    let mut out = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let walk = Walk { message, out: &mut out, depth: 0 };
    walk.deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|e| Error::invalid(format!("OTLP JSON: {e}")))?;
    Ok(out)
}

/// Appends one message's fields to `out`.
struct Walk<'o> {
    message: &'static Message,
    out: &'o mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

struct Name<'de>(Cow<'de, str>);

impl<'de> de::Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(v.to_owned())))
            }
        }
        d.deserialize_str(V)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", self.message.name)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.depth > DEPTH_MAX {
            return Err(de::Error::custom(super::schema::too_deep(self.message)));
        }
        while let Some(Name(name)) = map.next_key()? {
            match self.message.by_name(&name) {
                Some(field) => {
                    map.next_value_seed(Slot { field, out: self.out, depth: self.depth, element: false })?
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The value of one field; `element`: of one element of a repeated field.
struct Slot<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
    depth: usize,
    element: bool,
}

impl<'de> DeserializeSeed<'de> for Slot<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl Slot<'_> {
    /// Zero is the default and stays away, except where presence matters.
    fn skip(&self, zero: bool) -> bool {
        zero && !self.field.always && !self.element
    }

    fn integer<E: de::Error>(self, value: i128) -> Result<(), E> {
        let field = self.field;
        let out_of_range = || E::custom(format!("{}: {value} is out of range", field.json));
        let number = field.number;
        if self.skip(value == 0) {
            return Ok(());
        }
        match field.kind {
            Type::Int64 => {
                put_varint(self.out, number, i64::try_from(value).map_err(|_| out_of_range())? as u64)
            }
            Type::Enum(..) => put_varint(
                self.out,
                number,
                i64::from(i32::try_from(value).map_err(|_| out_of_range())?) as u64,
            ),
            Type::Uint32 => {
                put_varint(self.out, number, u64::from(u32::try_from(value).map_err(|_| out_of_range())?))
            }
            Type::Uint64 => put_varint(self.out, number, u64::try_from(value).map_err(|_| out_of_range())?),
            Type::Sint32 => {
                let v = i32::try_from(value).map_err(|_| out_of_range())?;
                put_varint(self.out, number, u64::from(((v << 1) ^ (v >> 31)) as u32));
            }
            Type::Fixed32 => {
                put_tag(self.out, number, 5);
                let v = u32::try_from(value).map_err(|_| out_of_range())?;
                self.out.extend_from_slice(&v.to_le_bytes());
            }
            Type::Fixed64 => put_fixed64(self.out, number, u64::try_from(value).map_err(|_| out_of_range())?),
            Type::Sfixed64 => {
                put_fixed64(self.out, number, i64::try_from(value).map_err(|_| out_of_range())? as u64)
            }
            Type::Double => put_fixed64(self.out, number, (value as f64).to_bits()),
            _ => return Err(E::invalid_type(de::Unexpected::Other("number"), &self)),
        }
        Ok(())
    }

    fn double<E: de::Error>(self, value: f64) -> Result<(), E> {
        match self.field.kind {
            Type::Double => {
                if !self.skip(value.to_bits() == 0) {
                    put_fixed64(self.out, self.field.number, value.to_bits());
                }
                Ok(())
            }
            // Some writers print large integers as 1.7e18.
            _ if value.fract() == 0.0 && value.abs() < 1e20 => self.integer(value as i128),
            _ => Err(E::invalid_type(de::Unexpected::Float(value), &self)),
        }
    }
}

impl<'de> Visitor<'de> for Slot<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.field.kind {
            _ if self.field.repeated && !self.element => "a list",
            Type::Text => "a string",
            Type::Bytes => "base64",
            Type::Id => "an id in hexadecimal",
            Type::Bool => "true or false",
            Type::Double => "a number",
            Type::Message(_) => "an object",
            _ => "an integer",
        };
        write!(f, "{kind} in `{}`", self.field.json)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> Result<(), E> {
        match self.field.kind {
            Type::Bool => {
                if !self.skip(!v) {
                    put_varint(self.out, self.field.number, u64::from(v));
                }
                Ok(())
            }
            _ => Err(E::invalid_type(de::Unexpected::Bool(v), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<(), E> {
        self.integer(i128::from(v))
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<(), E> {
        self.integer(i128::from(v))
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<(), E> {
        self.double(v)
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<(), E> {
        let field = self.field;
        match field.kind {
            Type::Text => {
                if !self.skip(v.is_empty()) {
                    put_bytes(self.out, field.number, v.as_bytes());
                }
                Ok(())
            }
            Type::Bytes => {
                use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
                let bytes = STANDARD
                    .decode(v)
                    .or_else(|_| STANDARD_NO_PAD.decode(v))
                    .or_else(|_| URL_SAFE.decode(v))
                    .or_else(|_| URL_SAFE_NO_PAD.decode(v))
                    .map_err(|_| E::custom(format!("{}: not base64", field.json)))?;
                if !self.skip(bytes.is_empty()) {
                    put_bytes(self.out, field.number, &bytes);
                }
                Ok(())
            }
            Type::Id => {
                let bytes = (v.len() <= ID_HEX_BYTES_MAX).then(|| hex::decode(v).ok()).flatten();
                let bytes =
                    bytes.ok_or_else(|| E::custom(format!("{}: not an id in hexadecimal", field.json)))?;
                if !bytes.is_empty() {
                    put_bytes(self.out, field.number, &bytes);
                }
                Ok(())
            }
            Type::Double => match v {
                "NaN" => self.double(f64::NAN),
                "Infinity" => self.double(f64::INFINITY),
                "-Infinity" => self.double(f64::NEG_INFINITY),
                _ => match v.parse::<f64>() {
                    Ok(value) => self.double(value),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Str(v), &self)),
                },
            },
            Type::Enum(prefix, names) => {
                let short = v.strip_prefix(prefix).unwrap_or(v);
                match names.iter().position(|n| *n == short) {
                    Some(value) => self.integer(value as i128),
                    None => match v.parse::<i32>() {
                        Ok(value) => self.integer(i128::from(value)),
                        Err(_) => Err(E::invalid_value(de::Unexpected::Str(v), &self)),
                    },
                }
            }
            Type::Message(_) | Type::Bool => Err(E::invalid_type(de::Unexpected::Str(v), &self)),
            _ => match v.parse::<i128>() {
                Ok(value) => self.integer(value),
                Err(_) => Err(E::invalid_value(de::Unexpected::Str(v), &self)),
            },
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if !self.field.repeated || self.element {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &self));
        }
        let Slot { field, out, depth, .. } = self;
        while seq.next_element_seed(Slot { field, out: &mut *out, depth, element: true })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Type::Message(message) = self.field.kind else {
            return Err(de::Error::invalid_type(de::Unexpected::Map, &self));
        };
        if self.field.repeated && !self.element {
            return Err(de::Error::invalid_type(de::Unexpected::Map, &self));
        }
        let start = self.out.len();
        Walk { message, out: &mut *self.out, depth: self.depth + 1 }.visit_map(map)?;
        wrap(self.out, start, self.field.number);
        Ok(())
    }
}
