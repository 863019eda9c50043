//! What a run found, as Markdown or JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct SignalReport {
    pub signal: &'static str,
    pub connections: usize,
    pub seconds: f64,
    /// Samples, lines or spans that were acknowledged.
    pub items: u64,
    pub items_per_second: f64,
    /// Metrics and traces: protobuf before compression. Logs: lines.
    pub megabytes_per_second: f64,
    pub refused_requests: u64,
    pub server_cpu_cores: f64,
    pub items_per_cpu_second: f64,
    pub client_cpu_cores: f64,
    pub request_p50_ms: f64,
    pub request_p95_ms: f64,
    /// At the end of ingest, and after the questions and the flush.
    pub ingest_peak_rss_bytes: u64,
    pub peak_rss_bytes: u64,
    pub flush_seconds: f64,
    pub flush_cpu_seconds: f64,
    pub bucket_bytes_per_item: Option<f64>,
    /// All processes together; in a cluster three of them keep a copy each.
    pub wal_bytes_per_item: f64,
    /// Over the loopback interface, from the client's requests to the copies of the ingesters.
    pub wire_bytes_per_item: f64,
    pub queries: Vec<QueryReport>,
}

#[derive(Debug, Serialize)]
pub struct QueryReport {
    pub name: &'static str,
    pub hot: Latency,
    pub flushed: Latency,
}

#[derive(Debug, Serialize)]
pub struct Latency {
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub count: usize,
    /// Length of the last answer.
    pub answer_bytes: usize,
}

impl Latency {
    pub fn of(mut times: Vec<Duration>, answer_bytes: usize) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let last = times.len().saturating_sub(1);
            times.get((last as f64 * share).round() as usize).map_or(0.0, |t| t.as_secs_f64() * 1e3)
        };
        Self { p50_ms: at(0.5), p95_ms: at(0.95), count: times.len(), answer_bytes }
    }
}

/// Cores, memory, load: figures mean nothing without.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(':').map(|(_, v)| v.trim()))
        .unwrap_or("unknown processor");
    let memory = read("/proc/meminfo");
    let gib = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.split_ascii_whitespace().next()?.parse::<f64>().ok())
        .map_or(0.0, |k| k / f64::from(1 << 20));
    let loadavg = read("/proc/loadavg");
    let load = loadavg.split(' ').next().unwrap_or("?");
    format!(
        "{model}, {cores} cores for client and server together, {gib:.0} GiB; load average at the end {load}"
    )
}

pub fn markdown(reports: &[SignalReport], machine: &str) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{machine}\n");
    out.push_str(
        "| signal | items/s | MB/s | items per server CPU s | server, client cores | request p50, p95 ms | peak RSS MiB: ingest, all | bucket B/item | WAL B/item | wire B/item | flush s (CPU s) | refused |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for r in reports {
        let mib = |bytes: u64| bytes >> 20;
        let bucket = r.bucket_bytes_per_item.map_or("-".to_owned(), |b| format!("{b:.2}"));
        let _ = writeln!(
            out,
            "| {} | {} | {:.1} | {} | {:.2}, {:.2} | {:.1}, {:.1} | {}, {} | {bucket} | {:.2} | {:.2} | {:.1} ({:.1}) | {} |",
            r.signal,
            thousands(r.items_per_second),
            r.megabytes_per_second,
            thousands(r.items_per_cpu_second),
            r.server_cpu_cores,
            r.client_cpu_cores,
            r.request_p50_ms,
            r.request_p95_ms,
            mib(r.ingest_peak_rss_bytes),
            mib(r.peak_rss_bytes),
            r.wal_bytes_per_item,
            r.wire_bytes_per_item,
            r.flush_seconds,
            r.flush_cpu_seconds,
            r.refused_requests,
        );
    }
    out.push_str("\n| query | answer B | head p50, p95 ms | bucket p50, p95 ms |\n|---|--:|--:|--:|\n");
    for r in reports {
        for q in &r.queries {
            let _ = writeln!(
                out,
                "| {}: {} | {} | {:.1}, {:.1} | {:.1}, {:.1} |",
                r.signal,
                q.name.replace('|', "\\|"),
                q.flushed.answer_bytes,
                q.hot.p50_ms,
                q.hot.p95_ms,
                q.flushed.p50_ms,
                q.flushed.p95_ms
            );
        }
    }
    out
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
