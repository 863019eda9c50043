//! Distributors that echo, fail, and count.

use axum::body::to_bytes;
use http::{Request, StatusCode};
use tower::service_fn;
use triptych_ring::{Member, MemberState, Peer, peers};

use super::*;

/// Answers with its name, the path, the tenant and the length of the body; or not at all.
fn distributor(name: &'static str, is_there: bool, asked: Arc<AtomicUsize>) -> Peer<Distributor> {
    let service = service_fn(move |request: Request<Body>| {
        asked.fetch_add(1, Ordering::SeqCst);
        async move {
            if !is_there {
                return Err("connection refused".into());
            }
            let tenant = request.headers().get("x-scope-orgid").cloned();
            let tenant = tenant.as_ref().map_or("none", |tenant| tenant.to_str().unwrap()).to_owned();
            assert!(!request.headers().contains_key("connection"), "of this connection");
            let path = request.uri().to_string();
            let body = to_bytes(request.into_body(), usize::MAX).await.map_err(tower::BoxError::from)?;
            let text = format!("{name} {path} {tenant} {}", body.len());
            let answer = http::Response::builder().status(429).header("retry-after", "7").body(text.into());
            Ok::<_, tower::BoxError>(answer.unwrap())
        }
    });
    Peer { member: Arc::new(Member::new(name, "", "")), service: BoxCloneSyncService::new(service) }
}

async fn push(routes: &Router, path: &str, body: Body) -> (u16, Option<String>, String) {
    let request = Request::post(path).header("x-scope-orgid", "team").header("connection", "close");
    let response = routes.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, retry_after, String::from_utf8(body.to_vec()).unwrap())
}

/// A body in pieces whose length nobody knows before.
fn pieces(count: usize, bytes: usize) -> Body {
    let piece = Bytes::from(vec![0; bytes]);
    Body::from_stream(stream::iter((0..count).map(move |_| Ok::<_, axum::Error>(piece.clone()))))
}

fn memory(bytes: usize) -> MemoryBudget {
    MemoryBudget::new("memory of pushes under way", bytes)
}

#[tokio::test]
async fn the_answer_of_a_living_distributor_is_the_answer() {
    let [dead, living] = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
    let all = [distributor("d-0", false, dead.clone()), distributor("d-1", true, living.clone())];
    let held = memory(4 << 20);
    let routes = routes(Arc::new(Push::new(peers::fixed(all), held.clone(), true)));
    for _ in 0..2 {
        let answer = push(&routes, "/loki/api/v1/push?a=b", "hello".into()).await;
        assert_eq!(answer, (429, Some("7".to_owned()), "d-1 /loki/api/v1/push?a=b team 5".to_owned()));
    }
    assert_eq!((dead.load(Ordering::SeqCst), living.load(Ordering::SeqCst)), (1, 2), "each in turn");
    assert_eq!(push(&routes, "/api/v1/write", pieces(1000, 1000)).await.2, "d-1 /api/v1/write team 1000000");
    // Too long to be kept: whoever is first gets it, or nobody.
    let answers = [
        push(&routes, "/v1/traces", pieces(3000, 1000)).await,
        push(&routes, "/v1/traces", pieces(3000, 1000)).await,
    ];
    let statuses = answers.each_ref().map(|(status, ..)| *status);
    assert!(statuses.contains(&503) && statuses.contains(&429), "{answers:?}");
    assert!(answers.iter().any(|(.., text)| text == "d-1 /v1/traces team 3000000"), "{answers:?}");
    let lost = (503, Some("1".to_owned()), "distributor d-0: connection refused".to_owned());
    assert!(answers.contains(&lost), "{answers:?}");
    assert_eq!(held.used(), 0);
    let get = routes.oneshot(Request::get("/api/v1/write").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn who_does_not_serve_gets_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let leaving = distributor("d-0", true, asked.clone());
    let member = Member { state: MemberState::Leaving, ..(*leaving.member).clone() };
    let all = [Peer { member: Arc::new(member), ..leaving }];
    let routes = routes(Arc::new(Push::new(peers::fixed(all), memory(4 << 20), true)));
    let answer = push(&routes, "/v1/logs", "x".into()).await;
    assert_eq!(answer, (503, Some("1".to_owned()), "no distributor takes writes now".to_owned()));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn memory_is_bounded() {
    let all = [distributor("d-0", true, Arc::default())];
    let routes = routes(Arc::new(Push::new(peers::fixed(all), memory(1000), true)));
    let answer = push(&routes, "/v1/logs", pieces(20, 100)).await;
    assert_eq!((answer.0, answer.1.as_deref()), (429, Some("1")), "{answer:?}");
    assert!(answer.2.contains("tenant team holds 800 bytes and wants 100 more"), "{answer:?}");
    assert_eq!(push(&routes, "/v1/logs", pieces(8, 100)).await.2, "d-0 /v1/logs team 800");
}
