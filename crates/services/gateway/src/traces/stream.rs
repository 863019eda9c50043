//! `tempopb.StreamingQuerier`: the questions of Tempo's HTTP API over gRPC, answered piece by piece. Grafana's data source dials
//! it on the port of its URL (HTTP/2 without TLS beside HTTP/1.1).
//!
//! A request is turned into the parameters of the HTTP endpoint with the same meaning, so that both ask the same question under
//! the same limits. The tenant is in the metadata `x-scope-orgid`. A client that goes away cancels its question.
//!
//! Searches tell traces as they are found; a trace comes again when another source adds to it. Metrics and tags are told when
//! they are complete. The last message has the whole cost; until then a job is open. Searches and tags have no field for what
//! was missed: then fewer jobs are complete than there were.

mod message;

use std::collections::HashSet;
use std::sync::Arc;

use axum::Router;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use triptych_model::traces::TraceId;
use triptych_model::{Error, Result};
use triptych_rpc::status::to_status;
use triptych_rpc::tenant_of;

use super::{TRACES_DEFAULT, flat_names, flat_values, old_name};
use crate::Shared;
use crate::params::Params;
use crate::request::Asked;
use tempopb::streaming_querier_server::{StreamingQuerier, StreamingQuerierServer};

/// Generated from `proto/tempopb/streaming.proto`.
#[allow(missing_docs, clippy::all, rust_2018_idioms, reason = "generated")]
pub mod tempopb {
    tonic::include_proto!("tempopb");
}

/// Most traces in one message.
const TRACES_PER_MESSAGE_MAX: usize = 256;

/// The service at its gRPC path.
pub fn routes(shared: Arc<Shared>) -> Router {
    let service = StreamingQuerierServer::new(Service(shared));
    let path = format!("/{}/{{*method}}", StreamingQuerierServer::<Service>::NAME);
    Router::new().route_service(&path, service)
}

struct Service(Arc<Shared>);

type Messages<T> = BoxStream<'static, Result<T, Status>>;
type Answer<T> = Result<Response<Messages<T>>, Status>;

impl Service {
    fn asked(
        &self,
        metadata: &MetadataMap,
        pairs: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Asked, Status> {
        let headers = metadata.clone().into_headers();
        let tenant = tenant_of(&headers, self.0.multitenancy).map_err(|e| e.grpc_status())?;
        Asked::new(&self.0, tenant, Params::of(pairs), headers).map_err(to_status)
    }
}

/// An answer that is ready in one piece.
fn whole<T: Send + 'static>(answer: Result<T>) -> Answer<T> {
    let answer = answer.map_err(to_status)?;
    Ok(Response::new(stream::once(async { Ok(answer) }).boxed()))
}

/// Numbers of a message that say nothing when they are 0, as a parameter says nothing when it is empty.
fn text<N: PartialEq + Default + ToString>(number: N) -> String {
    if number == N::default() { String::new() } else { number.to_string() }
}

/// Milliseconds and nanoseconds as a duration; empty for 0.
fn duration<N: PartialEq + Default + ToString>(number: N, unit: &str) -> String {
    if number == N::default() { String::new() } else { format!("{}{unit}", number.to_string()) }
}

/// `a="b" c="d e"`, as the parameter `tags` has it.
fn tags_text(tags: std::collections::HashMap<String, String>) -> String {
    let mut pairs: Vec<String> =
        tags.into_iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    pairs.sort();
    pairs.join(" ")
}

fn search_params(request: tempopb::SearchRequest) -> [(&'static str, String); 8] {
    [
        ("q", request.query),
        ("tags", tags_text(request.tags)),
        ("minDuration", duration(request.min_duration_ms, "ms")),
        ("maxDuration", duration(request.max_duration_ms, "ms")),
        ("limit", text(request.limit)),
        ("start", text(request.start)),
        ("end", text(request.end)),
        ("spss", text(request.spans_per_span_set)),
    ]
}

fn names_params(request: tempopb::SearchTagsRequest) -> [(&'static str, String); 5] {
    [
        ("scope", request.scope),
        ("q", request.query),
        ("start", text(request.start)),
        ("end", text(request.end)),
        ("limit", text(request.max_tags_per_scope)),
    ]
}

fn values_params(request: &tempopb::SearchTagValuesRequest) -> [(&'static str, String); 4] {
    [
        ("q", request.query.clone()),
        ("start", text(request.start)),
        ("end", text(request.end)),
        ("limit", text(request.max_tag_values)),
    ]
}

#[tonic::async_trait]
impl StreamingQuerier for Service {
    type SearchStream = Messages<tempopb::SearchResponse>;
    type SearchTagsStream = Messages<tempopb::SearchTagsResponse>;
    type SearchTagsV2Stream = Messages<tempopb::SearchTagsV2Response>;
    type SearchTagValuesStream = Messages<tempopb::SearchTagValuesResponse>;
    type SearchTagValuesV2Stream = Messages<tempopb::SearchTagValuesV2Response>;
    type MetricsQueryRangeStream = Messages<tempopb::QueryRangeResponse>;
    type MetricsQueryInstantStream = Messages<tempopb::QueryInstantResponse>;

    async fn search(&self, request: Request<tempopb::SearchRequest>) -> Answer<tempopb::SearchResponse> {
        let (metadata, _, request) = request.into_parts();
        let asked = self.asked(&metadata, search_params(request))?;
        Ok(Response::new(found(asked).map(|message| message.map_err(to_status)).boxed()))
    }

    async fn search_tags(
        &self,
        request: Request<tempopb::SearchTagsRequest>,
    ) -> Answer<tempopb::SearchTagsResponse> {
        let (metadata, _, request) = request.into_parts();
        let asked = self.asked(&metadata, names_params(request))?;
        let answer = async {
            let select = super::tags_select(&asked, "")?;
            let tag_names = flat_names(asked.shared.traces.tag_names(&asked.ctx, &select).await?);
            Ok(tempopb::SearchTagsResponse { tag_names, metrics: Some(message::tags_cost(&asked)) })
        };
        whole(answer.await)
    }

    async fn search_tags_v2(
        &self,
        request: Request<tempopb::SearchTagsRequest>,
    ) -> Answer<tempopb::SearchTagsV2Response> {
        let (metadata, _, request) = request.into_parts();
        let asked = self.asked(&metadata, names_params(request))?;
        let answer = async {
            let select = super::tags_select(&asked, "")?;
            let scopes = asked.shared.traces.tag_names(&asked.ctx, &select).await?;
            let scopes =
                scopes.into_iter().map(|s| tempopb::SearchTagsV2Scope { name: s.scope, tags: s.tags });
            Ok(tempopb::SearchTagsV2Response {
                scopes: scopes.collect(),
                metrics: Some(message::tags_cost(&asked)),
            })
        };
        whole(answer.await)
    }

    async fn search_tag_values(
        &self,
        request: Request<tempopb::SearchTagValuesRequest>,
    ) -> Answer<tempopb::SearchTagValuesResponse> {
        let (metadata, _, request) = request.into_parts();
        let asked = self.asked(&metadata, values_params(&request))?;
        let answer = async {
            let select = super::tags_select(&asked, &old_name(request.tag_name))?;
            let values = asked.shared.traces.tag_values(&asked.ctx, &select).await?;
            Ok(tempopb::SearchTagValuesResponse {
                tag_values: flat_values(&values),
                metrics: Some(message::tags_cost(&asked)),
            })
        };
        whole(answer.await)
    }

    async fn search_tag_values_v2(
        &self,
        request: Request<tempopb::SearchTagValuesRequest>,
    ) -> Answer<tempopb::SearchTagValuesV2Response> {
        let (metadata, _, request) = request.into_parts();
        let asked = self.asked(&metadata, values_params(&request))?;
        let answer = async {
            let select = super::tags_select(&asked, &request.tag_name)?;
            let values = asked.shared.traces.tag_values(&asked.ctx, &select).await?;
            let values = values
                .iter()
                .map(|v| tempopb::TagValue { r#type: v.type_name().to_owned(), value: v.to_string() });
            Ok(tempopb::SearchTagValuesV2Response {
                tag_values: values.collect(),
                metrics: Some(message::tags_cost(&asked)),
            })
        };
        whole(answer.await)
    }

    async fn metrics_query_range(
        &self,
        request: Request<tempopb::QueryRangeRequest>,
    ) -> Answer<tempopb::QueryRangeResponse> {
        let (metadata, _, request) = request.into_parts();
        let params = [
            ("q", request.query),
            ("start", text(request.start)),
            ("end", text(request.end)),
            ("step", duration(request.step, "ns")),
        ];
        let asked = self.asked(&metadata, params)?;
        let answer = async {
            let series = super::series(&asked, &super::range_question(&asked)?).await?;
            let (status, message) = message::status(&asked);
            Ok(tempopb::QueryRangeResponse {
                series: series.into_iter().map(message::range_series).collect(),
                metrics: Some(message::search_cost(&asked, true)),
                status,
                message,
            })
        };
        whole(answer.await)
    }

    async fn metrics_query_instant(
        &self,
        request: Request<tempopb::QueryInstantRequest>,
    ) -> Answer<tempopb::QueryInstantResponse> {
        let (metadata, _, request) = request.into_parts();
        let params = [("q", request.query), ("start", text(request.start)), ("end", text(request.end))];
        let asked = self.asked(&metadata, params)?;
        let answer = async {
            let series = super::series(&asked, &super::instant_question(&asked)?).await?;
            let (status, message) = message::status(&asked);
            Ok(tempopb::QueryInstantResponse {
                series: series.into_iter().filter_map(message::instant_series).collect(),
                metrics: Some(message::search_cost(&asked, true)),
                status,
                message,
            })
        };
        whole(answer.await)
    }
}

/// Traces as they are found, until there are as many as asked for. The question lives as long as the stream.
fn found(asked: Asked) -> BoxStream<'static, Result<tempopb::SearchResponse, Error>> {
    async_stream::try_stream! {
        let search = super::trace_search(&asked)?;
        let limit = if search.limit == 0 { TRACES_DEFAULT } else { search.limit };
        let mut matches =
            asked.shared.traces.search(&asked.ctx, &search).await?.ready_chunks(TRACES_PER_MESSAGE_MAX);
        let mut told: HashSet<TraceId> = HashSet::new();
        while told.len() < limit && let Some(ready) = matches.next().await {
            let mut traces = Vec::with_capacity(ready.len());
            for one in ready {
                let one = one?;
                if told.len() < limit || told.contains(&one.trace_id) {
                    told.insert(one.trace_id);
                    traces.push(message::trace(one));
                }
            }
            if !traces.is_empty() {
                yield tempopb::SearchResponse { traces, metrics: Some(message::search_cost(&asked, false)) };
            }
        }
        drop(matches);
        yield tempopb::SearchResponse { traces: vec![], metrics: Some(message::search_cost(&asked, true)) };
    }
    .boxed()
}

#[cfg(test)]
mod tests;
