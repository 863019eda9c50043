//! What one tenant wrote in one generation: trace id -> parts, as they were received.
//!
//! ```text
//! Head -> 32 shards, ordered by trace id -> { id -> Entry{times, parts}, sealed chunks (LZ4), one open chunk }
//! ```
//! A part's bytes are appended to its shard's open chunk; at 64 KiB the chunk is compressed and sealed. Nothing is decoded on the
//! way in. Reads copy a shard's table and share its chunks, then work without the lock: writers never wait for a query. Of a
//! trace they decode what the question reads. Two shards are worked on at a time, beside the async threads.
//!
//! Questions for tags have an index of their own ([`tags`]), which they fill.
//!
//! Shards are ranges of trace ids (64-bit ids, padded with zeros, have 16 of their own), so that walking them in order gives
//! traces in ascending order with one shard's result in memory at a time.

mod tags;

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use hashbrown::HashMap;
use memchr::memmem;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use triptych_blob::Bucket;
use triptych_model::batch::TracesReader;
use triptych_model::push::PushReport;
use triptych_model::traces::{
    ScopeTags, SpanSampleSelect, TagsSelect, TraceId, TraceMatch, TraceParts, TraceSamples, TraceSearch,
    Value,
};
use triptych_model::version::Changes;
use triptych_model::{Error, Result, TenantId, Version};
use triptych_runtime::QueryContext;
use triptych_runtime::random::random_u64;
use triptych_traceql::source::{Attribute, CompareOp, FetchSpans, Intrinsic};
use triptych_traceql::{SpanSource, TraceSpans};

use crate::block::read::compute;
use crate::block::{BlockMeta, BlockOptions, WindowUploads};
use crate::merge;
use crate::otlp::{self, KEEP_ALL, Keep, Trace};
use crate::tags::{TagNames, TagValues};
use crate::view::{Derived, Matcher, overlaps, spans_bytes};

/// Plain size at which a chunk is compressed. Larger: better ratio, more to decompress for one trace.
const CHUNK_BYTES: usize = 64 << 10;
const SHARDS: usize = 32;
/// Shards that a question works on side by side.
const SHARDS_AHEAD: usize = 2;
/// Decompressed chunks that a walk keeps; parts of one trace mostly lie in chunks near each other.
const WALK_CHUNKS_MAX: usize = 64;

/// Limits of a head. 0: no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeadConfig {
    /// Traces in one generation (Tempo: `max_traces_per_user`).
    pub traces_max: usize,
    /// Bytes of one trace (Tempo: `max_bytes_per_trace`, 5 MB).
    pub trace_bytes_max: usize,
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self { traces_max: 0, trace_bytes_max: 5_000_000 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Part {
    chunk: u32,
    offset: u32,
    length: u32,
}

#[derive(Debug, Clone)]
struct Entry {
    start_ns: i64,
    end_ns: i64,
    spans: u32,
    bytes: usize,
    parts: SmallVec<[Part; 2]>,
}

#[derive(Debug, Clone)]
struct Chunk {
    plain_bytes: usize,
    /// LZ4 block, or plain where that is not smaller.
    data: Bytes,
}

impl Chunk {
    fn seal(plain: &[u8]) -> Self {
        let packed = lz4_flex::block::compress(plain);
        let data = if packed.len() < plain.len() { packed } else { plain.to_vec() };
        Self { plain_bytes: plain.len(), data: data.into() }
    }

    fn open(&self) -> Result<Bytes> {
        if self.data.len() == self.plain_bytes {
            return Ok(self.data.clone());
        }
        lz4_flex::block::decompress(&self.data, self.plain_bytes)
            .map(Bytes::from)
            .map_err(|e| Error::internal(format!("traces head: chunk: {e}")))
    }
}

#[derive(Debug, Default)]
struct Shard {
    traces: HashMap<TraceId, Entry>,
    chunks: Vec<Chunk>,
    open: Vec<u8>,
}

#[derive(Debug)]
struct Inner {
    config: HeadConfig,
    shards: [Mutex<Shard>; SHARDS],
    traces: AtomicUsize,
    spans: AtomicUsize,
    bytes: AtomicUsize,
    /// Of all traces.
    start_ns: AtomicI64,
    end_ns: AtomicI64,
    changes: TraceChanges,
    tags: Mutex<tags::TagIndex>,
}

/// By the quarter of an hour of the traces.
type TraceChanges = Changes<{ 15 * 60_000_000_000 }>;

/// One tenant's live traces. Clones share them.
#[derive(Debug, Clone)]
pub struct Head(Arc<Inner>);

/// A shard's table at one moment: entries that were asked for, all chunks.
pub(crate) struct ShardSnapshot {
    entries: Vec<(TraceId, Entry)>,
    chunks: Vec<Chunk>,
}

impl Head {
    pub fn new(config: HeadConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            shards: std::array::from_fn(|_| Mutex::default()),
            traces: AtomicUsize::new(0),
            spans: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            start_ns: AtomicI64::new(i64::MAX),
            end_ns: AtomicI64::new(i64::MIN),
            changes: TraceChanges::new(random_u64()),
            tags: Mutex::default(),
        }))
    }

    /// Takes a batch; what breaks a limit is refused in the report. The bytes are not decoded.
    pub fn append(&self, batch: TracesReader<'_>) -> Result<PushReport> {
        let inner = &*self.0;
        let mut report = PushReport::default();
        for record in batch {
            let record = record?;
            let mut guard = inner.shards[shard_of(record.trace_id)].lock();
            let shard = &mut *guard;
            let length = record.otlp.len();
            let mut grown = length;
            if let Some(entry) = shard.traces.get(record.trace_id) {
                let max = inner.config.trace_bytes_max;
                if max != 0 && entry.bytes + length > max {
                    refuse_large(&mut report, record.trace_id, record.spans, max, length);
                    continue;
                }
            } else {
                let max = inner.config.trace_bytes_max;
                if max != 0 && length > max {
                    refuse_large(&mut report, record.trace_id, record.spans, max, length);
                    continue;
                }
                let max = inner.config.traces_max;
                let live = inner.traces.load(Ordering::Relaxed);
                if max != 0 && live >= max {
                    report.refuse("live_traces_exceeded", u64::from(record.spans), || {
                        format!(
                            "LIVE_TRACES_EXCEEDED: max live traces per tenant exceeded: per-user traces limit \
                             (local: {max} global: 0 actual local: {live}) exceeded"
                        )
                    });
                    continue;
                }
                inner.traces.fetch_add(1, Ordering::Relaxed);
                grown += size_of::<(TraceId, Entry)>();
            }
            let (offset, chunk) = (shard.open.len(), shard.chunks.len());
            if offset.max(length) > u32::MAX as usize / 2 {
                return Err(Error::invalid(format!(
                    "a trace's part has {length} bytes, more than a chunk holds"
                )));
            }
            shard.open.extend_from_slice(record.otlp);
            let part = Part { chunk: chunk as u32, offset: offset as u32, length: length as u32 };
            let entry = shard.traces.entry(*record.trace_id).or_insert_with(|| Entry {
                start_ns: record.start_ns,
                end_ns: record.end_ns,
                spans: 0,
                bytes: 0,
                parts: SmallVec::new(),
            });
            entry.start_ns = entry.start_ns.min(record.start_ns);
            entry.end_ns = entry.end_ns.max(record.end_ns);
            entry.spans = entry.spans.saturating_add(record.spans);
            entry.bytes += length;
            entry.parts.push(part);
            // A trace is read as a whole, so all of it has changed.
            let touched = TraceChanges::slots(entry.start_ns, entry.end_ns);
            report.accepted += u64::from(record.spans);
            inner.start_ns.fetch_min(record.start_ns, Ordering::Relaxed);
            inner.end_ns.fetch_max(record.end_ns, Ordering::Relaxed);
            inner.spans.fetch_add(record.spans as usize, Ordering::Relaxed);
            inner.bytes.fetch_add(grown, Ordering::Relaxed);
            if shard.open.len() >= CHUNK_BYTES {
                let chunk = Chunk::seal(&shard.open);
                inner.bytes.fetch_sub(shard.open.len() - chunk.data.len(), Ordering::Relaxed);
                shard.chunks.push(chunk);
                shard.open.clear();
            }
            drop(guard);
            inner.changes.count(touched);
        }
        Ok(report)
    }

    /// Of the traces in the range, both ends inclusive.
    pub fn version(&self, start_ns: i64, end_ns: i64) -> Version {
        match self.overlaps(start_ns, end_ns) {
            true => self.0.changes.version(start_ns, end_ns),
            false => Version::default(),
        }
    }

    /// Memory in use, about, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    pub fn trace_count(&self) -> usize {
        self.0.traces.load(Ordering::Relaxed)
    }

    pub fn span_count(&self) -> usize {
        self.0.spans.load(Ordering::Relaxed)
    }

    /// The parts of a trace as they were received.
    pub async fn find(
        &self,
        ctx: &QueryContext,
        trace_id: &TraceId,
        start_ns: i64,
        end_ns: i64,
    ) -> Result<TraceParts> {
        ctx.check()?;
        let snapshot = {
            let shard = self.0.shards[shard_of(trace_id)].lock();
            match shard.traces.get(trace_id) {
                Some(e) if overlaps(start_ns, end_ns, e.start_ns, e.end_ns) => {
                    // Only what the trace's parts lie in is copied.
                    let mut entry = e.clone();
                    let mut chunks = Vec::new();
                    let mut last = None;
                    for part in &mut entry.parts {
                        if last != Some(part.chunk) {
                            last = Some(part.chunk);
                            chunks.push(shard.chunk(part.chunk));
                        }
                        part.chunk = (chunks.len() - 1) as u32;
                    }
                    ShardSnapshot { entries: vec![(*trace_id, entry)], chunks }
                }
                _ => return Ok(TraceParts::default()),
            }
        };
        let mut walk = Walk::new(&snapshot.chunks);
        let mut parts = TraceParts::default();
        for (_, entry) in &snapshot.entries {
            for part in walk.parts(entry)? {
                ctx.add_read_bytes(part.len() as u64)?;
                parts.otlp.push(part);
            }
        }
        Ok(parts)
    }

    pub async fn search(
        &self,
        ctx: &QueryContext,
        search: &TraceSearch,
    ) -> Result<BoxStream<'static, Result<TraceMatch>>> {
        triptych_traceql::search(ctx, self, search).await
    }

    pub async fn samples(
        &self,
        ctx: &QueryContext,
        select: &SpanSampleSelect,
    ) -> Result<BoxStream<'static, Result<TraceSamples>>> {
        triptych_traceql::samples(ctx, self, select).await
    }

    pub async fn tag_names(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<ScopeTags>> {
        let mut names = TagNames::new(select);
        if select.scope == "intrinsic" {
            return Ok(names.finish());
        }
        let matcher = crate::query::tags_matcher(select)?;
        if matcher.tests.is_empty()
            && (!self.overlaps(select.start_ns, select.end_ns) || self.index_tags(ctx, &mut names).await?)
        {
            return Ok(names.finish());
        }
        let fresh = names.fresh();
        let ask = Ask::new(ctx, matcher, KEEP_ALL.clone());
        let mut shards = self.each_shard(ask, move |ask, snapshot, alive| {
            let mut names = fresh.fresh();
            snapshot.visit(ask, alive, &mut |trace| {
                names.add_trace(trace, &Derived::needed(trace, ask.matcher.needs), &ask.matcher);
                Ok(!names.full())
            })?;
            Ok(names)
        });
        while let Some(found) = shards.try_next().await?
            && !names.full()
        {
            names.absorb(found);
        }
        drop(shards);
        Ok(names.finish())
    }

    pub async fn tag_values(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<Value>> {
        let mut values = TagValues::new(select);
        if values.done() {
            return Ok(values.finish());
        }
        let matcher = crate::query::values_matcher(select, &values.attributes)?;
        if matcher.tests.is_empty()
            && (!self.overlaps(select.start_ns, select.end_ns) || self.index_tags(ctx, &mut values).await?)
        {
            return Ok(values.finish());
        }
        let fresh = values.fresh();
        let keep = matcher.keep();
        let ask = Ask::new(ctx, matcher, keep);
        let mut shards = self.each_shard(ask, move |ask, snapshot, alive| {
            let mut values = fresh.fresh();
            snapshot.visit(ask, alive, &mut |trace| {
                values.add_trace(trace, &Derived::needed(trace, ask.matcher.needs), &ask.matcher);
                Ok(!values.done())
            })?;
            Ok(values)
        });
        while let Some(found) = shards.try_next().await?
            && !values.done()
        {
            values.absorb(found);
        }
        drop(shards);
        Ok(values.finish())
    }

    /// Whether any trace may lie in the range.
    fn overlaps(&self, start_ns: i64, end_ns: i64) -> bool {
        let own = |time: &AtomicI64| time.load(Ordering::Relaxed);
        overlaps(start_ns, end_ns, own(&self.0.start_ns), own(&self.0.end_ns))
    }

    /// Runs `work` on the shards' traces in the range. Results come in order of the shards, ascending with the trace id. When the
    /// stream is dropped, work that runs stops soon.
    fn each_shard<T: Send + 'static>(
        &self,
        ask: Ask,
        work: impl Fn(&Ask, &ShardSnapshot, &Weak<()>) -> Result<T> + Send + Sync + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let (head, asked, alive) = (self.clone(), Arc::new((ask, work)), Arc::new(()));
        stream::iter(0..SHARDS)
            .map(move |shard| {
                let (head, asked, alive) = (head.clone(), asked.clone(), Arc::downgrade(&alive));
                compute(move || {
                    let (ask, work) = &*asked;
                    let snapshot = head.snapshot(shard, ask.matcher.start_ns, ask.matcher.end_ns);
                    work(ask, &snapshot, &alive)
                })
            })
            .buffered(SHARDS_AHEAD)
            .boxed()
    }

    /// Writes everything, as a block per hour (see [`WindowUploads`]). Nothing is removed from the head: it stays readable, and a flush that failed can be repeated
    /// (spans that are in two blocks are shown once).
    pub async fn flush(
        &self,
        bucket: &Bucket,
        tenant: &TenantId,
        options: &FlushOptions,
    ) -> Result<FlushReport> {
        let mut uploads = WindowUploads::new(bucket, tenant, options);
        let mut report = FlushReport::default();
        if let Err(e) = self.write(&mut uploads, &mut report).await {
            uploads.abort().await;
            return Err(e.context("flushing traces"));
        }
        for uploaded in uploads.finish().await.map_err(|e| e.context("flushing traces"))? {
            report.spans += uploaded.spans;
            report.bytes += uploaded.meta.size;
            report.blocks.push(uploaded.meta);
        }
        Ok(report)
    }

    async fn write(&self, uploads: &mut WindowUploads<'_>, report: &mut FlushReport) -> Result<()> {
        for shard in 0..SHARDS {
            let mut snapshot = self.snapshot(shard, 0, 0);
            for (i, item) in snapshot.ascending().enumerate() {
                let (id, parts) = item?;
                let Decoded { trace, damaged, .. } = decode_parts(id, &parts, KEEP_ALL);
                report.damaged_parts += damaged as u64;
                uploads.add(&trace).await?;
                if i % 256 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
        Ok(())
    }

    fn snapshot(&self, shard: usize, start_ns: i64, end_ns: i64) -> ShardSnapshot {
        let shard = self.0.shards[shard].lock();
        let mut entries: Vec<_> = shard
            .traces
            .iter()
            .filter(|(_, e)| overlaps(start_ns, end_ns, e.start_ns, e.end_ns))
            .map(|(id, e)| (*id, e.clone()))
            .collect();
        let chunks = match entries.is_empty() {
            true => Vec::new(),
            false => (0..=shard.chunks.len() as u32).map(|i| shard.chunk(i)).collect(),
        };
        drop(shard);
        // In order of arrival, so that a walk touches chunks mostly in order.
        entries.sort_unstable_by_key(|(_, e)| e.parts.first().map_or((0, 0), |p| (p.chunk, p.offset)));
        ShardSnapshot { entries, chunks }
    }
}

/// How a flush writes its block.
pub type FlushOptions = BlockOptions;

/// What a flush wrote.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FlushReport {
    /// One for each hour in which traces began; none where the head was empty.
    pub blocks: Vec<BlockMeta>,
    pub spans: u64,
    /// Of all `data.parquet`.
    pub bytes: u64,
    /// Received parts that were no OTLP and are lost.
    pub damaged_parts: u64,
}

fn refuse_large(report: &mut PushReport, trace_id: &TraceId, spans: u32, max: usize, adding: usize) {
    report.refuse("trace_too_large", u64::from(spans), || {
        format!(
            "TRACE_TOO_LARGE: max size of trace ({max}) exceeded while adding {adding} bytes to trace {}",
            hex::encode(trace_id)
        )
    });
}

/// Ascending with the id.
fn shard_of(id: &TraceId) -> usize {
    if id[..8] == [0; 8] { usize::from(id[8] >> 4) } else { 16 + usize::from(id[0] >> 4) }
}

impl Shard {
    /// A sealed chunk, or a copy of the open one.
    fn chunk(&self, at: u32) -> Chunk {
        match self.chunks.get(at as usize) {
            Some(chunk) => chunk.clone(),
            None => Chunk { plain_bytes: self.open.len(), data: Bytes::copy_from_slice(&self.open) },
        }
    }
}

/// Opens chunks as a walk needs them and keeps the newest few.
struct Walk<'s> {
    chunks: &'s [Chunk],
    open: HashMap<u32, Bytes>,
    order: std::collections::VecDeque<u32>,
    chunks_max: usize,
}

impl<'s> Walk<'s> {
    fn new(chunks: &'s [Chunk]) -> Self {
        Self {
            chunks,
            open: HashMap::new(),
            order: std::collections::VecDeque::new(),
            chunks_max: WALK_CHUNKS_MAX,
        }
    }

    fn part(&mut self, part: Part) -> Result<Bytes> {
        let torn = || Error::internal("traces head: part outside of its chunk");
        let chunk = match self.open.get(&part.chunk) {
            Some(chunk) => chunk,
            None => {
                let chunk = self.chunks.get(part.chunk as usize).ok_or_else(torn)?.open()?;
                if self.order.len() >= self.chunks_max
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.open.remove(&oldest);
                }
                self.order.push_back(part.chunk);
                self.open.entry(part.chunk).or_insert(chunk)
            }
        };
        let (start, length) = (part.offset as usize, part.length as usize);
        if start + length > chunk.len() {
            return Err(torn());
        }
        Ok(chunk.slice(start..start + length))
    }

    fn parts(&mut self, entry: &Entry) -> Result<SmallVec<[Bytes; 2]>> {
        entry.parts.iter().map(|p| self.part(*p)).collect()
    }
}

/// A question to all shards.
struct Ask {
    ctx: QueryContext,
    matcher: Matcher,
    keep: Keep,
    needles: Needles,
}

impl Ask {
    fn new(ctx: &QueryContext, matcher: Matcher, keep: Keep) -> Self {
        Self { ctx: ctx.clone(), needles: Needles::new(&matcher), matcher, keep }
    }
}

/// The parts of a trace, put together.
pub(crate) struct Decoded<'a> {
    pub trace: Trace<'a>,
    /// Parts that are no OTLP and were left out.
    pub damaged: usize,
    /// Spans that were left out because another one has their id.
    pub copies: usize,
}

/// Decodes and merges the parts of a trace.
pub(crate) fn decode_parts<'a>(trace_id: TraceId, parts: &'a [Bytes], keep: &Keep) -> Decoded<'a> {
    let mut damaged = 0;
    let mut traces: Vec<_> = parts
        .iter()
        .filter_map(|part| {
            let decoded = otlp::decode_kept(trace_id, part, keep);
            damaged += usize::from(decoded.is_err());
            decoded.ok()
        })
        .collect();
    let spans: usize = traces.iter().map(Trace::span_count).sum();
    let single = traces.len() == 1 && no_copies(&traces[0]);
    let trace = match traces.pop() {
        Some(trace) if single => trace,
        last => {
            traces.extend(last);
            merge::combine_traces(trace_id, traces)
        }
    };
    let copies = spans - trace.span_count();
    Decoded { trace, damaged, copies }
}

/// Whether the spans' ids differ, which makes merging a single part needless.
fn no_copies(trace: &Trace<'_>) -> bool {
    let mut ids: SmallVec<[[u8; 8]; 16]> = trace.spans().map(|(_, _, s)| s.span_id).collect();
    ids.sort_unstable();
    ids.windows(2).all(|w| w[0] != w[1])
}

impl ShardSnapshot {
    /// Walks in order of arrival while `f` says `true` and somebody is `alive` to hear the answer. `f` gets every trace that may
    /// match.
    fn visit(
        &self,
        ask: &Ask,
        alive: &Weak<()>,
        f: &mut impl FnMut(&Trace<'_>) -> Result<bool>,
    ) -> Result<()> {
        let ctx = &ask.ctx;
        let mut walk = Walk::new(&self.chunks);
        let mut rows = 0;
        for (i, (id, entry)) in self.entries.iter().enumerate() {
            let parts = walk.parts(entry)?;
            ctx.add_read_bytes(entry.bytes as u64)?;
            rows += u64::from(entry.spans);
            if i % 64 == 0 {
                ctx.add_rows(std::mem::take(&mut rows))?;
                if alive.strong_count() == 0 {
                    return Ok(());
                }
            }
            if !ask.needles.may_match(&parts) {
                continue;
            }
            let Decoded { trace, damaged, .. } = decode_parts(*id, &parts, &ask.keep);
            if damaged > 0 {
                ctx.missed(format!("trace {}: {damaged} received parts are no OTLP", hex::encode(id)));
            }
            if !f(&trace)? {
                break;
            }
        }
        ctx.add_rows(rows)
    }

    /// Walks in ascending order of trace id; opens all chunks. For flushing.
    pub(crate) fn ascending(&mut self) -> impl Iterator<Item = Result<(TraceId, SmallVec<[Bytes; 2]>)>> {
        self.entries.sort_unstable_by_key(|(id, _)| *id);
        let mut walk = Walk { chunks_max: usize::MAX, ..Walk::new(&self.chunks) };
        self.entries.iter().map(move |(id, entry)| Ok((*id, walk.parts(entry)?)))
    }
}

/// Texts that must occur in a trace's bytes for it to match: found without decoding.
struct Needles {
    all: bool,
    finders: Vec<memmem::Finder<'static>>,
}

impl Needles {
    fn new(matcher: &Matcher) -> Self {
        let finders: Vec<_> = matcher
            .tests
            .iter()
            .filter_map(|test| match (&test.op, &test.attribute) {
                (_, Attribute::Intrinsic(i)) if !is_text(*i) => None,
                (Some((CompareOp::Equal, Value::String(text))), _) if !text.is_empty() => {
                    Some(memmem::Finder::new(text.as_bytes()).into_owned())
                }
                (None, Attribute::Named(_, name)) => Some(memmem::Finder::new(name.as_bytes()).into_owned()),
                _ => None,
            })
            .collect();
        // With "any", one condition that has no text lets every trace pass.
        let usable = matcher.all || finders.len() == matcher.tests.len();
        Self { all: matcher.all, finders: if usable { finders } else { Vec::new() } }
    }

    fn may_match(&self, parts: &[Bytes]) -> bool {
        let found = |finder: &memmem::Finder<'_>| parts.iter().any(|p| finder.find(p).is_some());
        if self.finders.is_empty() {
            true
        } else if self.all {
            self.finders.iter().all(found)
        } else {
            self.finders.iter().any(found)
        }
    }
}

/// Intrinsics whose text stands in the OTLP bytes as it is.
fn is_text(intrinsic: Intrinsic) -> bool {
    matches!(
        intrinsic,
        Intrinsic::Name
            | Intrinsic::StatusMessage
            | Intrinsic::RootName
            | Intrinsic::RootServiceName
            | Intrinsic::EventName
            | Intrinsic::InstrumentationName
            | Intrinsic::InstrumentationVersion
    )
}

#[async_trait]
impl SpanSource for Head {
    async fn fetch(
        &self,
        ctx: &QueryContext,
        fetch: &FetchSpans,
    ) -> Result<BoxStream<'static, Result<TraceSpans>>> {
        let matcher = Matcher::new(fetch)?;
        let keep = matcher.keep();
        let mut shards = self.each_shard(Ask::new(ctx, matcher, keep), |ask, snapshot, alive| {
            let mut memory = ask.ctx.reserve(0)?;
            let mut found = Vec::new();
            snapshot.visit(ask, alive, &mut |trace| {
                if let Some(spans) = ask.matcher.derive_and_select(trace) {
                    memory.grow(spans_bytes(&spans))?;
                    found.push(spans);
                }
                Ok(true)
            })?;
            found.sort_unstable_by_key(|t| t.trace_id);
            Ok((found, memory))
        });
        Ok(async_stream::try_stream! {
            while let Some((found, memory)) = shards.try_next().await? {
                for trace in found {
                    yield trace;
                }
                drop(memory);
            }
        }
        .boxed())
    }
}

#[cfg(test)]
mod tests;
