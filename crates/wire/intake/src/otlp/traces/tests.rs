use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, TracesData, span};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::testing::{Recorder, apply, damage};

fn value(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn attributes(tag: &str) -> Vec<KeyValue> {
    let list = ArrayValue { values: vec![AnyValue { value: Some(Value::BoolValue(true)) }] };
    let map = KeyValueList {
        values: vec![KeyValue {
            key: "in".into(),
            value: value(Value::ArrayValue(list)),
            ..Default::default()
        }],
    };
    [
        ("s", Value::StringValue(tag.to_owned())),
        ("i", Value::IntValue(-5)),
        ("d", Value::DoubleValue(1.5)),
        ("b", Value::BytesValue(vec![0, 255])),
        ("m", Value::KvlistValue(map)),
    ]
    .into_iter()
    .map(|(key, v)| KeyValue { key: key.into(), value: value(v), ..Default::default() })
    .collect()
}

fn span(trace: u8, id: u8, start: u64) -> Span {
    Span {
        trace_id: vec![trace; 16],
        span_id: vec![id; 8],
        name: format!("span {id}"),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 10,
        attributes: attributes("span"),
        events: vec![span::Event { time_unix_nano: 3, name: "e".into(), ..Default::default() }],
        links: vec![span::Link { trace_id: vec![9; 16], span_id: vec![9; 8], ..Default::default() }],
        status: Some(Status { message: "bad".into(), code: 2 }),
        ..Default::default()
    }
}

/// Resources of scopes of (trace, span).
fn request(shape: &[Vec<Vec<(u8, u8)>>]) -> TracesData {
    let resource_spans = shape.iter().enumerate().map(|(r, scopes)| ResourceSpans {
        resource: Some(Resource { attributes: attributes(&format!("resource {r}")), ..Default::default() }),
        schema_url: format!("url {r}"),
        scope_spans: scopes
            .iter()
            .enumerate()
            .map(|(s, spans)| ScopeSpans {
                scope: Some(InstrumentationScope { name: format!("scope {s}"), ..Default::default() }),
                schema_url: String::new(),
                spans: spans.iter().enumerate().map(|(i, (t, id))| span(*t, *id, 100 + i as u64)).collect(),
            })
            .collect(),
    });
    TracesData { resource_spans: resource_spans.collect() }
}

type Placed = (String, String, Span);

/// Every span with its resource's and scope's mark, by trace.
fn placed(data: &TracesData, into: &mut BTreeMap<Vec<u8>, Vec<Placed>>) {
    for rs in &data.resource_spans {
        for ss in &rs.scope_spans {
            for span in &ss.spans {
                let scope = ss.scope.as_ref().unwrap().name.clone();
                assert!(rs.resource.is_some());
                into.entry(span.trace_id.clone()).or_default().push((
                    rs.schema_url.clone(),
                    scope,
                    span.clone(),
                ));
            }
        }
    }
}

fn check(data: &TracesData) {
    let mut sink = Recorder::default();
    decode(&data.encode_to_vec(), &mut sink).unwrap();
    let (mut want, mut got) = (BTreeMap::new(), BTreeMap::new());
    placed(data, &mut want);
    for (id, start, end, count, otlp) in &sink.spans {
        let trace = TracesData::decode(otlp.as_slice()).unwrap();
        let before: usize = got.len();
        placed(&trace, &mut got);
        assert_eq!(got.len(), before + 1, "one trace each");
        let spans = &got[&id.to_vec()];
        assert_eq!(spans.len(), *count as usize);
        assert_eq!(*start, spans.iter().map(|s| s.2.start_time_unix_nano as i64).min().unwrap());
        assert_eq!(*end, spans.iter().map(|s| s.2.end_time_unix_nano as i64).max().unwrap());
    }
    assert_eq!(got, want);
}

#[test]
fn regrouping_keeps_everything() {
    check(&request(&[]));
    check(&request(&[vec![vec![(1, 1)]]]));
    check(&request(&[
        vec![vec![(1, 1), (2, 2), (1, 3)], vec![(2, 4)], vec![]],
        vec![vec![(2, 5), (3, 6)], vec![(1, 7)]],
    ]));
}

#[test]
fn one_trace_stays_byte_for_byte() {
    let body = request(&[vec![vec![(1, 1), (1, 2)]]]).encode_to_vec();
    let mut sink = Recorder::default();
    decode(&body, &mut sink).unwrap();
    assert_eq!(sink.spans[0].4, body);
}

#[test]
fn ids_that_are_none() {
    for (trace_id, span_id, reason) in [
        (vec![0; 16], vec![1; 8], INVALID_TRACE_ID),
        (vec![], vec![1; 8], INVALID_TRACE_ID),
        (vec![1; 15], vec![1; 8], INVALID_TRACE_ID),
        (vec![1; 16], vec![0; 8], INVALID_SPAN_ID),
        (vec![1; 16], vec![1; 9], INVALID_SPAN_ID),
    ] {
        let mut data = request(&[vec![vec![(1, 1), (1, 2)]]]);
        let span = &mut data.resource_spans[0].scope_spans[0].spans[0];
        (span.trace_id, span.span_id) = (trace_id, span_id);
        let mut sink = Recorder::default();
        decode(&data.encode_to_vec(), &mut sink).unwrap();
        assert!(sink.lines[0].starts_with(&format!("! {reason} 1 ")), "{:?}", sink.lines);
        assert_eq!(sink.spans[0].3, 1, "the other span is taken");
    }
}

fn run_json(json: &str) -> Result<Recorder> {
    let mut sink = Recorder::default();
    decode_json(json.as_bytes(), &mut sink).map(|()| sink)
}

#[test]
fn json_is_protobuf() {
    let data = request(&[vec![vec![(1, 1), (2, 2)], vec![(2, 4)]], vec![vec![(2, 5)]]]);
    let json = serde_json::to_string(&data).unwrap();
    let mut want = Recorder::default();
    decode(&data.encode_to_vec(), &mut want).unwrap();
    let got = run_json(&json).unwrap();
    for (got, want) in got.spans.iter().zip(&want.spans) {
        assert_eq!(TracesData::decode(&got.4[..]).unwrap(), TracesData::decode(&want.4[..]).unwrap());
        assert_eq!((got.0, got.1, got.2, got.3), (want.0, want.1, want.2, want.3));
    }
    assert_eq!(got.spans.len(), 2);
}

#[test]
fn json_as_others_write_it() {
    let sink = run_json(
        r#"{"resource_spans":[{"scopeSpans":[{"spans":[{
            "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174","parentSpanId":"",
            "name":"x","kind":"SPAN_KIND_SERVER","startTimeUnixNano":1544712660000000000,
            "endTimeUnixNano":"1544712661000000000","status":null,"unknown":{"a":[1]},
            "attributes":[{"key":"k","value":{"intValue":"-7"}},{"key":"n","value":{"doubleValue":"NaN"}},
                          {"key":"z","value":{"boolValue":false}},null]}]}]}]}"#,
    )
    .unwrap();
    let data = TracesData::decode(&sink.spans[0].4[..]).unwrap();
    let span = &data.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.kind, span.start_time_unix_nano), (2, 1544712660000000000));
    assert_eq!(span.attributes[0].value, value(Value::IntValue(-7)));
    assert_eq!(span.attributes[2].value, value(Value::BoolValue(false)));
    for (json, error) in [
        (r#"{"resourceSpans":{}}"#, "a list in `resourceSpans`"),
        (r#"{"resourceSpans":[[]]}"#, "an object in `resourceSpans`"),
        (r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xx"}]}]}]}"#, "hexadecimal"),
        (r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":1}]}]}]}"#, "a string in `name`"),
        (r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"-1"}]}]}]}"#, "out of range"),
        (r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"KING"}]}]}]}"#, "invalid value"),
        ("{", "EOF"),
    ] {
        let got = run_json(json).unwrap_err().to_string();
        assert!(got.contains(error), "{json}: {got}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    let nested = |depth: usize| {
        let mut v = Value::IntValue(1);
        for _ in 0..depth {
            v = Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(v) }] });
        }
        let mut data = request(&[vec![vec![(1, 1)]]]);
        let attributes = &mut data.resource_spans[0].scope_spans[0].spans[0].attributes;
        attributes.push(KeyValue { key: "deep".into(), value: value(v), ..Default::default() });
        data
    };
    assert!(decode(&nested(20).encode_to_vec(), &mut Recorder::default()).is_ok());
    let error = decode(&nested(40).encode_to_vec(), &mut Recorder::default()).unwrap_err();
    assert!(error.to_string().contains("nested deeper than 64"), "{error}");
    let open = r#"{"arrayValue":{"values":["#.repeat(200);
    let json = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"attributes":[{{"key":"a","value":{open}"#
    );
    let error = run_json(&json).unwrap_err().to_string();
    assert!(error.contains("nested deeper") || error.contains("recursion limit"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_shape_is_regrouped(shape in proptest::collection::vec(
        proptest::collection::vec(proptest::collection::vec((1u8..5, 1u8..9), 0..4), 0..3), 0..3)) {
        check(&request(&shape));
    }

    #[test]
    fn damage_never_panics(damage in damage()) {
        let data = request(&[vec![vec![(1, 1), (2, 2)]]]);
        let mut sink = Recorder::default();
        if decode(&apply(&data.encode_to_vec(), &damage), &mut sink).is_ok() {
            for (.., otlp) in sink.spans {
                prop_assert!(TracesData::decode(&otlp[..]).is_ok(), "what passed the check can be decoded");
            }
        }
        let _ = decode_json(&apply(serde_json::to_string(&data).unwrap().as_bytes(), &damage), &mut Recorder::default());
    }
}
