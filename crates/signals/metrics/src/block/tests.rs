use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::process::Command;
use std::sync::Arc;

use futures::StreamExt;
use proptest::prelude::*;
use triptych_blob::Bucket;
use triptych_blob::object_store::ObjectStoreExt;
use triptych_blob::object_store::local::LocalFileSystem;
use triptych_blob::object_store::memory::InMemory;
use triptych_model::batch::MetricsBuilder;
use triptych_model::metrics::{
    ChunkEncoding, EncodedChunk, LabelsSelect, Sample, SeriesChunks, SeriesSelect,
};
use triptych_model::{Kind, Labels, MatchOp, Matcher};
use triptych_runtime::QueryContext;

use super::writer::MetaParts;
use super::*;
use crate::head::{FlushOptions, Head, HeadConfig};

const GOLDEN_ID: &str = "01M7WACZ7RRHWCJ0TGKZ69F8DV";

/// `promtool tsdb create-blocks-from openmetrics` (Prometheus 2.42) of five samples of two series.
const GOLDEN_INDEX: &str = "
    baaad7000200000026000000090001310132085f5f6e616d655f5f0161016208696e7374616e6365036a6f6202757046
    b9781f000000000000000000000000001203030806010704018080f4f6905dc3e0020892cbbf4f000000000000000000
    1003030806020705018080f4f6905d00294a20b0dd0000000000000c0000000100000001000000086d96547600000010
    00000001000000020000000100000002461967b500000010000000010000000200000004000000054a87d2420000000c
    000000020000000400000006001536640000000c00000002000000040000000600153664000000080000000100000004
    73a34a3900000008000000010000000692983ace00000008000000010000000473a34a39000000080000000100000006
    92983ace000000220000000301085f5f6e616d655f5f780108696e7374616e63658c0101036a6f62a4017a22e62f0000
    004600000006020000bc0102085f5f6e616d655f5f027570d0010208696e7374616e63650131e4010208696e7374616e
    63650132f40102036a6f620161840202036a6f620162940298e3192d0000000000000005000000000000003300000000
    00000075000000000000012400000000000000bc000000000000014e4b8d332e";

const GOLDEN_CHUNKS: &str = "
    85bd40dd010000001b0100048080f4f6905d3ff000000000000098753115ffc03de22fff803119f7c6110100018080f4
    f6905d4008000000000000004091262a";

const GOLDEN_META: &str = r#"{
	"ulid": "01M7WACZ7RRHWCJ0TGKZ69F8DV", "minTime": 1600000000000, "maxTime": 1600000045124,
	"stats": { "numSamples": 5, "numSeries": 2, "numChunks": 2 },
	"compaction": { "level": 1, "sources": [ "01M7WACZ7RRHWCJ0TGKZ69F8DV" ] }, "version": 1 }"#;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn ctx() -> QueryContext {
    QueryContext::unlimited(tenant())
}

fn memory() -> Bucket {
    Arc::new(InMemory::new())
}

fn caches() -> BlockCaches {
    BlockCaches::new(1 << 20, 1 << 20)
}

fn everything() -> SeriesSelect {
    SeriesSelect { matchers: vec![], start_ms: i64::MIN, end_ms: i64::MAX, skip_chunks: false, shard: None }
}

fn samples_of(series: &SeriesChunks) -> Vec<(i64, f64)> {
    let mut out = Vec::new();
    series.chunks.iter().for_each(|c| crate::chunk::decode_chunk(c, &mut out).unwrap());
    out.iter().map(|s| (s.t_ms, s.value)).collect()
}

async fn collect(block: &Block, select: &SeriesSelect) -> triptych_model::Result<Vec<SeriesChunks>> {
    block.select(&ctx(), select).await?.collect::<Vec<_>>().await.into_iter().collect()
}

async fn put_golden(bucket: &Bucket, index: Vec<u8>, chunks: Vec<u8>) -> BlockId {
    let id = BlockId::parse(GOLDEN_ID).unwrap();
    let dir = block_path(&tenant(), id);
    bucket.put(&file_path(&dir, INDEX_FILE), index.into()).await.unwrap();
    bucket.put(&file_path(&dir, "chunks/000001"), chunks.into()).await.unwrap();
    bucket.put(&file_path(&dir, META_FILE), GOLDEN_META.as_bytes().to_vec().into()).await.unwrap();
    id
}

#[tokio::test]
async fn reads_what_prometheus_wrote() {
    let bucket = memory();
    let id = put_golden(&bucket, hex(GOLDEN_INDEX), hex(GOLDEN_CHUNKS)).await;
    let block = Block::open(&bucket, &tenant(), id, &caches()).await.unwrap();
    let all = collect(&block, &everything()).await.unwrap();
    let got: Vec<(String, Vec<(i64, f64)>)> =
        all.iter().map(|s| (s.labels.to_string(), samples_of(s))).collect();
    let t = 1_600_000_000_000;
    assert_eq!(
        got,
        [
            (
                r#"{__name__="up", instance="1", job="a"}"#.to_owned(),
                vec![(t, 1.0), (t + 15_000, 1.0), (t + 30_000, 0.0), (t + 45_123, 1.5)]
            ),
            (r#"{__name__="up", instance="2", job="b"}"#.to_owned(), vec![(t, 3.0)]),
        ]
    );
    let select = LabelsSelect::default();
    assert_eq!(block.label_names(&ctx(), &select).await.unwrap(), ["__name__", "instance", "job"]);
    assert_eq!(block.label_values(&ctx(), "job", &select).await.unwrap(), ["a", "b"]);
    assert_eq!(
        block.series_by_value(&ctx(), "job").await.unwrap(),
        [("a".to_owned(), 1), ("b".to_owned(), 1)]
    );
    assert_eq!(block.series_by_value(&ctx(), "__name__").await.unwrap(), [("up".to_owned(), 2)]);
    let one = SeriesSelect { matchers: vec![Matcher::equal("job", "b")], ..everything() };
    assert_eq!(collect(&block, &one).await.unwrap().len(), 1);
}

/// Our writer makes the same series, symbols and postings as Prometheus; label index sections apart, which we leave out.
#[tokio::test]
async fn writes_what_prometheus_writes() {
    let bucket = memory();
    let t = 1_600_000_000_000;
    let a = Labels::from_pairs([("__name__", "up"), ("instance", "1"), ("job", "a")]);
    let b = Labels::from_pairs([("__name__", "up"), ("instance", "2"), ("job", "b")]);
    let symbols = a.iter().chain(b.iter()).flat_map(|(n, v)| [n, v]).map(Arc::from).collect();
    let id = BlockId::new(t);
    let mut writer = BlockWriter::new(&bucket, &tenant(), id, symbols).await.unwrap();
    let chunk = |samples: &[(i64, f64)]| {
        let samples: Vec<Sample> = samples.iter().map(|&(t_ms, value)| Sample { t_ms, value }).collect();
        EncodedChunk {
            start_ms: samples[0].t_ms,
            end_ms: samples[samples.len() - 1].t_ms,
            encoding: ChunkEncoding::Xor,
            data: crate::chunk::encode(&samples).into(),
        }
    };
    let first = chunk(&[(t, 1.0), (t + 15_000, 1.0), (t + 30_000, 0.0), (t + 45_123, 1.5)]);
    writer.series(&a, &[first]).await.unwrap();
    assert!(writer.series(&a, &[]).await.is_err(), "twice the same");
    writer.series(&b, &[chunk(&[(t, 3.0)])]).await.unwrap();
    let meta =
        writer.finish(MetaParts { start_ms: t, end_ms: t + 45_124, ..MetaParts::default() }).await.unwrap();
    assert_eq!(meta.stats, BlockMeta::parse(GOLDEN_META.as_bytes()).unwrap().stats);
    assert_eq!(meta.compaction.sources, [id]);

    let dir = block_path(&tenant(), id);
    let read = async |name: &str| bucket.get(&file_path(&dir, name)).await.unwrap().bytes().await.unwrap();
    assert_eq!(read("chunks/000001").await, hex(GOLDEN_CHUNKS));
    let (ours, golden) = (read(INDEX_FILE).await, hex(GOLDEN_INDEX));
    assert_eq!(ours[..0x75], golden[..0x75], "symbols and series");
    assert_eq!(ours[0x78..0x78 + 0x124 - 0xbc], golden[0xbc..0x124], "postings");
    assert_eq!(BlockMeta::parse(&read(META_FILE).await).unwrap(), meta);
}

#[tokio::test]
async fn damage_is_reported_not_spread() {
    let check = async |index: Vec<u8>, chunks: Vec<u8>| {
        let bucket = memory();
        let id = put_golden(&bucket, index, chunks).await;
        let block = Block::open(&bucket, &tenant(), id, &caches()).await.unwrap();
        collect(&block, &everything()).await
    };
    let (index, chunks) = (hex(GOLDEN_INDEX), hex(GOLDEN_CHUNKS));
    for length in 0..index.len() {
        assert!(check(index[..length].to_vec(), chunks.clone()).await.is_err(), "index cut at {length}");
    }
    for length in 0..chunks.len() {
        assert!(check(index.clone(), chunks[..length].to_vec()).await.is_err(), "chunks cut at {length}");
    }
    // Any flipped bit is seen, or does not matter (padding, unused sections).
    let good = check(index.clone(), chunks.clone()).await.unwrap();
    for at in 0..index.len() {
        let mut bad = index.clone();
        bad[at] ^= 1 << (at % 8);
        match check(bad, chunks.clone()).await {
            Ok(series) => assert_eq!(series, good, "flip at {at}"),
            Err(e) => assert_eq!(e.kind, Kind::Damaged, "{e}"),
        }
    }
    for at in SEGMENT_HEADER_BYTES..chunks.len() {
        let mut bad = chunks.clone();
        bad[at] ^= 1 << (at % 8);
        assert_eq!(check(index.clone(), bad).await.unwrap_err().kind, Kind::Damaged, "flip at {at}");
    }
}

#[tokio::test]
async fn unknown_encodings_are_reported() {
    let mut chunks = hex(GOLDEN_CHUNKS);
    let data = SEGMENT_HEADER_BYTES + 1;
    chunks[data] = 0xff;
    let crc = crc32c::crc32c(&chunks[data..data + 28]);
    chunks[data + 28..data + 32].copy_from_slice(&crc.to_be_bytes());
    let bucket = memory();
    let id = put_golden(&bucket, hex(GOLDEN_INDEX), chunks).await;
    let block = Block::open(&bucket, &tenant(), id, &caches()).await.unwrap();
    let ctx = ctx();
    let series: Vec<_> = block.select(&ctx, &everything()).await.unwrap().collect().await;
    assert_eq!(series.len(), 1);
    assert!(ctx.report().missed[0].contains("left out"));
    let mut scan = block.scan(&ctx, 1 << 20).await.unwrap();
    assert!(scan.next().await.unwrap().is_err());
}

fn head_with(series: usize, samples: i64, start_ms: i64) -> Head {
    let head = Head::new(HeadConfig::default());
    for from in (0..samples).step_by(50) {
        let mut builder = MetricsBuilder::default();
        for i in 0..series {
            let labels = Labels::from_pairs([
                ("__name__", ["requests_total", "latency"][i % 2]),
                ("pod", &format!("pod-{i:04}")),
                ("zone", ["a", "b", "c"][i % 3]),
            ]);
            let run: Vec<Sample> = (from..(from + 50).min(samples))
                .map(|n| Sample { t_ms: start_ms + n * 15_000, value: (n * (i as i64 + 1)) as f64 * 0.5 })
                .collect();
            builder.series(labels.hash64(), labels.as_encoded(), &run);
        }
        assert_eq!(head.append(builder.plain()).unwrap().refused_items(), 0);
    }
    head
}

fn flush_options() -> FlushOptions {
    let labels =
        BTreeMap::from([("tenant".to_owned(), "acme".to_owned()), ("ingester".to_owned(), "i-0".to_owned())]);
    FlushOptions { labels, source: "triptych".to_owned(), now_ms: 1_700_000_000_000 }
}

#[tokio::test]
async fn a_flushed_head_reads_the_same() {
    let bucket = memory();
    let head = head_with(300, 700, 1_600_000_000_000);
    let report = head.flush(&bucket, &tenant(), &flush_options()).await.unwrap();
    assert_eq!(report.samples, 300 * 700);
    assert_eq!(report.blocks.len(), 2, "2 h 55 min touch two ranges from there");
    let again = head.flush(&bucket, &tenant(), &flush_options()).await.unwrap();
    assert_eq!(again.blocks, report.blocks, "a repeated flush writes nothing new");
    let other = memory();
    let elsewhere = head.flush(&other, &tenant(), &flush_options()).await.unwrap();
    assert_eq!((elsewhere.blocks.len(), elsewhere.samples), (2, report.samples));
    for meta in &elsewhere.blocks {
        Block::open(&other, &tenant(), meta.ulid, &caches())
            .await
            .expect("what one bucket has, another has not");
    }

    let caches = caches();
    let mut blocks = Vec::new();
    for meta in &report.blocks {
        assert_eq!(meta.start_ms.div_euclid(7_200_000), (meta.end_ms - 1).div_euclid(7_200_000));
        blocks.push(Block::open(&bucket, &tenant(), meta.ulid, &caches).await.unwrap());
    }
    let m = |op, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
    use MatchOp::*;
    for matchers in [
        vec![],
        vec![m(Equal, "__name__", "latency"), m(NotEqual, "zone", "a")],
        vec![m(Regex, "pod", "pod-00.*"), m(Regex, "zone", "a|b")],
        vec![m(Equal, "nope", "")],
        vec![m(Equal, "nope", "x")],
        vec![m(NotRegex, "pod", "pod-0[01].*")],
    ] {
        for (start_ms, end_ms) in [(i64::MIN, i64::MAX), (1_600_000_100_000, 1_600_002_000_000)] {
            let select = SeriesSelect {
                matchers: matchers.clone(),
                start_ms,
                end_ms,
                skip_chunks: false,
                shard: None,
            };
            let expected: Vec<SeriesChunks> =
                head.select(&ctx(), &select).unwrap().map(|s| s.unwrap()).collect().await;
            let mut streams = Vec::new();
            for block in &blocks {
                streams.push(block.select(&ctx(), &select).await.unwrap());
            }
            let got: Vec<SeriesChunks> = crate::merge_chunks(streams).map(|s| s.unwrap()).collect().await;
            assert_eq!(got.len(), expected.len(), "{matchers:?}");
            for (got, expected) in got.iter().zip(&expected) {
                assert_eq!(got.labels, expected.labels);
                assert_eq!(samples_of(got), samples_of(expected));
            }
        }
    }
    assert!(caches.bytes() < 2 << 20);
}

#[tokio::test]
async fn samples_from_all_over_time_make_few_blocks() {
    let bucket = memory();
    let head = Head::new(HeadConfig::default());
    let labels = Labels::from_pairs([("__name__", "x")]);
    let times: Vec<Sample> = (0..500)
        .map(|i| Sample { t_ms: i * 90_000_000, value: 1.0 })
        .chain([Sample { t_ms: i64::MAX, value: 1.0 }])
        .collect();
    let mut builder = MetricsBuilder::default();
    builder.series(labels.hash64(), labels.as_encoded(), &times);
    assert_eq!(head.append(builder.plain()).unwrap().accepted, 501);
    let report = head.flush(&bucket, &tenant(), &flush_options()).await.unwrap();
    assert_eq!(report.samples, 501);
    assert!(report.blocks.len() <= 48, "{}", report.blocks.len());
    let mut samples = 0;
    for meta in &report.blocks {
        let block = Block::open(&bucket, &tenant(), meta.ulid, &caches()).await.unwrap();
        for series in collect(&block, &everything()).await.unwrap() {
            samples += samples_of(&series).len();
        }
    }
    // The end of time is exclusive in meta.json: the last millisecond of all cannot be asked for.
    assert!(samples >= 500);
}

#[tokio::test]
async fn segments_are_cut() {
    let bucket = memory();
    let head = head_with(40, 200, 1_600_000_000_000);
    let series: Vec<SeriesChunks> =
        head.select(&ctx(), &everything()).unwrap().map(|s| s.unwrap()).collect().await;
    let symbols = series.iter().flat_map(|s| &s.labels).flat_map(|(n, v)| [n, v]).map(Arc::from).collect();
    let id = BlockId::new(1);
    let mut writer =
        BlockWriter::new(&bucket, &tenant(), id, symbols).await.unwrap().with_segment_bytes_max(4096);
    for one in &series {
        writer.series(&one.labels, &one.chunks).await.unwrap();
    }
    let parts = MetaParts { start_ms: i64::MIN, end_ms: i64::MAX, ..MetaParts::default() };
    let meta = writer.finish(parts).await.unwrap();
    assert!(meta.thanos.segment_files.len() > 3, "{:?}", meta.thanos.segment_files);
    let block = Block::open(&bucket, &tenant(), id, &caches()).await.unwrap();
    assert_eq!(collect(&block, &everything()).await.unwrap(), series);
}

#[tokio::test]
async fn an_unfinished_block_is_none() {
    let bucket = memory();
    let id = BlockId::new(1);
    let writer = BlockWriter::new(&bucket, &tenant(), id, vec![]).await.unwrap();
    writer.abort().await;
    assert_eq!(Block::open(&bucket, &tenant(), id, &caches()).await.unwrap_err().kind, Kind::NotFound);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn damaged_headers_never_panic(section in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut whole = (section.len() as u32).to_be_bytes().to_vec();
        whole.extend_from_slice(&section);
        whole.extend_from_slice(&crc32c::crc32c(&section).to_be_bytes());
        let toc = header::Toc { symbols: 5, series: 5, label_indices: 5, label_indices_table: 5, postings: 5, postings_table: 1 << 40 };
        let whole = bytes::Bytes::from(whole);
        let _ = header::decode_postings(&whole);
        if let Ok(header) = header::IndexHeader::parse(toc, &whole, &whole) {
            let _ = (header.symbols().count(), header.names().count(), header.all());
        }
    }
}

fn promtool(args: &[&str], dir: &FilePath) -> Option<String> {
    let output = Command::new("promtool").args(args).arg(dir).output().ok()?;
    assert!(output.status.success(), "promtool {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Does nothing where `promtool` is not installed.
#[tokio::test]
async fn promtool_accepts_our_blocks() {
    if Command::new("promtool").arg("--version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let bucket: Bucket = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    let head = head_with(50, 300, 1_600_000_000_000);
    // Late samples, so that chunks had to be merged.
    let late = Labels::from_pairs([("__name__", "late")]);
    let mut builder = MetricsBuilder::default();
    for i in [100i64, 50, 200, 150, 20] {
        let sample = Sample { t_ms: 1_600_004_400_000 + i * 1000, value: i as f64 };
        builder.series(late.hash64(), late.as_encoded(), &[sample]);
    }
    assert_eq!(head.append(builder.plain()).unwrap().accepted, 5);
    let report = head.flush(&bucket, &tenant(), &flush_options()).await.unwrap();
    let root: PathBuf = dir.path().join("metrics").join("acme");

    let list = promtool(&["tsdb", "list"], &root).unwrap();
    for meta in &report.blocks {
        assert!(list.contains(&meta.ulid.to_string()), "{list}");
    }
    let analysis = promtool(&["tsdb", "analyze"], &root).unwrap();
    assert!(analysis.contains("Series: 51"), "{analysis}");
    // It wants to see a log beside the blocks.
    std::fs::create_dir(root.join("wal")).unwrap();
    let dump = promtool(&["tsdb", "dump"], &root).unwrap();
    assert_eq!(dump.lines().count() as u64, report.samples);
    let late: Vec<&str> = dump.lines().filter(|l| l.contains("\"late\"")).collect();
    assert_eq!(late[0], r#"{__name__="late"} 20 1600004420000"#);
    assert_eq!(late.len(), 5);
}

/// Does nothing where `promtool` is not installed.
#[tokio::test]
async fn reads_blocks_of_promtool() {
    if Command::new("promtool").arg("--version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("metrics").join("acme");
    std::fs::create_dir_all(&root).unwrap();
    let mut text = String::from("# TYPE load gauge\n");
    for i in 0..200 {
        for n in 0..300 {
            let (value, t) = ((i * n) as f64 / 7.0, 1_600_000_000 + n * 60);
            text.push_str(&format!("load{{host=\"host-{i:03}\",dc=\"{}\"}} {value} {t}\n", i % 4));
        }
    }
    text.push_str("# EOF\n");
    let input = dir.path().join("input.txt");
    std::fs::write(&input, text).unwrap();
    promtool(&["tsdb", "create-blocks-from", "openmetrics", input.to_str().unwrap()], &root).unwrap();

    let bucket: Bucket = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    let caches = caches();
    let (mut samples, mut series) = (0, std::collections::BTreeSet::new());
    for entry in std::fs::read_dir(&root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(id) = BlockId::parse(&name) else { continue };
        let block = Block::open(&bucket, &tenant(), id, &caches).await.unwrap();
        let select = SeriesSelect { matchers: vec![Matcher::equal("dc", "3")], ..everything() };
        for one in collect(&block, &select).await.unwrap() {
            let host: i64 = one.labels.get("host").unwrap()[5..].parse().unwrap();
            for (t_ms, value) in samples_of(&one) {
                assert_eq!(value, (host * (t_ms / 1000 - 1_600_000_000) / 60) as f64 / 7.0);
                samples += 1;
            }
            series.insert(one.labels);
        }
    }
    assert_eq!((series.len(), samples), (50, 50 * 300));
}
