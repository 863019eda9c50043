//! Answers that wait for a client who takes them slowly.
//!
//! An answer is made in one piece and may wait in memory for as long as its client reads. What waits counts as memory of the tenant's
//! queries until it is taken, so that clients who ask for much and read little are refused like a query that is too large.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use triptych_model::Error;
use triptych_runtime::{QueryContext, Reservation};

use crate::Shared;
use crate::request::query_limits;

/// Taken at a time. What is no larger costs no more than the connection that it waits on, and is not counted.
const PIECE_BYTES: usize = 64 << 10;

/// What [`hold`] works with.
#[derive(Clone)]
pub struct Holding {
    shared: Arc<Shared>,
    /// An error in the form of the door's originals.
    refuse: fn(Error) -> Response,
}

impl Holding {
    pub fn new(shared: &Arc<Shared>, refuse: fn(Error) -> Response) -> Self {
        Self { shared: shared.clone(), refuse }
    }
}

/// Reserves memory for an answer until it is taken; over a limit the answer is an error. Streams make what they send when it is
/// taken, and pass.
pub async fn hold(State(holding): State<Holding>, request: Request, next: Next) -> Response {
    let Holding { shared, refuse } = holding;
    let tenant = triptych_rpc::tenant_of(request.headers(), shared.multitenancy);
    let response = next.run(request).await;
    let (Ok(tenant), Some(bytes)) = (tenant, response.body().size_hint().exact()) else { return response };
    if bytes <= PIECE_BYTES as u64 {
        return response;
    }
    let limits = shared.limits.of(&tenant);
    let ctx = QueryContext::new(tenant, query_limits(&limits, limits.query.timeout));
    let held = match ctx.reserve(usize::try_from(bytes).unwrap_or(usize::MAX)) {
        Ok(held) => held,
        Err(error) => return refuse(error.context("the answer waits for its client")),
    };
    let (mut parts, body) = response.into_parts();
    let body = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(body) => body,
        Err(error) => return refuse(Error::internal(format!("answer: {error}"))),
    };
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Response::from_parts(parts, Body::from_stream(pieces(body, held)))
}

fn pieces(body: Bytes, held: Reservation) -> impl futures::Stream<Item = Result<Bytes, Error>> + Send {
    // The allocation goes with its last piece, and the reservation with this.
    let mut waiting = (body, held);
    stream::iter(std::iter::from_fn(move || {
        let (body, _) = &mut waiting;
        (!body.is_empty()).then(|| Ok(body.split_to(body.len().min(PIECE_BYTES))))
    }))
}

#[cfg(test)]
mod tests;
