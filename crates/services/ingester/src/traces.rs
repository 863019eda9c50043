//! Plugs traces in.

use async_trait::async_trait;
use futures::future::BoxFuture;
use triptych_blob::Bucket;
use triptych_blob::object_store::path::Path;
use triptych_config::TenantLimits;
use triptych_model::batch::TracesReader;
use triptych_model::push::PushReport;
use triptych_model::traces::{
    ScopeTags, SpanSampleSelect, TagsSelect, TraceId, TraceMatch, TraceParts, TraceSamples, TraceSearch,
    Value,
};
use triptych_model::{Result, Signal, TenantId, Version};
use triptych_ring::Spread;
use triptych_rpc::TracesStore;
use triptych_rpc::traits::Stream;
use triptych_runtime::QueryContext;
use triptych_traceql::{merge_matches, merge_samples, merge_tags, merge_values};
use triptych_traces::{BucketStore, BucketStoreConfig, FlushOptions, Head, HeadConfig};

use crate::Deps;
use crate::generation::{Flushed, Generations, Kind};
use crate::spool::STORE_CACHE_BYTES;

pub(crate) struct Traces {
    limits: TenantLimits,
}

impl Traces {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self { limits: deps.limits.clone() }
    }
}

impl Kind for Traces {
    const SIGNAL: Signal = Signal::Traces;
    type Head = Head;
    type Store = BucketStore;

    fn new_head(&self, tenant: &TenantId, spread: Spread) -> Head {
        let all = self.limits.of(tenant);
        let limits = &all.traces;
        Head::new(HeadConfig {
            traces_max: spread.part_of(limits.live_traces_max, all.ingesters_max) as usize,
            trace_bytes_max: limits.trace_bytes_max as usize,
        })
    }

    fn append(&self, head: &Head, plain: &[u8], _replay: bool) -> Result<PushReport> {
        head.append(TracesReader::new(plain)?)
    }

    fn bytes(&self, head: &Head) -> usize {
        head.bytes()
    }

    fn items(&self, head: &Head) -> usize {
        head.trace_count()
    }

    fn flush(&self, head: Head, tenant: TenantId, bucket: Bucket) -> BoxFuture<'static, Result<Flushed>> {
        Box::pin(async move {
            let report = head.flush(&bucket, &tenant, &FlushOptions::default()).await?;
            if report.damaged_parts > 0 {
                // The distributor decodes what it takes: this cannot come from a client.
                let parts = report.damaged_parts;
                tracing::error!(%tenant, parts, "parts of traces are no OTLP, they are not in the block");
            }
            Ok(Flushed { objects: report.blocks.len() as u64, bytes: report.bytes })
        })
    }

    fn open_store(&self, bucket: Bucket) -> BoxFuture<'static, Result<BucketStore>> {
        let mut config = BucketStoreConfig { footer_bytes_max: STORE_CACHE_BYTES / 2, ..Default::default() };
        config.cache.bytes_max = STORE_CACHE_BYTES / 2;
        Box::pin(async move {
            let store = BucketStore::new(bucket, config);
            store.sync().await?;
            Ok(store)
        })
    }

    fn completes(path: &Path) -> bool {
        triptych_traces::completes(path)
    }
}

#[async_trait]
impl TracesStore for Generations<Traces> {
    /// Every generation's parts; whoever asked combines them with those of others.
    async fn find(
        &self,
        ctx: &QueryContext,
        trace_id: &TraceId,
        start_ns: i64,
        end_ns: i64,
    ) -> Result<TraceParts> {
        let mut parts = TraceParts::default();
        let (heads, stores) = self.parts(ctx)?;
        for head in heads {
            parts.otlp.extend(head.find(ctx, trace_id, start_ns, end_ns).await?.otlp);
        }
        for store in stores {
            parts.otlp.extend(store.find(ctx, trace_id, start_ns, end_ns).await?.otlp);
        }
        Ok(parts)
    }

    async fn search(&self, ctx: &QueryContext, search: &TraceSearch) -> Result<Stream<TraceMatch>> {
        let mut streams = Vec::new();
        let (heads, stores) = self.parts(ctx)?;
        for head in heads {
            streams.push(head.search(ctx, search).await?);
        }
        for store in stores {
            streams.push(store.search(ctx, search).await?);
        }
        merge_matches(search, streams)
    }

    async fn samples(&self, ctx: &QueryContext, select: &SpanSampleSelect) -> Result<Stream<TraceSamples>> {
        let mut streams = Vec::new();
        let (heads, stores) = self.parts(ctx)?;
        for head in heads {
            streams.push(head.samples(ctx, select).await?);
        }
        for store in stores {
            streams.push(store.samples(ctx, select).await?);
        }
        Ok(merge_samples(streams))
    }

    async fn tag_names(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<ScopeTags>> {
        let mut lists = Vec::new();
        let (heads, stores) = self.parts(ctx)?;
        for head in heads {
            lists.push(head.tag_names(ctx, select).await?);
        }
        for store in stores {
            lists.push(store.tag_names(ctx, select).await?);
        }
        Ok(merge_tags(lists, select.limit))
    }

    async fn tag_values(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<Value>> {
        let mut lists = Vec::new();
        let (heads, stores) = self.parts(ctx)?;
        for head in heads {
            lists.push(head.tag_values(ctx, select).await?);
        }
        for store in stores {
            lists.push(store.tag_values(ctx, select).await?);
        }
        Ok(merge_values(lists, select.limit))
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let (heads, stores) = self.parts(ctx)?;
        let version = |&(start, end): &(i64, i64)| {
            let heads = heads.iter().map(|head| head.version(start, end));
            heads.chain(stores.iter().map(|store| store.version(ctx, start, end))).sum()
        };
        Ok(ranges.iter().map(version).collect())
    }
}
