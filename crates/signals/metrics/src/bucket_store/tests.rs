use std::sync::Arc;

use triptych_blob::object_store::ObjectStoreExt;
use triptych_blob::object_store::memory::InMemory;
use triptych_model::Matcher;

use super::*;
use crate::block::{DELETION_MARK_FILE, INDEX_FILE, META_FILE, file_path};
use crate::testing::{HOUR_MS, content, content_of, everything, flush, head, labels, tenant};

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

    // Another owner's share.
    let none = store.sync_owned(|tenant, _| tenant.as_str() == "b").await.unwrap();
    assert_eq!((none.blocks, none.dropped), (1, 2));
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
