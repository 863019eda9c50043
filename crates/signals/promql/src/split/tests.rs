//! A query that was cut gives what the whole gives: random queries over random series.

use proptest::prelude::*;
use triptych_model::TenantId;
use triptych_model::metrics::{QueryValue, STALE_NAN_BITS, Sample, SeriesSamples, SeriesSelect};
use triptych_model::{Labels, Result};
use triptych_runtime::QueryContext;

use super::*;
use crate::promqltest::MemorySource;
use crate::source::{SeriesSource, SeriesStream};
use crate::{Engine, parse};

/// Answer and everything said about it.
type Told = Result<(QueryValue, Vec<String>, Vec<String>), String>;

fn told(ctx: &QueryContext, value: Result<QueryValue>) -> Told {
    let report = ctx.report();
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    value.map(|v| (v, sorted(report.warnings), sorted(report.infos))).map_err(|e| e.to_string())
}

async fn whole(source: &MemorySource, query: &MetricsQuery) -> Told {
    let ctx = QueryContext::unlimited(TenantId::single());
    let reads = parse(&query.expr).ok().and_then(|expr| Engine::default().reads(query, &expr));
    told(&ctx, Engine::default().query(&ctx, &Within { source, reads }, query).await)
}

/// Lets nothing be read but what the query was said to read.
struct Within<'a> {
    source: &'a MemorySource,
    reads: Option<(i64, i64)>,
}

#[async_trait::async_trait]
impl SeriesSource for Within<'_> {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<SeriesStream> {
        let (first, last) = self.reads.expect("something is read");
        assert!(first <= select.start_ms && select.end_ms <= last, "{first}..={last}, not {select:?}");
        self.source.select(ctx, select).await
    }
}

/// By time, and each span by series.
async fn cut(source: &MemorySource, query: &MetricsQuery, interval_ms: i64, shards: u32) -> Told {
    let ctx = QueryContext::unlimited(TenantId::single());
    let cut = async {
        let engine = Engine::default();
        let expr = parse(&query.expr)?;
        let spans = spans(&expr, query, interval_ms);
        let several = spans.len() > 1;
        let mut answers = Vec::new();
        for span in spans {
            let Some(sharded) = Sharded::new(&span, &expr, shards) else {
                answers.push(engine.query(&ctx, source, &span).await?);
                continue;
            };
            let mut parts = Vec::new();
            for part in sharded.parts() {
                parts.push(engine.query(&ctx, source, &part).await?);
            }
            answers.push(engine.merge(&ctx, &span, &sharded, parts).await?);
        }
        if several { span::join(answers) } else { Ok(answers.remove(0)) }
    };
    let value = cut.await;
    told(&ctx, value)
}

/// Equal but for the rounding of sums in another order.
fn same(a: f64, b: f64, scale: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * a.abs().max(b.abs()).max(scale)
}

fn check_same(query: &MetricsQuery, want: &Told, got: &Told) {
    let series = |told: &Told| match told {
        Ok((QueryValue::Vector(s) | QueryValue::Matrix(s), ..)) => Some(s.clone()),
        _ => None,
    };
    let notes = |told: &Told| told.as_ref().map(|(_, w, i)| (w.clone(), i.clone())).map_err(Clone::clone);
    assert_eq!(notes(want), notes(got), "{query:?}");
    let (Some(a), Some(b)) = (series(want), series(got)) else {
        assert_eq!(format!("{want:?}"), format!("{got:?}"), "{query:?}");
        return;
    };
    let labels = |s: &[SeriesSamples]| s.iter().map(|s| s.labels.to_string()).collect::<Vec<_>>();
    assert_eq!(labels(&a), labels(&b), "{query:?}");
    for (a, b) in a.iter().zip(&b) {
        let times = |s: &SeriesSamples| s.samples.iter().map(|s| s.t_ms).collect::<Vec<_>>();
        assert_eq!(times(a), times(b), "{query:?} {}", a.labels);
        for (x, y) in a.samples.iter().zip(&b.samples) {
            assert!(same(x.value, y.value, 0.0), "{query:?} {}: {x:?} {y:?}", a.labels);
        }
    }
}

fn labelled(pairs: &[(&str, String)]) -> Labels {
    Labels::from_pairs(pairs.iter().map(|(n, v)| (n, v)))
}

/// Gauges and counters with gaps, staleness, NaN, resets, huge and tiny values.
fn source() -> impl Strategy<Value = MemorySource> {
    let value = prop_oneof![
        8 => (-1000i32..1000).prop_map(f64::from),
        2 => -1e3f64..1e3,
        1 => prop_oneof![Just(1e16), Just(-1e16), Just(1.0), Just(1e-3)],
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(1.7e308), Just(f64::from_bits(STALE_NAN_BITS))],
    ];
    let series = proptest::collection::vec((any::<bool>(), value), 30);
    proptest::collection::vec(series, 1..9).prop_map(|all| {
        let mut source = MemorySource::default();
        for (i, points) in all.into_iter().enumerate() {
            let name = if i % 3 == 2 { "b_total" } else { "a" };
            let (pod, job) = ((i / 2).to_string(), (i % 2).to_string());
            let labels =
                labelled(&[("__name__", name.to_owned()), ("pod", pod), ("job", job), ("i", i.to_string())]);
            let samples = points.into_iter().enumerate().filter(|(_, (there, _))| *there);
            let samples = samples.map(|(n, (_, value))| Sample { t_ms: n as i64 * 20_000 + 7, value });
            source.add(SeriesSamples { labels, samples: samples.collect() });
        }
        source
    })
}

/// Vectors with a value for each series.
const SERIES_WISE: [&str; 16] = [
    "a",
    "{job=\"1\"}",
    "{__name__=~\"a|b_total\"}",
    "rate(b_total[1m])",
    "rate({job=\"0\"}[1m])",
    "increase(a[1m] offset 30s)",
    "avg_over_time(a[2m] @ 300)",
    "a @ start()",
    "last_over_time(b_total[1m] @ end())",
    "max_over_time(rate(a[1m])[2m:30s])",
    "-a + 1",
    "2 * a > 3",
    "a > bool time() - 100",
    "clamp(abs(a), 1, 10)",
    "timestamp(a)",
    "quantile_over_time(1.5, a[1m])",
];

const AGGREGATIONS: [&str; 14] = [
    "sum($)",
    "avg by (job) ($)",
    "count without (i, pod) ($)",
    "min by (pod) ($)",
    "max($)",
    "group by (job) ($)",
    "topk(2, $)",
    "bottomk by (job) (1, $)",
    "limitk(2, $)",
    "count_values(\"v\", $)",
    "stddev by (job) ($)",
    "quantile(0.5, $)",
    "sum by (__name__) ($)",
    "$",
];

const WHOLES: [&str; 14] = [
    "$A",
    "($A)\n / on() group_left $B",
    "$A + scalar($B)",
    "topk(3, $A)",
    "max($A)",
    "$A or $B",
    "sort_desc($A)",
    "label_replace($A, \"x\", \"$1\", \"job\", \"(.*)\")",
    "max_over_time(($A)[1m:20s])",
    "absent($A)",
    "sum($A) * end() - start() + range() + step()",
    "histogram_quantile(0.9, $A)",
    "vector(1) unless $A",
    "sum by (job) (a) / $B # the end",
];

fn expr() -> impl Strategy<Value = String> {
    let part = (proptest::sample::select(&AGGREGATIONS[..]), proptest::sample::select(&SERIES_WISE[..]))
        .prop_map(|(outer, inner)| outer.replace('$', inner));
    (proptest::sample::select(&WHOLES[..]), part.clone(), part)
        .prop_map(|(whole, a, b)| whole.replace("$A", &a).replace("$B", &b))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn cut_is_whole(
        source in source(), expr in expr(), start in 0i64..700, steps in 1i64..40, step in 1i64..60,
        instant in proptest::bool::weighted(0.2), interval in 0i64..200, shards in 1u32..4,
    ) {
        let (start_ms, step_ms) = (start * 1000, if instant { 0 } else { step * 1000 });
        let end_ms = start_ms + steps * step_ms + i64::from(!instant) * 300;
        let lookback_ms = 45_000;
        let query = MetricsQuery { expr, start_ms, end_ms, step_ms, lookback_ms, whole_ms: None, shard: None };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let (want, got) = (whole(&source, &query).await, cut(&source, &query, interval * 1000, shards).await);
            check_same(&query, &want, &got);
        });
    }
}

/// A shard drops the series by which the whole would have met a group first.
#[tokio::test]
async fn ranked_groups_come_in_order_of_their_labels() {
    let mut source = MemorySource::default();
    for (i, job, value) in [("0", "1", f64::NAN), ("1", "0", 1.0), ("2", "1", 2.0)] {
        let labels = labelled(&[("__name__", "a".into()), ("i", i.into()), ("job", job.into())]);
        source.add(SeriesSamples { labels, samples: vec![Sample { t_ms: 0, value }] });
    }
    let query = MetricsQuery { lookback_ms: 1000, ..range("bottomk by (job) (1, a)", 0, 0, 0) };
    let want = whole(&source, &query).await;
    let Ok((QueryValue::Vector(series), ..)) = &want else { panic!("{want:?}") };
    let values: Vec<f64> = series.iter().map(|s| s.samples[0].value).collect();
    assert_eq!(values, [1.0, 2.0]);
    for shards in 1..4 {
        check_same(&query, &want, &cut(&source, &query, 0, shards).await);
    }
}

fn range(expr: &str, start_ms: i64, end_ms: i64, step_ms: i64) -> MetricsQuery {
    MetricsQuery { expr: expr.into(), start_ms, end_ms, step_ms, lookback_ms: 0, whole_ms: None, shard: None }
}

#[test]
fn spans_know_the_whole() {
    let of = |expr: &str, start, end, step, interval| {
        let query = range(expr, start, end, step);
        let spans = spans(&parse(expr).unwrap(), &query, interval);
        spans.iter().map(|s| (s.start_ms, s.end_ms, s.whole_ms)).collect::<Vec<_>>()
    };
    assert_eq!(of("up", 5, 25, 5, 20), [(5, 15, None), (20, 25, None)]);
    assert_eq!(of("up @ end()", 5, 25, 5, 20), [(5, 15, Some((5, 25))), (20, 25, Some((5, 25)))]);
    assert_eq!(of("x offset (range() / 2)", 5, 25, 5, 20)[1].2, Some((5, 25)));
    assert_eq!(of("end() - time()", 5, 25, 5, 20)[1].2, Some((5, 25)));
    assert_eq!(of("up", 7, 34, 0, 10), [(7, 34, None)]);
    // Spans as long as the range that every one of them reads on top.
    assert_eq!(of("rate(x[25ms])", 0, 100, 1, 10).len(), 4);
    assert_eq!(of("max_over_time(rate(x[5ms])[20ms:1ms])", 0, 100, 1, 10).len(), 4);
}

#[test]
fn what_is_read() {
    let reads = |expr: &str| Engine::default().reads(&range(expr, 1000, 2000, 10), &parse(expr).unwrap());
    assert_eq!(reads("up"), Some((1001 - 300_000, 2000)));
    assert_eq!(reads("rate(x[1s]) + x offset -1h"), Some((1, 3_602_000)));
    assert_eq!(reads("x[1s] @ 100"), Some((99_001, 100_000)));
    assert_eq!(reads("max_over_time(rate(x[2s])[10s:1s] offset 1s)"), Some((1000 - 13_000 + 2, 1000)));
    assert_eq!(reads("x offset range()"), Some((1 - 300_000, 1000)));
    assert_eq!(reads("time() + 1"), None);
    assert_eq!(reads("x[1s / (step() - step())]"), None, "an error is");
}

#[test]
fn what_is_sharded() {
    let parts = |expr: &str| {
        let query = range(expr, 0, 100, 10);
        let sharded = Sharded::new(&query, &parse(expr).unwrap(), 2);
        sharded.map(|s| s.parts().iter().step_by(2).map(|p| p.expr.clone()).collect::<Vec<_>>())
    };
    assert_eq!(parts("sum(rate(x[5m]))").unwrap(), ["sum(rate(x[5m]))"]);
    assert_eq!(
        parts("1 -\nsum(x)/count(x)").unwrap(),
        ["   \nsum(x)", "   \n       count(x)"],
        "positions are those of the whole"
    );
    assert_eq!(
        parts("histogram_quantile(.9, sum by (le) (rate(x[5m])))").unwrap()[0].trim(),
        "sum by (le) (rate(x[5m]))"
    );
    assert!(parts("x * 2").is_some() && parts("{job=\"a\"}").is_some());
    for whole in [
        "1",
        "x[5m]",
        "x + y",
        "stddev(x)",
        "sum(x) + y",
        "rate({job=\"a\"}[5m])",
        "sum(abs({job=\"a\"}))",
        "sum(x + on(job) y)",
        "topk(scalar(x), y)",
        "max_over_time(sum(x)[5m:1m])",
        "sum(hour())",
        "absent(x)",
        "sum(label_replace(x, \"a\", \"\", \"b\", \"\"))",
    ] {
        assert_eq!(parts(whole), None, "{whole}");
    }
}
