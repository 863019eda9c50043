//! Reading samples: many blocks of many streams into one answer, stream by stream.
//!
//! Copies of a line have the same stream, so nothing but the samples of one stream has to be brought into the order of time. The
//! blocks wait in the order of (stream, first time). The next few are opened ahead, each in a task of its own: decompressed and
//! run through the extractor. What they became is merged in that order, so that the answer does not depend on which was ready
//! first.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio_util::task::AbortOnDropHandle;
use triptych_model::logs::LogSamples;
use triptych_model::{Error, Result};
use triptych_runtime::{QueryContext, Reservation};

use super::{BlockTask, Feed, Fetched};
use crate::leaf::ExtractLeaf;
use crate::runs::{Cursor, Output};

/// Blocks that are opened at the same time. Bounds what a query holds decompressed, and how many cores it may take.
const OPEN_AHEAD: usize = 8;

/// Where samples come in the answer: by stream, then time.
pub(crate) type Place = (u64, i64);

struct Opened {
    cursor: Cursor,
    _memory: Reservation,
}

enum Waiting {
    Block(BlockTask),
    /// `None`: nothing passed, or it could not be read and the context was told.
    Opening(AbortOnDropHandle<Result<Option<Opened>>>),
}

/// The state of one read.
pub(crate) struct SampleScan {
    ctx: QueryContext,
    leaf: Arc<ExtractLeaf>,
    start_ns: i64,
    end_ns: i64,
    /// By place; the number makes it unique.
    waiting: BTreeMap<(Place, u64), Waiting>,
    number: u64,
    feed: Option<Feed<Place>>,
    /// Opened blocks of the stream whose turn it is.
    stream: u64,
    opened: Vec<Opened>,
    out: Output,
}

impl SampleScan {
    pub fn new(ctx: &QueryContext, leaf: Arc<ExtractLeaf>, (start_ns, end_ns): (i64, i64)) -> Self {
        Self {
            ctx: ctx.clone(),
            leaf,
            start_ns,
            end_ns,
            waiting: BTreeMap::new(),
            number: 0,
            feed: None,
            stream: 0,
            opened: Vec::new(),
            out: Output::default(),
        }
    }

    /// Adds a block, unless it lies outside of the range.
    pub fn push(&mut self, task: BlockTask) {
        if task.from_ns >= self.end_ns || task.through_ns < self.start_ns {
            return;
        }
        let place = (task.stream.fingerprint, task.from_ns);
        self.waiting.insert((place, self.number), Waiting::Block(task));
        self.number += 1;
    }

    pub fn set_feed(&mut self, feed: Feed<Place>) {
        self.feed = Some(feed);
    }

    pub fn into_stream(self) -> BoxStream<'static, Result<Vec<LogSamples>>> {
        futures::stream::try_unfold(self, |mut scan| async move {
            let batch = scan.next_batch().await?;
            Ok((!batch.is_empty()).then_some((batch, scan)))
        })
        .boxed()
    }

    /// Empty at the end.
    async fn next_batch(&mut self) -> Result<Vec<LogSamples>> {
        self.ctx.check()?;
        while !self.out.is_full() {
            self.take_from_feed().await?;
            self.open_ahead();
            self.opened.retain(|o| o.cursor.next_ns().is_some());
            let next = self.waiting.first_key_value().map(|((place, _), _)| *place);
            let here_ns = self.opened.iter().filter_map(|o| o.cursor.next_ns()).min();
            match (here_ns, next) {
                (None, None) => break,
                (Some(here_ns), Some((stream, from_ns))) if stream == self.stream && from_ns <= here_ns => {
                    self.open_first().await?;
                }
                (Some(_), next) => {
                    let until_ns =
                        next.filter(|(stream, _)| *stream == self.stream).map(|(_, from_ns)| from_ns);
                    self.out.merge(self.opened.iter_mut().map(|o| &mut o.cursor), until_ns);
                }
                (None, Some(_)) => self.open_first().await?,
            }
        }
        Ok(self.out.take())
    }

    /// Fetches every chunk that comes before what waits first, and as many as are needed to have work ahead.
    async fn take_from_feed(&mut self) -> Result<()> {
        loop {
            let Some(feed) = &mut self.feed else { return Ok(()) };
            let Some(bound) = feed.bounds.front() else {
                self.feed = None;
                return Ok(());
            };
            let is_first = self.waiting.first_key_value().is_none_or(|((place, _), _)| bound <= place);
            if !is_first && self.waiting.len() >= OPEN_AHEAD {
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

    fn open_ahead(&mut self) {
        for waiting in self.waiting.values_mut().take(OPEN_AHEAD) {
            if let Waiting::Block(task) = waiting {
                let open =
                    open(self.ctx.clone(), self.leaf.clone(), task.clone(), self.start_ns, self.end_ns);
                *waiting = Waiting::Opening(AbortOnDropHandle::new(tokio::spawn(open)));
            }
        }
    }

    /// Waits for the first block.
    async fn open_first(&mut self) -> Result<()> {
        // Stays in its place until it is there: the caller may be dropped meanwhile and come again.
        let Some(mut first) = self.waiting.first_entry() else { return Ok(()) };
        let ((stream, _), _) = *first.key();
        let opened = match first.get_mut() {
            Waiting::Opening(opening) => {
                opening.await.unwrap_or_else(|e| Err(Error::internal(format!("reading a block: {e}"))))?
            }
            Waiting::Block(task) => {
                open(self.ctx.clone(), self.leaf.clone(), task.clone(), self.start_ns, self.end_ns).await?
            }
        };
        first.remove();
        self.stream = stream;
        self.opened.extend(opened);
        Ok(())
    }
}

/// Runs the extractor over a block.
async fn open(
    ctx: QueryContext,
    leaf: Arc<ExtractLeaf>,
    task: BlockTask,
    start_ns: i64,
    end_ns: i64,
) -> Result<Option<Opened>> {
    ctx.check()?;
    let block = match task.read() {
        Ok(block) => block,
        Err(error) => {
            ctx.missed(format!("a block of stream {}: {error}", task.stream.labels));
            return Ok(None);
        }
    };
    ctx.add_read_bytes(block.plain.len() as u64)?;
    // What arrived out of order since the query began would come before what may have been handed out already.
    let start_ns = start_ns.max(task.from_ns);
    let (rows, run) = leaf.extract(&task.stream, &block, start_ns, end_ns)?;
    ctx.add_rows(rows)?;
    if run.samples.is_empty() {
        return Ok(None);
    }
    let labels: usize = run.series.iter().map(|labels| labels.as_encoded().len() + 32).sum();
    let memory = ctx.reserve(labels + run.samples.capacity() * size_of_val(&run.samples[0]))?;
    Ok(Some(Opened { cursor: Cursor::new(run), _memory: memory }))
}
