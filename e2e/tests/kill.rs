//! `kill -9` under load, again and again: what was acknowledged is there, exactly once.

#![allow(clippy::disallowed_methods, reason = "real time and chance, from outside of the process")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use rand::RngExt;
use triptych_e2e::client::{Line, Pairs, Series, Stream, pairs};
use triptych_e2e::dataset::{attribute, spans};
use triptych_e2e::{Client, Options, Process, now_ms, now_ns};

const ROUNDS: usize = 5;
/// Items in one request.
const BATCH: i64 = 10;
const SERIES: i64 = 5;

/// Numbers of items, and whether they were acknowledged. What was not may be there or not.
type Sent = BTreeMap<i64, bool>;

fn sample_series(number: i64) -> Pairs {
    pairs([("__name__", "load"), ("n", &(number % SERIES).to_string())])
}

fn stream_labels() -> Pairs {
    pairs([("service_name", "load")])
}

/// A trace has the spans of 50 batches.
fn trace_id(number: i64) -> Vec<u8> {
    (0x10ad_u128 << 64 | (number / (50 * BATCH)) as u128).to_be_bytes().to_vec()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Metrics,
    Logs,
    Traces,
}

/// Item `number` of a signal stands at its own millisecond.
async fn send(client: &Client, signal: Signal, origin_ms: i64, numbers: std::ops::Range<i64>) -> Result<()> {
    match signal {
        Signal::Metrics => {
            let series: Vec<_> = (0..SERIES)
                .map(|n| {
                    let mine = numbers.clone().filter(|i| i % SERIES == n);
                    Series {
                        labels: sample_series(n),
                        samples: mine.map(|i| (origin_ms + i, i as f64)).collect(),
                    }
                })
                .collect();
            client.remote_write(&series).await
        }
        Signal::Logs => {
            let line = |i: i64| Line {
                ts_ns: (origin_ms + i) * 1_000_000,
                text: format!("line {i}"),
                metadata: Pairs::new(),
            };
            client.loki_json(&[Stream { labels: stream_labels(), lines: numbers.map(line).collect() }]).await
        }
        Signal::Traces => {
            let span = |i: i64| Span {
                trace_id: trace_id(i),
                span_id: (i as u64 + 1).to_be_bytes().to_vec(),
                name: format!("span {i}"),
                start_time_unix_nano: (origin_ms + i) as u64 * 1_000_000,
                end_time_unix_nano: (origin_ms + i) as u64 * 1_000_000 + 1000,
                ..Span::default()
            };
            let resource = Resource {
                attributes: vec![attribute("service.name", Value::StringValue("load".into()))],
                ..Resource::default()
            };
            let scope = ScopeSpans { spans: numbers.map(span).collect(), ..ScopeSpans::default() };
            let request =
                ResourceSpans { resource: Some(resource), scope_spans: vec![scope], ..Default::default() };
            client.otlp_traces(&[request]).await
        }
    }
}

/// Sends until told to stop, or until the process is gone.
async fn load(client: Client, signal: Signal, origin_ms: i64, mut next: i64, stop: Arc<AtomicBool>) -> Sent {
    let mut sent = Sent::new();
    while !stop.load(Ordering::Relaxed) {
        let numbers = next..next + BATCH;
        next += BATCH;
        let acknowledged = send(&client, signal, origin_ms, numbers.clone()).await.is_ok();
        sent.extend(numbers.map(|n| (n, acknowledged)));
        if !acknowledged {
            break;
        }
    }
    sent
}

/// The numbers that are there, each as often as it is.
async fn found(client: &Client, signal: Signal, origin_ms: i64, sent: &Sent) -> Result<Vec<i64>> {
    let mut numbers = Vec::new();
    let end_ms = now_ms() + 1000;
    match signal {
        Signal::Metrics => {
            for series in client.samples("load", origin_ms - 1, end_ms).await? {
                for (t, value) in series.samples {
                    ensure!(t == origin_ms + value as i64, "sample {value} stands at {t}");
                    numbers.push(value as i64);
                }
            }
        }
        Signal::Logs => {
            // In pages: 4000 milliseconds hold at most 4000 lines.
            let mut from = origin_ms;
            let last = sent.keys().last().copied().unwrap_or_default();
            while from <= origin_ms + last {
                let (start, end) = (from * 1_000_000, (from + 4000) * 1_000_000);
                for stream in client.streams("{service_name=\"load\"}", start, end, true).await? {
                    for line in stream.lines {
                        let number: i64 = line.text.strip_prefix("line ").context("not our line")?.parse()?;
                        ensure!(line.ts_ns == (origin_ms + number) * 1_000_000, "{line:?}");
                        numbers.push(number);
                    }
                }
                from += 4000;
            }
        }
        Signal::Traces => {
            let mut ids: Vec<_> = sent.iter().filter(|(_, ok)| **ok).map(|(n, _)| trace_id(*n)).collect();
            ids.dedup();
            for id in ids {
                for span in client.trace(&id).await?.iter().flat_map(spans) {
                    let number: i64 = span.name.strip_prefix("span ").context("not our span")?.parse()?;
                    ensure!(span.span_id == (number as u64 + 1).to_be_bytes(), "{span:?}");
                    numbers.push(number);
                }
            }
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

async fn check(client: &Client, signal: Signal, origin_ms: i64, sent: &Sent, when: &str) -> Result<usize> {
    let numbers =
        found(client, signal, origin_ms, sent).await.with_context(|| format!("{signal:?} {when}"))?;
    let twice: Vec<_> = numbers.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).take(10).collect();
    ensure!(twice.is_empty(), "{signal:?} {when}: more than once: {twice:?}");
    let lost: Vec<_> =
        sent.iter().filter(|(n, ok)| **ok && numbers.binary_search(n).is_err()).map(|(n, _)| *n).collect();
    ensure!(
        lost.is_empty(),
        "{signal:?} {when}: {} of {} acknowledged are lost, the first {:?}",
        lost.len(),
        sent.values().filter(|ok| **ok).count(),
        &lost[..lost.len().min(10)]
    );
    let strange = numbers.iter().find(|n| !sent.contains_key(n));
    ensure!(strange.is_none(), "{signal:?} {when}: {strange:?} was never sent");
    Ok(numbers.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_is_kept() -> Result<()> {
    let mut process = Process::start(Options::default()).await?;
    // Item n stands n milliseconds later; none may reach the future.
    let origin_ms = now_ms() - 1_800_000;
    let signals = [Signal::Metrics, Signal::Logs, Signal::Traces];
    let mut sent = [Sent::new(), Sent::new(), Sent::new()];
    for round in 0..ROUNDS {
        let client = process.client();
        let stop = Arc::new(AtomicBool::new(false));
        let loads: Vec<_> = signals
            .iter()
            .zip(&sent)
            .map(|(signal, sent)| {
                let next = sent.keys().last().map_or(0, |n| n + 1);
                tokio::spawn(load(client.clone(), *signal, origin_ms, next, stop.clone()))
            })
            .collect();
        // In some rounds a flush is under way when it dies.
        let flush = (round % 2 == 1).then(|| {
            let client = client.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let _ = client.flush().await;
            })
        });
        let pause = rand::rng().random_range(100..900);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        process.kill().await?;
        stop.store(true, Ordering::Relaxed);
        for (sent, load) in sent.iter_mut().zip(loads) {
            sent.extend(load.await?);
        }
        if let Some(flush) = flush {
            flush.await?;
        }
        let began = now_ns();
        process.again().await?;
        let acknowledged: Vec<_> = sent.iter().map(|s| s.values().filter(|ok| **ok).count()).collect();
        println!(
            "round {round}: killed after {pause} ms, ready again after {} ms, acknowledged so far {acknowledged:?}",
            (now_ns() - began) / 1_000_000
        );
    }
    for (signal, sent) in signals.into_iter().zip(&sent) {
        ensure!(sent.values().filter(|ok| **ok).count() > 100, "{signal:?}: too little was acknowledged");
    }
    for when in ["after the last restart", "after the flush", "after a clean restart", "after the merge"] {
        match when {
            "after the flush" => process.client().flush().await?,
            "after a clean restart" => process.restart().await?,
            "after the merge" => println!("{}", process.client().compact().await?),
            _ => {}
        }
        for (signal, sent) in signals.into_iter().zip(&sent) {
            let there = check(&process.client(), signal, origin_ms, sent, when).await?;
            println!("{when}: {signal:?}: {there} of {} sent are there", sent.len());
        }
    }
    ensure!(!process.log().contains("panicked"), "it panicked:\n{}", process.log());
    Ok(())
}
