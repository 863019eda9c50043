//! Plugs metrics in.

use futures::FutureExt;
use futures::future::BoxFuture;
use triptych_blob::Bucket;
use triptych_metrics::{CompactConfig, compact_tenant, tenants};
use triptych_model::{Error, Result, Signal, TenantId};

use crate::{CompactDoor, Done, Turn};

pub struct Door;

impl CompactDoor for Door {
    const SIGNAL: Signal = Signal::Metrics;

    fn tenants(bucket: &Bucket) -> BoxFuture<'_, Result<Vec<TenantId>>> {
        tenants(bucket).boxed()
    }

    fn round(turn: Turn<'_>) -> BoxFuture<'_, Result<Done>> {
        async move {
            let Turn { bucket, tenant, limits, config, has_conditional_puts, now_ns } = turn;
            let usual = CompactConfig::default();
            let config = CompactConfig {
                retention_ms: limits.metrics.retention.as_millis() as i64,
                delete_delay_ms: config.delete_delay.as_millis() as i64,
                memory_bytes_max: config.memory_bytes_max.min(usual.memory_bytes_max),
                has_conditional_puts,
                ..usual
            };
            let report = compact_tenant(bucket, tenant, &config, now_ns / 1_000_000).await?;
            if let Some(first) = report.failed.first() {
                return Err(Error::unavailable(first.clone()));
            }
            Ok(Done {
                merged: report.marked.len(),
                written: report.merged.len(),
                removed: report.deleted.len() + report.partial_deleted.len(),
                copies: report.copies,
            })
        }
        .boxed()
    }
}
