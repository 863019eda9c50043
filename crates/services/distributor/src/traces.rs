//! The traces door: checks traces against the tenant's limits and fills batches.

use std::fmt;

use triptych_config::limits::TracesLimits;
use triptych_intake::sink::TracesSink;
use triptych_model::batch::TracesBuilder;
use triptych_model::traces::TraceId;
use triptych_model::{Result, TenantId};
use xxhash_rust::xxh64::xxh64;

use crate::distributor::{Inner, Shards};

pub(crate) struct TracesDoor<'l> {
    limits: &'l TracesLimits,
    pub shards: Shards<TracesBuilder>,
}

impl<'l> TracesDoor<'l> {
    pub fn new(inner: &Inner, tenant: &TenantId, limits: &'l TracesLimits) -> Self {
        Self { limits, shards: Shards::new(inner, tenant) }
    }
}

impl TracesSink for TracesDoor<'_> {
    fn span_bytes_max(&self) -> usize {
        match self.limits.span_bytes_max {
            0 => usize::MAX,
            max => max,
        }
    }

    fn spans(
        &mut self,
        trace_id: &TraceId,
        start_ns: i64,
        end_ns: i64,
        count: u32,
        otlp: &[u8],
    ) -> Result<()> {
        let max = self.limits.trace_bytes_max;
        if max != 0 && otlp.len() as u64 > max {
            self.shards.refuse(
                "trace_too_large",
                u64::from(count),
                format_args!(
                    "TRACE_TOO_LARGE: max size of trace ({max}) exceeded by {} bytes in one request for trace {}",
                    otlp.len(),
                    hex::encode(trace_id)
                ),
            );
            return Ok(());
        }
        let batch = self.shards.batch(xxh64(trace_id, 0), otlp.len() + 48)?;
        batch.trace(trace_id, start_ns, end_ns, count, otlp);
        Ok(())
    }

    fn refuse(&mut self, reason: &'static str, items: u64, why: fmt::Arguments<'_>) {
        self.shards.refuse(reason, items, why);
    }
}
