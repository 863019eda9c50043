//! Plugs logs in.

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use triptych_blob::{Bucket, WarmReport};
use triptych_logs::{BucketStore, BucketStoreConfig};
use triptych_model::logs::{
    DetectedField, EntrySelect, LogEntry, LogSamples, SampleSelect, StreamStats, StreamsSelect, Volume,
};
use triptych_model::{Labels, Result, Signal, Version};
use triptych_rpc::LogsStore;
use triptych_rpc::traits::Stream;
use triptych_runtime::QueryContext;

use crate::{BucketDoor, Config, Freshness, View};

pub struct Door {
    store: BucketStore,
    freshness: Freshness,
}

impl Door {
    pub fn new(config: &Config, bucket: Bucket) -> Self {
        let half = config.cache_bytes_max / 2;
        let own =
            BucketStoreConfig { index_cache_bytes: half, chunk_cache_bytes: half, ..Default::default() };
        Self { store: BucketStore::new(bucket, own), freshness: Freshness::new(config) }
    }

    /// What is to be asked, where it is known.
    fn store(&self, ctx: &QueryContext) -> Result<BucketStore> {
        self.freshness.check()?;
        Ok(self.store.share(ctx.share()))
    }
}

impl BucketDoor for Door {
    const SIGNAL: Signal = Signal::Logs;

    fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { self.store.sync().await.map(drop) })
    }

    /// Whoever is asked for a tenant's streams reads all of its index files.
    fn warm<'a>(&'a self, view: &'a View, place: usize) -> BoxFuture<'a, WarmReport> {
        Box::pin(self.store.warm(move |tenant| place == 0 && view.is_asked(tenant)))
    }

    fn open(&self) -> u64 {
        self.store.open_files()
    }
}

#[async_trait]
impl LogsStore for Door {
    async fn entries(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Stream<Vec<LogEntry>>> {
        self.store(ctx)?.entries(ctx, select).await
    }
    async fn samples(&self, ctx: &QueryContext, select: &SampleSelect) -> Result<Stream<Vec<LogSamples>>> {
        self.store(ctx)?.samples(ctx, select).await
    }
    async fn label_names(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<String>> {
        self.store(ctx)?.label_names(ctx, select).await
    }
    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &StreamsSelect,
    ) -> Result<Vec<String>> {
        self.store(ctx)?.label_values(ctx, name, select).await
    }
    async fn series(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<Labels>> {
        self.store(ctx)?.series(ctx, select).await
    }
    async fn stats(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<StreamStats> {
        self.store(ctx)?.stats(ctx, select).await
    }
    async fn volume(
        &self,
        ctx: &QueryContext,
        select: &StreamsSelect,
        labels: &[String],
    ) -> Result<Vec<Volume>> {
        self.store(ctx)?.volume(ctx, select, labels).await
    }
    async fn detected_fields(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Vec<DetectedField>> {
        self.store(ctx)?.detected_fields(ctx, select).await
    }
    async fn detected_field_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &EntrySelect,
    ) -> Result<Vec<String>> {
        self.store(ctx)?.detected_field_values(ctx, name, select).await
    }
    /// What is in the bucket does not grow at its end: nothing to follow.
    async fn tail(&self, _: &QueryContext, _: &str, _: i64) -> Result<Stream<Vec<LogEntry>>> {
        Ok(futures::stream::empty().boxed())
    }
    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let store = self.store(ctx)?;
        Ok(ranges.iter().map(|(start, end)| store.version(ctx, *start, *end)).collect())
    }
}
