//! `Ingest` over gRPC.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use triptych_model::push::{PushReport, Refused};
use triptych_model::{Result, Signal, TenantId};

use crate::channel::MESSAGE_BYTES_MAX;
use crate::proto::{self, ingest_client, ingest_server};
use crate::status::{from_status, to_status};
use crate::traits::{Ingest, WriteContext};

/// Serves any [`Ingest`].
pub struct IngestServer(Arc<dyn Ingest>);

impl IngestServer {
    pub fn service(ingest: Arc<dyn Ingest>) -> ingest_server::IngestServer<Self> {
        ingest_server::IngestServer::new(Self(ingest))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[async_trait]
impl ingest_server::Ingest for IngestServer {
    async fn push(
        &self,
        request: Request<proto::PushRequest>,
    ) -> Result<Response<proto::PushResponse>, Status> {
        let (ctx, signal, sealed) = push_from_proto(request.into_inner())?;
        let report = self.0.push(&ctx, signal, sealed).await.map_err(to_status)?;
        Ok(Response::new(report_to_proto(report)))
    }
}

/// [`Ingest`] of another process, or of this one through [`crate::channel::local`].
#[derive(Debug, Clone)]
pub struct IngestClient(ingest_client::IngestClient<Channel>);

impl IngestClient {
    pub fn new(channel: Channel) -> Self {
        Self(
            ingest_client::IngestClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
    }
}

#[async_trait]
impl Ingest for IngestClient {
    async fn push(&self, ctx: &WriteContext, signal: Signal, sealed: Bytes) -> Result<PushReport> {
        let request = crate::traced(push_to_proto(ctx, signal, sealed));
        let response = self.0.clone().push(request).await.map_err(|s| from_status(&s))?;
        Ok(report_from_proto(response.into_inner()))
    }
}

pub(crate) fn push_to_proto(ctx: &WriteContext, signal: Signal, sealed: Bytes) -> proto::PushRequest {
    let signal = match signal {
        Signal::Metrics => proto::Signal::Metrics,
        Signal::Logs => proto::Signal::Logs,
        Signal::Traces => proto::Signal::Traces,
    };
    proto::PushRequest { tenant: ctx.tenant.as_str().to_owned(), signal: signal.into(), sealed }
}

pub(crate) fn push_from_proto(request: proto::PushRequest) -> Result<(WriteContext, Signal, Bytes), Status> {
    let signal = match request.signal() {
        proto::Signal::Metrics => Signal::Metrics,
        proto::Signal::Logs => Signal::Logs,
        proto::Signal::Traces => Signal::Traces,
    };
    let tenant = TenantId::new(&request.tenant).map_err(to_status)?;
    Ok((WriteContext { tenant }, signal, request.sealed))
}

pub(crate) fn report_to_proto(report: PushReport) -> proto::PushResponse {
    let refused =
        |(reason, r): (String, Refused)| proto::Refused { reason, items: r.items, example: r.example };
    proto::PushResponse {
        accepted: report.accepted,
        refused: report.refused.into_iter().map(refused).collect(),
    }
}

pub(crate) fn report_from_proto(response: proto::PushResponse) -> PushReport {
    let refused = |r: proto::Refused| (r.reason, Refused { items: r.items, example: r.example });
    PushReport { accepted: response.accepted, refused: response.refused.into_iter().map(refused).collect() }
}
