//! `/api/v1/status/*`: what Grafana, promtool and the page ask about the server itself.

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Answer, plain, success};
use crate::Shared;
use crate::request::Asked;

pub fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/v1/status/buildinfo", get(buildinfo))
        .route("/api/v1/status/runtimeinfo", get(runtimeinfo))
        .route("/api/v1/status/flags", get(flags))
        .route("/api/v1/status/tsdb", get(tsdb))
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
    let info = serde_json::json!({
        "startTime": START.to_string(),
        "serverTime": now.to_string(),
        "CWD": "",
        "hostname": "",
        "reloadConfigSuccess": true,
        "GOMAXPROCS": threads,
        "storageRetention": "",
    });
    axum::Json(serde_json::json!({"status": "success", "data": info})).into_response()
}

async fn flags() -> Response {
    plain("{}")
}

async fn tsdb(asked: Asked) -> Answer {
    let limit = asked.params.limit("limit", 10)?;
    let stats = asked.shared.metrics.cardinality(&asked.ctx, limit).await?;
    let pairs = serde_json::json!({
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

fn named(counts: &[(String, u64)]) -> serde_json::Value {
    counts.iter().map(|(name, value)| serde_json::json!({"name": name, "value": value})).collect()
}
