//! The runner must notice what is wrong.

use super::*;

const LOAD: &str = "load 1m\n  m{a=\"1\"} 1 2\n  m{a=\"2\"} 3 4\n  h{a=\"1\"} {{count:1}}\n\n";

async fn check(case: &str, passed: usize, skipped: usize, failure: Option<&str>) {
    let report = run(&format!("{LOAD}{case}"), &mut EngineTarget::default()).await.unwrap();
    assert_eq!((report.passed, report.skipped), (passed, skipped), "{case}: {report}");
    let message = report.failed.first().map(|f| f.message.as_str());
    match (failure, message) {
        (None, None) => {}
        (Some(expected), Some(message)) if message.contains(expected) => {}
        _ => panic!("{case}: expected failure {failure:?}, got {report}"),
    }
}

#[tokio::test]
async fn mistakes_are_noticed() {
    for (case, failure) in [
        ("eval instant at 1m m\n  m{a=\"1\"} 2\n  m{a=\"2\"} 5", "expected [5@60000], got [4@60000]"),
        ("eval instant at 1m m\n  m{a=\"1\"} 2", "unexpected series"),
        ("eval instant at 1m m{a=\"1\"}\n  m{a=\"1\"} 2\n  m{a=\"2\"} 4", "not found"),
        ("eval range from 0 to 1m step 1m m{a=\"1\"}\n  m{a=\"1\"} 1 _", "expected [1@0], got [1@0 2@60000]"),
        (
            "eval instant at 1m sort_desc(m)\n  expect ordered\n  m{a=\"1\"} 2\n  m{a=\"2\"} 4",
            "expected the order",
        ),
        ("eval instant at 1m 1 + 1\n  3", "expected scalar 3"),
        ("eval instant at 1m \"a\"\n  expect string \"b\"", "expected string"),
        ("eval instant at 1m m\n  expect fail\n", "succeeded"),
        ("eval instant at 1m m + on() m\n  m 1", "failed"),
        ("eval_fail instant at 1m m + on() m\n  expected_fail_message nope", "failed as expected, but with"),
        ("eval instant at 1m quantile(2, m)\n  expect no_warn\n  {} +Inf", "expected no warn"),
        ("eval instant at 1m quantile(2, m)\n  expect warn msg: x\n  {} +Inf", "expected warn"),
        ("eval instant at 1m sum(m)\n  expect info\n  {} 6", "expected info"),
    ] {
        check(case, 0, 0, Some(failure)).await;
    }
    check("eval instant at 1m sum(m)\n  {} 6", 1, 0, None).await;
    check("eval instant at 1m count(h)\n  {} 1", 0, 1, None).await;
    check("clear\n\neval instant at 1m m", 1, 0, None).await;
}

#[tokio::test]
async fn broken_scripts_are_refused() {
    for script in [
        "lode 1m",
        "load x\n m 1",
        "load 1m\n m 1 zz",
        "eval instant m",
        "eval instant at 1m m\n expect nothing",
    ] {
        assert!(run(script, &mut EngineTarget::default()).await.is_err(), "{script}");
    }
}
