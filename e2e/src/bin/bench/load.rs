//! Sends: one task per connection, each with its own requests, for some seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use indicatif::ProgressBar;

use crate::http::{Connection, query_string};
use crate::patch::Request;
use crate::report::Latency;

/// The requests of one connection.
pub trait Source {
    /// The next request, with values of now in its holes.
    fn next(&mut self) -> &Request;
    /// Requests that are sent even when the time is over.
    fn requests_min(&self) -> usize {
        1
    }
}

/// A question about what was sent in the last hour.
pub struct Question {
    pub name: &'static str,
    pub path: &'static str,
    pub pairs: &'static [(&'static str, &'static str)],
    pub span: Span,
}

/// How the time is asked for.
#[derive(Clone, Copy)]
pub enum Span {
    /// At the newest moment.
    Instant,
    /// The last hour, Unix seconds.
    Seconds,
    /// The last hour, Unix nanoseconds.
    Nanoseconds,
}

impl Question {
    pub fn path(&self) -> String {
        let end = now_ns() / 1_000_000_000 + 1;
        let start = end - 3600;
        let mut pairs: Vec<(&str, String)> = self.pairs.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
        match self.span {
            Span::Instant => {}
            Span::Seconds => pairs.extend([("start", start.to_string()), ("end", end.to_string())]),
            Span::Nanoseconds => {
                pairs.extend([("start", format!("{start}000000000")), ("end", format!("{end}000000000"))]);
            }
        }
        format!("{}?{}", self.path, query_string(&pairs))
    }
}

pub struct Sent {
    pub items: u64,
    pub bytes: u64,
    /// Answers that were neither 2xx nor final: sent again.
    pub refused: u64,
    pub seconds: f64,
    pub client_cpu_seconds: f64,
    pub latency: Latency,
}

#[derive(Default)]
struct Counters {
    items: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
}

pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

pub async fn send(
    address: &str,
    sources: Vec<Box<dyn Source>>,
    time: Duration,
    bar: &ProgressBar,
) -> Result<Sent> {
    let counters = Arc::new(Counters::default());
    let local = tokio::task::LocalSet::new();
    let cpu = crate::server::cpu_seconds("self").unwrap_or(0.0);
    let start = Instant::now();
    let senders: Vec<_> = sources
        .into_iter()
        .map(|source| {
            local.spawn_local(connection(address.to_owned(), source, start + time, counters.clone()))
        })
        .collect();
    let shown = counters.clone();
    let watched = bar.clone();
    let ticker = local.spawn_local(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let seconds = start.elapsed().as_secs_f64();
            watched.set_position((seconds * 10.0) as u64);
            let (items, bytes) = (shown.items.load(Ordering::Relaxed), shown.bytes.load(Ordering::Relaxed));
            watched.set_message(format!(
                "{:.0} items/s, {:.1} MB/s",
                items as f64 / seconds,
                bytes as f64 / 1e6 / seconds
            ));
        }
    });
    let all = local.run_until(async move {
        let mut latencies = Vec::new();
        for sender in senders {
            latencies.extend(sender.await??);
        }
        Ok::<_, anyhow::Error>(latencies)
    });
    let latencies = all.await?;
    ticker.abort();
    Ok(Sent {
        items: counters.items.load(Ordering::Relaxed),
        bytes: counters.bytes.load(Ordering::Relaxed),
        refused: counters.refused.load(Ordering::Relaxed),
        seconds: start.elapsed().as_secs_f64(),
        client_cpu_seconds: crate::server::cpu_seconds("self").unwrap_or(0.0) - cpu,
        latency: Latency::of(latencies, 0),
    })
}

async fn connection(
    address: String,
    mut source: Box<dyn Source>,
    end: Instant,
    counters: Arc<Counters>,
) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(&address).await?;
    let mut latencies = Vec::new();
    while Instant::now() < end || latencies.len() < source.requests_min() {
        let request = source.next();
        loop {
            let start = Instant::now();
            let answer = connection.send(&request.bytes).await?;
            match answer.status {
                // An OTLP answer that is not empty says that something in it was refused.
                200..300 if answer.body.is_empty() => {
                    latencies.push(start.elapsed());
                    break;
                }
                429 | 503 => {
                    counters.refused.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                status => bail!("HTTP {status}: {}", answer.text()),
            }
        }
        counters.items.fetch_add(request.items, Ordering::Relaxed);
        counters.bytes.fetch_add(request.data_bytes, Ordering::Relaxed);
    }
    Ok(latencies)
}
