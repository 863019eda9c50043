//! The page at `/`: the built files of `ui/`, embedded; a plain page that says so where they were not built.

use axum::Router;
use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "../../../ui/dist"]
#[allow_missing = true]
struct Assets;

/// Scripts from ourselves alone: a label value that contains HTML stays text even if the page had a mistake.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";

pub fn routes() -> Router {
    Router::new()
        .route("/", get(|| async { page() }))
        .route("/ui/{*path}", get(|Path(path): Path<String>| async move { asset(&format!("ui/{path}")) }))
}

fn page() -> Response {
    match Assets::get("index.html") {
        Some(_) => asset("index.html"),
        None => Html(include_str!("plain.html")).into_response(),
    }
}

fn asset(path: &str) -> Response {
    let Some(file) = Assets::get(path) else { return StatusCode::NOT_FOUND.into_response() };
    let kind = file.metadata.mimetype().to_owned();
    // Names below assets/ carry a hash of their content.
    let cache = if path.contains("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [
        (header::CONTENT_TYPE, kind.as_str()),
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, file.data.into_owned()).into_response()
}
