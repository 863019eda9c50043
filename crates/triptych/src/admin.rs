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
use triptych_ring::{Gossip, Member, MemberState};
use triptych_runtime::{ProcessBudget, Shutdown};
use triptych_store_gateway::StoreGateway;

use crate::membership;

type Checks = Vec<(&'static str, Box<dyn Fn() -> bool + Send + Sync>)>;

/// What the endpoints look at.
pub struct Admin {
    pub checks: Checks,
    /// On its way out from then on: not ready, so that load balancers send nothing more.
    pub draining: Shutdown,
    /// YAML, secrets hidden.
    pub config: String,
    pub budget: ProcessBudget,
    pub ingester: Option<Ingester>,
    pub store_gateway: Option<Arc<StoreGateway>>,
    pub compactor: Option<Compactor>,
    pub gossip: Option<Gossip>,
}

pub fn routes(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/-/ready", get(ready))
        .route("/-/healthy", get(|| async { "healthy\n" }))
        .route("/metrics", get(metrics))
        .route("/config", get(config))
        .route("/api/ours/roles", get(roles))
        .route("/api/ours/ring", get(ring))
        .route("/ring", get(ring_page))
        .route("/-/flush", post(flush))
        .route("/-/compact", post(compact))
        .route("/-/leave", post(leave))
        .with_state(admin)
}

impl Admin {
    pub fn waiting(&self) -> Vec<&'static str> {
        self.checks.iter().filter(|(_, check)| !check()).map(|(role, _)| *role).collect()
    }
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    if admin.draining.is_triggered() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
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

/// Roles and memory, for the page.
async fn roles(State(admin): State<Arc<Admin>>) -> Response {
    let roles: Vec<_> =
        admin.checks.iter().map(|(role, check)| json!({"role": role, "ready": check()})).collect();
    let memory = crate::budget::shown(&admin.budget);
    Json(json!({"version": env!("CARGO_PKG_VERSION"), "roles": roles, "memory": memory})).into_response()
}

/// The members as this process sees them; none where it is alone.
async fn ring(State(admin): State<Arc<Admin>>) -> Response {
    let roles = admin.gossip.as_ref().map(Gossip::roles).unwrap_or_default();
    let member = |m: &Arc<Member>| {
        json!({"id": m.id, "zone": m.zone, "address": m.address, "state": m.state.as_str(),
            "alive": m.is_alive, "startedNs": m.incarnation.to_string()})
    };
    let shown: serde_json::Map<String, serde_json::Value> =
        roles.iter().map(|(role, all)| (role.clone(), all.iter().map(member).collect())).collect();
    Json(shown).into_response()
}

/// The same for people.
async fn ring_page(State(admin): State<Arc<Admin>>) -> Response {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let roles = admin.gossip.as_ref().map(Gossip::roles).unwrap_or_default();
    let mut rows = String::new();
    for (role, members) in roles.iter() {
        for m in members.iter() {
            let alive = if m.is_alive { "yes" } else { "no answer" };
            let cells = [role, &*m.id, &*m.zone, m.state.as_str(), alive, &*m.address].map(escaped);
            rows.push_str(&format!("<tr><td>{}</td></tr>\n", cells.join("</td><td>")));
        }
    }
    if rows.is_empty() {
        rows = "<tr><td colspan=6>This process has everything it needs inside, or a fixed list of peers.</td></tr>".into();
    }
    let page = format!(
        "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=5><title>Ring</title>\
         <style>body{{font:14px system-ui;margin:2em}}td,th{{padding:.3em 1em;text-align:left;border-bottom:1px solid #ddd}}</style>\
         <h1>Ring</h1><table><tr><th>role<th>id<th>zone<th>state<th>alive<th>address</tr>\n{rows}</table>"
    );
    axum::response::Html(page).into_response()
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

/// Before a scale-in: returns when this ingester holds nothing any more and may be stopped for good.
async fn leave(State(admin): State<Arc<Admin>>) -> Response {
    let Some(ingester) = admin.ingester.clone() else {
        return (StatusCode::NOT_FOUND, "this process has no ingester\n").into_response();
    };
    if let Some(gossip) = &admin.gossip {
        gossip.set_state(MemberState::Leaving).await;
        tokio::time::sleep(gossip.settle_time()).await;
    }
    ingester.leave().await;
    if let Some(gossip) = &admin.gossip {
        membership::leave(gossip).await;
    }
    "left: everything is in the bucket, the process may be stopped\n".into_response()
}

/// One round.
async fn compact(State(admin): State<Arc<Admin>>) -> Response {
    let Some(compactor) = &admin.compactor else {
        return (StatusCode::NOT_FOUND, "this process has no compactor\n").into_response();
    };
    match compactor.round().await {
        Ok(done) => {
            sync(&admin).await;
            Json(json!({"merged": done.merged, "written": done.written, "removed": done.removed,
                "copies": done.copies}))
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
