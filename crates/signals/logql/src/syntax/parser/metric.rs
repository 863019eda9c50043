//! Aggregations, operators, functions.

use triptych_model::{Error, Result};

use super::{OPERATORS_MAX, Parser, check_selector};
use crate::syntax::ast::*;
use crate::syntax::lexer::{Token, error_at};

/// What stands between the parentheses of a range aggregation.
pub(super) struct LogRange {
    log: LogExpr,
    unwrap: Option<Unwrap>,
    range_ns: Option<i64>,
    offset_ns: i64,
}

impl Parser {
    pub(super) fn metric(&mut self, precedence_min: u8) -> Result<MetricExpr> {
        let mut left = self.metric_unit()?;
        while let Some(op) = self.binary_op() {
            let precedence = op.precedence();
            if precedence < precedence_min.max(1) {
                break;
            }
            let at = self.position();
            self.operators += 1;
            if self.operators > OPERATORS_MAX {
                return Err(error_at(
                    at,
                    format_args!("more than {OPERATORS_MAX} binary operators in one query"),
                ));
            }
            self.next();
            let return_bool = self.is_word("bool");
            if return_bool {
                if !matches!(op, BinaryOp::Compare(_)) {
                    return Err(self.unexpected());
                }
                self.next();
            }
            let matching = self.matching(op)?;
            // `^` binds to the right.
            let right_min = if op == BinaryOp::Pow { precedence } else { precedence + 1 };
            let right = self.nested(|p| p.metric(right_min))?;
            let literal = [&left, &right].into_iter().any(|e| matches!(e, MetricExpr::Literal(_)));
            if literal && op.is_set() {
                return Err(error_at(
                    at,
                    format_args!(
                        "unexpected literal for binary operation '{}': sets need vectors on both sides",
                        op.as_str()
                    ),
                ));
            }
            left = MetricExpr::Binary(Box::new(Binary { op, return_bool, matching, left, right }));
        }
        Ok(left)
    }

    pub(super) fn binary_op(&self) -> Option<BinaryOp> {
        Some(match self.peek() {
            Token::Punct("+") => BinaryOp::Add,
            Token::Punct("-") => BinaryOp::Sub,
            Token::Punct("*") => BinaryOp::Mul,
            Token::Punct("/") => BinaryOp::Div,
            Token::Punct("%") => BinaryOp::Mod,
            Token::Punct("^") => BinaryOp::Pow,
            Token::Punct("==") => BinaryOp::Compare(CompareOp::Equal),
            Token::Punct("!=") => BinaryOp::Compare(CompareOp::NotEqual),
            Token::Punct(">") => BinaryOp::Compare(CompareOp::Greater),
            Token::Punct(">=") => BinaryOp::Compare(CompareOp::GreaterOrEqual),
            Token::Punct("<") => BinaryOp::Compare(CompareOp::Less),
            Token::Punct("<=") => BinaryOp::Compare(CompareOp::LessOrEqual),
            Token::Ident(word) => match word.to_ascii_lowercase().as_str() {
                "and" => BinaryOp::And,
                "or" => BinaryOp::Or,
                "unless" => BinaryOp::Unless,
                _ => return None,
            },
            _ => return None,
        })
    }

    pub(super) fn matching(&mut self, op: BinaryOp) -> Result<Matching> {
        let mut matching = Matching::default();
        if self.is_word("on") || self.is_word("ignoring") {
            matching.on = self.is_word("on");
            self.next();
            matching.labels = self.label_list()?;
        } else {
            return Ok(matching);
        }
        for (word, group) in [("group_left", Group::Left), ("group_right", Group::Right)] {
            if self.is_word(word) {
                if op.is_set() {
                    return Err(error_at(
                        self.position(),
                        format_args!("no grouping allowed for '{}' operation", op.as_str()),
                    ));
                }
                self.next();
                matching.group = group;
                // `group_left (a + b)` would be ambiguous; as in Prometheus parentheses are a label list.
                if self.is("(") && self.is_label_list() {
                    matching.include = self.label_list()?;
                }
                break;
            }
        }
        Ok(matching)
    }

    pub(super) fn is_label_list(&self) -> bool {
        let mut ahead = 1;
        loop {
            match self.peek_at(ahead) {
                Token::Punct(")") => return true,
                Token::Ident(_) => match self.peek_at(ahead + 1) {
                    Token::Punct(")") => return true,
                    Token::Punct(",") => ahead += 2,
                    _ => return false,
                },
                _ => return false,
            }
        }
    }

    pub(super) fn label_list(&mut self) -> Result<Vec<String>> {
        self.expect("(")?;
        let mut out = Vec::new();
        while !self.take(")") {
            if !out.is_empty() {
                if !self.take(",") {
                    return Err(self.unexpected_want(") or ,"));
                }
                if self.take(")") {
                    break;
                }
            }
            out.push(self.ident()?);
        }
        Ok(out)
    }

    pub(super) fn grouping(&mut self) -> Result<Option<Grouping>> {
        let without = self.is_word("without");
        if !without && !self.is_word("by") {
            return Ok(None);
        }
        self.next();
        Ok(Some(Grouping { without, labels: self.label_list()? }))
    }

    pub(super) fn metric_unit(&mut self) -> Result<MetricExpr> {
        let name = match self.peek() {
            Token::Punct("(") => {
                if self.parenthesised_log() {
                    let log = self.nested_log()?;
                    return Err(self.log_in_metric(&log));
                }
                self.next();
                let inner = self.nested(|p| p.metric(0))?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Punct("-" | "+") | Token::Number(_) => {
                return Ok(MetricExpr::Literal(self.signed_number()?));
            }
            Token::Punct("{") => {
                let log = self.log()?;
                return Err(self.log_in_metric(&log));
            }
            Token::Ident(name) => name.to_ascii_lowercase(),
            _ => return Err(self.unexpected()),
        };
        if let Some(op) = RangeOp::from_name(&name) {
            return self.nested(|p| p.range_agg(op));
        }
        if let Some(op) = VectorOp::from_name(&name) {
            return self.nested(|p| p.vector_agg(op));
        }
        match name.as_str() {
            "vector" => {
                self.next();
                self.expect("(")?;
                let value = self.signed_number()?;
                self.expect(")")?;
                Ok(MetricExpr::VectorLiteral(value))
            }
            "label_replace" => self.nested(Self::label_replace),
            _ => Err(self.unexpected()),
        }
    }

    pub(super) fn log_in_metric(&self, log: &LogExpr) -> Error {
        error_at(
            self.position(),
            format_args!("syntax error: unexpected {}: a log query ({log}) is no operand", self.peek()),
        )
    }

    pub(super) fn label_replace(&mut self) -> Result<MetricExpr> {
        self.next();
        self.expect("(")?;
        let inner = self.metric(0)?;
        self.expect(",")?;
        let dst = self.string()?;
        self.expect(",")?;
        let replacement = self.string()?;
        self.expect(",")?;
        let src = self.string()?;
        self.expect(",")?;
        let regex = self.string()?;
        self.expect(")")?;
        Ok(MetricExpr::LabelReplace(Box::new(LabelReplace { inner, dst, replacement, src, regex })))
    }

    pub(super) fn vector_agg(&mut self, op: VectorOp) -> Result<MetricExpr> {
        self.next();
        let mut grouping = self.grouping()?;
        self.expect("(")?;
        let at = self.position();
        let mut param = None;
        if op.has_param() {
            let value = self.signed_number().map_err(|_| {
                error_at(at, format_args!("parameter required for operation {}", op.as_str()))
            })?;
            if value.fract() != 0.0 || !(1.0..=u32::MAX as f64).contains(&value) {
                return Err(error_at(
                    at,
                    format_args!("invalid parameter (must be greater than 0) {}(", op.as_str()),
                ));
            }
            param = Some(value as u64);
            self.expect(",")?;
        } else if matches!((self.peek(), self.peek_at(1)), (Token::Number(_), Token::Punct(","))) {
            return Err(error_at(at, format_args!("unsupported parameter for operation {}(", op.as_str())));
        }
        let inner = self.metric(0)?;
        self.expect(")")?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        if grouping.is_some() && matches!(op, VectorOp::Sort | VectorOp::SortDesc) {
            return Err(error_at(at, format_args!("sort and sort_desc doesn't allow grouping by ")));
        }
        Ok(MetricExpr::Vector(Box::new(VectorAgg { op, param, grouping, inner })))
    }

    pub(super) fn range_agg(&mut self, op: RangeOp) -> Result<MetricExpr> {
        let at = self.position();
        self.next();
        self.expect("(")?;
        let mut param = None;
        if op == RangeOp::Quantile {
            param = Some(self.signed_number().map_err(|_| {
                error_at(at, format_args!("parameter required for operation {}", op.as_str()))
            })?);
            self.expect(",")?;
        } else if matches!(self.peek(), Token::Number(_)) {
            return Err(error_at(at, format_args!("parameter not supported for operation {}", op.as_str())));
        }
        let range = self.log_range()?;
        let Some(range_ns) = range.range_ns else { return Err(self.unexpected_want("RANGE")) };
        self.expect(")")?;
        let grouping = self.grouping()?;
        if grouping.is_some() && !op.may_group() {
            return Err(error_at(at, format_args!("grouping not allowed for {} aggregation", op.as_str())));
        }
        if range.unwrap.is_some() && !op.may_unwrap() {
            return Err(error_at(at, format_args!("invalid aggregation {} with unwrap", op.as_str())));
        }
        if range.unwrap.is_none() && op.must_unwrap() {
            return Err(error_at(at, format_args!("invalid aggregation {} without unwrap", op.as_str())));
        }
        Ok(MetricExpr::Range(Box::new(RangeAgg {
            op,
            param,
            log: range.log,
            unwrap: range.unwrap,
            range_ns,
            offset_ns: range.offset_ns,
            grouping,
        })))
    }

    /// Selector, stages, unwrap, range and offset; the range may also stand right behind the selector, and parentheses may
    /// enclose everything before it.
    pub(super) fn log_range(&mut self) -> Result<LogRange> {
        let mut out = if self.take("(") {
            let inner = self.nested(Self::log_range)?;
            self.expect(")")?;
            inner
        } else {
            let at = self.position();
            let matchers = self.selector()?;
            check_selector(at, &matchers)?;
            LogRange {
                log: LogExpr { matchers, stages: Vec::new() },
                unwrap: None,
                range_ns: None,
                offset_ns: 0,
            }
        };
        loop {
            if self.is("[") && out.range_ns.is_none() {
                self.next();
                out.range_ns = Some(match self.peek() {
                    Token::Duration(ns) if *ns > 0 => *ns,
                    _ => return Err(self.unexpected_want("RANGE")),
                });
                self.next();
                self.expect("]")?;
                if self.take_word("offset") {
                    let negative = self.take("-");
                    out.offset_ns = match self.peek() {
                        Token::Duration(ns) => *ns,
                        _ => return Err(self.unexpected_want("DURATION")),
                    };
                    if negative {
                        out.offset_ns = -out.offset_ns;
                    }
                    self.next();
                }
            } else if self.is("|")
                && matches!(self.peek_at(1), Token::Ident(w) if w.eq_ignore_ascii_case("unwrap"))
                && out.unwrap.is_none()
            {
                self.next();
                out.unwrap = Some(self.unwrap()?);
            } else if let Some(unwrap) = &mut out.unwrap {
                // Behind `unwrap` there are only label filters.
                if !self.is("|") {
                    return Ok(out);
                }
                self.next();
                let mut filters = std::mem::take(&mut unwrap.filters);
                filters.push(self.label_filter()?);
                if let Some(unwrap) = &mut out.unwrap {
                    unwrap.filters = filters;
                }
            } else {
                let before = self.at;
                self.stages(&mut out.log.stages)?;
                if self.at == before {
                    return Ok(out);
                }
            }
        }
    }

    pub(super) fn unwrap(&mut self) -> Result<Unwrap> {
        self.next();
        let name = self.ident()?;
        let conversion = match name.to_ascii_lowercase().as_str() {
            "duration" => Some(Conversion::Duration),
            "duration_seconds" => Some(Conversion::DurationSeconds),
            "bytes" => Some(Conversion::Bytes),
            _ => None,
        };
        if conversion.is_some() && self.take("(") {
            let label = self.ident()?;
            self.expect(")")?;
            return Ok(Unwrap { label, conversion, filters: Vec::new() });
        }
        Ok(Unwrap { label: name, conversion: None, filters: Vec::new() })
    }
}
