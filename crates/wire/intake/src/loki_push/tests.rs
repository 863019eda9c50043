use proptest::prelude::*;

use super::*;
use crate::testing::{Recorder, apply, damage};
use crate::wire::{put_bytes, put_varint, wrap};

fn message(out: &mut Vec<u8>, number: u32, build: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    build(out);
    wrap(out, start, number);
}

type TestEntry = (i64, String, Vec<(String, String)>);
type TestStream = (Vec<(String, String)>, Vec<TestEntry>);

fn protobuf(streams: &[(String, Vec<TestEntry>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (labels, entries) in streams {
        message(&mut out, 1, |out| {
            put_bytes(out, 1, labels.as_bytes());
            for (ts, line, metadata) in entries {
                message(out, 2, |out| {
                    message(out, 1, |out| {
                        put_varint(out, 1, (ts / 1_000_000_000) as u64);
                        put_varint(out, 2, (ts % 1_000_000_000) as u64);
                    });
                    put_bytes(out, 2, line.as_bytes());
                    for (name, value) in metadata {
                        message(out, 3, |out| {
                            put_bytes(out, 1, name.as_bytes());
                            put_bytes(out, 2, value.as_bytes());
                        });
                    }
                });
            }
        });
    }
    out
}

fn run_protobuf(body: &[u8]) -> Result<Vec<String>> {
    let mut sink = Recorder::default();
    decode_protobuf(body, &mut sink).map(|()| sink.lines)
}

fn run_json(body: &str) -> Result<Vec<String>> {
    let mut sink = Recorder::default();
    decode_json(body.as_bytes(), &mut sink).map(|()| sink.lines)
}

#[test]
fn label_texts() {
    let check = |text: &str, want: &[(&str, &str)]| {
        let got = parse_labels(text).unwrap();
        let got: Vec<(&str, &str)> = got.iter().map(|(n, v)| (*n, v.as_ref())).collect();
        assert_eq!(got, want, "{text}");
    };
    check("{}", &[]);
    check(" { } ", &[]);
    check(r#"{a="b"}"#, &[("a", "b")]);
    check(r#"{ a = "b" , _c1='d"',}"#, &[("a", "b"), ("_c1", "d\"")]);
    check(r#"{a=`x\n"}`}"#, &[("a", "x\\n\"}")]);
    check(r#"{a="\"\\\n\t\x41\u00e9\U0001F600\101"}"#, &[("a", "\"\\\n\tAé😀A")]);
    for (text, error) in [
        ("", "expected '{'"),
        ("{", "expected a label name"),
        ("{a}", "expected '='"),
        ("{a=b}", "expected a quoted value"),
        ("{a=\"b", "not closed"),
        ("{a=\"b\\", "not closed"),
        ("{a=\"b\\\"", "not closed"),
        ("{1a=\"b\"}", "expected a label name"),
        ("{a=\"b\"}x", "text after '}'"),
        ("{a=\"b\" c=\"d\"}", "expected ',' or '}'"),
        ("{a=\"\\q\"}", "invalid escape"),
        ("{a=\"\\xff\"}", "not valid UTF-8"),
        ("{a=\"\\u12\"}", "invalid escape"),
        ("{a=\"\\ud800\"}", "invalid escape"),
        ("{a!=\"b\"}", "expected '='"),
        ("{a=\"b\nc\"}", "line break"),
    ] {
        let got = parse_labels(text).unwrap_err().to_string();
        assert!(got.contains(error) && got.contains("error parsing labels"), "{text:?}: {got}");
    }
}

#[test]
fn both_forms() {
    let body = protobuf(&[(
        r#"{b="2", a="1"}"#.to_owned(),
        vec![
            (1_700_000_000_123_456_789, "hello \"x\"\n".to_owned(), vec![]),
            (5, "x".to_owned(), vec![("z".into(), "1".into()), ("a".into(), "ü".into())]),
        ],
    )]);
    let want = [r#"{a="1",b="2"}"#, r#"1700000000123456789 "hello \"x\"\n" {}"#, r#"5 "x" {a="ü",z="1"}"#];
    assert_eq!(run_protobuf(&body).unwrap(), want);
    let values = r#"[["1700000000123456789","hello \"x\"\n"],["5","x",{"z":"1","a":"ü"}]]"#;
    let stream = r#"{"b":"2","a":"1"}"#;
    assert_eq!(
        run_json(&format!(r#"{{"streams":[{{"stream":{stream},"values":{values}}}]}}"#)).unwrap(),
        want
    );
    // Values first, unknown fields, a number as the timestamp.
    let body = format!(r#"{{"x":[1,{{}}],"streams":[{{"values":{values},"y":null,"stream":{stream}}}]}}"#);
    assert_eq!(run_json(&body).unwrap(), want);
    assert_eq!(
        run_json(r#"{"streams":[{"stream":{"a":"b"},"values":[[7,"x",{}]]}]}"#).unwrap(),
        [r#"{a="b"}"#, r#"7 "x" {}"#]
    );
}

#[test]
fn what_is_refused() {
    let body =
        protobuf(&[(r#"{a="1",a="2"}"#.into(), vec![(1, "x".into(), vec![]), (2, "y".into(), vec![])])]);
    assert_eq!(
        run_protobuf(&body).unwrap(),
        [r#"! duplicate_label_names 2 stream '{a="1", a="2"}' has duplicate label name: 'a'"#]
    );
    for (body, error) in [
        ("", "EOF"),
        ("[]", "expected an object with `streams`"),
        (r#"{"streams":[{"stream":{"a":1},"values":[]}]}"#, "expected a string"),
        (r#"{"streams":[{"stream":{"a":"b"},"values":[["x","y"]]}]}"#, "timestamp in nanoseconds"),
        (r#"{"streams":[{"stream":{"a":"b"},"values":[["1"]]}]}"#, "invalid length 1"),
        (r#"{"streams":[{"stream":{"a":"b"},"values":[["1","x",{"a":1}]]}]}"#, "expected a string"),
        (r#"{"streams":[{"stream":{"a":"b"},"values":[["1","x",{},1]]}]}"#, "more than timestamp"),
        (r#"{"streams":[{"stream":{"a":"b"},"values":[["99999999999999999999","x"]]}]}"#, "timestamp"),
        (r#"{"streams":[]} x"#, "trailing"),
    ] {
        let got = run_json(body).unwrap_err().to_string();
        assert!(got.contains(error), "{body}: {got}");
    }
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(run_json(&deep).unwrap(), [""; 0], "what is ignored is skipped without recursion");
    assert!(decode_json(b"{\"a\":\"\xff\"}", &mut Recorder::default()).is_err());
}

#[test]
fn lines_that_are_not_text_are_kept() {
    let mut body = Vec::new();
    message(&mut body, 1, |out| {
        put_bytes(out, 1, b"{a=\"b\"}");
        message(out, 2, |out| put_bytes(out, 2, b"x\xffy"));
    });
    assert_eq!(run_protobuf(&body).unwrap()[1], "0 \"x\u{fffd}y\" {}");
}

#[test]
fn a_sink_can_end_it() {
    struct Full;
    impl LogsSink for Full {
        fn stream(&mut self, _: &crate::sink::Pairs<'_>) -> Result<()> {
            Ok(())
        }
        fn entry(&mut self, _: i64, _: &str, _: &crate::sink::Pairs<'_>) -> Result<()> {
            Err(Error::exhausted("full"))
        }
        fn refuse(&mut self, _: &'static str, _: u64, _: std::fmt::Arguments<'_>) {}
    }
    for body in [
        r#"{"streams":[{"stream":{"a":"b"},"values":[["1","x"]]}]}"#,
        r#"{"streams":[{"values":[["1","x"]],"stream":{"a":"b"}}]}"#,
    ] {
        let error = decode_json(body.as_bytes(), &mut Full).unwrap_err();
        assert_eq!((error.kind, error.to_string().as_str()), (triptych_model::Kind::Exhausted, "full"));
    }
}

fn streams() -> impl Strategy<Value = Vec<TestStream>> {
    let pairs = || {
        proptest::collection::btree_map("[a-z_]{1,5}", "\\PC{0,10}|[\\n\"\\\\]{1,4}", 0..4)
            .prop_map(|m| m.into_iter().collect::<Vec<_>>())
    };
    let entry = (0..i64::MAX, "\\PC{0,40}|[\\t\\n\"\\\\]{0,4}", pairs());
    proptest::collection::vec((pairs(), proptest::collection::vec(entry, 0..5)), 0..4)
}

fn as_protobuf(streams: &[TestStream]) -> Vec<u8> {
    let with_text: Vec<(String, Vec<TestEntry>)> = streams
        .iter()
        .map(|(labels, entries)| {
            let pairs: Vec<String> = labels
                .iter()
                .map(|(n, v)| {
                    let v = v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    format!("{n}=\"{v}\"")
                })
                .collect();
            (format!("{{{}}}", pairs.join(", ")), entries.clone())
        })
        .collect();
    protobuf(&with_text)
}

fn as_json(streams: &[TestStream]) -> String {
    let object = |pairs: &[(String, String)]| -> serde_json::Value {
        pairs.iter().map(|(n, v)| (n.clone(), v.clone().into())).collect::<serde_json::Map<_, _>>().into()
    };
    let streams: Vec<serde_json::Value> = streams
        .iter()
        .map(|(labels, entries)| {
            let values: Vec<serde_json::Value> = entries
                .iter()
                .map(|(ts, line, metadata)| serde_json::json!([ts.to_string(), line, object(metadata)]))
                .collect();
            serde_json::json!({"stream": object(labels), "values": values})
        })
        .collect();
    serde_json::json!({ "streams": streams }).to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn json_is_protobuf(streams in streams()) {
        prop_assert_eq!(run_json(&as_json(&streams)).unwrap(), run_protobuf(&as_protobuf(&streams)).unwrap());
    }

    #[test]
    fn damage_never_panics(streams in streams(), damage in damage()) {
        let _ = run_protobuf(&apply(&as_protobuf(&streams), &damage));
        let _ = decode_json(&apply(as_json(&streams).as_bytes(), &damage), &mut Recorder::default());
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "[{}=,\"'`\\\\a-c0 \\PC]{0,30}") {
        let _ = parse_labels(&text);
    }
}
