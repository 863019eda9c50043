//! A Triptych process and its data directory.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::Client;

/// How long a process may take until it is ready, or until it has ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a process listens, by the keys of its config, with the usual ports.
const PORTS: [(&str, u16); 4] =
    [("listen", 3300), ("otlp_grpc_listen", 4317), ("otlp_http_listen", 4318), ("grpc_listen", GRPC_PORT)];

pub const GRPC_PORT: u16 = 9095;

/// What a process is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// `all`, or one role.
    pub role: &'static str,
    /// Its own address, on which it listens at the usual ports; none: free ports of 127.0.0.1, other ones after each start.
    pub host: Option<Ipv4Addr>,
    /// `key=value` of `--set`.
    pub set: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { role: "all", host: None, set: Vec::new() }
    }
}

impl Options {
    /// A process of one role, alone.
    pub fn role(role: &'static str) -> Self {
        Self { role, ..Self::default() }
    }

    /// How many addresses it prints.
    fn addresses(&self) -> usize {
        match self.role {
            "all" => 3,
            "distributor" => 4,
            "ingester" | "store-gateway" | "querier" => 2,
            _ => 1,
        }
    }

    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.set.push(format!("{key}={value}"));
        self
    }
}

/// A Triptych over a directory. Killed on drop.
pub struct Process {
    dir: PathBuf,
    /// Removes a temporary directory in the end.
    _temporary: Option<tempfile::TempDir>,
    options: Options,
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// By the names that the process prints: `http`, `otlp-grpc`, `otlp-http`.
    addresses: HashMap<String, String>,
    /// Keeps the pipe open and empty.
    _stdout: tokio::task::JoinHandle<()>,
}

impl Process {
    /// Starts it and waits until it is ready.
    pub async fn start(options: Options) -> Result<Self> {
        let mut process = Self::new(options)?;
        process.again().await?;
        Ok(process)
    }

    /// Not started yet, over a temporary directory.
    pub fn new(options: Options) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        Ok(Self { dir: dir.path().to_owned(), _temporary: Some(dir), options, running: None })
    }

    /// Not started yet, over a directory that somebody else removes.
    pub fn within(dir: &Path, options: Options) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned(), _temporary: None, options, running: None })
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("stderr.log")
    }

    /// What it said on standard error, in all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Starts it over the data that are there and waits until it is ready.
    pub async fn again(&mut self) -> Result<()> {
        self.spawn().await?;
        self.ready().await
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let client = self.client();
        loop {
            if client.is_ready().await {
                return Ok(());
            }
            if let Some(running) = &mut self.running
                && let Some(status) = running.child.try_wait()?
            {
                bail!("ended with {status} before it was ready:\n{}", tail(&self.log()));
            }
            if Instant::now() > deadline {
                bail!("not ready after {PATIENCE:?}:\n{}", tail(&self.log()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts it and returns as soon as it listens.
    pub async fn spawn(&mut self) -> Result<()> {
        if self.running.is_some() {
            bail!("it is running already");
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(crate::binary::path()?);
        command.arg(self.options.role).arg("--data-dir").arg(self.data_dir());
        for (key, port) in PORTS {
            let address = self.options.host.map_or((Ipv4Addr::LOCALHOST, 0), |host| (host, port));
            command.args(["--set", &format!("server.{key}={}:{}", address.0, address.1)]);
        }
        let quiet = ["agent.enabled=false", "scraper.enabled=false", "telemetry.trace_enabled=false"];
        for set in quiet.into_iter().chain(self.options.set.iter().map(String::as_str)) {
            command.args(["--set", set]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
        let mut child = command.spawn().context("starting triptych")?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let mut addresses = HashMap::new();
        let read = async {
            while addresses.len() < self.options.addresses() {
                let Some(line) = lines.next_line().await? else {
                    bail!("ended before it listened:\n{}", tail(&self.log()));
                };
                let mut words = line.split_whitespace();
                if let (Some(name), Some(address)) = (words.next(), words.next())
                    && address.starts_with("http://")
                {
                    addresses.insert(name.to_owned(), address.to_owned());
                }
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, read).await.context("it printed no addresses")??;
        let rest = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.running = Some(Running { child, addresses, _stdout: rest });
        Ok(())
    }

    fn address(&self, name: &str) -> String {
        self.running.as_ref().and_then(|r| r.addresses.get(name)).cloned().unwrap_or_default()
    }

    /// `http://127.0.0.1:PORT` of the main port.
    pub fn http(&self) -> String {
        self.address("http")
    }

    pub fn otlp_grpc(&self) -> String {
        self.address("otlp-grpc")
    }

    pub fn otlp_http(&self) -> String {
        self.address("otlp-http")
    }

    /// A client of the main port, without a tenant.
    pub fn client(&self) -> Client {
        Client::new(self.http())
    }

    pub fn pid(&self) -> Result<u32> {
        self.running.as_ref().and_then(|r| r.child.id()).context("it does not run")
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.running.as_mut().is_some_and(|r| matches!(r.child.try_wait(), Ok(None)))
    }

    /// Most memory that it ever had resident (`VmHWM`), in bytes.
    pub fn memory_peak_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = line.split_whitespace().nth(1).context("VmHWM")?.parse()?;
        Ok(kib << 10)
    }

    /// `kill -9`.
    pub async fn kill(&mut self) -> Result<()> {
        let mut running = self.running.take().context("it does not run")?;
        running.child.kill().await?;
        Ok(())
    }

    /// `kill SIGNAL`: `-STOP`, `-CONT`.
    pub async fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid()?.to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().await?;
        if !sent.success() {
            bail!("kill {signal} {pid}: {sent}");
        }
        Ok(())
    }

    /// SIGTERM; returns when it has ended well.
    pub async fn stop(&mut self) -> Result<()> {
        self.signal("-TERM").await?;
        self.ended().await
    }

    /// Returns when it has ended well, after SIGTERM.
    pub async fn ended(&mut self) -> Result<()> {
        let mut running = self.running.take().context("it does not run")?;
        let status = tokio::time::timeout(PATIENCE, running.child.wait())
            .await
            .with_context(|| format!("still running {PATIENCE:?} after SIGTERM"))??;
        if !status.success() {
            bail!("ended with {status} after SIGTERM:\n{}", tail(&self.log()));
        }
        Ok(())
    }

    /// SIGTERM and start again.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.again().await
    }
}

/// Who takes the addresses next finds them free: the process is gone, not only told to go.
impl Drop for Running {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let _ = self.child.start_kill();
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Runs another command of the binary (`query`, `config`); returns its standard output.
pub async fn run(args: &[&str]) -> Result<String> {
    let output =
        Command::new(crate::binary::path()?).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.context("the command did not end")??;
    if !output.status.success() {
        bail!("{args:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
