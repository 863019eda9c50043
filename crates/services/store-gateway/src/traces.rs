//! Plugs traces in.

use async_trait::async_trait;
use futures::future::BoxFuture;
use triptych_blob::Bucket;
use triptych_model::traces::{
    ScopeTags, SpanSampleSelect, TagsSelect, TraceId, TraceMatch, TraceParts, TraceSamples, TraceSearch,
    Value,
};
use triptych_model::{Result, Signal, Version};
use triptych_rpc::TracesStore;
use triptych_rpc::traits::Stream;
use triptych_runtime::QueryContext;
use triptych_traces::{BucketStore, BucketStoreConfig};

use crate::{BucketDoor, Config, Freshness};

pub struct Door {
    store: BucketStore,
    freshness: Freshness,
}

impl Door {
    pub fn new(config: &Config, bucket: Bucket) -> Self {
        let mut own = BucketStoreConfig::default();
        own.cache.bytes_max = config.cache_bytes_max;
        Self { store: BucketStore::new(bucket, own), freshness: Freshness::new(config) }
    }

    fn store(&self) -> Result<&BucketStore> {
        self.freshness.check()?;
        Ok(&self.store)
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
        self.store()?.find(ctx, trace_id, start_ns, end_ns).await
    }
    async fn search(&self, ctx: &QueryContext, search: &TraceSearch) -> Result<Stream<TraceMatch>> {
        self.store()?.search(ctx, search).await
    }
    async fn samples(&self, ctx: &QueryContext, select: &SpanSampleSelect) -> Result<Stream<TraceSamples>> {
        self.store()?.samples(ctx, select).await
    }
    async fn tag_names(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<ScopeTags>> {
        self.store()?.tag_names(ctx, select).await
    }
    async fn tag_values(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<Value>> {
        self.store()?.tag_values(ctx, select).await
    }
    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let store = self.store()?;
        Ok(ranges.iter().map(|(start, end)| store.version(ctx, *start, *end)).collect())
    }
}
