//! Runs of samples: those of one stream out of several blocks or sources, in the order of time, each once.

use hashbrown::HashMap;
use triptych_model::Labels;
use triptych_model::logs::{LogSample, LogSamples};

use crate::scan::Copies;

/// Most samples of one batch of an answer.
pub const BATCH_SAMPLES_MAX: usize = 4096;

/// A run that is being read.
#[derive(Debug)]
pub(crate) struct Cursor {
    run: LogSamples,
    at: usize,
    /// Where the run's series are in the output's run number `output`.
    positions: Vec<Option<u32>>,
    output: u64,
}

impl Cursor {
    pub fn new(run: LogSamples) -> Self {
        Self { positions: vec![None; run.series.len()], run, at: 0, output: 0 }
    }

    pub fn stream(&self) -> u64 {
        self.run.stream
    }

    /// Time of the next sample; `None` at the end.
    pub fn next_ns(&self) -> Option<i64> {
        self.run.samples.get(self.at).map(|s| s.ts_ns)
    }
}

/// The batch that is being put together.
#[derive(Debug, Default)]
pub(crate) struct Output {
    batch: Vec<LogSamples>,
    samples: usize,
    /// Series of the last run of the batch.
    series: HashMap<Labels, u32>,
    /// Number of that run.
    number: u64,
    stream: Option<u64>,
    copies: Copies,
}

impl Output {
    pub fn is_full(&self) -> bool {
        self.samples >= BATCH_SAMPLES_MAX
    }

    /// What was put together so far.
    pub fn take(&mut self) -> Vec<LogSamples> {
        self.samples = 0;
        std::mem::take(&mut self.batch)
    }

    /// Takes samples of one stream off the cursors, oldest first: until one is at its end, the next sample would not be before
    /// `until_ns`, or the batch is full.
    pub fn merge<'a>(&mut self, cursors: impl Iterator<Item = &'a mut Cursor>, until_ns: Option<i64>) {
        let mut cursors: smallvec::SmallVec<[&mut Cursor; 8]> = cursors.collect();
        while !self.is_full() {
            // The cursor that is behind all others, and how far it may go before another one's turn comes.
            let (mut first, mut first_ns, mut bound_ns) = (None, i64::MAX, i64::MAX);
            for (i, cursor) in cursors.iter().enumerate() {
                let Some(next_ns) = cursor.next_ns() else { return };
                if first.is_none() || next_ns < first_ns {
                    bound_ns = if first.is_none() { i64::MAX } else { first_ns };
                    (first, first_ns) = (Some(i), next_ns);
                } else {
                    bound_ns = bound_ns.min(next_ns);
                }
            }
            let Some(cursor) = first.and_then(|i| cursors.get_mut(i)) else { return };
            match until_ns {
                Some(until_ns) if first_ns >= until_ns => return,
                Some(until_ns) => bound_ns = bound_ns.min(until_ns - 1),
                None => {}
            }
            self.take_from(cursor, bound_ns);
        }
    }

    /// Takes the samples up to `bound_ns`, inclusive.
    fn take_from(&mut self, cursor: &mut Cursor, bound_ns: i64) {
        if self.stream != Some(cursor.run.stream) {
            self.stream = Some(cursor.run.stream);
            self.copies = Copies::default();
        }
        if self.batch.last().is_none_or(|run| run.stream != cursor.run.stream) {
            self.number += 1;
            self.series.clear();
            let samples = Vec::with_capacity(cursor.run.samples.len().min(BATCH_SAMPLES_MAX - self.samples));
            self.batch.push(LogSamples { stream: cursor.run.stream, series: Vec::new(), samples });
        }
        let Some(out) = self.batch.last_mut() else { return };
        if cursor.output != self.number {
            cursor.output = self.number;
            cursor.positions.fill(None);
        }
        let room = BATCH_SAMPLES_MAX - self.samples;
        let before = out.samples.len();
        for sample in cursor.run.samples.iter().skip(cursor.at) {
            if sample.ts_ns > bound_ns || out.samples.len() - before >= room {
                break;
            }
            cursor.at += 1;
            if !self.copies.is_new(sample.ts_ns, sample.key) {
                continue;
            }
            let Some(position) = cursor.positions.get_mut(sample.series as usize) else { continue };
            let series = match position {
                Some(series) => *series,
                None => {
                    let Some(labels) = cursor.run.series.get(sample.series as usize) else { continue };
                    let series = *self.series.entry_ref(labels).or_insert_with(|| {
                        out.series.push(labels.clone());
                        out.series.len() as u32 - 1
                    });
                    *position.insert(series)
                }
            };
            out.samples.push(LogSample { series, ..*sample });
        }
        self.samples += out.samples.len() - before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stream: u64, app: &str, samples: &[(i64, u64)]) -> Cursor {
        Cursor::new(LogSamples {
            stream,
            series: vec![Labels::from_pairs([("app", app)])],
            samples: samples
                .iter()
                .map(|(ts_ns, key)| LogSample { ts_ns: *ts_ns, key: *key, value: 1.0, series: 0 })
                .collect(),
        })
    }

    fn of(batch: &[LogSamples]) -> Vec<(u64, String, i64, u64)> {
        let one = |run: &LogSamples, s: &LogSample| {
            (run.stream, run.series[s.series as usize].value("app").to_owned(), s.ts_ns, s.key)
        };
        batch.iter().flat_map(|run| run.samples.iter().map(|s| one(run, s))).collect()
    }

    #[test]
    fn by_time_and_each_once_also_across_batches() {
        let mut out = Output::default();
        let mut cursors =
            [run(7, "a", &[(1, 1), (2, 1), (2, 2)]), run(7, "b", &[(2, 1), (2, 3), (5, 1), (6, 1)])];
        out.merge(cursors.iter_mut(), Some(5));
        let a = |ts, key| (7, "a".to_owned(), ts, key);
        let b = |ts, key| (7, "b".to_owned(), ts, key);
        assert_eq!(of(&out.take()), [a(1, 1), a(2, 1), a(2, 2)]);
        // The first one is at its end; what it had at the same instant is remembered.
        let [_, mut second] = cursors;
        out.merge([&mut second].into_iter(), Some(6));
        assert_eq!(of(&out.take()), [b(2, 3), b(5, 1)]);
        // Another stream begins anew.
        let mut other = run(8, "a", &[(5, 1)]);
        out.merge([&mut other].into_iter(), None);
        out.merge([&mut second].into_iter(), None);
        assert_eq!(of(&out.take()), [(8, "a".to_owned(), 5, 1), b(6, 1)]);
    }

    #[test]
    fn a_batch_has_its_size() {
        let samples: Vec<(i64, u64)> = (0..BATCH_SAMPLES_MAX as i64 + 10).map(|i| (i, 0)).collect();
        let mut cursor = run(1, "a", &samples);
        let mut out = Output::default();
        out.merge([&mut cursor].into_iter(), None);
        assert!(out.is_full());
        assert_eq!(out.take()[0].samples.len(), BATCH_SAMPLES_MAX);
        out.merge([&mut cursor].into_iter(), None);
        assert_eq!((out.take()[0].samples.len(), cursor.next_ns()), (10, None));
    }
}
