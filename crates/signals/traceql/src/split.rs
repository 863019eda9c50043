//! Into which parts of time a query can be cut, and how the parts' answers become the answer.
//!
//! **Metrics** ([`Split`]): every function of the query is evaluated by spans of the grid's points; what stands behind or between the
//! functions (`topk`, filters, arithmetic) is evaluated once, over the series put together.
//!
//! **Search** ([`windows`], [`MatchMerge::begun_since`](crate::MatchMerge::begun_since)): the newest window first, until as many traces
//! are found that began in the windows searched. A trace that reaches into several windows is found in each, and merged.

use triptych_model::metrics::{QueryValue, SeriesSamples};
use triptych_model::traces::{TraceSearch, TracesMetricsQuery};
use triptych_model::{Error, Labels, Result, span};
use triptych_runtime::QueryContext;

use crate::ast::{Body, MetricsExpr, MetricsLeaf, MetricsOp};
use crate::metrics::{Grid, Row, answer};
use crate::parser::parse;

/// A metrics query cut into spans of its grid.
#[derive(Debug)]
pub struct Split {
    query: TracesMetricsQuery,
    expr: MetricsExpr,
    grid: Grid,
    /// First and last point of each span, ascending.
    spans: Vec<(i64, i64)>,
}

impl Split {
    /// Fails as the whole query would: syntax, range, too many points.
    pub fn new(query: &TracesMetricsQuery, interval_ns: i64) -> Result<Self> {
        let grid = Grid::new(query)?;
        let Body::Metrics(expr) = parse(&query.query)?.body else {
            return Err(Error::invalid("not a metrics query: it needs a function such as `| rate()`"));
        };
        let mut spans: Vec<(i64, i64)> = Vec::new();
        // A range of one point cannot be asked for: it belongs to a neighbour.
        for (first, last) in span::spans(grid.range(), grid.step_ns, interval_ns, 0) {
            match spans.last_mut() {
                Some(before) if before.0 == before.1 => before.1 = last,
                Some(before) if first == last && last == grid.range().1 => before.1 = last,
                _ => spans.push((first, last)),
            }
        }
        Ok(Self { query: query.clone(), expr, grid, spans })
    }

    /// Whether there is nothing to cut by time.
    pub fn is_whole(&self) -> bool {
        self.spans.len() == 1
    }

    /// The functions of the query, each over all points.
    pub fn leaves(&self) -> Vec<TracesMetricsQuery> {
        let (first, last) = self.grid.range();
        self.expr.leaves().into_iter().map(|leaf| self.part(leaf, (first, last))).collect()
    }

    fn part(&self, leaf: &MetricsLeaf, (start_ns, end_ns): (i64, i64)) -> TracesMetricsQuery {
        TracesMetricsQuery { query: leaf.to_string(), start_ns, end_ns, ..self.query }
    }

    /// What to ask: function by function, span by span.
    pub fn parts(&self) -> Vec<TracesMetricsQuery> {
        let leaves = self.expr.leaves();
        leaves.into_iter().flat_map(|leaf| self.spans.iter().map(|span| self.part(leaf, *span))).collect()
    }

    /// Puts the answers of [`Split::parts`] together, in their order.
    pub fn merge(&self, ctx: &QueryContext, answers: Vec<QueryValue>) -> Result<QueryValue> {
        let mut answers = answers.into_iter();
        let spans = self.spans.len();
        let by_leaf: Vec<_> =
            self.expr.leaves().iter().map(|_| answers.by_ref().take(spans).collect()).collect();
        self.merge_leaves(ctx, by_leaf)
    }

    /// Puts together what [`Split::leaves`] are worth, in their order: of each the answers to any pieces of its points, ascending.
    pub fn merge_leaves(&self, ctx: &QueryContext, answers: Vec<Vec<QueryValue>>) -> Result<QueryValue> {
        let leaves = self.expr.leaves();
        if answers.len() != leaves.len() || answers.iter().any(Vec::is_empty) {
            return Err(Error::internal(format!(
                "answers for {} of {} functions",
                answers.len(),
                leaves.len()
            )));
        }
        let mut memory = ctx.reserve(0)?;
        let mut folded = Vec::with_capacity(leaves.len());
        for (leaf, answers) in leaves.into_iter().zip(answers) {
            ctx.check()?;
            let mut rows: hashbrown::HashMap<Labels, Vec<f64>> = hashbrown::HashMap::new();
            for answer in answers {
                let QueryValue::Matrix(series) = answer else {
                    return Err(Error::damaged("a span of a metrics query answered with what is no matrix"));
                };
                for one in series {
                    self.place(leaf, one, &mut rows, &mut memory)?;
                }
            }
            // A piece may be a part of what was asked for: what it counted at other points has no series here.
            let lone = leaf.by.is_empty() && !matches!(leaf.op, MetricsOp::HistogramOverTime(_));
            rows.retain(|_, values| !is_count(leaf) || lone || values.iter().any(|value| *value != 0.0));
            folded.push(rows.into_iter().map(|(labels, values)| Row { labels, values }).collect());
        }
        Ok(answer(&self.expr, self.grid, folded))
    }

    fn place(
        &self,
        leaf: &MetricsLeaf,
        series: SeriesSamples,
        rows: &mut hashbrown::HashMap<Labels, Vec<f64>>,
        memory: &mut triptych_runtime::Reservation,
    ) -> Result<()> {
        let row = match rows.entry(series.labels) {
            hashbrown::hash_map::Entry::Occupied(row) => row.into_mut(),
            hashbrown::hash_map::Entry::Vacant(free) => {
                memory.grow(self.grid.points * 8 + free.key().as_encoded().len() + 128)?;
                // Where a series of counts is in no span's answer, nothing was counted.
                free.insert(vec![if is_count(leaf) { 0.0 } else { f64::NAN }; self.grid.points])
            }
        };
        // Answers tell times in milliseconds, in which short steps may look the same: they come in order.
        let mut at = 0;
        for sample in series.samples {
            while at < row.len() && self.grid.t_ms(at) < sample.t_ms {
                at += 1;
            }
            let slot = row.get_mut(at).filter(|_| self.grid.t_ms(at) == sample.t_ms);
            *slot.ok_or_else(|| Error::damaged("a span answered for a point that was not asked for"))? =
                sample.value;
            at += 1;
        }
        Ok(())
    }
}

/// Whether a point without spans is worth 0.
fn is_count(leaf: &MetricsLeaf) -> bool {
    matches!(leaf.op, MetricsOp::Rate | MetricsOp::CountOverTime | MetricsOp::HistogramOverTime(_))
}

/// The part of one of [`Split::leaves`] from one of its points to another. One point alone cannot be asked for: then the answer is for two.
pub fn part(leaf: &TracesMetricsQuery, (first_ns, last_ns): (i64, i64)) -> TracesMetricsQuery {
    let (start_ns, end_ns) = match first_ns == last_ns {
        true if first_ns >= leaf.step_ns => (first_ns - leaf.step_ns, last_ns),
        true => (first_ns, last_ns.saturating_add(leaf.step_ns)),
        false => (first_ns, last_ns),
    };
    TracesMetricsQuery { start_ns, end_ns, ..leaf.clone() }
}

/// The first and the last time of what traces must overlap for the query's answer to depend on them, both inclusive. `None` where it
/// cannot be answered.
pub fn reads(query: &TracesMetricsQuery) -> Option<(i64, i64)> {
    Grid::new(query).ok().map(Grid::covers)
}

/// The windows of a search, the newest first; none longer than the interval, the first ones shorter, as most searches are full soon.
/// One, the search as it is, where it has no bounds, or is short.
pub fn windows(search: &TraceSearch, interval_ns: i64) -> Vec<TraceSearch> {
    let TraceSearch { start_ns, end_ns, .. } = *search;
    if interval_ns <= 0 || start_ns <= 0 || end_ns <= start_ns || end_ns - start_ns <= interval_ns {
        return vec![search.clone()];
    }
    let longest = interval_ns.max((end_ns - start_ns) / WINDOWS_MAX);
    let mut next = (interval_ns / FIRST_WINDOW).max(1);
    let mut until = end_ns;
    let mut out = Vec::new();
    while until >= start_ns {
        let from = (until - next + 1).max(start_ns);
        out.push(TraceSearch { start_ns: from, end_ns: until, ..search.clone() });
        until = from - 1;
        next = next.saturating_mul(2).min(longest);
    }
    out
}

/// Windows are made longer rather than more than about this.
const WINDOWS_MAX: i64 = 500;
/// The first window is this part of the interval; each next one is twice as long as the one before.
const FIRST_WINDOW: i64 = 24;

#[cfg(test)]
mod tests;
