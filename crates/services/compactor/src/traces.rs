//! Plugs traces in.

use futures::FutureExt;
use futures::future::BoxFuture;
use triptych_blob::Bucket;
use triptych_model::{Error, Result, Signal, TenantId};
use triptych_traces::{CompactConfig, compact_tenant, tenants};

use crate::{CompactDoor, Done, Turn};

pub struct Door;

impl CompactDoor for Door {
    const SIGNAL: Signal = Signal::Traces;

    fn tenants(bucket: &Bucket) -> BoxFuture<'_, Result<Vec<TenantId>>> {
        tenants(bucket).boxed()
    }

    fn round(turn: Turn<'_>) -> BoxFuture<'_, Result<Done>> {
        async move {
            let Turn { bucket, tenant, limits, config, now_ns, .. } = turn;
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
                copies: report.copies,
            })
        }
        .boxed()
    }
}
