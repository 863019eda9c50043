use futures::executor::block_on;
use futures::stream::TryStreamExt;
use proptest::prelude::*;
use triptych_model::traces::{SpanMatch, SpanSample};
use triptych_model::{Error, Labels};

use super::*;
use crate::testing::trace_id;

fn span(n: u8) -> SpanMatch {
    SpanMatch {
        span_id: [n; 8],
        name: format!("s{n}"),
        start_ns: i64::from(n),
        duration_ns: 1,
        attributes: Vec::new(),
    }
}

fn found(trace: u8, start_ns: i64, root: &str, spans: &[u8], matched: u32) -> TraceMatch {
    TraceMatch {
        trace_id: trace_id(trace),
        root_service: root.into(),
        root_name: root.into(),
        start_ns,
        duration_ns: 10,
        span_sets: vec![SpanSet {
            spans: spans.iter().map(|n| span(*n)).collect(),
            matched,
            attributes: Vec::new(),
        }],
        services: vec![("a".into(), matched, 1)],
    }
}

fn finished(
    matches: impl IntoIterator<Item = TraceMatch>,
    limit: usize,
    spans_per_set: usize,
) -> Vec<TraceMatch> {
    let mut merge = MatchMerge::new(spans_per_set);
    for one in matches {
        merge.add(one);
    }
    merge.finish(limit)
}

#[test]
fn traces_are_told_as_they_are_found() {
    let told = |query: &str| -> Result<Vec<(u8, u32)>> {
        let search = TraceSearch { query: query.into(), start_ns: 0, end_ns: 0, limit: 2, spans_per_set: 3 };
        let source = |matches: Vec<TraceMatch>| stream::iter(matches.into_iter().map(Ok)).boxed();
        // A part, a copy of it, another part; two more traces.
        let one = source(vec![found(1, 100, "", &[1, 2], 2), found(2, 50, "", &[1], 1)]);
        let copy = source(vec![found(1, 100, "", &[1, 2], 2), found(3, 70, "", &[1], 1)]);
        let part = source(vec![found(1, 100, "", &[3], 1)]);
        let all: Vec<TraceMatch> = block_on(merge_matches(&search, vec![one, copy, part])?.try_collect())?;
        Ok(all.iter().map(|m| (m.trace_id[15], m.span_sets[0].matched)).collect())
    };
    let mut growing = told("{}").unwrap();
    let last = growing.iter().rev().find(|(trace, _)| *trace == 1).copied();
    assert_eq!(last, Some((1, 3)), "{growing:?}");
    growing.sort_unstable();
    growing.dedup_by_key(|(trace, _)| *trace);
    assert_eq!(growing.len(), 3);
    assert_eq!(told("{} with (most_recent=true)").unwrap(), [(1, 3), (3, 1)]);
    assert!(told("{").is_err());
}

#[test]
fn matches_are_combined() {
    let merged = finished(
        [
            found(1, 100, "", &[1, 2], 2),
            found(2, 300, "x", &[1], 1),
            found(1, 50, "root", &[2, 3], 2),
            // Cut copies: the larger count. Cut parts: the sum.
            found(3, 10, "x", &[1, 2, 3], 8),
            found(3, 10, "x", &[1, 2, 3], 10),
            found(4, 5, "x", &[1, 2, 3], 8),
            found(4, 5, "x", &[4, 5, 6], 10),
        ],
        3,
        3,
    );
    let shown: Vec<_> = merged
        .iter()
        .map(|m| {
            let ids: Vec<u8> = m.span_sets[0].spans.iter().map(|s| s.span_id[0]).collect();
            (m.trace_id[15], m.start_ns, m.duration_ns, m.root_name.as_str(), ids, m.span_sets[0].matched)
        })
        .collect();
    assert_eq!(
        shown,
        [
            (2, 300, 10, "x", vec![1], 1),
            (1, 50, 60, "root", vec![1, 2, 3], 3),
            (3, 10, 10, "x", vec![1, 2, 3], 10),
        ]
    );
    let four = finished([found(4, 5, "x", &[1, 2, 3], 8), found(4, 5, "x", &[4, 5, 6], 10)], 0, 0);
    assert_eq!(four[0].span_sets[0].matched, 18);
    assert_eq!(four[0].services, [("a".to_owned(), 10, 1)]);
}

#[test]
fn groups_are_kept_apart() {
    let grouped = |key: &str, spans: &[u8]| {
        let mut m = found(1, 0, "", spans, spans.len() as u32);
        m.span_sets[0].attributes = vec![
            ("by(.a)".into(), Value::String(key.into())),
            ("count()".into(), Value::Int(spans.len() as i64)),
        ];
        m
    };
    let merged = finished([grouped("x", &[1]), grouped("y", &[2]), grouped("x", &[1, 3])], 0, 0);
    let sets: Vec<_> = merged[0].span_sets.iter().map(|s| (s.matched, s.attributes[1].1.clone())).collect();
    assert_eq!(sets, [(2, Value::Int(2)), (1, Value::Int(1))]);
}

fn sample(span: u8) -> SpanSample {
    SpanSample { labels: Labels::empty(), ts_ns: 0, value: 1.0, span_id: [span; 8] }
}

type Samples = BoxStream<'static, Result<TraceSamples>>;

fn source(traces: Vec<(u8, Vec<u8>)>) -> Samples {
    let all = traces.into_iter().map(|(trace, spans)| {
        Ok(TraceSamples { trace_id: trace_id(trace), samples: spans.into_iter().map(sample).collect() })
    });
    stream::iter(all.collect::<Vec<_>>()).boxed()
}

fn collect(merged: Samples) -> Result<Vec<(u8, Vec<u8>)>> {
    let all: Vec<TraceSamples> = block_on(merged.try_collect())?;
    Ok(all.into_iter().map(|t| (t.trace_id[15], t.samples.iter().map(|s| s.span_id[0]).collect())).collect())
}

#[test]
fn samples_of_copies_count_once() {
    let merged = merge_samples(vec![
        source(vec![(1, vec![1, 2]), (3, vec![1])]),
        source(vec![(1, vec![2, 3]), (2, vec![1]), (3, vec![1])]),
        source(vec![]),
    ]);
    assert_eq!(collect(merged).unwrap(), [(1, vec![1, 2, 3]), (2, vec![1]), (3, vec![1])]);
    let failing = source(vec![(1, vec![1])]).chain(stream::iter([Err(Error::unavailable("gone"))])).boxed();
    assert!(collect(merge_samples(vec![failing, source(vec![(9, vec![1])])])).is_err());
}

#[test]
fn tags_and_values_come_once() {
    let tags = |scope: &str, tags: &[&str]| ScopeTags {
        scope: scope.into(),
        tags: tags.iter().map(|t| t.to_string()).collect(),
    };
    let merged = merge_tags(
        vec![vec![tags("span", &["b", "c"])], vec![tags("resource", &["x"]), tags("span", &["a", "b"])]],
        2,
    );
    assert_eq!(merged, [tags("span", &["a", "b"]), tags("resource", &["x"])]);
    let int = Value::Int;
    let merged = merge_values(vec![vec![int(2), Value::String("2".into())], vec![int(1), int(2)]], 0);
    assert_eq!(merged, [int(1), int(2), Value::String("2".into())]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However spans are spread over sources, each comes once, by ascending trace id.
    #[test]
    fn spread_over_sources(
        spans in proptest::collection::btree_set((1u8..6, 1u8..9), 0..30),
        places in proptest::collection::vec(1u8..8, 30),
    ) {
        let mut sources = vec![std::collections::BTreeMap::<u8, Vec<u8>>::new(); 3];
        for ((trace, span), place) in spans.iter().zip(&places) {
            for (n, source) in sources.iter_mut().enumerate() {
                if place & (1 << n) != 0 {
                    source.entry(*trace).or_default().push(*span);
                }
            }
        }
        let merged = collect(merge_samples(sources.into_iter().map(|s| source(s.into_iter().collect())).collect()));
        let merged = merged.unwrap();
        prop_assert!(merged.windows(2).all(|w| w[0].0 < w[1].0));
        let mut flat: Vec<(u8, u8)> = merged.into_iter().flat_map(|(t, s)| s.into_iter().map(move |s| (t, s))).collect();
        flat.sort_unstable();
        prop_assert_eq!(flat, spans.into_iter().collect::<Vec<_>>());
    }
}
