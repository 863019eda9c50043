//! The JSON form of an attribute value (protobuf's JSON mapping), which vParquet keeps for values that have no columns: key-value
//! lists, bytes, mixed arrays.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value as Json, json};

use super::{AnyValue, KeyValue, VALUE_DEPTH_MAX};

pub fn to_json(value: &AnyValue<'_>) -> String {
    build(value).to_string()
}

fn build(value: &AnyValue<'_>) -> Json {
    match value {
        AnyValue::None => Json::Object(Map::new()),
        AnyValue::String(s) => json!({ "stringValue": s }),
        AnyValue::Bool(b) => json!({ "boolValue": b }),
        AnyValue::Int(i) => json!({ "intValue": i.to_string() }),
        AnyValue::Double(v) if v.is_nan() => json!({ "doubleValue": "NaN" }),
        AnyValue::Double(v) if v.is_infinite() => {
            json!({ "doubleValue": if *v > 0.0 { "Infinity" } else { "-Infinity" } })
        }
        AnyValue::Double(v) => json!({ "doubleValue": v }),
        AnyValue::Array(values) => {
            json!({ "arrayValue": { "values": values.iter().map(build).collect::<Vec<_>>() } })
        }
        AnyValue::KvList(values) => {
            let values: Vec<_> =
                values.iter().map(|a| json!({ "key": a.key, "value": build(&a.value) })).collect();
            json!({ "kvlistValue": { "values": values } })
        }
        AnyValue::Bytes(b) => json!({ "bytesValue": BASE64.encode(b) }),
    }
}

/// Reads it back; text that is no such JSON gives [`AnyValue::None`].
pub fn from_json(text: &str) -> AnyValue<'static> {
    serde_json::from_str::<Json>(text).map_or(AnyValue::None, |json| parse(&json, 0))
}

fn parse(json: &Json, depth: usize) -> AnyValue<'static> {
    let Some((name, value)) = json.as_object().and_then(|o| o.iter().next()) else {
        return AnyValue::None;
    };
    if depth > VALUE_DEPTH_MAX {
        return AnyValue::None;
    }
    let list = || value.get("values").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    match name.as_str() {
        "stringValue" => AnyValue::String(Cow::Owned(value.as_str().unwrap_or_default().to_owned())),
        "boolValue" => AnyValue::Bool(value.as_bool().unwrap_or_default()),
        "intValue" => AnyValue::Int(
            value.as_str().and_then(|s| s.parse().ok()).or_else(|| value.as_i64()).unwrap_or_default(),
        ),
        "doubleValue" => AnyValue::Double(match value.as_str() {
            Some("Infinity") => f64::INFINITY,
            Some("-Infinity") => f64::NEG_INFINITY,
            Some(_) => f64::NAN,
            None => value.as_f64().unwrap_or_default(),
        }),
        "arrayValue" => AnyValue::Array(list().iter().map(|v| parse(v, depth + 1)).collect()),
        "kvlistValue" => AnyValue::KvList(
            list()
                .iter()
                .map(|a| KeyValue {
                    key: Cow::Owned(a.get("key").and_then(Json::as_str).unwrap_or_default().to_owned()),
                    value: a.get("value").map_or(AnyValue::None, |v| parse(v, depth + 1)),
                })
                .collect(),
        ),
        "bytesValue" => {
            AnyValue::Bytes(Cow::Owned(BASE64.decode(value.as_str().unwrap_or_default()).unwrap_or_default()))
        }
        _ => AnyValue::None,
    }
}
