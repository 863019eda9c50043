//! `LogsStore` over gRPC.

use std::sync::Arc;

use async_trait::async_trait;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use triptych_model::logs::{
    DetectedField, Direction, EntrySelect, LogEntry, LogSample, LogSamples, SampleSelect, StreamStats,
    StreamsSelect, Volume,
};
use triptych_model::{Error, Labels, Result, Version};
use triptych_runtime::QueryContext;

use crate::channel::MESSAGE_BYTES_MAX;
use crate::context::{context_from_proto, context_to_proto, report_to_proto, take_report, within};
use crate::convert::{
    Frame, FrameStream, LabelTable, at, frames, items, labels_from_proto, labels_to_proto,
    matcher_sets_from_proto, matcher_sets_to_proto, shard_from_proto, shard_to_proto, table_from_proto,
    versions_from_proto, versions_from_request, versions_request, versions_to_proto,
};
use crate::proto::{self, logs_store_client, logs_store_server};
use crate::status::to_status;
use crate::traits::{LogsStore, Stream};

/// Serves any [`LogsStore`].
pub struct LogsStoreServer(Arc<dyn LogsStore>);

impl LogsStoreServer {
    pub fn service(store: Arc<dyn LogsStore>) -> logs_store_server::LogsStoreServer<Self> {
        logs_store_server::LogsStoreServer::new(Self(store))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

pub(crate) fn entries_to_proto(entries: Vec<LogEntry>) -> proto::EntriesFrame {
    let mut table = LabelTable::default();
    let entries = entries
        .into_iter()
        .map(|e| proto::LogEntry {
            ts_ns: e.ts_ns,
            line: e.line,
            labels: table.position(e.labels),
            metadata: table.position(e.metadata),
            parsed: table.position(e.parsed),
            key: e.key,
        })
        .collect();
    proto::EntriesFrame { label_sets: table.sets, entries, report: None }
}

fn samples_to_proto(runs: Vec<LogSamples>) -> proto::SamplesFrame {
    let run = |run: LogSamples| {
        let samples = &run.samples;
        let has_values = samples.iter().any(|s| s.value != 1.0);
        let has_series = samples.iter().any(|s| s.series != 0);
        proto::StreamSamples {
            stream: run.stream,
            series: run.series.iter().map(labels_to_proto).collect(),
            ts_ns: samples.iter().map(|s| s.ts_ns).collect(),
            keys: samples.iter().map(|s| s.key).collect(),
            values: if has_values { samples.iter().map(|s| s.value).collect() } else { Vec::new() },
            series_of: if has_series { samples.iter().map(|s| s.series).collect() } else { Vec::new() },
        }
    };
    proto::SamplesFrame { runs: runs.into_iter().map(run).collect(), report: None }
}

fn samples_from_proto(run: proto::StreamSamples) -> Result<LogSamples> {
    let rows = run.ts_ns.len();
    let is_column = |length: usize| length == rows || length == 0;
    if run.keys.len() != rows || !is_column(run.values.len()) || !is_column(run.series_of.len()) {
        return Err(Error::damaged("samples frame: columns of different length"));
    }
    let series = run.series.iter().map(|s| labels_from_proto(s)).collect::<Result<Vec<Labels>>>()?;
    if rows > 0 && run.series_of.iter().copied().max().unwrap_or(0) as usize >= series.len() {
        return Err(Error::damaged("samples frame: a series that is not there"));
    }
    let times = run.ts_ns.iter().zip(&run.keys).enumerate();
    let samples = times
        .map(|(i, (ts_ns, key))| LogSample {
            ts_ns: *ts_ns,
            key: *key,
            value: run.values.get(i).copied().unwrap_or(1.0),
            series: run.series_of.get(i).copied().unwrap_or(0),
        })
        .collect();
    Ok(LogSamples { stream: run.stream, series, samples })
}

fn entry_select_from_proto(
    request: proto::EntrySelectRequest,
) -> Result<(QueryContext, EntrySelect), Status> {
    let ctx = context_from_proto(request.context)?;
    let select = EntrySelect {
        expr: request.expr,
        start_ns: request.start_ns,
        end_ns: request.end_ns,
        direction: if request.forward { Direction::Forward } else { Direction::Backward },
        limit: request.limit as usize,
    };
    Ok((ctx, select))
}

fn streams_from_proto(request: &mut proto::StreamsRequest) -> Result<(QueryContext, StreamsSelect), Status> {
    let ctx = context_from_proto(request.context.take())?;
    let sets = std::mem::take(&mut request.matcher_sets);
    let select = StreamsSelect {
        matcher_sets: matcher_sets_from_proto(sets).map_err(to_status)?,
        start_ns: request.start_ns,
        end_ns: request.end_ns,
        limit: request.limit as usize,
    };
    Ok((ctx, select))
}

fn last_entries(ctx: &QueryContext) -> proto::EntriesFrame {
    proto::EntriesFrame { report: report_to_proto(ctx), ..Default::default() }
}

#[async_trait]
impl logs_store_server::LogsStore for LogsStoreServer {
    type EntriesStream = FrameStream<proto::EntriesFrame>;
    type SamplesStream = FrameStream<proto::SamplesFrame>;
    type TailStream = FrameStream<proto::EntriesFrame>;

    async fn entries(
        &self,
        request: Request<proto::EntrySelectRequest>,
    ) -> Result<Response<Self::EntriesStream>, Status> {
        let (ctx, select) = entry_select_from_proto(request.into_inner())?;
        let entries = self.0.entries(&ctx, &select).await.map_err(to_status)?;
        Ok(Response::new(frames(ctx, entries, entries_to_proto, last_entries)))
    }

    async fn samples(
        &self,
        request: Request<proto::SampleSelectRequest>,
    ) -> Result<Response<Self::SamplesStream>, Status> {
        let request = request.into_inner();
        let ctx = context_from_proto(request.context)?;
        let select = SampleSelect {
            expr: request.expr,
            start_ns: request.start_ns,
            end_ns: request.end_ns,
            shard: shard_from_proto(request.shard)?,
        };
        let samples = self.0.samples(&ctx, &select).await.map_err(to_status)?;
        let last =
            |ctx: &QueryContext| proto::SamplesFrame { report: report_to_proto(ctx), ..Default::default() };
        Ok(Response::new(frames(ctx, samples, samples_to_proto, last)))
    }

    async fn label_names(
        &self,
        request: Request<proto::StreamsRequest>,
    ) -> Result<Response<proto::StringsResponse>, Status> {
        let (ctx, select) = streams_from_proto(&mut request.into_inner())?;
        let _guard = ctx.cancel_on_drop();
        let values = self.0.label_names(&ctx, &select).await.map_err(to_status)?;
        Ok(Response::new(proto::StringsResponse { values, report: report_to_proto(&ctx) }))
    }

    async fn label_values(
        &self,
        request: Request<proto::StreamsRequest>,
    ) -> Result<Response<proto::StringsResponse>, Status> {
        let mut request = request.into_inner();
        let (ctx, select) = streams_from_proto(&mut request)?;
        let _guard = ctx.cancel_on_drop();
        let values = self.0.label_values(&ctx, &request.name, &select).await.map_err(to_status)?;
        Ok(Response::new(proto::StringsResponse { values, report: report_to_proto(&ctx) }))
    }

    async fn series(
        &self,
        request: Request<proto::StreamsRequest>,
    ) -> Result<Response<proto::LabelSetsResponse>, Status> {
        let (ctx, select) = streams_from_proto(&mut request.into_inner())?;
        let _guard = ctx.cancel_on_drop();
        let sets = self.0.series(&ctx, &select).await.map_err(to_status)?;
        let label_sets = sets.iter().map(labels_to_proto).collect();
        Ok(Response::new(proto::LabelSetsResponse { label_sets, report: report_to_proto(&ctx) }))
    }

    async fn stats(
        &self,
        request: Request<proto::StreamsRequest>,
    ) -> Result<Response<proto::StreamStatsResponse>, Status> {
        let (ctx, select) = streams_from_proto(&mut request.into_inner())?;
        let _guard = ctx.cancel_on_drop();
        let StreamStats { streams, chunks, entries, bytes } =
            self.0.stats(&ctx, &select).await.map_err(to_status)?;
        Ok(Response::new(proto::StreamStatsResponse {
            streams,
            chunks,
            entries,
            bytes,
            report: report_to_proto(&ctx),
        }))
    }

    async fn volume(
        &self,
        request: Request<proto::StreamsRequest>,
    ) -> Result<Response<proto::VolumesResponse>, Status> {
        let mut request = request.into_inner();
        let (ctx, select) = streams_from_proto(&mut request)?;
        let _guard = ctx.cancel_on_drop();
        let found = self.0.volume(&ctx, &select, &request.labels).await.map_err(to_status)?;
        let volumes = found
            .iter()
            .map(|v| proto::Volume { labels: labels_to_proto(&v.labels), bytes: v.bytes })
            .collect();
        Ok(Response::new(proto::VolumesResponse { volumes, report: report_to_proto(&ctx) }))
    }

    async fn detected_fields(
        &self,
        request: Request<proto::EntrySelectRequest>,
    ) -> Result<Response<proto::DetectedFieldsResponse>, Status> {
        let (ctx, select) = entry_select_from_proto(request.into_inner())?;
        let _guard = ctx.cancel_on_drop();
        let found = self.0.detected_fields(&ctx, &select).await.map_err(to_status)?;
        let field = |f: DetectedField| proto::DetectedField {
            label: f.label,
            kind: f.kind,
            cardinality: f.cardinality,
            parsers: f.parsers,
        };
        let fields = found.into_iter().map(field).collect();
        Ok(Response::new(proto::DetectedFieldsResponse { fields, report: report_to_proto(&ctx) }))
    }

    async fn detected_field_values(
        &self,
        request: Request<proto::EntrySelectRequest>,
    ) -> Result<Response<proto::StringsResponse>, Status> {
        let mut request = request.into_inner();
        let name = std::mem::take(&mut request.name);
        let (ctx, select) = entry_select_from_proto(request)?;
        let _guard = ctx.cancel_on_drop();
        let values = self.0.detected_field_values(&ctx, &name, &select).await.map_err(to_status)?;
        Ok(Response::new(proto::StringsResponse { values, report: report_to_proto(&ctx) }))
    }

    async fn tail(&self, request: Request<proto::TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let request = request.into_inner();
        let ctx = context_from_proto(request.context)?;
        let entries = self.0.tail(&ctx, &request.expr, request.start_ns).await.map_err(to_status)?;
        Ok(Response::new(frames(ctx, entries, entries_to_proto, last_entries)))
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

impl Frame for proto::EntriesFrame {
    type Item = LogEntry;

    fn take_report(&mut self) -> Option<proto::Report> {
        self.report.take()
    }

    fn into_items(self) -> Result<Vec<LogEntry>> {
        let table = table_from_proto(&self.label_sets)?;
        let entry = |e: proto::LogEntry| {
            Ok(LogEntry {
                labels: at(&table, e.labels)?,
                metadata: at(&table, e.metadata)?,
                parsed: at(&table, e.parsed)?,
                ts_ns: e.ts_ns,
                line: e.line,
                key: e.key,
            })
        };
        self.entries.into_iter().map(entry).collect()
    }
}

impl Frame for proto::SamplesFrame {
    type Item = LogSamples;

    fn take_report(&mut self) -> Option<proto::Report> {
        self.report.take()
    }

    fn into_items(self) -> Result<Vec<LogSamples>> {
        self.runs.into_iter().map(samples_from_proto).collect()
    }
}

/// [`LogsStore`] of another process, or of this one through [`crate::channel::local`].
#[derive(Debug, Clone)]
pub struct LogsStoreClient(logs_store_client::LogsStoreClient<Channel>);

impl LogsStoreClient {
    pub fn new(channel: Channel) -> Self {
        Self(
            logs_store_client::LogsStoreClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
    }
}

fn streams_request(ctx: &QueryContext, select: &StreamsSelect) -> proto::StreamsRequest {
    proto::StreamsRequest {
        context: context_to_proto(ctx),
        matcher_sets: matcher_sets_to_proto(&select.matcher_sets),
        start_ns: select.start_ns,
        end_ns: select.end_ns,
        limit: select.limit as u64,
        ..Default::default()
    }
}

fn entry_select_request(
    ctx: &QueryContext,
    name: &str,
    select: &EntrySelect,
) -> Request<proto::EntrySelectRequest> {
    crate::traced(proto::EntrySelectRequest {
        context: context_to_proto(ctx),
        expr: select.expr.clone(),
        start_ns: select.start_ns,
        end_ns: select.end_ns,
        forward: select.direction == Direction::Forward,
        limit: select.limit as u64,
        name: name.to_owned(),
    })
}

#[async_trait]
impl LogsStore for LogsStoreClient {
    async fn entries(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Stream<Vec<LogEntry>>> {
        let response = within(ctx, self.0.clone().entries(entry_select_request(ctx, "", select))).await?;
        Ok(items(ctx, response.into_inner()))
    }

    async fn samples(&self, ctx: &QueryContext, select: &SampleSelect) -> Result<Stream<Vec<LogSamples>>> {
        let request = crate::traced(proto::SampleSelectRequest {
            context: context_to_proto(ctx),
            expr: select.expr.clone(),
            start_ns: select.start_ns,
            end_ns: select.end_ns,
            shard: shard_to_proto(select.shard),
        });
        let response = within(ctx, self.0.clone().samples(request)).await?;
        Ok(items(ctx, response.into_inner()))
    }

    async fn label_names(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<String>> {
        let request = crate::traced(streams_request(ctx, select));
        let response = within(ctx, self.0.clone().label_names(request)).await?.into_inner();
        take_report(ctx, response.report);
        Ok(response.values)
    }

    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &StreamsSelect,
    ) -> Result<Vec<String>> {
        let request =
            crate::traced(proto::StreamsRequest { name: name.to_owned(), ..streams_request(ctx, select) });
        let response = within(ctx, self.0.clone().label_values(request)).await?.into_inner();
        take_report(ctx, response.report);
        Ok(response.values)
    }

    async fn series(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<Vec<Labels>> {
        let request = crate::traced(streams_request(ctx, select));
        let response = within(ctx, self.0.clone().series(request)).await?.into_inner();
        take_report(ctx, response.report);
        response.label_sets.iter().map(|s| labels_from_proto(s)).collect()
    }

    async fn stats(&self, ctx: &QueryContext, select: &StreamsSelect) -> Result<StreamStats> {
        let request = crate::traced(streams_request(ctx, select));
        let r = within(ctx, self.0.clone().stats(request)).await?.into_inner();
        take_report(ctx, r.report);
        Ok(StreamStats { streams: r.streams, chunks: r.chunks, entries: r.entries, bytes: r.bytes })
    }

    async fn volume(
        &self,
        ctx: &QueryContext,
        select: &StreamsSelect,
        labels: &[String],
    ) -> Result<Vec<Volume>> {
        let request =
            crate::traced(proto::StreamsRequest { labels: labels.to_vec(), ..streams_request(ctx, select) });
        let response = within(ctx, self.0.clone().volume(request)).await?.into_inner();
        take_report(ctx, response.report);
        let volume = |v: proto::Volume| Ok(Volume { labels: labels_from_proto(&v.labels)?, bytes: v.bytes });
        response.volumes.into_iter().map(volume).collect()
    }

    async fn detected_fields(&self, ctx: &QueryContext, select: &EntrySelect) -> Result<Vec<DetectedField>> {
        let request = entry_select_request(ctx, "", select);
        let response = within(ctx, self.0.clone().detected_fields(request)).await?.into_inner();
        take_report(ctx, response.report);
        let field = |f: proto::DetectedField| DetectedField {
            label: f.label,
            kind: f.kind,
            cardinality: f.cardinality,
            parsers: f.parsers,
        };
        Ok(response.fields.into_iter().map(field).collect())
    }

    async fn detected_field_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &EntrySelect,
    ) -> Result<Vec<String>> {
        let request = entry_select_request(ctx, name, select);
        let response = within(ctx, self.0.clone().detected_field_values(request)).await?.into_inner();
        take_report(ctx, response.report);
        Ok(response.values)
    }

    async fn tail(&self, ctx: &QueryContext, expr: &str, start_ns: i64) -> Result<Stream<Vec<LogEntry>>> {
        let request = crate::traced(proto::TailRequest {
            context: context_to_proto(ctx),
            expr: expr.to_owned(),
            start_ns,
        });
        let response = within(ctx, self.0.clone().tail(request)).await?;
        Ok(items(ctx, response.into_inner()))
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let response = within(ctx, self.0.clone().versions(versions_request(ctx, ranges))).await?;
        Ok(versions_from_proto(ctx, response.into_inner()))
    }
}
