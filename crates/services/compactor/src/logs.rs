//! Plugs logs in.

use futures::FutureExt;
use futures::future::BoxFuture;
use triptych_blob::Bucket;
use triptych_config::Limits;
use triptych_logs::{CompactConfig, compact_tenant, tenants};
use triptych_model::{Error, Result, Signal, TenantId};

use crate::{CompactDoor, Config, Done};

pub struct Door;

impl CompactDoor for Door {
    const SIGNAL: Signal = Signal::Logs;

    fn tenants(bucket: &Bucket) -> BoxFuture<'_, Result<Vec<TenantId>>> {
        tenants(bucket).boxed()
    }

    fn round<'a>(
        bucket: &'a Bucket,
        tenant: &'a TenantId,
        limits: &'a Limits,
        _: &'a Config,
        now_ns: i64,
    ) -> BoxFuture<'a, Result<Done>> {
        async move {
            let config =
                CompactConfig { retention_ns: limits.logs.retention.as_nanos() as i64, ..Default::default() };
            let report = compact_tenant(bucket, tenant, &config, now_ns).await?;
            if let Some(first) = report.failed.first() {
                return Err(Error::unavailable(first.clone()));
            }
            Ok(Done {
                merged: report.index_files_deleted as usize,
                written: report.index_files_written as usize,
                removed: (report.chunks_expired + report.orphans_deleted) as usize,
            })
        }
        .boxed()
    }
}
