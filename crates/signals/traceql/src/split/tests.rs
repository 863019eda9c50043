//! A query that was cut gives what the whole gives: random queries over random traces.

use futures::executor::block_on;
use proptest::prelude::*;
use triptych_model::TenantId;

use super::*;
use crate::search::samples;
use crate::testing::Forest;
use crate::{evaluate, leaves};

const SECOND: i64 = 1_000_000_000;

fn context() -> QueryContext {
    QueryContext::unlimited(TenantId::single())
}

fn whole(forest: &Forest, query: &TracesMetricsQuery) -> Result<QueryValue> {
    let ctx = context();
    block_on(async {
        let mut streams = Vec::new();
        for leaf in leaves(query)? {
            streams.push(samples(&ctx, forest, &leaf).await?);
        }
        evaluate(&ctx, query, streams).await
    })
}

fn cut(forest: &Forest, query: &TracesMetricsQuery, interval_ns: i64) -> Result<QueryValue> {
    let split = Split::new(query, interval_ns)?;
    if split.is_whole() {
        return whole(forest, query);
    }
    let answers = split.parts().iter().map(|part| whole(forest, part)).collect::<Result<Vec<_>>>()?;
    split.merge(&context(), answers)
}

/// Every function for itself, over more points than are asked for.
fn pieced(forest: &Forest, query: &TracesMetricsQuery, interval_ns: i64) -> Result<QueryValue> {
    let split = Split::new(query, 0)?;
    let mut answers = Vec::new();
    for leaf in split.leaves() {
        let (first, last) = (leaf.start_ns, leaf.end_ns);
        let mut of_leaf = Vec::new();
        for span in span::spans((first, last), leaf.step_ns, interval_ns, 0) {
            let more = (span.0 - span.0.min(3 * leaf.step_ns), span.1 + 2 * leaf.step_ns);
            let QueryValue::Matrix(mut series) = whole(forest, &part(&leaf, more))? else { panic!() };
            let range_ms = span.0 / 1_000_000..=span.1 / 1_000_000;
            series.iter_mut().for_each(|one| one.samples.retain(|s| range_ms.contains(&s.t_ms)));
            series.retain(|one| !one.samples.is_empty());
            of_leaf.push(QueryValue::Matrix(series));
        }
        answers.push(of_leaf);
    }
    split.merge_leaves(&context(), answers)
}

/// Traces of a few spans, in the text that [`Forest`] reads; times in milliseconds.
fn forest() -> impl Strategy<Value = String> {
    let span = (0i64..60_000, 1i64..3000, 0usize..3, 0usize..2, 1u32..90, any::<bool>());
    let trace = proptest::collection::vec(span, 1..5);
    proptest::collection::vec(trace, 0..12).prop_map(|traces| {
        let mut text = String::new();
        for (i, mut spans) in traces.into_iter().enumerate() {
            spans.sort();
            text.push_str(&format!("trace {}\n", i + 1));
            for (at, duration, service, name, size, error) in spans {
                let (service, name) = (["a", "b", "c"][service], ["x", "y"][name]);
                let error = if error { " status=error" } else { "" };
                text.push_str(&format!("  {service}: {name} {at}+{duration} span.size={size}{error}\n"));
            }
        }
        text
    })
}

const QUERIES: [&str; 14] = [
    "{} | rate()",
    "{ false } | rate()",
    "{} | count_over_time() by (resource.service.name)",
    "{ status = error } | rate() by (name)",
    "{} | sum_over_time(.size)",
    "{} | avg_over_time(.size) by (resource.service.name)",
    "{} | min_over_time(duration) by (name)",
    "{} | max_over_time(.size)",
    "{} | quantile_over_time(duration, .5, .9) by (name)",
    "{} | histogram_over_time(duration)",
    "{} | rate() by (resource.service.name) | topk(1)",
    "{} | count_over_time() by (name) | bottomk(1) > 0",
    "({ status = error } | rate()) / ({} | rate())",
    "({} | count_over_time() by (name)) * 2",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn cut_is_whole(
        text in forest(), query in proptest::sample::select(&QUERIES[..]), start in 0i64..40, length in 1i64..60,
        step in 0i64..15, interval in 0i64..40,
    ) {
        let forest = Forest::new(&text);
        let query = TracesMetricsQuery {
            query: query.into(), start_ns: start * SECOND, end_ns: (start + length) * SECOND, step_ns: step * SECOND,
        };
        let (want, got) = (whole(&forest, &query).unwrap(), cut(&forest, &query, interval * SECOND).unwrap());
        prop_assert_eq!(&want, &got, "{:?}", query);
        if step > 0 {
            prop_assert_eq!(want, pieced(&forest, &query, interval * SECOND).unwrap(), "{:?}", query);
        }
    }
}

#[test]
fn spans_have_two_points_at_least() {
    let of = |start, end, interval| {
        let query = TracesMetricsQuery {
            query: "({} | rate()) / ({} | rate()) | topk(2)".into(),
            start_ns: start,
            end_ns: end,
            step_ns: 10,
        };
        let split = Split::new(&query, interval).unwrap();
        (!split.is_whole()).then(|| split.parts().iter().map(|p| (p.start_ns, p.end_ns)).collect::<Vec<_>>())
    };
    let once = [(0, 20), (30, 50), (60, 90)];
    assert_eq!(of(3, 89, 30).unwrap(), [once, once].concat());
    assert_eq!(of(3, 89, 10).unwrap()[..2], [(0, 10), (20, 30)]);
    assert_eq!(of(3, 89, 100), None);
    let wrong = TracesMetricsQuery { query: "{}".into(), start_ns: 0, end_ns: 10, step_ns: 1 };
    assert!(Split::new(&wrong, 5).unwrap_err().to_string().contains("not a metrics query"));
}

#[test]
fn windows_are_the_range_newest_first() {
    let of = |start_ns, end_ns, interval| -> Vec<(i64, i64)> {
        let search = TraceSearch { query: "{}".into(), start_ns, end_ns, limit: 1, spans_per_set: 1 };
        windows(&search, interval).iter().map(|w| (w.start_ns, w.end_ns)).collect()
    };
    assert_eq!(of(1, 100, 48), [(99, 100), (95, 98), (87, 94), (71, 86), (39, 70), (1, 38)]);
    assert_eq!(of(0, 100, 48), [(0, 100)], "no bounds");
    assert_eq!(of(60, 100, 48), [(60, 100)]);
    assert!(of(1, i64::MAX, 48).len() < 700);
}
