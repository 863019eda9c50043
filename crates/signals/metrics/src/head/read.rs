//! The Store API's reads over a head.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::{
    CardinalityStats, LabelsSelect, MetricMetadata, SeriesChunks, SeriesExemplars, SeriesSelect,
};
use triptych_model::{Labels, Matcher, Result};
use triptych_runtime::QueryContext;

use super::index::{self, Location};
use super::{Head, SHARD_BITS, SHARDS, Series};
use crate::chunk;
use crate::select;

/// Series made in one go, between two questions to the context.
const BATCH_SERIES: usize = 256;

/// Series visited under one hold of a shard's lock.
const HOLD_SERIES: usize = 1024;

impl Head {
    /// The matching series in ascending order of labels, made batch by batch as the stream is read. What was appended after
    /// the call may or may not be seen.
    pub fn select(
        &self,
        ctx: &QueryContext,
        select: &SeriesSelect,
    ) -> Result<BoxStream<'static, Result<SeriesChunks>>> {
        ctx.check()?;
        if !self.overlaps(select.start_ms, select.end_ms) {
            return Ok(stream::empty().boxed());
        }
        let mut found = self.find(ctx, &select.matchers)?;
        if let Some(shard) = select.shard {
            found.retain(|(labels, _)| shard.has(labels));
        }
        let reservation = ctx.reserve(found.len() * size_of::<(Labels, Location)>())?;
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));

        let (head, ctx) = (self.clone(), ctx.clone());
        let (start_ms, end_ms, skip_chunks) = (select.start_ms, select.end_ms, select.skip_chunks);
        let mut rest = found.into_iter();
        let batches = async_stream::stream! {
            let _reservation = reservation;
            loop {
                let batch: Vec<(Labels, Location)> = rest.by_ref().take(BATCH_SERIES).collect();
                if batch.is_empty() {
                    return;
                }
                match head.batch(&ctx, batch, start_ms, end_ms, skip_chunks) {
                    Ok(series) => {
                        for one in series {
                            yield Ok(one);
                        }
                    }
                    Err(e) => {
                        yield Err(e);
                        return;
                    }
                }
                // Always ready otherwise: let others run.
                tokio::task::yield_now().await;
            }
        };
        Ok(batches.boxed())
    }

    fn batch(
        &self,
        ctx: &QueryContext,
        batch: Vec<(Labels, Location)>,
        start_ms: i64,
        end_ms: i64,
        skip_chunks: bool,
    ) -> Result<Vec<SeriesChunks>> {
        let mut out = Vec::with_capacity(batch.len());
        let (mut rows, mut bytes, mut count) = (0u64, 0u64, 0u64);
        for (labels, location) in batch {
            let chunks = self.with_series(location, |series| {
                if skip_chunks {
                    series.overlaps(start_ms, end_ms).then(Vec::new)
                } else {
                    let chunks = series.chunks(start_ms, end_ms, self.0.cut);
                    (!chunks.is_empty()).then_some(chunks)
                }
            });
            let Some(chunks) = chunks.flatten() else { continue };
            for chunk in &chunks {
                rows += u64::from(chunk::samples_in(&chunk.data));
                bytes += chunk.data.len() as u64;
                count += 1;
            }
            out.push(SeriesChunks { labels, chunks });
        }
        ctx.add_chunks(count);
        ctx.add_read_bytes(bytes)?;
        ctx.add_rows(rows)?;
        Ok(out)
    }

    pub fn label_names(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<String>> {
        let mut names = if !self.overlaps_select(select) {
            Vec::new()
        } else if select.matcher_sets.is_empty() {
            self.0.index.read().names()
        } else {
            let mut names: BTreeSet<String> = BTreeSet::new();
            self.for_each(ctx, select, |labels| {
                for (name, _) in labels {
                    if !names.contains(name) {
                        names.insert(name.to_owned());
                    }
                }
            })?;
            names.into_iter().collect()
        };
        select::cap(&mut names, select.limit);
        Ok(names)
    }

    pub fn label_values(&self, ctx: &QueryContext, name: &str, select: &LabelsSelect) -> Result<Vec<String>> {
        let mut values: Vec<String> = if !self.overlaps_select(select) {
            Vec::new()
        } else if select.matcher_sets.is_empty() {
            let mut values: Vec<String> =
                self.0.index.read().values(name).iter().map(|v| v.to_string()).collect();
            values.sort_unstable();
            values
        } else {
            let mut values: BTreeSet<String> = BTreeSet::new();
            self.for_each(ctx, select, |labels| {
                if let Some(value) = labels.get(name)
                    && !values.contains(value)
                {
                    values.insert(value.to_owned());
                }
            })?;
            values.into_iter().collect()
        };
        select::cap(&mut values, select.limit);
        Ok(values)
    }

    /// Sorted label sets of the series that match any of the sets and have samples in the range.
    pub fn series(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<Labels>> {
        if !self.overlaps_select(select) {
            return Ok(Vec::new());
        }
        let (start_ms, end_ms) = select::range(select);
        let mut found = Vec::new();
        for (labels, location) in self.find_any(ctx, select)? {
            if self.with_series(location, |s| s.overlaps(start_ms, end_ms)) == Some(true) {
                found.push(labels);
            }
        }
        found.sort_unstable();
        select::cap(&mut found, select.limit);
        Ok(found)
    }

    pub fn metadata(&self, ctx: &QueryContext, metric: &str, limit: usize) -> Result<Vec<MetricMetadata>> {
        ctx.check()?;
        Ok(self.0.extras.lock().metadata(metric, limit))
    }

    pub fn exemplars(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<SeriesExemplars>> {
        ctx.check()?;
        Ok(self.0.extras.lock().exemplars(select))
    }

    pub fn cardinality(&self, ctx: &QueryContext, limit: usize) -> Result<CardinalityStats> {
        ctx.check()?;
        let mut chunks = 0;
        for shard in &self.0.shards {
            chunks += shard.lock().series.iter().map(Series::chunk_count).sum::<usize>();
        }
        let (by_metric, by_label) = {
            let index = self.0.index.read();
            (index.series_by_value(METRIC_NAME), index.values_by_name())
        };
        let (start_ms, end_ms) = self.time_range_ms().unwrap_or_default();
        Ok(CardinalityStats {
            series: self.series_count() as u64,
            chunks: chunks as u64,
            samples: self.sample_count(),
            start_ms,
            end_ms,
            series_by_metric: select::top(by_metric, limit),
            values_by_label: select::top(by_label, limit),
        })
    }

    /// All series with their places, sorted by labels.
    pub(super) fn sorted_series(&self) -> Vec<(Labels, Location)> {
        let mut all = Vec::with_capacity(self.series_count());
        for (i, shard) in self.0.shards.iter().enumerate() {
            let shard = shard.lock();
            all.extend(
                shard
                    .series
                    .iter()
                    .enumerate()
                    .map(|(at, s)| (s.labels.clone(), (at << SHARD_BITS | i) as Location)),
            );
        }
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        all
    }

    pub(super) fn with_series<R>(&self, location: Location, read: impl FnOnce(&Series) -> R) -> Option<R> {
        let shard = self.0.shards[location as usize & (SHARDS - 1)].lock();
        shard.series.get((location >> SHARD_BITS) as usize).map(read)
    }

    pub(super) fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        self.time_range_ms().is_some_and(|(from, to)| from <= end_ms && to >= start_ms)
    }

    fn overlaps_select(&self, select: &LabelsSelect) -> bool {
        let (start_ms, end_ms) = select::range(select);
        self.overlaps(start_ms, end_ms)
    }

    fn for_each(
        &self,
        ctx: &QueryContext,
        select: &LabelsSelect,
        mut each: impl FnMut(&Labels),
    ) -> Result<()> {
        for set in &select.matcher_sets {
            let found = self.find(ctx, set)?;
            found.iter().for_each(|(labels, _)| each(labels));
        }
        Ok(())
    }

    fn find_any(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<(Labels, Location)>> {
        if select.matcher_sets.is_empty() {
            return self.find(ctx, &[]);
        }
        let mut found = Vec::new();
        for set in &select.matcher_sets {
            found.extend(self.find(ctx, set)?);
        }
        if select.matcher_sets.len() > 1 {
            found.sort_unstable_by_key(|(_, location)| *location);
            found.dedup_by_key(|(_, location)| *location);
        }
        Ok(found)
    }

    /// The matching series, in no order.
    fn find(&self, ctx: &QueryContext, matchers: &[Matcher]) -> Result<Vec<(Labels, Location)>> {
        let ids = index::resolve(&self.0.index, matchers);
        ctx.check()?;
        let mut places: Vec<Location> = {
            let index = self.0.index.read();
            ids.iter().filter_map(|&id| index.location(id)).collect()
        };
        drop(ids);
        places.sort_unstable_by_key(|place| place & (SHARDS as u32 - 1));
        let mut found = Vec::with_capacity(places.len());
        for hold in places.chunks(HOLD_SERIES) {
            ctx.check()?;
            for run in hold.chunk_by(|a, b| (a ^ b) & (SHARDS as u32 - 1) == 0) {
                let shard = self.0.shards[run[0] as usize & (SHARDS - 1)].lock();
                for &place in run {
                    if let Some(series) = shard.series.get((place >> SHARD_BITS) as usize) {
                        found.push((series.labels.clone(), place));
                    }
                }
            }
        }
        Ok(found)
    }
}
