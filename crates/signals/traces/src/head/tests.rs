use futures::TryStreamExt;
use triptych_model::TenantId;
use triptych_model::batch::TracesBuilder;
use triptych_traceql::source::{Condition, Scope};

use super::*;
use crate::testing::{batch, bytes, canonical, head, rich};

fn ctx() -> QueryContext {
    QueryContext::unlimited(TenantId::single())
}

#[tokio::test]
async fn finds_what_was_appended() {
    let traces: Vec<_> = (0..300).map(rich).collect();
    let head = head(&traces);
    assert_eq!(head.trace_count(), 300);
    assert!(head.bytes() > 10_000);
    for trace in &traces {
        let parts = head.find(&ctx(), &trace.trace_id, 0, 0).await.unwrap();
        assert_eq!(parts.otlp.len(), 2);
        let whole = merge::combine(parts.otlp).unwrap();
        assert_eq!(merge::first_trace_id(&whole), trace.trace_id);
        let found = otlp::decode(trace.trace_id, &whole).unwrap();
        assert_eq!(canonical(found), canonical(trace.clone()));
    }
    assert!(head.find(&ctx(), &[3; 16], 0, 0).await.unwrap().otlp.is_empty());
    // Outside of the range.
    assert!(head.find(&ctx(), &traces[0].trace_id, 1, 2).await.unwrap().otlp.is_empty());
}

#[tokio::test]
async fn fetches_in_order_and_by_condition() {
    let traces: Vec<_> = (0..300).map(rich).collect();
    let head = head(&traces);
    let all: Vec<_> = head.fetch(&ctx(), &FetchSpans::default()).await.unwrap().try_collect().await.unwrap();
    assert_eq!(all.len(), 300);
    assert!(all.is_sorted_by_key(|t| t.trace_id));
    let spans: usize = traces.iter().map(Trace::span_count).sum();
    assert_eq!(all.iter().map(|t| t.spans.len()).sum::<usize>(), spans);

    let attribute = Attribute::Named(Scope::Resource, "service.name".into());
    let fetch = FetchSpans {
        conditions: vec![Condition {
            attribute: attribute.clone(),
            test: Some((CompareOp::Equal, Value::String("payment".into()))),
        }],
        all_conditions: true,
        attributes: vec![attribute],
        ..FetchSpans::default()
    };
    let some: Vec<_> = head.fetch(&ctx(), &fetch).await.unwrap().try_collect().await.unwrap();
    let expected: usize =
        traces.iter().flat_map(|t| t.spans()).filter(|(r, ..)| r.service_name() == "payment").count();
    assert_eq!(some.iter().map(|t| t.spans.len()).sum::<usize>(), expected);
    assert!(expected > 0 && expected < spans);
    for span in some.iter().flat_map(|t| &t.spans) {
        assert_eq!(span.values[0].as_slice(), [Value::String("payment".into())]);
    }
}

#[tokio::test]
async fn limits_refuse_in_tempos_words() {
    let one = rich(1);
    let length = bytes(&one).len();
    let head = Head::new(HeadConfig { traces_max: 2, trace_bytes_max: 3 * length / 2 });
    let batch = batch(&[one.clone(), one, rich(0), rich(8), rich(9)]);
    let report = head.append(TracesReader::new(batch.plain()).unwrap()).unwrap();
    let too_large = &report.refused["trace_too_large"];
    assert!(too_large.example.starts_with("TRACE_TOO_LARGE: max size of trace ("), "{}", too_large.example);
    let live = &report.refused["live_traces_exceeded"];
    assert!(live.example.contains("(local: 2 global: 0 actual local: 2)"), "{}", live.example);
    assert_eq!(head.trace_count(), 2);
    assert_eq!(report.accepted + report.refused_items(), batch.items() as u64);
}

#[tokio::test]
async fn damaged_parts_are_said() {
    let head = Head::new(HeadConfig::default());
    let mut batch = TracesBuilder::default();
    batch.trace(&[5; 16], 1, 2, 1, b"\x0a\xff\xff");
    head.append(TracesReader::new(batch.plain()).unwrap()).unwrap();
    let ctx = ctx();
    let found: Vec<_> = head.fetch(&ctx, &FetchSpans::default()).await.unwrap().try_collect().await.unwrap();
    assert!(found.is_empty());
    assert_eq!(ctx.report().missed.len(), 1);
}

#[tokio::test]
async fn tags() {
    let traces: Vec<_> = (0..50).map(rich).collect();
    let head = head(&traces);
    let names = head
        .tag_names(&ctx(), &TagsSelect { scope: "resource".into(), ..TagsSelect::default() })
        .await
        .unwrap();
    assert_eq!(names.len(), 1);
    assert!(names[0].tags.contains(&"service.name".to_owned()));
    let select = TagsSelect { name: "resource.service.name".into(), ..TagsSelect::default() };
    let values = head.tag_values(&ctx(), &select).await.unwrap();
    assert_eq!(values, ["cart", "checkout", "payment"].map(|s| Value::String(s.into())));
}

/// What the index answers is what decoding every span answers, also for what is sealed, what is new, and what has too many values.
#[tokio::test]
async fn the_tag_index_answers_like_the_spans() {
    let head = Head::new(HeadConfig::default());
    let padding: &'static str = Box::leak("x".repeat(3_000).into_boxed_str());
    let append = |numbers: std::ops::Range<u64>| {
        let traces: Vec<_> = numbers
            .map(|n| {
                let mut trace = rich(n);
                trace.resource_spans.truncate(1);
                trace.resource_spans[0].scope_spans.truncate(1);
                trace.resource_spans[0].scope_spans[0].spans.truncate(1);
                let attributes = &mut trace.resource_spans[0].scope_spans[0].spans[0].attributes;
                attributes.push(otlp::KeyValue::new("padding", otlp::AnyValue::String(padding.into())));
                attributes.push(otlp::KeyValue::new("number", otlp::AnyValue::Int(n as i64)));
                trace
            })
            .collect();
        head.append(TracesReader::new(batch(&traces).plain()).unwrap()).unwrap();
    };
    let check = async || {
        let select = |name: &str, query: &str| TagsSelect {
            name: name.into(),
            query: query.into(),
            ..TagsSelect::default()
        };
        // A filter that every span passes: the spans are asked.
        let all = "{ duration >= 0ns }";
        assert_eq!(triptych_traceql::filter_conditions(all).len(), 1);
        assert_eq!(
            head.tag_names(&ctx(), &select("", "")).await.unwrap(),
            head.tag_names(&ctx(), &select("", all)).await.unwrap()
        );
        for name in
            ["resource.service.name", "name", ".str", "span.number", "event.float", "link.yes", "kind"]
        {
            let indexed = head.tag_values(&ctx(), &select(name, "")).await.unwrap();
            assert_eq!(indexed, head.tag_values(&ctx(), &select(name, all)).await.unwrap(), "{name}");
            assert!(!indexed.is_empty(), "{name}");
        }
        head.tag_values(&ctx(), &select("span.number", "")).await.unwrap().len()
    };
    append(0..900);
    let before = head.bytes();
    assert_eq!(check().await, 900);
    assert!(head.bytes() > before, "the index is accounted for");
    append(900..2_100);
    assert_eq!(check().await, 2_100, "more values than the index keeps");
    let outside = TagsSelect { name: "name".into(), start_ns: 1, end_ns: 2, ..TagsSelect::default() };
    assert!(head.tag_values(&ctx(), &outside).await.unwrap().is_empty());
}

#[test]
fn a_version_changes_with_the_whole_trace() {
    const HOUR_NS: i64 = 3_600_000_000_000;
    let head = Head::new(HeadConfig::default());
    let versions = || [1, 2, 3, 4].map(|at| head.version(at * HOUR_NS, (at + 1) * HOUR_NS - 1));
    let changed = |id: u8, at: i64| {
        let before = versions();
        let mut batch = TracesBuilder::default();
        batch.trace(&[id; 16], at * HOUR_NS, at * HOUR_NS + 1, 1, b"part");
        head.append(TracesReader::new(batch.plain()).unwrap()).unwrap();
        let after = versions();
        [0, 1, 2, 3].map(|at| before[at] != after[at])
    };
    assert_eq!(versions(), [Version::default(); 4]);
    assert_eq!(changed(1, 1), [true, false, false, false]);
    assert_eq!(changed(2, 4), [false, false, false, true]);
    // A question about any time in it reads all of it.
    assert_eq!(changed(1, 3), [true, true, true, false]);
    assert_eq!(head.version(17 * HOUR_NS, 18 * HOUR_NS), Version::default());
}
