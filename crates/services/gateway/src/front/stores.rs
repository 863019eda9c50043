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
use triptych_rpc::{LogsStore, MetricsStore, TracesStore};
use triptych_runtime::QueryContext;
use triptych_traceql::MatchMerge;
use triptych_traceql::search::TRACES_DEFAULT;
use triptych_traceql::split::windows;

use super::Front;

/// Asks `$store.$call(ctx, ..)`; arguments are cloned for every attempt.
macro_rules! pass_on {
    ($front:ident.$how:ident($ctx:expr $(, $shares:literal)?), $store:ident.$call:ident($($arg:ident),*)) => {
        $front
            .$how($ctx, $($shares,)? move |backend, ctx| {
                $(let $arg = $arg.to_owned();)*
                Box::pin(async move { backend.$store.$call(&ctx, $(&$arg),*).await })
            })
            .await
    };
}

#[async_trait]
impl MetricsStore for Front {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        pass_on!(self.open(ctx), metrics.select(select))
    }

    async fn label_names(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<String>> {
        pass_on!(self.ask(ctx, 1), metrics.label_names(select))
    }

    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &LabelsSelect,
    ) -> Result<Vec<String>> {
        pass_on!(self.ask(ctx, 1), metrics.label_values(name, select))
    }

    async fn series(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<Labels>> {
        pass_on!(self.ask(ctx, 1), metrics.series(select))
    }

    async fn metadata(&self, ctx: &QueryContext, metric: &str, limit: usize) -> Result<Vec<MetricMetadata>> {
        self.ask(ctx, 1, move |backend, ctx| {
            let metric = metric.to_owned();
            Box::pin(async move { backend.metrics.metadata(&ctx, &metric, limit).await })
        })
        .await
    }

    async fn exemplars(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<SeriesExemplars>> {
        pass_on!(self.ask(ctx, 1), metrics.exemplars(select))
    }

    async fn cardinality(&self, ctx: &QueryContext, limit: usize) -> Result<CardinalityStats> {
        self.ask(ctx, 1, move |backend, ctx| {
            Box::pin(async move { backend.metrics.cardinality(&ctx, limit).await })
        })
        .await
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        pass_on!(self.ask(ctx, 1), metrics.versions(ranges))
    }
}

#[async_trait]
impl LogsStore for Front {
    async fn entries(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Stream<Vec<LogEntry>>> {
        pass_on!(self.open(ctx), logs.entries(select))
    }

    async fn samples(&self, ctx: &QueryContext, select: &SampleSelect) -> Result<Stream<Vec<LogSamples>>> {
        pass_on!(self.open(ctx), logs.samples(select))
    }

    async fn label_names(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<String>> {
        pass_on!(self.ask(ctx, 1), logs.label_names(select))
    }

    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &StreamsSelect,
    ) -> Result<Vec<String>> {
        pass_on!(self.ask(ctx, 1), logs.label_values(name, select))
    }

    async fn series(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<Labels>> {
        pass_on!(self.ask(ctx, 1), logs.series(select))
    }

    async fn stats(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<StreamStats> {
        pass_on!(self.ask(ctx, 1), logs.stats(select))
    }

    async fn volume(
        &self,
        ctx: &QueryContext,
        select: &StreamsSelect,
        labels: &[String],
    ) -> Result<Vec<Volume>> {
        pass_on!(self.ask(ctx, 1), logs.volume(select, labels))
    }

    async fn detected_fields(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Vec<DetectedField>> {
        pass_on!(self.ask(ctx, 1), logs.detected_fields(select))
    }

    async fn detected_field_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &EntrySelect,
    ) -> Result<Vec<String>> {
        pass_on!(self.ask(ctx, 1), logs.detected_field_values(name, select))
    }

    async fn tail(&self, ctx: &QueryContext, expr: &str, start_ns: i64) -> Result<Stream<Vec<LogEntry>>> {
        let expr = expr.to_owned();
        self.inner
            .queriers
            .open(ctx, move |backend, ctx| {
                let expr = expr.clone();
                Box::pin(async move { backend.logs.tail(&ctx, &expr, start_ns).await })
            })
            .await
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        pass_on!(self.ask(ctx, 1), logs.versions(ranges))
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
        let id = *trace_id;
        self.ask(ctx, 1, move |backend, ctx| {
            Box::pin(async move { backend.traces.find(&ctx, &id, start_ns, end_ns).await })
        })
        .await
    }

    /// The newest window first, until there are as many as are wanted; each trace as soon as it is found.
    async fn search(&self, ctx: &QueryContext, search: &TraceSearch) -> Result<Stream<TraceMatch>> {
        let windows = windows(search, self.inner.settings.split_interval_ns());
        if windows.len() == 1 {
            return pass_on!(self.open(ctx), traces.search(search));
        }
        let wanted = if search.limit == 0 { TRACES_DEFAULT } else { search.limit };
        let mut merge = MatchMerge::new(search.spans_per_set);
        let (front, ctx) = (self.clone(), ctx.clone());
        let found = async_stream::try_stream! {
            for window in &windows {
                let mut matches = pass_on!(front.open(&ctx), traces.search(window))?;
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
        pass_on!(self.open(ctx), traces.samples(select))
    }

    async fn tag_names(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<ScopeTags>> {
        pass_on!(self.ask(ctx, 1), traces.tag_names(select))
    }

    async fn tag_values(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<Value>> {
        pass_on!(self.ask(ctx, 1), traces.tag_values(select))
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        pass_on!(self.ask(ctx, 1), traces.versions(ranges))
    }
}
