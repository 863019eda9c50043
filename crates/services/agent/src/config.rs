//! Which files are tailed, with which labels, and how batches are sent.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use triptych_model::{Error, Result};

/// Tails log files and reads host metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Run at all.
    pub enabled: bool,
    /// Tenant that is written for.
    pub tenant: String,
    /// Read `/proc` under node_exporter's names, as job `node`.
    pub host_metrics_enabled: bool,
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub host_metrics_interval: Duration,
    /// Tail files.
    pub logs_enabled: bool,
    /// What is tailed. The own log (`triptych.log` in the data directory, job `triptych`) comes by itself.
    pub files: Vec<Files>,
    /// How often globs are looked at again.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub discovery_interval: Duration,
    /// Lines are sent when there are this many bytes of them, or after `batch_wait`.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub batch_bytes_max: usize,
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub batch_wait: Duration,
    /// Longer lines are cut.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub line_bytes_max: usize,
    /// First pause after a failed send; doubles up to `backoff_max`. Reading waits meanwhile, nothing is dropped.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub backoff_min: Duration,
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub backoff_max: Duration,
}

/// Files that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    /// Label `job`.
    pub job: String,
    /// Globs, `**` for any depth.
    pub paths: Vec<String>,
    /// Globs of what is left out.
    pub exclude: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line is an entry, stamped when it is read.
    #[default]
    Plain,
    /// Lines of a container runtime: `time stream flags text`.
    Cri,
}

impl Default for Files {
    fn default() -> Self {
        Self {
            job: "varlogs".to_owned(),
            paths: vec![],
            exclude: vec![],
            labels: BTreeMap::new(),
            format: Format::Plain,
        }
    }
}

/// What rotation leaves behind: its lines were read under another name.
const ROTATED: [&str; 5] = ["*.gz", "*.xz", "*.zst", "*.bz2", "*.[0-9]"];

impl Default for Config {
    fn default() -> Self {
        let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Self {
            enabled: true,
            tenant: "anonymous".to_owned(),
            host_metrics_enabled: true,
            host_metrics_interval: Duration::from_secs(15),
            logs_enabled: true,
            files: vec![
                Files {
                    paths: texts(&[
                        "/var/log/**/*.log",
                        "/var/log/syslog",
                        "/var/log/messages",
                        "/var/log/auth.log",
                    ]),
                    exclude: texts(&["/var/log/pods/**", "/var/log/containers/**", "/var/log/journal/**"]),
                    ..Default::default()
                },
                Files {
                    job: "pods".to_owned(),
                    paths: texts(&["/var/log/pods/*/*/*.log"]),
                    format: Format::Cri,
                    ..Default::default()
                },
            ],
            discovery_interval: Duration::from_secs(10),
            batch_bytes_max: 1 << 20,
            batch_wait: Duration::from_secs(1),
            line_bytes_max: 256 << 10,
            backoff_min: Duration::from_millis(500),
            backoff_max: Duration::from_secs(300),
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<()> {
        for files in &self.files {
            for pattern in files.paths.iter().chain(&files.exclude) {
                glob::Pattern::new(pattern)
                    .map_err(|e| Error::invalid(format!("agent.files: {pattern:?} is not a glob: {e}")))?;
            }
        }
        for (key, value) in
            [("batch_wait", self.batch_wait), ("host_metrics_interval", self.host_metrics_interval)]
        {
            if value.is_zero() {
                return Err(Error::invalid(format!("agent.{key} must be above 0")));
            }
        }
        if self.line_bytes_max == 0 || self.batch_bytes_max == 0 {
            return Err(Error::invalid("agent.line_bytes_max and agent.batch_bytes_max must be above 0"));
        }
        Ok(())
    }
}

impl Files {
    /// The files that are there now, sorted.
    pub(crate) fn find(&self) -> Vec<std::path::PathBuf> {
        let compile = |p: &str| glob::Pattern::new(p).ok();
        let exclude: Vec<_> = self.exclude.iter().filter_map(|p| compile(p)).collect();
        let rotated: Vec<_> = ROTATED.iter().filter_map(|p| compile(p)).collect();
        let mut found = Vec::new();
        for pattern in &self.paths {
            for path in glob::glob(pattern).into_iter().flatten().flatten() {
                let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                let out =
                    exclude.iter().any(|p| p.matches_path(&path)) || rotated.iter().any(|p| p.matches(&name));
                if !out && path.is_file() {
                    found.push(path);
                }
            }
        }
        found.sort();
        found.dedup();
        found
    }
}
