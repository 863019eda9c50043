//! `AnyValue` and `KeyValue`, read without copying; values as text, as the collector's `pcommon.Value.AsString` writes them.

use std::fmt::Write as _;

use base64::Engine as _;
use triptych_model::{Error, Result};

use super::DEPTH_MAX;
use crate::wire::Fields;

/// Most entries of one map that is written as JSON: they are sorted in memory.
const MAP_ENTRIES_MAX: usize = 1 << 16;

/// An attribute's value. Lists and maps stay encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AnyValue<'a> {
    Empty,
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    /// `ArrayValue`.
    List(&'a [u8]),
    /// `KeyValueList`.
    Map(&'a [u8]),
    Bytes(&'a [u8]),
}

impl<'a> AnyValue<'a> {
    pub fn read(message: &'a [u8]) -> Result<Self> {
        let mut out = AnyValue::Empty;
        for field in Fields::new(message) {
            out = match field? {
                (1, v) => AnyValue::Text(v.text("AnyValue.string_value")?),
                (2, v) => AnyValue::Bool(v.varint("AnyValue.bool_value")? != 0),
                (3, v) => AnyValue::Int(v.varint("AnyValue.int_value")? as i64),
                (4, v) => AnyValue::Double(v.double("AnyValue.double_value")?),
                (5, v) => AnyValue::List(v.bytes("AnyValue.array_value")?),
                (6, v) => AnyValue::Map(v.bytes("AnyValue.kvlist_value")?),
                (7, v) => AnyValue::Bytes(v.bytes("AnyValue.bytes_value")?),
                _ => out,
            };
        }
        Ok(out)
    }

    /// Appends the value as text: strings as they are, numbers in decimal, bytes in base64, lists and maps as JSON.
    pub fn append_text(self, out: &mut String) -> Result<()> {
        match self {
            AnyValue::Empty => {}
            AnyValue::Text(text) => out.push_str(text),
            AnyValue::Bool(v) => out.push_str(if v { "true" } else { "false" }),
            AnyValue::Int(v) => {
                let _ = write!(out, "{v}");
            }
            AnyValue::Double(v) => append_double(v, out),
            AnyValue::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode_string(bytes, out),
            AnyValue::List(_) | AnyValue::Map(_) => self.append_json(out, 0)?,
        }
        Ok(())
    }

    fn append_json(self, out: &mut String, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(Error::invalid(format!("AnyValue: nested deeper than {DEPTH_MAX}")));
        }
        match self {
            AnyValue::Empty => out.push_str("null"),
            AnyValue::Text(text) => append_json_text(text, out),
            AnyValue::Bytes(_) => {
                out.push('"');
                self.append_text(out)?;
                out.push('"');
            }
            // JSON has no other numbers.
            AnyValue::Double(v) if !v.is_finite() => {
                out.push('"');
                append_double(v, out);
                out.push('"');
            }
            AnyValue::Bool(_) | AnyValue::Int(_) | AnyValue::Double(_) => self.append_text(out)?,
            AnyValue::List(list) => {
                out.push('[');
                let mut first = true;
                for field in Fields::new(list) {
                    if let (1, v) = field? {
                        if !std::mem::take(&mut first) {
                            out.push(',');
                        }
                        AnyValue::read(v.bytes("ArrayValue.values")?)?.append_json(out, depth + 1)?;
                    }
                }
                out.push(']');
            }
            AnyValue::Map(map) => {
                let mut pairs = Vec::new();
                each_pair(map, 1, |key, value| {
                    if pairs.len() == MAP_ENTRIES_MAX {
                        return Err(Error::invalid(format!(
                            "AnyValue: more than {MAP_ENTRIES_MAX} entries in a map"
                        )));
                    }
                    pairs.push((key, value));
                    Ok(())
                })?;
                pairs.sort_by(|a, b| a.0.cmp(b.0));
                out.push('{');
                for (i, (key, value)) in pairs.iter().enumerate() {
                    // Of equal keys the last one counts.
                    if pairs.get(i + 1).is_some_and(|next| next.0 == *key) {
                        continue;
                    }
                    if !out.ends_with('{') {
                        out.push(',');
                    }
                    append_json_text(key, out);
                    out.push(':');
                    value.append_json(out, depth + 1)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

/// Reads one `KeyValue`.
#[inline]
pub fn read_pair(pair: &[u8]) -> Result<(&str, AnyValue<'_>)> {
    let (mut key, mut value) = ("", AnyValue::Empty);
    for field in Fields::new(pair) {
        match field? {
            (1, v) => key = v.text("KeyValue.key")?,
            (2, v) => value = AnyValue::read(v.bytes("KeyValue.value")?)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// Calls `each` for every `KeyValue` in field `number` of `message`.
pub fn each_pair<'a>(
    message: &'a [u8],
    number: u32,
    mut each: impl FnMut(&'a str, AnyValue<'a>) -> Result<()>,
) -> Result<()> {
    for field in Fields::new(message) {
        let (n, value) = field?;
        if n == number {
            let (key, value) = read_pair(value.bytes("attributes")?)?;
            each(key, value)?;
        }
    }
    Ok(())
}

/// As ECMAScript and the collector print numbers: decimal from 1e-6 up to 1e21, else with an exponent.
fn append_double(v: f64, out: &mut String) {
    let magnitude = v.abs();
    let _ = match v {
        _ if v.is_nan() => write!(out, "NaN"),
        _ if v.is_infinite() => write!(out, "{}Inf", if v > 0.0 { '+' } else { '-' }),
        _ if magnitude != 0.0 && magnitude < 1e-6 => write!(out, "{v:e}"),
        _ if magnitude >= 1e21 => {
            let text = format!("{v:e}");
            out.push_str(&text.replacen('e', "e+", 1));
            Ok(())
        }
        _ => write!(out, "{v}"),
    };
}

fn append_json_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles() {
        for (v, text) in [
            (0.0, "0"),
            (1.5, "1.5"),
            (-3.0, "-3"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            let mut out = String::new();
            append_double(v, &mut out);
            assert_eq!(out, text);
        }
    }
}
