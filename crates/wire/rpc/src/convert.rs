//! Conversions that several services share: label sets and their tables, matchers, streams of frames.

use std::collections::HashMap;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::runtime::Handle;
use tonic::{Request, Status, Streaming};
use triptych_model::{Error, Labels, MatchOp, Matcher, Result, Shard, Version};
use triptych_runtime::{QueryContext, ahead};

use crate::context::{context_from_proto, context_to_proto, report_to_proto, take_report};
use crate::proto;
use crate::status::to_status;
use crate::traits::Stream;

pub(crate) type FrameStream<F> = BoxStream<'static, Result<F, Status>>;

pub(crate) fn labels_to_proto(labels: &Labels) -> Bytes {
    Bytes::copy_from_slice(labels.as_encoded())
}

pub(crate) fn labels_from_proto(bytes: &[u8]) -> Result<Labels> {
    Labels::from_encoded(bytes)
}

/// A frame's table of label sets. Position 0 is the empty set and is not sent.
#[derive(Default)]
pub(crate) struct LabelTable {
    positions: HashMap<Labels, u32>,
    pub(crate) sets: Vec<Bytes>,
}

impl LabelTable {
    pub(crate) fn position(&mut self, labels: Labels) -> u32 {
        if labels.is_empty() {
            return 0;
        }
        *self.positions.entry(labels).or_insert_with_key(|labels| {
            self.sets.push(labels_to_proto(labels));
            self.sets.len() as u32
        })
    }
}

/// Reads a table back.
pub(crate) fn table_from_proto(sets: &[Bytes]) -> Result<Vec<Labels>> {
    std::iter::once(Ok(Labels::empty())).chain(sets.iter().map(|s| labels_from_proto(s))).collect()
}

pub(crate) fn at(table: &[Labels], position: u32) -> Result<Labels> {
    table
        .get(position as usize)
        .cloned()
        .ok_or_else(|| Error::damaged("frame: label set is not in its table"))
}

pub(crate) fn matchers_to_proto(matchers: &[Matcher]) -> Vec<proto::Matcher> {
    let op = |op| match op {
        MatchOp::Equal => proto::MatchOp::Equal,
        MatchOp::NotEqual => proto::MatchOp::NotEqual,
        MatchOp::Regex => proto::MatchOp::Regex,
        MatchOp::NotRegex => proto::MatchOp::NotRegex,
    };
    matchers
        .iter()
        .map(|m| proto::Matcher { op: op(m.op).into(), name: m.name.clone(), value: m.value.clone() })
        .collect()
}

pub(crate) fn matchers_from_proto(matchers: Vec<proto::Matcher>) -> Result<Vec<Matcher>> {
    matchers
        .into_iter()
        .map(|m| {
            let op = match m.op() {
                proto::MatchOp::Equal => MatchOp::Equal,
                proto::MatchOp::NotEqual => MatchOp::NotEqual,
                proto::MatchOp::Regex => MatchOp::Regex,
                proto::MatchOp::NotRegex => MatchOp::NotRegex,
            };
            Matcher::new(op, m.name, m.value)
        })
        .collect()
}

pub(crate) fn matcher_sets_to_proto(sets: &[Vec<Matcher>]) -> Vec<proto::MatcherSet> {
    sets.iter().map(|set| proto::MatcherSet { matchers: matchers_to_proto(set) }).collect()
}

pub(crate) fn matcher_sets_from_proto(sets: Vec<proto::MatcherSet>) -> Result<Vec<Vec<Matcher>>> {
    sets.into_iter().map(|set| matchers_from_proto(set.matchers)).collect()
}

pub(crate) fn shard_to_proto(shard: Option<Shard>) -> Option<proto::Shard> {
    shard.map(|s| proto::Shard { index: s.index(), count: s.count() })
}

pub(crate) fn shard_from_proto(shard: Option<proto::Shard>) -> Result<Option<Shard>, Status> {
    shard.map(|s| Shard::new(s.index, s.count).map_err(to_status)).transpose()
}

pub(crate) fn versions_request(ctx: &QueryContext, ranges: &[(i64, i64)]) -> Request<proto::VersionsRequest> {
    let (starts, ends) = ranges.iter().copied().unzip();
    crate::traced(proto::VersionsRequest { context: context_to_proto(ctx), starts, ends })
}

pub(crate) fn versions_from_request(
    request: proto::VersionsRequest,
) -> Result<(QueryContext, Vec<(i64, i64)>), Status> {
    let proto::VersionsRequest { context, starts, ends } = request;
    if starts.len() != ends.len() {
        return Err(Status::invalid_argument("ranges: not as many ends as starts"));
    }
    Ok((context_from_proto(context)?, starts.into_iter().zip(ends).collect()))
}

pub(crate) fn versions_to_proto(ctx: &QueryContext, versions: &[Version]) -> proto::VersionsResponse {
    let versions = versions.iter().map(|version| version.to_bits()).collect();
    proto::VersionsResponse { versions, report: report_to_proto(ctx) }
}

pub(crate) fn versions_from_proto(ctx: &QueryContext, response: proto::VersionsResponse) -> Vec<Version> {
    take_report(ctx, response.report);
    response.versions.into_iter().map(Version::from_bits).collect()
}

/// Groups single items into batches of what is ready, so that a frame carries many.
pub(crate) fn batched<T: Send + 'static>(items: Stream<T>, items_max: usize) -> Stream<Vec<T>> {
    items.ready_chunks(items_max).map(|chunk| chunk.into_iter().collect()).boxed()
}

/// Frames that are made before they are sent.
const FRAMES_AHEAD: usize = 2;

/// The server's side of a stream, to be called from within a runtime: a frame per batch, the report in the last one. Cancels the question when the peer drops it.
pub(crate) fn frames<T, F>(
    ctx: QueryContext,
    batches: Stream<Vec<T>>,
    frame: impl Fn(Vec<T>) -> F + Send + 'static,
    last: impl Fn(&QueryContext) -> F + Send + 'static,
) -> FrameStream<F>
where
    T: Send + 'static,
    F: Send + 'static,
{
    // On the pool of the call; the connection's own only sends.
    let made = batches.map(move |batch| batch.map(&frame)).boxed();
    let mut made = ahead(&Handle::current(), made, FRAMES_AHEAD);
    async_stream::stream! {
        let _guard = ctx.cancel_on_drop();
        while let Some(frame) = made.next().await {
            match frame {
                Ok(frame) => yield Ok(frame),
                Err(error) => {
                    yield Err(to_status(error));
                    return;
                }
            }
        }
        yield Ok(last(&ctx));
    }
    .boxed()
}

/// A frame that may carry the report.
pub(crate) trait Frame: Send + 'static {
    type Item: Send + 'static;
    fn take_report(&mut self) -> Option<proto::Report>;
    fn into_items(self) -> Result<Vec<Self::Item>>;
}

/// The client's side of a stream. Ends at the question's deadline, and when it is cancelled.
pub(crate) fn items<F: Frame>(ctx: &QueryContext, mut frames: Streaming<F>) -> Stream<Vec<F::Item>> {
    let ctx = ctx.clone();
    async_stream::stream! {
        loop {
            match crate::context::within(&ctx, frames.message()).await {
                Ok(Some(mut frame)) => {
                    take_report(&ctx, frame.take_report());
                    match frame.into_items() {
                        Ok(items) if items.is_empty() => {}
                        Ok(items) => yield Ok(items),
                        Err(error) => {
                            yield Err(error);
                            return;
                        }
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    yield Err(error);
                    return;
                }
            }
        }
    }
    .boxed()
}

/// Single items out of batches.
pub(crate) fn flattened<T: Send + 'static>(batches: Stream<Vec<T>>) -> Stream<T> {
    batches
        .flat_map(|batch| match batch {
            Ok(items) => futures::stream::iter(items.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => futures::stream::iter(vec![Err(error)]),
        })
        .boxed()
}
