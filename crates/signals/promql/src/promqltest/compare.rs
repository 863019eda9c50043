//! Answers against expectations.

use std::collections::HashMap;

use triptych_model::metrics::{QueryValue, Sample, SeriesSamples};
use triptych_model::{Labels, Result as ModelResult};

use super::Answer;
use super::script::{Eval, Text, is_marker};
use super::series::Value;
use crate::eval::histogram::almost_equal;

/// Relative error allowed, as in Prometheus' own runner.
const EPSILON: f64 = 0.000_001;

type Checked<T> = Result<T, String>;

fn equal(a: f64, b: f64) -> bool {
    if is_marker(a) || is_marker(b) { is_marker(a) && is_marker(b) } else { almost_equal(a, b, EPSILON) }
}

/// Compares all there is to compare; true where the query succeeded.
pub(super) fn outcome(eval: &Eval, answer: &ModelResult<Answer>) -> Checked<bool> {
    let answer = match (answer, &eval.expect.fail) {
        (Err(e), Some(text)) => {
            let message = e.to_string();
            return match text.matches(&message) {
                true => Ok(false),
                false => Err(format!("failed as expected, but with {message:?}, not {text:?}")),
            };
        }
        (Err(e), None) => return Err(format!("failed: {e}")),
        (Ok(_), Some(_)) => return Err("succeeded, was expected to fail".into()),
        (Ok(answer), None) => answer,
    };
    annotations("warn", &eval.expect.warn, eval.expect.no_warn, &answer.warnings)?;
    annotations("info", &eval.expect.info, eval.expect.no_info, &answer.infos)?;
    value(eval, &answer.value)?;
    Ok(true)
}

fn annotations(kind: &str, expected: &[Text], none: bool, got: &[String]) -> Checked<()> {
    if none && !got.is_empty() {
        return Err(format!("expected no {kind}, got {got:?}"));
    }
    if let Some(missing) = expected.iter().find(|e| !got.iter().any(|g| e.matches(g))) {
        return Err(format!("expected {kind} {missing:?}, got {got:?}"));
    }
    if let Some(extra) = got.iter().find(|g| !expected.is_empty() && !expected.iter().any(|e| e.matches(g))) {
        return Err(format!("unexpected {kind} {extra:?}"));
    }
    Ok(())
}

fn value(eval: &Eval, got: &QueryValue) -> Checked<()> {
    if let Some(expected) = &eval.string {
        return match got {
            QueryValue::String { value, .. } if value == expected => Ok(()),
            _ => Err(format!("expected string {expected:?}, got {got:?}")),
        };
    }
    if let Some(expected) = eval.scalar {
        return match got {
            QueryValue::Scalar(s) if equal(s.value, expected) && s.t_ms == eval.query.start_ms => Ok(()),
            _ => Err(format!("expected scalar {expected}, got {got:?}")),
        };
    }
    match got {
        QueryValue::Vector(series) => {
            let times = |_: usize| eval.query.start_ms;
            same_series(eval, series, &times)?;
            if eval.expect.ordered {
                let order: Vec<&Labels> = series.iter().map(|s| &s.labels).collect();
                let expected: Vec<&Labels> = eval.series.iter().map(|(l, _)| l).collect();
                if order != expected {
                    return Err(format!("expected the order {expected:?}, got {order:?}"));
                }
            }
            Ok(())
        }
        QueryValue::Matrix(series) => {
            if !series.is_sorted_by(|a, b| a.labels < b.labels) {
                return Err("the matrix is not sorted by labels".into());
            }
            let (start, step) = eval.range_vector.unwrap_or((eval.query.start_ms, eval.query.step_ms));
            same_series(eval, series, &|i| start + step * i as i64)
        }
        _ if eval.series.is_empty() => Err(format!("expected an empty answer, got {got:?}")),
        _ => Err(format!("expected series, got {got:?}")),
    }
}

fn same_series(eval: &Eval, got: &[SeriesSamples], time: &dyn Fn(usize) -> i64) -> Checked<()> {
    let mut rest: HashMap<&Labels, &SeriesSamples> = HashMap::new();
    for series in got {
        if rest.insert(&series.labels, series).is_some() {
            return Err(format!("{} is twice in the answer", series.labels));
        }
    }
    for (labels, values) in &eval.series {
        let expected: Vec<Sample> = values
            .iter()
            .enumerate()
            .filter_map(|(i, v)| match v {
                Value::Float(value) => Some(Sample { t_ms: time(i), value: *value }),
                _ => None,
            })
            .collect();
        let Some(series) = rest.remove(labels) else {
            if expected.is_empty() {
                continue;
            }
            return Err(format!("expected {labels} {}, not found in {}", shown(&expected), shown_all(got)));
        };
        let same = |(a, b): (&Sample, &Sample)| a.t_ms == b.t_ms && equal(a.value, b.value);
        if expected.len() != series.samples.len() || !expected.iter().zip(&series.samples).all(same) {
            return Err(format!("{labels}: expected {}, got {}", shown(&expected), shown(&series.samples)));
        }
    }
    match rest.keys().next() {
        Some(extra) => Err(format!("unexpected series {extra} in {}", shown_all(got))),
        None => Ok(()),
    }
}

/// Compares the middle step of a three-step range query with what an instant query gave.
pub(super) fn middle(eval: &Eval, got: QueryValue) -> Checked<()> {
    let QueryValue::Matrix(series) = got else { return Err(format!("expected a matrix, got {got:?}")) };
    let t_ms = eval.query.start_ms;
    let at_step: Vec<SeriesSamples> = series
        .into_iter()
        .map(|mut s| {
            s.samples.retain(|s| s.t_ms == t_ms);
            s
        })
        .filter(|s| !s.samples.is_empty())
        .collect();
    if let Some(expected) = eval.scalar {
        return match &at_step[..] {
            [one] if equal(one.samples[0].value, expected) => Ok(()),
            _ => Err(format!("expected {expected}, got {}", shown_all(&at_step))),
        };
    }
    same_series(eval, &at_step, &|_| t_ms)
}

fn shown(samples: &[Sample]) -> String {
    let all: Vec<String> = samples.iter().map(|s| format!("{}@{}", s.value, s.t_ms)).collect();
    format!("[{}]", all.join(" "))
}

fn shown_all(series: &[SeriesSamples]) -> String {
    let all: Vec<String> = series.iter().map(|s| format!("{} {}", s.labels, shown(&s.samples))).collect();
    format!("{{{}}}", all.join(", "))
}
