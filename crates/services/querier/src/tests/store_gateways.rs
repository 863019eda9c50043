//! Several store-gateways that know the same blocks, and what is left when some of them fail.

use std::collections::BTreeMap;

use triptych_config::Limits;

use super::Fault::{AtOnce, HalfWay};
use super::*;

/// An ingester that has nothing; what there is, is in the bucket.
fn over(faults: &[Fault]) -> (Querier, Vec<Arc<AtomicUsize>>) {
    over_limited(faults, Limits::default().store_gateways_max)
}

fn over_limited(faults: &[Fault], store_gateways_max: usize) -> (Querier, Vec<Arc<AtomicUsize>>) {
    let gateway = |fault: &Fault| Fake { fault: *fault, asked: Arc::default(), divides: true, ..bucket() };
    let gateways: Vec<Fake> = faults.iter().map(gateway).collect();
    let asked = gateways.iter().map(|fake| fake.asked.clone()).collect();
    let limits = Limits { store_gateways_max, ..Limits::default() };
    let limits = TenantLimits::new(&limits, &BTreeMap::new()).unwrap();
    (querier_of(sources(1, vec![Fake::default()], gateways, true), limits), asked)
}

fn bucket() -> Fake {
    const LINES: &[&str] = &["a", "bb", "ccc", "dddd", "eeeee", "ffffff", "ggggggg", "hhhhhhhh"];
    let series = (0..20).map(|i: i64| {
        (
            Labels::from_pairs([("__name__", "up".to_owned()), ("instance", format!("{i:02}"))]),
            vec![(50_000, 1.0)],
        )
    });
    Fake {
        series: series.collect(),
        lines: (1..).zip(LINES.iter().copied()).collect(),
        traces: (0..20).map(|trace| (trace, vec![1, 2])).collect(),
        ..Fake::default()
    }
}

fn counts(asked: &[Arc<AtomicUsize>]) -> Vec<usize> {
    asked.iter().map(|count| count.swap(0, Ordering::SeqCst)).collect()
}

/// Everything is there, and nothing twice. Returns what was said to be missing.
async fn whole(querier: &Querier) -> Vec<String> {
    let ctx = context();
    // Figures: what two of them answered for would count twice.
    let stats = querier.logs().stats(&ctx, &StreamsSelect::default()).await.unwrap();
    assert_eq!(stats.entries, 8);
    assert_eq!(metrics_value(querier, &ctx, "count(up)").await.unwrap(), 20.0);
    assert_eq!(lines_found(querier, &ctx, 10).await.unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(spans_counted(querier, &ctx).await.unwrap(), 40.0);
    ctx.report().missed
}

#[tokio::test]
async fn they_divide_what_they_know() {
    for count in 1..5 {
        let (querier, asked) = over(&vec![Fault::None; count]);
        assert_eq!(whole(&querier).await, Vec::<String>::new());
        assert_eq!(counts(&asked), vec![4; count], "each is asked each question once");
    }
}

#[tokio::test]
async fn the_others_stand_in_for_those_that_fail() {
    for broken in [AtOnce(Kind::Unavailable), HalfWay(Kind::Unavailable)] {
        for failing in [vec![0], vec![1], vec![2], vec![0, 2], vec![1, 2]] {
            let mut faults = vec![Fault::None; 3];
            failing.iter().for_each(|at| faults[*at] = broken);
            let (querier, _) = over(&faults);
            assert_eq!(whole(&querier).await, Vec::<String>::new(), "{broken:?} {failing:?}");
        }
    }
    let (querier, _) = over(&[AtOnce(Kind::Unavailable); 2]);
    let ctx = context();
    metrics_value(&querier, &ctx, "count(up) or vector(0)").await.unwrap();
    assert_eq!(ctx.report().missed.len(), 2, "{:?}", ctx.report());
}

/// Ingesters and the parts that were answered for are not asked again.
#[tokio::test]
async fn only_the_part_of_the_failed_one_is_asked_again() {
    let (querier, asked) = over(&[Fault::None, AtOnce(Kind::Unavailable), Fault::None]);
    let stats = querier.logs().stats(&context(), &StreamsSelect::default()).await.unwrap();
    assert_eq!((stats.entries, counts(&asked)), (8, vec![2, 1, 2]));
    // It is left alone for a while.
    let stats = querier.logs().stats(&context(), &StreamsSelect::default()).await.unwrap();
    assert_eq!((stats.entries, counts(&asked)), (8, vec![1, 0, 1]));
}

/// Another one would find the same.
#[tokio::test]
async fn damage_is_said_and_not_looked_for_elsewhere() {
    let (querier, asked) = over(&[Fault::None, AtOnce(Kind::Damaged), Fault::None]);
    for _ in 0..2 {
        let ctx = context();
        let stats = querier.logs().stats(&ctx, &StreamsSelect::default()).await.unwrap();
        assert!(stats.entries < 8);
        assert_eq!(
            (ctx.report().missed, counts(&asked)),
            (vec!["store-gateway-1: broken".to_owned()], vec![1; 3])
        );
    }
}

#[tokio::test]
async fn a_tenant_has_as_many_as_its_limit_says() {
    let (querier, asked) = over_limited(&[Fault::None; 5], 2);
    assert_eq!(whole(&querier).await, Vec::<String>::new());
    let mut counts = counts(&asked);
    let own: Vec<usize> = (0..5).filter(|at| counts[*at] > 0).collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 0, 4, 4]);

    // Both fail: two others of the ring answer.
    let mut faults = [Fault::None; 5];
    own.iter().for_each(|at| faults[*at] = AtOnce(Kind::Unavailable));
    let (querier, _) = over_limited(&faults, 2);
    assert_eq!(whole(&querier).await, Vec::<String>::new());
}

/// `count()` of a trace that lies in several blocks.
#[tokio::test]
async fn traces_as_wholes_are_asked_of_one() {
    let (querier, asked) = over(&[Fault::None; 3]);
    let search = |query: &str| {
        let search =
            TraceSearch { query: query.into(), start_ns: 0, end_ns: 0, limit: 100, spans_per_set: 3 };
        let traces = querier.traces();
        async move {
            let found = traces.search(&context(), &search).await.unwrap();
            found.try_collect::<Vec<TraceMatch>>().await.unwrap().len()
        }
    };
    assert_eq!((search("{ name = `s` }").await, counts(&asked)), (20, vec![1; 3]));
    let found = search("{ name = `s` } | count() > 1").await;
    let mut counts = counts(&asked);
    counts.sort_unstable();
    assert_eq!((found, counts), (20, vec![0, 0, 1]));

    let (querier, asked) = over(&[AtOnce(Kind::Unavailable), AtOnce(Kind::Unavailable), Fault::None]);
    let select = SpanSampleSelect { query: "{} | count() > 1 | rate()".into(), start_ns: 0, end_ns: 1 };
    let ctx = context();
    let found: Vec<TraceSamples> =
        querier.traces().samples(&ctx, &select).await.unwrap().try_collect().await.unwrap();
    assert_eq!((found.len(), ctx.report().missed), (20, Vec::<String>::new()));
    assert_eq!(self::counts(&asked)[2], 1);
}

/// In a cluster, a querier that knows no store-gateway (yet) does not know what is in the bucket.
#[tokio::test]
async fn without_any_the_bucket_is_missing() {
    for has_bucket in [true, false] {
        let querier = querier_of(sources(1, vec![replica(0)], vec![], has_bucket), TenantLimits::default());
        let ctx = context();
        assert_eq!(metrics_value(&querier, &ctx, "count(up)").await.unwrap(), 1.0);
        let missed = ctx.report().missed;
        assert_eq!(missed.len(), usize::from(has_bucket), "{missed:?}");
        assert!(missed.iter().all(|sentence| sentence.contains("bucket")), "{missed:?}");
    }
}
