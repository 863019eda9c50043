use futures::executor::block_on;
use futures::stream::{self, StreamExt};
use triptych_model::TenantId;
use triptych_runtime::QueryLimits;

use super::*;
use crate::search::samples;
use crate::testing::Forest;

const LOAD: &str = r#"
trace 1
  a: x 0+100 span.size=10
  a: x 10000+200 span.size=20 status=error
  b: y 10001+400
trace 2
  a: x 19000+300 span.size=30
  b: y 20000+1600 status=error
  b: y 20001+800
"#;

fn run(ctx: &QueryContext, query: &str, start_s: i64, end_s: i64, step_s: i64) -> Result<QueryValue> {
    let second = 1_000_000_000;
    let query = TracesMetricsQuery {
        query: query.into(),
        start_ns: start_s * second,
        end_ns: end_s * second,
        step_ns: step_s * second,
    };
    let forest = Forest::new(LOAD);
    block_on(async {
        let mut streams = Vec::new();
        for leaf in leaves(&query)? {
            streams.push(samples(ctx, &forest, &leaf).await?);
        }
        evaluate(ctx, &query, streams).await
    })
}

/// Series as `{labels} seconds:value ..`, 0 s to 30 s by 10 s (step 0: one point).
fn check_step(query: &str, step_s: i64, expected: &[&str]) {
    let ctx = QueryContext::unlimited(TenantId::single());
    let value = run(&ctx, query, 0, 30, step_s).unwrap_or_else(|e| panic!("{query}: {e}"));
    let series = match value {
        QueryValue::Matrix(series) if step_s > 0 => series,
        QueryValue::Vector(series) if step_s == 0 => series,
        other => panic!("{other:?}"),
    };
    let shown: Vec<String> = series
        .iter()
        .map(|s| {
            let points: Vec<String> = s
                .samples
                .iter()
                .map(|p| format!("{}:{}", p.t_ms as f64 / 1000.0, (p.value * 1e6).round() / 1e6))
                .collect();
            format!("{} {}", s.labels, points.join(" "))
        })
        .collect();
    assert_eq!(shown, expected, "{query}");
}

fn check(query: &str, expected: &[&str]) {
    check_step(query, 10, expected);
}

#[test]
fn functions() {
    // The point at 10 s covers what began after 0 s, up to 10 s.
    check("{} | count_over_time()", &[r#"{__name__="count_over_time"} 0:1 10:1 20:3 30:1"#]);
    check("{} | rate()", &[r#"{__name__="rate"} 0:0.1 10:0.1 20:0.3 30:0.1"#]);
    check(
        "{ status = error } | rate() by (resource.service.name)",
        &[
            r#"{resource.service.name="a"} 0:0 10:0.1 20:0 30:0"#,
            r#"{resource.service.name="b"} 0:0 10:0 20:0.1 30:0"#,
        ],
    );
    check("{ false } | rate()", &[r#"{__name__="rate"} 0:0 10:0 20:0 30:0"#]);
    check("{ false } | rate() by (name)", &[]);
    check("{} | sum_over_time(.size)", &[r#"{__name__="sum_over_time"} 0:10 10:20 20:30"#]);
    check(
        "{} | min_over_time(duration) by (name)",
        &[r#"{name="x"} 0:0.1 10:0.2 20:0.3"#, r#"{name="y"} 20:0.4 30:0.8"#],
    );
    check("{} | max_over_time(duration)", &[r#"{__name__="max_over_time"} 0:0.1 10:0.2 20:1.6 30:0.8"#]);
    check("{} | avg_over_time(duration)", &[r#"{__name__="avg_over_time"} 0:0.1 10:0.2 20:0.766667 30:0.8"#]);
    check(
        "{ name = `x` } | histogram_over_time(.size)",
        &[r#"{__bucket="16"} 0:1 10:0 20:0 30:0"#, r#"{__bucket="32"} 0:0 10:1 20:1 30:0"#],
    );
    check(
        "{ name = `x` } | quantile_over_time(.size, 0.5, 1) by (resource.service.name)",
        &[
            r#"{p="0.5", resource.service.name="a"} 0:16 10:32 20:32"#,
            r#"{p="1", resource.service.name="a"} 0:16 10:32 20:32"#,
        ],
    );
}

#[test]
fn one_point() {
    check_step("{} | count_over_time()", 0, &[r#"{__name__="count_over_time"} 30:6"#]);
    check_step("{} | rate()", 0, &[r#"{__name__="rate"} 30:0.2"#]);
    check_step("{} | quantile_over_time(duration, 0.5)", 0, &[r#"{p="0.5"} 30:0.379625"#]);
    check_step(
        "{} | max_over_time(duration) by (name)",
        0,
        &[r#"{name="x"} 30:0.3"#, r#"{name="y"} 30:1.6"#],
    );
}

#[test]
fn second_stages() {
    check(
        "{} | count_over_time() by (name) | topk(1)",
        &[r#"{name="x"} 0:1 10:1"#, r#"{name="y"} 20:2 30:1"#],
    );
    check(
        "{} | count_over_time() by (name) | bottomk(1)",
        &[r#"{name="x"} 20:1 30:0"#, r#"{name="y"} 0:0 10:0"#],
    );
    check("{} | count_over_time() by (name) > 1", &[r#"{name="y"} 20:2"#]);
    check(
        "{} | count_over_time() by (name) != 0 | topk(1)",
        &[r#"{name="x"} 0:1 10:1"#, r#"{name="y"} 20:2 30:1"#],
    );
    check("{} | max_over_time(duration) by (name) >= 800ms", &[r#"{name="y"} 20:1.6 30:0.8"#]);
}

#[test]
fn arithmetic() {
    check(
        "({ status = error } | count_over_time()) / ({} | count_over_time())",
        &["{} 0:0 10:1 20:0.333333 30:0"],
    );
    check("({} | count_over_time()) * 100 - 1", &[r#"{__name__="count_over_time"} 0:99 10:99 20:299 30:99"#]);
    check("1 - ({} | count_over_time())", &[r#"{__name__="count_over_time"} 0:0 10:0 20:-2 30:0"#]);
    check(
        "({} | count_over_time() by (name)) / ({} | count_over_time())",
        &[r#"{name="x"} 0:1 10:1 20:0.333333 30:0"#, r#"{name="y"} 0:0 10:0 20:0.666667 30:1"#],
    );
    check(
        "({} | count_over_time() by (name)) + ({ name = `y` } | count_over_time() by (name))",
        &[r#"{name="y"} 0:0 10:0 20:4 30:2"#],
    );
    check("({} | count_over_time()) / ({ false } | count_over_time())", &[]);
}

#[test]
fn quantiles_lie_in_their_bucket() {
    let b = [(2.0, 2), (4.0, 4), (16.0, 2)];
    for (q, expected) in
        [(0.0, 2f64.sqrt()), (0.25, 2.0), (0.5, 8f64.sqrt()), (0.75, 4.0), (0.85, 8.0), (1.0, 16.0)]
    {
        assert!((quantile(q, &b) - expected).abs() < 1e-9, "{q}: {}", quantile(q, &b));
    }
    assert!(quantile(0.5, &[]).is_nan());
}

#[test]
fn ranges_are_checked() {
    let ctx = QueryContext::unlimited(TenantId::single());
    for (query, start, end, step, error) in [
        ("{} | rate()", 10, 10, 1, "is empty"),
        ("{} | rate()", -5, 10, 1, "is empty"),
        ("{} | rate()", 0, 10, -1, "must not be negative"),
        ("{} | rate()", 0, 100_000, 1, "the limit is 11000"),
        ("{}", 0, 10, 1, "not a metrics query"),
    ] {
        let e = run(&ctx, query, start, end, step).unwrap_err();
        assert!(e.to_string().contains(error), "{query} {start} {end} {step}: {e}");
    }
    let limits = QueryLimits { memory_bytes_max: 100, ..QueryLimits::default() };
    let e = run(&QueryContext::new(TenantId::single(), limits), "{} | rate()", 0, 30, 10).unwrap_err();
    assert_eq!(e.kind, triptych_model::Kind::Exhausted);
    let query = TracesMetricsQuery { query: "{} | rate()".into(), start_ns: 15, end_ns: 95, step_ns: 10 };
    let leaf = &leaves(&query).unwrap()[0];
    assert_eq!((leaf.start_ns, leaf.end_ns, leaf.query.as_str()), (1, 100, "{ true } | rate()"));
    assert!(block_on(evaluate(&ctx, &query, vec![])).is_err());
    assert!(block_on(evaluate(&ctx, &query, vec![stream::empty().boxed()])).is_ok());
}
