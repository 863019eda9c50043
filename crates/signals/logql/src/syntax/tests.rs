use proptest::prelude::*;

use super::lexer::QUERY_BYTES_MAX;
use super::parser::{NESTING_MAX, OPERATORS_MAX, parse, parse_selector};
use super::units::*;

/// The canonical text, which must read back to itself.
#[track_caller]
fn canonical(text: &str) -> String {
    let expr = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let out = expr.to_string();
    let again = parse(&out).unwrap_or_else(|e| panic!("{text} became {out}: {e}"));
    assert_eq!(again, expr, "{out}");
    assert_eq!(again.to_string(), out);
    out
}

#[test]
fn valid() {
    for (text, want) in [
        (r#"{app="a"}"#, r#"{app="a"}"#),
        (r#" { app = "a" , b=~`x.*`, } "#, r#"{app="a", b=~"x.*"}"#),
        (r#"{a="b"} # to the end of the line"#, r#"{a="b"}"#),
        (
            r#"{a="b"}|="x"!="y"|~"z"!~"w"|>"<_>p<_>"!>"q""#,
            r#"{a="b"} |= "x" != "y" |~ "z" !~ "w" |> "<_>p<_>" !> "q""#,
        ),
        (r#"{a="b"} |= "x" or "y" or ip("1.2.3.4")"#, r#"{a="b"} |= "x" or "y" or ip("1.2.3.4")"#),
        (r#"({a="b"} |= "x") | json"#, r#"{a="b"} |= "x" | json"#),
        (
            r#"{a="b"} | json x="y.z", w | logfmt --strict --keep-empty k | unpack"#,
            r#"{a="b"} | json x="y.z",w="w" | logfmt --strict --keep-empty k="k" | unpack"#,
        ),
        (
            r#"{a="b"} | regexp "(?P<x>a)" | pattern "<y> z" | decolorize"#,
            r#"{a="b"} | regexp "(?P<x>a)" | pattern "<y> z" | decolorize"#,
        ),
        (
            r#"{a="b"} | x>1 and y<=2s or z=3KB, w!="q" v=~"r""#,
            r#"{a="b"} | ( ( x>1 and y<=2s ) or ( z==3KB and w!="q" and v=~"r" ) )"#,
        ),
        (r#"{a="b"} | x=1 or (y=2 and z=3)"#, r#"{a="b"} | ( x==1 or ( y==2 and z==3 ) )"#),
        (r#"{a="b"} | x=="s" "#, ""),
        (r#"{a="b"} | x = -1.5 | y > -3m"#, r#"{a="b"} | x==-1.5 | y>-3m"#),
        (r#"{a="b"} | x = ip("10.0.0.0/8")"#, r#"{a="b"} | x=ip("10.0.0.0/8")"#),
        (r#"{a="b"} | json="x" | duration > 10s"#, r#"{a="b"} | json="x" | duration>10s"#),
        (
            r#"{a="b"} | json != "x" | logfmt !~ "y" | (json != "z")"#,
            r#"{a="b"} | json != "x" | logfmt !~ "y" | ( json!="z" )"#,
        ),
        (
            r#"{a="b"} | line_format `{{.x}} "q"` | label_format a=b,c="{{.d}}""#,
            r#"{a="b"} | line_format "{{.x}} \"q\"" | label_format a=b,c="{{.d}}""#,
        ),
        (r#"{a="b"} | drop x, y="z" | keep w, v=~"u""#, r#"{a="b"} | drop x,y="z" | keep w,v=~"u""#),
        (r#"{a="b"} | a="x" OR b="y" AND c="z""#, r#"{a="b"} | ( a="x" or ( b="y" and c="z" ) )"#),
        (r#"rate({a="b"}[90s])"#, r#"rate({a="b"} [1m30s])"#),
        (r#"rate({a="b"}[1m] |= "x" offset 5m)"#, ""),
        (r#"rate({a="b"}[1m] offset 5m |= "x" | json)"#, r#"rate({a="b"} |= "x" | json [1m] offset 5m)"#),
        (r#"rate(({a="b"} |= "x")[1m] offset -1h30m)"#, r#"rate({a="b"} |= "x" [1m] offset -1h30m)"#),
        (
            r#"sum_over_time({a="b"} | unwrap duration(x) | __error__="" [1d])"#,
            r#"sum_over_time({a="b"} | unwrap duration(x) | __error__="" [1d])"#,
        ),
        (
            r#"max_over_time({a="b"} | unwrap duration [1m])"#,
            r#"max_over_time({a="b"} | unwrap duration [1m])"#,
        ),
        (
            r#"quantile_over_time(0.99, {a="b"} | json | unwrap x [5m]) by (h, i)"#,
            r#"quantile_over_time(0.99,{a="b"} | json | unwrap x [5m]) by (h,i)"#,
        ),
        (r#"sum by (x) (rate({a="b"}[1m]))"#, r#"sum by (x) (rate({a="b"} [1m]))"#),
        (r#"sum(rate({a="b"}[1m])) without (x,y)"#, r#"sum without (x,y) (rate({a="b"} [1m]))"#),
        (r#"topk(3, sum(rate({a="b"}[1m])) by (x))"#, r#"topk(3,sum by (x) (rate({a="b"} [1m])))"#),
        ("1 + 2 * 3 ^ 4 ^ 5 - -6", "((1 + (2 * (3 ^ (4 ^ 5)))) - -6)"),
        (r#"vector(1) > bool 2 or vector(-3)"#, "((vector(1) > bool 2) or vector(-3))"),
        (
            r#"rate({a="b"}[1m]) / on (x, y) group_left (z) rate({c="d"}[1m])"#,
            r#"(rate({a="b"} [1m]) / on (x,y) group_left (z) rate({c="d"} [1m]))"#,
        ),
        (r#"rate({a="b"}[1m]) / ignoring () group_right () (vector(1) + 1)"#, ""),
        (r#"rate({a="b"}[1m]) and on () vector(1)"#, r#"(rate({a="b"} [1m]) and on () vector(1))"#),
        (r#"rate({a="b"}[1m]) == 1 != 2"#, r#"((rate({a="b"} [1m]) == 1) != 2)"#),
        (
            r#"label_replace(vector(1), "a", "$1", "b", "(.*)")"#,
            r#"label_replace(vector(1),"a","$1","b","(.*)")"#,
        ),
        ("{a=\"tab\\t nul\\x00 quote\\\" \\u00e9\"}", "{a=\"tab\\t nul\\x00 quote\\\" é\"}"),
    ] {
        if want.is_empty() {
            // Only that it parses and reads back, or fails: see `invalid`.
            if let Ok(expr) = parse(text) {
                canonical(&expr.to_string());
            }
            continue;
        }
        assert_eq!(canonical(text), want, "{text}");
    }
}

#[test]
fn invalid() {
    let at = |line: u32, col: u32, rest: &str| format!("parse error at line {line}, col {col}: {rest}");
    for (text, want) in [
        ("", at(1, 1, "syntax error: unexpected $end")),
        ("{", at(1, 2, "syntax error: unexpected $end, expecting IDENTIFIER or }")),
        ("{a}", at(1, 3, "syntax error: unexpected }, expecting = or =~ or !~ or !=")),
        ("{a=b}", at(1, 4, "syntax error: unexpected IDENTIFIER, expecting STRING")),
        ("{a=\"b\"", at(1, 7, "syntax error: unexpected $end, expecting } or ,")),
        ("{a=\"b\" c=\"d\"}", at(1, 8, "syntax error: unexpected IDENTIFIER, expecting } or ,")),
        ("{a=\"b}", at(1, 4, "literal not terminated")),
        ("{a=`b}", at(1, 4, "literal not terminated")),
        ("{a=\"\\q\"}", at(1, 4, "syntax error: invalid escape \\q in string")),
        ("{}", at(1, 1, "queries require at least one regexp or equality matcher")),
        ("{a=~\".*\"}", at(1, 1, "queries require at least one regexp or equality matcher")),
        ("{a!=\"b\"}", at(1, 1, "queries require at least one regexp or equality matcher")),
        ("{a=\"b\"} |= x", at(1, 12, "syntax error: unexpected IDENTIFIER, expecting STRING")),
        ("{a=\"b\"}\n  |= \n  5", at(3, 3, "syntax error: unexpected NUMBER, expecting STRING")),
        ("{a=\"b\"} |~ ip(\"1.2.3.4\")", at(1, 12, "syntax error: unexpected ip, expecting STRING")),
        ("{a=\"b\"} |", at(1, 10, "syntax error: unexpected $end")),
        ("{a=\"b\"} | foo", at(1, 14, "syntax error: unexpected $end")),
        ("{a=\"b\"} | x > \"y\"", at(1, 13, "syntax error: unexpected >, expecting = or =~ or !~ or !=")),
        ("{a=\"b\"} | x =~ 5", at(1, 16, "syntax error: unexpected NUMBER, expecting STRING")),
        (
            "{a=\"b\"} | x > by",
            at(1, 15, "syntax error: unexpected by, expecting BYTES or STRING or NUMBER or DURATION"),
        ),
        ("{a=\"b\"} | logfmt --nope", at(1, 18, "syntax error: unexpected PARSER_FLAG")),
        ("{a=\"b\"} | label_format a=\"x\",a=\"y\"", at(1, 30, "multiple label name 'a' not allowed")),
        ("{a=\"b\"} | unwrap x", at(1, 9, "syntax error: unexpected |")),
        ("{a=\"b\"}[5m]", at(1, 8, "syntax error: unexpected [")),
        ("rate({a=\"b\"})", at(1, 13, "syntax error: unexpected ), expecting RANGE")),
        ("rate({a=\"b\"}[5])", at(1, 14, "syntax error: unexpected NUMBER, expecting RANGE")),
        ("rate({a=\"b\"}[0s])", at(1, 14, "syntax error: unexpected DURATION, expecting RANGE")),
        ("rate({a=\"b\"}[5m]", at(1, 17, "syntax error: unexpected $end, expecting )")),
        ("rate({a=\"b\"}[5m]) offset 5m", at(1, 19, "syntax error: unexpected offset")),
        ("rate({a=\"b\"}[5m]) by (x)", at(1, 1, "grouping not allowed for rate aggregation")),
        ("sum_over_time({a=\"b\"}[5m])", at(1, 1, "invalid aggregation sum_over_time without unwrap")),
        (
            "count_over_time({a=\"b\"} | unwrap x [5m])",
            at(1, 1, "invalid aggregation count_over_time with unwrap"),
        ),
        ("sum_over_time({a=\"b\"} | unwrap x | json [5m])", at(1, 41, "syntax error: unexpected [")),
        (
            "quantile_over_time({a=\"b\"} | unwrap x [5m])",
            at(1, 1, "parameter required for operation quantile_over_time"),
        ),
        ("rate(2, {a=\"b\"}[5m])", at(1, 1, "parameter not supported for operation rate")),
        ("topk(rate({a=\"b\"}[5m]))", at(1, 6, "parameter required for operation topk")),
        ("topk(0, rate({a=\"b\"}[5m]))", at(1, 6, "invalid parameter (must be greater than 0) topk(")),
        ("sum(2, rate({a=\"b\"}[5m]))", at(1, 5, "unsupported parameter for operation sum(")),
        ("sort(vector(1)) by (x)", at(1, 6, "sort and sort_desc doesn't allow grouping by")),
        ("sum({a=\"b\"})", at(1, 12, "syntax error: unexpected )")),
        ("foo(1)", at(1, 1, "syntax error: unexpected IDENTIFIER")),
        ("1 +", at(1, 4, "syntax error: unexpected $end")),
        ("1 + bool 2", at(1, 5, "syntax error: unexpected bool")),
        ("1 and vector(1)", at(1, 3, "unexpected literal for binary operation 'and'")),
        ("vector(1) and on (a) group_left vector(2)", at(1, 22, "no grouping allowed for 'and' operation")),
        ("1 1", at(1, 3, "syntax error: unexpected NUMBER")),
        ("{a=\"b\"} | x > 1e999", at(1, 15, "syntax error: bad number \"1e999\"")),
        ("{a=\"b\"} $", at(1, 9, "syntax error: unexpected character '$'")),
        ("{a=\"b\"} | x > 5zz", at(1, 15, "syntax error: bad number \"5zz\"")),
        ("{a=\"b\"} |~ \"(\"", "parse error : error parsing regexp".to_owned()),
        ("{a=\"b\"} |~ \"((a{0,1000}){0,1000}){0,1000}\"", "parse error : error parsing regexp".to_owned()),
        ("{a=~\"(\"}", at(1, 5, "regex")),
        ("{a=\"b\"} | regexp \"a\"", "parse error : at least one named capture must be supplied".to_owned()),
        ("{a=\"b\"} | pattern \"a\"", "parse error : invalid pattern".to_owned()),
        ("{a=\"b\"} | pattern \"<a><b>\"", "parse error : invalid pattern".to_owned()),
        ("{a=\"b\"} |> \"<a> x\"", "parse error : invalid pattern".to_owned()),
        ("{a=\"b\"} | json x=\"a[\"", "parse error : cannot parse expression".to_owned()),
        ("{a=\"b\"} | line_format \"{{ .x\"", "parse error : invalid template: unclosed action".to_owned()),
        (
            "{a=\"b\"} | line_format \"{{ nope .x }}\"",
            "parse error : invalid template: function \"nope\" not defined".to_owned(),
        ),
        ("{a=\"b\"} |= ip(\"x\")", "parse error : ip: invalid pattern".to_owned()),
    ] {
        let e = parse(text).expect_err(text);
        assert!(e.message.starts_with(&want), "{text}\n got  {e}\n want {want}");
        assert_eq!(e.kind, triptych_model::Kind::Invalid);
    }
}

#[test]
fn selectors() {
    assert_eq!(parse_selector("{}").unwrap().len(), 0);
    assert_eq!(parse_selector(r#"{a=~"x|y",b!="c"}"#).unwrap().len(), 2);
    assert!(parse_selector(r#"{a="b"} |= "x""#).is_err());
    assert!(parse_selector("a").is_err());
}

#[test]
fn hostile_texts_are_bounded() {
    let deep = 100_000;
    for text in [
        "(".repeat(deep),
        format!("{}1", "(".repeat(deep / 2)),
        format!("{}{{a=\"b\"}}", "(".repeat(deep)),
        "sum(".repeat(deep / 4),
        format!("{{a=\"b\"}} | {}", "(".repeat(deep)),
        format!("1{}", "+1".repeat(deep / 2)),
        format!("1{}", "^1".repeat(deep / 2)),
        format!("{}1", "-".repeat(deep)),
        format!("{{a=\"b\"}} | line_format \"{}\"", "{{if .a}}".repeat(deep / 10)),
        format!("{{a=\"b\"}} | line_format \"{{{{{}\"", "(".repeat(deep)),
        format!("{{a=\"{}\"}}", "x".repeat(QUERY_BYTES_MAX)),
        format!("{{a=\"b\"}} |~ \"{}\"", "(".repeat(deep)),
    ] {
        assert!(parse(&text).is_err(), "{}", &text[..40]);
    }
    let chain = format!("1{}", "+1".repeat(OPERATORS_MAX));
    canonical_once(&chain);
    canonical_once(&format!("{}1{}", "(".repeat(NESTING_MAX - 1), ")".repeat(NESTING_MAX - 1)));
    // Many conditions side by side are fine.
    let wide =
        format!("{{a=\"b\"}} | x=\"0\"{}", (1..2000).map(|i| format!(" or x=\"{i}\"")).collect::<String>());
    assert!(parse(&wide).is_ok());
}

fn canonical_once(text: &str) {
    parse(text).unwrap_or_else(|e| panic!("{e}")).to_string();
}

#[test]
fn units() {
    for (text, ns) in [
        ("1h30m", Some(5_400_000_000_000)),
        ("1.5s", Some(1_500_000_000)),
        ("10µs", Some(10_000)),
        ("2d", Some(172_800_000_000_000)),
        ("1w", Some(604_800_000_000_000)),
        ("-5ms", Some(-5_000_000)),
        ("0", Some(0)),
        ("5", None),
        ("", None),
        ("s", None),
        ("5m3", None),
        ("99999999999h", None),
        ("1.2.3s", None),
    ] {
        assert_eq!(parse_duration_ns(text), ns, "{text}");
    }
    for (text, bytes) in [
        ("10KB", Some(10_000)),
        ("10 KiB", Some(10_240)),
        ("1.5mb", Some(1_500_000)),
        ("3k", Some(3_000)),
        ("42", Some(42)),
        ("1,024B", Some(1024)),
        ("x", None),
        ("5 parsecs", None),
        ("-5KB", None),
        ("999999EB", None),
    ] {
        assert_eq!(parse_bytes(text), bytes, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn parse_never_panics(text in "\\PC{0,80}") {
        let _ = parse(&text);
        let _ = parse_selector(&text);
    }

    /// Words of the language in any order come closer to the grammar's corners.
    #[test]
    fn parse_never_panics_on_words(words in proptest::collection::vec(prop::sample::select(WORDS), 0..24)) {
        if let Ok(expr) = parse(&words.join(" ")) {
            let out = expr.to_string();
            prop_assert_eq!(parse(&out).unwrap(), expr, "{}", out);
        }
    }

    #[test]
    fn display_round_trip(
        value in "\\PC{0,12}|[\\x00-\\x7f]{0,6}",
        stages in proptest::collection::vec(0usize..STAGES.len(), 0..5),
        agg in 0usize..AGGREGATIONS.len(),
        range in 1i64..10_000_000_000_000,
    ) {
        let quoted = super::display::quote(&value);
        let mut log = format!("{{app=\"x\", v!={quoted}}} |= {quoted}");
        for stage in stages {
            log.push(' ');
            log.push_str(STAGES[stage]);
        }
        let text = AGGREGATIONS[agg].replace("LOG", &log).replace("RANGE", &format_duration_ns(range));
        let expr = parse(&text).unwrap();
        let out = expr.to_string();
        prop_assert_eq!(parse(&out).unwrap(), expr, "{}", out);
    }

    #[test]
    fn durations_round_trip(ns in i64::MIN + 1..i64::MAX) {
        prop_assert_eq!(parse_duration_ns(&format_duration_ns(ns)), Some(ns));
    }

    #[test]
    fn bytes_round_trip(bytes in 0u64..1 << 53) {
        prop_assert_eq!(parse_bytes(&format_bytes(bytes)), Some(bytes));
    }
}

const WORDS: &[&str] = &[
    "{a=\"b\"}",
    "{",
    "}",
    "(",
    ")",
    "[5m]",
    "|",
    "|=",
    "!=",
    "|~",
    "\"x\"",
    "`y`",
    "or",
    "and",
    "unless",
    "json",
    "logfmt",
    "unwrap",
    "x",
    "duration(",
    "bytes(",
    "ip(",
    "=",
    "==",
    ">",
    "<=",
    "5",
    "5s",
    "5KB",
    "1.5",
    "-",
    "+",
    "*",
    "^",
    "rate(",
    "sum(",
    "sum",
    "by (x)",
    "without (y)",
    "topk(",
    "3,",
    "quantile_over_time(",
    "0.5,",
    "offset",
    "1h",
    "bool",
    "on (x)",
    "group_left",
    "vector(1)",
    "label_replace(",
    ",",
    "drop",
    "keep",
    "--strict",
    "line_format",
    "label_format",
    "x=y",
    "count_over_time({a=\"b\"}[1m])",
    "#",
    "__error__=\"\"",
];

const STAGES: &[&str] = &[
    "| json",
    "| json a=\"b.c[0]\", d",
    "| logfmt --strict",
    "| logfmt a=\"b\"",
    "| regexp `(?P<x>\\d+)`",
    "| pattern `<a> <_> <b>`",
    "| unpack",
    "| a > 5 or b = 10KB and c != \"x\"",
    "| ( a > 1.5s , b=~\"x\" ) or c = ip(\"10.0.0.1\")",
    "| line_format `{{ .a | upper }}`",
    "| label_format a=b,c=`{{.d}}`",
    "| decolorize",
    "| drop a,b=\"c\"",
    "| keep a,b=~\"c\"",
    "!= \"x\" or \"y\"",
    "|> \"<_>x<_>\"",
];

const AGGREGATIONS: &[&str] = &[
    "LOG",
    "rate(LOG [RANGE])",
    "count_over_time(LOG [RANGE] offset 1h)",
    "sum_over_time(LOG | unwrap bytes(x) | __error__=\"\" [RANGE])",
    "max_over_time(LOG | unwrap x [RANGE]) without (y)",
    "sum by (a,b) (rate(LOG [RANGE]))",
    "topk(5, sum(bytes_rate(LOG [RANGE])) by (x))",
    "rate(LOG [RANGE]) / ignoring (x) group_left (y) sum(rate(LOG [RANGE])) > bool 5",
    "label_replace(rate(LOG [RANGE]), \"a\", \"$1\", \"b\", \"(.*)\") or vector(0)",
];
