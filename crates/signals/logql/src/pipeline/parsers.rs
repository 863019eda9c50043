//! What parsers share, and the `logfmt`, `regexp`, `pattern` parsers.

use regex::{CaptureLocations, Regex};
use triptych_model::{Error, Result};

use super::labels::{DUPLICATE_SUFFIX, LineLabels};
use super::pattern::CapturePattern;
use super::regexes;

/// Which extracted labels somebody reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needs {
    All,
    Only(Vec<String>),
}

impl Needs {
    #[inline]
    pub fn wants(&self, name: &str) -> bool {
        match self {
            Needs::All => true,
            Needs::Only(names) => names.iter().any(|n| n == name),
        }
    }

    /// Whether a name `prefix_...` is wanted.
    pub fn wants_below(&self, prefix: &str) -> bool {
        match self {
            Needs::All => true,
            Needs::Only(names) => {
                names.iter().any(|n| n.as_bytes().get(prefix.len()) == Some(&b'_') && n.starts_with(prefix))
            }
        }
    }

    pub fn add(&mut self, name: &str) {
        if let Needs::Only(names) = self
            && !names.iter().any(|n| n == name)
        {
            names.push(name.to_owned());
        }
    }
}

/// One parser's work on one line.
pub struct ParseRun<'r> {
    pub needs: &'r Needs,
    /// Wanted names that are still to be found; the parser may stop at 0. `usize::MAX`: read to the end.
    pub missing: usize,
    /// The name at hand.
    pub name: &'r mut String,
}

impl ParseRun<'_> {
    /// Takes the value of `self.name`. False where the parser may stop.
    #[inline]
    pub fn found(&mut self, labels: &mut LineLabels, write: impl FnOnce(&mut String)) -> bool {
        let before = self.name.len();
        if labels.base_has(self.name) {
            self.name.push_str(DUPLICATE_SUFFIX);
            if labels.base_has(self.name) {
                self.name.truncate(before);
                return true;
            }
        }
        if self.needs.wants(self.name) && labels.set_parsed(self.name, write) && self.missing != usize::MAX {
            self.missing = self.missing.saturating_sub(1);
        }
        self.name.truncate(before);
        self.missing > 0
    }

    /// As [`ParseRun::found`], where nothing may be left out.
    pub fn found_all(&mut self, labels: &mut LineLabels, write: impl FnOnce(&mut String)) {
        let all = Needs::All;
        let mut run = ParseRun { needs: &all, missing: usize::MAX, name: self.name };
        run.found(labels, write);
    }
}

/// Appends `key` as a label name: blanks around it go, what is no letter, digit or `_` becomes `_`, and a name does not start
/// with a digit.
#[inline]
pub fn sanitize_into(key: &str, first: bool, out: &mut String) {
    let key = key.trim();
    if first && key.starts_with(|c: char| c.is_ascii_digit()) {
        out.push('_');
    }
    if key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        out.push_str(key);
        return;
    }
    out.extend(key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }));
}

// ---- logfmt ----

#[derive(Debug, Clone, Copy)]
pub struct LogfmtOptions {
    /// Stop at the first malformed pair and say so; otherwise pass over it.
    pub strict: bool,
    /// Keys without a value become labels with an empty value; since an empty label is an absent one, this shows only in
    /// what `label_format` and filters make of it.
    pub keep_empty: bool,
}

/// A value as it stands in the line.
#[derive(Clone, Copy)]
enum LogfmtValue<'a> {
    None,
    Plain(&'a str),
    /// Between quotes, with escapes.
    Quoted(&'a str),
}

/// Calls `pair` for each; false from it ends the walk. An error ends it too.
fn logfmt_pairs<'a>(
    line: &'a str,
    strict: bool,
    mut pair: impl FnMut(&'a str, LogfmtValue<'a>) -> bool,
) -> std::result::Result<(), String> {
    let bytes = line.as_bytes();
    let mut at = 0;
    loop {
        while at < bytes.len() && bytes[at] <= b' ' {
            at += 1;
        }
        if at == bytes.len() {
            return Ok(());
        }
        let start = at;
        while at < bytes.len() && bytes[at] > b' ' && bytes[at] != b'=' && bytes[at] != b'"' {
            at += 1;
        }
        let key = &line[start..at];
        let stop = bytes.get(at).copied();
        if key.is_empty() || stop == Some(b'"') {
            // `=x`, `"x"`, `a"b`: pass over the word.
            if strict {
                let what = if stop == Some(b'"') { "unexpected '\"'" } else { "unexpected '='" };
                return Err(format!("logfmt syntax error at pos {} : {what}", at + 1));
            }
            while at < bytes.len() && bytes[at] > b' ' {
                at += 1;
            }
            continue;
        }
        if stop != Some(b'=') {
            if !pair(key, LogfmtValue::None) {
                return Ok(());
            }
            continue;
        }
        at += 1;
        let value = match bytes.get(at) {
            Some(b'"') => {
                let value_start = at + 1;
                let mut end = value_start;
                loop {
                    match memchr::memchr2(b'"', b'\\', bytes.get(end..).unwrap_or(&[])) {
                        None => {
                            if strict {
                                return Err(format!(
                                    "logfmt syntax error at pos {} : unterminated quoted value",
                                    at + 1
                                ));
                            }
                            return Ok(());
                        }
                        Some(found) if bytes[end + found] == b'"' => {
                            end += found;
                            break;
                        }
                        Some(found) => end += found + 2,
                    }
                }
                at = end + 1;
                LogfmtValue::Quoted(&line[value_start..end])
            }
            _ => {
                let value_start = at;
                let mut bad = None;
                while at < bytes.len() && bytes[at] > b' ' {
                    if matches!(bytes[at], b'=' | b'"') && bad.is_none() {
                        bad = Some(at);
                    }
                    at += 1;
                }
                if let Some(bad) = bad {
                    if strict {
                        let c = bytes[bad] as char;
                        return Err(format!("logfmt syntax error at pos {} : unexpected '{c}'", bad + 1));
                    }
                    continue;
                }
                LogfmtValue::Plain(&line[value_start..at])
            }
        };
        if !pair(key, value) {
            return Ok(());
        }
    }
}

impl LogfmtValue<'_> {
    fn is_empty(self) -> bool {
        match self {
            LogfmtValue::None => true,
            LogfmtValue::Plain(text) | LogfmtValue::Quoted(text) => text.is_empty(),
        }
    }

    fn write(self, out: &mut String) {
        match self {
            LogfmtValue::None => {}
            LogfmtValue::Plain(text) => out.push_str(text),
            LogfmtValue::Quoted(text) => {
                let mut rest = text;
                while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
                    out.push_str(&rest[..at]);
                    let mut chars = rest[at + 1..].chars();
                    match chars.next() {
                        Some('n') => out.push('\n'),
                        Some('t') => out.push('\t'),
                        Some('r') => out.push('\r'),
                        Some('b') => out.push('\x08'),
                        Some('f') => out.push('\x0c'),
                        Some('u') => {
                            let code = chars.as_str().get(..4).and_then(|h| u32::from_str_radix(h, 16).ok());
                            out.push(code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER));
                            if code.is_some() {
                                chars.by_ref().nth(3);
                            }
                        }
                        Some(other) => out.push(other),
                        None => {}
                    }
                    rest = chars.as_str();
                }
                out.push_str(rest);
            }
        }
    }
}

/// `| logfmt`
pub fn parse_logfmt(line: &str, options: LogfmtOptions, labels: &mut LineLabels, run: &mut ParseRun<'_>) {
    let walked = logfmt_pairs(line, options.strict, |key, value| {
        if value.is_empty() && !options.keep_empty {
            return true;
        }
        run.name.clear();
        sanitize_into(key, true, run.name);
        run.found(labels, |out| value.write(out))
    });
    if let Err(details) = walked {
        labels.set_error("LogfmtParserErr", details);
    }
}

/// `| logfmt a="key", b`
pub fn parse_logfmt_paths(
    line: &str,
    options: LogfmtOptions,
    paths: &[(String, String)],
    labels: &mut LineLabels,
    run: &mut ParseRun<'_>,
) {
    let walked = logfmt_pairs(line, options.strict, |key, value| {
        for (label, path) in paths {
            let same = path == key || {
                run.name.clear();
                sanitize_into(key, true, run.name);
                run.name == path
            };
            if same && (!value.is_empty() || options.keep_empty) {
                run.name.clear();
                run.name.push_str(label);
                run.found(labels, |out| value.write(out));
            }
        }
        run.missing > 0
    });
    if let Err(details) = walked {
        labels.set_error("LogfmtParserErr", details);
    }
}

// ---- regexp, pattern ----

/// `| regexp`
#[derive(Debug)]
pub struct RegexpParser {
    regex: Regex,
    /// Group number and label.
    groups: Vec<(usize, String)>,
}

impl RegexpParser {
    pub fn compile(text: &str) -> Result<Self> {
        let regex = regexes::compile(text)?;
        let mut groups = Vec::new();
        for (i, name) in regex.capture_names().enumerate() {
            let Some(name) = name else { continue };
            let mut label = String::new();
            sanitize_into(name, true, &mut label);
            if label != name {
                return Err(Error::invalid(format!("invalid extracted label name '{name}'")));
            }
            groups.push((i, label));
        }
        if groups.is_empty() {
            return Err(Error::invalid("at least one named capture must be supplied"));
        }
        Ok(Self { regex, groups })
    }

    pub fn locations(&self) -> CaptureLocations {
        self.regex.capture_locations()
    }

    pub fn parse(
        &self,
        line: &str,
        at: &mut CaptureLocations,
        labels: &mut LineLabels,
        run: &mut ParseRun<'_>,
    ) {
        if self.regex.captures_read(at, line).is_none() {
            return;
        }
        for (group, label) in &self.groups {
            if let Some((start, end)) = at.get(*group) {
                run.name.clear();
                run.name.push_str(label);
                run.found(labels, |out| out.push_str(&line[start..end]));
            }
        }
    }
}

/// `| pattern`
pub fn parse_pattern(pattern: &CapturePattern, line: &str, labels: &mut LineLabels, run: &mut ParseRun<'_>) {
    pattern.captures(line, |name, value| {
        run.name.clear();
        run.name.push_str(name);
        run.found(labels, |out| out.push_str(value));
    });
}
