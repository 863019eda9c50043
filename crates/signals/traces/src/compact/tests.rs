use std::time::Duration;

use futures::TryStreamExt;
use triptych_blob::object_store::ObjectStore;
use triptych_blob::{FailingBucket, WarmReport};
use triptych_model::Share;
use triptych_runtime::random;
use triptych_traceql::SpanSource;
use triptych_traceql::source::FetchSpans;

use super::*;
use crate::bucket_store::{BucketStore, BucketStoreConfig};
use crate::head::Head;
use crate::otlp;
use crate::suite::{ctx, fetch, options, store};
use crate::testing::{BASE_NS, canonical, head, rich};

const SECOND: i64 = 1_000_000_000;

fn config() -> CompactConfig {
    CompactConfig { options: options(), ..CompactConfig::default() }
}

async fn flush(bucket: &Bucket, head: Head) {
    head.flush(bucket, &TenantId::single(), &options()).await.unwrap();
}

async fn names(bucket: &Bucket, name: &str) -> Vec<Path> {
    let all: Vec<_> = bucket.list(None).try_collect().await.unwrap();
    all.into_iter().map(|o| o.location).filter(|p| p.filename() == Some(name)).collect()
}

async fn compact(bucket: &Bucket, config: &CompactConfig, now_ns: i64) -> CompactReport {
    let report = compact_tenant(bucket, &TenantId::single(), config, now_ns).await.unwrap();
    assert_eq!(report.failed, Vec::<String>::new());
    report
}

#[tokio::test]
async fn blocks_of_a_window_become_one_and_nothing_is_lost() {
    let bucket = triptych_blob::memory();
    let traces: Vec<_> = (0..200).map(rich).collect();
    // Three replicas' worth of overlap, and traces whose spans are spread over blocks.
    flush(&bucket, head(&traces[..120])).await;
    flush(&bucket, head(&traces[60..])).await;
    for half in 0..2 {
        let parts: Vec<_> = traces
            .iter()
            .map(|t| {
                let mut part = t.clone();
                part.resource_spans.retain(|_| t.trace_id[14] % 2 == half);
                part
            })
            .filter(|t| t.span_count() > 0)
            .collect();
        flush(&bucket, head(&parts)).await;
    }
    let question = FetchSpans { nested_sets: true, summary: true, ..FetchSpans::default() };
    let before = fetch(&store(&bucket).await, &question).await;
    let now = BASE_NS as i64 + 10 * 3600 * SECOND;
    let report = compact(&bucket, &config(), now).await;
    assert_eq!((report.merged_blocks, report.written_blocks), (4, 1));
    // The overlap of the first two, and everything once more.
    let overlap: usize = traces[60..120].iter().map(otlp::Trace::span_count).sum();
    let all: usize = traces.iter().map(otlp::Trace::span_count).sum();
    assert_eq!(report.copies, (overlap + all) as u64);
    let after_store = store(&bucket).await;
    assert_eq!(after_store.blocks(&TenantId::single()).len(), 1);
    let after = fetch(&after_store, &question).await;
    let count = |found: &[triptych_traceql::TraceSpans]| found.iter().map(|t| t.spans.len()).sum::<usize>();
    assert_eq!((after.len(), count(&after)), (200, traces.iter().map(otlp::Trace::span_count).sum()));
    assert_eq!((before.len(), count(&before)), (after.len(), count(&after)));
    for trace in traces.iter().step_by(11) {
        let parts = after_store.find(&ctx(), &trace.trace_id, 0, 0).await.unwrap();
        let whole = crate::combine(parts.otlp).unwrap();
        assert_eq!(canonical(otlp::decode(trace.trace_id, &whole).unwrap()), canonical(trace.clone()));
    }
    // Again: nothing left to do, until the delay is over.
    assert_eq!(compact(&bucket, &config(), now + SECOND).await, CompactReport::default());
    assert_eq!(names(&bucket, COMPACTED_META_NAME).await.len(), 4);
    assert_eq!(names(&bucket, "index.json.gz").await.len(), 1);
    let later = compact(&bucket, &config(), now + 3601 * SECOND).await;
    assert_eq!(later.deleted_blocks, 4);
    assert_eq!(names(&bucket, "data.parquet").await.len(), 1);
    assert_eq!(names(&bucket, COMPACTED_META_NAME).await.len(), 0);
}

/// One of two stores has seen a compaction that the other one has not, whoever owns which block.
#[tokio::test(start_paused = true)]
async fn no_view_of_a_compaction_loses_anything() {
    random::seed(Some(1));
    const SHOWN: Duration = Duration::from_secs(60);
    let tenant = TenantId::single();
    let members: Arc<[Arc<str>]> = ["s-0", "s-1"].map(Arc::from).into();
    let shares = [0, 1].map(|mine| Share::new(members.clone(), mine).unwrap());
    let together = async |stores: [&BucketStore; 2]| {
        let mut found = BTreeSet::new();
        for (store, share) in stores.into_iter().zip(&shares) {
            let part = store.share(Some(share));
            found.extend(fetch(&part, &FetchSpans::default()).await.into_iter().map(|t| t.trace_id));
        }
        found.len()
    };
    for replaced_shown in [Duration::ZERO, SHOWN] {
        let mut lost = 0;
        // Owners follow from the ids of the blocks.
        for _ in 0..12 {
            let bucket = triptych_blob::memory();
            for seed in 0..2 {
                flush(&bucket, head(&[rich(seed)])).await;
            }
            let config = BucketStoreConfig { replaced_shown, ..BucketStoreConfig::default() };
            let store = || BucketStore::new(bucket.clone(), config.clone());
            let (early, late, fresh) = (store(), store(), store());
            late.sync().await.unwrap();
            early.sync().await.unwrap();
            assert_eq!(together([&early, &late]).await, 2);
            let now = BASE_NS as i64 + 10 * 3600 * SECOND;
            assert_eq!(compact(&bucket, &self::config(), now).await.written_blocks, 1);
            for _ in 0..3 {
                early.sync().await.unwrap();
                // One that starts now finds the mark and nothing else.
                fresh.sync().await.unwrap();
                for stores in [[&early, &late], [&late, &early], [&fresh, &late], [&late, &fresh]] {
                    lost += usize::from(together(stores).await != 2);
                }
                tokio::time::advance(SHOWN / 3).await;
            }
            // The late one must have looked by now; the early one has dropped what was replaced.
            late.sync().await.unwrap();
            early.sync().await.unwrap();
            assert_eq!(early.blocks(&tenant).len(), 1);
            for stores in [[&early, &late], [&late, &early]] {
                assert_eq!(together(stores).await, 2);
            }
        }
        assert_eq!(lost > 0, replaced_shown.is_zero(), "{lost} answers of {replaced_shown:?} had gaps");
    }
}

/// What was marked may go at any time, whatever a clock says: who owns it asks what replaced it, and what replaced that.
#[tokio::test]
async fn what_was_replaced_may_go() {
    random::seed(Some(1));
    let bucket = triptych_blob::memory();
    let tenant = TenantId::single();
    let now = BASE_NS as i64 + 10 * 3600 * SECOND;
    let config = BucketStoreConfig { replaced_shown: Duration::from_secs(60), ..Default::default() };
    let late = BucketStore::new(bucket.clone(), config.clone());
    for round in 0..2 {
        flush(&bucket, head(&[rich(round * 2)])).await;
        flush(&bucket, head(&[rich(round * 2 + 1)])).await;
        late.sync().await.unwrap();
        assert_eq!(compact(&bucket, &self::config(), now).await.written_blocks, 1);
    }
    let fresh = BucketStore::new(bucket.clone(), config);
    fresh.sync().await.unwrap();
    let shown = fresh.blocks(&tenant);
    assert_eq!(shown.len(), 1);
    // A compactor's clock leaps.
    let later = now + 100 * 3600 * SECOND;
    assert_eq!(compact(&bucket, &self::config(), later).await.deleted_blocks, 5);
    let members: Arc<[Arc<str>]> = (0..16).map(|n| Arc::from(format!("s-{n}"))).collect();
    let mut asked = 0;
    for mine in 0..members.len() {
        let share = Share::new(members.clone(), mine).unwrap();
        let part = fresh.share(Some(&share));
        let ctx = ctx();
        let found = part.fetch(&ctx, &FetchSpans::default()).await.unwrap();
        let found = found.try_collect::<Vec<_>>().await.unwrap().len();
        assert!(ctx.report().missed.is_empty());
        assert!(found == 0 || found == 4, "{found}");
        asked += usize::from(found > 0);
    }
    // The owners of the last and of the five before it.
    assert!((2..=6).contains(&asked), "{asked}");
    // Who has not looked since says what it lacks.
    let ctx = ctx();
    let found = late.fetch(&ctx, &FetchSpans::default()).await.unwrap();
    assert_eq!(found.try_collect::<Vec<_>>().await.unwrap().len(), 0);
    assert_eq!(ctx.report().missed.len(), 3);
}

/// Replicas that flush at different moments, across full hours: what each hour's blocks hold is merged without a copy left.
#[tokio::test]
async fn replicas_that_flush_at_other_times_leave_no_copies() {
    // Three and a half hours, a trace every five minutes; some take an hour.
    let mut traces: Vec<_> = (0..42).map(|n| rich(n * 300)).collect();
    for trace in traces.iter_mut().step_by(5) {
        let spans =
            trace.resource_spans.iter_mut().flat_map(|rs| &mut rs.scope_spans).flat_map(|ss| &mut ss.spans);
        for (i, span) in spans.enumerate() {
            span.start_ns += i as u64 * 200 * SECOND as u64;
            span.end_ns += i as u64 * 200 * SECOND as u64;
        }
    }
    let spans: usize = traces.iter().map(otlp::Trace::span_count).sum();
    let bucket = triptych_blob::memory();
    for cuts in [[0, 10, 23, 42], [0, 3, 17, 42], [0, 14, 29, 42]] {
        for cut in cuts.windows(2) {
            flush(&bucket, head(&traces[cut[0]..cut[1]])).await;
        }
    }
    let (mut copies, mut rounds) = (0, 0);
    loop {
        let now = BASE_NS as i64 + (20 + rounds) * 3600 * SECOND;
        let report = compact(&bucket, &config(), now).await;
        copies += report.copies as usize;
        rounds += 1;
        if report.written_blocks == 0 {
            break;
        }
    }
    assert_eq!(copies, 2 * spans, "each span was there three times");
    let store = store(&bucket).await;
    let mut hours: Vec<_> = store.blocks(&TenantId::single()).iter().map(|b| b.start_s / WINDOW_S).collect();
    hours.sort_unstable();
    assert!(hours.windows(2).all(|pair| pair[0] < pair[1]), "one block an hour is left: {hours:?}");
    let question = FetchSpans { nested_sets: true, summary: true, ..FetchSpans::default() };
    let found = fetch(&store, &question).await;
    assert_eq!(found, fetch(&head(&traces), &question).await);
}

/// A sender without a clock: its traces lie in one block besides those of the first hours, and nothing is lost.
#[tokio::test]
async fn traces_of_many_hours_are_flushed_in_few_blocks() {
    let traces: Vec<_> = (0..60).map(|n| rich(n * 7200)).collect();
    let bucket = triptych_blob::memory();
    let mut small = options();
    small.row_group_bytes = 16 << 10;
    let report = head(&traces).flush(&bucket, &TenantId::single(), &small).await.unwrap();
    assert_eq!(report.blocks.len(), 5);
    let question = FetchSpans { nested_sets: true, summary: true, ..FetchSpans::default() };
    assert_eq!(fetch(&store(&bucket).await, &question).await, fetch(&head(&traces), &question).await);
}

#[tokio::test]
async fn opened_ahead_of_questions() {
    let bucket = triptych_blob::memory();
    for seed in 0..3 {
        flush(&bucket, head(&[rich(seed)])).await;
    }
    let store = store(&bucket).await;
    assert_eq!(store.warm(|_, _| false).await, WarmReport::default());
    let report = store.warm(|tenant, _| *tenant == TenantId::single()).await;
    assert_eq!((report.wanted, report.opened, report.failed), (3, 3, vec![]));
    assert_eq!(store.warm(|_, _| true).await.opened, 0, "all are open");
}

#[tokio::test]
async fn a_crash_between_any_two_steps_loses_nothing() {
    let traces: Vec<_> = (0..12).map(rich).collect();
    let question = FetchSpans::default();
    // Objects carry the machine's time.
    let now = triptych_runtime::now_ns();
    let mut finished = false;
    for stop in 0..60 {
        let bucket = triptych_blob::memory();
        for part in traces.chunks(5) {
            flush(&bucket, head(part)).await;
        }
        let failing = Stops::after(bucket.clone(), stop);
        let died: Bucket = Arc::new(failing);
        let result = compact_tenant(&died, &TenantId::single(), &config(), now).await;
        finished |= result.is_ok_and(|r| r.failed.is_empty());
        assert_eq!(fetch(&store(&bucket).await, &question).await.len(), 12, "stopped after {stop}");
        // The next rounds finish the work.
        for round in 1..4 {
            compact(&bucket, &config(), now + round * 20 * 3600 * SECOND).await;
        }
        let healed = store(&bucket).await;
        assert_eq!(healed.blocks(&TenantId::single()).len(), 1, "stopped after {stop}");
        assert_eq!(fetch(&healed, &question).await.len(), 12);
        assert_eq!(names(&bucket, "data.parquet").await.len(), 1, "stopped after {stop}");
        if finished {
            break;
        }
    }
    assert!(finished);
}

/// Two compactors that both believe that the tenant is theirs, and an ingester that uploads, interleaved in another way for every seed.
/// In some of them the second compactor dies on the way.
#[tokio::test]
async fn two_at_a_time_lose_nothing_and_double_nothing() {
    let traces: Vec<_> = (0..14).map(rich).collect();
    let spans: usize = traces.iter().map(otlp::Trace::span_count).sum();
    let question = FetchSpans { nested_sets: true, summary: true, ..FetchSpans::default() };
    // Objects carry the machine's time.
    let now = triptych_runtime::now_ns();
    let (mut both_merged, mut died) = (0, 0);
    for seed in 0..8 {
        let bucket = triptych_blob::memory();
        for part in [&traces[..7], &traces[3..12], &traces[..12]] {
            flush(&bucket, head(part)).await;
        }
        let views: Vec<FailingBucket> =
            (0..3).map(|i| FailingBucket::new(bucket.clone(), seed * 3 + i)).collect();
        views.iter().for_each(|view| view.hesitate(1 << (seed % 6)));
        if seed % 3 == 0 {
            views[1].fail_after_writes(seed % 20);
        }
        let buckets: Vec<Bucket> = views.iter().map(|view| Arc::new(view.clone()) as Bucket).collect();
        let config =
            CompactConfig { delete_delay_ns: if seed % 4 < 2 { 0 } else { 60 * SECOND }, ..config() };
        let check = async || {
            let found = fetch(&store(&bucket).await, &question).await;
            let got = (found.len(), found.iter().map(|t| t.spans.len()).sum::<usize>());
            assert_eq!(got, (14, spans), "seed {seed}");
        };
        for round in 0..3 {
            let upload = async {
                if round == 0 {
                    flush(&buckets[2], head(&traces[10..])).await;
                }
            };
            let (at, tenant) = (now + round * 40 * SECOND, TenantId::single());
            let (first, second, ()) = futures::join!(
                compact_tenant(&buckets[0], &tenant, &config, at),
                compact_tenant(&buckets[1], &tenant, &config, at + 1),
                upload
            );
            both_merged += usize::from(
                first.is_ok_and(|r| r.written_blocks > 0) && second.is_ok_and(|r| r.written_blocks > 0),
            );
            check().await;
        }
        died += usize::from(views[1].failed() > 0);
        for round in 1..5 {
            compact(&bucket, &config, now + round * 20 * 3600 * SECOND).await;
            check().await;
        }
        assert_eq!(names(&bucket, "data.parquet").await.len(), 1, "seed {seed}");
    }
    assert!(both_merged > 0 && died > 0, "{both_merged} double merges, {died} deaths");
}

/// A bucket whose writer dies: after so many puts and deletes every further one fails.
#[derive(Debug)]
struct Stops {
    inner: Bucket,
    left: std::sync::atomic::AtomicI64,
}

impl Stops {
    fn after(inner: Bucket, writes: i64) -> Self {
        Self { inner, left: writes.into() }
    }
    fn step(&self) -> triptych_blob::object_store::Result<()> {
        if self.left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(triptych_blob::object_store::Error::Generic { store: "test", source: "the process died".into() })
    }
}

impl std::fmt::Display for Stops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stops")
    }
}

mod stops {
    use async_trait::async_trait;
    use futures::StreamExt;
    use futures::stream::BoxStream;
    use triptych_blob::object_store::path::Path;
    use triptych_blob::object_store::*;

    use super::Stops;

    #[async_trait]
    impl ObjectStore for Stops {
        async fn put_opts(&self, to: &Path, data: PutPayload, options: PutOptions) -> Result<PutResult> {
            self.step()?;
            self.inner.put_opts(to, data, options).await
        }
        async fn put_multipart_opts(
            &self,
            to: &Path,
            options: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.step()?;
            self.inner.put_multipart_opts(to, options).await
        }
        async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
            self.inner.get_opts(from, options).await
        }
        fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            match self.step() {
                Ok(()) => self.inner.delete_stream(paths),
                Err(e) => futures::stream::once(async { Err(e) }).boxed(),
            }
        }
        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.inner.list(prefix)
        }
        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }
        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
    }
}

#[tokio::test]
async fn what_is_too_old_goes() {
    let bucket = triptych_blob::memory();
    flush(&bucket, head(&[rich(1)])).await;
    flush(&bucket, head(&[rich(100_000)])).await;
    let config = CompactConfig { retention_ns: 3600 * SECOND, ..config() };
    let now = BASE_NS as i64 + 100_100 * SECOND;
    assert_eq!(compact(&bucket, &config, now).await.expired_blocks, 1);
    let left = store(&bucket).await;
    let found = fetch(&left, &FetchSpans::default()).await;
    assert_eq!(found.iter().map(|t| t.trace_id).collect::<Vec<_>>(), [rich(100_000).trace_id]);
    assert_eq!(crate::tenants(&bucket).await.unwrap(), [TenantId::single()]);
}

#[tokio::test]
async fn a_damaged_block_stays_and_the_others_are_merged() {
    let bucket = triptych_blob::memory();
    for seed in 0..3 {
        flush(&bucket, head(&[rich(seed)])).await;
    }
    let victim = names(&bucket, "data.parquet").await.remove(0);
    bucket.put(&victim, b"PAR1 nothing".to_vec().into()).await.unwrap();
    let now = BASE_NS as i64 + 10 * 3600 * SECOND;
    let report = compact_tenant(&bucket, &TenantId::single(), &config(), now).await.unwrap();
    assert_eq!((report.merged_blocks, report.written_blocks, report.failed.len()), (2, 1, 1));
    assert_eq!(store(&bucket).await.blocks(&TenantId::single()).len(), 2);
}

#[test]
fn plans() {
    let meta = |n: u128, start_s: i64, level: u32, size: u64| BlockMeta {
        block_id: Uuid::from_u128(n),
        start_s,
        compaction_level: level,
        size,
        ..BlockMeta::parse(
            br#"{"format":"vParquet5","blockID":"00000000-0000-0000-0000-000000000000","tenantID":"t",
            "startTime":"2022-07-04T11:11:09Z","endTime":"2022-07-04T11:11:09Z"}"#,
        )
        .unwrap()
    };
    let check = |blocks: &[BlockMeta], expected: &[u128]| {
        let config = CompactConfig { block_bytes_max: 1000, inputs_max: 3, ..CompactConfig::default() };
        let blocks: Vec<_> = blocks.iter().collect();
        let now_ns = 100 * 3600 * SECOND;
        let got: Vec<_> = plan(&blocks, &config, now_ns).iter().map(|m| m.block_id.as_u128()).collect();
        assert_eq!(got, expected);
    };
    let (new, old) = (100 * 3600 - 10, 50 * 3600);
    check(&[], &[]);
    check(&[meta(1, new, 0, 10)], &[]);
    check(&[meta(1, new, 0, 10), meta(2, new, 0, 5)], &[2, 1]);
    // New blocks wait for others of their level, old ones do not.
    check(&[meta(1, new, 0, 10), meta(2, new, 1, 5)], &[]);
    check(&[meta(1, old, 0, 10), meta(2, old, 1, 5)], &[2, 1]);
    // Windows stay apart.
    check(&[meta(1, old, 0, 10), meta(2, old + 3600, 0, 5)], &[]);
    // Bounded by count and by size.
    check(&(1..6).map(|n| meta(n, old, 0, 10)).collect::<Vec<_>>(), &[1, 2, 3]);
    check(&[meta(1, old, 0, 400), meta(2, old, 0, 500), meta(3, old, 0, 600)], &[1, 2]);
    check(&[meta(1, old, 0, 900), meta(2, old, 0, 500)], &[]);
}
