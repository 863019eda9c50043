//! What label and figure questions have in common, whichever store answers them.

use std::collections::{BTreeMap, BTreeSet};

use triptych_model::logs::{StreamStats, StreamsSelect, Volume};
use triptych_model::{Error, Labels, Matcher, Result};

/// A range with 0 meaning open ends, as `StreamsSelect` has it, into one with exclusive end.
pub(crate) fn range_ns(select: &StreamsSelect) -> Result<(i64, i64)> {
    let end_ns = if select.end_ns == 0 { i64::MAX } else { select.end_ns };
    check_range(select.start_ns, end_ns)
}

pub(crate) fn check_range(start_ns: i64, end_ns: i64) -> Result<(i64, i64)> {
    if end_ns < start_ns {
        return Err(Error::invalid(format!("the range ends ({end_ns}) before it starts ({start_ns})")));
    }
    Ok((start_ns, end_ns))
}

/// A selector that every stream passes would read everything: Loki asks for one matcher that not everything passes.
pub(crate) fn check_matchers(matchers: &[Matcher]) -> Result<()> {
    if matchers.is_empty() || matchers.iter().any(|m| !m.matches_empty()) {
        return Ok(());
    }
    Err(Error::invalid(
        "queries require at least one regexp or equality matcher that does not have an empty-compatible value",
    ))
}

/// How much of `from..=through` lies in `start..end`, 0 to 1: Loki takes lines to be spread evenly over a chunk's time.
pub(crate) fn share(from_ns: i64, through_ns: i64, start_ns: i64, end_ns: i64) -> f64 {
    if from_ns >= end_ns || through_ns < start_ns {
        return 0.0;
    }
    if from_ns >= start_ns && through_ns < end_ns {
        return 1.0;
    }
    let covered = through_ns.min(end_ns) as f64 - from_ns.max(start_ns) as f64;
    let whole = through_ns as f64 - from_ns as f64;
    if whole <= 0.0 { 1.0 } else { (covered / whole).clamp(0.0, 1.0) }
}

/// Adds up streams for `stats`.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    chunks: u64,
    entries: f64,
    bytes: f64,
    streams: u64,
}

impl Stats {
    pub fn stream(&mut self) {
        self.streams += 1;
    }
    pub fn chunks(&mut self, chunks: u64) {
        self.chunks += chunks;
    }
    pub fn part(&mut self, share: f64, entries: u64, bytes: u64) {
        self.entries += share * entries as f64;
        self.bytes += share * bytes as f64;
    }
    pub fn done(self) -> StreamStats {
        StreamStats {
            streams: self.streams,
            chunks: self.chunks,
            entries: self.entries.round() as u64,
            bytes: self.bytes.round() as u64,
        }
    }
}

/// Bytes per value set of some labels.
#[derive(Debug)]
pub(crate) struct Volumes {
    /// Asked for by the caller: streams without one of them do not count.
    required: bool,
    names: BTreeSet<String>,
    bytes: BTreeMap<Labels, f64>,
}

impl Volumes {
    pub fn new(select: &StreamsSelect, labels: &[String]) -> Self {
        let of_selector = || select.matcher_sets.iter().flatten().map(|m| m.name.clone()).collect();
        let names = if labels.is_empty() { of_selector() } else { labels.iter().cloned().collect() };
        Self { required: !labels.is_empty(), names, bytes: BTreeMap::new() }
    }

    pub fn add(&mut self, labels: &Labels, bytes: f64) {
        if bytes <= 0.0 || (self.required && self.names.iter().any(|n| labels.get(n).is_none())) {
            return;
        }
        // A selector without matchers names no labels: every stream for itself.
        let group =
            if self.names.is_empty() { labels.clone() } else { labels.filter(|n| self.names.contains(n)) };
        *self.bytes.entry(group).or_default() += bytes;
    }

    /// Largest first.
    pub fn done(self, limit: usize) -> Vec<Volume> {
        let mut all: Vec<Volume> = self
            .bytes
            .into_iter()
            .map(|(labels, bytes)| Volume { labels, bytes: bytes.round() as u64 })
            .collect();
        all.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.labels.cmp(&b.labels)));
        truncate(all, limit)
    }
}

pub(crate) fn truncate<T>(mut all: Vec<T>, limit: usize) -> Vec<T> {
    if limit != 0 {
        all.truncate(limit);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        for (range, want) in [
            ((0, 100), 1.0),
            ((10, 21), 1.0),
            ((21, 30), 0.0),
            ((0, 10), 0.0),
            ((15, 30), 0.5),
            ((0, 15), 0.5),
        ] {
            assert_eq!(share(10, 20, range.0, range.1), want, "{range:?}");
        }
        assert_eq!(share(10, 10, 10, 11), 1.0);
        assert!(share(i64::MIN, i64::MAX, 0, 1).is_finite());
    }

    #[test]
    fn empty_compatible_selectors_are_refused() {
        let any = Matcher::new(triptych_model::MatchOp::Regex, "a", ".*").unwrap();
        assert!(check_matchers(std::slice::from_ref(&any)).is_err());
        assert!(check_matchers(&[any, Matcher::equal("b", "1")]).is_ok());
    }
}
