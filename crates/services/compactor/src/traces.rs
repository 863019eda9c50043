//! Plugs traces in.

use futures::FutureExt;
use futures::future::BoxFuture;
use triptych_blob::Bucket;
use triptych_config::Limits;
use triptych_model::{Error, Result, Signal, TenantId};
use triptych_traces::{CompactConfig, compact_tenant, tenants};

use crate::{CompactDoor, Config, Done};

pub struct Door;

impl CompactDoor for Door {
    const SIGNAL: Signal = Signal::Traces;

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
            let config = CompactConfig {
                retention_ns: limits.traces.retention.as_nanos() as i64,
                delete_delay_ns: config.delete_delay.as_nanos() as i64,
                ..Default::default()
            };
            let report = compact_tenant(bucket, tenant, &config, now_ns).await?;
            if let Some(first) = report.failed.first() {
                return Err(Error::unavailable(first.clone()));
            }
            Ok(Done {
                merged: report.merged_blocks as usize,
                written: report.written_blocks as usize,
                removed: (report.expired_blocks + report.deleted_blocks + report.deleted_partial) as usize,
            })
        }
        .boxed()
    }
}
