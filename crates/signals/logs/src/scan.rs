//! Reading: many blocks of many streams into one answer in the order of time.
//!
//! Every block is a task in one heap, ordered by the first time it can contribute in the asked direction. A task that comes to
//! the top is opened: decompressed, run through the leaf's pipeline at once, and replaced by the run of items that passed. A
//! block whose turn never comes (the limit is reached) is never touched; the raw bytes of an opened block are dropped before
//! the next one is opened. Chunks in a bucket arrive through a [`Feed`] in the same order, fetched ahead.
//!
//! Copies (same time, same key) within the answer are dropped.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque, binary_heap::PeekMut};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use hashbrown::{HashMap, HashSet};
use triptych_model::logs::{Direction, LogEntry, LogSample};
use triptych_model::{Labels, Result};
use triptych_runtime::{QueryContext, Reservation};

use crate::chunk::{BlockMeta, Chunk, SymbolTable};
use crate::head::HeadStream;

/// Most items of one batch of an answer.
pub const BATCH_ITEMS_MAX: usize = 1024;
/// A batch is handed on when it holds this many bytes.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Pipelines kept for streams whose next block may follow soon.
const PIPELINES_MAX: usize = 4096;

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

/// What an answer consists of.
pub trait Item: Send + 'static {
    fn ts_ns(&self) -> i64;
    fn key(&self) -> u64;
    /// Estimated memory.
    fn bytes(&self) -> usize;
}

impl Item for LogEntry {
    fn ts_ns(&self) -> i64 {
        self.ts_ns
    }
    fn key(&self) -> u64 {
        self.key
    }
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.line.len()
            + self.metadata.as_encoded().len()
            + self.parsed.as_encoded().len()
    }
}

impl Item for LogSample {
    fn ts_ns(&self) -> i64 {
        self.ts_ns
    }
    fn key(&self) -> u64 {
        self.key
    }
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

/// A decompressed block.
pub(crate) struct PlainBlock {
    pub plain: Vec<u8>,
    pub version: u8,
    pub symbols: Arc<SymbolTable>,
}

/// Which entries of a block, and how many at most are of use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub start_ns: i64,
    /// Exclusive.
    pub end_ns: i64,
    pub direction: Direction,
    pub items_max: usize,
}

/// The compiled part of a query that runs next to the data.
pub(crate) trait Leaf: Send + Sync + 'static {
    type Item: Item;
    /// The pipeline bound to one stream.
    type Pipeline: Send + 'static;

    fn for_stream(&self, stream: &StreamInfo) -> Self::Pipeline;
    /// Runs over the entries of the window, pushes what passes in the asked direction, says how many entries it looked at.
    fn scan(
        &self,
        pipeline: &mut Self::Pipeline,
        stream: &StreamInfo,
        block: &PlainBlock,
        window: Window,
        out: &mut Vec<Self::Item>,
    ) -> Result<u64>;
}

/// Where a block comes from.
pub(crate) enum BlockSource {
    /// A block of a head, by its number; it may be cut between the start of the query and its turn.
    Head(Arc<HeadStream>, u64),
    Chunk(Arc<Chunk>, BlockMeta),
}

/// A block that waits for its turn.
pub(crate) struct BlockTask {
    pub stream: Arc<StreamInfo>,
    pub source: BlockSource,
    pub from_ns: i64,
    /// Inclusive.
    pub through_ns: i64,
    /// Order among blocks of a stream that begin at the same time.
    pub number: u64,
}

/// A chunk that was fetched.
pub(crate) struct Fetched {
    pub stream: Arc<StreamInfo>,
    pub chunk: Arc<Chunk>,
}

/// Chunks in the order in which they can contribute. `None` from the stream: could not be read, and the context was told.
pub(crate) struct Feed {
    /// First (backward: last) time of each chunk of the stream, in nanoseconds.
    pub bounds_ns: VecDeque<i64>,
    pub chunks: BoxStream<'static, Result<Option<Fetched>>>,
}

enum Work<T> {
    Block(BlockTask),
    Run { next: T, rest: std::vec::IntoIter<T>, _memory: Reservation },
}

struct Node<T> {
    /// Ascending in the asked direction.
    rank: i64,
    stream: u64,
    number: u64,
    work: Work<T>,
}

impl<T> Node<T> {
    fn order(&self) -> (i64, bool, u64, u64) {
        (self.rank, matches!(self.work, Work::Run { .. }), self.stream, self.number)
    }
}

// The heap keeps its largest on top: everything is reversed.
impl<T> Ord for Node<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.order().cmp(&self.order())
    }
}
impl<T> PartialOrd for Node<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> PartialEq for Node<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<T> Eq for Node<T> {}

/// Ascending in the asked direction; `!ts` is `-ts - 1` and cannot overflow.
fn rank(direction: Direction, ts_ns: i64) -> i64 {
    match direction {
        Direction::Forward => ts_ns,
        Direction::Backward => !ts_ns,
    }
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

/// The state of one read.
pub(crate) struct Scan<L: Leaf> {
    ctx: QueryContext,
    leaf: Arc<L>,
    window: Window,
    remaining: usize,
    heap: BinaryHeap<Node<L::Item>>,
    feed: Option<Feed>,
    /// By the address of the stream, which the entry keeps alive: fingerprints may collide.
    pipelines: HashMap<usize, (Arc<StreamInfo>, L::Pipeline)>,
    copies: Copies,
}

impl<L: Leaf> Scan<L> {
    /// `limit` 0: none.
    pub fn new(
        ctx: &QueryContext,
        leaf: Arc<L>,
        (start_ns, end_ns): (i64, i64),
        direction: Direction,
        limit: usize,
    ) -> Self {
        let remaining = if limit == 0 { usize::MAX } else { limit };
        Self {
            ctx: ctx.clone(),
            leaf,
            window: Window { start_ns, end_ns, direction, items_max: remaining },
            remaining,
            heap: BinaryHeap::new(),
            feed: None,
            pipelines: HashMap::new(),
            copies: Copies::default(),
        }
    }

    /// Adds a block, unless it lies outside of the range.
    pub fn push(&mut self, task: BlockTask) {
        if task.from_ns >= self.window.end_ns || task.through_ns < self.window.start_ns {
            return;
        }
        let (first, number) = match self.window.direction {
            Direction::Forward => (task.from_ns, task.number),
            Direction::Backward => (task.through_ns, !task.number),
        };
        self.heap.push(Node {
            rank: rank(self.window.direction, first),
            stream: task.stream.fingerprint,
            number,
            work: Work::Block(task),
        });
    }

    pub fn set_feed(&mut self, feed: Feed) {
        self.feed = Some(feed);
    }

    pub fn into_stream(self) -> BoxStream<'static, Result<Vec<L::Item>>> {
        futures::stream::try_unfold(self, |mut scan| async move {
            let batch = scan.next_batch().await?;
            Ok((!batch.is_empty()).then_some((batch, scan)))
        })
        .boxed()
    }

    /// Empty at the end.
    async fn next_batch(&mut self) -> Result<Vec<L::Item>> {
        let mut out = Vec::new();
        let mut bytes = 0;
        self.ctx.check()?;
        while out.len() < BATCH_ITEMS_MAX.min(self.remaining) && bytes < BATCH_BYTES_MAX {
            self.take_from_feed().await?;
            let Some(mut top) = self.heap.peek_mut() else { break };
            if matches!(top.work, Work::Block(_)) {
                let node = PeekMut::pop(top);
                if let Work::Block(task) = node.work {
                    self.open(task, node.rank, node.number)?;
                    tokio::task::yield_now().await;
                }
                continue;
            }
            let item = match &mut top.work {
                Work::Run { next, rest, .. } => match rest.next() {
                    Some(following) => {
                        let item = std::mem::replace(next, following);
                        top.rank = rank(self.window.direction, next.ts_ns());
                        item
                    }
                    None => match PeekMut::pop(top).work {
                        Work::Run { next, .. } => next,
                        Work::Block(_) => continue,
                    },
                },
                Work::Block(_) => continue,
            };
            if self.copies.is_new(item.ts_ns(), item.key()) {
                bytes += item.bytes();
                out.push(item);
            }
        }
        self.remaining -= out.len();
        if self.remaining == 0 {
            self.heap.clear();
            self.feed = None;
        }
        Ok(out)
    }

    /// Fetches every chunk that may come before what is on top.
    async fn take_from_feed(&mut self) -> Result<()> {
        loop {
            let Some(feed) = &mut self.feed else { return Ok(()) };
            let Some(bound_ns) = feed.bounds_ns.front() else {
                self.feed = None;
                return Ok(());
            };
            let bound = rank(self.window.direction, *bound_ns);
            if self.heap.peek().is_some_and(|top| top.rank < bound) {
                return Ok(());
            }
            feed.bounds_ns.pop_front();
            self.ctx.check()?;
            let Some(fetched) = feed.chunks.next().await else {
                self.feed = None;
                return Ok(());
            };
            if let Some(Fetched { stream, chunk }) = fetched? {
                for (i, meta) in chunk.blocks.iter().enumerate() {
                    self.push(BlockTask {
                        stream: stream.clone(),
                        source: BlockSource::Chunk(chunk.clone(), *meta),
                        from_ns: meta.from_ns,
                        through_ns: meta.through_ns,
                        number: i as u64,
                    });
                }
            }
        }
    }

    /// Runs the pipeline over a block whose turn has come.
    fn open(&mut self, task: BlockTask, node_rank: i64, number: u64) -> Result<()> {
        let block = match &task.source {
            BlockSource::Head(stream, number) => stream.read_block(*number),
            BlockSource::Chunk(chunk, meta) => chunk.read_block(meta).map(|plain| PlainBlock {
                plain,
                version: chunk.version,
                symbols: chunk.symbols.clone(),
            }),
        };
        let block = match block {
            Ok(block) => block,
            Err(error) => {
                self.ctx.missed(format!("a block of stream {}: {error}", task.stream.labels));
                return Ok(());
            }
        };
        self.ctx.add_read_bytes(block.plain.len() as u64)?;
        // What arrived out of order since the query began must not appear before what was handed out already.
        let mut window = Window { items_max: self.remaining, ..self.window };
        match window.direction {
            Direction::Forward => window.start_ns = window.start_ns.max(node_rank),
            Direction::Backward => window.end_ns = window.end_ns.min((!node_rank).saturating_add(1)),
        }
        let fingerprint = task.stream.fingerprint;
        let address = Arc::as_ptr(&task.stream) as usize;
        let mut pipeline = match self.pipelines.remove(&address) {
            Some((_, pipeline)) => pipeline,
            None => self.leaf.for_stream(&task.stream),
        };
        let mut items = Vec::new();
        let rows = self.leaf.scan(&mut pipeline, &task.stream, &block, window, &mut items)?;
        drop(block);
        if self.pipelines.len() >= PIPELINES_MAX {
            self.pipelines.clear();
        }
        self.pipelines.insert(address, (task.stream.clone(), pipeline));
        self.ctx.add_rows(rows)?;
        let memory = self.ctx.reserve(items.iter().map(Item::bytes).sum())?;
        let mut rest = items.into_iter();
        if let Some(next) = rest.next() {
            self.heap.push(Node {
                rank: rank(self.window.direction, next.ts_ns()),
                stream: fingerprint,
                number,
                work: Work::Run { next, rest, _memory: memory },
            });
        }
        Ok(())
    }
}
