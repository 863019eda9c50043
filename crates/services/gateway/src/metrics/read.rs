//! `POST /api/v1/read`: remote read, for other Prometheus servers, Thanos and the like.
//!
//! The protocol has no place for warnings: where something could not be read the request fails, with a status as long as none
//! was sent, else by breaking the stream off.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use futures::stream::{BoxStream, StreamExt};
use http::{HeaderValue, StatusCode, header};
use triptych_intake::body::{BodyError, Encoding, decode};
use triptych_intake::remote_read::{self, Form};
use triptych_model::metrics::SeriesSelect;
use triptych_model::{Error, Result};
use triptych_rpc::{Door, http_status};
use triptych_runtime::QueryContext;

use crate::Shared;
use crate::request::Asked;

/// Largest request, compressed and plain.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Frames are collected up to this size before they are sent.
const PART_BYTES: usize = 64 << 10;

pub async fn read(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let asked = match Asked::from_request(Request::from_parts(parts, Body::empty()), &shared).await {
        Ok(asked) => asked,
        Err(response) => return response,
    };
    answer(asked, body).await.unwrap_or_else(|refused| refused)
}

async fn answer(asked: Asked, body: Body) -> Result<Response, Response> {
    let body = receive(&asked, body).await?;
    let request = remote_read::decode(&body).map_err(refusal)?;
    for query in &request.queries {
        asked
            .check_range_ns(query.start_ms.saturating_mul(1_000_000), query.end_ms.saturating_mul(1_000_000))
            .map_err(refusal)?;
    }
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static(request.form.content_type()));
    match request.form {
        Form::Samples => {
            let body = samples(&asked, &request.queries).await.map_err(refusal)?;
            Ok(([kind, (header::CONTENT_ENCODING, HeaderValue::from_static("snappy"))], body).into_response())
        }
        Form::Chunks => {
            let mut parts = chunks(asked, request.queries);
            // The first part decides the status.
            let first = parts.next().await.transpose().map_err(refusal)?;
            let body = futures::stream::iter(first.map(Ok)).chain(parts);
            Ok(([kind], Body::from_stream(body)).into_response())
        }
    }
}

/// The plain request.
async fn receive(asked: &Asked, body: Body) -> Result<Vec<u8>, Response> {
    let too_large = |text: String| (StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
    let read = tokio::time::timeout(asked.ctx.remaining(), axum::body::to_bytes(body, BODY_BYTES_MAX));
    let body = read
        .await
        .map_err(|_| {
            (StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time").into_response()
        })?
        .map_err(|_| too_large(format!("request body is larger than {BODY_BYTES_MAX} bytes")))?;
    let plain = decode(&body, Encoding::Snappy, BODY_BYTES_MAX, &mut |_| Ok(()));
    plain.map(|plain| plain.into_owned()).map_err(|error| match error {
        BodyError::TooLarge { .. } | BodyError::Bomb { .. } => too_large(error.to_string()),
        other => refusal(Error::invalid(other.to_string())),
    })
}

fn refusal(error: Error) -> Response {
    let mut response = (http_status(&error, Door::Read), format!("{}\n", error.message)).into_response();
    if let Some(after) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, after.as_secs().max(1).into());
    }
    response
}

async fn samples(asked: &Asked, queries: &[SeriesSelect]) -> Result<Vec<u8>> {
    let mut held = asked.ctx.reserve(0)?;
    let mut response = Vec::new();
    for select in queries {
        let mut result = Vec::new();
        let mut series = asked.shared.query.read_samples(&asked.ctx, select).await?;
        while let Some(one) = series.next().await {
            let before = result.len();
            remote_read::put_series(&mut result, &one?);
            // Here, in the response, and compressed.
            held.grow(3 * (result.len() - before))?;
        }
        remote_read::put_result(&mut response, &result);
    }
    whole(&asked.ctx)?;
    remote_read::compress(&response)
}

fn chunks(asked: Asked, queries: Vec<SeriesSelect>) -> BoxStream<'static, Result<Bytes>> {
    let parts = async_stream::try_stream! {
        // All of it: what is dropped with the question cancels it.
        let asked = asked;
        let mut part = Vec::new();
        for (position, select) in queries.iter().enumerate() {
            let mut series = asked.shared.query.read_chunks(&asked.ctx, select).await?;
            while let Some(one) = series.next().await {
                remote_read::put_frames(&mut part, &one?, position);
                if part.len() >= PART_BYTES {
                    yield Bytes::from(std::mem::take(&mut part));
                }
            }
        }
        whole(&asked.ctx)?;
        yield Bytes::from(part);
    };
    parts.boxed()
}

/// Fails where the answer is partial.
fn whole(ctx: &QueryContext) -> Result<()> {
    match ctx.report().missed.as_slice() {
        [] => Ok(()),
        missed => Err(Error::unavailable(format!("the answer would be partial: {}", missed.join("; ")))),
    }
}
