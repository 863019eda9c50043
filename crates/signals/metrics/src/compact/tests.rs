use std::sync::Arc;

use proptest::prelude::*;
use triptych_blob::FailingBucket;
use triptych_blob::object_store::memory::InMemory;

use super::*;
use crate::testing::{Content, Failing, HOUR_MS, content, content_of, everything, flush, head, tenant};

/// Aligned to 48 h.
const T: i64 = 1_600_128_000_000;

/// Objects in memory have the machine's time: rounds for what is partial look back from far ahead.
const FAR_MS: i64 = 10_000_000_000_000;

fn config() -> CompactConfig {
    CompactConfig::default()
}

async fn shown(head: &crate::Head) -> Content {
    let ctx = QueryContext::unlimited(tenant("a"));
    content_of(&ctx, head.select(&ctx, &everything()).unwrap()).await.unwrap()
}

/// Three replicas of four hours, a late piece, and a fourth ingester with other series.
async fn fill(bucket: &Bucket) -> Content {
    let a = tenant("a");
    let (all, late, other) =
        (head(0..6, T, T + 4 * HOUR_MS), head(0..3, T + 600_001, T + 1_200_000), head(6..9, T, T + HOUR_MS));
    for ingester in ["i-0", "i-1", "i-2"] {
        flush(bucket, &a, &head(0..6, T, T + 4 * HOUR_MS), ingester, T).await;
    }
    flush(bucket, &a, &late, "i-1", T).await;
    flush(bucket, &a, &other, "i-3", T).await;
    let mut expected = shown(&all).await;
    for (labels, samples) in shown(&late).await.into_iter().chain(shown(&other).await) {
        let own = expected.entry(labels).or_default();
        own.extend(samples);
        own.sort();
        own.dedup();
    }
    expected
}

#[tokio::test]
async fn replicas_become_one_and_nothing_changes_to_see() {
    let bucket: Bucket = Arc::new(InMemory::new());
    let a = tenant("a");
    assert_eq!(T % (48 * HOUR_MS), 0);
    let expected = fill(&bucket).await;
    assert_eq!(content(&bucket, &a).await, expected);

    // Windows that are not over stay as they are.
    let early = compact_tenant(&bucket, &a, &config(), T + 2 * HOUR_MS).await.unwrap();
    assert_eq!((early.merged.len(), early.failed), (0, vec![]));

    // Both 2 h windows, then 8 h.
    let now_ms = T + 5 * HOUR_MS;
    let report = compact_tenant(&bucket, &a, &config(), now_ms).await.unwrap();
    assert_eq!(report.merged.len(), 2, "{report:?}");
    assert_eq!(report.blocks, 2);
    assert!(report.merged.iter().all(|m| m.into.compaction.level == 2));
    assert_eq!(content(&bucket, &a).await, expected);
    let samples: u64 = report.merged.iter().map(|m| m.into.stats.samples).sum();
    assert_eq!(samples, expected.values().map(|s| s.len() as u64).sum::<u64>(), "copies are gone");
    // Two more copies of everything of 0..6, and the late ones are none.
    let replicated = shown(&head(0..6, T, T + 4 * HOUR_MS)).await;
    assert_eq!(report.copies, 2 * replicated.values().map(|s| s.len() as u64).sum::<u64>());

    let again = compact_tenant(&bucket, &a, &config(), now_ms).await.unwrap();
    assert_eq!(
        (again.merged.len(), again.marked.len(), again.deleted.len()),
        (0, 0, 0),
        "nothing is left to do"
    );

    let report = compact_tenant(&bucket, &a, &config(), T + 9 * HOUR_MS).await.unwrap();
    assert_eq!(report.merged.len(), 1);
    assert_eq!(report.merged[0].into.compaction.level, 3);
    assert_eq!(report.deleted.len(), report.merged[0].into.compaction.sources.len(), "the delay has passed");
    assert_eq!(content(&bucket, &a).await, expected);

    compact_tenant(&bucket, &a, &config(), T + 12 * HOUR_MS).await.unwrap();
    let left = listing::list_tenant(&bucket, &a).await.unwrap();
    assert_eq!(left.keys().copied().collect::<Vec<_>>(), [report.merged[0].into.ulid]);
    assert_eq!(content(&bucket, &a).await, expected);
}

/// The process dies at every change of the bucket in turn.
#[tokio::test]
async fn a_crash_anywhere_is_mended_by_the_next_round() {
    let a = tenant("a");
    let config = CompactConfig { delete_delay_ms: 0, ..config() };
    let now_ms = T + 9 * HOUR_MS;
    for changes in 0.. {
        let memory = Arc::new(InMemory::new());
        let bucket: Bucket = memory.clone();
        let expected = fill(&bucket).await;
        let failing = Failing::new(memory, changes);
        let dying: Bucket = failing.clone();
        for _ in 0..3 {
            let _ = compact_tenant(&dying, &a, &config, now_ms).await;
        }
        assert_eq!(content(&bucket, &a).await, expected, "died after {changes} changes");
        for _ in 0..3 {
            let report = compact_tenant(&bucket, &a, &config, now_ms).await.unwrap();
            assert_eq!(report.failed, Vec::<String>::new());
            assert_eq!(content(&bucket, &a).await, expected, "mended after {changes} changes");
        }
        let report = compact_tenant(&bucket, &a, &config, FAR_MS).await.unwrap();
        let left = listing::list_tenant(&bucket, &a).await.unwrap();
        assert_eq!(left.len(), 1, "died after {changes} changes: {report:?}");
        if !failing.failed() {
            assert!(changes > 20, "the loop saw every step");
            break;
        }
    }
}

/// Two compactors that both believe that the tenant is theirs, and an ingester that uploads, interleaved in another way for every seed.
/// In some of them the second compactor dies on the way.
#[tokio::test]
async fn two_at_a_time_lose_nothing_and_double_nothing() {
    let a = tenant("a");
    let (mut both_merged, mut died) = (0, 0);
    for seed in 0..24 {
        let bucket: Bucket = Arc::new(InMemory::new());
        let mut expected = fill(&bucket).await;
        let late = head(9..11, T, T + HOUR_MS);
        expected.extend(shown(&late).await);
        let views: Vec<FailingBucket> =
            (0..3).map(|i| FailingBucket::new(bucket.clone(), seed * 3 + i)).collect();
        views.iter().for_each(|view| view.hesitate(1 << (seed % 6)));
        if seed % 2 == 0 {
            views.iter().for_each(FailingBucket::ignore_conditions);
        }
        if seed % 3 == 0 {
            views[1].fail_after_writes(seed % 40);
        }
        let buckets: Vec<Bucket> = views.iter().map(|view| Arc::new(view.clone()) as Bucket).collect();
        let config = CompactConfig {
            delete_delay_ms: if seed % 4 < 2 { 0 } else { 60_000 },
            has_conditional_puts: seed % 2 == 1,
            ..config()
        };
        for round in 0..3 {
            let now_ms = T + 9 * HOUR_MS + round * 40_000;
            let upload = async {
                if round == 0 {
                    flush(&buckets[2], &a, &late, "i-9", T).await;
                }
            };
            let (first, second, ()) = futures::join!(
                compact_tenant(&buckets[0], &a, &config, now_ms),
                compact_tenant(&buckets[1], &a, &config, now_ms + 1),
                upload
            );
            both_merged += usize::from(
                first.is_ok_and(|r| !r.merged.is_empty()) && second.is_ok_and(|r| !r.merged.is_empty()),
            );
            assert_eq!(content(&bucket, &a).await, expected, "seed {seed}, round {round}");
        }
        died += usize::from(views[1].failed() > 0);
        for round in 1..5 {
            let report = compact_tenant(&bucket, &a, &config, FAR_MS + round * HOUR_MS).await.unwrap();
            assert_eq!(report.failed, Vec::<String>::new());
            assert_eq!(content(&bucket, &a).await, expected, "seed {seed}");
        }
        let left = crate::BucketStore::new(bucket.clone(), Default::default());
        left.sync().await.unwrap();
        let samples: u64 = left.blocks(&a).iter().map(|meta| meta.stats.samples).sum();
        assert_eq!(listing::list_tenant(&bucket, &a).await.unwrap().len(), 1, "seed {seed}");
        assert_eq!(samples, expected.values().map(|s| s.len() as u64).sum::<u64>(), "one copy is left");
    }
    assert!(both_merged > 2 && died > 2, "{both_merged} double merges, {died} deaths");
}

#[tokio::test]
async fn retention_and_partial_uploads() {
    let bucket: Bucket = Arc::new(InMemory::new());
    let a = tenant("a");
    let blocks = flush(&bucket, &a, &head(0..3, T, T + 4 * HOUR_MS), "i-0", T).await;
    let writer = BlockWriter::new(&bucket, &a, BlockId::new(T), vec![]).await.unwrap();
    let partial = writer.finish(MetaParts::default()).await.unwrap().ulid;
    bucket.delete(&file_path(&block_path(&a, partial), META_FILE)).await.unwrap();

    let config = CompactConfig { retention_ms: 10 * HOUR_MS, ..config() };
    // The partial upload is young by the machine's clock.
    let now_ms = T + 12 * HOUR_MS + 60_000;
    let report = compact_tenant(&bucket, &a, &config, now_ms).await.unwrap();
    assert_eq!(
        (report.marked, report.blocks),
        (vec![blocks[0].ulid], 1),
        "the older block's newest sample is too old"
    );
    assert_eq!((report.deleted, report.partial_deleted), (vec![], vec![]));
    let report = compact_tenant(&bucket, &a, &config, FAR_MS).await.unwrap();
    assert_eq!(report.partial_deleted, [partial]);
    assert_eq!(report.deleted, [blocks[0].ulid]);
    assert_eq!(report.marked, [blocks[1].ulid]);
    compact_tenant(&bucket, &a, &config, FAR_MS + 3 * HOUR_MS).await.unwrap();
    assert!(listing::list_tenant(&bucket, &a).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_damaged_block_is_left_alone() {
    let bucket: Bucket = Arc::new(InMemory::new());
    let a = tenant("a");
    let head = head(0..3, T, T + HOUR_MS);
    let mut blocks = Vec::new();
    for ingester in ["i-0", "i-1", "i-2"] {
        let copy = self::head(0..3, T, T + HOUR_MS);
        blocks.extend(flush(&bucket, &a, &copy, ingester, T).await);
    }
    let path = file_path(&block_path(&a, blocks[1].ulid), "chunks/000001");
    let mut bytes = bucket.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[30] ^= 1;
    bucket.put(&path, bytes.into()).await.unwrap();

    let first = compact_tenant(&bucket, &a, &config(), T + 4 * HOUR_MS).await.unwrap();
    assert!(first.more && first.merged.is_empty() && first.failed[0].contains("damaged"), "{first:?}");
    let second = compact_tenant(&bucket, &a, &config(), T + 4 * HOUR_MS).await.unwrap();
    let sources: BTreeSet<BlockId> = second.merged[0].sources.iter().copied().collect();
    assert_eq!(sources, BTreeSet::from([blocks[0].ulid, blocks[2].ulid]));
    let store = crate::BucketStore::new(bucket, Default::default());
    store.sync().await.unwrap();
    let ctx = QueryContext::unlimited(a);
    let got = content_of(&ctx, store.select(&ctx, &everything()).await.unwrap()).await.unwrap();
    assert_eq!(got, shown(&head).await);
    assert_eq!(ctx.report().missed.len(), 1);
}

#[tokio::test]
async fn origins_are_not_mixed() {
    let bucket: Bucket = Arc::new(InMemory::new());
    let a = tenant("a");
    for cluster in ["x", "y"] {
        let options = crate::FlushOptions {
            labels: BTreeMap::from([("cluster".to_owned(), cluster.to_owned())]),
            source: "sidecar".to_owned(),
            now_ms: T,
        };
        head(0..3, T, T + HOUR_MS).flush(&bucket, &a, &options).await.unwrap();
    }
    let report = compact_tenant(&bucket, &a, &config(), T + 100 * HOUR_MS).await.unwrap();
    assert_eq!((report.merged.len(), report.blocks), (0, 2));
}

fn meta(made_ms: i64, start_ms: i64, end_ms: i64) -> BlockMeta {
    let json = format!(
        r#"{{"ulid":"{}","minTime":{start_ms},"maxTime":{end_ms},"compaction":{{"level":1}},"version":1}}"#,
        BlockId::new(made_ms)
    );
    BlockMeta::parse(json.as_bytes()).unwrap()
}

#[test]
fn plans() {
    let check = |blocks: &[(i64, i64)], now_h: i64, expected: &[&[usize]]| {
        let metas: Vec<BlockMeta> = blocks
            .iter()
            .enumerate()
            .map(|(i, (s, e))| meta(i as i64, T + s * HOUR_MS / 2, T + e * HOUR_MS / 2))
            .collect();
        let got = plan::plan(&metas.iter().collect::<Vec<_>>(), &config(), T + now_h * HOUR_MS);
        let mut got: Vec<Vec<usize>> = got
            .iter()
            .map(|group| group.iter().map(|id| metas.iter().position(|m| m.ulid == *id).unwrap()).collect())
            .collect();
        got.sort();
        assert_eq!(got, expected, "{blocks:?} at {now_h} h");
    };
    // In half hours. Nothing to do; too early; a closed 2 h window.
    check(&[(0, 4)], 100, &[]);
    check(&[(0, 4), (0, 4)], 2, &[]);
    check(&[(0, 4), (0, 4)], 3, &[&[0, 1]]);
    // 8 h is over: one merge for everything in it; what comes after stays.
    check(&[(0, 4), (0, 4), (4, 8), (16, 20)], 9, &[&[0, 1, 2]]);
    check(&[(0, 4), (0, 4), (4, 8), (16, 20), (17, 20)], 11, &[&[0, 1, 2], &[3, 4]]);
    // 48 h.
    check(&[(0, 16), (16, 32), (95, 96), (96, 97)], 49, &[&[0, 1, 2]]);
    // Foreign blocks across windows: only where they overlap.
    check(&[(90, 100), (95, 110)], 200, &[&[0, 1]]);
    check(&[(90, 100), (100, 110)], 200, &[]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    /// A plan names each block once at most, and carrying plans out comes to an end.
    #[test]
    fn plans_end(blocks in proptest::collection::vec((0i64..200, 1i64..20), 0..60), max in 2usize..10) {
        let config = CompactConfig { merge_blocks_max: max, ..config() };
        let mut metas: Vec<BlockMeta> =
            blocks.iter().enumerate().map(|(i, (s, l))| meta(i as i64, s * HOUR_MS / 2, (s + l) * HOUR_MS / 2)).collect();
        for round in 0..60 {
            let groups = plan::plan(&metas.iter().collect::<Vec<_>>(), &config, 1000 * HOUR_MS);
            let mut seen = BTreeSet::new();
            for group in &groups {
                prop_assert!(group.len() >= 2 && group.len() <= max);
                prop_assert!(group.iter().all(|id| seen.insert(*id)));
                let of = |m: &&BlockMeta| group.contains(&m.ulid);
                let start_ms = metas.iter().filter(of).map(|m| m.start_ms).min().unwrap();
                let end_ms = metas.iter().filter(of).map(|m| m.end_ms).max().unwrap();
                metas.retain(|m| !group.contains(&m.ulid));
                metas.push(meta(1000 + round, start_ms, end_ms));
            }
            if groups.is_empty() {
                return Ok(());
            }
        }
        prop_assert!(false, "the plans do not end");
    }
}
