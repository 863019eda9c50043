use std::sync::Arc;

use triptych_blob::object_store::ObjectStoreExt;
use triptych_blob::object_store::memory::InMemory;
use triptych_model::Matcher;
use triptych_runtime::random;

use super::*;
use crate::block::{DELETION_MARK_FILE, INDEX_FILE, META_FILE, file_path};
use crate::testing::{Content, HOUR_MS, content, content_of, everything, flush, head, labels, tenant};

const T: i64 = 1_600_005_600_000;

fn store(bucket: &Bucket) -> BucketStore {
    BucketStore::new(bucket.clone(), BucketStoreConfig::default())
}

#[tokio::test]
async fn tenants_see_their_own_blocks_only() {
    let bucket: Bucket = Arc::new(InMemory::new());
    let (a, b) = (tenant("a*"), tenant("b"));
    let (of_a, of_b) = (head(0..20, T, T + 3 * HOUR_MS), head(10..30, T, T + HOUR_MS));
    flush(&bucket, &a, &of_a, "i-0", 1).await;
    flush(&bucket, &b, &of_b, "i-0", 1).await;
    let store = store(&bucket);
    let report = store.sync().await.unwrap();
    assert_eq!((report.tenants, report.blocks, report.loaded), (2, 3, 3), "{report:?}");
    assert_eq!(store.sync().await.unwrap().loaded, 0);
    assert_eq!(crate::tenants(&bucket).await.unwrap(), [a.clone(), b.clone()]);

    for (tenant, head) in [(&a, &of_a), (&b, &of_b)] {
        let ctx = QueryContext::unlimited(tenant.clone());
        let from_head = content_of(&ctx, head.select(&ctx, &everything()).unwrap()).await.unwrap();
        assert_eq!(content(&bucket, tenant).await, from_head);
        assert!(ctx.report().chunks > 0);

        let ctx = QueryContext::unlimited(tenant.clone());
        let sets = vec![vec![Matcher::equal("__name__", "a")], vec![Matcher::equal("i", "11")]];
        for select in
            [LabelsSelect::default(), LabelsSelect { matcher_sets: sets, ..LabelsSelect::default() }]
        {
            assert_eq!(store.series(&ctx, &select).await.unwrap(), head.series(&ctx, &select).unwrap());
            assert_eq!(
                store.label_names(&ctx, &select).await.unwrap(),
                head.label_names(&ctx, &select).unwrap()
            );
            let (ours, theirs) =
                (store.label_values(&ctx, "i", &select).await, head.label_values(&ctx, "i", &select));
            assert_eq!(ours.unwrap(), theirs.unwrap());
        }
        let (ours, theirs) = (store.cardinality(&ctx, 5).await.unwrap(), head.cardinality(&ctx, 5).unwrap());
        assert_eq!(ours.samples, theirs.samples);
        assert_eq!(ours.series_by_metric, theirs.series_by_metric);
        assert_eq!(ours.values_by_label, theirs.values_by_label);
    }
    let nobody = QueryContext::unlimited(tenant("c"));
    assert_eq!(store.series(&nobody, &LabelsSelect::default()).await.unwrap(), []);
}

/// The shares of two stores that divide the blocks.
fn shares() -> [Share; 2] {
    let members: Arc<[Arc<str>]> = ["s-0", "s-1"].map(Arc::from).into();
    [0, 1].map(|mine| Share::new(members.clone(), mine).unwrap())
}

/// What stores show together, each for its share, and what they say they missed.
async fn ask(stores: [&BucketStore; 2]) -> Result<(Content, Vec<String>)> {
    let ctx = QueryContext::unlimited(tenant("a"));
    let mut series = Vec::new();
    for (store, share) in stores.into_iter().zip(shares()) {
        series.push(store.share(Some(&share)).select(&ctx, &everything()).await?);
    }
    let content = content_of(&ctx, merge::merge_chunks(series)).await?;
    Ok((content, ctx.report().missed))
}

/// What stores show together, when none misses anything.
async fn together(stores: [&BucketStore; 2]) -> Content {
    let (content, missed) = ask(stores).await.unwrap();
    assert_eq!(missed, Vec::<String>::new());
    content
}

#[tokio::test]
async fn stores_divide_the_blocks() {
    random::seed(Some(1));
    let bucket: Bucket = Arc::new(InMemory::new());
    let a = tenant("a");
    let blocks = flush(&bucket, &a, &head(0..5, T, T + 20 * HOUR_MS), "i-0", 1).await;
    let expected = content(&bucket, &a).await;
    let store = store(&bucket);
    store.sync().await.unwrap();
    assert_eq!(together([&store, &store]).await, expected);
    let ctx = QueryContext::unlimited(a.clone());
    let mut asked = 0;
    for share in shares() {
        let part = store.share(Some(&share));
        asked += part.in_range(&ctx, i64::MIN, i64::MAX).len();
        let own = content_of(&ctx, part.select(&ctx, &everything()).await.unwrap()).await.unwrap();
        assert!(!own.is_empty() && own != expected);
    }
    assert_eq!(asked, blocks.len());
    // Figures are the same, however many there are.
    let all = store.cardinality(&ctx, 5).await.unwrap();
    let mut parts = Vec::new();
    for share in shares() {
        parts.push(store.share(Some(&share)).cardinality(&ctx, 5).await.unwrap());
    }
    assert_eq!(merge::merge_cardinality(parts, 5), all);
}

/// Two blocks of the same samples, and what they hold.
async fn replicas() -> (Bucket, TenantId, Content) {
    let bucket: Bucket = Arc::new(InMemory::new());
    let a = tenant("a");
    for ingester in ["i-0", "i-1"] {
        flush(&bucket, &a, &head(0..2, T, T + HOUR_MS), ingester, 1).await;
    }
    let expected = content(&bucket, &a).await;
    (bucket, a, expected)
}

/// One of two stores has seen a compaction that the other one has not, whoever owns which block.
#[tokio::test(start_paused = true)]
async fn no_view_of_a_compaction_loses_anything() {
    random::seed(Some(1));
    const SHOWN: Duration = Duration::from_secs(60);
    for replaced_shown in [Duration::ZERO, SHOWN] {
        let mut lost = 0;
        // Owners follow from the ids of the blocks.
        for _ in 0..12 {
            let (bucket, a, expected) = replicas().await;
            let config = BucketStoreConfig { replaced_shown, ..BucketStoreConfig::default() };
            let store = || BucketStore::new(bucket.clone(), config.clone());
            let (early, late, fresh) = (store(), store(), store());
            late.sync().await.unwrap();
            early.sync().await.unwrap();
            let now_ms = T + 100 * HOUR_MS;
            let report = crate::compact_tenant(&bucket, &a, &Default::default(), now_ms).await.unwrap();
            assert_eq!(report.merged.len(), 1, "{report:?}");
            for _ in 0..3 {
                early.sync().await.unwrap();
                // One that starts now finds the marks and what replaced the blocks.
                fresh.sync().await.unwrap();
                for stores in [[&early, &late], [&late, &early], [&fresh, &late], [&late, &fresh]] {
                    lost += usize::from(together(stores).await != expected);
                }
                tokio::time::advance(SHOWN / 3).await;
            }
            // The late one must have looked by now; the early one has dropped what was replaced.
            late.sync().await.unwrap();
            early.sync().await.unwrap();
            assert_eq!(early.blocks(&a).len(), 1);
            for stores in [[&early, &late], [&late, &early]] {
                assert_eq!(together(stores).await, expected);
            }
        }
        assert_eq!(lost > 0, replaced_shown.is_zero(), "{lost} answers of {replaced_shown:?} had gaps");
    }
}

/// What was marked may go at any time, whatever a clock says. Who owns it asks what replaced it: the answer is whole, or says what it lacks
/// where the other store has not looked since.
#[tokio::test]
async fn what_was_replaced_may_go() {
    random::seed(Some(1));
    for _ in 0..12 {
        let (bucket, a, expected) = replicas().await;
        let config = BucketStoreConfig { replaced_shown: Duration::from_secs(60), ..Default::default() };
        let (fresh, late) =
            (BucketStore::new(bucket.clone(), config.clone()), BucketStore::new(bucket.clone(), config));
        late.sync().await.unwrap();
        let now_ms = T + 100 * HOUR_MS;
        let report = crate::compact_tenant(&bucket, &a, &Default::default(), now_ms).await.unwrap();
        assert_eq!(report.merged.len(), 1);
        fresh.sync().await.unwrap();
        assert_eq!(fresh.blocks(&a).len(), 1);
        // Who owns what was replaced opens what replaced it, and does not own that.
        let merged = report.merged[0].into.ulid.to_string();
        let warm = fresh.warm(|_, block| block != merged.as_bytes()).await;
        assert_eq!((warm.wanted, warm.opened), (0, 1));
        // A compactor's clock leaps.
        let later_ms = now_ms + 100 * HOUR_MS;
        let report = crate::compact_tenant(&bucket, &a, &Default::default(), later_ms).await.unwrap();
        assert_eq!(report.deleted.len(), 2);
        assert_eq!(together([&fresh, &fresh]).await, expected);
        for stores in [[&fresh, &late], [&late, &fresh]] {
            match ask(stores).await {
                Ok((found, missed)) => assert!(found == expected || !missed.is_empty(), "{found:?}"),
                Err(e) => assert_eq!(e.kind, Kind::NotFound, "{e}"),
            }
        }
    }
}

/// A mark that nothing explains: the block is shown as long as what may have replaced it may be unknown.
#[tokio::test(start_paused = true)]
async fn what_was_marked_and_not_replaced_is_shown_for_a_while() {
    const SHOWN: Duration = Duration::from_secs(60);
    let bucket: Bucket = Arc::new(InMemory::new());
    let a = tenant("a");
    flush(&bucket, &a, &head(0..2, T, T + HOUR_MS), "i-0", 1).await;
    let config = BucketStoreConfig { replaced_shown: SHOWN, ..Default::default() };
    let store = BucketStore::new(bucket.clone(), config);
    let retention = crate::CompactConfig { retention_ms: HOUR_MS, ..Default::default() };
    let report = crate::compact_tenant(&bucket, &a, &retention, T + 100 * HOUR_MS).await.unwrap();
    assert_eq!(report.marked.len(), 1);
    for shown in [1, 1, 0] {
        store.sync().await.unwrap();
        assert_eq!(store.blocks(&a).len(), shown);
        tokio::time::advance(SHOWN / 2).await;
    }
}

#[tokio::test]
async fn what_is_wanted_is_opened_as_far_as_there_is_room() {
    random::seed(Some(1));
    let bucket: Bucket = Arc::new(InMemory::new());
    let a = tenant("a");
    let blocks = flush(&bucket, &a, &head(0..5, T, T + 20 * HOUR_MS), "i-0", 1).await;
    let store = store(&bucket);
    store.sync().await.unwrap();
    let [mine, other] = shares();
    let report = store.warm(|tenant, block| *tenant == a && mine.owns(block)).await;
    assert!(report.opened == report.wanted && (1..blocks.len()).contains(&report.opened), "{report:?}");
    let rest = store.warm(|_, block| other.owns(block)).await;
    assert_eq!((rest.opened, rest.failed), (blocks.len() - report.opened, vec![]));
    assert_eq!(store.warm(|_, _| true).await.opened, 0, "all are open");

    let config = BucketStoreConfig { header_cache_bytes_max: 1, ..BucketStoreConfig::default() };
    let small = BucketStore::new(bucket, config);
    small.sync().await.unwrap();
    assert_eq!(small.warm(|_, _| true).await.opened, 1, "the first one is too large already");
}

#[tokio::test]
async fn unreadable_blocks_are_named() {
    let bucket: Bucket = Arc::new(InMemory::new());
    let a = tenant("a");
    let blocks = flush(&bucket, &a, &head(0..5, T, T + 5 * HOUR_MS), "i-0", 1).await;
    let store = store(&bucket);
    store.sync().await.unwrap();
    let path = |i: usize, file: &str| file_path(&block_path(&a, blocks[i].ulid), file);

    // One index is damaged, one segment is gone.
    let size = bucket.head(&path(0, INDEX_FILE)).await.unwrap().size;
    bucket.put(&path(0, INDEX_FILE), vec![7; size as usize].into()).await.unwrap();
    bucket.delete(&path(1, "chunks/000001")).await.unwrap();
    let ctx = QueryContext::unlimited(a.clone());
    let got = content_of(&ctx, store.select(&ctx, &everything()).await.unwrap()).await.unwrap();
    assert_eq!(got.len(), 5, "the third block answers");
    assert!(got[&labels(0)].iter().all(|(t, _)| *t >= blocks[2].start_ms));
    let missed = ctx.report().missed;
    assert_eq!(missed.len(), 2, "{missed:?}");

    // Nothing can be read at all.
    for i in [1, 2] {
        let size = bucket.head(&path(i, INDEX_FILE)).await.unwrap().size;
        bucket.put(&path(i, INDEX_FILE), vec![7; size as usize].into()).await.unwrap();
    }
    let fresh = self::store(&bucket);
    fresh.sync().await.unwrap();
    let ctx = QueryContext::unlimited(a.clone());
    assert!(fresh.select(&ctx, &everything()).await.is_err());
    assert!(fresh.label_names(&ctx, &LabelsSelect::default()).await.is_err());

    // A meta.json that cannot be parsed makes every answer partial.
    bucket.put(&path(2, META_FILE), b"{".to_vec().into()).await.unwrap();
    let fresh = self::store(&bucket);
    assert_eq!(fresh.sync().await.unwrap().failed.len(), 1);
    let ctx = QueryContext::unlimited(a);
    let _ = fresh.series(&ctx, &LabelsSelect::default()).await;
    assert!(ctx.report().missed.iter().any(|m| m.contains("meta.json")));
}

#[tokio::test]
async fn a_limit_is_an_error_not_a_gap() {
    let bucket: Bucket = Arc::new(InMemory::new());
    let a = tenant("a");
    flush(&bucket, &a, &head(0..5, T, T + HOUR_MS), "i-0", 1).await;
    let store = store(&bucket);
    store.sync().await.unwrap();
    let limits = triptych_runtime::QueryLimits { rows_max: 10, ..Default::default() };
    let ctx = QueryContext::new(a, limits);
    let stream = store.select(&ctx, &everything()).await.unwrap();
    assert_eq!(content_of(&ctx, stream).await.unwrap_err().kind, Kind::Exhausted);
    assert!(ctx.report().missed.is_empty());
}

#[tokio::test]
async fn partial_marked_and_vanished_blocks() {
    let bucket: Bucket = Arc::new(InMemory::new());
    let a = tenant("a");
    let blocks = flush(&bucket, &a, &head(0..2, T, T + 3 * HOUR_MS), "i-0", 1).await;
    let path = |i: usize, file: &str| file_path(&block_path(&a, blocks[i].ulid), file);
    let meta = bucket.get(&path(1, META_FILE)).await.unwrap().bytes().await.unwrap();
    bucket.delete(&path(1, META_FILE)).await.unwrap();

    let store = store(&bucket);
    let report = store.sync().await.unwrap();
    assert_eq!((report.blocks, report.partial), (1, 1));
    bucket.put(&path(1, META_FILE), meta.into()).await.unwrap();
    assert_eq!(store.sync().await.unwrap().blocks, 2);

    // Seen once it is still shown: what replaces it may have come after the listing.
    bucket.put(&path(0, DELETION_MARK_FILE), b"{}".to_vec().into()).await.unwrap();
    assert_eq!(store.sync().await.unwrap().blocks, 2);
    assert_eq!(store.sync().await.unwrap().blocks, 1);

    bucket.delete(&path(1, META_FILE)).await.unwrap();
    let report = store.sync().await.unwrap();
    assert_eq!((report.blocks, report.partial, report.tenants), (0, 1, 0));
}
