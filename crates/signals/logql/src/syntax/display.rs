//! The canonical text of a tree. It parses back to an equal tree: that is how queries travel to the leaves.

use std::fmt::{self, Display, Formatter};

use triptych_model::Matcher;

use super::ast::*;
use super::units::{format_bytes, format_duration_ns};

/// A string literal as the lexer reads it back.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn join<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    separator: &str,
    mut one: impl FnMut(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        one(f, item)?;
    }
    Ok(())
}

fn matcher(f: &mut Formatter<'_>, m: &Matcher) -> fmt::Result {
    write!(f, "{}{}{}", m.name, m.op.as_str(), quote(&m.value))
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Log(log) => log.fmt(f),
            Expr::Metric(metric) => metric.fmt(f),
        }
    }
}

impl Display for LogExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        join(f, &self.matchers, ", ", matcher)?;
        f.write_str("}")?;
        self.stages.iter().try_for_each(|stage| write!(f, " {stage}"))
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Stage::Line(filter) => filter.fmt(f),
            Stage::Json(extractions) => {
                f.write_str("| json")?;
                extract(f, extractions)
            }
            Stage::Logfmt { strict, keep_empty, extractions } => {
                f.write_str("| logfmt")?;
                if *strict {
                    f.write_str(" --strict")?;
                }
                if *keep_empty {
                    f.write_str(" --keep-empty")?;
                }
                extract(f, extractions)
            }
            Stage::Regexp(regex) => write!(f, "| regexp {}", quote(regex)),
            Stage::Pattern(pattern) => write!(f, "| pattern {}", quote(pattern)),
            Stage::Unpack => f.write_str("| unpack"),
            Stage::LabelFilter(filter) if looks_like_a_stage(filter) => write!(f, "| ( {filter} )"),
            Stage::LabelFilter(filter) => write!(f, "| {filter}"),
            Stage::LineFormat(template) => write!(f, "| line_format {}", quote(template)),
            Stage::LabelFormat(formats) => {
                f.write_str("| label_format ")?;
                join(f, formats, ",", |f, format| match format {
                    LabelFormat::Rename { label, from } => write!(f, "{label}={from}"),
                    LabelFormat::Template { label, template } => write!(f, "{label}={}", quote(template)),
                })
            }
            Stage::Decolorize => f.write_str("| decolorize"),
            Stage::Drop(picks) => {
                f.write_str("| drop ")?;
                join(f, picks, ",", pick)
            }
            Stage::Keep(picks) => {
                f.write_str("| keep ")?;
                join(f, picks, ",", pick)
            }
        }
    }
}

/// `json!="x"` alone would be read as the parser and a line filter.
fn looks_like_a_stage(filter: &LabelFilterExpr) -> bool {
    let (label, negative) = match filter {
        LabelFilterExpr::Matcher(m) => (&m.name, m.is_negative()),
        LabelFilterExpr::Number { label, op, .. }
        | LabelFilterExpr::Duration { label, op, .. }
        | LabelFilterExpr::Bytes { label, op, .. } => (label, *op == CompareOp::NotEqual),
        LabelFilterExpr::Ip { label, negative, .. } => (label, *negative),
        LabelFilterExpr::And(_) | LabelFilterExpr::Or(_) => return false,
    };
    negative && super::parser::BARE_STAGES.iter().any(|s| label.eq_ignore_ascii_case(s))
}

fn extract(f: &mut Formatter<'_>, extractions: &[Extraction]) -> fmt::Result {
    if !extractions.is_empty() {
        f.write_str(" ")?;
    }
    join(f, extractions, ",", |f, e| write!(f, "{}={}", e.label, quote(&e.path)))
}

fn pick(f: &mut Formatter<'_>, pick: &LabelPick) -> fmt::Result {
    match pick {
        LabelPick::Name(name) => f.write_str(name),
        LabelPick::Matcher(m) => matcher(f, m),
    }
}

impl Display for LineFilterExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.op.as_str())?;
        join(f, &self.needles, " or ", |f, needle| match needle {
            LineNeedle::Text(text) => f.write_str(&quote(text)),
            LineNeedle::Ip(pattern) => write!(f, "ip({})", quote(pattern)),
        })
    }
}

impl Display for LabelFilterExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            LabelFilterExpr::Matcher(m) => matcher(f, m),
            LabelFilterExpr::Number { label, op, value } => write!(f, "{label}{}{value}", op.as_str()),
            LabelFilterExpr::Duration { label, op, ns } => {
                write!(f, "{label}{}{}", op.as_str(), format_duration_ns(*ns))
            }
            LabelFilterExpr::Bytes { label, op, bytes } => {
                write!(f, "{label}{}{}", op.as_str(), format_bytes(*bytes))
            }
            LabelFilterExpr::Ip { label, negative, pattern } => {
                write!(f, "{label}{}ip({})", if *negative { "!=" } else { "=" }, quote(pattern))
            }
            LabelFilterExpr::And(all) | LabelFilterExpr::Or(all) => {
                let and = matches!(self, LabelFilterExpr::And(_));
                f.write_str("( ")?;
                join(f, all, if and { " and " } else { " or " }, |f, one| one.fmt(f))?;
                f.write_str(" )")
            }
        }
    }
}

impl Display for Grouping {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", if self.without { "without" } else { "by" }, self.labels.join(","))
    }
}

impl Display for MetricExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            MetricExpr::Range(range) => range.fmt(f),
            MetricExpr::Vector(vector) => vector.fmt(f),
            MetricExpr::Binary(binary) => binary.fmt(f),
            MetricExpr::Literal(value) => write!(f, "{value}"),
            MetricExpr::VectorLiteral(value) => write!(f, "vector({value})"),
            MetricExpr::LabelReplace(replace) => replace.fmt(f),
        }
    }
}

impl Display for RangeAgg {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.op.as_str())?;
        if let Some(param) = self.param {
            write!(f, "{param},")?;
        }
        self.log.fmt(f)?;
        if let Some(unwrap) = &self.unwrap {
            match unwrap.conversion {
                Some(conversion) => write!(f, " | unwrap {}({})", conversion.as_str(), unwrap.label)?,
                None => write!(f, " | unwrap {}", unwrap.label)?,
            }
            unwrap.filters.iter().try_for_each(|filter| write!(f, " | {filter}"))?;
        }
        write!(f, " [{}]", format_duration_ns(self.range_ns))?;
        if self.offset_ns != 0 {
            write!(f, " offset {}", format_duration_ns(self.offset_ns))?;
        }
        f.write_str(")")?;
        match &self.grouping {
            Some(grouping) => write!(f, " {grouping}"),
            None => Ok(()),
        }
    }
}

impl Display for VectorAgg {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.op.as_str())?;
        if let Some(grouping) = &self.grouping {
            write!(f, " {grouping} ")?;
        }
        f.write_str("(")?;
        if let Some(param) = self.param {
            write!(f, "{param},")?;
        }
        write!(f, "{})", self.inner)
    }
}

impl Display for Binary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "({} {}", self.left, self.op.as_str())?;
        if self.return_bool {
            f.write_str(" bool")?;
        }
        let m = &self.matching;
        if m.on || !m.labels.is_empty() || m.group != Group::OneToOne {
            write!(f, " {} ({})", if m.on { "on" } else { "ignoring" }, m.labels.join(","))?;
        }
        match m.group {
            Group::OneToOne => {}
            Group::Left => write!(f, " group_left ({})", m.include.join(","))?,
            Group::Right => write!(f, " group_right ({})", m.include.join(","))?,
        }
        write!(f, " {})", self.right)
    }
}

impl Display for LabelReplace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "label_replace({},{},{},{},{})",
            self.inner,
            quote(&self.dst),
            quote(&self.replacement),
            quote(&self.src),
            quote(&self.regex)
        )
    }
}
