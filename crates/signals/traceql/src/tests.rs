use proptest::prelude::*;
use triptych_model::traces::Value;

use crate::parser::{parse, parse_attribute};
use crate::plan::filter_conditions;
use crate::source::{Attribute, Intrinsic, Scope};

/// Parses, writes, parses again, and compares the text.
fn check(query: &str, written: &str) {
    let parsed = parse(query).unwrap_or_else(|e| panic!("{query}: {e}"));
    assert_eq!(parsed.to_string(), written, "{query}");
    assert_eq!(parse(written).unwrap_or_else(|e| panic!("{written}: {e}")), parsed, "{query}");
}

#[test]
fn queries_parse() {
    check("{}", "{ true }");
    check("{ .a }", "{ .a }");
    check("{ !.a }", "{ !.a }");
    check(
        "{span.http.status_code>=500&&resource.env!=`prod`}",
        r#"{ span.http.status_code >= 500 && resource.env != "prod" }"#,
    );
    check("{ .a || .b && .c }", "{ (.a || .b) && .c }");
    check("{ .a || (.b && .c) }", "{ .a || (.b && .c) }");
    check("{ .a && (.b && .c) }", "{ .a && .b && .c }");
    check("{ .a+b = 1 }", "{ .a+b = 1 }");
    check("{ .a + .b * 2 > 3 }", "{ (.a + (.b * 2)) > 3 }");
    check("{ 2 ^ .a ^ 3 = 1 }", "{ (2 ^ (.a ^ 3)) = 1 }");
    check("{ .a - 1 - 2 = 0 }", "{ ((.a - 1) - 2) = 0 }");
    check("{ -.a = -3 }", "{ (-.a) = (-3) }");
    check("{ .a > 10 * 1024 * 1024 }", "{ .a > 10485760 }");
    check("{ duration > 1.5s }", "{ duration > 1500000000ns }");
    check("{ span:duration > 1h15m30.5s }", "{ duration > 4530500000000ns }");
    check("{ .a = minInt || .a = maxInt }", "{ .a = minInt || .a = 9223372036854775807 }");
    check("{ .a != nil && nil = .b }", "{ .a != nil && .b = nil }");
    check("{ nil = nil }", "{ false }");
    check("{ status = error && kind = server }", "{ status = error && kind = server }");
    check(r#"{ ."a b"."c\"d".e = 1 }"#, r#"{ ."a bc\"d.e" = 1 }"#.replace("bc", "b.c").as_str());
    check(r#"{ span."x" =~ "a.*" }"#, r#"{ span.x =~ "a.*" }"#);
    check(r#"{ name = "a\tb\u00e9\x41" }"#, r#"{ name = "a\tbéA" }"#);
    check("{ trace:id = \"1f\" && span:parentID = \"\" }", "{ trace:id = \"1f\" && span:parentID = \"\" }");
    check(
        "{ event:name = `x` && link:spanID = `1` && instrumentation:version = `2` }",
        "{ event:name = \"x\" && link:spanID = \"1\" && instrumentation:version = \"2\" }",
    );
    check("{.a} /* and */ && // then\n {.b}", "{ .a } && { .b }");
    check("{.a} > {.b} && {.c}", "({ .a } > { .b }) && { .c }");
    for op in [
        "&&", "||", ">", "<", ">>", "<<", "~", "!>", "!<", "!>>", "!<<", "!~", "&>", "&<", "&>>", "&<<", "&~",
    ] {
        check(&format!("{{ .a }}{op}{{ .b }}"), &format!("{{ .a }} {op} {{ .b }}"));
    }
    check("{.a} | {.b}", "{ .a } | { .b }");
    check("({.a})", "{ .a }");
    check("({.a} | count() > 1) && {.b}", "({ .a } | count() > 1) && { .b }");
    check("({.a} | count()) > 1", "{ .a } | count() > 1");
    check("count() > 3 | {.a}", "count() > 3 | { .a }");
    check("{} | avg(duration) >= 20ms", "{ true } | avg(duration) >= 20000000ns");
    check("{} | max(.a + 1) - min(.a) < 2 * 3", "{ true } | max(.a + 1) - min(.a) < 6");
    check(
        "{} | by(resource.service.name) | count() > 1 | coalesce()",
        "{ true } | by(resource.service.name) | count() > 1 | coalesce()",
    );
    check("{} | select(.a, resource.b, status)", "{ true } | select(.a, resource.b, status)");
    check("by(.a) | {}", "by(.a) | { true }");
    check("{} | rate()", "{ true } | rate()");
    check(
        "{.a} | rate() by (resource.service.name, name) with (sample=0.1, exemplars=true)",
        "{ .a } | rate() by (resource.service.name, name) with (sample=0.1, exemplars=true)",
    );
    check(
        "{} | quantile_over_time(duration, .99, 0.5, 1)",
        "{ true } | quantile_over_time(duration, 0.99, 0.5, 1.0)",
    );
    for f in ["min", "max", "sum", "avg", "histogram"] {
        check(
            &format!("{{}}|{f}_over_time(span.x)by(.y)"),
            &format!("{{ true }} | {f}_over_time(span.x) by (.y)"),
        );
    }
    check(
        "{} | count_over_time() | topk(5) > 10 | bottomk(2)",
        "{ true } | count_over_time() | topk(5) > 10.0 | bottomk(2)",
    );
    check("{} | max_over_time(duration) > 30ms", "{ true } | max_over_time(duration) > 0.03");
    check(
        "({status=error}|rate()) / ({}|rate()) * 100",
        "(({ status = error } | rate()) / ({ true } | rate())) * (100.0)",
    );
    check("100 * ({}|rate()) > 5 | topk(1)", "((100.0) * ({ true } | rate())) > 5.0 | topk(1)");
    check("1 / 2 + ({}|rate())", "(0.0) + ({ true } | rate())");
}

#[test]
fn mistakes_are_placed() {
    let check = |query: &str, error: &str| {
        let e = parse(query).map(|q| q.to_string()).expect_err(query);
        assert_eq!(e.kind, triptych_model::Kind::Invalid);
        let text = e.to_string();
        assert!(text.contains(error), "{query}: {text}");
    };
    check("", "line 1, col 1: unexpected end of query");
    check("true", "line 1, col 1: unexpected true");
    check("{ .a\n  <", "line 2, col 4: unexpected end of query");
    check("{ .a < 3", "line 1, col 9: unexpected end of query, expected `}`");
    check(
        "{ attribute = 4 }",
        "line 1, col 3: unexpected attribute, expected a value or an attribute (span.x",
    );
    check("{ .a == 4 }", "line 1, col 7: unexpected =");
    check("{ . }", "line 1, col 3: attribute has no name");
    check("{ span. = 1 }", "line 1, col 3: attribute has no name");
    check("{ parent.a = 1 }", "not supported");
    check("{ \"x }", "col 3: string is not closed");
    check("{ .a = \"\\q\" }", "unknown escape \\q");
    check("{ .a } @", "unexpected character '@'");
    check("{ .a = 99999999999999999999 }", "out of range");
    check("{ .a = 300000000000y }", "duration is out of range");
    check("{ 1 = \"foo\" }", "col 5: `=` cannot compare: an integer and a string");
    check("{ name = 1 }", "cannot compare: a string and an integer");
    check("{ status > ok }", "needs something ordered");
    check("{ 1 && true }", "needs booleans");
    check("{ 1 + \"a\" = 1 }", "needs numbers");
    check("{ -name = 1 }", "`-` needs a number, not a string");
    check("{ !1 = 1 }", "`!` needs a boolean");
    check("{ 1 / 0 = 1 }", "division by zero");
    check("{ duration }", "must be a boolean, not a duration");
    check("{ .a =~ \"[\" }", "invalid regex");
    check("{ .a =~ .b }", "literal string");
    check("{ .a =~ \"(x{0,1000}){0,1000}\" }", "invalid regex");
    check("{ name = nil }", "intrinsics cannot be nil");
    check("{ resource.service.name = nil }", "cannot be nil");
    check("{ trace:status = error }", "unknown intrinsic trace:status");
    check("{} + {}", "`+` cannot join a span set and a span set");
    check("{} = {}", "`=` cannot join");
    check("{} | count()", "an aggregate without a comparison");
    check("{} | max(name) > 1", "max() needs a number, not a string");
    check("{} | max(1) > 1", "must name something of the span");
    check("{} | by(1)", "must name something of the span");
    check("{} | max(duration) < ok", "unexpected ok");
    check("coalesce() | {}", "cannot begin with coalesce()");
    check("count() > 3 && {}", "cannot join a scalar filter and a span set");
    check("{} | select()", "expected an attribute");
    check("{} | topk(10)", "must follow a metrics function");
    check("{} | rate() | topk(0)", "not between 1 and");
    check("{} | rate() + 5", "unexpected +");
    check("{} | rate() | {}", "expected topk or bottomk");
    check("({} | rate()) * 10s", "a duration cannot be computed");
    check("({} | rate()) ^ ({} | rate())", "cannot join");
    check("{} | min_over_time(name)", "name is a string, not a number");
    check("{} | quantile_over_time(duration, 2)", "not between 0 and 1");
    check("{} | compare({.a})", "compare() is not supported");
    check("2 * 3", "a constant alone is not a query");
    check("rate()", "needs a span filter before it");
    check(&"(".repeat(5000), "nested deeper than");
    check(&format!("{{ {}.a }}", "!".repeat(5000)), "nested deeper than");
    check(&format!("{{ .a{} = 1 }}", " + 1".repeat(5000)), "nested deeper than");
    check(&"{} > ".repeat(5000), "nested deeper than");
    check(&format!("{{{}}}", " ".repeat(crate::QUERY_BYTES_MAX)), "the limit is");
}

#[test]
fn long_chains_are_flat() {
    let any = vec!["span.id = \"x\""; 3000].join(" || ");
    let query = parse(&format!("{{ {any} }}")).unwrap();
    assert_eq!(parse(&query.to_string()).unwrap(), query);
}

#[test]
fn names_of_attributes() {
    let check =
        |name: &str, attribute: Attribute| assert_eq!(parse_attribute(name).unwrap(), attribute, "{name}");
    check("status", Attribute::Intrinsic(Intrinsic::Status));
    check("span:id", Attribute::Intrinsic(Intrinsic::SpanId));
    check("resource.service.name", Attribute::Named(Scope::Resource, "service.name".into()));
    check(".http.method", Attribute::Named(Scope::Any, "http.method".into()));
    check("http.method", Attribute::Named(Scope::Any, "http.method".into()));
    check("span.a b", Attribute::Named(Scope::Span, "a b".into()));
    check("a b", Attribute::Named(Scope::Any, "a b".into()));
    assert!(parse_attribute("").is_err());
    assert!(parse_attribute("trace:nothing").is_err());
}

/// What a store is asked for: `all(..)` or `any(..)` of the conditions.
#[test]
fn conditions() {
    let check = |query: &str, expected: &str| {
        let fetch = parse(query).unwrap().fetch(0, 0);
        let conditions: Vec<String> = fetch
            .conditions
            .iter()
            .map(|c| match &c.test {
                None => c.attribute.to_string(),
                Some((op, v)) => format!("{} {} {v}", c.attribute, op.as_str()),
            })
            .collect();
        let how = if fetch.all_conditions { "all" } else { "any" };
        let conditions =
            if conditions.is_empty() { String::new() } else { format!("{how}({})", conditions.join(", ")) };
        let attributes: Vec<String> = fetch.attributes.iter().map(|a| a.to_string()).collect();
        let nested = if fetch.nested_sets { " nested" } else { "" };
        assert_eq!(format!("{conditions}; {}{nested}", attributes.join(" ")), expected, "{query}");
    };
    check("{}", "; ");
    check("{ .a = 1 && name = `x` }", "all(.a = 1, name = x); .a");
    check("{ 1 < .a }", "all(.a > 1); .a");
    check("{ .a || !.b }", "any(.a = true, .b = false); .a .b");
    check("{ .a = 1 && (.b = 2 || .c = 3) }", "all(.a = 1); .a .b .c");
    check("{ (.a > 1 && .b = 2) || .c =~ `x` }", "any(.b = 2, .c =~ x); .a .b .c");
    check("{ .a = 1 || .b = nil }", "; .a .b");
    check("{ !(.a = 1) }", "; .a");
    check("{ .a != nil }", "all(.a); .a");
    check("{ .a = nil && .b = 1 }", "all(.b = 1); .a .b");
    check("{ .a + .b > 3 }", "all(.a, .b); .a .b");
    check("{ .a = .b }", "all(.a, .b); .a .b");
    check("{ .a = 1 } | { .b = 2 }", "all(.a = 1, .b = 2); .a .b");
    check("{ .a = 1 } | count() > 1 | { .b = 2 }", "all(.a = 1); .a .b");
    check("count() > 1 | { .b = 2 }", "; .b");
    check("{ .a = 1 } && { .b = 2 }", "any(.a = 1, .b = 2); .a .b");
    check("{ .a = 1 } >> { .b = 2 }", "any(.a = 1, .b = 2); .a .b nested");
    check("{ } >> { .b = 2 }", "; .b nested");
    check("({ .a = 1 && .c } | count() > 1) || { .b = 2 }", "any(.a = 1, .b = 2); .a .b .c");
    check("(count() > 1) || { .b = 2 }", "; .b");
    check(
        "{ .a = 1 } | select(resource.r, name) | by(kind) | avg(span.x) > 1",
        "all(.a = 1); kind span.x .a resource.r"
            .replace("kind span.x .a resource.r", "kind .a span.x resource.r")
            .as_str(),
    );
    check("{ .a = 1 } | rate() by (name, status)", "all(.a = 1); status .a");
    check("{ trace:id = `1F` }", "all(trace:id = 0000000000000000000000000000001f); ");
    check("{ nestedSetParent < 0 }", "all(nestedSetParent < 0);  nested");
    let summary = |q: &str| parse(q).unwrap().fetch(0, 0).summary;
    assert!(summary("{}") && summary("{rootName = `x`} | rate()") && !summary("{} | rate()"));
}

#[test]
fn filters_of_tags_are_lenient() {
    let check = |query: &str, expected: &[&str]| {
        let found: Vec<String> = filter_conditions(query)
            .iter()
            .map(|c| match &c.test {
                None => c.attribute.to_string(),
                Some((op, v)) => format!("{} {} {v}", c.attribute, op.as_str()),
            })
            .collect();
        assert_eq!(found, expected, "{query}");
    };
    check("", &[]);
    check("{}", &[]);
    check("{ .a = 1 && name = `x` }", &[".a = 1", "name = x"]);
    check("{ .a = 1 && .b = }", &[".a = 1"]);
    check("{ .a = 1 && .b = \"half", &[".a = 1"]);
    check("{ .a = 1 && .", &[".a = 1"]);
    check("{ resource.service.name = \"x\" && span. }", &["resource.service.name = x"]);
    check("{ .a = 1 && name =~ \"[\" && .b = 2 && }", &[".a = 1", ".b = 2"]);
    check("{ .a = 1 || .b = 2 }", &[]);
    check("{ .a = 1 || .b = ", &[]);
    check("{ .a = 1 } >> { .b = }", &[]);
    check("{ .a = 1 } | rate()", &[]);
    assert!(
        matches!(&filter_conditions("{ status = error && }")[0].test, Some((_, Value::Status(s))) if s == "error")
    );
}

/// Text that is likely to be a query.
fn likely() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{"),
        Just("}"),
        Just("("),
        Just(")"),
        Just(".a"),
        Just("span.b"),
        Just("name"),
        Just("duration"),
        Just("="),
        Just("!="),
        Just("=~"),
        Just(">"),
        Just("<"),
        Just(">>"),
        Just("&&"),
        Just("||"),
        Just("!"),
        Just("-"),
        Just("+"),
        Just("^"),
        Just("|"),
        Just("1"),
        Just("2.5"),
        Just("3s"),
        Just("\"x\""),
        Just("nil"),
        Just("true"),
        Just("error"),
        Just("count()"),
        Just("avg("),
        Just("by("),
        Just("select("),
        Just("rate()"),
        Just("topk(3)"),
        Just("coalesce()"),
        Just("with(a=1)"),
        Just("quantile_over_time(duration,"),
        Just(","),
        Just("~"),
        Just("&>"),
        Just("!<"),
    ];
    proptest::collection::vec(piece, 0..14).prop_map(|all| all.join(" "))
}

fn attribute() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("name".to_owned()),
        Just("duration".to_owned()),
        Just("trace:id".to_owned()),
        "[a-z]{1,3}".prop_map(|n| format!(".{n}")),
        "\\PC{1,6}".prop_map(|n| Attribute::Named(Scope::Span, n.as_str().into()).to_string()),
    ]
}

fn field() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (attribute(), any::<i64>()).prop_map(|(a, i)| if a == "name" || a == "trace:id" {
            format!("{a} != `{i}`")
        } else {
            format!("{a} > {}", i.max(i64::MIN + 1))
        }),
        ("[a-z]{1,3}", any::<f64>().prop_filter("finite", |f| f.is_finite()))
            .prop_map(|(a, f)| format!(".{a} <= {f:?}")),
        ("[a-z]{1,3}", "\\PC{0,8}")
            .prop_map(|(a, s)| format!(".{a} = {}", crate::display::Literal(&Value::String(s)))),
        "[a-z]{1,3}".prop_map(|a| format!(".{a} = nil")),
        "[a-z]{1,3}".prop_map(|a| format!("!.{a}")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} && {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            inner.prop_map(|a| format!("!({a})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_text_panics(text in prop_oneof![likely(), "\\PC{0,60}", any::<String>()]) {
        if let Ok(query) = parse(&text) {
            query.fetch(0, 0);
            let written = query.to_string();
            prop_assert_eq!(parse(&written).map_err(|e| format!("{written}: {e}")), Ok(query));
        }
        filter_conditions(&text);
        let _ = parse_attribute(&text);
    }

    #[test]
    fn written_fields_parse_to_the_same(text in field()) {
        let query = parse(&format!("{{ {text} }}")).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        let written = query.to_string();
        prop_assert_eq!(parse(&written).map_err(|e| format!("{written}: {e}")), Ok(query));
    }
}

#[test]
fn which_queries_look_at_each_span_alone() {
    for query in [
        "{}",
        "{ name = `a` && duration > 1s }",
        "{ .a = 1 } | select(.b)",
        "{ .a = 1 } | { .b = 2 }",
        "{ .a = 1 } | rate() by (resource.service.name)",
        "{ } | quantile_over_time(duration, .9)",
    ] {
        assert!(crate::is_by_span(query).unwrap(), "{query}");
    }
    for query in [
        "{ .a = 1 } | count() > 2",
        "{ .a = 1 } && { .b = 1 }",
        "{ .a = 1 } >> { .b = 1 }",
        "{ rootServiceName = `a` }",
        "{ trace:duration > 1s }",
        "{ .a = 1 } | by(.b)",
        "{ .a = 1 } | rate() by (rootName)",
        "{ } | avg_over_time(traceDuration)",
        "{ } | count() > 1 | rate()",
    ] {
        assert!(!crate::is_by_span(query).unwrap(), "{query}");
    }
    assert!(crate::is_by_span("{ .a = ").is_err());
}
