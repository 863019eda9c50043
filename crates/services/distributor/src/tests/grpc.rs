//! OTLP over gRPC: frames by hand, and a real client over a real socket.

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

use super::*;

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut out = vec![flag];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

async fn export(s: &Setup, headers: &[(&str, &str)], body: Vec<u8>) -> (Result<Bytes, Status>, Answer) {
    let mut all = vec![("content-type", "application/grpc"), ("te", "trailers")];
    all.extend(headers);
    let answer = s.post(TRACES, &all, body).await;
    assert_eq!(answer.status, StatusCode::OK, "gRPC answers are 200");
    assert_eq!(answer.headers["content-type"], "application/grpc");
    let result = match Status::from_header_map(&answer.headers) {
        Some(status) => Err(status),
        None => {
            assert_eq!(answer.trailers.as_ref().unwrap()["grpc-status"], "0");
            assert_eq!(answer.body[0], 0);
            Ok(answer.body.slice(5..))
        }
    };
    (result, answer)
}

#[tokio::test]
async fn happy() {
    let s = setup();
    let data = otlp_traces(&[(1, 1), (2, 2)]).encode_to_vec();
    for (headers, body) in [
        (vec![], frame(0, &data)),
        (vec![("grpc-encoding", "gzip")], frame(1, &gzip(&data))),
        (vec![("grpc-encoding", "gzip")], frame(0, &data)),
        (vec![("grpc-encoding", "zstd")], frame(1, &zstd::encode_all(&data[..], 1).unwrap())),
    ] {
        assert_eq!(export(&s, &headers, body).await.0.unwrap(), Bytes::new());
        assert_eq!(s.lines().len(), 2);
    }
    let answer = export(&s, &[], frame(0, &otlp_traces(&[(0, 1), (1, 1)]).encode_to_vec())).await.0.unwrap();
    let partial = ExportTraceServiceResponse::decode(answer).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);
}

#[tokio::test]
async fn hostile() {
    let s = setup_with(Config { request_bytes_max: 4 << 20, ..Config::default() }, Limits::default());
    let bomb = gzip(&vec![0; 5 << 20]);
    for (headers, body, code, text) in [
        (vec![], vec![], Code::InvalidArgument, "cut off after 0 bytes"),
        (vec![], vec![0, 0, 0], Code::InvalidArgument, "cut off after 3 bytes"),
        (vec![], b"\0\xff\xff\xff\xff".to_vec(), Code::InvalidArgument, "claims 4294967295 bytes"),
        (vec![], b"\x02\0\0\0\0".to_vec(), Code::InvalidArgument, "compression flag 2"),
        (vec![], frame(1, b"x"), Code::InvalidArgument, "grpc-encoding is not set"),
        (vec![("grpc-encoding", "gzip")], frame(1, b"x"), Code::InvalidArgument, "gzip"),
        (vec![("grpc-encoding", "gzip")], frame(1, &bomb), Code::InvalidArgument, "limit of 4194304"),
        (vec![("grpc-encoding", "snappy")], frame(1, b"x"), Code::Unimplemented, "snappy"),
        (vec![], frame(0, b"\x0a\x80"), Code::InvalidArgument, "truncated"),
    ] {
        let (result, answer) = export(&s, &headers, body).await;
        let status = result.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
        assert!(status.details().is_empty(), "nobody is told to come again");
        assert_eq!(answer.headers["grpc-accept-encoding"], "identity,gzip,zstd,deflate");
    }
    assert!(s.lines().is_empty());
    let answer = s.post("/opentelemetry.proto.collector.trace.v1.TraceService/Other", &[], vec![]).await;
    assert_eq!(Status::from_header_map(&answer.headers).unwrap().code(), Code::Unimplemented);
}

#[tokio::test]
async fn who_may_come_again() {
    let body = frame(0, &otlp_traces(&[(1, 1)]).encode_to_vec());
    let s = setup();
    s.ingester_answers(Err(unavailable()));
    let status = export(&s, &[], body.clone()).await.0.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);

    let mut limits = Limits::default();
    limits.traces.ingestion_rate_bytes = 10;
    let s = setup_with(Config::default(), limits);
    export(&s, &[], body.clone()).await.0.unwrap();
    let status = export(&s, &[], body.clone()).await.0.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = status.details().to_vec();
    let text = String::from_utf8_lossy(&details).into_owned();
    assert!(text.contains("type.googleapis.com/google.rpc.RetryInfo"), "OTLP senders repeat only with it");

    let s = setup_tenants();
    assert_eq!(export(&s, &[], body.clone()).await.0.unwrap_err().code(), Code::Unauthenticated);
    export(&s, &[("x-scope-orgid", "a")], body).await.0.unwrap();
    assert!(s.lines()[0].starts_with("a "));
}

/// A generated client, compressed, against a tonic server.
#[tokio::test]
async fn a_real_client() {
    let s = setup();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_routes(s.distributor.otlp_grpc())
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let channel =
        tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        if let Some(encoding) = encoding {
            client = client.send_compressed(encoding).accept_compressed(encoding);
        }
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<ExportLogsServiceRequest, ExportLogsServiceResponse>::default();
        let request = ExportLogsServiceRequest { resource_logs: otlp_logs("hello").resource_logs };
        let path =
            http::uri::PathAndQuery::from_static("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
        let answer = client.unary(tonic::Request::new(request), path, codec).await.unwrap();
        assert_eq!(answer.into_inner().partial_success, None);
        assert_eq!(s.lines(), [r#"anonymous {service_name="api"} 0 "hello" {detected_level="unknown"}"#]);
    }
    server.abort();
}
