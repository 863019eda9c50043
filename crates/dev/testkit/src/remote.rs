//! The internal services, through the network.

use async_trait::async_trait;
use bytes::Bytes;
use triptych_model::logs::{
    DetectedField, EntrySelect, LogEntry, LogSamples, SampleSelect, StreamStats, StreamsSelect, Volume,
};
use triptych_model::metrics::{
    CardinalityStats, LabelsSelect, MetricMetadata, SeriesChunks, SeriesExemplars, SeriesSelect,
};
use triptych_model::push::PushReport;
use triptych_model::traces::{
    ScopeTags, SpanSampleSelect, TagsSelect, TraceId, TraceMatch, TraceParts, TraceSamples, TraceSearch,
    Value,
};
use triptych_model::{Labels, Result, Signal, Version};
use triptych_rpc::traits::Stream;
use triptych_rpc::{Ingest, LogsStore, MetricsStore, TracesStore, WriteContext, question};
use triptych_runtime::QueryContext;

use crate::network::Remote;

#[async_trait]
impl Ingest for Remote<dyn Ingest> {
    async fn push(&self, ctx: &WriteContext, signal: Signal, sealed: Bytes) -> Result<PushReport> {
        let push = || {
            let (ctx, sealed) = (ctx.clone(), sealed.clone());
            self.call(move |ingester| Box::pin(async move { ingester.push(&ctx, signal, sealed).await }))
        };
        if self.is_doubled() {
            // A retry below us: the first answer that comes counts.
            let (first, second) = tokio::join!(push(), push());
            return first.or(second);
        }
        push().await
    }
}

/// A part of an answer.
pub trait Answer: Send + Sized + 'static {
    /// With other keys: what was a copy of somebody else's is none any more. Where copies have no keys, nothing changes.
    fn with_keys_of(self, _source: u64) -> Self {
        self
    }
}

impl Answer for SeriesChunks {}
impl Answer for TraceMatch {}
impl Answer for TraceSamples {}

impl Answer for Vec<LogEntry> {
    fn with_keys_of(mut self, source: u64) -> Self {
        self.iter_mut().for_each(|entry| entry.key ^= source);
        self
    }
}

impl Answer for Vec<LogSamples> {
    fn with_keys_of(mut self, source: u64) -> Self {
        self.iter_mut().flat_map(|run| &mut run.samples).for_each(|sample| sample.key ^= source);
        self
    }
}

/// A store through the network: `method(by reference; by value) -> answer`, asked as a question with one answer, or opened as one with a
/// stream of them.
macro_rules! remote {
    ($store:ident { $($how:ident $name:ident($($arg:ident: &$type:ty),*; $($value:ident: $plain:ty),*) -> $answer:ty;)* }) => {
        #[async_trait]
        impl $store for Remote<dyn $store> {
            $(
                async fn $name(
                    &self,
                    ctx: &QueryContext,
                    $($arg: &$type,)*
                    $($value: $plain,)*
                ) -> Result<$answer> {
                    self.$how(ctx, question!(store.$name($(&$arg),* , $($value),*))).await
                }
            )*
        }
    };
}

remote! {
    MetricsStore {
        open select(select: &SeriesSelect;) -> Stream<SeriesChunks>;
        ask label_names(select: &LabelsSelect;) -> Vec<String>;
        ask label_values(name: &str, select: &LabelsSelect;) -> Vec<String>;
        ask series(select: &LabelsSelect;) -> Vec<Labels>;
        ask metadata(metric: &str; limit: usize) -> Vec<MetricMetadata>;
        ask exemplars(select: &LabelsSelect;) -> Vec<SeriesExemplars>;
        ask cardinality(; limit: usize) -> CardinalityStats;
        ask versions(ranges: &[(i64, i64)];) -> Vec<Version>;
    }
}

remote! {
    LogsStore {
        open entries(select: &EntrySelect;) -> Stream<Vec<LogEntry>>;
        open samples(select: &SampleSelect;) -> Stream<Vec<LogSamples>>;
        ask label_names(select: &StreamsSelect;) -> Vec<String>;
        ask label_values(name: &str, select: &StreamsSelect;) -> Vec<String>;
        ask series(select: &StreamsSelect;) -> Vec<Labels>;
        ask stats(select: &StreamsSelect;) -> StreamStats;
        ask volume(select: &StreamsSelect, labels: &[String];) -> Vec<Volume>;
        ask detected_fields(select: &EntrySelect;) -> Vec<DetectedField>;
        ask detected_field_values(name: &str, select: &EntrySelect;) -> Vec<String>;
        open tail(expr: &str; start_ns: i64) -> Stream<Vec<LogEntry>>;
        ask versions(ranges: &[(i64, i64)];) -> Vec<Version>;
    }
}

remote! {
    TracesStore {
        ask find(trace_id: &TraceId; start_ns: i64, end_ns: i64) -> TraceParts;
        open search(search: &TraceSearch;) -> Stream<TraceMatch>;
        open samples(select: &SpanSampleSelect;) -> Stream<TraceSamples>;
        ask tag_names(select: &TagsSelect;) -> Vec<ScopeTags>;
        ask tag_values(select: &TagsSelect;) -> Vec<Value>;
        ask versions(ranges: &[(i64, i64)];) -> Vec<Version>;
    }
}
