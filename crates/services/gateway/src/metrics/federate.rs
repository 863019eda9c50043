//! `/federate`: the newest sample of every series that matches, in the text exposition format.

use axum::response::{IntoResponse, Response};
use http::header;
use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::{MetricsQuery, QueryValue, is_stale};
use triptych_model::{Error, Result};
use triptych_runtime::now_ms;

use super::{Problem, matcher_sets};
use crate::request::Asked;

pub async fn federate(asked: Asked) -> Result<Response, Problem> {
    let sets = matcher_sets(&asked, true)?;
    let now = now_ms();
    let mut out = String::new();
    for set in sets {
        let matchers: Vec<String> = set.iter().map(quoted).collect();
        let expr = format!("{{{}}}", matchers.join(","));
        let question = MetricsQuery {
            expr,
            start_ms: now,
            end_ms: now,
            step_ms: 0,
            lookback_ms: 0,
            whole_ms: None,
            shard: None,
        };
        let QueryValue::Vector(series) = asked.shared.query.metrics(&asked.ctx, &question).await? else {
            return Err(Error::internal("a selector did not give a vector").into());
        };
        for one in &series {
            let (Some(name), Some(sample)) = (one.labels.get(METRIC_NAME), one.samples.first()) else {
                continue;
            };
            if is_stale(sample.value) {
                continue;
            }
            out.push_str(name);
            let mut separator = '{';
            for (label, value) in one.labels.iter().filter(|(n, _)| *n != METRIC_NAME) {
                out.push(separator);
                separator = ',';
                out.push_str(&format!("{label}=\"{}\"", escaped(value)));
            }
            if separator == ',' {
                out.push('}');
            }
            out.push_str(&format!(" {} {}\n", sample.value, sample.t_ms));
        }
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out).into_response())
}

fn quoted(matcher: &triptych_model::Matcher) -> String {
    format!("\"{}\"{}\"{}\"", escaped(&matcher.name), matcher.op.as_str(), escaped(&matcher.value))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
