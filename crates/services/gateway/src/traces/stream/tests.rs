//! The service through the gateway's own routes, asked by a generated client.

use axum::Router;
use tonic::{Code, Streaming};

use super::tempopb::streaming_querier_client::StreamingQuerierClient;
use super::tempopb::*;
use super::*;
use crate::tests::{Fake, gateway_over};

fn client(multitenancy: bool) -> StreamingQuerierClient<Router> {
    StreamingQuerierClient::new(gateway_over(Fake::default(), multitenancy).routes())
}

async fn all<T>(answer: Result<Response<Streaming<T>>, Status>) -> Result<Vec<T>, Status> {
    let mut messages = answer?.into_inner();
    let mut all = Vec::new();
    while let Some(message) = messages.message().await? {
        all.push(message);
    }
    Ok(all)
}

#[tokio::test]
async fn searches() {
    let request = SearchRequest {
        tags: [("service.name".to_owned(), "shop".to_owned())].into(),
        min_duration_ms: 5,
        limit: 3,
        ..Default::default()
    };
    let messages = all(client(false).search(request).await).await.unwrap();
    let (last, before) = messages.split_last().unwrap();
    let traces: Vec<_> = before.iter().flat_map(|m| &m.traces).collect();
    let ids: std::collections::BTreeSet<_> = traces.iter().map(|t| t.trace_id.as_str()).collect();
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["abc", "abd", "abe"]);
    assert_eq!(traces[0].root_service_name, "{ .service.name = \"shop\" && traceDuration >= 5ms }");
    assert_eq!((traces[0].duration_ms, traces[0].service_stats["shop"].error_count), (7, 1));
    assert!(before.iter().all(|m| m.metrics.as_ref().unwrap().completed_jobs == 0));
    let cost = last.metrics.as_ref().unwrap();
    assert_eq!((last.traces.len(), cost.completed_jobs, cost.total_jobs), (0, 1, 1));
}

#[tokio::test]
async fn tags_and_values() {
    let names = all(client(false).search_tags(SearchTagsRequest::default()).await).await.unwrap();
    assert_eq!(names[0].tag_names, ["http.method"]);
    let request = SearchTagsRequest { scope: "span".into(), ..Default::default() };
    let scopes = all(client(false).search_tags_v2(request).await).await.unwrap();
    assert_eq!((scopes[0].scopes[0].name.as_str(), scopes[0].scopes[0].tags.len()), ("span", 1));
    // The stand-in misses a block in this scope.
    let cost = scopes[0].metrics.as_ref().unwrap();
    assert_eq!((cost.completed_jobs, cost.total_jobs), (1, 2));
    let request = SearchTagValuesRequest { tag_name: "http.method".into(), ..Default::default() };
    let values = all(client(false).search_tag_values(request.clone()).await).await.unwrap();
    assert_eq!(values[0].tag_values, [".http.method", "3"]);
    let values = all(client(false).search_tag_values_v2(request).await).await.unwrap();
    assert_eq!(values[0].tag_values[1], TagValue { r#type: "int".into(), value: "3".into() });
}

#[tokio::test]
async fn metrics() {
    let request = QueryRangeRequest {
        query: "{} | rate()".into(),
        start: 1_700_000_000_000_000_000,
        end: 1_700_000_060_000_000_000,
        step: 10_000_000_000,
    };
    let range = all(client(false).metrics_query_range(request.clone()).await).await.unwrap();
    assert_eq!(range[0].series[0].samples, [Sample { value: 2.0, timestamp_ms: 1000 }]);
    assert_eq!(range[0].series[0].labels[0].key, "service");
    assert_eq!(range[0].status(), PartialStatus::Complete);
    let request =
        QueryInstantRequest { query: "{ .damaged } | rate()".into(), start: request.start, end: request.end };
    let instant = all(client(false).metrics_query_instant(request).await).await.unwrap();
    assert_eq!(
        (instant[0].series[0].value, instant[0].status(), instant[0].message.as_str()),
        (2.0, PartialStatus::Partial, "block 01 is damaged")
    );
}

#[tokio::test]
async fn wrong_requests_have_a_status() {
    let status = async |request: SearchRequest| all(client(false).search(request).await).await.unwrap_err();
    let too_many = status(SearchRequest { limit: 100_000, ..Default::default() }).await;
    assert!(too_many.code() == Code::InvalidArgument && too_many.message().contains("100000"), "{too_many}");
    let backwards = status(SearchRequest { start: 9, end: 5, ..Default::default() }).await;
    assert_eq!(backwards.code(), Code::InvalidArgument, "{backwards}");
    let spent = status(SearchRequest { query: "{ broken }".into(), ..Default::default() }).await;
    assert_eq!(spent.code(), Code::ResourceExhausted, "{spent}");
    let steps =
        QueryRangeRequest { query: "{} | rate()".into(), start: 1, end: 100_000_000_000_000, step: 1 };
    let steps = all(client(false).metrics_query_range(steps).await).await.unwrap_err();
    assert!(steps.code() == Code::InvalidArgument && steps.message().contains("step"), "{steps}");
}

#[tokio::test]
async fn tenants() {
    let ask = async |tenant: Option<&str>| {
        let mut request = Request::new(SearchRequest::default());
        if let Some(tenant) = tenant {
            request.metadata_mut().insert("x-scope-orgid", tenant.parse().unwrap());
        }
        all(client(true).search(request).await).await.map(|messages| messages.len()).map_err(|s| s.code())
    };
    assert!(ask(Some("team-a")).await.is_ok_and(|messages| messages > 1));
    assert_eq!(ask(None).await, Err(Code::Unauthenticated));
    assert_eq!(ask(Some("../b")).await, Err(Code::InvalidArgument));
}

#[tokio::test]
async fn a_client_that_goes_cancels_its_question() {
    let fake = Fake::default();
    let cancelled = fake.cancelled.clone();
    let mut client = StreamingQuerierClient::new(gateway_over(fake, false).routes());
    let request = SearchRequest { query: "{ endless }".into(), ..Default::default() };
    let mut messages = client.search(request).await.unwrap().into_inner();
    let first = messages.message().await.unwrap().unwrap();
    assert_eq!(first.traces.len(), 1, "told before the search is over");
    drop(messages);
    cancelled.notified().await;
}
