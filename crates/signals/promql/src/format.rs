//! The tree as text: `Display` on one line, [`Expr::pretty`] over several lines where one would be too long. Both follow
//! Prometheus' `/api/v1/format_query`.

use std::fmt::{self, Display, Formatter, Write};

use crate::ast::*;

/// Lines longer than this are split (Prometheus' prettifier).
const LINE_BYTES_MAX: usize = 100;

/// A duration as Prometheus writes it: `1h30m`, `0s`.
pub fn duration_text(ms: i64) -> String {
    if ms == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    let mut rest = ms.unsigned_abs();
    if ms < 0 {
        out.push('-');
    }
    // Years, weeks and days are only written when nothing smaller is left over.
    for (unit, unit_ms, exact) in [
        ("y", 365 * 86_400_000u64, true),
        ("w", 7 * 86_400_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1000, false),
        ("ms", 1, false),
    ] {
        if exact && !rest.is_multiple_of(unit_ms) {
            continue;
        }
        let count = rest / unit_ms;
        if count > 0 {
            let _ = write!(out, "{count}{unit}");
            rest %= unit_ms;
        }
    }
    out
}

/// A number as Go's `FormatFloat(v, 'f', -1, 64)` writes it.
pub fn number_text(value: f64) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf".into() } else { "-Inf".into() }
    } else {
        value.to_string()
    }
}

/// A string in double quotes, with Go's escapes.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Whether a label may be written without quotes.
pub fn is_plain_label(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether a metric may stand in front of the braces.
pub fn is_plain_metric(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

fn label_list(labels: &[String]) -> String {
    let all: Vec<String> =
        labels.iter().map(|l| if is_plain_label(l) { l.clone() } else { quoted(l) }).collect();
    all.join(", ")
}

fn at_offset(at: Option<At>, offset: Option<&DurationExpr>) -> String {
    let mut out = match at {
        None => String::new(),
        Some(At::Ms(ms)) => format!(" @ {:.3}", ms as f64 / 1000.0),
        Some(At::Start) => " @ start()".into(),
        Some(At::End) => " @ end()".into(),
    };
    if let Some(offset) = offset.filter(|o| **o != DurationExpr::Ms(0)) {
        let _ = write!(out, " offset {offset}");
    }
    out
}

impl VectorSelector {
    fn without_modifiers(&self) -> String {
        let named = |m: &&triptych_model::Matcher| {
            !(m.name == "__name__" && m.op == triptych_model::MatchOp::Equal && m.value == self.name)
                || self.name.is_empty()
        };
        let mut all: Vec<String> = self
            .matchers
            .iter()
            .filter(named)
            .map(|m| {
                let name = if is_plain_label(&m.name) { m.name.clone() } else { quoted(&m.name) };
                format!("{name}{}{}", m.op.as_str(), quoted(&m.value))
            })
            .collect();
        all.sort();
        if all.is_empty() && !self.name.is_empty() {
            return self.name.clone();
        }
        format!("{}{{{}}}", self.name, all.join(","))
    }
}

impl Subquery {
    fn suffix(&self) -> String {
        let step = self.step.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("[{}:{step}]{}", self.range, at_offset(self.at, self.offset.as_ref()))
    }
}

impl Aggregate {
    fn head(&self) -> String {
        let labels = label_list(&self.labels);
        match (self.without, self.labels.is_empty()) {
            (true, _) => format!("{} without ({labels}) ", self.op.as_str()),
            (false, false) => format!("{} by ({labels}) ", self.op.as_str()),
            (false, true) => self.op.as_str().into(),
        }
    }
}

impl Binary {
    fn operator(&self) -> String {
        let mut out = self.op.as_str().to_owned();
        if self.return_bool {
            out.push_str(" bool");
        }
        let m = &self.matching;
        if !m.labels.is_empty() || m.on || m.grouping != Grouping::None {
            let _ = write!(out, " {} ({})", if m.on { "on" } else { "ignoring" }, label_list(&m.labels));
        }
        if m.grouping != Grouping::None {
            let side = if m.grouping == Grouping::Left { "left" } else { "right" };
            let _ = write!(out, " group_{side} ({})", label_list(&m.include));
        }
        match (m.fill_left, m.fill_right) {
            (Some(l), Some(r)) if l == r => {
                let _ = write!(out, " fill ({})", number_text(l));
            }
            (l, r) => {
                if let Some(l) = l {
                    let _ = write!(out, " fill_left ({})", number_text(l));
                }
                if let Some(r) = r {
                    let _ = write!(out, " fill_right ({})", number_text(r));
                }
            }
        }
        out
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DurationExpr::Ms(ms) => f.write_str(&duration_text(*ms)),
            DurationExpr::Step => f.write_str("step()"),
            DurationExpr::Range => f.write_str("range()"),
            DurationExpr::Negative(e) => write!(f, "-{e}"),
            DurationExpr::Paren(e) => write!(f, "({e})"),
            DurationExpr::Binary(op, l, r) => write!(f, "{l} {} {r}", op.as_str()),
            DurationExpr::MinOf(l, r) => write!(f, "min_of({l}, {r})"),
            DurationExpr::MaxOf(l, r) => write!(f, "max_of({l}, {r})"),
        }
    }
}

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.duration {
            f.write_str(&duration_text((self.value * 1000.0).round() as i64))
        } else {
            f.write_str(&number_text(self.value))
        }
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Number(n) => n.fmt(f),
            Expr::String(s) => match &s.raw {
                None => f.write_str(&quoted(&s.value)),
                Some(raw) => {
                    f.write_str("\"")?;
                    for chunk in raw.utf8_chunks() {
                        let valid = quoted(chunk.valid());
                        f.write_str(&valid[1..valid.len() - 1])?;
                        for byte in chunk.invalid() {
                            write!(f, "\\x{byte:02x}")?;
                        }
                    }
                    f.write_str("\"")
                }
            },
            Expr::Paren(e, _) => write!(f, "({e})"),
            Expr::Unary(e) => write!(f, "{}{}", if e.negative { "-" } else { "+" }, e.expr),
            Expr::Binary(e) => write!(f, "{} {} {}", e.left, e.operator(), e.right),
            Expr::Call(e) => {
                write!(f, "{}(", e.function.name)?;
                list(f, &e.args)?;
                f.write_str(")")
            }
            Expr::Aggregate(e) => {
                write!(f, "{}(", e.head())?;
                if let Some(param) = &e.param {
                    write!(f, "{param}, ")?;
                }
                write!(f, "{})", e.expr)
            }
            Expr::Vector(e) => write!(f, "{}{}", e.without_modifiers(), at_offset(e.at, e.offset.as_ref())),
            Expr::Matrix(e) => {
                let s = &e.selector;
                write!(f, "{}[{}]{}", s.without_modifiers(), e.range, at_offset(s.at, s.offset.as_ref()))
            }
            Expr::Subquery(e) => write!(f, "{}{}", e.expr, e.suffix()),
        }
    }
}

fn list(f: &mut Formatter<'_>, exprs: &[Expr]) -> fmt::Result {
    for (i, e) in exprs.iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        e.fmt(f)?;
    }
    Ok(())
}

impl Expr {
    /// The text of `/api/v1/format_query`.
    pub fn pretty(&self) -> String {
        self.pretty_at(0)
    }

    fn pretty_at(&self, level: usize) -> String {
        let indent = "  ".repeat(level);
        let line = self.to_string();
        if let Expr::Unary(e) = self {
            let sign = if e.negative { "-" } else { "+" };
            return format!("{indent}{sign}{}", e.expr.pretty_at(level).trim());
        }
        if line.len() <= LINE_BYTES_MAX {
            return format!("{indent}{line}");
        }
        match self {
            Expr::Paren(e, _) => format!("{indent}(\n{}\n{indent})", e.pretty_at(level + 1)),
            Expr::Binary(e) => {
                format!(
                    "{}\n{indent}{}\n{}",
                    e.left.pretty_at(level + 1),
                    e.operator(),
                    e.right.pretty_at(level + 1)
                )
            }
            Expr::Call(e) => {
                let args: Vec<String> = e.args.iter().map(|a| a.pretty_at(level + 1)).collect();
                format!("{indent}{}(\n{}\n{indent})", e.function.name, args.join(",\n"))
            }
            Expr::Aggregate(e) => {
                let param = e.param.as_ref().map(|p| p.pretty_at(level + 1) + ",\n").unwrap_or_default();
                format!("{indent}{}(\n{param}{}\n{indent})", e.head(), e.expr.pretty_at(level + 1))
            }
            Expr::Subquery(e) => format!("{}{}", e.expr.pretty_at(level), e.suffix()),
            _ => format!("{indent}{line}"),
        }
    }
}
