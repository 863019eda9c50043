//! Recursive descent over tokens. Every error says where; nesting and the number of operators are limited. Keywords may be
//! written in either case, as Loki takes them.

mod log;
mod metric;

use std::fmt::Display;

use triptych_model::{Error, Matcher, Result};

use super::ast::Expr;
use super::lexer::{CANONICAL_BYTES_MAX, Position, QUERY_BYTES_MAX, Spanned, Token, error_at, lex};

/// Parentheses, aggregations and calls inside each other.
pub const NESTING_MAX: usize = 64;
/// Binary operators in one query: the tree leans to the left, and is walked recursively.
pub const OPERATORS_MAX: usize = 200;

/// Parses a whole query and checks its regexes, patterns and templates.
pub fn parse(text: &str) -> Result<Expr> {
    let expr = parse_text(text, QUERY_BYTES_MAX)?;
    crate::pipeline::check_expr(&expr)?;
    Ok(expr)
}

/// As [`parse`], for a caller that compiles the stages next and so finds what is wrong with them.
/// Takes canonical texts of any query that was accepted.
pub(crate) fn parse_tree(text: &str) -> Result<Expr> {
    parse_text(text, CANONICAL_BYTES_MAX)
}

fn parse_text(text: &str, bytes_max: usize) -> Result<Expr> {
    let mut parser = Parser { tokens: lex(text, bytes_max)?, at: 0, depth: 0, operators: 0 };
    let expr = match parser.peek() {
        Token::Punct("{") => {
            let log = parser.log()?;
            Expr::Log(log)
        }
        Token::Punct("(") if parser.parenthesised_log() => Expr::Log(parser.nested_log()?),
        _ => Expr::Metric(parser.metric(0)?),
    };
    parser.expect_end()?;
    Ok(expr)
}

/// Parses `{a="b", c=~"d"}` alone, as in `match[]` parameters. `{}` is allowed here and matches everything.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>> {
    let mut parser = Parser { tokens: lex(text, QUERY_BYTES_MAX)?, at: 0, depth: 0, operators: 0 };
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
