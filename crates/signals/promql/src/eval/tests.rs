//! What Prometheus' own test files do not say: limits, cancellation, the default (not delayed) dropping of names, what is
//! asked of the source, and cases they only have together with native histograms.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use triptych_model::metrics::{SeriesSelect, is_stale};
use triptych_model::{Kind, TenantId};
use triptych_runtime::QueryLimits;

use super::*;
use crate::promqltest::{EngineTarget, MemorySource, run};
use crate::source::SeriesStream;

/// Runs a script with the default configuration.
async fn check(script: &str) {
    let report = run(script, &mut EngineTarget::default()).await.unwrap();
    assert!(report.failed.is_empty() && report.skipped == 0, "{report}");
}

fn range(expr: &str, start_ms: i64, end_ms: i64, step_ms: i64) -> MetricsQuery {
    MetricsQuery { expr: expr.into(), start_ms, end_ms, step_ms, lookback_ms: 0, whole_ms: None, shard: None }
}

fn instant(expr: &str, t_ms: i64) -> MetricsQuery {
    range(expr, t_ms, t_ms, 0)
}

/// `m{i="0"}` .. with a sample every 10 s for an hour.
fn source(series: usize) -> MemorySource {
    let mut source = MemorySource::default();
    for i in 0..series {
        source.add(SeriesSamples {
            labels: Labels::from_pairs([("__name__", "m_total".to_owned()), ("i", i.to_string())]),
            samples: (0..360)
                .map(|n| Sample { t_ms: n * 10_000, value: (n * (i as i64 + 1)) as f64 })
                .collect(),
        });
    }
    source
}

async fn fails(source: &MemorySource, ctx: &QueryContext, query: &MetricsQuery) -> Error {
    match Engine::default().query(ctx, source, query).await {
        Err(e) => e,
        Ok(value) => panic!("{} gave {value:?}", query.expr),
    }
}

#[tokio::test]
async fn names_are_dropped_at_once() {
    check(
        r#"
load 1m
  a_total{env="1"} 0+1x10
  b_total{env="1"} 0+2x10
  b_total{env="2"} 0+2x10

eval instant at 10m rate({env="1"}[5m])
  expect fail msg: vector cannot contain metrics with the same labelset

eval instant at 10m sum by (__name__, env) (rate(a_total[5m]))
  {env="1"} 0.016666666

eval instant at 10m label_replace(rate(a_total[5m]), "was", "$1", "__name__", "(.*)")
  {env="1"} 0.016666666

eval instant at 10m {env="1"} > 15
  b_total{env="1"} 20

eval instant at 10m {env="1"} > bool 15
  expect fail

eval instant at 10m last_over_time({env="1"}[5m])
  a_total{env="1"} 10
  b_total{env="1"} 20

eval instant at 10m -a_total
  {env="1"} -10

eval instant at 10m label_replace(b_total, "env", "x", "env", ".*")
  expect fail msg: vector cannot contain metrics with the same labelset
"#,
    )
    .await;
}

/// Prometheus' file has these with native histograms among the series.
#[tokio::test]
async fn limits_of_floats() {
    check(
        r#"
load 5m
  requests{job="api", instance="0", group="production"} 0+10x10
  requests{job="api", instance="1", group="production"} 0+20x10
  requests{job="api", instance="0", group="canary"} 0+30x10
  requests{job="api", instance="1", group="canary"} 0+40x10
  requests{job="api", instance="2", group="canary"} 0+50x10
  requests{job="api", instance="3", group="canary"} 0+60x10
  foo 1+1x10
  bar 0 1 0 -1 0 1 0 -1 0 1 0

eval instant at 50m count(limitk by (group) (0, requests))

eval instant at 50m count(limitk by (group) (2, requests) and requests)
  {} 4

eval range from 0 to 50m step 5m count(limitk(scalar(foo), requests))
  {} 1 2 3 4 5 6 6 6 6 6 6

eval range from 0 to 50m step 5m count(limit_ratio(scalar(bar), requests))
  {} _ 6 _ 6 _ 6 _ 6 _ 6 _

eval range from 0 to 50m step 5m count(limit_ratio(0.2, requests) or limit_ratio(-0.8, requests))
  {} 6+0x10

eval range from 0 to 50m step 5m count(limit_ratio(0.8, requests) and limit_ratio(-0.2, requests))

eval instant at 50m limit_ratio(1.1, requests{instance="3"})
  expect warn msg: PromQL warning: ratio value should be between -1 and 1, got 1.1, capping to 1 (1:13)
  requests{job="api", instance="3", group="canary"} 600

eval instant at 50m topk(2, requests)
  expect ordered
  requests{job="api", instance="3", group="canary"} 600
  requests{job="api", instance="2", group="canary"} 500

eval range from 0 to 10m step 5m topk(1, requests * -1 or foo * 1000)
  {} 1000 2000 3000

eval instant at 50m bottomk by (group) (1, requests)
  requests{job="api", instance="0", group="production"} 100
  requests{job="api", instance="0", group="canary"} 300
"#,
    )
    .await;
}

#[tokio::test]
async fn joins() {
    check(
        r#"
load 1m
  cpu{host="a", mode="idle"} 1 2 3
  cpu{host="a", mode="user"} 10 20 30
  cpu{host="b", mode="idle"} 100 _ 300
  info{host="a", os="linux"} 1 1 1
  info{host="b", os="bsd"} 1 1 1
  late{host="a", os="bsd"} _ _ 7
  late{host="a", os="linux"} 5 5 stale

eval range from 0 to 2m step 1m info * on (host) group_right (os) cpu
  {host="a", mode="idle", os="linux"} 1 2 3
  {host="a", mode="user", os="linux"} 10 20 30
  {host="b", mode="idle", os="bsd"} 100 100 300

# Two series of one group that never meet.
eval range from 0 to 2m step 1m cpu{mode="idle"} + on (host) group_left (os) late
  {host="a", mode="idle", os="linux"} 6 7 _
  {host="a", mode="idle", os="bsd"} _ _ 10

eval instant at 0m cpu / on (host) info
  expect fail msg: multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)

eval instant at 0m info / on (host) cpu
  expect fail msg: found duplicate series for the match group {host="a"} on the right hand-side of the operation: [{__name__="cpu", host="a", mode="idle"}, {__name__="cpu", host="a", mode="user"}];many-to-many matching not allowed: matching labels must be unique on one side

eval instant at 0m info / on (host) group_right cpu{host="c"}

eval instant at 0m cpu / on (host) group_left () info > 5
  {host="a", mode="user"} 10
  {host="b", mode="idle"} 100
"#,
    )
    .await;
}

#[tokio::test]
async fn points_and_times_are_bounded() {
    let (source, ctx) = (source(1), QueryContext::unlimited(TenantId::single()));
    let e = fails(&source, &ctx, &range("m_total", 0, 11_001_000, 1000)).await;
    assert_eq!(
        e.to_string(),
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"
    );
    assert_eq!(e.kind, Kind::Invalid);
    Engine::default().query(&ctx, &source, &range("m_total", 0, 11_000_000, 1000)).await.unwrap();
    for (start, end, step) in [(1, 0, 1), (0, 1, -1), (i64::MIN, i64::MAX, 1), (i64::MAX, i64::MAX, 0)] {
        assert_eq!(fails(&source, &ctx, &range("m_total", start, end, step)).await.kind, Kind::Invalid);
    }
    let e = fails(&source, &ctx, &range("m_total[5m]", 0, 1, 1)).await;
    assert!(e.to_string().contains("for range query, must be Scalar or instant Vector"), "{e}");
    // As far away as they can be written.
    for expr in [
        "m_total offset 292y",
        "m_total[292y] offset -292y",
        "rate(m_total[292y] @ 1e15)",
        "m_total @ -1e15 offset 292y",
    ] {
        Engine::default().query(&ctx, &source, &instant(expr, 1 << 61)).await.unwrap();
    }
}

#[tokio::test]
async fn memory_is_bounded() {
    let source = source(200);
    let limits = QueryLimits { memory_bytes_max: 256 << 10, ..QueryLimits::default() };
    let ctx = || QueryContext::new(TenantId::single(), limits);
    // 200 series of 300 steps are 480 kB: too many to hold, few enough to fold.
    let q = |expr: &str| range(expr, 300_000, 3_290_000, 10_000);
    for expr in ["m_total", "topk(3, m_total)", "m_total + m_total", "quantile(0.5, m_total)"] {
        assert_eq!(fails(&source, &ctx(), &q(expr)).await.kind, Kind::Exhausted, "{expr}");
    }
    for expr in
        ["sum(rate(m_total[5m]))", "max(m_total) - min(m_total)", "count(sum_over_time(m_total[10m:1m]))"]
    {
        let ctx = ctx();
        Engine::default().query(&ctx, &source, &q(expr)).await.unwrap_or_else(|e| panic!("{expr}: {e}"));
        drop(ctx.reserve(limits.memory_bytes_max).expect("everything was given back"));
    }
    // A subquery of ten thousand million steps.
    for expr in [
        "sum_over_time(m_total[10y:1ms])",
        "max_over_time(time()[200y:1ms])",
        "sum_over_time(vector(1)[100y:1ms])",
    ] {
        assert!(matches!(parse_kind(&source, &ctx(), expr).await, Kind::Exhausted | Kind::Invalid), "{expr}");
    }
}

async fn parse_kind(source: &MemorySource, ctx: &QueryContext, expr: &str) -> Kind {
    fails(source, ctx, &instant(expr, 0)).await.kind
}

#[tokio::test]
async fn queries_stop() {
    let source = source(10);
    let rows = QueryContext::new(TenantId::single(), QueryLimits { rows_max: 100, ..QueryLimits::default() });
    assert_eq!(fails(&source, &rows, &instant("sum(m_total)", 3_000_000)).await.kind, Kind::Exhausted);
    let cancelled = QueryContext::unlimited(TenantId::single());
    cancelled.cancel();
    assert_eq!(fails(&source, &cancelled, &instant("m_total", 3_000_000)).await.kind, Kind::Cancelled);
}

/// Notes what is asked of it.
struct Asked(Mutex<Vec<(i64, i64)>>, AtomicBool);

#[async_trait]
impl SeriesSource for Asked {
    async fn select(&self, _: &QueryContext, select: &SeriesSelect) -> Result<SeriesStream> {
        self.0.lock().push((select.start_ms, select.end_ms));
        if self.1.load(Ordering::Relaxed) {
            return Ok(futures::stream::iter([Err(Error::unavailable("gone"))]).boxed());
        }
        Ok(futures::stream::empty().boxed())
    }
}

#[tokio::test]
async fn the_source_is_asked_for_what_counts() {
    let asked = Asked(Mutex::default(), AtomicBool::new(false));
    let ctx = QueryContext::unlimited(TenantId::single());
    for (expr, expected) in [
        ("a", (700_001, 2_000_000)),
        ("a offset 1m", (640_001, 1_940_000)),
        ("rate(a[1m])", (940_001, 2_000_000)),
        ("rate(a[1m] @ 500)", (440_001, 500_000)),
        ("a @ end()", (1_700_001, 2_000_000)),
        ("timestamp(a)", (700_001, 2_000_000)),
        // The first inner step after 400 s is at 450 s.
        ("max_over_time(rate(a[1m])[10m:50s])", (390_001, 2_000_000)),
    ] {
        asked.0.lock().clear();
        Engine::default().query(&ctx, &asked, &range(expr, 1_000_000, 2_000_000, 10_000)).await.unwrap();
        assert_eq!(asked.0.lock()[..], [expected], "{expr}");
    }
    asked.1.store(true, Ordering::Relaxed);
    let failed = Engine::default().query(&ctx, &asked, &instant("sum(rate(a[5m]))", 0)).await;
    assert_eq!(failed.unwrap_err().kind, Kind::Unavailable);
}

#[tokio::test]
async fn no_answer_carries_a_marker() {
    let mut source = MemorySource::default();
    let stale = f64::from_bits(triptych_model::metrics::STALE_NAN_BITS);
    source.add(SeriesSamples {
        labels: Labels::from_pairs([("__name__", "m")]),
        samples: [1.0, stale, f64::NAN, stale]
            .iter()
            .zip(0..)
            .map(|(v, i)| Sample { t_ms: i * 60_000, value: *v })
            .collect(),
    });
    let ctx = QueryContext::unlimited(TenantId::single());
    for expr in [
        "m",
        "m[10m]",
        "-m",
        "abs(m) or m",
        "last_over_time(m[10m])",
        "topk(1, m)",
        "m == bool NaN",
        "min(m)",
        "vector(NaN)",
    ] {
        for query in [instant(expr, 180_000), range(expr, 0, 240_000, 30_000)] {
            let Ok(QueryValue::Vector(series) | QueryValue::Matrix(series)) =
                Engine::default().query(&ctx, &source, &query).await
            else {
                continue;
            };
            assert!(series.iter().flat_map(|s| &s.samples).all(|s| !is_stale(s.value)), "{expr}");
        }
    }
}

#[tokio::test]
async fn deep_trees_are_evaluated() {
    let (source, ctx) = (source(1), QueryContext::unlimited(TenantId::single()));
    let nesting = crate::parser::NESTING_MAX - 10;
    for expr in [
        "m_total + ".repeat(crate::parser::DEPTH_MAX - 2) + "m_total",
        "1 + ".repeat(crate::parser::DEPTH_MAX - 2) + "m_total",
        "abs(".repeat(nesting) + "m_total" + &")".repeat(nesting),
        "max_over_time(".repeat(30) + "m_total" + &"[1m:1m])".repeat(30),
    ] {
        Engine::default().query(&ctx, &source, &range(&expr, 0, 600_000, 60_000)).await.unwrap();
    }
}

/// Hands samples out in runs of the given lengths, then one by one.
struct Chopped(std::vec::IntoIter<Sample>, std::vec::IntoIter<usize>);

impl crate::source::SampleIter for Chopped {
    fn next_run(&mut self, out: &mut Vec<Sample>) -> Result<bool> {
        let before = out.len();
        let length = self.1.next().unwrap_or(1).max(1);
        out.extend(self.0.by_ref().take(length));
        Ok(out.len() > before)
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// A slid window is what a filter over all samples gives, whatever the runs are, also after samples were thrown away.
    #[test]
    fn windows_slide_as_filters_filter(
        gaps in proptest::collection::vec((1i64..40, 0u8..6), 0..4000),
        runs in proptest::collection::vec(0usize..300, 0..40),
        range_ms in 1i64..2000,
        step_ms in 1i64..3000,
        start_ms in -500i64..500,
    ) {
        let stale = f64::from_bits(triptych_model::metrics::STALE_NAN_BITS);
        let mut t_ms = 0;
        let samples: Vec<Sample> = gaps.iter().map(|(gap, v)| {
            t_ms += gap;
            Sample { t_ms, value: if *v == 5 { stale } else { f64::from(*v) } }
        }).collect();
        let ctx = QueryContext::unlimited(TenantId::single());
        let chopped = Chopped(samples.clone().into_iter(), runs.into_iter());
        let mut slider = over_time::Slider::new(&ctx, Box::new(chopped), Vec::new()).unwrap();
        let mut end_ms = start_ms;
        while end_ms < t_ms + 2 * range_ms {
            let naive: Vec<Sample> = samples
                .iter()
                .copied()
                .filter(|s| s.t_ms > end_ms - range_ms && s.t_ms <= end_ms && !is_stale(s.value))
                .collect();
            let window = slider.window(end_ms - range_ms, end_ms, end_ms).unwrap();
            proptest::prop_assert_eq!(window.samples, &naive[..]);
            let resets = naive.windows(2).filter(|p| p[1].value < p[0].value).count();
            let counted = over_time::RangeFn::Resets.apply(&window, [0.0; 2], &mut Vec::new());
            proptest::prop_assert_eq!(counted, (!naive.is_empty()).then_some(resets as f64));
            end_ms += step_ms;
        }
    }
}
