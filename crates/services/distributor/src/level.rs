//! Which level a log line has, told as Loki tells it by default: the structured metadata `detected_level`.
//!
//! The first that says anything counts: a label, structured metadata, OTLP's severity number, a field of the line (JSON, then
//! logfmt), a word of the line. `unknown` where nothing does.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use triptych_intake::sink::Pairs;

/// The name in structured metadata.
pub(crate) const DETECTED_LEVEL: &str = "detected_level";

/// Names that carry a level, the first that is there counts (Loki's default `log_level_fields`).
const FIELDS: [&str; 14] = [
    "level",
    "LEVEL",
    "Level",
    "log.level",
    "severity",
    "SEVERITY",
    "Severity",
    "SeverityText",
    "lvl",
    "LVL",
    "Lvl",
    "severity_text",
    "Severity_Text",
    "SEVERITY_TEXT",
];

/// JSON objects are looked into this deep (Loki's `log_level_from_json_max_depth`).
const JSON_DEPTH_MAX: usize = 2;

const UNKNOWN: &str = "unknown";

/// Words and what they mean, in any case.
const WORDS: [(&str, &str); 14] = [
    ("trace", "trace"),
    ("trc", "trace"),
    ("debug", "debug"),
    ("dbg", "debug"),
    ("info", "info"),
    ("inf", "info"),
    ("information", "info"),
    ("warn", "warn"),
    ("wrn", "warn"),
    ("warning", "warn"),
    ("error", "error"),
    ("err", "error"),
    ("critical", "critical"),
    ("fatal", "fatal"),
];

/// Words that tell a level in the middle of a text; the short ones are too often something else.
const TEXT_WORDS: [&str; 9] =
    ["trace", "debug", "info", "warn", "warning", "error", "err", "critical", "fatal"];

/// The level that a word means; `None` for any other word.
fn known(word: &str) -> Option<&'static str> {
    WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, level)| *level)
}

/// The common name where the word has one, else the word itself.
pub(crate) fn normalized(word: &str) -> &str {
    known(word).unwrap_or(word)
}

fn get<'p>(pairs: &Pairs<'p>, name: &str) -> Option<&'p str> {
    pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
}

/// The level that labels tell: of a stream, or of structured metadata.
pub(crate) fn of_pairs<'p>(pairs: &Pairs<'p>) -> Option<&'p str> {
    FIELDS.iter().find_map(|name| get(pairs, name))
}

/// The level of an entry whose stream does not tell it; empty where an attribute says so.
pub(crate) fn of_entry<'p>(line: &str, metadata: &Pairs<'p>) -> &'p str {
    if let Some(word) = of_pairs(metadata) {
        return normalized(word);
    }
    if let Some(number) = get(metadata, "severity_number") {
        return of_severity_number(number);
    }
    of_line(line)
}

/// OTLP's numbers, four to a level (opentelemetry.io/docs/specs/otel/logs/data-model).
fn of_severity_number(text: &str) -> &'static str {
    match text.parse::<i64>() {
        Err(_) => "info",
        Ok(1..=4) => "trace",
        Ok(5..=8) => "debug",
        Ok(9..=12) => "info",
        Ok(13..=16) => "warn",
        Ok(17..=20) => "error",
        Ok(21..=24) => "fatal",
        Ok(_) => UNKNOWN,
    }
}

fn of_line(line: &str) -> &'static str {
    let trimmed = line.trim();
    let field = if trimmed.starts_with('{') && trimmed.ends_with('}') {
        of_json(trimmed)
    } else if line.contains('=') {
        of_logfmt(line)
    } else {
        None
    };
    field.unwrap_or_else(|| of_text(line))
}

/// The first field with a level's name that holds text.
fn of_json(line: &str) -> Option<&'static str> {
    let mut found = None;
    let mut json = serde_json::Deserializer::from_str(line);
    // Ends with an error when it is found: the rest need not be read. What is no JSON tells nothing.
    let _ = json.deserialize_map(Object { depth: 1, found: &mut found });
    found.as_deref().and_then(known)
}

/// Walks an object for a level.
struct Object<'f> {
    depth: usize,
    found: &'f mut Option<String>,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(is_level) = map.next_key_seed(Key)? {
            map.next_value_seed(Field { is_level, depth: self.depth, found: self.found })?;
        }
        Ok(())
    }
}

/// Whether a key names a level.
struct Key;

impl<'de> serde::de::DeserializeSeed<'de> for Key {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(FIELDS.contains(&name))
    }
}

/// A value below a key.
struct Field<'f> {
    is_level: bool,
    depth: usize,
    found: &'f mut Option<String>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Field<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if !self.is_level {
            return Ok(());
        }
        *self.found = Some(text.to_owned());
        Err(E::custom("found"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.depth < JSON_DEPTH_MAX {
            return Object { depth: self.depth + 1, found: self.found }.visit_map(map);
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// `key=value key="a value"`: of the keys that name a level, in any case, the one that stands first in the list.
fn of_logfmt(line: &str) -> Option<&'static str> {
    let mut best = FIELDS.len();
    let mut found = "";
    let mut rest = line.trim_start();
    while !rest.is_empty() && best > 0 {
        let key_end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let key = &rest[..key_end];
        rest = &rest[key_end..];
        let mut value = "";
        if let Some(after) = rest.strip_prefix('=') {
            let (start, end) = match after.strip_prefix('"') {
                Some(quoted) => {
                    let end = closing_quote(quoted);
                    (1, 1 + end)
                }
                None => (0, after.find(char::is_whitespace).unwrap_or(after.len())),
            };
            value = &after[start..end];
            rest = after[end..].trim_start_matches('"');
        }
        if let Some(at) = FIELDS[..best].iter().position(|name| name.eq_ignore_ascii_case(key)) {
            (best, found) = (at, value);
        }
        rest = rest.trim_start();
    }
    known(found)
}

/// Where the quote is that ends a quoted value, or the end of the text.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at,
            _ => {}
        }
    }
    text.len()
}

/// The first word that is a level and stands alone: `ERROR: x`, `[warn] x`, not `terror`, not `misc:error`.
fn of_text(line: &str) -> &'static str {
    let bytes = line.as_bytes();
    let mut left = true;
    for at in 0..bytes.len() {
        if left && bytes[at].is_ascii_alphabetic() {
            let rest = &bytes[at..];
            let word = TEXT_WORDS.iter().find(|word| {
                rest.len() >= word.len()
                    && rest[..word.len()].eq_ignore_ascii_case(word.as_bytes())
                    && rest.get(word.len()).is_none_or(|byte| b" \t\n[](){}:,!\"=".contains(byte))
            });
            if let Some(level) = word.and_then(|word| known(word)) {
                return level;
            }
        }
        left = b" \t\n[({\"=".contains(&bytes[at]);
    }
    UNKNOWN
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line, structured metadata, level.
    type Case<'a> = (&'a str, &'a Pairs<'a>, &'a str);

    #[test]
    fn levels() {
        let cases: &[Case<'_>] = &[
            ("hello", &[], "unknown"),
            ("", &[], "unknown"),
            ("ERROR: it broke", &[], "error"),
            ("2026-11-20 10:00:00 [Warning] disk", &[], "warn"),
            ("terror in misc:error, erring", &[], "unknown"),
            ("first info then error", &[], "info"),
            ("an err happened", &[], "error"),
            ("é fatal", &[], "fatal"),
            (r#"{"level":"WARN","msg":"error"}"#, &[], "warn"),
            (r#" {"a":[1,{"level":"error"}],"log":{"severity":"dbg"}} "#, &[], "debug"),
            (r#"{"a":{"b":{"level":"dbg"}}}"#, &[], "unknown"),
            (r#"{"level":30,"lvl":"info"}"#, &[], "info"),
            (r#"{"level":"notice","msg":"x critical x"}"#, &[], "critical"),
            (r#"{"level": error }"#, &[], "error"),
            ("ts=1 lvl=inf level=\"err\" msg=\"level=debug x\"", &[], "error"),
            ("msg=\"a \\\" level=debug\" LEVEL=err", &[], "error"),
            ("msg=\"unclosed level=debug", &[], "debug"),
            ("severity=TRC", &[], "trace"),
            ("a = b level =", &[], "unknown"),
            ("error", &[("severity_text", "Information")], "info"),
            ("error", &[("severity_text", "Notice")], "Notice"),
            ("error", &[("severity_number", "13")], "warn"),
            ("error", &[("severity_number", "24")], "fatal"),
            ("error", &[("severity_number", "0")], "unknown"),
            ("error", &[("severity_number", "x")], "info"),
        ];
        for (line, metadata, want) in cases {
            assert_eq!(of_entry(line, metadata), *want, "{line} {metadata:?}");
        }
        assert_eq!(of_pairs(&[("app", "x"), ("level", "Err")]).map(normalized), Some("error"));
    }

    #[test]
    fn hostile_lines() {
        let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        let lists = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let quotes = "level=\"".repeat(100_000);
        for line in [deep.as_str(), &lists, &quotes, "=", "==", "\"=\"", "level=\"", "level=\"é"] {
            assert_eq!(of_entry(line, &[]), "unknown", "{:.20}", line);
        }
    }
}
