//! Load on a whole Triptych, client and server on this machine: how much is taken per second, what it costs, how fast
//! questions are answered. What the columns mean and the figures of the last run: `docs/performance.md`.
//!
//! | module | what is in it |
//! |---|---|
//! | [`server`] | starts `triptych all`, reads what it costs from /proc and /metrics |
//! | [`http`] | a small HTTP/1.1 client that sends prepared requests |
//! | [`patch`] | prepared bodies: protobuf, snappy, and where the values that change lie in them |
//! | [`metrics`], [`logs`], [`traces`] | the data and the questions of a signal |
//! | [`load`] | the connections that send for some seconds |
//! | [`report`] | Markdown tables, JSON |
//!
//! The client shares the cores with the server, so it must be cheap: a body is encoded and compressed once, and only the bytes
//! of timestamps, values and ids are written anew before each sending.

#![allow(clippy::disallowed_methods, reason = "real time, from outside of the process")]

mod http;
mod load;
mod logs;
mod metrics;
mod patch;
mod report;
mod server;
mod traces;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use crate::load::{Question, Source};
use crate::report::{Latency, QueryReport, SignalReport};
use crate::server::Server;

#[derive(Debug, Parser)]
#[command(about = "Ingest and query load against Triptych; prints Markdown tables")]
struct Args {
    /// Ingest time per signal.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Connections that send at the same time.
    #[arg(long, default_value_t = 24)]
    connections: usize,
    /// Which signals, one after the other, each on a fresh server.
    #[arg(long, value_delimiter = ',', default_value = "metrics,logs,traces")]
    signals: Vec<String>,
    /// Active series of the metrics load. All of them are sent at least once, however long it takes.
    #[arg(long, default_value_t = 100_000)]
    series: usize,
    /// How often each question is asked.
    #[arg(long, default_value_t = 20)]
    repeat: usize,
    /// Start a cluster instead of one process: each role its own, three ingesters in three zones.
    #[arg(long, conflicts_with = "server")]
    cluster: bool,
    /// Load a running server instead of starting one.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Process id of `--server`, for CPU time and memory.
    #[arg(long, requires = "server")]
    pid: Option<u32>,
    /// The binary [default: `triptych` beside this one].
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Where data directories are made; they are deleted afterwards [default: the system's temporary directory].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Further `--set KEY=VALUE` for the server that is started.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// One thread: what the client takes the server does not have.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    if args.connections == 0 || args.series == 0 {
        bail!("--connections and --series must be at least 1");
    }
    let mut reports = Vec::new();
    for signal in &args.signals {
        reports.push(run(&args, signal).await.with_context(|| signal.clone())?);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    } else {
        print!("{}", report::markdown(&reports, &report::machine()));
    }
    Ok(())
}

async fn run(args: &Args, signal: &str) -> Result<SignalReport> {
    let (name, sources, questions): (&'static str, Vec<Box<dyn Source>>, Vec<Question>) = match signal {
        "metrics" => ("metrics", metrics::sources(args.connections, args.series), metrics::questions()),
        "logs" => ("logs", logs::sources(args.connections), logs::questions()),
        "traces" => ("traces", traces::sources(args.connections), traces::questions()),
        other => bail!("unknown signal {other:?}: metrics, logs, traces"),
    };
    let server = match &args.server {
        Some(url) => Server::running(url, args.pid)?,
        None if args.cluster => Server::start_cluster(args.data_dir.as_deref(), &args.sets).await?,
        None => Server::start(args.binary.as_deref(), args.data_dir.as_deref(), &args.sets).await?,
    };
    let bar = progress(args.seconds, name);
    let start = server.cost().await?;
    let sent = load::send(&server.write, sources, Duration::from_secs(args.seconds), &bar).await?;
    let end = server.cost().await?;
    bar.set_message("queries");
    let hot = ask_all(&server, &questions, args.repeat).await?;

    bar.set_message("flush");
    let flushing = Instant::now();
    let asked = server.cost().await?;
    server.flush().await?;
    let flush_seconds = flushing.elapsed().as_secs_f64();
    let flushed = server.cost().await?;
    // Until the ingester has forgotten what is in the bucket now.
    tokio::time::sleep(server::RETAINED).await;
    bar.set_message("queries after flush");
    let cold = ask_all(&server, &questions, args.repeat).await?;
    bar.finish_and_clear();

    let disk_bytes = server.bucket_bytes();
    server.stop().await;
    let cpu = end.cpu_seconds - start.cpu_seconds;
    Ok(SignalReport {
        signal: name,
        connections: args.connections,
        seconds: sent.seconds,
        items: sent.items,
        items_per_second: sent.items as f64 / sent.seconds,
        megabytes_per_second: sent.bytes as f64 / 1e6 / sent.seconds,
        refused_requests: sent.refused,
        server_cpu_cores: cpu / sent.seconds,
        items_per_cpu_second: if cpu > 0.0 { sent.items as f64 / cpu } else { 0.0 },
        client_cpu_cores: sent.client_cpu_seconds / sent.seconds,
        request_p50_ms: sent.latency.p50_ms,
        request_p95_ms: sent.latency.p95_ms,
        ingest_peak_rss_bytes: end.peak_rss_bytes,
        peak_rss_bytes: flushed.peak_rss_bytes,
        flush_seconds,
        flush_cpu_seconds: flushed.cpu_seconds - asked.cpu_seconds,
        bucket_bytes_per_item: disk_bytes.map(|b| b as f64 / sent.items as f64),
        wire_bytes_per_item: (end.wire_bytes - start.wire_bytes) / sent.items as f64,
        wal_bytes_per_item: (end.wal_written_bytes - start.wal_written_bytes) / sent.items as f64,
        queries: questions
            .iter()
            .zip(hot)
            .zip(cold)
            .map(|((q, hot), cold)| QueryReport { name: q.name, hot, flushed: cold })
            .collect(),
    })
}

async fn ask_all(server: &Server, questions: &[Question], repeat: usize) -> Result<Vec<Latency>> {
    let mut found = Vec::new();
    for question in questions {
        let path = question.path();
        let mut times = Vec::new();
        let mut bytes = 0;
        let began = Instant::now();
        while times.len() < repeat.max(1) && (times.len() < 3 || began.elapsed() < Duration::from_secs(10)) {
            let start = Instant::now();
            let answer = http::get(&server.read, &path).await?.expect_success(question.name)?;
            times.push(start.elapsed());
            bytes = answer.len();
        }
        found.push(Latency::of(times, bytes));
    }
    Ok(found)
}

fn progress(seconds: u64, name: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>8} {bar:30} {elapsed} {msg}");
    let bar = ProgressBar::new(seconds * 10);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(name);
    bar
}
