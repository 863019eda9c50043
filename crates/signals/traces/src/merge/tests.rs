use futures::TryStreamExt;
use triptych_traceql::source::Span as Fetched;

use super::*;
use crate::testing::{bytes, canonical, rich};

#[test]
fn copies_are_dropped_and_parts_joined() {
    for seed in 0..100 {
        let trace = rich(seed);
        let whole = Bytes::from(bytes(&trace));
        // The same trace again, and by single resources in reverse.
        let mut parts = vec![whole.clone()];
        for rs in trace.resource_spans.iter().rev() {
            let part = Trace { trace_id: trace.trace_id, resource_spans: vec![rs.clone()] };
            parts.push(bytes(&part).into());
        }
        let combined = combine(parts).unwrap();
        let found = otlp::decode(trace.trace_id, &combined).unwrap();
        assert_eq!(found.span_count(), trace.span_count());
        assert_eq!(canonical(found), canonical(trace.clone()));
        // Combining is idempotent.
        assert_eq!(combine(vec![combined.clone(), combined.clone()]).unwrap(), combined);
    }
    assert!(combine(vec![]).unwrap().is_empty());
    assert!(combine(vec![Bytes::new()]).unwrap().is_empty());
    assert_eq!(
        combine(vec![Bytes::from_static(b"\x0a\xff")]).unwrap_err().kind,
        triptych_model::Kind::Damaged
    );
}

#[test]
fn client_and_server_halves_both_stay() {
    let mut trace = rich(0);
    let spans = &mut trace.resource_spans[0].scope_spans[0].spans;
    let mut server = spans[0].clone();
    server.kind += 1;
    spans.push(server);
    let count = trace.span_count();
    let combined = combine(vec![bytes(&trace).into(), bytes(&trace).into()]).unwrap();
    assert_eq!(otlp::decode(trace.trace_id, &combined).unwrap().span_count(), count);
}

fn fetched(id: u8, spans: &[(u8, i32, i32, i32)]) -> TraceSpans {
    TraceSpans {
        trace_id: [id; 16],
        start_ns: 10,
        duration_ns: 5,
        root_service: "".into(),
        root_name: "".into(),
        services: vec![("a".into(), spans.len() as u32, 0)],
        spans: spans
            .iter()
            .map(|(n, left, right, parent)| Fetched {
                span_id: [*n; 8],
                name: "x".into(),
                start_ns: 10,
                duration_ns: 1,
                nested_left: *left,
                nested_right: *right,
                nested_parent: *parent,
                values: vec![],
            })
            .collect(),
    }
}

#[tokio::test]
async fn streams_become_one_in_order() {
    let stream = |items: Vec<TraceSpans>| futures::stream::iter(items.into_iter().map(Ok)).boxed();
    let a = stream(vec![fetched(1, &[(1, 1, 4, -1), (2, 2, 3, 1)]), fetched(3, &[(1, 1, 2, -1)])]);
    let b = stream(vec![fetched(1, &[(2, 1, 4, -1), (3, 2, 3, 1)]), fetched(2, &[(1, 0, 0, 0)])]);
    let c = stream(vec![fetched(2, &[(1, 0, 0, 0)]), fetched(2, &[(2, 0, 0, 0)]), fetched(3, &[])]);
    let merged: Vec<_> = spans(vec![a, b, c]).try_collect().await.unwrap();
    assert_eq!(merged.iter().map(|t| t.trace_id[0]).collect::<Vec<_>>(), [1, 2, 3]);
    let numbers: Vec<_> = merged[0]
        .spans
        .iter()
        .map(|s| (s.span_id[0], s.nested_left, s.nested_right, s.nested_parent))
        .collect();
    // The third span comes from the other side: its numbers are out of the way of the first side's.
    assert_eq!(numbers, [(1, 1, 4, -1), (2, 2, 3, 1), (3, 6, 7, 5)]);
    assert_eq!(merged[1].spans.len(), 2);
    assert_eq!(merged[0].services, [("a".into(), 2, 0)]);
}

#[tokio::test]
async fn the_first_error_ends_the_stream() {
    let bad: Vec<Result<TraceSpans>> =
        vec![Ok(fetched(1, &[])), Err(triptych_model::Error::damaged("torn")), Ok(fetched(2, &[]))];
    let found: Vec<_> = spans(vec![futures::stream::iter(bad).boxed()]).collect().await;
    assert!(found.last().unwrap().is_err());
    assert!(found.len() <= 2);
}
