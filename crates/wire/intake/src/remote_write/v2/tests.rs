use proptest::prelude::*;
use triptych_model::labels::put_uvarint;

use super::*;
use crate::testing::{Recorder, apply, damage};
use crate::wire::{put_bytes, put_fixed64, put_varint, wrap};

fn message(out: &mut Vec<u8>, number: u32, build: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    build(out);
    wrap(out, start, number);
}

fn refs(out: &mut Vec<u8>, refs: &[u64]) {
    let mut packed = Vec::new();
    refs.iter().for_each(|r| put_uvarint(&mut packed, *r));
    put_bytes(out, 1, &packed);
}

fn sample(out: &mut Vec<u8>, t_ms: i64, value: f64) {
    message(out, 2, |out| {
        put_fixed64(out, 1, value.to_bits());
        put_varint(out, 2, t_ms as u64);
    });
}

/// Symbols, then one series.
fn request(symbols: &[&str], build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    symbols.iter().for_each(|s| put_bytes(&mut out, 4, s.as_bytes()));
    message(&mut out, 5, build);
    out
}

const SYMBOLS: [&str; 7] = ["", "__name__", "up", "job", "a", "help", "s"];

fn full() -> Vec<u8> {
    request(&SYMBOLS, |out| {
        refs(out, &[3, 4]);
        refs(out, &[1, 2]);
        sample(out, 5, 1.5);
        message(out, 3, |_| ());
        message(out, 4, |out| {
            refs(out, &[3, 4]);
            put_fixed64(out, 2, 2.0f64.to_bits());
            put_varint(out, 3, 6);
        });
        message(out, 5, |out| {
            put_varint(out, 1, 2);
            put_varint(out, 3, 5);
            put_varint(out, 4, 6);
        });
    })
}

#[test]
fn everything() {
    let mut sink = Recorder::default();
    decode(&full(), &mut sink).unwrap();
    assert_eq!(
        sink.lines,
        [
            r#"! native_histograms_unsupported 1 native histograms are not supported: series {__name__="up", job="a"}"#,
            r#"{__name__="up",job="a"} 1.5@5"#,
            r#"{__name__="up",job="a"} # {job="a"} 2@6"#,
            r##"# up gauge "help" "s""##,
        ]
    );
}

#[test]
fn hostile_references() {
    for (body, text) in [
        (request(&SYMBOLS, |out| refs(out, &[1, 99])), "symbol reference 99 is out of range, there are 7"),
        (request(&SYMBOLS, |out| refs(out, &[u64::MAX, 1])), "out of range"),
        (request(&SYMBOLS, |out| refs(out, &[1, 2, 3])), "3 references, not pairs"),
        (request(&[], |out| refs(out, &[0, 0])), "out of range, there are 0"),
        (request(&["x"], |_| ()), "first symbol must be empty"),
        (request(&SYMBOLS, |out| refs(out, &[1; 10_000])), "more than 4096 pairs"),
        (request(&SYMBOLS, |out| message(out, 5, |out| put_varint(out, 3, 7))), "symbol reference 7"),
        (request(&SYMBOLS, |out| put_bytes(out, 1, b"\x80")), "truncated"),
    ] {
        let error = decode(&body, &mut Recorder::default()).unwrap_err().to_string();
        assert!(error.contains(text), "{text}: {error}");
    }
}

#[test]
fn many_samples_come_in_pieces() {
    let body = request(&SYMBOLS, |out| {
        (0..10_000).for_each(|t| sample(out, t, 1.0));
        refs(out, &[1, 2]);
    });
    let mut sink = Recorder::default();
    decode(&body, &mut sink).unwrap();
    let counts: Vec<usize> = sink.lines.iter().map(|l| l.matches('@').count()).collect();
    assert_eq!(counts, [4096, 4096, 10_000 - 8192]);
    assert!(sink.lines[2].ends_with(" 1@9999"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn damage_never_panics(damage in damage()) {
        let _ = decode(&apply(&full(), &damage), &mut Recorder::default());
    }
}
