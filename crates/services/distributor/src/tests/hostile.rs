//! What broken and hostile senders get: an answer that says what is wrong, and nothing written.

use prost::Message as _;

use super::*;

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
const WRITE: &str = "/api/v1/write";
const LOKI: &str = "/loki/api/v1/push";

async fn check(path: &str, headers: &[(&str, &str)], body: Vec<u8>, status: u16, text: &str) {
    let s = setup_with(Config { request_bytes_max: 4 << 20, ..Config::default() }, Limits::default());
    let answer = s.post(path, headers, body).await;
    let got = answer.text();
    assert!(
        answer.status.as_u16() == status && got.contains(text),
        "{path} {headers:?}: {} {got}",
        answer.status
    );
    assert!(got.len() < 4096, "an answer is short: {} bytes", got.len());
    assert!(s.lines().is_empty(), "{path}: nothing is written");
}

#[tokio::test]
async fn methods_and_paths() {
    let s = setup();
    for path in [WRITE, "/api/v1/push", LOKI, "/v1/traces", "/otlp/v1/logs", "/api/v1/otlp/v1/metrics"] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let answer = s.send(request).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert_eq!(answer.headers["allow"], "POST");
        }
    }
}

#[tokio::test]
async fn media_types_and_encodings() {
    check(WRITE, &[JSON], b"{}".to_vec(), 415, "application/json").await;
    let other = ("content-type", "application/x-protobuf;proto=io.prometheus.write.v3.Request");
    check(WRITE, &[other], vec![], 415, "write.v3.Request").await;
    let v2 = ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request");
    check(WRITE, &[v2], snappy(b"\x2a\x04\x0a\x02\x01\x02"), 400, "symbol reference 1 is out of range").await;
    check(LOKI, &[("content-type", "text/plain")], vec![], 415, "text/plain").await;
    check("/v1/traces", &[], vec![], 415, "send application/x-protobuf or application/json").await;
    for path in [WRITE, LOKI] {
        check(path, &[("content-encoding", "br")], vec![], 415, "\"br\"").await;
    }
    check("/v1/logs", &[PROTOBUF, ("content-encoding", "lzma")], vec![], 415, "lzma").await;
}

#[tokio::test]
async fn bombs() {
    // 4 GiB claimed by a header of five bytes.
    check(WRITE, &[], b"\xff\xff\xff\xff\x0f\0".to_vec(), 413, "4294967295 bytes, the limit is 4194304")
        .await;
    check(LOKI, &[], b"\xff\xff\xff\xff\x0f\0".to_vec(), 413, "the limit is 4194304").await;
    check(WRITE, &[], b"\x80\x80\x80\x01\0a".to_vec(), 400, "cannot hold them").await;
    let zeros = vec![0; 5 << 20];
    let bomb = gzip(&zeros);
    assert!(bomb.len() < 10_000);
    let encoding = ("content-encoding", "gzip");
    for (path, media) in
        [(LOKI, JSON), ("/v1/traces", PROTOBUF), ("/v1/logs", JSON), ("/v1/metrics", PROTOBUF)]
    {
        check(path, &[media, encoding], bomb.clone(), 413, "larger than the limit of 4194304 bytes").await;
    }
    let bomb = zstd::encode_all(&zeros[..], 1).unwrap();
    check("/v1/traces", &[PROTOBUF, ("content-encoding", "zstd")], bomb, 413, "4194304").await;
}

#[tokio::test]
async fn bodies_that_are_too_large() {
    let config = Config { body_bytes_max: 1000, ..Config::default() };
    let s = setup_with(config, Limits::default());
    let answer = s.post(WRITE, &[("content-length", "5000")], vec![0; 5000]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.text().contains("5000 bytes or more, the limit is 1000"), "{}", answer.text());
    // Without a length, in chunks.
    let chunks = futures::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(vec![0u8; 100])));
    let answer = s.post(WRITE, &[], Body::from_stream(chunks)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    // Chunks below the limit are put together.
    let body = snappy(&push_request(r#"{app="x"}"#, &[(0, "hello")]));
    let chunks: Vec<_> = body.chunks(7).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect();
    let answer = s.post(LOKI, &[], Body::from_stream(futures::stream::iter(chunks))).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
    // A sender that breaks off.
    let broken = vec![Ok(vec![1u8]), Err(std::io::Error::other("gone"))];
    let answer = s.post(WRITE, &[], Body::from_stream(futures::stream::iter(broken))).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn slow_bodies() {
    let config = Config { body_timeout: std::time::Duration::from_millis(20), ..Config::default() };
    let s = setup_with(config, Limits::default());
    let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let answer = s.post(WRITE, &[], Body::from_stream(never)).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn damaged_bodies() {
    check(WRITE, &[], b"not snappy".to_vec(), 400, "snappy").await;
    check(WRITE, &[], vec![], 400, "snappy").await;
    check(WRITE, &[], snappy(b"\x0a\xff\xff\xff\x7f"), 400, "claims 268435455 bytes").await;
    check(WRITE, &[], snappy(b"\x0a\x02\x0a\x80"), 400, "truncated").await;
    let mut bad = Vec::new();
    message(&mut bad, 1, |out| message(out, 1, |out| put_bytes(out, 1, b"\xff\xfe")));
    check(WRITE, &[], snappy(&bad), 400, "not valid UTF-8").await;
    check(LOKI, &[], snappy(&push_request("{a=", &[(0, "x")])), 400, "error parsing labels").await;
    check(LOKI, &[], snappy(&push_request("", &[(0, "x")])), 400, "error parsing labels").await;
    check(LOKI, &[JSON], b"{\"streams\": 5}".to_vec(), 400, "list of streams").await;
    check(LOKI, &[JSON], b"[[[[[[".to_vec(), 400, "push body").await;
    check(LOKI, &[JSON, ("content-encoding", "gzip")], b"\x1f\x8bxx".to_vec(), 400, "gzip").await;
    // A good series before the damage: nothing is written.
    let mut late = write_request(&[(&[("__name__", "up")], &[(0, 1.0)])]);
    late.extend_from_slice(b"\x0a\x7f");
    check(WRITE, &[], snappy(&late), 400, "claims 127 bytes").await;
    for (path, media) in [("/v1/traces", PROTOBUF), ("/v1/logs", PROTOBUF), ("/otlp/v1/metrics", PROTOBUF)] {
        check(path, &[media], b"\x0a\xff\xff\xff\x7f".to_vec(), 400, "claims").await;
        check(path, &[JSON], b"{\"a\":".to_vec(), 400, r#""code":3"#).await;
    }
    let deep = [
        b"{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{\"body\":".as_slice(),
        &b"{\"arrayValue\":{\"values\":[".repeat(5000),
    ]
    .concat();
    check("/v1/logs", &[JSON], deep, 400, "OTLP JSON").await;
}

/// Every cut of a good request is either refused or written, and nothing panics.
#[tokio::test]
async fn every_cut() {
    let s = setup();
    let body = otlp_traces(&[(1, 1), (2, 2)]).encode_to_vec();
    for i in 0..body.len() {
        let answer = s.post("/v1/traces", &[PROTOBUF], body[..i].to_vec()).await;
        assert!(matches!(answer.status.as_u16(), 200 | 400), "{i}: {}", answer.status);
    }
    let body = write_request(&[(&[("__name__", "up"), ("a", "b")], &[(0, 1.0)])]);
    for i in 0..body.len() {
        let answer = s.post(WRITE, &[("content-encoding", "identity")], body[..i].to_vec()).await;
        assert!(matches!(answer.status.as_u16(), 204 | 400), "{i}: {}", answer.status);
    }
}

#[tokio::test]
async fn tenants() {
    let s = setup_tenants();
    let body = snappy(&push_request(r#"{app="x"}"#, &[(0, "hello")]));
    let long = "x".repeat(151);
    for (id, status) in [
        (None, 401),
        (Some(""), 400),
        (Some(".."), 400),
        (Some("../a"), 400),
        (Some("a/b"), 400),
        (Some("%2e%2e%2fa"), 400),
        (Some("%252e"), 400),
        (Some("a|b"), 400),
        (Some("a\tb"), 400),
        (Some("ü"), 400),
        (Some("index"), 400),
        (Some(long.as_str()), 400),
    ] {
        let headers: Vec<(&str, &str)> = id.iter().map(|id| ("x-scope-orgid", *id)).collect();
        let answer = s.post(LOKI, &headers, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{id:?}: {}", answer.text());
    }
    let answer = s.post(LOKI, &[("x-scope-orgid", "a"), ("x-scope-orgid", "b")], body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "two tenants");
    assert!(s.lines().is_empty());
}

/// A small body that unfolds: a long attribute that stands on every bucket of a wide histogram.
#[tokio::test]
async fn amplification_is_bounded() {
    use opentelemetry_proto::tonic::metrics::v1::{Histogram, HistogramDataPoint};
    let config = Config { batch_bytes_max: 1 << 20, ..Config::default() };
    let s = setup_with(config, Limits::default());
    let mut data = otlp_metrics();
    let point = HistogramDataPoint {
        attributes: vec![attribute("a", &"x".repeat(4000))],
        explicit_bounds: (0..10_000).map(f64::from).collect(),
        bucket_counts: vec![1; 10_001],
        ..Default::default()
    };
    let histogram = Histogram { data_points: vec![point], aggregation_temporality: 2 };
    data.resource_metrics[0].scope_metrics[0].metrics[0].data = Some(Data::Histogram(histogram));
    let answer = s.post("/v1/metrics", &[PROTOBUF], data.encode_to_vec()).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.text().contains("unfolds to more than 1048576 bytes"), "{}", answer.text());
    // One large resource over many traces.
    let mut data = otlp_traces(&(0..200).map(|i| (i + 1, 1)).collect::<Vec<_>>());
    let big = attribute("big", &"x".repeat(10_000));
    data.resource_spans[0].resource.as_mut().unwrap().attributes.push(big);
    let answer = s.post("/v1/traces", &[PROTOBUF], data.encode_to_vec()).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(s.lines().is_empty());
}
