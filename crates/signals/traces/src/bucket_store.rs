//! All tenants' blocks in the bucket: which there are, and reads over those that a question touches.
//!
//! A block whose mark names what replaced it is not asked: it may go at any time. What replaced it is asked in its place. Where several
//! stores divide the blocks ([`BucketStore::share`]) the block's owner does that too, beside the owner of the replacement: until it has
//! known that for [`BucketStoreConfig::replaced_shown`], and so every other store must know it. No clock of another machine counts.
//!
//! Where a mark names nothing that is there, its block is shown until a later sync than the one that found the mark, and for as long at
//! least: what may have replaced it was complete before the mark was written, and that listing has it for sure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use moka::future::Cache;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use triptych_blob::object_store::path::Path;
use triptych_blob::object_store::{ObjectStore, ObjectStoreExt};
use triptych_blob::{Bucket, CacheConfig, CachedBucket, WarmReport, store_error};
use triptych_model::traces::{
    ScopeTags, SpanSampleSelect, TagsSelect, TraceId, TraceMatch, TraceParts, TraceSamples, TraceSearch,
    Value,
};
use triptych_model::{Error, Kind, Result, Share, TenantId, Version};
use triptych_runtime::QueryContext;
use triptych_traceql::source::FetchSpans;
use triptych_traceql::{SpanSource, TraceSpans};
use uuid::Uuid;

use crate::block::meta::CompactedMeta;
use crate::block::read::{Block, File};
use crate::block::{BlockMeta, COMPACTED_META_NAME, META_NAME, PREFIX};
use crate::merge;
use crate::query::{tags_fetch, tags_matcher};
use crate::tags::{TagNames, TagValues};
use crate::view::Matcher;

/// Tenants that a sync lists side by side.
const TENANTS_AHEAD: usize = 16;

/// What a store keeps in memory and how wide it reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BucketStoreConfig {
    /// Byte ranges of `data.parquet`.
    pub cache: CacheConfig,
    /// Decoded footers, in bytes.
    pub footer_bytes_max: u64,
    /// Blocks of one question that are read side by side.
    pub blocks_ahead: usize,
    /// `meta.json` objects that a sync reads side by side.
    pub metas_ahead: usize,
    /// How long what replaced a block is asked by the block's owner too. Zero where one store alone shows all blocks; see the module.
    pub replaced_shown: Duration,
}

impl Default for BucketStoreConfig {
    fn default() -> Self {
        Self {
            cache: CacheConfig::default(),
            footer_bytes_max: 64 << 20,
            blocks_ahead: 8,
            metas_ahead: 16,
            replaced_shown: Duration::ZERO,
        }
    }
}

/// A block that is in the bucket.
#[derive(Clone)]
struct Known {
    meta: Arc<BlockMeta>,
    /// When the sync ended that found it.
    found: Instant,
    mark: Option<Mark>,
    is_shown: bool,
    /// What it replaced, as long as not everybody must know that.
    stands_for: Vec<Uuid>,
}

impl Known {
    /// Whose owners ask it.
    fn ids(&self) -> impl Iterator<Item = &Uuid> {
        std::iter::once(&self.meta.block_id).chain(&self.stands_for)
    }
}

/// A block is on its way out.
#[derive(Clone)]
struct Mark {
    /// When the sync ended that found it.
    found: Instant,
    replaced_by: Option<Uuid>,
}

type Blocks = BTreeMap<Uuid, Known>;

/// What a sync found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncReport {
    pub tenants: usize,
    /// Blocks that reads ask now.
    pub blocks: usize,
    pub added: usize,
    pub removed: usize,
    /// Blocks whose `meta.json` could not be read, one sentence each.
    pub failed: Vec<String>,
}

struct Inner {
    bucket: Bucket,
    /// For objects that never change.
    cached: Bucket,
    config: BucketStoreConfig,
    tenants: RwLock<HashMap<String, Arc<Tenant>>>,
    footers: Cache<Uuid, Arc<File>>,
}

/// One tenant's blocks.
#[derive(Default)]
struct Tenant {
    blocks: Blocks,
    /// Blocks whose metas could not be read at the last sync, a sentence each.
    unread: Vec<(Uuid, String)>,
}

impl Tenant {
    /// Shows what replaced a block instead of it; it stands for the block as long as `is_new` says.
    fn put_replacements(&mut self, is_new: impl Fn(&Known) -> bool) {
        let replaced: Vec<_> =
            self.blocks.keys().filter_map(|id| Some((*id, self.replacement(id)?))).collect();
        for known in self.blocks.values_mut() {
            known.stands_for.clear();
        }
        for (id, by) in replaced {
            if let Some(known) = self.blocks.get_mut(&id) {
                known.is_shown = false;
            }
            if let Some(known) = self.blocks.get_mut(&by).filter(|known| is_new(known)) {
                known.stands_for.push(id);
            }
        }
    }

    /// What holds the spans of a block that was replaced, if that is there: it may have been replaced in its turn.
    fn replacement(&self, id: &Uuid) -> Option<Uuid> {
        let mut by = self.blocks.get(id)?.mark.as_ref()?.replaced_by?;
        // Bounded: marks of somebody's making may name each other.
        for _ in 0..self.blocks.len() {
            match &self.blocks.get(&by)?.mark {
                Some(mark) => by = mark.replaced_by?,
                None => return Some(by),
            }
        }
        None
    }
}

/// The blocks of all tenants. Clones share them, but not whose blocks they read.
#[derive(Clone)]
pub struct BucketStore {
    inner: Arc<Inner>,
    share: Option<Share>,
}

/// Which blocks and compacted blocks a tenant's folder has, by listing.
pub(crate) struct TenantListing {
    pub live: Vec<Uuid>,
    pub compacted: Vec<Uuid>,
    /// All objects of each block's folder.
    pub objects: BTreeMap<Uuid, Vec<(Path, i64)>>,
}

/// Whether the object makes the others of its block visible: it must be written last and deleted first.
pub fn completes(path: &Path) -> bool {
    path.filename() == Some(META_NAME)
}

/// The tenants that have anything in the bucket.
pub async fn tenants(bucket: &Bucket) -> Result<Vec<TenantId>> {
    let listing = bucket.list_with_delimiter(Some(&Path::from(PREFIX))).await.map_err(store_error)?;
    let mut out: Vec<_> = listing
        .common_prefixes
        .iter()
        .filter_map(|p| TenantId::new(p.parts().next_back()?.as_ref()).ok())
        .collect();
    out.sort();
    Ok(out)
}

pub(crate) async fn list_tenant(bucket: &Bucket, tenant: &str) -> Result<TenantListing> {
    let prefix = Path::from_iter([PREFIX, tenant]);
    let mut out = TenantListing { live: Vec::new(), compacted: Vec::new(), objects: BTreeMap::new() };
    let mut objects = bucket.list(Some(&prefix));
    while let Some(object) = objects.try_next().await.map_err(store_error)? {
        let mut parts = object.location.parts().skip(2);
        let (Some(id), Some(name)) = (parts.next(), parts.next()) else { continue };
        let Ok(id) = id.as_ref().parse::<Uuid>() else { continue };
        match name.as_ref() {
            META_NAME => out.live.push(id),
            COMPACTED_META_NAME => out.compacted.push(id),
            _ => {}
        }
        let modified_ns = object.last_modified.timestamp_nanos_opt().unwrap_or_default();
        out.objects.entry(id).or_default().push((object.location, modified_ns));
    }
    // A block that is both was being marked when the process died: the mark counts.
    out.live.retain(|id| !out.compacted.contains(id));
    Ok(out)
}

pub(crate) async fn read_object(bucket: &Bucket, path: &Path) -> Result<Bytes> {
    bucket.get(path).await.map_err(store_error)?.bytes().await.map_err(store_error)
}

pub(crate) async fn read_meta(bucket: &Bucket, tenant: &str, id: &Uuid) -> Result<BlockMeta> {
    let path = crate::block::read::block_dir(tenant, id).join(META_NAME);
    let meta = BlockMeta::parse(&read_object(bucket, &path).await?)?;
    of_place(meta, tenant, id, &path)
}

/// As [`read_meta`], of a block that was marked as compacted.
async fn read_compacted_meta(bucket: &Bucket, tenant: &str, id: &Uuid) -> Result<CompactedMeta> {
    let path = crate::block::read::block_dir(tenant, id).join(COMPACTED_META_NAME);
    let mut mark = CompactedMeta::parse(&read_object(bucket, &path).await?)?;
    mark.meta = of_place(mark.meta, tenant, id, &path)?;
    Ok(mark)
}

fn of_place(mut meta: BlockMeta, tenant: &str, id: &Uuid, path: &Path) -> Result<BlockMeta> {
    if meta.block_id != *id {
        return Err(Error::damaged(format!("{path}: names block {}", meta.block_id)));
    }
    // A bucket may have been copied to another tenant's name: where the block lies is what counts.
    tenant.clone_into(&mut meta.tenant_id);
    Ok(meta)
}

impl BucketStore {
    pub fn new(bucket: Bucket, config: BucketStoreConfig) -> Self {
        let cached: Bucket = Arc::new(CachedBucket::new(bucket.clone(), config.cache.clone()));
        let footers = Cache::builder()
            .max_capacity(config.footer_bytes_max)
            .weigher(|_: &Uuid, file: &Arc<File>| u32::try_from(file.memory()).unwrap_or(u32::MAX))
            .build();
        let tenants = RwLock::default();
        Self { inner: Arc::new(Inner { bucket, cached, config, tenants, footers }), share: None }
    }

    /// The same store, whose reads ask only the blocks that `share` owns, by their ids. `None`: all blocks.
    pub fn share(&self, share: Option<&Share>) -> Self {
        Self { inner: self.inner.clone(), share: share.cloned() }
    }

    fn owns(&self, id: &Uuid) -> bool {
        self.share.as_ref().is_none_or(|share| share.owns(id.as_bytes()))
    }

    /// Finds new and vanished blocks of all tenants. A block whose meta can't be read is left out and said; a tenant that can't be
    /// listed fails the sync and keeps what was known.
    pub async fn sync(&self) -> Result<SyncReport> {
        let inner = &*self.inner;
        let mut report = SyncReport::default();
        let mut found = HashMap::new();
        let listed = tenants(&inner.bucket).await?.into_iter().map(async |tenant| {
            let before = inner.tenants.read().get(tenant.as_str()).cloned().unwrap_or_default();
            let now = self.list(tenant.as_str(), &before.blocks).await?;
            Ok::<_, Error>((tenant, before, now))
        });
        let mut listed = futures::stream::iter(listed).buffer_unordered(TENANTS_AHEAD);
        while let Some((tenant, before, now)) = listed.try_next().await? {
            report.added += now.blocks.keys().filter(|id| !before.blocks.contains_key(*id)).count();
            report.removed += before.blocks.keys().filter(|id| !now.blocks.contains_key(*id)).count();
            report.blocks += now.blocks.values().filter(|known| known.is_shown).count();
            report.failed.extend(now.unread.iter().map(|(_, sentence)| sentence.clone()));
            report.tenants += usize::from(!now.blocks.is_empty());
            if !now.blocks.is_empty() || !now.unread.is_empty() {
                found.insert(tenant.as_str().to_owned(), Arc::new(now));
            }
        }
        drop(listed);
        let mut tenants = inner.tenants.write();
        for (tenant, before) in tenants.iter() {
            if !found.contains_key(tenant) {
                report.removed += before.blocks.len();
            }
        }
        *tenants = found;
        Ok(report)
    }

    /// A tenant's blocks as they are listed now, with the metas of those that were not known before.
    async fn list(&self, tenant: &str, before: &Blocks) -> Result<Tenant> {
        let Inner { bucket, config, .. } = &*self.inner;
        let listing = list_tenant(bucket, tenant).await?;
        let mut now = Tenant::default();
        let mut unread = Vec::new();
        let compacted = listing.compacted.iter().map(|id| (*id, true));
        for (id, is_compacted) in listing.live.iter().map(|id| (*id, false)).chain(compacted) {
            let known = before.get(&id);
            if known.is_none_or(|known| is_compacted && known.mark.is_none()) {
                unread.push((id, is_compacted));
            }
            if let Some(known) = known {
                now.blocks.insert(id, known.clone());
            }
        }
        let metas = futures::stream::iter(unread)
            .map(|(id, is_compacted)| async move {
                let live = match is_compacted {
                    true => Err(Error::not_found("compacted")),
                    false => read_meta(bucket, tenant, &id).await.map(|meta| (meta, None)),
                };
                match live {
                    // Or marked since the listing.
                    Err(e) if e.kind == Kind::NotFound => {
                        let read = read_compacted_meta(bucket, tenant, &id).await;
                        (id, read.map(|mark| (mark.meta, Some(mark.replaced_by))))
                    }
                    read => (id, read),
                }
            })
            .buffer_unordered(config.metas_ahead.max(1));
        let metas: Vec<_> = metas.collect().await;
        let ended = Instant::now();
        let is_old = |since: Instant| ended.duration_since(since) >= config.replaced_shown;
        // Never in the sync that finds the mark: its listing may be older than what replaces the block.
        for known in now.blocks.values_mut() {
            known.is_shown = known.mark.as_ref().is_none_or(|mark| !is_old(mark.found));
        }
        for (id, read) in metas {
            match read.and_then(|(meta, mark)| meta.check_format().map(|()| (meta, mark))) {
                Ok((meta, mark)) => {
                    let new = || {
                        let (meta, stands_for) = (Arc::new(meta), Vec::new());
                        Known { meta, found: ended, mark: None, is_shown: true, stands_for }
                    };
                    let known = now.blocks.entry(id).or_insert_with(new);
                    known.mark = mark.map(|replaced_by| Mark { found: ended, replaced_by });
                }
                // Its mark is read at the next sync.
                Err(_) if now.blocks.contains_key(&id) => {}
                // Removed since the listing: what replaced it, if anything, is long there.
                Err(e) if e.kind == Kind::NotFound => {}
                Err(e) => now.unread.push((id, format!("traces block {tenant}/{id}: {e}"))),
            }
        }
        now.put_replacements(|replacement| !is_old(replacement.found));
        Ok(now)
    }

    /// Opens blocks that are `wanted` by their tenant and id, and what replaced such a one, the newest first, as long as there is room in
    /// the cache. May be dropped at any time.
    pub async fn warm(&self, wanted: impl Fn(&TenantId, &[u8]) -> bool) -> WarmReport {
        let inner = &*self.inner;
        let mut report = WarmReport::default();
        let mut closed = Vec::new();
        for tenant in self.tenants() {
            for known in self.tenant(&tenant).blocks.values().filter(|known| known.is_shown) {
                let wanted = |id: &Uuid| wanted(&tenant, id.as_bytes());
                report.wanted += usize::from(wanted(&known.meta.block_id));
                if known.ids().any(wanted) && !inner.footers.contains_key(&known.meta.block_id) {
                    closed.push((tenant.clone(), Block::new(inner.cached.clone(), known.meta.clone())));
                }
            }
        }
        closed.sort_by_key(|(_, block)| std::cmp::Reverse((block.meta.end_s, block.meta.block_id)));
        inner.footers.run_pending_tasks().await;
        let room = inner.config.footer_bytes_max.saturating_sub(inner.footers.weighted_size());
        let opens = closed.into_iter().map(|(tenant, block)| async move {
            let ctx = QueryContext::unlimited(tenant);
            self.open(&ctx, &block).await.map_err(|e| e.context(format_args!("traces {block:?}")))
        });
        report.open(opens, room, File::memory).await;
        inner.footers.run_pending_tasks().await;
        report
    }

    /// Blocks whose footer is in the cache, about.
    pub fn open_blocks(&self) -> u64 {
        self.inner.footers.entry_count()
    }

    /// The tenants that have blocks, as of the last sync.
    pub fn tenants(&self) -> Vec<TenantId> {
        let mut out: Vec<_> =
            self.inner.tenants.read().keys().filter_map(|t| TenantId::new(t).ok()).collect();
        out.sort();
        out
    }

    fn tenant(&self, tenant: &TenantId) -> Arc<Tenant> {
        self.inner.tenants.read().get(tenant.as_str()).cloned().unwrap_or_default()
    }

    /// The metas of a tenant's blocks that are shown, as of the last sync.
    pub fn blocks(&self, tenant: &TenantId) -> Vec<Arc<BlockMeta>> {
        let tenant = self.tenant(tenant);
        tenant.blocks.values().filter(|known| known.is_shown).map(|known| known.meta.clone()).collect()
    }

    /// The blocks that are to be asked. Says what of the tenant could not be read at the last sync: it may overlap too.
    fn overlapping(&self, ctx: &QueryContext, start_ns: i64, end_ns: i64) -> Vec<Block> {
        let tenant = self.tenant(ctx.tenant());
        for (_, sentence) in tenant.unread.iter().filter(|(id, _)| self.owns(id)) {
            ctx.missed(sentence.clone());
        }
        let shown = tenant.blocks.values().filter(|known| {
            known.is_shown && known.meta.overlaps(start_ns, end_ns) && known.ids().any(|id| self.owns(id))
        });
        shown.map(|known| Block::new(self.inner.cached.clone(), known.meta.clone())).collect()
    }

    /// Of the blocks of the query's tenant in the range, both ends inclusive.
    pub fn version(&self, ctx: &QueryContext, start_ns: i64, end_ns: i64) -> Version {
        let blocks = self.overlapping(ctx, start_ns, end_ns);
        blocks.iter().map(|block| Version::of_part(block.meta.block_id.as_bytes())).sum()
    }

    async fn open(&self, ctx: &QueryContext, block: &Block) -> Result<Arc<File>> {
        if let Some(file) = self.inner.footers.get(&block.meta.block_id).await {
            return Ok(file);
        }
        let file = Arc::new(block.open(ctx).await?);
        self.inner.footers.insert(block.meta.block_id, file.clone()).await;
        Ok(file)
    }

    /// Runs `read` on all blocks, some side by side. A block that can't be read is missed, one that is gone too: others may have looked
    /// before what replaced it was there. What is the caller's own doing fails.
    async fn each<T, F>(
        &self,
        ctx: &QueryContext,
        blocks: Vec<Block>,
        read: impl Fn(Block) -> F,
    ) -> Result<Vec<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let results: Vec<_> = futures::stream::iter(blocks)
            .map(|block| {
                let name = format!("{block:?}");
                let reading = read(block);
                async move { (name, reading.await) }
            })
            .buffer_unordered(self.inner.config.blocks_ahead.max(1))
            .collect()
            .await;
        let mut out = Vec::new();
        for (name, result) in results {
            ctx.add_blocks(1);
            match result {
                Ok(found) => out.push(found),
                Err(e) => missed(ctx, &name, e)?,
            }
        }
        Ok(out)
    }

    pub async fn find(
        &self,
        ctx: &QueryContext,
        trace_id: &TraceId,
        start_ns: i64,
        end_ns: i64,
    ) -> Result<TraceParts> {
        let blocks = self.overlapping(ctx, start_ns, end_ns);
        let parts = self
            .each(ctx, blocks, |block| async move {
                if !block.may_contain(ctx, trace_id).await? {
                    return Ok(None);
                }
                let file = self.open(ctx, &block).await?;
                block.find(ctx, &file, trace_id).await
            })
            .await?;
        Ok(TraceParts { otlp: parts.into_iter().flatten().collect() })
    }

    pub async fn search(
        &self,
        ctx: &QueryContext,
        search: &TraceSearch,
    ) -> Result<BoxStream<'static, Result<TraceMatch>>> {
        triptych_traceql::search(ctx, self, search).await
    }

    pub async fn samples(
        &self,
        ctx: &QueryContext,
        select: &SpanSampleSelect,
    ) -> Result<BoxStream<'static, Result<TraceSamples>>> {
        triptych_traceql::samples(ctx, self, select).await
    }

    pub async fn tag_names(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<ScopeTags>> {
        let mut all = TagNames::new(select);
        if select.scope != "intrinsic" {
            let matcher = Arc::new(tags_matcher(select)?);
            let matcher = &matcher;
            let found = self
                .each(ctx, self.overlapping(ctx, select.start_ns, select.end_ns), |block| async move {
                    let mut names = TagNames::new(select);
                    let file = self.open(ctx, &block).await?;
                    block.tag_names(ctx, &file, matcher, &mut names).await?;
                    Ok(names)
                })
                .await?;
            found.into_iter().for_each(|names| all.absorb(names));
        }
        Ok(all.finish())
    }

    pub async fn tag_values(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<Value>> {
        let mut all = TagValues::new(select);
        if !all.done() {
            let matcher = Arc::new(Matcher::new(&tags_fetch(select))?);
            let matcher = &matcher;
            let found = self
                .each(ctx, self.overlapping(ctx, select.start_ns, select.end_ns), |block| async move {
                    let file = self.open(ctx, &block).await?;
                    block.tag_values(ctx, &file, matcher, TagValues::new(select)).await
                })
                .await?;
            found.into_iter().for_each(|values| all.absorb(values));
        }
        Ok(all.finish())
    }
}

/// Notes a block that could not be read; errors that are not the block's go on.
fn missed(ctx: &QueryContext, name: &str, error: Error) -> Result<()> {
    match error.kind {
        Kind::Damaged | Kind::NotFound | Kind::Unavailable | Kind::Internal => {
            // A query that timed out or was cancelled ends here.
            ctx.check()?;
            ctx.missed(format!("traces {name}: {error}"));
            Ok(())
        }
        Kind::Invalid | Kind::Conflict | Kind::Exhausted | Kind::Cancelled => Err(error),
    }
}

#[async_trait]
impl SpanSource for BucketStore {
    async fn fetch(
        &self,
        ctx: &QueryContext,
        fetch: &FetchSpans,
    ) -> Result<BoxStream<'static, Result<TraceSpans>>> {
        let matcher = Arc::new(Matcher::new(fetch)?);
        let blocks = self.overlapping(ctx, fetch.start_ns, fetch.end_ns);
        let opened = self
            .each(ctx, blocks, |block| async move {
                let file = self.open(ctx, &block).await?;
                Ok((block, file))
            })
            .await?;
        // The merge needs every block's next trace: all blocks are under way at once, a few of them at work.
        let slots = Arc::new(Semaphore::new(self.inner.config.blocks_ahead.max(1)));
        let streams = opened
            .into_iter()
            .map(|(block, file)| {
                let (ctx, name) = (ctx.clone(), format!("{block:?}"));
                let spans = block.spans(&ctx, file, matcher.clone(), slots.clone());
                // A block that fails half-way ends there, and is missed.
                spans
                    .scan(false, move |ended, item| {
                        let next = match item {
                            _ if *ended => None,
                            Ok(trace) => Some(Ok(trace)),
                            Err(e) => {
                                *ended = true;
                                missed(&ctx, &name, e).err().map(Err)
                            }
                        };
                        futures::future::ready(next)
                    })
                    .boxed()
            })
            .collect();
        Ok(merge::spans(streams))
    }
}
