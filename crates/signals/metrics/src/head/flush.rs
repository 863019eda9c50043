//! From a head to blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashSet;
use parking_lot::Mutex;
use triptych_blob::Bucket;
use triptych_model::{Labels, Result, TenantId};

use super::Head;
use super::index::Location;
use crate::block::writer::MetaParts;
use crate::block::{BlockId, BlockMeta, BlockWriter};
use crate::merge::tidy_chunks;

/// Series between two chances for other tasks.
const YIELD_SERIES: usize = 256;

/// Blocks that one flush writes at the most. A client may send samples from all over time: ranges double until this holds.
const BLOCKS_MAX: usize = 48;

/// Blocks that were written, by start of their range.
pub(super) type Flushed = Mutex<BTreeMap<i64, Written>>;

/// A block that is whole, and of what.
#[derive(Debug)]
pub(super) struct Written {
    /// Where it is. In any other bucket it is not.
    bucket: Bucket,
    /// How many samples the head had.
    samples: u64,
    meta: BlockMeta,
}

/// How to write blocks.
#[derive(Debug, Clone, Default)]
pub struct FlushOptions {
    /// External labels in `meta.json`: who writes.
    pub labels: BTreeMap<String, String>,
    /// `thanos.source` in `meta.json`.
    pub source: String,
    /// The time in the blocks' ULIDs.
    pub now_ms: i64,
}

/// What a flush wrote.
#[derive(Debug, Clone, Default)]
pub struct FlushReport {
    /// All blocks of the head, those of an earlier attempt included.
    pub blocks: Vec<BlockMeta>,
    pub series: u64,
    pub samples: u64,
    /// Bytes in the bucket.
    pub bytes: u64,
}

impl Head {
    /// Writes everything as blocks below `metrics/<tenant>/`, one for each block range that has samples, each complete only
    /// with its `meta.json`. Nothing may be appended meanwhile. May be repeated after an error: blocks that were completed in this bucket
    /// (this very handle or a clone of it) are not written again. The head stays readable.
    pub async fn flush(
        &self,
        bucket: &Bucket,
        tenant: &TenantId,
        options: &FlushOptions,
    ) -> Result<FlushReport> {
        let samples = self.sample_count();
        let series = self.sorted_series();
        let mut ranges: BTreeSet<i64> = BTreeSet::new();
        for (_, location) in &series {
            self.with_series(*location, |s| s.ranges(self.0.cut, |range| _ = ranges.insert(range)));
        }
        // Chunks do not cross borders of ranges, so they do not cross those of a doubled range either.
        let mut range_ms = self.0.cut.range_ms;
        while ranges.len() > BLOCKS_MAX && range_ms <= i64::MAX / 4 {
            range_ms *= 2;
            ranges = ranges.iter().map(|start| start.saturating_sub(start.rem_euclid(range_ms))).collect();
        }
        let mut report = FlushReport::default();
        for range in ranges {
            let done = self
                .0
                .flushed
                .lock()
                .get(&range)
                .filter(|written| written.samples == samples && Arc::ptr_eq(&written.bucket, bucket))
                .map(|written| written.meta.clone());
            let meta = match done {
                Some(meta) => meta,
                None => match self.flush_range(bucket, tenant, options, &series, (range, range_ms)).await? {
                    Some(meta) => {
                        let written = Written { bucket: bucket.clone(), samples, meta: meta.clone() };
                        self.0.flushed.lock().insert(range, written);
                        meta
                    }
                    None => continue,
                },
            };
            report.series += meta.stats.series;
            report.samples += meta.stats.samples;
            report.bytes += meta.thanos.files.iter().map(|f| f.size_bytes).sum::<u64>();
            report.blocks.push(meta);
        }
        Ok(report)
    }

    async fn flush_range(
        &self,
        bucket: &Bucket,
        tenant: &TenantId,
        options: &FlushOptions,
        series: &[(Labels, Location)],
        (start_ms, range_ms): (i64, i64),
    ) -> Result<Option<BlockMeta>> {
        let end_ms = start_ms.saturating_add(range_ms - 1);
        let mut symbols: HashSet<&str> = HashSet::new();
        let mut within: Vec<&(Labels, Location)> = Vec::new();
        for (i, one) in series.iter().enumerate() {
            if self.with_series(one.1, |s| s.overlaps(start_ms, end_ms)) == Some(true) {
                symbols.extend(one.0.iter().flat_map(|(name, value)| [name, value]));
                within.push(one);
            }
            if i % YIELD_SERIES == 0 {
                tokio::task::yield_now().await;
            }
        }
        if within.is_empty() {
            return Ok(None);
        }
        let symbols: Vec<Arc<str>> = symbols.into_iter().map(Arc::from).collect();
        let mut writer = BlockWriter::new(bucket, tenant, BlockId::new(options.now_ms), symbols).await?;
        match self.write_series(&mut writer, &within, start_ms, end_ms).await {
            Ok((first_ms, last_ms)) => {
                let parts = MetaParts {
                    start_ms: first_ms,
                    end_ms: last_ms.saturating_add(1),
                    labels: options.labels.clone(),
                    source: options.source.clone(),
                    ..MetaParts::default()
                };
                writer.finish(parts).await.map(Some)
            }
            Err(e) => {
                writer.abort().await;
                Err(e)
            }
        }
    }

    async fn write_series(
        &self,
        writer: &mut BlockWriter,
        series: &[&(Labels, Location)],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<(i64, i64)> {
        let (mut first_ms, mut last_ms) = (i64::MAX, i64::MIN);
        for (i, (labels, location)) in series.iter().enumerate() {
            let chunks =
                self.with_series(*location, |s| s.chunks(start_ms, end_ms, self.0.cut)).unwrap_or_default();
            // Late chunks overlap the others here; in a block they must not.
            let chunks = tidy_chunks(chunks)?;
            for chunk in &chunks {
                first_ms = first_ms.min(chunk.start_ms);
                last_ms = last_ms.max(chunk.end_ms);
            }
            writer.series(labels, &chunks).await?;
            if i % YIELD_SERIES == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok((first_ms, last_ms))
    }
}
