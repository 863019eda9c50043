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
    /// `None` where there is nothing to cut. Fails as the whole query would: syntax, range, too many points.
    pub fn new(query: &TracesMetricsQuery, interval_ns: i64) -> Result<Option<Self>> {
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
        Ok((spans.len() > 1).then(|| Self { query: query.clone(), expr, grid, spans }))
    }

    /// What to ask: function by function, span by span.
    pub fn parts(&self) -> Vec<TracesMetricsQuery> {
        let part = |leaf: &MetricsLeaf, (start_ns, end_ns): (i64, i64)| TracesMetricsQuery {
            query: leaf.to_string(),
            start_ns,
            end_ns,
            ..self.query
        };
        let leaves = self.expr.leaves();
        leaves.into_iter().flat_map(|leaf| self.spans.iter().map(move |span| part(leaf, *span))).collect()
    }

    /// Puts the answers of [`Split::parts`] together, in their order.
    pub fn merge(&self, ctx: &QueryContext, answers: Vec<QueryValue>) -> Result<QueryValue> {
        let leaves = self.expr.leaves();
        if answers.len() != leaves.len() * self.spans.len() {
            return Err(Error::internal(format!("{} answers for {} spans", answers.len(), self.spans.len())));
        }
        let mut memory = ctx.reserve(0)?;
        let mut answers = answers.into_iter();
        let mut folded = Vec::with_capacity(leaves.len());
        for leaf in leaves {
            ctx.check()?;
            let mut rows: hashbrown::HashMap<Labels, Vec<f64>> = hashbrown::HashMap::new();
            for answer in answers.by_ref().take(self.spans.len()) {
                let QueryValue::Matrix(series) = answer else {
                    return Err(Error::damaged("a span of a metrics query answered with what is no matrix"));
                };
                for one in series {
                    self.place(leaf, one, &mut rows, &mut memory)?;
                }
            }
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
                let counts = matches!(
                    leaf.op,
                    MetricsOp::Rate | MetricsOp::CountOverTime | MetricsOp::HistogramOverTime(_)
                );
                free.insert(vec![if counts { 0.0 } else { f64::NAN }; self.grid.points])
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
