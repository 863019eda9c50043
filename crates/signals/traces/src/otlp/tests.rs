use proptest::prelude::*;

use super::*;
use crate::testing::{bytes, rich};

#[test]
fn what_is_encoded_is_decoded() {
    for seed in 0..200 {
        let trace = rich(seed);
        let encoded = bytes(&trace);
        assert_eq!(decode(trace.trace_id, &encoded).unwrap(), trace, "seed {seed}");
    }
}

#[test]
fn large_messages_get_longer_lengths() {
    let long = "x".repeat(70_000);
    let mut trace = rich(3);
    trace.resource_spans[0].scope_spans[0].spans[0].attributes =
        vec![KeyValue::new("long", AnyValue::String(long.as_str().into()))];
    let encoded = bytes(&trace);
    assert_eq!(decode(trace.trace_id, &encoded).unwrap(), trace);
}

#[test]
fn other_senders_shapes() {
    // Span with an empty parent, a parent of zeros, a short span id.
    for (parent, expected) in [(&b""[..], None), (&[0; 8], None), (&[1], Some([0, 0, 0, 0, 0, 0, 0, 1]))] {
        assert_eq!(span_id(parent), expected);
    }
    assert_eq!(span_id(&[1; 9]), None);
}

#[test]
fn values_without_columns_survive_as_json() {
    let value = AnyValue::KvList(vec![
        KeyValue::new(
            "a",
            AnyValue::Array(vec![AnyValue::Int(i64::MIN), AnyValue::Double(1.5), AnyValue::None]),
        ),
        KeyValue::new("b", AnyValue::Bytes(b"\x00\xfe".as_slice().into())),
        KeyValue::new("c", AnyValue::Double(f64::INFINITY)),
    ]);
    let json = to_json(&value);
    assert_eq!(from_json(&json), value);
    assert!(json.starts_with(r#"{"kvlistValue":{"values":[{"key":"a","value":{"arrayValue""#), "{json}");
    assert_eq!(from_json("no json"), AnyValue::None);
}

#[test]
fn deep_nesting_ends() {
    let mut inner = vec![];
    for _ in 0..5000 {
        // AnyValue.array_value{ values }
        let mut outer = vec![];
        super::encode::encode_nested_for_tests(&mut outer, &inner);
        inner = outer;
        if inner.len() > 60_000 {
            break;
        }
    }
    let mut attribute = vec![0x0a, 1, b'k', 0x12];
    let mut length = vec![];
    super::encode::varint(&mut length, inner.len() as u64);
    attribute.extend(length);
    attribute.extend(&inner);
    let mut wrapped = attribute;
    for tag in [0x4a, 0x12, 0x12, 0x0a] {
        let mut outer = vec![tag];
        super::encode::varint(&mut outer, wrapped.len() as u64);
        outer.extend(&wrapped);
        wrapped = outer;
    }
    let trace = decode([1; 16], &wrapped).unwrap();
    let span = trace.spans().next().unwrap().2;
    assert!(matches!(span.attributes[0].value, AnyValue::Array(_)));
    assert!(!bytes(&trace).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode([0; 16], &data);
        let _ = first_bytes(&data, &[1, 2, 2, 1]);
    }

    #[test]
    fn damaged_traces_never_panic(seed in 0u64..1000, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut data = bytes(&rich(seed));
        let i = at.index(data.len());
        data[i] = byte;
        data.truncate(cut.index(data.len()) + 1);
        if let Ok(trace) = decode([0; 16], &data) {
            let again = bytes(&trace);
            // NaN differs from itself.
            prop_assert_eq!(format!("{:?}", decode([0; 16], &again).unwrap()), format!("{trace:?}"));
        }
    }
}

#[test]
fn what_is_not_kept_is_left_out() {
    let keep = Keep {
        resource: Names::These(vec!["service.name".into()]),
        scope: Names::These(vec![]),
        span: Names::These(vec!["http.method".into(), "int".into()]),
        event: None,
        link: Some(Names::These(vec!["yes".into()])),
    };
    for seed in 0..40 {
        let mut wanted = rich(seed);
        let bytes = bytes(&wanted);
        let only = |attributes: &mut Vec<KeyValue<'_>>, names: &[&str]| {
            attributes.retain(|a| names.contains(&a.key.as_ref()));
        };
        for rs in &mut wanted.resource_spans {
            only(&mut rs.resource.attributes, &["service.name"]);
            for ss in &mut rs.scope_spans {
                only(&mut ss.scope.attributes, &[]);
                for span in &mut ss.spans {
                    only(&mut span.attributes, &["http.method", "int"]);
                    span.events.clear();
                    span.links.iter_mut().for_each(|l| only(&mut l.attributes, &["yes"]));
                }
            }
        }
        assert_eq!(decode_kept(wanted.trace_id, &bytes, &keep).unwrap(), wanted);
    }
}
