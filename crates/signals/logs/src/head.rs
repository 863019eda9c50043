//! What one tenant wrote in one generation.
//!
//! A head finds a stream by the hash that came with the batch: a shard's read lock, then the stream's own lock; only a new
//! stream takes write locks. Lines go into the stream's open block in their final encoding; a full block is compressed in
//! place, so that a head holds what its lines weigh compressed plus one open block per stream. No lock is held across an await,
//! and a query holds a stream's lock no longer than copying one open block takes.
//!
//! Lock order: shard, then the stream list, then a stream.

mod flush;
mod query;
mod read;
mod stream;
mod tail;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;
use smallvec::SmallVec;
use triptych_model::batch::{LogsReader, LogsRecord};
use triptych_model::push::PushReport;
use triptych_model::version::{Changes, Slots};
use triptych_model::{Labels, Result, Version};
use triptych_runtime::random::random_u64;

use crate::chunk::Codec;
use crate::postings::Postings;
use crate::scan::StreamInfo;

pub use flush::{FlushOptions, FlushReport};
pub(crate) use stream::HeadStream;
use tail::TailSender;

/// How a head takes and keeps lines.
#[derive(Debug, Clone)]
pub struct HeadConfig {
    /// Most streams; 0: no limit.
    pub streams_max: usize,
    /// How far a line may lie behind the newest of its stream, in nanoseconds.
    pub out_of_order_window_ns: i64,
    /// A block is compressed when it holds this many bytes (Loki's `chunk_block_size`).
    pub block_bytes: usize,
    /// A chunk is full when its compressed blocks reach this (Loki's `chunk_target_size`).
    pub chunk_bytes: usize,
    /// A chunk holds no more time than this, in nanoseconds, so that old lines sent late do not end up in chunks that span days.
    pub chunk_span_ns: i64,
    pub codec: Codec,
    /// For zstd.
    pub compression_level: i32,
    /// Batches a slow tail may lag behind before it loses some.
    pub tail_batches: usize,
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self {
            streams_max: 0,
            out_of_order_window_ns: 3_600_000_000_000,
            block_bytes: 256 << 10,
            chunk_bytes: 1536 << 10,
            chunk_span_ns: 12 * 3_600_000_000_000,
            codec: Codec::Zstd,
            compression_level: 1,
            tail_batches: 256,
        }
    }
}

/// Shards of the table of streams.
const SHARDS: usize = 16;

type Shard = RwLock<HashMap<u64, SmallVec<[Arc<HeadStream>; 1]>>>;

pub(crate) struct Inner {
    config: HeadConfig,
    shards: [Shard; SHARDS],
    index: RwLock<Index>,
    stream_count: AtomicUsize,
    bytes: AtomicUsize,
    from_ns: AtomicI64,
    through_ns: AtomicI64,
    changes: LineChanges,
    tail: TailSender,
}

/// By the quarter of an hour of the lines.
type LineChanges = Changes<{ 15 * 60_000_000_000 }>;

#[derive(Default)]
struct Index {
    postings: Postings,
    streams: Vec<Arc<HeadStream>>,
}

/// See the module. Clones are the same head.
#[derive(Clone)]
pub struct Head(Arc<Inner>);

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Head({} streams, {} bytes)", self.stream_count(), self.bytes())
    }
}

impl Head {
    pub fn new(config: HeadConfig) -> Self {
        let tail = TailSender::new(config.tail_batches);
        Self(Arc::new(Inner {
            config,
            shards: std::array::from_fn(|_| Shard::default()),
            index: RwLock::default(),
            stream_count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            from_ns: AtomicI64::new(i64::MAX),
            through_ns: AtomicI64::new(i64::MIN),
            changes: LineChanges::new(random_u64()),
            tail,
        }))
    }

    /// Streams so far.
    pub fn stream_count(&self) -> usize {
        self.0.stream_count.load(Ordering::Relaxed)
    }

    /// Estimated memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.bounds_ns().is_none()
    }

    /// First and last time of all lines.
    pub fn bounds_ns(&self) -> Option<(i64, i64)> {
        let bounds = (self.0.from_ns.load(Ordering::Relaxed), self.0.through_ns.load(Ordering::Relaxed));
        (bounds.0 <= bounds.1).then_some(bounds)
    }

    /// Of the lines in the range, both ends inclusive.
    pub fn version(&self, start_ns: i64, end_ns: i64) -> Version {
        match self.bounds_ns() {
            Some((from_ns, through_ns)) if from_ns <= end_ns && through_ns >= start_ns => {
                self.0.changes.version(start_ns, end_ns)
            }
            _ => Version::default(),
        }
    }

    /// Takes a plain logs batch. What a limit refuses is in the report; an error means that the batch is not one, and what came
    /// before the torn place was taken.
    pub fn append(&self, plain: &[u8]) -> Result<PushReport> {
        let mut report = PushReport::default();
        for record in LogsReader::new(plain)? {
            self.append_record(&record?, &mut report)?;
        }
        Ok(report)
    }

    fn append_record(&self, record: &LogsRecord<'_>, report: &mut PushReport) -> Result<()> {
        let inner = &*self.0;
        let Some(stream) = self.find_or_create(record, report)? else { return Ok(()) };
        let tail = inner.tail.is_watched().then(Vec::new);
        let mut touched = Slots::default();
        let appended = stream.append(&inner.config, record, tail, report, |ts_ns| {
            touched |= LineChanges::slot(ts_ns);
        });
        if let Ok(appended) = &appended {
            inner.from_ns.fetch_min(appended.from_ns, Ordering::Relaxed);
            inner.through_ns.fetch_max(appended.through_ns, Ordering::Relaxed);
        }
        // Everything can be seen now.
        inner.changes.count(touched);
        let appended = appended?;
        if appended.grown >= 0 {
            inner.bytes.fetch_add(appended.grown as usize, Ordering::Relaxed);
        } else {
            inner.bytes.fetch_sub(appended.grown.unsigned_abs(), Ordering::Relaxed);
        }
        if let Some(entries) = appended.tail.filter(|e| !e.is_empty()) {
            inner.tail.send(stream.info.clone(), entries);
        }
        Ok(())
    }

    fn find_or_create(
        &self,
        record: &LogsRecord<'_>,
        report: &mut PushReport,
    ) -> Result<Option<Arc<HeadStream>>> {
        let inner = &*self.0;
        let shard = &inner.shards[(record.hash >> 32) as usize % SHARDS];
        let find = |streams: &HashMap<u64, SmallVec<[Arc<HeadStream>; 1]>>| {
            let same = streams.get(&record.hash)?;
            same.iter().find(|s| s.info.labels.as_encoded() == record.labels).cloned()
        };
        if let Some(stream) = find(&shard.read()) {
            return Ok(Some(stream));
        }
        let labels = Labels::from_encoded(record.labels)?;
        let mut streams = shard.write();
        if let Some(stream) = find(&streams) {
            return Ok(Some(stream));
        }
        let limit = inner.config.streams_max;
        let count = inner.stream_count.fetch_add(1, Ordering::Relaxed);
        if limit != 0 && count >= limit {
            inner.stream_count.fetch_sub(1, Ordering::Relaxed);
            report.refuse("stream_limit", record.len() as u64, || {
                format!(
                    "maximum active stream limit exceeded when trying to create stream {labels}: \
                     {count} streams are active, the limit is {limit}; use fewer label values or ask for a higher limit"
                )
            });
            return Ok(None);
        }
        // Two copies of the labels in the index and the table, the stream itself.
        let memory = 3 * record.labels.len() + 512;
        inner.bytes.fetch_add(memory, Ordering::Relaxed);
        let stream = Arc::new(HeadStream::new(StreamInfo::new(labels), &inner.config));
        let mut index = inner.index.write();
        let number = index.streams.len() as u32;
        index.postings.add(number, &stream.info.labels);
        index.streams.push(stream.clone());
        drop(index);
        streams.entry(record.hash).or_default().push(stream.clone());
        Ok(Some(stream))
    }
}
