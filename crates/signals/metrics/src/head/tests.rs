use std::collections::BTreeMap;

use futures::StreamExt;
use proptest::prelude::*;
use triptych_model::batch::MetricsBuilder;
use triptych_model::metrics::{LabelsSelect, SeriesChunks, SeriesSelect};
use triptych_model::{MatchOp, Matcher, TenantId};
use triptych_runtime::{QueryContext, QueryLimits};

use super::*;

fn ctx() -> QueryContext {
    QueryContext::unlimited(TenantId::single())
}

fn batch(series: &[(&Labels, &[(i64, f64)])]) -> Vec<u8> {
    let mut builder = MetricsBuilder::default();
    for (labels, samples) in series {
        let samples: Vec<Sample> = samples.iter().map(|&(t_ms, value)| Sample { t_ms, value }).collect();
        builder.series(labels.hash64(), labels.as_encoded(), &samples);
    }
    builder.plain().to_vec()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

fn everything() -> SeriesSelect {
    SeriesSelect { matchers: vec![], start_ms: i64::MIN, end_ms: i64::MAX, skip_chunks: false, shard: None }
}

fn collect(head: &Head, select: &SeriesSelect) -> Vec<SeriesChunks> {
    let stream = head.select(&ctx(), select).unwrap();
    futures::executor::block_on(stream.map(|s| s.unwrap()).collect())
}

/// The samples of a series over all of its chunks, copies shown once.
fn samples(series: &SeriesChunks) -> BTreeMap<i64, u64> {
    let mut all = Vec::new();
    for chunk in &series.chunks {
        let before = all.len();
        chunk::decode_chunk(chunk, &mut all).unwrap();
        assert_eq!(all[before].t_ms, chunk.start_ms);
        assert_eq!(all.last().unwrap().t_ms, chunk.end_ms);
        assert_eq!(
            chunk.start_ms.div_euclid(7_200_000),
            chunk.end_ms.div_euclid(7_200_000),
            "chunk crosses a range"
        );
    }
    assert!(series.chunks.is_sorted_by_key(|c| c.start_ms));
    all.iter().map(|s| (s.t_ms, s.value.to_bits())).collect()
}

use crate::chunk;

#[test]
fn refusals_have_prometheus_names() {
    let head = Head::new(HeadConfig { series_max: 2, ..HeadConfig::default() });
    let (a, b, c) =
        (labels(&[("__name__", "a")]), labels(&[("__name__", "b")]), labels(&[("__name__", "c")]));
    let hour = 3_600_000;
    let check = |series: &[(&Labels, &[(i64, f64)])], accepted: u64, refused: &[(&str, u64)]| {
        let report = head.append(&batch(series)).unwrap();
        assert_eq!(report.accepted, accepted, "{report:?}");
        let got: Vec<(&str, u64)> = report.refused.iter().map(|(r, n)| (r.as_str(), n.items)).collect();
        assert_eq!(got, refused);
    };
    check(&[(&a, &[(10 * hour, 1.0)]), (&b, &[(10 * hour, 2.0)])], 2, &[]);
    // The same again, and another value for it.
    check(&[(&a, &[(10 * hour, 1.0)]), (&b, &[(10 * hour, 3.0)])], 1, &[("new-value-for-timestamp", 1)]);
    // A third series; known ones go on.
    check(
        &[(&c, &[(10 * hour, 1.0), (10 * hour + 1, 1.0)]), (&a, &[(10 * hour + 1, 1.0)])],
        1,
        &[("per_user_series_limit", 2)],
    );
    // Late within the window, at its border, and beyond.
    check(&[(&a, &[(9 * hour + 1, 5.0), (9 * hour, 5.0), (10 * hour - 7, 6.0)])], 2, &[("out_of_bounds", 1)]);
    // Late copies and late conflicts.
    check(&[(&a, &[(9 * hour + 1, 5.0), (10 * hour - 7, 7.0)])], 1, &[("new-value-for-timestamp", 1)]);
    assert_eq!(head.series_count(), 2);
    assert_eq!(head.sample_count(), 5);
    assert_eq!(head.time_range_ms(), Some((9 * hour + 1, 10 * hour + 1)));

    let mut builder = MetricsBuilder::default();
    builder.series(1, a.as_encoded(), &[Sample { t_ms: 10 * hour, value: 1.0 }]);
    builder.series(Labels::empty().hash64(), &[], &[Sample { t_ms: 10 * hour, value: 1.0 }]);
    builder.series(7, b"\x05ab", &[Sample { t_ms: 10 * hour, value: 1.0 }]);
    let report = head.append(builder.plain()).unwrap();
    assert_eq!(report.refused["labels_invalid"].items, 3);
    assert!(head.append(b"\x01\x01torn").is_err());
}

#[test]
fn matchers_find_what_a_scan_finds() {
    let head = Head::new(HeadConfig::default());
    let mut all = Vec::new();
    for i in 0..300 {
        let (pod, zone) = (format!("pod-{i}"), format!("z{}", i % 3));
        let mut pairs = vec![("__name__", ["up", "down"][i % 2]), ("pod", pod.as_str())];
        if i % 3 != 0 {
            pairs.push(("zone", &zone));
        }
        all.push(labels(&pairs));
    }
    for series in &all {
        head.append(&batch(&[(series, &[(1000, 1.0)])])).unwrap();
    }
    let m = |op, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
    use MatchOp::*;
    for matchers in [
        vec![],
        vec![m(Equal, "__name__", "up")],
        vec![m(Equal, "__name__", "up"), m(Equal, "zone", "z1")],
        vec![m(Equal, "__name__", "up"), m(Equal, "zone", "")],
        vec![m(NotEqual, "zone", "")],
        vec![m(NotEqual, "zone", "z1")],
        vec![m(Regex, "pod", "pod-1.*"), m(NotRegex, "zone", "z[12]")],
        vec![m(Regex, "pod", "pod-1|pod-2|nope")],
        vec![m(Regex, "zone", "z1|")],
        vec![m(NotRegex, "zone", "z1|")],
        vec![m(Regex, "pod", ".+"), m(Regex, "zone", ".*")],
        vec![m(Equal, "nope", "x")],
        vec![m(Equal, "nope", "")],
    ] {
        let mut expected: Vec<Labels> =
            all.iter().filter(|l| matchers.iter().all(|m| m.matches_labels(l))).cloned().collect();
        expected.sort();
        let select = SeriesSelect { matchers: matchers.clone(), ..everything() };
        let got: Vec<Labels> = collect(&head, &select).into_iter().map(|s| s.labels).collect();
        assert_eq!(got, expected, "{matchers:?}");
        let by_labels = LabelsSelect { matcher_sets: vec![matchers], ..LabelsSelect::default() };
        assert_eq!(head.series(&ctx(), &by_labels).unwrap(), expected);
        let mut zones: Vec<&str> = expected.iter().filter_map(|l| l.get("zone")).collect();
        zones.sort();
        zones.dedup();
        assert_eq!(head.label_values(&ctx(), "zone", &by_labels).unwrap(), zones);
    }
    let none = LabelsSelect::default();
    assert_eq!(head.label_names(&ctx(), &none).unwrap(), ["__name__", "pod", "zone"]);
    assert_eq!(head.label_values(&ctx(), "zone", &none).unwrap(), ["z1", "z2"]);
    assert_eq!(
        head.label_values(&ctx(), "pod", &LabelsSelect { limit: 2, ..none }).unwrap(),
        ["pod-0", "pod-1"]
    );
    let stats = head.cardinality(&ctx(), 1).unwrap();
    assert_eq!((stats.series, stats.chunks, stats.samples), (300, 300, 300));
    assert_eq!(stats.series_by_metric, [("down".to_owned(), 150)]);
    assert_eq!(stats.values_by_label, [("pod".to_owned(), 300)]);
}

#[test]
fn a_query_over_its_budget_stops() {
    let head = Head::new(HeadConfig::default());
    let a = labels(&[("__name__", "a")]);
    head.append(&batch(&[(&a, &[(1, 1.0), (2, 2.0)])])).unwrap();
    let ctx = QueryContext::new(TenantId::single(), QueryLimits { rows_max: 1, ..QueryLimits::default() });
    let mut stream = head.select(&ctx, &everything()).unwrap();
    let error = futures::executor::block_on(stream.next()).unwrap().unwrap_err();
    assert_eq!(error.kind, triptych_model::Kind::Exhausted);
    let ctx = self::ctx();
    ctx.cancel();
    assert!(head.select(&ctx, &everything()).is_err());
}

#[test]
fn metadata_and_exemplars_are_bounded() {
    let head = Head::new(HeadConfig { exemplars_max: 3, metadata_bytes_max: 400, ..HeadConfig::default() });
    let a = labels(&[("__name__", "a")]);
    let mut builder = MetricsBuilder::default();
    for i in 0..5i64 {
        let id = labels(&[("trace_id", &i.to_string())]);
        let sample = Sample { t_ms: i, value: i as f64 };
        builder.exemplar(a.hash64(), a.as_encoded(), id.as_encoded(), sample);
        builder.exemplar(a.hash64(), a.as_encoded(), id.as_encoded(), sample);
        builder.metadata(&format!("m{i}"), MetricKind::Counter, "help", "");
    }
    let report = head.append(builder.plain()).unwrap();
    assert_eq!(report.refused[reason::METADATA_LIMIT].items, 3);
    let found = head.exemplars(&ctx(), &LabelsSelect::default()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].exemplars.iter().map(|e| e.t_ms).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(head.metadata(&ctx(), "m1", 0).unwrap()[0].kind, MetricKind::Counter);
    assert_eq!(head.metadata(&ctx(), "", 0).unwrap().len(), 2);
}

#[test]
fn an_idle_head_is_small() {
    let head = Head::new(HeadConfig::default());
    assert!(head.bytes() < 4096, "{}", head.bytes());
    head.append(&batch(&[(&labels(&[("__name__", "up"), ("job", "a")]), &[(1, 1.0)])])).unwrap();
    assert!(head.bytes() < 8192, "{}", head.bytes());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever the order, what was accepted is what comes back.
    #[test]
    fn accepted_samples_come_back(steps in proptest::collection::vec((-400_000i64..500_000, 0u8..3, 0u8..4), 1..400)) {
        let head = Head::new(HeadConfig::default());
        let all: Vec<Labels> = (0..3).map(|i| labels(&[("__name__", "m"), ("i", &i.to_string())])).collect();
        let mut model: Vec<BTreeMap<i64, u64>> = vec![BTreeMap::new(); 3];
        let (mut now, mut newest) = (1_600_000_000_000i64, i64::MIN);
        for (step, series, value) in steps {
            now += step;
            let value = f64::from(value);
            let report = head.append(&batch(&[(&all[series as usize], &[(now, value)])])).unwrap();
            let there = model[series as usize].get(&now).copied();
            let expected = if newest != i64::MIN && now < newest - 3_600_000 {
                Some("out_of_bounds")
            } else if there.is_some_and(|v| v != value.to_bits()) {
                Some("new-value-for-timestamp")
            } else {
                model[series as usize].insert(now, value.to_bits());
                newest = newest.max(now);
                None
            };
            prop_assert_eq!(report.refused.keys().next().map(String::as_str), expected);
        }
        let got = collect(&head, &everything());
        let expected: Vec<(Labels, BTreeMap<i64, u64>)> =
            all.into_iter().zip(model).filter(|(_, m)| !m.is_empty()).collect();
        prop_assert_eq!(got.len(), expected.len());
        for (series, (labels, samples_expected)) in got.iter().zip(&expected) {
            prop_assert_eq!(&series.labels, labels);
            prop_assert_eq!(&samples(series), samples_expected);
        }
    }
}

#[test]
fn a_version_changes_with_what_can_be_seen() {
    const HOUR_MS: i64 = 3_600_000;
    let head = Head::new(HeadConfig { out_of_order_window_ms: 10 * HOUR_MS, ..HeadConfig::default() });
    let versions = || [0, 1, 2, 3].map(|hour| head.version(hour * HOUR_MS, (hour + 1) * HOUR_MS - 1));
    let changed = |write: &[(i64, f64)]| {
        let before = versions();
        let series = labels(&[("__name__", "up")]);
        head.append(&batch(&[(&series, write)])).unwrap();
        let after = versions();
        [0, 1, 2, 3].map(|hour| before[hour] != after[hour])
    };
    assert_eq!(versions(), [Version::default(); 4]);
    assert_eq!(changed(&[(HOUR_MS, 1.0), (3 * HOUR_MS, 1.0)]), [false, true, false, true]);
    assert_eq!(versions()[2], Version::default(), "between them is nothing");
    assert_eq!(changed(&[(2 * HOUR_MS - 1, 1.0)]), [false, true, false, false], "late");
    assert_eq!(changed(&[(2 * HOUR_MS - 1, 1.0)]), [false; 4], "a copy");
    assert_eq!(changed(&[(2 * HOUR_MS - 1, 2.0)]), [false; 4], "refused");
    assert_eq!(changed(&[(1, 2.0)]), [true, false, false, false]);
    // Far away other times have the same counters, and there is nothing.
    assert_eq!(head.version(16 * HOUR_MS, 17 * HOUR_MS), Version::default());
    let other = Head::new(HeadConfig::default());
    other.append(&batch(&[(&labels(&[("__name__", "up")]), &[(HOUR_MS, 1.0)])])).unwrap();
    assert_ne!(other.version(HOUR_MS, HOUR_MS), head.version(HOUR_MS, HOUR_MS), "a head built anew");
}
