//! Samples of several sources: stream by stream, each stream by time, without copies.

use std::collections::VecDeque;

use futures::StreamExt;
use futures::stream::BoxStream;
use triptych_model::Result;
use triptych_model::logs::LogSamples;

use crate::runs::{Cursor, Output};

type Batches = BoxStream<'static, Result<Vec<LogSamples>>>;

/// Merges samples that come in the order of [`SampleSelect`](triptych_model::logs::SampleSelect).
pub fn merge_samples(mut sources: Vec<Batches>) -> Batches {
    // What comes from one source has no copies.
    if sources.len() == 1
        && let Some(only) = sources.pop()
    {
        return only;
    }
    let sources = sources.into_iter().map(Source::new).collect();
    let merge = Merge { sources, out: Output::default() };
    futures::stream::try_unfold(merge, |mut merge| async move {
        let batch = merge.batch().await?;
        Ok((!batch.is_empty()).then_some((batch, merge)))
    })
    .boxed()
}

struct Source {
    batches: Batches,
    runs: VecDeque<LogSamples>,
    /// The run at hand; `None` when there is nothing more.
    cursor: Option<Cursor>,
    is_started: bool,
}

impl Source {
    fn new(batches: Batches) -> Self {
        Self { batches, runs: VecDeque::new(), cursor: None, is_started: false }
    }

    /// Moves on to the next run where the one at hand is at its end.
    async fn refill(&mut self) -> Result<()> {
        let is_at_end = |cursor: &Option<Cursor>| cursor.as_ref().is_some_and(|c| c.next_ns().is_none());
        while !self.is_started || is_at_end(&self.cursor) {
            self.cursor = match self.runs.pop_front() {
                Some(run) => Some(Cursor::new(run)),
                None => match self.batches.next().await {
                    Some(batch) => {
                        self.runs = batch?.into();
                        continue;
                    }
                    None => None,
                },
            };
            self.is_started = true;
        }
        Ok(())
    }
}

struct Merge {
    sources: Vec<Source>,
    out: Output,
}

impl Merge {
    /// Empty at the end.
    async fn batch(&mut self) -> Result<Vec<LogSamples>> {
        while !self.out.is_full() {
            // All sources work at once.
            futures::future::try_join_all(self.sources.iter_mut().map(Source::refill)).await?;
            let cursors = || self.sources.iter().filter_map(|s| s.cursor.as_ref());
            let Some(stream) = cursors().map(Cursor::stream).min() else { break };
            let cursors = self.sources.iter_mut().filter_map(|s| s.cursor.as_mut());
            self.out.merge(cursors.filter(|c| c.stream() == stream), None);
        }
        Ok(self.out.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use triptych_model::logs::LogSample;
    use triptych_model::{Error, Labels};

    /// Samples `from..to` of a stream, in runs and batches of the given sizes.
    fn source(streams: &[(u64, std::ops::Range<i64>)], run: usize, batch: usize) -> Batches {
        let mut runs = Vec::new();
        for (stream, range) in streams {
            for part in range.clone().collect::<Vec<_>>().chunks(run) {
                let samples = part
                    .iter()
                    .map(|t| LogSample { ts_ns: t / 3, key: *t as u64, value: *t as f64, series: 0 })
                    .collect();
                let series = vec![Labels::from_pairs([("stream", stream.to_string())])];
                runs.push(LogSamples { stream: *stream, series, samples });
            }
        }
        let batches: Vec<_> = runs.chunks(batch).map(|b| Ok(b.to_vec())).collect();
        futures::stream::iter([Ok(Vec::new())].into_iter().chain(batches)).boxed()
    }

    async fn merged(sources: Vec<Batches>) -> Vec<(u64, i64, u64)> {
        let mut out = Vec::new();
        let mut batches = merge_samples(sources);
        while let Some(batch) = batches.next().await {
            for run in batch.unwrap() {
                assert_eq!(run.series, [Labels::from_pairs([("stream", run.stream.to_string())])]);
                assert!(run.samples.is_sorted_by_key(|s| s.ts_ns));
                out.extend(run.samples.iter().map(|s| (run.stream, s.ts_ns, s.key)));
            }
        }
        assert!(out.is_sorted_by_key(|(stream, ts_ns, _)| (*stream, *ts_ns)));
        out.sort();
        out
    }

    #[tokio::test]
    async fn copies_in_three_replicas_cut_at_different_places_are_counted_once() {
        let want: Vec<(u64, i64, u64)> = [(1, 0..50), (3, 10..5000), (7, 0..9000)]
            .into_iter()
            .flat_map(|(stream, range)| range.map(move |t| (stream, t / 3, t as u64)))
            .collect();
        let got = merged(vec![
            source(&[(1, 0..50), (3, 10..2000), (7, 0..9000)], 7, 3),
            source(&[(3, 1000..5000), (7, 20..8999)], 1000, 1),
            source(&[], 1, 1),
            source(&[(1, 10..20), (3, 10..5000), (7, 0..4)], 64, 10),
        ]);
        assert_eq!(got.await, want);
    }

    #[tokio::test]
    async fn the_first_error_ends_it() {
        let broken = futures::stream::iter([Err(Error::unavailable("gone"))]).boxed();
        let all: Vec<_> = merge_samples(vec![source(&[(1, 0..5)], 1, 1), broken]).collect().await;
        assert!(all.last().unwrap().is_err());
        assert!(merge_samples(Vec::new()).next().await.is_none());
    }
}
