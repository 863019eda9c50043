use proptest::prelude::*;
use triptych_model::Labels;

use super::{OUTPUT_BYTES_MAX, Template};
use crate::pipeline::labels::LineLabels;

fn render(template: &str) -> Result<String, String> {
    let mut labels = LineLabels::new(Labels::from_pairs([
        ("app", "web"),
        ("path", "/api v1"),
        ("json", r#"{"a":[1,2.5,"x"],"b":{"c":null},"n":3}"#),
        ("queries", r#"[{"q":"one"},{"q":"two"}]"#),
        ("n", "7"),
        ("html", "<a href='x'>\"&\"</a>"),
        ("epoch", "1679577215"),
    ]));
    labels.reset([("user", "7")]);
    let template = Template::parse(template).map_err(|e| e.to_string())?;
    let mut out = String::new();
    template.render(&labels, "the Line", 1_700_000_000_123_456_789, &mut out)?;
    Ok(out)
}

#[test]
fn templates() {
    for (template, want) in [
        ("plain", "plain"),
        ("{{.app}}-{{ .app }}-{{.absent}}-{{.user}}", "web-web--7"),
        ("a {{- .app -}} b", "awebb"),
        ("a {{/* nothing */}}b", "a b"),
        ("a {{- /* nothing */ -}} b", "ab"),
        (r#"{{ .path | replace " " "_" | trunc 5 | upper }}"#, "/API_"),
        (r#"{{ Replace .path " " "" -1 }}|{{ Replace "aaa" "a" "b" 2 }}"#, "/apiv1|bba"),
        ("{{ __line__ | lower }} {{ __line__ | ToUpper }}", "the line THE LINE"),
        (
            "{{ __timestamp__ | unixEpoch }} {{ __timestamp__ | unixEpochMillis }} {{unixEpochNanos __timestamp__}}",
            "1700000000 1700000000123 1700000000123456789",
        ),
        (r#"{{ __timestamp__ | date "2006-01-02T15:04:05.000Z07:00" }}"#, "2023-11-14T22:13:20.123Z"),
        (
            r#"{{ __timestamp__ | date "Mon, 2 Jan 06 3:04PM -0700 MST" }}"#,
            "Tue, 14 Nov 23 10:13PM +0000 UTC",
        ),
        ("{{ __timestamp__ }}", "2023-11-14 22:13:20.123456789 +0000 UTC"),
        (r#"{{ toDate "2006-01-02" "2021-11-02" | unixEpoch }}"#, "1635811200"),
        (
            r#"{{ "2021-11-02T10:00:00.5Z" | toDateInZone "2006-01-02T15:04:05.999999999Z" "UTC" | unixEpochMillis }}"#,
            "1635847200500",
        ),
        (r#"{{ date "2006-01-02" (unixToTime .epoch) }}"#, "2023-03-23"),
        (r#"{{ if eq .app "web" }}yes{{ else }}no{{ end }}"#, "yes"),
        (r#"{{ if eq .app "x" "web" }}yes{{ end }}{{ if ne .app "x" }}!{{end}}"#, "yes!"),
        (r#"{{ if contains "x" .app }}1{{ else if hasPrefix "we" .app }}2{{ else }}3{{ end }}"#, "2"),
        (r#"{{ if and (contains "he" "hello") (contains "llo" "hello") }} yes {{end}}"#, " yes "),
        (r#"{{ if or .absent (not .app) }}a{{ else }}b{{ end }}"#, "b"),
        ("{{ and .app .n }} {{ or .absent .n }}", "7 7"),
        ("{{ with .app }}[{{ . }}]{{ end }}{{ with .absent }}x{{ else }}none{{ end }}", "[web]none"),
        ("{{ with $x := .app }}{{ $x }}{{ end }}", "web"),
        ("{{ range $q := fromJson .queries }} {{ $q.q }} {{ end }}", " one  two "),
        ("{{ range $i, $q := fromJson .queries }}{{ $i }}={{ .q }};{{ end }}", "0=one;1=two;"),
        ("{{ range fromJson \"no json\" }}x{{ end }}", ""),
        ("{{ bytes \"20MB\" }} {{ mulf 1234567 1 }} {{ mulf 999999 1 }}", "2e+07 1.234567e+06 999999"),
        ("{{ printf \"%.9g %.3g\" 1234567.0 1234567.0 }}", "1234567 1.23e+06"),
        ("{{ range fromJson \"[]\" }}x{{ else }}empty{{ end }}", "empty"),
        ("{{ (fromJson .json).n }} {{ index (fromJson .json).a 2 }} {{ len .app }}", "3 x 3"),
        ("{{ fromJson .json }}", "map[a:[1 2.5 x] b:map[c:<nil>] n:3]"),
        ("{{ fromJson .app }}|", "<no value>|"),
        ("{{ $x := .app }}{{ $x = \"y\" }}{{ $x }}{{ $.app }}", "yweb"),
        (
            "{{ add 3 2 5 }} {{ sub 5 2 }} {{ mul 5 2 3 }} {{ div 10 3 }} {{ mod 10 3 }} {{ add .n 1 }}",
            "10 3 30 3 1 8",
        ),
        (
            "{{ addf 3.5 2 5 }} {{ subf 5.5 2 1.5 }} {{ mulf 5.5 2 2.5 }} {{ divf 10 2 4 }}",
            "10.5 2 27.5 1.25",
        ),
        ("{{ max 1 2 3 }} {{ min 1 2 3 }} {{ maxf 1 2.5 3 }} {{ minf 1.5 2 }}", "3 1 3 1.5"),
        (
            "{{ ceil 123.001 }} {{ floor 123.9999 }} {{ round 123.555555 3 }} {{ round 123.88571428571 5 .2 }}",
            "124 123 123.556 123.88572",
        ),
        (r#"{{ "3" | int }} {{ "3.5" | float64 }} {{ int "x" }}"#, "3 3.5 0"),
        (r#"{{ duration "1m30s" }} {{ bytes "2KB" }}"#, "90 2000"),
        (
            r#"{{ alignLeft 5 "hello world"}}|{{ alignLeft 5 "hi"}}|{{ alignRight 5 "hello world"}}|{{ alignRight 5 "hi"}}|"#,
            "hello|hi   |world|   hi|",
        ),
        (r#"{{ default "-" "" }}{{ default "-" "foo" }}{{ .absent | default "*" }}"#, "-foo*"),
        (r#"{{ b64enc "abc" }} {{ "YWJj" | b64dec }}"#, "YWJj abc"),
        (
            r#"{{ trim "  x " }}|{{ trimAll "$" "$5$" }}|{{ trimPrefix "-" "-h" }}|{{ trimSuffix "-" "h-" }}"#,
            "x|5|h|h",
        ),
        (
            r#"{{ Trim "xxaxx" "x" }}{{ TrimLeft "xa" "x" }}{{ TrimRight "ax" "x" }}{{ TrimPrefix "ab" "a" }}{{ TrimSuffix "ab" "b" }}"#,
            "aaaba",
        ),
        (
            r#"{{ regexReplaceAll "(a*)bc" "aabc" "${1}x" }} {{ regexReplaceAllLiteral "(ts=)" "ts=1" "$1" }}"#,
            "aax $11",
        ),
        (r#"{{ count "a|b" "abab" }}"#, "4"),
        (r#"{{ substr 2 5 "hello" }} {{ substr -1 2 "hello" }} {{ trunc -2 "hello" }}"#, "llo he lo"),
        (
            r#"{{ indent 2 "a" }}{{ nindent 1 "b" }}{{ repeat 3 "x" }}{{ title "hello world" }}"#,
            "  a\n bxxxHello World",
        ),
        (r#"{{ urlencode "a b&c" }} {{ urldecode "a+b%26c" }}"#, "a+b%26c a b&c"),
        ("{{ html .html }}", "&lt;a href=&#39;x&#39;&gt;&#34;&amp;&#34;&lt;/a&gt;"),
        (
            r#"{{ printf "%s|%5s|%-5s|%.2s|%q|%d|%05d|%x|%.2f|%v|%t|%%" "a" "b" "c" "def" "g" 5 42 255 1.005 1.5 true }}"#,
            "a|    b|c    |de|\"g\"|5|00042|ff|1.00|1.5|true|%",
        ),
        (r#"{{ printf "%-10.3s|%d" .path "x" }}"#, "/ap       |%!d(string=x)"),
        (r#"{{ print 1 2 "a" 3 }}"#, "1 2a3"),
        ("{{ lt 1 2 }} {{ ge 2.5 2.5 }} {{ gt \"a\" \"b\" }}", "true true false"),
        ("{{ 1e21 }} {{ 0.00001 }} {{ 100000.0 }}", "1e+21 1e-05 100000"),
        (r#"{{ "}}" }}"#, "}}"),
        (r#"{{ slice "hello" 1 3 }}"#, "el"),
    ] {
        assert_eq!(render(template).as_deref(), Ok(want), "{template}");
    }
}

#[test]
fn failures() {
    for (template, want) in [
        ("{{", "unclosed action"),
        ("{{ .a", "unclosed action"),
        ("{{ end }}", "unexpected {{end}}"),
        ("{{ if .a }}", "{{end}} is missing"),
        ("{{ if .a }}{{ else }}{{ else }}{{ end }}", "unexpected {{else}}"),
        ("{{ nope }}", "function \"nope\" not defined"),
        ("{{ .a | .b }}", "non executable command"),
        ("{{ .a .b }}", "non executable command"),
        ("{{ (.a }}", "unclosed left paren"),
        ("{{ $x }}", "undefined variable"),
        ("{{ $x = 1 }}", "undefined variable"),
        ("{{ define \"x\" }}{{ end }}", "not supported"),
        ("{{ }}", "missing value for command"),
        ("{{ eq 1 \"1\" }}", "incompatible types"),
        ("{{ .app.x }}", "can't evaluate field"),
        ("{{ range .app }}{{ end }}", "range can't iterate"),
        ("{{ div 1 0 }}", "division by zero"),
        ("{{ unixToTime \"x\" }}", "unable to parse time"),
        ("{{ regexReplaceAll \"(\" .app \"\" }}", "error parsing regexp"),
        ("{{ toDate \"2006-01-02\" \"x\" }}", "cannot parse"),
        ("{{ replace .app }}", "wrong number of args for replace: want 3 got 1"),
        ("{{ unixEpoch .app }}", "expected time.Time"),
        // Bounded work.
        ("{{ repeat 2000000 \"x\" }}", "wider"),
        ("{{ repeat 1000000 \"xxxx\" }}", "too large"),
        ("{{ printf \"%2000000d\" 1 }}", "wider"),
        ("{{ alignLeft 99999999999 \"x\" }}", "wider"),
    ] {
        let e = render(template).expect_err(template);
        assert!(e.contains(want), "{template}: {e}");
    }
    // Doubling again and again ends at the limit.
    let doubling = format!("{{{{ $x := repeat 1000 \"x\" }}}}{}", "{{ $x = print $x $x $x $x }}".repeat(30));
    assert!(render(&doubling).unwrap_err().contains("more than"));
    let nested = "{{ range $a := fromJson $.big }}".repeat(3) + &"{{ end }}".repeat(3);
    let mut labels = LineLabels::new(Labels::from_pairs([("big", format!("[{}0]", "0,".repeat(2000)))]));
    labels.reset([]);
    let mut out = String::new();
    let e = Template::parse(&nested).unwrap().render(&labels, "", 0, &mut out).unwrap_err();
    assert!(e.contains("steps"), "{e}");
    assert!(out.len() < OUTPUT_BYTES_MAX);
}

#[test]
fn fields() {
    let fields = |t: &str| Template::parse(t).unwrap().fields().map(<[String]>::to_vec);
    assert_eq!(
        fields("{{.a}} {{ if .b }}{{ .c | upper }}{{ end }}"),
        Some(vec!["a".into(), "b".into(), "c".into()])
    );
    assert_eq!(fields("{{ . }}"), None);
    assert_eq!(fields("{{ $.a }}"), None);
    assert_eq!(fields("{{ __line__ }}"), Some(Vec::new()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn never_panics(text in "(\\{\\{|\\}\\}|\\PC){0,30}") {
        let _ = render(&text);
    }

    #[test]
    fn never_panics_on_words(words in proptest::collection::vec(prop::sample::select(WORDS), 0..12)) {
        let _ = render(&format!("{{{{ {} }}}}", words.join(" ")));
    }

    #[test]
    fn times_round_trip(ns in -2_000_000_000_000_000_000i64..4_000_000_000_000_000_000) {
        let layout = "2006-01-02T15:04:05.000000000Z07:00";
        let mut text = String::new();
        super::time::format(layout, ns, 3600, &mut text);
        prop_assert_eq!(super::time::parse(layout, &text, &jiff::tz::TimeZone::UTC), Some((ns, 3600)), "{}", text);
    }

    #[test]
    fn layouts_never_panic(layout in "(2006|Jan|02|15|_2|\\.000|Z07|-07:00|PM|MST|\\PC){0,8}", text in "\\PC{0,20}") {
        let mut out = String::new();
        super::time::format(&layout, 1_700_000_000_000_000_000, -5400, &mut out);
        let _ = super::time::parse(&layout, &text, &jiff::tz::TimeZone::UTC);
        let _ = super::time::parse(&layout, &out, &jiff::tz::TimeZone::UTC);
    }
}

const WORDS: &[&str] = &[
    ".app",
    ".json",
    ".",
    "$",
    "$x",
    ":=",
    "|",
    "(",
    ")",
    "fromJson",
    "index",
    "len",
    "printf",
    "\"%s %d %v\"",
    "\"%*d\"",
    "1",
    "-1",
    "2.5",
    "9223372036854775807",
    "add",
    "mul",
    "div",
    "substr",
    "trunc",
    "slice",
    "repeat",
    "indent",
    "alignLeft",
    "replace",
    "date",
    "\"2006\"",
    "now",
    "eq",
    "lt",
    "and",
    "or",
    "not",
    "default",
    "true",
    "nil",
    "__timestamp__",
    "__line__",
    "round",
    "int",
    "unixToTime",
    "}}{{ if",
    "}}{{ end",
    "}}{{ else",
    "}}{{ range",
    "}}{{ with",
    "count",
    "regexReplaceAll",
    "\"é\"",
    "b64dec",
    "urldecode",
    "\"%zz\"",
    "title",
    "print",
];
