use proptest::prelude::*;
use triptych_model::MatchOp::{self, Equal, NotEqual, NotRegex, Regex};
use triptych_model::labels::put_uvarint;
use triptych_model::{Labels, Matcher};

use super::*;

fn series(i: u64, chunks: usize) -> SeriesMeta {
    let mut pairs = vec![("app", format!("a{}", i % 4)), ("n", i.to_string())];
    if i.is_multiple_of(3) {
        pairs.push(("env", format!("e{}", i % 5)));
    }
    let labels = Labels::from_pairs(pairs);
    let chunks = (0..chunks as i64).map(|c| ChunkMeta {
        from_ms: c * 1000 + i as i64,
        through_ms: c * 1000 + 1500,
        checksum: (i as u32).wrapping_mul(0x9E37_79B9) ^ c as u32,
        kb: 12,
        entries: 34,
    });
    SeriesMeta { fingerprint: labels.hash64(), labels: labels.clone(), chunks: chunks.collect() }
}

fn parse(all: &[SeriesMeta]) -> IndexFile {
    IndexFile::parse(encode(all).unwrap().bytes.into()).unwrap()
}

#[test]
fn round_trip_and_selection() {
    let all = normalise((0..2500).map(|i| series(i, (i % 40) as usize + 1)).collect());
    let encoded = encode(&all).unwrap();
    let file = IndexFile::parse(encoded.bytes.clone().into()).unwrap();
    assert_eq!(file.read_all().unwrap(), all);
    assert_eq!(file.bounds_ms(), (encoded.from_ms, encoded.through_ms));
    assert_eq!(encoded.from_ms, 0);

    let m = |op: MatchOp, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
    for set in [
        vec![],
        vec![m(Equal, "app", "a1")],
        vec![m(Regex, "app", "a1|a2"), m(NotEqual, "env", "e0")],
        vec![m(Regex, "n", "1.*"), m(Equal, "env", "")],
        vec![m(NotRegex, "env", "e[12]"), m(NotEqual, "app", "a0")],
        vec![m(Equal, "none", "x")],
    ] {
        let got: Vec<SeriesMeta> =
            file.select(&set).unwrap().into_iter().map(|r| file.series(r, 0, i64::MAX).unwrap()).collect();
        let want: Vec<SeriesMeta> =
            all.iter().filter(|s| set.iter().all(|m| m.matches_labels(&s.labels))).cloned().collect();
        assert_eq!(got, want, "{set:?}");
    }
    // A series with 40 chunks: only those in the range.
    let long = all.iter().position(|s| s.chunks.len() == 40).unwrap();
    let reference = file.select(&[m(Equal, "n", all[long].labels.value("n"))]).unwrap()[0];
    let part = file.series(reference, 5000, 7000).unwrap();
    let want: Vec<ChunkMeta> =
        all[long].chunks.iter().filter(|c| c.from_ms <= 7000 && c.through_ms >= 5000).copied().collect();
    assert_eq!(part.chunks, want);
    assert!(want.len() < 6);
}

/// Written down by hand from the layout.
#[test]
fn golden_bytes() {
    let labels = Labels::from_pairs([("a", "b")]);
    let chunk = ChunkMeta { from_ms: 1000, through_ms: 1010, checksum: 0xAABB_CCDD, kb: 3, entries: 7 };
    let encoded = encode(&[SeriesMeta { fingerprint: 0x0102, labels, chunks: vec![chunk] }]).unwrap();
    let mut want = vec![0xBA, 0xAA, 0xD7, 0x00, 3];
    let section = |want: &mut Vec<u8>, body: &[u8]| {
        want.extend_from_slice(&(body.len() as u32).to_be_bytes());
        want.extend_from_slice(body);
        want.extend_from_slice(&crc32c::crc32c(body).to_be_bytes());
    };
    section(&mut want, &[0, 0, 0, 2, 1, b'a', 1, b'b']);
    let series_at = want.len() as u64;
    want.resize(32, 0);
    let mut body = vec![0, 0, 0, 0, 0, 0, 1, 2, 1, 0, 1, 1];
    let markers = [1, 1, 0, 0, 0, 3, 0, 0, 0, 7, 0, 0xD0, 0x0F, 20];
    body.extend_from_slice(&(markers.len() as u32).to_be_bytes());
    body.extend_from_slice(&markers);
    body.extend_from_slice(&[0xD0, 0x0F, 10, 3, 7, 0xAA, 0xBB, 0xCC, 0xDD]);
    want.push(body.len() as u8);
    want.extend_from_slice(&body);
    want.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    let label_indices_at = want.len() as u64;
    want.resize(want.len().next_multiple_of(4), 0);
    let label_index = want.len() as u64;
    section(&mut want, &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]);
    let postings_at = want.len() as u64;
    let all = want.len() as u64;
    section(&mut want, &[0, 0, 0, 1, 0, 0, 0, 2]);
    let pair = want.len() as u64;
    section(&mut want, &[0, 0, 0, 1, 0, 0, 0, 2]);
    let label_table_at = want.len() as u64;
    let with_offset = |start: &[u8], offset: u64| {
        let mut body = start.to_vec();
        put_uvarint(&mut body, offset);
        body
    };
    section(&mut want, &with_offset(&[0, 0, 0, 1, 1, 1, b'a'], label_index));
    let postings_table_at = want.len() as u64;
    let table = with_offset(&[0, 0, 0, 2, 2, 0, 0], all);
    let table = with_offset(&[&table[..], &[2, 1, b'a', 1, b'b']].concat(), pair);
    section(&mut want, &table);
    let fingerprints_at = want.len() as u64;
    section(&mut want, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 2]);
    let mut toc = Vec::new();
    let places =
        [5, series_at, label_indices_at, label_table_at, postings_at, postings_table_at, fingerprints_at];
    for number in places.into_iter().chain([1000, 1010]) {
        toc.extend_from_slice(&number.to_be_bytes());
    }
    want.extend_from_slice(&toc);
    want.extend_from_slice(&crc32c::crc32c(&toc).to_be_bytes());
    assert_eq!(encoded.bytes, want);
    assert_eq!((encoded.from_ms, encoded.through_ms, encoded.checksum), (1000, 1010, crc32c::crc32c(&toc)));
}

#[test]
fn copies_collapse() {
    let all = normalise(vec![series(1, 3), series(2, 1), series(1, 5), series(3, 0)]);
    assert_eq!(all.len(), 2);
    assert_eq!(all.iter().find(|s| s.labels.value("n") == "1").unwrap().chunks, series(1, 5).chunks);
}

#[test]
fn empty_and_gzip() {
    let encoded = encode(&[]).unwrap();
    assert_eq!(parse(&[]).read_all().unwrap(), []);
    let packed = gzip(&encoded.bytes).unwrap();
    assert_eq!(gunzip(&packed, 1 << 20).unwrap(), encoded.bytes);
    assert!(gunzip(&gzip(&[0; 4096]).unwrap(), 4095).is_err());
    assert!(gunzip(b"nonsense", 10).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn damage_never_panics(at: prop::sample::Index, flip in 1u8.., cut in 0usize..4) {
        let mut bytes = encode(&normalise((0..30).map(|i| series(i, 20)).collect())).unwrap().bytes;
        let i = at.index(bytes.len());
        bytes[i] ^= flip;
        bytes.truncate(bytes.len() - cut);
        if let Ok(file) = IndexFile::parse(bytes.into()) {
            let _ = file.read_all();
            let _ = file.select(&[Matcher::new(Regex, "app", "a.*").unwrap()]);
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), offsets in proptest::collection::vec(0u64..400, 7)) {
        // Right header and table of contents, nonsense between.
        let mut file = MAGIC.to_be_bytes().to_vec();
        file.push(3);
        file.extend_from_slice(&bytes);
        let mut toc: Vec<u8> = offsets.iter().flat_map(|o| o.to_be_bytes()).collect();
        toc.extend_from_slice(&[0; 16]);
        file.extend_from_slice(&toc);
        file.extend_from_slice(&crc32c::crc32c(&toc).to_be_bytes());
        if let Ok(file) = IndexFile::parse(file.into()) {
            let _ = file.read_all();
            let _ = file.series(3, 0, 1);
        }
    }
}
