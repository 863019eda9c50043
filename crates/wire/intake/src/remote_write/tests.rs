use proptest::prelude::*;

use super::*;
use crate::testing::{Recorder, apply, damage};
use crate::wire::{put_bytes, put_fixed64, put_varint, wrap};

/// Writes a message: `build` appends its fields.
fn message(out: &mut Vec<u8>, number: u32, build: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    build(out);
    wrap(out, start, number);
}

fn labels(out: &mut Vec<u8>, pairs: &[(&str, &str)]) {
    for (name, value) in pairs {
        message(out, 1, |out| {
            put_bytes(out, 1, name.as_bytes());
            put_bytes(out, 2, value.as_bytes());
        });
    }
}

fn sample(out: &mut Vec<u8>, number: u32, t_ms: i64, value: f64) {
    message(out, number, |out| {
        put_fixed64(out, 1, value.to_bits());
        put_varint(out, 2, t_ms as u64);
    });
}

fn series(pairs: &[(&str, &str)], samples: &[(i64, f64)]) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, 1, |out| {
        labels(out, pairs);
        samples.iter().for_each(|(t, v)| sample(out, 2, *t, *v));
    });
    out
}

fn check(body: &[u8], want: &[&str]) {
    let mut sink = Recorder::default();
    decode(body, &mut sink).unwrap();
    assert_eq!(sink.lines, want);
}

fn refuse(body: &[u8], text: &str) {
    let error = decode(body, &mut Recorder::default()).unwrap_err();
    assert_eq!(error.kind, triptych_model::Kind::Invalid);
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn series_and_samples() {
    check(&[], &[]);
    check(
        &series(&[("__name__", "up"), ("job", "a")], &[(1, 1.0), (-5, f64::from_bits(0x7ff0000000000002))]),
        &[r#"{__name__="up",job="a"} 1@1 NaN(7ff0000000000002)@-5"#],
    );
    // Unsorted labels are sorted, empty values left out.
    check(
        &series(&[("z", "1"), ("__name__", "up"), ("e", "")], &[(1, f64::INFINITY)]),
        &[r#"{__name__="up",z="1"} inf@1"#],
    );
    check(
        &series(&[("a", "1"), ("__name__", "up"), ("a", "1")], &[(1, 1.0), (2, 1.0)]),
        &[
            r#"! duplicate_label_names 2 label name "a" is not unique in series {__name__="up", a="1", a="1"}"#,
        ],
    );
}

#[test]
fn exemplars_histograms_metadata() {
    let mut body = Vec::new();
    message(&mut body, 1, |out| {
        message(out, 3, |out| {
            labels(out, &[("trace_id", "abc")]);
            put_fixed64(out, 2, 4.5f64.to_bits());
            put_varint(out, 3, 77);
        });
        message(out, 4, |out| put_varint(out, 1, 3));
        sample(out, 2, 5, 2.0);
        labels(out, &[("__name__", "h")]);
    });
    message(&mut body, 3, |out| {
        put_varint(out, 1, 1);
        put_bytes(out, 2, b"h");
        put_bytes(out, 4, b"help");
        put_bytes(out, 5, b"s");
    });
    check(
        &body,
        &[
            r#"! native_histograms_unsupported 1 native histograms are not supported: series {__name__="h"}"#,
            r#"{__name__="h"} 2@5"#,
            r#"{__name__="h"} # {trace_id="abc"} 4.5@77"#,
            r##"# h counter "help" "s""##,
        ],
    );
}

#[test]
fn hostile_bodies() {
    let mut wrong_type = Vec::new();
    message(&mut wrong_type, 1, |out| put_varint(out, 1, 7));
    refuse(&wrong_type, "TimeSeries.labels: wire type varint");
    let mut not_utf8 = Vec::new();
    message(&mut not_utf8, 1, |out| message(out, 1, |out| put_bytes(out, 1, b"a\xff")));
    refuse(&not_utf8, "Label.name: not valid UTF-8 at byte 1");
    refuse(b"\x0a\xff\xff\xff\x7f", "claims 268435455 bytes");
    let mut sample_type = Vec::new();
    message(&mut sample_type, 1, |out| message(out, 2, |out| put_varint(out, 1, 7)));
    refuse(&sample_type, "Sample.value");
}

#[test]
fn what_takes_two_bytes_is_bounded() {
    let mut empty_labels = Vec::new();
    message(&mut empty_labels, 1, |out| (0..5000).for_each(|_| put_bytes(out, 1, b"")));
    refuse(&empty_labels, "more than 4096 pairs");
    let mut many = Vec::new();
    message(&mut many, 1, |out| {
        (0..10_000).for_each(|t| sample(out, 2, t, 1.0));
        labels(out, &[("__name__", "up")]);
    });
    let mut sink = Recorder::default();
    decode(&many, &mut sink).unwrap();
    let counts: Vec<usize> = sink.lines.iter().map(|l| l.matches('@').count()).collect();
    assert_eq!(counts, [4096, 4096, 10_000 - 8192]);
}

#[test]
fn content_types() {
    for (header, want) in [
        (None, Some(Version::V1)),
        (Some("application/x-protobuf"), Some(Version::V1)),
        (Some("application/x-protobuf;proto=prometheus.WriteRequest"), Some(Version::V1)),
        (Some("application/x-protobuf; proto=io.prometheus.write.v2.Request"), Some(Version::V2)),
        (Some("application/x-protobuf;proto=other"), None),
        (Some("application/json"), None),
    ] {
        assert_eq!(version(header), want, "{header:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_was_sent_arrives(
        pairs in proptest::collection::btree_map("[a-z_]{1,6}", "\\PC{1,20}", 0..8),
        samples in proptest::collection::vec((any::<i64>(), -1e9..1e9), 1..5),
    ) {
        let mut pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut forward = Recorder::default();
        decode(&series(&pairs, &samples), &mut forward).unwrap();
        pairs.reverse();
        let mut backward = Recorder::default();
        decode(&series(&pairs, &samples), &mut backward).unwrap();
        prop_assert_eq!(&forward, &backward);
        prop_assert_eq!(forward.lines.len(), 1);
    }

    #[test]
    fn damage_never_panics(damage in damage()) {
        let body = series(&[("__name__", "up"), ("job", "a")], &[(1, 1.0), (2, 2.0)]);
        let _ = decode(&apply(&body, &damage), &mut Recorder::default());
    }
}
