use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use triptych_model::{Labels, TenantId};

use super::*;

#[derive(Debug, Clone, PartialEq)]
struct Line {
    ts_ns: i64,
    line: String,
    metadata: Labels,
}

fn line(ts_ns: i64, text: &str, metadata: &[(&str, &str)]) -> Line {
    Line { ts_ns, line: text.to_owned(), metadata: Labels::from_pairs(metadata.iter().copied()) }
}

fn append(open: &mut OpenBlock, symbols: &mut Symbols, line: &Line) -> bool {
    let mut refs = Vec::new();
    for (name, value) in &line.metadata {
        for text in [name, value] {
            triptych_model::labels::put_uvarint(&mut refs, u64::from(symbols.intern(text).unwrap()));
        }
    }
    open.append(line.ts_ns, line.line.as_bytes(), line.metadata.len(), &refs)
}

/// A chunk with `per_block` lines in each block.
fn build(codec: Codec, lines: &[Line], per_block: usize) -> Vec<u8> {
    let mut symbols = Symbols::default();
    let mut blocks = Vec::new();
    for part in lines.chunks(per_block) {
        let mut open = OpenBlock::new(256 << 10);
        part.iter().for_each(|line| {
            append(&mut open, &mut symbols, line);
        });
        blocks.extend(open.cut(codec, 1).unwrap());
    }
    encode(codec, 1, symbols.table(), &blocks).unwrap()
}

fn read(chunk: &Chunk) -> Vec<Line> {
    let mut out = Vec::new();
    for meta in &chunk.blocks {
        let plain = chunk.read_block(meta).unwrap();
        let from = out.len();
        for entry in EntryReader::new(&plain, chunk.version) {
            let entry = entry.unwrap();
            out.push(Line {
                ts_ns: entry.ts_ns,
                line: String::from_utf8(entry.line.to_vec()).unwrap(),
                metadata: chunk.symbols.labels(entry.refs).unwrap(),
            });
        }
        assert_eq!(out.len() - from, meta.entries as usize);
        assert_eq!((out[from].ts_ns, out[out.len() - 1].ts_ns), (meta.from_ns, meta.through_ns));
    }
    out
}

fn some_lines() -> Vec<Line> {
    (0..500i64)
        .map(|i| {
            let metadata: &[(&str, &str)] =
                if i % 3 == 0 { &[("trace_id", "abc"), ("user", "7")] } else { &[] };
            line(1_700_000_000_000_000_000 + i * 1_000_003, &format!("level=info msg=\"line {i}\""), metadata)
        })
        .collect()
}

#[test]
fn every_codec_round_trips() {
    let lines = some_lines();
    for codec in Codec::ALL {
        let data = build(codec, &lines, 120);
        let chunk = Chunk::parse(data.into()).unwrap();
        assert_eq!((chunk.version, chunk.codec, chunk.blocks.len()), (4, codec, 5));
        assert_eq!(read(&chunk), lines, "{codec:?}");
        assert_eq!(chunk.bounds_ns(), Some((lines[0].ts_ns, lines[499].ts_ns)));
    }
}

/// Written down by hand from the layout: header, symbols, one block, metas, footer.
#[test]
fn golden_bytes() {
    let data = build(Codec::None, &[line(1, "hello", &[("a", "b")]), line(2, "x", &[])], 10);
    let symbols = [2, 1, b'a', 1, b'b'];
    let block = [2, 5, b'h', b'e', b'l', b'l', b'o', 3, 1, 0, 1, 4, 1, b'x', 1, 0];
    // 1 block: 2 entries, 1 ns, 2 ns, offset 15, 6 bytes of lines + 8 for a pair, 16 bytes.
    let metas = [1, 2, 2, 4, 15, 14, 16];
    let mut want = vec![0x01, 0x2E, 0xE5, 0x6A, 4, 0];
    let mut put = |section: &[u8]| {
        want.extend_from_slice(section);
        want.extend_from_slice(&crc32c::crc32c(section).to_be_bytes());
    };
    put(&symbols);
    put(&block);
    put(&metas);
    for number in [5u64, 6, 7, 35] {
        want.extend_from_slice(&number.to_be_bytes());
    }
    assert_eq!(data, want);
}

#[test]
fn object_golden_and_checks() {
    let tenant = TenantId::new("fake").unwrap();
    let labels = Labels::from_pairs([("app", "a\"b")]);
    let chunk = build(Codec::Snappy, &some_lines(), 100);
    let bounds = envelope::round_outwards_ms(1_700_000_000_000_000_001, 1_700_000_000_499_001_497);
    assert_eq!(bounds, (1_700_000_000_000, 1_700_000_000_500));
    let (found, object) = envelope::wrap(&tenant, 0xABC, &labels, bounds, &chunk).unwrap();

    let header_length = u32::from_be_bytes(*object.first_chunk::<4>().unwrap()) as usize;
    let mut json = String::new();
    std::io::Read::read_to_string(&mut snap::read::FrameDecoder::new(&object[4..header_length]), &mut json)
        .unwrap();
    assert_eq!(
        json,
        "{\"fingerprint\":2748,\"userID\":\"fake\",\"from\":1700000000,\"through\":1700000000.5,\
         \"metric\":{\"__name__\":\"logs\",\"app\":\"a\\\"b\"},\"encoding\":129}\n"
    );
    assert_eq!(object[header_length..][..4], (chunk.len() as u32).to_be_bytes());
    assert_eq!(object[header_length + 4..], chunk);

    let path = found.path(&tenant).unwrap();
    assert_eq!(path.as_ref(), format!("logs/fake/abc/18bcfe56800:18bcfe569f4:{:x}", found.checksum));
    assert_eq!(ChunkRef::from_path(&tenant, &path), Some(found));

    assert_eq!(read(&envelope::unwrap(&tenant, &found, object.clone()).unwrap()), some_lines());
    let other = TenantId::new("other").unwrap();
    assert!(envelope::unwrap(&other, &found, object.clone()).is_err());
    assert!(envelope::unwrap(&tenant, &ChunkRef { from_ms: 0, ..found }, object.clone()).is_err());
    for at in (0..object.len()).step_by(97) {
        let mut broken = object.to_vec();
        broken[at] ^= 0x40;
        assert!(envelope::unwrap(&tenant, &found, broken.into()).is_err());
    }
}

#[test]
fn times_in_the_header() {
    let tenant = TenantId::new("t").unwrap();
    let chunk = build(Codec::None, &[line(1, "x", &[])], 1);
    for bounds in [(0, 1), (-1500, -1), (-7, 1_700_000_000_001), (1_700_000_000_010, 1_700_000_000_100)] {
        let (found, object) = envelope::wrap(&tenant, 1, &Labels::empty(), bounds, &chunk).unwrap();
        assert!(envelope::unwrap(&tenant, &found, object).is_ok(), "{bounds:?}");
        assert_eq!(ChunkRef::from_path(&tenant, &found.path(&tenant).unwrap()), Some(found));
    }
}

#[test]
fn entries_are_ordered_and_copies_dropped() {
    let (mut open, mut symbols) = (OpenBlock::new(256 << 10), Symbols::default());
    let lines = [
        line(5, "e", &[]),
        line(3, "c", &[]),
        line(5, "e2", &[]),
        line(3, "c", &[("k", "v")]),
        line(4, "d", &[]),
    ];
    lines.iter().for_each(|l| assert!(append(&mut open, &mut symbols, l)));
    lines.iter().for_each(|l| assert!(!append(&mut open, &mut symbols, l)));
    let block = open.cut(Codec::None, 0).unwrap().unwrap();
    assert_eq!((block.entries, block.from_ns, block.through_ns), (5, 3, 5));
    let order: Vec<String> = EntryReader::new(&block.data, 4)
        .map(|e| String::from_utf8(e.unwrap().line.to_vec()).unwrap())
        .collect();
    assert_eq!(order, ["c", "c", "d", "e", "e2"]);
    assert!(open.is_empty() && open.cut(Codec::None, 0).unwrap().is_none());
}

#[test]
fn older_versions() {
    // Version 3, uncompressed, one block, as Loki 2 wrote it.
    let block = [2, 1, b'x', 4, 1, b'y'];
    let metas = [1, 2, 2, 4, 6, 2, 6];
    let mut data = vec![0x01, 0x2E, 0xE5, 0x6A, 3, 0];
    for section in [&block[..], &metas] {
        data.extend_from_slice(section);
        data.extend_from_slice(&crc32c::crc32c(section).to_be_bytes());
    }
    data.extend_from_slice(&16u64.to_be_bytes());
    let chunk = Chunk::parse(data.into()).unwrap();
    assert_eq!(read(&chunk), [line(1, "x", &[]), line(2, "y", &[])]);
}

#[test]
fn bombs_are_refused() {
    for codec in Codec::ALL {
        let bomb = codec.compress(&vec![0u8; 4 << 20], 3).unwrap();
        assert!(codec.decompress(&bomb, 1 << 20).is_err(), "{codec:?}");
        assert_eq!(codec.decompress(&bomb, 4 << 20).unwrap().len(), 4 << 20, "{codec:?}");
    }
    // A frame that Go would write: no size in it, and two frames one after the other.
    let mut frames = zstd::stream::encode_all(&b"abc"[..], 1).unwrap();
    frames.extend(zstd::stream::encode_all(&b"def"[..], 1).unwrap());
    assert_eq!(Codec::Zstd.decompress(&frames, 100).unwrap(), b"abcdef");
}

fn any_lines() -> impl Strategy<Value = Vec<Line>> {
    let labels = proptest::collection::btree_map("[a-c]", "[x-z]{1,2}", 0..3);
    proptest::collection::vec((0i64..50, "\\PC{0,20}", labels), 1..60).prop_map(|lines| {
        let make = |(ts_ns, line, pairs)| Line { ts_ns, line, metadata: Labels::from_pairs(&pairs) };
        lines.into_iter().map(make).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn round_trip(lines in any_lines(), codec in proptest::sample::select(Codec::ALL.to_vec())) {
        let chunk = Chunk::parse(build(codec, &lines, 1000).into()).unwrap();
        let mut want: Vec<Line> = Vec::new();
        for line in lines {
            if !want.contains(&line) {
                want.push(line);
            }
        }
        want.sort_by_key(|l| l.ts_ns);
        prop_assert_eq!(read(&chunk), want);
    }

    #[test]
    fn damage_never_panics(at in 0usize..2000, flip in 1u8.., cut in 0usize..2000, codec in proptest::sample::select(Codec::ALL.to_vec())) {
        let mut data = build(codec, &some_lines()[..40], 15);
        let i = at % data.len();
        data[i] ^= flip;
        data.truncate(data.len().max(1) - cut % 3);
        if let Ok(chunk) = Chunk::parse(data.into()) {
            for meta in &chunk.blocks {
                if let Ok(plain) = chunk.read_block(meta) {
                    for entry in EntryReader::new(&plain, chunk.version).flatten() {
                        let _ = chunk.symbols.labels(entry.refs);
                    }
                }
            }
        }
    }

    #[test]
    fn hostile_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..6, codec in 0u8..11) {
        for entry in EntryReader::new(&bytes, 4) {
            let _ = entry;
        }
        for codec in Codec::ALL {
            let _ = codec.decompress(&bytes, 1 << 16);
        }
        if bytes.len() > 6 {
            bytes[..6].copy_from_slice(&[0x01, 0x2E, 0xE5, 0x6A, version, codec]);
        }
        let _ = Chunk::parse(Bytes::from(bytes.clone()));
        let tenant = TenantId::new("t").unwrap();
        let wanted = ChunkRef { fingerprint: 0, from_ms: 0, through_ms: 0, checksum: crc32c::crc32c(&bytes) };
        let _ = envelope::unwrap(&tenant, &wanted, bytes.clone().into());
        let _ = SymbolTable::decode(&bytes, version as usize);
        let _ = Arc::new(SymbolTable::default()).labels(&bytes);
    }
}
