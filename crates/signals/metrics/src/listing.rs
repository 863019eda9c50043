//! What lies in the bucket: blocks and their objects, found in one listing.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use triptych_blob::Bucket;
use triptych_blob::object_store::path::Path;
use triptych_model::{Result, TenantId};

use crate::block::{
    BlockId, BlockMeta, DELETION_MARK_FILE, META_FILE, NO_COMPACT_MARK_FILE, PREFIX, bucket_error,
    tenant_path,
};

/// The objects of one block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BlockObjects {
    /// Sizes by name relative to the block.
    pub sizes: BTreeMap<String, u64>,
    /// When the newest of them was written, in milliseconds.
    pub newest_ms: i64,
}

impl BlockObjects {
    pub fn has_meta(&self) -> bool {
        self.sizes.contains_key(META_FILE)
    }

    pub fn is_marked(&self) -> bool {
        self.sizes.contains_key(DELETION_MARK_FILE)
    }

    pub fn is_no_compact(&self) -> bool {
        self.sizes.contains_key(NO_COMPACT_MARK_FILE)
    }
}

/// Whether the object makes the others of its block visible: it must be written last and deleted first.
pub fn completes(path: &Path) -> bool {
    path.filename() == Some(META_FILE)
}

/// Every block of every tenant.
pub(crate) async fn list_all(bucket: &Bucket) -> Result<BTreeMap<(TenantId, BlockId), BlockObjects>> {
    list(bucket, &Path::from(PREFIX)).await
}

/// Every block of a tenant.
pub(crate) async fn list_tenant(
    bucket: &Bucket,
    tenant: &TenantId,
) -> Result<BTreeMap<BlockId, BlockObjects>> {
    let blocks = list(bucket, &tenant_path(tenant)).await?;
    Ok(blocks.into_iter().filter(|((t, _), _)| t == tenant).map(|((_, id), objects)| (id, objects)).collect())
}

async fn list(bucket: &Bucket, prefix: &Path) -> Result<BTreeMap<(TenantId, BlockId), BlockObjects>> {
    let mut blocks: BTreeMap<(TenantId, BlockId), BlockObjects> = BTreeMap::new();
    let mut objects = bucket.list(Some(prefix));
    while let Some(object) = objects.next().await {
        let object = object.map_err(|e| bucket_error(format!("listing {prefix}"), e))?;
        // metrics/<tenant>/<ULID>/<name..>; what does not look so is none of ours.
        let mut parts = object.location.as_ref().splitn(4, '/');
        let (Some(PREFIX), Some(tenant), Some(id), Some(name)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (Ok(tenant), Some(id)) = (TenantId::new(tenant), BlockId::parse(id)) else { continue };
        let block = blocks.entry((tenant, id)).or_default();
        block.sizes.insert(name.to_owned(), object.size);
        block.newest_ms = block.newest_ms.max(object.last_modified.timestamp_millis());
    }
    Ok(blocks)
}

/// The tenants that have anything in the bucket.
pub async fn tenants(bucket: &Bucket) -> Result<Vec<TenantId>> {
    let prefix = Path::from(PREFIX);
    let found = bucket
        .list_with_delimiter(Some(&prefix))
        .await
        .map_err(|e| bucket_error(format!("listing {prefix}"), e))?;
    let names = found.common_prefixes.iter().filter_map(|p| p.as_ref().rsplit('/').next());
    let mut tenants: Vec<TenantId> = names.filter_map(|name| TenantId::new(name).ok()).collect();
    tenants.sort();
    Ok(tenants)
}

/// Blocks whose samples are all in another block of the list that `may_cover`: what a compaction has read but not yet removed. Of two
/// blocks with the same sources the one that was compacted more often stays, then the older.
pub(crate) fn covered<'a>(
    blocks: impl IntoIterator<Item = &'a BlockMeta>,
    may_cover: impl Fn(BlockId) -> bool,
) -> BTreeMap<BlockId, BlockId> {
    let mut all: Vec<(&BlockMeta, BTreeSet<BlockId>)> =
        blocks.into_iter().map(|m| (m, m.sources().into_iter().collect())).collect();
    all.sort_by(|(a, x), (b, y)| {
        y.len().cmp(&x.len()).then(b.compaction.level.cmp(&a.compaction.level)).then(a.ulid.cmp(&b.ulid))
    });
    let mut by_source: BTreeMap<BlockId, Vec<usize>> = BTreeMap::new();
    let mut covered = BTreeMap::new();
    for (i, (meta, sources)) in all.iter().enumerate() {
        let candidates = sources.first().and_then(|s| by_source.get(s)).map_or(&[][..], Vec::as_slice);
        let cover = candidates.iter().filter_map(|&c| all.get(c)).find(|(other, theirs)| {
            // Blocks of other resolutions hold other samples.
            other.thanos.downsample == meta.thanos.downsample && sources.is_subset(theirs)
        });
        match cover {
            Some((other, _)) => _ = covered.insert(meta.ulid, other.ulid),
            None if may_cover(meta.ulid) => {
                sources.iter().for_each(|s| by_source.entry(*s).or_default().push(i));
            }
            None => {}
        }
    }
    covered
}
