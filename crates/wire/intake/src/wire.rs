//! Protobuf on the wire: a walker over borrowed bytes and the few things needed to write it.
//!
//! The walker keeps nothing and allocates nothing; every length is checked against what is there, so a message costs no more
//! memory than its own bytes. Groups (wire types 3 and 4) are refused: none of our messages has them.

use triptych_model::labels::{put_uvarint, take_uvarint};
use triptych_model::{Error, Result};

/// One field's value as it stands on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Value<'a> {
    #[cold]
    fn wrong(self, what: &str, wanted: &str) -> Error {
        let found = match self {
            Value::Varint(_) => "varint",
            Value::Fixed64(_) => "64-bit",
            Value::Bytes(_) => "length-delimited",
            Value::Fixed32(_) => "32-bit",
        };
        Error::invalid(format!("{what}: wire type {found}, wanted {wanted}"))
    }

    /// `what` names the field in the error.
    #[inline]
    pub fn bytes(self, what: &str) -> Result<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            other => Err(other.wrong(what, "length-delimited")),
        }
    }

    #[inline]
    pub fn text(self, what: &str) -> Result<&'a str> {
        std::str::from_utf8(self.bytes(what)?).map_err(|e| not_utf8(what, &e))
    }

    #[inline]
    pub fn varint(self, what: &str) -> Result<u64> {
        match self {
            Value::Varint(value) => Ok(value),
            other => Err(other.wrong(what, "varint")),
        }
    }

    #[inline]
    pub fn fixed64(self, what: &str) -> Result<u64> {
        match self {
            Value::Fixed64(value) => Ok(value),
            other => Err(other.wrong(what, "64-bit")),
        }
    }

    #[inline]
    pub fn fixed32(self, what: &str) -> Result<u32> {
        match self {
            Value::Fixed32(value) => Ok(value),
            other => Err(other.wrong(what, "32-bit")),
        }
    }

    #[inline]
    pub fn double(self, what: &str) -> Result<f64> {
        self.fixed64(what).map(f64::from_bits)
    }
}

#[cold]
pub(crate) fn not_utf8(what: &str, e: &std::str::Utf8Error) -> Error {
    Error::invalid(format!("{what}: not valid UTF-8 at byte {}", e.valid_up_to()))
}

/// Walks the fields of one message. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    #[inline]
    fn field(&mut self) -> Result<(u32, Value<'a>)> {
        let tag = take_uvarint(&mut self.rest).ok_or_else(torn)?;
        let number = match u32::try_from(tag >> 3) {
            Ok(number) if number != 0 => number,
            _ => return Err(Error::invalid(format!("protobuf: field number {} is not valid", tag >> 3))),
        };
        let value = match tag & 7 {
            0 => Value::Varint(take_uvarint(&mut self.rest).ok_or_else(torn)?),
            1 => Value::Fixed64(u64::from_le_bytes(*self.take_array()?)),
            2 => {
                let length = take_uvarint(&mut self.rest).ok_or_else(torn)?;
                let left = self.rest.len();
                let cut = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
                let Some((head, tail)) = cut else {
                    return Err(Error::invalid(format!(
                        "protobuf: field {number} claims {length} bytes, {left} are left"
                    )));
                };
                self.rest = tail;
                Value::Bytes(head)
            }
            5 => Value::Fixed32(u32::from_le_bytes(*self.take_array()?)),
            other => {
                return Err(Error::invalid(format!(
                    "protobuf: field {number} has wire type {other}, which is not supported"
                )));
            }
        };
        Ok((number, value))
    }

    #[inline]
    fn take_array<const N: usize>(&mut self) -> Result<&'a [u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or_else(torn)?;
        self.rest = tail;
        Ok(head)
    }
}

#[cold]
fn torn() -> Error {
    Error::invalid("protobuf: message is truncated")
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// The numbers of a repeated 64-bit field, packed or not: calls `push` for each.
pub fn each_fixed64(value: Value<'_>, what: &str, mut push: impl FnMut(u64)) -> Result<()> {
    match value {
        Value::Fixed64(v) => push(v),
        Value::Bytes(packed) => {
            let (values, rest) = packed.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(Error::invalid(format!(
                    "{what}: {} packed bytes, not a multiple of 8",
                    packed.len()
                )));
            }
            values.iter().for_each(|v| push(u64::from_le_bytes(*v)));
        }
        other => return Err(other.wrong(what, "64-bit or packed")),
    }
    Ok(())
}

/// The numbers of a repeated varint field, packed or not: calls `push` for each.
pub fn each_varint(value: Value<'_>, what: &str, mut push: impl FnMut(u64)) -> Result<()> {
    match value {
        Value::Varint(v) => push(v),
        Value::Bytes(mut packed) => {
            while !packed.is_empty() {
                push(take_uvarint(&mut packed).ok_or_else(torn)?);
            }
        }
        other => return Err(other.wrong(what, "varint or packed")),
    }
    Ok(())
}

pub fn put_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    put_uvarint(out, u64::from(number) << 3 | u64::from(wire_type));
}

pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, 2);
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, 0);
    put_uvarint(out, value);
}

pub fn put_fixed64(out: &mut Vec<u8>, number: u32, value: u64) {
    put_tag(out, number, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Turns what stands in `out` from `start` on into a length-delimited field.
pub fn wrap(out: &mut Vec<u8>, start: usize, number: u32) {
    let length = out.len() - start;
    let mut head = Vec::with_capacity(16);
    put_tag(&mut head, number, 2);
    put_uvarint(&mut head, length as u64);
    out.resize(out.len() + head.len(), 0);
    out.copy_within(start..start + length, start + head.len());
    out[start..start + head.len()].copy_from_slice(&head);
}

/// Bytes that `value` takes as a varint.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        put_varint(&mut out, 1, u64::MAX);
        put_fixed64(&mut out, 2, 7);
        let start = out.len();
        put_bytes(&mut out, 1, b"inner");
        wrap(&mut out, start, 3);
        let all: Vec<_> = Fields::new(&out).collect::<Result<_>>().unwrap();
        assert_eq!(all[0], (1, Value::Varint(u64::MAX)));
        assert_eq!(all[1], (2, Value::Fixed64(7)));
        let inner = all[2].1.bytes("f").unwrap();
        assert_eq!(Fields::new(inner).next().unwrap().unwrap(), (1, Value::Bytes(b"inner")));
    }

    #[test]
    fn hostile_messages_end_with_a_sentence() {
        for (bytes, text) in [
            (&b"\x0a\xff\xff\xff\xff\x0f"[..], "claims 4294967295 bytes, 0 are left"),
            (b"\x08\x80", "truncated"),
            (b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", "truncated"),
            (b"\x0b", "wire type 3"),
            (b"\x00\x01", "field number 0"),
            (b"\x09\x01", "truncated"),
        ] {
            let error = Fields::new(bytes).find_map(|f| f.err()).unwrap();
            assert!(error.to_string().contains(text), "{bytes:?}: {error}");
            assert!(Fields::new(bytes).count() <= 2);
        }
    }

    #[test]
    fn lengths_of_varints() {
        for value in [0, 1, 127, 128, 16383, 16384, u64::MAX] {
            let mut out = Vec::new();
            put_uvarint(&mut out, value);
            assert_eq!(varint_len(value), out.len(), "{value}");
        }
    }
}
