//! The whole ingester with the real signals: what was acknowledged is shown, once, whatever happens in between.

use std::collections::BTreeMap;
use std::path::Path;

use futures::{StreamExt, TryStreamExt};
use triptych_blob::FailingBucket;
use triptych_blob::object_store::ObjectStore;
use triptych_config::limits::Limits;
use triptych_model::batch::{LogRecordEntry, LogsBuilder, MetricsBuilder, TracesBuilder};
use triptych_model::logs::{Direction, EntrySelect, LogEntry, SampleSelect, StreamsSelect};
use triptych_model::metrics::{LabelsSelect, MetricKind, Sample, SeriesSelect};
use triptych_model::traces::{SpanId, SpanSampleSelect, TagsSelect, TraceId, TraceMatch, TraceSearch, Value};
use triptych_model::{Kind as ErrorKind, Labels, MatchOp, Matcher, TenantId};
use triptych_ring::{Member, Replication};
use triptych_runtime::{MemoryShare, ProcessBudget, QueryContext, Shutdown, SystemClock};
use triptych_traces::otlp;

use super::*;

const BASE_MS: i64 = 1_700_000_000_000;

struct World {
    dir: tempfile::TempDir,
    bucket: FailingBucket,
    limits: Limits,
    config: Config,
    budget: ProcessBudget,
    spread: watch::Sender<Spread>,
}

struct Process {
    ingester: Ingester,
    tasks: Tasks,
}

impl World {
    fn new() -> Self {
        let budget = ProcessBudget::unlimited();
        let bucket = FailingBucket::new(triptych_blob::memory(), 1);
        Self {
            dir: tempfile::tempdir().unwrap(),
            bucket,
            limits: Limits::default(),
            config: Config::default(),
            budget,
            spread: watch::Sender::new(Spread::ALONE),
        }
    }

    async fn start(&self) -> Process {
        let deps = Deps {
            bucket: Arc::new(self.bucket.clone()),
            spool: triptych_blob::local(&self.dir.path().join("spool")).unwrap(),
            data_dir: self.dir.path().to_owned(),
            disk: Arc::new(triptych_wal::OsDisk),
            clock: Arc::new(SystemClock),
            pools: Handles::current(),
            limits: TenantLimits::new(&self.limits, &BTreeMap::new()).unwrap(),
            budget: self.budget.clone(),
            node: "ingester-0".to_owned(),
            zone: crate::alone(),
            is_new: !has_been_here(self.dir.path()),
            spread: self.spread.subscribe(),
        };
        let ingester = self.config.clone().build(deps).unwrap();
        let tasks = Tasks::new(Shutdown::new());
        ingester.start(&tasks);
        while !ingester.is_ready() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Process { ingester, tasks }
    }

    /// Kill -9: the next process finds the directory as it is now, and the bucket.
    async fn kill(&mut self, process: Process) -> Process {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), copy.path());
        process.tasks.shutdown().trigger();
        self.dir = copy;
        self.bucket.heal();
        self.start().await
    }

    async fn objects(&self) -> usize {
        self.bucket.list(None).count().await
    }

    fn segments(&self) -> usize {
        let wal = |signal: &Signal| self.dir.path().join("wal").join(signal.as_str());
        let files = Signal::ALL.iter().flat_map(|s| std::fs::read_dir(wal(s)).unwrap());
        files.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "wal")).count()
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|e| e.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() { copy_dir(&entry, &target) } else { _ = std::fs::copy(&entry, &target).unwrap() }
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn series(number: i64) -> Labels {
    Labels::from_pairs([("__name__", "requests_total".to_owned()), ("pod", format!("pod-{number}"))])
}

/// One sample for each of a few series.
fn samples(at: i64) -> Bytes {
    let mut batch = MetricsBuilder::default();
    for number in 0..3 {
        let labels = series(number);
        let sample = Sample { t_ms: BASE_MS + at * 1000, value: (at * 10 + number) as f64 };
        batch.series(labels.hash64(), labels.as_encoded(), &[sample]);
    }
    batch.metadata("requests_total", MetricKind::Counter, "Requests.", "");
    batch.seal()
}

fn lines(at: i64) -> Bytes {
    let mut batch = LogsBuilder::default();
    for number in 0..3 {
        let labels = Labels::from_pairs([("app", format!("app-{number}"))]);
        let line = format!("line {at} of {number}");
        let entry = LogRecordEntry { ts_ns: (BASE_MS + at * 1000) * 1_000_000, line: &line, metadata: b"" };
        batch.stream(labels.hash64(), labels.as_encoded(), [entry].into_iter());
    }
    batch.seal()
}

fn trace_id(at: i64) -> TraceId {
    let mut id = [7; 16];
    id[8..].copy_from_slice(&at.to_be_bytes());
    id
}

/// Two spans of each of two traces: the one of this time, and one that goes on through all times.
fn spans(at: i64) -> Bytes {
    let mut batch = TracesBuilder::default();
    for id in [trace_id(at), trace_id(-1)] {
        let start_ns = (BASE_MS + at * 1000) as u64 * 1_000_000;
        let span = |n: u8, name| otlp::Span {
            span_id: [1, n, 0, 0, 0, 0, 0, at as u8],
            name,
            start_ns,
            end_ns: start_ns + 1_000_000,
            ..otlp::Span::default()
        };
        let scope = otlp::ScopeSpans { spans: vec![span(1, "get"), span(2, "put")], ..Default::default() };
        let service = otlp::AnyValue::String("shop".into());
        let resource = otlp::Resource {
            attributes: vec![otlp::KeyValue::new("service.name", service)],
            ..Default::default()
        };
        let spans = otlp::ResourceSpans { resource, scope_spans: vec![scope], ..Default::default() };
        let trace = otlp::Trace { trace_id: id, resource_spans: vec![spans] };
        let mut encoded = Vec::new();
        otlp::encode(&trace, &mut encoded);
        batch.trace(&id, start_ns as i64, start_ns as i64 + 1_000_000, 2, &encoded);
    }
    batch.seal()
}

async fn push(process: &Process, tenant: &TenantId, signal: Signal, sealed: Bytes) -> Result<PushReport> {
    process.ingester.push(&WriteContext { tenant: tenant.clone() }, signal, sealed).await
}

async fn push_all(process: &Process, tenant: &TenantId, at: i64) {
    let all =
        [(Signal::Metrics, samples(at), 3), (Signal::Logs, lines(at), 3), (Signal::Traces, spans(at), 4)];
    for (signal, sealed, accepted) in all {
        let report = push(process, tenant, signal, sealed).await.unwrap();
        assert_eq!((report.accepted, report.refused_items()), (accepted, 0), "{report:?}");
    }
}

fn select_all() -> SeriesSelect {
    let matcher = Matcher::new(MatchOp::Equal, "__name__", "requests_total").unwrap();
    SeriesSelect { matchers: vec![matcher], start_ms: 0, end_ms: i64::MAX, skip_chunks: false, shard: None }
}

fn entries_of(expr: &str) -> EntrySelect {
    let end_ns = (BASE_MS + 3_600_000) * 1_000_000;
    let direction = Direction::Forward;
    EntrySelect { expr: expr.to_owned(), start_ns: BASE_MS * 1_000_000, end_ns, direction, limit: 0 }
}

struct Shown {
    samples: Vec<(String, i64, f64)>,
    lines: Vec<String>,
    /// Trace, span, once for each time it is in the combined trace.
    spans: Vec<(TraceId, SpanId)>,
    /// Traces found, and the spans that match in them.
    found: BTreeMap<TraceId, u32>,
    /// Samples of a metrics query over spans.
    counted: usize,
}

/// What a querier shows of ingester and bucket together: samples by series, lines. Copies are merged as it merges them; what
/// is shown twice nevertheless is twice in here.
async fn shown(world: &World, process: &Process, tenant: &TenantId) -> Shown {
    let ctx = QueryContext::unlimited(tenant.clone());
    let bucket: Bucket = Arc::new(world.bucket.clone());

    let blocks = triptych_metrics::BucketStore::new(bucket.clone(), Default::default());
    blocks.sync().await.unwrap();
    let sources = vec![
        process.ingester.metrics().select(&ctx, &select_all()).await.unwrap(),
        blocks.select(&ctx, &select_all()).await.unwrap(),
    ];
    let mut merged = triptych_metrics::merge(sources);
    let mut all_samples = Vec::new();
    while let Some(mut series) = merged.try_next().await.unwrap() {
        let mut samples = Vec::new();
        while series.samples.next_run(&mut samples).unwrap() {}
        all_samples.extend(samples.iter().map(|s| (series.labels.value("pod").to_owned(), s.t_ms, s.value)));
    }

    let chunks = triptych_logs::BucketStore::new(bucket.clone(), Default::default());
    chunks.sync().await.unwrap();
    let select = entries_of(r#"{app=~"app-.*"}"#);
    let sources = vec![
        process.ingester.logs().entries(&ctx, &select).await.unwrap(),
        chunks.entries(&ctx, &select).await.unwrap(),
    ];
    let merged = triptych_logs::merge_entries(sources, Direction::Forward, 0);
    let entries: Vec<LogEntry> = merged.try_concat().await.unwrap();
    assert!(entries.is_sorted_by_key(|e| e.ts_ns));
    let lines = entries.iter().map(|e| String::from_utf8(e.line.to_vec()).unwrap()).collect();

    let blocks = triptych_traces::BucketStore::new(bucket, Default::default());
    blocks.sync().await.unwrap();
    let live = process.ingester.traces();
    let search =
        TraceSearch { query: "{}".to_owned(), start_ns: 0, end_ns: 0, limit: 1000, spans_per_set: 1000 };
    let sources =
        vec![live.search(&ctx, &search).await.unwrap(), blocks.search(&ctx, &search).await.unwrap()];
    let merged = triptych_traceql::merge_matches(&search, sources).unwrap();
    let found: Vec<TraceMatch> = merged.try_collect().await.unwrap();
    // The last of a trace counts.
    let found: BTreeMap<_, _> = found.into_iter().map(|m| (m.trace_id, m.span_sets[0].matched)).collect();
    let mut spans = Vec::new();
    for id in found.keys() {
        let mut parts = live.find(&ctx, id, 0, 0).await.unwrap().otlp;
        parts.extend(blocks.find(&ctx, id, 0, 0).await.unwrap().otlp);
        let combined = triptych_traces::combine(parts).unwrap();
        let trace = otlp::decode(*id, &combined).unwrap();
        let all = trace.resource_spans.iter().flat_map(|rs| &rs.scope_spans).flat_map(|ss| &ss.spans);
        spans.extend(all.map(|s| (*id, s.span_id)));
    }
    let rate = SpanSampleSelect {
        query: "{} | count_over_time()".to_owned(),
        start_ns: BASE_MS * 1_000_000,
        end_ns: (BASE_MS + 3_600_000) * 1_000_000,
    };
    let sources = vec![live.samples(&ctx, &rate).await.unwrap(), blocks.samples(&ctx, &rate).await.unwrap()];
    let counted: Vec<_> = triptych_traceql::merge_samples(sources).try_collect().await.unwrap();
    let counted = counted.iter().map(|t| t.samples.len()).sum();
    assert!(ctx.report().missed.is_empty(), "{:?}", ctx.report());
    Shown { samples: all_samples, lines, spans, found, counted }
}

/// Everything that `push_all` wrote for these times, once.
async fn check(world: &World, process: &Process, tenant: &TenantId, times: std::ops::Range<i64>) {
    let Shown { mut samples, mut lines, mut spans, found, counted } = shown(world, process, tenant).await;
    samples.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let expected: Vec<_> = (0..3)
        .flat_map(|n| {
            times.clone().map(move |at| (format!("pod-{n}"), BASE_MS + at * 1000, (at * 10 + n) as f64))
        })
        .collect();
    assert_eq!(samples, expected);
    lines.sort();
    let mut expected: Vec<_> =
        times.clone().flat_map(|at| (0..3).map(move |n| format!("line {at} of {n}"))).collect();
    expected.sort();
    assert_eq!(lines, expected);
    spans.sort();
    let mut expected: Vec<(TraceId, SpanId)> = Vec::new();
    for at in times.clone() {
        for n in [1, 2] {
            let span = [1, n, 0, 0, 0, 0, 0, at as u8];
            expected.extend([(trace_id(at), span), (trace_id(-1), span)]);
        }
    }
    expected.sort();
    assert_eq!(spans, expected);
    let long = 2 * times.clone().count() as u32;
    let expected = times.map(|at| (trace_id(at), 2)).chain([(trace_id(-1), long)]).collect();
    assert_eq!(found, expected);
    assert_eq!(counted, 2 * long as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_flush() {
    let a = tenant("a");
    for writes in 0.. {
        let mut world = World::new();
        let process = world.start().await;
        for at in 0..5 {
            push_all(&process, &a, at).await;
        }
        // An older generation in the bucket, a newer one in memory, one on its way when the end comes.
        process.ingester.flush_all().await;
        for at in 5..10 {
            push_all(&process, &a, at).await;
        }
        world.bucket.fail_after_writes(writes);
        let flush = tokio::time::timeout(Duration::from_millis(200), process.ingester.flush_all()).await;
        push_all(&process, &a, 10).await;
        let process = world.kill(process).await;
        check(&world, &process, &a, 0..11).await;

        // The next process goes on, and brings it all to the bucket.
        push_all(&process, &a, 11).await;
        process.ingester.flush_all().await;
        check(&world, &process, &a, 0..12).await;
        let objects = world.objects().await;
        process.ingester.drain(Duration::from_secs(5)).await.unwrap();
        assert_eq!(world.objects().await, objects, "nothing is flushed twice");
        let process = world.kill(process).await;
        check(&world, &process, &a, 0..12).await;
        if flush.is_ok() {
            assert!(writes > 5, "{writes}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drain_brings_everything_to_the_bucket_or_says_what_is_left() {
    let (mut world, a) = (World::new(), tenant("a"));
    let process = world.start().await;
    push_all(&process, &a, 0).await;
    world.bucket.fail_after_writes(0);
    let left = process.ingester.drain(Duration::from_millis(100)).await.unwrap_err();
    assert!(left.to_string().contains("3 generations are not in the bucket"), "{left}");
    assert_eq!(push(&process, &a, Signal::Logs, lines(1)).await.unwrap_err().kind, ErrorKind::Unavailable);
    check(&world, &process, &a, 0..1).await;

    let process = world.kill(process).await;
    check(&world, &process, &a, 0..1).await;
    process.tasks.shutdown().trigger();
    process.ingester.drain(Duration::from_secs(5)).await.unwrap();
    assert!(world.objects().await > 0);
    assert!(world.segments() > 0, "not every store-gateway may have seen the blocks");
    let process = world.kill(process).await;
    check(&world, &process, &a, 0..1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_flush_on_shutdown_the_wal_keeps_it() {
    let (mut world, a) = (World::new(), tenant("a"));
    world.config.flush_on_shutdown = false;
    let process = world.start().await;
    push_all(&process, &a, 0).await;
    process.ingester.drain(Duration::from_secs(5)).await.unwrap();
    assert_eq!(world.objects().await, 0);
    let process = world.kill(process).await;
    check(&world, &process, &a, 0..1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_and_limits() {
    let mut world = World::new();
    world.limits.metrics.series_max = 2;
    world.limits.logs.streams_max = 1;
    let process = world.start().await;
    let (a, b) = (tenant("a"), tenant("b"));
    let report = push(&process, &a, Signal::Metrics, samples(0)).await.unwrap();
    assert_eq!((report.accepted, report.refused_items()), (2, 1));
    assert!(report.refused["per_user_series_limit"].example.contains("the limit is 2"), "{report:?}");
    let report = push(&process, &b, Signal::Logs, lines(0)).await.unwrap();
    assert_eq!((report.accepted, report.refused_items()), (1, 2));

    let ctx = |t: &TenantId| QueryContext::unlimited(t.clone());
    let any = LabelsSelect { end_ms: i64::MAX, ..LabelsSelect::default() };
    let metrics = process.ingester.metrics();
    assert_eq!(metrics.series(&ctx(&a), &any).await.unwrap().len(), 2);
    assert!(metrics.series(&ctx(&b), &any).await.unwrap().is_empty());
    let metadata = metrics.metadata(&ctx(&a), "", 0).await.unwrap();
    assert_eq!((metadata.len(), metadata[0].help.as_str()), (1, "Requests."));
    assert!(metrics.metadata(&ctx(&b), "", 0).await.unwrap().is_empty());
}

/// Of three ingesters in a zone each keeps a third of what a tenant may have; what is there already when two of them come stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_divided() {
    let mut world = World::new();
    world.limits.metrics.series_max = 5;
    world.limits.logs.streams_max = 2;
    let process = world.start().await;
    let three = ["a-0", "a-1", "a-2"].map(|id| Member::new(id, "a", ""));
    let (before, after) = (tenant("before"), tenant("after"));
    let pushed = async |tenant: &TenantId| {
        let metrics = push(&process, tenant, Signal::Metrics, samples(0)).await.unwrap();
        let logs = push(&process, tenant, Signal::Logs, lines(0)).await.unwrap();
        (metrics.refused_items(), logs.refused_items())
    };
    assert_eq!(pushed(&before).await, (0, 1));
    world.spread.send_replace(Spread::new(Replication::new(1), "a", &three));
    assert_eq!(pushed(&before).await, (0, 1));
    assert_eq!(pushed(&after).await, (0, 1), "of the same generation");
    process.ingester.0.metrics.rotate();
    process.ingester.0.logs.rotate();
    assert_eq!(pushed(&after).await, (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_answer_over_several_generations() {
    let (world, a) = (World::new(), tenant("a"));
    let process = world.start().await;
    for at in 0..4 {
        push_all(&process, &a, at).await;
        process.ingester.0.metrics.rotate();
        process.ingester.0.logs.rotate();
        process.ingester.0.traces.rotate();
    }
    push_all(&process, &a, 3).await;
    let ctx = QueryContext::unlimited(a.clone());
    let metrics = process.ingester.metrics();
    let any = LabelsSelect { end_ms: i64::MAX, ..LabelsSelect::default() };
    assert_eq!(metrics.label_names(&ctx, &any).await.unwrap(), ["__name__", "pod"]);
    assert_eq!(metrics.label_values(&ctx, "pod", &any).await.unwrap(), ["pod-0", "pod-1", "pod-2"]);
    assert_eq!(metrics.series(&ctx, &any).await.unwrap().len(), 3);
    assert_eq!(metrics.cardinality(&ctx, 10).await.unwrap().series, 3);

    let logs = process.ingester.logs();
    let streams = StreamsSelect {
        matcher_sets: vec![vec![Matcher::new(MatchOp::Regex, "app", ".+").unwrap()]],
        start_ns: BASE_MS * 1_000_000,
        end_ns: (BASE_MS + 100_000) * 1_000_000,
        limit: 0,
    };
    assert_eq!(logs.label_names(&ctx, &streams).await.unwrap(), ["app"]);
    assert_eq!(logs.label_values(&ctx, "app", &streams).await.unwrap(), ["app-0", "app-1", "app-2"]);
    assert_eq!(logs.series(&ctx, &streams).await.unwrap().len(), 3);
    assert_eq!(logs.stats(&ctx, &streams).await.unwrap().streams, 3);
    let volumes = logs.volume(&ctx, &streams, &[]).await.unwrap();
    assert_eq!(volumes.len(), 3);
    let entries = entries_of(r#"{app="app-1"}"#);
    let sample = SampleSelect {
        expr: r#"count_over_time({app="app-1"}[1m])"#.to_owned(),
        start_ns: entries.start_ns,
        end_ns: entries.end_ns,
        shard: None,
    };
    let runs: Vec<_> = logs.samples(&ctx, &sample).await.unwrap().try_concat().await.unwrap();
    let samples: usize = runs.iter().map(|run| run.samples.len()).sum();
    assert_eq!(samples, 4, "the copy in the second generation counts once");

    let traces = process.ingester.traces();
    let tags = TagsSelect { scope: "resource".to_owned(), ..TagsSelect::default() };
    let names = traces.tag_names(&ctx, &tags).await.unwrap();
    assert_eq!((names.len(), names[0].tags.as_slice()), (1, &["service.name".to_owned()][..]));
    let values = TagsSelect { name: "name".to_owned(), ..TagsSelect::default() };
    let values = traces.tag_values(&ctx, &values).await.unwrap();
    assert_eq!(values, [Value::String("get".to_owned()), Value::String("put".to_owned())]);
    check(&world, &process, &a, 0..4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_goes_on_over_generations() {
    let (world, a) = (World::new(), tenant("a"));
    let process = world.start().await;
    push(&process, &a, Signal::Logs, lines(0)).await.unwrap();
    process.ingester.0.logs.rotate();
    push(&process, &a, Signal::Logs, lines(1)).await.unwrap();
    let ctx = QueryContext::unlimited(a.clone());
    let tail = process.ingester.logs().tail(&ctx, r#"{app="app-1"} |= "line""#, 0).await.unwrap();
    let writer = async {
        for at in 2..30 {
            push(&process, &a, Signal::Logs, lines(at)).await.unwrap();
            if at % 3 == 0 {
                process.ingester.0.logs.rotate();
            }
        }
    };
    let reader = async {
        let mut tail = tail;
        let mut lines = Vec::new();
        while lines.len() < 30 {
            let batch = tail.next().await.unwrap().unwrap();
            lines.extend(batch.into_iter().map(|e| String::from_utf8(e.line.to_vec()).unwrap()));
        }
        ctx.cancel();
        assert!(tail.next().await.is_none());
        lines
    };
    let both = async { tokio::join!(writer, reader).1 };
    let lines = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    assert_eq!(lines, (0..30).map(|at| format!("line {at} of 1")).collect::<Vec<_>>());
}

#[tokio::test]
async fn hostile_batches() {
    let mut world = World::new();
    world.budget = ProcessBudget::new(1 << 30, &[(MemoryShare::Heads, 1)], &[(MemoryShare::Writes, 1 << 20)]);
    let process = world.start().await;
    let a = tenant("a");
    let huge = [&u32::MAX.to_le_bytes()[..], b"xxxx"].concat();
    for (sealed, kind) in [
        (Bytes::new(), ErrorKind::Damaged),
        (Bytes::from_static(b"\x01"), ErrorKind::Damaged),
        (huge.into(), ErrorKind::Exhausted),
        (Bytes::from_static(b"\x10\0\0\0garbage"), ErrorKind::Damaged),
        (batch::seal(b"\x09"), ErrorKind::Damaged),
        (batch::seal(b"\x01\x01torn"), ErrorKind::Damaged),
    ] {
        for signal in Signal::ALL {
            let error = push(&process, &a, signal, sealed.clone()).await.unwrap_err();
            assert_eq!(error.kind, kind, "{signal} {sealed:?}: {error}");
        }
    }
    assert_eq!(world.segments(), 0, "none of it is in the write-ahead log");
    let many = process.ingester.0.in_flight.reserve(1 << 20).unwrap();
    let refused = push(&process, &a, Signal::Logs, lines(0)).await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after.is_some()), (ErrorKind::Unavailable, true));
    drop(many);
    push(&process, &a, Signal::Logs, lines(0)).await.unwrap();
}
