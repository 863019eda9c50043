use triptych_model::Labels;

use crate::{LogLeaf, SampleLeaf};

fn base() -> Labels {
    Labels::from_pairs([("app", "web"), ("env", "prod")])
}

/// Line and labels (stream | metadata | parsed) after the pipeline; `-` where the line does not pass.
fn run(expr: &str, line: &str) -> String {
    let leaf = LogLeaf::compile(expr).unwrap_or_else(|e| panic!("{expr}: {e}"));
    let mut pipeline = leaf.pipeline().for_stream(&base());
    let metadata = [("trace_id", "abc"), ("user", "7")];
    let show = |p: Option<crate::Processed<'_>>| match p {
        Some(p) => format!("{} {} | {} | {}", p.line, p.labels, p.metadata, p.parsed),
        None => "-".to_owned(),
    };
    let first = show(pipeline.process(1_700_000_000_123_456_789, line, metadata));
    // Nothing of one line may be left for the next.
    pipeline.process(1, "other {\"a\":1} b=2", []);
    let again = show(pipeline.process(1_700_000_000_123_456_789, line, metadata));
    assert_eq!(first, again, "{expr}");
    first
}

const SAME: &str = r#"{app="web", env="prod"} | {trace_id="abc", user="7"} | "#;

/// Where stream labels and metadata are as they were: only the parsed labels and the line.
#[track_caller]
fn check(stages: &str, line: &str, want: &str) {
    let got = run(&format!("{{app=\"web\"}} {stages}"), line);
    let short = match got.strip_prefix(line).map(str::trim_start).and_then(|g| g.strip_prefix(SAME)) {
        Some(parsed) => parsed.to_owned(),
        None => got.replacen(SAME, "", 1),
    };
    assert_eq!(short, want, "{stages} on {line}");
}

#[test]
fn line_filters() {
    let pass = "{}";
    check("", "x", pass);
    check(r#"|= "err""#, "an error", pass);
    check(r#"|= "err""#, "fine", "-");
    check(r#"|= """#, "fine", pass);
    check(r#"!= """#, "fine", "-");
    check(r#"|= "a" |= "b""#, "ab", pass);
    check(r#"|= "a" |= "b""#, "a", "-");
    check(r#"|= "a" or "b""#, "b", pass);
    check(r#"!= "a" or "b""#, "b", "-");
    check(r#"!= "a" or "b""#, "c", pass);
    check(r#"|~ "e.r""#, "xerr", pass);
    check(r#"|~ "(?i)ERROR""#, "an Error", pass);
    check(r#"|~ "foo|bar""#, "a bar", pass);
    check(r#"|~ ".*foo.*""#, "a foo!", pass);
    check(r#"!~ "foo|bar""#, "a bar", "-");
    check(r#"|~ "{\"a\"""#, r#"{"a":1}"#, pass);
    check(r#"|~ `\d{3}`"#, "12", "-");
    check(r#"|~ `^\w+ \d{3}$`"#, "ab 123", pass);
    check(r#"|= ip("10.0.0.0/8")"#, "from 10.1.2.3:80 ok", pass);
    check(r#"|= ip("10.0.0.0/8")"#, "from 11.1.2.3 ok", "-");
    check(r#"!= ip("10.0.0.1-10.0.0.9")"#, "from 10.0.0.10", pass);
    check(r#"|= ip("2001:db8::/32")"#, "peer 2001:db8::1, bye", pass);
    check(r#"|> "<_> took <_>ms""#, "GET took 12ms", pass);
    check(r#"|> "<_> took <_>ms""#, "GET took 12s", "-");
    check(r#"!> "<_> took <_>""#, "GET took 12s", "-");
}

#[test]
fn json() {
    check(
        "| json",
        r#"{"a":"x","b":{"c":1.5,"d":[1]},"e":null,"f":true}"#,
        r#"{a="x", b_c="1.5", f="true"}"#,
    );
    check(
        "| json",
        r#"{"app":"y","user":"8"}"#,
        r#"{"app":"y","user":"8"} {app="web", env="prod"} | {trace_id="abc"} | {app_extracted="y", user="8"}"#,
    );
    check("| json", r#"{"a-b":"\u00e9\n\ud83d\ude00","1x":2}"#, "{_1x=\"2\", a_b=\"é\\n😀\"}");
    check(
        "| json",
        r#"{"a":1,"#,
        r#"{__error__="JSONParserErr", __error_details__="a key is missing", a="1"}"#,
    );
    check("| json", "plain", r#"{__error__="JSONParserErr", __error_details__="not an object"}"#);
    check(
        r#"| json first="b[1].c", ua="h[\"u-a\"]", o="b[0]", none="x.y""#,
        r#"{"b":[{"z":1},{"c":"v"}],"h":{"u-a":"m"}}"#,
        r#"{first="v", o="{\"z\":1}", ua="m"}"#,
    );
    check(r#"| json | a="1""#, r#"{"a":1,"a":2}"#, r#"{a="1"}"#);
}

#[test]
fn logfmt() {
    check("| logfmt", r#"a=1 b="x \"y\"" c= d level=info"#, r#"{a="1", b="x \"y\"", level="info"}"#);
    check("| logfmt", r#"a=1 =x "y" b=2"#, r#"{a="1", b="2"}"#);
    check(
        "| logfmt --strict",
        r#"a=1 =x b=2"#,
        r#"{__error__="LogfmtParserErr", __error_details__="logfmt syntax error at pos 5 : unexpected '='", a="1"}"#,
    );
    check(r#"| logfmt x="a", b"#, "a=1 b=2 c=3", r#"{b="2", x="1"}"#);
}

#[test]
fn other_parsers() {
    check(
        r#"| regexp `(?P<method>\w+) (?P<path>\S+) (?P<none>x)?`"#,
        "GET /a ",
        r#"{method="GET", path="/a"}"#,
    );
    check(r#"| regexp `(?P<method>\d+)`"#, "GET", "{}");
    check(
        r#"| pattern `<ip> - <_> "<method> <path>" <rest>`"#,
        r#"1.2.3.4 - u "GET /a" 200"#,
        r#"{ip="1.2.3.4", method="GET", path="/a", rest="200"}"#,
    );
    check(r#"| pattern `[<a>] <b>`"#, "x [1] 2", "{}");
    check(
        "| unpack",
        r#"{"pod":"p1","app":"z","n":1,"_entry":"real line"}"#,
        r#"real line {app_extracted="z", pod="p1"}"#,
    );
    check("| unpack", r#"{"pod":"p1"}"#, "{}");
    check("| decolorize", "\u{1b}[31mred\u{1b}[0m x", "red x {}");
}

#[test]
fn label_filters() {
    let line = "status=404 took=1.5s size=10KB ip=10.0.0.9";
    let all = r#"{ip="10.0.0.9", size="10KB", status="404", took="1.5s"}"#;
    for (filter, passes) in [
        ("status >= 400", true),
        ("status == 404", true),
        ("status = 404", true),
        ("status != 404", false),
        ("took > 1s", true),
        ("took > 1s and status < 400", false),
        ("took > 1s or status < 400", true),
        ("took > 1s, size >= 10KB", true),
        ("took > 1s size > 10KB", false),
        ("( took > 1s and status < 400 ) or size = 10KB", true),
        (r#"ip = ip("10.0.0.0/24")"#, true),
        (r#"ip != ip("10.0.0.0/24")"#, false),
        (r#"status =~ "4..""#, true),
        (r#"status !~ "4..""#, false),
        (r#"absent = """#, true),
        ("absent > 1", false),
        (r#"trace_id = "abc""#, true),
        (r#"app = "web""#, true),
        ("took > -1s", true),
    ] {
        check(&format!("| logfmt | {filter}"), line, if passes { all } else { "-" });
    }
    check(
        "| logfmt | status > 1",
        "status=x",
        r#"{__error__="LabelFilterErr", __error_details__="label status: \"x\" is not a number", status="x"}"#,
    );
    check(r#"| logfmt | status > 1 | __error__="""#, "status=x", "-");
    // A line that did not parse has no such label, so it goes.
    check("| json | status > 1", "no object", "-");
    check("| json | status > 1 or took > 1s", "no object", "-");
}

#[test]
fn formats() {
    check("| logfmt | line_format `{{.a}}-{{.app}}`", "a=1", r#"1-web {a="1"}"#);
    check("| logfmt | line_format `x{{.a}}` |= `x1`", "a=1", r#"x1 {a="1"}"#);
    check(
        "| label_format host=app,up=`{{.app | ToUpper}}`",
        "l",
        r#"l {env="prod", host="web"} | {trace_id="abc", user="7"} | {}"#,
    );
    check(
        "| logfmt | drop a, b=`2`, app",
        "a=1 b=2 c=3",
        r#"a=1 b=2 c=3 {env="prod"} | {trace_id="abc", user="7"} | {c="3"}"#,
    );
    check("| logfmt | keep a, app, user", "a=1 b=2", r#"a=1 b=2 {app="web"} | {user="7"} | {a="1"}"#);
    check("| json | drop __error__, __error_details__", "x", "{}");
    check(
        "| line_format `{{ div 1 0 }}`",
        "x",
        r#"{__error__="TemplateFormatErr", __error_details__="div: integer overflow or division by zero"}"#,
    );
}

#[test]
fn samples() {
    let check = |expr: &str, line: &str, want: Option<(f64, &str)>| {
        let leaf = SampleLeaf::compile(expr).unwrap_or_else(|e| panic!("{expr}: {e}"));
        let mut extractor = leaf.for_stream(&base());
        for _ in 0..2 {
            let got = extractor.process(1, line, [("trace_id", "abc")]);
            let got = got.map(|(v, l)| (v, l.to_string()));
            assert_eq!(got, want.map(|(v, l)| (v, l.to_owned())), "{expr}");
        }
    };
    let all = r#"{app="web", env="prod", trace_id="abc"}"#;
    check(r#"rate({app="web"}[1m])"#, "abc", Some((1.0, all)));
    check(r#"sum(bytes_over_time({app="web"}[1m]))"#, "abc", Some((3.0, "{}")));
    check(r#"sum by (env) (rate({app="web"} |= "b" [1m]))"#, "abc", Some((1.0, r#"{env="prod"}"#)));
    check(r#"sum by (env) (rate({app="web"} |= "x" [1m]))"#, "abc", None);
    // Only a sum may be grouped early.
    check(r#"max by (env) (rate({app="web"}[1m]))"#, "abc", Some((1.0, all)));
    check(r#"sum by (a) (rate({app="web"} | json [1m]))"#, r#"{"a":"x","b":1}"#, Some((1.0, r#"{a="x"}"#)));
    check(r#"sum(rate({app="web"} | json [1m]))"#, "no json", Some((1.0, "{}")));
    check(
        r#"sum_over_time({app="web"} | logfmt | unwrap t [1m])"#,
        "t=1.5 u=2",
        Some((1.5, r#"{app="web", env="prod", trace_id="abc", u="2"}"#)),
    );
    check(r#"sum_over_time({app="web"} | logfmt | unwrap t [1m])"#, "u=2", None);
    check(
        r#"avg_over_time({app="web"} | logfmt | unwrap duration(t) [1m]) by (app)"#,
        "t=1500ms",
        Some((1.5, r#"{app="web"}"#)),
    );
    check(
        r#"avg_over_time({app="web"} | logfmt | unwrap bytes(t) [1m]) by (app)"#,
        "t=1KiB",
        Some((1024.0, r#"{app="web"}"#)),
    );
    check(
        r#"avg_over_time({app="web"} | logfmt | unwrap t [1m]) by (app)"#,
        "t=z",
        Some((
            0.0,
            r#"{__error__="SampleExtractionErr", __error_details__="label t: \"z\" cannot be converted to a sample", app="web", env="prod", t="z", trace_id="abc"}"#,
        )),
    );
    check(r#"avg_over_time({app="web"} | logfmt | unwrap t | __error__="" [1m]) by (app)"#, "t=z", None);
    check(r#"sum without (env, trace_id) (rate({app="web"}[1m]))"#, "x", Some((1.0, r#"{app="web"}"#)));
}

#[test]
fn prefilter() {
    let check = |stages: &str, block: &str, may: bool| {
        let leaf = LogLeaf::compile(&format!("{{app=\"web\"}} {stages}")).unwrap();
        let got = leaf.prefilter().is_none_or(|f| f.may_match(block.as_bytes()));
        assert_eq!(got, may, "{stages} on {block}");
    };
    let block = "\0\x05hello\0\x05World error 404\0";
    check("", block, true);
    check(r#"|= "hello""#, block, true);
    check(r#"|= "nothere""#, block, false);
    check(r#"|= "hello" |= "nothere""#, block, false);
    check(r#"|= "nothere" or "World""#, block, true);
    check(r#"!= "hello""#, block, true);
    check(r#"|~ "err.r|fatal""#, block, true);
    check(r#"|~ "fatal|panic""#, block, false);
    check(r#"|~ "(?i)WORLD""#, block, true);
    check(r#"|~ "(?i)MOON""#, block, false);
    check(r#"|~ "x?y*""#, block, true);
    check(r#"|~ `code=\d+ panic`"#, block, false);
    check(r#"|> "<_>nothere<_>""#, block, false);
    check(r#"| json |= "nothere""#, block, false);
    check(r#"| line_format `nothere` |= "nothere""#, block, true);
}

mod properties {
    use proptest::prelude::*;

    use super::*;
    use crate::pipeline::regexes;

    const EXPRS: &[&str] = &[
        "| json",
        r#"| json a="x.y[0]", b="c""#,
        "| logfmt",
        "| logfmt --strict --keep-empty",
        r#"| logfmt a, b="c""#,
        "| regexp `(?P<a>\\w+)[ =](?P<b>.*)`",
        "| pattern `<a> <b>=<c>`",
        "| unpack | logfmt",
        "| decolorize | json | logfmt",
        "| json | a > 5 or b = 10KB or c < 3s",
        "| logfmt | line_format `{{.a}} {{ . }}` | json | drop a | keep b",
        r#"|= ip("10.0.0.0/8") or "a" |~ "(?i)b|c" |> "<_>a<_>b""#,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn pipelines_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "[ab =\\\\\"{}\\[\\]:,0-9.u\\x1b\\[mé-]{0,60}") {
            for expr in EXPRS {
                let leaf = LogLeaf::compile(&format!("{{app=\"web\"}} {expr}")).unwrap();
                let mut pipeline = leaf.pipeline().for_stream(&base());
                pipeline.process_bytes(1, &bytes, []);
                pipeline.process(2, &text, [("a", "b")]);
            }
        }

        #[test]
        fn json_agrees_with_serde(value in json_object()) {
            // Flat and nested fields by another reader; names are made so that none collide.
            let text = value.to_string();
            let mut want = Vec::new();
            flatten("", &value, &mut want);
            let leaf = LogLeaf::compile("{app=\"web\"} | json").unwrap();
            let mut pipeline = leaf.pipeline().for_stream(&base());
            let got = pipeline.process(0, &text, []).unwrap();
            prop_assert_eq!(got.parsed, Labels::from_pairs(want), "{}", text);
            // Cut anywhere, it is an error and no panic.
            for cut in (1..text.len()).filter(|i| text.is_char_boundary(*i)) {
                let got = pipeline.process(0, &text[..cut], []).unwrap();
                prop_assert_eq!(got.parsed.get("__error__"), Some("JSONParserErr"), "{}", &text[..cut]);
            }
        }

        /// Extracting only what is read finds the same as extracting everything.
        #[test]
        fn needs_change_nothing(value in json_object()) {
            let names = ["f", "g_a", "h", "h_b_c", "i", "app_extracted", "user"];
            let text = value.to_string();
            let all = LogLeaf::compile("{app=\"web\"} | json").unwrap();
            let mut all = all.pipeline().for_stream(&base());
            let metadata = [("user", "7"), ("h", "metadata")];
            let got = all.process(0, &text, metadata).unwrap();
            let mut want = got.metadata.to_builder();
            got.parsed.iter().for_each(|(n, v)| { want.set(n, v); });
            let want = want.build().filter(|n| names.contains(&n));
            let expr = format!("sum by ({}) (count_over_time({{app=\"web\"}} | json [1m]))", names.join(","));
            let leaf = SampleLeaf::compile(&expr).unwrap();
            let (_, labels) = leaf.for_stream(&base()).process(0, &text, metadata).unwrap();
            prop_assert_eq!(labels, want, "{}", text);
        }

        /// What a prefilter rules out, the line filters refuse.
        #[test]
        fn prefilters_are_sound(lines in proptest::collection::vec("[abAB k]{0,8}", 1..6), pattern in "(\\(\\?i\\))?[abAB]{1,3}(\\||\\.\\*|[ab]\\+)?[abAB]{0,2}") {
            for expr in [format!("|~ `{pattern}`"), format!("|= `{}`", &pattern[pattern.len() - 1..]), format!("|~ `{pattern}` or `k`")] {
                let leaf = LogLeaf::compile(&format!("{{app=\"web\"}} {expr}")).unwrap();
                let block = lines.join("\u{1}");
                let pipeline = leaf.pipeline();
                let any = lines.iter().any(|l| pipeline.line_may_pass(l));
                if let Some(filter) = leaf.prefilter() {
                    prop_assert!(!any || filter.may_match(block.as_bytes()), "{} {:?}", expr, lines);
                }
            }
        }

        /// The shortcut for regexes that only look for texts answers as the regex does.
        #[test]
        fn literal_regexes_are_exact(line in "[abAB.]{0,8}", pattern in "(\\(\\?i\\))?(\\.\\*)?[abAB]{1,3}(\\|[abAB]{1,2})?(\\.\\*)?") {
            let leaf = LogLeaf::compile(&format!("{{app=\"web\"}} |~ `{pattern}`")).unwrap();
            let want = regexes::compile(&pattern).unwrap().is_match(&line);
            prop_assert_eq!(leaf.pipeline().line_may_pass(&line), want, "{} {}", pattern, line);
        }

        #[test]
        fn regex_translation_never_panics(pattern in "[\\[\\]{}()\\\\a-c0-9,QEdwsb^$.*+?&|:-]{0,20}") {
            let _ = regexes::compile(&pattern);
            let _ = regexes::required(&pattern);
            let _ = regexes::only_literals(&pattern);
        }
    }

    fn json_object() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            "\\PC{0,8}|[\"\\\\\n\t/é😀]{0,4}".prop_map(Into::into),
        ];
        let value = leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(serde_json::Value::Array),
                proptest::collection::btree_map("[a-e]", inner, 0..4)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        });
        proptest::collection::btree_map("[f-j]", value, 0..5)
            .prop_map(|m| serde_json::Value::Object(m.into_iter().collect()))
    }

    fn flatten(prefix: &str, value: &serde_json::Value, out: &mut Vec<(String, String)>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}_{key}") };
                    flatten(&name, value, out);
                }
            }
            serde_json::Value::Null | serde_json::Value::Array(_) => {}
            serde_json::Value::String(text) => out.push((prefix.to_owned(), text.clone())),
            other => out.push((prefix.to_owned(), other.to_string())),
        }
    }
}

#[test]
fn regex_dialect() {
    use crate::pipeline::regexes::compile;
    let check = |pattern: &str, yes: &[&str], no: &[&str]| {
        let regex = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        yes.iter().for_each(|t| assert!(regex.is_match(t), "{pattern} {t}"));
        no.iter().for_each(|t| assert!(!regex.is_match(t), "{pattern} {t}"));
    };
    check(r#"{"a":1}"#, &[r#"{"a":1}"#], &["a"]);
    check("a{2}", &["aa"], &["a"]);
    check("a{2,}b{1,2}", &["aab"], &["ab"]);
    check("a{,2}", &["a{,2}"], &["aa"]);
    check("x{foo}", &["x{foo}"], &["xfoo"]);
    check(r"\p{Greek}\x{41}", &["αA"], &["aA"]);
    check(r"^\d+$", &["123"], &["١٢٣"]);
    check(r"^\w$", &["a", "_"], &["é"]);
    check(r"^[\w.]+$", &["a.b"], &["é"]);
    check(r"^[^\d]$", &["a"], &["1"]);
    check(r"[[]", &["["], &["]"]);
    check(r"^[]a]+$", &["]a"], &["["]);
    check(r"^[[:alpha:]_]+$", &["a_"], &["1"]);
    check(r"^[a&&b]+$", &["a&b"], &["c"]);
    check(r"\Qa.b\E.", &["a.bx"], &["axbx", "a.b"]);
    check(r"(?i)abc", &["ABC"], &["AB"]);
    check(r"\bfoo\b", &["a foo b"], &["afoob"]);
    check(r"\101", &["A"], &["101"]);
    check("}", &["}"], &["x"]);
}

#[test]
fn parsers_extract_what_is_read() {
    // Names that nobody reads are not extracted; a stream's own names go by another one.
    let leaf = SampleLeaf::compile(r#"sum by (a, app_extracted) (rate({app="web"} | json [1m]))"#).unwrap();
    let mut extractor = leaf.for_stream(&base());
    let (_, labels) = extractor.process(0, r#"{"x":1,"app":"q","a":"v","b":{"a":2}}"#, []).unwrap();
    assert_eq!(labels.to_string(), r#"{a="v", app_extracted="q"}"#);
    // The parser stops when it has all it wants: damage behind that is not seen, as in Loki.
    let leaf = SampleLeaf::compile(r#"sum by (a) (rate({app="web"} | json [1m]))"#).unwrap();
    let (_, labels) = leaf.for_stream(&base()).process(0, r#"{"a":"v", damaged"#, []).unwrap();
    assert_eq!(labels.to_string(), r#"{a="v"}"#);
    // Unless somebody asks for errors.
    let leaf = SampleLeaf::compile(r#"sum by (a) (rate({app="web"} | json | __error__="" [1m]))"#).unwrap();
    assert!(leaf.for_stream(&base()).process(0, r#"{"a":"v", damaged"#, []).is_none());
    // Of two parsers the first counts.
    check("| logfmt | line_format `{\"a\":2,\"b\":3}` | json", "a=1", r#"{"a":2,"b":3} {a="1", b="3"}"#);
    // Many fields.
    let many: String = (0..500).map(|i| format!("k{i}={i} ")).collect();
    let got = run(r#"{app="web"} | logfmt | k499="499" | k0="0" | drop k7 | keep k7, k8"#, &many);
    assert!(got.ends_with(r#"{} | {} | {k8="8"}"#), "{got}");
}

#[test]
fn hints() {
    let leaf = |e: &str| SampleLeaf::compile(e).unwrap();
    assert!(!leaf(r#"sum(rate({a="b"}[1m]))"#).needs_line());
    let stream = Labels::from_pairs([("a", "b")]);
    assert!(!leaf(r#"sum(rate({a="b"}[1m]))"#).for_stream(&stream).needs_metadata());
    assert!(!leaf(r#"sum by (a) (rate({a="b"} |= "x" [1m]))"#).for_stream(&stream).needs_metadata());
    assert!(leaf(r#"sum by (x) (rate({a="b"}[1m]))"#).for_stream(&stream).needs_metadata());
    assert!(leaf(r#"sum without (x) (rate({a="b"}[1m]))"#).for_stream(&stream).needs_metadata());
    assert!(leaf(r#"sum(bytes_rate({a="b"}[1m]))"#).needs_line());
    assert!(leaf(r#"sum(rate({a="b"} | x="y" [1m]))"#).for_stream(&stream).needs_metadata());
    assert!(LogLeaf::compile(r#"{a="b"}"#).unwrap().pipeline().is_noop());
    assert!(LogLeaf::compile(r#"{a="b"} |= "x""#).unwrap().pipeline().is_line_filters_only());
}
