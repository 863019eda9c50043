//! `Query` over gRPC: answers of any size, in frames.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use triptych_model::logs::{Direction, LogsQuery, LogsValue};
use triptych_model::metrics::{MetricsQuery, QueryValue, Sample, SeriesChunks, SeriesSamples, SeriesSelect};
use triptych_model::traces::TracesMetricsQuery;
use triptych_model::{Error, Labels, Result};
use triptych_runtime::QueryContext;

use crate::channel::MESSAGE_BYTES_MAX;
use crate::context::{context_from_proto, context_to_proto, report_to_proto, take_report, within};
use crate::convert::{
    Frame, FrameStream, batched, flattened, frames, items, labels_from_proto, labels_to_proto,
    shard_from_proto, shard_to_proto,
};
use crate::logs::entries_to_proto;
use crate::metrics::{series_frames, series_select_from_proto, series_select_to_proto};
use crate::proto::{self, ValueKind, query_client, query_server};
use crate::status::to_status;
use crate::traits::{Query, Stream};

/// Samples per frame: 16 bytes each keep a frame near 1 MiB.
const SAMPLES_PER_FRAME: usize = 64 << 10;
const ENTRIES_PER_FRAME: usize = 1024;
/// Series per frame that come with all of their samples, which may be thousands.
const SERIES_PER_FRAME: usize = 64;

/// Serves any [`Query`].
pub struct QueryServer(Arc<dyn Query>);

impl QueryServer {
    pub fn service(query: Arc<dyn Query>) -> query_server::QueryServer<Self> {
        query_server::QueryServer::new(Self(query))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn series_to_proto(series: SeriesSamples) -> proto::SeriesSamples {
    proto::SeriesSamples {
        labels: labels_to_proto(&series.labels),
        t_ms: series.samples.iter().map(|s| s.t_ms).collect(),
        values: series.samples.iter().map(|s| s.value).collect(),
    }
}

fn series_from_proto(series: proto::SeriesSamples) -> Result<SeriesSamples> {
    if series.t_ms.len() != series.values.len() {
        return Err(Error::damaged("query frame: columns of different length"));
    }
    let samples =
        series.t_ms.into_iter().zip(series.values).map(|(t_ms, value)| Sample { t_ms, value }).collect();
    Ok(SeriesSamples { labels: labels_from_proto(&series.labels)?, samples })
}

/// Cuts an answer into frames; always at least one, so that its kind arrives.
fn value_frames(value: QueryValue) -> Vec<proto::QueryFrame> {
    let frame = |kind: ValueKind| proto::QueryFrame { kind: kind.into(), ..Default::default() };
    let (kind, all) = match value {
        QueryValue::Scalar(sample) => {
            (ValueKind::Scalar, vec![SeriesSamples { labels: Labels::empty(), samples: vec![sample] }])
        }
        QueryValue::String { t_ms, value } => {
            return vec![proto::QueryFrame { text: value, text_t_ms: t_ms, ..frame(ValueKind::String) }];
        }
        QueryValue::Vector(all) => (ValueKind::Vector, all),
        QueryValue::Matrix(all) => (ValueKind::Matrix, all),
    };
    let mut out = vec![frame(kind)];
    let mut samples = 0;
    for series in all {
        if samples >= SAMPLES_PER_FRAME {
            out.push(frame(kind));
            samples = 0;
        }
        samples += series.samples.len() + 1;
        if let Some(last) = out.last_mut() {
            last.series.push(series_to_proto(series));
        }
    }
    out
}

fn answer(ctx: QueryContext, frames: Vec<proto::QueryFrame>) -> Response<FrameStream<proto::QueryFrame>> {
    let last = proto::QueryFrame { report: report_to_proto(&ctx), ..Default::default() };
    Response::new(futures::stream::iter(frames.into_iter().chain([last]).map(Ok)).boxed())
}

#[async_trait]
impl query_server::Query for QueryServer {
    type MetricsStream = FrameStream<proto::QueryFrame>;
    type LogsStream = FrameStream<proto::QueryFrame>;
    type TracesStream = FrameStream<proto::QueryFrame>;
    type ReadSamplesStream = FrameStream<proto::QueryFrame>;
    type ReadChunksStream = FrameStream<proto::SeriesFrame>;

    async fn metrics(
        &self,
        request: Request<proto::MetricsQueryRequest>,
    ) -> Result<Response<Self::MetricsStream>, Status> {
        let request = request.into_inner();
        let ctx = context_from_proto(request.context)?;
        let _guard = ctx.cancel_on_drop();
        let query = MetricsQuery {
            expr: request.expr,
            start_ms: request.start_ms,
            end_ms: request.end_ms,
            step_ms: request.step_ms,
            lookback_ms: request.lookback_ms,
            whole_ms: request.whole.map(|range| (range.start_ms, range.end_ms)),
            shard: shard_from_proto(request.shard)?,
        };
        let value = self.0.metrics(&ctx, &query).await.map_err(to_status)?;
        Ok(answer(ctx, value_frames(value)))
    }

    async fn logs(
        &self,
        request: Request<proto::LogsQueryRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let ctx = context_from_proto(request.context)?;
        let _guard = ctx.cancel_on_drop();
        let query = LogsQuery {
            expr: request.expr,
            start_ns: request.start_ns,
            end_ns: request.end_ns,
            step_ns: request.step_ns,
            direction: if request.forward { Direction::Forward } else { Direction::Backward },
            limit: request.limit as usize,
            shard: shard_from_proto(request.shard)?,
            interval_ns: request.interval_ns,
        };
        let frames = match self.0.logs(&ctx, &query).await.map_err(to_status)? {
            LogsValue::Metric(value) => value_frames(value),
            LogsValue::Entries(entries) => {
                let mut entries = entries.into_iter().peekable();
                let mut frames = Vec::new();
                while entries.peek().is_some() || frames.is_empty() {
                    let batch = entries.by_ref().take(ENTRIES_PER_FRAME).collect();
                    frames.push(proto::QueryFrame {
                        kind: ValueKind::Entries.into(),
                        entries: Some(entries_to_proto(batch)),
                        ..Default::default()
                    });
                }
                frames
            }
        };
        Ok(answer(ctx, frames))
    }

    async fn traces(
        &self,
        request: Request<proto::TracesMetricsQueryRequest>,
    ) -> Result<Response<Self::TracesStream>, Status> {
        let request = request.into_inner();
        let ctx = context_from_proto(request.context)?;
        let _guard = ctx.cancel_on_drop();
        let query = TracesMetricsQuery {
            query: request.query,
            start_ns: request.start_ns,
            end_ns: request.end_ns,
            step_ns: request.step_ns,
        };
        let value = self.0.traces(&ctx, &query).await.map_err(to_status)?;
        Ok(answer(ctx, value_frames(value)))
    }

    async fn read_samples(
        &self,
        request: Request<proto::SeriesSelectRequest>,
    ) -> Result<Response<Self::ReadSamplesStream>, Status> {
        let (ctx, select) = series_select_from_proto(request.into_inner())?;
        let series = self.0.read_samples(&ctx, &select).await.map_err(to_status)?;
        Ok(Response::new(frames(
            ctx,
            batched(series, SERIES_PER_FRAME),
            |batch| proto::QueryFrame {
                kind: ValueKind::Matrix.into(),
                series: batch.into_iter().map(series_to_proto).collect(),
                ..Default::default()
            },
            |ctx| proto::QueryFrame { report: report_to_proto(ctx), ..Default::default() },
        )))
    }

    async fn read_chunks(
        &self,
        request: Request<proto::SeriesSelectRequest>,
    ) -> Result<Response<Self::ReadChunksStream>, Status> {
        let (ctx, select) = series_select_from_proto(request.into_inner())?;
        let series = self.0.read_chunks(&ctx, &select).await.map_err(to_status)?;
        Ok(Response::new(series_frames(ctx, series)))
    }
}

/// A frame of series whose kind is known.
impl Frame for proto::QueryFrame {
    type Item = SeriesSamples;

    fn take_report(&mut self) -> Option<proto::Report> {
        self.report.take()
    }

    fn into_items(self) -> Result<Vec<SeriesSamples>> {
        self.series.into_iter().map(series_from_proto).collect()
    }
}

/// [`Query`] of another process, or of this one through [`crate::channel::local`].
#[derive(Debug, Clone)]
pub struct QueryClient(query_client::QueryClient<Channel>);

impl QueryClient {
    pub fn new(channel: Channel) -> Self {
        Self(
            query_client::QueryClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
    }
}

/// Puts the frames of an answer together again.
async fn collect(ctx: &QueryContext, mut frames: Streaming<proto::QueryFrame>) -> Result<LogsValue> {
    let (mut kind, mut series, mut entries, mut text) = (ValueKind::None, Vec::new(), Vec::new(), None);
    while let Some(mut frame) = within(ctx, frames.message()).await? {
        take_report(ctx, frame.report.take());
        if frame.kind() != ValueKind::None {
            kind = frame.kind();
        }
        if kind == ValueKind::String && text.is_none() {
            text = Some((frame.text_t_ms, std::mem::take(&mut frame.text)));
        }
        for one in frame.series {
            series.push(series_from_proto(one)?);
        }
        if let Some(frame) = frame.entries {
            entries.extend(frame.into_items()?);
        }
    }
    let value = match kind {
        ValueKind::Scalar => {
            let sample = series.first().and_then(|s| s.samples.first());
            QueryValue::Scalar(*sample.ok_or_else(|| Error::damaged("query answer: scalar without value"))?)
        }
        ValueKind::String => {
            let (t_ms, value) = text.unwrap_or_default();
            QueryValue::String { t_ms, value }
        }
        ValueKind::Vector => QueryValue::Vector(series),
        ValueKind::Matrix => QueryValue::Matrix(series),
        ValueKind::Entries => return Ok(LogsValue::Entries(entries)),
        ValueKind::None => return Err(Error::unavailable("query answer ended early")),
    };
    Ok(LogsValue::Metric(value))
}

fn metric(value: LogsValue) -> Result<QueryValue> {
    match value {
        LogsValue::Metric(value) => Ok(value),
        LogsValue::Entries(_) => Err(Error::damaged("query answer: entries where a metric was asked for")),
    }
}

#[async_trait]
impl Query for QueryClient {
    async fn metrics(&self, ctx: &QueryContext, query: &MetricsQuery) -> Result<QueryValue> {
        let request = crate::traced(proto::MetricsQueryRequest {
            context: context_to_proto(ctx),
            expr: query.expr.clone(),
            start_ms: query.start_ms,
            end_ms: query.end_ms,
            step_ms: query.step_ms,
            lookback_ms: query.lookback_ms,
            whole: query.whole_ms.map(|(start_ms, end_ms)| proto::RangeMs { start_ms, end_ms }),
            shard: shard_to_proto(query.shard),
        });
        let response = within(ctx, self.0.clone().metrics(request)).await?;
        metric(collect(ctx, response.into_inner()).await?)
    }

    async fn logs(&self, ctx: &QueryContext, query: &LogsQuery) -> Result<LogsValue> {
        let request = crate::traced(proto::LogsQueryRequest {
            context: context_to_proto(ctx),
            expr: query.expr.clone(),
            start_ns: query.start_ns,
            end_ns: query.end_ns,
            step_ns: query.step_ns,
            forward: query.direction == Direction::Forward,
            limit: query.limit as u64,
            shard: shard_to_proto(query.shard),
            interval_ns: query.interval_ns,
        });
        let response = within(ctx, self.0.clone().logs(request)).await?;
        collect(ctx, response.into_inner()).await
    }

    async fn traces(&self, ctx: &QueryContext, query: &TracesMetricsQuery) -> Result<QueryValue> {
        let request = crate::traced(proto::TracesMetricsQueryRequest {
            context: context_to_proto(ctx),
            query: query.query.clone(),
            start_ns: query.start_ns,
            end_ns: query.end_ns,
            step_ns: query.step_ns,
        });
        let response = within(ctx, self.0.clone().traces(request)).await?;
        metric(collect(ctx, response.into_inner()).await?)
    }

    async fn read_samples(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesSamples>> {
        let request = series_select_to_proto(ctx, select);
        let response = within(ctx, self.0.clone().read_samples(request)).await?;
        Ok(flattened(items(ctx, response.into_inner())))
    }

    async fn read_chunks(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        let request = series_select_to_proto(ctx, select);
        let response = within(ctx, self.0.clone().read_chunks(request)).await?;
        Ok(flattened(items(ctx, response.into_inner())))
    }
}
