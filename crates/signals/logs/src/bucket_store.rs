//! All tenants' logs in the bucket: index files found by [`BucketStore::sync`], chunks fetched as queries need them.
//!
//! What is kept: the list of index files; their contents and chunks in two caches with a size in bytes, both keyed by tenant and
//! place. What cannot be read is named in the query's report, and the rest is answered.
//!
//! Several stores that divide a tenant's logs ([`BucketStore::share`]) do so by streams: all of them read the index files, which are
//! small, and each reads the chunks of its streams. So a stream's answer comes from one store's view of the bucket, whatever a
//! compaction does to the index meanwhile, and copies of a stream meet before they travel.

mod select;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use hashbrown::{HashMap, HashSet};
use parking_lot::RwLock;
use tokio_util::task::AbortOnDropHandle;
use triptych_blob::object_store::ObjectStore;
use triptych_blob::object_store::path::Path;
use triptych_blob::{Bucket, WarmReport};
use triptych_model::logs::{
    DetectedField, Direction, EntrySelect, LogEntry, LogSamples, SampleSelect, StreamStats, StreamsSelect,
    Volume,
};
use triptych_model::{Error, Labels, Matcher, Result, Shard, Share, TenantId};
use triptych_runtime::QueryContext;

use crate::chunk::{Chunk, ChunkRef, envelope};
use crate::figures::{Stats, Volumes, check_matchers, check_range, range_ns, share, truncate};
use crate::index::{self, ChunkMeta, IndexFile};
use crate::layout::{self, IndexPlace};
use crate::leaf::{EntryLeaf, ExtractLeaf};
use crate::scan::entries::EntryScan;
use crate::scan::samples::{Place, SampleScan};
use crate::scan::{Feed, Fetched, StreamInfo};
use select::ns_of_ms;

/// How much the store keeps and fetches ahead.
#[derive(Debug, Clone)]
pub struct BucketStoreConfig {
    /// Cache of index files, uncompressed, in bytes.
    pub index_cache_bytes: u64,
    /// Cache of chunks, compressed, in bytes.
    pub chunk_cache_bytes: u64,
    /// Largest index file that is read, uncompressed.
    pub index_file_bytes_max: usize,
    /// Largest chunk object that is read.
    pub chunk_bytes_max: u64,
    /// Chunks a query fetches ahead.
    pub read_ahead_chunks: usize,
}

impl Default for BucketStoreConfig {
    fn default() -> Self {
        Self {
            index_cache_bytes: 512 << 20,
            chunk_cache_bytes: 512 << 20,
            index_file_bytes_max: 1 << 30,
            // Loki aims at 1.5 MiB; one line may be larger.
            chunk_bytes_max: 128 << 20,
            read_ahead_chunks: 8,
        }
    }
}

/// Chunks that a query with a limit fetches ahead at most.
const READ_AHEAD_LIMITED: usize = 3;

/// What [`BucketStore::sync`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SyncReport {
    pub files: usize,
    pub new: usize,
    pub vanished: usize,
}

/// An index file that is in the bucket.
#[derive(Debug, Clone)]
pub(crate) struct IndexEntry {
    pub path: Path,
    pub day: i64,
}

#[derive(Debug, Default)]
struct Files {
    tenants: HashMap<TenantId, Vec<IndexEntry>>,
    /// Loki's files of several tenants.
    shared: Vec<IndexEntry>,
}

struct Inner {
    bucket: Bucket,
    config: BucketStoreConfig,
    files: RwLock<Arc<Files>>,
    indexes: moka::future::Cache<Path, Arc<IndexFile>>,
    chunks: moka::future::Cache<(TenantId, ChunkRef), Arc<Chunk>>,
}

/// See the module. Clones are the same store, but for whose streams they read.
#[derive(Clone)]
pub struct BucketStore {
    inner: Arc<Inner>,
    share: Option<Share>,
}

impl std::fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BucketStore({} tenants)", self.inner.files.read().tenants.len())
    }
}

impl BucketStore {
    pub fn new(bucket: Bucket, config: BucketStoreConfig) -> Self {
        let weight = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let indexes = moka::future::Cache::builder()
            .max_capacity(config.index_cache_bytes)
            .weigher(move |_, file: &Arc<IndexFile>| weight(file.memory_bytes()))
            .build();
        let chunks = moka::future::Cache::builder()
            .max_capacity(config.chunk_cache_bytes)
            .weigher(move |_, chunk: &Arc<Chunk>| weight(chunk.memory_bytes()))
            .build();
        let inner = Inner { bucket, config, files: RwLock::default(), indexes, chunks };
        Self { inner: Arc::new(inner), share: None }
    }

    /// The same store, whose reads ask only the streams that `share` owns, by their labels. `None`: all streams.
    pub fn share(&self, share: Option<&Share>) -> Self {
        Self { inner: self.inner.clone(), share: share.cloned() }
    }

    fn owns(&self, stream: &Labels) -> bool {
        self.share.as_ref().is_none_or(|share| share.owns(stream.as_encoded()))
    }

    /// Looks what index files there are now, forgets vanished ones. After an error everything is as before.
    pub async fn sync(&self) -> Result<SyncReport> {
        let inner = &*self.inner;
        let root = layout::index_root();
        let mut files = Files::default();
        let mut listed = HashSet::new();
        let mut listing = inner.bucket.list(Some(&root));
        while let Some(object) = listing.try_next().await.map_err(|e| layout::failed("listing", &root, &e))? {
            let Some(place) = IndexPlace::parse(&object.location) else { continue };
            let entry = IndexEntry { path: object.location.clone(), day: place.day };
            listed.insert(object.location);
            match place.tenant {
                Some(tenant) => files.tenants.entry(tenant).or_default().push(entry),
                None => files.shared.push(entry),
            }
        }
        drop(listing);
        let known: HashSet<Path> = {
            let before = inner.files.read();
            before.tenants.values().flatten().chain(&before.shared).map(|e| e.path.clone()).collect()
        };
        let report = SyncReport {
            files: listed.len(),
            new: listed.difference(&known).count(),
            vanished: known.difference(&listed).count(),
        };
        *inner.files.write() = Arc::new(files);
        for path in known.difference(&listed) {
            inner.indexes.invalidate(path).await;
        }
        Ok(report)
    }

    /// Opens the index files of tenants that are `wanted`, those of the newest days first, as long as there is room in the cache. May be
    /// dropped at any time.
    pub async fn warm(&self, wanted: impl Fn(&TenantId) -> bool) -> WarmReport {
        let inner = &*self.inner;
        let files = inner.files.read().clone();
        let own = files.tenants.iter().filter(|(tenant, _)| wanted(tenant)).flat_map(|(_, files)| files);
        let mut closed: Vec<IndexEntry> = own.chain(&files.shared).cloned().collect();
        let mut report = WarmReport { wanted: closed.len(), ..WarmReport::default() };
        closed.retain(|entry| !inner.indexes.contains_key(&entry.path));
        closed.sort_by(|a, b| b.day.cmp(&a.day).then_with(|| a.path.cmp(&b.path)));
        inner.indexes.run_pending_tasks().await;
        let room = inner.config.index_cache_bytes.saturating_sub(inner.indexes.weighted_size());
        let opens = closed.into_iter().map(|entry| async move { self.index(&entry).await });
        report.open(opens, room, IndexFile::memory_bytes).await;
        inner.indexes.run_pending_tasks().await;
        report
    }

    /// Index files that are in the cache, about.
    pub fn open_files(&self) -> u64 {
        self.inner.indexes.entry_count()
    }

    /// Tenants that have index files of their own, sorted.
    pub fn tenants(&self) -> Vec<TenantId> {
        let mut all: Vec<TenantId> = self.inner.files.read().tenants.keys().cloned().collect();
        all.sort();
        all
    }

    /// Memory the caches hold, in bytes (eventually exact).
    pub fn cached_bytes(&self) -> u64 {
        self.inner.indexes.weighted_size() + self.inner.chunks.weighted_size()
    }

    async fn get(&self, path: &Path, bytes_max: u64) -> Result<Bytes> {
        layout::get(&self.inner.bucket, path, bytes_max).await
    }

    /// An index file, from the cache or the bucket.
    async fn index(&self, entry: &IndexEntry) -> Result<Arc<IndexFile>> {
        let bytes_max = self.inner.config.index_file_bytes_max;
        let load = async {
            let packed = self.get(&entry.path, bytes_max as u64).await?;
            let plain = match entry.path.as_ref().ends_with(".gz") {
                true => index::gunzip(&packed, bytes_max)?.into(),
                false => packed,
            };
            IndexFile::parse(plain).map(Arc::new).map_err(|e| e.context(&entry.path))
        };
        self.inner.indexes.try_get_with_by_ref(&entry.path, load).await.map_err(|e| Error::clone(&e))
    }

    /// A chunk, from the cache or the bucket.
    async fn chunk(&self, tenant: &TenantId, reference: &ChunkRef) -> Result<Arc<Chunk>> {
        let load = async {
            let path = reference.path(tenant)?;
            let object = self.get(&path, self.inner.config.chunk_bytes_max).await?;
            envelope::unwrap(tenant, reference, object).map(Arc::new).map_err(|e| e.context(&path))
        };
        let key = (tenant.clone(), *reference);
        self.inner.chunks.try_get_with_by_ref(&key, load).await.map_err(|e| Error::clone(&e))
    }

    /// What passes the expression, in the asked direction over all streams.
    pub async fn entries(
        &self,
        ctx: &QueryContext,
        select: &EntrySelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogEntry>>>> {
        let range = check_range(select.start_ns, select.end_ns)?;
        let leaf = Arc::new(EntryLeaf::compile(&select.expr)?);
        let matchers = leaf.matchers().to_vec();
        // A limit is mostly reached early.
        let ahead = if select.limit == 0 { usize::MAX } else { READ_AHEAD_LIMITED };
        let feed = match select.direction {
            Direction::Forward => {
                self.feed(ctx, (&matchers, None), range, ahead, |_, chunk| ns_of_ms(chunk.from_ms), i64::cmp)
                    .await?
            }
            Direction::Backward => {
                let through = |_: &StreamInfo, chunk: &ChunkMeta| ns_of_ms(chunk.through_ms);
                self.feed(ctx, (&matchers, None), range, ahead, through, |a, b| b.cmp(a)).await?
            }
        };
        let mut scan = EntryScan::new(ctx, leaf, range, select.direction, select.limit);
        scan.set_feed(feed);
        Ok(scan.into_stream())
    }

    /// What a range aggregation counts, in the order of [`SampleSelect`].
    pub async fn samples(
        &self,
        ctx: &QueryContext,
        select: &SampleSelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogSamples>>>> {
        let range = check_range(select.start_ns, select.end_ns)?;
        let leaf = Arc::new(ExtractLeaf::compile(&select.expr)?);
        let matchers = leaf.matchers().to_vec();
        let place = |stream: &StreamInfo, chunk: &ChunkMeta| (stream.fingerprint, ns_of_ms(chunk.from_ms));
        let feed = self.feed(ctx, (&matchers, select.shard), range, usize::MAX, place, Place::cmp).await?;
        let mut scan = SampleScan::new(ctx, leaf, range);
        scan.set_feed(feed);
        Ok(scan.into_stream())
    }

    /// The chunks of a selector and a range in the order of their bounds, fetched ahead.
    async fn feed<B: Send + 'static>(
        &self,
        ctx: &QueryContext,
        (matchers, shard): (&[Matcher], Option<Shard>),
        (start_ns, end_ns): (i64, i64),
        ahead_max: usize,
        bound: impl Fn(&StreamInfo, &ChunkMeta) -> B,
        order: impl Fn(&B, &B) -> std::cmp::Ordering,
    ) -> Result<Feed<B>> {
        check_matchers(matchers)?;
        let found = self.select(ctx, std::slice::from_ref(&matchers.to_vec()), start_ns, end_ns).await?;
        let mut chunks: Vec<(B, usize, ChunkRef)> = Vec::new();
        for (i, stream) in found.streams.iter().enumerate() {
            if shard.is_some_and(|shard| !shard.has_hash(stream.info.fingerprint)) {
                continue;
            }
            for chunk in &stream.chunks {
                let reference = ChunkRef {
                    fingerprint: stream.fingerprint,
                    from_ms: chunk.from_ms,
                    through_ms: chunk.through_ms,
                    checksum: chunk.checksum,
                };
                chunks.push((bound(&stream.info, chunk), i, reference));
            }
        }
        let memory = ctx.reserve(chunks.len() * size_of::<(B, B, usize, ChunkRef)>())?;
        chunks.sort_by(|a, b| order(&a.0, &b.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
        ctx.add_chunks(chunks.len() as u64);
        let (bounds, chunks): (VecDeque<B>, Vec<(usize, ChunkRef)>) =
            chunks.into_iter().map(|(bound, i, reference)| (bound, (i, reference))).unzip();
        let (store, ctx) = (self.clone(), ctx.clone());
        let fetches = futures::stream::iter(chunks).map(move |(i, reference)| {
            let _ = &memory;
            let stream = found.streams[i].info.clone();
            let (store, ctx) = (store.clone(), ctx.clone());
            // A task of its own, so that it goes on while blocks are being filtered; it ends with the query.
            AbortOnDropHandle::new(tokio::spawn(async move {
                match store.chunk(ctx.tenant(), &reference).await {
                    Ok(chunk) => Some(Fetched { stream, chunk }),
                    Err(error) => {
                        ctx.missed(format!("a chunk of stream {}: {error}", stream.labels));
                        None
                    }
                }
            }))
        });
        let chunks = fetches
            .buffered(self.inner.config.read_ahead_chunks.min(ahead_max).max(1))
            .map(|fetched| fetched.map_err(|e| Error::internal(format!("fetching a chunk: {e}"))))
            .boxed();
        Ok(Feed { bounds, chunks })
    }

    /// Sorted names of the labels of the streams that pass.
    pub async fn label_names(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<String>> {
        let whole = |file: &IndexFile, out: &mut BTreeSet<String>| {
            out.extend(file.label_names().map(str::to_owned));
        };
        let names = self.each_labels(ctx, select, whole, |labels, names| {
            for (name, _) in labels {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        });
        Ok(truncate(names.await?.into_iter().collect(), select.limit))
    }

    /// Sorted values of a label of the streams that pass.
    pub async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &StreamsSelect,
    ) -> Result<Vec<String>> {
        let whole = |file: &IndexFile, out: &mut BTreeSet<String>| {
            out.extend(file.label_values(name).map(str::to_owned));
        };
        let values = self.each_labels(ctx, select, whole, |labels, values| {
            if let Some(value) = labels.get(name)
                && !values.contains(value)
            {
                values.insert(value.to_owned());
            }
        });
        Ok(truncate(values.await?.into_iter().collect(), select.limit))
    }

    /// Sorted label sets of the streams that pass.
    pub async fn series(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<Labels>> {
        let (start_ns, end_ns) = range_ns(select)?;
        let found = self.select(ctx, &select.matcher_sets, start_ns, end_ns).await?;
        let mut all: Vec<Labels> = found.streams.iter().map(|s| s.info.labels.clone()).collect();
        all.sort();
        all.dedup();
        Ok(truncate(all, select.limit))
    }

    /// Streams, chunks, entries and bytes in the range, from the index alone; a chunk that straddles its ends counts with its share.
    pub async fn stats(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<StreamStats> {
        let (start_ns, end_ns) = range_ns(select)?;
        let mut stats = Stats::default();
        for stream in &self.select(ctx, &select.matcher_sets, start_ns, end_ns).await?.streams {
            stats.stream();
            for chunk in &stream.chunks {
                let share = share(ns_of_ms(chunk.from_ms), ns_of_ms(chunk.through_ms), start_ns, end_ns);
                stats.chunks(1);
                stats.part(share, u64::from(chunk.entries), u64::from(chunk.kb) << 10);
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
        for stream in &self.select(ctx, &select.matcher_sets, start_ns, end_ns).await?.streams {
            let bytes = stream.chunks.iter().map(|chunk| {
                let share = share(ns_of_ms(chunk.from_ms), ns_of_ms(chunk.through_ms), start_ns, end_ns);
                share * f64::from(chunk.kb) * 1024.0
            });
            volumes.add(&stream.info.labels, bytes.sum());
        }
        Ok(volumes.done(select.limit))
    }

    /// Fields found in lines that pass.
    pub async fn detected_fields(
        &self,
        ctx: &QueryContext,
        select: &EntrySelect,
    ) -> Result<Vec<DetectedField>> {
        crate::fields::detect(self.entries(ctx, &crate::fields::sample_of(select)).await?).await
    }

    /// Values that a field has in the newest lines that pass.
    pub async fn detected_field_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &EntrySelect,
    ) -> Result<Vec<String>> {
        let lines = self.entries(ctx, &crate::fields::sample_of(select)).await?;
        crate::fields::values(ctx, lines, name).await
    }
}
