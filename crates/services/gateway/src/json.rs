//! JSON of answers, written straight into a buffer: label sets, samples, warnings.

use triptych_model::Labels;
use triptych_model::metrics::{QueryValue, Sample, SeriesSamples};
use triptych_runtime::ReadReport;

/// Appends a JSON string.
pub fn string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: &str = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => {
                out.push_str(&text[plain..at]);
                out.push_str(&format!("\\u{byte:04x}"));
                plain = at + 1;
                continue;
            }
            _ => continue,
        };
        out.push_str(&text[plain..at]);
        out.push_str(escape);
        plain = at + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Appends items between commas.
pub fn list<T>(out: &mut String, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut String, T)) {
    out.push('[');
    for (i, one) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        item(out, one);
    }
    out.push(']');
}

pub fn strings<S: AsRef<str>>(out: &mut String, items: impl IntoIterator<Item = S>) {
    list(out, items, |out, s| string(out, s.as_ref()));
}

pub fn object<'a>(out: &mut String, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) {
    out.push('{');
    for (i, (name, value)) in pairs.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        string(out, name);
        out.push(':');
        string(out, value);
    }
    out.push('}');
}

pub fn labels(out: &mut String, labels: &Labels) {
    object(out, labels.iter());
}

/// Seconds with as many decimals as are needed: `1435781451.781`.
pub fn seconds(out: &mut String, t_ms: i64) {
    let (whole, fraction) = (t_ms / 1000, (t_ms % 1000).unsigned_abs());
    if whole == 0 && t_ms < 0 {
        out.push('-');
    }
    out.push_str(itoa::Buffer::new().format(whole));
    if fraction != 0 {
        let digits = format!(".{fraction:03}");
        out.push_str(digits.trim_end_matches('0'));
    }
}

/// How a float is written, without quotes: [`crate::numbers::json`] for Prometheus, [`crate::numbers::decimal`] for Loki.
pub type Number = fn(&mut String, f64);

/// A value in quotes.
pub fn value(out: &mut String, value: f64, number: Number) {
    out.push('"');
    number(out, value);
    out.push('"');
}

pub fn sample(out: &mut String, sample: Sample, number: Number) {
    out.push('[');
    seconds(out, sample.t_ms);
    out.push(',');
    value(out, sample.value, number);
    out.push(']');
}

/// `"resultType":..,"result":..` of Prometheus' and Loki's query answers.
pub fn result(out: &mut String, answer: &QueryValue, number: Number) {
    let begin = |out: &mut String, kind: &str| {
        out.push_str("\"resultType\":\"");
        out.push_str(kind);
        out.push_str("\",\"result\":");
    };
    let series = |out: &mut String, s: &SeriesSamples| {
        out.push_str("{\"metric\":");
        labels(out, &s.labels);
    };
    match answer {
        QueryValue::Scalar(one) => {
            begin(out, "scalar");
            sample(out, *one, number);
        }
        QueryValue::String { t_ms, value } => {
            begin(out, "string");
            out.push('[');
            seconds(out, *t_ms);
            out.push(',');
            string(out, value);
            out.push(']');
        }
        QueryValue::Vector(all) => {
            begin(out, "vector");
            list(out, all.iter().filter(|s| !s.samples.is_empty()), |out, s| {
                series(out, s);
                out.push_str(",\"value\":");
                sample(out, s.samples[0], number);
                out.push('}');
            });
        }
        QueryValue::Matrix(all) => {
            begin(out, "matrix");
            list(out, all.iter().filter(|s| !s.samples.is_empty()), |out, s| {
                series(out, s);
                out.push_str(",\"values\":");
                list(out, &s.samples, |out, one| sample(out, *one, number));
                out.push('}');
            });
        }
    }
}

/// `,"warnings":[..],"infos":[..]` where there are any. What was missed is a warning: the answer is partial and says so.
pub fn notes(out: &mut String, report: &ReadReport) {
    let missed = report.missed.iter().map(|m| format!("partial answer: {m}"));
    let warnings: Vec<String> = missed.chain(report.warnings.iter().cloned()).collect();
    if !warnings.is_empty() {
        out.push_str(",\"warnings\":");
        strings(out, &warnings);
    }
    if !report.infos.is_empty() {
        out.push_str(",\"infos\":");
        strings(out, &report.infos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numbers;

    fn written(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn samples_look_like_the_originals() {
        for (t_ms, text) in
            [(1_435_781_451_781, "1435781451.781"), (1000, "1"), (1100, "1.1"), (-500, "-0.5"), (0, "0")]
        {
            assert_eq!(written(|o| seconds(o, t_ms)), text);
        }
        let one = Sample { t_ms: 1500, value: 1e21 };
        assert_eq!(written(|o| sample(o, one, numbers::json)), "[1.5,\"1e+21\"]");
        assert_eq!(written(|o| sample(o, one, numbers::decimal)), "[1.5,\"1000000000000000000000\"]");
    }

    #[test]
    fn strings_are_escaped() {
        let hostile = "<script>\"\\\n\r\t\u{1}é";
        let text = written(|o| string(o, hostile));
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), hostile);
    }
}
