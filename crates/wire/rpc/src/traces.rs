//! `TracesStore` over gRPC.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use triptych_model::traces::{
    ScopeTags, SpanId, SpanMatch, SpanSample, SpanSampleSelect, SpanSet, TagsSelect, TraceId, TraceMatch,
    TraceParts, TraceSamples, TraceSearch, Value,
};
use triptych_model::{Error, Labels, Result, Version};
use triptych_runtime::QueryContext;

use crate::channel::MESSAGE_BYTES_MAX;
use crate::context::{context_from_proto, context_to_proto, report_to_proto, take_report, within};
use crate::convert::{
    Frame, FrameStream, LabelTable, at, batched, flattened, frames, items, table_from_proto,
    versions_from_proto, versions_from_request, versions_request, versions_to_proto,
};
use crate::proto::{self, traces_store_client, traces_store_server, value};
use crate::status::to_status;
use crate::traits::{Stream, TracesStore};

/// Traces per frame.
const TRACES_PER_FRAME_MAX: usize = 256;

/// Serves any [`TracesStore`].
pub struct TracesStoreServer(Arc<dyn TracesStore>);

impl TracesStoreServer {
    pub fn service(store: Arc<dyn TracesStore>) -> traces_store_server::TracesStoreServer<Self> {
        traces_store_server::TracesStoreServer::new(Self(store))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn id<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::invalid(format!("id has {} bytes, not {N}", bytes.len())))
}

fn value_to_proto(value: Value) -> proto::Value {
    let value = match value {
        Value::String(s) => Some(value::Value::StringValue(s)),
        Value::Int(i) => Some(value::Value::IntValue(i)),
        Value::Float(f) => Some(value::Value::FloatValue(f)),
        Value::Bool(b) => Some(value::Value::BoolValue(b)),
        Value::Duration(ns) => Some(value::Value::DurationNs(ns)),
        Value::Status(s) => Some(value::Value::Status(s)),
        Value::SpanKind(k) => Some(value::Value::SpanKind(k)),
        Value::Nil => None,
    };
    proto::Value { value }
}

fn value_from_proto(value: proto::Value) -> Value {
    match value.value {
        Some(value::Value::StringValue(s)) => Value::String(s),
        Some(value::Value::IntValue(i)) => Value::Int(i),
        Some(value::Value::FloatValue(f)) => Value::Float(f),
        Some(value::Value::BoolValue(b)) => Value::Bool(b),
        Some(value::Value::DurationNs(ns)) => Value::Duration(ns),
        Some(value::Value::Status(s)) => Value::Status(s),
        Some(value::Value::SpanKind(k)) => Value::SpanKind(k),
        None => Value::Nil,
    }
}

fn attributes_to_proto(attributes: Vec<(String, Value)>) -> Vec<proto::Attribute> {
    attributes
        .into_iter()
        .map(|(name, v)| proto::Attribute { name, value: Some(value_to_proto(v)) })
        .collect()
}

fn attributes_from_proto(attributes: Vec<proto::Attribute>) -> Vec<(String, Value)> {
    attributes.into_iter().map(|a| (a.name, value_from_proto(a.value.unwrap_or_default()))).collect()
}

fn match_to_proto(found: TraceMatch) -> proto::TraceMatch {
    let span = |s: SpanMatch| proto::SpanMatch {
        span_id: Bytes::copy_from_slice(&s.span_id),
        name: s.name,
        start_ns: s.start_ns,
        duration_ns: s.duration_ns,
        attributes: attributes_to_proto(s.attributes),
    };
    let set = |s: SpanSet| proto::SpanSet {
        spans: s.spans.into_iter().map(span).collect(),
        matched: s.matched,
        attributes: attributes_to_proto(s.attributes),
    };
    let services = found.services.into_iter();
    proto::TraceMatch {
        trace_id: Bytes::copy_from_slice(&found.trace_id),
        root_service: found.root_service,
        root_name: found.root_name,
        start_ns: found.start_ns,
        duration_ns: found.duration_ns,
        span_sets: found.span_sets.into_iter().map(set).collect(),
        services: services
            .map(|(service, spans, errors)| proto::ServiceSpans { service, spans, errors })
            .collect(),
    }
}

fn match_from_proto(found: proto::TraceMatch) -> Result<TraceMatch> {
    let span = |s: proto::SpanMatch| {
        Ok(SpanMatch {
            span_id: id(&s.span_id)?,
            name: s.name,
            start_ns: s.start_ns,
            duration_ns: s.duration_ns,
            attributes: attributes_from_proto(s.attributes),
        })
    };
    let set = |s: proto::SpanSet| {
        Ok(SpanSet {
            spans: s.spans.into_iter().map(span).collect::<Result<_>>()?,
            matched: s.matched,
            attributes: attributes_from_proto(s.attributes),
        })
    };
    Ok(TraceMatch {
        trace_id: id(&found.trace_id)?,
        root_service: found.root_service,
        root_name: found.root_name,
        start_ns: found.start_ns,
        duration_ns: found.duration_ns,
        span_sets: found.span_sets.into_iter().map(set).collect::<Result<_>>()?,
        services: found.services.into_iter().map(|s| (s.service, s.spans, s.errors)).collect(),
    })
}

fn samples_to_proto(traces: Vec<TraceSamples>) -> proto::TraceSamplesFrame {
    let mut table = LabelTable::default();
    let mut columns = |t: TraceSamples| {
        let all_one = t.samples.iter().all(|s| s.value == 1.0);
        let mut span_ids = BytesMut::with_capacity(t.samples.len() * size_of::<SpanId>());
        t.samples.iter().for_each(|s| span_ids.extend_from_slice(&s.span_id));
        proto::TraceSamples {
            trace_id: Bytes::copy_from_slice(&t.trace_id),
            span_ids: span_ids.freeze(),
            ts_ns: t.samples.iter().map(|s| s.ts_ns).collect(),
            values: if all_one { vec![] } else { t.samples.iter().map(|s| s.value).collect() },
            labels: t.samples.into_iter().map(|s| table.position(s.labels)).collect(),
        }
    };
    let traces = traces.into_iter().map(&mut columns).collect();
    proto::TraceSamplesFrame { label_sets: table.sets, traces, report: None }
}

fn samples_from_proto(table: &[Labels], trace: proto::TraceSamples) -> Result<TraceSamples> {
    let (span_ids, torn) = trace.span_ids.as_chunks::<{ size_of::<SpanId>() }>();
    let count = span_ids.len();
    let values = trace.values.len();
    if !torn.is_empty()
        || trace.ts_ns.len() != count
        || trace.labels.len() != count
        || (values != count && values != 0)
    {
        return Err(Error::damaged("samples frame: columns of different length"));
    }
    let samples = span_ids.iter().zip(&trace.ts_ns).zip(&trace.labels).enumerate();
    let samples = samples.map(|(i, ((span_id, ts_ns), labels))| {
        let value = trace.values.get(i).copied().unwrap_or(1.0);
        Ok(SpanSample { labels: at(table, *labels)?, ts_ns: *ts_ns, value, span_id: *span_id })
    });
    Ok(TraceSamples { trace_id: id(&trace.trace_id)?, samples: samples.collect::<Result<_>>()? })
}

fn tags_from_proto(request: proto::TagsRequest) -> Result<(QueryContext, TagsSelect), Status> {
    let ctx = context_from_proto(request.context)?;
    let select = TagsSelect {
        scope: request.scope,
        name: request.name,
        query: request.query,
        start_ns: request.start_ns,
        end_ns: request.end_ns,
        limit: request.limit as usize,
    };
    Ok((ctx, select))
}

#[async_trait]
impl traces_store_server::TracesStore for TracesStoreServer {
    type SearchStream = FrameStream<proto::SearchFrame>;
    type SamplesStream = FrameStream<proto::TraceSamplesFrame>;

    async fn find(
        &self,
        request: Request<proto::FindRequest>,
    ) -> Result<Response<proto::FindResponse>, Status> {
        let request = request.into_inner();
        let ctx = context_from_proto(request.context)?;
        let _guard = ctx.cancel_on_drop();
        let trace_id = id(&request.trace_id).map_err(to_status)?;
        let parts =
            self.0.find(&ctx, &trace_id, request.start_ns, request.end_ns).await.map_err(to_status)?;
        Ok(Response::new(proto::FindResponse { otlp: parts.otlp, report: report_to_proto(&ctx) }))
    }

    async fn search(
        &self,
        request: Request<proto::SearchRequest>,
    ) -> Result<Response<Self::SearchStream>, Status> {
        let request = request.into_inner();
        let ctx = context_from_proto(request.context)?;
        let search = TraceSearch {
            query: request.query,
            start_ns: request.start_ns,
            end_ns: request.end_ns,
            limit: request.limit as usize,
            spans_per_set: request.spans_per_set as usize,
        };
        let found = self.0.search(&ctx, &search).await.map_err(to_status)?;
        Ok(Response::new(frames(
            ctx,
            batched(found, TRACES_PER_FRAME_MAX),
            |batch| proto::SearchFrame {
                traces: batch.into_iter().map(match_to_proto).collect(),
                report: None,
            },
            |ctx| proto::SearchFrame { traces: vec![], report: report_to_proto(ctx) },
        )))
    }

    async fn samples(
        &self,
        request: Request<proto::SpanSampleSelectRequest>,
    ) -> Result<Response<Self::SamplesStream>, Status> {
        let request = request.into_inner();
        let ctx = context_from_proto(request.context)?;
        let select =
            SpanSampleSelect { query: request.query, start_ns: request.start_ns, end_ns: request.end_ns };
        let samples = self.0.samples(&ctx, &select).await.map_err(to_status)?;
        let last = |ctx: &QueryContext| proto::TraceSamplesFrame {
            report: report_to_proto(ctx),
            ..Default::default()
        };
        Ok(Response::new(frames(ctx, batched(samples, TRACES_PER_FRAME_MAX), samples_to_proto, last)))
    }

    async fn tag_names(
        &self,
        request: Request<proto::TagsRequest>,
    ) -> Result<Response<proto::TagNamesResponse>, Status> {
        let (ctx, select) = tags_from_proto(request.into_inner())?;
        let _guard = ctx.cancel_on_drop();
        let found = self.0.tag_names(&ctx, &select).await.map_err(to_status)?;
        let scopes = found.into_iter().map(|s| proto::ScopeTags { scope: s.scope, tags: s.tags }).collect();
        Ok(Response::new(proto::TagNamesResponse { scopes, report: report_to_proto(&ctx) }))
    }

    async fn tag_values(
        &self,
        request: Request<proto::TagsRequest>,
    ) -> Result<Response<proto::TagValuesResponse>, Status> {
        let (ctx, select) = tags_from_proto(request.into_inner())?;
        let _guard = ctx.cancel_on_drop();
        let found = self.0.tag_values(&ctx, &select).await.map_err(to_status)?;
        let values = found.into_iter().map(value_to_proto).collect();
        Ok(Response::new(proto::TagValuesResponse { values, report: report_to_proto(&ctx) }))
    }

    async fn versions(
        &self,
        request: Request<proto::VersionsRequest>,
    ) -> Result<Response<proto::VersionsResponse>, Status> {
        let (ctx, ranges) = versions_from_request(request.into_inner())?;
        let _guard = ctx.cancel_on_drop();
        let versions = self.0.versions(&ctx, &ranges).await.map_err(to_status)?;
        Ok(Response::new(versions_to_proto(&ctx, &versions)))
    }
}

impl Frame for proto::SearchFrame {
    type Item = TraceMatch;

    fn take_report(&mut self) -> Option<proto::Report> {
        self.report.take()
    }

    fn into_items(self) -> Result<Vec<TraceMatch>> {
        self.traces.into_iter().map(match_from_proto).collect()
    }
}

impl Frame for proto::TraceSamplesFrame {
    type Item = TraceSamples;

    fn take_report(&mut self) -> Option<proto::Report> {
        self.report.take()
    }

    fn into_items(self) -> Result<Vec<TraceSamples>> {
        let table = table_from_proto(&self.label_sets)?;
        self.traces.into_iter().map(|t| samples_from_proto(&table, t)).collect()
    }
}

/// [`TracesStore`] of another process, or of this one through [`crate::channel::local`].
#[derive(Debug, Clone)]
pub struct TracesStoreClient(traces_store_client::TracesStoreClient<Channel>);

impl TracesStoreClient {
    pub fn new(channel: Channel) -> Self {
        Self(
            traces_store_client::TracesStoreClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
    }
}

fn tags_request(ctx: &QueryContext, select: &TagsSelect) -> Request<proto::TagsRequest> {
    crate::traced(proto::TagsRequest {
        context: context_to_proto(ctx),
        scope: select.scope.clone(),
        name: select.name.clone(),
        query: select.query.clone(),
        start_ns: select.start_ns,
        end_ns: select.end_ns,
        limit: select.limit as u64,
    })
}

#[async_trait]
impl TracesStore for TracesStoreClient {
    async fn find(
        &self,
        ctx: &QueryContext,
        trace_id: &TraceId,
        start_ns: i64,
        end_ns: i64,
    ) -> Result<TraceParts> {
        let request = crate::traced(proto::FindRequest {
            context: context_to_proto(ctx),
            trace_id: Bytes::copy_from_slice(trace_id),
            start_ns,
            end_ns,
        });
        let response = within(ctx, self.0.clone().find(request)).await?.into_inner();
        take_report(ctx, response.report);
        Ok(TraceParts { otlp: response.otlp })
    }

    async fn search(&self, ctx: &QueryContext, search: &TraceSearch) -> Result<Stream<TraceMatch>> {
        let request = crate::traced(proto::SearchRequest {
            context: context_to_proto(ctx),
            query: search.query.clone(),
            start_ns: search.start_ns,
            end_ns: search.end_ns,
            limit: search.limit as u64,
            spans_per_set: search.spans_per_set as u64,
        });
        let response = within(ctx, self.0.clone().search(request)).await?;
        Ok(flattened(items(ctx, response.into_inner())))
    }

    async fn samples(&self, ctx: &QueryContext, select: &SpanSampleSelect) -> Result<Stream<TraceSamples>> {
        let request = crate::traced(proto::SpanSampleSelectRequest {
            context: context_to_proto(ctx),
            query: select.query.clone(),
            start_ns: select.start_ns,
            end_ns: select.end_ns,
        });
        let response = within(ctx, self.0.clone().samples(request)).await?;
        Ok(flattened(items(ctx, response.into_inner())))
    }

    async fn tag_names(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<ScopeTags>> {
        let response = within(ctx, self.0.clone().tag_names(tags_request(ctx, select))).await?.into_inner();
        take_report(ctx, response.report);
        Ok(response.scopes.into_iter().map(|s| ScopeTags { scope: s.scope, tags: s.tags }).collect())
    }

    async fn tag_values(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<Value>> {
        let response = within(ctx, self.0.clone().tag_values(tags_request(ctx, select))).await?.into_inner();
        take_report(ctx, response.report);
        Ok(response.values.into_iter().map(value_from_proto).collect())
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let response = within(ctx, self.0.clone().versions(versions_request(ctx, ranges))).await?;
        Ok(versions_from_proto(ctx, response.into_inner()))
    }
}
