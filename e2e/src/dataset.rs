//! A known set of samples, lines and spans, and the question whether exactly it is there.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use crate::client::{Line, Pairs, Series, Stream, list, pairs, strings};
use crate::{Client, now_ms};

/// What was written, of all three signals.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    pub series: Vec<Series>,
    pub streams: Vec<Stream>,
    pub traces: Vec<ResourceSpans>,
}

const SERVICE: &str = "e2e";

impl Dataset {
    /// A part that begins at `from_ms` and lasts two minutes. Parts with other numbers have other lines and traces, and other
    /// samples of the same series.
    pub fn part(number: u32, from_ms: i64) -> Self {
        let series = (0..6).map(|n| {
            let labels = pairs([
                ("__name__", ["e2e_requests_total", "e2e_temperature"][n % 2]),
                ("job", SERVICE),
                ("instance", &format!("host-{}", n / 2)),
                ("quoted", "a \"b\" \\ <i>\u{fc}\u{1f980}</i>"),
            ]);
            let value = |i: i64| match i % 9 {
                7 => f64::INFINITY,
                8 => -0.1,
                _ => f64::from(number) * 1e6 + i as f64 * 1.1 + n as f64,
            };
            // Odd distances, to the millisecond.
            let samples = (0..20).map(|i| (from_ms + i * 5_003 + i % 3, value(i)));
            Series { labels, samples: samples.collect() }
        });
        let streams = (0..4i64).map(|n| {
            let labels = pairs([
                ("service_name", SERVICE),
                ("pod", &format!("pod-{n}")),
                ("format", ["json", "protobuf"][n as usize % 2]),
            ]);
            let lines = (0..30).map(|i| Line {
                // Several lines at the same nanosecond.
                ts_ns: (from_ms + i / 3 * 997 + n) * 1_000_000 + 17,
                text: format!("part {number} line {i} of {n}: level=info <b>\"x\"</b> \u{1f980}\ttab"),
                metadata: if i % 4 == 0 {
                    pairs([("request_id", &format!("r-{number}-{i}"))])
                } else {
                    Pairs::new()
                },
            });
            Stream { labels, lines: lines.collect() }
        });
        let traces = (0..5).map(|n| trace(number, n, from_ms));
        Self { series: series.collect(), streams: streams.collect(), traces: traces.collect() }
    }

    /// Writes it, each stream with the client that its label `format` names.
    pub async fn write(&self, client: &Client) -> Result<()> {
        client.remote_write(&self.series).await.context("remote write")?;
        let of = |format: &str| -> Vec<Stream> {
            self.streams
                .iter()
                .filter(|s| s.labels.get("format").is_some_and(|f| f == format))
                .cloned()
                .collect()
        };
        client.loki_json(&of("json")).await.context("Loki push, JSON")?;
        client.loki_protobuf(&of("protobuf")).await.context("Loki push, protobuf")?;
        client.otlp_traces(&self.traces).await.context("OTLP traces")
    }

    /// Adds what another part holds.
    pub fn extend(&mut self, other: Dataset) {
        for series in other.series {
            match self.series.iter_mut().find(|s| s.labels == series.labels) {
                Some(same) => {
                    same.samples.extend(series.samples);
                    same.samples.sort_by_key(|(t, _)| *t);
                }
                None => self.series.push(series),
            }
        }
        for stream in other.streams {
            match self.streams.iter_mut().find(|s| s.labels == stream.labels) {
                Some(same) => same.lines.extend(stream.lines),
                None => self.streams.push(stream),
            }
        }
        self.traces.extend(other.traces);
    }

    fn start_ms(&self) -> i64 {
        self.series.iter().flat_map(|s| &s.samples).map(|(t, _)| *t).min().unwrap_or_default() - 1000
    }

    /// Everything that is here is there, and nothing else.
    pub async fn check(&self, client: &Client, when: &str) -> Result<()> {
        self.check_metrics(client).await.with_context(|| format!("metrics {when}"))?;
        self.check_logs(client).await.with_context(|| format!("logs {when}"))?;
        self.check_traces(client).await.with_context(|| format!("traces {when}"))
    }

    pub async fn check_metrics(&self, client: &Client) -> Result<()> {
        let by_labels = |series: Vec<Series>| -> BTreeMap<Pairs, Vec<(i64, u64)>> {
            let bits = |s: Series| s.samples.iter().map(|(t, v)| (*t, v.to_bits())).collect();
            series.into_iter().map(|s| (s.labels.clone(), bits(s))).collect()
        };
        let (start, end) = (self.start_ms(), now_ms());
        let got = client.samples("{job=\"e2e\"}", start, end).await?;
        ensure!(got.len() == self.series.len(), "{} series instead of {}", got.len(), self.series.len());
        same(by_labels(got), by_labels(self.series.clone()))?;

        // The same through a range query: at the time of each third sample it is that sample.
        let one = &self.series[0];
        for (t, value) in one.samples.iter().step_by(3) {
            let time = format!("{}.{:03}", t / 1000, t % 1000);
            let selector = crate::client::selector(&one.labels);
            let params = [("query", selector.as_str()), ("start", &time), ("end", &time), ("step", "15")];
            let data = client.data("/api/v1/query_range", &params).await?;
            let got = crate::client::sample(&data["result"][0]["values"][0])?;
            ensure!(got == (*t, *value), "query_range at {t}: {got:?} instead of {value}");
        }
        let (start, end) = ((start / 1000).to_string(), (end / 1000 + 1).to_string());
        let params = [("match[]", "{job=\"e2e\"}"), ("start", start.as_str()), ("end", end.as_str())];
        let series = client.data("/api/v1/series", &params).await?;
        let series = list(&series)?.iter().map(crate::client::labels).collect::<Result<BTreeSet<_>>>()?;
        same(series, self.series.iter().map(|s| s.labels.clone()).collect())?;
        let names = strings(&client.data("/api/v1/labels", &params).await?, |n| n)?;
        same(names.iter().map(String::as_str).collect(), vec!["__name__", "instance", "job", "quoted"])?;
        let values = strings(&client.data("/api/v1/label/instance/values", &params).await?, |n| n)?;
        same(values.iter().map(String::as_str).collect(), vec!["host-0", "host-1", "host-2"])
    }

    pub async fn check_logs(&self, client: &Client) -> Result<()> {
        let (start, end) = (self.start_ms() * 1_000_000, now_ms() * 1_000_000);
        let by_labels = |streams: Vec<Stream>| -> BTreeMap<Pairs, Vec<Line>> {
            let mut all: BTreeMap<Pairs, Vec<Line>> = BTreeMap::new();
            streams.into_iter().for_each(|s| all.entry(s.labels).or_default().extend(s.lines));
            all
        };
        for forward in [true, false] {
            let mut got = client.streams("{service_name=\"e2e\"}", start, end, forward).await?;
            for stream in &mut got {
                if !forward {
                    stream.lines.reverse();
                }
                ensure!(stream.lines.is_sorted_by_key(|l| l.ts_ns), "not in order, forward: {forward}");
                stream.lines.sort();
            }
            let mut wanted = by_labels(self.streams.clone());
            for line in wanted.values_mut().flatten() {
                // Found in `level=info` on the way in, as Loki does it.
                line.metadata.insert("detected_level".to_owned(), "info".to_owned());
            }
            wanted.values_mut().for_each(|lines| lines.sort());
            same(by_labels(got), wanted).with_context(|| format!("forward: {forward}"))?;
        }
        let filtered = client.streams("{pod=\"pod-1\"} |= \"line 7 of\"", start, end, true).await?;
        let wanted = self.streams[1].lines.iter().filter(|l| l.text.contains("line 7 of")).count();
        same(filtered.iter().map(|s| s.lines.len()).sum::<usize>(), wanted)?;
        let (start, end) = (start.to_string(), end.to_string());
        let params = [("start", start.as_str()), ("end", end.as_str())];
        let values = client.data("/loki/api/v1/label/pod/values", &params).await?;
        let values = strings(&values, |n| n)?;
        same(values.iter().map(String::as_str).collect(), vec!["pod-0", "pod-1", "pod-2", "pod-3"])?;
        let params = [params[0], params[1], ("match[]", "{service_name=\"e2e\"}")];
        let series = client.data("/loki/api/v1/series", &params).await?;
        let series = list(&series)?.iter().map(crate::client::labels).collect::<Result<BTreeSet<_>>>()?;
        same(series, self.streams.iter().map(|s| s.labels.clone()).collect())
    }

    pub async fn check_traces(&self, client: &Client) -> Result<()> {
        for trace in &self.traces {
            let id = &spans(trace).next().context("a trace without spans")?.trace_id;
            let got = client.trace(id).await?;
            let services: BTreeSet<_> =
                got.iter().map(|r| attributes(r.resource.as_ref().map(|r| &*r.attributes))).collect();
            same(services, BTreeSet::from([attributes(trace.resource.as_ref().map(|r| &*r.attributes))]))?;
            let sorted = |list: Vec<&Span>| {
                let mut list: Vec<Span> = list.into_iter().cloned().collect();
                list.sort_by(|a, b| a.span_id.cmp(&b.span_id));
                list.iter_mut().for_each(|s| s.attributes.sort_by(|a, b| a.key.cmp(&b.key)));
                list
            };
            same(sorted(got.iter().flat_map(spans).collect()), sorted(spans(trace).collect()))?;
        }
        let (start, end) = (self.start_ms() / 1000, now_ms() / 1000 + 1);
        let found = client.search("{ resource.service.name = \"e2e\" }", start, end).await?;
        let mut wanted: Vec<_> =
            self.traces.iter().filter_map(|t| spans(t).next()).map(|s| hex::encode(&s.trace_id)).collect();
        wanted.sort();
        same(found, wanted.clone())?;
        let one = spans(&self.traces[1]).next().context("no spans")?;
        let found = client.search(&format!("{{ span.order = \"{}\" }}", order(one)), start, end).await?;
        same(found, vec![hex::encode(&one.trace_id)])?;
        let (start, end) = (start.to_string(), end.to_string());
        let params = [("start", start.as_str()), ("end", end.as_str())];
        let tags = client.get("/api/v2/search/tags", &params).await?.json()?;
        let span_tags =
            list(&tags["scopes"])?.iter().find(|s| s["name"] == "span").context("no span tags")?;
        let span_tags = strings(&span_tags["tags"], |t| t)?;
        ensure!(["order", "retries"].iter().all(|t| span_tags.iter().any(|s| s == t)), "tags {span_tags:?}");
        let values = client.get("/api/v2/search/tag/resource.service.name/values", &params).await?.json()?;
        ensure!(strings(&values["tagValues"], |v| &v["value"])? == ["e2e"], "tag values {values}");
        Ok(())
    }
}

/// Fails with both sides where they differ; long ones are cut around the difference.
pub fn same<T: PartialEq + std::fmt::Debug>(got: T, wanted: T) -> Result<()> {
    if got == wanted {
        return Ok(());
    }
    let (got, wanted): (Vec<char>, Vec<char>) =
        (format!("{got:?}").chars().collect(), format!("{wanted:?}").chars().collect());
    let at = got.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
    let around =
        |text: &[char]| -> String { text[at.saturating_sub(200)..text.len().min(at + 300)].iter().collect() };
    anyhow::bail!("differs at {at}:\n     got ..{}..\n  wanted ..{}..", around(&got), around(&wanted))
}

pub fn spans(resource: &ResourceSpans) -> impl Iterator<Item = &Span> {
    resource.scope_spans.iter().flat_map(|s| &s.spans)
}

fn attributes(list: Option<&[KeyValue]>) -> Vec<(String, String)> {
    let mut list: Vec<_> =
        list.unwrap_or_default().iter().map(|kv| (kv.key.clone(), format!("{:?}", kv.value))).collect();
    list.sort();
    list
}

fn order(span: &Span) -> &str {
    let order = span.attributes.iter().find(|kv| kv.key == "order").and_then(|kv| kv.value.as_ref());
    match order.and_then(|v| v.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        _ => "",
    }
}

pub fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Four spans below each other.
fn trace(part: u32, number: u32, from_ms: i64) -> ResourceSpans {
    let trace_id = [0x5e2e_u32.to_be_bytes(), part.to_be_bytes(), number.to_be_bytes(), [7; 4]].concat();
    let span_id = |i: u64| (u64::from(part) << 32 | u64::from(number) << 16 | i).to_be_bytes().to_vec();
    let start_ns = (from_ms + i64::from(number) * 1000) as u64 * 1_000_000;
    let spans = (1..=4).map(|i| Span {
        trace_id: trace_id.clone(),
        span_id: span_id(i),
        parent_span_id: if i == 1 { Vec::new() } else { span_id(i - 1) },
        name: format!("step {i}"),
        kind: if i == 1 { SpanKind::Server } else { SpanKind::Internal } as i32,
        start_time_unix_nano: start_ns + i * 1_000_003,
        end_time_unix_nano: start_ns + i * 1_000_003 + 250_000_007,
        attributes: vec![
            attribute("order", any_value::Value::StringValue(format!("o-{part}-{number}"))),
            attribute("retries", any_value::Value::IntValue(i as i64 - 2)),
            attribute("ratio", any_value::Value::DoubleValue(0.25)),
            attribute("cached", any_value::Value::BoolValue(i % 2 == 0)),
        ],
        events: vec![Event {
            time_unix_nano: start_ns + 5_000_000,
            name: "retry".into(),
            attributes: vec![attribute("why", any_value::Value::StringValue("timeout".into()))],
            ..Event::default()
        }],
        status: Some(Status {
            code: (i % 3) as i32,
            message: if i == 2 { "broken".into() } else { String::new() },
        }),
        ..Span::default()
    });
    ResourceSpans {
        resource: Some(Resource {
            attributes: vec![
                attribute("service.name", any_value::Value::StringValue(SERVICE.into())),
                attribute("host.name", any_value::Value::StringValue("h\"1\"".into())),
            ],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "e2e-scope".into(),
                version: "1".into(),
                ..Default::default()
            }),
            spans: spans.collect(),
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }
}
