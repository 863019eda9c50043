//! Plugs traces in.

use async_trait::async_trait;
use futures::future::BoxFuture;
use triptych_blob::{Bucket, WarmReport};
use triptych_model::traces::{
    ScopeTags, SpanSampleSelect, TagsSelect, TraceId, TraceMatch, TraceParts, TraceSamples, TraceSearch,
    Value,
};
use triptych_model::{Result, Signal, Version};
use triptych_rpc::TracesStore;
use triptych_rpc::traits::Stream;
use triptych_runtime::QueryContext;
use triptych_traces::{BucketStore, BucketStoreConfig};

use crate::{BucketDoor, Config, Freshness, View};

pub struct Door {
    store: BucketStore,
    freshness: Freshness,
}

impl Door {
    pub fn new(config: &Config, bucket: Bucket) -> Self {
        let mut own = BucketStoreConfig::default();
        own.cache.bytes_max = config.cache_bytes_max;
        own.replaced_shown = config.replaced_shown;
        Self { store: BucketStore::new(bucket, own), freshness: Freshness::new(config) }
    }

    /// What is to be asked, where it is known.
    fn store(&self, ctx: &QueryContext) -> Result<BucketStore> {
        self.freshness.check()?;
        Ok(self.store.share(ctx.share()))
    }
}

impl BucketDoor for Door {
    const SIGNAL: Signal = Signal::Traces;

    fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { self.store.sync().await.map(drop) })
    }

    fn warm<'a>(&'a self, view: &'a View, place: usize) -> BoxFuture<'a, WarmReport> {
        Box::pin(self.store.warm(move |tenant, block| view.place(tenant, block) == Some(place)))
    }

    fn open(&self) -> u64 {
        self.store.open_blocks()
    }
}

#[async_trait]
impl TracesStore for Door {
    async fn find(
        &self,
        ctx: &QueryContext,
        trace_id: &TraceId,
        start_ns: i64,
        end_ns: i64,
    ) -> Result<TraceParts> {
        self.store(ctx)?.find(ctx, trace_id, start_ns, end_ns).await
    }
    async fn search(&self, ctx: &QueryContext, search: &TraceSearch) -> Result<Stream<TraceMatch>> {
        self.store(ctx)?.search(ctx, search).await
    }
    async fn samples(&self, ctx: &QueryContext, select: &SpanSampleSelect) -> Result<Stream<TraceSamples>> {
        self.store(ctx)?.samples(ctx, select).await
    }
    async fn tag_names(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<ScopeTags>> {
        self.store(ctx)?.tag_names(ctx, select).await
    }
    async fn tag_values(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<Value>> {
        self.store(ctx)?.tag_values(ctx, select).await
    }
    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let store = self.store(ctx)?;
        Ok(ranges.iter().map(|(start, end)| store.version(ctx, *start, *end)).collect())
    }
}
