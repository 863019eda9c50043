//! Reading lines: many blocks of many streams into one answer in the order of time.
//!
//! Every block is a task in one heap, ordered by the first time it can contribute in the asked direction. A task that comes to
//! the top is opened: decompressed, run through the leaf's pipeline at once, and replaced by the run of entries that passed. A
//! block whose turn never comes (the limit is reached) is never touched; the raw bytes of an opened block are dropped before
//! the next one is opened.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, binary_heap::PeekMut};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use hashbrown::HashMap;
use triptych_model::Result;
use triptych_model::logs::{Direction, LogEntry};
use triptych_runtime::{QueryContext, Reservation};

use super::{BlockTask, Copies, Feed, Fetched, StreamInfo};
use crate::leaf::LineLeaf;

/// Most entries of one batch of an answer.
pub const BATCH_ITEMS_MAX: usize = 1024;
/// A batch is handed on when it holds this many bytes.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Pipelines kept for streams whose next block may follow soon.
const PIPELINES_MAX: usize = 4096;

/// Estimated memory of an entry.
pub fn entry_bytes(entry: &LogEntry) -> usize {
    size_of::<LogEntry>()
        + entry.line.len()
        + entry.metadata.as_encoded().len()
        + entry.parsed.as_encoded().len()
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

enum Work {
    Block(BlockTask),
    Run { next: LogEntry, rest: std::vec::IntoIter<LogEntry>, _memory: Reservation },
}

struct Node {
    /// Ascending in the asked direction.
    rank: i64,
    stream: u64,
    number: u64,
    work: Work,
}

impl Node {
    fn order(&self) -> (i64, bool, u64, u64) {
        (self.rank, matches!(self.work, Work::Run { .. }), self.stream, self.number)
    }
}

// The heap keeps its largest on top: everything is reversed.
impl Ord for Node {
    fn cmp(&self, other: &Self) -> Ordering {
        other.order().cmp(&self.order())
    }
}
impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Node {}

/// Ascending in the asked direction; `!ts` is `-ts - 1` and cannot overflow.
fn rank(direction: Direction, ts_ns: i64) -> i64 {
    match direction {
        Direction::Forward => ts_ns,
        Direction::Backward => !ts_ns,
    }
}

/// The state of one read.
pub(crate) struct EntryScan<L: LineLeaf> {
    ctx: QueryContext,
    leaf: Arc<L>,
    window: Window,
    remaining: usize,
    heap: BinaryHeap<Node>,
    feed: Option<Feed<i64>>,
    /// By the address of the stream, which the entry keeps alive: fingerprints may collide.
    pipelines: HashMap<usize, (Arc<StreamInfo>, L::Pipeline)>,
    copies: Copies,
}

impl<L: LineLeaf> EntryScan<L> {
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

    pub fn set_feed(&mut self, feed: Feed<i64>) {
        self.feed = Some(feed);
    }

    pub fn into_stream(self) -> BoxStream<'static, Result<Vec<LogEntry>>> {
        futures::stream::try_unfold(self, |mut scan| async move {
            let batch = scan.next_batch().await?;
            Ok((!batch.is_empty()).then_some((batch, scan)))
        })
        .boxed()
    }

    /// Empty at the end.
    async fn next_batch(&mut self) -> Result<Vec<LogEntry>> {
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
                        top.rank = rank(self.window.direction, next.ts_ns);
                        item
                    }
                    None => match PeekMut::pop(top).work {
                        Work::Run { next, .. } => next,
                        Work::Block(_) => continue,
                    },
                },
                Work::Block(_) => continue,
            };
            if self.copies.is_new(item.ts_ns, item.key) {
                bytes += entry_bytes(&item);
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
            let Some(bound) = feed.bounds.front() else {
                self.feed = None;
                return Ok(());
            };
            let bound = rank(self.window.direction, *bound);
            if self.heap.peek().is_some_and(|top| top.rank < bound) {
                return Ok(());
            }
            feed.bounds.pop_front();
            self.ctx.check()?;
            let Some(fetched) = feed.chunks.next().await else {
                self.feed = None;
                return Ok(());
            };
            if let Some(Fetched { stream, chunk }) = fetched? {
                BlockTask::of_chunk(&stream, &chunk).for_each(|task| self.push(task));
            }
        }
    }

    /// Runs the pipeline over a block whose turn has come.
    fn open(&mut self, task: BlockTask, node_rank: i64, number: u64) -> Result<()> {
        let block = match task.read() {
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
        let memory = self.ctx.reserve(items.iter().map(entry_bytes).sum())?;
        let mut rest = items.into_iter();
        if let Some(next) = rest.next() {
            self.heap.push(Node {
                rank: rank(self.window.direction, next.ts_ns),
                stream: fingerprint,
                number,
                work: Work::Run { next, rest, _memory: memory },
            });
        }
        Ok(())
    }
}
