//! From matchers and a range to streams and their chunks, over all index files that may know some.

use std::collections::BTreeSet;
use std::sync::Arc;

use triptych_blob::object_store::path::Path;
use triptych_model::logs::StreamsSelect;
use triptych_model::{Labels, Matcher, Result, Version};
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
        let files = self.inner.files.read().clone();
        let (from_ms, through_ms) = ms_of_range(start_ns, end_ns);
        let days = layout::days(from_ms, through_ms);
        let own = files.tenants.get(ctx.tenant()).into_iter().flatten().map(|e| (e, false));
        own.chain(files.shared.iter().map(|e| (e, true)))
            .filter(|(entry, _)| days.contains(&entry.day))
            .map(|(entry, shared)| (entry.clone(), shared))
            .collect()
    }

    /// Of the index files that may know something of the range, both ends inclusive: whole days.
    pub fn version(&self, ctx: &QueryContext, start_ns: i64, end_ns: i64) -> Version {
        let files = self.files(ctx, start_ns, end_ns.saturating_add(1));
        files.iter().map(|(entry, _)| Version::of_part(entry.path.as_ref().as_bytes())).sum()
    }

    /// Streams that pass one of the sets and have chunks in the range; each once, whatever the number of files that know it.
    pub(super) async fn select(
        &self,
        ctx: &QueryContext,
        sets: &[Vec<Matcher>],
        start_ns: i64,
        end_ns: i64,
    ) -> Result<Selection> {
        let range_ms = ms_of_range(start_ns, end_ns);
        let mut all: Vec<SeriesMeta> = Vec::new();
        let mut memory = ctx.reserve(0)?;
        for (entry, shared) in self.files(ctx, start_ns, end_ns) {
            if let Some(file) = self.open(ctx, &entry).await? {
                let from = Opened { file: &file, path: &entry.path, shared };
                each_series(ctx, &from, sets, range_ms, |series| {
                    if !self.owns(&series.labels) {
                        return Ok(());
                    }
                    let bytes =
                        series.labels.as_encoded().len() + series.chunks.len() * size_of::<ChunkMeta>();
                    memory.grow(bytes + size_of::<SeriesMeta>())?;
                    all.push(series);
                    Ok(())
                })
                .await?;
            }
        }
        let found = |series: SeriesMeta| Found {
            info: Arc::new(StreamInfo::new(series.labels)),
            fingerprint: series.fingerprint,
            chunks: series.chunks,
        };
        Ok(Selection { streams: index::normalise(all).into_iter().map(found).collect(), _memory: memory })
    }

    /// Calls `each` with the labels of the streams that pass and have chunks in the range; a stream may come more than once. Where
    /// all of a file counts, `whole` is asked to take it from the file's tables instead (of a store that shows a part of the streams,
    /// too: what others show besides is the same).
    pub(super) async fn each_labels(
        &self,
        ctx: &QueryContext,
        select: &StreamsSelect,
        mut whole: impl FnMut(&IndexFile, &mut BTreeSet<String>),
        mut each: impl FnMut(&Labels, &mut BTreeSet<String>),
    ) -> Result<BTreeSet<String>> {
        let (start_ns, end_ns) = range_ns(select)?;
        let range_ms = ms_of_range(start_ns, end_ns);
        let mut out = BTreeSet::new();
        for (entry, shared) in self.files(ctx, start_ns, end_ns) {
            let Some(file) = self.open(ctx, &entry).await? else { continue };
            let (from_ms, through_ms) = file.bounds_ms();
            let everything = !shared
                && select.matcher_sets.is_empty()
                && from_ms >= range_ms.0
                && ns_of_ms(through_ms) < end_ns;
            if everything {
                whole(&file, &mut out);
                continue;
            }
            let from = Opened { file: &file, path: &entry.path, shared };
            each_series(ctx, &from, &select.matcher_sets, range_ms, |series| {
                if self.owns(&series.labels) {
                    each(&series.labels, &mut out);
                }
                Ok(())
            })
            .await?;
        }
        Ok(out)
    }

    /// `None`: it cannot be read, and the context was told.
    async fn open(&self, ctx: &QueryContext, entry: &IndexEntry) -> Result<Option<Arc<IndexFile>>> {
        ctx.check()?;
        ctx.add_blocks(1);
        match self.index(entry).await {
            Ok(file) => Ok(Some(file)),
            Err(error) => {
                ctx.missed(format!("index file {}: {error}", entry.path));
                Ok(None)
            }
        }
    }
}

struct Opened<'a> {
    file: &'a IndexFile,
    path: &'a Path,
    shared: bool,
}

/// The series of a file that pass one of the sets and have chunks in the range. What is damaged is named in the report; an
/// error is the query's own.
async fn each_series(
    ctx: &QueryContext,
    from: &Opened<'_>,
    sets: &[Vec<Matcher>],
    (from_ms, through_ms): (i64, i64),
    mut each: impl FnMut(SeriesMeta) -> Result<()>,
) -> Result<()> {
    let missed = |error| ctx.missed(format!("index file {}: {error}", from.path));
    let references = match select_in(from.file, ctx, sets, from.shared) {
        Ok(references) => references,
        Err(error) => {
            missed(error);
            return Ok(());
        }
    };
    for (i, reference) in references.into_iter().enumerate() {
        if i % SERIES_PER_CHECK == SERIES_PER_CHECK - 1 {
            ctx.check()?;
            tokio::task::yield_now().await;
        }
        let mut series = match from.file.series(reference, from_ms, through_ms) {
            Ok(series) => series,
            Err(error) => {
                missed(error);
                return Ok(());
            }
        };
        if series.chunks.is_empty() {
            continue;
        }
        if from.shared {
            series.labels = series.labels.filter(|name| name != TENANT_LABEL);
        }
        each(series)?;
    }
    Ok(())
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
