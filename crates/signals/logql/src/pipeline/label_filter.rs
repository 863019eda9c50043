//! Conditions on labels.

use regex::Regex;
use triptych_model::Result;
use triptych_model::{MatchOp, Matcher};

use super::labels::LineLabels;
use super::line_filter::IpPattern;
use super::parsers::Needs;
use super::regexes;
use crate::ERROR_LABEL;
use crate::syntax::ast::{CompareOp, LabelFilterExpr};
use crate::syntax::units::{parse_bytes, parse_duration_ns};

/// A compiled label filter. A value that does not convert sets `__error__="LabelFilterErr"` and lets the line pass; a line
/// that has an error already is filtered by strings only.
#[derive(Debug)]
pub enum LabelFilter {
    Text(TextTest),
    Number { label: String, op: CompareOp, value: f64 },
    Duration { label: String, op: CompareOp, ns: i64 },
    Bytes { label: String, op: CompareOp, bytes: u64 },
    Ip { label: String, negative: bool, pattern: IpPattern },
    All(Vec<LabelFilter>),
    Any(Vec<LabelFilter>),
}

/// A matcher with Go's regex dialect.
#[derive(Debug)]
pub struct TextTest {
    label: String,
    negative: bool,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Equal(String),
    Regex(Regex),
}

impl TextTest {
    pub fn compile(matcher: &Matcher) -> Result<Self> {
        let test = match matcher.op {
            MatchOp::Equal | MatchOp::NotEqual => Test::Equal(matcher.value.clone()),
            MatchOp::Regex | MatchOp::NotRegex => {
                Test::Regex(regexes::compile(&format!("^(?s:{})$", matcher.value))?)
            }
        };
        Ok(Self { label: matcher.name.clone(), negative: matcher.is_negative(), test })
    }

    pub fn label(&self) -> &str {
        &self.label
    }

    pub fn passes(&self, value: &str) -> bool {
        let hit = match &self.test {
            Test::Equal(text) => text == value,
            Test::Regex(regex) => regex.is_match(value),
        };
        hit != self.negative
    }
}

const ERROR: &str = "LabelFilterErr";

impl LabelFilter {
    pub fn compile(expr: &LabelFilterExpr) -> Result<Self> {
        let all = |list: &[LabelFilterExpr]| list.iter().map(Self::compile).collect::<Result<Vec<_>>>();
        Ok(match expr {
            LabelFilterExpr::Matcher(m) => LabelFilter::Text(TextTest::compile(m)?),
            LabelFilterExpr::Number { label, op, value } => {
                LabelFilter::Number { label: label.clone(), op: *op, value: *value }
            }
            LabelFilterExpr::Duration { label, op, ns } => {
                LabelFilter::Duration { label: label.clone(), op: *op, ns: *ns }
            }
            LabelFilterExpr::Bytes { label, op, bytes } => {
                LabelFilter::Bytes { label: label.clone(), op: *op, bytes: *bytes }
            }
            LabelFilterExpr::Ip { label, negative, pattern } => LabelFilter::Ip {
                label: label.clone(),
                negative: *negative,
                pattern: IpPattern::parse(pattern)?,
            },
            LabelFilterExpr::And(list) => LabelFilter::All(all(list)?),
            LabelFilterExpr::Or(list) => LabelFilter::Any(all(list)?),
        })
    }

    pub fn add_needs(&self, needs: &mut Needs) {
        match self {
            LabelFilter::Text(test) => needs.add(&test.label),
            LabelFilter::Number { label, .. }
            | LabelFilter::Duration { label, .. }
            | LabelFilter::Bytes { label, .. }
            | LabelFilter::Ip { label, .. } => needs.add(label),
            LabelFilter::All(list) | LabelFilter::Any(list) => list.iter().for_each(|f| f.add_needs(needs)),
        }
    }

    pub fn passes(&self, labels: &mut LineLabels) -> bool {
        match self {
            LabelFilter::Text(test) => test.passes(labels.get(&test.label).unwrap_or("")),
            LabelFilter::Number { label, op, value } => {
                compare(labels, label, *op, value, |text| text.trim().parse::<f64>().ok(), "a number")
            }
            LabelFilter::Duration { label, op, ns } => {
                compare(labels, label, *op, ns, parse_duration_ns, "a duration")
            }
            LabelFilter::Bytes { label, op, bytes } => {
                compare(labels, label, *op, bytes, parse_bytes, "a size in bytes")
            }
            LabelFilter::Ip { label, negative, pattern } => match labels.get(label) {
                _ if labels.has_error() => true,
                Some(value) => pattern.is_in(value) != *negative,
                None => false,
            },
            LabelFilter::All(list) => list.iter().all(|f| f.passes(labels)),
            LabelFilter::Any(list) => list.iter().any(|f| f.passes(labels)),
        }
    }
}

fn compare<T: PartialOrd>(
    labels: &mut LineLabels,
    label: &str,
    op: CompareOp,
    wanted: &T,
    parse: impl FnOnce(&str) -> Option<T>,
    what: &str,
) -> bool {
    // Only strings can test the error itself.
    if label == ERROR_LABEL {
        return false;
    }
    let Some(text) = labels.get(label) else { return false };
    match parse(text) {
        Some(value) => op.test(&value, wanted),
        // The error that is there already tells more.
        None if labels.has_error() => true,
        None => {
            let details = format!("label {label}: {text:?} is not {what}");
            labels.set_error(ERROR, details);
            true
        }
    }
}
