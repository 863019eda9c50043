//! Heads and buckets as PromQL's source of series, for whoever has only one of them.

use async_trait::async_trait;
use triptych_model::Result;
use triptych_model::metrics::SeriesSelect;
use triptych_promql::{SeriesSource, SeriesStream};
use triptych_runtime::QueryContext;

use crate::{BucketStore, Head, merge};

#[async_trait]
impl SeriesSource for Head {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<SeriesStream> {
        Ok(merge(vec![Head::select(self, ctx, select)?]))
    }
}

#[async_trait]
impl SeriesSource for BucketStore {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<SeriesStream> {
        Ok(merge(vec![BucketStore::select(self, ctx, select).await?]))
    }
}
