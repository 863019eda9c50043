//! What operators ask of a process: is it ready, how is it configured, flush, compact.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, http::StatusCode, http::header};
use serde_json::json;
use triptych_compactor::Compactor;
use triptych_ingester::Ingester;
use triptych_store_gateway::StoreGateway;

type Checks = Vec<(&'static str, Box<dyn Fn() -> bool + Send + Sync>)>;

/// What the endpoints look at.
pub struct Admin {
    pub checks: Checks,
    /// YAML, secrets hidden.
    pub config: String,
    pub ingester: Option<Ingester>,
    pub store_gateway: Option<Arc<StoreGateway>>,
    pub compactor: Option<Compactor>,
}

pub fn routes(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/-/ready", get(ready))
        .route("/-/healthy", get(|| async { "healthy\n" }))
        .route("/metrics", get(metrics))
        .route("/config", get(config))
        .route("/api/ours/roles", get(roles))
        .route("/-/flush", post(flush))
        .route("/-/compact", post(compact))
        .with_state(admin)
}

impl Admin {
    pub fn waiting(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|(_, check)| !check()).map(|(role, _)| *role).collect()
    }
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match admin.waiting() {
        waiting if waiting.is_empty() => "ready\n".into_response(),
        waiting => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready yet: {}\n", waiting.join(", ")))
            .into_response(),
    }
}

async fn metrics() -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        triptych_telemetry::exposition::render(),
    )
        .into_response()
}

async fn config(State(admin): State<Arc<Admin>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], admin.config.clone()).into_response()
}

/// Role state for the page.
async fn roles(State(admin): State<Arc<Admin>>) -> Response {
    let roles: Vec<_> =
        admin.checks.iter().map(|(role, check)| json!({"role": role, "ready": check()})).collect();
    Json(json!({"version": env!("CARGO_PKG_VERSION"), "roles": roles})).into_response()
}

/// Returns when everything that was acknowledged before is in the bucket, and is served from there.
async fn flush(State(admin): State<Arc<Admin>>) -> Response {
    let Some(ingester) = &admin.ingester else {
        return (StatusCode::NOT_FOUND, "this process has no ingester\n").into_response();
    };
    ingester.flush_all().await;
    sync(&admin).await;
    "flushed\n".into_response()
}

/// One round.
async fn compact(State(admin): State<Arc<Admin>>) -> Response {
    let Some(compactor) = &admin.compactor else {
        return (StatusCode::NOT_FOUND, "this process has no compactor\n").into_response();
    };
    match compactor.round().await {
        Ok(done) => {
            sync(&admin).await;
            Json(json!({"merged": done.merged, "written": done.written, "removed": done.removed}))
                .into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn sync(admin: &Admin) {
    if let Some(store_gateway) = &admin.store_gateway
        && let Err(error) = store_gateway.sync().await
    {
        tracing::warn!(%error, "bucket could not be looked through");
    }
}
