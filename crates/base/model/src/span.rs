//! A long range query cut between its steps, and its answers put together again.

use std::collections::BTreeMap;

use crate::metrics::{QueryValue, Sample, SeriesSamples};
use crate::{Error, Labels, Result};

/// Spans are made longer rather than more than about this.
const SPANS_MAX: i64 = 500;

/// First and last step of every span, ascending: cut at multiples of `interval`, or of several of it where each span looks back
/// further than that (`lookback`), so that nothing is read more than about twice. One span where the interval or the step is 0, or
/// the times make no sense. All in one unit.
pub fn spans((start, end): (i64, i64), step: i64, interval: i64, lookback: i64) -> Vec<(i64, i64)> {
    let sane = |t: i64| t.unsigned_abs() < 1 << 61;
    if interval <= 0 || step <= 0 || end < start || !sane(start) || !sane(end) {
        return vec![(start, end)];
    }
    let least = lookback.max((end - start) / SPANS_MAX);
    let interval = interval.saturating_mul((least / interval).saturating_add(1)).min(1 << 61);
    let last = end - (end - start) % step;
    let mut out = Vec::new();
    let mut at = start;
    while at <= last {
        let border = (at.div_euclid(interval) + 1) * interval;
        let until = (at + (border - 1 - at) / step * step).min(last);
        out.push((at, until));
        at = until + step;
    }
    if out.len() == 1 { vec![(start, end)] } else { out }
}

/// The matrices that spans answered with, in ascending order of time, as one.
pub fn join(answers: Vec<QueryValue>) -> Result<QueryValue> {
    let mut by_labels: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
    for answer in answers {
        let QueryValue::Matrix(series) = answer else {
            return Err(Error::damaged("a span of a range query answered with what is no matrix"));
        };
        for mut one in series {
            by_labels.entry(one.labels).or_default().append(&mut one.samples);
        }
    }
    let series = by_labels.into_iter().map(|(labels, samples)| SeriesSamples { labels, samples });
    Ok(QueryValue::Matrix(series.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_end_before_multiples_of_the_interval() {
        assert_eq!(spans((7, 34), 3, 10, 0), [(7, 7), (10, 19), (22, 28), (31, 34)]);
        assert_eq!(spans((-15, 5), 5, 10, 0), [(-15, -15), (-10, -5), (0, 5)]);
        assert_eq!(spans((10, 19), 3, 10, 0), [(10, 19)]);
        for whole in [((7, 34), 0, 10), ((0, 100), 1, 0), ((5, 0), 1, 1), ((i64::MIN, i64::MAX), 1, 10)] {
            assert_eq!(spans(whole.0, whole.1, whole.2, 0), [whole.0]);
        }
        assert_eq!(spans((0, 100), 1, 10, 25).len(), 4);
        assert!(spans((0, 1_000_000), 100, 10, 0).len() <= 501);
        assert_eq!(spans((0, 100), 1, 10, i64::MAX).len(), 1);
    }

    #[test]
    fn every_step_is_in_one_span() {
        for (start, end, step, interval) in [(0, 100, 7, 10), (-33, 41, 5, 9), (3, 3, 2, 10), (1, 50, 60, 7)]
        {
            let steps = |from: i64, until: i64| (from..=until).step_by(step as usize);
            let all = spans((start, end), step, interval, 0);
            let cut: Vec<i64> = all.iter().flat_map(|(from, until)| steps(*from, *until)).collect();
            assert_eq!(cut, steps(start, end).collect::<Vec<_>>());
        }
    }
}
