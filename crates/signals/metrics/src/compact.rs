//! Merges a tenant's blocks, removes what is over. One round for one tenant; every step may be repeated, and a crash between any
//! two steps leaves a bucket that reads right.
//!
//! | step | after a crash in it |
//! |---|---|
//! | 1. remove blocks whose deletion mark is older than the delay: `meta.json` first, the mark last | no `meta.json`: nobody reads it; the mark is still there: removed at once |
//! | 2. remove uploads without `meta.json` when nothing was written to them for some hours | the same again |
//! | 3. mark blocks that are older than the retention | the same again |
//! | 4. mark blocks whose samples are all in another block | the same again |
//! | 5. merge groups of blocks ([`plan`](mod@plan)): chunks, index, `meta.json` of the new one, then marks on the sources | without `meta.json`: step 2 removes it. Without marks: step 4 sets them |
//!
//! A merged block names its level-1 sources, so that stores and step 4 know what it holds. Copies of samples (replicas, blocks
//! written twice) are removed for good here. A block that cannot be read gets a `no-compact-mark.json` and stays as it is.
//!
//! Two rounds for the same tenant at the same time do no harm beyond double work: every block has a name of its own, so nobody writes
//! over what another one wrote; a block is marked only by who has seen all of its samples in another whole block that is not marked;
//! and what that block is marked for in its turn is a third one that holds them. Of blocks with the same sources all choose the same
//! one to stay. A round that was overtaken finds blocks gone while it reads them, and gives up.
//!
//! What is assumed of time: nobody stands still for `partial_delay_ms` in the middle of an upload.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hashbrown::HashSet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use triptych_blob::Bucket;
use triptych_blob::object_store::path::Path;
use triptych_blob::object_store::{self, ObjectStoreExt, PutMode, PutOptions};
use triptych_model::metrics::SeriesSelect;
use triptych_model::{Error, Kind, Labels, Matcher, Result, TenantId};
use triptych_runtime::{MemoryBudget, QueryContext, QueryLimits};

use crate::block::meta::{Compaction, DeletionMark, NoCompactMark, Parent};
use crate::block::reader::{BATCH_BYTES, BATCHES_AHEAD};
use crate::block::writer::MetaParts;
use crate::block::{
    Block, BlockCaches, BlockId, BlockMeta, BlockWriter, DELETION_MARK_FILE, META_FILE, NO_COMPACT_MARK_FILE,
    block_path, bucket_error, file_path,
};
use crate::chunk;
use crate::listing::{self, BlockObjects};
use crate::merge::{merge_chunks, tidy_chunks};

pub use crate::listing::tenants;

const HOUR_MS: i64 = 3_600_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompactConfig {
    /// Aligned windows that blocks grow into, in milliseconds.
    pub ranges_ms: Vec<i64>,
    /// A window is merged so long after its end, in milliseconds: late samples should be in by then.
    pub grace_ms: i64,
    /// Blocks whose newest sample is older are removed; 0: kept for ever.
    pub retention_ms: i64,
    /// From the mark to the deletion, in milliseconds. Longer than a store needs for two syncs and its longest query.
    pub delete_delay_ms: i64,
    /// Uploads without `meta.json` are removed so long after their last object was written.
    pub partial_delay_ms: i64,
    /// Blocks merged at one time.
    pub merge_blocks_max: usize,
    /// Merges per round.
    pub merges_max: usize,
    /// Memory for the chunks and index parts that a merge holds, in bytes.
    pub memory_bytes_max: usize,
    /// External labels in which copies of the same data differ (ingesters write `replica`). Blocks that differ in others are
    /// never merged.
    pub replica_labels: Vec<String>,
    /// The bucket refuses to create an object that is there. Without it the time of a mark that is set twice is that of the second.
    pub has_conditional_puts: bool,
}

impl Default for CompactConfig {
    fn default() -> Self {
        Self {
            ranges_ms: vec![2 * HOUR_MS, 8 * HOUR_MS, 48 * HOUR_MS],
            grace_ms: HOUR_MS,
            retention_ms: 0,
            delete_delay_ms: 2 * HOUR_MS,
            partial_delay_ms: 12 * HOUR_MS,
            merge_blocks_max: 64,
            merges_max: 16,
            memory_bytes_max: 512 << 20,
            replica_labels: vec!["replica".to_owned(), "ingester".to_owned()],
            has_conditional_puts: false,
        }
    }
}

/// What a round did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CompactReport {
    pub merged: Vec<Merged>,
    /// Blocks that got a deletion mark.
    pub marked: Vec<BlockId>,
    /// Blocks whose objects were removed.
    pub deleted: Vec<BlockId>,
    /// Uploads without `meta.json` that were removed.
    pub partial_deleted: Vec<BlockId>,
    /// Samples that merges left out because another one has their series and time.
    pub copies: u64,
    /// What did not work, one sentence each; the round went on without it.
    pub failed: Vec<String>,
    /// Blocks that are neither marked nor partial, after the round.
    pub blocks: usize,
    /// There is more to merge: another round is worth while.
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    pub sources: Vec<BlockId>,
    pub into: BlockMeta,
}

struct Round<'a> {
    bucket: &'a Bucket,
    tenant: &'a TenantId,
    config: &'a CompactConfig,
    now_ms: i64,
    report: CompactReport,
}

/// One round for one tenant. Fails only where the bucket cannot be listed; everything else is in the report.
pub async fn compact_tenant(
    bucket: &Bucket,
    tenant: &TenantId,
    config: &CompactConfig,
    now_ms: i64,
) -> Result<CompactReport> {
    let mut round = Round { bucket, tenant, config, now_ms, report: CompactReport::default() };
    let listed = listing::list_tenant(bucket, tenant).await?;
    let mut live = round.clean(listed).await;
    round.retire(&mut live).await;
    round.report.blocks = live.len();

    // Blocks of another origin (a foreign bucket's external labels) hold other series under the same labels.
    let mut origins: BTreeMap<BTreeMap<&str, &str>, Vec<&BlockMeta>> = BTreeMap::new();
    for (block, objects) in live.values() {
        let meta = block.meta();
        if meta.thanos.downsample.resolution == 0 && !objects.is_no_compact() {
            let labels = meta.thanos.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let origin =
                labels.filter(|(name, _)| !config.replica_labels.iter().any(|r| r == name)).collect();
            origins.entry(origin).or_default().push(meta);
        }
    }
    let groups: Vec<Vec<BlockId>> =
        origins.values().flat_map(|metas| plan::plan(metas, config, now_ms)).collect();
    round.report.more = groups.len() > config.merges_max;
    for group in groups.into_iter().take(config.merges_max) {
        let blocks: Vec<Block> =
            group.iter().filter_map(|id| live.get(id)).map(|(block, _)| block.clone()).collect();
        round.merge(blocks).await;
    }
    Ok(round.report)
}

impl Round<'_> {
    fn failed(&mut self, doing: impl std::fmt::Display, e: &Error) {
        tracing::warn!(tenant = %self.tenant, "{doing}: {e}");
        self.report.failed.push(format!("{doing}: {e}"));
    }

    /// Steps 1 and 2. What is left: blocks that exist and are not marked.
    async fn clean(
        &mut self,
        listed: BTreeMap<BlockId, BlockObjects>,
    ) -> BTreeMap<BlockId, (Block, BlockObjects)> {
        let caches = BlockCaches::new(
            (self.config.memory_bytes_max / 4) as u64,
            (self.config.memory_bytes_max / 8) as u64,
        );
        let mut live = BTreeMap::new();
        for (id, objects) in listed {
            if objects.is_marked() {
                let result = if objects.has_meta() { self.mark_is_due(id).await } else { Ok(true) };
                match result {
                    Ok(true) => match self.delete(id, &objects).await {
                        Ok(()) => self.report.deleted.push(id),
                        Err(e) => self.failed(format_args!("deleting block {id}"), &e),
                    },
                    Ok(false) => {}
                    Err(e) => self.failed(format_args!("deletion mark of block {id}"), &e),
                }
            } else if !objects.has_meta() {
                let touched_ms = objects.newest_ms.max(id.made_ms());
                if touched_ms.saturating_add(self.config.partial_delay_ms) <= self.now_ms {
                    match self.delete(id, &objects).await {
                        Ok(()) => self.report.partial_deleted.push(id),
                        Err(e) => self.failed(format_args!("deleting partial block {id}"), &e),
                    }
                }
            } else {
                let dir = block_path(self.tenant, id);
                match Block::load(self.bucket, dir, objects.sizes.clone(), &caches).await {
                    Ok(block) => _ = live.insert(id, (block, objects)),
                    Err(e) if e.kind == Kind::NotFound => {}
                    Err(e) => self.failed(format_args!("block {id}"), &e),
                }
            }
        }
        live
    }

    /// Steps 3 and 4.
    async fn retire(&mut self, live: &mut BTreeMap<BlockId, (Block, BlockObjects)>) {
        let mut leaving: BTreeMap<BlockId, String> = BTreeMap::new();
        if self.config.retention_ms > 0 {
            let oldest_ms = self.now_ms.saturating_sub(self.config.retention_ms);
            for (id, (block, _)) in live.iter() {
                if block.meta().end_ms <= oldest_ms {
                    leaving
                        .insert(*id, format!("older than the retention of {} ms", self.config.retention_ms));
                }
            }
        }
        let staying =
            live.iter().filter(|(id, _)| !leaving.contains_key(id)).map(|(_, (block, _))| block.meta());
        for (id, by) in listing::covered(staying, |_| true) {
            leaving.insert(id, format!("its samples are in block {by}"));
        }
        for (id, details) in leaving {
            live.remove(&id);
            self.mark(id, details).await;
        }
    }

    /// Step 5 for one group.
    async fn merge(&mut self, blocks: Vec<Block>) {
        if blocks.len() < 2 {
            return;
        }
        let culprit: Arc<Mutex<Option<BlockId>>> = Arc::default();
        let sources: Vec<BlockId> = blocks.iter().map(|b| b.meta().ulid).collect();
        match self.write_merged(&blocks, &culprit).await {
            Ok(into) => {
                self.report.blocks += 1;
                self.report.blocks -= sources.len().min(self.report.blocks);
                let before: u64 = blocks.iter().map(|b| b.meta().stats.samples).sum();
                self.report.copies += before.saturating_sub(into.stats.samples);
                for id in &sources {
                    self.mark(*id, format!("merged into block {}", into.ulid)).await;
                }
                self.report.merged.push(Merged { sources, into });
            }
            Err(e) => {
                self.failed(format_args!("merging {sources:?}"), &e);
                let culprit = *culprit.lock();
                if let Some(id) = culprit
                    && matches!(e.kind, Kind::Damaged | Kind::Invalid)
                {
                    let mark = NoCompactMark {
                        id,
                        version: 1,
                        details: e.to_string(),
                        no_compact_time: self.now_ms / 1000,
                        reason: "manual".to_owned(),
                    };
                    if let Err(e) = self.put_mark(id, NO_COMPACT_MARK_FILE, &mark).await {
                        self.failed(format_args!("marking block {id}"), &e);
                    }
                    self.report.more = true;
                }
            }
        }
    }

    async fn write_merged(
        &self,
        blocks: &[Block],
        culprit: &Arc<Mutex<Option<BlockId>>>,
    ) -> Result<BlockMeta> {
        let limits = QueryLimits {
            memory_bytes_max: self.config.memory_bytes_max,
            timeout: Duration::from_secs(24 * 3600),
            ..QueryLimits::default()
        };
        let memory = MemoryBudget::new("memory of the merge", self.config.memory_bytes_max);
        let ctx = QueryContext::drawing_on(&memory, self.tenant.clone(), limits);
        let share = self.config.memory_bytes_max as u64 / 2 / (BATCHES_AHEAD * blocks.len()) as u64;
        let batch_bytes = share.clamp(64 << 10, BATCH_BYTES);

        let mut symbols: HashSet<Arc<str>> = HashSet::new();
        let mut streams = Vec::with_capacity(blocks.len());
        for block in blocks {
            let id = block.meta().ulid;
            let blame = |e: Error| {
                *culprit.lock() = Some(id);
                e.context(format_args!("block {id}"))
            };
            let header = block.header(None).await.map_err(blame)?;
            for symbol in header.symbols() {
                if !symbols.contains(symbol) {
                    symbols.insert(Arc::from(symbol));
                }
            }
            let culprit = culprit.clone();
            let series = block
                .scan(&ctx, batch_bytes)
                .await
                .map_err(blame)?
                .map(move |series| series.inspect_err(|_| *culprit.lock() = Some(id)));
            streams.push(series.boxed());
        }

        let id = BlockId::new(self.now_ms);
        let mut writer =
            BlockWriter::new(self.bucket, self.tenant, id, symbols.into_iter().collect()).await?;
        let mut merged = merge_chunks(streams);
        while let Some(series) = merged.next().await {
            let written = match series {
                Ok(series) => match tidy_chunks(series.chunks) {
                    Ok(chunks) => writer.series(&series.labels, &chunks).await,
                    Err(e) => {
                        *culprit.lock() = find_culprit(&ctx, blocks, &series.labels).await;
                        Err(e)
                    }
                },
                Err(e) => Err(e),
            };
            if let Err(e) = written {
                writer.abort().await;
                return Err(e);
            }
        }
        writer.finish(self.parts(blocks)).await
    }

    fn parts(&self, blocks: &[Block]) -> MetaParts {
        let metas = || blocks.iter().map(Block::meta);
        let mut labels = metas().next().map(|m| m.thanos.labels.clone()).unwrap_or_default();
        labels.retain(|name, value| metas().all(|m| m.thanos.labels.get(name) == Some(value)));
        let sources: BTreeSet<BlockId> = metas().flat_map(BlockMeta::sources).collect();
        let parent = |m: &BlockMeta| Parent { ulid: m.ulid, start_ms: m.start_ms, end_ms: m.end_ms };
        MetaParts {
            start_ms: metas().map(|m| m.start_ms).min().unwrap_or_default(),
            end_ms: metas().map(|m| m.end_ms).max().unwrap_or_default(),
            compaction: Compaction {
                level: metas().map(|m| m.compaction.level).max().unwrap_or_default() + 1,
                sources: sources.into_iter().collect(),
                parents: metas().map(parent).collect(),
            },
            labels,
            source: "compactor".to_owned(),
        }
    }

    async fn mark(&mut self, id: BlockId, details: String) {
        let mark = DeletionMark { id, version: 1, details, deletion_time: self.now_ms / 1000 };
        match self.put_mark(id, DELETION_MARK_FILE, &mark).await {
            Ok(()) => self.report.marked.push(id),
            Err(e) => self.failed(format_args!("marking block {id}"), &e),
        }
    }

    /// A mark that is there already stays, with its time, where the bucket honours that.
    async fn put_mark(&self, id: BlockId, file: &str, mark: &impl Serialize) -> Result<()> {
        let path = file_path(&block_path(self.tenant, id), file);
        let json = serde_json::to_vec(mark).map_err(|e| Error::internal(format!("{path}: {e}")))?;
        let mode = if self.config.has_conditional_puts { PutMode::Create } else { PutMode::Overwrite };
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.bucket.put_opts(&path, json.into(), options).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(e) => Err(bucket_error(format!("writing {path}"), e)),
        }
    }

    async fn mark_is_due(&self, id: BlockId) -> Result<bool> {
        let path = file_path(&block_path(self.tenant, id), DELETION_MARK_FILE);
        let doing = || format!("reading {path}");
        let answer = self.bucket.get(&path).await.map_err(|e| bucket_error(doing(), e))?;
        let json = answer.bytes().await.map_err(|e| bucket_error(doing(), e))?;
        let mark: DeletionMark =
            serde_json::from_slice(&json).map_err(|e| Error::damaged(format!("{path}: {e}")))?;
        let due_ms = mark.deletion_time.saturating_mul(1000).saturating_add(self.config.delete_delay_ms);
        Ok(due_ms <= self.now_ms)
    }

    /// `meta.json` goes first: from then on nobody reads the block. The mark goes last: until then it says what is going on.
    async fn delete(&self, id: BlockId, objects: &BlockObjects) -> Result<()> {
        let dir = block_path(self.tenant, id);
        let middle =
            objects.sizes.keys().map(String::as_str).filter(|n| ![META_FILE, DELETION_MARK_FILE].contains(n));
        let order = [META_FILE].into_iter().chain(middle).chain([DELETION_MARK_FILE]);
        for name in order.filter(|n| objects.sizes.contains_key(*n)) {
            let path: Path = file_path(&dir, name);
            match self.bucket.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(bucket_error(format!("deleting {path}"), e)),
            }
        }
        Ok(())
    }
}

/// The block whose chunks of a series cannot be decoded, although their checksums are right.
async fn find_culprit(ctx: &QueryContext, blocks: &[Block], labels: &Labels) -> Option<BlockId> {
    let matchers = labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
    let select =
        SeriesSelect { matchers, start_ms: i64::MIN, end_ms: i64::MAX, skip_chunks: false, shard: None };
    for block in blocks {
        let Ok(mut found) = block.select(ctx, &select).await else { return Some(block.meta().ulid) };
        while let Some(series) = found.next().await {
            let decodes = series
                .is_ok_and(|s| s.chunks.iter().all(|c| chunk::decode_chunk(c, &mut Vec::new()).is_ok()));
            if !decodes {
                return Some(block.meta().ulid);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
