//! A tenant id, checked against a strict alphabet before it can touch a path.

use std::fmt;
use std::sync::Arc;

use crate::{Error, Result};

/// Longest tenant id accepted, in bytes (Mimir's and Loki's limit).
pub const TENANT_ID_BYTES_MAX: usize = 150;

/// The id of a tenant: 1 to 150 of `A-Z a-z 0-9 ! - _ . * ' ( )`, but not `.` or `..`, and not the reserved `index`
/// (a prefix in the logs' part of the bucket).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Checks the id. Percent-decoding must have happened before: `%` is not in the alphabet.
    pub fn new(id: &str) -> Result<Self> {
        if id.is_empty() {
            return Err(Error::invalid("tenant id is empty"));
        }
        if id.len() > TENANT_ID_BYTES_MAX {
            return Err(Error::invalid(format!(
                "tenant id has {} bytes, the limit is {TENANT_ID_BYTES_MAX}",
                id.len()
            )));
        }
        if let Some(c) = id.chars().find(|c| !(c.is_ascii_alphanumeric() || "!-_.*'()".contains(*c))) {
            return Err(Error::invalid(format!(
                "tenant id contains {c:?}; allowed are letters, digits and ! - _ . * ' ( )"
            )));
        }
        if matches!(id, "." | ".." | "index") {
            return Err(Error::invalid(format!("tenant id {id:?} is reserved")));
        }
        Ok(Self(id.into()))
    }

    /// The tenant of a system that runs without multitenancy. Grafana's data sources send no header then.
    pub fn single() -> Self {
        Self("anonymous".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_ids_are_refused() {
        for id in
            ["", ".", "..", "../a", "a/b", "%2e%2e", "a\0", "a|b", "index", "ü", "a b", &"x".repeat(151)]
        {
            assert!(TenantId::new(id).is_err(), "{id:?}");
        }
        for id in ["a", "team-a", "A_1.b*'()!", &"x".repeat(150)] {
            assert!(TenantId::new(id).is_ok(), "{id:?}");
        }
    }
}
