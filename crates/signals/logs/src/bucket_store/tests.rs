use triptych_blob::object_store::{ObjectStoreExt, PutPayload};
use triptych_model::Matcher;

use super::*;
use crate::index::{SeriesMeta, TENANT_LABEL};
use crate::suite::{self, START_NS, collect, flushed, head_of, memory, tenant};

fn everything() -> EntrySelect {
    EntrySelect {
        expr: r#"{app=~".+"}"#.into(),
        start_ns: 0,
        end_ns: i64::MAX,
        direction: Direction::Backward,
        limit: 0,
    }
}

async fn objects(bucket: &Bucket, prefix: &str) -> Vec<Path> {
    let all: Vec<_> = bucket.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
    all.into_iter().map(|o| o.location).collect()
}

#[tokio::test]
async fn what_cannot_be_read_is_named_and_the_rest_is_answered() {
    let bucket = memory();
    let lines = suite::lines();
    let store = flushed(&[&head_of(&lines)], &bucket).await;
    let chunks = objects(&bucket, "logs/team-a").await;
    bucket.delete(&chunks[0]).await.unwrap();
    let mut broken = bucket.get(&chunks[1]).await.unwrap().bytes().await.unwrap().to_vec();
    broken[200] ^= 1;
    bucket.put(&chunks[1], PutPayload::from(broken)).await.unwrap();
    let ctx = QueryContext::unlimited(tenant());
    let got = collect(store.entries(&ctx, &everything()).await.unwrap()).await;
    let report = ctx.report();
    assert_eq!(report.missed.len(), 2, "{report:?}");
    assert!(
        report.missed.iter().any(|m| m.contains("checksum"))
            && report.missed.iter().any(|m| m.contains("not found"))
    );
    assert!(got.len() > lines.len() * 9 / 10 && got.len() < lines.len());

    // A broken index file: the other day's file still answers.
    let files = objects(&bucket, "logs/index").await;
    assert!(files.len() >= 2);
    bucket.put(&files[0], PutPayload::from_static(b"nonsense")).await.unwrap();
    let store = BucketStore::new(bucket.clone(), BucketStoreConfig::default());
    store.sync().await.unwrap();
    let report = store.warm(|_| true).await;
    assert_eq!((report.wanted, report.opened, report.failed.len()), (files.len(), files.len() - 1, 1));
    let ctx = QueryContext::unlimited(tenant());
    let series = store.series(&ctx, &StreamsSelect::default()).await.unwrap();
    assert!(!series.is_empty());
    assert!(ctx.report().missed[0].contains("index file"), "{:?}", ctx.report());
}

/// Stores divide a tenant's logs by streams.
#[tokio::test]
async fn stores_divide_the_streams() {
    let bucket = memory();
    let lines = suite::lines();
    let store = flushed(&[&head_of(&lines)], &bucket).await;
    let ctx = QueryContext::unlimited(tenant());
    let streams = store.series(&ctx, &StreamsSelect::default()).await.unwrap();
    let stats = store.stats(&ctx, &StreamsSelect::default()).await.unwrap();
    let members: std::sync::Arc<[Arc<str>]> = ["s-0", "s-1", "s-2"].map(Arc::from).into();
    let (mut found, mut series, mut entries) = (0, Vec::new(), 0);
    for mine in 0..3 {
        let share = Share::new(members.clone(), mine).unwrap();
        let part = store.share(Some(&share));
        let own = part.series(&ctx, &StreamsSelect::default()).await.unwrap();
        let read = collect(part.entries(&ctx, &everything()).await.unwrap()).await;
        assert!(read.iter().all(|entry| own.contains(&entry.labels)));
        found += read.len();
        series.extend(own);
        entries += part.stats(&ctx, &StreamsSelect::default()).await.unwrap().entries;
        let select = StreamsSelect {
            matcher_sets: vec![vec![Matcher::equal("app", "web")]],
            ..StreamsSelect::default()
        };
        let pods = part.label_values(&ctx, "pod", &select).await.unwrap();
        assert!(pods.iter().all(|pod| series.iter().any(|stream| stream.value("pod") == pod)));
    }
    series.sort();
    assert_eq!((found, series, entries), (lines.len(), streams, stats.entries));
}

#[tokio::test]
async fn sync_finds_new_and_vanished_files() {
    let bucket = memory();
    let lines = suite::lines();
    let store = flushed(&[&head_of(&lines[..1000])], &bucket).await;
    let ctx = QueryContext::unlimited(tenant());
    assert_eq!(collect(store.entries(&ctx, &everything()).await.unwrap()).await.len(), 1000);
    let options = crate::FlushOptions::new("n", START_NS);
    head_of(&lines[1000..]).flush(&bucket, &tenant(), &options).await.unwrap();
    assert_eq!(collect(store.entries(&ctx, &everything()).await.unwrap()).await.len(), 1000);
    let report = store.sync().await.unwrap();
    assert!(report.new > 0 && report.vanished == 0);
    assert_eq!(collect(store.entries(&ctx, &everything()).await.unwrap()).await.len(), lines.len());
    store.inner.chunks.run_pending_tasks().await;
    assert!(store.cached_bytes() > 0);
    for path in objects(&bucket, "logs/index").await {
        bucket.delete(&path).await.unwrap();
    }
    assert_eq!(store.sync().await.unwrap().vanished, report.files);
    assert!(collect(store.entries(&ctx, &everything()).await.unwrap()).await.is_empty());
    assert!(store.tenants().is_empty() && ctx.report().missed.is_empty());
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let bucket = memory();
    let store = flushed(&[&head_of(&suite::lines()[..100])], &bucket).await;
    let ctx = QueryContext::unlimited(TenantId::new("team-b").unwrap());
    assert!(collect(store.entries(&ctx, &everything()).await.unwrap()).await.is_empty());
    assert!(store.series(&ctx, &StreamsSelect::default()).await.unwrap().is_empty());
}

/// Loki's ingesters write one index file for several tenants; its compactor takes it apart later.
#[tokio::test]
async fn files_of_several_tenants() {
    let bucket = memory();
    let lines = suite::lines();
    flushed(&[&head_of(&lines)], &bucket).await;
    for path in objects(&bucket, "logs/index").await {
        let file = bucket.get(&path).await.unwrap().bytes().await.unwrap();
        let file = IndexFile::parse(index::gunzip(&file, 1 << 20).unwrap().into()).unwrap();
        let with_tenant = |tenant: &str| -> Vec<SeriesMeta> {
            let mut all = file.read_all().unwrap();
            all.iter_mut().for_each(|s| s.labels = s.labels.to_builder().set(TENANT_LABEL, tenant).build());
            all
        };
        let mut all = with_tenant("team-a");
        all.extend(with_tenant("team-c"));
        let encoded = index::encode(&index::normalise(all)).unwrap();
        let table = path.parts().nth(2).unwrap().as_ref().to_owned();
        let shared = Path::from(format!("logs/index/{table}/1700000000-ingester-0.tsdb.gz"));
        bucket.put(&shared, PutPayload::from(index::gzip(&encoded.bytes).unwrap())).await.unwrap();
        bucket.delete(&path).await.unwrap();
    }
    let store = BucketStore::new(bucket, BucketStoreConfig::default());
    store.sync().await.unwrap();
    let ctx = QueryContext::unlimited(tenant());
    assert_eq!(collect(store.entries(&ctx, &everything()).await.unwrap()).await.len(), lines.len());
    assert!(ctx.report().missed.is_empty(), "{:?}", ctx.report());
    let select =
        StreamsSelect { matcher_sets: vec![vec![Matcher::equal("app", "web")]], ..StreamsSelect::default() };
    assert_eq!(store.label_names(&ctx, &select).await.unwrap(), ["app", "env", "pod"]);
    let other = QueryContext::unlimited(TenantId::new("team-d").unwrap());
    assert!(store.series(&other, &StreamsSelect::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_limit_fetches_few_chunks() {
    let bucket = memory();
    let store = flushed(&[&head_of(&suite::lines())], &bucket).await;
    let ctx = QueryContext::unlimited(tenant());
    let select = EntrySelect { limit: 5, ..everything() };
    assert_eq!(collect(store.entries(&ctx, &select).await.unwrap()).await.len(), 5);
    let chunks = objects(&bucket, "logs/team-a").await.len();
    store.inner.chunks.run_pending_tasks().await;
    let fetched = store.inner.chunks.entry_count() as usize;
    assert!(fetched <= 10 && fetched < chunks / 2, "{fetched} of {chunks}");
    assert!(ctx.report().rows < 200, "{:?}", ctx.report());
}
