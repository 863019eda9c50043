//! Pushes, passed on to a distributor: in a cluster clients may write where they read.
//!
//! A body that is not longer than [`AGAIN_BYTES_MAX`] is read first and can be sent again, to the next distributor, as long as none has
//! answered: what was written twice is shown once. A longer one is streamed to the first. What a distributor answers is the answer, a
//! refusal too.
//!
//! **Memory**: what is read first, reserved from the tenant's part of the share of pushes; behind it what HTTP/2 has on its way.
//!
//! Known holes: a distributor that hangs is waited for until the connection's keep-alive gives it up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderName, header};
use tonic::transport::Channel;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;
use triptych_model::{Error, Result};
use triptych_ring::Peers;
use triptych_rpc::{Door, http_status};
use triptych_runtime::{MemoryBudget, Reservation};

use crate::telemetry;

/// A body that is not longer can be sent again.
const AGAIN_BYTES_MAX: usize = 1 << 20;
/// How long a client may take to send so much.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// When a client should come again whom no distributor answered.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A distributor's HTTP, over there. Fails where no answer comes.
pub type Distributor = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, tower::BoxError>;

/// Where a distributor takes pushes on its main port, and the OTLP services of its gRPC port.
const PATHS: [&str; 13] = [
    "/api/v1/write",
    "/api/v1/push",
    "/loki/api/v1/push",
    "/api/v1/otlp/v1/metrics",
    "/otlp/v1/metrics",
    "/otlp/v1/logs",
    "/otlp/v1/traces",
    "/v1/metrics",
    "/v1/logs",
    "/v1/traces",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
];

/// Of one connection, not of the request.
static HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// The distributor behind a channel to its internal services.
pub fn distributor(channel: &Channel) -> Distributor {
    let over_there =
        channel.clone().map_request(|request: http::Request<Body>| request.map(tonic::body::Body::new));
    let answered =
        over_there.map_response(|response: http::Response<tonic::body::Body>| response.map(Body::new));
    BoxCloneSyncService::new(answered.map_err(Into::into))
}

/// See the module.
pub(crate) struct Push {
    distributors: Peers<Distributor>,
    memory: MemoryBudget,
    multitenancy: bool,
    turn: AtomicUsize,
}

impl Push {
    pub fn new(distributors: Peers<Distributor>, memory: MemoryBudget, multitenancy: bool) -> Self {
        Self { distributors, memory, multitenancy, turn: AtomicUsize::new(0) }
    }

    /// Each in turn, and the next one when one does not answer.
    async fn send(&self, request: Request) -> Result<Response> {
        let (mut parts, body) = request.into_parts();
        HOP_BY_HOP.iter().for_each(|name| _ = parts.headers.remove(name));
        // In the other process' own way.
        parts.version = http::Version::HTTP_2;
        parts.extensions = http::Extensions::new();
        // Who names no tenant, or a bad one, is told so by the distributor, in the protocol's form.
        let memory = match triptych_rpc::tenant_of(&parts.headers, self.multitenancy) {
            Ok(tenant) => self.memory.tenant(&tenant),
            Err(_) => self.memory.clone(),
        };
        let mut body = Read::new(body, memory.reserve(0)?).await?;
        let peers = self.distributors.borrow().clone();
        let serving: Vec<_> = peers.iter().filter(|peer| peer.member.is_serving()).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut error = Error::unavailable("no distributor takes writes now");
        for at in 0..serving.len() {
            let Some(body) = body.take() else { break };
            let peer = serving[turn.wrapping_add(at) % serving.len()];
            let request = Request::from_parts(parts.clone(), body);
            match peer.service.clone().oneshot(request).await {
                Ok(mut response) => {
                    HOP_BY_HOP.iter().for_each(|name| _ = response.headers_mut().remove(name));
                    return Ok(response);
                }
                Err(e) => {
                    telemetry::distributor_failures(peer.member.id.to_string()).increment(1);
                    error = Error::unavailable(format!("distributor {}: {e}", peer.member.id));
                }
            }
        }
        Err(error.retry_after(RETRY_AFTER))
    }
}

/// What was read of a body, and the rest of it.
struct Read {
    first: Vec<Bytes>,
    /// `None` at its end, and when it was sent.
    rest: Option<BodyDataStream>,
    is_sent: bool,
    _memory: Reservation,
}

impl Read {
    async fn new(body: Body, mut memory: Reservation) -> Result<Self> {
        let mut rest = body.into_data_stream();
        let mut first = Vec::new();
        let read = async {
            while memory.bytes() < AGAIN_BYTES_MAX {
                match rest.next().await {
                    Some(data) => {
                        let data =
                            data.map_err(|e| Error::invalid(format!("reading the request body: {e}")))?;
                        memory.grow(data.len())?;
                        first.push(data);
                    }
                    None => return Ok(true),
                }
            }
            Ok::<_, Error>(false)
        };
        let is_whole = tokio::time::timeout(READ_TIMEOUT, read).await.map_err(|_| {
            Error::invalid(format!("the request body did not arrive within {READ_TIMEOUT:?}"))
        })??;
        Ok(Self { first, rest: (!is_whole).then_some(rest), is_sent: false, _memory: memory })
    }

    /// The body; again where all of it was read.
    fn take(&mut self) -> Option<Body> {
        let again = self.rest.is_none() && !self.is_sent;
        match self.rest.take() {
            Some(rest) => {
                self.is_sent = true;
                let first = stream::iter(std::mem::take(&mut self.first)).map(Ok);
                Some(Body::from_stream(first.chain(rest)))
            }
            None => {
                again.then(|| Body::from_stream(stream::iter(self.first.clone()).map(Ok::<_, axum::Error>)))
            }
        }
    }
}

async fn pass_on(State(push): State<Arc<Push>>, request: Request) -> Response {
    push.send(request).await.unwrap_or_else(|error| {
        let mut headers = HeaderMap::new();
        if let Some(after) = error.retry_after {
            headers.insert(header::RETRY_AFTER, after.as_secs().max(1).into());
        }
        (http_status(&error, Door::Write), headers, error.to_string()).into_response()
    })
}

/// The paths of pushes. GET on them is 405.
pub(crate) fn routes(push: Arc<Push>) -> Router {
    PATHS.into_iter().fold(Router::new(), |routes, path| routes.route(path, post(pass_on))).with_state(push)
}

#[cfg(test)]
mod tests;
