//! What well-behaved senders get.

use prost::Message as _;
use triptych_model::batch::{LogRecordEntry, LogsBuilder, MetricsBuilder, TracesBuilder};
use triptych_model::metrics::Sample;
use triptych_model::{Kind, TenantId};
use triptych_rpc::Write;

use super::*;

#[tokio::test]
async fn remote_write() {
    let s = setup();
    let series: [Series<'_>; 2] = [
        (&[("job", "a"), ("__name__", "up")], &[(0, 1.0), (-15_000, 0.0)]),
        (&[("__name__", "down")], &[(0, 1.5)]),
    ];
    let body = snappy(&write_request(&series));
    for path in ["/api/v1/write", "/api/v1/push"] {
        let headers = [("content-encoding", "snappy"), ("content-type", "application/x-protobuf")];
        for headers in [&headers[..], &[]] {
            let answer = s.post(path, headers, body.clone()).await;
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::NO_CONTENT, ""));
            assert_eq!(
                s.lines(),
                [
                    r#"anonymous {__name__="up", job="a"} 1@0 0@-15000"#,
                    r#"anonymous {__name__="down"} 1.5@0"#
                ]
            );
        }
    }
    let answer = s.post("/api/v1/write", &[], snappy(&[])).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "an empty request is fine");
    assert!(s.lines().is_empty());
}

#[tokio::test]
async fn remote_write_2() {
    let s = setup();
    let mut body = Vec::new();
    for symbol in ["", "__name__", "up", "job", "a"] {
        put_bytes(&mut body, 4, symbol.as_bytes());
    }
    for refs in [[1, 2, 3, 4], [3, 4, 3, 4]] {
        message(&mut body, 5, |out| {
            put_bytes(out, 1, &refs);
            for t in [0, 1] {
                message(out, 2, |out| {
                    put_fixed64(out, 1, 1.0f64.to_bits());
                    put_varint(out, 2, (NOW_MS + t) as u64);
                });
            }
            message(out, 4, |out| put_bytes(out, 1, &[3, 4]));
        });
    }
    let v2 = ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request");
    let answer = s.post("/api/v1/write", &[v2, ("content-encoding", "snappy")], snappy(&body)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "one of two series is refused");
    assert!(answer.text().contains("duplicate_label_names"), "{}", answer.text());
    for (kind, count) in [("samples", "2"), ("histograms", "0"), ("exemplars", "1")] {
        assert_eq!(answer.headers[format!("x-prometheus-remote-write-{kind}-written")], count);
    }
    assert_eq!(s.lines()[0], r#"anonymous {__name__="up", job="a"} 1@0 1@1"#);
}

#[tokio::test]
async fn loki_push() {
    let s = setup();
    let want = [
        r#"anonymous {app="x", service_name="x"} 0 "hello" {detected_level="unknown"}"#,
        r#"anonymous {app="x", service_name="x"} -1000000000 "there" {detected_level="unknown"}"#,
    ];
    let entries = [(0, "hello"), (-1, "there")];
    let protobuf = push_request(r#"{app="x"}"#, &entries);
    let json = push_json(r#"{"app":"x"}"#, &entries);
    let path = "/loki/api/v1/push";
    let zstd = zstd::encode_all(&protobuf[..], 1).unwrap();
    for (headers, body) in [
        (vec![("content-type", "application/x-protobuf")], snappy(&protobuf)),
        (vec![], snappy(&protobuf)),
        (vec![("content-encoding", "zstd")], zstd),
        (vec![("content-type", "application/json; charset=utf-8")], json.clone().into_bytes()),
        (vec![("content-type", "application/json"), ("content-encoding", "gzip")], gzip(json.as_bytes())),
    ] {
        let answer = s.post(path, &headers, body).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::NO_CONTENT, ""), "{headers:?}");
        assert_eq!(s.lines(), want, "{headers:?}");
    }
    let config = Config { discover_service_name: false, discover_log_levels: false, ..Config::default() };
    let s = setup_with(config, Limits::default());
    s.post(path, &[], snappy(&protobuf)).await;
    assert_eq!(s.lines()[0], r#"anonymous {app="x"} 0 "hello" {}"#);
}

#[tokio::test]
async fn detected_levels() {
    let s = setup();
    for (labels, values, want) in [
        (r#"{"a":"x"}"#, r#"["T","level=warn"]"#, r#"{detected_level="warn"}"#),
        (r#"{"a":"x"}"#, r#"["T","x",{"a":"1","z":"2"}]"#, r#"{a="1", detected_level="unknown", z="2"}"#),
        (r#"{"a":"x"}"#, r#"["T","warn",{"severity":"err"}]"#, r#"{detected_level="error", severity="err"}"#),
        (r#"{"a":"x"}"#, r#"["T","warn",{"detected_level":"INFO"}]"#, r#"{detected_level="info"}"#),
        (r#"{"a":"x","level":"Debug"}"#, r#"["T","level=warn"]"#, r#"{detected_level="debug"}"#),
    ] {
        let values = values.replace('T', &NOW_NS.to_string());
        let body = format!(r#"{{"streams":[{{"stream":{labels},"values":[{values}]}}]}}"#);
        let answer = s.post("/loki/api/v1/push", &[("content-type", "application/json")], body).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text());
        let lines = s.lines();
        assert!(lines.len() == 1 && lines[0].ends_with(want), "{lines:?} {want}");
    }
}

#[tokio::test]
async fn otlp() {
    let s = setup();
    let traces = otlp_traces(&[(1, 1), (2, 2), (1, 3)]);
    let one = "01".repeat(16);
    let two = "02".repeat(16);
    let cases = [
        (
            "traces",
            traces.encode_to_vec(),
            serde_json::to_string(&traces).unwrap(),
            vec![format!("anonymous {one} 5 9 2"), format!("anonymous {two} 5 9 1")],
        ),
        (
            "logs",
            otlp_logs("hello").encode_to_vec(),
            serde_json::to_string(&otlp_logs("hello")).unwrap(),
            vec![r#"anonymous {service_name="api"} 0 "hello" {detected_level="unknown"}"#.to_owned()],
        ),
        (
            "metrics",
            otlp_metrics().encode_to_vec(),
            serde_json::to_string(&otlp_metrics()).unwrap(),
            vec![
                r##"anonymous # queue_length gauge "" """##.to_owned(),
                r#"anonymous {__name__="queue_length", job="api"} 2.5@0"#.to_owned(),
            ],
        ),
    ];
    for (signal, protobuf, json, want) in cases {
        for path in [format!("/v1/{signal}"), format!("/otlp/v1/{signal}")] {
            let answer = s.post(&path, &[("content-type", "application/x-protobuf")], protobuf.clone()).await;
            assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0), "{}", answer.text());
            assert_eq!(answer.headers["content-type"], "application/x-protobuf");
            assert_eq!(s.lines(), want);
            let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
            let answer = s.post(&path, &headers, gzip(json.as_bytes())).await;
            assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, r#"{"partialSuccess":{}}"#));
            assert_eq!(answer.headers["content-type"], "application/json");
            assert_eq!(s.lines(), want);
        }
    }
    let headers = [("content-type", "application/x-protobuf")];
    let answer = s.post("/api/v1/otlp/v1/metrics", &headers, otlp_metrics().encode_to_vec()).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn tenants() {
    let s = setup_tenants();
    let body = snappy(&push_request(r#"{app="x"}"#, &[(0, "hello")]));
    let answer = s.post("/loki/api/v1/push", &[("x-scope-orgid", "team-a")], body.clone()).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(s.lines()[0].starts_with("team-a "));
    // Off: the header is not looked at.
    let s = setup();
    s.post("/loki/api/v1/push", &[("x-scope-orgid", "../team-a")], body).await;
    assert!(s.lines()[0].starts_with("anonymous "));
}

#[tokio::test]
async fn shards() {
    let ingesters: Vec<Arc<Recorder>> = (0..3).map(|_| Arc::default()).collect();
    let deps = Deps {
        ingesters: super::ingesters(ingesters.clone()),
        replication: Replication::new(1),
        distributors: tokio::sync::watch::Sender::new(1).subscribe(),
        limits: TenantLimits::default(),
        clock: ManualClock::at_ns(NOW_NS),
        multitenancy: false,
        memory: memory(),
    };
    let distributor = Config::default().build(deps).unwrap();
    let ctx = WriteContext { tenant: TenantId::single() };
    let mut batch = MetricsBuilder::default();
    for i in 0..300 {
        let labels = Labels::from_pairs([("__name__", "m"), ("i", i.to_string().as_str())]);
        batch.series(labels.hash64(), labels.as_encoded(), &[Sample { t_ms: NOW_MS, value: 1.0 }]);
    }
    let report = distributor.metrics(&ctx, batch).await.unwrap();
    assert_eq!(report.accepted, 300);
    for ingester in ingesters {
        assert!((60..140).contains(&ingester.lines.lock().len()), "spread evenly");
    }
}

#[tokio::test]
async fn parts_of_the_same_process() {
    let s = setup();
    let ctx = WriteContext { tenant: TenantId::single() };
    let good = Labels::from_pairs([("__name__", "up")]);
    let nameless = Labels::from_pairs([("job", "x")]);
    let sample = Sample { t_ms: NOW_MS, value: 1.0 };
    let mut batch = MetricsBuilder::default();
    batch.series(0, good.as_encoded(), &[sample]);
    batch.series(0, nameless.as_encoded(), &[sample, sample]);
    batch.metadata("up", Default::default(), "help", "");
    batch.exemplar(0, good.as_encoded(), nameless.as_encoded(), sample);
    let report = s.distributor.metrics(&ctx, batch).await.unwrap();
    assert_eq!((report.accepted, report.refused["missing_metric_name"].items), (1, 2));
    assert_eq!(
        s.lines(),
        [
            r#"anonymous {__name__="up"} 1@0"#,
            r##"anonymous # up unknown "help" """##,
            r#"anonymous {__name__="up"} # {job="x"} 1"#
        ]
    );

    let mut batch = LogsBuilder::default();
    let labels = Labels::from_pairs([("service_name", "x")]);
    let entry = |ts_ns| LogRecordEntry { ts_ns, line: "hello", metadata: nameless.as_encoded() };
    batch.stream(0, labels.as_encoded(), [entry(NOW_NS), entry(0)].into_iter());
    let report = s.distributor.logs(&ctx, batch).await.unwrap();
    assert_eq!((report.accepted, report.refused["greater_than_max_sample_age"].items), (1, 1));
    assert_eq!(s.lines(), [r#"anonymous {service_name="x"} 0 "hello" {detected_level="unknown", job="x"}"#]);

    let mut batch = TracesBuilder::default();
    batch.trace(&[1; 16], 0, 0, 1, &otlp_traces(&[(1, 1)]).encode_to_vec());
    assert_eq!(s.distributor.traces(&ctx, batch).await.unwrap().accepted, 1);
    assert_eq!(s.lines(), [format!("anonymous {} 5 9 1", "01".repeat(16))]);

    s.ingester_answers(Err(unavailable()));
    let mut batch = MetricsBuilder::default();
    batch.series(0, good.as_encoded(), &[sample]);
    assert_eq!(s.distributor.metrics(&ctx, batch).await.unwrap_err().kind, Kind::Unavailable);
    let mut damaged = MetricsBuilder::default();
    damaged.series(0, b"\xff\xff", &[sample]);
    assert!(s.distributor.metrics(&ctx, damaged).await.is_err());
}
