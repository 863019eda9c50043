//! `scrape_configs` as Prometheus reads them, and what is scraped without being configured.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use triptych_config::Secret;
use triptych_model::{Error, Result};

use crate::relabel::RelabelConfig;

/// Scrapes targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Scrape at all.
    pub enabled: bool,
    /// Scrape this process' own `/metrics` as job `triptych`.
    pub self_scrape: bool,
    /// Tenant that samples are written for.
    pub tenant: String,
    pub global: Global,
    /// Prometheus' `scrape_configs`, verbatim.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// Files (globs) with a `scrape_configs` list each.
    pub scrape_config_files: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            self_scrape: true,
            tenant: "anonymous".to_owned(),
            global: Global::default(),
            scrape_configs: vec![],
            scrape_config_files: vec![],
        }
    }
}

/// Defaults of all jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Global {
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub scrape_interval: Duration,
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub scrape_timeout: Duration,
    /// Added to every series that does not have them.
    pub external_labels: BTreeMap<String, String>,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            scrape_interval: Duration::from_secs(15),
            scrape_timeout: Duration::from_secs(10),
            external_labels: BTreeMap::new(),
        }
    }
}

/// An optional duration as text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Time(
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub Duration,
);

/// One job, as in Prometheus' configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScrapeConfig {
    pub job_name: String,
    pub scrape_interval: Option<Time>,
    pub scrape_timeout: Option<Time>,
    pub metrics_path: String,
    pub scheme: String,
    pub params: BTreeMap<String, Vec<String>>,
    /// Labels that the target exposes win over the target's own; otherwise they become `exported_..`.
    pub honor_labels: bool,
    /// Take the target's timestamps.
    pub honor_timestamps: bool,
    /// Mark series with timestamps of their own as stale too.
    pub track_timestamps_staleness: bool,
    pub static_configs: Vec<StaticConfig>,
    pub file_sd_configs: Vec<FileSdConfig>,
    pub relabel_configs: Vec<RelabelConfig>,
    pub metric_relabel_configs: Vec<RelabelConfig>,
    pub basic_auth: Option<BasicAuth>,
    pub authorization: Option<Authorization>,
    pub bearer_token: Option<Secret>,
    pub bearer_token_file: Option<PathBuf>,
    pub tls_config: Option<TlsConfig>,
    pub follow_redirects: Option<bool>,
    pub enable_compression: Option<bool>,
    /// Largest answer in bytes; 0: 256 MiB.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub body_size_limit: u64,
    /// A scrape with more samples fails as a whole; 0: no limit.
    pub sample_limit: usize,
    /// A scrape with a series of more labels fails as a whole; 0: no limit.
    pub label_limit: usize,
    pub label_name_length_limit: usize,
    pub label_value_length_limit: usize,
    /// A job with more targets scrapes none; 0: no limit.
    pub target_limit: usize,
}

impl Default for ScrapeConfig {
    fn default() -> Self {
        Self {
            job_name: String::new(),
            scrape_interval: None,
            scrape_timeout: None,
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            params: BTreeMap::new(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            static_configs: vec![],
            file_sd_configs: vec![],
            relabel_configs: vec![],
            metric_relabel_configs: vec![],
            basic_auth: None,
            authorization: None,
            bearer_token: None,
            bearer_token_file: None,
            tls_config: None,
            follow_redirects: None,
            enable_compression: None,
            body_size_limit: 0,
            sample_limit: 0,
            label_limit: 0,
            label_name_length_limit: 0,
            label_value_length_limit: 0,
            target_limit: 0,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StaticConfig {
    pub targets: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FileSdConfig {
    /// YAML or JSON files with lists of `{targets, labels}`; globs in the last part of the path.
    pub files: Vec<String>,
    pub refresh_interval: Time,
}

impl Default for FileSdConfig {
    fn default() -> Self {
        Self { files: vec![], refresh_interval: Time(Duration::from_secs(300)) }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BasicAuth {
    pub username: String,
    pub password: Secret,
    pub password_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    #[serde(rename = "type")]
    pub kind: String,
    pub credentials: Secret,
    pub credentials_file: Option<PathBuf>,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { kind: "Bearer".to_owned(), credentials: Secret::default(), credentials_file: None }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    pub ca_file: Option<PathBuf>,
    pub insecure_skip_verify: bool,
}

impl Config {
    /// Every job: configured, from files, and our own. Names are unique, times fit.
    pub(crate) fn jobs(&self, own_address: &str) -> Result<Vec<ScrapeConfig>> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            scrape_configs: Vec<ScrapeConfig>,
        }
        let mut jobs = self.scrape_configs.clone();
        for pattern in &self.scrape_config_files {
            for path in paths(pattern)? {
                let text = std::fs::read_to_string(&path)
                    .map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
                let file: File = serde_saphyr::from_str(&text)
                    .map_err(|e| Error::invalid(format!("{}: {e}", path.display())))?;
                jobs.extend(file.scrape_configs);
            }
        }
        if self.self_scrape {
            jobs.push(ScrapeConfig {
                job_name: "triptych".to_owned(),
                static_configs: vec![StaticConfig {
                    targets: vec![own_address.to_owned()],
                    ..Default::default()
                }],
                ..Default::default()
            });
        }
        for (i, job) in jobs.iter().enumerate() {
            if job.job_name.is_empty() {
                return Err(Error::invalid(format!("scrape_configs[{i}]: job_name is empty")));
            }
            if jobs[..i].iter().any(|other| other.job_name == job.job_name) {
                return Err(Error::invalid(format!("scrape_configs: job {:?} is there twice", job.job_name)));
            }
            let (interval, timeout) = (self.interval(job), self.timeout(job));
            if interval.is_zero() || timeout > interval {
                return Err(Error::invalid(format!(
                    "job {:?}: scrape_timeout {timeout:?} must not be longer than scrape_interval {interval:?}",
                    job.job_name
                )));
            }
            if !matches!(job.scheme.as_str(), "http" | "https") {
                return Err(Error::invalid(format!(
                    "job {:?}: scheme {:?} is not http or https",
                    job.job_name, job.scheme
                )));
            }
        }
        Ok(jobs)
    }

    pub(crate) fn interval(&self, job: &ScrapeConfig) -> Duration {
        job.scrape_interval.map_or(self.global.scrape_interval, |t| t.0)
    }

    /// A job that says only its interval does not wait longer than that.
    pub(crate) fn timeout(&self, job: &ScrapeConfig) -> Duration {
        job.scrape_timeout.map_or_else(|| self.global.scrape_timeout.min(self.interval(job)), |t| t.0)
    }
}

/// The files that a glob names, sorted.
pub(crate) fn paths(pattern: &str) -> Result<Vec<PathBuf>> {
    let found = glob::glob(pattern).map_err(|e| Error::invalid(format!("file pattern {pattern:?}: {e}")))?;
    Ok(found.filter_map(Result::ok).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_yaml_is_read_verbatim() {
        let yaml = r#"
scrape_configs:
  - job_name: node
    scrape_interval: 5s
    static_configs:
      - targets: ["localhost:9100"]
        labels: {env: prod}
    relabel_configs:
      - source_labels: [__address__]
        regex: "(.*):.*"
        target_label: host
    metric_relabel_configs:
      - {source_labels: [__name__], regex: "go_.*", action: drop}
  - job_name: files
    file_sd_configs: [{files: ["/etc/targets/*.json"], refresh_interval: 1m}]
    basic_auth: {username: a, password: b}
"#;
        let config: Config = triptych_config::parse(yaml, &[], |_| None).unwrap();
        let jobs = config.jobs("127.0.0.1:3300").unwrap();
        assert_eq!(
            jobs.iter().map(|j| j.job_name.as_str()).collect::<Vec<_>>(),
            ["node", "files", "triptych"]
        );
        assert_eq!((config.interval(&jobs[0]).as_secs(), config.timeout(&jobs[0]).as_secs()), (5, 5));

        let error = |yaml: &str| {
            let parsed = triptych_config::parse::<Config>(yaml, &[], |_| None);
            parsed.and_then(|c| c.jobs("x").map(drop)).unwrap_err().to_string()
        };
        assert!(error("scrape_configs: [{job_name: a}, {job_name: a}]").contains("twice"));
        assert!(
            error("scrape_configs: [{job_name: a, kubernetes_sd_configs: []}]")
                .contains("kubernetes_sd_configs")
        );
        assert!(
            error("scrape_configs: [{job_name: a, scrape_interval: 1s, scrape_timeout: 2s}]")
                .contains("longer")
        );
    }
}
