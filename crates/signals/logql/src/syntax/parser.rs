//! Recursive descent over tokens. Every error says where; nesting and the number of operators are limited. Keywords may be
//! written in either case, as Loki takes them.

use std::fmt::Display;

use triptych_model::{Error, MatchOp, Matcher, Result};

use super::ast::*;
use super::lexer::{Position, Spanned, Token, error_at, lex};

/// Parentheses, aggregations and calls inside each other.
pub const NESTING_MAX: usize = 64;
/// Binary operators in one query: the tree leans to the left, and is walked recursively.
pub const OPERATORS_MAX: usize = 200;

/// Parses a whole query and checks its regexes, patterns and templates.
pub fn parse(text: &str) -> Result<Expr> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, depth: 0, operators: 0 };
    let expr = match parser.peek() {
        Token::Punct("{") => {
            let log = parser.log()?;
            Expr::Log(log)
        }
        Token::Punct("(") if parser.parenthesised_log() => Expr::Log(parser.nested_log()?),
        _ => Expr::Metric(parser.metric(0)?),
    };
    parser.expect_end()?;
    crate::pipeline::check_expr(&expr)?;
    Ok(expr)
}

/// Parses `{a="b", c=~"d"}` alone, as in `match[]` parameters. `{}` is allowed here and matches everything.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, depth: 0, operators: 0 };
    let matchers = parser.selector()?;
    parser.expect_end()?;
    Ok(matchers)
}

/// Stages that need nothing behind them.
pub(super) const BARE_STAGES: [&str; 4] = ["json", "logfmt", "unpack", "decolorize"];

struct Parser {
    tokens: Vec<Spanned>,
    at: usize,
    depth: usize,
    operators: usize,
}

/// What stands between the parentheses of a range aggregation.
struct LogRange {
    log: LogExpr,
    unwrap: Option<Unwrap>,
    range_ns: Option<i64>,
    offset_ns: i64,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> &Token {
        &self.tokens[(self.at + ahead).min(self.tokens.len() - 1)].token
    }

    fn position(&self) -> Position {
        self.tokens[self.at.min(self.tokens.len() - 1)].at
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        if self.at < self.tokens.len() - 1 {
            self.at += 1;
        }
        token
    }

    fn unexpected(&self) -> Error {
        error_at(self.position(), format_args!("syntax error: unexpected {}", self.peek()))
    }

    fn unexpected_want(&self, want: impl Display) -> Error {
        error_at(self.position(), format_args!("syntax error: unexpected {}, expecting {want}", self.peek()))
    }

    fn is(&self, punct: &str) -> bool {
        matches!(self.peek(), Token::Punct(p) if *p == punct)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Token::Ident(w) if w.eq_ignore_ascii_case(word))
    }

    fn take(&mut self, punct: &str) -> bool {
        let hit = self.is(punct);
        if hit {
            self.next();
        }
        hit
    }

    fn take_word(&mut self, word: &str) -> bool {
        let hit = self.is_word(word);
        if hit {
            self.next();
        }
        hit
    }

    fn expect(&mut self, punct: &'static str) -> Result<()> {
        if self.take(punct) { Ok(()) } else { Err(self.unexpected_want(punct)) }
    }

    fn expect_end(&mut self) -> Result<()> {
        if *self.peek() == Token::End { Ok(()) } else { Err(self.unexpected()) }
    }

    fn ident(&mut self) -> Result<String> {
        match self.peek() {
            Token::Ident(_) => match self.next() {
                Token::Ident(name) => Ok(name),
                _ => Err(self.unexpected()),
            },
            _ => Err(self.unexpected_want("IDENTIFIER")),
        }
    }

    fn string(&mut self) -> Result<String> {
        match self.peek() {
            Token::String(_) => match self.next() {
                Token::String(text) => Ok(text),
                _ => Err(self.unexpected()),
            },
            _ => Err(self.unexpected_want("STRING")),
        }
    }

    /// A number with an optional sign.
    fn signed_number(&mut self) -> Result<f64> {
        let negative = if self.take("-") {
            true
        } else {
            self.take("+");
            false
        };
        match self.peek() {
            Token::Number(value) => {
                let value = if negative { -value } else { *value };
                self.next();
                Ok(value)
            }
            _ => Err(self.unexpected_want("NUMBER")),
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= NESTING_MAX {
            return Err(error_at(self.position(), format_args!("nested deeper than {NESTING_MAX} levels")));
        }
        self.depth += 1;
        let out = parse(self);
        self.depth -= 1;
        out
    }

    // ---- logs ----

    /// Whether the parentheses at hand enclose a log query: the first thing behind them is `{`.
    fn parenthesised_log(&self) -> bool {
        let mut ahead = 0;
        while matches!(self.peek_at(ahead), Token::Punct("(")) {
            ahead += 1;
        }
        matches!(self.peek_at(ahead), Token::Punct("{"))
    }

    fn nested_log(&mut self) -> Result<LogExpr> {
        if self.take("(") {
            let mut log = self.nested(Self::nested_log)?;
            self.expect(")")?;
            self.stages(&mut log.stages)?;
            return Ok(log);
        }
        self.log()
    }

    fn log(&mut self) -> Result<LogExpr> {
        let at = self.position();
        let matchers = self.selector()?;
        check_selector(at, &matchers)?;
        let mut stages = Vec::new();
        self.stages(&mut stages)?;
        Ok(LogExpr { matchers, stages })
    }

    fn selector(&mut self) -> Result<Vec<Matcher>> {
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

    fn match_op(&mut self) -> Result<MatchOp> {
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

    fn matcher(&mut self, name: String) -> Result<Matcher> {
        let op = self.match_op()?;
        let at = self.position();
        let value = self.string()?;
        Matcher::new(op, name, value).map_err(|e| error_at(at, e))
    }

    /// Stages up to something that is none. `| unwrap` is left to the caller.
    fn stages(&mut self, stages: &mut Vec<Stage>) -> Result<()> {
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

    fn needle(&mut self, op: LineOp) -> Result<LineNeedle> {
        if self.is_word("ip") && matches!(op, LineOp::Contains | LineOp::NotContains) {
            return Ok(LineNeedle::Ip(self.ip()?));
        }
        Ok(LineNeedle::Text(self.string()?))
    }

    fn ip(&mut self) -> Result<String> {
        self.next();
        self.expect("(")?;
        let pattern = self.string()?;
        self.expect(")")?;
        Ok(pattern)
    }

    fn stage(&mut self) -> Result<Stage> {
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
    fn extractions(&mut self) -> Result<Vec<Extraction>> {
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

    fn label_formats(&mut self) -> Result<Vec<LabelFormat>> {
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

    fn picks(&mut self) -> Result<Vec<LabelPick>> {
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

    // ---- label filters ----

    fn label_filter(&mut self) -> Result<LabelFilterExpr> {
        let mut any = vec![self.label_filter_and()?];
        while self.is_word("or") {
            self.next();
            any.push(self.label_filter_and()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { LabelFilterExpr::Or(any) })
    }

    fn label_filter_and(&mut self) -> Result<LabelFilterExpr> {
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

    fn label_filter_unit(&mut self) -> Result<LabelFilterExpr> {
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

    // ---- metrics ----

    fn metric(&mut self, precedence_min: u8) -> Result<MetricExpr> {
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

    fn binary_op(&self) -> Option<BinaryOp> {
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

    fn matching(&mut self, op: BinaryOp) -> Result<Matching> {
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

    fn is_label_list(&self) -> bool {
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

    fn label_list(&mut self) -> Result<Vec<String>> {
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

    fn grouping(&mut self) -> Result<Option<Grouping>> {
        let without = self.is_word("without");
        if !without && !self.is_word("by") {
            return Ok(None);
        }
        self.next();
        Ok(Some(Grouping { without, labels: self.label_list()? }))
    }

    fn metric_unit(&mut self) -> Result<MetricExpr> {
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

    fn log_in_metric(&self, log: &LogExpr) -> Error {
        error_at(
            self.position(),
            format_args!("syntax error: unexpected {}: a log query ({log}) is no operand", self.peek()),
        )
    }

    fn label_replace(&mut self) -> Result<MetricExpr> {
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

    fn vector_agg(&mut self, op: VectorOp) -> Result<MetricExpr> {
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

    fn range_agg(&mut self, op: RangeOp) -> Result<MetricExpr> {
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
    fn log_range(&mut self) -> Result<LogRange> {
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

    fn unwrap(&mut self) -> Result<Unwrap> {
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

/// A selector must have a condition that an absent label does not meet, or it asks for everything.
fn check_selector(at: Position, matchers: &[Matcher]) -> Result<()> {
    if matchers.iter().all(Matcher::matches_empty) {
        return Err(error_at(
            at,
            "queries require at least one regexp or equality matcher that does not have an empty-compatible value. \
             For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will",
        ));
    }
    Ok(())
}
