//! The tree as text again.

use std::fmt::{self, Display, Formatter, Write};

use triptych_model::traces::Value;

use crate::ast::{
    Body, FieldExpr, MetricsExpr, MetricsLeaf, MetricsOp, Pipeline, Query, ScalarExpr, ScalarFilter,
    SecondStage, SpansetExpr, SpansetOp, Stage,
};
use crate::lexer::is_attribute_rune;
use crate::source::{Attribute, Intrinsic, Scope};

impl Scope {
    /// `""` for [`Scope::Any`].
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Any => "",
            Scope::Span => "span",
            Scope::Resource => "resource",
            Scope::Event => "event",
            Scope::Link => "link",
            Scope::Instrumentation => "instrumentation",
        }
    }
}

impl Intrinsic {
    /// The name in queries and answers: bare where a bare name exists, else with its scope.
    pub fn as_str(self) -> &'static str {
        match self {
            Intrinsic::Name => "name",
            Intrinsic::Duration => "duration",
            Intrinsic::Status => "status",
            Intrinsic::StatusMessage => "statusMessage",
            Intrinsic::Kind => "kind",
            Intrinsic::ChildCount => "span:childCount",
            Intrinsic::TraceId => "trace:id",
            Intrinsic::SpanId => "span:id",
            Intrinsic::ParentId => "span:parentID",
            Intrinsic::TraceDuration => "traceDuration",
            Intrinsic::RootName => "rootName",
            Intrinsic::RootServiceName => "rootServiceName",
            Intrinsic::NestedSetLeft => "nestedSetLeft",
            Intrinsic::NestedSetRight => "nestedSetRight",
            Intrinsic::NestedSetParent => "nestedSetParent",
            Intrinsic::EventName => "event:name",
            Intrinsic::EventTimeSinceStart => "event:timeSinceStart",
            Intrinsic::LinkTraceId => "link:traceID",
            Intrinsic::LinkSpanId => "link:spanID",
            Intrinsic::InstrumentationName => "instrumentation:name",
            Intrinsic::InstrumentationVersion => "instrumentation:version",
        }
    }
}

impl Attribute {
    /// The key in a search's answer: without scope.
    pub fn key(&self) -> &str {
        match self {
            Attribute::Intrinsic(i) => i.as_str(),
            Attribute::Named(_, name) => name,
        }
    }
}

impl Display for Attribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Attribute::Intrinsic(i) => f.write_str(i.as_str()),
            Attribute::Named(scope, name) => {
                write!(f, "{}.", scope.as_str())?;
                // `.3` would be a number, `.//` a name.
                let digit_first = *scope == Scope::Any && name.starts_with(|c: char| c.is_ascii_digit());
                if !name.is_empty() && !digit_first && name.chars().all(|c| is_attribute_rune(c) && c != '"')
                {
                    return f.write_str(name);
                }
                f.write_char('"')?;
                for c in name.chars() {
                    if matches!(c, '"' | '\\') {
                        f.write_char('\\')?;
                    }
                    f.write_char(c)?;
                }
                f.write_char('"')
            }
        }
    }
}

/// A literal.
pub(crate) struct Literal<'a>(pub &'a Value);

impl Display for Literal<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(s) => {
                f.write_char('"')?;
                for c in s.chars() {
                    match c {
                        '"' => f.write_str("\\\"")?,
                        '\\' => f.write_str("\\\\")?,
                        '\n' => f.write_str("\\n")?,
                        '\r' => f.write_str("\\r")?,
                        '\t' => f.write_str("\\t")?,
                        c if c.is_control() => write!(f, "\\U{:08x}", c as u32)?,
                        c => f.write_char(c)?,
                    }
                }
                f.write_char('"')
            }
            Value::Int(i64::MIN) => f.write_str("minInt"),
            Value::Float(v) if v.is_finite() => write!(f, "{v:?}"),
            Value::Duration(i64::MIN) => f.write_str("-9223372036854775807ns - 1ns"),
            other => write!(f, "{other}"),
        }
    }
}

/// `parent` binds as tightly as its children must: whatever is not atomic gets parentheses.
fn field(e: &FieldExpr, f: &mut Formatter<'_>) -> fmt::Result {
    let atomic = match e {
        // A sign would be read as an operator: `2 ^ -1` is fine, `-1 ^ 2` is not.
        FieldExpr::Value(Value::Int(i) | Value::Duration(i)) => *i >= 0 || *i == i64::MIN,
        FieldExpr::Value(Value::Float(v)) => v.is_sign_positive(),
        FieldExpr::Value(_) | FieldExpr::Attribute(_) => true,
        _ => false,
    };
    if atomic && !matches!(e, FieldExpr::Value(Value::Duration(i64::MIN))) {
        write!(f, "{e}")
    } else {
        write!(f, "({e})")
    }
}

impl Display for FieldExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut list = |all: &[FieldExpr], sign: &str| {
            for (i, e) in all.iter().enumerate() {
                if i > 0 {
                    f.write_str(sign)?;
                }
                if matches!(e, FieldExpr::And(_) | FieldExpr::Or(_)) {
                    write!(f, "({e})")?
                } else {
                    write!(f, "{e}")?
                }
            }
            Ok(())
        };
        match self {
            FieldExpr::Value(v) => write!(f, "{}", Literal(v)),
            FieldExpr::Attribute(a) => write!(f, "{a}"),
            FieldExpr::Not(e) => {
                f.write_char('!')?;
                field(e, f)
            }
            FieldExpr::Negate(e) => {
                f.write_char('-')?;
                field(e, f)
            }
            FieldExpr::Exists(e, yes) => {
                field(e, f)?;
                f.write_str(if *yes { " != nil" } else { " = nil" })
            }
            FieldExpr::And(all) => list(all, " && "),
            FieldExpr::Or(all) => list(all, " || "),
            FieldExpr::Compare { op, left, right } => {
                field(left, f)?;
                write!(f, " {} ", op.as_str())?;
                field(right, f)
            }
            FieldExpr::Arithmetic { op, left, right } => {
                field(left, f)?;
                write!(f, " {} ", op.as_str())?;
                field(right, f)
            }
        }
    }
}

impl Display for SpansetOp {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            SpansetOp::And => f.write_str("&&"),
            SpansetOp::Or => f.write_str("||"),
            SpansetOp::Related(r) => f.write_str(r.sign()),
            SpansetOp::NotRelated(r) => write!(f, "!{}", r.sign()),
            SpansetOp::UnionRelated(r) => write!(f, "&{}", r.sign()),
        }
    }
}

impl Display for SpansetExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let side = |e: &SpansetExpr, f: &mut Formatter<'_>| match e {
            SpansetExpr::Op { .. } => write!(f, "({e})"),
            _ => write!(f, "{e}"),
        };
        match self {
            SpansetExpr::Filter(e) => write!(f, "{{ {e} }}"),
            SpansetExpr::Op { op, left, right } => {
                side(left, f)?;
                write!(f, " {op} ")?;
                side(right, f)
            }
            SpansetExpr::Pipeline(p) => write!(f, "({p})"),
        }
    }
}

impl Display for ScalarExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let side = |e: &ScalarExpr, f: &mut Formatter<'_>| match e {
            ScalarExpr::Count | ScalarExpr::Aggregate { .. } => write!(f, "{e}"),
            _ => write!(f, "({e})"),
        };
        match self {
            ScalarExpr::Value(v) => write!(f, "{}", Literal(v)),
            ScalarExpr::Count => f.write_str("count()"),
            ScalarExpr::Aggregate { op, of } => write!(f, "{}({of})", op.as_str()),
            ScalarExpr::Arithmetic { op, left, right } => {
                side(left, f)?;
                write!(f, " {} ", op.as_str())?;
                side(right, f)
            }
        }
    }
}

impl Display for ScalarFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.op.as_str(), self.right)
    }
}

fn attributes(all: &[Attribute], f: &mut Formatter<'_>) -> fmt::Result {
    for (i, a) in all.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{a}")?;
    }
    Ok(())
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Spans(e) => write!(f, "{e}"),
            Stage::Filter(filter) => write!(f, "{filter}"),
            Stage::By(e) => write!(f, "by({e})"),
            Stage::Coalesce => f.write_str("coalesce()"),
            Stage::Select(all) => {
                f.write_str("select(")?;
                attributes(all, f)?;
                f.write_char(')')
            }
        }
    }
}

impl Display for Pipeline {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, stage) in self.stages.iter().enumerate() {
            if i > 0 {
                f.write_str(" | ")?;
            }
            write!(f, "{stage}")?;
        }
        Ok(())
    }
}

impl Display for MetricsLeaf {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}(", self.pipeline, self.op.name())?;
        if let Some(attribute) = self.op.attribute() {
            write!(f, "{attribute}")?;
        }
        if let MetricsOp::QuantileOverTime(_, quantiles) = &self.op {
            for q in quantiles {
                write!(f, ", {q:?}")?;
            }
        }
        f.write_char(')')?;
        if !self.by.is_empty() {
            f.write_str(" by (")?;
            attributes(&self.by, f)?;
            f.write_char(')')?;
        }
        Ok(())
    }
}

impl Display for MetricsExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            MetricsExpr::Leaf(leaf) => write!(f, "{leaf}"),
            MetricsExpr::Number(v) => write!(f, "{v:?}"),
            MetricsExpr::Math { op, left, right } => write!(f, "({left}) {} ({right})", op.as_str()),
            MetricsExpr::Second { of, stages } => {
                match **of {
                    MetricsExpr::Leaf(_) => write!(f, "{of}")?,
                    _ => write!(f, "({of})")?,
                }
                for stage in stages {
                    match stage {
                        SecondStage::Topk(k) => write!(f, " | topk({k})")?,
                        SecondStage::Bottomk(k) => write!(f, " | bottomk({k})")?,
                        SecondStage::Filter(op, v) => write!(f, " {} {v:?}", op.as_str())?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Spans(p) => write!(f, "{p}")?,
            Body::Metrics(m) => write!(f, "{m}")?,
        }
        if !self.hints.is_empty() {
            f.write_str(" with (")?;
            for (i, (key, value)) in self.hints.iter().enumerate() {
                if i > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{key}={}", Literal(value))?;
            }
            f.write_char(')')?;
        }
        Ok(())
    }
}
