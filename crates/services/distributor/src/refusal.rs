//! Why a request was not taken, and how each protocol says so.
//!
//! | | remote write, Loki push | OTLP over HTTP | OTLP over gRPC |
//! |---|---|---|---|
//! | mend it | 400, 413, 415 text | the same, `google.rpc.Status` | `INVALID_ARGUMENT` |
//! | who are you | 401 | 401 | `UNAUTHENTICATED` |
//! | too fast | 429 + `Retry-After` | the same | `RESOURCE_EXHAUSTED` + `RetryInfo` |
//! | not now | 503 + `Retry-After` | the same | `UNAVAILABLE` + `RetryInfo` |
//!
//! OTLP senders retry exactly 429, 502, 503, 504, and `RESOURCE_EXHAUSTED` only with `RetryInfo`; `OUT_OF_RANGE` and
//! `DATA_LOSS` would be retried too, so that nothing permanent may be said with them.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use tonic::{Code, Status};
use triptych_intake::body::BodyError;
use triptych_intake::wire::{put_bytes, put_varint};
use triptych_model::{Error, Kind};
use triptych_rpc::status::{Door, http_status};

/// Told where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn unsupported_media(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// A budget had no room: the sender's own doing, everybody's, or more than will ever be granted.
    pub fn memory(error: Error) -> Self {
        match (error.kind, error.retry_after) {
            (Kind::Exhausted, None) => Self::too_large(error.message),
            _ => error.into(),
        }
    }

    pub fn too_fast(message: String, after: Duration) -> Self {
        Self { status: StatusCode::TOO_MANY_REQUESTS, message, retry_after: Some(after) }
    }

    fn retry_after_s(&self) -> Option<u64> {
        self.retry_after.map(|after| after.as_secs() + u64::from(after.subsec_nanos() > 0))
    }

    fn finish(&self, mut response: Response) -> Response {
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after_s() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// Plain text, as Prometheus and Loki answer.
    pub fn text(&self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        self.finish((headers, format!("{}\n", self.message)).into_response())
    }

    /// `google.rpc.Status` in the request's encoding, as OTLP over HTTP wants it.
    pub fn otlp(&self, json: bool) -> Response {
        let code = self.grpc_code() as i32;
        self.finish(if json {
            let body = serde_json::json!({"code": code, "message": self.message}).to_string();
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        } else {
            let headers = [(header::CONTENT_TYPE, "application/x-protobuf")];
            (headers, self.rpc_status(false)).into_response()
        })
    }

    fn grpc_code(&self) -> Code {
        match self.status.as_u16() {
            401 => Code::Unauthenticated,
            429 => Code::ResourceExhausted,
            499 => Code::Cancelled,
            503 => Code::Unavailable,
            400..500 => Code::InvalidArgument,
            _ => Code::Internal,
        }
    }

    /// `google.rpc.Status { 1 code, 2 message, 3 details* Any { 1 type_url, 2 value } }`.
    fn rpc_status(&self, details: bool) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, 1, self.grpc_code() as u64);
        put_bytes(&mut out, 2, self.message.as_bytes());
        if let (true, Some(after)) = (details, self.retry_after) {
            // RetryInfo { 1 retry_delay Duration { 1 seconds, 2 nanos } }
            let (mut duration, mut info, mut any) = (Vec::new(), Vec::new(), Vec::new());
            put_varint(&mut duration, 1, after.as_secs());
            put_varint(&mut duration, 2, u64::from(after.subsec_nanos()));
            put_bytes(&mut info, 1, &duration);
            put_bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
            put_bytes(&mut any, 2, &info);
            put_bytes(&mut out, 3, &any);
        }
        out
    }

    pub fn grpc(&self) -> Status {
        let details = if self.retry_after.is_some() { self.rpc_status(true).into() } else { Bytes::new() };
        Status::with_details(self.grpc_code(), self.message.clone(), details)
    }
}

/// Errors of decoders and ingesters.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match error.kind {
            // An ingester that lacks a series, or cannot read something, is no fault of the sender.
            Kind::NotFound | Kind::Conflict | Kind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            _ => http_status(&error, Door::Write),
        };
        let retry_after = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Some(error.retry_after.unwrap_or(RETRY_AFTER))
            }
            _ => None,
        };
        Self { status, message: error.message.into_owned(), retry_after }
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        match &error {
            BodyError::UnsupportedEncoding(_) => Self::unsupported_media(error.to_string()),
            BodyError::TooLarge { .. } | BodyError::Bomb { .. } => Self::too_large(error.to_string()),
            BodyError::Damaged(_) => Self::invalid(error.to_string()),
            BodyError::Memory(error) => Self::memory(error.clone()),
        }
    }
}
