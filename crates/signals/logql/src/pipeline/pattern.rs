//! `<name>` patterns: of the `pattern` parser, and of the line filters `|>` and `!>`.

use memchr::memmem;
use triptych_model::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Literal(String),
    /// `None`: `<_>`.
    Capture(Option<String>),
}

fn split(text: &str) -> Result<Vec<Part>> {
    let bad = |why: &str| Error::invalid(format!("invalid pattern {text:?}: {why}"));
    if text.is_empty() {
        return Err(bad("empty pattern"));
    }
    let mut parts: Vec<Part> = Vec::new();
    let mut rest = text;
    let literal = |parts: &mut Vec<Part>, text: &str| match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Literal(last)) => last.push_str(text),
        _ => parts.push(Part::Literal(text.to_owned())),
    };
    while let Some(open) = rest.find('<') {
        literal(&mut parts, &rest[..open]);
        let inside = &rest[open + 1..];
        let length = inside.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let name = &inside[..length];
        if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !inside[length..].starts_with('>') {
            literal(&mut parts, "<");
            rest = inside;
            continue;
        }
        if matches!(parts.last(), Some(Part::Capture(_))) {
            return Err(bad("found consecutive capture"));
        }
        parts.push(Part::Capture((name != "_").then(|| name.to_owned())));
        rest = &inside[length + 1..];
    }
    literal(&mut parts, rest);
    Ok(parts)
}

/// Of the `pattern` parser.
#[derive(Debug)]
pub struct CapturePattern {
    parts: Vec<Part>,
}

impl CapturePattern {
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: String| Error::invalid(format!("invalid pattern {text:?}: {why}"));
        let parts = split(text)?;
        let mut names: Vec<&str> = Vec::new();
        for part in &parts {
            if let Part::Capture(Some(name)) = part {
                if names.contains(&name.as_str()) {
                    return Err(bad(format!("duplicate capture name ({name})")));
                }
                names.push(name);
            }
        }
        if names.is_empty() {
            return Err(bad("at least one capture is required".to_owned()));
        }
        Ok(Self { parts })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|p| match p {
            Part::Capture(Some(name)) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Hands out captures from left to right. A literal at the front must be there; where a later one is missing the capture
    /// before it takes the rest of the line and the pattern stops.
    pub fn captures<'l>(&self, line: &'l str, mut found: impl FnMut(&str, &'l str)) {
        let mut rest = line;
        let mut open: Option<&Option<String>> = None;
        for part in &self.parts {
            match part {
                Part::Capture(name) => open = Some(name),
                Part::Literal(text) => match open.take() {
                    None => match rest.strip_prefix(text.as_str()) {
                        Some(tail) => rest = tail,
                        None => return,
                    },
                    Some(name) => {
                        let at = memmem::find(rest.as_bytes(), text.as_bytes());
                        let value = &rest[..at.unwrap_or(rest.len())];
                        if let Some(name) = name {
                            found(name, value);
                        }
                        match at {
                            Some(at) => rest = &rest[at + text.len()..],
                            None => return,
                        }
                    }
                },
            }
        }
        if let Some(Some(name)) = open {
            found(name, rest);
        }
    }
}

/// Of `|>` and `!>`: literals in this order, with anything where `<_>` stands; the whole line.
#[derive(Debug)]
pub struct LinePattern {
    parts: Vec<Part>,
}

impl LinePattern {
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self { parts: Vec::new() });
        }
        let parts = split(text)?;
        if parts.iter().any(|p| matches!(p, Part::Capture(Some(_)))) {
            return Err(Error::invalid(format!(
                "invalid pattern {text:?}: named captures are not allowed in a line filter"
            )));
        }
        Ok(Self { parts })
    }

    pub fn longest_literal(&self) -> Option<&str> {
        let literals = self.parts.iter().filter_map(|p| match p {
            Part::Literal(text) => Some(text.as_str()),
            Part::Capture(_) => None,
        });
        literals.max_by_key(|t| t.len())
    }

    pub fn matches(&self, line: &str) -> bool {
        let mut rest = line;
        let mut gap = false;
        for (i, part) in self.parts.iter().enumerate() {
            match part {
                Part::Capture(_) => gap = true,
                Part::Literal(text) => {
                    let last = i + 1 == self.parts.len();
                    let tail = match (gap, last) {
                        (false, true) => return rest == text,
                        (true, true) => return rest.ends_with(text.as_str()),
                        (false, false) => rest.strip_prefix(text.as_str()),
                        (true, false) => {
                            memmem::find(rest.as_bytes(), text.as_bytes()).map(|at| &rest[at + text.len()..])
                        }
                    };
                    match tail {
                        Some(tail) => rest = tail,
                        None => return false,
                    }
                    gap = false;
                }
            }
        }
        gap || rest.is_empty()
    }
}
