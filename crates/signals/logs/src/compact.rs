//! One round for one tenant: unite the index files of each table, write chunks that hold copies or are small anew, drop what is past
//! retention, remove orphans.
//!
//! | step | after a crash in it |
//! |---|---|
//! | 1. delete index files that were replaced `delete_delay_ns` ago | the next round goes on |
//! | 2. when the day of a table is over, write the chunks anew that touch each other, reach out of the day or are small ([`plan`], [`rewrite`]) | nothing names the new ones: they are written again under the same names, or swept |
//! | 3. note which files a merged one replaces, then write it ([`replaced`]) | without the merged file the notes mean nothing |
//! | 4. delete chunks that no index file named **when the round began** and that are older than a day | the next round goes on |
//!
//! Until step 1 replaced files and what replaces them are both there; readers show what is in both once.
//!
//! # Two rounds at the same time
//! lose nothing and double nothing for good, whatever their steps' order, and whatever ingesters upload meanwhile:
//! - Nobody writes over what another one wrote: a chunk's name is its content, a merged file's its time and content.
//! - An index file goes only when a file that was made of it is there, or was there and has been replaced in its turn. So by induction
//!   every entry is named by a file that stays. Two merged files of the same sources both stay; they are merged in the next round.
//! - A chunk goes only when no file that is there names it, so the chunks of a file that stays do too. A file that is just being made may
//!   name a chunk that goes: it is written only if its sources are still there and were not replaced by somebody faster, and they
//!   went at least a round before their chunks. Should it happen nevertheless, the entries are in the chunks of whoever was faster; the
//!   next round finds that the chunk is missing and no longer names it.
//! - An ingester writes chunks before the index file that names them, within less than a day; a chunk that is written again counts as
//!   new, and its age is looked at once more before it goes.
//!
//! # Memory
//! The index of one table and the names of all chunks of the tenant; of chunks what [`CompactConfig::memory_bytes_max`] allows.
//!
//! Known holes: Loki's own files of several tenants are read (their chunks are no orphans) but not merged, its delete requests
//! are not carried out, and retention is one period per tenant.

mod plan;
mod replaced;
mod rewrite;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use hashbrown::{HashMap, HashSet};
use tokio::time::Instant;
use triptych_blob::Bucket;
use triptych_blob::object_store::path::Path;
use triptych_blob::object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload};
use triptych_model::{Error, Matcher, Result, TenantId};
use triptych_runtime::MemoryBudget;

use crate::chunk::{ChunkRef, Codec};
use crate::head::HeadConfig;
use crate::index::{self, ChunkMeta, IndexFile, SeriesMeta, TENANT_LABEL};
use crate::layout::{self, IndexPlace};

/// Deletes in flight.
const DELETES: usize = 16;
/// Streams that are written at the same time, where memory allows.
const STREAMS_AT_ONCE: usize = 8;
/// Memory for one of them, about.
const STREAM_BYTES: usize = 32 << 20;

const HOUR_NS: i64 = 3_600_000_000_000;

/// What a round does.
#[derive(Debug, Clone)]
pub struct CompactConfig {
    /// Chunks whose last line is older go, in nanoseconds; 0: nothing goes.
    pub retention_ns: i64,
    /// How long replaced index files stay, in nanoseconds, so that readers have seen what replaces them.
    pub delete_delay_ns: i64,
    /// Chunks of a day are written anew so long after its end, in nanoseconds: late lines and all replicas should be in by then.
    pub grace_ns: i64,
    /// A chunk without an index entry is left alone until it is this old, in nanoseconds.
    pub orphan_age_ns: i64,
    /// Whether to look for orphans at all: it lists every chunk of the tenant.
    pub sweep: bool,
    /// Largest index file that is read, uncompressed, in bytes.
    pub index_file_bytes_max: usize,
    /// Largest chunk object that is read, in bytes.
    pub chunk_object_bytes_max: u64,
    /// Memory for the chunks that are merged, in bytes.
    pub memory_bytes_max: usize,
    /// Streams of a table that are written anew in one round; a round of a very large one ends, too.
    pub streams_max: usize,
    /// As in [`HeadConfig`].
    pub block_bytes: usize,
    pub chunk_bytes: usize,
    pub codec: Codec,
    pub compression_level: i32,
}

impl Default for CompactConfig {
    fn default() -> Self {
        let HeadConfig { block_bytes, chunk_bytes, codec, compression_level, .. } = HeadConfig::default();
        Self {
            retention_ns: 0,
            delete_delay_ns: HOUR_NS,
            grace_ns: 2 * HOUR_NS,
            orphan_age_ns: 24 * HOUR_NS,
            sweep: true,
            index_file_bytes_max: 1 << 30,
            chunk_object_bytes_max: 128 << 20,
            memory_bytes_max: 256 << 20,
            streams_max: 16_384,
            block_bytes,
            chunk_bytes,
            codec,
            compression_level,
        }
    }
}

impl CompactConfig {
    /// Neighbours that have no more uncompressed than half of what a chunk has compressed are joined.
    fn join_kb_max(&self) -> u32 {
        u32::try_from(self.chunk_bytes / 2048).unwrap_or(u32::MAX)
    }
}

/// What a round did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompactReport {
    /// Tables of the tenant that there are.
    pub tables: u64,
    /// Chunks that stay in the index; one that touches two days counts twice.
    pub chunks: u64,
    /// Index files that a merged one replaces now.
    pub index_files_merged: u64,
    pub index_files_written: u64,
    /// Index files whose time had come after they were replaced, or that named nothing but what is past retention.
    pub index_files_deleted: u64,
    /// Chunks that were written anew, and those that they became.
    pub chunks_merged: u64,
    pub chunks_written: u64,
    /// Lines that were left out because the same one is there.
    pub copies: u64,
    /// Chunks that the index named and that are not there.
    pub chunks_missing: u64,
    /// Chunks that retention took out of the index.
    pub chunks_expired: u64,
    /// Chunk objects without an index entry that were deleted.
    pub orphans_deleted: u64,
    /// What could not be read, one sentence each. As long as an index file cannot be read no orphans are removed.
    pub failed: Vec<String>,
}

/// Tenants that have anything in the bucket, sorted.
pub async fn tenants(bucket: &Bucket) -> Result<Vec<TenantId>> {
    let mut all = BTreeSet::new();
    let names = |paths: &[Path]| -> Vec<TenantId> {
        paths.iter().filter_map(|p| TenantId::new(p.filename()?).ok()).collect()
    };
    all.extend(names(&folders(bucket, &Path::from("logs")).await?));
    for table in folders(bucket, &layout::index_root()).await? {
        all.extend(names(&folders(bucket, &table).await?));
    }
    Ok(all.into_iter().collect())
}

async fn folders(bucket: &Bucket, prefix: &Path) -> Result<Vec<Path>> {
    let listing = bucket.list_with_delimiter(Some(prefix)).await;
    Ok(listing.map_err(|e| layout::failed("listing", prefix, &e))?.common_prefixes)
}

async fn read_index(bucket: &Bucket, path: &Path, bytes_max: usize) -> Result<IndexFile> {
    let packed = layout::get(bucket, path, bytes_max as u64).await?;
    let plain: Bytes = match path.as_ref().ends_with(".gz") {
        true => index::gunzip(&packed, bytes_max).map_err(|e| e.context(path))?.into(),
        false => packed,
    };
    IndexFile::parse(plain).map_err(|e| e.context(path))
}

async fn delete(bucket: &Bucket, paths: Vec<Path>) -> Result<u64> {
    let deleted = futures::stream::iter(paths)
        .map(|path| async move {
            match bucket.delete(&path).await {
                Ok(()) => Ok(1),
                // Somebody was faster.
                Err(StoreError::NotFound { .. }) => Ok(0),
                Err(error) => Err(layout::failed("deleting", &path, &error)),
            }
        })
        .buffer_unordered(DELETES);
    deleted.try_fold(0, |sum, one| std::future::ready(Ok(sum + one))).await
}

/// One round; see the module.
pub async fn compact_tenant(
    bucket: &Bucket,
    tenant: &TenantId,
    config: &CompactConfig,
    now_ns: i64,
) -> Result<CompactReport> {
    let mut round = Round {
        bucket,
        tenant,
        config,
        now_ns,
        began: Instant::now(),
        referenced: HashSet::new(),
        is_index_whole: true,
        report: CompactReport::default(),
    };
    let notes = replaced::list(bucket, tenant).await?;
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let root = layout::index_root();
    let mut listing = bucket.list(Some(&root));
    while let Some(object) = listing.try_next().await.map_err(|e| layout::failed("listing", &root, &e))? {
        let Some(IndexPlace { table, day, tenant: owner, name }) = IndexPlace::parse(&object.location) else {
            continue;
        };
        match owner {
            Some(owner) if owner == *tenant => {
                let table = tables.entry(table).or_insert_with_key(|name| Table::new(name, day));
                table.files.push(name);
            }
            Some(_) => {}
            None => round.shared(&object.location).await,
        }
    }
    drop(listing);
    for (name, notes) in notes {
        tables.entry(name).or_insert_with_key(|name| Table::new(name, 0)).notes = notes;
    }
    for table in tables.into_values() {
        round.table(table).await?;
    }
    if config.sweep && round.is_index_whole {
        round.sweep().await?;
    }
    Ok(round.report)
}

/// The index files of a day.
struct Table {
    name: String,
    day: i64,
    files: Vec<String>,
    notes: replaced::Table,
}

impl Table {
    fn new(name: &str, day: i64) -> Self {
        Self { name: name.to_owned(), day, files: Vec::new(), notes: replaced::Table::default() }
    }

    fn path(&self, tenant: &TenantId, file: &str) -> Result<Path> {
        layout::path(format!("logs/index/{}/{tenant}/{file}", self.name))
    }

    fn names(&self) -> BTreeSet<&str> {
        self.files.iter().map(String::as_str).collect()
    }
}

struct Round<'a> {
    bucket: &'a Bucket,
    tenant: &'a TenantId,
    config: &'a CompactConfig,
    now_ns: i64,
    began: Instant,
    /// Chunks that an index file named when the round began, or names since.
    referenced: HashSet<ChunkRef>,
    /// Every index file could be read.
    is_index_whole: bool,
    report: CompactReport,
}

fn chunk_ref(fingerprint: u64, chunk: &ChunkMeta) -> ChunkRef {
    let ChunkMeta { from_ms, through_ms, checksum, .. } = *chunk;
    ChunkRef { fingerprint, from_ms, through_ms, checksum }
}

impl Round<'_> {
    fn remember(&mut self, series: &[SeriesMeta]) {
        for one in series {
            self.referenced.extend(one.chunks.iter().map(|chunk| chunk_ref(one.fingerprint, chunk)));
        }
    }

    fn unread(&mut self, error: &Error) {
        self.is_index_whole = false;
        self.report.failed.push(error.to_string());
    }

    /// A file of several tenants: its chunks are no orphans.
    async fn shared(&mut self, path: &Path) {
        let read = async || {
            let file = read_index(self.bucket, path, self.config.index_file_bytes_max).await?;
            let ours = file.select(&[Matcher::equal(TENANT_LABEL, self.tenant.as_str())])?;
            ours.into_iter().map(|r| file.series(r, i64::MIN, i64::MAX)).collect::<Result<Vec<_>>>()
        };
        match read().await {
            Ok(series) => self.remember(&series),
            Err(error) => self.unread(&error),
        }
    }

    async fn table(&mut self, table: Table) -> Result<()> {
        let names = table.names();
        let gone =
            table.notes.stale(self.tenant, &table.name, &names, (self.now_ns, self.config.orphan_age_ns))?;
        delete(self.bucket, gone).await?;
        if names.is_empty() {
            return Ok(());
        }
        self.report.tables += 1;
        let replaced = table.notes.replaced(&names);
        let mut sources: Vec<String> = Vec::new();
        let mut series: Vec<SeriesMeta> = Vec::new();
        // Which settled files name a chunk.
        let mut settled: HashMap<ChunkRef, u64> = HashMap::new();
        for name in &table.files {
            let path = table.path(self.tenant, name)?;
            let read =
                async || read_index(self.bucket, &path, self.config.index_file_bytes_max).await?.read_all();
            let all = match read().await {
                Ok(all) => all,
                // Left as it is: what can be read of it is still shown.
                Err(error) => {
                    self.unread(&error);
                    continue;
                }
            };
            self.remember(&all);
            if replaced.contains_key(name.as_str()) {
                continue;
            }
            if let Some(bit) = 1u64.checked_shl(sources.len() as u32)
                && table.notes.is_settled(name)
            {
                for one in &all {
                    for chunk in &one.chunks {
                        *settled.entry(chunk_ref(one.fingerprint, chunk)).or_default() |= bit;
                    }
                }
            }
            series.extend(all);
            sources.push(name.clone());
        }
        let due =
            replaced.iter().filter(|(_, by)| self.is_due(by)).map(|(name, _)| table.path(self.tenant, name));
        self.report.index_files_deleted += delete(self.bucket, due.collect::<Result<_>>()?).await?;

        let expired = self.expire(&mut series);
        let mut series = index::normalise(series);
        let mut is_changed = sources.len() > 1 || expired > 0;
        let mut is_settled = false;
        let mut written = None;
        if !sources.is_empty() && self.is_over(table.day) {
            let outcome = self.rewrite(table.day, &mut series, &settled).await?;
            is_changed |= outcome.is_changed;
            is_settled = !outcome.is_partial;
            written = outcome.written;
        }
        self.report.chunks += series.iter().map(|s| s.chunks.len() as u64).sum::<u64>();
        self.report.chunks_expired += expired;
        match &sources[..] {
            [] => {}
            [only] if !is_changed => {
                if is_settled && !table.notes.is_settled(only) {
                    replaced::note_settled(self.bucket, self.tenant, &table.name, only).await?;
                }
            }
            _ if series.is_empty() => {
                let sources = sources.iter().map(|name| table.path(self.tenant, name));
                self.report.index_files_deleted +=
                    delete(self.bucket, sources.collect::<Result<_>>()?).await?;
            }
            _ => self.publish(&table, &sources, &series, is_settled, written).await?,
        }
        self.remember(&series);
        Ok(())
    }

    /// Whether readers have known long enough what replaces a file. A merged file's name begins with its time.
    fn is_due(&self, merged: &str) -> bool {
        let written_ns = merged.split('-').next().and_then(|ns| ns.parse::<i64>().ok());
        written_ns.is_some_and(|ns| ns.saturating_add(self.config.delete_delay_ns) <= self.now_ns)
    }

    fn is_over(&self, day: i64) -> bool {
        let end_ns = day.saturating_add(1).saturating_mul(layout::DAY_MS).saturating_mul(1_000_000);
        end_ns.saturating_add(self.config.grace_ns) <= self.now_ns
    }

    /// Takes out what is past retention; says how many chunks.
    fn expire(&self, series: &mut [SeriesMeta]) -> u64 {
        if self.config.retention_ns <= 0 {
            return 0;
        }
        let cutoff_ms = self.now_ns.saturating_sub(self.config.retention_ns).div_euclid(1_000_000);
        let mut expired = 0;
        for one in series {
            let before = one.chunks.len();
            one.chunks.retain(|c| c.through_ms >= cutoff_ms);
            expired += (before - one.chunks.len()) as u64;
        }
        expired
    }

    /// Writes anew the chunks of a day that is over, where that is of use.
    async fn rewrite(
        &mut self,
        day: i64,
        series: &mut Vec<SeriesMeta>,
        settled: &HashMap<ChunkRef, u64>,
    ) -> Result<Outcome> {
        let memory_bytes = self.config.memory_bytes_max;
        let at_once = (memory_bytes / STREAM_BYTES).clamp(1, STREAMS_AT_ONCE);
        let limits = plan::Limits {
            join_kb_max: self.config.join_kb_max(),
            open_kb_max: (memory_bytes / at_once / 2048) as u64,
        };
        let mut planned = Vec::new();
        let mut outcome = Outcome::default();
        for (i, one) in series.iter().enumerate() {
            let settled_in = |chunk: &ChunkMeta| {
                settled.get(&chunk_ref(one.fingerprint, chunk)).copied().unwrap_or_default()
            };
            let named = |chunk: &ChunkMeta| plan::Named { meta: *chunk, settled: settled_in(chunk) };
            let named: Vec<plan::Named> = one.chunks.iter().map(named).collect();
            let plan = plan::plan(&named, day, limits);
            outcome.is_partial |= plan.is_partial;
            if !plan.groups.is_empty() {
                planned.push((i, plan));
            }
        }
        outcome.is_partial |= planned.len() > self.config.streams_max;
        planned.truncate(self.config.streams_max);
        let work = Arc::new(rewrite::Work {
            bucket: self.bucket.clone(),
            tenant: self.tenant.clone(),
            config: self.config.clone(),
            memory: MemoryBudget::new("memory of the merge", memory_bytes),
            day,
        });
        // Owned streams: see `Head::flush`.
        let planned: Vec<_> = planned.into_iter().map(|(i, plan)| (i, series[i].clone(), plan)).collect();
        let mut rewritten = futures::stream::iter(planned)
            .map(|(i, one, plan)| {
                let work = work.clone();
                async move { Ok::<_, Error>((i, one.chunks.clone(), rewrite::stream(work, one, plan).await?)) }
            })
            .buffered(at_once);
        while let Some((i, before, stream)) = rewritten.try_next().await? {
            let rewrite::Rewritten { chunks, merged, written, copies, missing, failed, is_partial } = stream;
            let one = &mut series[i];
            for chunk in &missing {
                let path = chunk_ref(one.fingerprint, chunk).path(self.tenant)?;
                tracing::warn!(tenant = %self.tenant, %path, "a chunk is missing; the index will not name it any longer");
            }
            self.report.chunks_missing += missing.len() as u64;
            self.report.failed.extend(failed);
            outcome.is_partial |= is_partial;
            if chunks == before {
                continue;
            }
            outcome.is_changed = true;
            if outcome.written.is_none() {
                let new = chunks.iter().find(|chunk| !before.contains(chunk));
                outcome.written = new.map(|chunk| chunk_ref(one.fingerprint, chunk));
            }
            self.report.chunks_merged += merged;
            self.report.chunks_written += written;
            self.report.copies += copies;
            one.chunks = chunks;
        }
        series.retain(|one| !one.chunks.is_empty());
        Ok(outcome)
    }

    /// Makes a merged file visible, unless somebody was faster.
    async fn publish(
        &mut self,
        table: &Table,
        sources: &[String],
        series: &[SeriesMeta],
        is_settled: bool,
        written: Option<ChunkRef>,
    ) -> Result<()> {
        let encoded = index::encode(series)?;
        let at_ns = self.now_ns.saturating_add(self.began.elapsed().as_nanos() as i64);
        let name = format!(
            "{at_ns}-compactor-{}-{}-{:x}.tsdb.gz",
            encoded.from_ms,
            encoded.through_ms,
            crc32c::crc32c(&encoded.bytes)
        );
        let sources: Vec<String> = sources.iter().filter(|source| **source != name).cloned().collect();
        if self.is_overtaken(table, &sources, written).await? {
            tracing::info!(tenant = %self.tenant, table = table.name, "another compactor was faster");
            return Ok(());
        }
        replaced::note(self.bucket, self.tenant, &table.name, &name, &sources).await?;
        if is_settled {
            replaced::note_settled(self.bucket, self.tenant, &table.name, &name).await?;
        }
        let path = table.path(self.tenant, &name)?;
        let payload = PutPayload::from(index::gzip(&encoded.bytes)?);
        self.bucket.put(&path, payload).await.map_err(|e| layout::failed("writing", &path, &e))?;
        self.report.index_files_written += 1;
        self.report.index_files_merged += sources.len() as u64;
        Ok(())
    }

    /// Whether sources have gone or were replaced meanwhile, or what was written first was swept: then this round stood still for long.
    async fn is_overtaken(
        &self,
        table: &Table,
        sources: &[String],
        written: Option<ChunkRef>,
    ) -> Result<bool> {
        let notes = replaced::list_table(self.bucket, self.tenant, &table.name).await?;
        let folder = layout::path(format!("logs/index/{}/{}", table.name, self.tenant))?;
        let listing = self.bucket.list(Some(&folder)).map_ok(|object| object.location);
        let there: Vec<Path> =
            listing.try_collect().await.map_err(|e| layout::failed("listing", &folder, &e))?;
        let there: BTreeSet<&str> = there.iter().filter_map(Path::filename).collect();
        let replaced = notes.replaced(&there);
        let is_live = |name: &String| there.contains(name.as_str()) && !replaced.contains_key(name.as_str());
        if !sources.iter().all(is_live) {
            return Ok(true);
        }
        let Some(written) = written else { return Ok(false) };
        let path = written.path(self.tenant)?;
        match self.bucket.head(&path).await {
            Ok(_) => Ok(false),
            Err(StoreError::NotFound { .. }) => Ok(true),
            Err(error) => Err(layout::failed("reading", &path, &error)),
        }
    }

    async fn sweep(&mut self) -> Result<()> {
        let root = layout::chunks_root(self.tenant)?;
        let (now_ns, age_ns) = (self.now_ns, self.config.orphan_age_ns);
        let is_old = move |object: &ObjectMeta| {
            let written_ns = object.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX);
            now_ns.saturating_sub(written_ns) >= age_ns
        };
        let mut orphans = Vec::new();
        let mut listing = self.bucket.list(Some(&root));
        while let Some(object) = listing.try_next().await.map_err(|e| layout::failed("listing", &root, &e))? {
            // What is not a chunk is not ours to judge.
            let Some(chunk) = ChunkRef::from_path(self.tenant, &object.location) else { continue };
            if is_old(&object) && !self.referenced.contains(&chunk) {
                orphans.push(object.location);
            }
        }
        drop(listing);
        // The same chunk may have been written again since.
        let bucket = self.bucket.clone();
        let still_old = futures::stream::iter(orphans)
            .map(move |path| {
                let bucket = bucket.clone();
                async move { bucket.head(&path).await.is_ok_and(|object| is_old(&object)).then_some(path) }
            })
            .buffer_unordered(DELETES)
            .filter_map(std::future::ready);
        let orphans: Vec<Path> = still_old.collect().await;
        self.report.orphans_deleted += delete(self.bucket, orphans).await?;
        Ok(())
    }
}

/// What came of writing chunks anew.
#[derive(Default)]
struct Outcome {
    is_changed: bool,
    /// There is more to do, or something could not be done.
    is_partial: bool,
    /// One of the first chunks that were written.
    written: Option<ChunkRef>,
}
