//! Tempo's streaming search, as Grafana's data source dials it: gRPC without TLS on the port of the HTTP API.

use std::collections::BTreeSet;

use anyhow::Result;
use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// `tempopb.SearchRequest`; times in seconds.
#[derive(Clone, PartialEq, Message)]
struct SearchRequest {
    #[prost(uint32, tag = "4")]
    limit: u32,
    #[prost(uint32, tag = "5")]
    start: u32,
    #[prost(uint32, tag = "6")]
    end: u32,
    #[prost(string, tag = "8")]
    query: String,
}

#[derive(Clone, PartialEq, Message)]
struct SearchResponse {
    #[prost(message, repeated, tag = "1")]
    traces: Vec<TraceSearchMetadata>,
    #[prost(message, optional, tag = "2")]
    metrics: Option<SearchMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct TraceSearchMetadata {
    #[prost(string, tag = "1")]
    trace_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct SearchMetrics {
    #[prost(uint32, tag = "4")]
    completed_jobs: u32,
    #[prost(uint32, tag = "5")]
    total_jobs: u32,
}

/// The ids found, 32 hex digits, sorted; and whether the last message says that all is done.
pub async fn search(base: &str, query: &str, start_s: i64, end_s: i64) -> Result<(Vec<String>, bool)> {
    let channel = Endpoint::from_shared(base.to_owned())?.connect().await?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let request = SearchRequest {
        limit: 1000,
        start: u32::try_from(start_s)?,
        end: u32::try_from(end_s)?,
        query: query.to_owned(),
    };
    let path = PathAndQuery::from_static("/tempopb.StreamingQuerier/Search");
    let codec = ProstCodec::<SearchRequest, SearchResponse>::default();
    let mut messages = client.server_streaming(tonic::Request::new(request), path, codec).await?.into_inner();
    let (mut ids, mut done) = (BTreeSet::new(), false);
    while let Some(message) = messages.message().await? {
        ids.extend(message.traces.iter().map(|t| format!("{:0>32}", t.trace_id)));
        done = message.metrics.is_some_and(|m| m.total_jobs > 0 && m.completed_jobs == m.total_jobs);
    }
    Ok((ids.into_iter().collect(), done))
}
