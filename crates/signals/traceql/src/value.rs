//! How values compare: one rule for the evaluator and for every store.
//!
//! * Integers, floats and durations (nanoseconds) compare with each other; integers with integers exactly.
//! * Values of different kinds are neither equal nor unequal: every comparison of them is false. So is every comparison with
//!   an attribute that is not there.
//! * Of several values (arrays, events, links) `!=` and `!~` hold when they hold for all, everything else when it holds for one.
//! * Strings are ordered by their bytes. Regexes are anchored at both ends.

use std::cmp::Ordering;

use regex::Regex;
use triptych_model::matcher::anchored_regex;
use triptych_model::traces::Value;
use triptych_model::{Error, Result};

use crate::ast::{ArithmeticOp, Type};
use crate::source::{Attribute, CompareOp, Condition, Intrinsic};

impl CompareOp {
    pub fn as_str(self) -> &'static str {
        match self {
            CompareOp::Equal => "=",
            CompareOp::NotEqual => "!=",
            CompareOp::Less => "<",
            CompareOp::LessEqual => "<=",
            CompareOp::Greater => ">",
            CompareOp::GreaterEqual => ">=",
            CompareOp::Regex => "=~",
            CompareOp::NotRegex => "!~",
        }
    }

    pub fn is_negative(self) -> bool {
        matches!(self, CompareOp::NotEqual | CompareOp::NotRegex)
    }

    pub fn is_regex(self) -> bool {
        matches!(self, CompareOp::Regex | CompareOp::NotRegex)
    }

    /// The same comparison with its sides exchanged.
    pub fn flipped(self) -> Self {
        match self {
            CompareOp::Less => CompareOp::Greater,
            CompareOp::LessEqual => CompareOp::GreaterEqual,
            CompareOp::Greater => CompareOp::Less,
            CompareOp::GreaterEqual => CompareOp::LessEqual,
            other => other,
        }
    }

    /// Whether an order of the left to the right side satisfies the comparison.
    #[inline]
    pub fn holds(self, order: Ordering) -> bool {
        match self {
            CompareOp::Equal => order == Ordering::Equal,
            CompareOp::NotEqual => order != Ordering::Equal,
            CompareOp::Less => order == Ordering::Less,
            CompareOp::LessEqual => order != Ordering::Greater,
            CompareOp::Greater => order == Ordering::Greater,
            CompareOp::GreaterEqual => order != Ordering::Less,
            CompareOp::Regex | CompareOp::NotRegex => false,
        }
    }
}

/// A number as an integer where it is one. Durations count nanoseconds.
pub(crate) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(i) | Value::Duration(i) => Some(*i),
        _ => None,
    }
}

/// A number of any kind. Durations count nanoseconds.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(i) | Value::Duration(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    }
}

/// Compares two single values; `=~` and `!~` need a compiled regex and are false here.
#[inline]
pub fn compare(op: CompareOp, left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::String(l), Value::String(r)) => op.holds(l.as_bytes().cmp(r.as_bytes())),
        (Value::Bool(l), Value::Bool(r)) => equality(op, l == r),
        (Value::Status(l), Value::Status(r)) | (Value::SpanKind(l), Value::SpanKind(r)) => {
            equality(op, l == r)
        }
        _ => match (integer(left), integer(right)) {
            (Some(l), Some(r)) => op.holds(l.cmp(&r)),
            _ => match (number(left), number(right)) {
                // A NaN is unordered: unequal to everything.
                (Some(l), Some(r)) => l.partial_cmp(&r).map_or(op == CompareOp::NotEqual, |o| op.holds(o)),
                _ => false,
            },
        },
    }
}

fn equality(op: CompareOp, equal: bool) -> bool {
    match op {
        CompareOp::Equal => equal,
        CompareOp::NotEqual => !equal,
        _ => false,
    }
}

/// Integers stay integers (division truncates), durations durations where [`ArithmeticOp::kind`] says so, everything else
/// becomes a float. `None`: not numbers, or divided by the integer 0.
pub(crate) fn arithmetic(op: ArithmeticOp, left: &Value, right: &Value) -> Option<Value> {
    if let (Value::Int(l), Value::Int(r)) = (left, right) {
        let (l, r) = (*l, *r);
        return Some(Value::Int(match op {
            ArithmeticOp::Add => l.wrapping_add(r),
            ArithmeticOp::Sub => l.wrapping_sub(r),
            ArithmeticOp::Mul => l.wrapping_mul(r),
            ArithmeticOp::Div if r == 0 => return None,
            ArithmeticOp::Div => l.wrapping_div(r),
            ArithmeticOp::Mod if r == 0 => return None,
            ArithmeticOp::Mod => l.wrapping_rem(r),
            ArithmeticOp::Pow => match u32::try_from(r).ok().and_then(|r| l.checked_pow(r)) {
                Some(power) => power,
                None => return Some(Value::Float((l as f64).powf(r as f64))),
            },
        }));
    }
    let kind = op.kind(Type::of_value(left), Type::of_value(right));
    if let (Type::Duration, Some(l), Some(r)) = (kind, integer(left), integer(right)) {
        match op {
            ArithmeticOp::Add => return Some(Value::Duration(l.saturating_add(r))),
            ArithmeticOp::Sub => return Some(Value::Duration(l.saturating_sub(r))),
            ArithmeticOp::Mul => return Some(Value::Duration(l.saturating_mul(r))),
            _ if r == 0 => return None,
            ArithmeticOp::Div => return Some(Value::Duration(l.saturating_div(r))),
            _ => return Some(Value::Duration(l.wrapping_rem(r))),
        }
    }
    let (l, r) = (number(left)?, number(right)?);
    let result = match op {
        ArithmeticOp::Add => l + r,
        ArithmeticOp::Sub => l - r,
        ArithmeticOp::Mul => l * r,
        ArithmeticOp::Div => l / r,
        ArithmeticOp::Mod => l % r,
        ArithmeticOp::Pow => l.powf(r),
    };
    Some(if kind == Type::Duration && result.is_finite() {
        Value::Duration(result.round() as i64)
    } else {
        Value::Float(result)
    })
}

/// `-value` of a number.
pub(crate) fn negated(value: &Value) -> Option<Value> {
    match value {
        Value::Int(i) => Some(Value::Int(i.wrapping_neg())),
        Value::Duration(i) => Some(Value::Duration(i.wrapping_neg())),
        Value::Float(f) => Some(Value::Float(-f)),
        _ => None,
    }
}

/// `any` of several values, or all of them where the operator denies.
#[inline]
pub(crate) fn over_values(op: CompareOp, values: &[Value], mut test: impl FnMut(&Value) -> bool) -> bool {
    match values {
        [] => false,
        [one] => test(one),
        many if op.is_negative() => many.iter().all(test),
        many => many.iter().any(test),
    }
}

/// A [`Condition`] made ready to be asked many times.
#[derive(Debug, Clone)]
pub struct Test {
    pub attribute: Attribute,
    /// `None`: the attribute is there at all.
    pub compare: Option<(CompareOp, Value)>,
    regex: Option<Regex>,
}

impl Test {
    /// Fails where the regex does not compile or is too large.
    pub fn new(condition: &Condition) -> Result<Self> {
        let compare = condition.test.clone();
        let regex = match &compare {
            Some((op, Value::String(pattern))) if op.is_regex() => Some(anchored_regex(pattern)?),
            Some((op, other)) if op.is_regex() => {
                return Err(Error::invalid(format!("a regex must be a string, not {}", other.type_name())));
            }
            _ => None,
        };
        Ok(Self { attribute: condition.attribute.clone(), compare, regex })
    }

    /// Whether an attribute that has these values passes. No values, no pass.
    #[inline]
    pub fn matches(&self, values: &[Value]) -> bool {
        match &self.compare {
            None => values.iter().any(|v| !matches!(v, Value::Nil)),
            Some((op, _)) => over_values(*op, values, |v| self.matches_value(v)),
        }
    }

    /// As [`Test::matches`], of one value.
    #[inline]
    pub fn matches_value(&self, value: &Value) -> bool {
        match (&self.compare, &self.regex) {
            (None, _) => !matches!(value, Value::Nil),
            (Some((op, _)), Some(regex)) => match value {
                Value::String(s) => regex.is_match(s) == (*op == CompareOp::Regex),
                _ => false,
            },
            (Some((op, right)), None) => compare(*op, value, right),
        }
    }

    /// As [`Test::matches_value`] of a string, without making a [`Value`]: for dictionaries.
    #[inline]
    pub fn matches_str(&self, value: &str) -> bool {
        match (&self.compare, &self.regex) {
            (None, _) => true,
            (Some((op, _)), Some(regex)) => regex.is_match(value) == (*op == CompareOp::Regex),
            (Some((op, Value::String(right))), None) => op.holds(value.as_bytes().cmp(right.as_bytes())),
            _ => false,
        }
    }
}

/// Ids are compared at full length: `trace:id = "1F"` means `"000…1f"`. Tempo shows trace ids without leading zeros.
pub(crate) fn normalized_operand(attribute: &Attribute, op: CompareOp, value: Value) -> Value {
    let Attribute::Intrinsic(intrinsic) = attribute else { return value };
    let digits = match intrinsic {
        Intrinsic::TraceId | Intrinsic::LinkTraceId => 32,
        Intrinsic::SpanId | Intrinsic::ParentId | Intrinsic::LinkSpanId => 16,
        _ => return value,
    };
    match value {
        Value::String(id) if !op.is_regex() && !id.is_empty() => {
            Value::String(format!("{:0>digits$}", id.to_ascii_lowercase()))
        }
        other => other,
    }
}
