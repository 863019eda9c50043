//! Writes a block: segments and index as streams, `meta.json` last.

use std::collections::BTreeMap;
use std::sync::Arc;

use triptych_blob::Bucket;
use triptych_blob::object_store::ObjectStoreExt;
use triptych_blob::object_store::path::Path;
use triptych_model::labels::put_uvarint;
use triptych_model::metrics::EncodedChunk;
use triptych_model::{Labels, Result, TenantId};

use super::index_writer::{ChunkMeta, IndexWriter};
use super::meta::{BlockFile, BlockStats, Compaction, Downsample, IndexStats, ThanosMeta};
use super::upload::Upload;
use super::{
    BlockId, BlockMeta, INDEX_FILE, META_FILE, SEGMENT_BYTES_MAX, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC,
    SEGMENT_VERSION, block_path, bucket_error, file_path, segment_name,
};
use crate::chunk;

/// What `meta.json` says beyond what the writer counts.
#[derive(Debug, Clone, Default)]
pub struct MetaParts {
    pub start_ms: i64,
    /// Exclusive.
    pub end_ms: i64,
    pub compaction: Compaction,
    pub labels: BTreeMap<String, String>,
    pub source: String,
}

/// Writes one block. Nobody reads it before [`BlockWriter::finish`]; what an aborted or crashed writer leaves behind has no
/// `meta.json` and is removed by the compactor.
pub struct BlockWriter {
    bucket: Bucket,
    dir: Path,
    id: BlockId,
    index: IndexWriter,
    segment: Option<Upload>,
    segment_number: u32,
    segment_bytes_max: u64,
    files: Vec<BlockFile>,
    stats: BlockStats,
    chunk_bytes_max: u64,
    scratch: Vec<u8>,
}

impl BlockWriter {
    /// `symbols`: every label name and value of the series to come, in any order; more do no harm.
    pub async fn new(
        bucket: &Bucket,
        tenant: &TenantId,
        id: BlockId,
        symbols: Vec<Arc<str>>,
    ) -> Result<Self> {
        let dir = block_path(tenant, id);
        let index = IndexWriter::new(bucket, file_path(&dir, INDEX_FILE), symbols).await?;
        Ok(Self {
            bucket: bucket.clone(),
            dir,
            id,
            index,
            segment: None,
            segment_number: 0,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            files: Vec::new(),
            stats: BlockStats::default(),
            chunk_bytes_max: 0,
            scratch: Vec::new(),
        })
    }

    #[cfg(test)]
    pub(crate) fn with_segment_bytes_max(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes;
        self
    }

    pub fn series_count(&self) -> u64 {
        self.stats.series
    }

    /// Adds a series; in ascending order of labels, its chunks ascending and without overlaps.
    pub async fn series(&mut self, labels: &Labels, chunks: &[EncodedChunk]) -> Result<()> {
        let mut metas = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let reference = self.chunk(chunk).await?;
            metas.push(ChunkMeta { start_ms: chunk.start_ms, end_ms: chunk.end_ms, reference });
        }
        self.index.series(labels, &metas).await?;
        self.stats.samples += chunks.iter().map(|c| u64::from(chunk::samples_in(&c.data))).sum::<u64>();
        self.stats.chunks += chunks.len() as u64;
        self.stats.series += 1;
        Ok(())
    }

    async fn chunk(&mut self, chunk: &EncodedChunk) -> Result<u64> {
        let record = &mut self.scratch;
        record.clear();
        put_uvarint(record, chunk.data.len() as u64);
        let checked = record.len();
        record.push(chunk.encoding as u8);
        record.extend_from_slice(&chunk.data);
        let crc = crc32c::crc32c(&record[checked..]);
        record.extend_from_slice(&crc.to_be_bytes());
        let bytes = record.len() as u64;
        self.chunk_bytes_max = self.chunk_bytes_max.max(bytes);

        if self.segment.as_ref().is_some_and(|s| s.position() + bytes > self.segment_bytes_max) {
            self.end_segment().await?;
        }
        let segment = match &mut self.segment {
            Some(segment) => segment,
            None => {
                let path = file_path(&self.dir, &segment_name(self.segment_number));
                let segment = self.segment.insert(Upload::new(&self.bucket, path));
                let mut header = [0u8; SEGMENT_HEADER_BYTES];
                header[..4].copy_from_slice(&SEGMENT_MAGIC.to_be_bytes());
                header[4] = SEGMENT_VERSION;
                segment.put(&header);
                segment
            }
        };
        let reference = u64::from(self.segment_number) << 32 | segment.position();
        segment.put(&self.scratch);
        segment.drain().await?;
        Ok(reference)
    }

    async fn end_segment(&mut self) -> Result<()> {
        if let Some(segment) = self.segment.take() {
            let size_bytes = segment.finish().await?;
            self.files.push(BlockFile { rel_path: segment_name(self.segment_number), size_bytes });
            self.segment_number += 1;
        }
        Ok(())
    }

    /// Completes the block: the last object is `meta.json`.
    pub async fn finish(mut self, parts: MetaParts) -> Result<BlockMeta> {
        self.end_segment().await?;
        let series_bytes_max = self.index.series_bytes_max;
        let size_bytes = self.index.finish().await?;
        let segment_files =
            self.files.iter().filter_map(|f| f.rel_path.strip_prefix("chunks/")).map(str::to_owned).collect();
        self.files.push(BlockFile { rel_path: INDEX_FILE.to_owned(), size_bytes });
        self.files.push(BlockFile { rel_path: META_FILE.to_owned(), size_bytes: 0 });
        let mut compaction = parts.compaction;
        if compaction.sources.is_empty() {
            compaction.sources = vec![self.id];
        }
        compaction.level = compaction.level.max(1);
        let meta = BlockMeta {
            ulid: self.id,
            start_ms: parts.start_ms,
            end_ms: parts.end_ms,
            stats: self.stats,
            compaction,
            version: 1,
            thanos: ThanosMeta {
                version: 1,
                labels: parts.labels,
                downsample: Downsample::default(),
                source: parts.source,
                segment_files,
                files: self.files,
                index_stats: IndexStats { series_bytes_max, chunk_bytes_max: self.chunk_bytes_max },
            },
        };
        let path = file_path(&self.dir, META_FILE);
        let json = meta.to_json()?;
        self.bucket.put(&path, json.into()).await.map_err(|e| bucket_error(format!("writing {path}"), e))?;
        Ok(meta)
    }

    /// Gives up. What was uploaded stays without `meta.json`.
    pub async fn abort(mut self) {
        if let Some(segment) = self.segment.take() {
            segment.abort().await;
        }
        self.index.abort().await;
    }
}
