//! Label matchers: `=`, `!=`, `=~`, `!~`. Regexes are anchored at both ends, `.` matches newlines, compiled once per
//! query, linear-time and limited in size.

use std::fmt;

use regex::{Regex, RegexBuilder};

use crate::{Error, Labels, Result};

/// Largest compiled program of one regex, in bytes. Nested counted repetitions such as `(a{0,1000}){0,1000}` stop here.
pub const REGEX_COMPILED_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl MatchOp {
    pub fn as_str(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

/// One condition on one label. An absent label has the value `""`.
#[derive(Clone)]
pub struct Matcher {
    pub name: String,
    pub op: MatchOp,
    pub value: String,
    test: Test,
}

#[derive(Clone)]
enum Test {
    /// Equality, and regexes without any special character.
    Literal,
    /// `a|b|c`: sorted.
    Alternatives(Vec<String>),
    Regex(Regex),
}

/// Compiles a label-matching regex: `^(?s:...)$`.
pub fn anchored_regex(pattern: &str) -> Result<Regex> {
    RegexBuilder::new(&format!("^(?s:{pattern})$"))
        .size_limit(REGEX_COMPILED_BYTES_MAX)
        .build()
        .map_err(|e| Error::invalid(format!("regex {pattern:?}: {e}")))
}

impl Matcher {
    pub fn new(op: MatchOp, name: impl Into<String>, value: impl Into<String>) -> Result<Self> {
        let (name, value) = (name.into(), value.into());
        let test = match op {
            MatchOp::Equal | MatchOp::NotEqual => Test::Literal,
            MatchOp::Regex | MatchOp::NotRegex => {
                let special = |s: &str| s.contains(|c| r"\.+*?()[]{}^$".contains(c));
                if special(&value) {
                    Test::Regex(anchored_regex(&value)?)
                } else if value.contains('|') {
                    let mut all: Vec<String> = value.split('|').map(str::to_owned).collect();
                    all.sort();
                    all.dedup();
                    Test::Alternatives(all)
                } else {
                    Test::Literal
                }
            }
        };
        Ok(Self { name, op, value, test })
    }

    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), test: Test::Literal }
    }

    /// Whether a label of this value passes.
    pub fn matches(&self, value: &str) -> bool {
        let hit = match &self.test {
            Test::Literal => self.value == value,
            Test::Alternatives(all) => all.binary_search_by(|a| a.as_str().cmp(value)).is_ok(),
            Test::Regex(regex) => regex.is_match(value),
        };
        hit != self.is_negative()
    }

    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.value(&self.name))
    }

    /// `!=` or `!~`.
    pub fn is_negative(&self) -> bool {
        matches!(self.op, MatchOp::NotEqual | MatchOp::NotRegex)
    }

    /// Whether a series without the label passes. Where false, only postings of the label need to be read.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The finite set of values a positive matcher accepts, where there is one: look these postings up, test nothing.
    pub fn set_values(&self) -> Option<Vec<&str>> {
        match (&self.test, self.is_negative()) {
            (Test::Literal, false) => Some(vec![&self.value]),
            (Test::Alternatives(all), false) => Some(all.iter().map(String::as_str).collect()),
            _ => None,
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (self.op, &self.name, &self.value) == (other.op, &other.name, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op.as_str(), self.value)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops() {
        let check = |op, value: &str, yes: &[&str], no: &[&str]| {
            let m = Matcher::new(op, "l", value).unwrap();
            for v in yes {
                assert!(m.matches(v), "{m} {v:?}");
            }
            for v in no {
                assert!(!m.matches(v), "{m} {v:?}");
            }
        };
        check(MatchOp::Equal, "a", &["a"], &["", "b"]);
        check(MatchOp::NotEqual, "a", &["", "b"], &["a"]);
        check(MatchOp::Regex, "a|b", &["a", "b"], &["ab", ""]);
        check(MatchOp::Regex, "a.*", &["a", "ab\nc"], &["ba"]);
        check(MatchOp::NotRegex, "a.*", &["ba", ""], &["a", "ab"]);
        check(MatchOp::Regex, "", &[""], &["x"]);
        check(MatchOp::Regex, "a|", &["a", ""], &["b"]);
    }

    #[test]
    fn huge_regex_is_refused() {
        assert!(Matcher::new(MatchOp::Regex, "l", "((a{0,1000}){0,1000}){0,1000}").is_err());
    }
}
