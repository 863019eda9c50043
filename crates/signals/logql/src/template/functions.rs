//! The functions a template may call. Where Go's own and Sprig's spelling differ in the order of arguments, both are here, as
//! in Loki: `Replace s old new n` but `replace old new s`.

use std::cmp::Ordering;
use std::fmt::Write;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regex::Regex;
use triptych_runtime::now_ns;

use super::printf::printf;
use super::value::Value;
use super::{OUTPUT_BYTES_MAX, Rendered, Run, time};
use crate::pipeline::labels::LineLabels;
use crate::pipeline::regexes;
use crate::syntax::units;

macro_rules! functions {
    ($($variant:ident = $($name:literal)|+),* $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Function { $($variant),* }
        impl Function {
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($($name)|+ => Some(Function::$variant),)* _ => None }
            }
            pub fn name(self) -> &'static str {
                match self { $(Function::$variant => functions!(@first $($name)|+)),* }
            }
        }
    };
    (@first $first:literal $(| $rest:literal)*) => { $first };
}

functions! {
    // text/template's own
    And = "and", Or = "or", Not = "not", Eq = "eq", Ne = "ne", Lt = "lt", Le = "le", Gt = "gt", Ge = "ge",
    Len = "len", Index = "index", Slice = "slice", Print = "print", Printf = "printf", Println = "println",
    Html = "html", Js = "js", UrlQuery = "urlquery" | "urlencode",
    // the line
    Line = "__line__" | "line", Timestamp = "__timestamp__" | "timestamp",
    // strings
    Lower = "lower" | "ToLower", Upper = "upper" | "ToUpper", Title = "title",
    GoReplace = "Replace", Replace = "replace",
    GoTrim = "Trim", GoTrimLeft = "TrimLeft", GoTrimRight = "TrimRight", GoTrimPrefix = "TrimPrefix",
    GoTrimSuffix = "TrimSuffix", TrimSpace = "TrimSpace" | "trim", TrimAll = "trimAll", TrimPrefix = "trimPrefix",
    TrimSuffix = "trimSuffix",
    RegexReplaceAll = "regexReplaceAll", RegexReplaceAllLiteral = "regexReplaceAllLiteral", Count = "count",
    Contains = "contains", HasPrefix = "hasPrefix", HasSuffix = "hasSuffix",
    Trunc = "trunc", Substr = "substr", Indent = "indent", Nindent = "nindent", Repeat = "repeat",
    AlignLeft = "alignLeft", AlignRight = "alignRight", Default = "default",
    B64enc = "b64enc", B64dec = "b64dec", UrlDecode = "urldecode", FromJson = "fromJson",
    // numbers
    Int = "int", Float64 = "float64", Add = "add", Sub = "sub", Mul = "mul", Div = "div", Mod = "mod",
    Addf = "addf", Subf = "subf", Mulf = "mulf", Divf = "divf", Max = "max", Min = "min", Maxf = "maxf",
    Minf = "minf", Ceil = "ceil", Floor = "floor", Round = "round",
    Bytes = "bytes", Duration = "duration" | "duration_seconds",
    // time
    Now = "now", Date = "date", ToDate = "toDate", ToDateInZone = "toDateInZone", UnixEpoch = "unixEpoch",
    UnixEpochMillis = "unixEpochMillis", UnixEpochNanos = "unixEpochNanos", UnixToTime = "unixToTime",
}

/// Arguments with names for errors.
pub(super) struct Arguments<'a, 'r> {
    function: Function,
    pub(super) values: Vec<Value>,
    pub(super) run: &'a Run<'r>,
}

impl Arguments<'_, '_> {
    fn count(&self, wanted: usize) -> Rendered<()> {
        if self.values.len() == wanted {
            return Ok(());
        }
        Err(format!(
            "wrong number of args for {}: want {wanted} got {}",
            self.function.name(),
            self.values.len()
        ))
    }

    pub(super) fn text(&self, at: usize) -> String {
        self.values.get(at).map(|v| v.to_text(self.run.labels)).unwrap_or_default()
    }

    /// Sprig's cast: what is no number is 0.
    pub(super) fn int(&self, at: usize) -> i64 {
        match self.values.get(at) {
            Some(Value::Int(i)) => *i,
            Some(Value::Float(f)) => *f as i64,
            Some(Value::Bool(b)) => i64::from(*b),
            Some(Value::Text(t)) => t
                .parse()
                .unwrap_or_else(|_| t.parse::<f64>().ok().filter(|f| f.is_finite()).map_or(0, |f| f as i64)),
            _ => 0,
        }
    }

    fn float(&self, at: usize) -> f64 {
        match self.values.get(at) {
            Some(Value::Int(i)) => *i as f64,
            Some(Value::Float(f)) => *f,
            Some(Value::Bool(b)) => f64::from(u8::from(*b)),
            Some(Value::Text(t)) => t.parse().unwrap_or(0.0),
            _ => 0.0,
        }
    }

    fn regex(&self) -> Rendered<Arc<Regex>> {
        match self.values.first() {
            Some(Value::Regex(regex)) => Ok(regex.clone()),
            _ => regexes::compile(&self.text(0)).map(Arc::new).map_err(|e| e.to_string()),
        }
    }

    fn time(&self, at: usize) -> Rendered<(i64, i32)> {
        match self.values.get(at) {
            Some(Value::Time(ns, offset)) => Ok((*ns, *offset)),
            Some(Value::Int(s)) => Ok((s.saturating_mul(1_000_000_000), 0)),
            other => Err(format!(
                "{}: expected time.Time; found {}",
                self.function.name(),
                other.map_or("nothing", Value::kind)
            )),
        }
    }

    fn ints(&self, start: usize, fold: impl Fn(i64, i64) -> Option<i64>) -> Rendered<Value> {
        if self.values.len() < 2 && start == 0 {
            self.count(2)?;
        }
        let mut total = self.int(0);
        for at in 1..self.values.len() {
            total = fold(total, self.int(at))
                .ok_or_else(|| format!("{}: integer overflow or division by zero", self.function.name()))?;
        }
        Ok(Value::Int(total))
    }

    fn floats(&self, fold: impl Fn(f64, f64) -> f64) -> Rendered<Value> {
        let mut total = self.float(0);
        for at in 1..self.values.len() {
            total = fold(total, self.float(at));
        }
        Ok(Value::Float(total))
    }
}

pub(super) fn width(count: i64) -> Rendered<usize> {
    usize::try_from(count.max(0))
        .ok()
        .filter(|w| *w <= OUTPUT_BYTES_MAX)
        .ok_or_else(|| format!("{count} is wider than {OUTPUT_BYTES_MAX}"))
}

fn zone(name: &str) -> Rendered<jiff::tz::TimeZone> {
    if matches!(name, "" | "UTC" | "Local") {
        return Ok(jiff::tz::TimeZone::UTC);
    }
    jiff::tz::TimeZone::get(name).map_err(|_| format!("unknown time zone {name}"))
}

impl Function {
    /// Whether `and` or `or` has its answer with this value.
    pub fn decides(self, value: &Value, labels: &LineLabels) -> bool {
        match self {
            Function::And => !value.is_true(labels),
            Function::Or => value.is_true(labels),
            _ => false,
        }
    }

    /// What a call costs beyond one step.
    pub fn cost(self, values: &[Value]) -> usize {
        let text: usize = values
            .iter()
            .map(|v| match v {
                Value::Text(text) => text.len(),
                _ => 0,
            })
            .sum();
        match self {
            Function::FromJson => text / 8,
            _ if self.wants_regex() => {
                text / 16
                    + if matches!(values.first(), Some(Value::Regex(_))) { 0 } else { super::REGEX_STEPS }
            }
            _ => text / 256,
        }
    }

    /// Whether the first argument is a regex.
    pub fn wants_regex(self) -> bool {
        matches!(self, Function::RegexReplaceAll | Function::RegexReplaceAllLiteral | Function::Count)
    }

    pub fn call(self, values: Vec<Value>, run: &Run<'_>) -> Rendered<Value> {
        let labels = run.labels;
        let a = Arguments { function: self, values, run };
        use Function::*;
        let text = |t: String| Ok(Value::Text(t));
        match self {
            And | Or => {
                let decided = a.values.iter().find(|v| self.decides(v, labels));
                decided
                    .or(a.values.last())
                    .cloned()
                    .ok_or_else(|| format!("wrong number of args for {}", self.name()))
            }
            Not => {
                a.count(1)?;
                Ok(Value::Bool(!a.values[0].is_true(labels)))
            }
            Eq => {
                if a.values.len() < 2 {
                    a.count(2)?;
                }
                for other in &a.values[1..] {
                    if compare(&a.values[0], other)? == Some(Ordering::Equal) {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
            Ne | Lt | Le | Gt | Ge => {
                a.count(2)?;
                let order = compare(&a.values[0], &a.values[1])?;
                Ok(Value::Bool(match self {
                    Ne => order != Some(Ordering::Equal),
                    Lt => order == Some(Ordering::Less),
                    Le => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                    Gt => order == Some(Ordering::Greater),
                    _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
                }))
            }
            Len => {
                a.count(1)?;
                Ok(Value::Int(match &a.values[0] {
                    Value::Text(t) => t.len(),
                    Value::Json(serde_json::Value::Array(items)) => items.len(),
                    Value::Json(serde_json::Value::Object(items)) => items.len(),
                    Value::Labels => labels.all().len(),
                    other => return Err(format!("len of type {}", other.kind())),
                } as i64))
            }
            Index => {
                let Some(mut value) = a.values.first().cloned() else {
                    return Err("index of nothing".to_owned());
                };
                for (at, key) in a.values.iter().enumerate().skip(1) {
                    value = match (&value, key) {
                        (Value::Json(serde_json::Value::Array(items)), Value::Int(i)) => usize::try_from(*i)
                            .ok()
                            .and_then(|i| items.get(i))
                            .map(Value::from_json)
                            .ok_or_else(|| format!("index out of range: {i}"))?,
                        (Value::Json(serde_json::Value::Object(items)), Value::Text(k)) => {
                            items.get(k).map_or(Value::Nil, Value::from_json)
                        }
                        (Value::Labels, Value::Text(k)) => {
                            Value::Text(labels.get(k).unwrap_or("").to_owned())
                        }
                        (Value::Text(t), Value::Int(i)) => usize::try_from(*i)
                            .ok()
                            .and_then(|i| t.as_bytes().get(i))
                            .map(|b| Value::Int(i64::from(*b)))
                            .ok_or_else(|| format!("index out of range: {i}"))?,
                        (value, _) => return Err(format!("can't index item {at} of type {}", value.kind())),
                    };
                }
                Ok(value)
            }
            Slice => {
                let whole = a.text(0);
                let start = if a.values.len() > 1 { a.int(1) } else { 0 };
                let end = if a.values.len() > 2 { a.int(2) } else { whole.len() as i64 };
                let part = usize::try_from(start)
                    .ok()
                    .zip(usize::try_from(end).ok())
                    .and_then(|(s, e)| whole.get(s..e));
                text(part.ok_or_else(|| format!("slice: index out of range: {start}:{end}"))?.to_owned())
            }
            Print | Println => {
                let mut out = String::new();
                for (i, value) in a.values.iter().enumerate() {
                    // Print puts blanks between operands when neither is a string.
                    let both = i > 0
                        && (self == Println
                            || !(matches!(value, Value::Text(_))
                                || matches!(a.values[i - 1], Value::Text(_))));
                    if both {
                        out.push(' ');
                    }
                    value.print(labels, &mut out);
                }
                if self == Println {
                    out.push('\n');
                }
                text(out)
            }
            Printf => text(printf(&a)?),
            Html => text(
                a.text(0)
                    .replace('&', "&amp;")
                    .replace('\'', "&#39;")
                    .replace('"', "&#34;")
                    .replace('<', "&lt;")
                    .replace('>', "&gt;"),
            ),
            Js => text(
                a.text(0)
                    .replace('\\', "\\\\")
                    .replace('\'', "\\'")
                    .replace('"', "\\\"")
                    .replace('<', "\\u003C"),
            ),
            UrlQuery => {
                let mut out = String::new();
                for byte in a.text(0).bytes() {
                    match byte {
                        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                            out.push(byte as char)
                        }
                        b' ' => out.push('+'),
                        _ => {
                            let _ = write!(out, "%{byte:02X}");
                        }
                    }
                }
                text(out)
            }
            UrlDecode => {
                let encoded = a.text(0);
                let mut out = Vec::new();
                let mut bytes = encoded.bytes();
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'+' => out.push(b' '),
                        b'%' => {
                            let digit = |b: Option<u8>| b.and_then(|b| (b as char).to_digit(16));
                            let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                            let (Some(high), Some(low)) = (high, low) else {
                                return Err("invalid URL escape".to_owned());
                            };
                            out.push((high * 16 + low) as u8);
                        }
                        _ => out.push(byte),
                    }
                }
                text(String::from_utf8_lossy(&out).into_owned())
            }
            Line => text(run.line.to_owned()),
            Timestamp => Ok(Value::Time(run.ts_ns, 0)),
            Lower => text(a.text(0).to_lowercase()),
            Upper => text(a.text(0).to_uppercase()),
            Title => {
                let mut start = true;
                let mut out = String::new();
                for c in a.text(0).chars() {
                    if start {
                        out.extend(c.to_uppercase());
                    } else {
                        out.push(c);
                    }
                    start = !(c.is_alphanumeric() || c == '_' || c == '\'');
                }
                text(out)
            }
            GoReplace => {
                a.count(4)?;
                let n = a.int(3);
                let (whole, old, new) = (a.text(0), a.text(1), a.text(2));
                check_replaced(&whole, &old, &new)?;
                text(match usize::try_from(n) {
                    Ok(n) => whole.replacen(&old, &new, n),
                    Err(_) => whole.replace(&old, &new),
                })
            }
            Replace => {
                a.count(3)?;
                let (old, new, whole) = (a.text(0), a.text(1), a.text(2));
                check_replaced(&whole, &old, &new)?;
                text(whole.replace(&old, &new))
            }
            GoTrim | GoTrimLeft | GoTrimRight => {
                a.count(2)?;
                let (whole, set) = (a.text(0), a.text(1));
                let cut = |c: char| set.contains(c);
                text(
                    match self {
                        GoTrim => whole.trim_matches(cut),
                        GoTrimLeft => whole.trim_start_matches(cut),
                        _ => whole.trim_end_matches(cut),
                    }
                    .to_owned(),
                )
            }
            TrimAll => {
                a.count(2)?;
                let set = a.text(0);
                text(a.text(1).trim_matches(|c: char| set.contains(c)).to_owned())
            }
            GoTrimPrefix | TrimPrefix | GoTrimSuffix | TrimSuffix => {
                a.count(2)?;
                let (whole, cut) = if matches!(self, GoTrimPrefix | GoTrimSuffix) {
                    (a.text(0), a.text(1))
                } else {
                    (a.text(1), a.text(0))
                };
                let left = if matches!(self, GoTrimPrefix | TrimPrefix) {
                    whole.strip_prefix(&cut)
                } else {
                    whole.strip_suffix(&cut)
                };
                text(left.unwrap_or(&whole).to_owned())
            }
            TrimSpace => text(a.text(0).trim().to_owned()),
            RegexReplaceAll | RegexReplaceAllLiteral => {
                a.count(3)?;
                let regex = a.regex()?;
                let (whole, new) = (a.text(1), a.text(2));
                let matches = regex.find_iter(&whole).count();
                if matches.saturating_mul(new.len() + whole.len()) > OUTPUT_BYTES_MAX * 16 {
                    return Err(format!("{}: the result is too large", self.name()));
                }
                text(if self == RegexReplaceAll {
                    regex.replace_all(&whole, new.as_str()).into_owned()
                } else {
                    regex.replace_all(&whole, regex::NoExpand(&new)).into_owned()
                })
            }
            Count => {
                a.count(2)?;
                let regex = a.regex()?;
                Ok(Value::Int(regex.find_iter(&a.text(1)).count() as i64))
            }
            Contains => {
                a.count(2)?;
                Ok(Value::Bool(a.text(1).contains(&a.text(0))))
            }
            HasPrefix => {
                a.count(2)?;
                Ok(Value::Bool(a.text(1).starts_with(&a.text(0))))
            }
            HasSuffix => {
                a.count(2)?;
                Ok(Value::Bool(a.text(1).ends_with(&a.text(0))))
            }
            Trunc => {
                a.count(2)?;
                let (n, whole) = (a.int(0), a.text(1));
                let chars = whole.chars().count();
                let wanted = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX).min(chars);
                text(if n < 0 {
                    whole.chars().skip(chars - wanted).collect()
                } else {
                    whole.chars().take(wanted).collect()
                })
            }
            Substr => {
                a.count(3)?;
                let (start, end, whole) = (a.int(0), a.int(1), a.text(2));
                let start = usize::try_from(start).unwrap_or(0);
                let end = usize::try_from(end).unwrap_or(usize::MAX);
                text(whole.chars().take(end).skip(start).collect())
            }
            Indent | Nindent => {
                a.count(2)?;
                let (pad, whole) = (width(a.int(0))?, a.text(1));
                let lines = whole.matches('\n').count() + 1;
                if lines.saturating_mul(pad) > OUTPUT_BYTES_MAX {
                    return Err(format!("{}: the result is too large", self.name()));
                }
                let pad = " ".repeat(pad);
                let first = if self == Nindent { "\n" } else { "" };
                text(format!("{first}{pad}{}", whole.replace('\n', &format!("\n{pad}"))))
            }
            Repeat => {
                a.count(2)?;
                let (times, whole) = (width(a.int(0))?, a.text(1));
                if times.saturating_mul(whole.len()) > OUTPUT_BYTES_MAX {
                    return Err("repeat: the result is too large".to_owned());
                }
                text(whole.repeat(times))
            }
            AlignLeft | AlignRight => {
                a.count(2)?;
                let (columns, whole) = (width(a.int(0))?, a.text(1));
                let chars = whole.chars().count();
                let pad = " ".repeat(columns.saturating_sub(chars));
                text(if self == AlignLeft {
                    let kept: String = whole.chars().take(columns).collect();
                    kept + &pad
                } else {
                    let kept: String = whole.chars().skip(chars.saturating_sub(columns)).collect();
                    pad + &kept
                })
            }
            Default => {
                a.count(2)?;
                Ok(a.values[usize::from(a.values[1].is_true(labels))].clone())
            }
            B64enc => text(BASE64.encode(a.text(0))),
            B64dec => text(match BASE64.decode(a.text(0)) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(e) => e.to_string(),
            }),
            FromJson => {
                a.count(1)?;
                // What is no JSON is nothing, and no error.
                let parsed = serde_json::from_str::<serde_json::Value>(&a.text(0));
                Ok(parsed.map_or(Value::Nil, |json| Value::from_json(&json)))
            }
            Int => {
                a.count(1)?;
                Ok(Value::Int(a.int(0)))
            }
            Float64 => {
                a.count(1)?;
                Ok(Value::Float(a.float(0)))
            }
            Add => a.ints(1, i64::checked_add),
            Sub => a.ints(0, i64::checked_sub),
            Mul => a.ints(0, i64::checked_mul),
            Div => a.ints(0, i64::checked_div),
            Mod => a.ints(0, i64::checked_rem),
            Max => a.ints(1, |x, y| Some(x.max(y))),
            Min => a.ints(1, |x, y| Some(x.min(y))),
            Addf => a.floats(|x, y| x + y),
            Subf => a.floats(|x, y| x - y),
            Mulf => a.floats(|x, y| x * y),
            Divf => a.floats(|x, y| x / y),
            Maxf => a.floats(f64::max),
            Minf => a.floats(f64::min),
            Ceil => Ok(Value::Float(a.float(0).ceil())),
            Floor => Ok(Value::Float(a.float(0).floor())),
            Round => {
                let factor = 10f64.powi(a.int(1).clamp(0, 15) as i32);
                let scaled = a.float(0) * factor;
                // From which fraction on it goes up; a half where not said.
                let up_from = if a.values.len() > 2 { a.float(2) } else { 0.5 };
                let (whole, fraction) = (scaled.trunc(), scaled.fract().abs());
                let away = if fraction >= up_from { scaled.signum() } else { 0.0 };
                Ok(Value::Float((whole + away) / factor))
            }
            Bytes => {
                let value = a.text(0);
                let bytes =
                    units::parse_bytes(&value).ok_or_else(|| format!("bytes: {value:?} is no size"))?;
                Ok(Value::Float(bytes as f64))
            }
            Duration => {
                let value = a.text(0);
                let ns = units::parse_duration_ns(&value)
                    .ok_or_else(|| format!("duration: {value:?} is no duration"))?;
                Ok(Value::Float(ns as f64 / 1e9))
            }
            Now => Ok(Value::Time(now_ns(), 0)),
            Date => {
                a.count(2)?;
                let (ns, offset) = a.time(1)?;
                let mut out = String::new();
                time::format(&a.text(0), ns, offset, &mut out);
                text(out)
            }
            ToDate => {
                a.count(2)?;
                let parsed = time::parse(&a.text(0), &a.text(1), &jiff::tz::TimeZone::UTC);
                // Sprig gives Go's zero time for what it cannot read.
                let (ns, offset) = parsed.ok_or_else(|| format!("toDate: cannot parse {:?}", a.text(1)))?;
                Ok(Value::Time(ns, offset))
            }
            ToDateInZone => {
                a.count(3)?;
                let parsed = time::parse(&a.text(0), &a.text(2), &zone(&a.text(1))?);
                let (ns, offset) =
                    parsed.ok_or_else(|| format!("toDateInZone: cannot parse {:?}", a.text(2)))?;
                Ok(Value::Time(ns, offset))
            }
            UnixEpoch => text(a.time(0)?.0.div_euclid(1_000_000_000).to_string()),
            UnixEpochMillis => text(a.time(0)?.0.div_euclid(1_000_000).to_string()),
            UnixEpochNanos => text(a.time(0)?.0.to_string()),
            UnixToTime => {
                // The number of digits tells the unit.
                let digits = a.text(0);
                let value: i64 = digits.parse().map_err(|_| format!("unable to parse time '{digits}'"))?;
                let factor = match digits.len() {
                    5 => 86_400_000_000_000,
                    10 => 1_000_000_000,
                    13 => 1_000_000,
                    16 => 1_000,
                    19 => 1,
                    _ => return Err(format!("unable to parse time '{digits}'")),
                };
                let ns =
                    value.checked_mul(factor).ok_or_else(|| format!("unable to parse time '{digits}'"))?;
                Ok(Value::Time(ns, 0))
            }
        }
    }
}

fn check_replaced(whole: &str, old: &str, new: &str) -> Rendered<()> {
    let matches = if old.is_empty() { whole.len() + 1 } else { whole.len() / old.len() };
    if new.len() > old.len() && matches.saturating_mul(new.len()) > OUTPUT_BYTES_MAX * 16 {
        return Err("replace: the result is too large".to_owned());
    }
    Ok(())
}

fn compare(left: &Value, right: &Value) -> Rendered<Option<Ordering>> {
    Ok(match (left, right) {
        (Value::Int(x), Value::Int(y)) => Some(x.cmp(y)),
        (Value::Float(x), Value::Float(y)) => x.partial_cmp(y),
        (Value::Text(x), Value::Text(y)) => Some(x.cmp(y)),
        (Value::Bool(x), Value::Bool(y)) => Some(x.cmp(y)),
        (Value::Time(x, _), Value::Time(y, _)) => Some(x.cmp(y)),
        (Value::Nil, Value::Nil) => Some(Ordering::Equal),
        (Value::Nil, _) | (_, Value::Nil) => None,
        _ => return Err(format!("incompatible types for comparison: {} and {}", left.kind(), right.kind())),
    })
}
