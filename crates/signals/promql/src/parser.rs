//! Tokens to tree: recursive descent, with precedence climbing for binary operators. Texts and positions of errors follow
//! Prometheus. Nesting and tree depth are bounded, so that no query can exhaust the stack here or in what walks the tree.

use triptych_model::labels::METRIC_NAME;
use triptych_model::{Error, MatchOp, Matcher};

use crate::ast::*;
use crate::check;
use crate::functions::Function;
use crate::lexer::{StringValue, Tok, Token, lex};

/// How deep parentheses, calls and subqueries may nest.
pub const NESTING_MAX: usize = 100;
/// How deep the tree may become, chains such as `a + a + a ..` included.
pub const DEPTH_MAX: usize = 250;
/// Longest query text accepted, in bytes.
pub const QUERY_BYTES_MAX: usize = 1 << 20;

/// What is wrong, and where. Displays as `1:5: parse error: ..`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{position}: parse error: {message}")]
pub struct ParseError {
    /// `line:column`.
    pub position: String,
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(text: &str, span: Span, message: impl Into<String>) -> Self {
        Self { position: span.position(text), message: message.into() }
    }
}

impl From<ParseError> for Error {
    fn from(e: ParseError) -> Self {
        Error::invalid(e.to_string())
    }
}

type Parsed<T> = Result<T, ParseError>;

/// Parses and checks the types of a PromQL expression.
pub fn parse(text: &str) -> Parsed<Expr> {
    let mut parser = Parser::new(text)?;
    if parser.peek() == &Tok::Eof {
        return Err(ParseError::new(text, Span::default(), "no expression found in input"));
    }
    let expr = parser.expr(0)?;
    if parser.peek() != &Tok::Eof {
        return Err(parser.unexpected("", ""));
    }
    check::check(text, &expr)?;
    Ok(expr)
}

/// Parses a plain selector, `name{label="value"}`, as `match[]` parameters carry it.
pub fn parse_selector(text: &str) -> Parsed<Vec<Matcher>> {
    let mut parser = Parser::new(text)?;
    let expr = match parser.primary()? {
        Expr::Vector(selector) if parser.peek() == &Tok::Eof => Expr::Vector(selector),
        _ => return Err(parser.unexpected("", "")),
    };
    check::check(text, &expr)?;
    match expr {
        Expr::Vector(selector) => Ok(selector.matchers),
        _ => Ok(Vec::new()),
    }
}

/// As [`parse_selector`], for tests and rules: `name{label="value"}` as the pairs of a label set.
pub fn parse_metric(text: &str) -> Parsed<triptych_model::Labels> {
    let mut parser = Parser::new(text)?;
    let Expr::Vector(selector) = parser.primary()? else { return Err(parser.unexpected("", "")) };
    if parser.peek() != &Tok::Eof {
        return Err(parser.unexpected("", ""));
    }
    if selector.matchers.iter().any(|m| m.op != MatchOp::Equal) {
        return Err(ParseError::new(text, selector.span, "a series is described by = alone"));
    }
    Ok(triptych_model::Labels::from_pairs(selector.matchers.iter().map(|m| (&m.name, &m.value))))
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token>,
    at: usize,
    nesting: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Parsed<Self> {
        if text.len() > QUERY_BYTES_MAX {
            let message = format!("query has {} bytes, the limit is {QUERY_BYTES_MAX}", text.len());
            return Err(ParseError::new("", Span::default(), message));
        }
        Ok(Self { text, tokens: lex(text), at: 0, nesting: 0 })
    }

    fn peek(&self) -> &Tok {
        &self.tokens[self.at.min(self.tokens.len() - 1)].tok
    }

    fn peek_at(&self, ahead: usize) -> &Tok {
        &self.tokens[(self.at + ahead).min(self.tokens.len() - 1)].tok
    }

    fn span(&self) -> Span {
        self.tokens[self.at.min(self.tokens.len() - 1)].span
    }

    /// The end of the token before this one.
    fn previous_end(&self) -> usize {
        self.tokens[self.at.saturating_sub(1).min(self.tokens.len() - 1)].span.end
    }

    fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    fn eat(&mut self, tok: &Tok) -> bool {
        let hit = self.peek() == tok;
        if hit {
            self.advance();
        }
        hit
    }

    fn word(&self) -> &'a str {
        let span = self.span();
        &self.text[span.start..span.end]
    }

    fn is_word(&self, word: &str) -> bool {
        self.peek() == &Tok::Ident && self.word().eq_ignore_ascii_case(word)
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let hit = self.is_word(word);
        if hit {
            self.advance();
        }
        hit
    }

    fn error(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError::new(self.text, span, message)
    }

    /// `unexpected <token> in <context>, expected <what>`; what the lexer says where that failed.
    fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        let span = self.span();
        let mut message = match self.peek() {
            Tok::Error(message) => return self.error(span, message.clone()),
            Tok::Eof => "unexpected end of input".to_owned(),
            Tok::Ident => {
                let word = self.word();
                match word.to_ascii_lowercase().as_str() {
                    lower @ ("and" | "or" | "unless" | "atan2") => format!("unexpected <op:{lower}>"),
                    lower if KEYWORDS.contains(&lower) => format!("unexpected <{lower}>"),
                    lower if AggregateOp::from_name(lower).is_some() => format!("unexpected <aggr:{lower}>"),
                    _ if word.contains(':') => format!("unexpected metric identifier {word:?}"),
                    _ => format!("unexpected identifier {word:?}"),
                }
            }
            Tok::Number(_) => format!("unexpected number {:?}", self.word()),
            Tok::Duration(_) => format!("unexpected duration {:?}", self.word()),
            Tok::Str(_) => format!("unexpected string {:?}", self.word()),
            tok if operator(tok).is_some() || matches!(tok, Tok::At | Tok::EqRegex | Tok::NeRegex) => {
                format!("unexpected <op:{}>", self.word())
            }
            _ => format!("unexpected {:?}", self.word()),
        };
        if !context.is_empty() {
            message += &format!(" in {context}");
        }
        if !expected.is_empty() {
            message += &format!(", expected {expected}");
        }
        self.error(span, message)
    }

    fn expect(&mut self, tok: &Tok, context: &str, expected: &str) -> Parsed<()> {
        if self.eat(tok) { Ok(()) } else { Err(self.unexpected(context, expected)) }
    }

    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.nesting >= NESTING_MAX {
            return Err(self.error(self.span(), format!("expression nests deeper than {NESTING_MAX} levels")));
        }
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        result
    }

    /// An expression whose operators bind at least as tight as `precedence_min`.
    fn expr(&mut self, precedence_min: u8) -> Parsed<Expr> {
        let mut left = self.nested(Self::unary)?;
        let mut chain = 0;
        while let Some(op) = self.binary_op() {
            let precedence = op.precedence();
            if precedence < precedence_min {
                break;
            }
            chain += 1;
            if chain > DEPTH_MAX {
                return Err(self.error(self.span(), format!("more than {DEPTH_MAX} operators in a row")));
            }
            let op_span = self.span();
            self.advance();
            let (return_bool, matching) = self.modifiers()?;
            let next = if op == BinaryOp::Pow { precedence } else { precedence + 1 };
            let right = self.nested(|p| p.expr(next))?;
            let span = left.span().to(right.span());
            left = Expr::Binary(Box::new(Binary { op, left, right, return_bool, matching, span, op_span }));
        }
        Ok(left)
    }

    fn binary_op(&self) -> Option<BinaryOp> {
        match self.peek() {
            Tok::Ident => match self.word().to_ascii_lowercase().as_str() {
                "and" => Some(BinaryOp::And),
                "or" => Some(BinaryOp::Or),
                "unless" => Some(BinaryOp::Unless),
                "atan2" => Some(BinaryOp::Atan2),
                _ => None,
            },
            tok => operator(tok),
        }
    }

    /// `bool on (..) group_left (..) fill (..)`.
    fn modifiers(&mut self) -> Parsed<(bool, Matching)> {
        let mut matching = Matching::default();
        let return_bool = self.eat_word("bool");
        if self.is_word("on") || self.is_word("ignoring") {
            matching.on = self.is_word("on");
            self.advance();
            matching.labels = self.label_list()?;
            let group = if self.is_word("group_left") {
                Grouping::Left
            } else if self.is_word("group_right") {
                Grouping::Right
            } else {
                Grouping::None
            };
            if group != Grouping::None {
                self.advance();
                matching.grouping = group;
                // `group_left (x)` may be labels, or the right operand in parentheses: Prometheus takes labels.
                if self.peek() == &Tok::LeftParen {
                    matching.include = self.label_list()?;
                }
            }
        }
        if self.peek_at(1) == &Tok::LeftParen {
            if self.eat_word("fill") {
                let value = self.fill_value()?;
                (matching.fill_left, matching.fill_right) = (Some(value), Some(value));
            } else {
                for _ in 0..2 {
                    if self.peek_at(1) != &Tok::LeftParen {
                        break;
                    } else if matching.fill_left.is_none() && self.eat_word("fill_left") {
                        matching.fill_left = Some(self.fill_value()?);
                    } else if matching.fill_right.is_none() && self.eat_word("fill_right") {
                        matching.fill_right = Some(self.fill_value()?);
                    }
                }
            }
        }
        Ok((return_bool, matching))
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.expect(&Tok::LeftParen, "fill", "\"(\"")?;
        let sign = if self.eat(&Tok::Sub) { -1.0 } else { 1.0 };
        if sign > 0.0 {
            self.eat(&Tok::Add);
        }
        let Some((value, _)) = self.number() else { return Err(self.unexpected("fill", "number")) };
        self.expect(&Tok::RightParen, "fill", "\")\"")?;
        Ok(sign * value)
    }

    fn label_list(&mut self) -> Parsed<Vec<String>> {
        self.expect(&Tok::LeftParen, "grouping opts", "\"(\"")?;
        let mut labels = Vec::new();
        while self.peek() != &Tok::RightParen {
            match self.peek().clone() {
                Tok::Ident if !self.word().contains(':') => labels.push(self.word().to_owned()),
                Tok::Ident => {
                    let message = format!("invalid label name for grouping: {:?}", self.word());
                    return Err(self.error(self.span(), message));
                }
                Tok::Str(s) if s.raw.is_none() && !s.text.is_empty() => labels.push(s.text),
                Tok::Str(s) => {
                    let message = format!("invalid label name for grouping: {:?}", s.text);
                    return Err(self.error(self.span(), message));
                }
                _ => return Err(self.unexpected("grouping opts", "label")),
            }
            self.advance();
            if !self.eat(&Tok::Comma) {
                break;
            }
        }
        self.expect(&Tok::RightParen, "grouping opts", "\",\" or \")\"")?;
        Ok(labels)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let negative = self.peek() == &Tok::Sub;
        if !negative && self.peek() != &Tok::Add {
            let primary = self.primary()?;
            return self.postfix(primary);
        }
        let start = self.span();
        self.advance();
        // A sign binds like `*`: only `^` binds tighter.
        let operand = self.nested(|p| p.expr(BinaryOp::Pow.precedence()))?;
        let span = start.to(operand.span());
        Ok(match operand {
            Expr::Number(n) => Expr::Number(Number {
                value: if negative { -n.value } else { n.value },
                duration: n.duration,
                span,
            }),
            expr => Expr::Unary(Box::new(Unary { negative, expr, span })),
        })
    }

    /// A number or a duration in seconds; whether it was a duration.
    fn number(&mut self) -> Option<(f64, bool)> {
        let found = match self.peek() {
            Tok::Number(v) => (*v, false),
            Tok::Duration(v) => (*v, true),
            Tok::Ident if self.is_word("inf") => (f64::INFINITY, false),
            Tok::Ident if self.is_word("nan") => (f64::NAN, false),
            _ => return None,
        };
        self.advance();
        Some(found)
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let start = self.span();
        if let Some((value, duration)) = self.number() {
            return Ok(Expr::Number(Number { value, duration, span: start }));
        }
        match self.peek().clone() {
            Tok::Str(StringValue { text, raw }) => {
                self.advance();
                Ok(Expr::String(Str { value: text, raw, span: start }))
            }
            Tok::LeftParen => {
                self.advance();
                let expr = self.expr(0)?;
                self.expect(&Tok::RightParen, "", "")?;
                Ok(Expr::Paren(Box::new(expr), Span::new(start.start, self.previous_end())))
            }
            Tok::LeftBrace => self.selector(String::new(), start),
            Tok::Ident => {
                let word = self.word();
                if let Some(op) = AggregateOp::from_name(word) {
                    let grouped = self.tokens.get(self.at + 1).is_some_and(|t| {
                        let word = &self.text[t.span.start..t.span.end.min(self.text.len())];
                        t.tok == Tok::Ident
                            && (word.eq_ignore_ascii_case("by") || word.eq_ignore_ascii_case("without"))
                    });
                    if grouped || self.peek_at(1) == &Tok::LeftParen {
                        self.advance();
                        return self.aggregate(op, start);
                    }
                }
                if RESERVED.iter().any(|r| r.eq_ignore_ascii_case(word)) {
                    return Err(self.unexpected("", ""));
                }
                if self.peek_at(1) == &Tok::LeftParen {
                    self.advance();
                    return self.call(word, start);
                }
                self.advance();
                self.selector(word.to_owned(), start)
            }
            _ => Err(self.unexpected("", "")),
        }
    }

    fn args(&mut self) -> Parsed<Vec<Expr>> {
        self.expect(&Tok::LeftParen, "", "")?;
        let mut args = Vec::new();
        if self.eat(&Tok::RightParen) {
            return Ok(args);
        }
        loop {
            args.push(self.expr(0)?);
            let comma = self.span();
            if self.eat(&Tok::Comma) {
                if self.peek() == &Tok::RightParen {
                    return Err(self.error(comma, "trailing commas not allowed in function call args"));
                }
                continue;
            }
            self.expect(&Tok::RightParen, "", "")?;
            return Ok(args);
        }
    }

    fn call(&mut self, name: &str, start: Span) -> Parsed<Expr> {
        let Some(function) = Function::find(name) else {
            return Err(self.error(start, format!("unknown function with name {name:?}")));
        };
        let args = self.args()?;
        let span = Span::new(start.start, self.previous_end());
        Ok(Expr::Call(Box::new(Call { function, args, span })))
    }

    fn grouping(&mut self) -> Parsed<Option<(bool, Vec<String>)>> {
        let without = self.is_word("without");
        if !without && !self.is_word("by") {
            return Ok(None);
        }
        self.advance();
        Ok(Some((without, self.label_list()?)))
    }

    fn aggregate(&mut self, op: AggregateOp, start: Span) -> Parsed<Expr> {
        let mut grouping = self.grouping()?;
        if self.peek() != &Tok::LeftParen {
            return Err(self.unexpected("aggregation", ""));
        }
        let mut args = self.args()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let span = Span::new(start.start, self.previous_end());
        if args.is_empty() {
            return Err(self.error(span, "no arguments for aggregate expression provided"));
        }
        let wanted = 1 + usize::from(op.has_param());
        if args.len() != wanted {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, expected {wanted}, got {}",
                args.len()
            );
            return Err(self.error(span, message));
        }
        let (without, labels) = grouping.unwrap_or_default();
        let expr = args.swap_remove(wanted - 1);
        let param = args.pop();
        Ok(Expr::Aggregate(Box::new(Aggregate { op, expr, param, without, labels, span })))
    }

    fn selector(&mut self, name: String, start: Span) -> Parsed<Expr> {
        let mut matchers = Vec::new();
        if self.eat(&Tok::LeftBrace) {
            while self.peek() != &Tok::RightBrace {
                matchers.push(self.matcher()?);
                if !self.eat(&Tok::Comma) {
                    break;
                }
            }
            self.expect(&Tok::RightBrace, "label matching", "\",\" or \"}\"")?;
        }
        if !name.is_empty() {
            matchers.push(Matcher::equal(METRIC_NAME, name.clone()));
        }
        let span = Span::new(start.start, self.previous_end());
        Ok(Expr::Vector(Box::new(VectorSelector { name, matchers, offset: None, at: None, span })))
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let start = self.span();
        let (name, quoted) = match self.peek().clone() {
            Tok::Ident => (self.word().to_owned(), false),
            Tok::Str(s) if s.raw.is_none() => (s.text, true),
            Tok::Str(s) => return Err(self.error(start, format!("label name is not UTF-8: {:?}", s.text))),
            _ => return Err(self.unexpected("label matching", "identifier or \"}\"")),
        };
        self.advance();
        let op = match self.peek() {
            Tok::Assign => MatchOp::Equal,
            Tok::Ne => MatchOp::NotEqual,
            Tok::EqRegex => MatchOp::Regex,
            Tok::NeRegex => MatchOp::NotRegex,
            // A string alone is the metric's name.
            Tok::Comma | Tok::RightBrace if quoted => return Ok(Matcher::equal(METRIC_NAME, name)),
            _ => return Err(self.unexpected("label matching", "label matching operator")),
        };
        self.advance();
        let Tok::Str(value) = self.peek().clone() else {
            return Err(self.unexpected("label matching", "string"));
        };
        let span = Span::new(start.start, self.span().end);
        if value.raw.is_some() {
            return Err(self.error(span, format!("label value is not UTF-8: {:?}", value.text)));
        }
        self.advance();
        Matcher::new(op, name, value.text).map_err(|e| self.error(span, e.to_string()))
    }

    /// `[..]`, `@`, `offset`, in any order, any number of times.
    fn postfix(&mut self, mut expr: Expr) -> Parsed<Expr> {
        let mut depth = 0;
        loop {
            depth += 1;
            if depth > NESTING_MAX {
                return Err(self.error(self.span(), format!("more than {NESTING_MAX} modifiers in a row")));
            }
            if self.peek() == &Tok::LeftBracket {
                expr = self.range(expr)?;
            } else if self.peek() == &Tok::At {
                self.advance();
                let at = self.at_time(expr.span())?;
                self.set_at(&mut expr, at)?;
            } else if self.is_word("offset") {
                self.advance();
                let offset = self.offset()?;
                self.set_offset(&mut expr, offset)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn range(&mut self, expr: Expr) -> Parsed<Expr> {
        let bracket = self.span();
        self.advance();
        let range_span = self.span();
        let range = self.duration("subquery or range selector", 0)?;
        self.check_positive(&range, range_span)?;
        let start = expr.span();
        if self.eat(&Tok::RightBracket) {
            let span = Span::new(start.start, self.previous_end());
            return match expr {
                Expr::Vector(s) if s.offset.is_some() => {
                    Err(self.error(bracket, "no offset modifiers allowed before range"))
                }
                Expr::Vector(s) if s.at.is_some() => {
                    Err(self.error(bracket, "no @ modifiers allowed before range"))
                }
                Expr::Vector(selector) => {
                    Ok(Expr::Matrix(Box::new(MatrixSelector { selector: *selector, range, span })))
                }
                _ => Err(self.error(bracket, "ranges only allowed for vector selectors")),
            };
        }
        self.expect(&Tok::Colon, "subquery or range", "\":\" or \"]\"")?;
        let mut step = None;
        if self.peek() != &Tok::RightBracket {
            let step_span = self.span();
            let found = self.duration("subquery selector", 0)?;
            self.check_positive(&found, step_span)?;
            step = Some(found);
        }
        self.expect(&Tok::RightBracket, "subquery selector", "\"]\"")?;
        let span = Span::new(start.start, self.previous_end());
        Ok(Expr::Subquery(Box::new(Subquery { expr, range, step, offset: None, at: None, span })))
    }

    fn check_positive(&self, duration: &DurationExpr, span: Span) -> Parsed<()> {
        match duration {
            DurationExpr::Ms(ms) if *ms <= 0 => Err(self.error(span, "duration must be greater than 0")),
            _ => Ok(()),
        }
    }

    /// A duration in brackets: literals with arithmetic.
    fn duration(&mut self, context: &str, precedence_min: u8) -> Parsed<DurationExpr> {
        let mut left = self.nested(|p| p.duration_operand(context))?;
        let mut chain = 0;
        while let Some(op) = self.binary_op().filter(|op| {
            use BinaryOp::*;
            matches!(op, Add | Sub | Mul | Div | Mod | Pow) && op.precedence() >= precedence_min
        }) {
            chain += 1;
            if chain > NESTING_MAX {
                return Err(
                    self.error(self.span(), format!("more than {NESTING_MAX} operators in a duration"))
                );
            }
            let op_span = self.span();
            self.advance();
            let next = if op == BinaryOp::Pow { op.precedence() } else { op.precedence() + 1 };
            let right = self.nested(|p| p.duration(context, next))?;
            match op {
                BinaryOp::Div if right == DurationExpr::Ms(0) => {
                    return Err(self.error(op_span, "division by zero"));
                }
                BinaryOp::Mod if right == DurationExpr::Ms(0) => {
                    return Err(self.error(op_span, "modulo by zero"));
                }
                _ => left = DurationExpr::Binary(op, Box::new(left), Box::new(right)),
            }
        }
        Ok(left)
    }

    fn duration_operand(&mut self, context: &str) -> Parsed<DurationExpr> {
        let span = self.span();
        if let Some((seconds, _)) = self.number() {
            return self.literal_ms(seconds, span);
        }
        if self.peek() == &Tok::Sub || self.peek() == &Tok::Add {
            let negative = self.peek() == &Tok::Sub;
            self.advance();
            let operand = self.nested(|p| p.duration(context, BinaryOp::Pow.precedence()))?;
            return Ok(match operand {
                DurationExpr::Ms(ms) if negative => DurationExpr::Ms(-ms),
                other if negative => DurationExpr::Negative(Box::new(other)),
                other => other,
            });
        }
        if self.eat(&Tok::LeftParen) {
            let inner = self.duration(context, 0)?;
            self.expect(&Tok::RightParen, context, "\")\"")?;
            return Ok(DurationExpr::Paren(Box::new(inner)));
        }
        if self.peek() == &Tok::Ident && self.peek_at(1) == &Tok::LeftParen {
            let word = self.word().to_ascii_lowercase();
            if word == "step" || word == "range" {
                self.advance();
                self.advance();
                self.expect(&Tok::RightParen, context, "\")\"")?;
                return Ok(if word == "step" { DurationExpr::Step } else { DurationExpr::Range });
            }
            if word == "min_of" || word == "max_of" {
                self.advance();
                self.advance();
                let left = Box::new(self.duration(context, 0)?);
                self.expect(&Tok::Comma, context, "\",\"")?;
                let right = Box::new(self.duration(context, 0)?);
                self.expect(&Tok::RightParen, context, "\")\"")?;
                return Ok(if word == "min_of" {
                    DurationExpr::MinOf(left, right)
                } else {
                    DurationExpr::MaxOf(left, right)
                });
            }
        }
        Err(self.unexpected(context, "number, duration, step(), or range()"))
    }

    fn literal_ms(&self, seconds: f64, span: Span) -> Parsed<DurationExpr> {
        // Prometheus' durations are 64-bit nanoseconds.
        if !seconds.is_finite() || seconds.abs() > i64::MAX as f64 / 1e9 {
            return Err(self.error(span, "duration out of range"));
        }
        Ok(DurationExpr::Ms((seconds * 1000.0).round() as i64))
    }

    fn offset(&mut self) -> Parsed<DurationExpr> {
        let context = "offset";
        let negative = self.peek() == &Tok::Sub;
        if negative || self.peek() == &Tok::Add {
            self.advance();
        }
        let operand = self.nested(|p| p.duration_operand(context))?;
        Ok(match operand {
            DurationExpr::Ms(ms) if negative => DurationExpr::Ms(-ms),
            other if negative => DurationExpr::Negative(Box::new(other)),
            other => other,
        })
    }

    fn at_time(&mut self, span: Span) -> Parsed<At> {
        for (word, at) in [("start", At::Start), ("end", At::End)] {
            if self.is_word(word) && self.peek_at(1) == &Tok::LeftParen {
                self.advance();
                self.advance();
                self.expect(&Tok::RightParen, "@", "\")\"")?;
                return Ok(at);
            }
        }
        let negative = self.peek() == &Tok::Sub;
        if negative || self.peek() == &Tok::Add {
            self.advance();
        }
        let Some((seconds, _)) = self.number() else { return Err(self.unexpected("@", "timestamp")) };
        let seconds = if negative { -seconds } else { seconds };
        if !seconds.is_finite() || seconds.abs() >= i64::MAX as f64 / 1000.0 {
            return Err(self.error(
                span,
                format!("timestamp out of bounds for @ modifier: {}", crate::format::number_text(seconds)),
            ));
        }
        Ok(At::Ms((seconds * 1000.0).round() as i64))
    }

    fn set_at(&self, expr: &mut Expr, at: At) -> Parsed<()> {
        let end = self.previous_end();
        let whole = expr.span();
        let (slot, span) = match expr {
            Expr::Vector(s) => (&mut s.at, &mut s.span),
            Expr::Matrix(m) => (&mut m.selector.at, &mut m.span),
            Expr::Subquery(s) => (&mut s.at, &mut s.span),
            _ => {
                return Err(self.error(
                    whole,
                    "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                ));
            }
        };
        if slot.is_some() {
            return Err(self.error(whole, "@ <timestamp> may not be set multiple times"));
        }
        *slot = Some(at);
        span.end = end;
        Ok(())
    }

    fn set_offset(&self, expr: &mut Expr, offset: DurationExpr) -> Parsed<()> {
        let end = self.previous_end();
        let whole = expr.span();
        let (slot, span) = match expr {
            Expr::Vector(s) => (&mut s.offset, &mut s.span),
            Expr::Matrix(m) => (&mut m.selector.offset, &mut m.span),
            Expr::Subquery(s) => (&mut s.offset, &mut s.span),
            _ => {
                return Err(self.error(
                    whole,
                    "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                ));
            }
        };
        if slot.as_ref().is_some_and(|o| *o != DurationExpr::Ms(0)) {
            return Err(self.error(whole, "offset may not be set multiple times"));
        }
        // `offset 0s` is no offset.
        *slot = Some(offset).filter(|o| *o != DurationExpr::Ms(0));
        span.end = end;
        Ok(())
    }
}

fn operator(tok: &Tok) -> Option<BinaryOp> {
    Some(match tok {
        Tok::Add => BinaryOp::Add,
        Tok::Sub => BinaryOp::Sub,
        Tok::Mul => BinaryOp::Mul,
        Tok::Div => BinaryOp::Div,
        Tok::Mod => BinaryOp::Mod,
        Tok::Pow => BinaryOp::Pow,
        Tok::Eq => BinaryOp::Eq,
        Tok::Ne => BinaryOp::Ne,
        Tok::Lt => BinaryOp::Lt,
        Tok::Le => BinaryOp::Le,
        Tok::Gt => BinaryOp::Gt,
        Tok::Ge => BinaryOp::Ge,
        Tok::TrimUpper => BinaryOp::TrimUpper,
        Tok::TrimLower => BinaryOp::TrimLower,
        _ => return None,
    })
}

/// Words that error texts show as keywords.
const KEYWORDS: [&str; 10] =
    ["by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", "fill", "fill_left"];

/// Keywords that cannot be the name of a metric.
const RESERVED: [&str; 6] = ["on", "ignoring", "group_left", "group_right", "bool", "atan2"];

#[cfg(test)]
mod tests;
