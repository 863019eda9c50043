//! Requests in, the originals' answers out; over a querier that answers the same thing always.

use async_trait::async_trait;
use axum::body::Body;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tower::ServiceExt;
use triptych_model::logs::*;
use triptych_model::metrics::*;
use triptych_model::traces::*;
use triptych_model::{Error, Labels, Result, Version};
use triptych_ring::{Member, MemberState, Peer, peers};
use triptych_rpc::traits::Stream;
use triptych_runtime::{MemoryBudget, QueryContext};

use super::*;

#[derive(Default)]
pub(crate) struct Fake {
    /// Told when a search for `{ endless }` was cancelled.
    pub(crate) cancelled: Arc<tokio::sync::Notify>,
    /// What versions of metrics are made from; `None`: versions are not told.
    pub(crate) writes: Option<Writes>,
    /// Versions are not told of everything.
    pub(crate) missed: Mutex<Option<&'static str>>,
}

/// Tenant and time in milliseconds of samples.
pub(crate) type Writes = Arc<Mutex<Vec<(String, i64)>>>;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

#[async_trait]
impl MetricsStore for Fake {
    async fn select(&self, _: &QueryContext, _: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        Ok(futures::stream::empty().boxed())
    }
    async fn label_names(&self, ctx: &QueryContext, _: &LabelsSelect) -> Result<Vec<String>> {
        ctx.missed("store-gateway: block 01 is damaged");
        Ok(vec!["__name__".into(), "job".into()])
    }
    async fn label_values(&self, ctx: &QueryContext, name: &str, _: &LabelsSelect) -> Result<Vec<String>> {
        if name == "__name__" {
            return Ok(vec!["up".into()]);
        }
        Ok(vec![format!("{}/{name}", ctx.tenant())])
    }
    async fn series(&self, _: &QueryContext, select: &LabelsSelect) -> Result<Vec<Labels>> {
        Ok(vec![labels(&[("matchers", &format!("{:?}", select.matcher_sets))])])
    }
    async fn metadata(&self, _: &QueryContext, _: &str, _: usize) -> Result<Vec<MetricMetadata>> {
        let kind = MetricKind::Gauge;
        Ok(vec![MetricMetadata { metric: "up".into(), kind, help: "is it up".into(), unit: String::new() }])
    }
    async fn exemplars(&self, _: &QueryContext, _: &LabelsSelect) -> Result<Vec<SeriesExemplars>> {
        Ok(vec![])
    }
    async fn cardinality(&self, _: &QueryContext, _: usize) -> Result<CardinalityStats> {
        Ok(CardinalityStats { series: 3, ..Default::default() })
    }
    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let writes = self.writes.as_ref().ok_or_else(|| Error::unavailable("answers are not remembered"))?;
        // Others may be quicker, on the way there and back.
        tokio::task::yield_now().await;
        if let Some(sentence) = *self.missed.lock() {
            ctx.missed(sentence);
        }
        let writes = writes.lock().clone();
        let version = |(start, end): &(i64, i64)| {
            let in_range =
                |(tenant, t): &&(String, i64)| tenant == ctx.tenant().as_str() && (start..=end).contains(&t);
            let times: Vec<_> = writes.iter().filter(in_range).map(|(_, t)| t).collect();
            Version::of_part(format!("{times:?}").as_bytes())
        };
        let versions = ranges.iter().map(version).collect();
        tokio::task::yield_now().await;
        Ok(versions)
    }
}

#[async_trait]
impl LogsStore for Fake {
    async fn entries(&self, _: &QueryContext, _: &EntrySelect) -> Result<Stream<Vec<LogEntry>>> {
        Ok(futures::stream::iter([Ok(vec![entry()])]).boxed())
    }
    async fn samples(&self, _: &QueryContext, _: &SampleSelect) -> Result<Stream<Vec<LogSamples>>> {
        Ok(futures::stream::empty().boxed())
    }
    async fn label_names(&self, _: &QueryContext, _: &StreamsSelect) -> Result<Vec<String>> {
        Ok(vec!["app".into()])
    }
    async fn label_values(&self, _: &QueryContext, name: &str, _: &StreamsSelect) -> Result<Vec<String>> {
        Ok(vec![name.into()])
    }
    async fn series(&self, _: &QueryContext, _: &StreamsSelect) -> Result<Vec<Labels>> {
        Ok(vec![labels(&[("app", "x")])])
    }
    async fn stats(&self, _: &QueryContext, _: &StreamsSelect) -> Result<StreamStats> {
        Ok(StreamStats { streams: 1, chunks: 2, entries: 3, bytes: 4 })
    }
    async fn volume(&self, _: &QueryContext, _: &StreamsSelect, names: &[String]) -> Result<Vec<Volume>> {
        Ok(vec![Volume { labels: labels(&[("by", &names.join(","))]), bytes: 7 }])
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
        let field = |label: &str, parsers| DetectedField {
            label: label.into(),
            kind: "string".into(),
            cardinality: 2,
            parsers,
        };
        Ok(vec![field("level", vec!["json".into()]), field("trace_id", vec![])])
    }
    async fn tail(&self, _: &QueryContext, _: &str, _: i64) -> Result<Stream<Vec<LogEntry>>> {
        Ok(futures::stream::empty().boxed())
    }
    async fn versions(&self, _: &QueryContext, _: &[(i64, i64)]) -> Result<Vec<Version>> {
        Err(Error::unavailable("answers are not remembered"))
    }
}

#[async_trait]
impl TracesStore for Fake {
    async fn find(&self, ctx: &QueryContext, id: &TraceId, _: i64, _: i64) -> Result<TraceParts> {
        use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
        use prost::Message;
        if id[15] == 3 {
            ctx.missed("ingester-a-0: does not answer");
        }
        if id[15] != 1 {
            return Ok(TraceParts::default());
        }
        let span = Span {
            trace_id: id.to_vec(),
            span_id: vec![2; 8],
            name: "GET".into(),
            kind: 2,
            ..Default::default()
        };
        let scope = ScopeSpans { spans: vec![span], ..Default::default() };
        let data = TracesData {
            resource_spans: vec![ResourceSpans { scope_spans: vec![scope], ..Default::default() }],
        };
        Ok(TraceParts { otlp: vec![data.encode_to_vec().into()] })
    }
    async fn search(&self, ctx: &QueryContext, search: &TraceSearch) -> Result<Stream<TraceMatch>> {
        let one = |id: u128| TraceMatch {
            trace_id: id.to_be_bytes(),
            root_service: search.query.clone(),
            root_name: "GET /".into(),
            start_ns: 5,
            duration_ns: 7_000_000,
            span_sets: vec![],
            services: vec![("shop".into(), 2, 1)],
        };
        if search.query == "{ endless }" {
            let (ctx, cancelled) = (ctx.clone(), self.cancelled.clone());
            tokio::spawn(async move {
                ctx.cancelled().await;
                cancelled.notify_one();
            });
            let first = futures::stream::iter([Ok(one(1))]);
            return Ok(first.chain(futures::stream::pending()).boxed());
        }
        if search.query == "{ broken }" {
            return Err(Error::exhausted("the query needs more than 5 rows"));
        }
        // Every trace twice, as when two sources have a part of it.
        let ids = (0xabc..0xabc + 50).flat_map(|id| [id, id]);
        Ok(futures::stream::iter(ids.map(move |id| Ok(one(id))).collect::<Vec<_>>()).boxed())
    }
    async fn samples(&self, _: &QueryContext, _: &SpanSampleSelect) -> Result<Stream<TraceSamples>> {
        Ok(futures::stream::empty().boxed())
    }
    async fn tag_names(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<ScopeTags>> {
        if select.scope == "span" {
            ctx.missed("block é is damaged");
        }
        Ok(vec![ScopeTags { scope: "span".into(), tags: vec!["http.method".into()] }])
    }
    async fn tag_values(&self, _: &QueryContext, select: &TagsSelect) -> Result<Vec<Value>> {
        Ok(vec![Value::String(select.name.clone()), Value::Int(3)])
    }
    async fn versions(&self, _: &QueryContext, _: &[(i64, i64)]) -> Result<Vec<Version>> {
        Err(Error::unavailable("answers are not remembered"))
    }
}

#[async_trait]
impl Query for Fake {
    async fn metrics(&self, _: &QueryContext, query: &MetricsQuery) -> Result<QueryValue> {
        if query.expr == "too_much" {
            return Err(Error::exhausted("the query needs more than 5 rows"));
        }
        if query.expr == "ambiguous" {
            return Err(Error::invalid("many-to-many matching not allowed"));
        }
        triptych_promql::parse(&query.expr)?;
        if query.expr == "up[5m]" {
            return Err(Error::invalid("invalid expression type \"range vector\" for range query"));
        }
        let sample = Sample { t_ms: query.start_ms, value: 1.5 };
        let series = vec![SeriesSamples { labels: labels(&[("__name__", "up")]), samples: vec![sample] }];
        Ok(if query.step_ms == 0 { QueryValue::Vector(series) } else { QueryValue::Matrix(series) })
    }
    async fn read_samples(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesSamples>> {
        let stale = f64::from_bits(STALE_NAN_BITS);
        let series = |job: &str, last: f64| SeriesSamples {
            labels: labels(&[("__name__", "up"), ("job", job)]),
            samples: vec![Sample { t_ms: 1000, value: 7.0 }, Sample { t_ms: 2500, value: last }],
        };
        fail_or_miss(ctx, &select.matchers)?;
        Ok(futures::stream::iter([Ok(series("a", 2e6)), Ok(series("b", stale))]).boxed())
    }
    async fn read_chunks(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        fail_or_miss(ctx, &select.matchers)?;
        let chunk =
            |t| EncodedChunk { start_ms: t, end_ms: t + 9, encoding: ChunkEncoding::Xor, data: "xor".into() };
        let series =
            SeriesChunks { labels: labels(&[("__name__", "up")]), chunks: vec![chunk(0), chunk(10)] };
        Ok(futures::stream::iter([Ok(series)]).boxed())
    }
    async fn logs(&self, _: &QueryContext, _: &LogsQuery) -> Result<LogsValue> {
        Ok(LogsValue::Entries(vec![entry()]))
    }
    async fn traces(&self, ctx: &QueryContext, query: &TracesMetricsQuery) -> Result<QueryValue> {
        if query.query.contains("damaged") {
            ctx.missed("block 01 is damaged");
        }
        let samples = vec![Sample { t_ms: 1000, value: 2.0 }];
        Ok(QueryValue::Matrix(vec![SeriesSamples { labels: labels(&[("service", "shop")]), samples }]))
    }
}

fn entry() -> LogEntry {
    LogEntry {
        labels: labels(&[("app", "x")]),
        metadata: labels(&[("trace_id", "abc")]),
        parsed: labels(&[("level", "info")]),
        ts_ns: 1_700_000_000_000_000_001,
        line: "<b>\"hi\"</b>".into(),
        key: 1,
    }
}

/// What a matcher for the value `too_much` or `damaged` makes of a read.
fn fail_or_miss(ctx: &QueryContext, matchers: &[triptych_model::Matcher]) -> Result<()> {
    match matchers.first().map(|m| m.value.as_str()) {
        Some("too_much") => Err(Error::exhausted("the query needs more than 5 rows")),
        Some("damaged") => {
            ctx.missed("block 01 is damaged");
            Ok(())
        }
        _ => Ok(()),
    }
}

fn gateway(multitenancy: bool) -> Gateway {
    gateway_over(Fake::default(), multitenancy)
}

pub(crate) fn gateway_over(fake: Fake, multitenancy: bool) -> Gateway {
    gateway_among(peers::fixed([querier(fake, MemberState::Active)]), None, multitenancy)
}

fn querier(fake: Fake, state: MemberState) -> Peer<Backend> {
    let fake = Arc::new(fake);
    let service = Backend { metrics: fake.clone(), logs: fake.clone(), traces: fake.clone(), query: fake };
    Peer { member: Arc::new(Member { state, ..Member::new("querier", "", "") }), service }
}

/// `distributors`: where pushes go, where this process has none of its own.
fn gateway_among(
    queriers: Peers<Backend>,
    distributors: Option<Peers<push::Distributor>>,
    multitenancy: bool,
) -> Gateway {
    Config { shards: 1, ..Config::default() }.build(Deps {
        queriers,
        engines: Engines::default(),
        limits: TenantLimits::default(),
        memory: MemoryBudget::new("results", 1 << 20),
        multitenancy,
        pushes: distributors.map(|all| (all, MemoryBudget::new("pushes", 1 << 20))),
        targets: Some(Arc::new(|| {
            let target = |pool: &str| {
                json!({
                    "scrapePool": pool,
                    "labels": {"job": pool, "instance": "i"},
                    "discoveredLabels": {},
                })
            };
            json!({
                "activeTargets": [target("a"), target("b")], "droppedTargets": [target("b")],
                "droppedTargetCounts": {"b": 1}, "scrapePools": ["a", "b", "c"],
            })
        })),
        config: "server:\n  listen: x\n".into(),
    })
}

async fn send(request: Request<Body>, multitenancy: bool) -> (StatusCode, String) {
    let response = gateway(multitenancy).routes().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn get(path: &str) -> (StatusCode, String) {
    send(Request::get(path).body(Body::empty()).unwrap(), false).await
}

async fn get_json(path: &str) -> Json {
    let (status, body) = get(path).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
}

/// Before a querier serves the gateway is not ready, and says so to who asks all the same; reads decide, pushes have an answer of their own.
#[tokio::test]
async fn ready_when_a_querier_serves() {
    let queriers = tokio::sync::watch::Sender::new(Arc::from([]));
    let distributors = peers::fixed(std::iter::empty::<Peer<push::Distributor>>());
    let gateway = gateway_among(queriers.subscribe(), Some(distributors), false);
    let routes = gateway.routes();
    let ask = async |request: http::request::Builder| {
        let response = routes.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let retry_after = response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, retry_after.unwrap_or_default(), String::from_utf8_lossy(&body).into_owned())
    };
    let reads = ["/api/v1/query?query=up", "/loki/api/v1/labels", "/api/search?q=%7B%7D"];
    for (state, sentence) in [
        (None, "no querier is known"),
        (Some(MemberState::Joining), "none of the 1 known queriers serves now"),
        (Some(MemberState::Leaving), "none of the 1 known queriers serves now"),
    ] {
        queriers.send_replace(state.map(|state| querier(Fake::default(), state)).into_iter().collect());
        assert!(!gateway.is_ready(), "{state:?}");
        for path in reads {
            let (status, retry_after, body) = ask(Request::get(path)).await;
            assert_eq!((status, &*retry_after), (503, "10"), "{path}: {body}");
            assert!(body.contains(sentence), "{path}: {body}");
        }
    }
    queriers.send_replace([querier(Fake::default(), MemberState::Active)].into());
    assert!(gateway.is_ready());
    for path in reads {
        let (status, _, body) = ask(Request::get(path)).await;
        assert_eq!(status, 200, "{path}: {body}");
    }
    let refused = ask(Request::post("/api/v1/push")).await;
    assert_eq!(refused, (503, "1".to_owned(), "no distributor takes writes now".to_owned()));
}

#[tokio::test]
async fn prometheus_answers() {
    let vector = get_json("/api/v1/query?query=up&time=1700000000.5").await;
    let expected = json!({"status": "success", "data": {"resultType": "vector", "result": [
        {"metric": {"__name__": "up"}, "value": [1_700_000_000.5, "1.5"]}]}});
    assert_eq!(vector, expected);
    let unlimited = get_json("/api/v1/query?query=up&limit=1").await;
    assert!(unlimited["warnings"].is_null(), "{unlimited}");
    let matrix = get_json("/prometheus/api/v1/query_range?query=up&start=10&end=20&step=5s").await;
    assert_eq!(matrix["data"]["result"][0]["values"], json!([[10, "1.5"]]));
    let names = get_json("/api/v1/labels").await;
    assert_eq!(names["warnings"], json!(["partial answer: store-gateway: block 01 is damaged"]));
    let series = get_json("/api/v1/series?match[]=up%7Bjob%3D%22a%22%7D").await;
    assert!(series["data"][0]["matchers"].as_str().unwrap().contains("job=\"a\""), "{series}");
    assert_eq!(get_json("/api/v1/metadata").await["data"]["up"][0]["type"], "gauge");
    assert_eq!(get_json("/api/v1/format_query?query=sum(up)by(job)").await["data"], "sum by (job) (up)");
    assert_eq!(get_json("/api/v1/status/tsdb").await["data"]["headStats"]["numSeries"], 3);
    for path in ["rules", "alerts", "alertmanagers", "status/buildinfo", "status/runtimeinfo"] {
        assert_eq!(get_json(&format!("/api/v1/{path}")).await["status"], "success");
    }
}

#[tokio::test]
async fn prometheus_tells_of_itself() {
    let data = async |path: &str| get_json(&format!("/api/v1/{path}")).await["data"].clone();
    assert_eq!(data("status/config").await, json!({"yaml": "server:\n  listen: x\n"}));
    assert_eq!(data("status/flags").await["query.timeout"], "2m");
    assert_eq!(data("status/walreplay").await, json!({"min": 0, "max": 0, "current": 0}));
    assert_eq!(data("notifications").await, json!([]));
    let features = data("features").await;
    assert_eq!(
        (&features["promql_functions"]["rate"], &features["promql_operators"]["=~"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        (&features["promql_operators"]["topk"], &features["api"]["admin"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(data("parse_query?query=1").await, json!({"type": "numberLiteral", "val": "1"}));
    assert_eq!(data("metadata?limit_per_metric=1").await["up"].as_array().unwrap().len(), 1);
    assert_eq!(data("metadata?limit=0").await, json!({}));
}

#[tokio::test]
async fn targets_are_filtered() {
    let data = async |path: &str| get_json(&format!("/api/v1/{path}")).await["data"].clone();
    let counts =
        |targets: &Json| ["activeTargets", "droppedTargets"].map(|l| targets[l].as_array().unwrap().len());
    let all = data("targets").await;
    assert_eq!((counts(&all), &all["droppedTargetCounts"]), ([2, 1], &json!({"b": 1})));
    assert!(all.get("scrapePools").is_none(), "{all}");
    assert_eq!(counts(&data("targets?state=ANY&scrapePool=a").await), [1, 0]);
    let active = data("targets?state=active").await;
    assert_eq!((counts(&active), &active["droppedTargetCounts"]), ([2, 0], &Json::Null));
    assert_eq!(counts(&data("targets?state=dropped").await), [0, 1]);
    assert_eq!(data("scrape_pools").await, json!({"scrapePools": ["a", "b", "c"]}));

    let up =
        json!({"target": {"job": "b", "instance": "i"}, "type": "gauge", "help": "is it up", "unit": ""});
    let of_b = "targets/metadata?match_target=%7Bjob%3D%22b%22%7D";
    assert_eq!(data(&format!("{of_b}&metric=up")).await, json!([up]));
    assert_eq!(data(of_b).await[0]["metric"], "up");
    assert_eq!(data("targets/metadata").await.as_array().unwrap().len(), 2);
    assert_eq!(data("targets/metadata?limit=1").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn federation_has_the_samples_own_times() {
    let request =
        Request::get("/federate?match[]=up&match[]=%7Bjob%3D%22a%22%7D").body(Body::empty()).unwrap();
    let response = gateway(false).routes().oneshot(request).await.unwrap();
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    );
    let body = response.into_body().collect().await.unwrap().to_bytes();
    // Both selectors find both series; one of them has ended.
    assert_eq!(body, "# TYPE up untyped\nup{job=\"a\",instance=\"\"} 2e+06 2500\n");
}

/// A read request for a metric, as protobuf: `{ queries { end 5, matchers { name, value } } , types }`.
fn read_request(value: &str, form: u8) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| [&[tag << 3 | 2, bytes.len() as u8], bytes].concat();
    let matcher = [field(2, b"__name__"), field(3, value.as_bytes())].concat();
    let query = [vec![0x10, 5], field(3, &matcher)].concat();
    let plain = [field(1, &query), field(1, &query), vec![0x10, form]].concat();
    snap::raw::Encoder::new().compress_vec(&plain).unwrap()
}

async fn remote_read(body: Vec<u8>) -> (StatusCode, http::HeaderMap, Vec<u8>) {
    let request = Request::post("/api/v1/read").body(Body::from(body)).unwrap();
    let response = gateway(false).routes().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.status, parts.headers, body.collect().await.unwrap().to_bytes().to_vec())
}

#[tokio::test]
async fn remote_read_answers_in_both_forms() {
    let (status, headers, body) = remote_read(read_request("up", 0)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["content-encoding"], "snappy");
    let plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    // Two queries, two series each.
    assert_eq!(plain.windows(4).filter(|w| w == b"job\x12").count(), 4);

    let (status, headers, body) = remote_read(read_request("up", 1)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        headers["content-type"],
        "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
    );
    assert!(headers.get("content-encoding").is_none());
    // Two queries, one frame each.
    let (first, second) = (body[0] as usize, 5 + body[0] as usize);
    assert_eq!(body[1..5], crc32c::crc32c(&body[5..5 + first]).to_be_bytes());
    assert_eq!(body[second + 5..].len(), body[second] as usize);
    assert!(body.ends_with(&[0x10, 1]), "the position of the query: {body:?}");
}

#[tokio::test]
async fn remote_read_refuses() {
    let long = vec![0; 5 << 20];
    let bomb = [vec![0xff, 0xff, 0xff, 0x0f], vec![0; 64]].concat();
    for (body, status, text) in [
        (vec![], 400, "snappy"),
        (b"not snappy".to_vec(), 400, "snappy"),
        (bomb, 413, "limit"),
        (long, 413, "larger than"),
        (read_request("up", 9), 400, "response types"),
        (read_request("too_much", 0), 422, "more than 5 rows"),
        (read_request("too_much", 1), 422, "more than 5 rows"),
        (read_request("damaged", 0), 503, "partial: block 01"),
        (read_request("damaged", 1), 503, "partial: block 01"),
    ] {
        let (got, _, answer) = remote_read(body).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(got.as_u16() == status && answer.contains(text), "wanted {status} {text}: {got} {answer}");
    }
}

#[tokio::test]
async fn forms_are_read_too() {
    let request = Request::post("/api/v1/query")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from("query=up&time=1"))
        .unwrap();
    assert_eq!(send(request, false).await.0, StatusCode::OK);
    let huge = Request::post("/api/v1/query")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(vec![b'a'; params::FORM_BYTES_MAX + 1]))
        .unwrap();
    assert_eq!(send(huge, false).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn loki_answers() {
    let path = "/loki/api/v1/query_range?query=%7Bapp%3D%22x%22%7D";
    let merged = get_json(path).await;
    assert_eq!(merged["data"]["resultType"], "streams");
    let stream = &merged["data"]["result"][0];
    assert_eq!(stream["stream"], json!({"app": "x", "level": "info", "trace_id": "abc"}));
    assert_eq!(stream["values"], json!([["1700000000000000001", "<b>\"hi\"</b>"]]));

    let request = Request::get(path)
        .header("x-loki-response-encoding-flags", "categorize-labels")
        .body(Body::empty())
        .unwrap();
    let (_, body) = send(request, false).await;
    let apart: Json = serde_json::from_str(&body).unwrap();
    assert_eq!(apart["data"]["encodingFlags"], json!(["categorize-labels"]));
    assert_eq!(apart["data"]["result"][0]["stream"], json!({"app": "x"}));
    assert_eq!(
        apart["data"]["result"][0]["values"][0][2],
        json!({"structuredMetadata": {"trace_id": "abc"}, "parsed": {"level": "info"}})
    );
    assert_eq!(get_json("/loki/api/v1/labels").await["data"], json!(["app"]));
    assert_eq!(get_json("/loki/api/v1/label/app/values").await["data"], json!(["app"]));
    assert_eq!(get_json("/loki/api/v1/index/stats?query=%7Bapp%3D%22x%22%7D").await["bytes"], 4);
    let volume = get_json("/loki/api/v1/index/volume?query=%7Bapp%3D%22x%22%7D").await;
    assert_eq!(volume["data"]["result"][0]["metric"], json!({"by": "app"}));
    assert_eq!(get_json("/loki/api/v1/detected_labels").await["detectedLabels"][0]["cardinality"], 1);
    let limits = get_json("/loki/api/v1/drilldown-limits").await;
    assert_eq!((&limits["pattern_ingester_enabled"], limits["version"].is_string()), (&json!(true), true));
    assert_eq!(limits["limits"]["max_entries_limit_per_query"], 5000);
    let patterns = get_json("/loki/api/v1/patterns?query=%7Bapp%3D%22x%22%7D&step=60s").await;
    let pattern = json!({"pattern": "<b>\"hi\"</b>", "level": "", "samples": [[1_699_999_980, 1]]});
    assert_eq!(patterns, json!({"status": "success", "data": [pattern]}));
    let fields = get_json("/loki/api/v1/detected_fields?query=%7Bapp%3D%22x%22%7D").await;
    assert_eq!(fields["fields"][0]["parsers"], json!(["json"]));
    let values = "/loki/api/v1/detected_field/level/values?query=%7Bapp%3D%22x%22%7D";
    assert_eq!(get_json(values).await, json!({"values": ["a", "of level"], "limit": 1000}));
    assert_eq!(get_json(&format!("{values}&limit=1")).await, json!({"values": ["a"], "limit": 1}));
    assert_eq!(
        fields["fields"][1],
        json!({"label": "trace_id", "type": "string", "cardinality": 2, "parsers": null})
    );
}

#[tokio::test]
async fn tempo_answers() {
    assert_eq!(get("/api/echo").await, (StatusCode::OK, "echo".to_owned()));
    let v1 = get_json("/tempo/api/traces/1").await;
    let span = &v1["batches"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(
        (&span["name"], &span["kind"], &span["spanId"]),
        (&json!("GET"), &json!("SPAN_KIND_SERVER"), &json!("AgICAgICAgI="))
    );
    assert!(get_json("/api/v2/traces/1").await["trace"]["resourceSpans"].is_array());
    assert_eq!(get("/api/traces/2").await.0, StatusCode::NOT_FOUND);
    // It may be where nobody could look.
    for path in ["/api/traces/3", "/api/v2/traces/3"] {
        let (status, text) = get(path).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("ingester-a-0: does not answer"), "{text}");
    }
    let search = get_json("/api/search?q=%7B%7D&limit=2").await;
    assert_eq!(search["traces"].as_array().unwrap().len(), 2);
    assert_eq!(search["traces"][0]["traceID"], "abc");
    assert_eq!(search["traces"][0]["serviceStats"]["shop"], json!({"spanCount": 2, "errorCount": 1}));
    let old = get_json("/api/search?tags=service.name%3Dshop&minDuration=5ms").await;
    assert_eq!(old["traces"][0]["rootServiceName"], "{ .service.name = \"shop\" && traceDuration >= 5ms }");
    assert_eq!(get_json("/api/search/tags").await["tagNames"], json!(["http.method"]));
    assert_eq!(get_json("/api/v2/search/tags").await["scopes"][0]["name"], "span");
    assert_eq!(
        get_json("/api/search/tag/http.method/values").await["tagValues"],
        json!([".http.method", "3"])
    );
    assert_eq!(
        get_json("/api/v2/search/tag/status/values").await["tagValues"][1],
        json!({"type": "int", "value": "3"})
    );
    let request = Request::get("/api/v2/search/tags?scope=span").body(Body::empty()).unwrap();
    let partial = gateway(false).routes().oneshot(request).await.unwrap();
    assert_eq!(partial.headers()["x-triptych-missed"], "block ? is damaged");
    // Field by field what Tempo's messages have: tempo-cli refuses any other.
    assert_eq!(
        get_json("/api/v2/search/tags?scope=span").await["metrics"],
        json!({"inspectedBytes": "0", "totalBlocks": 0, "completedJobs": 1, "totalJobs": 2})
    );
    assert_eq!(
        get_json("/api/metrics/query?q=%7B.damaged%7D%7Crate()").await,
        json!({
            "series": [{
                "labels": [{"key": "service", "value": {"stringValue": "shop"}}],
                "value": 2.0,
            }],
            "metrics": {
                "inspectedBytes": "0", "inspectedSpans": "0", "totalBlocks": 0, "completedJobs": 1, "totalJobs": 2
            },
            "status": "PARTIAL",
            "message": "block 01 is damaged",
        })
    );
    assert_eq!(get_json("/api/v2/traces/1").await["metrics"], json!({"inspectedBytes": "0"}));
    let range = get_json("/api/metrics/query_range?q=%7B%7D%7Crate()&start=0&end=60&step=10s").await;
    assert_eq!(range["series"][0]["samples"], json!([{"timestampMs": "1000", "value": 2.0}]));
    assert_eq!(get_json("/api/metrics/query?q=%7B%7D%7Crate()").await["series"][0]["value"], 2.0);
}

#[tokio::test]
async fn wrong_requests_get_a_clear_4xx() {
    let cases = [
        ("/api/v1/query", 400, "query"),
        ("/api/v1/query?query=up&time=yesterday", 400, "yesterday"),
        (
            "/api/v1/query_range?query=up&start=10&end=5&step=1",
            400,
            r#"invalid parameter \"end\": end timestamp must not be before start"#,
        ),
        ("/api/v1/query?query=up&timeout=soon", 400, r#"invalid parameter "timeout": cannot parse "soon""#),
        ("/api/v1/query_range?query=up&start=0&end=99999999&step=1", 400, "11,000"),
        ("/api/v1/query_range?query=up&start=0&end=1&step=0", 400, "step"),
        (
            "/api/v1/query?query=too_much",
            422,
            "\"errorType\":\"execution\",\"error\":\"the query needs more than 5 rows",
        ),
        ("/api/v1/query?query=ambiguous", 422, "\"errorType\":\"execution\",\"error\":\"many-to-many"),
        (
            "/api/v1/query?query=up[",
            400,
            r#""errorType":"bad_data","error":"invalid parameter \"query\": 1:"#,
        ),
        (
            "/api/v1/query_range?query=up[5m]&start=1&end=2&step=1",
            400,
            r#""error":"invalid parameter \"query\": invalid expression type"#,
        ),
        ("/api/v1/format_query?query=up[", 400, r#"invalid parameter \"query\": 1:"#),
        ("/loki/api/v1/patterns?query=up(", 400, "parse error"),
        ("/api/v1/parse_query?query=up[", 400, r#"invalid parameter \"query\": 1:"#),
        ("/api/v1/parse_query", 400, "query"),
        ("/api/v1/metadata?limit_per_metric=x", 400, "limit_per_metric must be a number"),
        ("/api/v1/targets/metadata?limit=x", 400, "limit must be a number"),
        ("/api/v1/targets/metadata?match_target=%7B", 400, "match_target"),
        ("/federate?match[]=%7B", 400, "match[]"),
        ("/api/v1/series", 400, "match[]"),
        ("/api/v1/series?match[]=%7B", 400, "match[]"),
        ("/loki/api/v1/query_range?query=%7Bapp%3D%22x%22%7D&direction=sideways", 400, "sideways"),
        ("/loki/api/v1/query_range?query=%7Bapp%3D%22x%22%7D&limit=999999", 400, "max_entries_limit"),
        ("/loki/api/v1/query_range?query=%7Bapp%3D%22x%22%7D&limit=-1", 400, "limit"),
        ("/loki/api/v1/query_range?query=%7Bapp%3D%22x%22%7D&interval=-1s", 400, "interval"),
        ("/loki/api/v1/query_range?query=%7Bapp%3D%22x%22%7D&interval=-1", 400, "interval must be >= 0"),
        ("/loki/api/v1/detected_field/level/values", 400, "query"),
        ("/loki/api/v1/query?query=%7Bapp%3D%22x%22%7D", 400, "range query"),
        // Ranges that are longer than the numbers they are counted in.
        ("/api/v1/query_range?query=up&start=-9e15&end=9e15&step=1", 400, "11,000"),
        (
            "/loki/api/v1/query_range?query=x&start=-9223372036854775807&end=9223372036854775807&step=1s",
            400,
            "11,000",
        ),
        (
            "/api/metrics/query_range?q=x&start=-9223372036854775807&end=9223372036854775807&step=1s",
            400,
            "step",
        ),
        ("/api/traces/..%2f..", 400, "hex"),
        ("/api/traces/zz", 400, "hex"),
        ("/api/search?limit=100000", 400, "100000"),
        ("/api/search?tags=a", 400, "tags"),
        ("/api/metrics/query_range?q=x&start=0&end=100000&step=1ms", 400, "step"),
    ];
    for (path, status, text) in cases {
        let (got, body) = get(path).await;
        assert!(got.as_u16() == status && body.contains(text), "{path}: {got} {body}");
    }
}

#[tokio::test]
async fn tenants() {
    let ask = |id: Option<&str>| {
        let request = Request::get("/api/v1/label/job/values");
        let request = match id {
            Some(id) => request.header("x-scope-orgid", id),
            None => request,
        };
        send(request.body(Body::empty()).unwrap(), true)
    };
    let (status, body) = ask(None).await;
    assert!(status == StatusCode::UNAUTHORIZED && body.starts_with("no org id"), "{status} {body}");
    assert!(ask(Some("team-a")).await.1.contains("team-a/job"));
    for hostile in ["..", "a/b", "%2e%2e", "a|b", "index"] {
        assert_eq!(ask(Some(hostile)).await.0, StatusCode::BAD_REQUEST, "{hostile}");
    }
}

#[tokio::test]
async fn the_page_is_there() {
    let (status, body) = get("/").await;
    assert!(status == StatusCode::OK && body.contains("Triptych"), "{body}");
    assert_eq!(get("/ui/../../Cargo.toml").await.0, StatusCode::NOT_FOUND);
}
