use super::*;
use crate::otlp::{ResourceSpans, ScopeSpans};

/// Spans as (id, parent or 0, kind).
fn trace(spans: &[(u8, u8, i32)]) -> Trace<'static> {
    let id = |n: u8| [0, 0, 0, 0, 0, 0, 0, n];
    let spans = spans
        .iter()
        .map(|(n, parent, kind)| Span {
            span_id: id(*n),
            parent_id: (*parent != 0).then(|| id(*parent)),
            kind: *kind,
            ..Span::default()
        })
        .collect();
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    Trace {
        trace_id: [1; 16],
        resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }],
    }
}

/// Expected: (left, right, parent, children) per span.
fn check(spans: &[(u8, u8, i32)], expected: &[(i32, i32, i32, i32)]) {
    let found: Vec<_> = Derived::of(&trace(spans))
        .nested
        .iter()
        .map(|n| (n.left, n.right, n.parent, n.child_count))
        .collect();
    assert_eq!(found, expected, "{spans:?}");
}

#[test]
fn nested_sets() {
    check(&[], &[]);
    check(&[(1, 0, 0)], &[(1, 2, -1, 0)]);
    // 1 > (2 > 4, 3), children in order of appearance, parents anywhere.
    check(
        &[(4, 2, 0), (1, 0, 0), (2, 1, 0), (3, 1, 0)],
        &[(3, 4, 2, 0), (1, 8, -1, 2), (2, 5, 1, 1), (6, 7, 1, 0)],
    );
    // Two roots.
    check(&[(1, 0, 0), (2, 0, 0)], &[(1, 2, -1, 0), (3, 4, -1, 0)]);
    // Hangs on nothing that is there; its own child is counted but not numbered.
    check(&[(1, 0, 0), (3, 9, 0), (4, 3, 0)], &[(1, 2, -1, 0), (0, 0, 0, 1), (0, 0, 0, 0)]);
    // No root at all, a span that is its own parent, two that are each other's.
    check(&[(1, 2, 0)], &[(0, 0, 0, 0)]);
    check(&[(9, 0, 0), (1, 1, 0)], &[(1, 2, -1, 0), (0, 0, 0, 1)]);
    check(&[(9, 0, 0), (1, 2, 0), (2, 1, 0)], &[(1, 2, -1, 0), (0, 0, 0, 1), (0, 0, 0, 1)]);
    // Zipkin: client and server share an id; the server's child hangs on the server, a server hangs on the client.
    check(
        &[(1, 0, KIND_CLIENT), (1, 0, KIND_SERVER), (2, 1, 0), (3, 1, KIND_SERVER)],
        &[(1, 4, -1, 1), (5, 8, -1, 1), (6, 7, 5, 0), (2, 3, 1, 0)],
    );
    // Three of one id: nothing is numbered.
    check(&[(1, 0, 0), (1, 0, 0), (1, 0, 0), (2, 1, 0)], &[(0, 0, 0, 0); 4]);
}

#[test]
fn long_chains_need_no_stack() {
    let mut long = trace(&[]);
    long.resource_spans[0].scope_spans[0].spans = (1..=50_000u64)
        .map(|n| Span {
            span_id: n.to_be_bytes(),
            parent_id: (n > 1).then(|| (n - 1).to_be_bytes()),
            ..Span::default()
        })
        .collect();
    let nested = Derived::of(&long).nested;
    assert_eq!((nested[0].left, nested[0].right), (1, 100_000));
    assert_eq!((nested[49_999].left, nested[49_999].right), (50_000, 50_001));
}

#[test]
fn comparisons() {
    let check = |op: CompareOp, wanted: Value, value: ValueRef<'_>, expected: bool| {
        let attribute = Attribute::Intrinsic(Intrinsic::Name);
        let test = Test::new(&Condition { attribute, test: Some((op, wanted.clone())) }).unwrap();
        assert_eq!(test.passes_value(value), expected, "{value:?} {op:?} {wanted:?}");
    };
    use CompareOp::*;
    check(Equal, Value::Int(2), ValueRef::Float(2.0), true);
    check(Less, Value::Float(2.5), ValueRef::Int(2), true);
    check(Greater, Value::Duration(5), ValueRef::Duration(6), true);
    check(Equal, Value::Int(i64::MAX), ValueRef::Int(i64::MAX - 1), false);
    check(Equal, Value::String("2".into()), ValueRef::Int(2), false);
    check(Regex, Value::String("a|b".into()), ValueRef::Str("b"), true);
    check(Regex, Value::String("a|b".into()), ValueRef::Str("bc"), false);
    check(NotRegex, Value::String("a.c".into()), ValueRef::Str("a\nc"), false);
    check(Equal, Value::Status("error".into()), ValueRef::Status("error"), true);
    let bad = Condition {
        attribute: Attribute::Intrinsic(Intrinsic::Name),
        test: Some((Regex, Value::String("(".into()))),
    };
    assert_eq!(Test::new(&bad).unwrap_err().kind, triptych_model::Kind::Invalid);
}
