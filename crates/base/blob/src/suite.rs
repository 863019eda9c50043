//! One suite for every bucket: in memory, a directory, S3 over HTTP, and each wrapper.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use triptych_model::Kind;

use super::*;
use crate::failing::Fault;

fn path(text: &str) -> Path {
    Path::from(text)
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 251) as u8).collect()
}

async fn names(bucket: &Bucket, prefix: &str) -> Vec<String> {
    let prefix = path(prefix);
    let mut names: Vec<_> =
        bucket.list(Some(&prefix)).map_ok(|m| m.location.to_string()).try_collect().await.unwrap();
    names.sort();
    names
}

/// Everything that we ask of a bucket.
async fn suite(bucket: Bucket) {
    // Put, get, overwrite, head.
    let body = text(300_000);
    bucket.put(&path("metrics/t/a"), PutPayload::from(body.clone())).await.unwrap();
    bucket.put(&path("metrics/t/b"), "old".into()).await.unwrap();
    bucket.put(&path("metrics/t/b"), "new".into()).await.unwrap();
    bucket.put(&path("metrics/t/sub/c"), PutPayload::new()).await.unwrap();
    bucket.put(&path("logs/t/1f/1:2:3"), "x".into()).await.unwrap();
    assert_eq!(bucket.get(&path("metrics/t/a")).await.unwrap().bytes().await.unwrap(), body);
    assert_eq!(bucket.get(&path("metrics/t/b")).await.unwrap().bytes().await.unwrap(), "new");
    assert_eq!(bucket.get(&path("metrics/t/sub/c")).await.unwrap().bytes().await.unwrap(), "");
    assert_eq!(bucket.head(&path("metrics/t/a")).await.unwrap().size, 300_000);
    for missing in ["metrics/t/none", "none"] {
        let error = store_error(bucket.get(&path(missing)).await.unwrap_err());
        assert_eq!(error.kind, Kind::NotFound, "{error}");
        let error = store_error(bucket.get_range(&path(missing), 0..10).await.unwrap_err());
        assert_eq!(error.kind, Kind::NotFound, "{error}");
        assert!(bucket.head(&path(missing)).await.is_err());
    }

    // Ranges, twice (the second time from a cache, where there is one), inside and over the end.
    for _ in 0..2 {
        for range in [0..1, 5..4096, 4095..4097, 0..300_000, 8192..70_000, 299_999..300_000] {
            let got = bucket.get_range(&path("metrics/t/a"), range.clone()).await.unwrap();
            assert_eq!(got, body[range.start as usize..range.end as usize], "{range:?}");
        }
        let ranges = [0..10, 100..5000, 299_000..300_000, 50..60];
        let got = bucket.get_ranges(&path("metrics/t/a"), &ranges).await.unwrap();
        for (got, range) in got.iter().zip(&ranges) {
            assert_eq!(got, &body[range.start as usize..range.end as usize], "{range:?}");
        }
        let get = |range| {
            let options = GetOptions { range: Some(range), ..GetOptions::default() };
            async { bucket.get_opts(&path("metrics/t/a"), options).await }
        };
        let over = get(GetRange::Bounded(299_990..400_000)).await.unwrap();
        assert_eq!((over.range.clone(), over.meta.size), (299_990..300_000, 300_000));
        assert_eq!(over.bytes().await.unwrap(), body[299_990..]);
        let suffix = get(GetRange::Suffix(8)).await.unwrap();
        assert_eq!(suffix.range, 299_992..300_000);
        assert_eq!(suffix.bytes().await.unwrap(), body[299_992..]);
        assert!(get(GetRange::Bounded(300_000..300_010)).await.is_err());
        assert!(get(GetRange::Bounded(900_000..900_010)).await.is_err());
    }

    // Listing.
    assert_eq!(names(&bucket, "metrics/t").await, ["metrics/t/a", "metrics/t/b", "metrics/t/sub/c"]);
    assert_eq!(names(&bucket, "logs").await, ["logs/t/1f/1:2:3"]);
    assert_eq!(names(&bucket, "traces").await, [""; 0]);
    let folder = bucket.list_with_delimiter(Some(&path("metrics/t"))).await.unwrap();
    assert_eq!(folder.common_prefixes, [path("metrics/t/sub")]);
    assert_eq!(folder.objects.len(), 2);

    // Multipart: nothing to be seen before the end; nothing left after an abort.
    let mut upload = bucket.put_multipart(&path("metrics/t/big")).await.unwrap();
    let part = vec![7; 5 << 20];
    upload.put_part(part.clone().into()).await.unwrap();
    upload.put_part("tail".into()).await.unwrap();
    assert!(bucket.head(&path("metrics/t/big")).await.is_err());
    upload.complete().await.unwrap();
    assert_eq!(bucket.head(&path("metrics/t/big")).await.unwrap().size, (5 << 20) + 4);
    assert_eq!(bucket.get_range(&path("metrics/t/big"), 5 << 20..(5 << 20) + 4).await.unwrap(), "tail");
    let mut aborted = bucket.put_multipart(&path("metrics/t/aborted")).await.unwrap();
    aborted.put_part("x".into()).await.unwrap();
    aborted.abort().await.unwrap();
    assert!(bucket.head(&path("metrics/t/aborted")).await.is_err());

    // Create once.
    let create = || PutOptions::from(PutMode::Create);
    bucket.put_opts(&path("control/lease"), "1".into(), create()).await.unwrap();
    let error = bucket.put_opts(&path("control/lease"), "2".into(), create()).await.unwrap_err();
    assert_eq!(store_error(error).kind, Kind::Conflict);

    // Copy, delete one, delete many, delete what is not there.
    bucket.copy(&path("metrics/t/b"), &path("metrics/u/b")).await.unwrap();
    assert_eq!(bucket.get(&path("metrics/u/b")).await.unwrap().bytes().await.unwrap(), "new");
    bucket.delete(&path("metrics/t/b")).await.unwrap();
    assert!(bucket.get(&path("metrics/t/b")).await.is_err());
    let all = bucket.list(None).map_ok(|m| m.location).boxed();
    let deleted: Vec<_> = bucket.delete_stream(all).try_collect().await.unwrap();
    assert_eq!(deleted.len(), 6);
    assert_eq!(bucket.list(None).count().await, 0);
}

fn directory() -> (tempfile::TempDir, Bucket) {
    let dir = tempfile::tempdir().unwrap();
    let config = BucketConfig::Filesystem(FilesystemConfig { dir: dir.path().join("bucket") });
    let bucket = config.build().unwrap();
    (dir, bucket)
}

fn small_cache(inner: Bucket) -> CachedBucket {
    CachedBucket::new(inner, CacheConfig { bytes_max: 4 << 20, page_bytes: 4096 })
}

#[tokio::test]
async fn in_memory_counted() {
    suite(Arc::new(CountedBucket::new(memory()))).await;
}

#[tokio::test]
async fn directory_counted() {
    let (_dir, bucket) = directory();
    suite(bucket).await;
}

#[tokio::test]
async fn cached() {
    suite(Arc::new(small_cache(memory()))).await;
    let (_dir, bucket) = directory();
    suite(Arc::new(small_cache(bucket))).await;
}

#[tokio::test]
async fn failing_twin_that_does_not_fail() {
    let failing = FailingBucket::new(memory(), 1);
    failing.hesitate(3);
    suite(Arc::new(failing)).await;
}

#[tokio::test]
async fn a_fence_that_is_open() {
    suite(Arc::new(FencedBucket::new(memory(), || true))).await;
}

#[tokio::test]
async fn a_fence_that_is_shut_lets_nothing_change() {
    let inner = memory();
    inner.put(&path("a"), "x".into()).await.unwrap();
    let may_write = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let asked = may_write.clone();
    let bucket = FencedBucket::new(inner.clone(), move || asked.load(std::sync::atomic::Ordering::Relaxed));
    let mut parts = bucket.put_multipart(&path("parts")).await.unwrap();
    parts.put_part(text(6 << 20).into()).await.unwrap();
    may_write.store(false, std::sync::atomic::Ordering::Relaxed);
    let refused = store_error(bucket.put(&path("b"), "x".into()).await.unwrap_err());
    assert!(
        refused.kind == Kind::Unavailable && refused.to_string().contains("another process'"),
        "{refused}"
    );
    assert!(bucket.delete(&path("a")).await.is_err());
    assert!(bucket.copy(&path("a"), &path("b")).await.is_err());
    assert!(bucket.put_multipart(&path("b")).await.is_err());
    assert!(parts.put_part(text(1).into()).await.is_err() && parts.complete().await.is_err());
    assert_eq!(bucket.get(&path("a")).await.unwrap().bytes().await.unwrap(), "x");
    assert_eq!(names(&inner, "").await, ["a"]);
}

#[tokio::test]
async fn conditional_puts_are_probed() {
    let check = async |bucket: &Bucket, honours: bool| {
        // Twice: nothing is left behind that the next probe falls over.
        for _ in 0..2 {
            assert_eq!(probe::honours_create(bucket, &path("control/probe")).await.unwrap(), honours);
            assert!(bucket.head(&path("control/probe")).await.is_err());
        }
    };
    check(&memory(), true).await;
    let (_dir, local) = directory();
    check(&local, true).await;
    let dir = tempfile::tempdir().unwrap();
    let endpoint = s3_server(dir.path()).await;
    check(&BucketConfig::S3(s3(&endpoint)).build().unwrap(), true).await;

    let failing = FailingBucket::new(memory(), 1);
    let bucket: Bucket = Arc::new(failing.clone());
    failing.ignore_conditions();
    check(&bucket, false).await;
    failing.fail(Fault { operation: Some(Operation::Put), ..Fault::default() });
    assert_eq!(probe::honours_create(&bucket, &path("x")).await.unwrap_err().kind, Kind::Unavailable);
}

/// A server of the S3 protocol over a directory, in this process.
async fn s3_server(root: &std::path::Path) -> String {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    std::fs::create_dir_all(root.join("triptych")).unwrap();
    let mut builder = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    builder.set_auth(s3s::auth::SimpleAuth::from_single("key-id", "key-secret"));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    format!("http://{address}")
}

fn s3(endpoint: &str) -> S3Config {
    S3Config {
        bucket: "triptych".into(),
        endpoint: endpoint.into(),
        access_key_id: "key-id".into(),
        secret_access_key: Secret::new("key-secret"),
        allow_http: true,
        ..S3Config::default()
    }
}

#[tokio::test]
async fn s3_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = s3_server(dir.path()).await;
    suite(BucketConfig::S3(s3(&endpoint)).build().unwrap()).await;
    let below = S3Config { prefix: "some/where".into(), ..s3(&endpoint) };
    let below = BucketConfig::S3(below).build().unwrap();
    suite(Arc::new(small_cache(below.clone()))).await;
    below.put(&path("a"), "x".into()).await.unwrap();
    let whole = BucketConfig::S3(s3(&endpoint)).build().unwrap();
    assert_eq!(names(&whole, "some").await, ["some/where/a"]);

    let wrong = S3Config { secret_access_key: Secret::new("no-such-secret"), ..s3(&endpoint) };
    let error = BucketConfig::S3(wrong).build().unwrap().get(&path("a")).await.unwrap_err();
    let error = store_error(error);
    assert_eq!(error.kind, Kind::Unavailable, "{error}");
    assert!(!error.to_string().contains("no-such-secret"), "{error}");
}

#[tokio::test]
async fn counts() {
    let bucket = CountedBucket::new(memory());
    bucket.put(&path("a"), text(1000).into()).await.unwrap();
    bucket.get(&path("a")).await.unwrap().bytes().await.unwrap();
    bucket.get_range(&path("a"), 0..10).await.unwrap();
    assert!(bucket.get(&path("b")).await.is_err());
    bucket.head(&path("a")).await.unwrap();
    assert_eq!(bucket.list(None).count().await, 1);
    let operations = Operation::ALL.map(|o| bucket.operations(o));
    assert_eq!(operations, [1, 0, 3, 1, 0, 1, 0]);
    assert_eq!((bucket.written_bytes(), bucket.read_bytes()), (1000, 1010));
}

#[tokio::test]
async fn a_cache_fetches_once_and_stays_small() {
    let counted = Arc::new(CountedBucket::new(memory()));
    let body = text(1 << 20);
    counted.put(&path("block"), body.clone().into()).await.unwrap();
    let cache = CachedBucket::new(counted.clone(), CacheConfig { bytes_max: 256 << 10, page_bytes: 4096 });

    // Many at once: one request.
    let reads = (0..50).map(|i| {
        let cache = &cache;
        async move { cache.get_range(&path("block"), 100 + i..3000).await.unwrap() }
    });
    let got = futures::future::join_all(reads).await;
    assert!(got.iter().enumerate().all(|(i, b)| *b == body[100 + i..3000]));
    assert_eq!(counted.operations(Operation::Get), 1);
    assert_eq!(counted.operations(Operation::Head), 0);
    assert_eq!(counted.read_bytes(), 4096);

    // Pages side by side in one request; what is there already is not fetched again.
    cache.get_range(&path("block"), 0..20_000).await.unwrap();
    assert_eq!((counted.operations(Operation::Get), counted.read_bytes()), (2, 5 * 4096));

    // Bounded.
    for at in 0..200 {
        let range = at * 5000..at * 5000 + 4000;
        let got = cache.get_range(&path("block"), range.clone()).await.unwrap();
        assert_eq!(got, body[range.start as usize..range.end as usize]);
    }
    let held = cache.bytes().await;
    assert!(held > 0 && held <= 256 << 10, "{held}");

    // Too large to be worth it: passes through and leaves the cache alone.
    cache.get_range(&path("block"), 0..500_000).await.unwrap();
    assert_eq!(cache.bytes().await, held);
}

#[tokio::test]
async fn a_cache_does_not_keep_failures() {
    let failing = FailingBucket::new(memory(), 1);
    failing.put(&path("a"), "12345".into()).await.unwrap();
    let cache = small_cache(Arc::new(failing.clone()));
    failing.fail(Fault { operation: Some(Operation::Get), ..Fault::default() });
    assert!(cache.get_range(&path("a"), 0..3).await.is_err());
    failing.heal();
    assert_eq!(cache.get_range(&path("a"), 0..3).await.unwrap(), "123");
}

#[tokio::test]
async fn faults() {
    let run = |seed| async move {
        let bucket = FailingBucket::new(memory(), seed);
        bucket.fail(Fault { operation: Some(Operation::Put), probability: 0.5, ..Fault::default() });
        let mut outcomes = Vec::new();
        for i in 0..64 {
            outcomes.push(bucket.put(&path(&format!("{i}")), "x".into()).await.is_ok());
        }
        outcomes
    };
    let first = run(1).await;
    assert_eq!(first, run(1).await, "one seed replays the world");
    assert_ne!(first, run(2).await);
    let ok = first.iter().filter(|ok| **ok).count();
    assert!((16..48).contains(&ok), "{ok}");

    let bucket = FailingBucket::new(memory(), 0);
    bucket.fail(Fault { path: "meta.json".into(), answer_lost: true, ..Fault::default() });
    assert!(bucket.put(&path("1/meta.json"), "x".into()).await.is_err());
    assert!(bucket.put(&path("1/index"), "x".into()).await.is_ok());
    bucket.heal();
    assert!(bucket.get(&path("1/meta.json")).await.is_ok(), "only the answer was lost");
    bucket.fail_after_writes(1);
    assert!(bucket.put(&path("2"), "x".into()).await.is_ok());
    assert!(bucket.put(&path("3"), "x".into()).await.is_err());
    assert!(bucket.delete(&path("2")).await.is_err());
    assert!(bucket.get(&path("2")).await.is_ok(), "reads go on");
    assert_eq!(bucket.failed(), 3);
}

#[tokio::test]
async fn a_put_to_a_directory_is_whole_or_not_there() {
    let (_dir, bucket) = directory();
    let body = text(1 << 20);
    let writer = async {
        for _ in 0..20 {
            bucket.put(&path("x/object"), body.clone().into()).await.unwrap();
        }
    };
    let reader = async {
        for _ in 0..200 {
            if let Ok(got) = bucket.get(&path("x/object")).await {
                assert_eq!(got.bytes().await.unwrap().len(), body.len());
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    tokio::join!(writer, reader);
}
