//! `/api/v1/status/*`, features, notifications: what Grafana, promtool and the page ask about the server itself.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};
use triptych_promql::ast::{AggregateOp, BinaryOp};
use triptych_promql::functions::FUNCTIONS;

use super::{Answer, data, plain, success};
use crate::Shared;
use crate::request::Asked;

pub fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/v1/status/buildinfo", get(buildinfo))
        .route("/api/v1/status/runtimeinfo", get(runtimeinfo))
        .route("/api/v1/status/config", get(config))
        .route("/api/v1/status/flags", get(flags))
        .route("/api/v1/status/walreplay", get(walreplay))
        .route("/api/v1/status/tsdb", get(tsdb))
        .route("/api/v1/features", get(features))
        .route("/api/v1/notifications", get(notifications))
}

/// Grafana reads the version to decide which API features there are: it is that of the Prometheus whose API this follows.
async fn buildinfo() -> Response {
    plain(concat!(
        "{\"version\":\"3.5.0\",\"revision\":\"triptych-",
        env!("CARGO_PKG_VERSION"),
        "\",\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\",\"goVersion\":\"\",",
        "\"features\":{\"triptych\":\"true\"}}"
    ))
}

async fn runtimeinfo() -> Response {
    static START: std::sync::LazyLock<jiff::Timestamp> = std::sync::LazyLock::new(jiff::Timestamp::now);
    let now = jiff::Timestamp::now();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let info = json!({
        "startTime": START.to_string(),
        "serverTime": now.to_string(),
        "CWD": "",
        "hostname": "",
        "reloadConfigSuccess": true,
        "GOMAXPROCS": threads,
        "storageRetention": "",
    });
    data(&info)
}

async fn config(State(shared): State<Arc<Shared>>) -> Response {
    data(&json!({"yaml": shared.config}))
}

/// Prometheus' flags that have a counterpart here, as the tenant meets them.
async fn flags(asked: Asked) -> Response {
    let limits = &asked.limits;
    let time = triptych_config::duration::format;
    data(&json!({
        "query.max-samples": limits.query.rows_max.to_string(),
        "query.timeout": time(limits.query.timeout),
        "storage.tsdb.retention.time": time(limits.metrics.retention),
    }))
}

/// Segments of the write-ahead log to be replayed: none. Replay is over when a process answers questions.
async fn walreplay() -> Response {
    plain("{\"min\":0,\"max\":0,\"current\":0}")
}

/// What Prometheus' page would show: what an operator should know is in our own telemetry.
async fn notifications() -> Response {
    plain("[]")
}

/// What there is of what a client may ask Prometheus for.
async fn features() -> Response {
    let there = |names: &mut dyn Iterator<Item = &str>| -> Value {
        Value::Object(names.map(|name| (name.to_owned(), true.into())).collect())
    };
    let operators = BinaryOp::ALL.iter().map(|op| op.as_str());
    let aggregations = AggregateOp::ALL.iter().map(|(name, _)| *name);
    let matchers = ["=~", "!~", "@"].into_iter();
    data(&json!({
        "api": {
            "admin": false,
            "label_values_match": true,
            "lifecycle": false,
            "otlp_write_receiver": true,
            "query_stats": true,
            "query_warnings": true,
            "remote_write_receiver": true,
            "time_range_labels": true,
            "time_range_series": true,
        },
        "prometheus": {"agent_mode": false, "auto_reload_config": false, "server_mode": true},
        "promql": {
            "anchored": false,
            "at_modifier": true,
            "bool": true,
            "by": true,
            "duration_expr": true,
            "fill": true,
            "fill_left": true,
            "fill_right": true,
            "group_left": true,
            "group_right": true,
            "ignoring": true,
            "negative_offset": true,
            "offset": true,
            "on": true,
            "per_query_lookback_delta": true,
            "per_step_stats": false,
            "smoothed": false,
            "subqueries": true,
            "without": true,
        },
        "promql_functions": there(&mut FUNCTIONS.iter().map(|f| f.name)),
        "promql_operators": there(&mut operators.chain(aggregations).chain(matchers)),
        "tsdb": {"exemplar_storage": true, "native_histograms": false},
    }))
}

async fn tsdb(asked: Asked) -> Answer {
    let limit = asked.params.limit("limit", 10)?;
    let stats = asked.shared.metrics.cardinality(&asked.ctx, limit).await?;
    let pairs = json!({
        "headStats": {
            "numSeries": stats.series,
            "numLabelPairs": stats.values_by_label.iter().map(|(_, n)| n).sum::<u64>(),
            "chunkCount": stats.chunks,
            "minTime": stats.start_ms,
            "maxTime": stats.end_ms,
        },
        "seriesCountByMetricName": named(&stats.series_by_metric),
        "labelValueCountByLabelName": named(&stats.values_by_label),
        "memoryInBytesByLabelName": [],
        "seriesCountByLabelValuePair": [],
    });
    let text = pairs.to_string();
    Ok(success(&asked.ctx, |out| out.push_str(&text)))
}

fn named(counts: &[(String, u64)]) -> Value {
    counts.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}
