use std::collections::BTreeMap;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;
use http_body_util::BodyExt;
use tower::ServiceExt;
use triptych_config::{Limits, TenantLimits};

use super::*;
use crate::tests::gateway_over;

const LIMIT_BYTES: usize = 1 << 20;

/// A door whose answers are as long as their path says.
fn door() -> Router {
    let mut limits = Limits::default();
    limits.query.memory_bytes_max = LIMIT_BYTES;
    let gateway = gateway_over(Default::default(), false);
    let Ok(mut shared) = Arc::try_unwrap(gateway.shared) else { panic!("somebody else holds it") };
    shared.limits = TenantLimits::new(&limits, &BTreeMap::new()).unwrap();
    let refuse = |error: Error| (StatusCode::IM_A_TEAPOT, error.to_string()).into_response();
    let answer = async |axum::extract::Path(bytes): axum::extract::Path<usize>| "é".repeat(bytes / 2);
    let streamed = async || Body::from_stream(stream::iter([Ok::<_, Error>(vec![b'x'; 2 * LIMIT_BYTES])]));
    Router::new()
        .route("/{bytes}", get(answer))
        .route("/streamed", get(streamed))
        .layer(from_fn_with_state(Holding::new(&Arc::new(shared), refuse), hold))
}

async fn ask(path: &str) -> Response {
    door().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn an_answer_is_held_until_it_is_taken() {
    for bytes in [0, 10, PIECE_BYTES, PIECE_BYTES + 2, LIMIT_BYTES] {
        let response = ask(&format!("/{bytes}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let length = response.headers().get(CONTENT_LENGTH).unwrap().to_str().unwrap().to_owned();
        assert_eq!(length, bytes.to_string());
        let mut body = response.into_body();
        let mut taken = Vec::new();
        while let Some(piece) = body.frame().await {
            let piece = piece.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE_BYTES);
            taken.extend(piece);
        }
        assert_eq!(String::from_utf8(taken).unwrap(), "é".repeat(bytes / 2));
    }
}

#[tokio::test]
async fn over_the_limit_it_is_an_error_with_numbers() {
    let response = ask(&format!("/{}", LIMIT_BYTES + 2)).await;
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("waits for its client") && text.contains("the limit is 1048576"), "{text}");
    // What is made as it is taken is not held.
    let streamed = ask("/streamed").await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(streamed.len(), 2 * LIMIT_BYTES);
}
