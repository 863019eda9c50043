use proptest::prelude::*;

use super::*;
use crate::testing::{Recorder, apply, damage};

fn run(text: &str, format: Format) -> Result<Vec<String>> {
    let mut sink = Recorder::default();
    parse(text.as_bytes(), format, &mut sink).map(|()| sink.lines)
}

fn check(text: &str, format: Format, want: &[&str]) {
    assert_eq!(run(text, format).unwrap(), want, "{text}");
}

fn refuse(text: &str, format: Format, error: &str) {
    let got = run(text, format).unwrap_err().to_string();
    assert!(got.contains(error), "{text:?}: {got}");
}

const TEXT: &str = r#"# HELP http_requests_total The total number\nof HTTP \\requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{code="400",method="post",} 3

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9
 metric_without_timestamp_and_labels	12.47
something_weird{problem="division by zero"} +Inf -3982045
# TYPE x untyped
x{} NaN
{"utf8.name","a.b"="c",d="e"} -1e-3
a:b{e=""} 0x
"#;

#[test]
fn text_format() {
    let want = [
        r#"HELP http_requests_total "The total number\nof HTTP \\requests.""#,
        "TYPE http_requests_total counter",
        r#"{__name__="http_requests_total",code="200",method="post"} 1027@1395066363000"#,
        r#"{__name__="http_requests_total",code="400",method="post"} 3"#,
        concat!(
            r#"{__name__="msdos_file_access_time_seconds",error="Cannot find file:\n\"FILE.TXT\"","#,
            r#"path="C:\\DIR\\FILE.TXT"} 1458255915"#
        ),
        r#"{__name__="metric_without_timestamp_and_labels"} 12.47"#,
        r#"{__name__="something_weird",problem="division by zero"} inf@-3982045"#,
        "TYPE x unknown",
        r#"{__name__="x"} NaN(7ff8000000000000)"#,
        r#"{__name__="utf8.name",a.b="c",d="e"} -0.001"#,
    ];
    let (good, bad) = TEXT.rsplit_once("a:b").unwrap();
    check(good, Format::Text, &want);
    refuse(&format!("{good}a:b{bad}"), Format::Text, "line 13: expected a number, found \"0x\"");
    check("a 1\r\nb 2", Format::Text, &[r#"{__name__="a"} 1"#, r#"{__name__="b"} 2"#]);
    check("# EOF\n# anything\n#\n", Format::Text, &[]);
    check("", Format::Text, &[]);
}

#[test]
fn openmetrics() {
    check(
        concat!(
            "# TYPE foo counter\n# UNIT foo seconds\n# HELP foo a \\\"b\\\"\n",
            "foo_total{a=\"b\"} 17.0 1520879607.789 # {trace_id=\"KOO5\",x=\"\"} 0.67 1.5\n",
            "foo_created 1\n# TYPE s stateset\nbar 1 # {} 2\n# EOF\n"
        ),
        Format::OpenMetrics,
        &[
            "TYPE foo counter",
            "UNIT foo seconds",
            r#"HELP foo "a \"b\"""#,
            r#"{__name__="foo_total",a="b"} 17@1520879607789 # {trace_id="KOO5"} 0.67@1500"#,
            r#"{__name__="foo_created"} 1"#,
            "TYPE s stateset",
            r#"{__name__="bar"} 1 # {} 2"#,
        ],
    );
    check("# EOF", Format::OpenMetrics, &[]);
    refuse("a 1\n", Format::OpenMetrics, "line 2: data does not end with # EOF");
    refuse("# EOF\na 1\n", Format::OpenMetrics, "line 2: text after # EOF");
    refuse("\n# EOF\n", Format::OpenMetrics, "line 1: empty line");
    refuse("# comment\n# EOF\n", Format::OpenMetrics, "line 1: expected # TYPE");
    refuse("a 1 2 # {\n# EOF\n", Format::OpenMetrics, "line 1");
    refuse("a 1 nan\n# EOF\n", Format::OpenMetrics, "line 1: expected a timestamp");
}

#[test]
fn errors_name_their_line() {
    for (text, error) in [
        ("a 1\nb\n", "line 2: expected a number"),
        ("a{b=\"c\" 1", "line 1: expected ',' or '}'"),
        ("a{b=\"c\",,} 1", "expected a label name"),
        ("a{b=\"c} 1", "not closed"),
        ("a{b=\"c\\", "not closed"),
        ("a{b=\"c\\\"", "not closed"),
        ("a{1=\"c\"} 1", "expected a label name"),
        ("a{b} 1", "expected '='"),
        ("a{\"b\"} 1", "expected '='"),
        ("{\"a\",\"b\"} 1", "expected '='"),
        ("{b=\"c\"} 1", "expected a metric name"),
        ("{} 1", "expected a metric name"),
        ("1a 1", "expected a metric name"),
        ("a 1 2 3", "expected the end of the line"),
        ("a 1 1.5", "expected a timestamp"),
        ("a 1 # {} 1", "expected the end of the line"),
        ("a{b=\"1\",b=\"2\"} 1", "label name is not unique, found \"b\""),
        ("# TYPE a nothing", "invalid metric type"),
        ("# TYPE", "expected a metric name"),
    ] {
        refuse(text, Format::Text, error);
    }
    let error = parse(b"a 1\nb \xff\n", Format::Text, &mut Recorder::default()).unwrap_err();
    assert_eq!(error.to_string(), "line 2: not valid UTF-8");
}

#[test]
fn series_text_is_the_line_up_to_the_value() {
    struct Texts(Vec<String>);
    impl ExpositionSink for Texts {
        fn sample(&mut self, sample: &ExposedSample<'_>) -> Result<()> {
            self.0.push(sample.series_text.to_owned());
            Ok(())
        }
    }
    let mut sink = Texts(Vec::new());
    parse(b"a 1\nb{c=\"d\"}  2\ne {f=\"g\"} 3\n", Format::Text, &mut sink).unwrap();
    assert_eq!(sink.0, ["a", "b{c=\"d\"}", "e {f=\"g\"}"]);
}

#[test]
fn formats() {
    for (header, want) in [
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics),
        ("text/plain; version=0.0.4", Format::Text),
        ("", Format::Text),
    ] {
        assert_eq!(Format::from_content_type(header), want);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_is_read(
        pairs in proptest::collection::btree_map("[a-z]{1,5}", "\\PC{1,10}|[\\n\"\\\\]{1,3}", 0..5),
        value: f64, t_ms in any::<Option<i64>>(),
    ) {
        let quoted: Vec<String> = pairs
            .iter()
            .map(|(n, v)| format!("{n}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")))
            .collect();
        let t = t_ms.map(|t| format!(" {t}")).unwrap_or_default();
        let got = run(&format!("m{{{}}} {value}{t}\n", quoted.join(",")), Format::Text).unwrap();
        let mut want = Recorder::default();
        let mut labels: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        labels.insert(0, ("__name__", "m"));
        let value = if value.is_nan() { f64::NAN } else { value };
        want.sample(&ExposedSample { series_text: "", labels: &labels, value, t_ms, exemplar: None }).unwrap();
        prop_assert_eq!(got, want.lines);
    }

    #[test]
    fn damage_never_panics(damage in damage()) {
        for format in [Format::Text, Format::OpenMetrics] {
            let _ = parse(&apply(TEXT.as_bytes(), &damage), format, &mut Recorder::default());
        }
    }
}
