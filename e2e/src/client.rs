//! Small typed clients over HTTP. What they send and expect is written down here once more, independently of the product.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, TracesData};
use prost::Message;
use reqwest::Method;
use serde_json::Value as Json;

/// Labels, attributes, structured metadata.
pub type Pairs = BTreeMap<String, String>;

pub fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Pairs {
    pairs.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: Pairs,
    /// Milliseconds and value.
    pub samples: Vec<(i64, f64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    pub ts_ns: i64,
    pub text: String,
    pub metadata: Pairs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub labels: Pairs,
    pub lines: Vec<Line>,
}

/// `prometheus.WriteRequest`, remote write 1.0; `prometheus.QueryResult` of remote read looks the same.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Pair>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

/// `prometheus.ReadRequest`.
#[derive(Clone, PartialEq, Message)]
struct ReadRequest {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<ReadQuery>,
}

#[derive(Clone, PartialEq, Message)]
struct ReadQuery {
    #[prost(int64, tag = "1")]
    start_ms: i64,
    #[prost(int64, tag = "2")]
    end_ms: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<ReadMatcher>,
}

/// `prometheus.LabelMatcher`; without its type it wants equality.
#[derive(Clone, PartialEq, Message)]
struct ReadMatcher {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct ReadResponse {
    #[prost(message, repeated, tag = "1")]
    results: Vec<WriteRequest>,
}

/// `prometheus.Label` and `logproto.LabelPairAdapter`.
#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// `logproto.PushRequest`.
#[derive(Clone, PartialEq, Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<PushStream>,
}

#[derive(Clone, PartialEq, Message)]
struct PushStream {
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<PushEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct PushEntry {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    line: String,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<Pair>,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, PartialEq, Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `tempopb.TraceByIDResponse`.
#[derive(Clone, PartialEq, Message)]
struct TraceById {
    #[prost(message, optional, tag = "1")]
    trace: Option<TracesData>,
    /// 0: whole.
    #[prost(int32, tag = "3")]
    status: i32,
    #[prost(string, tag = "4")]
    message: String,
}

fn pair_list(pairs: &Pairs) -> Vec<Pair> {
    pairs.iter().map(|(name, value)| Pair { name: name.clone(), value: value.clone() }).collect()
}

/// The body of a remote write, snappy and all.
pub fn remote_write_body(series: &[Series]) -> Result<Vec<u8>> {
    let timeseries = series.iter().map(|s| TimeSeries {
        labels: pair_list(&s.labels),
        samples: s
            .samples
            .iter()
            .map(|(timestamp, value)| Sample { value: *value, timestamp: *timestamp })
            .collect(),
    });
    snappy(&WriteRequest { timeseries: timeseries.collect() }.encode_to_vec())
}

pub fn snappy(plain: &[u8]) -> Result<Vec<u8>> {
    Ok(snap::raw::Encoder::new().compress_vec(plain)?)
}

pub fn gzip(plain: &[u8]) -> Result<Vec<u8>> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(plain)?;
    Ok(out.finish()?)
}

/// Loki's JSON push.
pub fn loki_json_body(streams: &[Stream]) -> String {
    let value = |line: &Line| serde_json::json!([line.ts_ns.to_string(), line.text, line.metadata]);
    let streams: Vec<_> = streams
        .iter()
        .map(|s| serde_json::json!({"stream": s.labels, "values": s.lines.iter().map(value).collect::<Vec<_>>()}))
        .collect();
    serde_json::json!({ "streams": streams }).to_string()
}

/// Loki's protobuf push, snappy and all.
pub fn loki_protobuf_body(streams: &[Stream]) -> Result<Vec<u8>> {
    let streams = streams.iter().map(|s| PushStream {
        labels: selector(&s.labels),
        entries: s
            .lines
            .iter()
            .map(|line| PushEntry {
                timestamp: Some(Timestamp {
                    seconds: line.ts_ns.div_euclid(1_000_000_000),
                    nanos: line.ts_ns.rem_euclid(1_000_000_000) as i32,
                }),
                line: line.text.clone(),
                metadata: pair_list(&line.metadata),
            })
            .collect(),
    });
    snappy(&PushRequest { streams: streams.collect() }.encode_to_vec())
}

/// `{a="b", c="d"}`.
pub fn selector(labels: &Pairs) -> String {
    let pairs: Vec<_> = labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub text: String,
}

impl Reply {
    pub fn ok(self) -> Result<Self> {
        if !(200..300).contains(&self.status) {
            bail!("{}: {}", self.status, self.text.trim());
        }
        Ok(self)
    }

    pub fn json(self) -> Result<Json> {
        let text = self.ok()?.text;
        serde_json::from_str(&text).with_context(|| text)
    }
}

/// An answer that says that it is not whole; why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial(pub String);

impl std::fmt::Display for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "partial: {}", self.0)
    }
}

impl std::error::Error for Partial {}

/// Talks to one port, as one tenant; in a cluster it pushes to another one.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    push_base: String,
    tenant: Option<String>,
}

fn http_client(timeout: Duration, idle_connections_max: usize) -> reqwest::Client {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    // reqwest is built without a TLS provider of its own and wants one even for http.
    PROVIDER.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    // One per caller: a pool must not outlive the runtime of the test that filled it.
    let builder = reqwest::Client::builder().timeout(timeout);
    builder.pool_max_idle_per_host(idle_connections_max).build().unwrap_or_default()
}

impl Client {
    pub fn new(base: impl Into<String>) -> Self {
        let base = base.into();
        let http = http_client(Duration::from_secs(60), usize::MAX);
        Self { http, push_base: base.clone(), base, tenant: None }
    }

    /// A new connection for each request: one may be closed after a request that was refused before all of it was read.
    pub fn unpooled(&self) -> Self {
        Self { http: http_client(Duration::from_secs(60), 0), ..self.clone() }
    }

    /// Every request may take so long.
    pub fn timeout(&self, timeout: Duration) -> Self {
        Self { http: http_client(timeout, usize::MAX), ..self.clone() }
    }

    pub fn tenant(&self, tenant: &str) -> Self {
        Self { tenant: Some(tenant.to_owned()), ..self.clone() }
    }

    /// The same at another address, with the connections of this one.
    pub fn at(&self, base: impl Into<String>) -> Self {
        let base = base.into();
        Self { push_base: base.clone(), base, ..self.clone() }
    }

    /// Pushes there, and asks here.
    pub fn pushing_to(&self, base: impl Into<String>) -> Self {
        Self { push_base: base.into(), ..self.clone() }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn push_base(&self) -> &str {
        &self.push_base
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.tenant {
            Some(tenant) => request.header("x-scope-orgid", tenant),
            None => request,
        }
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok(Reply { status, text: String::from_utf8_lossy(&response.bytes().await?).into_owned() })
    }

    pub async fn get(&self, path: &str, params: &[(&str, &str)]) -> Result<Reply> {
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.base))?;
        if !params.is_empty() {
            url.query_pairs_mut().extend_pairs(params);
        }
        let mut request = self.http.get(url);
        if let Some(tenant) = &self.tenant {
            request = request.header("x-scope-orgid", tenant);
        }
        self.send(request.header("x-loki-response-encoding-flags", "categorize-labels")).await
    }

    /// The `data` of a Prometheus or Loki answer. An answer with warnings fails: nothing may be missing here.
    pub async fn data(&self, path: &str, params: &[(&str, &str)]) -> Result<Json> {
        let reply = self.get(path, params).await.with_context(|| format!("{path} {params:?}"))?;
        let mut json = reply.json().with_context(|| format!("{path} {params:?}"))?;
        if json.get("warnings").is_some_and(|w| w.as_array().is_none_or(|w| !w.is_empty())) {
            return Err(Partial(format!("{path} {params:?}: warnings {}", json["warnings"])).into());
        }
        Ok(json["data"].take())
    }

    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Reply> {
        let mut request = self.request(Method::POST, path).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request).await
    }

    pub async fn is_ready(&self) -> bool {
        let reply = self.send(self.request(Method::GET, "/ready").timeout(Duration::from_secs(5))).await;
        reply.is_ok_and(|r| r.status == 200)
    }

    pub async fn flush(&self) -> Result<()> {
        self.post("/-/flush", &[], "").await?.ok().map(drop)
    }

    /// One round; what it did.
    pub async fn compact(&self) -> Result<Json> {
        self.post("/-/compact", &[], "").await?.json()
    }

    // Writing.

    async fn push(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Reply> {
        self.at(self.push_base.clone()).post(path, headers, body).await
    }

    pub async fn remote_write(&self, series: &[Series]) -> Result<()> {
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ];
        self.push("/api/v1/write", &headers, remote_write_body(series)?).await?.ok().map(drop)
    }

    /// The samples of the series with that label, over remote read.
    pub async fn remote_read(
        &self,
        (name, value): (&str, &str),
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Series>> {
        let matchers = vec![ReadMatcher { name: name.to_owned(), value: value.to_owned() }];
        let request = ReadRequest { queries: vec![ReadQuery { start_ms, end_ms, matchers }] };
        let request = self.request(Method::POST, "/api/v1/read").body(snappy(&request.encode_to_vec())?);
        let response = request.send().await?.error_for_status()?.bytes().await?;
        let response = ReadResponse::decode(&snap::raw::Decoder::new().decompress_vec(&response)?[..])?;
        let series = response.results.into_iter().flat_map(|result| result.timeseries);
        Ok(series
            .map(|s| Series {
                labels: s.labels.into_iter().map(|l| (l.name, l.value)).collect(),
                samples: s.samples.into_iter().map(|s| (s.timestamp, s.value)).collect(),
            })
            .collect())
    }

    pub async fn loki_json(&self, streams: &[Stream]) -> Result<()> {
        let headers = [("content-type", "application/json")];
        self.push("/loki/api/v1/push", &headers, loki_json_body(streams)).await?.ok().map(drop)
    }

    pub async fn loki_json_gzip(&self, streams: &[Stream]) -> Result<()> {
        let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
        let body = gzip(loki_json_body(streams).as_bytes())?;
        self.push("/loki/api/v1/push", &headers, body).await?.ok().map(drop)
    }

    pub async fn loki_protobuf(&self, streams: &[Stream]) -> Result<()> {
        let headers = [("content-type", "application/x-protobuf")];
        self.push("/loki/api/v1/push", &headers, loki_protobuf_body(streams)?).await?.ok().map(drop)
    }

    pub async fn otlp_traces(&self, resource_spans: &[ResourceSpans]) -> Result<()> {
        let request = ExportTraceServiceRequest { resource_spans: resource_spans.to_vec() };
        let headers = [("content-type", "application/x-protobuf")];
        let reply = self.push("/v1/traces", &headers, request.encode_to_vec()).await?.ok()?;
        // Anything in the answer is a partial success.
        if !reply.text.is_empty() {
            bail!("not all spans were taken: {:?}", reply.text);
        }
        Ok(())
    }

    // Reading.

    /// All samples in `start_ms..=end_ms`, as they were written: a range selector in an instant query.
    pub async fn samples(&self, selector: &str, start_ms: i64, end_ms: i64) -> Result<Vec<Series>> {
        // Ranges are open on the left.
        let query = format!("{selector}[{}ms]", end_ms - start_ms + 1);
        let time = format!("{}.{:03}", end_ms / 1000, end_ms % 1000);
        let data = self.data("/api/v1/query", &[("query", &query), ("time", &time)]).await?;
        list(&data["result"])?
            .iter()
            .map(|series| {
                let samples = list(&series["values"])?.iter().map(sample).collect::<Result<_>>()?;
                Ok(Series { labels: labels(&series["metric"])?, samples })
            })
            .collect()
    }

    /// The one number of an instant query that has one.
    pub async fn number(&self, query: &str, time_ms: i64) -> Result<f64> {
        let time = format!("{}.{:03}", time_ms / 1000, time_ms % 1000);
        let data = self.data("/api/v1/query", &[("query", query), ("time", &time)]).await?;
        match list(&data["result"])? {
            [one] => Ok(sample(&one["value"])?.1),
            other => bail!("{query}: {} series instead of one", other.len()),
        }
    }

    /// Streams as they come, each in the direction asked for.
    /// `end_ns` is not part of the range. At most 5000 lines.
    pub async fn streams(
        &self,
        query: &str,
        start_ns: i64,
        end_ns: i64,
        forward: bool,
    ) -> Result<Vec<Stream>> {
        let direction = if forward { "forward" } else { "backward" };
        let (start, end) = (start_ns.to_string(), end_ns.to_string());
        let params =
            [("query", query), ("start", &start), ("end", &end), ("limit", "5000"), ("direction", direction)];
        let data = self.data("/loki/api/v1/query_range", &params).await?;
        list(&data["result"])?
            .iter()
            .map(|stream| {
                let lines = list(&stream["values"])?.iter().map(line).collect::<Result<_>>()?;
                Ok(Stream { labels: labels(&stream["stream"])?, lines })
            })
            .collect()
    }

    /// The spans of a trace, in OTLP's own encoding.
    pub async fn trace(&self, id: &[u8]) -> Result<Vec<ResourceSpans>> {
        let request = self.request(Method::GET, &format!("/api/traces/{}", hex::encode(id)));
        let response = request.header("accept", "application/protobuf").send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        if !status.is_success() {
            bail!("trace {}: {status}: {}", hex::encode(id), String::from_utf8_lossy(&body));
        }
        Ok(TracesData::decode(body)?.resource_spans)
    }

    /// The same by the second version of the API, which can say that something is missing; none where it was not found.
    pub async fn trace_v2(&self, id: &[u8]) -> Result<Vec<ResourceSpans>> {
        let request = self.request(Method::GET, &format!("/api/v2/traces/{}", hex::encode(id)));
        let response = request.header("accept", "application/protobuf").send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        if status.as_u16() == 404 {
            return Ok(vec![]);
        }
        if !status.is_success() {
            bail!("trace {}: {status}: {}", hex::encode(id), String::from_utf8_lossy(&body));
        }
        let found = TraceById::decode(body)?;
        if found.status != 0 {
            return Err(Partial(found.message).into());
        }
        Ok(found.trace.unwrap_or_default().resource_spans)
    }

    /// The ids that a TraceQL search finds, in hex with all zeros, sorted.
    pub async fn search(&self, q: &str, start_s: i64, end_s: i64) -> Result<Vec<String>> {
        let (start, end) = (start_s.to_string(), end_s.to_string());
        let params = [("q", q), ("start", &start), ("end", &end), ("limit", "1000")];
        let json = self.get("/api/search", &params).await?.json().with_context(|| q.to_owned())?;
        if json["status"] == "PARTIAL" {
            return Err(Partial(format!("{q}: {}", json["message"])).into());
        }
        let mut ids = strings(&json["traces"], |t| &t["traceID"])?;
        ids.iter_mut().for_each(|id| *id = format!("{id:0>32}"));
        ids.sort();
        Ok(ids)
    }
}

pub fn list(json: &Json) -> Result<&[Json]> {
    match json {
        Json::Null => Ok(&[]),
        json => json.as_array().map(Vec::as_slice).with_context(|| format!("not a list: {json}")),
    }
}

/// The strings of a list, sorted.
pub fn strings(json: &Json, of: impl Fn(&Json) -> &Json) -> Result<Vec<String>> {
    let mut strings = list(json)?
        .iter()
        .map(|one| of(one).as_str().map(str::to_owned).with_context(|| format!("not a string in {one}")))
        .collect::<Result<Vec<_>>>()?;
    strings.sort();
    Ok(strings)
}

pub fn labels(json: &Json) -> Result<Pairs> {
    let object = json.as_object().with_context(|| format!("not labels: {json}"))?;
    object
        .iter()
        .map(|(n, v)| Ok((n.clone(), v.as_str().with_context(|| format!("not a string: {v}"))?.to_owned())))
        .collect()
}

/// `[seconds, "value"]`.
pub fn sample(json: &Json) -> Result<(i64, f64)> {
    let seconds = json[0].as_f64().with_context(|| format!("not a sample: {json}"))?;
    let value = json[1].as_str().with_context(|| format!("not a sample: {json}"))?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        value => value.parse()?,
    };
    Ok(((seconds * 1000.0).round() as i64, value))
}

/// `["<ns>","<line>",{"structuredMetadata":{..}}]`.
fn line(json: &Json) -> Result<Line> {
    let text = |at: usize| json[at].as_str().with_context(|| format!("not a line: {json}"));
    let metadata = match &json[2]["structuredMetadata"] {
        Json::Null => Pairs::new(),
        some => labels(some)?,
    };
    Ok(Line { ts_ns: text(0)?.parse()?, text: text(1)?.to_owned(), metadata })
}
