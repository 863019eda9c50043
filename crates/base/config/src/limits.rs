//! What one tenant may do. Defaults for everybody, overrides per tenant; replaced while the process runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use triptych_model::{Error, Result, TenantId};

/// Limits of one tenant. Sizes are plain bytes before compression; 0 means no limit unless a field says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Ingesters that keep the tenant's data, all zones together (shuffle sharding): a tenant that hurts its ingesters hurts only those
    /// tenants that share all of them. 0: all ingesters.
    pub ingesters_max: usize,
    /// Store-gateways that divide the tenant's blocks between them: a question is asked of all of these, and blocks are kept open by these.
    /// More of them answer faster where there is much to read; where there is little, each one more is one more to wait for. 0: all
    /// store-gateways.
    pub store_gateways_max: usize,
    pub metrics: MetricsLimits,
    pub logs: LogsLimits,
    pub traces: TracesLimits,
    pub query: QueryLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ingesters_max: 0,
            store_gateways_max: 8,
            metrics: MetricsLimits::default(),
            logs: LogsLimits::default(),
            traces: TracesLimits::default(),
            query: QueryLimits::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsLimits {
    /// Bytes of samples and labels taken per second, by all distributors together: each takes its part.
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub ingestion_rate_bytes: u64,
    /// How far above the rate a short burst may go, at each distributor.
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub ingestion_burst_bytes: u64,
    /// Active series, in all ingesters together: each takes its part, as the ring shows it.
    pub series_max: u64,
    pub label_names_per_series_max: usize,
    pub label_name_bytes_max: usize,
    pub label_value_bytes_max: usize,
    /// Samples that are further in the future are refused.
    #[serde(with = "crate::duration")]
    #[schemars(with = "String")]
    pub creation_grace_period: Duration,
    /// Samples this much older than the newest of the tenant are still taken.
    #[serde(with = "crate::duration")]
    #[schemars(with = "String")]
    pub out_of_order_window: Duration,
    /// Older blocks are removed; 0 keeps everything.
    #[serde(with = "crate::duration")]
    #[schemars(with = "String")]
    pub retention: Duration,
}

impl Default for MetricsLimits {
    fn default() -> Self {
        Self {
            ingestion_rate_bytes: 0,
            ingestion_burst_bytes: 0,
            series_max: 5_000_000,
            label_names_per_series_max: 64,
            label_name_bytes_max: 1024,
            label_value_bytes_max: 4096,
            creation_grace_period: Duration::from_secs(600),
            out_of_order_window: Duration::from_secs(3600),
            retention: Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogsLimits {
    /// Bytes of lines, labels and structured metadata taken per second, by all distributors together: each takes its part.
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub ingestion_rate_bytes: u64,
    /// How far above the rate a short burst may go, at each distributor.
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub ingestion_burst_bytes: u64,
    /// Active streams, in all ingesters together: each takes its part, as the ring shows it.
    pub streams_max: u64,
    pub label_names_per_stream_max: usize,
    pub label_name_bytes_max: usize,
    pub label_value_bytes_max: usize,
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub line_bytes_max: usize,
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub structured_metadata_bytes_max: usize,
    pub structured_metadata_entries_max: usize,
    /// Lines older than this are refused.
    #[serde(with = "crate::duration")]
    #[schemars(with = "String")]
    pub reject_old_samples_max_age: Duration,
    /// Lines that are further in the future are refused.
    #[serde(with = "crate::duration")]
    #[schemars(with = "String")]
    pub creation_grace_period: Duration,
    /// Lines this much older than the newest of their stream are still taken.
    #[serde(with = "crate::duration")]
    #[schemars(with = "String")]
    pub out_of_order_window: Duration,
    /// Older chunks are removed; 0 keeps everything.
    #[serde(with = "crate::duration")]
    #[schemars(with = "String")]
    pub retention: Duration,
}

impl Default for LogsLimits {
    fn default() -> Self {
        Self {
            ingestion_rate_bytes: 0,
            ingestion_burst_bytes: 0,
            streams_max: 100_000,
            label_names_per_stream_max: 30,
            label_name_bytes_max: 1024,
            label_value_bytes_max: 2048,
            line_bytes_max: 256 << 10,
            structured_metadata_bytes_max: 64 << 10,
            structured_metadata_entries_max: 128,
            reject_old_samples_max_age: Duration::from_secs(7 * 86_400),
            creation_grace_period: Duration::from_secs(600),
            out_of_order_window: Duration::from_secs(3600),
            retention: Duration::ZERO,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TracesLimits {
    /// Bytes of spans taken per second, by all distributors together: each takes its part.
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub ingestion_rate_bytes: u64,
    /// How far above the rate a short burst may go, at each distributor.
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub ingestion_burst_bytes: u64,
    /// Traces held in all ingesters together before they are written to the bucket: each takes its part, as the ring shows it.
    pub live_traces_max: u64,
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub trace_bytes_max: u64,
    /// Encoded size of one span.
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub span_bytes_max: usize,
    /// Older blocks are removed; 0 keeps everything.
    #[serde(with = "crate::duration")]
    #[schemars(with = "String")]
    pub retention: Duration,
}

impl Default for TracesLimits {
    fn default() -> Self {
        Self {
            ingestion_rate_bytes: 0,
            ingestion_burst_bytes: 0,
            live_traces_max: 5_000_000,
            trace_bytes_max: 50 << 20,
            span_bytes_max: 1 << 20,
            retention: Duration::from_secs(30 * 86_400),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueryLimits {
    /// Bytes one query may read from heads and bucket.
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub read_bytes_max: u64,
    /// Samples, lines or spans one query may look at.
    pub rows_max: u64,
    /// Memory one query may hold; never unlimited.
    #[serde(with = "crate::bytes")]
    #[schemars(with = "String")]
    pub memory_bytes_max: usize,
    #[serde(with = "crate::duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Lines that one log query may return.
    pub entries_max: usize,
    /// Traces that one search may return.
    pub traces_max: usize,
    /// Longest time range of one query; 0: no limit.
    #[serde(with = "crate::duration")]
    #[schemars(with = "String")]
    pub range_max: Duration,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            read_bytes_max: 0,
            rows_max: 0,
            memory_bytes_max: 1 << 30,
            timeout: Duration::from_secs(120),
            entries_max: 5000,
            traces_max: 1000,
            range_max: Duration::ZERO,
        }
    }
}

/// The limits of every tenant: clones see the same, and see a replacement at once.
#[derive(Debug, Clone, Default)]
pub struct TenantLimits(Arc<RwLock<Table>>);

#[derive(Debug, Default)]
struct Table {
    default: Arc<Limits>,
    overrides: BTreeMap<String, Arc<Limits>>,
}

impl Table {
    /// An override says only what differs: it is laid over the defaults key by key.
    fn new(default: &Limits, overrides: &BTreeMap<String, Value>) -> Result<Self> {
        let internal = |e: serde_json::Error| Error::internal(e.to_string());
        let base = serde_json::to_value(default).map_err(internal)?;
        let mut table = Table { default: Arc::new(default.clone()), overrides: BTreeMap::new() };
        for (tenant, partial) in overrides {
            TenantId::new(tenant).map_err(|e| e.context("overrides"))?;
            let mut merged = base.clone();
            lay_over(&mut merged, partial);
            let limits = serde_path_to_error::deserialize(merged)
                .map_err(|e| Error::invalid(format!("overrides.{tenant}.{}: {}", e.path(), e.inner())))?;
            table.overrides.insert(tenant.clone(), Arc::new(limits));
        }
        Ok(table)
    }
}

fn lay_over(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(base.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

impl TenantLimits {
    pub fn new(default: &Limits, overrides: &BTreeMap<String, Value>) -> Result<Self> {
        Ok(Self(Arc::new(RwLock::new(Table::new(default, overrides)?))))
    }

    pub fn of(&self, tenant: &TenantId) -> Arc<Limits> {
        let table = self.0.read();
        table.overrides.get(tenant.as_str()).unwrap_or(&table.default).clone()
    }

    /// Takes new limits for all clones; keeps the old ones if the new are wrong.
    pub fn replace(&self, default: &Limits, overrides: &BTreeMap<String, Value>) -> Result<()> {
        let table = Table::new(default, overrides)?;
        *self.0.write() = table;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_says_only_what_differs() {
        let overrides = BTreeMap::from([(
            "a".to_owned(),
            serde_json::json!({"metrics": {"series_max": 7, "retention": "1d"}}),
        )]);
        let limits = TenantLimits::new(&Limits::default(), &overrides).unwrap();
        let a = limits.of(&TenantId::new("a").unwrap());
        assert_eq!((a.metrics.series_max, a.metrics.retention.as_secs()), (7, 86_400));
        assert_eq!(a.logs, LogsLimits::default());
        assert_eq!(*limits.of(&TenantId::single()), Limits::default());

        let wrong = BTreeMap::from([("a".to_owned(), serde_json::json!({"metrics": {"serie_max": 7}}))]);
        let error = limits.replace(&Limits::default(), &wrong).unwrap_err().to_string();
        assert!(error.contains("serie_max"), "{error}");
        assert_eq!(limits.of(&TenantId::new("a").unwrap()).metrics.series_max, 7);
    }
}
