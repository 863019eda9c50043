//! The ingester's part of the config.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use triptych_wal::WalConfig;

/// Settings of the ingester. The defaults are good for one machine and for a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    #[serde(deserialize_with = "metrics_generation")]
    pub metrics: GenerationConfig,
    #[serde(deserialize_with = "logs_generation")]
    pub logs: GenerationConfig,
    #[serde(deserialize_with = "traces_generation")]
    pub traces: GenerationConfig,
    /// Memory of everything that is not in the bucket yet, or was flushed just now. Writes that would go over it are refused
    /// (429 where the tenant holds more than its fair share, else 503). 0: a share of `memory_limit`.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub memory_bytes_max: usize,
    /// Memory of writes that are being worked on: sealed and decompressed batches. 0: a share of `memory_limit`.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub in_flight_bytes_max: usize,
    /// Local disk for what is not in the bucket yet: write-ahead log, and flushes that wait for a bucket that is away. Writes that would
    /// go over it are refused (503). 0: half of the file system.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub disk_bytes_max: u64,
    /// Largest decompressed batch that is taken.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub batch_bytes_max: usize,
    /// How long flushed data stay readable here, so that every store-gateway has seen the new blocks before.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub retain_after_flush: Duration,
    /// Tenants whose data are flushed at the same time, per signal.
    pub flush_concurrency: usize,
    /// Longest pause between two attempts of a flush that fails.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub flush_retry_max: Duration,
    /// Whether everything is flushed before the process ends. Without it the data wait in the write-ahead log for the next start.
    pub flush_on_shutdown: bool,
    /// How long a write waits for a place in the queue of the write-ahead log before it is refused.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub wal_wait_max: Duration,
    /// Size at which a file of the write-ahead log is closed.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub wal_segment_bytes_max: u64,
    /// Writes that wait for the disk, per signal; at most a third of the writes in flight.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub wal_queue_bytes_max: usize,
    /// Whether the write-ahead log is synced before a write is acknowledged. `false` loses data on power loss.
    pub wal_fsync: bool,
}

/// When what was written is flushed to the bucket. Whichever comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GenerationConfig {
    /// After this time.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub age_max: Duration,
    /// When it holds this much memory.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub bytes_max: usize,
    /// When nothing was written for this time.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub idle_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let WalConfig { segment_bytes_max, queue_bytes_max, fsync } = WalConfig::default();
        Self {
            metrics: GenerationConfig::METRICS,
            logs: GenerationConfig::LOGS,
            traces: GenerationConfig::TRACES,
            memory_bytes_max: 0,
            in_flight_bytes_max: 0,
            disk_bytes_max: 0,
            batch_bytes_max: 64 << 20,
            retain_after_flush: Duration::from_secs(60),
            flush_concurrency: 4,
            flush_retry_max: Duration::from_secs(60),
            flush_on_shutdown: true,
            wal_wait_max: Duration::from_secs(5),
            wal_segment_bytes_max: segment_bytes_max,
            wal_queue_bytes_max: queue_bytes_max,
            wal_fsync: fsync,
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

impl GenerationConfig {
    const METRICS: Self = Self { age_max: HOUR, bytes_max: 1 << 30, idle_max: Duration::from_secs(1800) };
    const LOGS: Self = Self { age_max: HOUR, bytes_max: 512 << 20, idle_max: Duration::from_secs(1800) };
    /// Traces are asked for minutes after they happened or not at all, and a parquet block is cheaper to search than a head.
    const TRACES: Self =
        Self { age_max: Duration::from_secs(900), bytes_max: 512 << 20, idle_max: Duration::from_secs(600) };
}

/// A file says only what differs from the signal's own defaults.
fn lay_over<'de, D: Deserializer<'de>>(
    deserializer: D,
    default: GenerationConfig,
) -> Result<GenerationConfig, D::Error> {
    #[derive(Deserialize)]
    struct Time(#[serde(with = "triptych_config::duration")] Duration);
    #[derive(Deserialize)]
    struct Size(#[serde(with = "triptych_config::bytes")] usize);
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Partial {
        age_max: Option<Time>,
        bytes_max: Option<Size>,
        idle_max: Option<Time>,
    }
    let partial = Partial::deserialize(deserializer)?;
    Ok(GenerationConfig {
        age_max: partial.age_max.map_or(default.age_max, |t| t.0),
        bytes_max: partial.bytes_max.map_or(default.bytes_max, |s| s.0),
        idle_max: partial.idle_max.map_or(default.idle_max, |t| t.0),
    })
}

fn metrics_generation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GenerationConfig, D::Error> {
    lay_over(deserializer, GenerationConfig::METRICS)
}

fn logs_generation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GenerationConfig, D::Error> {
    lay_over(deserializer, GenerationConfig::LOGS)
}

fn traces_generation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GenerationConfig, D::Error> {
    lay_over(deserializer, GenerationConfig::TRACES)
}

impl Config {
    pub(crate) fn wal(&self, in_flight_bytes_max: usize) -> WalConfig {
        WalConfig {
            segment_bytes_max: self.wal_segment_bytes_max,
            queue_bytes_max: self.wal_queue_bytes_max.min(in_flight_bytes_max / 3),
            fsync: self.wal_fsync,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_only_what_differs() {
        let text = r#"{"traces": {"bytes_max": "1GiB"}, "retain_after_flush": "5s"}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        let expected = Config {
            traces: GenerationConfig { bytes_max: 1 << 30, ..GenerationConfig::TRACES },
            retain_after_flush: Duration::from_secs(5),
            ..Config::default()
        };
        assert_eq!(config, expected);
        let written = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&written).unwrap(), config);
        assert!(serde_json::from_str::<Config>(r#"{"logs": {"age": "1h"}}"#).is_err());
    }
}
