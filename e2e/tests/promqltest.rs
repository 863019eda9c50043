//! Prometheus' own test files against the running process, over remote write and the query API.
//!
//! The files are read where they lie: `$TRIPTYCH_SHARED_DATA/promqltest`, by default `../shared/data/promqltest` beside the
//! workspace. Not there: skipped, with a line that says so.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::ensure;
use async_trait::async_trait;
use serde_json::Value as Json;
use triptych_e2e::client::{Pairs, Series, list, sample};
use triptych_e2e::{Client, Options, Process};
use triptych_model::metrics::{MetricsQuery, QueryValue, Sample, SeriesSamples};
use triptych_model::{Error, Labels, Result};
use triptych_promql::promqltest::{Answer, Target, run};

const FILES: [&str; 11] = [
    "aggregators",
    "at_modifier",
    "collision",
    "literals",
    "name_label_dropping",
    "operators",
    "range_queries",
    "selectors",
    "staleness",
    "subquery",
    "trig_functions",
];

fn data_dir() -> Option<PathBuf> {
    let dir = match std::env::var_os("TRIPTYCH_SHARED_DATA") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from("../../shared/data"),
    };
    let dir = dir.join("promqltest");
    if dir.is_dir() {
        return Some(dir);
    }
    println!("skipped: no Prometheus test files at {}", dir.display());
    None
}

/// A tenant per `clear`.
struct Remote {
    client: Client,
    file: &'static str,
    cleared: usize,
}

fn internal(error: anyhow::Error) -> Error {
    Error::internal(format!("{error:#}"))
}

fn seconds(ms: i64) -> String {
    format!("{}{}.{:03}", if ms < 0 { "-" } else { "" }, ms.abs() / 1000, ms.abs() % 1000)
}

#[async_trait]
impl Target for Remote {
    async fn clear(&mut self) -> Result<()> {
        self.cleared += 1;
        self.client = self.client.tenant(&format!("{}-{}", self.file, self.cleared));
        Ok(())
    }

    async fn load(&mut self, series: Vec<SeriesSamples>) -> Result<()> {
        // Of a series that a script names twice the later one counts.
        let series: BTreeMap<Pairs, Vec<(i64, f64)>> = series
            .into_iter()
            .map(|s| {
                let labels = s.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                (labels, s.samples.iter().map(|s| (s.t_ms, s.value)).collect())
            })
            .collect();
        let series: Vec<_> = series.into_iter().map(|(labels, samples)| Series { labels, samples }).collect();
        self.client.remote_write(&series).await.map_err(internal)
    }

    async fn eval(&mut self, query: &MetricsQuery) -> Result<Answer> {
        let (start, end) = (seconds(query.start_ms), seconds(query.end_ms));
        let step = seconds(query.step_ms);
        let mut params = vec![("query", query.expr.as_str())];
        let lookback = seconds(query.lookback_ms);
        if query.lookback_ms > 0 {
            params.push(("lookback_delta", &lookback));
        }
        let path = if query.step_ms == 0 {
            params.push(("time", &start));
            "/api/v1/query"
        } else {
            params.extend([("start", start.as_str()), ("end", &end), ("step", &step)]);
            "/api/v1/query_range"
        };
        let reply = self.client.get(path, &params).await.map_err(internal)?;
        let json: Json =
            serde_json::from_str(&reply.text).map_err(|e| Error::internal(format!("{e}: {}", reply.text)))?;
        let texts = |name: &str| -> Vec<String> {
            let list = json[name].as_array().map_or(&[][..], Vec::as_slice);
            list.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect()
        };
        if json["status"] != "success" {
            let text = json["error"].as_str().unwrap_or_default().to_owned();
            return Err(match reply.status {
                400..=499 => Error::invalid(text),
                _ => Error::internal(text),
            });
        }
        let value = value(&json["data"]).map_err(internal)?;
        Ok(Answer { value, warnings: texts("warnings"), infos: texts("infos") })
    }
}

fn value(data: &Json) -> anyhow::Result<QueryValue> {
    let point = |json: &Json| sample(json).map(|(t_ms, value)| Sample { t_ms, value });
    let labels = |json: &Json| -> anyhow::Result<Labels> {
        let pairs: Pairs = triptych_e2e::client::labels(json)?;
        Ok(Labels::from_pairs(pairs.iter()))
    };
    let result = &data["result"];
    Ok(match data["resultType"].as_str() {
        Some("scalar") => QueryValue::Scalar(point(result)?),
        Some("string") => QueryValue::String {
            t_ms: (result[0].as_f64().unwrap_or_default() * 1000.0).round() as i64,
            value: result[1].as_str().unwrap_or_default().to_owned(),
        },
        Some("vector") => QueryValue::Vector(
            list(result)?
                .iter()
                .map(|s| {
                    Ok(SeriesSamples { labels: labels(&s["metric"])?, samples: vec![point(&s["value"])?] })
                })
                .collect::<anyhow::Result<_>>()?,
        ),
        Some("matrix") => QueryValue::Matrix(
            list(result)?
                .iter()
                .map(|s| {
                    let samples = list(&s["values"])?.iter().map(point).collect::<anyhow::Result<_>>()?;
                    Ok(SeriesSamples { labels: labels(&s["metric"])?, samples })
                })
                .collect::<anyhow::Result<_>>()?,
        ),
        other => anyhow::bail!("result type {other:?}"),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http() -> anyhow::Result<()> {
    let Some(dir) = data_dir() else { return Ok(()) };
    // Scripts load the same hours again and again: late samples must be taken.
    let options = Options::default()
        .set("multitenancy", true)
        .set("querier.promql_delayed_name_removal", true)
        .set("limits.metrics.out_of_order_window", "52w");
    let process = Process::start(options).await?;
    let (mut passed, mut failed) = (0, Vec::new());
    for file in FILES {
        let script = std::fs::read_to_string(dir.join(file).with_extension("test"))?;
        let mut target = Remote { client: process.client(), file, cleared: 0 };
        let report = run(&script, &mut target).await.map_err(|e| anyhow::anyhow!("{file}: {e}"))?;
        println!("{file}: {report}");
        ensure!(report.passed > 0, "{file}: nothing was run");
        passed += report.passed;
        if !report.failed.is_empty() {
            failed.push(format!("{file}: {report}"));
        }
    }
    println!("{passed} passed");
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}
