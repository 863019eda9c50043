//! Reading: many blocks of many streams into one answer.
//!
//! | module | |
//! |---|---|
//! | [`entries`] | lines, in the order of time over all streams |
//! | [`samples`] | samples, stream by stream |
//!
//! Chunks in a bucket arrive through a [`Feed`] in the order in which they can contribute, fetched ahead. Copies (same time,
//! same key) within the answer are dropped.

pub(crate) mod entries;
pub(crate) mod samples;

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::BoxStream;
use hashbrown::HashSet;
use triptych_model::{Labels, Result};

use crate::chunk::{BlockMeta, Chunk, SymbolTable};
use crate::head::HeadStream;

/// A stream of log lines: its labels and their hash.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamInfo {
    pub labels: Labels,
    /// Loki's fingerprint: the hash of the labels without `__name__`.
    pub fingerprint: u64,
}

impl StreamInfo {
    pub fn new(labels: Labels) -> Self {
        let name = triptych_model::labels::METRIC_NAME;
        let fingerprint = triptych_model::labels::hash_pairs(labels.iter().filter(|(n, _)| *n != name));
        Self { labels, fingerprint }
    }
}

/// A decompressed block.
pub(crate) struct PlainBlock {
    pub plain: Vec<u8>,
    pub version: u8,
    pub symbols: Arc<SymbolTable>,
}

/// Where a block comes from.
#[derive(Clone)]
pub(crate) enum BlockSource {
    /// A block of a head, by its number; it may be cut between the start of the query and its turn.
    Head(Arc<HeadStream>, u64),
    Chunk(Arc<Chunk>, BlockMeta),
}

/// A block that waits for its turn.
#[derive(Clone)]
pub(crate) struct BlockTask {
    pub stream: Arc<StreamInfo>,
    pub source: BlockSource,
    pub from_ns: i64,
    /// Inclusive.
    pub through_ns: i64,
    /// Order among blocks of a stream that begin at the same time.
    pub number: u64,
}

impl BlockTask {
    /// A task for each block of a chunk.
    pub fn of_chunk(stream: &Arc<StreamInfo>, chunk: &Arc<Chunk>) -> impl Iterator<Item = Self> {
        chunk.blocks.iter().enumerate().map(move |(i, meta)| Self {
            stream: stream.clone(),
            source: BlockSource::Chunk(chunk.clone(), *meta),
            from_ns: meta.from_ns,
            through_ns: meta.through_ns,
            number: i as u64,
        })
    }

    /// Checks and decompresses.
    pub fn read(&self) -> Result<PlainBlock> {
        match &self.source {
            BlockSource::Head(stream, number) => stream.read_block(*number),
            BlockSource::Chunk(chunk, meta) => chunk.read_block(meta).map(|plain| PlainBlock {
                plain,
                version: chunk.version,
                symbols: chunk.symbols.clone(),
            }),
        }
    }
}

/// A chunk that was fetched.
pub(crate) struct Fetched {
    pub stream: Arc<StreamInfo>,
    pub chunk: Arc<Chunk>,
}

/// Chunks in the order in which they can contribute. `None` from the stream: could not be read, and the context was told.
pub(crate) struct Feed<B> {
    /// The earliest place in the answer of anything in the chunk, for each chunk of the stream.
    pub bounds: VecDeque<B>,
    pub chunks: BoxStream<'static, Result<Option<Fetched>>>,
}

/// Recognises copies in a sequence ordered by time.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    ts_ns: i64,
    first: Option<u64>,
    more: HashSet<u64>,
}

impl Copies {
    /// True where the item was not there yet.
    #[inline]
    pub fn is_new(&mut self, ts_ns: i64, key: u64) -> bool {
        match self.first {
            Some(first) if self.ts_ns == ts_ns => first != key && self.more.insert(key),
            _ => {
                self.ts_ns = ts_ns;
                self.first = Some(key);
                if !self.more.is_empty() {
                    self.more.clear();
                }
                true
            }
        }
    }
}
