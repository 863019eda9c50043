use std::sync::Arc;

use triptych_blob::object_store::local::LocalFileSystem;
use triptych_model::logs::{Direction, EntrySelect};
use triptych_runtime::{QueryContext, now_ns};

use super::*;
use crate::suite::{self, START_NS, collect, flushed, head_of, memory, tenant};
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

async fn lines(bucket: &Bucket) -> Vec<(i64, u64)> {
    let store = BucketStore::new(bucket.clone(), BucketStoreConfig::default());
    store.sync().await.unwrap();
    let ctx = QueryContext::unlimited(tenant());
    let select = EntrySelect {
        expr: r#"{app=~".+"}"#.into(),
        start_ns: 0,
        end_ns: i64::MAX,
        direction: Direction::Forward,
        limit: 0,
    };
    let mut got = collect(store.entries(&ctx, &select).await.unwrap()).await;
    assert!(ctx.report().missed.is_empty(), "{:?}", ctx.report());
    got.sort_by_key(|e| (e.ts_ns, e.key));
    got.into_iter().map(|e| (e.ts_ns, e.key)).collect()
}

async fn two_flushes(bucket: &Bucket) {
    let all = suite::lines();
    flushed(&[&head_of(&all[..2000]), &head_of(&all[1500..])], bucket).await;
}

#[tokio::test]
async fn files_of_a_table_become_one_and_nothing_changes() {
    let bucket = memory();
    two_flushes(&bucket).await;
    let before = lines(&bucket).await;
    assert_eq!(before.len(), suite::lines().len());
    let chunks = paths(&bucket).await.len() - index_files(&bucket).await.len();

    assert_eq!(tenants(&bucket).await.unwrap(), [tenant()]);
    let config = CompactConfig::default();
    let report = compact_tenant(&bucket, &tenant(), &config, START_NS).await.unwrap();
    assert!(report.index_files_written >= 1 && report.index_files_deleted >= 2, "{report:?}");
    let files = index_files(&bucket).await;
    assert_eq!(files.len() as u64, report.tables);
    let merged = files.iter().find(|f| f.contains("-compactor-")).unwrap();
    assert!(
        merged.starts_with("logs/index/index_196")
            && merged.contains("/team-a/1700000000000000000-compactor-1")
    );
    assert_eq!(lines(&bucket).await, before);

    // Again: nothing to do. And with the sources back, as after a crash before they were deleted: the same files in the end.
    let again = compact_tenant(&bucket, &tenant(), &config, START_NS + 1).await.unwrap();
    assert_eq!((again.index_files_written, again.index_files_deleted, again.chunks), (0, 0, report.chunks));
    two_flushes(&bucket).await;
    assert_eq!(lines(&bucket).await, before);
    let third = compact_tenant(&bucket, &tenant(), &config, START_NS).await.unwrap();
    assert_eq!(third.chunks, report.chunks);
    assert_eq!(index_files(&bucket).await, files);
    assert_eq!(paths(&bucket).await.len() - files.len(), chunks);
    assert_eq!(lines(&bucket).await, before);
}

#[tokio::test]
async fn retention_drops_index_entries_then_chunks() {
    let bucket = memory();
    two_flushes(&bucket).await;
    let before = lines(&bucket).await;
    // What is older than the first day goes. Chunks were written just now; the clock of the round is their time plus two days.
    let cutoff_ns = START_NS + DAY_NS;
    let now = now_ns() + 2 * DAY_NS;
    let config = CompactConfig { retention_ns: now - cutoff_ns, ..CompactConfig::default() };
    let report = compact_tenant(&bucket, &tenant(), &config, now).await.unwrap();
    assert!(report.chunks_expired > 10 && report.orphans_deleted == 0, "{report:?}");
    let after = lines(&bucket).await;
    assert!(after.len() < before.len());
    let kept: Vec<_> = before.iter().filter(|l| l.0 >= cutoff_ns).collect();
    assert!(kept.iter().all(|l| after.contains(l)), "nothing that is young enough is lost");

    let chunks = paths(&bucket).await.len();
    let report = compact_tenant(&bucket, &tenant(), &config, now).await.unwrap();
    assert!(report.orphans_deleted > 10 && report.chunks_expired == 0, "{report:?}");
    assert_eq!(paths(&bucket).await.len(), chunks - report.orphans_deleted as usize);
    assert_eq!(lines(&bucket).await, after);

    // In the end everything goes.
    let config = CompactConfig { retention_ns: 1, ..config };
    for _ in 0..2 {
        compact_tenant(&bucket, &tenant(), &config, now).await.unwrap();
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
    let config = CompactConfig::default();
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
    for _ in 0..2 {
        compact_tenant(&bucket, &odd, &config, now_ns() + 2 * DAY_NS).await.unwrap();
    }
    assert_eq!(paths(&bucket).await, Vec::<String>::new());
}
