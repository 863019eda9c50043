//! `Write` over gRPC.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use triptych_model::batch::{self, LogsBuilder, MetricsBuilder, TracesBuilder};
use triptych_model::push::PushReport;
use triptych_model::{Result, Signal};

use crate::channel::MESSAGE_BYTES_MAX;
use crate::ingest::{push_from_proto, push_to_proto, report_from_proto, report_to_proto};
use crate::proto::{self, write_client, write_server};
use crate::status::{from_status, to_status};
use crate::traits::{Write, WriteContext};

/// Largest batch that is opened, plain.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Serves any [`Write`].
pub struct WriteServer(Arc<dyn Write>);

impl WriteServer {
    pub fn service(write: Arc<dyn Write>) -> write_server::WriteServer<Self> {
        write_server::WriteServer::new(Self(write))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn take(&self, ctx: &WriteContext, signal: Signal, sealed: Bytes) -> Result<PushReport> {
        let plain = batch::open(&sealed, BATCH_BYTES_MAX)?;
        match signal {
            Signal::Metrics => self.0.metrics(ctx, MetricsBuilder::from_plain(plain)?).await,
            Signal::Logs => self.0.logs(ctx, LogsBuilder::from_plain(plain)?).await,
            Signal::Traces => self.0.traces(ctx, TracesBuilder::from_plain(plain)?).await,
        }
    }
}

#[async_trait]
impl write_server::Write for WriteServer {
    async fn write(
        &self,
        request: Request<proto::PushRequest>,
    ) -> Result<Response<proto::PushResponse>, Status> {
        let (ctx, signal, sealed) = push_from_proto(request.into_inner())?;
        let report = self.take(&ctx, signal, sealed).await.map_err(to_status)?;
        Ok(Response::new(report_to_proto(report)))
    }
}

/// [`Write`] of another process.
#[derive(Debug, Clone)]
pub struct WriteClient(write_client::WriteClient<Channel>);

impl WriteClient {
    pub fn new(channel: Channel) -> Self {
        Self(
            write_client::WriteClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
    }

    /// Any signal's sealed batch.
    pub async fn write(&self, ctx: &WriteContext, signal: Signal, sealed: Bytes) -> Result<PushReport> {
        let request = crate::traced(push_to_proto(ctx, signal, sealed));
        let response = self.0.clone().write(request).await.map_err(|s| from_status(&s))?;
        Ok(report_from_proto(response.into_inner()))
    }
}
