//! Plugs logs in.

use futures::FutureExt;
use futures::future::BoxFuture;
use triptych_blob::Bucket;
use triptych_logs::{CompactConfig, compact_tenant, tenants};
use triptych_model::{Error, Result, Signal, TenantId};

use crate::{CompactDoor, Done, Turn};

pub struct Door;

impl CompactDoor for Door {
    const SIGNAL: Signal = Signal::Logs;

    fn tenants(bucket: &Bucket) -> BoxFuture<'_, Result<Vec<TenantId>>> {
        tenants(bucket).boxed()
    }

    fn round(turn: Turn<'_>) -> BoxFuture<'_, Result<Done>> {
        async move {
            let Turn { bucket, tenant, limits, config, now_ns, .. } = turn;
            let usual = CompactConfig::default();
            let config = CompactConfig {
                retention_ns: limits.logs.retention.as_nanos() as i64,
                delete_delay_ns: config.delete_delay.as_nanos() as i64,
                memory_bytes_max: config.memory_bytes_max.min(usual.memory_bytes_max),
                ..usual
            };
            let report = compact_tenant(bucket, tenant, &config, now_ns).await?;
            if let Some(first) = report.failed.first() {
                return Err(Error::unavailable(first.clone()));
            }
            Ok(Done {
                merged: (report.index_files_merged + report.chunks_merged) as usize,
                written: (report.index_files_written + report.chunks_written) as usize,
                removed: (report.index_files_deleted + report.chunks_expired + report.orphans_deleted)
                    as usize,
                copies: report.copies,
            })
        }
        .boxed()
    }
}
