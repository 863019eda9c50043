//! Who a request is from: the header `X-Scope-OrgID`, for HTTP as for gRPC, whose metadata are headers.

use http::{HeaderMap, StatusCode};
use triptych_model::{Error, TenantId};

/// The header that names the tenant, as Mimir, Loki and Tempo call it.
pub const TENANT_HEADER: &str = "x-scope-orgid";

/// Why a request belongs to nobody.
#[derive(Debug, Clone)]
pub enum Unidentified {
    /// There are several tenants, and no header says which.
    Missing,
    /// The header names none.
    Wrong(Error),
}

impl Unidentified {
    /// 401 where nothing was said, 400 where what was said is wrong.
    pub fn http_status(&self) -> StatusCode {
        match self {
            Self::Missing => StatusCode::UNAUTHORIZED,
            Self::Wrong(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// The same two in gRPC.
    pub fn grpc_status(&self) -> tonic::Status {
        match self {
            Self::Missing => tonic::Status::unauthenticated(self.to_string()),
            Self::Wrong(_) => tonic::Status::invalid_argument(self.to_string()),
        }
    }
}

impl std::fmt::Display for Unidentified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("no org id: header X-Scope-OrgID is missing"),
            Self::Wrong(error) => f.write_str(&error.message),
        }
    }
}

/// The tenant of a request. The header is looked at only where there are several.
pub fn tenant_of(headers: &HeaderMap, multitenancy: bool) -> Result<TenantId, Unidentified> {
    if !multitenancy {
        return Ok(TenantId::single());
    }
    let mut values = headers.get_all(TENANT_HEADER).iter();
    let id = values.next().ok_or(Unidentified::Missing)?;
    let wrong = |text: &str| Unidentified::Wrong(Error::invalid(text.to_owned()));
    if values.next().is_some() {
        return Err(wrong("header X-Scope-OrgID occurs more than once"));
    }
    let id = id.to_str().map_err(|_| wrong("header X-Scope-OrgID is not ASCII text"))?;
    TenantId::new(id).map_err(Unidentified::Wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_good_header_names_the_tenant() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TENANT_HEADER, value.parse().unwrap());
            }
            tenant_of(&headers, true).map_err(|e| (e.http_status().as_u16(), e.to_string()))
        };
        assert_eq!(of(&["team-a"]).unwrap().as_str(), "team-a");
        for (values, status, text) in [
            (&[][..], 401, "no org id"),
            (&["a", "a"], 400, "more than once"),
            (&["../a"], 400, "tenant id contains"),
            (&["\u{fc}"], 400, "not ASCII"),
        ] {
            let (got, message) = of(values).unwrap_err();
            assert!(got == status && message.contains(text), "{values:?}: {got} {message}");
        }
        assert_eq!(tenant_of(&HeaderMap::new(), false).unwrap(), TenantId::single());
    }
}
