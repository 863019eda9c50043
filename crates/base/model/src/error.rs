//! The one list of error kinds. A kind tells the caller what to do, the message tells a person why.

use std::borrow::Cow;
use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do about it. Mapped to gRPC and HTTP in one table, `triptych_rpc::status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Mend the request; sending it again as it is will fail again.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// Somebody else changed it meanwhile: read again, then decide.
    Conflict,
    /// A limit or a budget is spent: ask for less, or later.
    Exhausted,
    /// Not now: try again, here or at another replica. A deadline that passed is of this kind.
    Unavailable,
    /// The caller went away or cancelled; nobody is waiting for the answer.
    Cancelled,
    /// Stored bytes are not what they should be. What could not be read is named.
    Damaged,
    /// Our own mistake. A human must look.
    Internal,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Invalid => "invalid",
            Kind::NotFound => "not_found",
            Kind::Conflict => "conflict",
            Kind::Exhausted => "exhausted",
            Kind::Unavailable => "unavailable",
            Kind::Cancelled => "cancelled",
            Kind::Damaged => "damaged",
            Kind::Internal => "internal",
        }
    }
}

/// An error at a public boundary: a kind for the program, a text for the person.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: Kind,
    pub message: Cow<'static, str>,
    /// When to come again, where that is known (HTTP `Retry-After`).
    pub retry_after: Option<Duration>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        $( $(#[$doc])* pub fn $name(message: impl Into<Cow<'static, str>>) -> Self { Self::new(Kind::$kind, message) } )*
    };
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    constructors! {
        invalid => Invalid, not_found => NotFound, conflict => Conflict, exhausted => Exhausted,
        unavailable => Unavailable, cancelled => Cancelled, damaged => Damaged, internal => Internal,
    }

    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Puts what was being done before the text: `reading block 01J..: object not found`.
    #[must_use]
    pub fn context(mut self, doing: impl std::fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message).into();
        self
    }
}
