//! From an HTTP or gRPC request to a question: tenant, limits, deadline, and cancellation when the client goes.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, Method, StatusCode};
use triptych_config::Limits;
use triptych_model::{Error, Result, TenantId};
use triptych_rpc::Query;
use triptych_runtime::{QueryContext, QueryLimits};

use crate::Shared;
use crate::params::{FORM_BYTES_MAX, Params};

/// A question on its way. Dropped when the client goes away, which cancels the work everywhere.
pub struct Asked {
    pub params: Params,
    pub headers: HeaderMap,
    pub ctx: QueryContext,
    pub limits: Arc<Limits>,
    pub shared: Arc<Shared>,
    _cancel: CancelOnDrop,
}

/// Cancels the question on drop.
struct CancelOnDrop(QueryContext);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl FromRequest<Arc<Shared>> for Asked {
    type Rejection = Response;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let tenant = triptych_rpc::tenant_of(&parts.headers, shared.multitenancy)
            .map_err(|e| (e.http_status(), e.to_string()).into_response())?;
        let is_form = parts.method == Method::POST
            && parts
                .headers
                .get(http::header::CONTENT_TYPE)
                .and_then(|v| v.to_str().ok())
                .is_some_and(|v| v.starts_with("application/x-www-form-urlencoded"));
        let form = if is_form {
            axum::body::to_bytes(body, FORM_BYTES_MAX).await.map_err(|_| {
                (StatusCode::PAYLOAD_TOO_LARGE, format!("form body is larger than {FORM_BYTES_MAX} bytes"))
                    .into_response()
            })?
        } else {
            Bytes::new()
        };
        let params = Params::parse(parts.uri.query().unwrap_or_default(), &form);
        Self::new(shared, tenant, params, parts.headers)
            .map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()).into_response())
    }
}

/// What one query of a tenant may cost.
pub fn query_limits(limits: &Limits, timeout: Duration) -> QueryLimits {
    QueryLimits {
        read_bytes_max: limits.query.read_bytes_max,
        rows_max: limits.query.rows_max,
        memory_bytes_max: limits.query.memory_bytes_max,
        timeout,
    }
}

impl Asked {
    /// A question with the tenant's limits.
    pub fn new(shared: &Arc<Shared>, tenant: TenantId, params: Params, headers: HeaderMap) -> Result<Self> {
        let limits = shared.limits.of(&tenant);
        // A client may ask for less time than the limit, as Prometheus' `timeout` parameter does.
        let asked = params.duration_ns("timeout")?.filter(|ns| *ns > 0);
        let timeout = asked
            .map_or(limits.query.timeout, |ns| Duration::from_nanos(ns as u64).min(limits.query.timeout));
        let ctx = QueryContext::new(tenant, query_limits(&limits, timeout));
        let cancel = CancelOnDrop(ctx.clone());
        Ok(Self { params, headers, ctx, limits, shared: shared.clone(), _cancel: cancel })
    }

    /// The languages; with `Cache-Control: no-store` every answer is made anew.
    pub fn query(&self) -> &dyn Query {
        let mut directives = self.headers.get_all(CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
        let is_fresh =
            directives.any(|all| all.split(',').any(|one| one.trim().eq_ignore_ascii_case("no-store")));
        if is_fresh { &*self.shared.fresh } else { &*self.shared.query }
    }

    /// Refuses a range that ends before it starts, or is longer than the tenant may ask for.
    pub fn check_range_ns(&self, start_ns: i64, end_ns: i64) -> Result<()> {
        if end_ns < start_ns {
            return Err(Error::invalid(
                "invalid parameter \"end\": end timestamp must not be before start time",
            ));
        }
        let max = self.limits.query.range_max;
        let length = Duration::from_nanos(end_ns.saturating_sub(start_ns) as u64);
        if !max.is_zero() && length > max {
            return Err(Error::invalid(format!(
                "the query time range exceeds the limit (query length: {length:?}, limit: {max:?})"
            )));
        }
        Ok(())
    }
}
