//! Sources in memory that hold what a case gives them, and fail as it says.

mod store_gateways;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::stream::{self, TryStreamExt};
use triptych_metrics::chunk;
use triptych_model::logs::{
    DetectedField, Direction, EntrySelect, LogEntry, LogSample, LogSamples, SampleSelect, StreamStats,
    StreamsSelect, Volume,
};
use triptych_model::metrics::{
    CardinalityStats, ChunkEncoding, EncodedChunk, LabelsSelect, MetricMetadata, Sample, SeriesChunks,
    SeriesExemplars, SeriesSelect,
};
use triptych_model::traces::{
    ScopeTags, SpanMatch, SpanSample, SpanSampleSelect, SpanSet, TagsSelect, TraceId, TraceMatch, TraceParts,
    TraceSamples, TraceSearch, Value,
};
use triptych_model::{Kind, Labels, TenantId, Version};
use triptych_ring::{Member, Peer, Peers, Replication};
use triptych_rpc::traits::Stream;
use triptych_runtime::QueryLimits;

use super::*;

#[derive(Debug, Clone, Copy, Default)]
enum Fault {
    #[default]
    None,
    /// Every question fails.
    AtOnce(Kind),
    /// Streams fail behind their first item; everything else works.
    HalfWay(Kind),
    /// Never answers.
    Hang,
}

#[derive(Default, Clone)]
struct Fake {
    fault: Fault,
    /// Answers for its share of the lines, series and traces alone, as store-gateways do.
    divides: bool,
    /// Whom it was asked as, and how often.
    asked: Arc<AtomicUsize>,
    /// (labels, (t_ms, value)), sorted.
    series: Vec<(Labels, Vec<(i64, f64)>)>,
    /// (ts, line), ascending.
    lines: Vec<(i64, &'static str)>,
    /// (trace, spans), ascending; a span starts at its number of seconds.
    traces: Vec<(u8, Vec<u8>)>,
    /// Streams that were dropped before their end.
    dropped: Arc<AtomicUsize>,
}

/// Counts when it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Fake {
    /// What of it the question is about.
    fn part(&self, ctx: &QueryContext) -> Fake {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut part = self.clone();
        if let Some(share) = ctx.share().filter(|_| self.divides) {
            part.series.retain(|(labels, _)| share.owns(labels.as_encoded()));
            part.lines.retain(|(_, line)| share.owns(line.as_bytes()));
            part.traces.retain(|(trace, _)| share.owns(&[*trace]));
        }
        part
    }

    async fn answer<T>(&self, value: T) -> Result<T> {
        match self.fault {
            Fault::AtOnce(kind) => Err(Error::new(kind, "broken")),
            Fault::Hang => {
                let _dropped = Dropped(self.dropped.clone());
                std::future::pending().await
            }
            Fault::None | Fault::HalfWay(_) => Ok(value),
        }
    }

    async fn stream<T: Send + 'static>(&self, items: Vec<T>) -> Result<Stream<T>> {
        let mut items: Vec<Result<T>> = items.into_iter().map(Ok).collect();
        if let Fault::HalfWay(kind) = self.fault {
            items.truncate(1);
            items.push(Err(Error::new(kind, "torn")));
        }
        self.answer(stream::iter(items).boxed()).await
    }

    fn entries(&self) -> Vec<LogEntry> {
        let entry = |(ts_ns, line): &(i64, &'static str)| LogEntry {
            labels: Labels::from_pairs([("app", "x")]),
            metadata: Labels::empty(),
            parsed: Labels::empty(),
            ts_ns: *ts_ns,
            line: line.as_bytes().into(),
            key: line.len() as u64,
        };
        self.lines.iter().map(entry).collect()
    }
}

#[async_trait]
impl MetricsStore for Fake {
    async fn select(&self, ctx: &QueryContext, _: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        let chunks = |samples: &[(i64, f64)]| {
            let samples: Vec<Sample> =
                samples.iter().map(|(t_ms, value)| Sample { t_ms: *t_ms, value: *value }).collect();
            EncodedChunk {
                start_ms: samples[0].t_ms,
                end_ms: samples[samples.len() - 1].t_ms,
                encoding: ChunkEncoding::Xor,
                data: chunk::encode(&samples).into(),
            }
        };
        let part = self.part(ctx);
        let all = part
            .series
            .iter()
            .map(|(labels, samples)| SeriesChunks { labels: labels.clone(), chunks: vec![chunks(samples)] });
        self.stream(all.collect()).await
    }
    async fn label_names(&self, _: &QueryContext, _: &LabelsSelect) -> Result<Vec<String>> {
        self.answer(self.series.iter().flat_map(|(l, _)| l.iter().map(|(n, _)| n.to_owned())).collect()).await
    }
    async fn label_values(&self, _: &QueryContext, name: &str, _: &LabelsSelect) -> Result<Vec<String>> {
        self.answer(self.series.iter().filter_map(|(l, _)| l.get(name).map(str::to_owned)).collect()).await
    }
    async fn series(&self, _: &QueryContext, _: &LabelsSelect) -> Result<Vec<Labels>> {
        self.answer(self.series.iter().map(|(l, _)| l.clone()).collect()).await
    }
    async fn metadata(&self, _: &QueryContext, _: &str, _: usize) -> Result<Vec<MetricMetadata>> {
        self.answer(Vec::new()).await
    }
    async fn exemplars(&self, _: &QueryContext, _: &LabelsSelect) -> Result<Vec<SeriesExemplars>> {
        self.answer(Vec::new()).await
    }
    async fn cardinality(&self, _: &QueryContext, _: usize) -> Result<CardinalityStats> {
        self.answer(CardinalityStats { series: self.series.len() as u64, ..Default::default() }).await
    }
    async fn versions(&self, _: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        self.answer(vec![Version::from_bits(1 << self.lines.len()); ranges.len()]).await
    }
}

#[async_trait]
impl LogsStore for Fake {
    async fn entries(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Stream<Vec<LogEntry>>> {
        let mut all = self.part(ctx).entries();
        if select.direction == Direction::Backward {
            all.reverse();
        }
        self.stream(all.into_iter().map(|e| vec![e]).collect()).await
    }
    async fn samples(&self, ctx: &QueryContext, _: &SampleSelect) -> Result<Stream<Vec<LogSamples>>> {
        let all = self.part(ctx).entries().into_iter().map(|e| {
            let sample = LogSample { ts_ns: e.ts_ns, key: e.key, value: 1.0, series: 0 };
            vec![LogSamples { stream: 1, series: vec![e.labels], samples: vec![sample] }]
        });
        self.stream(all.collect()).await
    }
    async fn label_names(&self, _: &QueryContext, _: &StreamsSelect) -> Result<Vec<String>> {
        self.answer(vec!["app".into()]).await
    }
    async fn label_values(&self, _: &QueryContext, _: &str, _: &StreamsSelect) -> Result<Vec<String>> {
        self.answer(vec!["x".into()]).await
    }
    async fn series(&self, _: &QueryContext, _: &StreamsSelect) -> Result<Vec<Labels>> {
        self.answer(vec![Labels::from_pairs([("app", "x")])]).await
    }
    async fn stats(&self, ctx: &QueryContext, _: &StreamsSelect) -> Result<StreamStats> {
        let entries = self.part(ctx).lines.len() as u64;
        self.answer(StreamStats { streams: 1, chunks: 1, entries, bytes: entries * 10 }).await
    }
    async fn volume(&self, _: &QueryContext, _: &StreamsSelect, _: &[String]) -> Result<Vec<Volume>> {
        let volume = |app: &str, bytes| Volume { labels: Labels::from_pairs([("app", app)]), bytes };
        self.answer(vec![volume("x", 10), volume("y", self.lines.len() as u64)]).await
    }
    async fn detected_field_values(
        &self,
        _: &QueryContext,
        name: &str,
        _: &EntrySelect,
    ) -> Result<Vec<String>> {
        Ok(vec!["a".into(), format!("of {name}")])
    }
    async fn detected_fields(&self, _: &QueryContext, _: &EntrySelect) -> Result<Vec<DetectedField>> {
        let kind = if self.lines.is_empty() { "int" } else { "float" };
        let field = |label: &str, kind: &str, parser: &str| DetectedField {
            label: label.into(),
            kind: kind.into(),
            cardinality: self.lines.len() as u64,
            parsers: vec![parser.into()],
        };
        self.answer(vec![field("a", kind, kind), field("b", "int", "json")]).await
    }
    async fn tail(&self, _: &QueryContext, _: &str, _: i64) -> Result<Stream<Vec<LogEntry>>> {
        self.stream(self.entries().into_iter().map(|e| vec![e]).collect()).await
    }
    async fn versions(&self, _: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        self.answer(vec![Version::from_bits(1 << self.lines.len()); ranges.len()]).await
    }
}

fn trace_id(n: u8) -> TraceId {
    [n; 16]
}

/// An OTLP `TracesData` with one span, by hand: tag and length of every level are one byte each.
fn otlp(trace: u8, span: u8) -> bytes::Bytes {
    let field = |number: u8, inner: &[u8]| [&[number << 3 | 2, inner.len() as u8], inner].concat();
    let start = [&[7 << 3 | 1][..], &u64::from(span).to_le_bytes()].concat();
    let span = [field(1, &trace_id(trace)), field(2, &[span; 8]), field(5, b"s"), start].concat();
    field(1, &field(2, &field(2, &span))).into()
}

#[async_trait]
impl TracesStore for Fake {
    async fn find(&self, _: &QueryContext, id: &TraceId, _: i64, _: i64) -> Result<TraceParts> {
        let spans = self.traces.iter().filter(|(t, _)| trace_id(*t) == *id);
        let otlp = spans.flat_map(|(t, spans)| spans.iter().map(|s| otlp(*t, *s))).collect();
        self.answer(TraceParts { otlp }).await
    }
    async fn search(&self, ctx: &QueryContext, search: &TraceSearch) -> Result<Stream<TraceMatch>> {
        let part = self.part(ctx);
        let found = part.traces.iter().map(|(trace, spans)| TraceMatch {
            trace_id: trace_id(*trace),
            root_service: String::new(),
            root_name: String::new(),
            start_ns: i64::from(*trace),
            duration_ns: 1,
            span_sets: vec![SpanSet {
                spans: spans
                    .iter()
                    .map(|s| SpanMatch {
                        span_id: [*s; 8],
                        name: "s".into(),
                        start_ns: i64::from(*s),
                        duration_ns: 1,
                        attributes: vec![],
                    })
                    .collect(),
                matched: spans.len() as u32,
                attributes: vec![],
            }],
            services: vec![],
        });
        self.stream(found.take(search.limit).collect()).await
    }
    async fn samples(&self, ctx: &QueryContext, _: &SpanSampleSelect) -> Result<Stream<TraceSamples>> {
        let sample = |s: &u8| SpanSample {
            labels: Labels::empty(),
            ts_ns: i64::from(*s) * 1_000_000_000,
            value: 1.0,
            span_id: [*s; 8],
        };
        let part = self.part(ctx);
        let all = part.traces.iter().map(|(t, spans)| TraceSamples {
            trace_id: trace_id(*t),
            samples: spans.iter().map(sample).collect(),
        });
        self.stream(all.collect()).await
    }
    async fn tag_names(&self, _: &QueryContext, _: &TagsSelect) -> Result<Vec<ScopeTags>> {
        let tags = self.traces.iter().map(|(t, _)| format!("tag{t}")).collect();
        self.answer(vec![ScopeTags { scope: "span".into(), tags }]).await
    }
    async fn tag_values(&self, _: &QueryContext, _: &TagsSelect) -> Result<Vec<Value>> {
        self.answer(self.traces.iter().map(|(t, _)| Value::Int(i64::from(*t))).collect()).await
    }
    async fn versions(&self, _: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        self.answer(vec![Version::from_bits(1 << self.lines.len()); ranges.len()]).await
    }
}

fn peers(role: &str, fakes: Vec<Fake>) -> Peers<Stores> {
    triptych_ring::peers::fixed(fakes.into_iter().enumerate().map(|(n, fake)| {
        let fake = Arc::new(fake);
        Peer {
            member: Arc::new(Member::new(&format!("{role}-{n}"), "", "")),
            service: Stores { metrics: fake.clone(), logs: fake.clone(), traces: fake },
        }
    }))
}

/// Ingesters and store-gateways; each item is kept by `factor` zones of ingesters.
fn cluster(factor: usize, ingesters: Vec<Fake>, store_gateways: Vec<Fake>) -> Querier {
    let has_bucket = false;
    querier_of(sources(factor, ingesters, store_gateways, has_bucket), TenantLimits::default())
}

fn sources(factor: usize, ingesters: Vec<Fake>, store_gateways: Vec<Fake>, has_bucket: bool) -> Sources {
    Sources {
        ingesters: peers("ingester", ingesters),
        store_gateways: peers("store-gateway", store_gateways),
        has_bucket,
        replication: Replication::new(factor),
    }
}

fn querier_of(sources: Sources, limits: TenantLimits) -> Querier {
    Config::default().build(Deps { sources, limits, query: Handle::current() })
}

/// Ingesters without replicas.
fn querier(fakes: Vec<Fake>) -> Querier {
    cluster(1, fakes, vec![])
}

fn context() -> QueryContext {
    QueryContext::unlimited(TenantId::single())
}

fn fault(fault: Fault) -> Fake {
    Fake { fault, ..replica(2) }
}

/// Replicas of the same data; each has lost something that the other one has.
fn replica(n: u8) -> Fake {
    let up = |instance: &str| Labels::from_pairs([("__name__", "up"), ("instance", instance)]);
    let samples = |skip: i64| (0..6).filter(|t| *t != skip).map(|t| (t * 10_000, 1.0)).collect();
    let mut series = vec![(up("a"), samples(i64::from(n)))];
    if n == 1 {
        series.push((up("b"), samples(-1)));
    }
    let mut lines = vec![(1, "a"), (2, "bb"), (3, "ccc"), (4, "dddd")];
    lines.remove(usize::from(n));
    let mut traces = vec![(1, vec![1, 2]), (2, vec![1]), (3, vec![3, 4])];
    traces.remove(usize::from(n));
    Fake { series, lines, traces, ..Fake::default() }
}

fn instant(expr: &str) -> MetricsQuery {
    MetricsQuery {
        expr: expr.into(),
        start_ms: 50_000,
        end_ms: 50_000,
        step_ms: 0,
        lookback_ms: 0,
        whole_ms: None,
        shard: None,
    }
}

fn lines(limit: usize) -> LogsQuery {
    LogsQuery {
        expr: r#"{app="x"}"#.into(),
        start_ns: 0,
        end_ns: 100,
        step_ns: 0,
        direction: Direction::Forward,
        limit,
        shard: None,
        interval_ns: 0,
    }
}

fn spans() -> TracesMetricsQuery {
    TracesMetricsQuery {
        query: "{} | count_over_time()".into(),
        start_ns: 0,
        end_ns: 60_000_000_000,
        step_ns: 0,
    }
}

fn one_value(value: QueryValue) -> f64 {
    match value {
        QueryValue::Vector(series) if series.len() == 1 => series[0].samples[0].value,
        other => panic!("{other:?}"),
    }
}

async fn metrics_value(querier: &Querier, ctx: &QueryContext, expr: &str) -> Result<f64> {
    querier.query().metrics(ctx, &instant(expr)).await.map(one_value)
}

async fn lines_found(querier: &Querier, ctx: &QueryContext, limit: usize) -> Result<Vec<i64>> {
    match querier.query().logs(ctx, &lines(limit)).await? {
        LogsValue::Entries(entries) => Ok(entries.iter().map(|e| e.ts_ns).collect()),
        other => panic!("{other:?}"),
    }
}

async fn spans_counted(querier: &Querier, ctx: &QueryContext) -> Result<f64> {
    querier.query().traces(ctx, &spans()).await.map(one_value)
}

/// Instance, time and value of what a read finds.
async fn samples_read(
    querier: &Querier,
    ctx: &QueryContext,
    range: (i64, i64),
) -> Result<Vec<(String, i64)>> {
    let select = SeriesSelect {
        matchers: vec![],
        start_ms: range.0,
        end_ms: range.1,
        skip_chunks: false,
        shard: None,
    };
    let decoded: Vec<SeriesSamples> = querier.query().read_samples(ctx, &select).await?.try_collect().await?;
    let encoded: Vec<SeriesChunks> = querier.query().read_chunks(ctx, &select).await?.try_collect().await?;
    let of = |labels: &Labels, samples: &[Sample]| -> Vec<(String, i64)> {
        samples.iter().map(|s| (labels.value("instance").to_owned(), s.t_ms)).collect()
    };
    let from_chunks = |s: &SeriesChunks| {
        let mut samples = Vec::new();
        s.chunks.iter().for_each(|c| chunk::decode_chunk(c, &mut samples).unwrap());
        of(&s.labels, &samples)
    };
    let decoded: Vec<_> = decoded.iter().flat_map(|s| of(&s.labels, &s.samples)).collect();
    assert_eq!(decoded, encoded.iter().flat_map(from_chunks).collect::<Vec<_>>());
    Ok(decoded)
}

#[tokio::test]
async fn reads_are_exact_and_count() {
    let both = querier(vec![replica(0), replica(1)]);
    let wanted = [("a", 0), ("a", 10_000), ("b", 0), ("b", 10_000)].map(|(i, t)| (i.to_owned(), t));
    assert_eq!(samples_read(&both, &context(), (-5, 10_000)).await.unwrap(), wanted);
    assert!(samples_read(&both, &context(), (1, 9_999)).await.unwrap().is_empty());

    let torn = querier(vec![fault(Fault::AtOnce(Kind::Unavailable)), replica(1)]);
    let ctx = context();
    assert_eq!(samples_read(&torn, &ctx, (50_000, 90_000)).await.unwrap().len(), 2);
    assert!(!ctx.report().missed.is_empty());

    let few = QueryContext::new(TenantId::single(), QueryLimits { rows_max: 3, ..Default::default() });
    let error = samples_read(&both, &few, (0, 90_000)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Exhausted, "{error}");
}

#[tokio::test]
async fn copies_are_shown_once() {
    let querier = querier(vec![replica(0), replica(1)]);
    let ctx = context();
    assert_eq!(metrics_value(&querier, &ctx, "sum(count_over_time(up[10m]))").await.unwrap(), 12.0);
    assert_eq!(metrics_value(&querier, &ctx, "count(up)").await.unwrap(), 2.0);
    assert_eq!(lines_found(&querier, &ctx, 10).await.unwrap(), [1, 2, 3, 4]);
    assert_eq!(lines_found(&querier, &ctx, 3).await.unwrap(), [1, 2, 3]);
    let count = LogsQuery { expr: r#"sum(count_over_time({app="x"}[1m]))"#.into(), ..lines(0) };
    match querier.query().logs(&ctx, &count).await.unwrap() {
        LogsValue::Metric(value) => assert_eq!(one_value(value), 4.0),
        other => panic!("{other:?}"),
    }
    assert_eq!(spans_counted(&querier, &ctx).await.unwrap(), 5.0);
    assert!(ctx.report().missed.is_empty());
}

#[tokio::test]
async fn one_store_api_over_all() {
    let querier = querier(vec![replica(0), replica(1)]);
    let ctx = context();
    let (metrics, logs, traces) = (querier.metrics(), querier.logs(), querier.traces());

    let select =
        SeriesSelect { matchers: vec![], start_ms: 0, end_ms: 100_000, skip_chunks: false, shard: None };
    let series: Vec<SeriesChunks> = metrics.select(&ctx, &select).await.unwrap().try_collect().await.unwrap();
    let shown: Vec<_> = series.iter().map(|s| (s.labels.value("instance"), s.chunks.len())).collect();
    assert_eq!(shown, [("a", 2), ("b", 1)]);
    let select = LabelsSelect::default();
    assert_eq!(metrics.label_names(&ctx, &select).await.unwrap(), ["__name__", "instance"]);
    assert_eq!(metrics.label_values(&ctx, "instance", &select).await.unwrap(), ["a", "b"]);
    assert_eq!(metrics.series(&ctx, &LabelsSelect { limit: 1, ..select.clone() }).await.unwrap().len(), 1);
    assert_eq!(
        metrics.cardinality(&ctx, 10).await.unwrap().series,
        3,
        "without replicas, series are divided"
    );

    let select =
        EntrySelect { expr: String::new(), start_ns: 0, end_ns: 9, direction: Direction::Backward, limit: 0 };
    let entries: Vec<Vec<LogEntry>> = logs.entries(&ctx, &select).await.unwrap().try_collect().await.unwrap();
    assert_eq!(entries.concat().iter().map(|e| e.ts_ns).collect::<Vec<_>>(), [4, 3, 2, 1]);
    let tailed: Vec<Vec<LogEntry>> = logs.tail(&ctx, "", 0).await.unwrap().try_collect().await.unwrap();
    let mut tailed: Vec<i64> = tailed.concat().iter().map(|e| e.ts_ns).collect();
    tailed.sort_unstable();
    assert_eq!(tailed, [1, 2, 3, 4]);
    let streams = StreamsSelect::default();
    assert_eq!(logs.series(&ctx, &streams).await.unwrap().len(), 1);
    assert_eq!(logs.label_names(&ctx, &streams).await.unwrap(), ["app"]);
    assert_eq!(
        logs.stats(&ctx, &streams).await.unwrap(),
        StreamStats { streams: 2, chunks: 2, entries: 6, bytes: 60 }
    );
    let volumes: Vec<u64> = logs.volume(&ctx, &streams, &[]).await.unwrap().iter().map(|v| v.bytes).collect();
    assert_eq!(volumes, [20, 6]);
    assert_eq!(logs.detected_fields(&ctx, &select).await.unwrap().len(), 2);

    let search =
        |query: &str| TraceSearch { query: query.into(), start_ns: 0, end_ns: 0, limit: 2, spans_per_set: 3 };
    let newest = traces.search(&ctx, &search("{} with (most_recent=true)")).await.unwrap();
    let newest: Vec<TraceMatch> = newest.try_collect().await.unwrap();
    assert_eq!(newest.iter().map(|t| t.trace_id[0]).collect::<Vec<_>>(), [3, 2]);
    let found = traces.search(&ctx, &search("{}")).await.unwrap();
    let found: Vec<TraceMatch> = found.try_collect().await.unwrap();
    assert_eq!(found.iter().map(|t| t.trace_id[0]).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
    let parts = traces.find(&ctx, &trace_id(3), 0, 0).await.unwrap();
    let whole = triptych_traces::combine(vec![otlp(3, 3), otlp(3, 4)]).unwrap();
    assert_eq!(parts.otlp, [whole]);
    assert!(traces.find(&ctx, &trace_id(9), 0, 0).await.unwrap().otlp.is_empty());
    let tags = traces.tag_names(&ctx, &TagsSelect::default()).await.unwrap();
    assert_eq!(tags[0].tags, ["tag1", "tag2", "tag3"]);
    assert_eq!(
        traces.tag_values(&ctx, &TagsSelect { limit: 2, ..Default::default() }).await.unwrap(),
        [Value::Int(1), Value::Int(2)]
    );
}

/// Kinds of fields that differ between sources.
#[tokio::test]
async fn fields_are_joined() {
    let querier = querier(vec![Fake::default(), replica(0)]);
    let select =
        EntrySelect { expr: String::new(), start_ns: 0, end_ns: 9, direction: Direction::Forward, limit: 0 };
    let fields = querier.logs().detected_fields(&context(), &select).await.unwrap();
    let shown: Vec<_> =
        fields.iter().map(|f| (&*f.label, &*f.kind, f.cardinality, f.parsers.join(" "))).collect();
    assert_eq!(shown, [("a", "string", 3, "int float".to_owned()), ("b", "int", 3, "json".to_owned())]);
}

#[tokio::test]
async fn what_is_missed_is_said() {
    for broken in
        [Fault::AtOnce(Kind::Unavailable), Fault::HalfWay(Kind::Unavailable), Fault::HalfWay(Kind::Damaged)]
    {
        let querier = querier(vec![replica(0), fault(broken)]);
        let text = if matches!(broken, Fault::AtOnce(_)) { "ingester-1: broken" } else { "ingester-1: torn" };
        let ctx = context();
        metrics_value(&querier, &ctx, "count(up)").await.unwrap();
        assert_eq!(ctx.report().missed, [text], "{broken:?}");
        let ctx = context();
        assert!(lines_found(&querier, &ctx, 10).await.unwrap().ends_with(&[3, 4]));
        assert_eq!(ctx.report().missed, [text], "{broken:?}");
        let ctx = context();
        assert!(spans_counted(&querier, &ctx).await.unwrap() >= 3.0);
        assert_eq!(ctx.report().missed, [text], "{broken:?}");
    }
    let querier = querier(vec![replica(0), fault(Fault::AtOnce(Kind::Unavailable))]);
    let ctx = context();
    assert_eq!(
        querier.metrics().label_names(&ctx, &LabelsSelect::default()).await.unwrap(),
        ["__name__", "instance"]
    );
    assert_eq!(ctx.report().missed, ["ingester-1: broken"]);
}

#[tokio::test]
async fn some_failures_fail_the_query() {
    let check = async |fakes: Vec<Fake>, kind: Kind, text: &str| {
        let querier = querier(fakes);
        let ctx = context();
        let errors = [
            metrics_value(&querier, &ctx, "count(up)").await.unwrap_err(),
            lines_found(&querier, &ctx, 10).await.unwrap_err(),
            spans_counted(&querier, &ctx).await.unwrap_err(),
        ];
        for e in errors {
            assert_eq!((e.kind, e.to_string()), (kind, text.to_owned()));
        }
    };
    use Fault::{AtOnce, HalfWay};
    // All of them failed: the first error.
    check(vec![fault(AtOnce(Kind::Unavailable))], Kind::Unavailable, "broken").await;
    check(vec![fault(HalfWay(Kind::Damaged))], Kind::Damaged, "torn").await;
    check(vec![fault(AtOnce(Kind::Internal)), fault(HalfWay(Kind::Damaged))], Kind::Internal, "broken").await;
    // A wrong question, a spent limit: at once.
    check(vec![replica(0), fault(AtOnce(Kind::Invalid))], Kind::Invalid, "broken").await;
    check(vec![replica(0), fault(HalfWay(Kind::Exhausted))], Kind::Exhausted, "torn").await;
    let nobody = querier(vec![]);
    let e = metrics_value(&nobody, &context(), "up").await.unwrap_err();
    assert_eq!(
        (e.kind, e.to_string().as_str()),
        (Kind::Unavailable, "no ingester and no store-gateway for metrics can be asked now")
    );
    let only_bucket = cluster(1, vec![], vec![replica(0)]);
    let ctx = context();
    assert_eq!(metrics_value(&only_bucket, &ctx, "count(up)").await.unwrap(), 1.0);
    assert_eq!(ctx.report().missed, ["too few zones of ingesters are known: recent data may be missing"]);
    let e = metrics_value(&querier(vec![replica(0)]), &context(), "sum(").await.unwrap_err();
    assert_eq!(e.kind, Kind::Invalid);
}

#[tokio::test]
async fn a_query_that_is_over_stops_its_sources() {
    let hanging = || {
        let fake = fault(Fault::Hang);
        let dropped = fake.dropped.clone();
        (querier(vec![replica(0), fake]), dropped)
    };
    let settled = async |dropped: &AtomicUsize| {
        for _ in 0..200 {
            if dropped.load(Ordering::SeqCst) == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the source is still asked");
    };

    // Too late.
    let (querier, dropped) = hanging();
    let limits = QueryLimits { timeout: Duration::from_millis(50), ..QueryLimits::default() };
    let ctx = QueryContext::new(TenantId::single(), limits);
    let e = metrics_value(&querier, &ctx, "up").await.unwrap_err();
    assert_eq!((e.kind, e.to_string().as_str()), (Kind::Unavailable, "query timed out after 50ms"));
    assert!(ctx.report().missed.is_empty());
    settled(&dropped).await;

    // Cancelled.
    let (querier, dropped) = hanging();
    let ctx = context();
    let canceller = ctx.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        canceller.cancel();
    });
    assert_eq!(spans_counted(&querier, &ctx).await.unwrap_err().kind, Kind::Cancelled);
    settled(&dropped).await;

    // The caller went away.
    let (querier, dropped) = hanging();
    let ctx = context();
    let gone = tokio::time::timeout(
        Duration::from_millis(20),
        querier.logs().label_names(&ctx, &StreamsSelect::default()),
    )
    .await;
    assert!(gone.is_err());
    settled(&dropped).await;
}

#[tokio::test(start_paused = true)]
async fn ready_when_an_answer_can_be_whole() {
    let querier = |ingesters: &[bool], gateways: &[bool]| {
        let of = |name, alive: &[bool]| {
            let all = peers(name, alive.iter().map(|_| Fake::default()).collect()).borrow().clone();
            let all = all.iter().zip(alive).map(|(peer, is_alive)| {
                let mut peer = peer.clone();
                Arc::make_mut(&mut peer.member).is_alive = *is_alive;
                peer
            });
            triptych_ring::peers::fixed(all)
        };
        let sources = Sources {
            ingesters: of("ingester", ingesters),
            store_gateways: of("store-gateway", gateways),
            has_bucket: false,
            replication: Replication::new(3),
        };
        querier_of(sources, TenantLimits::default())
    };
    let is_ready = |ingesters: &[bool], gateways: &[bool]| querier(ingesters, gateways).is_ready();
    assert!(is_ready(&[true, true, true], &[true, false]));
    assert!(is_ready(&[true, false, true], &[]));
    assert!(!is_ready(&[true, false, false], &[true]));
    assert!(!is_ready(&[true], &[true]), "two zones are not known");
    assert!(!is_ready(&[true, true, true], &[false]), "nobody looks into the bucket");
    // It waits for better times, but not for ever: then it answers partially, as those that were there before.
    let degraded =
        [querier(&[true, false, false], &[true]), querier(&[true], &[]), querier(&[false, false], &[true])];
    let alone = [querier(&[], &[]), querier(&[false], &[false])];
    tokio::time::advance(Config::default().whole_wait_max - Duration::from_millis(1)).await;
    assert!(degraded.iter().all(|querier| !querier.is_ready()));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(degraded.iter().all(Querier::is_ready));
    assert!(alone.iter().all(|querier| !querier.is_ready()), "there is nobody to ask");
    let asked = context();
    degraded[0].metrics().label_names(&asked, &LabelsSelect::default()).await.unwrap();
    let missed = asked.report().missed;
    assert!(missed.len() == 2 && missed.iter().all(|m| m.ends_with("does not answer")), "{missed:?}");
}

#[tokio::test]
async fn so_many_queries_at_a_time() {
    let sources = sources(1, vec![fault(Fault::Hang)], vec![], false);
    let deps = Deps { sources, limits: TenantLimits::default(), query: Handle::current() };
    let querier = Config { queries_max: 1, ..Config::default() }.build(deps);
    let (query, blocked) = (querier.query(), context());
    let (first, ctx) = (query.clone(), blocked.clone());
    let first = tokio::spawn(async move { first.metrics(&ctx, &instant("up")).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let limits = QueryLimits { timeout: Duration::from_millis(30), ..QueryLimits::default() };
    let late = QueryContext::new(TenantId::single(), limits);
    assert_eq!(query.traces(&late, &spans()).await.unwrap_err().to_string(), "query timed out after 30ms");
    blocked.cancel();
    assert_eq!(first.await.unwrap().unwrap_err().kind, Kind::Cancelled);
    let limits = QueryLimits { timeout: Duration::from_millis(30), ..QueryLimits::default() };
    let let_in = QueryContext::new(TenantId::single(), limits);
    assert!(query.traces(&let_in, &spans()).await.is_err());
}

#[tokio::test]
async fn one_zone_of_three_may_fail() {
    use Fault::{AtOnce, HalfWay};
    for broken in [AtOnce(Kind::Unavailable), HalfWay(Kind::Unavailable)] {
        let querier = cluster(3, vec![replica(0), replica(0), fault(broken)], vec![]);
        let ctx = context();
        assert_eq!(metrics_value(&querier, &ctx, "count(up)").await.unwrap(), 1.0);
        let found = lines_found(&querier, &ctx, 10).await.unwrap();
        assert!([2, 3, 4].iter().all(|line| found.contains(line)), "{found:?}");
        querier.metrics().label_names(&ctx, &LabelsSelect::default()).await.unwrap();
        assert_eq!(ctx.report().missed, Vec::<String>::new(), "{broken:?}");

        let querier = cluster(3, vec![fault(broken), replica(0), fault(broken)], vec![]);
        let ctx = context();
        metrics_value(&querier, &ctx, "count(up)").await.unwrap();
        assert_eq!(ctx.report().missed.len(), 2, "{broken:?}");
    }
}

#[tokio::test]
async fn versions_add_up_and_say_what_is_missed() {
    let check = async |querier: Querier, parts: u64, is_whole: bool| {
        let ctx = context();
        let ranges = [(0, 1), (2, 3)];
        let versions = [
            querier.metrics().versions(&ctx, &ranges).await.unwrap(),
            querier.logs().versions(&ctx, &ranges).await.unwrap(),
            querier.traces().versions(&ctx, &ranges).await.unwrap(),
        ];
        let want = vec![Version::from_bits(8 * parts); 2];
        assert_eq!(versions, [want.clone(), want.clone(), want]);
        assert_eq!(ctx.report().missed.is_empty(), is_whole, "{:?}", ctx.report().missed);
    };
    let broken = || fault(Fault::AtOnce(Kind::Unavailable));
    check(cluster(3, vec![replica(0), replica(0), replica(0)], vec![replica(0)]), 4, true).await;
    check(cluster(3, vec![replica(0), replica(0), broken()], vec![replica(0)]), 3, true).await;
    check(cluster(3, vec![replica(0), broken(), broken()], vec![replica(0)]), 2, false).await;
    // The one that stands in is asked twice, and does not divide.
    check(cluster(1, vec![replica(0)], vec![broken(), replica(0)]), 3, true).await;
    check(cluster(1, vec![replica(0)], vec![broken()]), 1, false).await;
}

#[tokio::test]
async fn figures_of_replicas_count_once() {
    let querier = cluster(3, vec![replica(0), replica(0), replica(0)], vec![]);
    let stats = querier.logs().stats(&context(), &StreamsSelect::default()).await.unwrap();
    let one = cluster(1, vec![replica(0)], vec![]);
    assert_eq!(stats, one.logs().stats(&context(), &StreamsSelect::default()).await.unwrap());
    let cardinality = querier.metrics().cardinality(&context(), 10).await.unwrap();
    assert_eq!(cardinality.series, 1);
}
