use futures::StreamExt;
use triptych_model::Labels;
use triptych_model::batch::{LogRecordEntry, LogsBuilder};
use triptych_model::logs::{Direction, EntrySelect};
use triptych_runtime::{QueryContext, QueryLimits};

use super::*;
use crate::suite::{self, SECOND_NS, START_NS, collect, tenant};

fn push(head: &Head, stream: &[(&str, &str)], lines: &[(i64, &str)]) -> PushReport {
    let labels = Labels::from_pairs(stream.iter().copied());
    let mut batch = LogsBuilder::default();
    let entry = |(ts_ns, line): &(i64, &'static str)| LogRecordEntry { ts_ns: *ts_ns, line, metadata: &[] };
    let lines: Vec<(i64, &'static str)> =
        lines.iter().map(|(t, l)| (*t, &*Box::leak(l.to_string().into_boxed_str()))).collect();
    batch.stream(labels.hash64(), labels.as_encoded(), lines.iter().map(entry));
    head.append(batch.plain()).unwrap()
}

async fn all(head: &Head, expr: &str) -> Vec<(i64, String)> {
    let ctx = QueryContext::unlimited(tenant());
    let select = EntrySelect {
        expr: expr.into(),
        start_ns: i64::MIN,
        end_ns: i64::MAX,
        direction: Direction::Forward,
        limit: 0,
    };
    let entries = collect(head.entries(&ctx, &select).await.unwrap()).await;
    assert!(ctx.report().missed.is_empty(), "{:?}", ctx.report());
    entries.into_iter().map(|e| (e.ts_ns, String::from_utf8(e.line.to_vec()).unwrap())).collect()
}

#[tokio::test]
async fn order_of_arrival_does_not_matter() {
    let head = Head::new(HeadConfig::default());
    let hour = 3_600 * SECOND_NS;
    let report = push(
        &head,
        &[("a", "1")],
        &[(2 * hour, "new"), (hour, "just in time"), (hour - 1, "too old"), (2 * hour, "new")],
    );
    assert_eq!(report.accepted, 3);
    let refused = &report.refused["too_far_behind"];
    assert_eq!(refused.items, 1);
    assert!(
        refused.example.starts_with(
            "entry too far behind, entry timestamp is: 1970-01-01T00:59:59.999999999Z, \
             oldest acceptable timestamp is: 1970-01-01T01:00:00Z"
        ),
        "{}",
        refused.example
    );
    let want = [(hour, "just in time".to_owned()), (2 * hour, "new".to_owned())];
    assert_eq!(all(&head, r#"{a="1"}"#).await, want);
    assert_eq!(head.bounds_ns(), Some((hour, 2 * hour)));
}

#[test]
fn the_stream_limit_is_named() {
    let head = Head::new(HeadConfig { streams_max: 2, ..HeadConfig::default() });
    push(&head, &[("a", "1")], &[(1, "x")]);
    push(&head, &[("a", "2")], &[(1, "x")]);
    let report = push(&head, &[("a", "3")], &[(1, "x"), (2, "y")]);
    assert_eq!((report.accepted, report.refused["stream_limit"].items), (0, 2));
    assert!(report.refused["stream_limit"].example.contains("the limit is 2"));
    assert_eq!(push(&head, &[("a", "2")], &[(3, "z")]).accepted, 1);
    assert_eq!(head.stream_count(), 2);
}

#[tokio::test]
async fn copies_are_shown_once_even_after_a_block_was_cut() {
    let lines = suite::lines();
    let head = suite::head_of(&lines);
    let before = all(&head, r#"{app=~".+"}"#).await;
    // Within the window only: what is older than an hour is refused, not doubled.
    for part in lines.chunks(100) {
        head.append(suite::batch(part).plain()).unwrap();
    }
    assert_eq!(all(&head, r#"{app=~".+"}"#).await, before);
    assert_eq!(before.len(), lines.len());
}

#[test]
fn bytes_follow_what_is_held() {
    let head = Head::new(HeadConfig { block_bytes: 64 << 10, ..HeadConfig::default() });
    assert_eq!(head.bytes(), 0);
    let mut raw = 0;
    for i in 0..20_000i64 {
        let line = format!("the same text again and again, with a number {i}");
        raw += line.len();
        push(&head, &[("a", "1")], &[(START_NS + i, &line)]);
    }
    assert!(head.bytes() > 10_000 && head.bytes() < raw / 3, "{} of {raw}", head.bytes());
}

#[test]
fn torn_batches_and_bad_labels_are_errors() {
    let head = Head::new(HeadConfig::default());
    let mut batch = LogsBuilder::default();
    let entry = LogRecordEntry { ts_ns: 1, line: "x", metadata: b"nonsense" };
    batch.stream(1, Labels::from_pairs([("a", "1")]).as_encoded(), std::iter::once(entry));
    let report = head.append(batch.plain()).unwrap();
    assert_eq!(report.refused["invalid_structured_metadata"].items, 1);
    let plain = batch.plain();
    assert!(head.append(&plain[..plain.len() - 1]).is_err());
    assert!(head.append(&[]).is_err());
    let mut bad = LogsBuilder::default();
    bad.stream(1, b"not labels", std::iter::once(LogRecordEntry { metadata: &[], ..entry }));
    assert!(head.append(bad.plain()).is_err());
    assert!(head.is_empty());
}

#[tokio::test]
async fn budgets_and_cancelling_end_a_read() {
    let head = suite::head_of(&suite::lines());
    let select = EntrySelect {
        expr: r#"{app=~".+"}"#.into(),
        start_ns: 0,
        end_ns: i64::MAX,
        direction: Direction::Forward,
        limit: 0,
    };
    let limits = QueryLimits { rows_max: 100, ..QueryLimits::default() };
    let ctx = QueryContext::new(tenant(), limits);
    let results: Vec<_> = head.entries(&ctx, &select).await.unwrap().collect().await;
    assert!(results.last().unwrap().as_ref().unwrap_err().to_string().contains("100 rows"));
    let ctx = QueryContext::unlimited(tenant());
    let mut stream = head.entries(&ctx, &select).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    ctx.cancel();
    assert!(stream.next().await.unwrap().is_err());
    assert!(stream.next().await.is_none());
    // An empty-compatible selector reads everything: refused.
    let select = EntrySelect { expr: r#"{app=~".*"}"#.into(), ..select };
    assert!(head.entries(&QueryContext::unlimited(tenant()), &select).await.is_err());
}

#[tokio::test]
async fn lines_that_arrive_during_a_read_do_not_disturb_it() {
    let head = Head::new(HeadConfig { block_bytes: 512, ..HeadConfig::default() });
    let line = "x".repeat(100);
    for i in 0..3000 {
        push(&head, &[("a", "1")], &[(START_NS + i * SECOND_NS, &format!("{line}{i}"))]);
    }
    for direction in [Direction::Forward, Direction::Backward] {
        let ctx = QueryContext::unlimited(tenant());
        let select =
            EntrySelect { expr: r#"{a="1"}"#.into(), start_ns: 0, end_ns: i64::MAX, direction, limit: 0 };
        let mut stream = head.entries(&ctx, &select).await.unwrap();
        let mut got = stream.next().await.unwrap().unwrap();
        // Into the open block, and over its end.
        for i in 0..50 {
            push(
                &head,
                &[("a", "1")],
                &[(START_NS + (2990 + i) * SECOND_NS - 7, &format!("{line} late {i} {direction:?}"))],
            );
        }
        while let Some(batch) = stream.next().await {
            got.extend(batch.unwrap());
        }
        let is_ordered = match direction {
            Direction::Forward => got.is_sorted_by_key(|e| e.ts_ns),
            Direction::Backward => got.is_sorted_by_key(|e| std::cmp::Reverse(e.ts_ns)),
        };
        assert!(is_ordered && got.len() >= 3000, "{direction:?} {}", got.len());
    }
}

#[tokio::test]
async fn tail_shows_old_and_new_lines_once() {
    let head = Head::new(HeadConfig { tail_batches: 4, ..HeadConfig::default() });
    push(&head, &[("a", "1")], &[(START_NS, "old error"), (START_NS + 1, "old fine")]);
    let ctx = QueryContext::unlimited(tenant());
    let mut tail = head.tail(&ctx, r#"{a="1"} |= "error""#, START_NS).await.unwrap();
    let mut next = async || {
        let batch = tail.next().await.unwrap().unwrap();
        batch.into_iter().map(|e| String::from_utf8(e.line.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(next().await, ["old error"]);
    push(&head, &[("a", "2")], &[(START_NS + 2, "other error")]);
    push(
        &head,
        &[("a", "1")],
        &[(START_NS, "old error"), (START_NS + 2, "new error"), (START_NS + 3, "fine")],
    );
    assert_eq!(next().await, ["new error"]);
    // Too slow for six batches with room for four.
    for i in 0..6 {
        push(&head, &[("a", "1")], &[(START_NS + 10 + i, &format!("error {i}"))]);
    }
    assert_eq!(next().await, ["error 2"]);
    assert!(ctx.report().missed[0].contains("lost 2 batches"), "{:?}", ctx.report());
    ctx.cancel();
    while tail.next().await.is_some() {}
}

#[tokio::test]
async fn what_waits_for_a_slow_tail_is_bounded_by_bytes() {
    let head = Head::new(HeadConfig { tail_batches: 4, ..HeadConfig::default() });
    let ctx = QueryContext::unlimited(tenant());
    let mut tail = head.tail(&ctx, r#"{a="1"}"#, START_NS).await.unwrap();
    // One push of 300 KiB.
    let text = "x".repeat(1 << 10);
    let lines: Vec<(i64, &str)> = (0..300).map(|i| (START_NS + i, text.as_str())).collect();
    push(&head, &[("a", "1")], &lines);
    let mut left = 0;
    for _ in 0..4 {
        left += tail.next().await.unwrap().unwrap().len();
    }
    assert!((200..256).contains(&left), "{left}");
    assert!(ctx.report().missed[0].contains("lost 1 batches"), "{:?}", ctx.report());
    ctx.cancel();
    while tail.next().await.is_some() {}
}

#[tokio::test]
async fn old_lines_sent_late_make_many_chunks_not_long_ones() {
    let head = Head::new(HeadConfig::default());
    let day = 86_400 * SECOND_NS;
    for i in 0..100 {
        push(&head, &[("a", "1")], &[(START_NS + i * day / 4, &format!("line {i}"))]);
    }
    let bucket = suite::memory();
    let report = head.flush(&bucket, &tenant(), &FlushOptions::new("n", 0)).await.unwrap();
    assert!(report.chunks >= 30, "{report:?}");
    assert_eq!(report.entries, 100);
    assert_eq!(report.index_files.len(), 26);
    // Again: the same objects.
    assert_eq!(head.flush(&bucket, &tenant(), &FlushOptions::new("n", 0)).await.unwrap(), report);
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_taken() {
    let head = Head::new(HeadConfig::default());
    let line = "x".repeat(33 << 20);
    let report = push(&head, &[("a", "1")], &[(1, &line), (2, "fine")]);
    assert_eq!((report.accepted, report.refused["line_too_long"].items), (1, 1));
    assert_eq!(all(&head, r#"{a="1"}"#).await, [(2, "fine".to_owned())]);
}

/// Metadata that never repeats weighs more than its lines: chunks are cut by it.
#[tokio::test]
async fn metadata_of_many_values() {
    let head = Head::new(suite::small_blocks());
    let labels = Labels::from_pairs([("a", "1")]);
    let metadata: Vec<Labels> =
        (0..300).map(|i| Labels::from_pairs([("trace_id", format!("{i}").repeat(40))])).collect();
    let mut batch = LogsBuilder::default();
    let entries = (0i64..).zip(&metadata);
    let entries =
        entries.map(|(i, m)| LogRecordEntry { ts_ns: START_NS + i, line: "x", metadata: m.as_encoded() });
    batch.stream(labels.hash64(), labels.as_encoded(), entries.collect::<Vec<_>>().into_iter());
    assert_eq!(head.append(batch.plain()).unwrap().accepted, 300);
    let ctx = QueryContext::unlimited(tenant());
    let select = EntrySelect {
        expr: r#"{a="1"}"#.into(),
        start_ns: 0,
        end_ns: i64::MAX,
        direction: Direction::Forward,
        limit: 0,
    };
    let store = suite::flushed(&[&head], &suite::memory()).await;
    for got in [
        collect(head.entries(&ctx, &select).await.unwrap()).await,
        collect(store.entries(&ctx, &select).await.unwrap()).await,
    ] {
        assert!(got.iter().map(|e| &e.metadata).eq(&metadata));
    }
    let report = head.flush(&suite::memory(), &tenant(), &FlushOptions::new("n", 0)).await.unwrap();
    assert!(report.chunks > 5, "{report:?}");
}

#[test]
fn a_version_changes_with_what_can_be_seen() {
    let hour = 3_600 * SECOND_NS;
    let head =
        Head::new(HeadConfig { out_of_order_window_ns: 10 * hour, streams_max: 1, ..HeadConfig::default() });
    let versions = || [0, 1, 2, 3].map(|at| head.version(at * hour, (at + 1) * hour - 1));
    let changed = |stream: &str, line: i64| {
        let before = versions();
        push(&head, &[("a", stream)], &[(line, "line")]);
        let after = versions();
        [0, 1, 2, 3].map(|at| before[at] != after[at])
    };
    assert_eq!(versions(), [Version::default(); 4]);
    assert_eq!(changed("1", 3 * hour), [false, false, false, true]);
    assert_eq!(changed("1", hour), [false, true, false, false], "late");
    assert_eq!(versions()[2], Version::default(), "between them is nothing");
    assert_eq!(changed("1", hour), [false; 4], "a copy");
    assert_eq!(changed("2", hour + 1), [false; 4], "refused");
    assert_eq!(head.version(17 * hour, 18 * hour), Version::default());
}
