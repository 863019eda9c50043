//! The server under load: a fresh `triptych all` in a temporary directory, or a running one; what it costs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long to wait after a flush until the questions are answered from the bucket: `retain_after_flush` of the server that is
/// started here, and a tick of the ingester.
pub const RETAINED: Duration = Duration::from_secs(4);

/// Time for the start, and for the end.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub struct Server {
    /// `host:port`.
    pub address: String,
    pid: Option<u32>,
    child: Option<(Child, TempDir)>,
}

/// What was used since the process began.
pub struct Cost {
    pub cpu_seconds: f64,
    pub peak_rss_bytes: u64,
    pub wal_written_bytes: f64,
}

impl Server {
    pub fn running(url: &str, pid: Option<u32>) -> Result<Self> {
        let address = url.strip_prefix("http://").context("--server: an http:// URL is wanted")?;
        Ok(Self { address: address.trim_end_matches('/').to_owned(), pid, child: None })
    }

    pub async fn start(binary: Option<&Path>, data_dir: Option<&Path>, sets: &[String]) -> Result<Self> {
        let binary = match binary {
            Some(binary) => binary.to_owned(),
            None => std::env::current_exe()?.with_file_name("triptych"),
        };
        let dir = match data_dir {
            Some(parent) => tempfile::tempdir_in(parent)?,
            None => tempfile::tempdir()?,
        };
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
        let own = ["ingester.retain_after_flush=1s", "ingester.flush_on_shutdown=false"];
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
        let pid = child.id();
        let server = Self { address, pid, child: Some((child, dir)) };
        server.wait_ready().await?;
        Ok(server)
    }

    async fn wait_ready(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            match crate::http::get(&self.address, "/ready").await {
                Ok(answer) if answer.is_success() => return Ok(()),
                _ if start.elapsed() > WAIT_MAX => bail!("the server is not ready after {WAIT_MAX:?}"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub async fn cost(&self) -> Result<Cost> {
        let metrics = crate::http::get(&self.address, "/metrics").await?.expect_success("metrics")?;
        let wal_written_bytes = String::from_utf8_lossy(&metrics)
            .lines()
            .filter(|line| line.starts_with("triptych_wal_written_bytes_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        let process = self.pid.map(|pid| pid.to_string());
        Ok(Cost {
            cpu_seconds: process.as_deref().and_then(cpu_seconds).unwrap_or(0.0),
            peak_rss_bytes: process.as_deref().and_then(peak_rss_bytes).unwrap_or(0),
            wal_written_bytes,
        })
    }

    /// Of a server that was started here.
    pub fn bucket_bytes(&self) -> Option<u64> {
        self.child.as_ref().map(|(_, dir)| used_bytes(&dir.path().join("bucket")))
    }

    pub async fn stop(mut self) {
        if let Some((mut child, dir)) = self.child.take() {
            let _ = child.kill().await;
            drop(dir);
        }
    }
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
