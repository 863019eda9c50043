//! Loki's HTTP API (grafana.com/docs/loki/latest/reference/loki-http-api).

mod answer;
mod outbox;
mod tail;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use http::{StatusCode, header};
use triptych_logql::patterns::Patterns;
use triptych_model::logs::{Direction, EntrySelect, LogsQuery, LogsValue, StreamsSelect};
use triptych_model::metrics::{QueryValue, Sample, SeriesSamples};
use triptych_model::{Error, Labels, Result};
use triptych_rpc::{Door, http_status};
use triptych_runtime::now_ns;

use crate::held::{Holding, hold};
use crate::request::Asked;
use crate::{Shared, json, numbers};

const SECOND_NS: i64 = 1_000_000_000;
/// Loki's default range for queries, and for labels and series.
const QUERY_RANGE_NS: i64 = 3600 * SECOND_NS;
const LABELS_RANGE_NS: i64 = 6 * 3600 * SECOND_NS;
/// Loki's default number of lines.
const ENTRIES_DEFAULT: usize = 100;
/// Under which name the level of a line is kept, and how many levels patterns are told apart by.
const DETECTED_LEVEL: &str = "detected_level";
const LEVELS_MAX: usize = 16;
/// Most steps of a volume range: each is a question of its own.
const VOLUME_STEPS_MAX: i64 = 500;

pub fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/loki/api/v1/query", get(query).post(query))
        .route("/loki/api/v1/query_range", get(query_range).post(query_range))
        .route("/loki/api/v1/labels", get(label_names).post(label_names))
        .route("/loki/api/v1/label", get(label_names))
        .route("/loki/api/v1/label/{name}/values", get(label_values).post(label_values))
        .route("/loki/api/v1/series", get(series).post(series))
        .route("/loki/api/v1/index/stats", get(stats).post(stats))
        .route("/loki/api/v1/index/volume", get(volume).post(volume))
        .route("/loki/api/v1/index/volume_range", get(volume_range).post(volume_range))
        .route("/loki/api/v1/detected_labels", get(detected_labels).post(detected_labels))
        .route("/loki/api/v1/detected_fields", get(detected_fields).post(detected_fields))
        .route(
            "/loki/api/v1/detected_field/{name}/values",
            get(detected_field_values).post(detected_field_values),
        )
        .route("/loki/api/v1/patterns", get(patterns).post(patterns))
        .route("/loki/api/v1/drilldown-limits", get(drilldown_limits))
        .route("/loki/api/v1/format_query", get(format_query).post(format_query))
        .route("/loki/api/v1/tail", get(tail::tail))
        .route("/loki/api/v1/status/buildinfo", get(buildinfo))
        .layer(from_fn_with_state(Holding::new(&shared, |e| Problem::from(e).into_response()), hold))
        .with_state(shared)
}

/// An error as Loki answers it: plain text.
pub struct Problem(Error);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = http_status(&self.0, Door::Read);
        let mut response = (status, format!("{}\n", self.0.message)).into_response();
        if let Some(after) = self.0.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().max(1).into());
        }
        response
    }
}

type Answer = Result<Response, Problem>;

fn send(mut out: String) -> Response {
    out.shrink_to_fit();
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json; charset=UTF-8")], out).into_response()
}

/// `{"status":"success","data":..}`.
fn success(asked: &Asked, data: impl FnOnce(&mut String)) -> Response {
    let mut out = String::from("{\"status\":\"success\",\"data\":");
    data(&mut out);
    json::notes(&mut out, &asked.ctx.report());
    out.push('}');
    send(out)
}

/// `start`, `end`, or `since` before the end; the default ends now.
fn range(asked: &Asked, default_ns: i64) -> Result<(i64, i64)> {
    let end = asked.params.time_ns("end")?.unwrap_or_else(now_ns);
    let since = asked.params.duration_ns("since")?.unwrap_or(default_ns);
    let start = asked.params.time_ns("start")?.unwrap_or(end.saturating_sub(since));
    asked.check_range_ns(start, end)?;
    Ok((start, end))
}

fn direction(asked: &Asked) -> Result<Direction> {
    match asked.params.get("direction").map(str::to_ascii_lowercase).as_deref() {
        None | Some("backward") => Ok(Direction::Backward),
        Some("forward") => Ok(Direction::Forward),
        Some(other) => Err(Error::invalid(format!("invalid direction '{other}'"))),
    }
}

fn entries_limit(asked: &Asked) -> Result<usize> {
    let limit = asked.params.limit("limit", ENTRIES_DEFAULT)?;
    let max = asked.limits.query.entries_max;
    if max > 0 && limit > max {
        return Err(Error::invalid(format!(
            "max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {max})"
        )));
    }
    Ok(limit)
}

/// A step that gives at most 250 points, as Loki chooses it.
fn step_ns(asked: &Asked, start: i64, end: i64) -> Result<i64> {
    let default = (end.saturating_sub(start) / SECOND_NS / 250).max(1) * SECOND_NS;
    let step = asked.params.duration_ns("step")?.unwrap_or(default);
    if step <= 0 {
        return Err(Error::invalid(
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    if end.saturating_sub(start) / step > 11_000 {
        return Err(Error::invalid(
            "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter",
        ));
    }
    Ok(step)
}

fn interval_ns(asked: &Asked) -> Result<i64> {
    match asked.params.duration_ns("interval")?.unwrap_or(0) {
        interval if interval < 0 => Err(Error::invalid("interval must be >= 0")),
        interval => Ok(interval),
    }
}

async fn ask(asked: &Asked, question: LogsQuery) -> Answer {
    let began = tokio::time::Instant::now();
    let value = asked.query().logs(&asked.ctx, &question).await?;
    let mut out = String::from("{\"status\":\"success\",\"data\":{");
    let returned = match &value {
        LogsValue::Entries(entries) => {
            answer::streams(&mut out, entries, answer::is_categorized(&asked.headers));
            entries.len()
        }
        LogsValue::Metric(value) => {
            json::result(&mut out, value, numbers::decimal);
            0
        }
    };
    let report = asked.ctx.report();
    answer::stats(&mut out, &report, began.elapsed(), returned);
    out.push('}');
    json::notes(&mut out, &report);
    out.push('}');
    Ok(send(out))
}

async fn query(asked: Asked) -> Answer {
    let at = asked.params.time_ns("time")?.unwrap_or_else(now_ns);
    let expr = asked.params.required("query")?.to_owned();
    let question = LogsQuery {
        expr,
        start_ns: at,
        end_ns: at,
        step_ns: 0,
        direction: direction(&asked)?,
        limit: entries_limit(&asked)?,
        shard: None,
        interval_ns: 0,
    };
    // Loki answers an instant log query no longer; only metric queries have a value at one time.
    if matches!(triptych_logql::parse(&question.expr)?, triptych_logql::Expr::Log(_)) {
        return Err(Error::invalid(
            "log queries are not supported as an instant query type, please change your query to a range query type",
        )
        .into());
    }
    ask(&asked, question).await
}

async fn query_range(asked: Asked) -> Answer {
    let (start_ns, end_ns) = range(&asked, QUERY_RANGE_NS)?;
    let question = LogsQuery {
        expr: asked.params.required("query")?.to_owned(),
        start_ns,
        end_ns,
        step_ns: step_ns(&asked, start_ns, end_ns)?,
        direction: direction(&asked)?,
        limit: entries_limit(&asked)?,
        shard: None,
        interval_ns: interval_ns(&asked)?,
    };
    ask(&asked, question).await
}

/// Matcher sets from `names` (`match[]`, `match`, `query`); `{}` and nothing mean every stream.
fn streams(asked: &Asked, names: &[&str], default_ns: i64) -> Result<StreamsSelect> {
    let (start_ns, end_ns) = range(asked, default_ns)?;
    let texts = names.iter().flat_map(|name| asked.params.all(name));
    let matcher_sets = texts
        .filter(|text| !text.trim().is_empty() && text.trim() != "{}")
        .map(triptych_logql::parse_selector)
        .collect::<Result<Vec<_>>>()?;
    Ok(StreamsSelect { matcher_sets, start_ns, end_ns, limit: asked.params.limit("limit", 0)? })
}

async fn label_names(asked: Asked) -> Answer {
    let select = streams(&asked, &["query"], LABELS_RANGE_NS)?;
    let names = asked.shared.logs.label_names(&asked.ctx, &select).await?;
    Ok(success(&asked, |out| json::strings(out, &names)))
}

async fn label_values(Path(name): Path<String>, asked: Asked) -> Answer {
    let select = streams(&asked, &["query"], LABELS_RANGE_NS)?;
    let values = asked.shared.logs.label_values(&asked.ctx, &name, &select).await?;
    Ok(success(&asked, |out| json::strings(out, &values)))
}

async fn series(asked: Asked) -> Answer {
    let select = streams(&asked, &["match[]", "match"], LABELS_RANGE_NS)?;
    let found = asked.shared.logs.series(&asked.ctx, &select).await?;
    Ok(success(&asked, |out| json::list(out, &found, json::labels)))
}

async fn stats(asked: Asked) -> Answer {
    let select = streams(&asked, &["query"], QUERY_RANGE_NS)?;
    let stats = asked.shared.logs.stats(&asked.ctx, &select).await?;
    Ok(send(format!(
        "{{\"streams\":{},\"chunks\":{},\"entries\":{},\"bytes\":{}}}",
        stats.streams, stats.chunks, stats.entries, stats.bytes
    )))
}

/// Which labels a volume is told by: `targetLabels`, else those the selector names.
fn volume_labels(asked: &Asked, select: &StreamsSelect) -> Vec<String> {
    if asked.params.get("aggregateBy") == Some("labels") {
        return vec![];
    }
    match asked.params.get("targetLabels") {
        Some(text) => text.split(',').map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect(),
        None => select.matcher_sets.iter().flatten().map(|m| m.name.clone()).collect(),
    }
}

async fn volumes(asked: &Asked, select: &StreamsSelect, labels: &[String]) -> Result<Vec<(Labels, u64)>> {
    let found = asked.shared.logs.volume(&asked.ctx, select, labels).await?;
    let mut found: Vec<_> = found.into_iter().map(|v| (v.labels, v.bytes)).collect();
    found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(found)
}

async fn volume(asked: Asked) -> Answer {
    let select = streams(&asked, &["query"], QUERY_RANGE_NS)?;
    let labels = volume_labels(&asked, &select);
    let limit = asked.params.limit("limit", ENTRIES_DEFAULT)?;
    let found = volumes(&asked, &select, &labels).await?;
    let sample = |bytes: u64| Sample { t_ms: select.end_ns / 1_000_000, value: bytes as f64 };
    let vector = found
        .into_iter()
        .take(limit)
        .map(|(labels, bytes)| SeriesSamples { labels, samples: vec![sample(bytes)] })
        .collect();
    Ok(metric(&asked, &QueryValue::Vector(vector)))
}

fn metric(asked: &Asked, value: &QueryValue) -> Response {
    success(asked, |out| {
        out.push('{');
        json::result(out, value, numbers::decimal);
        out.push('}');
    })
}

async fn volume_range(asked: Asked) -> Answer {
    let select = streams(&asked, &["query"], QUERY_RANGE_NS)?;
    let labels = volume_labels(&asked, &select);
    let limit = asked.params.limit("limit", ENTRIES_DEFAULT)?;
    let step = step_ns(&asked, select.start_ns, select.end_ns)?;
    if select.end_ns.saturating_sub(select.start_ns) / step > VOLUME_STEPS_MAX {
        return Err(
            Error::invalid(format!("more than {VOLUME_STEPS_MAX} steps: ask for a larger step")).into()
        );
    }
    let mut by_labels: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
    let mut start = select.start_ns;
    while start < select.end_ns {
        let end = start.saturating_add(step).min(select.end_ns);
        let part = StreamsSelect { start_ns: start, end_ns: end, ..select.clone() };
        for (labels, bytes) in volumes(&asked, &part, &labels).await? {
            by_labels
                .entry(labels)
                .or_default()
                .push(Sample { t_ms: start / 1_000_000, value: bytes as f64 });
        }
        start = end;
    }
    let mut series: Vec<_> =
        by_labels.into_iter().map(|(labels, samples)| SeriesSamples { labels, samples }).collect();
    let total = |s: &SeriesSamples| s.samples.iter().map(|s| s.value).sum::<f64>();
    series.sort_by(|a, b| total(b).total_cmp(&total(a)));
    series.truncate(limit);
    Ok(metric(&asked, &QueryValue::Matrix(series)))
}

async fn detected_labels(asked: Asked) -> Answer {
    let select = streams(&asked, &["query"], QUERY_RANGE_NS)?;
    let names = asked.shared.logs.label_names(&asked.ctx, &select).await?;
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let values = asked.shared.logs.label_values(&asked.ctx, &name, &select).await?;
        found.push(serde_json::json!({"label": name, "cardinality": values.len()}));
    }
    Ok(send(serde_json::json!({"detectedLabels": found}).to_string()))
}

/// The lines that fields are looked for in, and how much is told.
fn fields_select(asked: &Asked) -> Result<(EntrySelect, usize)> {
    let (start_ns, end_ns) = range(asked, QUERY_RANGE_NS)?;
    let select = EntrySelect {
        expr: asked.params.required("query")?.to_owned(),
        start_ns,
        end_ns,
        direction: Direction::Backward,
        limit: asked.params.limit("line_limit", 1000)?,
    };
    Ok((select, asked.params.limit("limit", 1000)?))
}

async fn detected_field_values(Path(name): Path<String>, asked: Asked) -> Answer {
    let (select, limit) = fields_select(&asked)?;
    let mut values = asked.shared.logs.detected_field_values(&asked.ctx, &name, &select).await?;
    values.truncate(limit);
    Ok(send(serde_json::json!({"values": values, "limit": limit}).to_string()))
}

async fn detected_fields(asked: Asked) -> Answer {
    let (select, limit) = fields_select(&asked)?;
    let found = asked.shared.logs.detected_fields(&asked.ctx, &select).await?;
    let fields: Vec<_> = found
        .iter()
        .take(limit)
        .map(|f| {
            // Null is how Loki tells structured metadata.
            let parsers = (!f.parsers.is_empty()).then_some(&f.parsers);
            serde_json::json!({"label": f.label, "type": f.kind, "cardinality": f.cardinality, "parsers": parsers})
        })
        .collect();
    Ok(send(serde_json::json!({"fields": fields, "limit": limit}).to_string()))
}

async fn format_query(asked: Asked) -> Answer {
    let expr = triptych_logql::parse(asked.params.required("query")?)?;
    Ok(success(&asked, |out| json::string(out, &expr.to_string())))
}

/// By level, what the lines have in common, the most frequent first. All lines of the range are read, within the limits of a query.
async fn patterns(asked: Asked) -> Answer {
    let (start_ns, end_ns) = range(&asked, QUERY_RANGE_NS)?;
    let step = step_ns(&asked, start_ns, end_ns)?;
    let select = EntrySelect {
        expr: asked.params.required("query")?.to_owned(),
        start_ns,
        end_ns,
        direction: Direction::Backward,
        limit: 0,
    };
    if !matches!(triptych_logql::parse(&select.expr)?, triptych_logql::Expr::Log(_)) {
        return Err(Error::invalid("patterns are those of a log query, not of a metric query").into());
    }
    let mut by_level: BTreeMap<String, Patterns> = BTreeMap::new();
    let mut batches = asked.shared.logs.entries(&asked.ctx, &select).await?;
    while let Some(batch) = batches.next().await {
        for entry in batch? {
            let mut level = entry.metadata.value(DETECTED_LEVEL);
            if !by_level.contains_key(level) {
                if by_level.len() >= LEVELS_MAX {
                    level = "";
                }
                by_level.entry(level.to_owned()).or_insert_with(|| Patterns::new(step));
            }
            if let Some(patterns) = by_level.get_mut(level) {
                patterns.add(entry.ts_ns, &String::from_utf8_lossy(&entry.line));
            }
        }
    }
    let mut found = Vec::new();
    for (level, patterns) in by_level {
        if patterns.forgotten() > 0 {
            let lines = patterns.forgotten();
            asked
                .ctx
                .warn(format!("{lines} lines of level {level:?} have patterns that are too rare to be told"));
        }
        found.extend(patterns.finish().into_iter().map(|pattern| (level.clone(), pattern)));
    }
    found.sort_by_key(|(_, pattern)| std::cmp::Reverse(pattern.total()));
    Ok(success(&asked, |out| {
        json::list(out, &found, |out, (level, pattern)| {
            out.push_str("{\"pattern\":");
            json::string(out, &pattern.text);
            out.push_str(",\"level\":");
            json::string(out, level);
            out.push_str(",\"samples\":");
            json::list(out, &pattern.lines, |out, (ns, count)| {
                out.push_str(&format!("[{},{count}]", ns.div_euclid(SECOND_NS)));
            });
            out.push('}');
        });
    }))
}

/// What Grafana's Logs Drilldown asks before anything else, under Loki's names.
async fn drilldown_limits(asked: Asked) -> Response {
    let limits = &asked.limits;
    let seconds = |d: std::time::Duration| format!("{}s", d.as_secs());
    let limits = serde_json::json!({
        "max_entries_limit_per_query": limits.query.entries_max,
        "max_query_length": seconds(limits.query.range_max),
        "query_timeout": seconds(limits.query.timeout),
        "retention_period": seconds(limits.logs.retention),
        "volume_enabled": true,
    });
    send(
        serde_json::json!({"limits": limits, "pattern_ingester_enabled": true, "version": LOKI_VERSION})
            .to_string(),
    )
}

/// The version of the Loki whose API this follows.
const LOKI_VERSION: &str = "3.5.0";

/// Grafana reads the version to decide which API features there are.
async fn buildinfo() -> Response {
    send(format!(
        "{{\"version\":\"{LOKI_VERSION}\",\"revision\":\"triptych-{}\",\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\",\"goVersion\":\"\"}}",
        env!("CARGO_PKG_VERSION")
    ))
}
