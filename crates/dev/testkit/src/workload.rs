//! What is written and read: samples, lines and spans whose content says which item they are.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message;
use triptych_model::batch::{LogRecordEntry, LogsBuilder, MetricsBuilder, TracesBuilder};
use triptych_model::logs::{Direction, LogsQuery, LogsValue};
use triptych_model::metrics::{MetricsQuery, QueryValue, Sample};
use triptych_model::push::PushReport;
use triptych_model::traces::TraceSearch;
use triptych_model::{Labels, Result, Signal, TenantId};
use triptych_querier::Querier;
use triptych_rpc::{Write, WriteContext};
use triptych_runtime::QueryContext;

use crate::ledger::{Key, Seen};

/// Spans of one trace: they are written by several pushes.
const SPANS_PER_TRACE: u64 = 4;

const METRIC: &str = "simulated";

/// Sends items as one push.
pub async fn push(
    write: &Arc<dyn Write>,
    tenant: &TenantId,
    signal: Signal,
    items: &[Seen],
) -> Result<PushReport> {
    let ctx = WriteContext { tenant: tenant.clone() };
    match signal {
        Signal::Metrics => {
            let mut batch = MetricsBuilder::default();
            for Seen { key, time_ns } in items {
                let labels = Labels::from_pairs([("__name__", METRIC), ("stream", &key.stream.to_string())]);
                let sample = Sample { t_ms: time_ns / 1_000_000, value: key.number as f64 };
                batch.series(labels.hash64(), labels.as_encoded(), &[sample]);
            }
            write.metrics(&ctx, batch).await
        }
        Signal::Logs => {
            let mut batch = LogsBuilder::default();
            for Seen { key, time_ns } in items {
                let labels = Labels::from_pairs([("app", "simulated"), ("stream", &key.stream.to_string())]);
                let line = format!("{tenant} {key} info");
                let entry = LogRecordEntry { ts_ns: *time_ns, line: &line, metadata: &[] };
                batch.stream(labels.hash64(), labels.as_encoded(), [entry].into_iter());
            }
            write.logs(&ctx, batch).await
        }
        Signal::Traces => {
            let mut batch = TracesBuilder::default();
            for seen in items {
                let start = seen.time_ns;
                let otlp = span(tenant, seen).encode_to_vec();
                batch.trace(&trace_id(seen.key), start, start + 1000, 1, &otlp);
            }
            write.traces(&ctx, batch).await
        }
    }
}

fn text(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// The id of the trace that a span belongs to; never zero.
fn trace_id(key: Key) -> [u8; 16] {
    let mut id = [0x51; 16];
    id[4..8].copy_from_slice(&key.stream.to_be_bytes());
    id[8..].copy_from_slice(&(key.number / SPANS_PER_TRACE).to_be_bytes());
    id
}

fn span(tenant: &TenantId, Seen { key, time_ns }: &Seen) -> TracesData {
    let span = Span {
        trace_id: trace_id(*key).to_vec(),
        span_id: (key.number + 1).to_be_bytes().to_vec(),
        name: format!("{tenant} {key}"),
        start_time_unix_nano: *time_ns as u64,
        end_time_unix_nano: *time_ns as u64 + 1000,
        ..Span::default()
    };
    let resource = Resource {
        attributes: vec![text("service.name", format!("service-{}", key.stream))],
        ..Resource::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    TracesData {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans,
            ..ResourceSpans::default()
        }],
    }
}

/// What a read found.
#[derive(Debug, Default)]
pub struct Found {
    pub items: Vec<Seen>,
    pub foreign: Vec<String>,
}

impl Found {
    /// `tenant stream/number`, as lines and span names begin.
    fn add(&mut self, tenant: &TenantId, text: &str, time_ns: i64) {
        let mut words = text.split(' ');
        let key = (|| {
            if words.next()? != tenant.as_str() {
                return None;
            }
            let (stream, number) = words.next()?.split_once('/')?;
            Some(Key { stream: stream.parse().ok()?, number: number.parse().ok()? })
        })();
        match key {
            Some(key) => self.items.push(Seen { key, time_ns }),
            None => self.foreign.push(format!("found {text:?}")),
        }
    }
}

/// Everything of a tenant and signal in the range.
pub async fn read(
    querier: &Querier,
    ctx: &QueryContext,
    signal: Signal,
    (start_ns, end_ns): (i64, i64),
) -> Result<Found> {
    let mut found = Found::default();
    match signal {
        Signal::Metrics => {
            let (start_ms, end_ms) = (start_ns / 1_000_000, end_ns / 1_000_000);
            let query = MetricsQuery {
                whole_ms: None,
                shard: None,
                expr: format!("{METRIC}[{}ms]", end_ms - start_ms),
                start_ms: end_ms,
                end_ms,
                step_ms: 0,
                lookback_ms: 0,
            };
            let QueryValue::Matrix(series) = querier.query().metrics(ctx, &query).await? else {
                found.foreign.push("the answer is no matrix".to_owned());
                return Ok(found);
            };
            for one in series {
                let Ok(stream) = one.labels.value("stream").parse() else {
                    found.foreign.push(format!("found {}", one.labels));
                    continue;
                };
                let seen = |s: &Sample| Seen {
                    key: Key { stream, number: s.value as u64 },
                    time_ns: s.t_ms * 1_000_000,
                };
                found.items.extend(one.samples.iter().map(seen));
            }
        }
        Signal::Logs => {
            let query = LogsQuery {
                shard: None,
                expr: r#"{app="simulated"}"#.to_owned(),
                start_ns,
                end_ns,
                step_ns: 0,
                direction: Direction::Forward,
                limit: 1_000_000,
                interval_ns: 0,
            };
            let LogsValue::Entries(entries) = querier.query().logs(ctx, &query).await? else {
                found.foreign.push("the answer is no list of lines".to_owned());
                return Ok(found);
            };
            for entry in entries {
                found.add(ctx.tenant(), &String::from_utf8_lossy(&entry.line), entry.ts_ns);
            }
        }
        Signal::Traces => {
            let search = TraceSearch {
                // Each trace once, when all have answered.
                query: "{} with (most_recent=true)".to_owned(),
                start_ns,
                end_ns,
                limit: 1_000_000,
                spans_per_set: 1000,
            };
            let matches: Vec<_> = querier.traces().search(ctx, &search).await?.try_collect().await?;
            for span in matches.into_iter().flat_map(|m| m.span_sets).flat_map(|set| set.spans) {
                found.add(ctx.tenant(), &span.name, span.start_ns);
            }
        }
    }
    Ok(found)
}

/// The trace that a span is of, by its id. The keys that belong to it, and what was found.
pub async fn read_trace(
    querier: &Querier,
    ctx: &QueryContext,
    key: Key,
) -> Result<(impl Fn(&Key) -> bool + use<>, Found)> {
    let id = trace_id(key);
    let parts = querier.traces().find(ctx, &id, 0, 0).await?;
    let mut found = Found::default();
    for part in parts.otlp {
        let Ok(data) = TracesData::decode(part) else {
            found.foreign.push("a trace is no OTLP".to_owned());
            continue;
        };
        let spans = data.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        for span in spans {
            found.add(ctx.tenant(), &span.name, span.start_time_unix_nano as i64);
        }
    }
    Ok((move |other: &Key| trace_id(*other) == id, found))
}

/// How long a question may take.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
