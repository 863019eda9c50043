use futures::executor::block_on;
use futures::stream::TryStreamExt;
use triptych_model::TenantId;
use triptych_model::traces::{SpanSampleSelect, TraceSearch};
use triptych_runtime::QueryContext;

use super::*;
use crate::testing::Forest;

const SHOP: &str = r#"
trace 1
  web: root 0+100 kind=server span.code=200 resource.env="prod"
    web: a 10+20 kind=client span.code=500 status=error
      api: b 12+10 kind=server span.code=500 status=error span.user="joe"
        db: c 14+4 kind=client span.tags=["x","y"] span.ratio=0.5
      api: d 25+3 span.code=404
    api: e 40+50 kind=server span.code=200 span.user="ann"
      db: f 45+20 kind=client span.tags=["y"] event:name=["exception","retry"]
trace 2
  job: nightly 1000+500 span.code="200"
    db: g 1100+100 status=error span.big=true span.count=7
    db: h 1200+100 status=ok span.big=false span.count=9
trace 3
  lone: z 2000+1
"#;

fn run(forest: &Forest, query: &str, limit: usize) -> Vec<TraceMatch> {
    let ctx = QueryContext::unlimited(TenantId::single());
    let asked = TraceSearch { query: query.into(), start_ns: 0, end_ns: 0, limit, spans_per_set: 100 };
    block_on(async { search(&ctx, forest, &asked).await.unwrap().try_collect().await.unwrap() })
}

/// Matches as `trace: span span; span`: sets parted by `;`, with their attributes in brackets.
fn shown(matches: &[TraceMatch]) -> String {
    let set = |s: &SpanSet| {
        let names: Vec<&str> = s.spans.iter().map(|s| s.name.as_str()).collect();
        let attributes: Vec<String> = s.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let attributes =
            if attributes.is_empty() { String::new() } else { format!(" [{}]", attributes.join(" ")) };
        assert_eq!(s.matched as usize, s.spans.len());
        format!("{}{attributes}", names.join(" "))
    };
    let all: Vec<String> = matches
        .iter()
        .map(|m| {
            format!("{}: {}", m.trace_id[15], m.span_sets.iter().map(set).collect::<Vec<_>>().join("; "))
        })
        .collect();
    all.join(" / ")
}

/// The same from a source that leaves out all it may, and from one that leaves out nothing.
fn check(query: &str, expected: &str) {
    let forest = Forest::new(SHOP);
    assert_eq!(shown(&run(&forest, query, 0)), expected, "{query}");
    assert_eq!(shown(&run(&forest.lax(), query, 0)), expected, "{query}, lax source");
}

#[test]
fn filters() {
    check("{}", "1: root a b c d e f / 2: nightly g h / 3: z");
    check("{ false }", "");
    check("{ name = `a` }", "1: a");
    check("{ name =~ `[ab]` }", "1: a b");
    check("{ name =~ `oo` }", "");
    check("{ name !~ `.` }", "1: root / 2: nightly");
    check("{ span.code >= 400 }", "1: a b d");
    check("{ 400 <= .code }", "1: a b d");
    check("{ span.code = 200 }", "1: root e");
    check("{ span.code = 200.0 }", "1: root e");
    check("{ span.code = `200` }", "2: nightly");
    // Not there, or of another kind: neither equal nor unequal.
    check("{ span.code != 200 }", "1: a b d");
    check("{ span.code != `200` }", "");
    check("{ span.code = nil }", "1: c f / 2: g h / 3: z");
    check("{ span.code != nil }", "1: root a b d e / 2: nightly");
    check("{ !(span.code = 200) && resource.service.name = `db` }", "1: c f / 2: g h");
    check("{ span.big }", "2: g");
    check("{ !span.big }", "2: h");
    check("{ !span.big = false }", "2: g");
    check("{ span.ratio < 1 }", "1: c");
    check("{ span.count + 1 = 8 }", "2: g");
    check("{ span.count * span.count > 60 }", "2: h");
    check("{ -span.count < -8 }", "2: h");
    check("{ span.count % 4 = 3 || span.count ^ 2 = 81 }", "2: g h");
    check("{ 7 / 2 = 3 && name = `z` }", "3: z");
    check("{ status = error }", "1: a b / 2: g");
    check("{ status != error && resource.service.name = `db` }", "1: c f / 2: h");
    check("{ kind = server }", "1: root b e");
    check("{ duration > 90ms }", "1: root / 2: nightly g h");
    check("{ duration = 1000000 }", "3: z");
    check("{ traceDuration < 50ms }", "3: z");
    check("{ rootServiceName = `job` && rootName = `nightly` && span:childCount = 0 }", "2: g h");
    check("{ trace:id = `3` }", "3: z");
    check("{ trace:id =~ `0+2` && span:id = `2` }", "2: g");
    check("{ span:parentID = `0000000000000001` }", "1: a e / 2: g h");
    check("{ span:parentID = `` }", "1: root / 2: nightly / 3: z");
    check("{ span:childCount > 1 }", "1: root a / 2: nightly");
    check("{ nestedSetParent < 0 }", "1: root / 2: nightly / 3: z");
    check("{ .code = 404 || .user = `ann` || name = `z` }", "1: d e / 3: z");
    check("{ .code = 500 && .user = `joe` }", "1: b");
    // `||` and `&&` bind alike, from the left.
    check("{ name = `root` || name = `a` && .code = 500 }", "1: a");
    check("{ resource.env = `prod` }", "1: root");
    check("{ span.user = span.user }", "1: b e");
    // Several values.
    check("{ span.tags = `x` }", "1: c");
    check("{ span.tags = `y` }", "1: c f");
    check("{ span.tags != `x` }", "1: f");
    check("{ span.tags !~ `z.*` }", "1: c f");
    check("{ event:name = `retry` }", "1: f");
}

#[test]
fn structure() {
    check("{ name = `a` } > {}", "1: b d");
    check("{ name = `a` } >> {}", "1: b c d");
    check("{ name = `c` } < {}", "1: b");
    check("{ name = `c` } << {}", "1: root a b");
    check("{ name = `b` } ~ {}", "1: d");
    check("{ name = `a` } ~ { name = `a` }", "");
    check("{ name =~ `a|e` } ~ { name = `a` }", "1: a");
    check("{ kind = server } >> { resource.service.name = `db` }", "1: c f");
    check("{ resource.service.name = `web` } >> { status = error } >> { .ratio != nil }", "1: c");
    check("{ status = error } !< { status = error }", "1: b / 2: g");
    check("{ name = `a` } !> { .code != nil }", "1: root a e / 2: nightly");
    check("{ name = `a` } !>> { kind = client }", "1: a f");
    check("{ name = `c` } !<< { kind = server }", "1: e");
    check("{ name = `b` } !~ { name =~ `d|e` }", "1: e");
    check("{ name = `a` } &> { .code = 404 }", "1: a d");
    check("{} &>> { name = `c` }", "1: root a b c");
    check("{ name =~ `c|f` } &< { kind = server }", "1: b c e f");
    check("{ name =~ `c|f` } &<< { name = `root` }", "1: root c f");
    check("{ name = `b` } &~ { name =~ `d|e` }", "1: b d");
    check("{ name = `nothing` } !>> { name = `z` }", "3: z");
    check("{ .code = 500 } && { .user = `ann` }", "1: a b e");
    check("{ .code = 500 } && { .user = `nobody` }", "");
    check("{ .code = 404 } || { .big }", "1: d / 2: g");
    check("({ .code = 500 } | count() > 1) && { .user = `ann` }", "1: a b e");
    check("({ .code = 500 } | count() > 2) || { .user = `ann` }", "1: e");
}

#[test]
fn pipelines() {
    check("{ status = error } | { kind = client }", "1: a");
    check("{ status = error } | count() > 1", "1: a b [count()=2]");
    check("{ status = error } | count() > 1 | { kind = client }", "1: a [count()=2]");
    check("{} | count() = 1", "3: z [count()=1]");
    check("{ .code > 0 } | max(.code) = 500", "1: root a b d e [max(.code)=500]");
    check("{ .count > 0 } | avg(.count) = 8", "2: g h [avg(.count)=8]");
    check("{} | min(.count) < sum(.count)", "2: nightly g h [min(.count)=7 sum(.count)=16]");
    check("{ resource.service.name = `db` } | avg(duration) > 50ms", "2: g h [avg(duration)=100000000ns]");
    check("{ .count > 0 } | max(.count) - min(.count) = 2", "2: g h [max(.count)=9 min(.count)=7]");
    check(
        "{ status = error } | by(resource.service.name)",
        "1: a [by(resource.service.name)=web]; b [by(resource.service.name)=api] / 2: g [by(resource.service.name)=db]",
    );
    check(
        "{ kind = client || kind = server } | by(kind) | count() > 2",
        "1: root b e [by(kind)=server count()=3]; a c f [by(kind)=client count()=3]",
    );
    check(
        "{ .user != nil || .code = 404 } | by(.user)",
        "1: b [by(.user)=joe]; d [by(.user)=nil]; e [by(.user)=ann]",
    );
    check("{ .user != nil } | by(.user) | coalesce()", "1: b e");
    check("{ .user != nil } | by(.user) | { .code = 200 }", "1: e [by(.user)=ann]");
    check("{} | max(.nothing) > 0", "");
}

#[test]
fn what_an_answer_shows() {
    let found = run(
        &Forest::new(SHOP),
        "{ status = error && .code = 500 && duration > 1ms } | select(.user, span.tags, resource.env)",
        0,
    );
    let [trace] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&*trace.root_service, &*trace.root_name), ("web", "root"));
    assert_eq!((trace.start_ns, trace.duration_ns), (0, 100_000_000));
    assert_eq!(trace.services, [("web".into(), 2, 1), ("api".into(), 3, 1), ("db".into(), 2, 0)]);
    let b = &trace.span_sets[0].spans[1];
    assert_eq!((&*b.name, b.start_ns, b.duration_ns), ("b", 12_000_000, 10_000_000));
    let expected = [
        ("status", Value::Status("error".into())),
        ("code", Value::Int(500)),
        ("user", Value::String("joe".into())),
    ];
    assert_eq!(b.attributes, expected.map(|(k, v)| (k.to_owned(), v)));
    let found = run(&Forest::new(SHOP), "{ .tags = `x` }", 0);
    assert_eq!(
        found[0].span_sets[0].spans[0].attributes,
        [("tags".to_owned(), Value::String("[x, y]".into()))]
    );
}

#[test]
fn limits() {
    let forest = Forest::new(SHOP);
    assert_eq!(shown(&run(&forest, "{ duration > 0 }", 2)), "1: root a b c d e f / 2: nightly g h");
    assert_eq!(shown(&run(&forest, "{ duration > 0 } with (most_recent=true)", 2)), "3: z / 2: nightly g h");
    let ctx = QueryContext::unlimited(TenantId::single());
    let asked = TraceSearch { query: "{}".into(), start_ns: 0, end_ns: 0, limit: 1, spans_per_set: 0 };
    let found: Vec<TraceMatch> =
        block_on(async { search(&ctx, &forest, &asked).await.unwrap().try_collect().await.unwrap() });
    let names: Vec<&str> = found[0].span_sets[0].spans.iter().map(|s| s.name.as_str()).collect();
    assert_eq!((names, found[0].span_sets[0].matched), (vec!["root", "a", "b"], 7));
    ctx.cancel();
    let found: Result<Vec<TraceMatch>> =
        block_on(async { search(&ctx, &forest, &asked).await.unwrap().try_collect().await });
    assert_eq!(found.unwrap_err().kind, triptych_model::Kind::Cancelled);
    let wrong = TraceSearch { query: "{} | rate()".into(), ..asked };
    assert!(block_on(search(&ctx, &forest, &wrong)).is_err());
}

#[test]
fn samples_are_extracted() {
    let check = |query: &str, range_ms: (i64, i64), expected: &[&str]| {
        for forest in [Forest::new(SHOP), Forest::new(SHOP).lax()] {
            let ctx = QueryContext::unlimited(TenantId::single());
            let select = SpanSampleSelect {
                query: query.into(),
                start_ns: range_ms.0 * 1_000_000,
                end_ns: range_ms.1 * 1_000_000,
            };
            let found: Vec<TraceSamples> = block_on(async {
                samples(&ctx, &forest, &select).await.unwrap().try_collect().await.unwrap()
            });
            let shown: Vec<String> = found
                .iter()
                .flat_map(|t| t.samples.iter().map(move |s| (t, s)))
                .map(|(t, s)| {
                    format!(
                        "{}.{} {}ms {} {}",
                        t.trace_id[15],
                        s.span_id[7],
                        s.ts_ns / 1_000_000,
                        s.labels,
                        s.value
                    )
                })
                .collect();
            assert_eq!(shown, expected, "{query}");
        }
    };
    check("{ status = error } | rate()", (0, 0), &["1.2 10ms {} 1", "1.3 12ms {} 1", "2.2 1100ms {} 1"]);
    check("{ status = error } | rate()", (12, 1100), &["1.3 12ms {} 1", "2.2 1100ms {} 1"]);
    check(
        "{ status = error } | count_over_time() by (resource.service.name, .user)",
        (0, 0),
        &[
            r#"1.2 10ms {resource.service.name="web"} 1"#,
            r#"1.3 12ms {.user="joe", resource.service.name="api"} 1"#,
            r#"2.2 1100ms {resource.service.name="db"} 1"#,
        ],
    );
    check(
        "{ .count > 0 } | rate() by (.nothing)",
        (0, 0),
        &[r#"2.2 1100ms {.nothing="nil"} 1"#, r#"2.3 1200ms {.nothing="nil"} 1"#],
    );
    check("{ .count > 0 } | max_over_time(.count)", (0, 0), &["2.2 1100ms {} 7", "2.3 1200ms {} 9"]);
    check(
        "{ name =~ `a|z` } | sum_over_time(duration)",
        (0, 0),
        &["1.2 10ms {} 0.02", "3.1 2000ms {} 0.001"],
    );
    check("{ name =~ `a|z` } | avg_over_time(.code)", (0, 0), &["1.2 10ms {} 500"]);
    check(
        "{ .count > 0 } | quantile_over_time(.count, 0.5)",
        (0, 0),
        &["2.2 1100ms {} 8", "2.3 1200ms {} 16"],
    );
    check("{ name = `z` } | histogram_over_time(duration)", (0, 0), &["3.1 2000ms {} 0.001048576"]);
    check(
        "{ name = `a` } >> {} | rate() by (name)",
        (0, 0),
        &[r#"1.3 12ms {name="b"} 1"#, r#"1.4 14ms {name="c"} 1"#, r#"1.5 25ms {name="d"} 1"#],
    );
}

#[test]
fn buckets_are_powers_of_two() {
    for (value, expected) in
        [(1.0, 1.0), (2.0, 2.0), (3.0, 4.0), (1024.0, 1024.0), (1025.0, 2048.0), (0.3, 0.5)]
    {
        assert_eq!(bucket(value), Some(expected), "{value}");
    }
    for n in 1..62 {
        let power = (1u64 << n) as f64;
        assert_eq!(bucket(power), Some(power));
    }
    assert_eq!(
        (bucket(0.0), bucket(-1.0), bucket(f64::INFINITY), bucket(f64::NAN)),
        (None, None, None, None)
    );
}
