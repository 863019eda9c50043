//! Which samples an answer depends on, by their time.

use triptych_model::Result;
use triptych_model::metrics::MetricsQuery;

use crate::Engine;
use crate::ast::{At, DurationExpr, Expr};
use crate::plan::Times;

impl Engine {
    /// The first and the last time of samples that the answer depends on, both inclusive: of all selectors, with their lookback, offset
    /// and `@`. `None` where no series are read, or the query cannot be answered.
    pub fn reads(&self, query: &MetricsQuery, expr: &Expr) -> Option<(i64, i64)> {
        let end_ms = if query.step_ms == 0 { query.start_ms } else { query.end_ms };
        let (lookback_ms, times) = (self.lookback_ms(query), self.times(query));
        let mut reads = Reads { times, lookback_ms, range_ms: None };
        reads.add(expr, (query.start_ms, end_ms)).ok()?;
        reads.range_ms
    }
}

struct Reads {
    times: Times,
    lookback_ms: i64,
    range_ms: Option<(i64, i64)>,
}

impl Reads {
    /// What the expression reads where it is evaluated at instants from the first to the last.
    fn add(&mut self, expr: &Expr, instants: (i64, i64)) -> Result<()> {
        match expr {
            Expr::Number(_) | Expr::String(_) => Ok(()),
            Expr::Paren(e, _) => self.add(e, instants),
            Expr::Unary(e) => self.add(&e.expr, instants),
            Expr::Binary(e) => {
                self.add(&e.left, instants)?;
                self.add(&e.right, instants)
            }
            Expr::Call(e) => e.args.iter().try_for_each(|arg| self.add(arg, instants)),
            Expr::Aggregate(e) => e.param.iter().chain([&e.expr]).try_for_each(|arg| self.add(arg, instants)),
            Expr::Vector(e) => {
                let window = self.window(instants, e.at, e.offset.as_ref(), self.lookback_ms)?;
                self.read(window);
                Ok(())
            }
            Expr::Matrix(e) => {
                let (range_ms, selector) = (self.times.duration_ms(&e.range)?, &e.selector);
                let window = self.window(instants, selector.at, selector.offset.as_ref(), range_ms)?;
                self.read(window);
                Ok(())
            }
            Expr::Subquery(e) => {
                let range_ms = self.times.duration_ms(&e.range)?;
                let window = self.window(instants, e.at, e.offset.as_ref(), range_ms)?;
                self.add(&e.expr, window)
            }
        }
    }

    /// From `before_ms` before the first instant to the last, where an offset and `@` put them.
    fn window(
        &self,
        instants: (i64, i64),
        at: Option<At>,
        offset: Option<&DurationExpr>,
        before_ms: i64,
    ) -> Result<(i64, i64)> {
        let (first, last) = self.times.at_ms(at).map_or(instants, |at_ms| (at_ms, at_ms));
        let offset_ms = offset.map_or(Ok(0), |offset| self.times.duration_ms(offset))?;
        let [first, last] = [first, last].map(|t| t.saturating_sub(offset_ms));
        // The start of a window is not part of it.
        Ok((first.saturating_sub(before_ms).saturating_add(1), last))
    }

    fn read(&mut self, (from, to): (i64, i64)) {
        let (first, last) = self.range_ms.unwrap_or((from, to));
        self.range_ms = Some((first.min(from), last.max(to)));
    }
}
