//! The Store API, asked of a querier as they are.

use async_trait::async_trait;
use futures::stream::{StreamExt, TryStreamExt};
use triptych_model::logs::{
    DetectedField, EntrySelect, LogEntry, LogSamples, SampleSelect, StreamStats, StreamsSelect, Volume,
};
use triptych_model::metrics::{
    CardinalityStats, LabelsSelect, MetricMetadata, SeriesChunks, SeriesExemplars, SeriesSelect,
};
use triptych_model::traces::{
    ScopeTags, SpanSampleSelect, TagsSelect, TraceId, TraceMatch, TraceParts, TraceSamples, TraceSearch,
    Value,
};
use triptych_model::{Labels, Result, Version};
use triptych_rpc::traits::Stream;
use triptych_rpc::{LogsStore, MetricsStore, TracesStore, question};
use triptych_runtime::QueryContext;
use triptych_traceql::MatchMerge;
use triptych_traceql::search::TRACES_DEFAULT;
use triptych_traceql::split::windows;

use super::Front;

#[async_trait]
impl MetricsStore for Front {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        self.open(ctx, question!(backend.metrics.select(&select))).await
    }

    async fn label_names(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<String>> {
        self.ask(ctx, 1, question!(backend.metrics.label_names(&select))).await
    }

    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &LabelsSelect,
    ) -> Result<Vec<String>> {
        self.ask(ctx, 1, question!(backend.metrics.label_values(&name, &select))).await
    }

    async fn series(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<Labels>> {
        self.ask(ctx, 1, question!(backend.metrics.series(&select))).await
    }

    async fn metadata(&self, ctx: &QueryContext, metric: &str, limit: usize) -> Result<Vec<MetricMetadata>> {
        self.ask(ctx, 1, question!(backend.metrics.metadata(&metric, limit))).await
    }

    async fn exemplars(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<SeriesExemplars>> {
        self.ask(ctx, 1, question!(backend.metrics.exemplars(&select))).await
    }

    async fn cardinality(&self, ctx: &QueryContext, limit: usize) -> Result<CardinalityStats> {
        self.ask(ctx, 1, question!(backend.metrics.cardinality(limit))).await
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        self.ask_versions(ctx, question!(backend.metrics.versions(&ranges))).await
    }
}

#[async_trait]
impl LogsStore for Front {
    async fn entries(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Stream<Vec<LogEntry>>> {
        self.open(ctx, question!(backend.logs.entries(&select))).await
    }

    async fn samples(&self, ctx: &QueryContext, select: &SampleSelect) -> Result<Stream<Vec<LogSamples>>> {
        self.open(ctx, question!(backend.logs.samples(&select))).await
    }

    async fn label_names(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<String>> {
        self.ask(ctx, 1, question!(backend.logs.label_names(&select))).await
    }

    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &StreamsSelect,
    ) -> Result<Vec<String>> {
        self.ask(ctx, 1, question!(backend.logs.label_values(&name, &select))).await
    }

    async fn series(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<Labels>> {
        self.ask(ctx, 1, question!(backend.logs.series(&select))).await
    }

    async fn stats(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<StreamStats> {
        self.ask(ctx, 1, question!(backend.logs.stats(&select))).await
    }

    async fn volume(
        &self,
        ctx: &QueryContext,
        select: &StreamsSelect,
        labels: &[String],
    ) -> Result<Vec<Volume>> {
        self.ask(ctx, 1, question!(backend.logs.volume(&select, &labels))).await
    }

    async fn detected_fields(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Vec<DetectedField>> {
        self.ask(ctx, 1, question!(backend.logs.detected_fields(&select))).await
    }

    async fn detected_field_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &EntrySelect,
    ) -> Result<Vec<String>> {
        self.ask(ctx, 1, question!(backend.logs.detected_field_values(&name, &select))).await
    }

    async fn tail(&self, ctx: &QueryContext, expr: &str, start_ns: i64) -> Result<Stream<Vec<LogEntry>>> {
        self.inner.queriers.open(ctx, question!(backend.logs.tail(&expr, start_ns))).await
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        self.ask_versions(ctx, question!(backend.logs.versions(&ranges))).await
    }
}

#[async_trait]
impl TracesStore for Front {
    async fn find(
        &self,
        ctx: &QueryContext,
        trace_id: &TraceId,
        start_ns: i64,
        end_ns: i64,
    ) -> Result<TraceParts> {
        self.ask(ctx, 1, question!(backend.traces.find(&trace_id, start_ns, end_ns))).await
    }

    /// The newest window first, until there are as many as are wanted; each trace as soon as it is found.
    async fn search(&self, ctx: &QueryContext, search: &TraceSearch) -> Result<Stream<TraceMatch>> {
        let windows = windows(search, self.inner.settings.split_interval_ns());
        if windows.len() == 1 {
            return self.open(ctx, question!(backend.traces.search(&search))).await;
        }
        let wanted = if search.limit == 0 { TRACES_DEFAULT } else { search.limit };
        let mut merge = MatchMerge::new(search.spans_per_set);
        let (front, ctx) = (self.clone(), ctx.clone());
        let found = async_stream::try_stream! {
            for window in &windows {
                let mut matches = front.open(&ctx, question!(backend.traces.search(&window))).await?;
                while let Some(found) = matches.try_next().await? {
                    if let Some(known) = merge.add(found) {
                        yield known.clone();
                    }
                }
                if merge.begun_since(window.start_ns) >= wanted {
                    break;
                }
            }
        };
        Ok(found.boxed())
    }

    async fn samples(&self, ctx: &QueryContext, select: &SpanSampleSelect) -> Result<Stream<TraceSamples>> {
        self.open(ctx, question!(backend.traces.samples(&select))).await
    }

    async fn tag_names(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<ScopeTags>> {
        self.ask(ctx, 1, question!(backend.traces.tag_names(&select))).await
    }

    async fn tag_values(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<Value>> {
        self.ask(ctx, 1, question!(backend.traces.tag_values(&select))).await
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        self.ask_versions(ctx, question!(backend.traces.versions(&ranges))).await
    }
}
