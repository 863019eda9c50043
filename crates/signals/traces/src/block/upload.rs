//! Brings a block into the bucket as it is written. `meta.json` comes last: before it nobody reads the block, and what a crash leaves
//! behind is removed by the compactor.

use triptych_blob::object_store::path::Path;
use triptych_blob::object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use triptych_blob::{Bucket, store_error};
use triptych_model::{Result, TenantId};

use super::meta::BlockMeta;
use super::read::block_dir;
use super::write::{BlockOptions, BlockWriter};
use super::{DATA_NAME, INDEX_NAME, META_NAME, bloom_name};
use crate::otlp::Trace;
use crate::view::Derived;

/// Size of an uploaded part; S3 takes 10,000 of at least 5 MiB. Blocks below it are put in one request.
const PART_BYTES: usize = 16 << 20;

pub struct BlockUpload {
    bucket: Bucket,
    dir: Path,
    /// Until `finish`.
    writer: Option<BlockWriter>,
    pending: Vec<u8>,
    parts: Option<Box<dyn MultipartUpload>>,
}

/// A block that is in the bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Uploaded {
    pub meta: BlockMeta,
    pub spans: u64,
}

impl BlockUpload {
    pub fn new(
        bucket: &Bucket,
        tenant: &TenantId,
        options: &BlockOptions,
        compaction_level: u32,
    ) -> Result<Self> {
        let writer = BlockWriter::new(tenant, options, compaction_level)?;
        let dir = block_dir(tenant.as_str(), &writer.block_id());
        Ok(Self { bucket: bucket.clone(), dir, writer: Some(writer), pending: Vec::new(), parts: None })
    }

    /// Adds a trace; ids must ascend.
    pub async fn add(&mut self, trace: &Trace<'_>, derived: &Derived) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if writer.add(trace, derived)? { self.put_ready().await } else { Ok(()) }
    }

    /// What is held in the row group that is open, before compression.
    pub fn buffered_bytes(&self) -> usize {
        self.writer.as_ref().map_or(0, BlockWriter::buffered_bytes)
    }

    /// Ends the row group that is open.
    pub async fn close_row_group(&mut self) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.close_row_group()?;
        self.put_ready().await
    }

    /// Takes what the writer has ready, and sends it where there is enough for a part.
    async fn put_ready(&mut self) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        self.pending.append(&mut writer.take_data());
        if self.pending.len() >= PART_BYTES { self.put_part().await } else { Ok(()) }
    }

    async fn put_part(&mut self) -> Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => {
                let path = self.dir.clone().join(DATA_NAME);
                none.insert(self.bucket.put_multipart(&path).await.map_err(store_error)?)
            }
        };
        parts.put_part(PutPayload::from(std::mem::take(&mut self.pending))).await.map_err(store_error)
    }

    async fn put(&mut self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.bucket.put(&self.dir.clone().join(name), bytes.into()).await.map_err(store_error)?;
        Ok(())
    }

    /// Gives up: what was uploaded is forgotten.
    pub async fn abort(mut self) {
        if let Some(parts) = &mut self.parts {
            // What can't be aborted now the bucket's own rules for stale uploads must remove.
            let _ = parts.abort().await;
        }
    }

    /// Writes the rest; `None` where there was no trace.
    pub async fn finish(mut self) -> Result<Option<Uploaded>> {
        let Some(writer) = self.writer.take().filter(|w| w.trace_count() > 0) else { return Ok(None) };
        let finished = writer.finish()?;
        self.pending.extend_from_slice(&finished.data);
        if self.parts.is_some() {
            self.put_part().await?;
            if let Some(mut parts) = self.parts.take() {
                parts.complete().await.map_err(store_error)?;
            }
        } else {
            let data = std::mem::take(&mut self.pending);
            self.put(DATA_NAME, data).await?;
        }
        for (i, bloom) in finished.blooms.into_iter().enumerate() {
            self.put(&bloom_name(i), bloom).await?;
        }
        self.put(INDEX_NAME, finished.index.to_json()?).await?;
        self.put(META_NAME, finished.meta.to_json()?).await?;
        Ok(Some(Uploaded { meta: finished.meta, spans: finished.spans }))
    }
}
