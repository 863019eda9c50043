use opentelemetry_proto::tonic::common::v1::{
    AnyValue as ProtoValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, LogsData, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::testing::{Recorder, apply, damage};

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(ProtoValue { value: Some(value) }), ..Default::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.into()))
}

fn map(pairs: Vec<KeyValue>) -> Value {
    Value::KvlistValue(KeyValueList { values: pairs })
}

fn data(resource: Vec<KeyValue>, records: Vec<LogRecord>) -> LogsData {
    LogsData {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes: resource, ..Default::default() }),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: "lib".into(),
                    version: "1.0".into(),
                    attributes: vec![text("s.a", "x"), text("both", "scope")],
                    dropped_attributes_count: 0,
                }),
                log_records: records,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn record(body: Value) -> LogRecord {
    LogRecord { time_unix_nano: 5, body: Some(ProtoValue { value: Some(body) }), ..Default::default() }
}

fn check(data: &LogsData, want: &[&str]) {
    let (mut from_protobuf, mut from_json) = (Recorder::default(), Recorder::default());
    decode(&data.encode_to_vec(), 99, &mut from_protobuf).unwrap();
    assert_eq!(from_protobuf.lines, want);
    decode_json(serde_json::to_string(data).unwrap().as_bytes(), 99, &mut from_json).unwrap();
    assert_eq!(from_json, from_protobuf);
}

const SCOPE: &str = r#"s_a="x",scope_name="lib",scope_version="1.0""#;

#[test]
fn labels_and_metadata() {
    let resource = vec![
        text("service.name", "api"),
        text("k8s.namespace.name", "prod"),
        text("host.name", "h1"),
        text("both", "resource"),
        text("empty", ""),
    ];
    let full = LogRecord {
        time_unix_nano: 5,
        observed_time_unix_nano: 6,
        severity_number: 17,
        severity_text: "ERROR".into(),
        body: Some(ProtoValue { value: Some(Value::StringValue("hello".into())) }),
        attributes: vec![
            text("both", "record"),
            pair("http.status", Value::IntValue(500)),
            pair("m", map(vec![text("a.b", "1"), pair("c", map(vec![pair("d", Value::BoolValue(true))]))])),
        ],
        dropped_attributes_count: 2,
        flags: 1,
        trace_id: vec![0xab; 16],
        span_id: vec![1; 8],
        event_name: "ev".into(),
    };
    let metadata = concat!(
        r#"{both="record",dropped_attributes_count="2",event_name="ev",flags="1",host_name="h1",http_status="500","#,
        r#"m_a_b="1",m_c_d="true",observed_timestamp="6",s_a="x",scope_name="lib",scope_version="1.0","#,
        r#"severity_number="17",severity_text="ERROR",span_id="0101010101010101","#,
        r#"trace_id="abababababababababababababababab"}"#
    );
    check(
        &data(resource, vec![full]),
        &[r#"{k8s_namespace_name="prod",service_name="api"}"#, &format!("5 \"hello\" {metadata}")],
    );
}

#[test]
fn service_names() {
    let check = |resource: Vec<KeyValue>, want: &str| check(&data(resource, vec![]), &[want]);
    check(vec![], r#"{service_name="unknown_service"}"#);
    check(vec![text("service.name", "")], r#"{service_name="unknown_service"}"#);
    check(vec![text("k8s.container.name", "c")], r#"{k8s_container_name="c",service_name="c"}"#);
    check(
        vec![text("service.name", "a"), text("container.name", "c")],
        r#"{container_name="c",service_name="a"}"#,
    );
}

#[test]
fn bodies_and_times() {
    let check = |record: LogRecord, want: &str| {
        check(
            &data(vec![], vec![record]),
            &[r#"{service_name="unknown_service"}"#, &format!("{want} {{both=\"scope\",{SCOPE}}}")],
        );
    };
    let list = Value::ArrayValue(ArrayValue {
        values: vec![
            ProtoValue { value: Some(Value::IntValue(1)) },
            ProtoValue { value: Some(Value::StringValue("a\"\n".into())) },
            ProtoValue { value: None },
        ],
    });
    check(record(Value::StringValue("x y".into())), r#"5 "x y""#);
    check(record(Value::IntValue(-3)), r#"5 "-3""#);
    check(record(Value::DoubleValue(0.5)), r#"5 "0.5""#);
    check(record(Value::BytesValue(vec![1, 2, 3])), r#"5 "AQID""#);
    check(record(list.clone()), r#"5 "[1,\"a\\\"\\n\",null]""#);
    check(
        record(map(vec![text("z", "1"), pair("a", list)])),
        r#"5 "{\"a\":[1,\"a\\\"\\n\",null],\"z\":\"1\"}""#,
    );
    check(LogRecord { time_unix_nano: 7, ..Default::default() }, r#"7 """#);
    check(LogRecord::default(), r#"99 """#);
    let mut sink = Recorder::default();
    let observed = LogRecord { observed_time_unix_nano: 8, ..Default::default() };
    decode(&data(vec![], vec![observed]).encode_to_vec(), 99, &mut sink).unwrap();
    assert!(sink.lines[1].starts_with("8 "));
}

#[test]
fn hostile_nesting() {
    let mut v = Value::StringValue("x".into());
    for _ in 0..100 {
        v = map(vec![pair("a", v)]);
    }
    let mut attribute = record(Value::StringValue("x".into()));
    attribute.attributes.push(pair("deep", v.clone()));
    for record in [record(v), attribute] {
        let error =
            decode(&data(vec![], vec![record]).encode_to_vec(), 0, &mut Recorder::default()).unwrap_err();
        assert!(error.to_string().contains("nested deeper than 64"), "{error}");
    }
    // A long name above many leaves unfolds: 100 kB times 1000.
    let leaves = (0..1000).map(|i| text(&i.to_string(), "x")).collect();
    let mut wide = record(Value::StringValue("x".into()));
    wide.attributes.push(pair("n", map(vec![pair(&"k".repeat(100_000), map(leaves))])));
    let error = decode(&data(vec![], vec![wide]).encode_to_vec(), 0, &mut Recorder::default()).unwrap_err();
    assert!(error.to_string().contains("unfold"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn damage_never_panics(damage in damage()) {
        let mut r = record(map(vec![text("z", "1")]));
        r.attributes = vec![text("both", "record"), pair("m", map(vec![text("a.b", "1")]))];
        r.trace_id = vec![1; 16];
        let data = data(vec![text("service.name", "api"), text("x.y", "z")], vec![r]);
        let _ = decode(&apply(&data.encode_to_vec(), &damage), 0, &mut Recorder::default());
        let _ = decode_json(&apply(serde_json::to_string(&data).unwrap().as_bytes(), &damage), 0, &mut Recorder::default());
    }
}
