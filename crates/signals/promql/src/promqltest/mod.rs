//! Prometheus' language for testing PromQL engines (its `promql/promqltest/README.md`), over any [`Target`].
//!
//! ```text
//! load 5m
//!   http_requests{job="api"} 0+10x10
//!
//! eval instant at 50m sum(http_requests)
//!   {} 100
//! ```
//! A script does not stop at its first failure: [`run`] reports all of them. Cases that need native histograms are
//! recognised (by the values they load or expect, or by selecting series that were loaded with such values), skipped, and
//! counted. **Known holes**: `@st` lines (start timestamps) are refused.

mod compare;
mod memory;
mod script;
mod series;

use async_trait::async_trait;
use triptych_model::metrics::{MetricsQuery, QueryValue, SeriesSamples};
use triptych_model::{Labels, Result};

pub use memory::{EngineTarget, MemorySource};
pub use script::{Command, Eval, Expectations, parse_script};

use crate::ast::Expr;

/// What an engine answers.
#[derive(Debug, Clone)]
pub struct Answer {
    pub value: QueryValue,
    pub warnings: Vec<String>,
    pub infos: Vec<String>,
}

/// An engine and its storage: in process, or behind HTTP.
#[async_trait]
pub trait Target: Send {
    /// Forgets everything that was loaded.
    async fn clear(&mut self) -> Result<()>;
    /// Adds samples; they can be queried when this returns.
    async fn load(&mut self, series: Vec<SeriesSamples>) -> Result<()>;
    async fn eval(&mut self, query: &MetricsQuery) -> Result<Answer>;
}

/// How a script went.
#[derive(Debug, Default)]
pub struct Report {
    pub passed: usize,
    /// Needs native histograms.
    pub skipped: usize,
    pub failed: Vec<Failure>,
}

#[derive(Debug)]
pub struct Failure {
    pub line: usize,
    pub expr: String,
    pub message: String,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (passed, failed) = (self.passed, self.failed.len());
        write!(f, "{passed} passed, {failed} failed, {} skipped (native histograms)", self.skipped)?;
        for failure in &self.failed {
            write!(f, "\n  line {}: {}\n    {}", failure.line, failure.expr, failure.message)?;
        }
        Ok(())
    }
}

/// Runs a script. Fails where the script itself cannot be read, or loading fails.
pub async fn run(script: &str, target: &mut dyn Target) -> Result<Report> {
    let mut report = Report::default();
    // Label sets that were given values we cannot load.
    let mut unloaded: Vec<Labels> = Vec::new();
    target.clear().await?;
    for command in parse_script(script)? {
        match command {
            Command::Clear => {
                unloaded.clear();
                target.clear().await?;
            }
            Command::Load { series, histograms } => {
                unloaded.extend(histograms);
                target.load(series).await?;
            }
            Command::Eval(eval) => {
                if eval.expects_histogram || touches(&eval.query.expr, &unloaded) {
                    report.skipped += 1;
                    continue;
                }
                match check(&eval, target).await {
                    Ok(()) => report.passed += 1,
                    Err(message) => {
                        report.failed.push(Failure {
                            line: eval.line,
                            expr: eval.query.expr.clone(),
                            message,
                        });
                    }
                }
            }
        }
    }
    Ok(report)
}

async fn check(eval: &Eval, target: &mut dyn Target) -> std::result::Result<(), String> {
    let answer = target.eval(&eval.query).await;
    let succeeded = compare::outcome(eval, &answer)?;
    // What holds at an instant must hold at that step of a range.
    if succeeded && eval.query.step_ms == 0 && eval.comparable_in_range() {
        let range = MetricsQuery {
            start_ms: eval.query.start_ms - 60_000,
            end_ms: eval.query.start_ms + 60_000,
            step_ms: 60_000,
            ..eval.query.clone()
        };
        let answer = target.eval(&range).await.map_err(|e| format!("as a range query: {e}"))?;
        compare::middle(eval, answer.value).map_err(|e| format!("as a range query: {e}"))?;
    }
    Ok(())
}

/// Whether a query selects any of these series.
fn touches(text: &str, series: &[Labels]) -> bool {
    fn walk(expr: &Expr, series: &[Labels]) -> bool {
        let hit = |s: &crate::ast::VectorSelector| {
            series.iter().any(|labels| s.matchers.iter().all(|m| m.matches_labels(labels)))
        };
        match expr {
            Expr::Number(_) | Expr::String(_) => false,
            Expr::Paren(e, _) => walk(e, series),
            Expr::Unary(e) => walk(&e.expr, series),
            Expr::Binary(e) => walk(&e.left, series) || walk(&e.right, series),
            Expr::Call(e) => e.args.iter().any(|a| walk(a, series)),
            Expr::Aggregate(e) => walk(&e.expr, series) || e.param.as_ref().is_some_and(|p| walk(p, series)),
            Expr::Vector(e) => hit(e),
            Expr::Matrix(e) => hit(&e.selector),
            Expr::Subquery(e) => walk(&e.expr, series),
        }
    }
    !series.is_empty() && crate::parse(text).is_ok_and(|expr| walk(&expr, series))
}

#[cfg(test)]
mod tests;
