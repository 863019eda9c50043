//! All tenants' blocks in the bucket, and the Store API's reads over them.
//!
//! [`BucketStore::sync`] lists the bucket once, loads `meta.json` of new blocks and publishes a snapshot; reads work on the
//! snapshot they found. Indexes are read when they are needed, through [`BlockCaches`].
//!
//! What a read shows:
//! - a block without `meta.json` does not exist yet, or no more;
//! - a block whose samples are all in another one (a compaction, whether it has removed its sources or not) is not asked: it may go at
//!   any time. The other one is asked in its place;
//! - of several stores that divide the blocks ([`BucketStore::share`]) each one asks what it owns. One that owns a block which was
//!   replaced asks the replacement too, beside the owner of that: until it has known it for [`BucketStoreConfig::replaced_shown`], and
//!   so every other store must know it. No clock of another machine counts;
//! - a block with a deletion mark that nothing replaces is dropped at a later sync than the one that saw the mark first, by as much at
//!   least: what may have replaced it was complete before the mark was written, so that listing has it for sure;
//! - downsampled blocks (Thanos) are not asked;
//! - a block that cannot be read, or is gone, is named in [`QueryContext::missed`]: who owns what replaced it may have looked before that
//!   was there; the read fails where no block could be read at all.
//!
//! External labels of foreign blocks (`thanos.labels`) are not added to series.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use triptych_blob::{Bucket, WarmReport};
use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::{
    CardinalityStats, LabelsSelect, MetricMetadata, SeriesChunks, SeriesExemplars, SeriesSelect,
};
use triptych_model::{Error, Kind, Labels, Result, Share, TenantId, Version};
use triptych_runtime::QueryContext;

use crate::block::reader::{BATCH_BYTES, BATCHES_AHEAD};
use crate::block::{Block, BlockCaches, BlockId, BlockMeta, block_path};
use crate::listing::{self, BlockObjects};
use crate::merge;
use crate::select;

/// `meta.json` files fetched at one time.
const LOADS_MAX: usize = 16;
/// Blocks asked at one time.
const BLOCKS_AT_ONCE: usize = 16;
/// Chunks that the streams of one select hold, about.
const SELECT_BYTES: u64 = 128 << 20;
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BucketStoreConfig {
    /// Memory for parsed index headers (symbols, tables of postings), in bytes.
    pub header_cache_bytes_max: u64,
    /// Memory for pages of postings and series, in bytes.
    pub page_cache_bytes_max: u64,
    /// How long what replaced a block is asked by the block's owner too. Zero where one store alone shows all blocks; see the module.
    pub replaced_shown: Duration,
}

impl Default for BucketStoreConfig {
    fn default() -> Self {
        Self {
            header_cache_bytes_max: 256 << 20,
            page_cache_bytes_max: 256 << 20,
            replaced_shown: Duration::ZERO,
        }
    }
}

/// What a sync found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncReport {
    pub tenants: usize,
    /// Blocks that reads ask now.
    pub blocks: usize,
    /// `meta.json` files that were read.
    pub loaded: usize,
    /// Blocks that are gone or were dropped since the sync before.
    pub dropped: usize,
    /// Blocks without `meta.json`.
    pub partial: usize,
    /// Blocks that are known and not asked: downsampled, or covered by another one.
    pub skipped: usize,
    /// Blocks whose `meta.json` could not be read, one sentence each. Reads of the tenant say so.
    pub failed: Vec<String>,
}

/// All tenants' blocks. Clones share everything but whose blocks they read.
#[derive(Clone)]
pub struct BucketStore {
    inner: Arc<Inner>,
    share: Option<Share>,
}

struct Inner {
    bucket: Bucket,
    config: BucketStoreConfig,
    caches: BlockCaches,
    tenants: RwLock<Arc<HashMap<TenantId, Arc<Snapshot>>>>,
    /// Held for the whole of a sync.
    known: tokio::sync::Mutex<HashMap<(TenantId, BlockId), Known>>,
}

struct Known {
    block: Block,
    objects: BlockObjects,
    /// When the sync ended that found it.
    found: Instant,
    /// When the sync ended that found its deletion mark.
    marked: Option<Instant>,
}

/// A block that reads ask.
struct Shown {
    block: Block,
    /// What it replaced, as long as not everybody must know that.
    stands_for: Vec<BlockId>,
}

impl Shown {
    fn meta(&self) -> &BlockMeta {
        self.block.meta()
    }

    /// Whose owners ask it.
    fn ids(&self) -> impl Iterator<Item = BlockId> {
        std::iter::once(self.meta().ulid).chain(self.stands_for.iter().copied())
    }
}

#[derive(Default)]
struct Snapshot {
    /// Ascending by time.
    blocks: Vec<Shown>,
    /// Blocks whose `meta.json` could not be read, a sentence each.
    failed: Vec<(BlockId, String)>,
}

impl BucketStore {
    pub fn new(bucket: Bucket, config: BucketStoreConfig) -> Self {
        let caches = BlockCaches::new(config.header_cache_bytes_max, config.page_cache_bytes_max);
        let (tenants, known) = (RwLock::default(), tokio::sync::Mutex::default());
        Self { inner: Arc::new(Inner { bucket, config, caches, tenants, known }), share: None }
    }

    /// The same store, whose reads ask only the blocks that `share` owns, by their ULIDs. `None`: all blocks.
    pub fn share(&self, share: Option<&Share>) -> Self {
        Self { inner: self.inner.clone(), share: share.cloned() }
    }

    fn owns(&self, id: BlockId) -> bool {
        self.share.as_ref().is_none_or(|share| share.owns(id.to_string().as_bytes()))
    }

    /// Finds new and vanished blocks. An error leaves everything as it was.
    pub async fn sync(&self) -> Result<SyncReport> {
        let inner = &*self.inner;
        let mut known = inner.known.lock().await;
        let mut listed = listing::list_all(&inner.bucket).await?;
        let partial = listed.values().filter(|o| !o.has_meta()).count();
        let mut report = SyncReport { partial, ..SyncReport::default() };
        listed.retain(|_, objects| objects.has_meta());

        let before = known.len();
        known.retain(|key, _| listed.contains_key(key));
        let mut loads = Vec::new();
        for ((tenant, id), objects) in listed {
            match known.get_mut(&(tenant.clone(), id)) {
                Some(one) => one.objects = objects,
                None => loads.push((tenant, id, objects)),
            }
        }
        report.dropped = before - known.len();

        let mut failed: HashMap<TenantId, Vec<(BlockId, String)>> = HashMap::new();
        let mut found = Vec::new();
        let loads = loads.into_iter().map(|(tenant, id, objects)| async move {
            let block =
                Block::load(&inner.bucket, block_path(&tenant, id), objects.sizes.clone(), &inner.caches);
            (block.await, tenant, id, objects)
        });
        let mut loads = stream::iter(loads).buffer_unordered(LOADS_MAX);
        while let Some((block, tenant, id, objects)) = loads.next().await {
            match block {
                Ok(block) => {
                    report.loaded += 1;
                    found.push((tenant, id, block, objects));
                }
                // Removed since it was listed.
                Err(e) if e.kind == Kind::NotFound => report.partial += 1,
                Err(e) => {
                    report.failed.push(e.to_string());
                    failed.entry(tenant).or_default().push((id, e.to_string()));
                }
            }
        }
        drop(loads);

        let now = Instant::now();
        for (tenant, id, block, objects) in found {
            known.insert((tenant, id), Known { block, objects, found: now, marked: None });
        }
        let is_old = |since: Instant| now.duration_since(since) >= inner.config.replaced_shown;
        // With whether they are dropped, unless something replaces them.
        let mut candidates: HashMap<TenantId, Vec<(Block, bool)>> = HashMap::new();
        for ((tenant, _), one) in known.iter_mut() {
            // Never in the sync that finds the mark: its listing may be older than what replaces the block.
            let is_dropped = one.marked.is_some_and(is_old);
            one.marked = one.objects.is_marked().then(|| one.marked.unwrap_or(now));
            if one.block.meta().thanos.downsample.resolution != 0 {
                report.skipped += 1;
            } else {
                candidates.entry(tenant.clone()).or_default().push((one.block.clone(), is_dropped));
            }
        }
        let mut tenants: HashMap<TenantId, Arc<Snapshot>> = HashMap::new();
        for tenant in failed.keys() {
            candidates.entry(tenant.clone()).or_default();
        }
        for (tenant, candidates) in candidates {
            let one = |id: BlockId| known.get(&(tenant.clone(), id));
            // What will be dropped soon must not stand for what stays.
            let may_cover = |id| one(id).is_some_and(|one| one.marked.is_none());
            let covered = listing::covered(candidates.iter().map(|(block, _)| block.meta()), may_cover);
            let mut stands_for: HashMap<BlockId, Vec<BlockId>> = HashMap::new();
            for (id, by) in &covered {
                if one(*by).is_some_and(|by| !is_old(by.found)) {
                    stands_for.entry(*by).or_default().push(*id);
                }
            }
            let count = candidates.len();
            let shown = candidates
                .into_iter()
                .filter(|(block, is_dropped)| !is_dropped && !covered.contains_key(&block.meta().ulid));
            let shown = shown.map(|(block, _)| {
                let stands_for = stands_for.remove(&block.meta().ulid).unwrap_or_default();
                Shown { block, stands_for }
            });
            let mut blocks: Vec<Shown> = shown.collect();
            report.skipped += count - blocks.len();
            report.blocks += blocks.len();
            blocks.sort_by_key(|b| (b.meta().start_ms, b.meta().ulid));
            let failed = failed.remove(&tenant).unwrap_or_default();
            if !blocks.is_empty() || !failed.is_empty() {
                tenants.insert(tenant, Arc::new(Snapshot { blocks, failed }));
            }
        }
        report.tenants = tenants.len();
        *inner.tenants.write() = Arc::new(tenants);
        Ok(report)
    }

    /// Tenants that have blocks, in no order.
    pub fn tenants(&self) -> Vec<TenantId> {
        self.inner.tenants.read().keys().cloned().collect()
    }

    /// What `meta.json` of a tenant's blocks says, ascending by time.
    pub fn blocks(&self, tenant: &TenantId) -> Vec<BlockMeta> {
        self.snapshot(tenant).blocks.iter().map(|shown| shown.meta().clone()).collect()
    }

    /// Opens blocks that are `wanted` by their tenant and ULID, and what replaced such a one, the newest first, as long as there is room in
    /// the cache. May be dropped at any time.
    pub async fn warm(&self, wanted: impl Fn(&TenantId, &[u8]) -> bool) -> WarmReport {
        let inner = &*self.inner;
        let tenants = inner.tenants.read().clone();
        let mut report = WarmReport::default();
        let mut closed: Vec<Block> = Vec::new();
        for (tenant, snapshot) in tenants.iter() {
            for shown in &snapshot.blocks {
                let wanted = |id: BlockId| wanted(tenant, id.to_string().as_bytes());
                report.wanted += usize::from(wanted(shown.meta().ulid));
                if shown.ids().any(wanted) {
                    closed.extend((!shown.block.is_open()).then(|| shown.block.clone()));
                }
            }
        }
        closed.sort_by_key(|block| std::cmp::Reverse((block.meta().end_ms, block.meta().ulid)));
        inner.caches.headers.run_pending_tasks().await;
        let held = inner.caches.headers.weighted_size();
        let room = inner.config.header_cache_bytes_max.saturating_sub(held);
        let opens = closed.into_iter().map(|block| async move { block.header(None).await });
        report.open(opens, room, |header| header.bytes()).await;
        inner.caches.headers.run_pending_tasks().await;
        report
    }

    /// Blocks whose index header is in the cache, about.
    pub fn open_blocks(&self) -> u64 {
        self.inner.caches.headers.entry_count()
    }

    /// Memory held by the index caches, about, in bytes.
    pub fn cache_bytes(&self) -> u64 {
        self.inner.caches.bytes()
    }

    fn snapshot(&self, tenant: &TenantId) -> Arc<Snapshot> {
        self.inner.tenants.read().get(tenant).cloned().unwrap_or_default()
    }

    /// The blocks of the query's tenant that are to be asked and overlap the range; those that are known to be unreadable are reported.
    fn in_range(&self, ctx: &QueryContext, start_ms: i64, end_ms: i64) -> Vec<Block> {
        let snapshot = self.snapshot(ctx.tenant());
        for (_, sentence) in snapshot.failed.iter().filter(|(id, _)| self.owns(*id)) {
            ctx.missed(sentence.clone());
        }
        let shown = snapshot.blocks.iter().filter(|shown| shown.meta().overlaps(start_ms, end_ms));
        shown.filter(|shown| shown.ids().any(|id| self.owns(id))).map(|shown| shown.block.clone()).collect()
    }

    /// Of the blocks of the query's tenant in the range, both ends inclusive.
    pub fn version(&self, ctx: &QueryContext, start_ms: i64, end_ms: i64) -> Version {
        let blocks = self.in_range(ctx, start_ms, end_ms);
        blocks.iter().map(|block| Version::of_part(block.meta().ulid.to_string().as_bytes())).sum()
    }

    /// Asks every block; those that fail are reported, and all of them failing is an error.
    async fn each<T, F: Future<Output = Result<T>> + Send>(
        &self,
        ctx: &QueryContext,
        blocks: Vec<Block>,
        ask: impl Fn(Block) -> F,
    ) -> Result<Vec<T>> {
        let asked = blocks.into_iter().map(|block| {
            let path = block.path().clone();
            let answer = ask(block);
            async move { (path, answer.await) }
        });
        let mut answers = stream::iter(asked).buffered(BLOCKS_AT_ONCE);
        let mut found = Vec::new();
        let mut last_error = None;
        while let Some((path, answer)) = answers.next().await {
            match answer {
                Ok(answer) => found.push(answer),
                Err(e) if is_fatal(ctx, &e) => return Err(e),
                Err(e) => {
                    ctx.missed(format!("{path}: {e}"));
                    last_error = Some(e);
                }
            }
        }
        match last_error {
            Some(e) if found.is_empty() => Err(e),
            _ => Ok(found),
        }
    }

    /// The matching series of all blocks, each once, in ascending order of labels.
    pub async fn select(
        &self,
        ctx: &QueryContext,
        select: &SeriesSelect,
    ) -> Result<BoxStream<'static, Result<SeriesChunks>>> {
        let blocks = self.in_range(ctx, select.start_ms, select.end_ms);
        let share = SELECT_BYTES / (BATCHES_AHEAD * blocks.len().max(1)) as u64;
        let batch_bytes = share.clamp(64 << 10, BATCH_BYTES);
        let streams = self
            .each(ctx, blocks, |block| {
                let (ctx, select) = (ctx.clone(), select.clone());
                async move {
                    let series = block.select_in_batches(&ctx, &select, batch_bytes).await?;
                    Ok(or_missed(series, ctx, block))
                }
            })
            .await?;
        Ok(merge::merge_chunks(streams))
    }

    pub async fn label_names(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<String>> {
        let (start_ms, end_ms) = select::range(select);
        let blocks = self.in_range(ctx, start_ms, end_ms);
        let lists =
            self.each(ctx, blocks, |block| async move { block.label_names(ctx, select).await }).await?;
        Ok(merge::merge_strings(lists, select.limit))
    }

    pub async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &LabelsSelect,
    ) -> Result<Vec<String>> {
        let (start_ms, end_ms) = select::range(select);
        let blocks = self.in_range(ctx, start_ms, end_ms);
        let lists = self
            .each(ctx, blocks, |block| async move { block.label_values(ctx, name, select).await })
            .await?;
        Ok(merge::merge_strings(lists, select.limit))
    }

    /// Sorted label sets of the series that match any of the sets and have samples in the range.
    pub async fn series(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<Labels>> {
        let (start_ms, end_ms) = select::range(select);
        let blocks = self.in_range(ctx, start_ms, end_ms);
        let lists = self.each(ctx, blocks, |block| async move { block.series(ctx, select).await }).await?;
        Ok(merge::merge_series(lists, select.limit))
    }

    /// Blocks hold no metadata: nothing. It comes from what is recent.
    pub async fn metadata(
        &self,
        ctx: &QueryContext,
        _metric: &str,
        _limit: usize,
    ) -> Result<Vec<MetricMetadata>> {
        ctx.check()?;
        Ok(Vec::new())
    }

    /// Blocks hold no exemplars: nothing. They come from what is recent.
    pub async fn exemplars(
        &self,
        ctx: &QueryContext,
        _select: &LabelsSelect,
    ) -> Result<Vec<SeriesExemplars>> {
        ctx.check()?;
        Ok(Vec::new())
    }

    /// Totals over all blocks; names and values of those that overlap the newest one.
    pub async fn cardinality(&self, ctx: &QueryContext, limit: usize) -> Result<CardinalityStats> {
        let all = self.in_range(ctx, i64::MIN, i64::MAX);
        // Of all blocks, whoever else shows them.
        let known = self.snapshot(ctx.tenant());
        let Some(newest) = known.blocks.iter().map(Shown::meta).max_by_key(|m| m.end_ms).cloned() else {
            return Ok(CardinalityStats::default());
        };
        let mut stats: Vec<CardinalityStats> = all
            .iter()
            .map(|b| CardinalityStats {
                series: b.meta().stats.series,
                chunks: b.meta().stats.chunks,
                samples: b.meta().stats.samples,
                start_ms: b.meta().start_ms,
                end_ms: b.meta().end_ms - 1,
                ..CardinalityStats::default()
            })
            .collect();
        let recent =
            all.into_iter().filter(|b| b.meta().overlaps(newest.start_ms, newest.end_ms - 1)).collect();
        let names = self.each(ctx, recent, |block| async move {
            let series_by_metric = block.series_by_value(ctx, METRIC_NAME).await?;
            let header = block.header(Some(ctx)).await?;
            let values_by_label =
                header.names().map(|(name, count)| (name.to_owned(), count as u64)).collect();
            Ok(CardinalityStats {
                // Counted already; 1 says that there is something.
                series: 1,
                start_ms: i64::MAX,
                end_ms: i64::MIN,
                series_by_metric,
                values_by_label,
                ..CardinalityStats::default()
            })
        });
        stats.extend(names.await?);
        Ok(merge::merge_cardinality(stats, limit))
    }
}

/// Whether the query is over, rather than one block unreadable.
fn is_fatal(ctx: &QueryContext, e: &Error) -> bool {
    matches!(e.kind, Kind::Exhausted | Kind::Cancelled | Kind::Invalid) || ctx.check().is_err()
}

/// Ends a block's stream at an error and reports it, where the query itself can go on.
fn or_missed(
    series: BoxStream<'static, Result<SeriesChunks>>,
    ctx: QueryContext,
    block: Block,
) -> BoxStream<'static, Result<SeriesChunks>> {
    series
        .scan(false, move |ended, item| {
            let next = match item {
                _ if *ended => None,
                Err(e) if !is_fatal(&ctx, &e) => {
                    ctx.missed(format!("{}: {e}", block.path()));
                    None
                }
                item => Some(item),
            };
            *ended = next.as_ref().is_none_or(Result::is_err);
            std::future::ready(next)
        })
        .boxed()
}

#[cfg(test)]
mod tests;
