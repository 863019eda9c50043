//! Tempo's HTTP API (grafana.com/docs/tempo/latest/api_docs), and [`stream`]: its searches and metrics over gRPC.

mod answer;
mod otlp;
pub mod stream;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use http::{HeaderMap, StatusCode, header};
use triptych_model::metrics::{QueryValue, SeriesSamples};
use triptych_model::traces::{
    ScopeTags, TagsSelect, TraceId, TraceMatch, TraceSearch, TracesMetricsQuery, Value,
};
use triptych_model::{Error, Result};
use triptych_rpc::{Door, http_status};
use triptych_runtime::{ReadReport, now_ns};

use crate::Shared;
use crate::held::{Holding, hold};
use crate::params::duration_text_ns;
use crate::request::Asked;

const SECOND_NS: i64 = 1_000_000_000;
/// Tempo's defaults: traces per search, spans per span set, range of a metrics query, points of one.
const TRACES_DEFAULT: usize = 20;
const SPANS_PER_SET_DEFAULT: usize = 3;
const METRICS_RANGE_NS: i64 = 3600 * SECOND_NS;
const POINTS_MAX: i64 = 11_000;

pub fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/echo", get(|| async { "echo" }))
        .route("/api/traces/{id}", get(find_v1))
        .route("/api/v2/traces/{id}", get(find_v2))
        .route("/api/search", get(search))
        .route("/api/search/tags", get(tag_names_v1))
        .route("/api/v2/search/tags", get(tag_names_v2))
        .route("/api/search/tag/{tag}/values", get(tag_values_v1))
        .route("/api/v2/search/tag/{tag}/values", get(tag_values_v2))
        .route("/api/metrics/query_range", get(query_range))
        .route("/api/metrics/query", get(query))
        .route("/api/status/buildinfo", get(buildinfo))
        .layer(from_fn_with_state(Holding::new(&shared, |e| Problem::from(e).into_response()), hold))
        .with_state(shared)
}

/// An error as Tempo answers it: plain text.
pub struct Problem(Error);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (http_status(&self.0, Door::Read), self.0.message.into_owned()).into_response();
        if let Some(after) = self.0.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().max(1).into());
        }
        response
    }
}

type Answer = Result<Response, Problem>;

fn send(value: &serde_json::Value) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

/// An answer, and why it is partial if it is.
fn send_read(report: &ReadReport, mut value: serde_json::Value, has_status: bool) -> Response {
    if report.missed.is_empty() {
        return send(&value);
    }
    let missed = report.missed.join("; ");
    if has_status {
        value["status"] = "PARTIAL".into();
        value["message"] = missed.clone().into();
    }
    let mut response = send(&value);
    let ascii: String = missed.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
    if let Ok(text) = ascii.parse() {
        response.headers_mut().insert(answer::MISSED, text);
    }
    response
}

fn send_tags(asked: &Asked, name: &str, found: serde_json::Value) -> Response {
    let report = asked.ctx.report();
    send_read(&report, serde_json::json!({name: found, "metrics": answer::tags_cost(&report)}), false)
}

fn send_series(asked: &Asked, series: Vec<serde_json::Value>) -> Response {
    let report = asked.ctx.report();
    send_read(&report, serde_json::json!({"series": series, "metrics": answer::search_cost(&report)}), true)
}

/// 1 to 32 hex digits, zeros in front may be left out.
fn trace_id(text: &str) -> Result<TraceId> {
    let wrong = || {
        Error::invalid(format!(
            "trace id {:?} is not 1 to 32 hex digits",
            text.chars().take(64).collect::<String>()
        ))
    };
    if text.is_empty() || text.len() > 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let id = u128::from_str_radix(text, 16).map_err(|_| wrong())?;
    Ok(id.to_be_bytes())
}

/// `start` and `end` in seconds; 0 where they are not given: everything.
fn range(asked: &Asked) -> Result<(i64, i64)> {
    let start = asked.params.time_ns("start")?.unwrap_or(0);
    let end = asked.params.time_ns("end")?.unwrap_or(0);
    if end != 0 {
        asked.check_range_ns(start, end)?;
    }
    Ok((start, end))
}

fn wants_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accept.contains("application/protobuf") || accept.contains("application/x-protobuf")
}

/// The combined OTLP bytes, or 404; where something is missing that may hold it, 503.
async fn find(asked: &Asked, id: &str) -> Result<bytes::Bytes> {
    let id = trace_id(id)?;
    let (start, end) = range(asked)?;
    let parts = asked.shared.traces.find(&asked.ctx, &id, start, end).await?;
    let missed = asked.ctx.report().missed;
    match parts.otlp.len() {
        0 if !missed.is_empty() => Err(Error::unavailable(format!(
            "trace {} was not found, and not everything could be searched: {}",
            hex::encode(id),
            missed.join("; ")
        ))),
        0 => Err(Error::not_found(format!("trace {} was not found", hex::encode(id)))),
        // A querier has combined the parts; concatenated TracesData messages are one TracesData message.
        _ => Ok(parts.otlp.concat().into()),
    }
}

const PROTOBUF: &str = "application/protobuf";

async fn find_v1(Path(id): Path<String>, asked: Asked) -> Answer {
    let trace = find(&asked, &id).await?;
    if wants_protobuf(&asked.headers) {
        return Ok(([(header::CONTENT_TYPE, PROTOBUF)], trace).into_response());
    }
    Ok(send(&serde_json::json!({"batches": otlp::resource_spans(&trace)?})))
}

async fn find_v2(Path(id): Path<String>, asked: Asked) -> Answer {
    let trace = find(&asked, &id).await?;
    let report = asked.ctx.report();
    let partial = !report.missed.is_empty();
    if wants_protobuf(&asked.headers) {
        let body = otlp::by_id_response(&trace, partial.then(|| report.missed.join("; ")));
        return Ok(([(header::CONTENT_TYPE, PROTOBUF)], body).into_response());
    }
    let answer = serde_json::json!({
        "trace": {"resourceSpans": otlp::resource_spans(&trace)?},
        "metrics": {"inspectedBytes": report.read_bytes.to_string()},
    });
    Ok(send_read(&report, answer, true))
}

/// `q`, or the older `tags=key=value key=value`, `minDuration`, `maxDuration` put into TraceQL.
fn search_query(asked: &Asked) -> Result<String> {
    if let Some(q) = asked.params.get("q") {
        return Ok(q.to_owned());
    }
    let mut conditions = Vec::new();
    for pair in logfmt_pairs(asked.params.get("tags").unwrap_or_default())? {
        let (name, value) = pair;
        let quoted = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
        conditions.push(match name.as_str() {
            "name" => format!("name = {quoted}"),
            "status" => format!("status = {value}"),
            _ if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)) => {
                format!(".{name} = {quoted}")
            }
            _ => return Err(Error::invalid(format!("tags: {name:?} is not an attribute name"))),
        });
    }
    for (parameter, op) in [("minDuration", ">="), ("maxDuration", "<=")] {
        if let Some(text) = asked.params.get(parameter) {
            duration_text_ns(text)
                .ok_or_else(|| Error::invalid(format!("{parameter}: {text:?} is not a duration")))?;
            conditions.push(format!("traceDuration {op} {text}"));
        }
    }
    Ok(format!("{{ {} }}", conditions.join(" && ")))
}

/// `a=b c="d e"`.
fn logfmt_pairs(text: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let equals = rest.find('=').ok_or_else(|| Error::invalid(format!("tags: {rest:?} has no value")))?;
        let name = rest[..equals].to_owned();
        rest = &rest[equals + 1..];
        let value = if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').ok_or_else(|| Error::invalid("tags: a quote is not closed"))?;
            rest = &quoted[end + 1..];
            quoted[..end].to_owned()
        } else {
            let end = rest.find(' ').unwrap_or(rest.len());
            let value = rest[..end].to_owned();
            rest = &rest[end..];
            value
        };
        pairs.push((name, value));
        rest = rest.trim_start();
    }
    Ok(pairs)
}

fn trace_search(asked: &Asked) -> Result<TraceSearch> {
    let (start_ns, end_ns) = range(asked)?;
    let limit = asked.params.limit("limit", TRACES_DEFAULT)?;
    let max = asked.limits.query.traces_max;
    if max > 0 && limit > max {
        return Err(Error::invalid(format!(
            "limit {limit} exceeds the most traces a search may return ({max})"
        )));
    }
    Ok(TraceSearch {
        query: search_query(asked)?,
        start_ns,
        end_ns,
        limit,
        spans_per_set: asked.params.limit("spss", SPANS_PER_SET_DEFAULT)?,
    })
}

async fn search(asked: Asked) -> Answer {
    let search = trace_search(&asked)?;
    // A trace may come again, more complete; at most the limit of each source.
    let mut found: HashMap<TraceId, TraceMatch> = HashMap::new();
    let mut matches = asked.shared.traces.search(&asked.ctx, &search).await?;
    while let Some(one) = matches.next().await {
        let one = one?;
        found.insert(one.trace_id, one);
    }
    drop(matches);
    let mut found: Vec<TraceMatch> = found.into_values().collect();
    found.sort_by(|a, b| b.start_ns.cmp(&a.start_ns).then_with(|| a.trace_id.cmp(&b.trace_id)));
    found.truncate(if search.limit == 0 { TRACES_DEFAULT } else { search.limit });
    let traces: Vec<_> = found.iter().map(answer::trace).collect();
    let report = asked.ctx.report();
    let answer = serde_json::json!({"traces": traces, "metrics": answer::search_cost(&report)});
    Ok(send_read(&report, answer, false))
}

fn tags_select(asked: &Asked, name: &str) -> Result<TagsSelect> {
    let (start_ns, end_ns) = range(asked)?;
    Ok(TagsSelect {
        scope: asked.params.get("scope").unwrap_or_default().to_owned(),
        name: name.to_owned(),
        query: asked.params.get("q").unwrap_or_default().to_owned(),
        start_ns,
        end_ns,
        limit: asked.params.limit("limit", 0)?,
    })
}

/// Names of all scopes, each once.
fn flat_names(scopes: Vec<ScopeTags>) -> Vec<String> {
    let mut names: Vec<String> = scopes.into_iter().flat_map(|s| s.tags).collect();
    names.sort();
    names.dedup();
    names
}

/// The old API names attributes without their scope.
fn old_name(tag: String) -> String {
    if tag.contains(':') || INTRINSICS.contains(&tag.as_str()) { tag } else { format!(".{tag}") }
}

/// Values of all types as text, each once.
fn flat_values(values: &[Value]) -> Vec<String> {
    let mut values: Vec<String> = values.iter().map(ToString::to_string).collect();
    values.sort();
    values.dedup();
    values
}

async fn tag_names_v1(asked: Asked) -> Answer {
    let scopes = asked.shared.traces.tag_names(&asked.ctx, &tags_select(&asked, "")?).await?;
    Ok(send_tags(&asked, "tagNames", flat_names(scopes).into()))
}

async fn tag_names_v2(asked: Asked) -> Answer {
    let scopes = asked.shared.traces.tag_names(&asked.ctx, &tags_select(&asked, "")?).await?;
    let scopes: Vec<_> =
        scopes.iter().map(|s| serde_json::json!({"name": s.scope, "tags": s.tags})).collect();
    Ok(send_tags(&asked, "scopes", scopes.into()))
}

async fn tag_values_v1(Path(tag): Path<String>, asked: Asked) -> Answer {
    let values = asked.shared.traces.tag_values(&asked.ctx, &tags_select(&asked, &old_name(tag))?).await?;
    Ok(send_tags(&asked, "tagValues", flat_values(&values).into()))
}

/// Names that are not attributes in the old API.
const INTRINSICS: [&str; 6] = ["name", "status", "kind", "rootName", "rootServiceName", "statusMessage"];

async fn tag_values_v2(Path(tag): Path<String>, asked: Asked) -> Answer {
    let values = asked.shared.traces.tag_values(&asked.ctx, &tags_select(&asked, &tag)?).await?;
    let values: Vec<_> =
        values.iter().map(|v| serde_json::json!({"type": v.type_name(), "value": v.to_string()})).collect();
    Ok(send_tags(&asked, "tagValues", values.into()))
}

/// The range of a metrics query: `start`, `end`, or `since` before now.
fn metrics_range(asked: &Asked) -> Result<(i64, i64)> {
    let end = asked.params.time_ns("end")?.unwrap_or_else(now_ns);
    let since = asked.params.duration_ns("since")?.unwrap_or(METRICS_RANGE_NS);
    let start = asked.params.time_ns("start")?.unwrap_or(end.saturating_sub(since));
    asked.check_range_ns(start, end)?;
    Ok((start, end))
}

fn query_text(asked: &Asked) -> Result<String> {
    Ok(asked.params.get("q").map_or_else(|| asked.params.required("query"), Ok)?.to_owned())
}

fn range_question(asked: &Asked) -> Result<TracesMetricsQuery> {
    let (start_ns, end_ns) = metrics_range(asked)?;
    // As many points as Grafana draws, and at least a second each.
    let default = (end_ns.saturating_sub(start_ns) / 240 / SECOND_NS).max(1) * SECOND_NS;
    let step_ns = asked.params.duration_ns("step")?.unwrap_or(default);
    if step_ns <= 0 || end_ns.saturating_sub(start_ns) / step_ns > POINTS_MAX {
        return Err(Error::invalid(format!("step must be positive and give at most {POINTS_MAX} points")));
    }
    Ok(TracesMetricsQuery { query: query_text(asked)?, start_ns, end_ns, step_ns })
}

fn instant_question(asked: &Asked) -> Result<TracesMetricsQuery> {
    let (start_ns, end_ns) = metrics_range(asked)?;
    Ok(TracesMetricsQuery { query: query_text(asked)?, start_ns, end_ns, step_ns: 0 })
}

async fn series(asked: &Asked, question: &TracesMetricsQuery) -> Result<Vec<SeriesSamples>> {
    match asked.query().traces(&asked.ctx, question).await? {
        QueryValue::Matrix(series) | QueryValue::Vector(series) => Ok(series),
        _ => Err(Error::internal("a TraceQL metrics query did not give series")),
    }
}

async fn query_range(asked: Asked) -> Answer {
    let series = series(&asked, &range_question(&asked)?).await?;
    Ok(send_series(&asked, series.iter().map(answer::range_series).collect()))
}

async fn query(asked: Asked) -> Answer {
    let series = series(&asked, &instant_question(&asked)?).await?;
    Ok(send_series(&asked, series.iter().filter_map(answer::instant_series).collect()))
}

/// Grafana reads the version to decide which API features there are.
async fn buildinfo() -> Response {
    send(&serde_json::json!({
        "version": "2.9.0",
        "revision": concat!("triptych-", env!("CARGO_PKG_VERSION")),
        "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_ids() {
        assert_eq!(trace_id("1").unwrap()[15], 1);
        assert_eq!(trace_id("0102030405060708090a0b0c0d0e0f10").unwrap()[0], 1);
        for wrong in ["", "xyz", "+1", "-1", &"a".repeat(33), "..", "%2e"] {
            assert!(trace_id(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn old_tags() {
        assert_eq!(
            logfmt_pairs("a=b  c=\"d e\"").unwrap(),
            [("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d e".to_owned())]
        );
        assert!(logfmt_pairs("a").is_err() && logfmt_pairs("a=\"b").is_err());
    }
}
