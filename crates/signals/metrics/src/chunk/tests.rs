use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

fn check(samples: &[(i64, f64)], hex: &str) {
    let samples: Vec<Sample> = samples.iter().map(|&(t_ms, value)| Sample { t_ms, value }).collect();
    let expected = bytes(hex);
    assert_eq!(encode(&samples), expected, "{samples:?}");
    let mut decoded = Vec::new();
    decode(&expected, &mut decoded).unwrap();
    assert_eq!(decoded, samples);
}

/// Written by `promtool tsdb create-blocks-from openmetrics` (Prometheus 2.42).
#[test]
fn prometheus_bytes() {
    check(
        &[
            (1_600_000_000_000, 1.0),
            (1_600_000_015_000, 1.0),
            (1_600_000_030_000, 0.0),
            (1_600_000_045_123, 1.5),
        ],
        "0004 8080 f4f6 905d 3ff0 0000 0000 0000 9875 3115 ffc0 3de2 2fff 80",
    );
    check(&[(1_600_000_000_000, 3.0)], "0001 8080 f4f6 905d 4008 0000 0000 0000 00");
}

/// Both ends of every range of the delta of deltas survive.
#[test]
fn dod_ranges() {
    for dod in [
        0,
        1,
        -1,
        8192,
        8193,
        -8191,
        -8192,
        65536,
        65537,
        -65535,
        -65536,
        524_288,
        524_289,
        -524_287,
        -524_288,
        1 << 40,
        -(1 << 40),
    ] {
        let start = 1i64 << 41;
        let samples: Vec<Sample> =
            [0, start, 2 * start + dod].iter().map(|&t_ms| Sample { t_ms, value: 1.0 }).collect();
        let mut decoded = Vec::new();
        decode(&encode(&samples), &mut decoded).unwrap();
        assert_eq!(decoded, samples, "{dod}");
    }
}

#[test]
fn torn_chunks_are_refused() {
    let whole =
        encode(&(0..120).map(|i| Sample { t_ms: i * 15_000, value: i as f64 * 0.1 }).collect::<Vec<_>>());
    for length in 0..whole.len() - 1 {
        let mut out = Vec::new();
        assert!(decode(&whole[..length], &mut out).is_err(), "{length}");
        assert!(out.is_empty());
    }
    // A count that the bytes cannot hold.
    assert!(decode(&[0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &mut Vec::new()).is_err());
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![any::<u64>().prop_map(f64::from_bits), (-100i32..100).prop_map(f64::from), Just(0.0)]
}

proptest! {
    #[test]
    fn round_trip(samples in proptest::collection::vec((prop_oneof![Just(15_000i64), 0i64..100_000, any::<i64>()], value()), 0..150)) {
        let mut t_ms = 0i64;
        let samples: Vec<Sample> = samples.into_iter().map(|(step, value)| {
            t_ms = t_ms.wrapping_add(step);
            Sample { t_ms, value }
        }).collect();
        let data = encode(&samples);
        let mut decoded = Vec::new();
        decode(&data, &mut decoded).unwrap();
        prop_assert_eq!(usize::from(samples_in(&data)), samples.len());
        prop_assert_eq!(decoded.len(), samples.len());
        for (a, b) in decoded.iter().zip(&samples) {
            prop_assert_eq!((a.t_ms, a.value.to_bits()), (b.t_ms, b.value.to_bits()));
        }
    }

    #[test]
    fn damaged_input_never_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&data, &mut Vec::new());
    }

    #[test]
    fn flipped_bits_never_panic(flip in 0usize..1000, seed in 0u64..1000) {
        let samples: Vec<Sample> = (0..60).map(|i| Sample { t_ms: i * 15_000 + (seed as i64 * i) % 40, value: (i as u64 * seed) as f64 * 0.37 }).collect();
        let mut data = encode(&samples);
        let bit = flip % (data.len() * 8);
        data[bit / 8] ^= 1 << (bit % 8);
        let _ = decode(&data, &mut Vec::new());
    }
}
