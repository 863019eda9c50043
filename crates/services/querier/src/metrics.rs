//! Plugs metrics in: the merged Store API, and PromQL over it.

use async_trait::async_trait;
use futures::StreamExt;
use triptych_metrics::chunk::samples_in;
use triptych_metrics::merge::{
    Window, add_cardinality, merge, merge_cardinality, merge_chunks, merge_chunks_within, merge_exemplars,
    merge_metadata, merge_samples_within, merge_series, merge_strings,
};
use triptych_model::metrics::{
    CardinalityStats, LabelsSelect, MetricMetadata, MetricsQuery, QueryValue, SeriesChunks, SeriesExemplars,
    SeriesSamples, SeriesSelect,
};
use triptych_model::{Labels, Result, Version};
use triptych_promql::{Engine, SeriesSource, SeriesStream};
use triptych_rpc::traits::Stream;
use triptych_rpc::{MetricsStore, question};
use triptych_runtime::QueryContext;

use crate::Config;
use crate::fan::Fan;

#[derive(Clone)]
pub(crate) struct Door {
    fan: Fan<dyn MetricsStore>,
    engine: Engine,
}

impl Door {
    pub fn new(config: &Config, fan: Fan<dyn MetricsStore>) -> Self {
        Self { fan, engine: config.promql() }
    }

    /// See [`Fan::failures`].
    pub fn failures(&self) -> u64 {
        self.fan.failures()
    }

    pub async fn query(&self, ctx: &QueryContext, query: &MetricsQuery) -> Result<QueryValue> {
        let (door, context, query) = (self.clone(), ctx.clone(), query.clone());
        self.fan.run(ctx, async move { door.engine.query(&context, &Merged(&door), &query).await }).await
    }

    pub async fn read_samples(
        &self,
        ctx: &QueryContext,
        select: &SeriesSelect,
    ) -> Result<Stream<SeriesSamples>> {
        let series = merge_samples_within(self.open(ctx, select).await?, window(select));
        let counted = counted(ctx, series, |s| s.samples.len());
        Ok(self.fan.ahead(ctx, counted))
    }

    pub async fn read_chunks(
        &self,
        ctx: &QueryContext,
        select: &SeriesSelect,
    ) -> Result<Stream<SeriesChunks>> {
        let series = merge_chunks_within(self.open(ctx, select).await?, window(select));
        let samples = |s: &SeriesChunks| s.chunks.iter().map(|c| usize::from(samples_in(&c.data))).sum();
        Ok(self.fan.ahead(ctx, counted(ctx, series, samples)))
    }

    async fn open(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Vec<Stream<SeriesChunks>>> {
        self.fan.open(ctx, question!(store.select(&select))).await
    }
}

fn window(select: &SeriesSelect) -> Window {
    Window { start_ms: select.start_ms, end_ms: select.end_ms }
}

/// Counts rows on the query as they pass.
fn counted<T: Send + 'static>(
    ctx: &QueryContext,
    series: Stream<T>,
    rows: impl Fn(&T) -> usize + Send + 'static,
) -> Stream<T> {
    let ctx = ctx.clone();
    series
        .map(move |one| {
            let one = one?;
            ctx.add_rows(rows(&one) as u64)?;
            Ok(one)
        })
        .boxed()
}

/// What PromQL reads.
struct Merged<'a>(&'a Door);

#[async_trait]
impl SeriesSource for Merged<'_> {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<SeriesStream> {
        Ok(merge(self.0.open(ctx, select).await?))
    }
}

#[async_trait]
impl MetricsStore for Door {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        let streams = self.open(ctx, select).await?;
        Ok(self.fan.ahead(ctx, merge_chunks(streams)))
    }

    async fn label_names(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<String>> {
        let lists = self.fan.ask(ctx, question!(store.label_names(&select))).await?;
        Ok(merge_strings(lists, select.limit))
    }

    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &LabelsSelect,
    ) -> Result<Vec<String>> {
        let lists = self.fan.ask(ctx, question!(store.label_values(&name, &select))).await?;
        Ok(merge_strings(lists, select.limit))
    }

    async fn series(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<Labels>> {
        let lists = self.fan.ask(ctx, question!(store.series(&select))).await?;
        Ok(merge_series(lists, select.limit))
    }

    async fn metadata(&self, ctx: &QueryContext, metric: &str, limit: usize) -> Result<Vec<MetricMetadata>> {
        let lists = self.fan.ask(ctx, question!(store.metadata(&metric, limit))).await?;
        Ok(merge_metadata(lists, limit))
    }

    async fn exemplars(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<SeriesExemplars>> {
        let lists = self.fan.ask(ctx, question!(store.exemplars(&select))).await?;
        Ok(merge_exemplars(lists))
    }

    async fn cardinality(&self, ctx: &QueryContext, limit: usize) -> Result<CardinalityStats> {
        let answers = self.fan.figures(ctx, question!(store.cardinality(limit))).await?;
        let copies = answers.copies(self.fan.replication());
        let mut all = answers.store_gateways;
        if !answers.ingesters.is_empty() {
            all.push(add_cardinality(answers.ingesters, copies));
        }
        Ok(merge_cardinality(all, limit))
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let sources = self.fan.ask(ctx, question!(store.versions(&ranges))).await?;
        Version::of_all(sources, ranges.len())
    }
}
