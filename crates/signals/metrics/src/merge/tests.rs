use std::collections::BTreeMap;

use proptest::prelude::*;
use triptych_promql::SampleIter;

use super::*;

fn labels(i: u8) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())])
}

fn chunk_of(samples: &[Sample]) -> EncodedChunk {
    EncodedChunk {
        start_ms: samples[0].t_ms,
        end_ms: samples[samples.len() - 1].t_ms,
        encoding: ChunkEncoding::Xor,
        data: chunk::encode(samples).into(),
    }
}

fn drain(mut samples: Box<dyn SampleIter>) -> Vec<Sample> {
    let mut out = Vec::new();
    while samples.next_run(&mut out).unwrap() {}
    out
}

type Source = BTreeMap<u8, Vec<EncodedChunk>>;

fn stream_of(source: Source) -> ChunkStream {
    let mut series: Vec<SeriesChunks> =
        source.into_iter().map(|(i, chunks)| SeriesChunks { labels: labels(i), chunks }).collect();
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    stream::iter(series.into_iter().map(Ok)).boxed()
}

/// Sorted samples cut into chunks, which may overlap those of other calls.
fn chunks() -> impl Strategy<Value = Vec<EncodedChunk>> {
    (proptest::collection::btree_map(0i64..300, 0u8..3, 1..60), 1usize..20).prop_map(|(samples, size)| {
        let samples: Vec<Sample> =
            samples.into_iter().map(|(t, v)| Sample { t_ms: t * 1000, value: f64::from(v) }).collect();
        samples.chunks(size).map(chunk_of).collect()
    })
}

/// The same with values that equal nothing, not even themselves: two NaNs, staleness, both zeros.
fn odd_chunks() -> impl Strategy<Value = Vec<EncodedChunk>> {
    const STALE: f64 = f64::from_bits(triptych_model::metrics::STALE_NAN_BITS);
    const VALUES: [f64; 6] = [0.0, -0.0, 1.0, f64::NAN, f64::from_bits(0x7ff8_0000_0000_0123), STALE];
    (proptest::collection::btree_map(0i64..40, 0..VALUES.len(), 1..30), 1usize..8).prop_map(
        |(samples, size)| {
            let samples: Vec<Sample> =
                samples.into_iter().map(|(t, v)| Sample { t_ms: t * 1000, value: VALUES[v] }).collect();
            samples.chunks(size).map(chunk_of).collect()
        },
    )
}

fn bits(samples: &[Sample]) -> Vec<(i64, u64)> {
    samples.iter().map(|s| (s.t_ms, s.value.to_bits())).collect()
}

fn model(chunks: &[EncodedChunk]) -> Vec<Sample> {
    let mut all: BTreeMap<i64, Sample> = BTreeMap::new();
    for chunk in chunks {
        let mut samples = Vec::new();
        chunk::decode_chunk(chunk, &mut samples).unwrap();
        for s in samples {
            all.entry(s.t_ms).and_modify(|k| *k = prefer(*k, s)).or_insert(s);
        }
    }
    all.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn merge_is_the_union(sources in proptest::collection::vec(proptest::collection::btree_map(0u8..12, chunks(), 0..6), 0..5)) {
        let mut all: BTreeMap<Labels, Vec<EncodedChunk>> = BTreeMap::new();
        for source in &sources {
            for (i, chunks) in source {
                all.entry(labels(*i)).or_default().extend(chunks.clone());
            }
        }
        let merged = merge(sources.into_iter().map(stream_of).collect());
        let got: Vec<(Labels, Vec<Sample>)> = futures::executor::block_on(
            merged.map(|s| s.unwrap()).map(|s| (s.labels, drain(s.samples))).collect(),
        );
        let expected: Vec<(Labels, Vec<Sample>)> = all.into_iter().map(|(l, c)| (l, model(&c))).collect();
        prop_assert_eq!(got, expected);
    }

    /// What replicas wrote becomes one sample for each time, the same one in whatever order they come.
    #[test]
    fn copies_with_odd_values_become_one(replicas in proptest::collection::vec(odd_chunks(), 1..4)) {
        let all: Vec<EncodedChunk> = replicas.iter().flatten().cloned().collect();
        let reversed: Vec<EncodedChunk> = replicas.iter().rev().flatten().cloned().collect();
        let expected = bits(&model(&all));
        let tidy = tidy_chunks(all).unwrap();
        let mut got = Vec::new();
        for chunk in &tidy {
            chunk::decode_chunk(chunk, &mut got).unwrap();
        }
        prop_assert_eq!(bits(&got), expected);
        prop_assert_eq!(tidy_chunks(reversed).unwrap(), tidy);
    }

    #[test]
    fn tidy_chunks_hold_the_same(parts in proptest::collection::vec(chunks(), 1..5)) {
        let all: Vec<EncodedChunk> = parts.concat();
        let expected = model(&all);
        let tidy = tidy_chunks(all).unwrap();
        prop_assert!(tidy.windows(2).all(|w| w[0].end_ms < w[1].start_ms));
        prop_assert!(tidy.iter().all(|c| chunk::samples_in(&c.data) <= 120));
        prop_assert_eq!(model(&tidy), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_window_is_exact(
        sources in proptest::collection::vec(proptest::collection::btree_map(0u8..6, chunks(), 0..4), 0..4),
        start in 0i64..300_000,
        length in 0i64..200_000,
    ) {
        let window = Window { start_ms: start, end_ms: start + length };
        let mut all: BTreeMap<Labels, Vec<EncodedChunk>> = BTreeMap::new();
        for (i, chunks) in sources.iter().flatten() {
            all.entry(labels(*i)).or_default().extend(chunks.clone());
        }
        let inside = |t: i64| window.start_ms <= t && t <= window.end_ms;
        let expected: Vec<(Labels, Vec<Sample>)> = all
            .into_iter()
            .map(|(l, c)| (l, model(&c).into_iter().filter(|s| inside(s.t_ms)).collect::<Vec<_>>()))
            .filter(|(_, samples)| !samples.is_empty())
            .collect();
        let streams = || sources.iter().cloned().map(stream_of).collect();
        let samples: Vec<_> = futures::executor::block_on(
            merge_samples_within(streams(), window).map(|s| s.unwrap()).map(|s| (s.labels, s.samples)).collect(),
        );
        prop_assert_eq!(&samples, &expected);
        let encoded: Vec<SeriesChunks> =
            futures::executor::block_on(merge_chunks_within(streams(), window).map(|s| s.unwrap()).collect());
        for series in &encoded {
            prop_assert!(series.chunks.windows(2).all(|w| w[0].end_ms < w[1].start_ms));
            prop_assert!(series.chunks.iter().all(|c| inside(c.start_ms) && inside(c.end_ms)));
        }
        let decoded: Vec<_> = encoded.into_iter().map(|s| (s.labels, model(&s.chunks))).collect();
        prop_assert_eq!(&decoded, &expected);
    }
}

#[test]
fn chunks_that_fit_pass_as_they_are() {
    let at = |t: i64| Sample { t_ms: t, value: 1.0 };
    let (a, b) = (chunk_of(&[at(0), at(10)]), chunk_of(&[at(20), at(30)]));
    let source = BTreeMap::from([(0u8, vec![a.clone(), b.clone()])]);
    let window = Window { start_ms: 0, end_ms: 30 };
    let merged = merge_chunks_within(vec![stream_of(source.clone()), stream_of(source)], window);
    let merged: Vec<SeriesChunks> = futures::executor::block_on(merged.map(|s| s.unwrap()).collect());
    assert_eq!(merged, [SeriesChunks { labels: labels(0), chunks: vec![a, b] }]);
}

/// What is not decoded does not keep apart what is.
#[test]
fn histograms_pass_and_copies_beside_them_go() {
    let at = |t: i64| Sample { t_ms: t, value: 1.0 };
    let (a, b) = (chunk_of(&[at(0), at(100)]), chunk_of(&[at(80), at(100), at(120)]));
    let histogram = EncodedChunk {
        start_ms: 50,
        end_ms: 60,
        encoding: ChunkEncoding::Histogram,
        data: vec![0, 1, 9].into(),
    };
    let tidy = tidy_chunks(vec![a, histogram.clone(), b]).unwrap();
    assert_eq!(tidy, [chunk_of(&[at(0), at(80), at(100), at(120)]), histogram]);
}

#[test]
fn a_value_beats_staleness_whatever_the_order() {
    let stale = Sample { t_ms: 1, value: f64::from_bits(triptych_model::metrics::STALE_NAN_BITS) };
    let value = Sample { t_ms: 1, value: -1.0 };
    assert_eq!(prefer(stale, value), value);
    assert_eq!(prefer(value, stale), value);
    let larger = Sample { t_ms: 1, value: 2.0 };
    assert_eq!(prefer(larger, value), prefer(value, larger));
}

#[test]
fn errors_end_the_stream() {
    let good = stream_of(BTreeMap::from([(1, vec![chunk_of(&[Sample { t_ms: 1, value: 1.0 }])])]));
    let bad = stream::iter([Err(triptych_model::Error::unavailable("gone"))]).boxed();
    let mut merged = merge_chunks(vec![good, bad]);
    assert!(futures::executor::block_on(merged.next()).unwrap().is_err());
    assert!(futures::executor::block_on(merged.next()).is_none());

    let torn =
        EncodedChunk { start_ms: 0, end_ms: 9, encoding: ChunkEncoding::Xor, data: vec![0, 9, 1].into() };
    let histogram = EncodedChunk { encoding: ChunkEncoding::Histogram, ..torn.clone() };
    for chunk in [torn, histogram] {
        assert!(ChunkSamples::new(vec![chunk]).next_run(&mut Vec::new()).is_err());
    }
}
