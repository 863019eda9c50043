//! Words and signs by what they mean.

use triptych_model::traces::Value;

use crate::ast::{ArithmeticOp, Relation, SpansetOp};
use crate::source::{CompareOp, Intrinsic};

pub(crate) fn bare_intrinsic(word: &str) -> Option<Intrinsic> {
    Some(match word {
        "name" => Intrinsic::Name,
        "duration" => Intrinsic::Duration,
        "status" => Intrinsic::Status,
        "statusMessage" => Intrinsic::StatusMessage,
        "kind" => Intrinsic::Kind,
        "childCount" => Intrinsic::ChildCount,
        "traceDuration" => Intrinsic::TraceDuration,
        "rootName" => Intrinsic::RootName,
        "rootServiceName" => Intrinsic::RootServiceName,
        "nestedSetLeft" => Intrinsic::NestedSetLeft,
        "nestedSetRight" => Intrinsic::NestedSetRight,
        "nestedSetParent" => Intrinsic::NestedSetParent,
        _ => return None,
    })
}

pub(crate) fn scoped_intrinsic(word: &str) -> Option<Intrinsic> {
    Some(match word {
        "trace:id" => Intrinsic::TraceId,
        "trace:duration" => Intrinsic::TraceDuration,
        "trace:rootName" => Intrinsic::RootName,
        "trace:rootService" => Intrinsic::RootServiceName,
        "span:id" => Intrinsic::SpanId,
        "span:parentID" => Intrinsic::ParentId,
        "span:name" => Intrinsic::Name,
        "span:duration" => Intrinsic::Duration,
        "span:status" => Intrinsic::Status,
        "span:statusMessage" => Intrinsic::StatusMessage,
        "span:kind" => Intrinsic::Kind,
        "span:childCount" => Intrinsic::ChildCount,
        "event:name" => Intrinsic::EventName,
        "event:timeSinceStart" => Intrinsic::EventTimeSinceStart,
        "link:traceID" => Intrinsic::LinkTraceId,
        "link:spanID" => Intrinsic::LinkSpanId,
        "instrumentation:name" => Intrinsic::InstrumentationName,
        "instrumentation:version" => Intrinsic::InstrumentationVersion,
        _ => return None,
    })
}

pub(crate) fn keyword_value(word: &str) -> Option<Value> {
    Some(match word {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "nil" => Value::Nil,
        "ok" | "error" | "unset" => Value::Status(word.to_owned()),
        "unspecified" | "internal" | "server" | "client" | "producer" | "consumer" => {
            Value::SpanKind(word.to_owned())
        }
        "minInt" => Value::Int(i64::MIN),
        "maxInt" => Value::Int(i64::MAX),
        _ => return None,
    })
}

pub(crate) fn compare_op(sign: &str) -> Option<CompareOp> {
    Some(match sign {
        "=" => CompareOp::Equal,
        "!=" => CompareOp::NotEqual,
        "<" => CompareOp::Less,
        "<=" => CompareOp::LessEqual,
        ">" => CompareOp::Greater,
        ">=" => CompareOp::GreaterEqual,
        "=~" => CompareOp::Regex,
        "!~" => CompareOp::NotRegex,
        _ => return None,
    })
}

pub(crate) fn arithmetic_op(sign: &str) -> Option<ArithmeticOp> {
    Some(match sign {
        "+" => ArithmeticOp::Add,
        "-" => ArithmeticOp::Sub,
        "*" => ArithmeticOp::Mul,
        "/" => ArithmeticOp::Div,
        "%" => ArithmeticOp::Mod,
        "^" => ArithmeticOp::Pow,
        _ => return None,
    })
}

pub(crate) fn spanset_op(sign: &str) -> Option<SpansetOp> {
    use Relation::{Ancestor, Child, Descendant, Parent, Sibling};
    Some(match sign {
        "&&" => SpansetOp::And,
        "||" => SpansetOp::Or,
        ">" => SpansetOp::Related(Child),
        "<" => SpansetOp::Related(Parent),
        ">>" => SpansetOp::Related(Descendant),
        "<<" => SpansetOp::Related(Ancestor),
        "~" => SpansetOp::Related(Sibling),
        "!>" => SpansetOp::NotRelated(Child),
        "!<" => SpansetOp::NotRelated(Parent),
        "!>>" => SpansetOp::NotRelated(Descendant),
        "!<<" => SpansetOp::NotRelated(Ancestor),
        "!~" => SpansetOp::NotRelated(Sibling),
        "&>" => SpansetOp::UnionRelated(Child),
        "&<" => SpansetOp::UnionRelated(Parent),
        "&>>" => SpansetOp::UnionRelated(Descendant),
        "&<<" => SpansetOp::UnionRelated(Ancestor),
        "&~" => SpansetOp::UnionRelated(Sibling),
        _ => return None,
    })
}

/// How tightly a binary operator binds; the loosest is 1.
pub(crate) fn level(sign: &str) -> Option<usize> {
    Some(match sign {
        "&&" | "||" => 1,
        "+" | "-" => 3,
        "*" | "/" | "%" => 5,
        "^" => 6,
        _ if compare_op(sign).is_some() || spanset_op(sign).is_some() => 2,
        _ => return None,
    })
}

/// `!` binds tighter than `+`, looser than `*`; the sign of a number as `+` does.
pub(crate) const NOT_LEVEL: usize = 5;
pub(crate) const NEGATE_LEVEL: usize = 4;
