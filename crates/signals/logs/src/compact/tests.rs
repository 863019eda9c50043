use std::sync::Arc;

use proptest::prelude::*;
use triptych_blob::FailingBucket;
use triptych_blob::object_store::local::LocalFileSystem;
use triptych_model::Labels;
use triptych_model::logs::{Direction, EntrySelect};
use triptych_runtime::{QueryContext, now_ns};

use super::*;
use crate::chunk::envelope;
use crate::suite::{self, Line, SECOND_NS, START_NS, collect, flushed, head_of, memory, tenant};
use crate::{BucketStore, BucketStoreConfig, FlushOptions};

const DAY_NS: i64 = 86_400_000_000_000;

async fn paths(bucket: &Bucket) -> Vec<String> {
    let all: Vec<_> = bucket.list(None).try_collect().await.unwrap();
    let mut all: Vec<String> = all.into_iter().map(|o| o.location.to_string()).collect();
    all.sort();
    all
}

async fn index_files(bucket: &Bucket) -> Vec<String> {
    paths(bucket).await.into_iter().filter(|p| p.starts_with("logs/index/")).collect()
}

async fn chunks(bucket: &Bucket) -> Vec<String> {
    paths(bucket).await.into_iter().filter(|p| p.starts_with("logs/team-a/")).collect()
}

async fn notes(bucket: &Bucket) -> Vec<String> {
    paths(bucket).await.into_iter().filter(|p| p.starts_with("control/")).collect()
}

fn everything() -> EntrySelect {
    EntrySelect {
        expr: r#"{app=~".+"}"#.into(),
        start_ns: 0,
        end_ns: i64::MAX,
        direction: Direction::Forward,
        limit: 0,
    }
}

async fn lines(bucket: &Bucket) -> Vec<(i64, u64)> {
    let store = BucketStore::new(bucket.clone(), BucketStoreConfig::default());
    store.sync().await.unwrap();
    let ctx = QueryContext::unlimited(tenant());
    let mut got = collect(store.entries(&ctx, &everything()).await.unwrap()).await;
    assert!(ctx.report().missed.is_empty(), "{:?}", ctx.report());
    got.sort_by_key(|e| (e.ts_ns, e.key));
    got.into_iter().map(|e| (e.ts_ns, e.key)).collect()
}

async fn two_flushes(bucket: &Bucket) {
    let all = suite::lines();
    flushed(&[&head_of(&all[..2000]), &head_of(&all[1500..])], bucket).await;
}

/// A day is never over: nothing but index files is merged.
fn index_only() -> CompactConfig {
    CompactConfig { grace_ns: i64::MAX, ..CompactConfig::default() }
}

#[tokio::test]
async fn files_of_a_table_become_one_and_nothing_changes() {
    let bucket = memory();
    two_flushes(&bucket).await;
    let before = lines(&bucket).await;
    assert_eq!(before.len(), suite::lines().len());
    let (sources, chunks) = (index_files(&bucket).await, chunks(&bucket).await);

    assert_eq!(tenants(&bucket).await.unwrap(), [tenant()]);
    let config = index_only();
    let round = async |at_ns| compact_tenant(&bucket, &tenant(), &config, at_ns).await.unwrap();
    let report = round(START_NS).await;
    assert!(report.index_files_written >= 1 && report.index_files_merged >= 2, "{report:?}");
    assert_eq!((report.index_files_deleted, report.chunks_merged), (0, 0), "the day is not over");
    let both = index_files(&bucket).await;
    assert!(sources.iter().all(|source| both.contains(source)), "readers may still know them");
    let merged = both.iter().find(|f| f.contains("-compactor-")).unwrap();
    assert!(merged.starts_with("logs/index/index_196") && merged.contains("/team-a/17000000000"), "{merged}");
    assert_eq!(lines(&bucket).await, before);

    // Again: nothing to do, until the delay is over.
    let again = round(START_NS + HOUR_NS / 2).await;
    assert_eq!((again.index_files_written, again.index_files_deleted, again.chunks), (0, 0, report.chunks));
    assert_eq!(round(START_NS + 2 * HOUR_NS).await.index_files_deleted, report.index_files_merged);
    let files = index_files(&bucket).await;
    assert_eq!(files.len() as u64, report.tables);
    assert_eq!(lines(&bucket).await, before);
    round(START_NS + 2 * HOUR_NS).await;
    assert!(notes(&bucket).await.is_empty());

    // The sources once more, as after a crash of the ingester: the same in the end.
    two_flushes(&bucket).await;
    assert_eq!(lines(&bucket).await, before);
    for hours in [3, 5, 7] {
        round(START_NS + hours * HOUR_NS).await;
        assert_eq!(lines(&bucket).await, before);
    }
    assert_eq!(index_files(&bucket).await.len(), files.len());
    assert_eq!(self::chunks(&bucket).await, chunks);
}

#[tokio::test]
async fn retention_drops_index_entries_then_chunks() {
    let bucket = memory();
    two_flushes(&bucket).await;
    let before = lines(&bucket).await;
    // What is older than the first day goes. Chunks were written just now; the clock of the round is their time plus two days.
    let cutoff_ns = START_NS + DAY_NS;
    let now = now_ns() + 2 * DAY_NS;
    let config = CompactConfig { retention_ns: now - cutoff_ns, ..index_only() };
    let report = compact_tenant(&bucket, &tenant(), &config, now).await.unwrap();
    assert!(report.chunks_expired > 10 && report.orphans_deleted == 0, "{report:?}");
    let count = chunks(&bucket).await.len();
    compact_tenant(&bucket, &tenant(), &config, now + 2 * HOUR_NS).await.unwrap();
    let after = lines(&bucket).await;
    assert!(after.len() < before.len());
    let kept: Vec<_> = before.iter().filter(|l| l.0 >= cutoff_ns).collect();
    assert!(kept.iter().all(|l| after.contains(l)), "nothing that is young enough is lost");

    let report = compact_tenant(&bucket, &tenant(), &config, now + 2 * HOUR_NS).await.unwrap();
    assert!(report.orphans_deleted > 10 && report.chunks_expired == 0, "{report:?}");
    assert_eq!(chunks(&bucket).await.len(), count - report.orphans_deleted as usize);
    assert_eq!(lines(&bucket).await, after);

    // In the end everything goes.
    let config = CompactConfig { retention_ns: 1, ..config };
    for hours in [2, 4, 6] {
        compact_tenant(&bucket, &tenant(), &config, now + hours * HOUR_NS).await.unwrap();
    }
    assert_eq!(paths(&bucket).await, Vec::<String>::new());
}

#[tokio::test]
async fn orphans_go_when_they_are_old_and_the_index_is_whole() {
    let bucket = memory();
    two_flushes(&bucket).await;
    let before = paths(&bucket).await;
    let put = async |path: &str| {
        bucket.put(&Path::from(path), PutPayload::from_static(b"x")).await.unwrap();
    };
    put("logs/team-a/abc/18bcfe56800:18bcfe569f4:1").await;
    put("logs/team-b/abc/18bcfe56800:18bcfe569f4:1").await;
    put("logs/team-a/notes.txt").await;
    let config = index_only();
    let young = compact_tenant(&bucket, &tenant(), &config, now_ns()).await.unwrap();
    assert_eq!(young.orphans_deleted, 0);

    let later = now_ns() + 2 * DAY_NS;
    put("logs/index/index_19675/team-a/1-broken.tsdb.gz").await;
    let report = compact_tenant(&bucket, &tenant(), &config, later).await.unwrap();
    assert_eq!((report.orphans_deleted, report.failed.len()), (0, 1), "{report:?}");
    bucket.delete(&Path::from("logs/index/index_19675/team-a/1-broken.tsdb.gz")).await.unwrap();
    let report = compact_tenant(&bucket, &tenant(), &config, later).await.unwrap();
    assert_eq!(report.orphans_deleted, 1);
    let left = paths(&bucket).await;
    assert!(left.contains(&"logs/team-b/abc/18bcfe56800:18bcfe569f4:1".to_owned()));
    assert!(left.contains(&"logs/team-a/notes.txt".to_owned()));
    assert!(before.iter().filter(|p| !p.contains("/index/")).all(|p| left.contains(p)));
}

#[tokio::test]
async fn a_day_that_is_over_keeps_one_copy() {
    let bucket = memory();
    let all = suite::lines();
    // Three replicas, each of which missed other lines, cut their chunks at other places and flushed twice.
    let mut written = 0;
    for replica in 0..3 {
        let seen: Vec<Line> =
            all.iter().enumerate().filter(|(i, _)| i / 10 % 3 != replica).map(|(_, l)| l.clone()).collect();
        written += seen.len() as u64;
        let (first, second) = seen.split_at(900 + 100 * replica);
        let config = HeadConfig { block_bytes: 1024 << replica, ..suite::small_blocks() };
        flushed(&[&suite::head_with(first, config.clone()), &suite::head_with(second, config)], &bucket)
            .await;
    }
    let before = lines(&bucket).await;
    assert_eq!(before.len(), all.len());
    let alone = memory();
    flushed(&[&head_of(&all)], &alone).await;
    let report = settle(&bucket, &small()).await;
    assert_eq!(lines(&bucket).await, before);
    assert_one_copy(&bucket, &before).await;
    // Lines of a chunk that reaches over midnight are read for both days, and count for one.
    assert_eq!((report.copies, report.chunks_missing), (written - all.len() as u64, 0), "{report:?}");
    let (bytes, bytes_alone) = (stored(&bucket).await.bytes, stored(&alone).await.bytes);
    assert!(bytes < bytes_alone * 11 / 10, "{bytes} bytes, one head makes {bytes_alone}");

    // What comes late is merged with what it touches alone.
    let chunks_before = chunks(&bucket).await;
    let mut late = all[1000].clone();
    late.line = "late".to_owned();
    flushed(&[&head_of(&[late, all[1000].clone()])], &bucket).await;
    settle(&bucket, &small()).await;
    let now = lines(&bucket).await;
    assert_eq!(now.len(), all.len() + 1);
    assert_one_copy(&bucket, &now).await;
    let chunks_after = chunks(&bucket).await;
    let kept = chunks_before.iter().filter(|chunk| chunks_after.contains(chunk)).count();
    assert!(kept + 3 >= chunks_before.len(), "{kept} of {} stay", chunks_before.len());
}

/// Lines within the same millisecond for a long time: chunks that follow each other touch, and still come to rest.
#[tokio::test]
async fn dense_streams_come_to_rest() {
    let bucket = memory();
    let line = |i: i64| Line {
        stream: Labels::from_pairs([("app", "dense")]),
        ts_ns: START_NS + i * 100_000,
        line: format!("{i} {:x}", (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        metadata: Labels::empty(),
    };
    let all: Vec<Line> = (0..4000).map(line).collect();
    flushed(&[&head_of(&all[..3000]), &head_of(&all[1000..]), &head_of(&all)], &bucket).await;
    let before = lines(&bucket).await;
    settle(&bucket, &small()).await;
    assert_one_copy(&bucket, &before).await;
    assert!(chunks(&bucket).await.len() > 10);
    // One instant, more than a chunk is meant to hold.
    let flood: Vec<Line> = (0..3000).map(|i| Line { ts_ns: START_NS, ..line(i) }).collect();
    let bucket = memory();
    flushed(&[&head_of(&flood[..2000]), &head_of(&flood[1000..])], &bucket).await;
    let before = lines(&bucket).await;
    settle(&bucket, &small()).await;
    assert_one_copy(&bucket, &before).await;
}

#[tokio::test]
async fn damaged_and_missing_chunks() {
    let bucket = memory();
    let all = suite::lines();
    let other_blocks = HeadConfig { block_bytes: 1024, ..suite::small_blocks() };
    flushed(&[&head_of(&all), &suite::head_with(&all, other_blocks)], &bucket).await;
    let now = now_ns();
    let chunks = chunks(&bucket).await;
    let (damaged, missing) = (Path::parse(&chunks[3]).unwrap(), Path::parse(&chunks[9]).unwrap());
    let mut bytes = bucket.get(&damaged).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[200] ^= 1;
    bucket.put(&damaged, bytes.into()).await.unwrap();
    bucket.delete(&missing).await.unwrap();
    let (mut failed, mut gone) = (0, 0);
    for round in 0..6 {
        let at_ns = now + round * 26 * HOUR_NS;
        let report = compact_tenant(&bucket, &tenant(), &small(), at_ns).await.unwrap();
        failed = report.failed.len();
        gone += report.chunks_missing;
        assert!(report.failed.iter().all(|sentence| sentence.contains("checksum")), "{report:?}");
    }
    // What can be read is merged; the damaged one stays, for whoever may mend it, and reads name it.
    assert!(failed >= 1 && gone >= 1, "{failed} {gone}");
    assert!(paths(&bucket).await.contains(&damaged.to_string()));
    let store = BucketStore::new(bucket.clone(), BucketStoreConfig::default());
    store.sync().await.unwrap();
    let ctx = QueryContext::unlimited(tenant());
    let got = collect(store.entries(&ctx, &everything()).await.unwrap()).await;
    assert!(ctx.report().missed.iter().all(|m| m.contains("checksum")), "{:?}", ctx.report());
    assert_eq!(got.len(), all.len(), "there is another copy of both");
}

/// A config with chunks as small as those of [`suite::small_blocks`].
fn small() -> CompactConfig {
    CompactConfig { block_bytes: 2048, chunk_bytes: 4096, ..CompactConfig::default() }
}

/// Rounds until nothing is left to do; what they did together.
async fn settle(bucket: &Bucket, config: &CompactConfig) -> CompactReport {
    let now = now_ns();
    let mut sum = CompactReport::default();
    for round in 1..7 {
        // Until the delay is over, and what is left behind is old.
        let at_ns = now + round * 26 * HOUR_NS;
        let report = compact_tenant(bucket, &tenant(), config, at_ns).await.unwrap();
        assert_eq!(report.failed, Vec::<String>::new());
        let CompactReport { tables, chunks, .. } = report;
        if round > 1 && report == (CompactReport { tables, chunks, ..CompactReport::default() }) {
            return sum;
        }
        sum.copies += report.copies;
        sum.chunks_missing += report.chunks_missing;
    }
    panic!("there is always something to do");
}

struct Stored {
    entries: u64,
    bytes: u64,
}

/// All chunk objects, whether an index names them or not.
async fn stored(bucket: &Bucket) -> Stored {
    let mut sum = Stored { entries: 0, bytes: 0 };
    for path in chunks(bucket).await {
        let path = Path::parse(path).unwrap();
        let reference = ChunkRef::from_path(&tenant(), &path).unwrap();
        let object = bucket.get(&path).await.unwrap().bytes().await.unwrap();
        sum.bytes += object.len() as u64;
        let chunk = envelope::unwrap(&tenant(), &reference, object).unwrap();
        sum.entries += chunk.blocks.iter().map(|b| u64::from(b.entries)).sum::<u64>();
    }
    sum
}

/// The bucket has every line once, one index file for each day, and nothing beside it.
async fn assert_one_copy(bucket: &Bucket, expected: &[(i64, u64)]) {
    assert_eq!(lines(bucket).await, expected);
    assert_eq!(stored(bucket).await.entries, expected.len() as u64);
    let days: BTreeSet<i64> = expected.iter().map(|(ts_ns, _)| ts_ns.div_euclid(DAY_NS)).collect();
    let files = index_files(bucket).await;
    assert_eq!(files.len(), days.len(), "{files:?}");
    let notes = notes(bucket).await;
    assert!(notes.iter().all(|note| note.ends_with("/settled")), "{notes:?}");
    for (file, day) in files.iter().zip(days) {
        let file = read_index(bucket, &Path::from(file.as_str()), 1 << 20).await.unwrap();
        for series in file.read_all().unwrap() {
            for chunk in &series.chunks {
                assert!(
                    chunk.from_ms >= day * layout::DAY_MS && chunk.through_ms <= (day + 1) * layout::DAY_MS
                );
            }
            assert!(series.chunks.windows(2).all(|w| w[0].through_ms <= w[1].from_ms), "{series:?}");
        }
    }
}

/// Two compactors that both believe that the tenant is theirs, and an ingester that uploads, interleaved in another way for every seed.
/// In some of them the second compactor dies on the way.
#[tokio::test]
async fn two_at_a_time_lose_nothing_and_double_nothing() {
    let all = suite::lines();
    let (mut both_merged, mut died) = (0, 0);
    for seed in 0..18 {
        let bucket = memory();
        flushed(&[&head_of(&all[..400]), &head_of(&all[100..700]), &head_of(&all[..600])], &bucket).await;
        let late = head_of(&all[650..750]);
        let views: Vec<FailingBucket> =
            (0..3).map(|i| FailingBucket::new(bucket.clone(), seed * 3 + i)).collect();
        views.iter().for_each(|view| view.hesitate(1 << (seed % 6)));
        if seed % 3 == 0 {
            views[1].fail_after_writes(seed * 3 % 110);
        }
        let buckets: Vec<Bucket> = views.iter().map(|view| Arc::new(view.clone()) as Bucket).collect();
        let config = CompactConfig { delete_delay_ns: if seed % 4 < 2 { 0 } else { HOUR_NS }, ..small() };
        // Objects carry the machine's time.
        let now = now_ns();
        let tenant = tenant();
        for round in 0..3 {
            let at_ns = now + round * HOUR_NS * 2 / 3;
            let upload = async {
                if round == 0 {
                    late.flush(&buckets[2], &tenant, &FlushOptions::new("late", now)).await.unwrap();
                }
            };
            let (first, second, ()) = futures::join!(
                compact_tenant(&buckets[0], &tenant, &config, at_ns),
                compact_tenant(&buckets[1], &tenant, &config, at_ns + 1),
                upload
            );
            let has_merged =
                |outcome: Result<CompactReport>| outcome.is_ok_and(|r| r.index_files_written > 0);
            both_merged += usize::from(has_merged(first) && has_merged(second));
            assert_eq!(lines(&bucket).await.len(), 750, "seed {seed}, round {round}");
        }
        died += usize::from(views[1].failed() > 0);
        let expected = lines(&bucket).await;
        settle(&bucket, &small()).await;
        assert_one_copy(&bucket, &expected).await;
    }
    assert!(both_merged > 2 && died > 2, "{both_merged} double merges, {died} deaths");
}

/// Times at and around midnight, whole milliseconds, and close to each other.
fn any_time() -> impl Strategy<Value = i64> {
    let midnight_ns = START_NS.div_euclid(DAY_NS) * DAY_NS + DAY_NS;
    let near =
        prop_oneof![Just(0), -3i64..3, (-3i64..3).prop_map(|ms| ms * 1_000_000), -2_000_000i64..2_000_000];
    let coarse = prop_oneof![
        Just(0),
        (-20i64..20).prop_map(|h| h * HOUR_NS),
        (0i64..40).prop_map(|m| m * 60 * SECOND_NS)
    ];
    (coarse, near).prop_map(move |(coarse, near)| midnight_ns + coarse + near)
}

fn any_line() -> impl Strategy<Value = Line> {
    (0..2u8, any_time(), "[ab]{0,40}", 0..3u8).prop_map(|(stream, ts_ns, line, metadata)| Line {
        stream: Labels::from_pairs([("app", format!("app-{stream}"))]),
        ts_ns,
        line,
        metadata: match metadata {
            0 => Labels::empty(),
            n => Labels::from_pairs([("n", n.to_string())]),
        },
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever lines reach whichever replicas and flushes, and wherever rounds die: reads show what was written, once, and the bucket
    /// ends with one copy.
    #[test]
    fn any_lines_in_any_replicas(
        written in proptest::collection::vec((any_line(), 1..8u8, 0..4usize), 1..150),
        deaths in proptest::collection::vec(0..30u64, 0..4),
        chunk_bytes in prop_oneof![Just(256usize), Just(4096), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let bucket = memory();
            // Replicas by bit, each with four flushes.
            for replica in 0..3 {
                for flush in 0..4 {
                    let of = |(_, replicas, at): &&(Line, u8, usize)| replicas >> replica & 1 == 1 && *at == flush;
                    let lines: Vec<Line> = written.iter().filter(of).map(|(line, ..)| line.clone()).collect();
                    if !lines.is_empty() {
                        let window_ns = 7 * DAY_NS;
                        let head = HeadConfig { out_of_order_window_ns: window_ns, ..suite::small_blocks() };
                        flushed(&[&suite::head_with(&lines, head)], &bucket).await;
                    }
                }
            }
            let expected = lines(&bucket).await;
            let distinct: HashSet<_> = written
                .iter()
                .map(|(l, ..)| (l.stream.clone(), l.ts_ns, l.line.clone(), l.metadata.clone()))
                .collect();
            assert_eq!(expected.len(), distinct.len());
            let config = CompactConfig { block_bytes: 256, chunk_bytes, ..CompactConfig::default() };
            for writes in deaths {
                let dying = FailingBucket::new(bucket.clone(), 0);
                dying.fail_after_writes(writes);
                let dying: Bucket = Arc::new(dying);
                let _ = compact_tenant(&dying, &tenant(), &config, now_ns()).await;
                assert_eq!(lines(&bucket).await, expected);
            }
            settle(&bucket, &config).await;
            assert_one_copy(&bucket, &expected).await;
        });
    }
}

/// Keys stand in a directory as they do in a bucket, `:` and the odd characters of tenant ids included.
#[tokio::test]
async fn a_directory_as_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let bucket: Bucket = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let odd = TenantId::new("a!b*c'(d).e_f-").unwrap();
    let head = head_of(&suite::lines()[..500]);
    head.flush(&bucket, &odd, &FlushOptions::new("host/0", START_NS)).await.unwrap();
    let store = BucketStore::new(bucket.clone(), BucketStoreConfig::default());
    store.sync().await.unwrap();
    assert_eq!(store.tenants(), std::slice::from_ref(&odd));
    let ctx = QueryContext::unlimited(odd.clone());
    let select = EntrySelect {
        expr: r#"{app=~".+"}"#.into(),
        start_ns: 0,
        end_ns: i64::MAX,
        direction: Direction::Forward,
        limit: 0,
    };
    assert_eq!(collect(store.entries(&ctx, &select).await.unwrap()).await.len(), 500);
    assert!(ctx.report().missed.is_empty(), "{:?}", ctx.report());
    assert!(folder.path().join("logs").join(odd.as_str()).is_dir());
    assert_eq!(tenants(&bucket).await.unwrap(), std::slice::from_ref(&odd));
    let config = CompactConfig { retention_ns: 1, ..CompactConfig::default() };
    for _ in 0..3 {
        compact_tenant(&bucket, &odd, &config, now_ns() + 2 * DAY_NS).await.unwrap();
    }
    assert_eq!(paths(&bucket).await, Vec::<String>::new());
}
