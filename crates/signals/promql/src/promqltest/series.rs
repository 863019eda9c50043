//! Descriptions of series: `metric{label="value"} 1 2+3x4 _x2 stale`.

use triptych_model::metrics::STALE_NAN_BITS;
use triptych_model::{Error, Labels, Result};

use crate::lexer::parse_number;
use crate::parser::parse_metric;

/// Most values one item may stand for.
const REPEAT_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    Missing,
    Float(f64),
    /// A native histogram, which we do not read.
    Histogram,
}

/// One line of a load command or an expectation.
pub fn parse_series(line: &str) -> Result<(Labels, Vec<Value>)> {
    let split = metric_end(line);
    let labels = parse_metric(&line[..split]).map_err(|e| Error::invalid(format!("{line:?}: {e}")))?;
    Ok((labels, parse_values(&line[split..])?))
}

/// Where the metric ends: after its braces, or at the first blank.
fn metric_end(line: &str) -> usize {
    let mut quote = None;
    let (mut in_braces, mut escaped) = (false, false);
    for (i, c) in line.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some('"' | '\''), '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'' | '`') if in_braces => quote = Some(c),
            (None, '{') => in_braces = true,
            (None, '}') => return i + 1,
            (None, c) if c.is_whitespace() && !in_braces => return i,
            _ => {}
        }
    }
    line.len()
}

fn parse_values(text: &str) -> Result<Vec<Value>> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if rest.starts_with("{{") {
            // `{{..}}`, `{{..}}x3`, `{{..}}+{{..}}x3`
            let mut end = 0;
            while rest[end..].starts_with("{{") {
                let length = rest[end..].find("}}").ok_or_else(|| bad(rest))? + 2;
                end += length;
                if rest[end..].starts_with(['+', '-']) {
                    end += 1;
                }
            }
            let tail = rest[end..]
                .split_whitespace()
                .next()
                .filter(|_| !rest[end..].starts_with(char::is_whitespace));
            let times = match tail.and_then(|t| t.strip_prefix('x')) {
                Some(n) => repeat(n)? + 1,
                None => 1,
            };
            out.extend(std::iter::repeat_n(Value::Histogram, times));
            rest = rest[end + tail.map_or(0, str::len)..].trim_start();
            continue;
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        parse_item(&rest[..end], &mut out)?;
        rest = rest[end..].trim_start();
    }
    Ok(out)
}

fn bad(item: &str) -> Error {
    Error::invalid(format!("{item:?} is not a value of a series"))
}

fn repeat(text: &str) -> Result<usize> {
    text.parse().ok().filter(|n| *n <= REPEAT_MAX).ok_or_else(|| bad(text))
}

fn parse_item(item: &str, out: &mut Vec<Value>) -> Result<()> {
    if let Some(times) = item.strip_prefix('_') {
        let times =
            if times.is_empty() { 1 } else { repeat(times.strip_prefix('x').ok_or_else(|| bad(item))?)? };
        out.extend(std::iter::repeat_n(Value::Missing, times));
        return Ok(());
    }
    let (first, rest) = take_number(item).ok_or_else(|| bad(item))?;
    if rest.is_empty() {
        out.push(Value::Float(first));
        return Ok(());
    }
    let (step, rest) =
        if rest.starts_with(['+', '-']) { take_number(rest).ok_or_else(|| bad(item))? } else { (0.0, rest) };
    let times = repeat(rest.strip_prefix('x').ok_or_else(|| bad(item))?)?;
    let mut value = first;
    for _ in 0..=times {
        out.push(Value::Float(value));
        // Adding zero would make an ordinary NaN of a staleness marker.
        if step != 0.0 {
            value += step;
        }
    }
    Ok(())
}

/// A signed number, `Inf`, `NaN` or `stale` off the front.
fn take_number(text: &str) -> Option<(f64, &str)> {
    let signed = usize::from(text.starts_with(['+', '-']));
    let negative = text.starts_with('-');
    let body = &text[signed..];
    for (word, value) in
        [("inf", f64::INFINITY), ("nan", f64::NAN), ("stale", f64::from_bits(STALE_NAN_BITS))]
    {
        if body.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word)) {
            let value = if negative { -value } else { value };
            return Some((value, &body[word.len()..]));
        }
    }
    let bytes = body.as_bytes();
    let digits =
        |from: usize| bytes[from.min(bytes.len())..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    let value = parse_number(&body[..end])?;
    Some((if negative { -value } else { value }, &body[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_descriptions() {
        let floats = |line: &str| -> Vec<f64> {
            parse_series(line)
                .unwrap()
                .1
                .iter()
                .map(|v| if let Value::Float(v) = v { *v } else { f64::NAN })
                .collect()
        };
        assert_eq!(floats("a 1 2+3x2 -1-1x1"), [1.0, 2.0, 5.0, 8.0, -1.0, -2.0]);
        assert_eq!(floats(r#"{"a b", x="} 1"} 0x2 1e3"#), [0.0, 0.0, 0.0, 1000.0]);
        assert_eq!(parse_series("a _ _x2").unwrap().1, [Value::Missing; 3]);
        assert_eq!(
            parse_series("a {{schema:1 sum:2}}x1 {{}}+{{count:1}}x2").unwrap().1,
            [Value::Histogram; 5]
        );
        assert!(parse_series("a 1x9999999999").is_err());
        assert!(parse_series("a 1 b").is_err());
    }
}
