//! The one file for all roles.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use triptych_blob::BucketConfig;
use triptych_config::{Limits, TenantLimits};
use triptych_model::Error;
use triptych_ring::GossipConfig;

use crate::cli::ConfigCommand;

/// Everything that can be configured. Each section belongs to the role it is named for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    /// Memory that this process may use. Three quarters of it are shared out among what the process does; what would go over a share is
    /// refused (429, 422 or 503). 0: the cgroup's limit, or the machine's memory.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub memory_limit: usize,
    /// Write-ahead log, positions, own log, and the bucket where none is configured.
    pub data_dir: PathBuf,
    /// Name of this process among its kind, in block names and telemetry. Empty: the host's name.
    pub node: String,
    /// Where data is kept: `{type: filesystem, dir: ..}` or `{type: s3, bucket: .., region: .., endpoint: ..}`. Not set:
    /// `bucket` below `data_dir`.
    pub bucket: Option<BucketConfig>,
    /// Several tenants, told apart by the header `X-Scope-OrgID`; otherwise there is one.
    pub multitenancy: bool,
    /// What each tenant may do.
    pub limits: Limits,
    /// What differs for single tenants: `{team-a: {metrics: {retention: 90d}}}`.
    pub overrides: BTreeMap<String, serde_json::Value>,
    /// How processes of a cluster find each other. Not used by `all`.
    pub membership: GossipConfig,
    pub peers: Peers,
    pub telemetry: triptych_telemetry::Config,
    pub distributor: triptych_distributor::Config,
    pub ingester: triptych_ingester::Config,
    pub store_gateway: triptych_store_gateway::Config,
    pub querier: triptych_querier::Config,
    pub gateway: triptych_gateway::Config,
    pub compactor: triptych_compactor::Config,
    pub scraper: triptych_scraper::Config,
    pub agent: triptych_agent::Config,
}

/// Where this process listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// HTTP: read and push APIs, the page, admin endpoints. Port 0 picks a free one.
    pub listen: String,
    /// OTLP over gRPC, where this process has a distributor. Empty: off.
    pub otlp_grpc_listen: String,
    /// OTLP over HTTP, where this process has a distributor. Empty: off.
    pub otlp_http_listen: String,
    /// The internal services of a role that runs alone. Not used by `all`.
    pub grpc_listen: String,
    /// After SIGTERM: for so long the process says `draining` at `/ready` and works on, so that load balancers send elsewhere. In a cluster
    /// at least until the other members know.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub shutdown_delay: Duration,
    /// Longest time that a shutdown may take after that; what is not flushed by then waits in the write-ahead log.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub drain_timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:3300".to_owned(),
            otlp_grpc_listen: "127.0.0.1:4317".to_owned(),
            otlp_http_listen: "127.0.0.1:4318".to_owned(),
            grpc_listen: "127.0.0.1:9095".to_owned(),
            shutdown_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(60),
        }
    }
}

/// Where the roles are that do not run in this process: `host:port` of their `server.grpc_listen`. For a fixed list, without replicas;
/// not looked at where `membership.seeds` are set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Peers {
    pub ingesters: Vec<String>,
    pub store_gateways: Vec<String>,
    pub queriers: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server: Server::default(),
            memory_limit: 0,
            data_dir: "data".into(),
            node: String::new(),
            bucket: None,
            multitenancy: false,
            limits: Limits::default(),
            overrides: BTreeMap::new(),
            membership: GossipConfig::default(),
            peers: Peers::default(),
            telemetry: Default::default(),
            distributor: Default::default(),
            ingester: Default::default(),
            store_gateway: Default::default(),
            querier: Default::default(),
            gateway: Default::default(),
            compactor: Default::default(),
            scraper: Default::default(),
            agent: Default::default(),
        }
    }
}

impl Config {
    /// The bucket's config, with the default that depends on the data directory.
    pub fn bucket(&self) -> BucketConfig {
        self.bucket.clone().unwrap_or_else(|| {
            BucketConfig::Filesystem(triptych_blob::FilesystemConfig { dir: self.data_dir.join("bucket") })
        })
    }

    pub fn tenant_limits(&self) -> triptych_model::Result<TenantLimits> {
        TenantLimits::new(&self.limits, &self.overrides)
    }

    /// What a section cannot know of another: times that have to follow each other, or data would be in nobody's answers for a while.
    pub fn check(&self) -> triptych_model::Result<()> {
        let (ingester, store_gateway, compactor) = (&self.ingester, &self.store_gateway, &self.compactor);
        let sync_interval = ("store_gateway.sync_interval", store_gateway.sync_interval);
        let sync_age_max = ("store_gateway.sync_age_max", store_gateway.sync_age_max);
        let retained = ("ingester.retain_after_flush", ingester.retain_after_flush);
        let replaced_shown = ("store_gateway.replaced_shown", store_gateway.replaced_shown);
        let delete_delay = ("compactor.delete_delay", compactor.delete_delay);
        let in_order = [
            (sync_interval, sync_age_max),
            (sync_age_max, retained),
            (sync_age_max, replaced_shown),
            (replaced_shown, delete_delay),
        ];
        match in_order.iter().find(|((_, short), (_, long))| short >= long) {
            None => Ok(()),
            Some(((shorter, short), (longer, long))) => Err(Error::invalid(format!(
                "{longer} ({long:?}) has to be more than {shorter} ({short:?}), or there are moments when data are in no answer"
            ))),
        }
    }

    pub fn node(&self) -> String {
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = if self.node.is_empty() { host() } else { self.node.clone() };
        let name: String = name
            .trim()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
            .collect();
        if name.is_empty() { "triptych".to_owned() } else { name }
    }

    /// As YAML, secrets hidden.
    pub fn shown(&self) -> Result<String> {
        Ok(serde_saphyr::to_string(self)?)
    }
}

pub fn run(command: ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Check(flags) => {
            let config = flags.config()?;
            config.tenant_limits()?;
            println!("config is right");
        }
        ConfigCommand::Show(flags) => print!("{}", flags.config()?.shown()?),
        ConfigCommand::Docs => print!("{}", reference()),
    }
    Ok(())
}

/// The page `docs/configuration.md`.
pub fn reference() -> String {
    format!(
        "# Configuration\n\nOne YAML file for all roles: `triptych all --config FILE`. Every key has a default; a file says only what differs. \
         `${{NAME}}` and `${{NAME:default}}` are taken from the environment; `--set key=value` comes last. Durations are written \
         `1h30m`, sizes `64MiB`. This page is made by `triptych config docs`.\n{}",
        triptych_config::reference::markdown::<Config>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read_back() {
        let shown = Config::default().shown().unwrap();
        let read: Config = triptych_config::parse(&shown, &[], |_| None).unwrap();
        assert_eq!(read, Config::default());
    }

    #[test]
    fn secrets_are_not_shown() {
        let yaml = "bucket: {type: s3, bucket: b, access_key_id: id, secret_access_key: hunter2}";
        let config: Config = triptych_config::parse(yaml, &[], |_| None).unwrap();
        let shown = config.shown().unwrap();
        assert!(shown.contains("access_key_id: id") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn times_that_leave_a_gap_are_refused() {
        let check = |yaml: &str| triptych_config::parse::<Config>(yaml, &[], |_| None).unwrap().check();
        check("").unwrap();
        check("{store_gateway: {sync_age_max: 20s}, ingester: {retain_after_flush: 21s}}").unwrap();
        let refused = check("ingester: {retain_after_flush: 45s}").unwrap_err().to_string();
        assert!(refused.contains("ingester.retain_after_flush (45s) has to be more than"), "{refused}");
        let refused = check("store_gateway: {sync_interval: 1m}").unwrap_err().to_string();
        assert!(refused.contains("store_gateway.sync_age_max"), "{refused}");
    }

    #[test]
    fn the_reference_is_current() {
        let written = std::fs::read_to_string("../../docs/configuration.md").unwrap_or_default();
        assert!(written == reference(), "docs/configuration.md is old: run `make docs`");
    }
}
