//! Writes a stream's chunks anew: entries in the order of time, copies left out, small chunks joined, cut at the ends of the day.
//!
//! The entries are read as a query reads them, so that what a read shows once is kept once. One decompressed block of each chunk that
//! is open is held, and the chunk that is being filled. The same chunks give the same new ones, byte by byte: what is done twice is
//! written twice under the same names.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use hashbrown::HashSet;
use parking_lot::Mutex;
use triptych_blob::Bucket;
use triptych_model::logs::{Direction, LogEntry};
use triptych_model::{Error, Kind, Result, TenantId};
use triptych_runtime::{MemoryBudget, QueryContext, QueryLimits};

use super::CompactConfig;
use super::plan::Plan;
use crate::chunk::block::BLOCK_ENTRIES_MAX;
use crate::chunk::{ChunkBuilder, ChunkRef, envelope};
use crate::index::{ChunkMeta, SeriesMeta};
use crate::leaf::RawLeaf;
use crate::scan::entries::EntryScan;
use crate::scan::{Feed, Fetched, StreamInfo};
use crate::{layout, upload};

/// Chunks that are fetched before their turn.
const READ_AHEAD: usize = 2;
/// A chunk that is larger, compressed, ends within a millisecond if it must.
const CHUNK_BYTES_MAX: usize = 32 << 20;

/// What all streams of a table are written with.
pub(super) struct Work {
    pub bucket: Bucket,
    pub tenant: TenantId,
    pub config: CompactConfig,
    pub memory: MemoryBudget,
    pub day: i64,
}

/// What became of a stream.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// All its chunks, ascending.
    pub chunks: Vec<ChunkMeta>,
    pub merged: u64,
    pub written: u64,
    pub copies: u64,
    /// Chunks that are not there; the index need not name them any longer.
    pub missing: Vec<ChunkMeta>,
    /// Chunks that could not be read and stay as they are, a sentence each.
    pub failed: Vec<String>,
    /// There is more to do in another round.
    pub is_partial: bool,
}

enum Failed {
    /// This chunk cannot be read.
    Chunk(ChunkMeta, Error),
    Other(Error),
}

/// Carries a plan out. Fails where the bucket does; then nothing names what was written.
pub(super) async fn stream(work: Arc<Work>, series: SeriesMeta, plan: Plan) -> Result<Rewritten> {
    let mut out = Rewritten { is_partial: plan.is_partial, ..Rewritten::default() };
    let mut replaced: HashSet<ChunkMeta> = HashSet::new();
    let mut new = Vec::new();
    for group in plan.groups {
        let mut group: Vec<ChunkMeta> = group.iter().filter_map(|i| series.chunks.get(*i)).copied().collect();
        while !group.is_empty() {
            match merge(&work, &series, &group).await {
                Ok(merged) => {
                    out.merged += group.len() as u64;
                    out.written += merged.chunks.len() as u64;
                    out.copies += merged.copies;
                    new.extend(merged.chunks);
                    replaced.extend(group);
                    break;
                }
                Err(Failed::Chunk(chunk, error)) => {
                    match error.kind {
                        Kind::NotFound => {
                            out.missing.push(chunk);
                            replaced.insert(chunk);
                        }
                        Kind::Damaged | Kind::Invalid | Kind::Exhausted => out.failed.push(error.to_string()),
                        _ => return Err(error),
                    }
                    group.retain(|c| *c != chunk);
                    if group.len() < 2 {
                        break;
                    }
                }
                Err(Failed::Other(error)) if matches!(error.kind, Kind::Damaged | Kind::Exhausted) => {
                    out.failed
                        .push(error.context(format_args!("merging stream {}", series.labels)).to_string());
                    out.is_partial = true;
                    break;
                }
                Err(Failed::Other(error)) => return Err(error),
            }
        }
    }
    out.chunks = series.chunks;
    out.chunks.retain(|chunk| !replaced.contains(chunk));
    out.chunks.extend(new);
    out.chunks.sort_unstable();
    out.chunks.dedup();
    Ok(out)
}

struct Merged {
    chunks: Vec<ChunkMeta>,
    copies: u64,
}

async fn merge(
    work: &Arc<Work>,
    series: &SeriesMeta,
    group: &[ChunkMeta],
) -> std::result::Result<Merged, Failed> {
    let limits = QueryLimits {
        memory_bytes_max: work.memory.bytes_max(),
        timeout: Duration::from_secs(24 * 3600),
        ..QueryLimits::default()
    };
    let ctx = QueryContext::drawing_on(&work.memory, work.tenant.clone(), limits);
    let culprit: Arc<Mutex<Option<ChunkMeta>>> = Arc::default();
    let stream = Arc::new(StreamInfo::new(series.labels.clone()));
    let bounds: VecDeque<i64> = group.iter().map(|chunk| chunk.from_ms.saturating_mul(1_000_000)).collect();
    let fetches = {
        let (work, culprit, fingerprint) = (work.clone(), culprit.clone(), series.fingerprint);
        futures::stream::iter(group.to_vec()).map(move |meta| {
            let (work, culprit, stream) = (work.clone(), culprit.clone(), stream.clone());
            async move {
                match fetch(&work, fingerprint, &meta).await {
                    Ok(chunk) => Ok(Some(Fetched { stream, chunk: Arc::new(chunk) })),
                    Err(error) => {
                        culprit.lock().get_or_insert(meta);
                        Err(error)
                    }
                }
            }
        })
    };
    let day_ns = layout::DAY_MS.saturating_mul(1_000_000);
    let start_ns = work.day.saturating_mul(day_ns);
    let range = (start_ns, start_ns.saturating_add(day_ns));
    let mut scan = EntryScan::new(&ctx, Arc::new(RawLeaf), range, Direction::Forward, 0);
    scan.set_feed(Feed { bounds, chunks: fetches.buffered(READ_AHEAD).boxed() });
    let mut entries = scan.into_stream();
    let mut packer = Packer::new(work, series);
    while let Some(batch) = entries.next().await {
        let batch = batch.map_err(|error| match culprit.lock().take() {
            Some(chunk) => Failed::Chunk(chunk, error),
            None => Failed::Other(error),
        })?;
        for entry in &batch {
            packer.push(entry).await.map_err(Failed::Other)?;
        }
    }
    let report = ctx.report();
    // A block that a query would say is missing.
    if let Some(sentence) = report.missed.first() {
        return Err(Failed::Other(Error::damaged(sentence.clone())));
    }
    packer.cut().await.map_err(Failed::Other)?;
    Ok(Merged { copies: report.rows.saturating_sub(packer.entries), chunks: packer.chunks })
}

async fn fetch(work: &Work, fingerprint: u64, meta: &ChunkMeta) -> Result<crate::chunk::Chunk> {
    let ChunkMeta { from_ms, through_ms, checksum, .. } = *meta;
    let reference = ChunkRef { fingerprint, from_ms, through_ms, checksum };
    let path = reference.path(&work.tenant)?;
    let object = layout::get(&work.bucket, &path, work.config.chunk_object_bytes_max).await?;
    envelope::unwrap(&work.tenant, &reference, object).map_err(|e| e.context(&path))
}

/// Entries into chunks, each written as soon as it is full.
struct Packer<'a> {
    work: &'a Work,
    series: &'a SeriesMeta,
    next: ChunkBuilder,
    last_ms: i64,
    entries: u64,
    chunks: Vec<ChunkMeta>,
}

impl<'a> Packer<'a> {
    fn new(work: &'a Work, series: &'a SeriesMeta) -> Self {
        let next = ChunkBuilder::new(work.config.block_bytes);
        Self { work, series, next, last_ms: i64::MIN, entries: 0, chunks: Vec::new() }
    }

    async fn push(&mut self, entry: &LogEntry) -> Result<()> {
        let CompactConfig { block_bytes, codec, compression_level, .. } = self.work.config;
        let ms = entry.ts_ns.div_euclid(1_000_000);
        let metadata = entry.metadata.as_encoded();
        let weight = entry.line.len() + metadata.len() + 16;
        let open = self.next.open();
        if open.plain_bytes() + weight > block_bytes || open.entries() >= BLOCK_ENTRIES_MAX {
            self.next.cut_block(codec, compression_level)?;
        }
        // Between two milliseconds: then the index alone shows that chunks share nothing.
        if (self.is_full() && ms > self.last_ms) || self.next.blocks_bytes() > CHUNK_BYTES_MAX {
            self.cut().await?;
        }
        if !self.next.set_metadata(metadata) {
            return Err(Error::damaged(format!(
                "structured metadata {} of a line of stream {} cannot be kept",
                entry.metadata, self.series.labels
            )));
        }
        self.next.append(entry.ts_ns, &entry.line);
        self.entries += 1;
        self.last_ms = ms;
        Ok(())
    }

    /// As full as an ingester makes a chunk, and too large to be joined with a neighbour again.
    fn is_full(&self) -> bool {
        let CompactConfig { block_bytes, chunk_bytes, .. } = self.work.config;
        let symbols_bytes = self.next.symbols().text_bytes();
        let is_full = self.next.blocks_bytes() + block_bytes / 4 > chunk_bytes || symbols_bytes > chunk_bytes;
        is_full
            && upload::kilobytes((self.next.uncompressed_bytes() + symbols_bytes) as u64)
                > self.work.config.join_kb_max()
    }

    async fn cut(&mut self) -> Result<()> {
        let CompactConfig { codec, compression_level, .. } = self.work.config;
        self.next.cut_block(codec, compression_level)?;
        if let Some((symbols, blocks)) = self.next.cut_chunk() {
            let whose = (&self.work.tenant, self.series.fingerprint, &self.series.labels);
            let compression = (codec, compression_level);
            let (meta, _) = upload::chunk(&self.work.bucket, whose, compression, &symbols, &blocks).await?;
            self.chunks.push(meta);
        }
        Ok(())
    }
}
