use proptest::prelude::*;

use super::*;

/// The canonical text of a query, or its error.
fn check(text: &str, expected: &str) {
    let got = match parse(text) {
        Ok(expr) => expr.to_string(),
        Err(e) => e.to_string(),
    };
    assert_eq!(got, expected, "{text}");
}

#[test]
fn canonical_text() {
    for text in [
        "1",
        "-0.5",
        "+Inf",
        "5m",
        r#""a \"b\" \\ \n""#,
        "foo",
        r#"foo{a="b",c!~"d|e"}"#,
        r#"{__name__=~"x.*"}"#,
        r#"{"foo.bar"="x",a="1"}"#,
        "foo:bar:baz",
        "foo[5m] @ 1.500 offset -1h30m",
        "foo[5m:] @ start()",
        "foo[1d:30s] offset 1w",
        "foo[step() + 1m]",
        "foo offset max_of(5m, step())",
        "-foo",
        "-(a + b)",
        "a + on (x, y) group_left (z) b",
        "a == bool b",
        "a and ignoring (x) b",
        "a + fill (0) b",
        "a * on (x) group_right () fill_left (1) fill_right (-2) b",
        "sum by (a, b) (foo)",
        "sum without () (foo)",
        "topk(3, foo)",
        r#"count_values("v", foo)"#,
        "clamp_max(rate(foo_total[5m]), 3)",
        "time()",
        "a atan2 b",
        "a ^ b ^ c",
    ] {
        check(text, text);
    }
    check("SUM(foo) BY (a)", "sum by (a) (foo)");
    check("sum(foo) by (\"a.b\", c,)", "sum by (\"a.b\", c) (foo)");
    check("foo{b='1', a=`2`,}", r#"foo{a="2",b="1"}"#);
    check(r#"{"foo", a="1"}"#, r#"{__name__="foo",a="1"}"#);
    check("foo offset 0s", "foo");
    check("foo @ end() offset 5m", "foo @ end() offset 5m");
    check("foo offset 5m @ end()", "foo @ end() offset 5m");
    check("0x1F + 017 + 1_000 + .5e1", "31 + 15 + 1000 + 5");
    check("foo # a comment\n + bar", "foo + bar");
    check("foo[300]", "foo[5m]");
    check("foo[90061001ms]", "foo[1d1h1m1s1ms]");
    check("foo[365d]", "foo[1y]");
    check("- - 1", "1");
    check("sum + by", "sum + by");
    check("inf + NaN", "+Inf + NaN");
}

#[test]
fn precedence() {
    let shape = |text: &str, expected: &str| {
        fn show(e: &Expr) -> String {
            match e {
                Expr::Binary(b) => format!("({} {} {})", show(&b.left), b.op.as_str(), show(&b.right)),
                Expr::Unary(u) => format!("-{}", show(&u.expr)),
                e => e.to_string(),
            }
        }
        assert_eq!(show(&parse(text).unwrap()), expected, "{text}");
    };
    shape("a + b * c ^ d ^ e", "(a + (b * (c ^ (d ^ e))))");
    shape("a - b - c", "((a - b) - c)");
    shape("a or b and c unless d", "(a or ((b and c) unless d))");
    shape("a > b + c == d", "((a > (b + c)) == d)");
    shape("-a ^ b", "-(a ^ b)");
    shape("-a * b", "(-a * b)");
    shape("a ^ -b * c", "((a ^ -b) * c)");
    shape("a atan2 b % c", "((a atan2 b) % c)");
}

#[test]
fn errors_say_where() {
    for (text, expected) in [
        ("", "1:1: parse error: no expression found in input"),
        ("foo\n  bar", "2:3: parse error: unexpected identifier \"bar\""),
        ("1 +", "1:4: parse error: unexpected end of input"),
        ("(1", "1:3: parse error: unclosed left parenthesis"),
        ("1 > 2", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
        ("a + bool b", "1:3: parse error: bool modifier can only be used on comparison operators"),
        ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ("{a=~\".*\"}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ("foo{__name__=\"bar\"}", "1:1: parse error: metric name must not be set twice: \"foo\" or \"bar\""),
        ("foo{a}", "1:6: parse error: unexpected \"}\" in label matching, expected label matching operator"),
        ("foo{a=1}", "1:7: parse error: unexpected character inside braces: '1'"),
        ("foo[5m", "1:7: parse error: unexpected end of input in duration expression"),
        ("foo[0s]", "1:5: parse error: duration must be greater than 0"),
        ("foo[5m][5m]", "1:8: parse error: ranges only allowed for vector selectors"),
        (
            "rate(foo)",
            "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
        ),
        ("nope(foo)", "1:1: parse error: unknown function with name \"nope\""),
        ("abs()", "1:1: parse error: expected 1 argument(s) in call to \"abs\", got 0"),
        ("round(a, 1, 2)", "1:1: parse error: expected at most 2 argument(s) in call to \"round\", got 3"),
        (
            "label_join(a, \"b\")",
            "1:1: parse error: expected at least 3 argument(s) in call to \"label_join\", got 2",
        ),
        (
            "topk(foo)",
            "1:1: parse error: wrong number of arguments for aggregate expression provided, expected 2, got 1",
        ),
        ("sum(1)", "1:5: parse error: expected type instant vector in aggregation expression, got scalar"),
        ("1 and foo", "1:1: parse error: set operator \"and\" not allowed in binary scalar expression"),
        ("a and on(x) group_left b", "1:1: parse error: no grouping allowed for \"and\" operation"),
        (
            "a + on(x) group_left(x) b",
            "1:3: parse error: label \"x\" must not occur in ON and GROUP clause at once",
        ),
        ("foo offset 5m offset 5m", "1:1: parse error: offset may not be set multiple times"),
        (
            "(foo) @ 5",
            "1:1: parse error: @ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
        ),
        ("\"abc", "1:1: parse error: unterminated quoted string"),
        ("foo{a=~\"(\"}", "1:5: parse error: regex"),
        ("5mm", "1:1: parse error: bad number or duration syntax: \"5mm\""),
        ("foo $ 1", "1:5: parse error: unexpected character: '$'"),
        ("foo{é=\"1\"}", "1:5: parse error: unexpected character inside braces: 'é'"),
        ("sum(foo) by (1)", "1:14: parse error: unexpected number \"1\" in grouping opts, expected label"),
    ] {
        let got = parse(text).expect_err(text).to_string();
        assert!(got.starts_with(expected), "{text}\n got {got}\nwant {expected}");
    }
}

#[test]
fn selectors_for_match_params() {
    let matchers = parse_selector(r#"up{job=~"a|b"}"#).unwrap();
    assert_eq!(matchers.len(), 2);
    assert_eq!(matchers[1], Matcher::equal("__name__", "up"));
    for bad in ["up[5m]", "up + 1", "{}", "sum(up)", "up offset 5m", "1"] {
        assert!(parse_selector(bad).is_err(), "{bad}");
    }
}

#[test]
fn long_lines_are_split() {
    let long = "a_metric_with_quite_a_long_name_indeed{job=\"something\"}";
    let expr = parse(&format!("sum by (job) (rate({long}[5m])) / on (job) {long}")).unwrap();
    assert_eq!(expr.pretty(), format!("  sum by (job) (rate({long}[5m]))\n/ on (job)\n  {long}"));
    let expr = parse(&format!("topk(5, ({long} or {long}))")).unwrap();
    assert_eq!(expr.pretty(), format!("topk(\n  5,\n  (\n      {long}\n    or\n      {long}\n  )\n)"));
    assert_eq!(parse("-foo").unwrap().pretty(), "-foo");
}

#[test]
fn depth_is_bounded() {
    for hostile in [
        "(".repeat(100_000),
        "-".repeat(100_000) + "1",
        "abs(".repeat(100_000),
        "a ^ ".repeat(100_000) + "a",
        "a + ".repeat(100_000) + "a",
        "foo[".repeat(100_000),
        "foo[1m:1m]".to_owned() + &"[1m:1m]".repeat(100_000),
        "foo".to_owned() + &" @ 1".repeat(100_000),
        "foo[".to_owned() + &"(".repeat(100_000),
        "foo[".to_owned() + &"-".repeat(100_000),
        "foo[".to_owned() + &"1 + ".repeat(100_000) + "1]",
        "a".repeat(QUERY_BYTES_MAX + 1),
    ] {
        assert!(parse(&hostile).is_err());
    }
    parse(&("a + ".repeat(DEPTH_MAX - 2) + "a")).unwrap();
}

/// Text of an instant vector.
fn vector_text() -> impl Strategy<Value = String> {
    let value = prop_oneof!["[a-z]{0,4}", Just("\\\\.\\\"".to_owned()), Just("ü\\n".to_owned())];
    let matcher = ("[a-z_]{1,3}", prop_oneof![Just("="), Just("!="), Just("=~"), Just("!~")], value)
        .prop_map(|(n, op, v)| format!("{n}x{op}\"{v}\""));
    let modifiers = prop_oneof![
        Just(String::new()),
        Just(" offset 5m".to_owned()),
        Just(" @ 12.5".to_owned()),
        Just(" @ end() offset -1h".to_owned()),
    ];
    let selector = ("[a-z]{1,3}_m", proptest::collection::vec(matcher, 0..3), modifiers)
        .prop_map(|(name, m, modifiers)| format!("{name}{{{}}}{modifiers}", m.join(",")));
    let number = prop_oneof![
        any::<u16>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |v| v.is_finite()).prop_map(|v| format!("{:e}", v.abs())),
        Just("1h5s".to_owned()),
        Just("NaN".to_owned()),
        Just("Inf".to_owned()),
    ];
    let leaf = prop_oneof![selector, number.prop_map(|n| format!("vector({n})"))];
    leaf.prop_recursive(5, 32, 3, |inner| {
        let op = prop_oneof![
            Just("+"),
            Just("-"),
            Just("*"),
            Just("/"),
            Just("%"),
            Just("^"),
            Just("atan2"),
            Just("== bool"),
            Just(">"),
            Just("and"),
            Just("or on (a)"),
            Just("unless ignoring (b)"),
            Just("* on (a, b) group_left (c)"),
            Just("+ fill (3)"),
        ];
        let two = (inner.clone(), op, inner.clone());
        prop_oneof![
            two.prop_map(|(l, op, r)| format!("{l} {op} {r}")),
            inner.clone().prop_map(|e| format!("({e})")),
            inner.clone().prop_map(|e| format!("-{e}")),
            inner.clone().prop_map(|e| format!("+{e}")),
            inner.clone().prop_map(|e| format!("{e} * 2 ^ -3")),
            inner.clone().prop_map(|e| format!("sum by (a) ({e})")),
            inner.clone().prop_map(|e| format!("topk without (\"b.c\") (-1 + scalar({e}), {e})")),
            inner.clone().prop_map(|e| format!("clamp({e}, -1, 2m)")),
            inner.clone().prop_map(|e| format!("rate(({e})[1h:5m] offset 1m)")),
            inner.clone().prop_map(|e| format!("max_over_time(({e})[step() * (2 + range()):] @ start())")),
            inner.prop_map(|e| format!("label_replace({e}, \"a\", '$1', `b`, \"(.*)\\xff\")")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn text_of_a_tree_is_the_tree(text in vector_text()) {
        let expr = parse(&text).unwrap();
        prop_assert_eq!(&parse(&expr.to_string()).unwrap(), &expr, "{}", expr);
        prop_assert_eq!(&parse(&expr.pretty()).unwrap(), &expr, "{}", expr.pretty());
    }

    #[test]
    fn nothing_panics(text in "\\PC{0,40}") {
        let _ = parse(&text);
        let _ = parse_selector(&text);
    }

    #[test]
    fn no_soup_of_tokens_panics(words in proptest::collection::vec(prop_oneof![
        Just("foo"), Just("sum"), Just("by"), Just("("), Just(")"), Just("{"), Just("}"), Just("["), Just("]"), Just("5m"),
        Just(":"), Just("\"x\""), Just("\"\\xff\""), Just("'é"), Just("\\"), Just("="), Just("=~"), Just("!"), Just("@"),
        Just("offset"), Just("-"), Just("1e"), Just("0x"), Just("+"), Just("^"), Just("start"), Just("fill"), Just(","),
        Just("on"), Just("rate"), Just("atan2"), Just("#"), Just("\n"), Just("é"), Just("step"), Just("min_of"),
    ], 0..24), glue in prop_oneof![Just(""), Just(" ")]) {
        let text = words.join(glue);
        if let Ok(expr) = parse(&text) {
            prop_assert_eq!(&parse(&expr.to_string()).unwrap(), &expr);
        }
    }
}
