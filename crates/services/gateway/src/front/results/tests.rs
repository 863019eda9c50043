use triptych_model::metrics::STALE_NAN_BITS;

use super::*;

const STEPS: Steps = Steps { first_ms: 1000, last_ms: 1900, step_ms: 100 };

fn series(name: &str, samples: &[(i64, f64)]) -> SeriesSamples {
    let samples = samples.iter().map(|(t_ms, value)| Sample { t_ms: *t_ms, value: *value }).collect();
    SeriesSamples { labels: Labels::from_pairs([("name", name)]), samples }
}

fn bits(series: &[SeriesSamples]) -> Vec<(String, Vec<(i64, u64)>)> {
    let samples = |s: &SeriesSamples| s.samples.iter().map(|s| (s.t_ms, s.value.to_bits())).collect();
    series.iter().map(|s| (s.labels.to_string(), samples(s))).collect()
}

#[test]
fn what_is_packed_comes_back_to_the_bit() {
    let whole: Vec<_> = (0..10).map(|i| (1000 + i * 100, [0.1, -0.0, f64::NAN][i as usize % 3])).collect();
    let odd = [(1100, f64::from_bits(STALE_NAN_BITS)), (1500, f64::INFINITY), (1900, 1e-300)];
    let outside = [(900, 1.0), (1000, 2.0), (2000, 3.0)];
    let all =
        [series("whole", &whole), series("odd", &odd), series("in", &outside), series("out", &[(900, 1.0)])];
    let packed = Packed::new(&all, STEPS).unwrap();
    let want = [series("whole", &whole), series("odd", &odd), series("in", &outside[1..2])];
    assert_eq!(bits(&packed.series(STEPS).unwrap()), bits(&want));
    // Of some of the steps: series that are worth nothing there are not shown.
    let some = Steps { first_ms: 1200, last_ms: 1500, step_ms: 100 };
    let want = [series("whole", &whole[2..6]), series("odd", &odd[1..2])];
    assert_eq!(bits(&packed.series(some).unwrap()), bits(&want));
    assert!(Packed::new(&[], STEPS).unwrap().series(STEPS).unwrap().is_empty());
    assert!(Packed::new(&[series("between", &[(1150, 1.0)])], STEPS).is_none());
}

fn key(tenant: &str, extent: i64) -> Key {
    let question = Question {
        tenant: TenantId::new(tenant).unwrap(),
        signal: Signal::Metrics,
        text: "up".into(),
        lookback_ms: 0,
        whole_ms: None,
        step: 100,
        phase: 0,
        extent: 1000,
    };
    (Arc::new(question), extent)
}

#[test]
fn an_answer_counts_with_its_version_and_for_its_steps() {
    let results = Results::new(MemoryBudget::new("results", 1 << 20));
    let [one, two] = [&b"1"[..], b"2"].map(Version::of_part);
    let answer = Packed::new(&[series("a", &[(1000, 1.0)])], STEPS).unwrap();
    results.put(key("a", 1), one, answer);
    let has = |key, version, steps| results.get(&key, version, steps).is_some();
    assert!(has(key("a", 1), one, STEPS) && has(key("a", 1), one, Steps { first_ms: 1300, ..STEPS }));
    assert!(!has(key("a", 1), two, STEPS), "the data are others");
    assert!(!has(key("a", 1), one, Steps { last_ms: 2000, ..STEPS }), "a step more");
    assert!(!has(key("a", 2), one, STEPS) && !has(key("b", 1), one, STEPS), "asked by nobody, by another");
    results.put(key("a", 1), two, Packed::new(&[], STEPS).unwrap());
    assert!(has(key("a", 1), two, STEPS) && !has(key("a", 1), one, STEPS));
}

#[test]
fn what_was_not_asked_for_the_longest_time_goes_first() {
    let answer = || Packed::new(&[series("a", &[(1000, 1.0)])], STEPS).unwrap();
    let entry_bytes = ENTRY_BYTES + "up".len() + answer().data.len();
    let memory = MemoryBudget::new("results", 10 * entry_bytes);
    let results = Results::new(memory.clone());
    let version = Version::default();
    let there = |at| results.get(&key("a", at), version, STEPS).is_some();
    for at in 0..10 {
        results.put(key("a", at), version, answer());
    }
    assert_eq!(memory.used(), 10 * entry_bytes);
    assert!(there(0));
    results.put(key("a", 10), version, answer());
    assert!(there(0) && !there(1) && there(2) && there(10));
    assert_eq!(memory.used(), 10 * entry_bytes);
    // The same again takes its own place.
    results.put(key("a", 10), version, answer());
    assert_eq!((0..11).filter(|at| there(*at)).count(), 10);
    // Random bits, which do not get smaller.
    let mut state = 1;
    let noise: Vec<_> = (0..2000)
        .map(|i| (i * 100, f64::from_bits(triptych_runtime::random::split_mix(&mut state))))
        .collect();
    let steps = Steps { first_ms: 0, last_ms: 199_900, step_ms: 100 };
    results.put(key("a", 11), version, Packed::new(&[series("a", &noise)], steps).unwrap());
    assert_eq!((0..11).filter(|at| there(*at)).count(), 10, "one that is too large makes nobody go");
    drop(results);
    assert_eq!(memory.used(), 0);
}
