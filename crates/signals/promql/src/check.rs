//! Checks the types of a parsed tree, and what else the grammar cannot say. Texts and positions follow Prometheus.

use crate::ast::*;
use crate::functions::Variadic;
use crate::parser::{DEPTH_MAX, ParseError};

/// Refuses the tree at its first mistake.
pub(crate) fn check(text: &str, expr: &Expr) -> Result<(), ParseError> {
    Checker { text }.expr(expr, 0).map(|_| ())
}

struct Checker<'a> {
    text: &'a str,
}

impl Checker<'_> {
    fn error<T>(&self, span: Span, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError::new(self.text, span, message))
    }

    fn want(&self, expr: &Expr, want: Type, context: &str, depth: usize) -> Result<(), ParseError> {
        let got = self.expr(expr, depth)?;
        if got != want {
            let message =
                format!("expected type {} in {context}, got {}", want.documented(), got.documented());
            return self.error(expr.span(), message);
        }
        Ok(())
    }

    fn expr(&self, expr: &Expr, depth: usize) -> Result<Type, ParseError> {
        if depth > DEPTH_MAX {
            return self.error(expr.span(), format!("expression is deeper than {DEPTH_MAX} levels"));
        }
        let depth = depth + 1;
        match expr {
            Expr::Number(_) | Expr::String(_) => {}
            Expr::Paren(e, _) => {
                self.expr(e, depth)?;
            }
            Expr::Unary(e) => {
                let got = self.expr(&e.expr, depth)?;
                if got != Type::Scalar && got != Type::Vector {
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                        got.documented()
                    );
                    return self.error(e.span, message);
                }
            }
            Expr::Binary(e) => self.binary(e, depth)?,
            Expr::Call(e) => self.call(e, depth)?,
            Expr::Aggregate(e) => {
                self.want(&e.expr, Type::Vector, "aggregation expression", depth)?;
                if let Some(param) = &e.param {
                    let want = if e.op == AggregateOp::CountValues { Type::String } else { Type::Scalar };
                    self.want(param, want, "aggregation parameter", depth)?;
                }
            }
            Expr::Vector(e) => self.selector(e)?,
            Expr::Matrix(e) => self.selector(&e.selector)?,
            Expr::Subquery(e) => {
                let got = self.expr(&e.expr, depth)?;
                if got != Type::Vector {
                    let got = if got == Type::Matrix { "matrix" } else { got.documented() };
                    let message = format!("subquery is only allowed on instant vector, got {got} instead");
                    return self.error(e.span, message);
                }
            }
        }
        Ok(expr.result_type())
    }

    fn binary(&self, e: &Binary, depth: usize) -> Result<(), ParseError> {
        let (left, right) = (self.expr(&e.left, depth)?, self.expr(&e.right, depth)?);
        let m = &e.matching;
        if e.return_bool && !e.op.is_comparison() {
            return self.error(e.op_span, "bool modifier can only be used on comparison operators");
        }
        if e.op.is_comparison() && !e.return_bool && left == Type::Scalar && right == Type::Scalar {
            return self.error(e.op_span, "comparisons between scalars must use BOOL modifier");
        }
        if let Some(label) = m.labels.iter().find(|l| m.on && m.include.contains(l)) {
            let message = format!("label {label:?} must not occur in ON and GROUP clause at once");
            return self.error(e.op_span, message);
        }
        for (side, expr) in [(left, &e.left), (right, &e.right)] {
            if side != Type::Scalar && side != Type::Vector {
                let message = "binary expression must contain only scalar and instant vector types";
                return self.error(expr.span(), message);
            }
        }
        let fills = m.fill_left.is_some() || m.fill_right.is_some();
        if left != Type::Vector || right != Type::Vector {
            if !m.labels.is_empty() {
                return self.error(e.span, "vector matching only allowed between instant vectors");
            }
            if fills {
                return self.error(e.span, "filling in missing series only allowed between instant vectors");
            }
            if e.op.is_set() {
                let message =
                    format!("set operator {:?} not allowed in binary scalar expression", e.op.as_str());
                return self.error(e.span, message);
            }
        } else if e.op.is_set() {
            if m.grouping != Grouping::None {
                return self.error(e.span, format!("no grouping allowed for {:?} operation", e.op.as_str()));
            }
            if fills {
                return self.error(e.span, "filling in missing series not allowed for set operators");
            }
        }
        Ok(())
    }

    fn call(&self, e: &Call, depth: usize) -> Result<(), ParseError> {
        let (f, got) = (e.function, e.args.len());
        let wanted = f.args.len();
        match f.variadic {
            Variadic::No if wanted != got => {
                let message = format!("expected {wanted} argument(s) in call to {:?}, got {got}", f.name);
                return self.error(e.span, message);
            }
            Variadic::No => {}
            _ if got + 1 < wanted => {
                let message = format!(
                    "expected at least {} argument(s) in call to {:?}, got {got}",
                    wanted - 1,
                    f.name
                );
                return self.error(e.span, message);
            }
            Variadic::AtMost(more) if got > wanted - 1 + more => {
                let most = wanted - 1 + more;
                let message =
                    format!("expected at most {most} argument(s) in call to {:?}, got {got}", f.name);
                return self.error(e.span, message);
            }
            _ => {}
        }
        for (i, arg) in e.args.iter().enumerate() {
            if let Some(want) = f.arg(i) {
                self.want(arg, want, &format!("call to function {:?}", f.name), depth)?;
            }
        }
        Ok(())
    }

    fn selector(&self, e: &VectorSelector) -> Result<(), ParseError> {
        if !e.name.is_empty() {
            let others = &e.matchers[..e.matchers.len().saturating_sub(1)];
            if let Some(twice) = others.iter().find(|m| m.name == "__name__") {
                let message = format!("metric name must not be set twice: {:?} or {:?}", e.name, twice.value);
                return self.error(e.span, message);
            }
            return Ok(());
        }
        if e.matchers.iter().all(|m| m.matches_empty()) {
            return self.error(e.span, "vector selector must contain at least one non-empty matcher");
        }
        Ok(())
    }
}
