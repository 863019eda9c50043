//! `/federate`: the newest sample of every series that matches, with its own time, in the text exposition format.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{HeaderMap, header};
use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::{Sample, SeriesSelect, is_stale};
use triptych_model::{Labels, Result};
use triptych_promql::format::{is_plain_label, is_plain_metric};
use triptych_runtime::now_ms;

use super::{Problem, matcher_sets};
use crate::numbers;
use crate::request::Asked;

/// How old a sample may be: Prometheus' default lookback.
const LOOKBACK_MS: i64 = 300_000;

pub async fn federate(asked: Asked) -> Result<Response, Problem> {
    let sets = matcher_sets(&asked, true)?;
    let end_ms = now_ms();
    // By name and labels; what several selectors find is shown once.
    let mut newest: BTreeMap<(String, Labels), Sample> = BTreeMap::new();
    let mut held = asked.ctx.reserve(0)?;
    for matchers in sets {
        let select = SeriesSelect {
            matchers,
            start_ms: end_ms - LOOKBACK_MS,
            end_ms,
            skip_chunks: false,
            shard: None,
        };
        let mut series = asked.shared.query.read_samples(&asked.ctx, &select).await?;
        while let Some(one) = series.next().await {
            let one = one?;
            // The format has no staleness markers: a series that ended is not there.
            let Some(sample) = one.samples.last().filter(|s| !is_stale(s.value)) else { continue };
            let Some(name) = one.labels.get(METRIC_NAME).map(str::to_owned) else { continue };
            held.grow(2 * one.labels.as_encoded().len() + size_of::<Sample>())?;
            newest.insert((name, one.labels.filter(|n| n != METRIC_NAME)), *sample);
        }
    }
    let utf8 = accepts_utf8(&asked.headers);
    let mut out = String::new();
    let mut family = "";
    for ((name, labels), sample) in &newest {
        if name != family {
            family = name;
            let _ = writeln!(out, "# TYPE {} untyped", shown_name(name, utf8));
        }
        put_sample(&mut out, name, labels, *sample, utf8);
    }
    let escaping = if utf8 { "allow-utf-8" } else { "underscores" };
    let kind = format!("text/plain; version=0.0.4; charset=utf-8; escaping={escaping}");
    Ok(([(header::CONTENT_TYPE, kind)], out).into_response())
}

/// Whether the scraper takes names in quotes; older ones would refuse the whole page for one of them.
fn accepts_utf8(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    accept.into_iter().any(|v| v.contains("escaping=allow-utf-8"))
}

fn put_sample(out: &mut String, name: &str, labels: &Labels, sample: Sample, utf8: bool) {
    let mut separator = '{';
    let mut pair = |out: &mut String, text: &str| {
        out.push(separator);
        out.push_str(text);
        separator = ',';
    };
    if utf8 && !is_plain_metric(name) {
        pair(out, &shown_name(name, utf8));
    } else {
        out.push_str(&shown_name(name, utf8));
    }
    for (label, value) in labels.iter() {
        let label = match is_plain_label(label) {
            true => label.to_owned(),
            false if utf8 => format!("\"{}\"", escaped(label)),
            false => underscored(label),
        };
        pair(out, &format!("{label}=\"{}\"", escaped(value)));
    }
    // Without it the scraper would set its own: federated series are of no instance but their own.
    if labels.get("instance").is_none() {
        pair(out, "instance=\"\"");
    }
    out.push_str("} ");
    numbers::exposition(out, sample.value);
    let _ = writeln!(out, " {}", sample.t_ms);
}

fn shown_name(name: &str, utf8: bool) -> String {
    match is_plain_metric(name) {
        true => name.to_owned(),
        false if utf8 => format!("\"{}\"", escaped(name)),
        false => underscored(name),
    }
}

/// As the exposition format's `underscores` escaping has it.
fn underscored(name: &str) -> String {
    let keep =
        |i: usize, c: char| c.is_ascii_alphabetic() || matches!(c, '_' | ':') || i > 0 && c.is_ascii_digit();
    name.chars().enumerate().map(|(i, c)| if keep(i, c) { c } else { '_' }).collect()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_a_scraper_reads() {
        let line = |name: &str, pairs: &[(&str, &str)], utf8| {
            let mut out = String::new();
            let labels = Labels::from_pairs(pairs.iter().copied());
            put_sample(&mut out, name, &labels, Sample { t_ms: 1500, value: 1e6 }, utf8);
            out
        };
        assert_eq!(line("up", &[], false), "up{instance=\"\"} 1e+06 1500\n");
        assert_eq!(
            line("up", &[("instance", "a\"\n"), ("job", "x")], false),
            "up{instance=\"a\\\"\\n\",job=\"x\"} 1e+06 1500\n"
        );
        let odd = [("a.b", "é"), ("instance", "i")];
        assert_eq!(line("x.y", &odd, true), "{\"x.y\",\"a.b\"=\"é\",instance=\"i\"} 1e+06 1500\n");
        assert_eq!(line("x.y", &odd, false), "x_y{a_b=\"é\",instance=\"i\"} 1e+06 1500\n");
    }
}
