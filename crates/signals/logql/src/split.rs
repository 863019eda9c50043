//! Into which parts a query can be cut, and how the parts' answers become the answer.
//!
//! **By time** ([`spans`]): a metric query over a range is cut between steps; every step is evaluated as in the whole. A log query is
//! cut into windows that are asked one after the other, in its direction, until the limit is full ([`windows`]).
//!
//! **By stream** ([`Sharded`]): range aggregations are evaluated by shards of the streams; the rest of the expression is evaluated over
//! the merged series ([`Engine::merge`](crate::Engine::merge)). A pipeline may give lines of different streams the same labels, so only
//! aggregations that can be put together from parts are cut: those that add (`rate`, `count_over_time`, `bytes_rate`,
//! `bytes_over_time`, `sum_over_time`; within a `sum`, the groups' sums travel), `min_over_time`, `max_over_time`. A query with any
//! other stays whole.

use triptych_model::logs::{Direction, LogsQuery};
use triptych_model::{Shard, span};

use crate::syntax::ast::{Expr, LabelFormat, MetricExpr, RangeAgg, RangeOp, Stage, VectorOp};

/// The spans of a metric query over a range, ascending; their answers become one with [`Engine::join`](crate::Engine::join). One span,
/// the query as it is, where there is nothing to cut.
pub fn spans(expr: &MetricExpr, query: &LogsQuery, interval_ns: i64) -> Vec<LogsQuery> {
    let mut lookback_ns = 0;
    for_each_range(expr, &mut |range| lookback_ns = lookback_ns.max(range.range_ns));
    let spans = span::spans((query.start_ns, query.end_ns), query.step_ns, interval_ns, lookback_ns);
    let part = |(start_ns, end_ns)| LogsQuery { start_ns, end_ns, ..query.clone() };
    spans.into_iter().map(part).collect()
}

/// The first and the last time of lines that the answer of a metric query over a range depends on, both inclusive. `None` where no lines
/// are read, or where a template may ask what time it is.
pub fn reads(expr: &MetricExpr, query: &LogsQuery) -> Option<(i64, i64)> {
    let mut range_ns: Option<(i64, i64)> = None;
    let mut asks_clock = false;
    for_each_range(expr, &mut |range| {
        let [from, to] = [query.start_ns, query.end_ns].map(|t| t.saturating_sub(range.offset_ns));
        let from = from.saturating_sub(range.range_ns).saturating_add(1);
        let (first, last) = range_ns.unwrap_or((from, to));
        range_ns = Some((first.min(from), last.max(to)));
        asks_clock |= range.log.stages.iter().any(may_ask_clock);
    });
    range_ns.filter(|_| !asks_clock)
}

fn may_ask_clock(stage: &Stage) -> bool {
    let now = |template: &String| template.contains("now");
    match stage {
        Stage::LineFormat(template) => now(template),
        Stage::LabelFormat(all) => all.iter().any(|one| match one {
            LabelFormat::Template { template, .. } => now(template),
            LabelFormat::Rename { .. } => false,
        }),
        _ => false,
    }
}

/// The windows of a log query, in its direction: together its range, none longer than the interval. The first are shorter, as
/// most queries are full soon.
pub fn windows(query: &LogsQuery, interval_ns: i64) -> Vec<LogsQuery> {
    let LogsQuery { start_ns, end_ns, direction, .. } = *query;
    let length = end_ns.saturating_sub(start_ns);
    // Which lines are far enough from the one before is known only to who sees all of them.
    let cuts = interval_ns > 0 && query.interval_ns <= 0;
    if !cuts || length <= interval_ns || start_ns.checked_add(length) != Some(end_ns) {
        return vec![query.clone()];
    }
    let longest = interval_ns.max(length / WINDOWS_MAX);
    let mut next = (interval_ns / FIRST_WINDOW).max(1);
    let mut out = Vec::new();
    let (mut from, mut until) = (start_ns, end_ns);
    while from < until {
        let length = next.min(until - from);
        let (start_ns, end_ns) = match direction {
            Direction::Forward => (from, from + length),
            Direction::Backward => (until - length, until),
        };
        match direction {
            Direction::Forward => from = end_ns,
            Direction::Backward => until = start_ns,
        }
        out.push(LogsQuery { start_ns, end_ns, ..query.clone() });
        next = next.saturating_mul(2).min(longest);
    }
    out
}

/// Windows are made longer rather than more than about this.
const WINDOWS_MAX: i64 = 500;
/// The first window is this part of the interval; each next one is twice as long as the one before.
const FIRST_WINDOW: i64 = 24;

/// A metric query of which the range aggregations are evaluated shard by shard.
#[derive(Debug)]
pub struct Sharded {
    query: LogsQuery,
    expr: MetricExpr,
    count: u32,
}

impl Sharded {
    /// `None` where the query must stay whole, or the count is below 2.
    pub fn new(query: &LogsQuery, expr: &MetricExpr, count: u32) -> Option<Self> {
        let (mut some, mut all) = (false, true);
        for_each_range(expr, &mut |range| {
            some = true;
            all &= merge_of(range).is_some();
        });
        (count >= 2 && query.shard.is_none() && some && all).then(|| Self {
            query: query.clone(),
            expr: expr.clone(),
            count,
        })
    }

    /// What to ask: leaf by leaf, shard by shard.
    pub fn parts(&self) -> Vec<LogsQuery> {
        let part = |leaf: &MetricExpr, shard| LogsQuery {
            expr: leaf.to_string(),
            shard: Some(shard),
            ..self.query.clone()
        };
        self.leaves()
            .into_iter()
            .flat_map(|leaf| Shard::all(self.count).map(move |s| part(leaf, s)))
            .collect()
    }

    pub(crate) fn expr(&self) -> &MetricExpr {
        &self.expr
    }

    /// What is evaluated by shards, from left to right.
    pub(crate) fn leaves(&self) -> Vec<&MetricExpr> {
        let mut leaves = Vec::new();
        find_leaves(&self.expr, &mut leaves);
        leaves
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }
}

/// How the series of several shards that have the same labels become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    Add,
    Least,
    Most,
}

/// Of a leaf; `None` where it is none.
pub(crate) fn merge_of_leaf(expr: &MetricExpr) -> Option<Merge> {
    match expr {
        MetricExpr::Range(range) => merge_of(range),
        MetricExpr::Vector(vector) if vector.op == VectorOp::Sum => match &vector.inner {
            MetricExpr::Range(range) if range.op.is_additive() && range.grouping.is_none() => {
                Some(Merge::Add)
            }
            _ => None,
        },
        _ => None,
    }
}

/// Whether shards' answers to the expression merge.
pub(crate) fn is_part(expr: &Expr) -> bool {
    matches!(expr, Expr::Metric(expr) if merge_of_leaf(expr).is_some())
}

fn merge_of(range: &RangeAgg) -> Option<Merge> {
    match range.op {
        op if op.is_additive() => Some(Merge::Add),
        RangeOp::Min => Some(Merge::Least),
        RangeOp::Max => Some(Merge::Most),
        _ => None,
    }
}

fn find_leaves<'a>(expr: &'a MetricExpr, leaves: &mut Vec<&'a MetricExpr>) {
    if merge_of_leaf(expr).is_some() {
        leaves.push(expr);
        return;
    }
    children(expr).into_iter().for_each(|child| find_leaves(child, leaves));
}

fn for_each_range<'a>(expr: &'a MetricExpr, see: &mut impl FnMut(&'a RangeAgg)) {
    if let MetricExpr::Range(range) = expr {
        see(range);
    }
    children(expr).into_iter().for_each(|child| for_each_range(child, see));
}

fn children(expr: &MetricExpr) -> Vec<&MetricExpr> {
    match expr {
        MetricExpr::Range(_) | MetricExpr::Literal(_) | MetricExpr::VectorLiteral(_) => vec![],
        MetricExpr::Vector(vector) => vec![&vector.inner],
        MetricExpr::Binary(binary) => vec![&binary.left, &binary.right],
        MetricExpr::LabelReplace(replace) => vec![&replace.inner],
    }
}

#[cfg(test)]
mod tests;
