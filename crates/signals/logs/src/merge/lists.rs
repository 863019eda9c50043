//! Answers that are lists or figures, of several sources.

use std::collections::BTreeMap;

use triptych_model::Labels;
use triptych_model::logs::{DetectedField, StreamStats, Volume};

/// Sorted names or values, each once, at most `limit` (0: no limit).
pub fn merge_strings(lists: Vec<Vec<String>>, limit: usize) -> Vec<String> {
    each_once(lists, limit)
}

/// Sorted label sets, each once, at most `limit` (0: no limit).
pub fn merge_series(lists: Vec<Vec<Labels>>, limit: usize) -> Vec<Labels> {
    each_once(lists, limit)
}

fn each_once<T: Ord>(lists: Vec<Vec<T>>, limit: usize) -> Vec<T> {
    let mut all: Vec<T> = lists.into_iter().flatten().collect();
    all.sort_unstable();
    all.dedup();
    cut(&mut all, limit);
    all
}

fn cut<T>(all: &mut Vec<T>, limit: usize) {
    if limit != 0 {
        all.truncate(limit);
    }
}

/// Sources mostly know the same streams (the larger count is shown) and mostly hold different entries (counts are added up).
pub fn merge_stats(all: Vec<StreamStats>) -> StreamStats {
    all.into_iter().fold(StreamStats::default(), |sum, s| StreamStats {
        streams: sum.streams.max(s.streams),
        chunks: sum.chunks + s.chunks,
        entries: sum.entries + s.entries,
        bytes: sum.bytes + s.bytes,
    })
}

/// Added up by label set; largest first, equal ones in the order of their labels; at most `limit` (0: no limit).
pub fn merge_volumes(lists: Vec<Vec<Volume>>, limit: usize) -> Vec<Volume> {
    let mut bytes: BTreeMap<Labels, u64> = BTreeMap::new();
    for volume in lists.into_iter().flatten() {
        *bytes.entry(volume.labels).or_default() += volume.bytes;
    }
    let mut all: Vec<Volume> = bytes.into_iter().map(|(labels, bytes)| Volume { labels, bytes }).collect();
    all.sort_by_key(|v| std::cmp::Reverse(v.bytes));
    cut(&mut all, limit);
    all
}

/// By name. Values are not known here: the larger cardinality is shown; kinds that differ are text.
pub fn merge_fields(lists: Vec<Vec<DetectedField>>) -> Vec<DetectedField> {
    let mut fields: BTreeMap<String, DetectedField> = BTreeMap::new();
    for field in lists.into_iter().flatten() {
        let Some(known) = fields.get_mut(&field.label) else {
            fields.insert(field.label.clone(), field);
            continue;
        };
        known.cardinality = known.cardinality.max(field.cardinality);
        if known.kind != field.kind {
            known.kind = "string".to_owned();
        }
        for parser in field.parsers {
            if !known.parsers.contains(&parser) {
                known.parsers.push(parser);
            }
        }
    }
    fields.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(app: &str) -> Labels {
        Labels::from_pairs([("app", app)])
    }

    #[test]
    fn each_once_and_cut() {
        let lists = || vec![vec!["a".to_owned(), "c".to_owned()], vec!["a".to_owned(), "b".to_owned()]];
        assert_eq!(merge_strings(lists(), 0), ["a", "b", "c"]);
        assert_eq!(merge_strings(lists(), 2), ["a", "b"]);
        assert_eq!(merge_series(vec![vec![labels("x")], vec![labels("x")]], 0), [labels("x")]);
    }

    #[test]
    fn figures() {
        let stats = |streams, entries| StreamStats { streams, chunks: 1, entries, bytes: 10 };
        let sum = StreamStats { streams: 5, chunks: 2, entries: 7, bytes: 20 };
        assert_eq!(merge_stats(vec![stats(3, 3), stats(5, 4)]), sum);
        let volume = |app, bytes| Volume { labels: labels(app), bytes };
        let merged = merge_volumes(vec![vec![volume("a", 1), volume("b", 2)], vec![volume("a", 3)]], 0);
        assert_eq!(merged, [volume("a", 4), volume("b", 2)]);
        let field = |kind: &str, cardinality, parser: &str| DetectedField {
            label: "f".into(),
            kind: kind.into(),
            cardinality,
            parsers: vec![parser.into()],
        };
        let merged = merge_fields(vec![vec![field("int", 2, "json")], vec![field("float", 5, "logfmt")]]);
        assert_eq!((merged[0].kind.as_str(), merged[0].cardinality), ("string", 5));
        assert_eq!(merged[0].parsers, ["json", "logfmt"]);
    }
}
