//! The `json` and `unpack` parsers: one pass over the text, nothing built that is not asked for.
//!
//! Nested objects become `outer_inner`; arrays and nulls are left out; names are made valid label names. A line that is no
//! JSON object gets `__error__="JSONParserErr"` and keeps what was found before the damage.

use triptych_model::{Error, Result};

use super::labels::LineLabels;
use super::parsers::{ParseRun, sanitize_into};

/// Objects inside each other; deeper is an error, as the walk is recursive.
const DEPTH_MAX: usize = 128;

type Scanned<T> = std::result::Result<T, &'static str>;

struct Scan<'a> {
    text: &'a str,
    at: usize,
}

#[derive(Clone, Copy)]
struct Str<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    #[inline]
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn eat(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte);
        self.at += usize::from(hit);
        hit
    }

    /// At a quote.
    #[inline]
    fn string(&mut self) -> Scanned<Str<'a>> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            let found =
                memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or(&[])).ok_or("string is not closed")?;
            at += found;
            if bytes[at] == b'"' {
                self.at = at + 1;
                return Ok(Str { raw: &self.text[start..at], escaped });
            }
            // The escaped character may be of several bytes, but none of them is a quote or a backslash.
            escaped = true;
            at += 2;
        }
    }

    /// A number, `true`, `false`, `null`.
    fn scalar(&mut self) -> Scanned<&'a str> {
        let rest = &self.text[self.at..];
        let length =
            rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.')).count();
        let token = &rest[..length];
        let good = match token.as_bytes().first() {
            Some(b't') => token == "true",
            Some(b'f') => token == "false",
            Some(b'n') => token == "null",
            Some(b'-' | b'0'..=b'9') => {
                token.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'))
            }
            _ => false,
        };
        if !good {
            return Err("unknown value");
        }
        self.at += length;
        Ok(token)
    }

    /// Passes over any value; its text.
    fn skip(&mut self) -> Scanned<&'a str> {
        let first = self.peek().ok_or("value is missing")?;
        let start = self.at;
        match first {
            b'"' => {
                self.string()?;
            }
            b'{' | b'[' => {
                let mut depth = 0usize;
                let bytes = self.text.as_bytes();
                loop {
                    match bytes.get(self.at) {
                        None => return Err("object or array is not closed"),
                        Some(b'"') => {
                            self.string()?;
                            continue;
                        }
                        Some(b'{' | b'[') => depth += 1,
                        Some(b'}' | b']') => {
                            depth -= 1;
                            if depth == 0 {
                                self.at += 1;
                                break;
                            }
                        }
                        Some(_) => {}
                    }
                    self.at += 1;
                }
            }
            _ => {
                self.scalar()?;
            }
        }
        Ok(&self.text[start..self.at])
    }

    /// Calls `field` at each value of the object that starts here. `false` from it ends the walk.
    fn object(&mut self, mut field: impl FnMut(&mut Self, Str<'a>) -> Scanned<bool>) -> Scanned<bool> {
        if !self.eat(b'{') {
            return Err("not an object");
        }
        if self.eat(b'}') {
            return Ok(true);
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err("a key is missing");
            }
            let key = self.string()?;
            if !self.eat(b':') {
                return Err("a colon is missing");
            }
            self.peek().ok_or("value is missing")?;
            if !field(self, key)? {
                return Ok(false);
            }
            if self.eat(b'}') {
                return Ok(true);
            }
            if !self.eat(b',') {
                return Err("a comma is missing");
            }
        }
    }
}

/// Writes a string's content without escapes. Lone surrogates become U+FFFD.
fn unescape(text: Str<'_>, out: &mut String) {
    if !text.escaped {
        out.push_str(text.raw);
        return;
    }
    let mut rest = text.raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let mut chars = rest[at + 1..].chars();
        let Some(c) = chars.next() else { return };
        rest = chars.as_str();
        match c {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'u' => {
                let hex = |t: &str| t.get(..4).and_then(|h| u32::from_str_radix(h, 16).ok());
                let Some(high) = hex(rest) else {
                    out.push(char::REPLACEMENT_CHARACTER);
                    continue;
                };
                rest = &rest[4..];
                let mut code = high;
                if (0xd800..0xdc00).contains(&high)
                    && let Some(low) = rest.strip_prefix("\\u").and_then(hex)
                    && (0xdc00..0xe000).contains(&low)
                {
                    code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                    rest = &rest[6..];
                }
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => out.push(other),
        }
    }
    out.push_str(rest);
}

/// `| json`
pub fn parse_json(line: &str, labels: &mut LineLabels, run: &mut ParseRun<'_>) {
    let mut scan = Scan::new(line);
    run.name.clear();
    if let Err(details) = walk(&mut scan, labels, run, 0) {
        labels.set_error("JSONParserErr", details);
    }
}

fn walk(scan: &mut Scan<'_>, labels: &mut LineLabels, run: &mut ParseRun<'_>, depth: usize) -> Scanned<bool> {
    if depth > DEPTH_MAX {
        return Err("objects are nested too deeply");
    }
    let prefix = run.name.len();
    scan.object(|scan, key| {
        run.name.truncate(prefix);
        if prefix > 0 {
            run.name.push('_');
        }
        let before = run.name.len();
        if key.escaped {
            let mut plain = String::new();
            unescape(key, &mut plain);
            sanitize_into(&plain, prefix == 0, run.name);
        } else {
            sanitize_into(key.raw, prefix == 0, run.name);
        }
        if run.name.len() == before {
            scan.skip()?;
            return Ok(true);
        }
        match scan.peek() {
            Some(b'{') => {
                if run.needs.wants_below(run.name) {
                    walk(scan, labels, run, depth + 1)
                } else {
                    scan.skip()?;
                    Ok(true)
                }
            }
            Some(b'[') => {
                scan.skip()?;
                Ok(true)
            }
            Some(b'"') => {
                let value = scan.string()?;
                Ok(run.found(labels, |out| unescape(value, out)))
            }
            _ => {
                let value = scan.scalar()?;
                if value == "null" {
                    return Ok(true);
                }
                Ok(run.found(labels, |out| out.push_str(value)))
            }
        }
    })
}

/// A step of `servers[0].name["a b"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
}

/// `label="path"`.
#[derive(Debug)]
pub struct JsonPath {
    pub label: String,
    steps: Vec<Step>,
}

impl JsonPath {
    pub fn parse(label: &str, text: &str) -> Result<Self> {
        let bad = |why: &str| Error::invalid(format!("cannot parse expression [{text}]: {why}"));
        let mut steps = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if let Some(tail) = rest.strip_prefix('[') {
                if tail.starts_with('"') {
                    let mut scan = Scan::new(tail);
                    let key = scan.string().map_err(bad)?;
                    let mut field = String::new();
                    unescape(key, &mut field);
                    steps.push(Step::Field(field));
                    rest = tail[scan.at..].strip_prefix(']').ok_or_else(|| bad("] is missing"))?;
                } else {
                    let (index, tail) = tail.split_once(']').ok_or_else(|| bad("] is missing"))?;
                    steps.push(Step::Index(index.trim().parse().map_err(|_| bad("bad index"))?));
                    rest = tail;
                }
            } else {
                let tail = if steps.is_empty() {
                    rest
                } else {
                    rest.strip_prefix('.').ok_or_else(|| bad("unexpected character"))?
                };
                let length = tail.find(['.', '[']).unwrap_or(tail.len());
                let name = &tail[..length];
                let mut chars = name.chars();
                let good = chars.next().is_some_and(|c| c == '_' || c.is_alphabetic())
                    && chars.all(|c| c == '_' || c == '-' || c.is_alphanumeric());
                if !good {
                    return Err(bad("bad field name"));
                }
                steps.push(Step::Field(name.to_owned()));
                rest = &tail[length..];
            }
        }
        if steps.is_empty() {
            return Err(bad("empty path"));
        }
        Ok(Self { label: label.to_owned(), steps })
    }
}

/// `| json a="x.y", b="z[0]"`. What is not there sets nothing; objects and arrays are taken over as text.
pub fn parse_json_paths(line: &str, paths: &[JsonPath], labels: &mut LineLabels, run: &mut ParseRun<'_>) {
    let mut first = Scan::new(line);
    if !matches!(first.peek(), Some(b'{' | b'[')) {
        labels.set_error("JSONParserErr", "not an object");
        return;
    }
    for path in paths {
        run.name.clear();
        run.name.push_str(&path.label);
        let mut scan = Scan::new(line);
        let found = seek(&mut scan, &path.steps).and_then(|there| match there {
            false => Ok(()),
            true => {
                match scan.peek() {
                    Some(b'"') => {
                        let value = scan.string()?;
                        run.found(labels, |out| unescape(value, out));
                    }
                    _ => {
                        let value = scan.skip()?;
                        if value != "null" {
                            run.found(labels, |out| out.push_str(value));
                        }
                    }
                }
                Ok(())
            }
        });
        if let Err(details) = found {
            labels.set_error("JSONParserErr", details);
            return;
        }
    }
}

/// Moves to the value the path names; false where there is none.
fn seek(scan: &mut Scan<'_>, steps: &[Step]) -> Scanned<bool> {
    for step in steps {
        match (step, scan.peek()) {
            (Step::Field(name), Some(b'{')) => {
                let missing = scan.object(|scan, key| {
                    let hit = if key.escaped {
                        let mut plain = String::new();
                        unescape(key, &mut plain);
                        plain == *name
                    } else {
                        key.raw == name
                    };
                    if !hit {
                        scan.skip()?;
                    }
                    Ok(!hit)
                })?;
                if missing {
                    return Ok(false);
                }
            }
            (Step::Index(index), Some(b'[')) => {
                scan.at += 1;
                if scan.peek() == Some(b']') {
                    return Ok(false);
                }
                for _ in 0..*index {
                    scan.skip()?;
                    if !scan.eat(b',') {
                        return Ok(false);
                    }
                }
            }
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// `| unpack`: string members become labels, `_entry` becomes the line. True where `entry` was written; a line without `_entry`
/// was never packed and stays as it is.
pub fn unpack(line: &str, labels: &mut LineLabels, run: &mut ParseRun<'_>, entry: &mut String) -> bool {
    let mut scan = Scan::new(line);
    let mut members = Vec::new();
    let mut packed = false;
    let walked = scan.object(|scan, key| {
        if scan.peek() != Some(b'"') {
            scan.skip()?;
            return Ok(true);
        }
        let value = scan.string()?;
        run.name.clear();
        unescape(key, run.name);
        if run.name == "_entry" {
            entry.clear();
            unescape(value, entry);
            packed = true;
        } else {
            members.push((key, value));
        }
        Ok(true)
    });
    if let Err(details) = walked {
        labels.set_error("JSONParserErr", details);
        return false;
    }
    if packed {
        for (key, value) in members {
            run.name.clear();
            unescape(key, run.name);
            let mut name = String::new();
            sanitize_into(run.name, true, &mut name);
            *run.name = name;
            run.found_all(labels, |out| unescape(value, out));
        }
    }
    packed
}
