//! Commands and flags. A flag is short for a key of the config; `--set` reaches them all.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::roles::Role;

#[derive(Debug, Parser)]
#[command(name = "triptych", version, about = "Metrics, logs and traces: one stack, one binary", after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "Examples:
  triptych all                                        every role in one process, data below ./data
  triptych all --listen 0.0.0.0:3300 --data-dir /var/lib/triptych
  triptych all --set agent.enabled=false --set scraper.enabled=false     no data of this machine
  triptych all --config triptych.yaml --set limits.metrics.retention=30d
  triptych config docs                                every key with its default and meaning
  triptych telemetry docs                             every metric of its own
  triptych query metrics 'sum by (job) (up)'
  triptych query logs '{job=\"varlogs\"} |= \"error\"' --since 15m
  triptych query traces '{ duration > 100ms }'
  triptych logs tail '{job=\"varlogs\"}'";

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Run(Run),
    /// Check, show or document the config.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Document what Triptych exposes of itself.
    #[command(subcommand)]
    Telemetry(TelemetryCommand),
    /// Ask a running Triptych.
    #[command(subcommand)]
    Query(QueryCommand),
    /// Follow log lines as they arrive.
    #[command(subcommand)]
    Logs(LogsCommand),
}

/// One role, or all of them.
#[derive(Debug, Subcommand)]
pub enum Run {
    /// Every role in one process, a local directory as the bucket.
    All(Flags),
    /// Receives every push protocol, applies limits, writes to ingesters.
    Distributor(Flags),
    /// Keeps recent data: write-ahead log, heads, flush to the bucket.
    Ingester(Flags),
    /// Serves what is in the bucket.
    StoreGateway(Flags),
    /// Evaluates the three languages over ingesters and store-gateways.
    Querier(Flags),
    /// The HTTP door: Prometheus, Loki and Tempo APIs, the page.
    Gateway(Flags),
    /// Merges blocks, applies retention.
    Compactor(Flags),
    /// Scrapes targets as Prometheus' scrape_configs say.
    Scraper(Flags),
    /// Tails log files and reads host metrics.
    Agent(Flags),
}

impl Run {
    pub fn roles(self) -> (Vec<Role>, Flags) {
        let (role, flags) = match self {
            Run::All(flags) => return (Role::ALL.to_vec(), flags),
            Run::Distributor(flags) => (Role::Distributor, flags),
            Run::Ingester(flags) => (Role::Ingester, flags),
            Run::StoreGateway(flags) => (Role::StoreGateway, flags),
            Run::Querier(flags) => (Role::Querier, flags),
            Run::Gateway(flags) => (Role::Gateway, flags),
            Run::Compactor(flags) => (Role::Compactor, flags),
            Run::Scraper(flags) => (Role::Scraper, flags),
            Run::Agent(flags) => (Role::Agent, flags),
        };
        (vec![role], flags)
    }
}

#[derive(Debug, Args)]
#[command(after_help = FLAGS_HELP)]
pub struct Flags {
    /// YAML file; every key has a default (`triptych config docs`).
    #[arg(long, env = "TRIPTYCH_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write-ahead log, positions, and the bucket where none is configured [default: ./data].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The HTTP door; port 0 picks a free one [default: 127.0.0.1:3300].
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// OTLP over gRPC; empty: off [default: 127.0.0.1:4317].
    #[arg(long, value_name = "ADDR")]
    pub otlp_grpc_listen: Option<String>,
    /// OTLP over HTTP; empty: off [default: 127.0.0.1:4318].
    #[arg(long, value_name = "ADDR")]
    pub otlp_http_listen: Option<String>,
    /// Any key of the config, for example limits.logs.retention=7d. May be repeated; comes after the file.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

const FLAGS_HELP: &str = "Examples:
  triptych all --listen 127.0.0.1:0 --otlp-grpc-listen 127.0.0.1:0 --otlp-http-listen 127.0.0.1:0
  triptych all --set agent.enabled=false --set scraper.enabled=false --set telemetry.trace_enabled=false
  triptych all --set bucket.type=s3 --set bucket.bucket=telemetry --set bucket.endpoint=http://127.0.0.1:9000 --set bucket.allow_http=true";

impl Flags {
    /// File, then `--set`, then the flags.
    pub fn config(&self) -> triptych_model::Result<Config> {
        let mut sets = self.set.clone();
        let mut flag = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                sets.push(format!("{key}={}", serde_json::Value::String(value)));
            }
        };
        flag("data_dir", self.data_dir.as_ref().map(|d| d.display().to_string()));
        flag("server.listen", self.listen.clone());
        flag("server.otlp_grpc_listen", self.otlp_grpc_listen.clone());
        flag("server.otlp_http_listen", self.otlp_http_listen.clone());
        let config: Config = triptych_config::load(self.config.as_deref(), &sets)?;
        config.check()?;
        Ok(config)
    }
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read the config and say whether it is right.
    Check(Flags),
    /// Print the whole config as it would be used, secrets hidden.
    Show(Flags),
    /// Print the reference: every key, its default, its meaning.
    Docs,
}

#[derive(Debug, Subcommand)]
pub enum TelemetryCommand {
    /// Print the reference: every metric at /metrics, its type, its labels, its meaning.
    Docs,
}

#[derive(Debug, Args)]
pub struct ClientFlags {
    /// The gateway.
    #[arg(long, env = "TRIPTYCH_SERVER", default_value = "http://127.0.0.1:3300", value_name = "URL")]
    pub server: String,
    /// Tenant, where there are several.
    #[arg(long, env = "TRIPTYCH_TENANT", value_name = "ID")]
    pub tenant: Option<String>,
    /// Print the answer's JSON as it came.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RangeFlags {
    /// How far back from the end.
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    pub since: String,
    /// Start instead of --since: RFC 3339 or Unix seconds.
    #[arg(long, value_name = "TIME")]
    pub start: Option<String>,
    /// End [default: now].
    #[arg(long, value_name = "TIME")]
    pub end: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum QueryCommand {
    /// PromQL; with --step over a range, else now.
    Metrics {
        expr: String,
        #[command(flatten)]
        range: RangeFlags,
        /// Distance of the points of a range query, for example 15s.
        #[arg(long, value_name = "DURATION")]
        step: Option<String>,
        #[command(flatten)]
        client: ClientFlags,
    },
    /// LogQL.
    Logs {
        expr: String,
        #[command(flatten)]
        range: RangeFlags,
        /// Most lines.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Oldest first.
        #[arg(long)]
        forward: bool,
        #[command(flatten)]
        client: ClientFlags,
    },
    /// TraceQL, or a trace id.
    Traces {
        query: String,
        #[command(flatten)]
        range: RangeFlags,
        /// Most traces.
        #[arg(long, default_value_t = 20)]
        limit: u32,
        #[command(flatten)]
        client: ClientFlags,
    },
}

#[derive(Debug, Subcommand)]
pub enum LogsCommand {
    /// Print new lines until interrupted.
    Tail {
        expr: String,
        /// Lines of the past to begin with.
        #[arg(long, default_value_t = 10)]
        limit: u32,
        #[command(flatten)]
        client: ClientFlags,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_are_keys() {
        let parse = |args: &[&str]| match Cli::parse_from(args).command {
            Command::Run(run) => run.roles().1.config().unwrap(),
            other => panic!("{other:?}"),
        };
        let config = parse(&[
            "triptych",
            "all",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            "/x",
            "--set",
            "agent.enabled=false",
        ]);
        assert_eq!(config.server.listen, "127.0.0.1:0");
        assert_eq!(config.data_dir.to_str(), Some("/x"));
        assert!(!config.agent.enabled);
    }
}
