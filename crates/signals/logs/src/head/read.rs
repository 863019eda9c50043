//! Labels and figures of a head.

use std::collections::BTreeSet;
use std::sync::Arc;

use triptych_model::logs::{StreamStats, StreamsSelect, Volume};
use triptych_model::{Labels, Matcher, Result};
use triptych_runtime::QueryContext;

use super::{Head, HeadStream};
use crate::figures::{Stats, Volumes, range_ns, share, truncate};

impl Head {
    pub(super) fn select(&self, sets: &[Vec<Matcher>]) -> Vec<Arc<HeadStream>> {
        let index = self.0.index.read();
        let hits = index.postings.select_any(sets);
        hits.iter().filter_map(|i| index.streams.get(i as usize).cloned()).collect()
    }

    /// Streams that pass and have lines in the range.
    fn streams_in_range(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<Arc<HeadStream>>> {
        let (start_ns, end_ns) = range_ns(select)?;
        let mut streams = self.select(&select.matcher_sets);
        ctx.check()?;
        streams.retain(|s| s.bounds_ns().is_some_and(|(from, through)| from < end_ns && through >= start_ns));
        Ok(streams)
    }

    /// Sorted names of the labels of the streams that pass.
    pub async fn label_names(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for stream in self.streams_in_range(ctx, select)? {
            for (name, _) in &stream.info.labels {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        }
        Ok(truncate(names.into_iter().collect(), select.limit))
    }

    /// Sorted values of a label of the streams that pass.
    pub async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &StreamsSelect,
    ) -> Result<Vec<String>> {
        let mut values = BTreeSet::new();
        for stream in self.streams_in_range(ctx, select)? {
            if let Some(value) = stream.info.labels.get(name)
                && !values.contains(value)
            {
                values.insert(value.to_owned());
            }
        }
        Ok(truncate(values.into_iter().collect(), select.limit))
    }

    /// Sorted label sets of the streams that pass.
    pub async fn series(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<Labels>> {
        let streams = self.streams_in_range(ctx, select)?;
        let mut all: Vec<Labels> = streams.iter().map(|s| s.info.labels.clone()).collect();
        all.sort();
        Ok(truncate(all, select.limit))
    }

    /// Streams, chunks, entries and bytes in the range; what straddles its ends counts with its share.
    pub async fn stats(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<StreamStats> {
        let (start_ns, end_ns) = range_ns(select)?;
        let mut stats = Stats::default();
        for stream in self.streams_in_range(ctx, select)? {
            let (parts, chunks) = stream.parts();
            stats.stream();
            stats.chunks(chunks as u64);
            for part in parts {
                stats.part(share(part.from_ns, part.through_ns, start_ns, end_ns), part.entries, part.bytes);
            }
        }
        Ok(stats.done())
    }

    /// Bytes per value set of `labels` (of the selector's labels where empty), largest first.
    pub async fn volume(
        &self,
        ctx: &QueryContext,
        select: &StreamsSelect,
        labels: &[String],
    ) -> Result<Vec<Volume>> {
        let (start_ns, end_ns) = range_ns(select)?;
        let mut volumes = Volumes::new(select, labels);
        for stream in self.streams_in_range(ctx, select)? {
            let (parts, _) = stream.parts();
            let bytes =
                parts.iter().map(|p| share(p.from_ns, p.through_ns, start_ns, end_ns) * p.bytes as f64).sum();
            volumes.add(&stream.info.labels, bytes);
        }
        Ok(volumes.done(select.limit))
    }
}
