//! What the built-in scraper scrapes: targets, pools, and the metadata of what targets expose.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};
use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::{LabelsSelect, MetricMetadata};
use triptych_model::{Error, Labels, MatchOp, Matcher, Result};
use triptych_runtime::now_ms;

use super::{Answer, count, data, of_parameter, success};
use crate::Shared;
use crate::request::Asked;

/// Series that got a sample in this time are what a target exposes: Prometheus' lookback.
const EXPOSED_MS: i64 = 300_000;

pub fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/api/v1/targets", get(targets))
        .route("/api/v1/targets/metadata", get(metadata))
        .route("/api/v1/scrape_pools", get(scrape_pools))
}

/// What the scraper says, empty where there is none.
fn known(shared: &Shared) -> Value {
    let nothing =
        || json!({"activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {}, "scrapePools": []});
    shared.targets.as_ref().map_or_else(nothing, |targets| targets())
}

async fn targets(asked: Asked) -> Response {
    let mut known = known(&asked.shared);
    let pool = asked.params.get("scrapePool");
    let state = asked.params.get("state").unwrap_or("any").to_ascii_lowercase();
    let mut list = |name: &str, shown: bool| {
        let Value::Array(mut all) = known[name].take() else { return Value::Array(vec![]) };
        all.retain(|target| shown && pool.is_none_or(|pool| target["scrapePool"] == pool));
        Value::Array(all)
    };
    let active = list("activeTargets", matches!(&*state, "any" | "active"));
    let dropped = list("droppedTargets", matches!(&*state, "any" | "dropped"));
    let mut answer = json!({"activeTargets": active, "droppedTargets": dropped});
    // As Prometheus: of no pool in particular, and null where dropped targets are not asked for.
    answer["droppedTargetCounts"] = match &*state {
        "any" | "dropped" => known["droppedTargetCounts"].take(),
        _ => Value::Null,
    };
    data(&answer)
}

async fn scrape_pools(asked: Asked) -> Response {
    data(&json!({"scrapePools": known(&asked.shared)["scrapePools"].take()}))
}

/// Metadata is kept by metric, not by target: a target has that of the metrics whose series carry its labels.
async fn metadata(asked: Asked) -> Answer {
    let limit = count(&asked, "limit")?.unwrap_or(usize::MAX);
    let matchers = match asked.params.get("match_target") {
        Some(text) => {
            triptych_promql::parse_selector(text).map_err(|e| of_parameter("match_target", e.into()))?
        }
        None => vec![],
    };
    let metric = asked.params.get("metric");
    let all = asked.shared.metrics.metadata(&asked.ctx, metric.unwrap_or_default(), 0).await?;
    let mut found = Vec::new();
    for target in known(&asked.shared)["activeTargets"].as_array().into_iter().flatten() {
        let labels = labels_of(target);
        if !matchers.iter().all(|m| m.matches(labels.value(&m.name))) {
            continue;
        }
        let exposed = exposed(&asked, &labels).await?;
        for one in all.iter().filter(|one| exposes(&exposed, one)) {
            if found.len() >= limit {
                break;
            }
            let mut entry = json!({
                "target": target["labels"],
                "metric": one.metric,
                "type": one.kind.as_str(),
                "help": one.help,
                "unit": one.unit,
            });
            if let (Some(_), Some(fields)) = (metric, entry.as_object_mut()) {
                fields.remove("metric");
            }
            found.push(entry);
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok(success(&asked.ctx, |out| out.push_str(&Value::Array(found).to_string())))
}

fn labels_of(target: &Value) -> Labels {
    let pairs = target["labels"].as_object().into_iter().flatten();
    Labels::from_pairs(pairs.filter_map(|(name, value)| Some((name, value.as_str()?))))
}

/// Names of the metrics that a target's series have now.
async fn exposed(asked: &Asked, labels: &Labels) -> Result<BTreeSet<String>> {
    let matchers =
        labels.iter().map(|(n, v)| Matcher::new(MatchOp::Equal, n, v)).collect::<Result<Vec<_>, Error>>()?;
    let now = now_ms();
    let select =
        LabelsSelect { matcher_sets: vec![matchers], start_ms: now - EXPOSED_MS, end_ms: now, limit: 0 };
    let names = asked.shared.metrics.label_values(&asked.ctx, METRIC_NAME, &select).await?;
    Ok(names.into_iter().collect())
}

/// A metric's metadata is told by the name of its family, its series may have a suffix.
fn exposes(names: &BTreeSet<String>, one: &MetricMetadata) -> bool {
    const SUFFIXES: [&str; 7] = ["", "_bucket", "_sum", "_count", "_total", "_created", "_info"];
    SUFFIXES.iter().any(|suffix| names.contains(&format!("{}{suffix}", one.metric)))
}
