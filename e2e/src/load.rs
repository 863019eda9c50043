//! A load of all three signals that knows what was acknowledged, and readers that check every answer meanwhile.
//!
//! Item *n* of a signal stands *n* milliseconds after the load's beginning, so that its time says which one it is: a reader knows of any
//! range what has to be there (acknowledged before it asked), and what may be (sent before it was answered).
//!
//! Writers and readers are clients as there are many: they go to addresses that were ready when that was looked at last, as they would
//! through a Kubernetes service. A writer that is not answered, or with an error, tries the next address after a pause; a reader does
//! only when it is not answered at all. Every such attempt is counted.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tokio::task::JoinSet;

use crate::client::{Line, Pairs, Partial, Series, Stream, pairs};
use crate::dataset::{attribute, spans};
use crate::{Client, now_ms};

/// Items in one request.
pub const BATCH: i64 = 10;
const SERIES: i64 = 5;
/// Items of one trace.
const TRACE: i64 = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Metrics,
    Logs,
    Traces,
}

pub const SIGNALS: [Signal; 3] = [Signal::Metrics, Signal::Logs, Signal::Traces];

/// Numbers of items, and whether they were acknowledged. What was not may be there or not.
type Sent = BTreeMap<i64, bool>;

/// An answer that does not say that something is missing and yet is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong(String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "wrong: {}", self.0)
    }
}

impl std::error::Error for Wrong {}

/// All that was sent of one signal.
pub struct Ledger {
    signal: Signal,
    /// Where item 0 stands.
    origin_ms: i64,
    sent: Mutex<Sent>,
}

impl Ledger {
    pub fn new(signal: Signal, origin_ms: i64) -> Self {
        Self { signal, origin_ms, sent: Mutex::default() }
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn acknowledged(&self) -> usize {
        self.sent().values().filter(|ok| **ok).count()
    }

    /// The next request's items, counted as sent from now on.
    pub fn next(&self) -> Range<i64> {
        let mut sent = self.sent();
        let first = sent.keys().next_back().map_or(0, |n| n + 1);
        sent.extend((first..first + BATCH).map(|n| (n, false)));
        first..first + BATCH
    }

    /// Sends items, and notes whether they were taken.
    pub async fn send(&self, client: &Client, numbers: Range<i64>) -> Result<()> {
        self.push(client, numbers.clone()).await?;
        self.sent().extend(numbers.map(|n| (n, true)));
        Ok(())
    }

    async fn push(&self, client: &Client, numbers: Range<i64>) -> Result<()> {
        let origin_ms = self.origin_ms;
        match self.signal {
            Signal::Metrics => {
                let series: Vec<_> = (0..SERIES)
                    .map(|n| {
                        let mine = numbers.clone().filter(|i| i % SERIES == n);
                        Series {
                            labels: pairs([("__name__", "load"), ("n", &n.to_string())]),
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
                let labels = pairs([("service_name", "load")]);
                client.loki_json(&[Stream { labels, lines: numbers.map(line).collect() }]).await
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
                let request = ResourceSpans {
                    resource: Some(resource),
                    scope_spans: vec![scope],
                    ..Default::default()
                };
                client.otlp_traces(&[request]).await
            }
        }
    }

    /// The numbers in a range that are there, each as often as it is.
    async fn found(&self, client: &Client, range: &Range<i64>) -> Result<Vec<i64>> {
        let (mut numbers, origin_ms) = (Vec::new(), self.origin_ms);
        match self.signal {
            Signal::Metrics => {
                let (start, end) = (origin_ms + range.start, origin_ms + range.end - 1);
                for series in client.samples("load", start, end).await? {
                    for (t, value) in series.samples {
                        let stands = t == origin_ms + value as i64;
                        ensure!(stands, Wrong(format!("sample {value} stands at {t}")));
                        numbers.push(value as i64);
                    }
                }
            }
            Signal::Logs => {
                // In pages: 4000 milliseconds hold at most 4000 lines.
                for from in range.clone().step_by(4000) {
                    let to = range.end.min(from + 4000);
                    let (start, end) = ((origin_ms + from) * 1_000_000, (origin_ms + to) * 1_000_000);
                    for stream in client.streams("{service_name=\"load\"}", start, end, true).await? {
                        for line in stream.lines {
                            let number: i64 =
                                line.text.strip_prefix("line ").context("not our line")?.parse()?;
                            let stands = line.ts_ns == (origin_ms + number) * 1_000_000;
                            ensure!(stands, Wrong(format!("{line:?}")));
                            numbers.push(number);
                        }
                    }
                }
            }
            Signal::Traces => {
                for first in (range.start / TRACE * TRACE..range.end).step_by(TRACE as usize) {
                    // Of a trace that nobody has acknowledged a part of, nothing needs to be there.
                    if !self.sent().range(first..first + TRACE).any(|(_, ok)| *ok) {
                        continue;
                    }
                    for span in client.trace_v2(&trace_id(first)).await?.iter().flat_map(spans) {
                        let number: i64 = span.name.strip_prefix("span ").context("not our span")?.parse()?;
                        let is_ours = span.span_id == (number as u64 + 1).to_be_bytes();
                        ensure!(is_ours, Wrong(format!("{span:?}")));
                        if range.contains(&number) {
                            numbers.push(number);
                        }
                    }
                }
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Everything that is acknowledged is there, once, and nothing that was not sent; returns how many items are there. Fails with
    /// [`Wrong`] where it is not so, with [`Partial`] where the answer says that something is missing.
    pub async fn check(&self, client: &Client, range: Option<Range<i64>>) -> Result<usize> {
        let range = range.unwrap_or_else(|| 0..self.sent().keys().next_back().map_or(0, |n| n + 1));
        let acknowledged: Vec<i64> =
            self.sent().range(range.clone()).filter(|(_, ok)| **ok).map(|(n, _)| *n).collect();
        let numbers = self.found(client, &range).await?;
        let wrong = |what: String| Wrong(format!("{:?} in {range:?}: {what}", self.signal));
        let twice: Vec<_> = numbers.windows(2).filter(|w| w[0] == w[1]).map(|w| w[0]).take(10).collect();
        ensure!(twice.is_empty(), wrong(format!("more than once: {twice:?}")));
        let lost: Vec<_> = acknowledged.iter().filter(|n| numbers.binary_search(n).is_err()).collect();
        let (some, all) = (&lost[..lost.len().min(10)], acknowledged.len());
        ensure!(
            lost.is_empty(),
            wrong(format!("{} of {all} acknowledged are lost: {some:?} ..", lost.len()))
        );
        let sent = self.sent();
        let strange = numbers.iter().find(|n| !sent.contains_key(n));
        ensure!(strange.is_none(), wrong(format!("{strange:?} was never sent")));
        Ok(numbers.len())
    }
}

fn trace_id(number: i64) -> Vec<u8> {
    (0x10ad_u128 << 64 | (number / TRACE) as u128).to_be_bytes().to_vec()
}

/// How often what happened.
#[derive(Debug, Default)]
pub struct Counts {
    pub writes: AtomicUsize,
    /// Attempts to write that did not succeed; the next one did.
    pub writes_retried: AtomicUsize,
    /// Requests that nobody took, for as long as a client tries.
    pub writes_failed: AtomicUsize,
    pub reads: AtomicUsize,
    /// Attempts to read that were not answered; another gateway did.
    pub reads_retried: AtomicUsize,
    /// No answer from any gateway, or an error.
    pub reads_failed: AtomicUsize,
    /// Answers that said that something is missing.
    pub reads_partial: AtomicUsize,
    /// Why, the first of each kind and all that are wrong.
    pub failures: Mutex<Vec<String>>,
}

impl Counts {
    fn note(&self, counter: &AtomicUsize, what: &str, error: &anyhow::Error) {
        counter.fetch_add(1, Ordering::Relaxed);
        let text: String = format!("{what}: {error:#}").chars().take(600).collect();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < 200 {
            failures.push(text);
        }
    }

    /// What was noted, of those kinds.
    pub fn failures(&self, kinds: &[&str]) -> Vec<String> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.iter().filter(|f| kinds.iter().any(|kind| f.starts_with(kind))).cloned().collect()
    }
}

/// Pauses between two requests of a writer, and between two questions of a reader.
const WRITE_PAUSE: Duration = Duration::from_millis(50);
const READ_PAUSE: Duration = Duration::from_millis(100);
/// A request may take so long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a writer tries with one request.
const WRITE_PATIENCE: Duration = Duration::from_secs(120);
/// How often a reader asks, where nobody answers.
const READ_ATTEMPTS: usize = 4;
/// Items that a reader asks for.
const READ_ITEMS: i64 = 1500;

/// How often a service looks who is ready, and how long it waits for that.
const PROBE_PAUSE: Duration = Duration::from_millis(200);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The members of a role, and which of them are ready.
struct Service(Vec<(Client, AtomicBool)>);

impl Service {
    fn new(clients: &[Client]) -> Arc<Self> {
        let members = clients.iter().map(|client| (client.timeout(REQUEST_TIMEOUT), AtomicBool::new(true)));
        Arc::new(Self(members.collect()))
    }

    /// One of those that are ready; where nobody is, any.
    fn pick(&self, turn: usize) -> &Client {
        let ready: Vec<_> = self.0.iter().filter(|(_, is_ready)| is_ready.load(Ordering::Relaxed)).collect();
        match ready.len() {
            0 => &self.0[turn % self.0.len()].0,
            count => &ready[turn % count].0,
        }
    }

    async fn probe(self: Arc<Self>, stop: Arc<AtomicBool>) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            for (client, is_ready) in &self.0 {
                let ready = tokio::time::timeout(PROBE_TIMEOUT, client.is_ready()).await;
                is_ready.store(ready.unwrap_or(false), Ordering::Relaxed);
            }
            tokio::time::sleep(PROBE_PAUSE).await;
        }
        Ok(())
    }
}

/// Writers and readers, one of each for every signal, until stopped.
pub struct Load {
    pub ledgers: [Arc<Ledger>; 3],
    pub counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<()>>,
}

impl Load {
    /// Writes to the distributors and reads from the gateways.
    pub fn start(distributors: &[Client], gateways: &[Client]) -> Self {
        // Items stand a millisecond apart and come slower: none reaches the future.
        let origin_ms = now_ms() - 1_800_000;
        let ledgers = SIGNALS.map(|signal| Arc::new(Ledger::new(signal, origin_ms)));
        let (counts, stop, mut tasks) =
            (Arc::<Counts>::default(), Arc::<AtomicBool>::default(), JoinSet::new());
        let (distributors, gateways) = (Service::new(distributors), Service::new(gateways));
        for service in [&distributors, &gateways] {
            tasks.spawn(service.clone().probe(stop.clone()));
        }
        for ledger in &ledgers {
            tasks.spawn(write(distributors.clone(), ledger.clone(), counts.clone(), stop.clone()));
            tasks.spawn(read(gateways.clone(), ledger.clone(), counts.clone(), stop.clone()));
        }
        Self { ledgers, counts, stop, tasks }
    }

    /// Fails where an answer was wrong.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    pub fn acknowledged(&self) -> usize {
        self.ledgers.iter().map(|ledger| ledger.acknowledged()).sum()
    }

    /// Everything is there, once; how many items.
    pub async fn check(&self, client: &Client, when: &str) -> Result<usize> {
        let mut there = 0;
        for ledger in &self.ledgers {
            there +=
                ledger.check(client, None).await.with_context(|| format!("{:?} {when}", ledger.signal))?;
        }
        Ok(there)
    }
}

async fn write(
    distributors: Arc<Service>,
    ledger: Arc<Ledger>,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let (numbers, began) = (ledger.next(), Instant::now());
        let mut pause = Duration::from_millis(20);
        counts.writes.fetch_add(1, Ordering::Relaxed);
        while let Err(error) = ledger.send(distributors.pick(at), numbers.clone()).await {
            at += 1;
            if began.elapsed() > WRITE_PATIENCE {
                counts.note(&counts.writes_failed, "write failed", &error);
                break;
            }
            counts.note(&counts.writes_retried, "write retried", &error);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
        tokio::time::sleep(WRITE_PAUSE).await;
    }
    Ok(())
}

async fn read(
    gateways: Arc<Service>,
    ledger: Arc<Ledger>,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(READ_PAUSE).await;
        // What was written just now, and by turns something older.
        let last = ledger.sent().keys().next_back().map_or(0, |n| n + 1);
        let end = if turn % 3 == 2 { last * (turn % 7) / 7 } else { last };
        let range = (end - READ_ITEMS).max(0)..end.max(1);
        counts.reads.fetch_add(1, Ordering::Relaxed);
        for attempt in 1.. {
            let gateway = gateways.pick(turn as usize + attempt);
            let Err(error) = ledger.check(gateway, Some(range.clone())).await else { break };
            if error.is::<Wrong>() {
                bail!(error);
            }
            if error.is::<Partial>() {
                counts.note(&counts.reads_partial, "read partial", &error);
                break;
            }
            // Only who is not answered at all asks elsewhere: an error is an answer.
            let is_unanswered = error.chain().any(|cause| cause.is::<reqwest::Error>());
            if !is_unanswered || attempt >= READ_ATTEMPTS {
                counts.note(&counts.reads_failed, "read failed", &error);
                break;
            }
            counts.note(&counts.reads_retried, "read retried", &error);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}
