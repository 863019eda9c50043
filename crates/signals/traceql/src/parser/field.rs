//! Field expressions: what stands inside braces and behind `by(` or `avg(`.

use triptych_model::Result;
use triptych_model::matcher::anchored_regex;
use triptych_model::traces::Value;

use super::Parser;
use super::names::{NEGATE_LEVEL, NOT_LEVEL, arithmetic_op, compare_op, keyword_value, level};
use crate::ast::{FieldExpr, Type};
use crate::lexer::Token;
use crate::source::{Attribute, CompareOp, Scope};
use crate::value::{arithmetic, negated};

impl Parser<'_> {
    pub(super) fn field(&mut self, level_min: usize) -> Result<(FieldExpr, usize)> {
        self.nested(|p| p.field_inner(level_min))
    }

    fn field_inner(&mut self, level_min: usize) -> Result<(FieldExpr, usize)> {
        let (mut left, mut depth) = self.field_operand()?;
        while let Some(sign) = self.sign() {
            let Some(l) = level(sign).filter(|l| *l >= level_min) else { break };
            if l == 2 && compare_op(sign).is_none() {
                return self.unexpected("a comparison");
            }
            let at = self.position();
            self.advance();
            let (right, right_depth) = self.field(if sign == "^" { l } else { l + 1 })?;
            (left, depth) = self.field_join(at, sign, (left, depth), (right, right_depth))?;
        }
        Ok((left, depth))
    }

    fn field_join(
        &self,
        at: usize,
        sign: &str,
        (left, left_depth): (FieldExpr, usize),
        (right, right_depth): (FieldExpr, usize),
    ) -> Result<(FieldExpr, usize)> {
        let (l, r) = (left.kind(), right.kind());
        let wrong = |why: &str| self.fail(at, format_args!("`{sign}` {why}: {} and {}", l.name(), r.name()));
        if matches!(sign, "&&" | "||") {
            if ![l, r].iter().all(|t| matches!(t, Type::Bool | Type::Dynamic)) {
                return wrong("needs booleans");
            }
            // Chains become one node, however they were written.
            let and = sign == "&&";
            let mut all = Vec::new();
            let mut depth = 0;
            for (e, d) in [(left, left_depth), (right, right_depth)] {
                match e {
                    FieldExpr::And(more) if and => {
                        all.extend(more);
                        depth = depth.max(d);
                    }
                    FieldExpr::Or(more) if !and => {
                        all.extend(more);
                        depth = depth.max(d);
                    }
                    other => {
                        all.push(other);
                        depth = depth.max(d + 1);
                    }
                }
            }
            let depth = self.deeper(at, depth, 0)? - 1;
            return Ok((if and { FieldExpr::And(all) } else { FieldExpr::Or(all) }, depth));
        }
        let depth = self.deeper(at, left_depth, right_depth)?;
        if let Some(op) = arithmetic_op(sign) {
            if ![l, r].iter().all(|t| t.is_numeric() || *t == Type::Dynamic) {
                return wrong("needs numbers");
            }
            if let (FieldExpr::Value(a), FieldExpr::Value(b)) = (&left, &right) {
                return match arithmetic(op, a, b) {
                    Some(v) => Ok((FieldExpr::Value(v), 1)),
                    None => self.fail(at, "division by zero"),
                };
            }
            return Ok((FieldExpr::Arithmetic { op, left: Box::new(left), right: Box::new(right) }, depth));
        }
        let Some(op) = compare_op(sign) else { return wrong("is no operator here") };
        if l == Type::Nil || r == Type::Nil {
            if !matches!(op, CompareOp::Equal | CompareOp::NotEqual) {
                return wrong("cannot compare with nil");
            }
            let yes = op == CompareOp::NotEqual;
            let of = match (l, r) {
                // Neither `nil = nil` nor `nil != nil` holds.
                (Type::Nil, Type::Nil) => return Ok((FieldExpr::Value(Value::Bool(false)), 1)),
                (Type::Nil, _) => right,
                _ => left,
            };
            if !yes {
                match &of {
                    FieldExpr::Attribute(a @ Attribute::Intrinsic(_)) => {
                        return self.fail(at, format_args!("{a} = nil: intrinsics cannot be nil"));
                    }
                    FieldExpr::Attribute(Attribute::Named(Scope::Resource, name))
                        if &**name == "service.name" =>
                    {
                        return self.fail(at, "resource.service.name cannot be nil");
                    }
                    _ => {}
                }
            }
            return Ok((FieldExpr::Exists(Box::new(of), yes), depth));
        }
        if !l.fits(r) {
            return wrong("cannot compare");
        }
        if op.is_regex() {
            if ![l, r].iter().all(|t| matches!(t, Type::String | Type::Dynamic)) {
                return wrong("needs strings");
            }
            let FieldExpr::Value(Value::String(pattern)) = &right else {
                return wrong("needs a literal string on its right");
            };
            if let Err(e) = anchored_regex(pattern) {
                // The last line of the regex crate's picture says what is wrong.
                let why = e.message.lines().last().unwrap_or_default().trim().to_owned();
                return self.fail(at, format_args!("invalid regex {pattern:?}: {why}"));
            }
        }
        let ordered = !matches!(op, CompareOp::Equal | CompareOp::NotEqual);
        if ordered && [l, r].iter().any(|t| matches!(t, Type::Bool | Type::Status | Type::Kind)) {
            return wrong("needs something ordered");
        }
        Ok((FieldExpr::Compare { op, left: Box::new(left), right: Box::new(right) }, depth))
    }

    fn field_operand(&mut self) -> Result<(FieldExpr, usize)> {
        let at = self.position();
        if self.take_sign("(") {
            let inner = self.field(1)?;
            self.expect_sign(")")?;
            return Ok(inner);
        }
        if self.take_sign("-") {
            let (e, depth) = self.field(NEGATE_LEVEL)?;
            if let FieldExpr::Value(v) = &e
                && let Some(v) = negated(v)
            {
                return Ok((FieldExpr::Value(v), 1));
            }
            if !(e.kind().is_numeric() || e.kind() == Type::Dynamic) {
                return self.fail(at, format_args!("`-` needs a number, not {}", e.kind().name()));
            }
            let depth = self.deeper(at, depth, 0)?;
            return Ok((FieldExpr::Negate(Box::new(e)), depth));
        }
        if self.take_sign("!") {
            let (e, depth) = self.field(NOT_LEVEL)?;
            if !matches!(e.kind(), Type::Bool | Type::Dynamic) {
                return self.fail(at, format_args!("`!` needs a boolean, not {}", e.kind().name()));
            }
            let depth = self.deeper(at, depth, 0)?;
            return Ok((FieldExpr::Not(Box::new(e)), depth));
        }
        if let Some(a) = self.try_attribute()? {
            return Ok((FieldExpr::Attribute(a), 1));
        }
        let value = match self.peek() {
            Token::String(s) => Value::String(s.clone()),
            Token::Int(i) => Value::Int(*i),
            Token::Float(v) => Value::Float(*v),
            Token::Duration(ns) => Value::Duration(*ns),
            Token::Word(word) => match keyword_value(word) {
                Some(v) => v,
                None if word == "parent" => return self.fail(at, "`parent` is not supported"),
                None => return self.unexpected("a value or an attribute (span.x, resource.x, .x)"),
            },
            _ => return self.unexpected("a value or an attribute"),
        };
        self.advance();
        Ok((FieldExpr::Value(value), 1))
    }
}
