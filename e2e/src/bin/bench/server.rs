//! The server under load: a fresh `triptych all` in a temporary directory, a fresh cluster, or what runs already; what it costs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use triptych_e2e::Cluster;
use triptych_e2e::cluster::Plan;

/// How long to wait after a flush until the questions are answered from the bucket: `retain_after_flush` of what is started here, and
/// a tick of the ingester.
pub const RETAINED: Duration = Duration::from_secs(10);

/// Time for the start, and for the end.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub struct Server {
    /// Where is written and where is asked, `host:port`.
    pub write: String,
    pub read: String,
    pids: Vec<u32>,
    started: Started,
}

enum Started {
    Nothing,
    All(Child, TempDir),
    Cluster(Box<Cluster>, TempDir),
}

/// What was used since the processes began, by all of them together.
pub struct Cost {
    pub cpu_seconds: f64,
    pub peak_rss_bytes: u64,
    pub wal_written_bytes: f64,
    /// What passed the loopback interface, the client's requests included.
    pub wire_bytes: f64,
}

impl Server {
    pub fn running(url: &str, pid: Option<u32>) -> Result<Self> {
        let address = url.strip_prefix("http://").context("--server: an http:// URL is wanted")?;
        let address = address.trim_end_matches('/').to_owned();
        Ok(Self {
            write: address.clone(),
            read: address,
            pids: pid.into_iter().collect(),
            started: Started::Nothing,
        })
    }

    /// Each role its own process, three ingesters, over a directory as bucket.
    pub async fn start_cluster(data_dir: Option<&Path>, sets: &[String]) -> Result<Self> {
        let dir = temporary(data_dir)?;
        let plan = Plan::default()
            .set("bucket", format_args!("{{type: filesystem, dir: {:?}}}", dir.path().join("bucket")))
            .set("telemetry.log_filter", "warn")
            .set("ingester.flush_on_shutdown", false);
        let plan = Plan { set: plan.set.into_iter().chain(sets.iter().cloned()).collect(), ..plan };
        let cluster = Cluster::start(plan).await?;
        let address = |client: triptych_e2e::Client| client.base().trim_start_matches("http://").to_owned();
        let pids = cluster.nodes.iter().map(|node| node.process.pid()).collect::<Result<_>>()?;
        Ok(Self {
            write: address(cluster.distributor()?),
            read: address(cluster.gateway()?),
            pids,
            started: Started::Cluster(Box::new(cluster), dir),
        })
    }

    pub async fn start(binary: Option<&Path>, data_dir: Option<&Path>, sets: &[String]) -> Result<Self> {
        let binary = match binary {
            Some(binary) => binary.to_owned(),
            None => std::env::current_exe()?.with_file_name("triptych"),
        };
        let dir = temporary(data_dir)?;
        let mut command = Command::new(&binary);
        command.arg("all").arg("--data-dir").arg(dir.path());
        for flag in ["--listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        let off = [
            "agent.enabled=false",
            "scraper.enabled=false",
            "telemetry.trace_enabled=false",
            "telemetry.log_filter=warn",
        ];
        let own = [
            "store_gateway.sync_interval=500ms",
            "store_gateway.sync_age_max=5s",
            "ingester.retain_after_flush=8s",
            "ingester.flush_on_shutdown=false",
        ];
        for set in off.iter().chain(&own).copied().chain(sets.iter().map(String::as_str)) {
            command.args(["--set", set]);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", binary.display()))?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let address = tokio::time::timeout(WAIT_MAX, async {
            while let Some(line) = lines.next_line().await? {
                if let Some(url) = line.trim().strip_prefix("http ") {
                    return Ok(url.trim().trim_start_matches("http://").to_owned());
                }
            }
            bail!("the server ended before it said its address")
        })
        .await
        .context("the server did not say its address")??;
        // The rest of what it says must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let pids = child.id().into_iter().collect();
        let server = Self { write: address.clone(), read: address, pids, started: Started::All(child, dir) };
        server.wait_ready().await?;
        Ok(server)
    }

    async fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            match crate::http::get(&self.read, "/ready").await {
                Ok(answer) if answer.is_success() => return Ok(()),
                _ if start.elapsed() > WAIT_MAX => bail!("the server is not ready after {WAIT_MAX:?}"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub async fn cost(&self) -> Result<Cost> {
        let ingesters = match &self.started {
            Started::Cluster(cluster, _) => cluster
                .clients("ingester")
                .iter()
                .map(|c| c.base().trim_start_matches("http://").to_owned())
                .collect(),
            _ => vec![self.write.clone()],
        };
        let mut wal_written_bytes = 0.0;
        for ingester in ingesters {
            let metrics = crate::http::get(&ingester, "/metrics").await?.expect_success("metrics")?;
            wal_written_bytes += String::from_utf8_lossy(&metrics)
                .lines()
                .filter(|line| line.starts_with("triptych_wal_written_bytes_total"))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum::<f64>();
        }
        let processes: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        Ok(Cost {
            cpu_seconds: processes.iter().filter_map(|process| cpu_seconds(process)).sum(),
            peak_rss_bytes: processes.iter().filter_map(|process| peak_rss_bytes(process)).sum(),
            wal_written_bytes,
            wire_bytes: loopback_bytes().unwrap_or(0.0),
        })
    }

    /// Everything acknowledged is in the bucket.
    pub async fn flush(&self) -> Result<()> {
        match &self.started {
            Started::Cluster(cluster, _) => cluster.flush().await,
            _ => crate::http::post(&self.write, "/-/flush").await?.expect_success("flush").map(drop),
        }
    }

    /// Of what was started here.
    pub fn bucket_bytes(&self) -> Option<u64> {
        match &self.started {
            Started::Nothing => None,
            Started::All(_, dir) | Started::Cluster(_, dir) => Some(used_bytes(&dir.path().join("bucket"))),
        }
    }

    pub async fn stop(self) {
        if let Started::All(mut child, dir) = self.started {
            let _ = child.kill().await;
            drop(dir);
        }
    }
}

fn temporary(parent: Option<&Path>) -> Result<TempDir> {
    Ok(match parent {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    })
}

/// Bytes that were received on the loopback interface since the machine started.
fn loopback_bytes() -> Option<f64> {
    let devices = std::fs::read_to_string("/proc/net/dev").ok()?;
    let loopback = devices.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
    loopback.split_ascii_whitespace().next()?.parse().ok()
}

/// User and system time of a process, in seconds.
pub fn cpu_seconds(process: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks: f64 = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    // USER_HZ is 100 on every Linux.
    Some(ticks / 100.0)
}

fn peak_rss_bytes(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|k| k * 1024)
}

/// Bytes of all files below, as they are long.
fn used_bytes(dir: &Path) -> u64 {
    let mut sum = 0;
    let mut todo: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => todo.push(entry.path()),
                Ok(meta) => sum += meta.len(),
                Err(_) => {}
            }
        }
    }
    sum
}
