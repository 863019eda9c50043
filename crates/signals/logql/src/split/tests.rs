//! A query that was cut gives what the whole gives: random queries over random streams.

use futures::stream::BoxStream;
use proptest::prelude::*;
use triptych_model::logs::{EntrySelect, LogEntry, LogSamples, LogsValue, SampleSelect};
use triptych_model::metrics::{QueryValue, SeriesSamples};
use triptych_model::{Labels, Result, TenantId};
use triptych_runtime::QueryContext;

use super::*;
use crate::source::{MemorySource, StreamSource};
use crate::{Engine, parse};

async fn ask(source: &MemorySource, query: &LogsQuery) -> Result<LogsValue> {
    let reads = match parse(&query.expr)? {
        Expr::Metric(expr) if query.step_ns > 0 => reads(&expr, query),
        _ => Some((i64::MIN, i64::MAX)),
    };
    let ctx = QueryContext::unlimited(TenantId::single());
    Engine::default().query(&ctx, &Within { source, reads }, query).await
}

/// Lets nothing be read but what the query was said to read.
struct Within<'a> {
    source: &'a MemorySource,
    reads: Option<(i64, i64)>,
}

#[async_trait::async_trait]
impl StreamSource for Within<'_> {
    async fn entries(
        &self,
        ctx: &QueryContext,
        select: &EntrySelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogEntry>>>> {
        self.source.entries(ctx, select).await
    }

    async fn samples(
        &self,
        ctx: &QueryContext,
        select: &SampleSelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogSamples>>>> {
        let (first, last) = self.reads.expect("something is read");
        assert!(first <= select.start_ns && select.end_ns - 1 <= last, "{first}..={last}, not {select:?}");
        self.source.samples(ctx, select).await
    }
}

async fn ask_metric(source: &MemorySource, query: &LogsQuery) -> Result<QueryValue> {
    match ask(source, query).await? {
        LogsValue::Metric(value) => Ok(value),
        LogsValue::Entries(_) => panic!("{query:?}"),
    }
}

/// By time, and each span by stream.
async fn cut(source: &MemorySource, query: &LogsQuery, interval_ns: i64, shards: u32) -> Result<QueryValue> {
    let (ctx, engine) = (QueryContext::unlimited(TenantId::single()), Engine::default());
    let Expr::Metric(expr) = parse(&query.expr)? else { panic!("{query:?}") };
    let mut answers = Vec::new();
    for span in spans(&expr, query, interval_ns) {
        let Some(sharded) = Sharded::new(&span, &expr, shards) else {
            answers.push(ask_metric(source, &span).await?);
            continue;
        };
        let mut parts = Vec::new();
        for part in sharded.parts() {
            parts.push(ask_metric(source, &part).await?);
        }
        answers.push(engine.merge(&ctx, &span, &sharded, parts).await?);
    }
    if answers.len() > 1 { engine.join(answers) } else { Ok(answers.remove(0)) }
}

/// One at a time until the limit is full.
async fn windowed(source: &MemorySource, query: &LogsQuery, interval_ns: i64) -> Vec<LogEntry> {
    let mut found: Vec<LogEntry> = Vec::new();
    for window in windows(query, interval_ns) {
        let limit = query.limit - found.len();
        match ask(source, &LogsQuery { limit, ..window }).await.unwrap() {
            LogsValue::Entries(mut more) => found.append(&mut more),
            LogsValue::Metric(_) => panic!("{query:?}"),
        }
        if found.len() >= query.limit {
            break;
        }
    }
    found
}

fn series(value: &Result<QueryValue>) -> Option<&[SeriesSamples]> {
    match value {
        Ok(QueryValue::Vector(series) | QueryValue::Matrix(series)) => Some(series),
        _ => None,
    }
}

fn check_same(query: &LogsQuery, want: &Result<QueryValue>, got: &Result<QueryValue>) {
    let (Some(a), Some(b)) = (series(want), series(got)) else {
        let kind = |r: &Result<QueryValue>| match r {
            Err(e) => format!("{:?}", e.kind),
            Ok(v) => format!("{v:?}"),
        };
        assert_eq!(kind(want), kind(got), "{query:?} {want:?} {got:?}");
        return;
    };
    let labels = |s: &[SeriesSamples]| s.iter().map(|s| s.labels.to_string()).collect::<Vec<_>>();
    assert_eq!(labels(a), labels(b), "{query:?}");
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.samples.len(), b.samples.len(), "{query:?} {}", a.labels);
        for (x, y) in a.samples.iter().zip(&b.samples) {
            let close = (x.value - y.value).abs() <= 1e-12 * x.value.abs().max(y.value.abs());
            assert!(
                x.t_ms == y.t_ms && (close || x.value.to_bits() == y.value.to_bits()),
                "{query:?} {x:?} {y:?}"
            );
        }
    }
}

/// Streams whose lines, parsed, can look like those of other streams.
fn source() -> impl Strategy<Value = MemorySource> {
    let line = (0i64..600, 0usize..4, 0u32..50, 0u32..3);
    let stream = proptest::collection::vec(line, 0..25);
    proptest::collection::vec(stream, 1..7).prop_map(|streams| {
        let mut source = MemorySource::default();
        for (i, lines) in streams.into_iter().enumerate() {
            let labels = Labels::from_pairs([
                ("app", ["x", "y"][i % 2]),
                ("pod", ["1", "2", "3"][i % 3]),
                ("all", "1"),
            ]);
            let labels = if i == 5 { labels.filter(|name| name != "pod") } else { labels };
            for (at, level, n, pod) in lines {
                let level = ["info", "warn", "error", ""][level];
                let line = format!("level={level} n={n}.5 pod={pod}");
                source.push(&labels, at * 1_000_000_000 + n as i64, &line, &Labels::empty());
            }
        }
        source
    })
}

const RANGES: [&str; 13] = [
    "count_over_time({all=\"1\"}[1m])",
    "rate({app=\"x\"} |= \"warn\" [30s] offset 20s)",
    "bytes_rate({all=\"1\"} | logfmt [1m])",
    "bytes_over_time({all=\"1\"} | logfmt | keep level [40s])",
    "sum_over_time({all=\"1\"} | logfmt | unwrap n [1m])",
    "rate({all=\"1\"} | logfmt | drop app | unwrap n [1m])",
    "min_over_time({all=\"1\"} | logfmt | unwrap n [1m]) by (level)",
    "max_over_time({all=\"1\"} | logfmt | unwrap n [2m]) without (pod, level)",
    "avg_over_time({all=\"1\"} | logfmt | unwrap n [1m]) by (app)",
    "quantile_over_time(0.5, {all=\"1\"} | logfmt | unwrap n [1m]) by (app)",
    "first_over_time({app=\"y\"} | logfmt | unwrap n [1m]) by (app, pod, level)",
    "absent_over_time({app=\"x\"} |= \"error\" [30s])",
    "sum_over_time({all=\"1\"} | logfmt | unwrap level [1m])",
];

const OUTERS: [&str; 10] = [
    "$",
    "sum($)",
    "sum by (app) ($)",
    "sum without (pod) ($)",
    "avg by (level) ($)",
    "count($)",
    "topk(2, sum by (pod) ($))",
    "max by (app) ($)",
    "sort_desc(sum by (level) ($))",
    "stddev($)",
];

const WHOLES: [&str; 6] = [
    "$A",
    "$A / 2",
    "sum($A) / sum($B)",
    "$A > 1 or $B",
    "label_replace($A, \"x\", \"$1\", \"app\", \"(.*)\")",
    "vector(3)",
];

fn expr() -> impl Strategy<Value = String> {
    let part = (proptest::sample::select(&OUTERS[..]), proptest::sample::select(&RANGES[..]))
        .prop_map(|(outer, inner)| outer.replace('$', inner));
    (proptest::sample::select(&WHOLES[..]), part.clone(), part)
        .prop_map(|(whole, a, b)| whole.replace("$A", &a).replace("$B", &b))
}

const SECOND: i64 = 1_000_000_000;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn cut_is_whole(
        source in source(), expr in expr(), start in 0i64..500, steps in 1i64..30, step in 1i64..40,
        instant in proptest::bool::weighted(0.2), interval in 0i64..200, shards in 1u32..4,
    ) {
        let start_ns = start * SECOND;
        let step_ns = if instant { 0 } else { step * SECOND };
        let query = LogsQuery {
            expr, start_ns, end_ns: start_ns + steps * step_ns + 7, step_ns, direction: Direction::Backward, limit: 0,
            shard: None,
            interval_ns: 0,
        };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let (want, got) = (ask_metric(&source, &query).await, cut(&source, &query, interval * SECOND, shards).await);
            check_same(&query, &want, &got);
        });
    }

    #[test]
    fn windows_give_what_the_range_gives(
        source in source(), start in 0i64..500, length in 0i64..600, limit in 1usize..40, forward: bool,
        interval in 0i64..300,
    ) {
        let direction = if forward { Direction::Forward } else { Direction::Backward };
        let query = LogsQuery {
            expr: "{all=\"1\"} != \"warn\"".into(), start_ns: start * SECOND, end_ns: (start + length) * SECOND,
            step_ns: SECOND, direction, limit, shard: None,
            interval_ns: 0,
        };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            let LogsValue::Entries(want) = ask(&source, &query).await.unwrap() else { panic!() };
            assert_eq!(windowed(&source, &query, interval * SECOND).await, want);
        });
    }
}

#[test]
fn windows_are_the_range() {
    let of = |start_ns, end_ns, direction, interval| -> Vec<(i64, i64)> {
        let (expr, step_ns) = ("{a=\"b\"}".into(), 0);
        let query =
            LogsQuery { expr, start_ns, end_ns, step_ns, direction, limit: 1, shard: None, interval_ns: 0 };
        windows(&query, interval).iter().map(|w| (w.start_ns, w.end_ns)).collect()
    };
    assert_eq!(of(0, 100, Direction::Forward, 48), [(0, 2), (2, 6), (6, 14), (14, 30), (30, 62), (62, 100)]);
    assert_eq!(of(0, 100, Direction::Backward, 48)[..2], [(98, 100), (94, 98)]);
    assert_eq!(of(0, 100, Direction::Backward, 100), [(0, 100)]);
    assert_eq!(of(i64::MIN, i64::MAX, Direction::Forward, 100).len(), 1);
    assert!(of(0, i64::MAX, Direction::Forward, 100).len() < 700);
    let thinned = LogsQuery {
        expr: "{a=\"b\"}".into(),
        start_ns: 0,
        end_ns: 100,
        step_ns: 0,
        direction: Direction::Forward,
        limit: 1,
        shard: None,
        interval_ns: 5,
    };
    assert_eq!(windows(&thinned, 48).len(), 1);
}

#[test]
fn what_is_read() {
    let reads = |text: &str| {
        let Expr::Metric(expr) = parse(text).unwrap() else { panic!("{text}") };
        let query = LogsQuery {
            expr: text.into(),
            start_ns: 100 * SECOND,
            end_ns: 200 * SECOND,
            step_ns: SECOND,
            direction: Direction::Forward,
            limit: 0,
            shard: None,
            interval_ns: 0,
        };
        reads(&expr, &query).map(|(from, to)| (from - 1, to)).map(|(from, to)| (from / SECOND, to / SECOND))
    };
    assert_eq!(reads("sum(rate({a=\"b\"}[10s]))"), Some((90, 200)));
    assert_eq!(reads("rate({a=\"b\"}[10s]) / rate({a=\"b\"}[5s] offset 1m)"), Some((35, 200)));
    assert_eq!(reads("vector(1)"), None);
    assert_eq!(reads("rate({a=\"b\"} | line_format \"{{ now }}\" [10s])"), None, "the clock is");
    assert_eq!(reads("sum by (x) (rate({a=\"b\"} | label_format x=\"{{ now }}\" [10s]))"), None);
}

#[test]
fn what_is_sharded() {
    let parts = |text: &str| {
        let query = LogsQuery {
            expr: text.into(),
            start_ns: 0,
            end_ns: 100,
            step_ns: 10,
            direction: Direction::Forward,
            limit: 0,
            shard: None,
            interval_ns: 0,
        };
        let Expr::Metric(expr) = parse(text).unwrap() else { panic!("{text}") };
        let sharded = Sharded::new(&query, &expr, 2);
        sharded.map(|s| s.parts().iter().step_by(2).map(|p| p.expr.clone()).collect::<Vec<_>>())
    };
    let rate = "rate({a=\"b\"} [1m])";
    assert_eq!(parts(&format!("max(sum by (c) ({rate}))")).unwrap(), [format!("sum by (c) ({rate})")]);
    assert_eq!(parts(&format!("avg({rate}) + {rate}")).unwrap(), [rate, rate]);
    for whole in ["vector(1)", "1", "avg_over_time({a=\"b\"} | unwrap n [1m])"] {
        assert_eq!(parts(whole), None, "{whole}");
    }
    assert_eq!(parts(&format!("{rate} / absent_over_time({{a=\"b\"}}[1m])")), None);
}
