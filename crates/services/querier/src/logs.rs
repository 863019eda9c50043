//! Plugs logs in: the merged Store API, and LogQL over it.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use hashbrown::HashSet;
use triptych_logql::StreamSource;
use triptych_logql::engine::Engine;
use triptych_logs::merge::{merge_entries, merge_samples};
use triptych_model::logs::{
    DetectedField, EntrySelect, LogEntry, LogSamples, LogsQuery, LogsValue, SampleSelect, StreamStats,
    StreamsSelect, Volume,
};
use triptych_model::{Labels, Result, Version};
use triptych_rpc::traits::Stream;
use triptych_rpc::{LogsStore, question};
use triptych_runtime::QueryContext;

use crate::Config;
use crate::fan::Fan;

/// Entries of a tail that are remembered, so that replicas' copies are shown once.
const TAIL_REMEMBERED: usize = 10_000;

#[derive(Clone)]
pub(crate) struct Door {
    fan: Fan<dyn LogsStore>,
    engine: Engine,
}

impl Door {
    pub fn new(config: &Config, fan: Fan<dyn LogsStore>) -> Self {
        Self { fan, engine: config.logql() }
    }

    /// See [`Fan::failures`].
    pub fn failures(&self) -> u64 {
        self.fan.failures()
    }

    pub async fn query(&self, ctx: &QueryContext, query: &LogsQuery) -> Result<LogsValue> {
        let (door, context, query) = (self.clone(), ctx.clone(), query.clone());
        self.fan.run(ctx, async move { door.engine.query(&context, &Merged(&door), &query).await }).await
    }

    async fn merged_entries(
        &self,
        ctx: &QueryContext,
        select: &EntrySelect,
    ) -> Result<Stream<Vec<LogEntry>>> {
        let streams = self.fan.open(ctx, question!(store.entries(&select))).await?;
        Ok(merge_entries(streams, select.direction, select.limit))
    }

    async fn merged_samples(
        &self,
        ctx: &QueryContext,
        select: &SampleSelect,
    ) -> Result<Stream<Vec<LogSamples>>> {
        let streams = self.fan.open(ctx, question!(store.samples(&select))).await?;
        Ok(merge_samples(streams))
    }
}

/// What LogQL reads.
struct Merged<'a>(&'a Door);

#[async_trait]
impl StreamSource for Merged<'_> {
    async fn entries(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Stream<Vec<LogEntry>>> {
        self.0.merged_entries(ctx, select).await
    }

    async fn samples(&self, ctx: &QueryContext, select: &SampleSelect) -> Result<Stream<Vec<LogSamples>>> {
        self.0.merged_samples(ctx, select).await
    }
}

#[async_trait]
impl LogsStore for Door {
    async fn entries(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Stream<Vec<LogEntry>>> {
        Ok(self.fan.ahead(ctx, self.merged_entries(ctx, select).await?))
    }

    async fn samples(&self, ctx: &QueryContext, select: &SampleSelect) -> Result<Stream<Vec<LogSamples>>> {
        Ok(self.fan.ahead(ctx, self.merged_samples(ctx, select).await?))
    }

    async fn label_names(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<String>> {
        let lists = self.fan.ask(ctx, question!(store.label_names(&select))).await?;
        Ok(each_once(lists, select.limit))
    }

    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &StreamsSelect,
    ) -> Result<Vec<String>> {
        let lists = self.fan.ask(ctx, question!(store.label_values(&name, &select))).await?;
        Ok(each_once(lists, select.limit))
    }

    async fn series(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<Labels>> {
        let lists = self.fan.ask(ctx, question!(store.series(&select))).await?;
        Ok(each_once(lists, select.limit))
    }

    async fn stats(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<StreamStats> {
        let answers = self.fan.figures(ctx, question!(store.stats(&select))).await?;
        let copies = answers.copies(self.fan.replication());
        let add = |sum: StreamStats, s: StreamStats| StreamStats {
            streams: sum.streams + s.streams,
            chunks: sum.chunks + s.chunks,
            entries: sum.entries + s.entries,
            bytes: sum.bytes + s.bytes,
        };
        let recent = answers.ingesters.into_iter().fold(StreamStats::default(), add);
        let older = answers.store_gateways.into_iter().fold(StreamStats::default(), add);
        // The same streams are in heads and in the bucket; their entries mostly are in one of them.
        Ok(StreamStats {
            streams: (recent.streams / copies).max(older.streams),
            chunks: recent.chunks / copies + older.chunks,
            entries: recent.entries / copies + older.entries,
            bytes: recent.bytes / copies + older.bytes,
        })
    }

    async fn volume(
        &self,
        ctx: &QueryContext,
        select: &StreamsSelect,
        labels: &[String],
    ) -> Result<Vec<Volume>> {
        // Cut after adding up: what is small at each source may be large at all.
        let uncut = &StreamsSelect { limit: 0, ..select.clone() };
        let answers = self.fan.figures(ctx, question!(store.volume(&uncut, &labels))).await?;
        let mut bytes: BTreeMap<Labels, u64> = BTreeMap::new();
        let copies = answers.copies(self.fan.replication());
        for volume in answers.ingesters.into_iter().flatten() {
            *bytes.entry(volume.labels).or_default() += volume.bytes;
        }
        bytes.values_mut().for_each(|bytes| *bytes /= copies);
        for volume in answers.store_gateways.into_iter().flatten() {
            *bytes.entry(volume.labels).or_default() += volume.bytes;
        }
        let mut all: Vec<Volume> =
            bytes.into_iter().map(|(labels, bytes)| Volume { labels, bytes }).collect();
        // Stable: equal volumes stay in the order of their labels.
        all.sort_by_key(|v| std::cmp::Reverse(v.bytes));
        cut(&mut all, select.limit);
        Ok(all)
    }

    async fn detected_fields(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Vec<DetectedField>> {
        let lists = self.fan.ask(ctx, question!(store.detected_fields(&select))).await?;
        let mut fields: BTreeMap<String, DetectedField> = BTreeMap::new();
        for field in lists.into_iter().flatten() {
            match fields.get_mut(&field.label) {
                None => {
                    fields.insert(field.label.clone(), field);
                }
                Some(known) => {
                    known.cardinality = known.cardinality.max(field.cardinality);
                    if known.kind != field.kind {
                        known.kind = "string".to_owned();
                    }
                    for parser in field.parsers {
                        if !known.parsers.contains(&parser) {
                            known.parsers.push(parser);
                        }
                    }
                }
            }
        }
        Ok(fields.into_values().collect())
    }

    async fn detected_field_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &EntrySelect,
    ) -> Result<Vec<String>> {
        let lists = self.fan.ask(ctx, question!(store.detected_field_values(&name, &select))).await?;
        Ok(each_once(lists, 0))
    }

    /// As entries arrive, from whichever source; a copy is shown once while it is among the last ones remembered.
    async fn tail(&self, ctx: &QueryContext, expr: &str, start_ns: i64) -> Result<Stream<Vec<LogEntry>>> {
        let streams = self.fan.open(ctx, question!(store.tail(&expr, start_ns))).await?;
        let mut seen: HashSet<(i64, u64)> = HashSet::new();
        let mut order: VecDeque<(i64, u64)> = VecDeque::new();
        let arriving = stream::select_all(streams).filter_map(move |batch| {
            let batch = batch.map(|mut entries| {
                entries.retain(|entry| {
                    let new = seen.insert((entry.ts_ns, entry.key));
                    if new {
                        order.push_back((entry.ts_ns, entry.key));
                    }
                    new
                });
                while order.len() > TAIL_REMEMBERED {
                    if let Some(gone) = order.pop_front() {
                        seen.remove(&gone);
                    }
                }
                entries
            });
            let empty = batch.as_ref().is_ok_and(Vec::is_empty);
            std::future::ready((!empty).then_some(batch))
        });
        Ok(arriving.boxed())
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let sources = self.fan.ask(ctx, question!(store.versions(&ranges))).await?;
        Version::of_all(sources, ranges.len())
    }
}

fn cut<T>(all: &mut Vec<T>, limit: usize) {
    if limit != 0 {
        all.truncate(limit);
    }
}

/// Sorted, each once.
fn each_once<T: Ord>(lists: Vec<Vec<T>>, limit: usize) -> Vec<T> {
    let mut all: Vec<T> = lists.into_iter().flatten().collect();
    all.sort();
    all.dedup();
    cut(&mut all, limit);
    all
}
