//! Prometheus' HTTP API (prometheus.io/docs/prometheus/latest/querying/api).

mod federate;
mod read;
mod status;
mod targets;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{StatusCode, header};
use triptych_model::metrics::{LabelsSelect, MetricsQuery, QueryValue};
use triptych_model::{Error, Kind, Matcher, Result};
use triptych_rpc::{Door, http_status};
use triptych_runtime::{QueryContext, now_ms};

use crate::held::{Holding, hold};
use crate::request::Asked;
use crate::{Shared, json, numbers};

/// Metadata and label questions without a range look at everything there is.
const ALL_TIME: (i64, i64) = (0, i64::MAX / 2);

pub fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/v1/query", get(query).post(query))
        .route("/api/v1/query_range", get(query_range).post(query_range))
        .route("/api/v1/query_exemplars", get(exemplars).post(exemplars))
        .route("/api/v1/series", get(series).post(series))
        .route("/api/v1/labels", get(label_names).post(label_names))
        .route("/api/v1/label/{name}/values", get(label_values))
        .route("/api/v1/metadata", get(metadata))
        .route("/api/v1/format_query", get(format_query).post(format_query))
        .route("/api/v1/parse_query", get(parse_query).post(parse_query))
        .route("/api/v1/rules", get(no_rules))
        .route("/api/v1/alerts", get(no_alerts))
        .route("/api/v1/alertmanagers", get(no_alertmanagers))
        .route("/api/v1/read", post(read::read))
        .route("/federate", get(federate::federate))
        .merge(status::routes())
        .merge(targets::routes())
        .layer(from_fn_with_state(Holding::new(&shared, |e| Problem::from(e).into_response()), hold))
        .with_state(shared)
}

/// An error in Prometheus' form: `{"status":"error","errorType":..,"error":..}`.
pub struct Problem {
    error: Error,
    /// The question was in order, its evaluation failed: 422 `execution` where it would be 400 `bad_data`.
    evaluation: bool,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { error, evaluation: false }
    }
}

impl Problem {
    /// An evaluator's error: about the text of the query, or about what came of it.
    fn of_query(expr: &str, error: Error) -> Self {
        if error.kind != Kind::Invalid {
            return error.into();
        }
        let wrong_type = error.message.starts_with("invalid expression type");
        if wrong_type || triptych_promql::parse(expr).is_err() {
            return of_parameter("query", error).into();
        }
        Self { error, evaluation: true }
    }
}

fn of_parameter(name: &str, error: Error) -> Error {
    Error::invalid(format!("invalid parameter {name:?}: {}", error.message))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { error, evaluation } = self;
        let kind = match error.kind {
            Kind::Invalid if evaluation => "execution",
            Kind::Invalid => "bad_data",
            Kind::NotFound => "not_found",
            // Mimir's word: Prometheus has no queue.
            Kind::Exhausted if error.retry_after.is_some() => "too_many_requests",
            Kind::Exhausted | Kind::Conflict => "execution",
            Kind::Unavailable if error.message.contains("timed out") => "timeout",
            Kind::Unavailable => "unavailable",
            Kind::Cancelled => "canceled",
            Kind::Damaged | Kind::Internal => "internal",
        };
        let mut out = format!("{{\"status\":\"error\",\"errorType\":\"{kind}\",\"error\":");
        json::string(&mut out, &error.message);
        out.push('}');
        let status =
            if evaluation { StatusCode::UNPROCESSABLE_ENTITY } else { http_status(&error, Door::Read) };
        let mut response = (status, [(header::CONTENT_TYPE, "application/json")], out).into_response();
        if let Some(after) = error.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().max(1).into());
        }
        response
    }
}

type Answer = Result<Response, Problem>;

/// `{"status":"success","data":..}` with warnings.
fn success(ctx: &QueryContext, data: impl FnOnce(&mut String)) -> Response {
    let mut out = String::from("{\"status\":\"success\",\"data\":");
    data(&mut out);
    json::notes(&mut out, &ctx.report());
    out.push('}');
    out.shrink_to_fit();
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], out).into_response()
}

fn plain(data: &str) -> Response {
    let out = format!("{{\"status\":\"success\",\"data\":{data}}}");
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], out).into_response()
}

fn data(data: &serde_json::Value) -> Response {
    plain(&data.to_string())
}

/// A count that Prometheus takes for none where it is negative.
fn count(asked: &Asked, name: &str) -> Result<Option<usize>> {
    let Some(text) = asked.params.get(name) else { return Ok(None) };
    let count: i64 = text.parse().map_err(|_| Error::invalid(format!("{name} must be a number")))?;
    Ok(usize::try_from(count).ok())
}

fn step_ms(asked: &Asked) -> Result<i64> {
    let step = asked
        .params
        .duration_ns("step")?
        .ok_or_else(|| Error::invalid("invalid parameter \"step\": it is missing"))?;
    if step < 1_000_000 {
        return Err(Error::invalid(
            "invalid parameter \"step\": zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    Ok(step / 1_000_000)
}

fn lookback_ms(asked: &Asked) -> Result<i64> {
    Ok(asked.params.duration_ns("lookback_delta")?.unwrap_or(0).max(0) / 1_000_000)
}

async fn answer(asked: &Asked, question: MetricsQuery) -> Answer {
    let limit = asked.params.limit("limit", 0)?;
    let mut value = asked
        .query()
        .metrics(&asked.ctx, &question)
        .await
        .map_err(|error| Problem::of_query(&question.expr, error))?;
    if let QueryValue::Vector(series) | QueryValue::Matrix(series) = &mut value {
        *series = cut(&asked.ctx, std::mem::take(series), limit);
    }
    Ok(success(&asked.ctx, |out| {
        out.push('{');
        json::result(out, &value, numbers::json);
        if asked.params.get("stats").is_some() {
            let report = asked.ctx.report();
            out.push_str(&format!(
                ",\"stats\":{{\"samples\":{{\"totalQueryableSamples\":{},\"peakSamples\":0}}}}",
                report.rows
            ));
        }
        out.push('}');
    }))
}

async fn query(asked: Asked) -> Answer {
    let at = asked.params.time_ms("time")?.unwrap_or_else(now_ms);
    let expr = asked.params.required("query")?.to_owned();
    let lookback_ms = lookback_ms(&asked)?;
    answer(
        &asked,
        MetricsQuery { expr, start_ms: at, end_ms: at, step_ms: 0, lookback_ms, whole_ms: None, shard: None },
    )
    .await
}

async fn query_range(asked: Asked) -> Answer {
    let missing = |name: &str| Error::invalid(format!("invalid parameter {name:?}: it is missing"));
    let start_ms = asked.params.time_ms("start")?.ok_or_else(|| missing("start"))?;
    let end_ms = asked.params.time_ms("end")?.ok_or_else(|| missing("end"))?;
    let step_ms = step_ms(&asked)?;
    asked.check_range_ns(start_ms.saturating_mul(1_000_000), end_ms.saturating_mul(1_000_000))?;
    // Prometheus' limit; the text is known to its users.
    if end_ms.saturating_sub(start_ms) / step_ms > 11_000 {
        return Err(Error::invalid(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        )
        .into());
    }
    let expr = asked.params.required("query")?.to_owned();
    let lookback_ms = lookback_ms(&asked)?;
    answer(&asked, MetricsQuery { expr, start_ms, end_ms, step_ms, lookback_ms, whole_ms: None, shard: None })
        .await
}

/// Reads every `match[]`; where `required`, at least one.
pub(crate) fn matcher_sets(asked: &Asked, required: bool) -> Result<Vec<Vec<Matcher>>> {
    let sets = asked
        .params
        .all("match[]")
        .map(|text| triptych_promql::parse_selector(text).map_err(|e| of_parameter("match[]", e.into())))
        .collect::<Result<Vec<_>>>()?;
    if required && sets.is_empty() {
        return Err(Error::invalid("no match[] parameter provided"));
    }
    Ok(sets)
}

fn labels_select(asked: &Asked, required: bool) -> Result<LabelsSelect> {
    let start_ms = asked.params.time_ms("start")?.unwrap_or(ALL_TIME.0);
    let end_ms = asked.params.time_ms("end")?.unwrap_or(ALL_TIME.1);
    if end_ms < start_ms {
        return Err(Error::invalid(
            "invalid parameter \"end\": end timestamp must not be before start timestamp",
        ));
    }
    let limit = asked.params.limit("limit", 0)?;
    Ok(LabelsSelect { matcher_sets: matcher_sets(asked, required)?, start_ms, end_ms, limit })
}

fn cut<T>(ctx: &QueryContext, mut list: Vec<T>, limit: usize) -> Vec<T> {
    if limit > 0 && list.len() > limit {
        list.truncate(limit);
        ctx.warn("results truncated due to limit");
    }
    list
}

async fn series(asked: Asked) -> Answer {
    let select = labels_select(&asked, true)?;
    let found = asked.shared.metrics.series(&asked.ctx, &select).await?;
    let found = cut(&asked.ctx, found, select.limit);
    Ok(success(&asked.ctx, |out| json::list(out, &found, json::labels)))
}

async fn label_names(asked: Asked) -> Answer {
    let select = labels_select(&asked, false)?;
    let found = asked.shared.metrics.label_names(&asked.ctx, &select).await?;
    let found = cut(&asked.ctx, found, select.limit);
    Ok(success(&asked.ctx, |out| json::strings(out, &found)))
}

async fn label_values(Path(name): Path<String>, asked: Asked) -> Answer {
    let select = labels_select(&asked, false)?;
    if name.is_empty() {
        return Err(Error::invalid("invalid label name: it is empty").into());
    }
    // `U__` names carry UTF-8 as hex between underscores (prometheus/proposals 28).
    let name = unescape_name(&name).unwrap_or(name);
    let found = asked.shared.metrics.label_values(&asked.ctx, &name, &select).await?;
    let found = cut(&asked.ctx, found, select.limit);
    Ok(success(&asked.ctx, |out| json::strings(out, &found)))
}

/// Undoes the escaping of UTF-8 names in URLs: `U__foo_2e_bar` is `foo.bar`; `__` is `_`.
fn unescape_name(name: &str) -> Option<String> {
    let mut rest = name.strip_prefix("U__")?;
    let mut out = String::new();
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end = rest.find('_')?;
        if end == 0 {
            out.push('_');
        } else {
            out.push(char::from_u32(u32::from_str_radix(&rest[..end], 16).ok()?)?);
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Some(out)
}

async fn metadata(asked: Asked) -> Answer {
    let limit = count(&asked, "limit")?;
    let per_metric = count(&asked, "limit_per_metric")?.filter(|n| *n > 0).unwrap_or(usize::MAX);
    let metric = asked.params.get("metric").unwrap_or_default();
    // To a store 0 is no limit.
    let found = asked.shared.metrics.metadata(&asked.ctx, metric, limit.unwrap_or(0)).await?;
    let mut by_metric: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for one in &found {
        by_metric.entry(&one.metric).or_default().push(one);
    }
    Ok(success(&asked.ctx, |out| {
        out.push('{');
        for (i, (metric, entries)) in by_metric.iter().take(limit.unwrap_or(usize::MAX)).enumerate() {
            if i > 0 {
                out.push(',');
            }
            json::string(out, metric);
            out.push(':');
            json::list(out, entries.iter().take(per_metric), |out, m| {
                json::object(out, [("type", m.kind.as_str()), ("unit", &m.unit), ("help", &m.help)]);
            });
        }
        out.push('}');
    }))
}

async fn exemplars(asked: Asked) -> Answer {
    let expr = asked.params.required("query")?;
    let matcher_sets = triptych_promql::parse(expr).map_err(Error::from)?.selectors();
    let select = LabelsSelect { matcher_sets, ..labels_select(&asked, false)? };
    let found = asked.shared.metrics.exemplars(&asked.ctx, &select).await?;
    Ok(success(&asked.ctx, |out| {
        json::list(out, &found, |out, s| {
            out.push_str("{\"seriesLabels\":");
            json::labels(out, &s.series);
            out.push_str(",\"exemplars\":");
            json::list(out, &s.exemplars, |out, e| {
                out.push_str("{\"labels\":");
                json::labels(out, &e.labels);
                out.push_str(",\"value\":");
                json::value(out, e.value, numbers::json);
                out.push_str(",\"timestamp\":");
                json::seconds(out, e.t_ms);
                out.push('}');
            });
            out.push('}');
        });
    }))
}

async fn format_query(asked: Asked) -> Answer {
    let expr = triptych_promql::parse(asked.params.required("query")?)
        .map_err(|e| of_parameter("query", e.into()))?;
    Ok(success(&asked.ctx, |out| json::string(out, &expr.pretty())))
}

async fn parse_query(asked: Asked) -> Answer {
    let expr = triptych_promql::parse(asked.params.required("query")?)
        .map_err(|e| of_parameter("query", e.into()))?;
    Ok(success(&asked.ctx, |out| out.push_str(&tree::tree(&expr).to_string())))
}

async fn no_rules() -> Response {
    plain("{\"groups\":[]}")
}

async fn no_alerts() -> Response {
    plain("{\"alerts\":[]}")
}

async fn no_alertmanagers() -> Response {
    plain("{\"activeAlertmanagers\":[],\"droppedAlertmanagers\":[]}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn utf8_names_in_paths() {
        assert_eq!(super::unescape_name("U__foo_2e_bar").as_deref(), Some("foo.bar"));
        assert_eq!(super::unescape_name("U__a__b").as_deref(), Some("a_b"));
        assert_eq!(super::unescape_name("plain_name"), None);
    }
}
