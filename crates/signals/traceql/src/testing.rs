//! Small traces in memory, written as indented text, and a [`SpanSource`] over them.
//!
//! ```text
//! trace 1
//!   frontend: GET 0+100 status=error span.code=500
//!     backend: query 10+50 kind=client
//! ```
//! A line is `service: name start_ms+duration_ms attribute=value ..`; the span's id is its place in the trace, from 1. Values
//! are literals; `[..]` several of them. Attributes without scope and intrinsics are the span's.

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use triptych_model::Result;
use triptych_model::traces::{TraceId, Value};
use triptych_runtime::QueryContext;

use crate::source::{Attribute, FetchSpans, Intrinsic, Scope, Span, SpanSource, TraceSpans, Values};
use crate::value::Test;

#[derive(Debug, Clone)]
pub struct Forest {
    traces: Vec<Tree>,
    /// Whether spans are left out as far as the contract lets a source do.
    pub strict: bool,
}

#[derive(Debug, Clone)]
struct Tree {
    id: TraceId,
    nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
struct Node {
    service: String,
    name: String,
    start_ns: i64,
    duration_ns: i64,
    parent: Option<usize>,
    nested: (i32, i32),
    values: Vec<(Attribute, Values)>,
}

pub fn trace_id(n: u8) -> TraceId {
    let mut id = [0; 16];
    id[15] = n;
    id
}

fn value(text: &str) -> Value {
    if let Some(s) = text.strip_prefix('"') {
        return Value::String(s.trim_end_matches('"').to_owned());
    }
    if let Some(v) = crate::parser::keyword_value(text) {
        return v;
    }
    if let Some(ms) = text.strip_suffix("ms") {
        return Value::Duration(ms.parse::<i64>().unwrap() * 1_000_000);
    }
    text.parse().map(Value::Int).or_else(|_| text.parse().map(Value::Float)).unwrap()
}

impl Forest {
    pub fn new(text: &str) -> Self {
        let mut traces: Vec<Tree> = Vec::new();
        let mut path: Vec<(usize, usize)> = Vec::new();
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            if let Some(n) = line.trim().strip_prefix("trace ") {
                traces.push(Tree { id: trace_id(n.parse().unwrap()), nodes: Vec::new() });
                path.clear();
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            path.retain(|(i, _)| *i < indent);
            let (service, rest) = line.trim().split_once(": ").unwrap();
            let mut words = rest.split_whitespace();
            let name = words.next().unwrap().to_owned();
            let (start, duration) = words.next().unwrap().split_once('+').unwrap();
            let ms = |s: &str| s.parse::<i64>().unwrap() * 1_000_000;
            let mut values: Vec<(Attribute, Values)> = Vec::new();
            for word in words {
                let (key, text) = word.split_once('=').unwrap();
                let all: Values = match text.strip_prefix('[') {
                    Some(list) => list.trim_end_matches(']').split(',').map(value).collect(),
                    None => smallvec::smallvec![value(text)],
                };
                values.push((crate::parse_attribute(key).unwrap(), all));
            }
            let nodes = &mut traces.last_mut().unwrap().nodes;
            path.push((indent, nodes.len()));
            let parent = path.len().checked_sub(2).map(|p| path[p].1);
            nodes.push(Node {
                service: service.to_owned(),
                name,
                start_ns: ms(start),
                duration_ns: ms(duration),
                parent,
                nested: (0, 0),
                values,
            });
        }
        for tree in &mut traces {
            let mut next = 1;
            for root in 0..tree.nodes.len() {
                if tree.nodes[root].parent.is_none() {
                    number(&mut tree.nodes, root, &mut next);
                }
            }
        }
        Self { traces, strict: true }
    }

    pub fn lax(mut self) -> Self {
        self.strict = false;
        self
    }
}

fn number(nodes: &mut [Node], at: usize, next: &mut i32) {
    nodes[at].nested.0 = *next;
    *next += 1;
    for child in 0..nodes.len() {
        if nodes[child].parent == Some(at) {
            number(nodes, child, next);
        }
    }
    nodes[at].nested.1 = *next;
    *next += 1;
}

impl Tree {
    fn values(&self, at: usize, attribute: &Attribute) -> Values {
        let node = &self.nodes[at];
        let own = |a: &Attribute| node.values.iter().find(|(b, _)| a == b).map(|(_, v)| v.clone());
        let one = |v: Value| -> Values { smallvec::smallvec![v] };
        let root = self.nodes.iter().find(|n| n.parent.is_none());
        match attribute {
            Attribute::Named(Scope::Resource, name) if &**name == "service.name" => {
                one(Value::String(node.service.clone()))
            }
            Attribute::Named(Scope::Any, name) => [Scope::Any, Scope::Span, Scope::Resource]
                .into_iter()
                .find_map(|scope| own(&Attribute::Named(scope, name.clone())))
                .unwrap_or_else(|| {
                    if &**name == "service.name" {
                        one(Value::String(node.service.clone()))
                    } else {
                        Values::new()
                    }
                }),
            Attribute::Named(Scope::Span, name) => own(attribute)
                .or_else(|| own(&Attribute::Named(Scope::Any, name.clone())))
                .unwrap_or_default(),
            Attribute::Named(..) => own(attribute).unwrap_or_default(),
            Attribute::Intrinsic(i) => match i {
                Intrinsic::Name => one(Value::String(node.name.clone())),
                Intrinsic::Duration => one(Value::Duration(node.duration_ns)),
                Intrinsic::SpanId => one(Value::String(format!("{:016x}", at + 1))),
                Intrinsic::TraceId => {
                    one(Value::String(self.id.iter().map(|b| format!("{b:02x}")).collect()))
                }
                Intrinsic::ParentId => {
                    one(Value::String(node.parent.map_or(String::new(), |p| format!("{:016x}", p + 1))))
                }
                Intrinsic::TraceDuration => one(Value::Duration(self.duration_ns())),
                Intrinsic::RootName => one(Value::String(root.map_or(String::new(), |r| r.name.clone()))),
                Intrinsic::RootServiceName => {
                    one(Value::String(root.map_or(String::new(), |r| r.service.clone())))
                }
                Intrinsic::NestedSetLeft => one(Value::Int(node.nested.0.into())),
                Intrinsic::NestedSetRight => one(Value::Int(node.nested.1.into())),
                Intrinsic::NestedSetParent => one(Value::Int(self.nested_parent(at).into())),
                Intrinsic::ChildCount => {
                    one(Value::Int(self.nodes.iter().filter(|n| n.parent == Some(at)).count() as i64))
                }
                Intrinsic::Status => {
                    one(own(attribute).map_or(Value::Status("unset".into()), |v| v[0].clone()))
                }
                Intrinsic::Kind => {
                    one(own(attribute).map_or(Value::SpanKind("unspecified".into()), |v| v[0].clone()))
                }
                _ => own(attribute).unwrap_or_default(),
            },
        }
    }

    fn nested_parent(&self, at: usize) -> i32 {
        self.nodes[at].parent.map_or(-1, |p| self.nodes[p].nested.0)
    }

    fn start_ns(&self) -> i64 {
        self.nodes.iter().map(|n| n.start_ns).min().unwrap()
    }

    fn duration_ns(&self) -> i64 {
        self.nodes.iter().map(|n| n.start_ns + n.duration_ns).max().unwrap() - self.start_ns()
    }

    fn fetch(&self, fetch: &FetchSpans, strict: bool) -> Option<TraceSpans> {
        let tests: Vec<Test> = fetch.conditions.iter().map(|c| Test::new(c).unwrap()).collect();
        let passes = |at: usize| {
            let mut results = tests.iter().map(|t| t.matches(&self.values(at, &t.attribute)));
            let pass = if fetch.all_conditions { results.all(|r| r) } else { results.any(|r| r) };
            !strict || tests.is_empty() || pass
        };
        let (start_ns, duration_ns) = (self.start_ns(), self.duration_ns());
        if (fetch.end_ns != 0 && start_ns > fetch.end_ns) || start_ns + duration_ns < fetch.start_ns {
            return None;
        }
        let spans: Vec<Span> = (0..self.nodes.len())
            .filter(|at| passes(*at))
            .map(|at| {
                let node = &self.nodes[at];
                let nested = fetch.nested_sets || !strict;
                Span {
                    span_id: (at as u64 + 1).to_be_bytes(),
                    name: node.name.as_str().into(),
                    start_ns: node.start_ns,
                    duration_ns: node.duration_ns,
                    nested_left: if nested { node.nested.0 } else { 0 },
                    nested_right: if nested { node.nested.1 } else { 0 },
                    nested_parent: if nested { self.nested_parent(at) } else { 0 },
                    values: fetch.attributes.iter().map(|a| self.values(at, a)).collect(),
                }
            })
            .collect();
        if spans.is_empty() {
            return None;
        }
        let summary = fetch.summary || !strict;
        let root = self.nodes.iter().find(|n| n.parent.is_none()).filter(|_| summary);
        let mut services: Vec<(std::sync::Arc<str>, u32, u32)> = Vec::new();
        for node in self.nodes.iter().filter(|_| summary) {
            let error = node.values.iter().any(|(_, v)| v[0] == Value::Status("error".into()));
            match services.iter_mut().find(|s| *s.0 == *node.service) {
                Some(s) => {
                    s.1 += 1;
                    s.2 += u32::from(error);
                }
                None => services.push((node.service.as_str().into(), 1, error.into())),
            }
        }
        Some(TraceSpans {
            trace_id: self.id,
            start_ns,
            duration_ns,
            root_service: root.map_or("".into(), |r| r.service.as_str().into()),
            root_name: root.map_or("".into(), |r| r.name.as_str().into()),
            services,
            spans,
        })
    }
}

#[async_trait]
impl SpanSource for Forest {
    async fn fetch(
        &self,
        _ctx: &QueryContext,
        fetch: &FetchSpans,
    ) -> Result<BoxStream<'static, Result<TraceSpans>>> {
        let found: Vec<_> = self.traces.iter().filter_map(|t| t.fetch(fetch, self.strict)).map(Ok).collect();
        Ok(stream::iter(found).boxed())
    }
}
