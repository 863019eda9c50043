//! A trace as TraceQL sees it: what is derived from its spans (bounds, root, services, nested sets), which spans pass the
//! conditions of a fetch, and the values that the evaluator asked for. Heads and blocks share it.

use std::sync::Arc;

use hashbrown::HashMap;
use regex::Regex;
use triptych_model::traces::{SpanId, Value};
use triptych_model::{Error, Result};
use triptych_traceql::TraceSpans;
use triptych_traceql::source::{
    Attribute, CompareOp, Condition, FetchSpans, Intrinsic, Scope, Span as FetchedSpan, Values,
};

use crate::otlp::{
    AnyValue, InstrumentationScope, KIND_CLIENT, KIND_SERVER, Keep, KeyValue, Names, Resource, SERVICE_NAME,
    STATUS_ERROR, Span, Trace, same_kind,
};

/// A span's place in the tree. All zero where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nested {
    pub left: i32,
    pub right: i32,
    /// `left` of the parent, -1 for a root.
    pub parent: i32,
    pub child_count: i32,
}

/// What is derived from all spans of a trace.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Derived {
    pub start_ns: u64,
    pub end_ns: u64,
    pub root_service: Arc<str>,
    pub root_name: Arc<str>,
    /// Sorted by service.
    pub services: Vec<(Arc<str>, u32, u32)>,
    /// Parallel to the trace's spans in order of appearance.
    pub nested: Vec<Nested>,
}

/// What of [`Derived`] is read; the bounds always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    pub nested_sets: bool,
    /// The root's names and the services.
    pub summary: bool,
}

impl Derived {
    pub fn of(trace: &Trace<'_>) -> Self {
        Self::needed(trace, Needs { nested_sets: true, summary: true })
    }

    /// As [`Derived::of`]; what is not needed stays empty.
    pub fn needed(trace: &Trace<'_>, needs: Needs) -> Self {
        let mut out = Derived::default();
        if needs.nested_sets {
            out.nested = nested_sets(trace);
        }
        if needs.summary {
            out.summarize(trace);
        }
        for (_, _, span) in trace.spans() {
            if out.start_ns == 0 || (span.start_ns != 0 && span.start_ns < out.start_ns) {
                out.start_ns = span.start_ns;
            }
            out.end_ns = out.end_ns.max(span.end_ns);
        }
        out.end_ns = out.end_ns.max(out.start_ns);
        out
    }

    fn summarize(&mut self, trace: &Trace<'_>) {
        let mut services: HashMap<&str, (u32, u32)> = HashMap::new();
        let mut root: Option<(u64, &Resource<'_>, &Span<'_>)> = None;
        for rs in &trace.resource_spans {
            let (mut spans, mut errors) = (0, 0);
            for span in rs.scope_spans.iter().flat_map(|ss| &ss.spans) {
                spans += 1;
                errors += u32::from(span.status_code == STATUS_ERROR);
                if span.parent_id.is_none() && root.is_none_or(|(start, ..)| span.start_ns < start) {
                    root = Some((span.start_ns, &rs.resource, span));
                }
            }
            if spans > 0 {
                let counts = services.entry(rs.resource.service_name()).or_default();
                counts.0 += spans;
                counts.1 += errors;
            }
        }
        if let Some((_, resource, span)) = root {
            self.root_service = resource.service_name().into();
            self.root_name = span.name.into();
        }
        self.services = services.into_iter().map(|(s, (spans, errors))| (s.into(), spans, errors)).collect();
        self.services.sort_unstable();
    }

    pub fn duration_ns(&self) -> i64 {
        self.end_ns.saturating_sub(self.start_ns) as i64
    }
}

/// Nested sets: a depth-first walk from the roots numbers each span on the way down (left) and on the way up (right). Rules as in
/// Tempo's blocks: spans that hang on no root keep zeros; two spans may share an id (Zipkin's client and server halves; children of
/// a server span hang on the client half and vice versa); with three of one id no span is numbered.
fn nested_sets(trace: &Trace<'_>) -> Vec<Nested> {
    const NONE: usize = usize::MAX;
    let spans: Vec<&Span<'_>> = trace.spans().map(|(_, _, span)| span).collect();
    let mut out = vec![Nested::default(); spans.len()];
    let mut by_id: HashMap<SpanId, (usize, usize)> = HashMap::with_capacity(spans.len());
    for (i, span) in spans.iter().enumerate() {
        match by_id.entry(span.span_id) {
            hashbrown::hash_map::Entry::Vacant(e) => {
                e.insert((i, NONE));
            }
            hashbrown::hash_map::Entry::Occupied(mut e) if e.get().1 == NONE => e.get_mut().1 = i,
            hashbrown::hash_map::Entry::Occupied(_) => return out,
        }
    }
    if !spans.iter().any(|s| s.parent_id.is_none()) {
        return out;
    }
    // Children as linked lists: first child and next sibling, filled from the back to keep the order.
    let mut parents = vec![NONE; spans.len()];
    let mut first_child = vec![NONE; spans.len()];
    let mut sibling = vec![NONE; spans.len()];
    for (i, span) in spans.iter().enumerate().rev() {
        let Some(&(a, b)) = span.parent_id.as_ref().and_then(|id| by_id.get(id)) else {
            continue;
        };
        let parent = if b == NONE {
            a
        } else {
            let kind = if span.kind == KIND_SERVER { KIND_CLIENT } else { KIND_SERVER };
            match (spans[a].kind == kind, spans[b].kind == kind) {
                (true, _) => a,
                (_, true) => b,
                _ => continue,
            }
        };
        parents[i] = parent;
        sibling[i] = first_child[parent];
        first_child[parent] = i;
        out[parent].child_count += 1;
    }
    let mut bound = 1;
    for root in (0..spans.len()).filter(|i| spans[*i].parent_id.is_none()) {
        let mut at = root;
        out[at].left = bound;
        out[at].parent = -1;
        bound += 1;
        loop {
            let child = first_child[at];
            if child != NONE {
                // Down. The child is taken off the list, so that the walk goes on with its sibling.
                first_child[at] = sibling[child];
                out[child].left = bound;
                out[child].parent = out[at].left;
                bound += 1;
                at = child;
            } else {
                out[at].right = bound;
                bound += 1;
                if at == root {
                    break;
                }
                at = parents[at];
            }
        }
    }
    out
}

/// A value without owning it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'v> {
    Str(&'v str),
    Int(i64),
    Float(f64),
    Bool(bool),
    Duration(i64),
    Status(&'static str),
    Kind(&'static str),
}

impl ValueRef<'_> {
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Str(s) => Value::String(s.to_owned()),
            ValueRef::Int(i) => Value::Int(i),
            ValueRef::Float(v) => Value::Float(v),
            ValueRef::Bool(b) => Value::Bool(b),
            ValueRef::Duration(ns) => Value::Duration(ns),
            ValueRef::Status(s) => Value::Status(s.to_owned()),
            ValueRef::Kind(s) => Value::SpanKind(s.to_owned()),
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            ValueRef::Int(i) | ValueRef::Duration(i) => Some(i as f64),
            ValueRef::Float(v) => Some(v),
            _ => None,
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            ValueRef::Str(s) | ValueRef::Status(s) | ValueRef::Kind(s) => Some(s),
            _ => None,
        }
    }
}

pub const STATUSES: [&str; 3] = ["unset", "ok", "error"];
pub const KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];

pub fn status_text(code: i32) -> &'static str {
    usize::try_from(code).ok().and_then(|i| STATUSES.get(i)).copied().unwrap_or("unset")
}

pub fn kind_text(kind: i32) -> &'static str {
    usize::try_from(kind).ok().and_then(|i| KINDS.get(i)).copied().unwrap_or("unspecified")
}

/// One span with everything around it.
#[derive(Clone, Copy)]
pub struct SpanView<'t, 'a> {
    pub trace: &'t Trace<'a>,
    pub derived: &'t Derived,
    pub resource: &'t Resource<'a>,
    pub scope: &'t InstrumentationScope<'a>,
    pub span: &'t Span<'a>,
    pub nested: Nested,
}

/// Visits the scalars of an attribute value: an array of one kind has several; mixed arrays, key-value lists and bytes have none.
pub fn visit_any(value: &AnyValue<'_>, f: &mut dyn FnMut(ValueRef<'_>)) {
    match value {
        AnyValue::String(s) => f(ValueRef::Str(s)),
        AnyValue::Bool(b) => f(ValueRef::Bool(*b)),
        AnyValue::Int(i) => f(ValueRef::Int(*i)),
        AnyValue::Double(v) => f(ValueRef::Float(*v)),
        AnyValue::Array(values) if same_kind(values) => values.iter().for_each(|v| visit_any(v, f)),
        AnyValue::None | AnyValue::Array(_) | AnyValue::KvList(_) | AnyValue::Bytes(_) => {}
    }
}

fn visit_named(attributes: &[KeyValue<'_>], name: &str, f: &mut dyn FnMut(ValueRef<'_>)) -> bool {
    match attributes.iter().find(|a| a.key == name) {
        Some(a) => {
            visit_any(&a.value, f);
            true
        }
        None => false,
    }
}

impl SpanView<'_, '_> {
    /// Visits the values of `attribute`: none, one, or several.
    pub fn visit(&self, attribute: &Attribute, f: &mut dyn FnMut(ValueRef<'_>)) {
        match attribute {
            Attribute::Named(scope, name) => match scope {
                Scope::Any => {
                    if !visit_named(&self.span.attributes, name, f) {
                        visit_named(&self.resource.attributes, name, f);
                    }
                }
                Scope::Span => {
                    visit_named(&self.span.attributes, name, f);
                }
                Scope::Resource => {
                    visit_named(&self.resource.attributes, name, f);
                }
                Scope::Instrumentation => {
                    visit_named(&self.scope.attributes, name, f);
                }
                Scope::Event => {
                    for event in &self.span.events {
                        visit_named(&event.attributes, name, f);
                    }
                }
                Scope::Link => {
                    for link in &self.span.links {
                        visit_named(&link.attributes, name, f);
                    }
                }
            },
            Attribute::Intrinsic(intrinsic) => self.visit_intrinsic(*intrinsic, f),
        }
    }

    fn visit_intrinsic(&self, intrinsic: Intrinsic, f: &mut dyn FnMut(ValueRef<'_>)) {
        let span = self.span;
        match intrinsic {
            Intrinsic::Name => f(ValueRef::Str(span.name)),
            Intrinsic::Duration => f(ValueRef::Duration(span.duration_ns() as i64)),
            Intrinsic::Status => f(ValueRef::Status(status_text(span.status_code))),
            Intrinsic::StatusMessage => f(ValueRef::Str(span.status_message)),
            Intrinsic::Kind => f(ValueRef::Kind(kind_text(span.kind))),
            Intrinsic::ChildCount => f(ValueRef::Int(i64::from(self.nested.child_count))),
            Intrinsic::TraceId => f(ValueRef::Str(&hex::encode(self.trace.trace_id))),
            Intrinsic::SpanId => f(ValueRef::Str(&hex::encode(span.span_id))),
            Intrinsic::ParentId => match span.parent_id {
                Some(id) => f(ValueRef::Str(&hex::encode(id))),
                None => f(ValueRef::Str("")),
            },
            Intrinsic::TraceDuration => f(ValueRef::Duration(self.derived.duration_ns())),
            Intrinsic::RootName => f(ValueRef::Str(&self.derived.root_name)),
            Intrinsic::RootServiceName => f(ValueRef::Str(&self.derived.root_service)),
            Intrinsic::NestedSetLeft => f(ValueRef::Int(i64::from(self.nested.left))),
            Intrinsic::NestedSetRight => f(ValueRef::Int(i64::from(self.nested.right))),
            Intrinsic::NestedSetParent => f(ValueRef::Int(i64::from(self.nested.parent))),
            Intrinsic::EventName => span.events.iter().for_each(|e| f(ValueRef::Str(e.name))),
            Intrinsic::EventTimeSinceStart => span
                .events
                .iter()
                .for_each(|e| f(ValueRef::Duration(e.time_ns.wrapping_sub(span.start_ns) as i64))),
            Intrinsic::LinkTraceId => {
                span.links.iter().for_each(|l| f(ValueRef::Str(&hex::encode(l.trace_id))));
            }
            Intrinsic::LinkSpanId => {
                span.links.iter().for_each(|l| f(ValueRef::Str(&hex::encode(l.span_id))));
            }
            Intrinsic::InstrumentationName => f(ValueRef::Str(self.scope.name)),
            Intrinsic::InstrumentationVersion => f(ValueRef::Str(self.scope.version)),
        }
    }

    pub fn values(&self, attribute: &Attribute) -> Values {
        let mut out = Values::new();
        self.visit(attribute, &mut |v| out.push(v.to_value()));
        out
    }
}

/// A condition made ready: its regex compiled.
#[derive(Debug, Clone)]
pub struct Test {
    pub attribute: Attribute,
    pub op: Option<(CompareOp, Value)>,
    regex: Option<Regex>,
}

impl Test {
    pub fn new(condition: &Condition) -> Result<Self> {
        let regex = match &condition.test {
            Some((CompareOp::Regex | CompareOp::NotRegex, Value::String(pattern))) => Some(
                Regex::new(&format!("^(?s:{pattern})$"))
                    .map_err(|e| Error::invalid(format!("regex {pattern:?}: {e}")))?,
            ),
            _ => None,
        };
        Ok(Self { attribute: condition.attribute.clone(), op: condition.test.clone(), regex })
    }

    /// Comparisons with nil may hold for spans that lack the attribute: the store does not decide them. Everything else, `!=`
    /// included, fails on a span without the attribute.
    pub fn passes_missing(&self) -> bool {
        matches!(&self.op, Some((_, Value::Nil)))
    }

    pub fn passes_value(&self, value: ValueRef<'_>) -> bool {
        let Some((op, wanted)) = &self.op else {
            return true;
        };
        match op {
            CompareOp::Regex | CompareOp::NotRegex => match (&self.regex, value.text()) {
                (Some(regex), Some(text)) => regex.is_match(text) == (*op == CompareOp::Regex),
                _ => *op == CompareOp::NotRegex,
            },
            _ => match compare(value, wanted) {
                Some(ordering) => match op {
                    CompareOp::Equal => ordering.is_eq(),
                    CompareOp::NotEqual => ordering.is_ne(),
                    CompareOp::Less => ordering.is_lt(),
                    CompareOp::LessEqual => ordering.is_le(),
                    CompareOp::Greater => ordering.is_gt(),
                    CompareOp::GreaterEqual => ordering.is_ge(),
                    CompareOp::Regex | CompareOp::NotRegex => true,
                },
                None => *op == CompareOp::NotEqual,
            },
        }
    }

    pub fn passes(&self, view: &SpanView<'_, '_>) -> bool {
        if self.passes_missing() {
            return true;
        }
        let mut passed = false;
        view.visit(&self.attribute, &mut |v| passed |= self.passes_value(v));
        passed
    }
}

fn compare(value: ValueRef<'_>, wanted: &Value) -> Option<std::cmp::Ordering> {
    match wanted {
        Value::String(s) | Value::Status(s) | Value::SpanKind(s) => value.text().map(|v| v.cmp(s)),
        Value::Bool(b) => match value {
            ValueRef::Bool(v) => Some(v.cmp(b)),
            _ => None,
        },
        Value::Int(i) | Value::Duration(i) => match value {
            ValueRef::Int(v) | ValueRef::Duration(v) => Some(v.cmp(i)),
            ValueRef::Float(v) => v.partial_cmp(&(*i as f64)),
            _ => None,
        },
        Value::Float(w) => value.number().and_then(|v| v.partial_cmp(w)),
        Value::Nil => None,
    }
}

/// A fetch made ready.
#[derive(Debug, Clone)]
pub struct Matcher {
    pub tests: Vec<Test>,
    pub all: bool,
    pub attributes: Vec<Attribute>,
    /// What the evaluator or a test reads.
    pub needs: Needs,
    /// What a test reads.
    pub(crate) tests_need: Needs,
    pub start_ns: i64,
    pub end_ns: i64,
}

impl Matcher {
    pub fn new(fetch: &FetchSpans) -> Result<Self> {
        use Intrinsic::{
            ChildCount, NestedSetLeft, NestedSetParent, NestedSetRight, RootName, RootServiceName,
        };
        const NESTED: [Intrinsic; 4] = [ChildCount, NestedSetLeft, NestedSetRight, NestedSetParent];
        const SUMMARY: [Intrinsic; 2] = [RootName, RootServiceName];
        fn reads<'a>(mut attributes: impl Iterator<Item = &'a Attribute>, wanted: &[Intrinsic]) -> bool {
            attributes.any(|a| matches!(a, Attribute::Intrinsic(i) if wanted.contains(i)))
        }
        let tested = || fetch.conditions.iter().map(|c| &c.attribute);
        let tests_need = Needs { nested_sets: reads(tested(), &NESTED), summary: reads(tested(), &SUMMARY) };
        let read = || fetch.attributes.iter();
        Ok(Self {
            tests: fetch.conditions.iter().map(Test::new).collect::<Result<_>>()?,
            all: fetch.all_conditions,
            attributes: fetch.attributes.clone(),
            needs: Needs {
                nested_sets: fetch.nested_sets || tests_need.nested_sets || reads(read(), &NESTED),
                summary: fetch.summary || tests_need.summary || reads(read(), &SUMMARY),
            },
            tests_need,
            start_ns: fetch.start_ns,
            end_ns: fetch.end_ns,
        })
    }

    /// What of a trace's bytes is read, by tests and by the evaluator.
    pub fn keep(&self) -> Keep {
        let mut resource = Vec::new();
        if self.needs.summary {
            resource.push(Arc::from(SERVICE_NAME));
        }
        let (mut scope, mut span, mut event, mut link) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut events, mut links) = (false, false);
        for attribute in self.tests.iter().map(|t| &t.attribute).chain(&self.attributes) {
            match attribute {
                Attribute::Named(place, name) => match place {
                    Scope::Any => {
                        span.push(name.clone());
                        resource.push(name.clone());
                    }
                    Scope::Span => span.push(name.clone()),
                    Scope::Resource => resource.push(name.clone()),
                    Scope::Instrumentation => scope.push(name.clone()),
                    Scope::Event => event.push(name.clone()),
                    Scope::Link => link.push(name.clone()),
                },
                Attribute::Intrinsic(Intrinsic::EventName | Intrinsic::EventTimeSinceStart) => events = true,
                Attribute::Intrinsic(Intrinsic::LinkTraceId | Intrinsic::LinkSpanId) => links = true,
                Attribute::Intrinsic(_) => {}
            }
        }
        Keep {
            resource: Names::These(resource),
            scope: Names::These(scope),
            span: Names::These(span),
            event: (events || !event.is_empty()).then_some(Names::These(event)),
            link: (links || !link.is_empty()).then_some(Names::These(link)),
        }
    }

    pub fn overlaps(&self, start_ns: u64, end_ns: u64) -> bool {
        overlaps(self.start_ns, self.end_ns, start_ns as i64, end_ns as i64)
    }

    pub fn passes(&self, view: &SpanView<'_, '_>) -> bool {
        if self.tests.is_empty() {
            return true;
        }
        if self.all {
            self.tests.iter().all(|t| t.passes(view))
        } else {
            self.tests.iter().any(|t| t.passes(view))
        }
    }

    /// As [`Matcher::select`], for a trace of which nothing is derived yet. What only the answer needs is derived where a span
    /// may match.
    pub fn derive_and_select(&self, trace: &Trace<'_>) -> Option<TraceSpans> {
        let derived = Derived::needed(trace, self.tests_need);
        if self.needs == self.tests_need {
            return self.select(trace, &derived);
        }
        if !self.overlaps(derived.start_ns, derived.end_ns) {
            return None;
        }
        let passes = trace.spans().enumerate().any(|(i, (resource, scope, span))| {
            let nested = derived.nested.get(i).copied().unwrap_or_default();
            self.passes(&SpanView { trace, derived: &derived, resource, scope, span, nested })
        });
        if passes { self.select(trace, &Derived::needed(trace, self.needs)) } else { None }
    }

    /// The trace with the spans that may match; `None` where it lies outside of the range or no span may.
    pub fn select(&self, trace: &Trace<'_>, derived: &Derived) -> Option<TraceSpans> {
        if !self.overlaps(derived.start_ns, derived.end_ns) {
            return None;
        }
        let mut spans = Vec::new();
        for (i, (resource, scope, span)) in trace.spans().enumerate() {
            let nested = derived.nested.get(i).copied().unwrap_or_default();
            let view = SpanView { trace, derived, resource, scope, span, nested };
            if self.passes(&view) {
                spans.push(FetchedSpan {
                    span_id: span.span_id,
                    name: span.name.into(),
                    start_ns: span.start_ns as i64,
                    duration_ns: span.duration_ns() as i64,
                    nested_left: nested.left,
                    nested_right: nested.right,
                    nested_parent: nested.parent,
                    values: self.attributes.iter().map(|a| view.values(a)).collect(),
                });
            }
        }
        if spans.is_empty() {
            return None;
        }
        Some(TraceSpans {
            trace_id: trace.trace_id,
            start_ns: derived.start_ns as i64,
            duration_ns: derived.duration_ns(),
            root_service: derived.root_service.clone(),
            root_name: derived.root_name.clone(),
            services: derived.services.clone(),
            spans,
        })
    }
}

/// Whether two ranges of time touch; 0 as an end of the wanted one: unbounded.
pub fn overlaps(wanted_start_ns: i64, wanted_end_ns: i64, start_ns: i64, end_ns: i64) -> bool {
    (wanted_end_ns == 0 || start_ns <= wanted_end_ns) && (wanted_start_ns == 0 || end_ns >= wanted_start_ns)
}

/// A guess at the memory that a fetched trace takes, in bytes.
pub fn spans_bytes(trace: &TraceSpans) -> usize {
    let values: usize = trace.spans.iter().map(|s| s.values.len() * size_of::<Values>() + s.name.len()).sum();
    size_of::<TraceSpans>() + trace.spans.len() * size_of::<FetchedSpan>() + values
}

#[cfg(test)]
mod tests;
