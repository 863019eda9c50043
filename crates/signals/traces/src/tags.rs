//! Tag names and tag values: which attributes there are and what they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use triptych_model::traces::{ScopeTags, TagsSelect, Value};
use triptych_traceql::source::{Attribute, Intrinsic, Scope};

use crate::otlp::{KeyValue, Trace};
use crate::view::{Derived, KINDS, Matcher, STATUSES, SpanView};

/// Most bytes of names or values in one answer (Tempo's `max_bytes_per_tag_values_query`); what does not fit is left out.
pub const ANSWER_BYTES_MAX: usize = 5_000_000;

/// The scopes of `/api/v2/search/tags` in the order of its answers.
pub const SCOPES: [(&str, Scope); 5] = [
    ("event", Scope::Event),
    ("instrumentation", Scope::Instrumentation),
    ("link", Scope::Link),
    ("resource", Scope::Resource),
    ("span", Scope::Span),
];

/// What Tempo lists as the scope `intrinsic`.
const INTRINSIC_TAGS: [&str; 25] = [
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
];

/// Reads the name of a tag: `status`, `resource.service.name`, `.http.method`, or bare `http.method`. What is no TraceQL is taken
/// as it stands.
pub fn parse_tag(name: &str) -> Attribute {
    triptych_traceql::parse_attribute(name).unwrap_or_else(|_| Attribute::Named(Scope::Any, name.into()))
}

/// Collects the names of attributes by scope.
#[derive(Debug)]
pub struct TagNames {
    scope: String,
    limit: usize,
    bytes: usize,
    names: BTreeMap<Scope, BTreeSet<String>>,
}

impl TagNames {
    /// An empty collector with the same question, for work on another thread.
    pub(crate) fn fresh(&self) -> Self {
        Self { scope: self.scope.clone(), limit: self.limit, bytes: 0, names: BTreeMap::new() }
    }

    pub(crate) fn absorb(&mut self, other: Self) {
        for (scope, names) in other.names {
            names.iter().for_each(|name| self.add(scope, name));
        }
    }

    pub fn new(select: &TagsSelect) -> Self {
        Self { scope: select.scope.clone(), limit: select.limit, bytes: 0, names: BTreeMap::new() }
    }

    /// Whether names of this scope are asked for. `none` is what Grafana sends for "no filter".
    pub fn wants(&self, scope: Scope) -> bool {
        matches!(self.scope.as_str(), "" | "none")
            || SCOPES.iter().any(|(name, s)| *s == scope && *name == self.scope)
    }

    pub fn full(&self) -> bool {
        self.bytes >= ANSWER_BYTES_MAX
    }

    pub fn add(&mut self, scope: Scope, name: &str) {
        if self.bytes + name.len() > ANSWER_BYTES_MAX || !self.wants(scope) {
            return;
        }
        let names = self.names.entry(scope).or_default();
        if !names.contains(name) && (self.limit == 0 || names.len() < self.limit) {
            names.insert(name.to_owned());
            self.bytes += name.len();
        }
    }

    fn add_all(&mut self, scope: Scope, attributes: &[KeyValue<'_>]) {
        for a in attributes {
            self.add(scope, &a.key);
        }
    }

    /// The names that the spans have which pass `matcher`.
    pub fn add_trace(&mut self, trace: &Trace<'_>, derived: &Derived, matcher: &Matcher) {
        visit(trace, derived, matcher, |view| {
            self.add_all(Scope::Span, &view.span.attributes);
            self.add_all(Scope::Resource, &view.resource.attributes);
            self.add_all(Scope::Instrumentation, &view.scope.attributes);
            view.span.events.iter().for_each(|e| self.add_all(Scope::Event, &e.attributes));
            view.span.links.iter().for_each(|l| self.add_all(Scope::Link, &l.attributes));
        });
    }

    pub fn finish(mut self) -> Vec<ScopeTags> {
        let mut out: Vec<_> = SCOPES
            .iter()
            .filter_map(|(name, scope)| {
                let tags: Vec<_> = self.names.remove(scope)?.into_iter().collect();
                (!tags.is_empty()).then(|| ScopeTags { scope: (*name).to_owned(), tags })
            })
            .collect();
        if matches!(self.scope.as_str(), "" | "none" | "intrinsic") {
            let tags = INTRINSIC_TAGS.map(str::to_owned).to_vec();
            out.push(ScopeTags { scope: "intrinsic".to_owned(), tags });
        }
        out
    }
}

fn visit(trace: &Trace<'_>, derived: &Derived, matcher: &Matcher, mut f: impl FnMut(SpanView<'_, '_>)) {
    if !matcher.overlaps(derived.start_ns, derived.end_ns) {
        return;
    }
    for (i, (resource, scope, span)) in trace.spans().enumerate() {
        let nested = derived.nested.get(i).copied().unwrap_or_default();
        let view = SpanView { trace, derived, resource, scope, span, nested };
        if matcher.passes(&view) {
            f(view);
        }
    }
}

/// Collects the values of one tag.
#[derive(Debug)]
pub struct TagValues {
    pub attributes: Vec<Attribute>,
    limit: usize,
    bytes: usize,
    values: BTreeMap<(&'static str, String), Value>,
}

impl TagValues {
    pub fn new(select: &TagsSelect) -> Self {
        let attributes = match parse_tag(&select.name) {
            Attribute::Named(Scope::Any, name) => vec![
                Attribute::Named(Scope::Span, Arc::clone(&name)),
                Attribute::Named(Scope::Resource, name),
            ],
            one => vec![one],
        };
        let mut out = Self { attributes, limit: select.limit, bytes: 0, values: BTreeMap::new() };
        out.add_keywords();
        out
    }

    /// Status and kind have few values, all of which are offered, as Tempo does.
    fn add_keywords(&mut self) {
        match self.attributes.as_slice() {
            [Attribute::Intrinsic(Intrinsic::Status)] => {
                STATUSES.iter().for_each(|s| self.add(Value::Status((*s).to_owned())));
            }
            [Attribute::Intrinsic(Intrinsic::Kind)] => {
                KINDS.iter().for_each(|s| self.add(Value::SpanKind((*s).to_owned())));
            }
            _ => {}
        }
    }

    /// Nothing more is worth looking for: the answer is full, or its values are known beforehand, or (ids, durations, numbers of
    /// the tree) Tempo offers none.
    pub fn done(&self) -> bool {
        self.bytes >= ANSWER_BYTES_MAX
            || (self.limit != 0 && self.values.len() >= self.limit)
            || matches!(
                self.attributes.as_slice(),
                [Attribute::Intrinsic(
                    Intrinsic::Status
                        | Intrinsic::Kind
                        | Intrinsic::Duration
                        | Intrinsic::TraceDuration
                        | Intrinsic::TraceId
                        | Intrinsic::SpanId
                        | Intrinsic::ParentId
                        | Intrinsic::LinkTraceId
                        | Intrinsic::LinkSpanId
                        | Intrinsic::ChildCount
                        | Intrinsic::NestedSetLeft
                        | Intrinsic::NestedSetRight
                        | Intrinsic::NestedSetParent
                        | Intrinsic::EventTimeSinceStart
                )]
            )
    }

    pub fn add(&mut self, value: Value) {
        if self.limit != 0 && self.values.len() >= self.limit {
            return;
        }
        let text = value.to_string();
        if text.is_empty() || self.bytes + text.len() > ANSWER_BYTES_MAX {
            return;
        }
        let bytes = text.len();
        if self.values.insert((value.type_name(), text), value).is_none() {
            self.bytes += bytes;
        }
    }

    /// An empty collector with the same question, for work on another thread.
    pub(crate) fn fresh(&self) -> Self {
        Self { attributes: self.attributes.clone(), limit: self.limit, bytes: 0, values: BTreeMap::new() }
    }

    pub(crate) fn absorb(&mut self, other: Self) {
        other.values.into_values().for_each(|v| self.add(v));
    }

    pub fn add_trace(&mut self, trace: &Trace<'_>, derived: &Derived, matcher: &Matcher) {
        let attributes = self.attributes.clone();
        visit(trace, derived, matcher, |view| {
            for attribute in &attributes {
                view.visit(attribute, &mut |v| self.add(v.to_value()));
            }
        });
    }

    /// Sorted by type, then text.
    pub fn finish(self) -> Vec<Value> {
        self.values.into_values().collect()
    }
}

#[cfg(test)]
mod tests;
