//! Evaluation of one trace: a pipeline compiled against what was fetched, run over span sets.
//!
//! A span set is a list of places in [`TraceSpans::spans`]; values are borrowed from the trace. A constant operand is compiled
//! into a [`Test`], so that the common filters allocate nothing.

mod expr;
mod structure;

use hashbrown::HashMap;
use triptych_model::Result;
use triptych_model::traces::Value;

pub(crate) use expr::{Expr, Read};

use crate::ast::{AggregateOp, ArithmeticOp, Pipeline, ScalarExpr, SpansetExpr, SpansetOp, Stage};
use crate::source::{CompareOp, FetchSpans, TraceSpans};
use crate::value::{arithmetic, compare, number};

/// Spans of one trace, ascending places, each once.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Set {
    pub spans: Vec<u32>,
    /// `by(..)` keys and aggregates, in the order they came about.
    pub attributes: Vec<(String, Value)>,
}

/// A pipeline ready to run.
#[derive(Debug)]
pub(crate) struct Program {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Spans(Spans),
    Filter { op: CompareOp, left: Scalar, right: Scalar },
    By { name: String, expr: Expr },
    Coalesce,
}

#[derive(Debug)]
enum Spans {
    Filter(Expr),
    Op { op: SpansetOp, left: Box<Spans>, right: Box<Spans> },
    Pipeline(Program),
}

#[derive(Debug)]
enum Scalar {
    Value(Value),
    Count,
    Aggregate { name: String, op: AggregateOp, of: Expr },
    Arithmetic { op: ArithmeticOp, left: Box<Scalar>, right: Box<Scalar> },
}

impl Program {
    pub fn new(pipeline: &Pipeline, fetch: &FetchSpans) -> Result<Self> {
        let mut steps = Vec::with_capacity(pipeline.stages.len());
        for stage in &pipeline.stages {
            steps.push(match stage {
                Stage::Spans(e) => Step::Spans(Spans::new(e, fetch)?),
                Stage::Filter(f) => Step::Filter {
                    op: f.op,
                    left: Scalar::new(&f.left, fetch)?,
                    right: Scalar::new(&f.right, fetch)?,
                },
                Stage::By(e) => Step::By { name: stage.to_string(), expr: Expr::new(e, fetch)? },
                Stage::Coalesce => Step::Coalesce,
                // What is selected was fetched; the answer shows it.
                Stage::Select(_) => continue,
            });
        }
        Ok(Self { steps })
    }

    /// The span sets that come out. None of them is empty.
    pub fn run(&self, trace: &TraceSpans) -> Vec<Set> {
        let all = Set { spans: (0..trace.spans.len() as u32).collect(), attributes: Vec::new() };
        if all.spans.is_empty() { Vec::new() } else { self.run_on(trace, vec![all]) }
    }

    fn run_on(&self, trace: &TraceSpans, mut sets: Vec<Set>) -> Vec<Set> {
        for step in &self.steps {
            if sets.is_empty() {
                break;
            }
            sets = match step {
                Step::Spans(spans) => sets.into_iter().filter_map(|set| spans.run(trace, set)).collect(),
                Step::Filter { op, left, right } => sets
                    .into_iter()
                    .filter_map(|mut set| {
                        let l = left.run(trace, &mut set)?;
                        let r = right.run(trace, &mut set)?;
                        compare(*op, &l, &r).then_some(set)
                    })
                    .collect(),
                Step::By { name, expr } => group(trace, sets, name, expr),
                Step::Coalesce => {
                    let spans = sets.into_iter().flat_map(|s| s.spans).collect();
                    vec![Set { spans: unique(spans), attributes: Vec::new() }]
                }
            };
        }
        sets
    }
}

fn unique(mut spans: Vec<u32>) -> Vec<u32> {
    spans.sort_unstable();
    spans.dedup();
    spans
}

/// Splits every set by the expression's value; spans without one make a group of their own (`nil`).
fn group(trace: &TraceSpans, sets: Vec<Set>, name: &str, expr: &Expr) -> Vec<Set> {
    let mut out: Vec<Set> = Vec::new();
    for set in sets {
        // A value's type and text identify it.
        let mut groups: HashMap<(&'static str, String), usize> = HashMap::new();
        for at in set.spans {
            let value = expr.run(trace, &trace.spans[at as usize]).shown().unwrap_or(Value::Nil);
            let next = out.len();
            let place = *groups.entry((value.type_name(), value.to_string())).or_insert(next);
            if place == next {
                let mut attributes = set.attributes.clone();
                attributes.push((name.to_owned(), value));
                out.push(Set { spans: Vec::new(), attributes });
            }
            out[place].spans.push(at);
        }
    }
    out
}

impl Spans {
    fn new(e: &SpansetExpr, fetch: &FetchSpans) -> Result<Self> {
        Ok(match e {
            SpansetExpr::Filter(e) => Spans::Filter(Expr::new(e, fetch)?),
            SpansetExpr::Op { op, left, right } => Spans::Op {
                op: *op,
                left: Box::new(Spans::new(left, fetch)?),
                right: Box::new(Spans::new(right, fetch)?),
            },
            SpansetExpr::Pipeline(p) => Spans::Pipeline(Program::new(p, fetch)?),
        })
    }

    /// The spans of the set that are found, with the set's attributes; `None` where there are none.
    fn run(&self, trace: &TraceSpans, set: Set) -> Option<Set> {
        let Set { spans, attributes } = set;
        let spans = self.find(trace, spans, &attributes);
        (!spans.is_empty()).then_some(Set { spans, attributes })
    }

    fn find(&self, trace: &TraceSpans, spans: Vec<u32>, attributes: &[(String, Value)]) -> Vec<u32> {
        match self {
            Spans::Filter(expr) => {
                let mut spans = spans;
                spans.retain(|at| expr.holds(trace, &trace.spans[*at as usize]));
                spans
            }
            Spans::Op { op, left, right } => {
                let l = left.find(trace, spans.clone(), attributes);
                if l.is_empty()
                    && matches!(op, SpansetOp::And | SpansetOp::Related(_) | SpansetOp::UnionRelated(_))
                {
                    return Vec::new();
                }
                let r = right.find(trace, spans, attributes);
                match op {
                    SpansetOp::And if r.is_empty() => Vec::new(),
                    SpansetOp::And | SpansetOp::Or => unique([l, r].concat()),
                    SpansetOp::Related(relation) => structure::related(trace, *relation, &l, &r, true),
                    SpansetOp::NotRelated(relation) => structure::related(trace, *relation, &l, &r, false),
                    SpansetOp::UnionRelated(relation) => {
                        let mut both = structure::related(trace, *relation, &l, &r, true);
                        both.extend(structure::related(trace, relation.inverse(), &r, &l, true));
                        unique(both)
                    }
                }
            }
            Spans::Pipeline(program) => {
                let sets = program.run_on(trace, vec![Set { spans, attributes: attributes.to_vec() }]);
                match <[Set; 1]>::try_from(sets) {
                    Ok([one]) => one.spans,
                    Err(sets) => unique(sets.into_iter().flat_map(|s| s.spans).collect()),
                }
            }
        }
    }
}

impl Scalar {
    fn new(e: &ScalarExpr, fetch: &FetchSpans) -> Result<Self> {
        Ok(match e {
            ScalarExpr::Value(v) => Scalar::Value(v.clone()),
            ScalarExpr::Count => Scalar::Count,
            ScalarExpr::Aggregate { op, of } => {
                Scalar::Aggregate { name: e.to_string(), op: *op, of: Expr::new(of, fetch)? }
            }
            ScalarExpr::Arithmetic { op, left, right } => Scalar::Arithmetic {
                op: *op,
                left: Box::new(Scalar::new(left, fetch)?),
                right: Box::new(Scalar::new(right, fetch)?),
            },
        })
    }

    /// The value over the set, which keeps every aggregate as an attribute; `None` where no span has a number.
    fn run(&self, trace: &TraceSpans, set: &mut Set) -> Option<Value> {
        let (name, value) = match self {
            Scalar::Value(v) => return Some(v.clone()),
            Scalar::Arithmetic { op, left, right } => {
                let l = left.run(trace, set)?;
                let r = right.run(trace, set)?;
                return arithmetic(*op, &l, &r);
            }
            Scalar::Count => ("count()", Value::Int(set.spans.len() as i64)),
            Scalar::Aggregate { name, op, of } => (name.as_str(), aggregate(trace, set, *op, of)?),
        };
        if !set.attributes.iter().any(|(n, _)| n == name) {
            set.attributes.push((name.to_owned(), value.clone()));
        }
        Some(value)
    }
}

fn aggregate(trace: &TraceSpans, set: &Set, op: AggregateOp, of: &Expr) -> Option<Value> {
    let mut numbers =
        set.spans.iter().filter_map(|at| of.run(trace, &trace.spans[*at as usize]).into_number());
    let first = numbers.next()?;
    match op {
        AggregateOp::Max | AggregateOp::Min => {
            let better = if op == AggregateOp::Max { CompareOp::Greater } else { CompareOp::Less };
            Some(numbers.fold(first, |best, v| if compare(better, &v, &best) { v } else { best }))
        }
        AggregateOp::Sum => Some(numbers.fold(first, |sum, v| plus(&sum, &v))),
        AggregateOp::Avg => {
            let mut count = 1i64;
            let sum = numbers.fold(first, |sum, v| {
                count += 1;
                plus(&sum, &v)
            });
            match sum {
                Value::Duration(ns) => Some(Value::Duration(ns / count)),
                other => Some(Value::Float(number(&other)? / count as f64)),
            }
        }
    }
}

/// Sums saturate instead of wrapping around.
fn plus(left: &Value, right: &Value) -> Value {
    match (left, right) {
        (Value::Int(l), Value::Int(r)) => Value::Int(l.saturating_add(*r)),
        _ => arithmetic(ArithmeticOp::Add, left, right).unwrap_or(Value::Nil),
    }
}
