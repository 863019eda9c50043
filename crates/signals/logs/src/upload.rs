//! A finished chunk into the bucket.

use triptych_blob::Bucket;
use triptych_blob::object_store::ObjectStoreExt;
use triptych_model::{Labels, Result, TenantId};

use crate::chunk::{self, Block, Codec, SymbolTable, envelope};
use crate::index::ChunkMeta;
use crate::layout;

/// Uncompressed size as the index has it, in kilobytes; `bytes` is Loki's count: lines, metadata references, the text of the symbols.
pub(crate) fn kilobytes(bytes: u64) -> u32 {
    u32::try_from((bytes + 512) / 1024).unwrap_or(u32::MAX)
}

/// Writes a chunk, which is there when an index names it. Says what the index needs, and the size of the object. `whose`: tenant,
/// fingerprint and labels of the stream.
pub(crate) async fn chunk(
    bucket: &Bucket,
    (tenant, fingerprint, labels): (&TenantId, u64, &Labels),
    (codec, level): (Codec, i32),
    symbols: &SymbolTable,
    blocks: &[Block],
) -> Result<(ChunkMeta, u64)> {
    let from_ns = blocks.iter().map(|b| b.from_ns).min().unwrap_or_default();
    let through_ns = blocks.iter().map(|b| b.through_ns).max().unwrap_or_default();
    let bounds_ms = envelope::round_outwards_ms(from_ns, through_ns);
    let data = chunk::encode(codec, level, symbols, blocks)?;
    let (reference, object) = envelope::wrap(tenant, fingerprint, labels, bounds_ms, &data)?;
    drop(data);
    let path = reference.path(tenant)?;
    let bytes = object.len() as u64;
    bucket.put(&path, object.into()).await.map_err(|e| layout::failed("writing", &path, &e))?;
    let plain = blocks.iter().map(|b| u64::from(b.uncompressed_bytes)).sum::<u64>();
    let meta = ChunkMeta {
        from_ms: reference.from_ms,
        through_ms: reference.through_ms,
        checksum: reference.checksum,
        kb: kilobytes(plain + symbols.text_bytes() as u64),
        entries: blocks.iter().fold(0u32, |sum, b| sum.saturating_add(b.entries)),
    };
    Ok((meta, bytes))
}
