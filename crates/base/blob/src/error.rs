//! From object_store's errors to our kinds.

use triptych_model::{Error, Kind};

/// What a failed operation on the bucket tells the caller to do. The text is object_store's, which names the object.
pub fn store_error(error: object_store::Error) -> Error {
    use object_store::Error as E;
    let kind = match &error {
        E::NotFound { .. } => Kind::NotFound,
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => Kind::Conflict,
        E::InvalidPath { .. } => Kind::Invalid,
        E::NotSupported { .. } | E::NotImplemented { .. } | E::UnknownConfigurationKey { .. } => {
            Kind::Internal
        }
        // Wrong credentials are mended outside of the process: until then it waits and tries again.
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => Kind::Unavailable,
        _ => Kind::Unavailable,
    };
    Error::new(kind, format!("object storage: {error}"))
}
