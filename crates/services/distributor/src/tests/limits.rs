//! Limits of the tenant, budgets of the process, and what ingesters answer.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use triptych_model::TenantId;

use super::*;

const WRITE: &str = "/api/v1/write";
const LOKI: &str = "/loki/api/v1/push";
const PROTOBUF: [(&str, &str); 1] = [("content-type", "application/x-protobuf")];

#[tokio::test]
async fn series_that_break_a_limit() {
    let mut limits = Limits::default();
    limits.metrics.label_names_per_series_max = 3;
    limits.metrics.label_name_bytes_max = 20;
    limits.metrics.label_value_bytes_max = 30;
    let s = setup_with(Config::default(), limits);
    let long = "v".repeat(31);
    let long_name = "n".repeat(21);
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Pairs<'_>, i64, &str, &str); 8] = [
        (&[("job", "x")], 0, "missing_metric_name", "{job=\"x\"}"),
        (&[("__name__", ""), ("job", "x")], 0, "missing_metric_name", ""),
        (&[], 0, "missing_metric_name", "{}"),
        (
            &[("__name__", "x"), ("a", "1"), ("b", "1"), ("c", "1")],
            0,
            "max_label_names_per_series",
            "has 4 labels, the limit is 3",
        ),
        (&[("__name__", "x"), (&long_name, "1")], 0, "label_name_too_long", "21 bytes, the limit is 20"),
        (&[("__name__", "x"), ("a", &long)], 0, "label_value_too_long", "31 bytes, the limit is 30"),
        (
            &[("__name__", "x"), ("a", "1"), ("a", "2")],
            0,
            "duplicate_label_names",
            "label name \"a\" is not unique",
        ),
        (&[("__name__", "x")], 600_001, "too_far_in_future", "600001 ms in the future, the limit is 600s"),
    ];
    for (labels, t, reason, text) in cases {
        // A good series beside it is written.
        let good: Pairs<'_> = &[("__name__", "good")];
        let body = write_request(&[(good, &[(600_000, 1.0)]), (labels, &[(t, 1.0), (t, 2.0)])]);
        let answer = s.post(WRITE, &[], snappy(&body)).await;
        let got = answer.text();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{reason}");
        assert!(got.contains(&format!("(refused: 2, reason: {reason})")) && got.contains(text), "{got}");
        assert_eq!(s.lines(), [r#"anonymous {__name__="good"} 1@600000"#]);
    }
}

#[tokio::test]
async fn lines_that_break_a_limit() {
    let mut limits = Limits::default();
    limits.logs.label_names_per_stream_max = 2;
    limits.logs.label_name_bytes_max = 20;
    limits.logs.label_value_bytes_max = 30;
    limits.logs.line_bytes_max = 100;
    let s = setup_with(Config::default(), limits);
    let day = 86_400;
    let long_name = format!(r#"{{"{}":"1"}}"#, "n".repeat(21));
    let long_value = format!(r#"{{"a":"{}"}}"#, "v".repeat(31));
    let long_line = "x".repeat(101);
    for (labels, t, line, reason, text) in [
        ("{}", 0, "x", "missing_labels", "at least one label pair is required per stream"),
        (r#"{"a":"1","b":"2","c":"3"}"#, 0, "x", "max_label_names_per_series", "has 3 label names; limit 2"),
        (r#"{"a-b":"1"}"#, 0, "x", "invalid_labels", "invalid label name: 'a-b'"),
        (long_name.as_str(), 0, "x", "label_name_too_long", "21 bytes, limit 20"),
        (long_value.as_str(), 0, "x", "label_value_too_long", "31 bytes, limit 30"),
        (r#"{"a":"1"}"#, 0, long_line.as_str(), "line_too_long", "Max entry size '100' bytes exceeded"),
        (r#"{"a":"1"}"#, -7 * day - 1, "x", "greater_than_max_sample_age", "timestamp too old"),
        (r#"{"a":"1"}"#, 601, "x", "too_far_in_future", "timestamp too new"),
    ] {
        let good = (-7 * day, "good");
        let body = push_json(labels, &[(t, line), (t, line)]);
        let good = push_json(r#"{"g":"1"}"#, &[good]);
        let streams = |json: &str| json["{\"streams\":[".len()..json.len() - 2].to_owned();
        let body = format!("{{\"streams\":[{},{}]}}", streams(&good), streams(&body));
        let answer = s.post(LOKI, &[("content-type", "application/json")], body).await;
        let got = answer.text();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{reason}");
        assert!(got.contains(&format!("(refused: 2, reason: {reason})")) && got.contains(text), "{got}");
        assert_eq!(s.lines().len(), 1, "{reason}: the good line is written");
    }
}

#[tokio::test]
async fn structured_metadata() {
    let mut limits = Limits::default();
    limits.logs.structured_metadata_entries_max = 2;
    limits.logs.structured_metadata_bytes_max = 10;
    let s = setup_with(Config::default(), limits);
    for (metadata, reason) in [
        (r#"{"a":"1","b":"2","c":"3"}"#, "structured_metadata_too_many"),
        (r#"{"a":"0123456789"}"#, "structured_metadata_too_large"),
    ] {
        let body =
            format!(r#"{{"streams":[{{"stream":{{"a":"b"}},"values":[["{NOW_NS}","x",{metadata}]]}}]}}"#);
        let answer = s.post(LOKI, &[("content-type", "application/json")], body).await;
        assert!(answer.text().contains(reason), "{}", answer.text());
        assert!(s.lines().is_empty());
    }
}

#[tokio::test]
async fn spans_that_break_a_limit() {
    let mut limits = Limits::default();
    limits.traces.span_bytes_max = 100;
    limits.traces.trace_bytes_max = 300;
    let s = setup_with(Config::default(), limits);
    let mut data = otlp_traces(&[
        (1, 1),
        (1, 2),
        (2, 3),
        (2, 0),
        (3, 1),
        (3, 2),
        (3, 3),
        (3, 4),
        (3, 5),
        (3, 6),
        (3, 7),
    ]);
    data.resource_spans[0].scope_spans[0].spans[0].name = "x".repeat(100);
    let answer = s.post("/v1/traces", &PROTOBUF, data.encode_to_vec()).await;
    assert_eq!(answer.status, StatusCode::OK);
    let partial = ExportTraceServiceResponse::decode(answer.body.clone()).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 9);
    for text in ["span_too_large", "the limit is 100", "invalid_span_id", "trace_too_large", "(300) exceeded"]
    {
        assert!(partial.error_message.contains(text), "{text}: {}", partial.error_message);
    }
    let want: Vec<String> =
        ["01", "02"].iter().map(|id| format!("anonymous {} 5 9 1", id.repeat(16))).collect();
    assert_eq!(s.lines(), want);
    let json = serde_json::to_string(&otlp_traces(&[(0, 1)])).unwrap();
    let answer = s.post("/v1/traces", &[("content-type", "application/json")], json).await;
    let got: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(got["partialSuccess"]["rejectedSpans"], "1");
}

#[tokio::test]
async fn rates() {
    let mut limits = Limits::default();
    limits.metrics.ingestion_rate_bytes = 100;
    limits.logs.ingestion_rate_bytes = 100;
    limits.traces.ingestion_rate_bytes = 100;
    let s = setup_with(Config::default(), limits);
    let write = snappy(&write_request(&[(&[("__name__", "up")], &[(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0)])]));
    let push = snappy(&push_request(r#"{app="x"}"#, &[(0, &"x".repeat(100))]));
    let traces = otlp_traces(&[(1, 1)]).encode_to_vec();
    for (path, headers, body, text) in [
        (WRITE, &[][..], write, "ingestion rate limit exceeded for tenant anonymous (limit: 100 bytes/sec"),
        (LOKI, &[][..], push, "Ingestion rate limit exceeded for user anonymous (limit: 100 bytes/sec)"),
        ("/v1/traces", &PROTOBUF[..], traces, "RATE_LIMITED: ingestion rate limit exceeded"),
    ] {
        let answer = s.post(path, headers, body.clone()).await;
        assert!(answer.status.is_success(), "the first passes: {}", answer.text());
        let answer = s.post(path, headers, body.clone()).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(answer.text().contains(text), "{}", answer.text());
        let after: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=3).contains(&after), "{after}");
        s.clock.advance(Duration::from_secs(after));
        assert!(s.post(path, headers, body).await.status.is_success(), "after the time that was told");
    }
}

#[tokio::test]
async fn a_rate_is_that_of_all_distributors() {
    let mut limits = Limits::default();
    limits.logs.ingestion_rate_bytes = 100;
    let s = setup_with(Config::default(), limits);
    let push = snappy(&push_request(r#"{app="x"}"#, &[(0, &"x".repeat(400))]));
    let mut waits = Vec::new();
    for distributors in [1, 4, 0] {
        s.distributors.send_replace(distributors);
        s.clock.advance(Duration::from_secs(3600));
        assert!(s.post(LOKI, &[], push.clone()).await.status.is_success(), "a burst");
        let answer = s.post(LOKI, &[], push.clone()).await;
        assert!(answer.text().contains("(limit: 100 bytes/sec)"), "{}", answer.text());
        waits.push(answer.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap());
    }
    assert!(waits[1] >= 4 * waits[0] - 4 && waits[1] > waits[0], "{waits:?}");
    assert_eq!(waits[2], waits[0], "before any is known, this one");
}

#[tokio::test]
async fn memory_of_the_process() {
    let share = MemoryBudget::new("memory of pushes under way", 16_000);
    let mut s = setup_all(Config::default(), Limits::default(), true, share.clone());
    let line: String =
        (0..3000u32).map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
    let body = |line: &str| snappy(&push_request(r#"{app="x"}"#, &[(0, line)]));
    let push = async |s: &Setup, tenant: &str, line: &str| {
        s.post(LOKI, &[("x-scope-orgid", tenant)], body(line)).await
    };
    // No size of a request may be more than a fifth.
    assert_eq!(push(&s, "a", &line.repeat(2)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(push(&s, "a", &line).await.status.is_success());

    // Tenant a holds most of it: a is refused for that, others are not.
    let held = share.tenant(&TenantId::new("a").unwrap()).reserve(8000).unwrap();
    s.held = 8000;
    let answer = push(&s, "a", &line).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text());
    assert_eq!(answer.headers["retry-after"], "1");
    assert!(
        answer.text().contains("tenant a holds") && answer.text().contains("of 16000 bytes"),
        "{}",
        answer.text()
    );
    assert!(push(&s, "b", "short").await.status.is_success());

    // Nothing is left: that is not b's doing.
    let rest = share.reserve(7990).unwrap();
    s.held = 15_990;
    let answer = push(&s, "b", "short").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
    assert_eq!(answer.headers["retry-after"], "1");
    assert!(answer.text().contains("the limit is 16000"), "{}", answer.text());
    drop((held, rest));
}

#[tokio::test]
async fn what_ingesters_answer() {
    let body = snappy(&push_request(r#"{app="x"}"#, &[(0, "x")]));
    for (error, status, retry) in [
        (unavailable(), 503, true),
        (Error::exhausted("per-user streams limit reached").retry_after(Duration::from_secs(7)), 429, true),
        (Error::internal("oops"), 500, false),
        (Error::damaged("oops"), 500, false),
        (Error::invalid("no"), 400, false),
    ] {
        let s = setup();
        let text = error.to_string();
        s.ingester_answers(Err(error));
        let answer = s.post(LOKI, &[], body.clone()).await;
        assert_eq!(answer.status.as_u16(), status);
        assert!(answer.text().contains(&text));
        assert_eq!(answer.headers.contains_key("retry-after"), retry);
    }
    let s = setup();
    let mut report = PushReport { accepted: 1, ..PushReport::default() };
    report.refuse("out_of_order", 2, || "entry out of order".to_owned());
    s.ingester_answers(Ok(report));
    let answer = s.post(LOKI, &[], body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.text(), "entry out of order (refused: 2, reason: out_of_order)\n");
}

#[test]
fn configs_that_make_no_sense() {
    let deps = || Deps {
        ingesters: ingesters([Arc::default()]),
        replication: Replication::new(1),
        distributors: tokio::sync::watch::Sender::new(1).subscribe(),
        limits: TenantLimits::default(),
        clock: ManualClock::at_ns(0),
        multitenancy: false,
        memory: memory(),
    };
    assert!(Config::default().build(deps()).is_ok());
    let none = Deps { memory: MemoryBudget::new("memory of pushes under way", 0), ..deps() };
    assert!(Config::default().build(none).err().unwrap().to_string().contains("memory_limit"));
    assert!(
        serde_json::from_str::<Config>(r#"{"body_bytes_max":"1MiB"}"#).unwrap().body_bytes_max == 1 << 20
    );
    assert!(serde_json::from_str::<Config>(r#"{"body_byte_max":"1MiB"}"#).is_err());
}
