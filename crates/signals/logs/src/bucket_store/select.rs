//! From matchers and a range to streams and their chunks, over all index files that may know some.

use std::sync::Arc;

use triptych_model::logs::StreamsSelect;
use triptych_model::{Labels, Matcher, Result};
use triptych_runtime::{QueryContext, Reservation};

use super::{BucketStore, IndexEntry};
use crate::figures::range_ns;
use crate::index::{self, ChunkMeta, IndexFile, SeriesMeta, TENANT_LABEL};
use crate::layout;
use crate::scan::StreamInfo;

/// A stream of the bucket, with its chunks in the range.
pub(super) struct Found {
    pub info: Arc<StreamInfo>,
    /// As the index says, for the chunk's key: Loki gives another one where two streams' hashes are equal.
    pub fingerprint: u64,
    pub chunks: Vec<ChunkMeta>,
}

pub(super) struct Selection {
    pub streams: Vec<Found>,
    _memory: Reservation,
}

/// The milliseconds that `start_ns..end_ns` touches, both inclusive.
pub(super) fn ms_of_range(start_ns: i64, end_ns: i64) -> (i64, i64) {
    (start_ns.div_euclid(1_000_000), end_ns.saturating_sub(1).div_euclid(1_000_000))
}

pub(super) fn ns_of_ms(ms: i64) -> i64 {
    ms.saturating_mul(1_000_000)
}

/// Series between two looks at the context.
const SERIES_PER_CHECK: usize = 4096;

impl BucketStore {
    /// The index files of a tenant for a range of time, and whether they are files of several tenants.
    fn files(&self, ctx: &QueryContext, start_ns: i64, end_ns: i64) -> Vec<(IndexEntry, bool)> {
        let files = self.0.files.read().clone();
        let (from_ms, through_ms) = ms_of_range(start_ns, end_ns);
        let days = layout::days(from_ms, through_ms);
        let own = files.tenants.get(ctx.tenant()).into_iter().flatten().map(|e| (e, false));
        own.chain(files.shared.iter().map(|e| (e, true)))
            .filter(|(entry, _)| days.contains(&entry.day))
            .map(|(entry, shared)| (entry.clone(), shared))
            .collect()
    }

    /// Streams that pass one of the sets and have chunks in the range; each once, whatever the number of files that know it.
    pub(super) async fn select(
        &self,
        ctx: &QueryContext,
        sets: &[Vec<Matcher>],
        start_ns: i64,
        end_ns: i64,
    ) -> Result<Selection> {
        let (from_ms, through_ms) = ms_of_range(start_ns, end_ns);
        let mut all: Vec<SeriesMeta> = Vec::new();
        let mut memory = ctx.reserve(0)?;
        for (entry, shared) in self.files(ctx, start_ns, end_ns) {
            ctx.check()?;
            ctx.add_blocks(1);
            let missed = |error| ctx.missed(format!("index file {}: {error}", entry.path));
            let read = match self.index(&entry).await {
                Ok(file) => select_in(&file, ctx, sets, shared).map(|references| (file, references)),
                Err(error) => Err(error),
            };
            let (file, references) = match read {
                Ok(read) => read,
                Err(error) => {
                    missed(error);
                    continue;
                }
            };
            for (i, reference) in references.into_iter().enumerate() {
                if i % SERIES_PER_CHECK == SERIES_PER_CHECK - 1 {
                    ctx.check()?;
                    tokio::task::yield_now().await;
                }
                let mut series = match file.series(reference, from_ms, through_ms) {
                    Ok(series) => series,
                    Err(error) => {
                        missed(error);
                        break;
                    }
                };
                if series.chunks.is_empty() {
                    continue;
                }
                if shared {
                    series.labels = series.labels.filter(|name| name != TENANT_LABEL);
                }
                let bytes = series.labels.as_encoded().len() + series.chunks.len() * size_of::<ChunkMeta>();
                memory.grow(bytes + size_of::<SeriesMeta>())?;
                all.push(series);
            }
        }
        let found = |series: SeriesMeta| Found {
            info: Arc::new(StreamInfo::new(series.labels)),
            fingerprint: series.fingerprint,
            chunks: series.chunks,
        };
        Ok(Selection { streams: index::normalise(all).into_iter().map(found).collect(), _memory: memory })
    }

    /// Calls `each` with the labels of the streams that pass and have chunks in the range; a stream may come more than once.
    pub(super) async fn each_labels(
        &self,
        ctx: &QueryContext,
        select: &StreamsSelect,
        mut each: impl FnMut(&Labels),
    ) -> Result<()> {
        let (start_ns, end_ns) = range_ns(select)?;
        for stream in &self.select(ctx, &select.matcher_sets, start_ns, end_ns).await?.streams {
            each(&stream.info.labels);
        }
        Ok(())
    }
}

fn select_in(file: &IndexFile, ctx: &QueryContext, sets: &[Vec<Matcher>], shared: bool) -> Result<Vec<u32>> {
    let everything = [Vec::new()];
    let sets = if sets.is_empty() { &everything } else { sets };
    let mut out = Vec::new();
    for set in sets {
        if shared {
            let mut set = set.clone();
            set.push(Matcher::equal(TENANT_LABEL, ctx.tenant().as_str()));
            out.extend(file.select(&set)?);
        } else {
            out.extend(file.select(set)?);
        }
    }
    out.sort_unstable();
    out.dedup();
    Ok(out)
}
