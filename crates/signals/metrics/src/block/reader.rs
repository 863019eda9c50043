//! Reads a block through ranged reads.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use triptych_blob::Bucket;
use triptych_blob::object_store::ObjectStoreExt;
use triptych_blob::object_store::path::Path;
use triptych_model::labels::take_uvarint;
use triptych_model::metrics::{ChunkEncoding, EncodedChunk, LabelsSelect, SeriesChunks, SeriesSelect};
use triptych_model::{Error, Labels, Matcher, Result, TenantId};
use triptych_runtime::QueryContext;

use super::cache::BlockCaches;
use super::header::{IndexHeader, Toc, decode_postings};
use super::index_writer::ChunkMeta;
use super::{
    BlockId, BlockMeta, INDEX_FILE, INDEX_MAGIC, INDEX_VERSION, META_FILE, SEGMENT_HEADER_BYTES, TOC_BYTES,
    block_path, bucket_error, file_path, segment_name,
};
use crate::postings::{retain, union};
use crate::{chunk, select};

/// Indexes up to this size are fetched whole.
const INDEX_WHOLE_BYTES: u64 = 1 << 20;
/// A series record is taken to be this long where the block does not say.
const SERIES_BYTES_GUESS: u64 = 1024;
/// A chunk is taken to be this long where the block does not say.
const CHUNK_BYTES_GUESS: u64 = 1024;
/// Length, encoding, checksum.
const CHUNK_FRAME_BYTES: u64 = 5 + 1 + 4;
/// Chunks this far apart are fetched in one request.
const CHUNK_GAP_BYTES: u64 = 64 << 10;
/// Largest request for chunks.
const CHUNK_READ_BYTES_MAX: u64 = 4 << 20;
/// Chunks of a batch of series, about.
pub(crate) const BATCH_BYTES: u64 = 4 << 20;
/// Batches fetched ahead.
pub(crate) const BATCHES_AHEAD: usize = 3;
/// Series whose records are read in one go.
const RECORDS_BATCH: usize = 1024;

static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// A block in the bucket. Cheap to hold: the index comes and goes through the caches.
#[derive(Clone)]
pub struct Block {
    bucket: Bucket,
    dir: Path,
    meta: Arc<BlockMeta>,
    /// Sizes of the objects by name relative to the block.
    sizes: Arc<BTreeMap<String, u64>>,
    caches: BlockCaches,
    number: u64,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({})", self.dir)
    }
}

/// Which chunks a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encodings {
    /// What PromQL reads; others are left out and reported.
    Floats,
    /// All that are known; others are an error.
    All,
}

/// A series as the index has it.
#[derive(Debug, Clone)]
struct SeriesRecord {
    labels: Labels,
    chunks: Vec<ChunkMeta>,
}

impl Block {
    /// Opens a block by its name: lists its objects and reads `meta.json`.
    pub async fn open(bucket: &Bucket, tenant: &TenantId, id: BlockId, caches: &BlockCaches) -> Result<Self> {
        let dir = block_path(tenant, id);
        let mut sizes = BTreeMap::new();
        let mut objects = bucket.list(Some(&dir));
        while let Some(object) = objects.next().await {
            let object = object.map_err(|e| bucket_error(format!("listing {dir}"), e))?;
            if let Some(rest) = object.location.prefix_match(&dir) {
                let name: Vec<String> = rest.map(|p| p.as_ref().to_owned()).collect();
                sizes.insert(name.join("/"), object.size);
            }
        }
        Self::load(bucket, dir, sizes, caches).await
    }

    /// Reads `meta.json` of a block whose objects are known.
    pub(crate) async fn load(
        bucket: &Bucket,
        dir: Path,
        sizes: BTreeMap<String, u64>,
        caches: &BlockCaches,
    ) -> Result<Self> {
        let path = file_path(&dir, META_FILE);
        let doing = || format!("reading {path}");
        let answer = bucket.get(&path).await.map_err(|e| bucket_error(doing(), e))?;
        let json = answer.bytes().await.map_err(|e| bucket_error(doing(), e))?;
        let meta = Arc::new(BlockMeta::parse(&json).map_err(|e| e.context(&dir))?);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { bucket: bucket.clone(), dir, meta, sizes: Arc::new(sizes), caches: caches.clone(), number })
    }

    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// The block's place in the bucket.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Bytes in the bucket.
    pub fn bytes(&self) -> u64 {
        self.sizes.values().sum()
    }

    fn damaged(&self, what: impl std::fmt::Display) -> Error {
        Error::damaged(format!("{}: {what}", self.dir))
    }

    fn index_size(&self) -> Result<u64> {
        self.sizes.get(INDEX_FILE).copied().ok_or_else(|| Error::not_found(format!("{}: no index", self.dir)))
    }

    async fn read_index(&self, ctx: Option<&QueryContext>, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let path = file_path(&self.dir, INDEX_FILE);
        let count = |bytes| ctx.map_or(Ok(()), |ctx| ctx.add_read_bytes(bytes));
        self.caches.read(&self.bucket, &path, self.number, self.index_size()?, ranges, count).await
    }

    pub(crate) async fn header(&self, ctx: Option<&QueryContext>) -> Result<Arc<IndexHeader>> {
        self.caches
            .headers
            .try_get_with(self.number, async { self.load_header(ctx).await.map(Arc::new) })
            .await
            .map_err(|e| (*e).clone())
    }

    /// Whether its header is in the cache.
    pub(crate) fn is_open(&self) -> bool {
        self.caches.headers.contains_key(&self.number)
    }

    async fn load_header(&self, ctx: Option<&QueryContext>) -> Result<IndexHeader> {
        let size = self.index_size()?;
        let end = size.checked_sub(TOC_BYTES as u64).filter(|end| *end >= 5);
        let end = end.ok_or_else(|| self.damaged("index is too short"))?;
        let first = if size <= INDEX_WHOLE_BYTES { 0..size } else { 0..5 };
        let parts = self.read_index(ctx, &[first, end..size]).await?;
        let [start, toc] = parts.as_slice() else { return Err(Error::internal("index: ranges are missing")) };
        if !start.starts_with(&INDEX_MAGIC.to_be_bytes()) {
            return Err(self.damaged("index has no magic number"));
        }
        match start.get(4) {
            Some(&INDEX_VERSION) => {}
            version => return Err(self.damaged(format_args!("index version {version:?} is not supported"))),
        }
        let context = |e: Error| e.context(&self.dir);
        let toc = Toc::parse(toc, size).map_err(context)?;
        let parts = self.read_index(ctx, &[toc.symbols..toc.series, toc.postings_table..end]).await?;
        let [symbols, table] = parts.as_slice() else {
            return Err(Error::internal("index: ranges are missing"));
        };
        IndexHeader::parse(toc, symbols, table).map_err(context)
    }

    async fn read_postings(&self, ctx: Option<&QueryContext>, lists: &[Range<u64>]) -> Result<Vec<Vec<u32>>> {
        let size = self.index_size()?;
        let parts = self.read_index(ctx, lists).await?;
        let mut out = Vec::with_capacity(parts.len());
        for (range, part) in lists.iter().zip(parts) {
            let length = part.first_chunk::<4>().map_or(0, |c| u32::from_be_bytes(*c));
            let end = range.start + 8 + u64::from(length);
            let ids = if end > range.end && end <= size {
                let exact = self.read_index(ctx, std::slice::from_ref(&(range.start..end))).await?;
                decode_postings(exact.first().unwrap_or(&part))
            } else {
                decode_postings(&part)
            };
            out.push(ids.map_err(|e| e.context(&self.dir))?);
        }
        Ok(out)
    }

    /// The ids of the series that match all of the matchers, ascending: the order of labels.
    async fn find(&self, ctx: &QueryContext, header: &IndexHeader, matchers: &[Matcher]) -> Result<Vec<u32>> {
        let mut steps: Vec<(bool, Vec<Range<u64>>)> = Vec::with_capacity(matchers.len());
        for matcher in matchers {
            ctx.check()?;
            // A matcher that accepts the absent label cannot be answered by the label's ids: take away those that fail it.
            let keep = !matcher.matches_empty();
            let lists: Vec<Range<u64>> = match matcher.set_values() {
                Some(values) if keep => {
                    values.iter().filter_map(|v| header.lookup(&matcher.name, v)).map(|e| e.range).collect()
                }
                _ => header
                    .values(&matcher.name)
                    .filter(|e| matcher.matches(e.value) == keep)
                    .map(|e| e.range)
                    .collect(),
            };
            if keep && lists.is_empty() {
                return Ok(Vec::new());
            }
            steps.push((keep, lists));
        }
        // The smallest first, those that take away last.
        let weight = |lists: &[Range<u64>]| lists.iter().map(|r| r.end - r.start).sum::<u64>();
        steps.sort_by_key(|(keep, lists)| (!keep, weight(lists)));
        if !steps.first().is_some_and(|(keep, _)| *keep) {
            steps.insert(0, (true, vec![header.all()]));
        }
        let mut ids: Option<Vec<u32>> = None;
        for (keep, lists) in steps {
            let _memory = ctx.reserve(weight(&lists) as usize)?;
            let lists = self.read_postings(Some(ctx), &lists).await?;
            let lists: Vec<&[u32]> = lists.iter().map(Vec::as_slice).collect();
            let step = union(&lists);
            match &mut ids {
                None => ids = Some(step),
                Some(ids) => retain(ids, &step, keep),
            }
            if ids.as_ref().is_some_and(Vec::is_empty) {
                break;
            }
        }
        Ok(ids.unwrap_or_default())
    }

    /// The records of some series. `chunks_in`: keep only chunks that overlap.
    async fn records(
        &self,
        ctx: Option<&QueryContext>,
        header: &IndexHeader,
        ids: &[u32],
        chunks_in: (i64, i64),
    ) -> Result<Vec<SeriesRecord>> {
        let end = header.toc.series_end();
        let guess = match self.meta.thanos.index_stats.series_bytes_max {
            0 => SERIES_BYTES_GUESS,
            // A hostile meta.json must not make us fetch gigabytes.
            n => n.min(64 << 10),
        };
        let start_of = |id: u32| u64::from(id) * 16;
        let mut ranges = Vec::with_capacity(ids.len());
        for (i, &id) in ids.iter().enumerate() {
            let start = start_of(id);
            if start < header.toc.series || start >= end {
                return Err(self.damaged("a series lies outside of the series"));
            }
            let next = ids.get(i + 1).map_or(end, |&n| start_of(n));
            ranges.push(start..(start + guess).min(next).min(end));
        }
        let parts = self.read_index(ctx, &ranges).await?;
        let mut records = Vec::with_capacity(ids.len());
        for (range, part) in ranges.iter().zip(parts) {
            let mut rest = &part[..];
            let length = take_uvarint(&mut rest).ok_or_else(|| self.damaged("series: torn length"))?;
            let head = (part.len() - rest.len()) as u64;
            let whole = head.checked_add(length).and_then(|n| n.checked_add(4));
            let whole =
                whole.filter(|n| *n <= end - range.start).ok_or_else(|| self.damaged("series: torn"))?;
            let record = if whole > part.len() as u64 {
                let exact = range.start..range.start + whole;
                let again = self.read_index(ctx, std::slice::from_ref(&exact)).await?;
                again
                    .first()
                    .and_then(|part| parse_series(&part[head as usize..], length as usize, header, chunks_in))
            } else {
                parse_series(rest, length as usize, header, chunks_in)
            };
            records.push(
                record.ok_or_else(|| self.damaged(format_args!("series at {} is damaged", range.start)))?,
            );
        }
        Ok(records)
    }

    /// The matching series in ascending order of labels. The first error ends the stream.
    pub async fn select(
        &self,
        ctx: &QueryContext,
        select: &SeriesSelect,
    ) -> Result<BoxStream<'static, Result<SeriesChunks>>> {
        self.select_in_batches(ctx, select, BATCH_BYTES).await
    }

    /// As [`Block::select`]; about [`BATCHES_AHEAD`] times `batch_bytes` of chunks are held.
    pub(crate) async fn select_in_batches(
        &self,
        ctx: &QueryContext,
        select: &SeriesSelect,
        batch_bytes: u64,
    ) -> Result<BoxStream<'static, Result<SeriesChunks>>> {
        ctx.check()?;
        if !self.meta.overlaps(select.start_ms, select.end_ms) {
            return Ok(stream::empty().boxed());
        }
        ctx.add_blocks(1);
        let header = self.header(Some(ctx)).await?;
        let ids = self.find(ctx, &header, &select.matchers).await?;
        let reservation = Arc::new(ctx.reserve(4 * ids.len())?);
        Ok(self.series_stream(ctx, header, ids, select, (Encodings::Floats, batch_bytes), reservation))
    }

    fn series_stream(
        &self,
        ctx: &QueryContext,
        header: Arc<IndexHeader>,
        ids: Vec<u32>,
        select: &SeriesSelect,
        (encodings, batch_bytes): (Encodings, u64),
        keep: impl Send + Sync + Clone + 'static,
    ) -> BoxStream<'static, Result<SeriesChunks>> {
        let select = SeriesSelect { matchers: Vec::new(), ..*select };
        let skip_chunks = select.skip_chunks;
        let batch = if skip_chunks {
            RECORDS_BATCH
        } else {
            let per_series = self.bytes() / self.meta.stats.series.max(1);
            (batch_bytes / per_series.max(1)).clamp(4, RECORDS_BATCH as u64) as usize
        };
        let batches: Vec<Vec<u32>> = ids.chunks(batch).map(<[u32]>::to_vec).collect();
        drop(ids);
        let (block, ctx) = (self.clone(), ctx.clone());
        stream::iter(batches)
            .map(move |ids| {
                let (block, ctx, header, keep) = (block.clone(), ctx.clone(), header.clone(), keep.clone());
                let select = select.clone();
                async move {
                    let _keep = keep;
                    block.series_batch(&ctx, &header, &ids, &select, encodings).await
                }
            })
            .buffered(BATCHES_AHEAD)
            .flat_map(|batch| {
                let (series, error, memory) = match batch {
                    Ok((series, memory)) => (series, None, Some(memory)),
                    Err(e) => (Vec::new(), Some(e), None),
                };
                // The reservation lives as long as the batch is read.
                let items = series.into_iter().map(Ok).chain(error.map(Err));
                stream::iter(items.inspect(move |_| _ = &memory))
            })
            .boxed()
    }

    async fn series_batch(
        &self,
        ctx: &QueryContext,
        header: &IndexHeader,
        ids: &[u32],
        select: &SeriesSelect,
        encodings: Encodings,
    ) -> Result<(Vec<SeriesChunks>, triptych_runtime::Reservation)> {
        ctx.check()?;
        let mut records = self.records(Some(ctx), header, ids, (select.start_ms, select.end_ms)).await?;
        records.retain(|r| !r.chunks.is_empty() && select.shard.is_none_or(|shard| shard.has(&r.labels)));
        if select.skip_chunks {
            let series =
                records.into_iter().map(|r| SeriesChunks { labels: r.labels, chunks: Vec::new() }).collect();
            return Ok((series, ctx.reserve(0)?));
        }
        let metas: Vec<ChunkMeta> = records.iter().flat_map(|r| &r.chunks).copied().collect();
        let (mut chunks, memory) = self.read_chunks(ctx, &metas).await?;
        let (mut bytes_rows, mut strange) = (0u64, 0u64);
        let mut series = Vec::with_capacity(records.len());
        for record in records {
            let mut own = Vec::with_capacity(record.chunks.len());
            for meta in &record.chunks {
                let Some((encoding, data)) = chunks.remove(&meta.reference) else { continue };
                let encoding = match (ChunkEncoding::from_u8(encoding), encodings) {
                    (Some(ChunkEncoding::Xor), _) => ChunkEncoding::Xor,
                    (Some(known), Encodings::All) => known,
                    (None, Encodings::All) => {
                        return Err(Error::invalid(format!(
                            "{}: chunk encoding {encoding} is unknown",
                            self.dir
                        )));
                    }
                    (_, Encodings::Floats) => {
                        strange += 1;
                        continue;
                    }
                };
                bytes_rows += u64::from(chunk::samples_in(&data));
                own.push(EncodedChunk { start_ms: meta.start_ms, end_ms: meta.end_ms, encoding, data });
            }
            own.sort_by_key(|c| (c.start_ms, c.end_ms));
            if !own.is_empty() {
                series.push(SeriesChunks { labels: record.labels, chunks: own });
            }
        }
        if strange > 0 {
            ctx.missed(format!(
                "block {}: chunks that are not of floats (native histograms) were left out",
                self.meta.ulid
            ));
        }
        ctx.add_chunks(metas.len() as u64);
        ctx.add_rows(bytes_rows)?;
        Ok((series, memory))
    }

    /// Encoding and data by reference; neighbours are fetched together.
    async fn read_chunks(
        &self,
        ctx: &QueryContext,
        metas: &[ChunkMeta],
    ) -> Result<(BTreeMap<u64, (u8, Bytes)>, triptych_runtime::Reservation)> {
        let guess = match self.meta.thanos.index_stats.chunk_bytes_max {
            0 => CHUNK_BYTES_GUESS,
            n => n.clamp(32, 64 << 10),
        };
        let mut references: Vec<u64> = metas.iter().map(|m| m.reference).collect();
        references.sort_unstable();
        references.dedup();
        let mut memory = ctx.reserve(0)?;
        let mut out = BTreeMap::new();
        for run in references.chunk_by(|a, b| a >> 32 == b >> 32) {
            let Some(first) = run.first() else { continue };
            let name = u32::try_from(first >> 32).ok().filter(|n| *n < u32::MAX).map(segment_name);
            let name = name.ok_or_else(|| self.damaged("a chunk is in an impossible segment"))?;
            let size =
                *self.sizes.get(&name).ok_or_else(|| Error::not_found(format!("{}: no {name}", self.dir)))?;
            let path = file_path(&self.dir, &name);

            // Where each chunk ends at the latest, as far as can be known before it is read.
            let spans: Vec<Range<u64>> = run
                .iter()
                .enumerate()
                .map(|(i, reference)| {
                    let start = reference & u64::from(u32::MAX);
                    let next = run.get(i + 1).map_or(size, |n| n & u64::from(u32::MAX));
                    start..(start + guess).min(next).min(size)
                })
                .collect();
            if spans.iter().any(|s| s.start < SEGMENT_HEADER_BYTES as u64 || s.start >= s.end) {
                return Err(self.damaged(format_args!("{name}: a chunk lies outside of it")));
            }
            let mut again: Vec<(u64, Range<u64>)> = Vec::new();
            let parts = self.read_spans(ctx, &path, &spans, &mut memory).await?;
            for ((reference, span), part) in run.iter().zip(&spans).zip(parts) {
                match take_chunk(&part) {
                    Taken::Whole(encoding, data) => {
                        out.insert(*reference, (encoding, data));
                    }
                    Taken::Needs(bytes) if bytes <= size - span.start => {
                        again.push((*reference, span.start..span.start + bytes));
                    }
                    _ => return Err(self.damaged(format_args!("{name}: chunk at {} is damaged", span.start))),
                }
            }
            if !again.is_empty() {
                let spans: Vec<Range<u64>> = again.iter().map(|(_, s)| s.clone()).collect();
                let parts = self.read_spans(ctx, &path, &spans, &mut memory).await?;
                for ((reference, span), part) in again.iter().zip(parts) {
                    match take_chunk(&part) {
                        Taken::Whole(encoding, data) => {
                            out.insert(*reference, (encoding, data));
                        }
                        _ => {
                            return Err(
                                self.damaged(format_args!("{name}: chunk at {} is damaged", span.start))
                            );
                        }
                    }
                }
            }
        }
        Ok((out, memory))
    }

    /// Ascending spans of one object, neighbours in one request.
    async fn read_spans(
        &self,
        ctx: &QueryContext,
        path: &Path,
        spans: &[Range<u64>],
        memory: &mut triptych_runtime::Reservation,
    ) -> Result<Vec<Bytes>> {
        let mut requests: Vec<Range<u64>> = Vec::new();
        let mut request_of = Vec::with_capacity(spans.len());
        for span in spans {
            match requests.last_mut() {
                Some(r)
                    if span.start <= r.end + CHUNK_GAP_BYTES
                        && span.end - r.start <= CHUNK_READ_BYTES_MAX =>
                {
                    r.end = r.end.max(span.end);
                }
                _ => requests.push(span.clone()),
            }
            request_of.push(requests.len() - 1);
        }
        let bytes: u64 = requests.iter().map(|r| r.end - r.start).sum();
        ctx.add_read_bytes(bytes)?;
        memory.grow(bytes as usize)?;
        let answers = self
            .bucket
            .get_ranges(path, &requests)
            .await
            .map_err(|e| bucket_error(format!("reading {path}"), e))?;
        spans
            .iter()
            .zip(request_of)
            .map(|(span, i)| {
                let (request, answer) = (requests.get(i)?, answers.get(i)?);
                let (from, to) = ((span.start - request.start) as usize, (span.end - request.start) as usize);
                (to <= answer.len()).then(|| answer.slice(from..to))
            })
            .collect::<Option<_>>()
            .ok_or_else(|| self.damaged(format_args!("{path} is shorter than it was")))
    }

    /// Every series of the block with all of its chunks, native histograms too, for compaction.
    pub(crate) async fn scan(
        &self,
        ctx: &QueryContext,
        batch_bytes: u64,
    ) -> Result<BoxStream<'static, Result<SeriesChunks>>> {
        let header = self.header(None).await?;
        let ids = self.read_postings(None, &[header.all()]).await?.pop().unwrap_or_default();
        let all = SeriesSelect {
            matchers: Vec::new(),
            start_ms: i64::MIN,
            end_ms: i64::MAX,
            skip_chunks: false,
            shard: None,
        };
        Ok(self.series_stream(ctx, header, ids, &all, (Encodings::All, batch_bytes), ()))
    }

    pub async fn label_names(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<String>> {
        let header = self.header(Some(ctx)).await?;
        if select.matcher_sets.is_empty() {
            return Ok(header.names().map(|(name, _)| name.to_owned()).collect());
        }
        let mut names = BTreeSet::new();
        self.for_each(ctx, &header, select, |labels| {
            for (name, _) in labels {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        })
        .await?;
        Ok(names.into_iter().collect())
    }

    pub async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &LabelsSelect,
    ) -> Result<Vec<String>> {
        let header = self.header(Some(ctx)).await?;
        if select.matcher_sets.is_empty() {
            return Ok(header.values(name).map(|e| e.value.to_owned()).collect());
        }
        let mut values = BTreeSet::new();
        self.for_each(ctx, &header, select, |labels| {
            if let Some(value) = labels.get(name)
                && !values.contains(value)
            {
                values.insert(value.to_owned());
            }
        })
        .await?;
        Ok(values.into_iter().collect())
    }

    pub async fn series(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<Labels>> {
        let header = self.header(Some(ctx)).await?;
        let mut found = Vec::new();
        self.for_each(ctx, &header, select, |labels| found.push(labels.clone())).await?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    async fn for_each(
        &self,
        ctx: &QueryContext,
        header: &IndexHeader,
        select: &LabelsSelect,
        mut each: impl FnMut(&Labels),
    ) -> Result<()> {
        let everything = [Vec::new()];
        let sets = if select.matcher_sets.is_empty() { &everything[..] } else { &select.matcher_sets[..] };
        let mut ids: Vec<Vec<u32>> = Vec::with_capacity(sets.len());
        for set in sets {
            ids.push(self.find(ctx, header, set).await?);
        }
        let lists: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let mut all = union(&lists);
        all.dedup();
        let _memory = ctx.reserve(4 * all.len())?;
        for batch in all.chunks(RECORDS_BATCH) {
            ctx.check()?;
            let records = self.records(Some(ctx), header, batch, select::range(select)).await?;
            records.iter().filter(|r| !r.chunks.is_empty()).for_each(|r| each(&r.labels));
        }
        Ok(())
    }

    /// (name, value, series) of every value of `name`, from the sizes of the lists alone.
    pub(crate) async fn series_by_value(&self, ctx: &QueryContext, name: &str) -> Result<Vec<(String, u64)>> {
        let header = self.header(Some(ctx)).await?;
        let count = |r: &Range<u64>| (r.end - r.start).saturating_sub(12) / 4;
        Ok(header.values(name).map(|e| (e.value.to_owned(), count(&e.range))).collect())
    }
}

fn take_varint(rest: &mut &[u8]) -> Option<i64> {
    let raw = take_uvarint(rest)?;
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}

/// `bytes`: the record after its length, with the checksum.
fn parse_series(
    bytes: &[u8],
    length: usize,
    header: &IndexHeader,
    chunks_in: (i64, i64),
) -> Option<SeriesRecord> {
    let (mut rest, crc) = bytes.split_at_checked(length)?;
    if crc32c::crc32c(rest) != u32::from_be_bytes(*crc.first_chunk::<4>()?) {
        return None;
    }
    let count = take_uvarint(&mut rest)?;
    if count > rest.len() as u64 {
        return None;
    }
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let name = header.symbol(take_uvarint(&mut rest)?)?;
        let value = header.symbol(take_uvarint(&mut rest)?)?;
        if pairs.last().is_some_and(|(previous, _)| *previous >= name) {
            return None;
        }
        pairs.push((name, value));
    }
    let labels = Labels::from_sorted(pairs);
    let count = take_uvarint(&mut rest)?;
    let mut chunks = Vec::new();
    let (mut end_ms, mut reference) = (0i64, 0u64);
    for i in 0..count {
        let start_ms = if i == 0 {
            take_varint(&mut rest)?
        } else {
            end_ms.wrapping_add(take_uvarint(&mut rest)? as i64)
        };
        end_ms = start_ms.wrapping_add(take_uvarint(&mut rest)? as i64);
        reference = if i == 0 {
            take_uvarint(&mut rest)?
        } else {
            reference.wrapping_add(take_varint(&mut rest)? as u64)
        };
        if start_ms <= chunks_in.1 && end_ms >= chunks_in.0 {
            chunks.push(ChunkMeta { start_ms, end_ms, reference });
        }
    }
    Some(SeriesRecord { labels, chunks })
}

enum Taken {
    Whole(u8, Bytes),
    /// So many bytes are needed from its start.
    Needs(u64),
    Damaged,
}

/// `length uvarint | encoding | data | crc32c(encoding, data)`.
fn take_chunk(bytes: &Bytes) -> Taken {
    let mut rest = &bytes[..];
    let Some(length) = take_uvarint(&mut rest) else { return Taken::Damaged };
    if length > u64::from(u32::MAX) {
        return Taken::Damaged;
    }
    let head = bytes.len() - rest.len();
    let whole = head as u64 + length + CHUNK_FRAME_BYTES - 5;
    if whole > bytes.len() as u64 {
        return Taken::Needs(whole);
    }
    let end = head + 1 + length as usize;
    let (Some(checked), Some(crc)) =
        (bytes.get(head..end), bytes.get(end..end + 4).and_then(|c| c.first_chunk::<4>()))
    else {
        return Taken::Damaged;
    };
    match checked.first() {
        Some(&encoding) if crc32c::crc32c(checked) == u32::from_be_bytes(*crc) => {
            Taken::Whole(encoding, bytes.slice(head + 1..end))
        }
        _ => Taken::Damaged,
    }
}
