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
        let request = request.into_inner();
        let signal = match request.signal() {
            proto::Signal::Metrics => Signal::Metrics,
            proto::Signal::Logs => Signal::Logs,
            proto::Signal::Traces => Signal::Traces,
        };
        let ctx = WriteContext { tenant: TenantId::new(&request.tenant).map_err(to_status)? };
        let report = self.0.push(&ctx, signal, request.sealed).await.map_err(to_status)?;
        let refused = report
            .refused
            .into_iter()
            .map(|(reason, r)| proto::Refused { reason, items: r.items, example: r.example })
            .collect();
        Ok(Response::new(proto::PushResponse { accepted: report.accepted, refused }))
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
        let signal = match signal {
            Signal::Metrics => proto::Signal::Metrics,
            Signal::Logs => proto::Signal::Logs,
            Signal::Traces => proto::Signal::Traces,
        };
        let request =
            proto::PushRequest { tenant: ctx.tenant.as_str().to_owned(), signal: signal.into(), sealed };
        let request = crate::traced(request);
        let response = self.0.clone().push(request).await.map_err(|s| from_status(&s))?.into_inner();
        let refused = response
            .refused
            .into_iter()
            .map(|r| (r.reason, Refused { items: r.items, example: r.example }))
            .collect();
        Ok(PushReport { accepted: response.accepted, refused })
    }
}
