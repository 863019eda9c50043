//! Which index files were replaced by a merged one.
//!
//! ```text
//! control/compactor/logs/<tenant>/<table>/<merged file>/<source>    when the merged file is there, the source is replaced
//! control/compactor/logs/<tenant>/<table>/<merged file>/settled     no two of its chunks share an entry, see `plan`
//! ```
//! A file stands here as the XXH3 hash of its name, 128 bits in hexadecimal: two names would make a path that is too long for some
//! S3-compatible servers. The objects are empty: a listing says everything. They stand beside Loki's places, not in them, and are written before the merged
//! file; without it they mean nothing.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};
use hashbrown::HashMap;
use triptych_blob::Bucket;
use triptych_blob::object_store::path::Path;
use triptych_blob::object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use triptych_model::{Result, TenantId};
use xxhash_rust::xxh3::xxh3_128;

use crate::layout;

const SETTLED: &str = "settled";

/// Puts in flight.
const PUTS: usize = 16;

/// What is noted of a merged file.
#[derive(Debug, Default)]
struct Note {
    /// By their marks.
    sources: BTreeSet<String>,
    is_settled: bool,
    /// When the newest of its objects was written.
    written_ns: i64,
}

/// The notes of one table, by the mark of the merged file.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<String, Note>);

fn root(tenant: &TenantId) -> String {
    format!("control/compactor/logs/{tenant}")
}

/// What stands for a file.
fn mark(file: &str) -> String {
    format!("{:032x}", xxh3_128(file.as_bytes()))
}

fn by_mark<'a>(files: &BTreeSet<&'a str>) -> HashMap<String, &'a str> {
    files.iter().map(|file| (mark(file), *file)).collect()
}

/// `merged` and `name` are marks.
fn note_path(tenant: &TenantId, table: &str, merged: &str, name: &str) -> Result<Path> {
    layout::path(format!("{}/{table}/{merged}/{name}", root(tenant)))
}

/// The notes of all tables of a tenant.
pub(super) async fn list(bucket: &Bucket, tenant: &TenantId) -> Result<BTreeMap<String, Table>> {
    read(bucket, layout::path(root(tenant))?).await
}

/// The notes of one table.
pub(super) async fn list_table(bucket: &Bucket, tenant: &TenantId, table: &str) -> Result<Table> {
    let mut tables = read(bucket, layout::path(format!("{}/{table}", root(tenant)))?).await?;
    Ok(tables.remove(table).unwrap_or_default())
}

async fn read(bucket: &Bucket, prefix: Path) -> Result<BTreeMap<String, Table>> {
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    let mut listing = bucket.list(Some(&prefix));
    while let Some(object) = listing.try_next().await.map_err(|e| layout::failed("listing", &prefix, &e))? {
        // After `control/compactor/logs/<tenant>`.
        let parts: Vec<&str> = object.location.as_ref().split('/').skip(4).collect();
        let [table, merged, name] = parts[..] else { continue };
        let note = tables.entry(table.to_owned()).or_default().0.entry(merged.to_owned()).or_default();
        note.written_ns = note.written_ns.max(object.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX));
        match name {
            SETTLED => note.is_settled = true,
            source => drop(note.sources.insert(source.to_owned())),
        }
    }
    Ok(tables)
}

impl Table {
    /// Of the files that are there, those that were replaced, each with one that replaced it.
    pub fn replaced<'a>(&self, files: &BTreeSet<&'a str>) -> BTreeMap<&'a str, &'a str> {
        let there = by_mark(files);
        let mut replaced = BTreeMap::new();
        for (merged, note) in &self.0 {
            let Some(merged) = there.get(merged) else { continue };
            replaced
                .extend(note.sources.iter().filter_map(|source| there.get(source)).map(|s| (*s, *merged)));
        }
        replaced
    }

    pub fn is_settled(&self, file: &str) -> bool {
        self.0.get(&mark(file)).is_some_and(|note| note.is_settled)
    }

    /// Notes that mean nothing any more: of sources that are gone, and of merged files that did not come for `age_ns`.
    pub fn stale(
        &self,
        tenant: &TenantId,
        table: &str,
        files: &BTreeSet<&str>,
        (now_ns, age_ns): (i64, i64),
    ) -> Result<Vec<Path>> {
        let files = by_mark(files);
        let mut stale = Vec::new();
        for (merged, note) in &self.0 {
            let is_there = files.contains_key(merged);
            let is_given_up = !is_there && note.written_ns.saturating_add(age_ns) <= now_ns;
            for source in &note.sources {
                if is_given_up || !files.contains_key(source) {
                    stale.push(note_path(tenant, table, merged, source)?);
                }
            }
            if note.is_settled && is_given_up {
                stale.push(note_path(tenant, table, merged, SETTLED)?);
            }
        }
        Ok(stale)
    }
}

/// Notes that a file, once it is there, replaces others.
pub(super) async fn note(
    bucket: &Bucket,
    tenant: &TenantId,
    table: &str,
    merged: &str,
    sources: &[String],
) -> Result<()> {
    let merged = mark(merged);
    let puts = sources.iter().map(|source| note_path(tenant, table, &merged, &mark(source)));
    let puts = futures::stream::iter(puts.collect::<Result<Vec<_>>>()?);
    puts.map(|path| put(bucket.clone(), path)).buffer_unordered(PUTS).try_collect::<()>().await
}

/// Notes that no two chunks of a file share an entry.
pub(super) async fn note_settled(bucket: &Bucket, tenant: &TenantId, table: &str, file: &str) -> Result<()> {
    put(bucket.clone(), note_path(tenant, table, &mark(file), SETTLED)?).await
}

async fn put(bucket: Bucket, path: Path) -> Result<()> {
    bucket.put(&path, PutPayload::new()).await.map_err(|e| layout::failed("writing", &path, &e))?;
    Ok(())
}
