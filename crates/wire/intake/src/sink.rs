//! Where decoded items go. A decoder knows nothing of tenants, limits or batches; a sink knows nothing of protocols.
//!
//! Everything handed over is borrowed and valid during the call only. Label sets and metadata are **sorted by name and unique,
//! without empty values**, ready for [`triptych_model::labels::encode_pairs`] and [`hash_pairs`](triptych_model::labels::hash_pairs).
//! A sink that returns an error ends the decoding with it: that is how a sink bounds what a small body may unfold into.

use std::fmt;

use triptych_model::Result;
use triptych_model::metrics::{MetricKind, Sample};
use triptych_model::traces::TraceId;

/// Sorted, unique pairs.
pub type Pairs<'a> = [(&'a str, &'a str)];

pub trait MetricsSink {
    /// Samples of one series, in order of arrival. The same series may come again.
    fn series(&mut self, labels: &Pairs<'_>, samples: &[Sample]) -> Result<()>;

    fn metadata(&mut self, metric: &str, kind: MetricKind, help: &str, unit: &str) -> Result<()>;

    fn exemplar(&mut self, labels: &Pairs<'_>, exemplar_labels: &Pairs<'_>, sample: Sample) -> Result<()>;

    /// `items` samples cannot be taken; `why` is a sentence with an example.
    fn refuse(&mut self, reason: &'static str, items: u64, why: fmt::Arguments<'_>);
}

pub trait LogsSink {
    /// Begins a stream; the entries that follow belong to it. The same stream may come again.
    fn stream(&mut self, labels: &Pairs<'_>) -> Result<()>;

    /// `metadata` is structured metadata.
    fn entry(&mut self, ts_ns: i64, line: &str, metadata: &Pairs<'_>) -> Result<()>;

    /// `items` lines cannot be taken; `why` is a sentence with an example.
    fn refuse(&mut self, reason: &'static str, items: u64, why: fmt::Arguments<'_>);
}

pub trait TracesSink {
    /// Larger spans are refused by the decoder.
    fn span_bytes_max(&self) -> usize {
        usize::MAX
    }

    /// Spans of one trace: `otlp` is a `TracesData` message. Each trace comes once per request.
    fn spans(
        &mut self,
        trace_id: &TraceId,
        start_ns: i64,
        end_ns: i64,
        count: u32,
        otlp: &[u8],
    ) -> Result<()>;

    /// `items` spans cannot be taken; `why` is a sentence with an example.
    fn refuse(&mut self, reason: &'static str, items: u64, why: fmt::Arguments<'_>);
}

/// Most pairs in one label set or in the metadata of one line, before any limit of a tenant: an empty pair takes two bytes on
/// the wire and 32 in memory.
pub const PAIRS_MAX: usize = 4096;

/// Fails when a set holds [`PAIRS_MAX`] pairs already.
#[inline]
pub(crate) fn check_pairs(held: usize, what: &str) -> Result<()> {
    if held >= PAIRS_MAX {
        return Err(triptych_model::Error::invalid(format!(
            "{what}: more than {PAIRS_MAX} pairs in one set"
        )));
    }
    Ok(())
}

/// Sorts pairs by name, drops empty values; returns the name that occurs twice, if any.
pub(crate) fn sort_unique<'a>(pairs: &mut Vec<(&'a str, &'a str)>) -> Option<&'a str> {
    if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
        pairs.sort_by(|a, b| a.0.cmp(b.0));
        if let Some(twice) = pairs.windows(2).find(|w| w[0].0 == w[1].0) {
            return Some(twice[0].0);
        }
    }
    if pairs.iter().any(|(_, value)| value.is_empty()) {
        pairs.retain(|(_, value)| !value.is_empty());
    }
    None
}

/// Sorts pairs by name, drops empty values; of equal names the last one counts.
pub(crate) fn sort_last_wins<'a>(pairs: &mut Vec<(&'a str, &'a str)>) {
    if !pairs.is_sorted_by(|a, b| a.0 < b.0) {
        pairs.sort_by(|a, b| a.0.cmp(b.0));
        // dedup keeps the first of a run: move the later value forward.
        pairs.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = later.1;
            }
            same
        });
    }
    if pairs.iter().any(|(_, value)| value.is_empty()) {
        pairs.retain(|(_, value)| !value.is_empty());
    }
}

/// An empty vector of another lifetime with the same memory, so that a loop need not allocate for each round.
pub(crate) fn recycle<'a, 'b>(mut pairs: Vec<(&'a str, &'a str)>) -> Vec<(&'b str, &'b str)> {
    pairs.clear();
    pairs.into_iter().map(|_| ("", "")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorting() {
        let mut pairs = vec![("b", "1"), ("a", "2"), ("c", "")];
        assert_eq!(sort_unique(&mut pairs), None);
        assert_eq!(pairs, [("a", "2"), ("b", "1")]);
        assert_eq!(sort_unique(&mut vec![("a", "1"), ("a", "1")]), Some("a"));
        let mut pairs = vec![("b", "1"), ("a", "2"), ("b", "3"), ("b", "4")];
        sort_last_wins(&mut pairs);
        assert_eq!(pairs, [("a", "2"), ("b", "4")]);
    }

    #[test]
    fn recycling_keeps_the_memory() {
        let pairs: Vec<(&str, &str)> = Vec::with_capacity(100);
        assert!(recycle(pairs).capacity() >= 100);
    }
}
