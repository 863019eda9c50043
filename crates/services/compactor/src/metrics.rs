//! Plugs metrics in.

use futures::FutureExt;
use futures::future::BoxFuture;
use triptych_blob::Bucket;
use triptych_config::Limits;
use triptych_metrics::{CompactConfig, compact_tenant, tenants};
use triptych_model::{Error, Result, Signal, TenantId};

use crate::{CompactDoor, Config, Done};

pub struct Door;

impl CompactDoor for Door {
    const SIGNAL: Signal = Signal::Metrics;

    fn tenants(bucket: &Bucket) -> BoxFuture<'_, Result<Vec<TenantId>>> {
        tenants(bucket).boxed()
    }

    fn round<'a>(
        bucket: &'a Bucket,
        tenant: &'a TenantId,
        limits: &'a Limits,
        config: &'a Config,
        now_ns: i64,
    ) -> BoxFuture<'a, Result<Done>> {
        async move {
            let own = config;
            let config = CompactConfig {
                retention_ms: limits.metrics.retention.as_millis() as i64,
                delete_delay_ms: config.delete_delay.as_millis() as i64,
                ..Default::default()
            };
            let memory_bytes_max = own.memory_bytes_max.min(config.memory_bytes_max);
            let config = CompactConfig { memory_bytes_max, ..config };
            let report = compact_tenant(bucket, tenant, &config, now_ns / 1_000_000).await?;
            if let Some(first) = report.failed.first() {
                return Err(Error::unavailable(first.clone()));
            }
            Ok(Done {
                merged: report.marked.len(),
                written: report.merged.len(),
                removed: report.deleted.len() + report.partial_deleted.len(),
            })
        }
        .boxed()
    }
}
