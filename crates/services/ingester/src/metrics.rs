//! Plugs metrics in.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::future::BoxFuture;
use triptych_blob::Bucket;
use triptych_blob::object_store::path::Path;
use triptych_config::TenantLimits;
use triptych_metrics::head::FlushOptions;
use triptych_metrics::{BucketStore, BucketStoreConfig, Head, HeadConfig, merge};
use triptych_model::metrics::{
    CardinalityStats, LabelsSelect, MetricMetadata, SeriesChunks, SeriesExemplars, SeriesSelect,
};
use triptych_model::push::PushReport;
use triptych_model::{Labels, Result, Signal, TenantId, Version};
use triptych_ring::Spread;
use triptych_rpc::MetricsStore;
use triptych_rpc::traits::Stream;
use triptych_runtime::{QueryContext, SharedClock};

use crate::Deps;
use crate::generation::{Flushed, Generations, Kind};
use crate::spool::STORE_CACHE_BYTES;

pub(crate) struct Metrics {
    limits: TenantLimits,
    clock: SharedClock,
    node: String,
}

impl Metrics {
    pub(crate) fn new(deps: &Deps) -> Self {
        Self { limits: deps.limits.clone(), clock: deps.clock.clone(), node: deps.node.clone() }
    }

    fn series_max(&self, tenant: &TenantId, spread: Spread) -> usize {
        let limits = self.limits.of(tenant);
        spread.part_of(limits.metrics.series_max, limits.ingesters_max) as usize
    }
}

impl Kind for Metrics {
    const SIGNAL: Signal = Signal::Metrics;
    type Head = Head;
    type Store = BucketStore;

    fn new_head(&self, tenant: &TenantId, spread: Spread) -> Head {
        let window = self.limits.of(tenant).metrics.out_of_order_window;
        Head::new(HeadConfig {
            series_max: self.series_max(tenant, spread),
            out_of_order_window_ms: window.as_millis() as i64,
            ..HeadConfig::default()
        })
    }

    fn append(&self, head: &Head, plain: &[u8], replay: bool) -> Result<PushReport> {
        if replay { head.replay(plain) } else { head.append(plain) }
    }

    fn bytes(&self, head: &Head) -> usize {
        head.bytes()
    }

    fn items(&self, head: &Head) -> usize {
        head.series_count()
    }

    fn refresh(&self, head: &Head, tenant: &TenantId, spread: Spread) {
        head.set_series_max(self.series_max(tenant, spread));
    }

    fn flush(&self, head: Head, tenant: TenantId, bucket: Bucket) -> BoxFuture<'static, Result<Flushed>> {
        // Thanos and Mimir tell replicas' blocks apart by their external labels.
        let options = FlushOptions {
            labels: BTreeMap::from([("replica".to_owned(), self.node.clone())]),
            source: "ingester".to_owned(),
            now_ms: self.clock.now_ms(),
        };
        Box::pin(async move {
            let report = head.flush(&bucket, &tenant, &options).await?;
            let objects = report.blocks.iter().map(|b| b.thanos.files.len() as u64).sum();
            Ok(Flushed { objects, bytes: report.bytes })
        })
    }

    fn open_store(&self, bucket: Bucket) -> BoxFuture<'static, Result<BucketStore>> {
        let half = STORE_CACHE_BYTES / 2;
        let config = BucketStoreConfig {
            header_cache_bytes_max: half,
            page_cache_bytes_max: half,
            ..Default::default()
        };
        Box::pin(async move {
            let store = BucketStore::new(bucket, config);
            store.sync().await?;
            Ok(store)
        })
    }

    fn completes(path: &Path) -> bool {
        triptych_metrics::completes(path)
    }
}

#[async_trait]
impl MetricsStore for Generations<Metrics> {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        let (heads, stores) = self.parts(ctx)?;
        let mut sources = heads.iter().map(|h| h.select(ctx, select)).collect::<Result<Vec<_>>>()?;
        for store in stores {
            sources.push(store.select(ctx, select).await?);
        }
        Ok(merge::merge_chunks(sources))
    }

    async fn label_names(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<String>> {
        let (heads, stores) = self.parts(ctx)?;
        let mut lists = heads.iter().map(|h| h.label_names(ctx, select)).collect::<Result<Vec<_>>>()?;
        for store in stores {
            lists.push(store.label_names(ctx, select).await?);
        }
        Ok(merge::merge_strings(lists, select.limit))
    }

    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &LabelsSelect,
    ) -> Result<Vec<String>> {
        let (heads, stores) = self.parts(ctx)?;
        let mut lists =
            heads.iter().map(|h| h.label_values(ctx, name, select)).collect::<Result<Vec<_>>>()?;
        for store in stores {
            lists.push(store.label_values(ctx, name, select).await?);
        }
        Ok(merge::merge_strings(lists, select.limit))
    }

    async fn series(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<Labels>> {
        let (heads, stores) = self.parts(ctx)?;
        let mut lists = heads.iter().map(|h| h.series(ctx, select)).collect::<Result<Vec<_>>>()?;
        for store in stores {
            lists.push(store.series(ctx, select).await?);
        }
        Ok(merge::merge_series(lists, select.limit))
    }

    async fn metadata(&self, ctx: &QueryContext, metric: &str, limit: usize) -> Result<Vec<MetricMetadata>> {
        // The newest wins: it comes first.
        let (heads, stores) = self.parts(ctx)?;
        let mut lists =
            heads.iter().rev().map(|h| h.metadata(ctx, metric, limit)).collect::<Result<Vec<_>>>()?;
        for store in stores.iter().rev() {
            lists.push(store.metadata(ctx, metric, limit).await?);
        }
        Ok(merge::merge_metadata(lists, limit))
    }

    async fn exemplars(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<SeriesExemplars>> {
        let (heads, stores) = self.parts(ctx)?;
        let mut lists = heads.iter().map(|h| h.exemplars(ctx, select)).collect::<Result<Vec<_>>>()?;
        for store in stores {
            lists.push(store.exemplars(ctx, select).await?);
        }
        Ok(merge::merge_exemplars(lists))
    }

    async fn cardinality(&self, ctx: &QueryContext, limit: usize) -> Result<CardinalityStats> {
        let (heads, stores) = self.parts(ctx)?;
        let mut all = heads.iter().map(|h| h.cardinality(ctx, limit)).collect::<Result<Vec<_>>>()?;
        for store in stores {
            all.push(store.cardinality(ctx, limit).await?);
        }
        Ok(merge::merge_cardinality(all, limit))
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
