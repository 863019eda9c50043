//! The write path for parts of the same process: their batches go through the same checks as everybody's.

use async_trait::async_trait;
use triptych_intake::sink::{LogsSink, MetricsSink};
use triptych_model::batch::{
    LogsBuilder, LogsReader, MetricsBuilder, MetricsReader, MetricsRecord, TracesBuilder, TracesReader,
};
use triptych_model::labels::take_bytes;
use triptych_model::metrics::Sample;
use triptych_model::push::PushReport;
use triptych_model::{Error, Kind, Result};
use triptych_rpc::{Write, WriteContext};
use triptych_runtime::Reservation;

use crate::distributor::{Batch, Distributor, Shards};
use crate::logs::LogsDoor;
use crate::metrics::MetricsDoor;
use crate::refusal::Refusal;
use crate::traces::TracesDoor;

impl Distributor {
    fn reserve(&self, ctx: &WriteContext, bytes: usize) -> Result<Reservation> {
        self.0.memory.tenant(&ctx.tenant).reserve(bytes)
    }

    async fn send_built<B: Batch>(
        &self,
        ctx: &WriteContext,
        shards: Shards<B>,
        mut memory: Reservation,
    ) -> Result<PushReport> {
        self.send(&ctx.tenant, shards, &mut memory).await.map_err(to_error)
    }
}

fn to_error(refusal: Refusal) -> Error {
    let kind = match refusal.status.as_u16() {
        429 => Kind::Exhausted,
        503 => Kind::Unavailable,
        400..500 => Kind::Invalid,
        _ => Kind::Internal,
    };
    let error = Error::new(kind, refusal.message);
    match refusal.retry_after {
        Some(after) => error.retry_after(after),
        None => error,
    }
}

/// The pairs of an encoded label set, checked.
fn pairs<'a>(mut encoded: &'a [u8], out: &mut Vec<(&'a str, &'a str)>) -> Result<()> {
    let damaged = || Error::damaged("batch: label set is torn or not sorted");
    out.clear();
    while !encoded.is_empty() {
        let mut text = || std::str::from_utf8(take_bytes(&mut encoded)?).ok();
        let (name, value) = text().zip(text()).ok_or_else(damaged)?;
        if value.is_empty() || out.last().is_some_and(|(previous, _)| *previous >= name) {
            return Err(damaged());
        }
        out.push((name, value));
    }
    Ok(())
}

#[async_trait]
impl Write for Distributor {
    async fn metrics(&self, ctx: &WriteContext, batch: MetricsBuilder) -> Result<PushReport> {
        let memory = self.reserve(ctx, batch.bytes())?;
        let shards = {
            let limits = self.limits(&ctx.tenant);
            let mut door = MetricsDoor::new(&self.0, &ctx.tenant, &limits.metrics);
            let (mut labels, mut exemplar) = (Vec::new(), Vec::new());
            let mut all: Vec<Sample> = Vec::new();
            for record in MetricsReader::new(batch.plain())? {
                match record? {
                    MetricsRecord::Series { labels: encoded, samples, .. } => {
                        pairs(encoded, &mut labels)?;
                        all.clear();
                        all.extend(samples.iter());
                        door.series(&labels, &all)?;
                    }
                    MetricsRecord::Metadata { metric, kind, help, unit } => {
                        door.metadata(metric, kind, help, unit)?;
                    }
                    MetricsRecord::Exemplar { labels: encoded, exemplar_labels, sample, .. } => {
                        pairs(encoded, &mut labels)?;
                        pairs(exemplar_labels, &mut exemplar)?;
                        door.exemplar(&labels, &exemplar, sample)?;
                    }
                }
            }
            door.shards
        };
        drop(batch);
        self.send_built(ctx, shards, memory).await
    }

    async fn logs(&self, ctx: &WriteContext, batch: LogsBuilder) -> Result<PushReport> {
        let memory = self.reserve(ctx, batch.bytes())?;
        let shards = {
            let limits = self.limits(&ctx.tenant);
            let mut door = LogsDoor::new(&self.0, &ctx.tenant, &limits.logs);
            let (mut labels, mut metadata) = (Vec::new(), Vec::new());
            for record in LogsReader::new(batch.plain())? {
                let record = record?;
                pairs(record.labels, &mut labels)?;
                door.stream(&labels)?;
                for entry in record.entries() {
                    pairs(entry.metadata, &mut metadata)?;
                    door.entry(entry.ts_ns, entry.line, &metadata)?;
                }
            }
            door.shards
        };
        drop(batch);
        self.send_built(ctx, shards, memory).await
    }

    async fn traces(&self, ctx: &WriteContext, batch: TracesBuilder) -> Result<PushReport> {
        let memory = self.reserve(ctx, batch.bytes())?;
        let shards = {
            let limits = self.limits(&ctx.tenant);
            let mut door = TracesDoor::new(&self.0, &ctx.tenant, &limits.traces);
            for record in TracesReader::new(batch.plain())? {
                // The decoder checks structure, ids and sizes, and groups by trace.
                triptych_intake::otlp::traces::decode(record?.otlp, &mut door)?;
            }
            door.shards
        };
        drop(batch);
        self.send_built(ctx, shards, memory).await
    }
}
