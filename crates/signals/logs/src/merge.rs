//! Several sources into one answer, without copies: lines by time, samples by stream and time.
//!
//! Each source is ordered by itself. Of each only the batch at hand is held. The first error ends the answer; who wants a partial
//! one instead takes the failing source out before.

mod lists;
mod samples;

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use futures::StreamExt;
use futures::stream::BoxStream;
use triptych_model::Result;
use triptych_model::logs::{Direction, LogEntry};

pub use lists::{merge_fields, merge_series, merge_stats, merge_strings, merge_volumes};
pub use samples::merge_samples;

use crate::scan::Copies;
use crate::scan::entries::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, entry_bytes};

/// Merges entries that come in `direction`; stops after `limit`, 0 for none.
pub fn merge_entries(
    streams: Vec<BoxStream<'static, Result<Vec<LogEntry>>>>,
    direction: Direction,
    limit: usize,
) -> BoxStream<'static, Result<Vec<LogEntry>>> {
    Merge::new(streams, direction, limit).into_stream()
}

type Source = BoxStream<'static, Result<Vec<LogEntry>>>;

struct Node {
    rank: i64,
    source: usize,
    next: LogEntry,
    rest: std::vec::IntoIter<LogEntry>,
}

// The heap keeps its largest on top: reversed.
impl Ord for Node {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.rank, other.source).cmp(&(self.rank, self.source))
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

struct Merge {
    sources: Vec<Source>,
    started: bool,
    direction: Direction,
    remaining: usize,
    heap: BinaryHeap<Node>,
    copies: Copies,
}

/// The first batch that is not empty.
async fn next_batch(source: &mut Source) -> Result<Option<std::vec::IntoIter<LogEntry>>> {
    while let Some(batch) = source.next().await {
        let batch = batch?;
        if !batch.is_empty() {
            return Ok(Some(batch.into_iter()));
        }
    }
    Ok(None)
}

impl Merge {
    fn new(sources: Vec<Source>, direction: Direction, limit: usize) -> Self {
        let remaining = if limit == 0 { usize::MAX } else { limit };
        Self {
            sources,
            started: false,
            direction,
            remaining,
            heap: BinaryHeap::new(),
            copies: Copies::default(),
        }
    }

    fn into_stream(self) -> BoxStream<'static, Result<Vec<LogEntry>>> {
        futures::stream::try_unfold(self, |mut merge| async move {
            let batch = merge.batch().await?;
            Ok((!batch.is_empty()).then_some((batch, merge)))
        })
        .boxed()
    }

    fn rank(&self, item: &LogEntry) -> i64 {
        match self.direction {
            Direction::Forward => item.ts_ns,
            Direction::Backward => !item.ts_ns,
        }
    }

    fn push(&mut self, source: usize, batch: Option<std::vec::IntoIter<LogEntry>>) {
        if let Some(mut rest) = batch
            && let Some(next) = rest.next()
        {
            self.heap.push(Node { rank: self.rank(&next), source, next, rest });
        }
    }

    async fn batch(&mut self) -> Result<Vec<LogEntry>> {
        if !self.started {
            self.started = true;
            // All sources begin to work at once.
            let first = futures::future::try_join_all(self.sources.iter_mut().map(next_batch)).await?;
            first.into_iter().enumerate().for_each(|(i, batch)| self.push(i, batch));
        }
        let mut out = Vec::new();
        let mut bytes = 0;
        let items_max = BATCH_ITEMS_MAX.min(self.remaining);
        while out.len() < items_max && bytes < BATCH_BYTES_MAX {
            let Some(mut top) = self.heap.peek_mut() else { break };
            let item = match top.rest.next() {
                Some(following) => {
                    top.rank = match self.direction {
                        Direction::Forward => following.ts_ns,
                        Direction::Backward => !following.ts_ns,
                    };
                    std::mem::replace(&mut top.next, following)
                }
                None => {
                    let node = PeekMut::pop(top);
                    let batch = match self.sources.get_mut(node.source) {
                        Some(source) => next_batch(source).await?,
                        None => None,
                    };
                    self.push(node.source, batch);
                    node.next
                }
            };
            if self.copies.is_new(item.ts_ns, item.key) {
                bytes += entry_bytes(&item);
                out.push(item);
            }
        }
        self.remaining -= out.len();
        if self.remaining == 0 {
            self.heap.clear();
            self.sources.clear();
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use triptych_model::{Error, Labels};

    fn entry(ts_ns: i64, key: u64) -> LogEntry {
        let (labels, metadata, parsed) = (Labels::empty(), Labels::empty(), Labels::empty());
        LogEntry { labels, metadata, parsed, ts_ns, line: Default::default(), key }
    }

    fn source(batches: Vec<Vec<LogEntry>>) -> Source {
        futures::stream::iter(batches.into_iter().map(Ok)).boxed()
    }

    #[tokio::test]
    async fn ordered_and_without_copies() {
        let a = source(vec![vec![entry(1, 1), entry(2, 1)], vec![], vec![entry(2, 2), entry(9, 1)]]);
        let b = source(vec![vec![entry(2, 1), entry(2, 3)], vec![entry(9, 1), entry(9, 1), entry(10, 1)]]);
        let merged: Vec<_> = merge_entries(vec![a, source(vec![]), b], Direction::Forward, 0).collect().await;
        let got: Vec<(i64, u64)> =
            merged.into_iter().flat_map(|b| b.unwrap()).map(|s| (s.ts_ns, s.key)).collect();
        let mut sorted = got.clone();
        sorted.sort();
        assert_eq!(sorted, [(1, 1), (2, 1), (2, 2), (2, 3), (9, 1), (10, 1)]);
        assert!(got.is_sorted_by_key(|s| s.0));
    }

    #[tokio::test]
    async fn backward_with_limit_and_errors() {
        let backward = |streams, limit| Merge::new(streams, Direction::Backward, limit).into_stream();
        let a = || source(vec![vec![entry(9, 1), entry(5, 1)]]);
        let b = || source(vec![vec![entry(9, 2), entry(9, 1)], vec![entry(7, 1)]]);
        let batches: Vec<_> = backward(vec![a(), b()], 3).collect().await;
        let got: Vec<i64> = batches.into_iter().flat_map(|b| b.unwrap()).map(|s| s.ts_ns).collect();
        assert_eq!(got, [9, 9, 7]);
        let broken = futures::stream::iter([Ok(vec![entry(8, 1)]), Err(Error::unavailable("gone"))]).boxed();
        let batches: Vec<_> = backward(vec![a(), broken], 0).collect().await;
        assert!(batches.last().unwrap().is_err());
    }
}
