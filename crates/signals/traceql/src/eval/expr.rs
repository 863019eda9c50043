//! Field expressions: one value per span.

use std::borrow::Cow;

use regex::Regex;
use triptych_model::matcher::anchored_regex;
use triptych_model::traces::Value;
use triptych_model::{Error, Result};

use crate::ast::{ArithmeticOp, FieldExpr};
use crate::plan::is_carried;
use crate::source::{Attribute, CompareOp, Condition, FetchSpans, Intrinsic, Span, TraceSpans};
use crate::value::{Test, arithmetic, compare, negated, normalized_operand};

/// Where an attribute's values are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Read {
    /// In [`Span::values`].
    Slot(usize),
    /// In a field of the span or its trace.
    Carried(Intrinsic),
}

#[derive(Debug)]
pub(crate) enum Expr {
    Value(Value),
    Read(Read),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    Exists(Box<Expr>, bool),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// An attribute against a constant.
    Test(Read, Test),
    Compare {
        op: CompareOp,
        left: Box<Expr>,
        right: Box<Expr>,
        regex: Option<Regex>,
    },
    Arithmetic {
        op: ArithmeticOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
}

/// The values of an expression for one span.
#[derive(Debug)]
pub(crate) enum Held<'a> {
    None,
    One(Cow<'a, Value>),
    Many(&'a [Value]),
}

impl Read {
    pub fn new(attribute: &Attribute, fetch: &FetchSpans) -> Result<Self> {
        match attribute {
            Attribute::Intrinsic(i) if is_carried(attribute) => Ok(Read::Carried(*i)),
            _ => fetch
                .slot(attribute)
                .map(Read::Slot)
                .ok_or_else(|| Error::internal(format!("attribute {attribute} was not fetched"))),
        }
    }

    #[inline]
    pub fn run<'a>(self, trace: &'a TraceSpans, span: &'a Span) -> Held<'a> {
        match self {
            Read::Slot(at) => match span.values.get(at).map(|v| v.as_slice()) {
                None | Some([] | [Value::Nil]) => Held::None,
                Some([one]) => Held::One(Cow::Borrowed(one)),
                Some(many) => Held::Many(many),
            },
            Read::Carried(i) => Held::One(Cow::Owned(match i {
                Intrinsic::Name => Value::String(span.name.to_string()),
                Intrinsic::Duration => Value::Duration(span.duration_ns),
                Intrinsic::TraceDuration => Value::Duration(trace.duration_ns),
                Intrinsic::RootName => Value::String(trace.root_name.to_string()),
                Intrinsic::RootServiceName => Value::String(trace.root_service.to_string()),
                Intrinsic::TraceId => Value::String(hex::encode(trace.trace_id)),
                Intrinsic::SpanId => Value::String(hex::encode(span.span_id)),
                Intrinsic::NestedSetLeft => Value::Int(span.nested_left.into()),
                Intrinsic::NestedSetRight => Value::Int(span.nested_right.into()),
                Intrinsic::NestedSetParent => Value::Int(span.nested_parent.into()),
                _ => return Held::None,
            })),
        }
    }

    /// Appends the text of what [`Held::shown`] gives; false where it gives nothing.
    pub fn write_text(self, trace: &TraceSpans, span: &Span, out: &mut Vec<u8>) -> bool {
        let text = match self {
            Read::Carried(Intrinsic::Name) => &*span.name,
            Read::Carried(Intrinsic::RootName) => &*trace.root_name,
            Read::Carried(Intrinsic::RootServiceName) => &*trace.root_service,
            _ => match self.run(trace, span) {
                Held::One(Cow::Borrowed(Value::String(s) | Value::Status(s) | Value::SpanKind(s))) => s,
                held => match held.shown() {
                    Some(value) => {
                        out.extend_from_slice(value.to_string().as_bytes());
                        return true;
                    }
                    None => return false,
                },
            },
        };
        out.extend_from_slice(text.as_bytes());
        true
    }

    /// As a test of [`Read::run`], without making values.
    #[inline]
    fn test(self, test: &Test, trace: &TraceSpans, span: &Span) -> bool {
        match self {
            Read::Slot(at) => span.values.get(at).is_some_and(|v| test.matches(v)),
            Read::Carried(i) => match i {
                Intrinsic::Name => test.matches_str(&span.name),
                Intrinsic::RootName => test.matches_str(&trace.root_name),
                Intrinsic::RootServiceName => test.matches_str(&trace.root_service),
                Intrinsic::TraceId => {
                    let mut digits = [0; 32];
                    hex::encode_to_slice(trace.trace_id, &mut digits).is_ok()
                        && std::str::from_utf8(&digits).is_ok_and(|s| test.matches_str(s))
                }
                Intrinsic::SpanId => {
                    let mut digits = [0; 16];
                    hex::encode_to_slice(span.span_id, &mut digits).is_ok()
                        && std::str::from_utf8(&digits).is_ok_and(|s| test.matches_str(s))
                }
                _ => match self.run(trace, span) {
                    Held::One(v) => test.matches_value(&v),
                    _ => false,
                },
            },
        }
    }
}

impl<'a> Held<'a> {
    fn slice(&self) -> &[Value] {
        match self {
            Held::None => &[],
            Held::One(v) => std::slice::from_ref(v),
            Held::Many(all) => all,
        }
    }

    /// The first value that is a number.
    pub fn into_number(self) -> Option<Value> {
        let is_number = |v: &Value| matches!(v, Value::Int(_) | Value::Float(_) | Value::Duration(_));
        match self {
            Held::None => None,
            Held::One(v) => is_number(&v).then(|| v.into_owned()),
            Held::Many(all) => all.iter().find(|v| is_number(v)).cloned(),
        }
    }

    /// One value for an answer; several become a list in one string.
    pub fn shown(self) -> Option<Value> {
        match self {
            Held::None => None,
            Held::One(v) => Some(v.into_owned()).filter(|v| *v != Value::Nil),
            Held::Many([first, rest @ ..]) if rest.iter().all(|v| v == first) => Some(first.clone()),
            Held::Many(all) => {
                let all: Vec<String> = all.iter().map(|v| v.to_string()).collect();
                Some(Value::String(format!("[{}]", all.join(", "))))
            }
        }
    }
}

impl Expr {
    pub fn new(e: &FieldExpr, fetch: &FetchSpans) -> Result<Self> {
        let boxed = |e: &FieldExpr| Expr::new(e, fetch).map(Box::new);
        Ok(match e {
            FieldExpr::Value(v) => Expr::Value(v.clone()),
            FieldExpr::Attribute(a) => Expr::Read(Read::new(a, fetch)?),
            FieldExpr::Not(e) => Expr::Not(boxed(e)?),
            FieldExpr::Negate(e) => Expr::Negate(boxed(e)?),
            FieldExpr::Exists(e, yes) => Expr::Exists(boxed(e)?, *yes),
            FieldExpr::And(all) => Expr::And(all.iter().map(|e| Expr::new(e, fetch)).collect::<Result<_>>()?),
            FieldExpr::Or(all) => Expr::Or(all.iter().map(|e| Expr::new(e, fetch)).collect::<Result<_>>()?),
            FieldExpr::Compare { op, left, right } => match (&**left, &**right) {
                (FieldExpr::Attribute(a), FieldExpr::Value(v)) => Expr::test(a, *op, v, fetch)?,
                (FieldExpr::Value(v), FieldExpr::Attribute(a)) if !op.is_regex() => {
                    Expr::test(a, op.flipped(), v, fetch)?
                }
                (l, r) => {
                    let regex = match r {
                        FieldExpr::Value(Value::String(pattern)) if op.is_regex() => {
                            Some(anchored_regex(pattern)?)
                        }
                        _ => None,
                    };
                    Expr::Compare { op: *op, left: boxed(l)?, right: boxed(r)?, regex }
                }
            },
            FieldExpr::Arithmetic { op, left, right } => {
                Expr::Arithmetic { op: *op, left: boxed(left)?, right: boxed(right)? }
            }
        })
    }

    fn test(a: &Attribute, op: CompareOp, v: &Value, fetch: &FetchSpans) -> Result<Self> {
        let value = normalized_operand(a, op, v.clone());
        let condition = Condition { attribute: a.clone(), test: Some((op, value)) };
        Ok(Expr::Test(Read::new(a, fetch)?, Test::new(&condition)?))
    }

    /// Whether a span passes.
    pub fn holds(&self, trace: &TraceSpans, span: &Span) -> bool {
        self.truth(trace, span) == Some(true)
    }

    /// `None`: not a boolean, or not there.
    fn truth(&self, trace: &TraceSpans, span: &Span) -> Option<bool> {
        match self {
            Expr::Test(read, test) => Some(read.test(test, trace, span)),
            Expr::And(all) => Some(all.iter().all(|e| e.holds(trace, span))),
            Expr::Or(all) => Some(all.iter().any(|e| e.holds(trace, span))),
            Expr::Not(e) => e.truth(trace, span).map(|b| !b),
            Expr::Exists(e, yes) => {
                let there = e.run(trace, span).slice().iter().any(|v| *v != Value::Nil);
                Some(there == *yes)
            }
            Expr::Compare { op, left, right, regex } => {
                let left = left.run(trace, span);
                let (left, one): (&[Value], _) = (left.slice(), |l: &Value, r: &Value| match (regex, l) {
                    (Some(regex), Value::String(s)) => regex.is_match(s) == (*op == CompareOp::Regex),
                    (Some(_), _) => false,
                    (None, _) => compare(*op, l, r),
                });
                let right = right.run(trace, span);
                let right = right.slice();
                if left.is_empty() || right.is_empty() {
                    return Some(false);
                }
                let mut pairs = left.iter().flat_map(|l| right.iter().map(move |r| (l, r)));
                Some(if op.is_negative() {
                    pairs.all(|(l, r)| one(l, r))
                } else {
                    pairs.any(|(l, r)| one(l, r))
                })
            }
            Expr::Value(Value::Bool(b)) => Some(*b),
            Expr::Read(read) => {
                let held = read.run(trace, span);
                let mut bools =
                    held.slice().iter().filter_map(|v| if let Value::Bool(b) = v { Some(*b) } else { None });
                let first = bools.next()?;
                Some(first || bools.any(|b| b))
            }
            Expr::Value(_) | Expr::Negate(_) | Expr::Arithmetic { .. } => None,
        }
    }

    pub fn run<'a>(&'a self, trace: &'a TraceSpans, span: &'a Span) -> Held<'a> {
        let owned = |v: Option<Value>| v.map_or(Held::None, |v| Held::One(Cow::Owned(v)));
        match self {
            Expr::Value(Value::Nil) => Held::None,
            Expr::Value(v) => Held::One(Cow::Borrowed(v)),
            Expr::Read(read) => read.run(trace, span),
            Expr::Negate(e) => match e.run(trace, span) {
                Held::One(v) => owned(negated(&v)),
                _ => Held::None,
            },
            Expr::Arithmetic { op, left, right } => match (left.run(trace, span), right.run(trace, span)) {
                (Held::One(l), Held::One(r)) => owned(arithmetic(*op, &l, &r)),
                _ => Held::None,
            },
            boolean => owned(boolean.truth(trace, span).map(Value::Bool)),
        }
    }
}
