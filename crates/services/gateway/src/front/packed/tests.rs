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
