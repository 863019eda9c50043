//! One stream of a head: its finished chunks, the chunk that is being filled, the open block.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use triptych_model::batch::{LogRecordEntry, LogsRecord};
use triptych_model::push::PushReport;
use triptych_model::{Error, Labels, Result};

use super::HeadConfig;
use crate::chunk::{Block, ChunkBuilder, Codec, SymbolTable};
use crate::scan::{BlockSource, BlockTask, PlainBlock, StreamInfo};

/// Largest entry that is taken: a block that holds it and what was there before can be read again
/// ([`crate::chunk::format::BLOCK_PLAIN_BYTES_MAX`]). The limits of tenants are far below.
const ENTRY_BYTES_MAX: usize = 32 << 20;

/// A line as tails get it.
#[derive(Debug, Clone)]
pub(crate) struct TailEntry {
    pub ts_ns: i64,
    pub line: Bytes,
    pub metadata: Labels,
}

/// What appending a record did.
pub(crate) struct Appended {
    /// Change of the stream's memory.
    pub grown: isize,
    pub from_ns: i64,
    pub through_ns: i64,
    pub tail: Option<Vec<TailEntry>>,
}

/// A chunk whose blocks are finished.
#[derive(Debug, Clone)]
pub(crate) struct HeadChunk {
    pub symbols: Arc<SymbolTable>,
    pub blocks: Vec<Block>,
    /// Number of the first block within the stream.
    first: u64,
}

#[derive(Debug, Default)]
struct State {
    oldest_ns: i64,
    newest_ns: i64,
    chunks: Vec<HeadChunk>,
    /// The chunk that is being filled.
    next: ChunkBuilder,
    /// Times in `next`.
    next_bounds_ns: Option<(i64, i64)>,
    /// Number of the open block.
    number: u64,
    /// Memory of the finished chunks.
    cut_bytes: usize,
}

/// Figures of a part of a stream.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Part {
    pub from_ns: i64,
    pub through_ns: i64,
    pub entries: u64,
    pub bytes: u64,
}

#[derive(Debug)]
pub(crate) struct HeadStream {
    pub info: Arc<StreamInfo>,
    codec: Codec,
    state: Mutex<State>,
}

impl State {
    fn memory_bytes(&self) -> usize {
        self.cut_bytes + self.chunks.capacity() * size_of::<HeadChunk>() + self.next.memory_bytes()
    }

    fn cut_block(&mut self, codec: Codec, level: i32) -> Result<()> {
        self.number += u64::from(self.next.cut_block(codec, level)?);
        Ok(())
    }

    fn cut_chunk(&mut self) {
        let Some((symbols, blocks)) = self.next.cut_chunk() else { return };
        self.cut_bytes += symbols.memory_bytes()
            + size_of::<SymbolTable>()
            + blocks.iter().map(|block| size_of::<Block>() + block.data.len()).sum::<usize>();
        let first = self.number - blocks.len() as u64;
        self.chunks.push(HeadChunk { symbols, blocks, first });
        self.next_bounds_ns = None;
    }

    fn append(&mut self, config: &HeadConfig, entry: &LogRecordEntry<'_>) -> Result<Outcome> {
        let LogRecordEntry { ts_ns, line, metadata } = *entry;
        if ts_ns < self.newest_ns.saturating_sub(config.out_of_order_window_ns) {
            return Ok(Outcome::TooFarBehind);
        }
        let weight = line.len() + metadata.len() + 16;
        if weight > ENTRY_BYTES_MAX {
            return Ok(Outcome::TooLong);
        }
        let full = self.next.open().plain_bytes() + weight > config.block_bytes
            || self.next.open().entries() >= crate::chunk::block::BLOCK_ENTRIES_MAX;
        let symbols_full = self.next.symbols().text_bytes() > config.chunk_bytes;
        if full || symbols_full {
            self.cut_block(config.codec, config.compression_level)?;
            // As Loki: the target is not exceeded where that can be foreseen, an open block counting in full.
            if self.next.blocks_bytes() + config.block_bytes / 4 > config.chunk_bytes || symbols_full {
                self.cut_chunk();
            }
        }
        if let Some((from_ns, through_ns)) = self.next_bounds_ns
            && ts_ns.max(through_ns).saturating_sub(ts_ns.min(from_ns)) > config.chunk_span_ns
        {
            self.cut_block(config.codec, config.compression_level)?;
            self.cut_chunk();
        }
        if !self.next.set_metadata(metadata) {
            return Ok(Outcome::BadMetadata);
        }
        if !self.next.append(ts_ns, line.as_bytes()) {
            return Ok(Outcome::Duplicate);
        }
        self.newest_ns = self.newest_ns.max(ts_ns);
        self.oldest_ns = self.oldest_ns.min(ts_ns);
        let (from_ns, through_ns) = self.next_bounds_ns.unwrap_or((ts_ns, ts_ns));
        self.next_bounds_ns = Some((from_ns.min(ts_ns), through_ns.max(ts_ns)));
        Ok(Outcome::Added)
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Added,
    Duplicate,
    TooFarBehind,
    TooLong,
    BadMetadata,
}

fn rfc3339(ts_ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ts_ns)).map_or_else(|_| ts_ns.to_string(), |t| t.to_string())
}

impl HeadStream {
    pub fn new(info: StreamInfo, config: &HeadConfig) -> Self {
        let state = State {
            oldest_ns: i64::MAX,
            newest_ns: i64::MIN,
            next: ChunkBuilder::new(config.block_bytes),
            ..State::default()
        };
        Self { info: Arc::new(info), codec: config.codec, state: Mutex::new(state) }
    }

    /// Adds a record's lines; `tail` collects what was added, `added` hears the time of each.
    pub fn append(
        &self,
        config: &HeadConfig,
        record: &LogsRecord<'_>,
        mut tail: Option<Vec<TailEntry>>,
        report: &mut PushReport,
        mut added: impl FnMut(i64),
    ) -> Result<Appended> {
        let mut state = self.state.lock();
        let before = state.memory_bytes();
        let mut taken = 0u64;
        let mut failed: Option<Error> = None;
        for entry in record.entries() {
            match state.append(config, &entry) {
                Ok(Outcome::Added) => {
                    taken += 1;
                    added(entry.ts_ns);
                    if let Some(tail) = &mut tail {
                        tail.push(TailEntry {
                            ts_ns: entry.ts_ns,
                            line: Bytes::copy_from_slice(entry.line.as_bytes()),
                            metadata: Labels::from_encoded(entry.metadata).unwrap_or_default(),
                        });
                    }
                }
                Ok(Outcome::Duplicate) => taken += 1,
                Ok(Outcome::TooFarBehind) => {
                    let cutoff = state.newest_ns.saturating_sub(config.out_of_order_window_ns);
                    report.refuse("too_far_behind", 1, || {
                        format!(
                            "entry too far behind, entry timestamp is: {}, oldest acceptable timestamp is: {}, \
                             for stream {}",
                            rfc3339(entry.ts_ns),
                            rfc3339(cutoff),
                            self.info.labels
                        )
                    });
                }
                Ok(Outcome::TooLong) => report.refuse("line_too_long", 1, || {
                    let bytes = entry.line.len() + entry.metadata.len();
                    format!(
                        "max entry size '{ENTRY_BYTES_MAX}' bytes exceeded for stream '{}' \
                         while adding an entry with length '{bytes}' bytes",
                        self.info.labels
                    )
                }),
                Ok(Outcome::BadMetadata) => report.refuse("invalid_structured_metadata", 1, || {
                    format!("structured metadata of a line of stream {} is not a label set", self.info.labels)
                }),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        report.accepted += taken;
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(Appended {
            grown: state.memory_bytes() as isize - before as isize,
            from_ns: state.oldest_ns,
            through_ns: state.newest_ns,
            tail,
        })
    }

    /// First and last time; `None` before the first line.
    pub fn bounds_ns(&self) -> Option<(i64, i64)> {
        let state = self.state.lock();
        (state.oldest_ns <= state.newest_ns).then_some((state.oldest_ns, state.newest_ns))
    }

    /// A task for each block that touches the range (end exclusive).
    pub fn tasks(self: &Arc<Self>, start_ns: i64, end_ns: i64, mut push: impl FnMut(BlockTask)) {
        let state = self.state.lock();
        let mut task = |number: u64, from_ns: i64, through_ns: i64| {
            if from_ns < end_ns && through_ns >= start_ns {
                let source = BlockSource::Head(self.clone(), number);
                push(BlockTask { stream: self.info.clone(), source, from_ns, through_ns, number });
            }
        };
        for chunk in &state.chunks {
            for (number, block) in (chunk.first..).zip(&chunk.blocks) {
                task(number, block.from_ns, block.through_ns);
            }
        }
        let blocks = state.next.blocks();
        for (number, block) in (state.number - blocks.len() as u64..).zip(blocks) {
            task(number, block.from_ns, block.through_ns);
        }
        if let Some((from_ns, through_ns)) = state.next.open().bounds_ns() {
            task(state.number, from_ns, through_ns);
        }
    }

    /// The block of that number, open or cut.
    pub fn read_block(&self, number: u64) -> Result<PlainBlock> {
        let state = self.state.lock();
        if number == state.number {
            let symbols = state.next.symbols().clone();
            return Ok(PlainBlock { plain: state.next.open().plain(), version: 4, symbols });
        }
        let blocks = state.next.blocks();
        let current = state.number - blocks.len() as u64;
        let found = if number >= current {
            blocks.get((number - current) as usize).map(|b| (b.clone(), state.next.symbols().clone()))
        } else {
            let i = state.chunks.partition_point(|c| c.first <= number);
            i.checked_sub(1).and_then(|i| state.chunks.get(i)).and_then(|chunk| {
                let block = chunk.blocks.get((number - chunk.first) as usize)?;
                Some((block.clone(), chunk.symbols.clone()))
            })
        };
        drop(state);
        let (block, symbols) = found.ok_or_else(|| Error::internal(format!("head: no block {number}")))?;
        let plain = self.codec.decompress(&block.data, crate::chunk::format::BLOCK_PLAIN_BYTES_MAX)?;
        Ok(PlainBlock { plain, version: 4, symbols })
    }

    /// Figures of every block.
    pub fn parts(&self) -> (Vec<Part>, usize) {
        let state = self.state.lock();
        let part = |b: &Block| Part {
            from_ns: b.from_ns,
            through_ns: b.through_ns,
            entries: u64::from(b.entries),
            bytes: u64::from(b.uncompressed_bytes),
        };
        let mut parts: Vec<Part> =
            state.chunks.iter().flat_map(|c| &c.blocks).chain(state.next.blocks()).map(part).collect();
        let open = state.next.open();
        if let Some((from_ns, through_ns)) = open.bounds_ns() {
            let (entries, bytes) = (open.entries() as u64, open.uncompressed_bytes() as u64);
            parts.push(Part { from_ns, through_ns, entries, bytes });
        }
        let chunks = state.chunks.len() + usize::from(!state.next.is_empty());
        (parts, chunks)
    }

    /// Finishes what is open and returns all chunks. Readers go on as before.
    pub fn finish(&self, config: &HeadConfig) -> Result<Vec<HeadChunk>> {
        let mut state = self.state.lock();
        state.cut_block(config.codec, config.compression_level)?;
        state.cut_chunk();
        Ok(state.chunks.clone())
    }
}
