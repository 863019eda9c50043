//! What to ask the store for.
//!
//! A query is evaluated on the spans that the store returns, so a condition may be handed down only where leaving out the spans
//! that fail it cannot change the answer:
//!
//! * Pipelines begin with a run of span set filters, each narrowing the one before. What follows (`count()`, `by()`) sees only
//!   what the run let through, so conditions come from the run alone.
//! * Where the run is a conjunction, every condition in it is necessary ([`necessary`]).
//! * Everything else (`||`, `{} && {}`, structural operators) needs a set of conditions of which every span that matters passes
//!   at least one ([`cover`]). Where there is none, every span is fetched.

use triptych_model::traces::Value;

use crate::ast::{Body, FieldExpr, MetricsExpr, Pipeline, Query, SpansetExpr, Stage};
use crate::lexer::{Token, lex};
use crate::parser::{compare_op, keyword_value, parse};
use crate::source::{Attribute, CompareOp, Condition, FetchSpans, Intrinsic, Scope};
use crate::value::{compare, normalized_operand};

impl Query {
    /// What the store is asked for, so that [`crate::search`] or [`crate::samples`] can answer from it. Of a metrics query that
    /// has several leaves: of the first (each leaf is a query of its own, [`crate::leaves`]).
    pub fn fetch(&self, start_ns: i64, end_ns: i64) -> FetchSpans {
        let nothing = Pipeline::default();
        let mut attributes: Vec<&Attribute> = Vec::new();
        let (pipeline, search) = match &self.body {
            Body::Spans(p) => (p, true),
            Body::Metrics(m) => match first_leaf(m) {
                Some(leaf) => {
                    attributes.extend(&leaf.by);
                    attributes.extend(leaf.op.attribute());
                    (&leaf.pipeline, false)
                }
                None => (&nothing, false),
            },
        };
        pipeline.visit_attributes(&mut |a| attributes.push(a));
        let has = |wanted: &[Intrinsic]| {
            attributes.iter().any(|a| matches!(a, Attribute::Intrinsic(i) if wanted.contains(i)))
        };
        let nested = [Intrinsic::NestedSetLeft, Intrinsic::NestedSetRight, Intrinsic::NestedSetParent];
        let nested_sets = pipeline.relates_spans() || has(&nested);
        let summary = search || has(&[Intrinsic::RootName, Intrinsic::RootServiceName]);
        let mut attributes: Vec<Attribute> =
            attributes.into_iter().filter(|a| !is_carried(a)).cloned().collect();
        attributes.sort();
        attributes.dedup();
        let (conditions, all_conditions) = conditions(pipeline);
        FetchSpans { conditions, all_conditions, attributes, nested_sets, summary, start_ns, end_ns }
    }
}

/// Whether each span is looked at alone, so that it does not matter to a search or a leaf which other spans of its trace the store that
/// answers has. Otherwise only a store that has all of them answers right: `count()`, `{} && {}`, relations, what is known of the trace.
/// Fails where the query does not parse.
pub fn is_by_span(query: &str) -> triptych_model::Result<bool> {
    let by_span = |pipeline: &Pipeline| {
        let is_filter =
            |stage: &Stage| matches!(stage, Stage::Spans(SpansetExpr::Filter(_)) | Stage::Select(_));
        let mut of_trace = false;
        pipeline.visit_attributes(&mut |attribute| of_trace |= is_of_trace(attribute));
        pipeline.stages.iter().all(is_filter) && !of_trace
    };
    Ok(match parse(query)?.body {
        Body::Spans(pipeline) => by_span(&pipeline),
        Body::Metrics(expr) => expr.leaves().into_iter().all(|leaf| {
            by_span(&leaf.pipeline) && !leaf.by.iter().chain(leaf.op.attribute()).any(is_of_trace)
        }),
    })
}

/// Whether other spans of the trace decide about its value.
fn is_of_trace(attribute: &Attribute) -> bool {
    matches!(
        attribute,
        Attribute::Intrinsic(
            Intrinsic::ChildCount
                | Intrinsic::TraceDuration
                | Intrinsic::RootName
                | Intrinsic::RootServiceName
                | Intrinsic::NestedSetLeft
                | Intrinsic::NestedSetRight
                | Intrinsic::NestedSetParent
        )
    )
}

fn first_leaf(expr: &MetricsExpr) -> Option<&crate::ast::MetricsLeaf> {
    expr.leaves().first().copied()
}

/// Whether every fetched trace or span carries it, so that it need not be asked for.
pub(crate) fn is_carried(attribute: &Attribute) -> bool {
    matches!(
        attribute,
        Attribute::Intrinsic(
            Intrinsic::Name
                | Intrinsic::Duration
                | Intrinsic::TraceId
                | Intrinsic::SpanId
                | Intrinsic::TraceDuration
                | Intrinsic::RootName
                | Intrinsic::RootServiceName
                | Intrinsic::NestedSetLeft
                | Intrinsic::NestedSetRight
                | Intrinsic::NestedSetParent
        )
    )
}

/// The conditions of a pipeline, and whether all of them are necessary.
fn conditions(pipeline: &Pipeline) -> (Vec<Condition>, bool) {
    let mut all = Vec::new();
    let mut first_cover = None;
    for stage in &pipeline.stages {
        match stage {
            Stage::Spans(SpansetExpr::Filter(e)) => {
                necessary(e, &mut all);
                if first_cover.is_none() {
                    first_cover = cover(e);
                }
            }
            // Reads spans and groups, but does not count them: the run goes on behind it.
            Stage::Select(_) => {}
            Stage::Spans(e) if all.is_empty() && first_cover.is_none() => {
                first_cover = cover_spanset(e);
                break;
            }
            // A span set operator behind filters sees what they let through.
            _ => break,
        }
    }
    dedup(&mut all);
    if !all.is_empty() {
        return (all, true);
    }
    let mut any = first_cover.unwrap_or_default();
    dedup(&mut any);
    let all = any.len() == 1;
    (any, all)
}

fn dedup(conditions: &mut Vec<Condition>) {
    let mut seen: Vec<Condition> = Vec::with_capacity(conditions.len().min(64));
    conditions.retain(|c| {
        let new = !seen.contains(c);
        if new {
            seen.push(c.clone());
        }
        new
    });
}

/// Adds conditions each of which every span passes that passes `e`.
fn necessary(e: &FieldExpr, out: &mut Vec<Condition>) {
    match e {
        FieldExpr::And(all) => all.iter().for_each(|e| necessary(e, out)),
        // An `||` of comparisons is a cover; one of a single condition is necessary.
        FieldExpr::Or(_) => {
            if let Some(mut any) = cover(e) {
                dedup(&mut any);
                if any.len() == 1 {
                    out.append(&mut any);
                }
            }
        }
        _ => leaf(e, out),
    }
}

/// Conditions of which every span that passes `e` passes at least one; `None` where there are none.
fn cover(e: &FieldExpr) -> Option<Vec<Condition>> {
    match e {
        FieldExpr::And(all) => all.iter().filter_map(cover).min_by_key(|c| cost(c)),
        FieldExpr::Or(all) => {
            let mut any = Vec::new();
            for e in all {
                any.extend(cover(e)?);
            }
            Some(any)
        }
        // No span passes: the empty cover would mean every span.
        FieldExpr::Value(Value::Bool(false)) => None,
        _ => {
            let mut all = Vec::new();
            leaf(e, &mut all);
            all.into_iter().min_by_key(|c| cost(std::slice::from_ref(c))).map(|c| vec![c])
        }
    }
}

/// Which conditions likely let the fewest spans through: a guess by kind.
fn cost(conditions: &[Condition]) -> usize {
    let one = |c: &Condition| match &c.test {
        Some((CompareOp::Equal, _)) => 1,
        Some((CompareOp::Regex, _)) => 4,
        Some((CompareOp::NotEqual | CompareOp::NotRegex, _)) => 64,
        Some(_) => 16,
        None => 32,
    };
    conditions.iter().map(one).sum()
}

fn cover_spanset(e: &SpansetExpr) -> Option<Vec<Condition>> {
    match e {
        SpansetExpr::Filter(e) => cover(e),
        SpansetExpr::Op { left, right, .. } => {
            let mut any = cover_spanset(left)?;
            any.extend(cover_spanset(right)?);
            Some(any)
        }
        // Its own first filters decide which of the spans it sees.
        SpansetExpr::Pipeline(p) => {
            let (conditions, all) = conditions(p);
            match (conditions.is_empty(), all) {
                (true, _) => None,
                (false, false) => Some(conditions),
                (false, true) => {
                    conditions.into_iter().min_by_key(|c| cost(std::slice::from_ref(c))).map(|c| vec![c])
                }
            }
        }
    }
}

/// Adds the necessary conditions of an expression without `&&` and `||` on top.
fn leaf(e: &FieldExpr, out: &mut Vec<Condition>) {
    match e {
        FieldExpr::Attribute(a) => out.push(test(a, CompareOp::Equal, Value::Bool(true))),
        FieldExpr::Not(inner) => {
            if let FieldExpr::Attribute(a) = &**inner {
                out.push(test(a, CompareOp::Equal, Value::Bool(false)));
            }
        }
        FieldExpr::Exists(inner, true) => exist(inner, out),
        FieldExpr::Compare { op, left, right } => match (&**left, &**right) {
            (FieldExpr::Attribute(a), FieldExpr::Value(v)) => out.push(test(a, *op, v.clone())),
            (FieldExpr::Value(v), FieldExpr::Attribute(a)) if !op.is_regex() => {
                out.push(test(a, op.flipped(), v.clone()));
            }
            (left, right) => {
                exist(left, out);
                exist(right, out);
            }
        },
        FieldExpr::Value(_)
        | FieldExpr::Negate(_)
        | FieldExpr::Exists(_, false)
        | FieldExpr::And(_)
        | FieldExpr::Or(_)
        | FieldExpr::Arithmetic { .. } => {}
    }
}

/// An attribute or an arithmetic expression has a value only where all its attributes are there.
fn exist(e: &FieldExpr, out: &mut Vec<Condition>) {
    match e {
        FieldExpr::Attribute(a) => out.push(Condition { attribute: a.clone(), test: None }),
        FieldExpr::Negate(e) => exist(e, out),
        FieldExpr::Arithmetic { left, right, .. } => {
            exist(left, out);
            exist(right, out);
        }
        _ => {}
    }
}

fn test(attribute: &Attribute, op: CompareOp, value: Value) -> Condition {
    let value = normalized_operand(attribute, op, value);
    Condition { attribute: attribute.clone(), test: Some((op, value)) }
}

/// The conditions that all spans must pass which feed the answers to a question for tags or values with the filter `query`.
///
/// Lenient as in Tempo, because the filter is half typed: an unfinished query gives the comparisons that are whole. A query that
/// is no plain conjunction gives none, which filters nothing.
pub fn filter_conditions(query: &str) -> Vec<Condition> {
    match parse(query) {
        Ok(Query { body: Body::Spans(pipeline), .. }) => match conditions(&pipeline) {
            (all, true) => all,
            _ => Vec::new(),
        },
        Ok(_) => Vec::new(),
        Err(_) => whole_comparisons(query),
    }
}

/// `attribute op literal`, where nothing but `&&` joins them.
fn whole_comparisons(query: &str) -> Vec<Condition> {
    // A literal that is still open hides everything behind it: cut it off.
    let mut text = query;
    let tokens = loop {
        match lex(text) {
            Ok(tokens) => break tokens,
            Err(_) => match text.rfind(['"', '`', '.', '&', '=', '{']) {
                Some(at) => text = &text[..at],
                None => return Vec::new(),
            },
        }
    };
    let tokens: Vec<Token> = tokens.into_iter().map(|(t, _)| t).collect();
    let plain = |s: &str| matches!(s, "{" | "}" | "&&" | "-") || compare_op(s).is_some();
    if tokens.iter().filter(|t| **t == Token::Sign("{")).count() > 1
        || tokens.iter().any(|t| matches!(t, Token::Sign(s) if !plain(s)))
    {
        return Vec::new();
    }
    let mut all = Vec::new();
    for window in tokens.windows(5) {
        let [Token::Sign("{" | "&&"), name, Token::Sign(op), literal, Token::Sign("&&" | "}") | Token::End] =
            window
        else {
            continue;
        };
        let attribute = match name {
            Token::Attribute(a) => a.clone(),
            Token::ScopedIntrinsic(w) | Token::Word(w) => match crate::parser::parse_attribute(w) {
                Ok(a @ Attribute::Intrinsic(_)) => a,
                _ => continue,
            },
            _ => continue,
        };
        let value = match literal {
            Token::String(s) => Value::String(s.clone()),
            Token::Int(i) => Value::Int(*i),
            Token::Float(v) => Value::Float(*v),
            Token::Duration(ns) => Value::Duration(*ns),
            Token::Word(w) => match keyword_value(w) {
                Some(v) if v != Value::Nil => v,
                _ => continue,
            },
            _ => continue,
        };
        let Some(op) = compare_op(op) else { continue };
        let condition = test(&attribute, op, value);
        if crate::value::Test::new(&condition).is_ok() && comparable(&condition) {
            all.push(condition);
        }
    }
    all
}

/// Whether the condition's operator fits its literal at all.
fn comparable(condition: &Condition) -> bool {
    match &condition.test {
        Some((op, Value::String(_))) if op.is_regex() => true,
        Some((CompareOp::NotEqual, _)) => true,
        Some((op, v)) => compare(*op, v, v) || matches!(op, CompareOp::Less | CompareOp::Greater),
        None => true,
    }
}

impl FetchSpans {
    /// Where the attribute's values are in [`crate::source::Span::values`].
    pub fn slot(&self, attribute: &Attribute) -> Option<usize> {
        self.attributes.binary_search(attribute).ok()
    }

    /// Whether anything below spans is needed: events, links, instrumentation scopes.
    pub fn names_scope(&self, scope: Scope) -> bool {
        let conditions = self.conditions.iter().map(|c| &c.attribute);
        self.attributes.iter().chain(conditions).any(|a| a.scope() == Some(scope))
    }
}

impl Attribute {
    /// The scope it is looked up in; `None` for what spans and traces have themselves.
    pub fn scope(&self) -> Option<Scope> {
        match self {
            Attribute::Named(scope, _) => Some(*scope),
            Attribute::Intrinsic(i) => match i {
                Intrinsic::EventName | Intrinsic::EventTimeSinceStart => Some(Scope::Event),
                Intrinsic::LinkTraceId | Intrinsic::LinkSpanId => Some(Scope::Link),
                Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion => {
                    Some(Scope::Instrumentation)
                }
                _ => None,
            },
        }
    }
}
