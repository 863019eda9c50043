//! Plugs logs in.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::watch;
use triptych_blob::Bucket;
use triptych_blob::object_store::path::Path;
use triptych_config::TenantLimits;
use triptych_logs::{BucketStore, BucketStoreConfig, FlushOptions, Head, HeadConfig, merge};
use triptych_model::logs::{
    DetectedField, Direction, EntrySelect, LogEntry, LogSamples, SampleSelect, StreamStats, StreamsSelect,
    Volume,
};
use triptych_model::push::PushReport;
use triptych_model::{Labels, Result, Signal, TenantId, Version};
use triptych_ring::Spread;
use triptych_rpc::LogsStore;
use triptych_rpc::traits::Stream;
use triptych_runtime::{QueryContext, SharedClock};

use crate::Deps;
use crate::generation::{Flushed, Generations, Kind};
use crate::spool::STORE_CACHE_BYTES;

/// Most lines of older generations that a tail begins with.
const TAIL_HISTORY_LINES_MAX: usize = 5000;

pub(crate) struct Logs {
    limits: TenantLimits,
    clock: SharedClock,
    node: String,
}

impl Logs {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self { limits: deps.limits.clone(), clock: deps.clock.clone(), node: deps.node.clone() }
    }
}

impl Kind for Logs {
    const SIGNAL: Signal = Signal::Logs;
    type Head = Head;
    type Store = BucketStore;

    fn new_head(&self, tenant: &TenantId, spread: Spread) -> Head {
        let all = self.limits.of(tenant);
        let limits = &all.logs;
        Head::new(HeadConfig {
            streams_max: spread.part_of(limits.streams_max, all.ingesters_max) as usize,
            out_of_order_window_ns: limits.out_of_order_window.as_nanos().min(i64::MAX as u128) as i64,
            ..HeadConfig::default()
        })
    }

    fn append(&self, head: &Head, plain: &[u8], _replay: bool) -> Result<PushReport> {
        head.append(plain)
    }

    fn bytes(&self, head: &Head) -> usize {
        head.bytes()
    }

    fn items(&self, head: &Head) -> usize {
        head.stream_count()
    }

    fn flush(&self, head: Head, tenant: TenantId, bucket: Bucket) -> BoxFuture<'static, Result<Flushed>> {
        let options = FlushOptions::new(self.node.clone(), self.clock.now_ns());
        Box::pin(async move {
            let report = head.flush(&bucket, &tenant, &options).await?;
            let objects = report.chunks + report.index_files.len() as u64;
            Ok(Flushed { objects, bytes: report.chunk_bytes })
        })
    }

    fn open_store(&self, bucket: Bucket) -> BoxFuture<'static, Result<BucketStore>> {
        let half = STORE_CACHE_BYTES / 2;
        let config =
            BucketStoreConfig { index_cache_bytes: half, chunk_cache_bytes: half, ..Default::default() };
        Box::pin(async move {
            let store = BucketStore::new(bucket, config);
            store.sync().await?;
            Ok(store)
        })
    }

    fn completes(path: &Path) -> bool {
        triptych_logs::layout::completes(path)
    }
}

/// The Store API over the generations.
pub(crate) struct Door(pub(crate) Arc<Generations<Logs>>);

#[async_trait]
impl LogsStore for Door {
    async fn entries(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Stream<Vec<LogEntry>>> {
        let (heads, stores) = self.0.parts(ctx)?;
        entries(&heads, &stores, ctx, select).await
    }

    async fn samples(&self, ctx: &QueryContext, select: &SampleSelect) -> Result<Stream<Vec<LogSamples>>> {
        let mut streams = Vec::new();
        let (heads, stores) = self.0.parts(ctx)?;
        for head in heads {
            streams.push(head.samples(ctx, select).await?);
        }
        for store in stores {
            streams.push(store.samples(ctx, select).await?);
        }
        Ok(merge::merge_samples(streams))
    }

    async fn label_names(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<String>> {
        let mut lists = Vec::new();
        let (heads, stores) = self.0.parts(ctx)?;
        for head in heads {
            lists.push(head.label_names(ctx, select).await?);
        }
        for store in stores {
            lists.push(store.label_names(ctx, select).await?);
        }
        Ok(merge::merge_strings(lists, select.limit))
    }

    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &StreamsSelect,
    ) -> Result<Vec<String>> {
        let mut lists = Vec::new();
        let (heads, stores) = self.0.parts(ctx)?;
        for head in heads {
            lists.push(head.label_values(ctx, name, select).await?);
        }
        for store in stores {
            lists.push(store.label_values(ctx, name, select).await?);
        }
        Ok(merge::merge_strings(lists, select.limit))
    }

    async fn series(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<Labels>> {
        let mut lists = Vec::new();
        let (heads, stores) = self.0.parts(ctx)?;
        for head in heads {
            lists.push(head.series(ctx, select).await?);
        }
        for store in stores {
            lists.push(store.series(ctx, select).await?);
        }
        Ok(merge::merge_series(lists, select.limit))
    }

    async fn stats(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<StreamStats> {
        let mut all = Vec::new();
        let (heads, stores) = self.0.parts(ctx)?;
        for head in heads {
            all.push(head.stats(ctx, select).await?);
        }
        for store in stores {
            all.push(store.stats(ctx, select).await?);
        }
        Ok(merge::merge_stats(all))
    }

    async fn volume(
        &self,
        ctx: &QueryContext,
        select: &StreamsSelect,
        labels: &[String],
    ) -> Result<Vec<Volume>> {
        // Cut after adding up: what is small in each generation may be large in all.
        let uncut = StreamsSelect { limit: 0, ..select.clone() };
        let mut lists = Vec::new();
        let (heads, stores) = self.0.parts(ctx)?;
        for head in heads {
            lists.push(head.volume(ctx, &uncut, labels).await?);
        }
        for store in stores {
            lists.push(store.volume(ctx, &uncut, labels).await?);
        }
        Ok(merge::merge_volumes(lists, select.limit))
    }

    async fn detected_fields(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Vec<DetectedField>> {
        let mut lists = Vec::new();
        let (heads, stores) = self.0.parts(ctx)?;
        for head in heads {
            lists.push(head.detected_fields(ctx, select).await?);
        }
        for store in stores {
            lists.push(store.detected_fields(ctx, select).await?);
        }
        Ok(merge::merge_fields(lists))
    }

    async fn detected_field_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &EntrySelect,
    ) -> Result<Vec<String>> {
        let mut lists = Vec::new();
        for head in self.0.heads(ctx)? {
            lists.push(head.detected_field_values(ctx, name, select).await?);
        }
        Ok(merge::merge_strings(lists, 0))
    }

    /// What is here already, then what arrives, from one generation to the next.
    async fn tail(&self, ctx: &QueryContext, expr: &str, start_ns: i64) -> Result<Stream<Vec<LogEntry>>> {
        let ((older, stores), current, rotations) = self.0.follow(ctx)?;
        let select = EntrySelect {
            expr: expr.to_owned(),
            start_ns,
            end_ns: i64::MAX,
            direction: Direction::Backward,
            limit: TAIL_HISTORY_LINES_MAX,
        };
        let live = current.tail(ctx, expr, start_ns).await?;
        let mut history: Vec<LogEntry> = entries(&older, &stores, ctx, &select).await?.try_concat().await?;
        history.reverse();
        let follow = Follow {
            generations: self.0.clone(),
            ctx: ctx.clone(),
            expr: expr.to_owned(),
            start_ns,
            live,
            rotations,
            is_rotated: false,
        };
        let follow = stream::try_unfold(follow, |mut follow| async move {
            Ok(follow.next().await?.map(|batch| (batch, follow)))
        });
        let first = stream::iter((!history.is_empty()).then_some(Ok(history)));
        Ok(first.chain(follow).boxed())
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let (heads, stores) = self.0.parts(ctx)?;
        let version = |&(start, end): &(i64, i64)| {
            let heads = heads.iter().map(|head| head.version(start, end));
            heads.chain(stores.iter().map(|store| store.version(ctx, start, end))).sum()
        };
        Ok(ranges.iter().map(version).collect())
    }
}

async fn entries(
    heads: &[Head],
    stores: &[BucketStore],
    ctx: &QueryContext,
    select: &EntrySelect,
) -> Result<Stream<Vec<LogEntry>>> {
    let mut streams = Vec::new();
    for head in heads {
        streams.push(head.entries(ctx, select).await?);
    }
    for store in stores {
        streams.push(store.entries(ctx, select).await?);
    }
    Ok(merge::merge_entries(streams, select.direction, select.limit))
}

/// A tail that outlives its head.
struct Follow {
    generations: Arc<Generations<Logs>>,
    ctx: QueryContext,
    expr: String,
    start_ns: i64,
    live: Stream<Vec<LogEntry>>,
    rotations: watch::Receiver<u64>,
    is_rotated: bool,
}

impl Follow {
    async fn next(&mut self) -> Result<Option<Vec<LogEntry>>> {
        loop {
            if self.is_rotated {
                // Nothing is appended to that head any more: what it has sent is all there will be. Not to be cut short by the
                // scheduler's fairness, which would look like an empty channel.
                match tokio::task::unconstrained(self.live.next()).now_or_never().flatten() {
                    Some(batch) => return batch.map(Some),
                    None => {
                        // The new head's own history is what came to it since the rotation.
                        let (_, current, rotations) = self.generations.follow(&self.ctx)?;
                        self.live = current.tail(&self.ctx, &self.expr, self.start_ns).await?;
                        (self.rotations, self.is_rotated) = (rotations, false);
                    }
                }
            }
            tokio::select! {
                biased;
                batch = self.live.next() => match batch {
                    Some(batch) => return batch.map(Some),
                    None if self.ctx.check().is_err() => return Ok(None),
                    None => self.is_rotated = true,
                },
                _ = self.rotations.changed() => self.is_rotated = true,
            }
        }
    }
}
