//! `MetricsStore` over gRPC.

use std::sync::Arc;

use async_trait::async_trait;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use triptych_model::metrics::{
    CardinalityStats, ChunkEncoding, EncodedChunk, Exemplar, LabelsSelect, MetricKind, MetricMetadata,
    SeriesChunks, SeriesExemplars, SeriesSelect,
};
use triptych_model::{Error, Labels, Result, Version};
use triptych_runtime::QueryContext;

use crate::channel::MESSAGE_BYTES_MAX;
use crate::context::{context_from_proto, context_to_proto, report_to_proto, take_report, within};
use crate::convert::{
    Frame, FrameStream, batched, flattened, frames, items, labels_from_proto, labels_to_proto,
    matcher_sets_from_proto, matcher_sets_to_proto, matchers_from_proto, matchers_to_proto, shard_from_proto,
    shard_to_proto, versions_from_proto, versions_from_request, versions_request, versions_to_proto,
};
use crate::proto::{self, metrics_store_client, metrics_store_server};
use crate::status::to_status;
use crate::traits::{MetricsStore, Stream};

/// Series per frame: at some kilobytes of chunks each, a frame stays near 1 MiB.
const SERIES_PER_FRAME_MAX: usize = 256;

/// Serves any [`MetricsStore`].
pub struct MetricsStoreServer(Arc<dyn MetricsStore>);

impl MetricsStoreServer {
    pub fn service(store: Arc<dyn MetricsStore>) -> metrics_store_server::MetricsStoreServer<Self> {
        metrics_store_server::MetricsStoreServer::new(Self(store))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn select_from_proto(request: proto::LabelsRequest) -> Result<(QueryContext, String, LabelsSelect), Status> {
    let ctx = context_from_proto(request.context)?;
    let select = LabelsSelect {
        matcher_sets: matcher_sets_from_proto(request.matcher_sets).map_err(to_status)?,
        start_ms: request.start_ms,
        end_ms: request.end_ms,
        limit: request.limit as usize,
    };
    Ok((ctx, request.name, select))
}

fn series_to_proto(series: SeriesChunks) -> proto::Series {
    let chunk = |c: EncodedChunk| proto::Chunk {
        start_ms: c.start_ms,
        end_ms: c.end_ms,
        encoding: c.encoding as u32,
        data: c.data,
    };
    proto::Series {
        labels: labels_to_proto(&series.labels),
        chunks: series.chunks.into_iter().map(chunk).collect(),
    }
}

pub(crate) fn series_select_from_proto(
    request: proto::SeriesSelectRequest,
) -> Result<(QueryContext, SeriesSelect), Status> {
    let ctx = context_from_proto(request.context)?;
    let select = SeriesSelect {
        matchers: matchers_from_proto(request.matchers).map_err(to_status)?,
        start_ms: request.start_ms,
        end_ms: request.end_ms,
        skip_chunks: request.skip_chunks,
        shard: shard_from_proto(request.shard)?,
    };
    Ok((ctx, select))
}

pub(crate) fn series_select_to_proto(
    ctx: &QueryContext,
    select: &SeriesSelect,
) -> Request<proto::SeriesSelectRequest> {
    crate::traced(proto::SeriesSelectRequest {
        context: context_to_proto(ctx),
        matchers: matchers_to_proto(&select.matchers),
        start_ms: select.start_ms,
        end_ms: select.end_ms,
        skip_chunks: select.skip_chunks,
        shard: shard_to_proto(select.shard),
    })
}

pub(crate) fn series_frames(
    ctx: QueryContext,
    series: Stream<SeriesChunks>,
) -> FrameStream<proto::SeriesFrame> {
    frames(
        ctx,
        batched(series, SERIES_PER_FRAME_MAX),
        |batch| proto::SeriesFrame { series: batch.into_iter().map(series_to_proto).collect(), report: None },
        |ctx| proto::SeriesFrame { series: vec![], report: report_to_proto(ctx) },
    )
}

#[async_trait]
impl metrics_store_server::MetricsStore for MetricsStoreServer {
    type SelectStream = FrameStream<proto::SeriesFrame>;

    async fn select(
        &self,
        request: Request<proto::SeriesSelectRequest>,
    ) -> Result<Response<Self::SelectStream>, Status> {
        let (ctx, select) = series_select_from_proto(request.into_inner())?;
        let series = self.0.select(&ctx, &select).await.map_err(to_status)?;
        Ok(Response::new(series_frames(ctx, series)))
    }

    async fn label_names(
        &self,
        request: Request<proto::LabelsRequest>,
    ) -> Result<Response<proto::StringsResponse>, Status> {
        let (ctx, _, select) = select_from_proto(request.into_inner())?;
        let _guard = ctx.cancel_on_drop();
        let values = self.0.label_names(&ctx, &select).await.map_err(to_status)?;
        Ok(Response::new(proto::StringsResponse { values, report: report_to_proto(&ctx) }))
    }

    async fn label_values(
        &self,
        request: Request<proto::LabelsRequest>,
    ) -> Result<Response<proto::StringsResponse>, Status> {
        let (ctx, name, select) = select_from_proto(request.into_inner())?;
        let _guard = ctx.cancel_on_drop();
        let values = self.0.label_values(&ctx, &name, &select).await.map_err(to_status)?;
        Ok(Response::new(proto::StringsResponse { values, report: report_to_proto(&ctx) }))
    }

    async fn series(
        &self,
        request: Request<proto::LabelsRequest>,
    ) -> Result<Response<proto::LabelSetsResponse>, Status> {
        let (ctx, _, select) = select_from_proto(request.into_inner())?;
        let _guard = ctx.cancel_on_drop();
        let sets = self.0.series(&ctx, &select).await.map_err(to_status)?;
        let label_sets = sets.iter().map(labels_to_proto).collect();
        Ok(Response::new(proto::LabelSetsResponse { label_sets, report: report_to_proto(&ctx) }))
    }

    async fn metadata(
        &self,
        request: Request<proto::MetadataRequest>,
    ) -> Result<Response<proto::MetadataResponse>, Status> {
        let request = request.into_inner();
        let ctx = context_from_proto(request.context)?;
        let _guard = ctx.cancel_on_drop();
        let found =
            self.0.metadata(&ctx, &request.metric, request.limit as usize).await.map_err(to_status)?;
        let metadata = found
            .into_iter()
            .map(|m| proto::MetricMetadata {
                metric: m.metric,
                kind: m.kind as u32,
                help: m.help,
                unit: m.unit,
            })
            .collect();
        Ok(Response::new(proto::MetadataResponse { metadata, report: report_to_proto(&ctx) }))
    }

    async fn exemplars(
        &self,
        request: Request<proto::LabelsRequest>,
    ) -> Result<Response<proto::ExemplarsResponse>, Status> {
        let (ctx, _, select) = select_from_proto(request.into_inner())?;
        let _guard = ctx.cancel_on_drop();
        let found = self.0.exemplars(&ctx, &select).await.map_err(to_status)?;
        let exemplar = |e: Exemplar| proto::Exemplar {
            labels: labels_to_proto(&e.labels),
            value: e.value,
            t_ms: e.t_ms,
        };
        let series = found
            .into_iter()
            .map(|s| proto::SeriesExemplars {
                series: labels_to_proto(&s.series),
                exemplars: s.exemplars.into_iter().map(exemplar).collect(),
            })
            .collect();
        Ok(Response::new(proto::ExemplarsResponse { series, report: report_to_proto(&ctx) }))
    }

    async fn cardinality(
        &self,
        request: Request<proto::CardinalityRequest>,
    ) -> Result<Response<proto::CardinalityResponse>, Status> {
        let request = request.into_inner();
        let ctx = context_from_proto(request.context)?;
        let _guard = ctx.cancel_on_drop();
        let stats = self.0.cardinality(&ctx, request.limit as usize).await.map_err(to_status)?;
        let counts = |list: Vec<(String, u64)>| {
            list.into_iter().map(|(name, count)| proto::NamedCount { name, count }).collect()
        };
        Ok(Response::new(proto::CardinalityResponse {
            series: stats.series,
            chunks: stats.chunks,
            samples: stats.samples,
            start_ms: stats.start_ms,
            end_ms: stats.end_ms,
            series_by_metric: counts(stats.series_by_metric),
            values_by_label: counts(stats.values_by_label),
            report: report_to_proto(&ctx),
        }))
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

impl Frame for proto::SeriesFrame {
    type Item = SeriesChunks;

    fn take_report(&mut self) -> Option<proto::Report> {
        self.report.take()
    }

    fn into_items(self) -> Result<Vec<SeriesChunks>> {
        let chunk = |c: proto::Chunk| {
            let encoding = u8::try_from(c.encoding)
                .ok()
                .and_then(ChunkEncoding::from_u8)
                .ok_or_else(|| Error::damaged(format!("chunk encoding {} is not known", c.encoding)))?;
            Ok(EncodedChunk { start_ms: c.start_ms, end_ms: c.end_ms, encoding, data: c.data })
        };
        let series = |s: proto::Series| {
            let chunks = s.chunks.into_iter().map(chunk).collect::<Result<_>>()?;
            Ok(SeriesChunks { labels: labels_from_proto(&s.labels)?, chunks })
        };
        self.series.into_iter().map(series).collect()
    }
}

/// [`MetricsStore`] of another process, or of this one through [`crate::channel::local`].
#[derive(Debug, Clone)]
pub struct MetricsStoreClient(metrics_store_client::MetricsStoreClient<Channel>);

impl MetricsStoreClient {
    pub fn new(channel: Channel) -> Self {
        Self(
            metrics_store_client::MetricsStoreClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
    }
}

fn labels_request(ctx: &QueryContext, name: &str, select: &LabelsSelect) -> Request<proto::LabelsRequest> {
    crate::traced(proto::LabelsRequest {
        context: context_to_proto(ctx),
        matcher_sets: matcher_sets_to_proto(&select.matcher_sets),
        start_ms: select.start_ms,
        end_ms: select.end_ms,
        limit: select.limit as u64,
        name: name.to_owned(),
    })
}

#[async_trait]
impl MetricsStore for MetricsStoreClient {
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        let request = series_select_to_proto(ctx, select);
        let response = within(ctx, self.0.clone().select(request)).await?;
        Ok(flattened(items(ctx, response.into_inner())))
    }

    async fn label_names(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<String>> {
        let response =
            within(ctx, self.0.clone().label_names(labels_request(ctx, "", select))).await?.into_inner();
        take_report(ctx, response.report);
        Ok(response.values)
    }

    async fn label_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &LabelsSelect,
    ) -> Result<Vec<String>> {
        let response =
            within(ctx, self.0.clone().label_values(labels_request(ctx, name, select))).await?.into_inner();
        take_report(ctx, response.report);
        Ok(response.values)
    }

    async fn series(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<Labels>> {
        let response =
            within(ctx, self.0.clone().series(labels_request(ctx, "", select))).await?.into_inner();
        take_report(ctx, response.report);
        response.label_sets.iter().map(|s| labels_from_proto(s)).collect()
    }

    async fn metadata(&self, ctx: &QueryContext, metric: &str, limit: usize) -> Result<Vec<MetricMetadata>> {
        let request = crate::traced(proto::MetadataRequest {
            context: context_to_proto(ctx),
            metric: metric.to_owned(),
            limit: limit as u64,
        });
        let response = within(ctx, self.0.clone().metadata(request)).await?.into_inner();
        take_report(ctx, response.report);
        let metadata = |m: proto::MetricMetadata| MetricMetadata {
            metric: m.metric,
            kind: MetricKind::from_u8(m.kind as u8),
            help: m.help,
            unit: m.unit,
        };
        Ok(response.metadata.into_iter().map(metadata).collect())
    }

    async fn exemplars(&self, ctx: &QueryContext, select: &LabelsSelect) -> Result<Vec<SeriesExemplars>> {
        let response =
            within(ctx, self.0.clone().exemplars(labels_request(ctx, "", select))).await?.into_inner();
        take_report(ctx, response.report);
        let exemplar = |e: proto::Exemplar| {
            Ok(Exemplar { labels: labels_from_proto(&e.labels)?, value: e.value, t_ms: e.t_ms })
        };
        let series = |s: proto::SeriesExemplars| {
            let exemplars = s.exemplars.into_iter().map(exemplar).collect::<Result<_>>()?;
            Ok(SeriesExemplars { series: labels_from_proto(&s.series)?, exemplars })
        };
        response.series.into_iter().map(series).collect()
    }

    async fn cardinality(&self, ctx: &QueryContext, limit: usize) -> Result<CardinalityStats> {
        let request =
            crate::traced(proto::CardinalityRequest { context: context_to_proto(ctx), limit: limit as u64 });
        let response = within(ctx, self.0.clone().cardinality(request)).await?.into_inner();
        take_report(ctx, response.report);
        let counts = |list: Vec<proto::NamedCount>| list.into_iter().map(|c| (c.name, c.count)).collect();
        Ok(CardinalityStats {
            series: response.series,
            chunks: response.chunks,
            samples: response.samples,
            start_ms: response.start_ms,
            end_ms: response.end_ms,
            series_by_metric: counts(response.series_by_metric),
            values_by_label: counts(response.values_by_label),
        })
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let response = within(ctx, self.0.clone().versions(versions_request(ctx, ranges))).await?;
        Ok(versions_from_proto(ctx, response.into_inner()))
    }
}
