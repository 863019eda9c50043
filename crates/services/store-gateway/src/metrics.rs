//! Plugs metrics in.

use async_trait::async_trait;
use futures::future::BoxFuture;
use triptych_blob::{Bucket, WarmReport};
use triptych_metrics::{BucketStore, BucketStoreConfig};
use triptych_model::metrics::{
    CardinalityStats, LabelsSelect, MetricMetadata, SeriesChunks, SeriesExemplars, SeriesSelect,
};
use triptych_model::{Labels, Result, Signal, Version};
use triptych_rpc::MetricsStore;
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
        let own = BucketStoreConfig {
            header_cache_bytes_max: half,
            page_cache_bytes_max: half,
            replaced_shown: config.replaced_shown,
        };
        Self { store: BucketStore::new(bucket, own), freshness: Freshness::new(config) }
    }

    /// What is to be asked, where it is known.
    fn store(&self, ctx: &QueryContext) -> Result<BucketStore> {
        self.freshness.check()?;
        Ok(self.store.share(ctx.share()))
    }
}

impl BucketDoor for Door {
    const SIGNAL: Signal = Signal::Metrics;

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
impl MetricsStore for Door {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        self.store(ctx)?.select(ctx, select).await
    }
    async fn label_names(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<String>> {
        self.store(ctx)?.label_names(ctx, select).await
    }
    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &LabelsSelect,
    ) -> Result<Vec<String>> {
        self.store(ctx)?.label_values(ctx, name, select).await
    }
    async fn series(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<Labels>> {
        self.store(ctx)?.series(ctx, select).await
    }
    async fn metadata(&self, ctx: &QueryContext, metric: &str, limit: usize) -> Result<Vec<MetricMetadata>> {
        self.store(ctx)?.metadata(ctx, metric, limit).await
    }
    async fn exemplars(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<SeriesExemplars>> {
        self.store(ctx)?.exemplars(ctx, select).await
    }
    async fn cardinality(&self, ctx: &QueryContext, limit: usize) -> Result<CardinalityStats> {
        self.store(ctx)?.cardinality(ctx, limit).await
    }
    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let store = self.store(ctx)?;
        Ok(ranges.iter().map(|(start, end)| store.version(ctx, *start, *end)).collect())
    }
}
