//! One round of tidying for one tenant: merge, retention, removal. Every step may be repeated and may be the last before a crash.
//!
//! ```text
//! live      meta.json                         read by everybody
//! compacted meta.compacted.json               replaced by a merged block, or too old; kept for `delete_delay` for readers that still
//!                                             know it
//! partial   neither                           an upload under way, or one that died: removed when nothing changed for `partial_ns`
//! ```
//! A merge writes the new block completely, then marks its sources. When it dies in between, the next round finds sources and result
//! live side by side and merges them again; spans are shown once all the while. Marking writes `meta.compacted.json` before it
//! deletes `meta.json`; a block with both counts as compacted.
//!
//! Two rounds for the same tenant at the same time do no harm beyond double work: every block has a name of its own, so nobody writes
//! over what another one wrote, and a block is marked only by who has just written all of its spans into another one. Where both merged
//! the same sources, the two results are copies, which the next round merges. A round that was overtaken finds blocks gone while it
//! reads them, and leaves them out.
//!
//! What is assumed of time: nobody stands still for `partial_ns` in the middle of an upload.
//!
//! A merge leaves each span once, and copies of a trace lie in blocks of one hour (`block/windows.rs` says which do not). Known hole: blocks
//! that are larger than `block_bytes_max` together keep their copies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use triptych_blob::object_store::ObjectStoreExt;
use triptych_blob::object_store::path::Path;
use triptych_blob::{Bucket, store_error};
use triptych_model::traces::TraceId;
use triptych_model::{Kind, Result, TenantId};
use triptych_runtime::{MemoryBudget, QueryContext, QueryLimits};
use uuid::Uuid;

use crate::block::meta::{CompactedMeta, TenantIndex};
use crate::block::read::block_dir;
use crate::block::{
    Block, BlockMeta, BlockOptions, BlockUpload, COMPACTED_META_NAME, META_NAME, NO_COMPACT_NAME, PREFIX,
    WINDOW_S,
};
use crate::bucket_store::{TenantListing, list_tenant, read_meta, read_object};
use crate::head::decode_parts;
use crate::otlp::KEEP_ALL;
use crate::view::Derived;

const TENANT_INDEX_NAME: &str = "index.json.gz";

/// How blocks are merged and when they go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompactConfig {
    /// Blocks are merged as long as the result stays below this, in bytes (Tempo: 100 GB).
    pub block_bytes_max: u64,
    /// Traces in a merged block at most (Tempo: 6 million).
    pub block_traces_max: u64,
    /// Blocks merged at once; bounds the memory of a merge.
    pub inputs_max: usize,
    /// Merges in one round at most.
    pub merges_max: usize,
    /// Blocks that ended longer ago are removed, in nanoseconds; 0: never.
    pub retention_ns: i64,
    /// How long a compacted block is kept for readers that know it still, in nanoseconds.
    pub delete_delay_ns: i64,
    /// How long an incomplete block may rest before it counts as left behind, in nanoseconds.
    pub partial_ns: i64,
    /// How merged blocks are written.
    pub options: BlockOptions,
}

const MINUTE_NS: i64 = 60_000_000_000;

impl Default for CompactConfig {
    fn default() -> Self {
        Self {
            block_bytes_max: 10 << 30,
            block_traces_max: 6_000_000,
            inputs_max: 8,
            merges_max: 64,
            retention_ns: 0,
            delete_delay_ns: 60 * MINUTE_NS,
            partial_ns: 12 * 60 * MINUTE_NS,
            options: BlockOptions::default(),
        }
    }
}

/// What a round did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompactReport {
    /// Blocks that went into merges.
    pub merged_blocks: u64,
    pub written_blocks: u64,
    pub written_bytes: u64,
    /// Blocks marked because they are older than the retention.
    pub expired_blocks: u64,
    pub deleted_blocks: u64,
    pub deleted_partial: u64,
    /// Spans that merges left out because another one has their trace and id.
    pub copies: u64,
    /// What could not be done, one sentence each; the next round tries again.
    pub failed: Vec<String>,
}

/// Runs one round. `now_ns` is the clock's.
pub async fn compact_tenant(
    bucket: &Bucket,
    tenant: &TenantId,
    config: &CompactConfig,
    now_ns: i64,
) -> Result<CompactReport> {
    let mut round =
        Round { bucket, tenant, config, now_ns, report: CompactReport::default(), changed: false };
    let listing = list_tenant(bucket, tenant.as_str()).await?;
    let mut live = round.load(&listing).await;
    let mut compacted = round.sweep(&listing).await;
    round.expire(&mut live, &mut compacted).await;
    round.merge(&listing, &mut live, &mut compacted).await?;
    round.write_index(&live, &compacted).await;
    Ok(round.report)
}

type Live = BTreeMap<Uuid, BlockMeta>;
type Compacted = BTreeMap<Uuid, CompactedMeta>;

struct Round<'r> {
    bucket: &'r Bucket,
    tenant: &'r TenantId,
    config: &'r CompactConfig,
    now_ns: i64,
    report: CompactReport,
    changed: bool,
}

impl Round<'_> {
    fn path(&self, id: &Uuid, name: &str) -> Path {
        block_dir(self.tenant.as_str(), id).join(name)
    }

    fn failed(&mut self, id: &Uuid, doing: &str, error: &triptych_model::Error) {
        self.report.failed.push(format!("traces block {}/{id}: {doing}: {error}", self.tenant));
    }

    async fn load(&mut self, listing: &TenantListing) -> Live {
        let mut live = Live::new();
        for id in &listing.live {
            match read_meta(self.bucket, self.tenant.as_str(), id).await {
                Ok(meta) => drop(live.insert(*id, meta)),
                Err(e) if e.kind == Kind::NotFound => {}
                Err(e) => self.failed(id, "reading meta.json", &e),
            }
        }
        live
    }

    /// Removes compacted blocks after their delay and what was left behind of uploads.
    async fn sweep(&mut self, listing: &TenantListing) -> Compacted {
        let mut compacted = Compacted::new();
        for (id, objects) in &listing.objects {
            if listing.compacted.contains(id) {
                let path = self.path(id, COMPACTED_META_NAME);
                let meta = match read_object(self.bucket, &path).await.and_then(|b| CompactedMeta::parse(&b))
                {
                    Ok(meta) => meta,
                    Err(e) => {
                        self.failed(id, "reading meta.compacted.json", &e);
                        continue;
                    }
                };
                let due = meta
                    .compacted_s
                    .saturating_mul(1_000_000_000)
                    .saturating_add(self.config.delete_delay_ns);
                if due > self.now_ns {
                    // A crash may have left the other meta.
                    let live = self.path(id, META_NAME);
                    if objects.iter().any(|(p, _)| *p == live)
                        && let Err(e) = self.delete(&live).await
                    {
                        self.failed(id, "deleting meta.json", &e);
                    }
                    compacted.insert(*id, meta);
                    continue;
                }
                match self.delete_block(id, objects).await {
                    Ok(()) => self.report.deleted_blocks += 1,
                    Err(e) => {
                        self.failed(id, "deleting", &e);
                        compacted.insert(*id, meta);
                    }
                }
            } else if !listing.live.contains(id) {
                let newest = objects.iter().map(|(_, modified_ns)| *modified_ns).max().unwrap_or_default();
                if newest.saturating_add(self.config.partial_ns) > self.now_ns {
                    continue;
                }
                match self.delete_block(id, objects).await {
                    Ok(()) => self.report.deleted_partial += 1,
                    Err(e) => self.failed(id, "deleting what was left behind", &e),
                }
            }
        }
        compacted
    }

    async fn delete(&mut self, path: &Path) -> Result<()> {
        self.changed = true;
        match self.bucket.delete(path).await.map_err(store_error) {
            Err(e) if e.kind != Kind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// The mark goes last, so that a crash leaves a block that is known to be on its way out.
    async fn delete_block(&mut self, id: &Uuid, objects: &[(Path, i64)]) -> Result<()> {
        let mark = self.path(id, COMPACTED_META_NAME);
        // `meta.json` first: what has one is read.
        let live = self.path(id, META_NAME);
        let mut paths: Vec<_> = objects.iter().map(|(p, _)| p.clone()).collect();
        paths.sort_by_key(|p| (*p == mark, *p != live));
        for path in &paths {
            self.delete(path).await?;
        }
        Ok(())
    }

    async fn mark(
        &mut self,
        meta: BlockMeta,
        replaced_by: Option<Uuid>,
        compacted: &mut Compacted,
    ) -> Result<()> {
        let id = meta.block_id;
        let mark = CompactedMeta { meta, compacted_s: self.now_ns.div_euclid(1_000_000_000), replaced_by };
        let path = self.path(&id, COMPACTED_META_NAME);
        self.bucket.put(&path, mark.to_json()?.into()).await.map_err(store_error)?;
        self.delete(&self.path(&id, META_NAME)).await?;
        compacted.insert(id, mark);
        Ok(())
    }

    async fn expire(&mut self, live: &mut Live, compacted: &mut Compacted) {
        if self.config.retention_ns <= 0 {
            return;
        }
        let oldest_ns = self.now_ns.saturating_sub(self.config.retention_ns);
        let old: Vec<_> =
            live.values().filter(|m| m.end_s.saturating_mul(1_000_000_000) < oldest_ns).cloned().collect();
        for meta in old {
            let id = meta.block_id;
            match self.mark(meta, None, compacted).await {
                Ok(()) => {
                    live.remove(&id);
                    self.report.expired_blocks += 1;
                }
                Err(e) => self.failed(&id, "marking as expired", &e),
            }
        }
    }

    async fn merge(
        &mut self,
        listing: &TenantListing,
        live: &mut Live,
        compacted: &mut Compacted,
    ) -> Result<()> {
        // Blocks that stay out of it: by somebody's wish, or because they can't be read.
        let mut left_out: BTreeSet<Uuid> = listing
            .objects
            .iter()
            .filter(|(_, objects)| objects.iter().any(|(p, _)| p.filename() == Some(NO_COMPACT_NAME)))
            .map(|(id, _)| *id)
            .collect();
        left_out.extend(live.values().filter(|m| m.check_format().is_err()).map(|m| m.block_id));
        for _ in 0..self.config.merges_max {
            let candidates: Vec<_> = live.values().filter(|m| !left_out.contains(&m.block_id)).collect();
            let inputs: Vec<_> = plan(&candidates, self.config, self.now_ns).into_iter().cloned().collect();
            if inputs.is_empty() {
                return Ok(());
            }
            let merged = merge_blocks(self.bucket, self.tenant, &inputs, &self.config.options).await;
            let replaced_by = match merged {
                Ok(Merged { block, copies }) => {
                    self.report.copies += copies;
                    let written_id = block.as_ref().map(|written| written.block_id);
                    if let Some(written) = block {
                        self.changed = true;
                        self.report.written_blocks += 1;
                        self.report.written_bytes += written.size;
                        live.insert(written.block_id, written);
                    }
                    written_id
                }
                Err(MergeError::Input(id, e)) => {
                    self.failed(&id, "merging", &e);
                    left_out.insert(id);
                    continue;
                }
                Err(MergeError::Output(e)) => return Err(e.context("writing a merged block")),
            };
            for meta in inputs {
                let id = meta.block_id;
                live.remove(&id);
                self.report.merged_blocks += 1;
                if let Err(e) = self.mark(meta, replaced_by, compacted).await {
                    self.failed(&id, "marking as merged", &e);
                }
            }
        }
        Ok(())
    }

    async fn write_index(&mut self, live: &Live, compacted: &Compacted) {
        if !self.changed {
            return;
        }
        let index = TenantIndex {
            created_s: self.now_ns.div_euclid(1_000_000_000),
            meta: live.values().cloned().collect(),
            compacted: compacted.values().cloned().collect(),
        };
        let path = Path::from_iter([PREFIX, self.tenant.as_str(), TENANT_INDEX_NAME]);
        let written = match index.to_gzip() {
            Ok(bytes) => self.bucket.put(&path, bytes.into()).await.map(drop).map_err(store_error),
            Err(e) => Err(e),
        };
        if let Err(e) = written {
            self.report.failed.push(format!("{path}: {e}"));
        }
    }
}

/// The next blocks to merge; none where there is nothing to do. Only blocks whose first traces began in the same hour are merged: a flush
/// writes a block for each hour, so these hold all copies of their traces. The newest window and the one before it are still growing: there
/// only blocks of one level are merged, so that a byte is rewritten once per level and not by every newcomer. Older windows are
/// merged across levels, smallest first.
fn plan<'m>(blocks: &[&'m BlockMeta], config: &CompactConfig, now_ns: i64) -> Vec<&'m BlockMeta> {
    let now = now_ns.div_euclid(1_000_000_000).div_euclid(WINDOW_S);
    let mut groups: BTreeMap<(i64, u32), Vec<&BlockMeta>> = BTreeMap::new();
    for meta in blocks {
        let window = meta.start_s.div_euclid(WINDOW_S);
        let level = if now - window < 2 { meta.compaction_level } else { 0 };
        // Blocks with other columns of their own, or of another format, are merged too: what is written has ours.
        groups.entry((-window, level)).or_default().push(meta);
    }
    for mut group in groups.into_values() {
        group.sort_by_key(|m| (m.size, m.block_id));
        let (mut bytes, mut traces) = (0u64, 0u64);
        let fitting: Vec<_> = group
            .into_iter()
            .take(config.inputs_max.max(2))
            .take_while(|m| {
                bytes = bytes.saturating_add(m.size);
                traces = traces.saturating_add(m.total_objects);
                bytes <= config.block_bytes_max && traces <= config.block_traces_max
            })
            .collect();
        if fitting.len() > 1 {
            return fitting;
        }
    }
    Vec::new()
}

enum MergeError {
    /// A source can't be read.
    Input(Uuid, triptych_model::Error),
    Output(triptych_model::Error),
}

/// What came of a merge.
struct Merged {
    /// `None` where the sources hold no span.
    block: Option<BlockMeta>,
    copies: u64,
}

/// Writes one block of several.
async fn merge_blocks(
    bucket: &Bucket,
    tenant: &TenantId,
    inputs: &[BlockMeta],
    options: &BlockOptions,
) -> std::result::Result<Merged, MergeError> {
    let level = inputs.iter().map(|m| m.compaction_level).max().unwrap_or_default().saturating_add(1);
    let mut upload = BlockUpload::new(bucket, tenant, options, level).map_err(MergeError::Output)?;
    match copy_traces(bucket, tenant, inputs, &mut upload).await {
        Ok(copies) => {
            let uploaded = upload.finish().await.map_err(MergeError::Output)?;
            Ok(Merged { block: uploaded.map(|uploaded| uploaded.meta), copies })
        }
        Err(e) => {
            upload.abort().await;
            Err(e)
        }
    }
}

/// Says how many spans were copies.
async fn copy_traces(
    bucket: &Bucket,
    tenant: &TenantId,
    inputs: &[BlockMeta],
    upload: &mut BlockUpload,
) -> std::result::Result<u64, MergeError> {
    let limits = QueryLimits { timeout: std::time::Duration::from_secs(24 * 3600), ..QueryLimits::default() };
    let memory = MemoryBudget::new("memory of the merge", limits.memory_bytes_max);
    let ctx = QueryContext::drawing_on(&memory, tenant.clone(), limits);
    let mut sources = Vec::with_capacity(inputs.len());
    let mut heads: Vec<Option<(TraceId, Bytes)>> = Vec::with_capacity(inputs.len());
    for meta in inputs {
        let id = meta.block_id;
        let block = Block::new(bucket.clone(), Arc::new(meta.clone()));
        let file = block.open(&ctx).await.map_err(|e| MergeError::Input(id, e))?;
        let mut traces = block.traces(&ctx, Arc::new(file));
        heads.push(traces.next().await.transpose().map_err(|e| MergeError::Input(id, e))?);
        sources.push((id, traces));
    }
    let (mut copied, mut copies) = (0u64, 0u64);
    while let Some(next) = heads.iter().flatten().map(|(id, _)| *id).min() {
        let mut parts: Vec<Bytes> = Vec::new();
        for (head, (id, traces)) in heads.iter_mut().zip(&mut sources) {
            // A block should have a trace once; one that has it twice is healed here.
            while let Some((_, otlp)) = head.take_if(|(trace_id, _)| *trace_id == next) {
                parts.push(otlp);
                *head = traces.next().await.transpose().map_err(|e| MergeError::Input(*id, e))?;
            }
        }
        let decoded = decode_parts(next, &parts, KEEP_ALL);
        copies += decoded.copies as u64;
        let trace = decoded.trace;
        if trace.span_count() > 0 {
            upload.add(&trace, &Derived::of(&trace)).await.map_err(MergeError::Output)?;
        }
        copied += 1;
        if copied.is_multiple_of(256) {
            tokio::task::yield_now().await;
        }
    }
    Ok(copies)
}

#[cfg(test)]
mod tests;
