//! One table from error kinds to gRPC and HTTP.

use std::time::Duration;

use http::StatusCode;
use tonic::{Code, Status};
use triptych_model::{Error, Kind};

/// Where an error leaves the house. A spent budget means "later" to somebody who writes and "ask for less" to somebody who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Write,
    Read,
}

/// The table. `Cancelled` is nginx' 499: nobody is there to read it, but logs and metrics are. A reader whose budget is spent
/// has to ask for less, unless the error says when to come again.
pub fn http_status(error: &Error, door: Door) -> StatusCode {
    match (error.kind, door) {
        (Kind::Exhausted, Door::Read) if error.retry_after.is_some() => StatusCode::TOO_MANY_REQUESTS,
        (Kind::Invalid, _) => StatusCode::BAD_REQUEST,
        (Kind::NotFound, _) => StatusCode::NOT_FOUND,
        (Kind::Conflict, _) => StatusCode::CONFLICT,
        (Kind::Exhausted, Door::Write) => StatusCode::TOO_MANY_REQUESTS,
        (Kind::Exhausted, Door::Read) => StatusCode::UNPROCESSABLE_ENTITY,
        (Kind::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
        (Kind::Cancelled, _) => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        (Kind::Damaged | Kind::Internal, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub fn grpc_code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::Aborted,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Cancelled => Code::Cancelled,
        Kind::Damaged => Code::DataLoss,
        Kind::Internal => Code::Internal,
    }
}

/// Whether the same request may succeed when it is sent again.
pub fn is_retryable(kind: Kind) -> bool {
    matches!(kind, Kind::Unavailable | Kind::Exhausted)
}

const RETRY_AFTER_MS: &str = "retry-after-ms";

pub fn to_status(error: Error) -> Status {
    let mut status = Status::new(grpc_code(error.kind), error.message);
    if let Some(after) = error.retry_after
        && let Ok(value) = after.as_millis().to_string().parse()
    {
        status.metadata_mut().insert(RETRY_AFTER_MS, value);
    }
    status
}

pub fn from_status(status: &Status) -> Error {
    let kind = match status.code() {
        // No peer said so: the connection broke, or never came about.
        _ if std::error::Error::source(status).is_some() => Kind::Unavailable,
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => Kind::Invalid,
        Code::NotFound => Kind::NotFound,
        Code::Aborted | Code::AlreadyExists => Kind::Conflict,
        Code::ResourceExhausted => Kind::Exhausted,
        Code::Unavailable | Code::DeadlineExceeded => Kind::Unavailable,
        Code::Cancelled => Kind::Cancelled,
        Code::DataLoss => Kind::Damaged,
        _ => Kind::Internal,
    };
    let error = Error::new(kind, status.message().to_owned());
    match status.metadata().get(RETRY_AFTER_MS).and_then(|v| v.to_str().ok()?.parse().ok()) {
        Some(ms) => error.retry_after(Duration::from_millis(ms)),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_is_not_too_much() {
        let spent = Error::exhausted("query memory");
        assert_eq!(http_status(&spent, Door::Read), StatusCode::UNPROCESSABLE_ENTITY);
        let later = spent.retry_after(Duration::from_secs(1));
        assert_eq!(http_status(&later, Door::Read), StatusCode::TOO_MANY_REQUESTS);
    }

    #[test]
    fn kinds_survive_the_wire() {
        for kind in [
            Kind::Invalid,
            Kind::NotFound,
            Kind::Conflict,
            Kind::Exhausted,
            Kind::Unavailable,
            Kind::Cancelled,
            Kind::Damaged,
            Kind::Internal,
        ] {
            let error = Error::new(kind, "why").retry_after(Duration::from_millis(1500));
            let back = from_status(&to_status(error));
            assert_eq!(
                (back.kind, &*back.message, back.retry_after),
                (kind, "why", Some(Duration::from_millis(1500)))
            );
        }
    }
}
