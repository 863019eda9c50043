//! Selectors, stages, label filters.

use triptych_model::{MatchOp, Matcher, Result};

use super::{BARE_STAGES, Parser, check_selector};
use crate::syntax::ast::*;
use crate::syntax::lexer::{Token, error_at};

impl Parser {
    /// Whether the parentheses at hand enclose a log query: the first thing behind them is `{`.
    pub(super) fn parenthesised_log(&self) -> bool {
        let mut ahead = 0;
        while matches!(self.peek_at(ahead), Token::Punct("(")) {
            ahead += 1;
        }
        matches!(self.peek_at(ahead), Token::Punct("{"))
    }

    pub(super) fn nested_log(&mut self) -> Result<LogExpr> {
        if self.take("(") {
            let mut log = self.nested(Self::nested_log)?;
            self.expect(")")?;
            self.stages(&mut log.stages)?;
            return Ok(log);
        }
        self.log()
    }

    pub(super) fn log(&mut self) -> Result<LogExpr> {
        let at = self.position();
        let matchers = self.selector()?;
        check_selector(at, &matchers)?;
        let mut stages = Vec::new();
        self.stages(&mut stages)?;
        Ok(LogExpr { matchers, stages })
    }

    pub(super) fn selector(&mut self) -> Result<Vec<Matcher>> {
        self.expect("{")?;
        let mut matchers = Vec::new();
        while !self.take("}") {
            if !matchers.is_empty() {
                if !self.take(",") {
                    return Err(self.unexpected_want("} or ,"));
                }
                if self.take("}") {
                    break;
                }
            }
            if !matches!(self.peek(), Token::Ident(_)) {
                return Err(if matchers.is_empty() {
                    self.unexpected_want("IDENTIFIER or }")
                } else {
                    self.unexpected_want("IDENTIFIER")
                });
            }
            let name = self.ident()?;
            matchers.push(self.matcher(name)?);
        }
        Ok(matchers)
    }

    pub(super) fn match_op(&mut self) -> Result<MatchOp> {
        let op = match self.peek() {
            Token::Punct("=") => MatchOp::Equal,
            Token::Punct("!=") => MatchOp::NotEqual,
            Token::Punct("=~") => MatchOp::Regex,
            Token::Punct("!~") => MatchOp::NotRegex,
            _ => return Err(self.unexpected_want("= or =~ or !~ or !=")),
        };
        self.next();
        Ok(op)
    }

    pub(super) fn matcher(&mut self, name: String) -> Result<Matcher> {
        let op = self.match_op()?;
        let at = self.position();
        let value = self.string()?;
        Matcher::new(op, name, value).map_err(|e| error_at(at, e))
    }

    /// Stages up to something that is none. `| unwrap` is left to the caller.
    pub(super) fn stages(&mut self, stages: &mut Vec<Stage>) -> Result<()> {
        loop {
            let op = match self.peek() {
                Token::Punct("|=") => LineOp::Contains,
                Token::Punct("!=") => LineOp::NotContains,
                Token::Punct("|~") => LineOp::Regex,
                Token::Punct("!~") => LineOp::NotRegex,
                Token::Punct("|>") => LineOp::Pattern,
                Token::Punct("!>") => LineOp::NotPattern,
                Token::Punct("|") if !matches!(self.peek_at(1), Token::Ident(w) if w.eq_ignore_ascii_case("unwrap")) =>
                {
                    self.next();
                    let stage = self.stage()?;
                    stages.push(stage);
                    continue;
                }
                _ => return Ok(()),
            };
            self.next();
            let mut needles = vec![self.needle(op)?];
            while self.take_word("or") {
                needles.push(self.needle(op)?);
            }
            stages.push(Stage::Line(LineFilterExpr { op, needles }));
        }
    }

    pub(super) fn needle(&mut self, op: LineOp) -> Result<LineNeedle> {
        if self.is_word("ip") && matches!(op, LineOp::Contains | LineOp::NotContains) {
            return Ok(LineNeedle::Ip(self.ip()?));
        }
        Ok(LineNeedle::Text(self.string()?))
    }

    pub(super) fn ip(&mut self) -> Result<String> {
        self.next();
        self.expect("(")?;
        let pattern = self.string()?;
        self.expect(")")?;
        Ok(pattern)
    }

    pub(super) fn stage(&mut self) -> Result<Stage> {
        let keyword = match self.peek() {
            Token::Punct("(") => return Ok(Stage::LabelFilter(self.label_filter()?)),
            Token::Ident(word) => word.to_ascii_lowercase(),
            _ => return Err(self.unexpected()),
        };
        // A label may be called like a keyword: an operator behind it tells; but `| json != "x"` is a parser and a line filter.
        let bare = BARE_STAGES.contains(&keyword.as_str());
        let operator = match self.peek_at(1) {
            Token::Punct("!=" | "!~") => !bare,
            Token::Punct("=" | "==" | "=~" | ">" | ">=" | "<" | "<=") => true,
            _ => false,
        };
        if operator {
            return Ok(Stage::LabelFilter(self.label_filter()?));
        }
        match keyword.as_str() {
            "json" => {
                self.next();
                Ok(Stage::Json(self.extractions()?))
            }
            "logfmt" => {
                self.next();
                let (mut strict, mut keep_empty) = (false, false);
                while let Token::Flag(flag) = self.peek() {
                    match flag.as_str() {
                        "strict" => strict = true,
                        "keep-empty" => keep_empty = true,
                        _ => return Err(self.unexpected()),
                    }
                    self.next();
                }
                Ok(Stage::Logfmt { strict, keep_empty, extractions: self.extractions()? })
            }
            "regexp" => {
                self.next();
                Ok(Stage::Regexp(self.string()?))
            }
            "pattern" => {
                self.next();
                Ok(Stage::Pattern(self.string()?))
            }
            "unpack" => {
                self.next();
                Ok(Stage::Unpack)
            }
            "line_format" => {
                self.next();
                Ok(Stage::LineFormat(self.string()?))
            }
            "label_format" => {
                self.next();
                Ok(Stage::LabelFormat(self.label_formats()?))
            }
            "decolorize" => {
                self.next();
                Ok(Stage::Decolorize)
            }
            "drop" => {
                self.next();
                Ok(Stage::Drop(self.picks()?))
            }
            "keep" => {
                self.next();
                Ok(Stage::Keep(self.picks()?))
            }
            _ => Ok(Stage::LabelFilter(self.label_filter()?)),
        }
    }

    /// `a="x", b` behind `json` or `logfmt`; none at all is allowed.
    pub(super) fn extractions(&mut self) -> Result<Vec<Extraction>> {
        let mut out = Vec::new();
        if !matches!(self.peek(), Token::Ident(_)) {
            return Ok(out);
        }
        loop {
            let label = self.ident()?;
            let path = if self.take("=") { self.string()? } else { label.clone() };
            out.push(Extraction { label, path });
            if !self.take(",") {
                return Ok(out);
            }
        }
    }

    pub(super) fn label_formats(&mut self) -> Result<Vec<LabelFormat>> {
        let mut out: Vec<LabelFormat> = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        loop {
            let at = self.position();
            let label = self.ident()?;
            if label == crate::ERROR_LABEL || label == crate::ERROR_DETAILS_LABEL {
                return Err(error_at(at, format_args!("{label} cannot be formatted")));
            }
            if seen.contains(&label) {
                return Err(error_at(
                    at,
                    format_args!("multiple label name '{label}' not allowed in a single format operation"),
                ));
            }
            seen.push(label.clone());
            self.expect("=")?;
            out.push(match self.peek() {
                Token::String(_) => LabelFormat::Template { label, template: self.string()? },
                Token::Ident(_) => LabelFormat::Rename { label, from: self.ident()? },
                _ => return Err(self.unexpected_want("STRING or IDENTIFIER")),
            });
            if !self.take(",") {
                return Ok(out);
            }
        }
    }

    pub(super) fn picks(&mut self) -> Result<Vec<LabelPick>> {
        let mut out = Vec::new();
        loop {
            let name = self.ident()?;
            out.push(match self.peek() {
                Token::Punct("=" | "!=" | "=~" | "!~") if matches!(self.peek_at(1), Token::String(_)) => {
                    LabelPick::Matcher(self.matcher(name)?)
                }
                _ => LabelPick::Name(name),
            });
            if !self.take(",") {
                return Ok(out);
            }
        }
    }

    pub(super) fn label_filter(&mut self) -> Result<LabelFilterExpr> {
        let mut any = vec![self.label_filter_and()?];
        while self.is_word("or") {
            self.next();
            any.push(self.label_filter_and()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { LabelFilterExpr::Or(any) })
    }

    pub(super) fn label_filter_and(&mut self) -> Result<LabelFilterExpr> {
        let mut all = vec![self.label_filter_unit()?];
        loop {
            match self.peek() {
                Token::Punct(",") => {
                    self.next();
                }
                Token::Ident(word) if word.eq_ignore_ascii_case("and") => {
                    self.next();
                }
                Token::Ident(word) if !["or", "offset"].iter().any(|w| word.eq_ignore_ascii_case(w)) => {}
                Token::Punct("(") => {}
                _ => break,
            }
            all.push(self.label_filter_unit()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { LabelFilterExpr::And(all) })
    }

    pub(super) fn label_filter_unit(&mut self) -> Result<LabelFilterExpr> {
        if self.take("(") {
            let inner = self.nested(Self::label_filter)?;
            self.expect(")")?;
            return Ok(inner);
        }
        let label = self.ident()?;
        let op = match self.peek() {
            Token::Punct(op @ ("=" | "==" | "!=" | "=~" | "!~" | ">" | ">=" | "<" | "<=")) => *op,
            _ => return Err(self.unexpected()),
        };
        // Strings and ip() take `=`, `!=`, `=~`, `!~`; the rest takes comparisons.
        if let Token::String(_) = self.peek_at(1) {
            return Ok(LabelFilterExpr::Matcher(self.matcher(label)?));
        }
        self.next();
        if self.is_word("ip") {
            let negative = match op {
                "=" => false,
                "!=" => true,
                _ => return Err(self.unexpected_want("STRING")),
            };
            return Ok(LabelFilterExpr::Ip { label, negative, pattern: self.ip()? });
        }
        let compare = match op {
            "=" | "==" => CompareOp::Equal,
            "!=" => CompareOp::NotEqual,
            ">" => CompareOp::Greater,
            ">=" => CompareOp::GreaterOrEqual,
            "<" => CompareOp::Less,
            "<=" => CompareOp::LessOrEqual,
            _ => return Err(self.unexpected_want("STRING")),
        };
        let negative = match self.peek() {
            Token::Punct("-") => true,
            Token::Punct("+") => false,
            _ => {
                return match self.next() {
                    Token::Number(value) => Ok(LabelFilterExpr::Number { label, op: compare, value }),
                    Token::Duration(ns) => Ok(LabelFilterExpr::Duration { label, op: compare, ns }),
                    Token::Bytes(bytes) => Ok(LabelFilterExpr::Bytes { label, op: compare, bytes }),
                    _ => {
                        self.at = self.at.saturating_sub(1);
                        Err(self.unexpected_want("BYTES or STRING or NUMBER or DURATION"))
                    }
                };
            }
        };
        self.next();
        match *self.peek() {
            Token::Number(value) => {
                self.next();
                Ok(LabelFilterExpr::Number {
                    label,
                    op: compare,
                    value: if negative { -value } else { value },
                })
            }
            Token::Duration(ns) => {
                self.next();
                Ok(LabelFilterExpr::Duration { label, op: compare, ns: if negative { -ns } else { ns } })
            }
            _ => Err(self.unexpected_want("NUMBER or DURATION")),
        }
    }
}
