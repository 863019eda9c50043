//! Into which parts a query can be cut, and how the parts' answers become the answer.
//!
//! **By time** ([`spans`]): a range query is cut between steps, at multiples of an interval, so that the same spans come up again in
//! later queries. Every step is evaluated as in the whole: `@ start()`, `end()` and `range()` mean the whole
//! ([`MetricsQuery::whole_ms`]), and each span reads its own lookback.
//!
//! **By series** ([`Sharded`]): an aggregation over what every series is worth for itself is evaluated by shards of the series; the
//! rest of the expression is evaluated over the merged results ([`Engine::merge`](crate::Engine::merge)). Only what is exact is
//! cut: `sum`, `avg`, `count`, `min`, `max`, `group`, `count_values`, `topk`, `bottomk`, `limitk`, and a query that is no
//! aggregation at all. `quantile`, `stddev`, `stdvar`, `limit_ratio`, joins of series, subqueries over aggregations stay whole. A
//! function that drops the metric's name counts where the name is given, else two series could become one in different shards.

mod reads;

use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::MetricsQuery;
use triptych_model::{MatchOp, Shard, span};

use crate::ast::{Aggregate, AggregateOp, At, BinaryOp, DurationExpr, Expr, Span, Type, VectorSelector};
use crate::eval::math::{date_fn, math_fn};
use crate::eval::over_time::RangeFn;

/// The spans of a range query, in ascending order; their answers become one with [`span::join`]. One span, the query as it is,
/// where it is an instant, or there is nothing to cut.
pub fn spans(expr: &Expr, query: &MetricsQuery, interval_ms: i64) -> Vec<MetricsQuery> {
    let needs = Needs::of(expr);
    let range_ms = (query.start_ms, query.end_ms);
    let spans = span::spans(range_ms, query.step_ms, interval_ms, needs.range_ms);
    if spans.len() == 1 {
        return vec![query.clone()];
    }
    spans.into_iter().map(|span| part(expr, query, span)).collect()
}

/// The part of a range query from one of its steps to another; what each step is worth is what it is worth in the whole.
pub fn part(expr: &Expr, query: &MetricsQuery, (start_ms, end_ms): (i64, i64)) -> MetricsQuery {
    let whole = (query.start_ms, query.end_ms);
    let whole_ms = query.whole_ms.or(depends_on_whole(expr).then_some(whole));
    MetricsQuery { start_ms, end_ms, whole_ms, ..query.clone() }
}

/// Whether an answer at a step depends on where the whole query starts or ends.
pub fn depends_on_whole(expr: &Expr) -> bool {
    Needs::of(expr).whole
}

/// A query of which parts are evaluated shard by shard.
#[derive(Debug)]
pub struct Sharded {
    query: MetricsQuery,
    expr: Expr,
    leaves: Vec<Leaf>,
    count: u32,
}

/// What is evaluated by shards.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub span: Span,
    /// `None`: no aggregation, the shards' series stand side by side.
    pub op: Option<AggregateOp>,
}

impl Sharded {
    /// `None` where the query must stay whole, or the count is below 2.
    pub fn new(query: &MetricsQuery, expr: &Expr, count: u32) -> Option<Self> {
        if count < 2 || query.shard.is_some() {
            return None;
        }
        let root = expr.unwrap_parens();
        let leaves = if is_series_wise(root) {
            vec![Leaf { span: root.span(), op: None }]
        } else {
            let mut leaves = Vec::new();
            (find_leaves(root, &mut leaves) && !leaves.is_empty()).then_some(leaves)?
        };
        Some(Self { query: query.clone(), expr: expr.clone(), leaves, count })
    }

    /// What to ask: leaf by leaf, shard by shard.
    pub fn parts(&self) -> Vec<MetricsQuery> {
        let part = |leaf: &Leaf, shard| MetricsQuery {
            expr: self.text_of(leaf.span),
            shard: Some(shard),
            ..self.query.clone()
        };
        self.leaves.iter().flat_map(|leaf| Shard::all(self.count).map(move |s| part(leaf, s))).collect()
    }

    /// A leaf's text at its place: blanks stand where the rest was, so that positions in warnings are those of the whole.
    fn text_of(&self, span: Span) -> String {
        let text = &self.query.expr;
        let (start, end) = (span.start.min(text.len()), span.end.min(text.len()));
        let blank = |b: u8| if b == b'\n' { '\n' } else { ' ' };
        let before = text.as_bytes()[..start].iter().map(|b| blank(*b));
        before.chain(text.get(start..end).unwrap_or_default().chars()).collect()
    }

    pub(crate) fn expr(&self) -> &Expr {
        &self.expr
    }

    pub(crate) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }
}

/// Whether shards' answers to the expression merge.
pub(crate) fn is_part(expr: &Expr) -> bool {
    let expr = expr.unwrap_parens();
    is_series_wise(expr) || matches!(expr, Expr::Aggregate(aggregate) if is_mergeable(aggregate))
}

/// Whether the merged answer is the same aggregation over the shards' answers.
pub(crate) fn is_done_again(op: AggregateOp) -> bool {
    matches!(op, AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk)
}

fn is_mergeable(e: &Aggregate) -> bool {
    use AggregateOp::*;
    matches!(e.op, Sum | Avg | Count | Min | Max | Group | CountValues | Topk | Bottomk | Limitk)
        && e.param.as_ref().is_none_or(|param| !reads_series(param))
        && is_series_wise(&e.expr)
}

/// Collects the aggregations that shards can evaluate. False where something else reads series.
fn find_leaves(expr: &Expr, leaves: &mut Vec<Leaf>) -> bool {
    match expr {
        Expr::Number(_) | Expr::String(_) => true,
        Expr::Paren(e, _) => find_leaves(e, leaves),
        Expr::Unary(e) => find_leaves(&e.expr, leaves),
        Expr::Binary(e) => find_leaves(&e.left, leaves) && find_leaves(&e.right, leaves),
        Expr::Call(e) => e.args.iter().all(|arg| find_leaves(arg, leaves)),
        Expr::Aggregate(e) if is_mergeable(e) => {
            leaves.push(Leaf { span: e.span, op: Some(e.op) });
            true
        }
        Expr::Aggregate(e) => {
            e.param.iter().all(|param| find_leaves(param, leaves)) && find_leaves(&e.expr, leaves)
        }
        // Its inside is evaluated at other steps.
        Expr::Subquery(e) => !reads_series(&e.expr),
        Expr::Vector(_) | Expr::Matrix(_) => false,
    }
}

fn reads_series(expr: &Expr) -> bool {
    !expr.selectors().is_empty()
}

/// Whether every series of the result comes from one series, and no two from the same.
fn is_series_wise(expr: &Expr) -> bool {
    let expr = expr.unwrap_parens();
    expr.result_type() == Type::Vector && (matches!(expr, Expr::Vector(_)) || is_series_wise_named(expr))
}

/// As [`is_series_wise`], of series that all have the same name: it may be dropped on the way.
fn is_series_wise_named(expr: &Expr) -> bool {
    match expr.unwrap_parens() {
        Expr::Vector(e) => has_name(e),
        Expr::Matrix(e) => has_name(&e.selector),
        Expr::Subquery(e) => is_series_wise_named(&e.expr),
        Expr::Unary(e) => e.expr.result_type() == Type::Vector && is_series_wise_named(&e.expr),
        Expr::Binary(e) => {
            let trims = matches!(e.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
            let scalar = |e: &Expr| e.result_type() == Type::Scalar && !reads_series(e);
            !trims
                && ((scalar(&e.left) && is_series_wise_named(&e.right))
                    || (scalar(&e.right) && is_series_wise_named(&e.left)))
        }
        Expr::Call(e) => {
            let name = e.function.name;
            let known = RangeFn::from_name(name).is_some()
                || math_fn(name).is_some()
                || date_fn(name).is_some()
                || name == "timestamp";
            let is_scalar = |e: &Expr| e.result_type() == Type::Scalar;
            let mut vectors = e.args.iter().filter(|arg| !is_scalar(arg));
            known
                && e.args.iter().filter(|arg| is_scalar(arg)).all(|arg| !reads_series(arg))
                && vectors.next().is_some_and(is_series_wise_named)
                && vectors.next().is_none()
        }
        Expr::Number(_) | Expr::String(_) | Expr::Paren(..) | Expr::Aggregate(_) => false,
    }
}

fn has_name(e: &VectorSelector) -> bool {
    e.matchers.iter().any(|m| m.name == METRIC_NAME && m.op == MatchOp::Equal && !m.value.is_empty())
}

/// What the parts of a query must know or read.
#[derive(Default)]
struct Needs {
    /// The longest way back from a step, offsets aside.
    range_ms: i64,
    whole: bool,
}

impl Needs {
    fn of(expr: &Expr) -> Self {
        let mut needs = Needs::default();
        needs.range_ms = needs.add(expr);
        needs
    }

    fn at(&mut self, at: Option<At>) {
        self.whole |= matches!(at, Some(At::Start | At::End));
    }

    fn duration(&mut self, duration: &DurationExpr) -> i64 {
        match duration {
            DurationExpr::Ms(ms) => *ms,
            DurationExpr::Step => 0,
            DurationExpr::Range => {
                self.whole = true;
                0
            }
            DurationExpr::Negative(e) | DurationExpr::Paren(e) => self.duration(e),
            DurationExpr::Binary(_, l, r) | DurationExpr::MinOf(l, r) | DurationExpr::MaxOf(l, r) => {
                self.duration(l).max(self.duration(r))
            }
        }
    }

    fn selector(&mut self, e: &VectorSelector) {
        self.at(e.at);
        if let Some(offset) = &e.offset {
            self.duration(offset);
        }
    }

    /// How far back the expression looks.
    fn add(&mut self, expr: &Expr) -> i64 {
        match expr {
            Expr::Number(_) | Expr::String(_) => 0,
            Expr::Paren(e, _) => self.add(e),
            Expr::Unary(e) => self.add(&e.expr),
            Expr::Binary(e) => self.add(&e.left).max(self.add(&e.right)),
            Expr::Call(e) => {
                self.whole |= matches!(e.function.name, "start" | "end" | "range");
                e.args.iter().map(|arg| self.add(arg)).max().unwrap_or(0)
            }
            Expr::Aggregate(e) => e.param.iter().chain([&e.expr]).map(|arg| self.add(arg)).max().unwrap_or(0),
            Expr::Vector(e) => {
                self.selector(e);
                0
            }
            Expr::Matrix(e) => {
                self.selector(&e.selector);
                self.duration(&e.range)
            }
            Expr::Subquery(e) => {
                self.at(e.at);
                for duration in e.step.iter().chain(&e.offset) {
                    self.duration(duration);
                }
                let inner = self.add(&e.expr);
                self.duration(&e.range).saturating_add(inner)
            }
        }
    }
}

#[cfg(test)]
mod tests;
