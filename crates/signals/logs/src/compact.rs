//! One round for one tenant: merge the index files of each table into one, drop what is past retention, remove orphans.
//!
//! Every step may be repeated and may be the last one before a crash:
//!
//! 1. a merged index file is written under a new name, then its sources are deleted. In between both are there: readers unite
//!    chunks by their reference, and the next round merges them again;
//! 2. retention leaves chunks out of the merged file; the objects stay for now, so that a reader with an older view of the index
//!    still finds them;
//! 3. a chunk that no index file named **when the round began**, and that is older than a day, is deleted. A chunk that is
//!    being flushed is younger; one that retention dropped goes in the next round.
//!
//! Whoever calls sees to it that two do not compact the same tenant at the same time; if they do, index files double at worst.
//!
//! Known holes: Loki's own files of several tenants are read (their chunks are no orphans) but not merged, its delete requests
//! are not carried out, and retention is one period per tenant.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use hashbrown::HashSet;
use triptych_blob::Bucket;
use triptych_blob::object_store::path::Path;
use triptych_blob::object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutPayload};
use triptych_model::{Error, Matcher, Result, TenantId};

use crate::chunk::ChunkRef;
use crate::index::{self, IndexFile, SeriesMeta, TENANT_LABEL};
use crate::layout::{self, IndexPlace};

/// Deletes in flight.
const DELETES: usize = 16;

/// What a round does.
#[derive(Debug, Clone)]
pub struct CompactConfig {
    /// Chunks whose last line is older go, in nanoseconds; 0: nothing goes.
    pub retention_ns: i64,
    /// A chunk without an index entry is left alone until it is this old, in nanoseconds.
    pub orphan_age_ns: i64,
    /// Whether to look for orphans at all: it lists every chunk of the tenant.
    pub sweep: bool,
    /// Largest index file that is read, uncompressed, in bytes.
    pub index_file_bytes_max: usize,
}

impl Default for CompactConfig {
    fn default() -> Self {
        Self {
            retention_ns: 0,
            orphan_age_ns: 86_400_000_000_000,
            sweep: true,
            index_file_bytes_max: 1 << 30,
        }
    }
}

/// What a round did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CompactReport {
    /// Tables of the tenant that there are.
    pub tables: u64,
    /// Chunks that stay in the index; one that touches two days counts twice.
    pub chunks: u64,
    pub index_files_written: u64,
    pub index_files_deleted: u64,
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
    let object = bucket.get(path).await.map_err(|e| layout::failed("reading", path, &e))?;
    if object.meta.size > bytes_max as u64 {
        return Err(Error::exhausted(format!(
            "{path} has {} bytes, the limit is {bytes_max}",
            object.meta.size
        )));
    }
    let packed = object.bytes().await.map_err(|e| layout::failed("reading", path, &e))?;
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
        referenced: HashSet::new(),
        report: CompactReport::default(),
    };
    let mut tables: BTreeMap<String, Vec<IndexPlace>> = BTreeMap::new();
    let root = layout::index_root();
    let mut listing = bucket.list(Some(&root));
    while let Some(object) = listing.try_next().await.map_err(|e| layout::failed("listing", &root, &e))? {
        let Some(place) = IndexPlace::parse(&object.location) else { continue };
        match &place.tenant {
            Some(owner) if owner == tenant => tables.entry(place.table.clone()).or_default().push(place),
            Some(_) => {}
            None => round.shared(&object.location).await,
        }
    }
    drop(listing);
    for (table, files) in tables {
        round.report.tables += 1;
        round.table(&table, files).await?;
    }
    if config.sweep && round.report.failed.is_empty() {
        round.sweep().await?;
    }
    Ok(round.report)
}

struct Round<'a> {
    bucket: &'a Bucket,
    tenant: &'a TenantId,
    config: &'a CompactConfig,
    now_ns: i64,
    /// Chunks that an index file named when the round began.
    referenced: HashSet<ChunkRef>,
    report: CompactReport,
}

impl Round<'_> {
    fn remember(&mut self, series: &[SeriesMeta]) {
        for one in series {
            self.referenced.extend(one.chunks.iter().map(|c| ChunkRef {
                fingerprint: one.fingerprint,
                from_ms: c.from_ms,
                through_ms: c.through_ms,
                checksum: c.checksum,
            }));
        }
    }

    fn failed(&mut self, error: &Error) {
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
            Err(error) => self.failed(&error),
        }
    }

    async fn table(&mut self, table: &str, files: Vec<IndexPlace>) -> Result<()> {
        let mut sources = Vec::new();
        let mut series: Vec<SeriesMeta> = Vec::new();
        for file in files {
            let path = layout::path(format!("logs/index/{table}/{}/{}", self.tenant, file.name))?;
            let read =
                async || read_index(self.bucket, &path, self.config.index_file_bytes_max).await?.read_all();
            match read().await {
                Ok(all) => {
                    self.remember(&all);
                    series.extend(all);
                    sources.push(path);
                }
                // Left as it is: what can be read of it is still shown.
                Err(error) => self.failed(&error),
            }
        }
        let mut expired = 0;
        if self.config.retention_ns > 0 {
            let cutoff_ms = self.now_ns.saturating_sub(self.config.retention_ns).div_euclid(1_000_000);
            for one in &mut series {
                let before = one.chunks.len();
                one.chunks.retain(|c| c.through_ms >= cutoff_ms);
                expired += (before - one.chunks.len()) as u64;
            }
        }
        let series = index::normalise(series);
        self.report.chunks += series.iter().map(|s| s.chunks.len() as u64).sum::<u64>();
        self.report.chunks_expired += expired;
        if sources.len() < 2 && expired == 0 {
            return Ok(());
        }
        let mut written = None;
        if !series.is_empty() {
            let encoded = index::encode(&series)?;
            let name = format!(
                "{}-compactor-{}-{}-{:x}.tsdb.gz",
                self.now_ns, encoded.from_ms, encoded.through_ms, encoded.checksum
            );
            let path = layout::path(format!("logs/index/{table}/{}/{name}", self.tenant))?;
            let payload = PutPayload::from(index::gzip(&encoded.bytes)?);
            self.bucket.put(&path, payload).await.map_err(|e| layout::failed("writing", &path, &e))?;
            self.report.index_files_written += 1;
            written = Some(path);
        }
        sources.retain(|source| Some(source) != written.as_ref());
        self.report.index_files_deleted += delete(self.bucket, sources).await?;
        Ok(())
    }

    async fn sweep(&mut self) -> Result<()> {
        let root = layout::chunks_root(self.tenant)?;
        let mut orphans = Vec::new();
        let mut listing = self.bucket.list(Some(&root));
        while let Some(object) = listing.try_next().await.map_err(|e| layout::failed("listing", &root, &e))? {
            // What is not a chunk is not ours to judge.
            let Some(chunk) = ChunkRef::from_path(self.tenant, &object.location) else { continue };
            let written_ns = object.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX);
            let age_ns = self.now_ns.saturating_sub(written_ns);
            if age_ns >= self.config.orphan_age_ns && !self.referenced.contains(&chunk) {
                orphans.push(object.location);
            }
        }
        drop(listing);
        self.report.orphans_deleted += delete(self.bucket, orphans).await?;
        Ok(())
    }
}
