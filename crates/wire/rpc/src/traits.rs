//! The contracts. Everything takes its context first; streams end with the first error.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use triptych_model::batch::{LogsBuilder, MetricsBuilder, TracesBuilder};
use triptych_model::logs::{
    DetectedField, EntrySelect, LogEntry, LogSamples, LogsQuery, LogsValue, SampleSelect, StreamStats,
    StreamsSelect, Volume,
};
use triptych_model::metrics::{
    CardinalityStats, LabelsSelect, MetricMetadata, MetricsQuery, QueryValue, SeriesChunks, SeriesExemplars,
    SeriesSamples, SeriesSelect,
};
use triptych_model::push::PushReport;
use triptych_model::traces::{
    ScopeTags, SpanSampleSelect, TagsSelect, TraceId, TraceMatch, TraceParts, TraceSamples, TraceSearch,
    TracesMetricsQuery, Value,
};
use triptych_model::{Labels, Result, Signal, TenantId, Version};
use triptych_runtime::QueryContext;

/// A call of a service as a question that may be asked of several, and again: `question!(store.label_values(&name, &select))` is a closure
/// from a store and a context to the call's future. Each call has a clone of what is taken by reference, which comes first.
#[macro_export]
macro_rules! question {
    ($store:ident.$call:ident($($args:tt)*)) => {
        $crate::question!(@ $store, ($store), $call, $($args)*)
    };
    ($backend:ident.$store:ident.$call:ident($($args:tt)*)) => {
        $crate::question!(@ $backend, ($backend.$store), $call, $($args)*)
    };
    (@ $asked:ident, ($store:expr), $call:ident, $(&$lent:ident),* $(,)? $($given:ident),*) => {
        move |$asked, ctx| {
            $(let $lent = $lent.to_owned();)*
            Box::pin(async move { $store.$call(&ctx, $(&$lent,)* $($given),*).await })
        }
    };
}

pub type Stream<T> = BoxStream<'static, Result<T>>;

/// Who writes.
#[derive(Debug, Clone)]
pub struct WriteContext {
    pub tenant: TenantId,
}

/// Takes sealed batches. `Ok` means fsynced.
#[async_trait]
pub trait Ingest: Send + Sync + 'static {
    async fn push(&self, ctx: &WriteContext, signal: Signal, sealed: Bytes) -> Result<PushReport>;
}

/// The write path's own door for parts that live in the same process or send our own encoding: scraper, agent, ruler. Limits
/// are applied as for every other receiver. `Ok` means acknowledged.
#[async_trait]
pub trait Write: Send + Sync + 'static {
    async fn metrics(&self, ctx: &WriteContext, batch: MetricsBuilder) -> Result<PushReport>;
    async fn logs(&self, ctx: &WriteContext, batch: LogsBuilder) -> Result<PushReport>;
    async fn traces(&self, ctx: &WriteContext, batch: TracesBuilder) -> Result<PushReport>;
}

/// The metrics part of the Store API.
#[async_trait]
pub trait MetricsStore: Send + Sync + 'static {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>>;
    async fn label_names(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<String>>;
    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &LabelsSelect,
    ) -> Result<Vec<String>>;
    /// Sorted label sets of the series that match any of the sets.
    async fn series(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<Labels>>;
    /// `metric` empty: all metrics.
    async fn metadata(&self, ctx: &QueryContext, metric: &str, limit: usize) -> Result<Vec<MetricMetadata>>;
    async fn exemplars(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<SeriesExemplars>>;
    async fn cardinality(&self, ctx: &QueryContext, limit: usize) -> Result<CardinalityStats>;
    /// Of each range of time (milliseconds, both ends inclusive) what is there: equal versions mean that the same question has the
    /// same answer, where both versions were asked for before it ([`triptych_model::version`]). Reads no data.
    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>>;
}

/// The logs part of the Store API.
#[async_trait]
pub trait LogsStore: Send + Sync + 'static {
    async fn entries(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Stream<Vec<LogEntry>>>;
    async fn samples(&self, ctx: &QueryContext, select: &SampleSelect) -> Result<Stream<Vec<LogSamples>>>;
    async fn label_names(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<String>>;
    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &StreamsSelect,
    ) -> Result<Vec<String>>;
    async fn series(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<Labels>>;
    async fn stats(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<StreamStats>;
    /// Bytes per value set of `labels` (all labels of the selector where empty).
    async fn volume(
        &self,
        ctx: &QueryContext,
        select: &StreamsSelect,
        labels: &[String],
    ) -> Result<Vec<Volume>>;
    async fn detected_fields(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Vec<DetectedField>>;
    /// Values that a field has in the newest lines that pass.
    async fn detected_field_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &EntrySelect,
    ) -> Result<Vec<String>>;
    /// New entries as they arrive, until the context is cancelled. Only what is recent has any.
    async fn tail(&self, ctx: &QueryContext, expr: &str, start_ns: i64) -> Result<Stream<Vec<LogEntry>>>;
    /// As [`MetricsStore::versions`], in nanoseconds.
    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>>;
}

/// The traces part of the Store API.
#[async_trait]
pub trait TracesStore: Send + Sync + 'static {
    /// This source's part of a trace; no parts where it has none. Ends of the range 0: unbounded.
    async fn find(
        &self,
        ctx: &QueryContext,
        trace_id: &TraceId,
        start_ns: i64,
        end_ns: i64,
    ) -> Result<TraceParts>;
    /// A trace may come again, more complete: the last counts. So there may be more items than the limit, which each source
    /// keeps for itself.
    async fn search(&self, ctx: &QueryContext, search: &TraceSearch) -> Result<Stream<TraceMatch>>;
    async fn samples(&self, ctx: &QueryContext, select: &SpanSampleSelect) -> Result<Stream<TraceSamples>>;
    async fn tag_names(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<ScopeTags>>;
    async fn tag_values(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<Value>>;
    /// As [`MetricsStore::versions`], in nanoseconds.
    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>>;
}

/// The three languages, and what other evaluators read: series of all sources, sorted by labels, each sample once and none
/// outside of the range, staleness markers included.
#[async_trait]
pub trait Query: Send + Sync + 'static {
    async fn metrics(&self, ctx: &QueryContext, query: &MetricsQuery) -> Result<QueryValue>;
    async fn logs(&self, ctx: &QueryContext, query: &LogsQuery) -> Result<LogsValue>;
    async fn traces(&self, ctx: &QueryContext, query: &TracesMetricsQuery) -> Result<QueryValue>;
    async fn read_samples(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesSamples>>;
    /// Chunks of a series ascend and do not overlap. Those with native histograms may reach beyond the range.
    async fn read_chunks(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>>;
}
