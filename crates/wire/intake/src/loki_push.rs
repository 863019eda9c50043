//! Loki's push API: `logproto.PushRequest` as protobuf, and its JSON form.
//!
//! ```text
//! PushRequest { 1 streams* }
//! Stream      { 1 labels text `{a="b"}`, 2 entries*, 3 hash }
//! Entry       { 1 timestamp { 1 seconds, 2 nanos }, 2 line, 3 structuredMetadata* { 1 name, 2 value } }
//!
//! {"streams": [{"stream": {"a": "b"}, "values": [["<ns>", "<line>", {"<name>": "<value>"}], ..]}, ..]}
//! ```
//! Lines that are not UTF-8 keep their place: what is not text becomes U+FFFD (Loki keeps the bytes; everything after us is
//! text). Label sets and metadata that are not UTF-8 are errors. Structured metadata with a name twice: the last one counts.

mod json;

use std::borrow::Cow;

use triptych_model::{Error, Result};

pub use json::decode_json;

use crate::remote_write::{DUPLICATE_LABEL_NAMES, Show};
use crate::sink::{LogsSink, PAIRS_MAX, check_pairs, sort_last_wins, sort_unique};
use crate::wire::Fields;

/// Decodes a plain protobuf `PushRequest`. Streams are walked twice, for their labels and for their entries.
pub fn decode_protobuf(body: &[u8], sink: &mut impl LogsSink) -> Result<()> {
    let mut metadata: Vec<(&str, &str)> = Vec::new();
    for field in Fields::new(body) {
        let (1, stream) = field? else { continue };
        let stream = stream.bytes("PushRequest.streams")?;
        let (mut text, mut entries) = ("", 0);
        for field in Fields::new(stream) {
            match field? {
                (1, labels) => text = labels.text("Stream.labels")?,
                (2, _) => entries += 1,
                _ => {}
            }
        }
        let parsed = parse_labels(text)?;
        let mut labels: Vec<(&str, &str)> = parsed.iter().map(|(n, v)| (*n, v.as_ref())).collect();
        if !begin_stream(&mut labels, entries, sink)? {
            continue;
        }
        for field in Fields::new(stream) {
            let (2, entry) = field? else { continue };
            metadata.clear();
            let (mut ts_ns, mut line) = (0, &b""[..]);
            for field in Fields::new(entry.bytes("Stream.entries")?) {
                match field? {
                    (1, ts) => ts_ns = timestamp_ns(ts.bytes("Entry.timestamp")?)?,
                    (2, v) => line = v.bytes("Entry.line")?,
                    (3, pair) => {
                        check_pairs(metadata.len(), "Entry.structuredMetadata")?;
                        metadata.push(decode_pair(pair.bytes("Entry.structuredMetadata")?)?);
                    }
                    _ => {}
                }
            }
            sort_last_wins(&mut metadata);
            sink.entry(ts_ns, &String::from_utf8_lossy(line), &metadata)?;
        }
    }
    Ok(())
}

/// Sorts and announces a stream; `false` when it was refused.
fn begin_stream<'a>(
    labels: &mut Vec<(&'a str, &'a str)>,
    entries: u64,
    sink: &mut impl LogsSink,
) -> Result<bool> {
    if let Some(name) = sort_unique(labels) {
        let stream = Show(labels);
        sink.refuse(
            DUPLICATE_LABEL_NAMES,
            entries.max(1),
            format_args!("stream '{stream}' has duplicate label name: '{name}'"),
        );
        return Ok(false);
    }
    sink.stream(labels)?;
    Ok(true)
}

/// `google.protobuf.Timestamp` in nanoseconds; out of the range of `i64`: an error.
fn timestamp_ns(timestamp: &[u8]) -> Result<i64> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    for field in Fields::new(timestamp) {
        match field? {
            (1, v) => seconds = v.varint("Timestamp.seconds")? as i64,
            (2, v) => nanos = v.varint("Timestamp.nanos")? as i64,
            _ => {}
        }
    }
    seconds
        .checked_mul(1_000_000_000)
        .and_then(|ns| ns.checked_add(nanos))
        .ok_or_else(|| Error::invalid(format!("Entry.timestamp: {seconds} s {nanos} ns is out of range")))
}

fn decode_pair(pair: &[u8]) -> Result<(&str, &str)> {
    let (mut name, mut value) = ("", "");
    for field in Fields::new(pair) {
        match field? {
            (1, v) => name = v.text("structuredMetadata.name")?,
            (2, v) => value = v.text("structuredMetadata.value")?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// Parses `{name="value", ...}`: names are identifiers, values are quoted as in Go (`"..."`, `'...'`) or raw in backticks; a
/// trailing comma is allowed. Borrowed where nothing is escaped.
pub fn parse_labels(text: &str) -> Result<Vec<(&str, Cow<'_, str>)>> {
    let mut parser = LabelsParser { text, at: 0 };
    parser.labels().map_err(|what| {
        let shown: String = text.chars().take(200).collect();
        Error::invalid(format!("error parsing labels '{shown}': byte {}: {what}", parser.at))
    })
}

struct LabelsParser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> LabelsParser<'a> {
    fn labels(&mut self) -> Result<Vec<(&'a str, Cow<'a, str>)>, &'static str> {
        let mut out = Vec::new();
        self.want(b'{', "expected '{'")?;
        while !self.took(b'}') {
            let name = self.name()?;
            self.want(b'=', "expected '='")?;
            if out.len() == PAIRS_MAX {
                return Err("too many labels");
            }
            out.push((name, self.value()?));
            if !self.took(b',') {
                self.want(b'}', "expected ',' or '}'")?;
                break;
            }
        }
        self.skip_space();
        if self.at < self.text.len() { Err("text after '}'") } else { Ok(out) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn took(&mut self, byte: u8) -> bool {
        self.skip_space();
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn want(&mut self, byte: u8, what: &'static str) -> Result<(), &'static str> {
        if self.took(byte) { Ok(()) } else { Err(what) }
    }

    fn name(&mut self) -> Result<&'a str, &'static str> {
        self.skip_space();
        let start = self.at;
        while self.peek().is_some_and(|b| b == b'_' || b.is_ascii_alphanumeric()) {
            self.at += 1;
        }
        let name = &self.text[start..self.at];
        if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
            return Err("expected a label name");
        }
        Ok(name)
    }

    fn value(&mut self) -> Result<Cow<'a, str>, &'static str> {
        self.skip_space();
        let quote =
            self.peek().filter(|b| matches!(b, b'"' | b'\'' | b'`')).ok_or("expected a quoted value")?;
        self.at += 1;
        let rest = &self.text[self.at..];
        let bytes = rest.as_bytes();
        if quote == b'`' {
            let end = memchr::memchr(b'`', bytes).ok_or("value is not closed")?;
            self.at += end + 1;
            return Ok(Cow::Borrowed(&rest[..end]));
        }
        let mut i = 0;
        loop {
            i += memchr::memchr2(quote, b'\\', &bytes[i..]).ok_or("value is not closed")?;
            if bytes[i] == quote {
                break;
            }
            i += 2;
            if i > bytes.len() {
                return Err("value is not closed");
            }
        }
        self.at += i + 1;
        let raw = &rest[..i];
        if memchr::memchr(b'\n', raw.as_bytes()).is_some() {
            return Err("value has a line break");
        }
        if memchr::memchr(b'\\', raw.as_bytes()).is_none() {
            return Ok(Cow::Borrowed(raw));
        }
        unquote(raw).map(Cow::Owned)
    }
}

/// Resolves the escapes of a Go string literal (`strconv.Unquote`), without its quotes.
pub fn unquote(raw: &str) -> Result<String, &'static str> {
    const BAD: &str = "invalid escape in value";
    let mut out: Vec<u8> = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    let number = |digits: &[u8], radix: u32| {
        let text = std::str::from_utf8(digits).map_err(|_| BAD)?;
        if text.starts_with('+') {
            return Err(BAD);
        }
        u32::from_str_radix(text, radix).map_err(|_| BAD)
    };
    while let Some(i) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..i]);
        let (&kind, tail) = rest[i + 1..].split_first().ok_or(BAD)?;
        rest = tail;
        let simple = match kind {
            b'a' => 0x07,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\\' | b'"' | b'\'' => kind,
            b'x' | b'u' | b'U' | b'0'..=b'7' => {
                let (length, radix) = match kind {
                    b'x' => (2, 16),
                    b'u' => (4, 16),
                    b'U' => (8, 16),
                    _ => (3, 8),
                };
                let digits = if radix == 8 {
                    rest.get(..2).map(|d| vec![kind, d[0], d[1]])
                } else {
                    rest.get(..length).map(<[u8]>::to_vec)
                };
                let value = number(&digits.ok_or(BAD)?, radix)?;
                rest = &rest[if radix == 8 { 2 } else { length }..];
                if length >= 4 {
                    let c = char::from_u32(value).ok_or(BAD)?;
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                } else {
                    out.push(u8::try_from(value).map_err(|_| BAD)?);
                }
                continue;
            }
            _ => return Err(BAD),
        };
        out.push(simple);
    }
    out.extend_from_slice(rest);
    String::from_utf8(out).map_err(|_| "value is not valid UTF-8")
}

#[cfg(test)]
mod tests;
