//! Text to tokens with positions.

use std::fmt;

use triptych_model::{Error, Result};

use super::units;

/// Longest query text, in bytes: Loki's limit of 128 KiB.
pub const QUERY_BYTES_MAX: usize = 128 << 10;
/// Longest canonical text: escapes and parentheses may make it longer than what was typed.
pub const CANONICAL_BYTES_MAX: usize = 8 * QUERY_BYTES_MAX;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A name or keyword; which of the two, the parser knows from where it stands.
    Ident(String),
    String(String),
    Number(f64),
    /// Nanoseconds, and the text, which in some places may also be read as something else.
    Duration(i64),
    Bytes(u64),
    /// `--strict` without the dashes.
    Flag(String),
    Punct(&'static str),
    End,
}

impl fmt::Display for Token {
    /// As error texts name it: the classes in capitals, as Loki (goyacc) writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Ident(name) if is_keyword(name) => f.write_str(name),
            Token::Ident(_) => f.write_str("IDENTIFIER"),
            Token::String(_) => f.write_str("STRING"),
            Token::Number(_) => f.write_str("NUMBER"),
            Token::Duration(_) => f.write_str("DURATION"),
            Token::Bytes(_) => f.write_str("BYTES"),
            Token::Flag(_) => f.write_str("PARSER_FLAG"),
            Token::Punct(p) => f.write_str(p),
            Token::End => f.write_str("$end"),
        }
    }
}

fn is_keyword(name: &str) -> bool {
    super::ast::RangeOp::from_name(name).is_some()
        || super::ast::VectorOp::from_name(name).is_some()
        || matches!(
            name,
            "by" | "without"
                | "bool"
                | "on"
                | "ignoring"
                | "group_left"
                | "group_right"
                | "and"
                | "or"
                | "unless"
                | "offset"
                | "json"
                | "logfmt"
                | "regexp"
                | "pattern"
                | "unpack"
                | "unwrap"
                | "line_format"
                | "label_format"
                | "label_replace"
                | "decolorize"
                | "drop"
                | "keep"
                | "ip"
                | "vector"
        )
}

/// Where a token starts: both from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub line: u32,
    pub col: u32,
}

#[derive(Debug, Clone)]
pub struct Spanned {
    pub token: Token,
    pub at: Position,
}

/// `parse error at line 1, col 5: <what>`, Loki's form.
pub fn error_at(at: Position, what: impl fmt::Display) -> Error {
    Error::invalid(format!("parse error at line {}, col {}: {what}", at.line, at.col))
}

/// All tokens, the last one [`Token::End`]. At most `bytes_max` of text.
pub fn lex(text: &str, bytes_max: usize) -> Result<Vec<Spanned>> {
    if text.len() > bytes_max {
        return Err(Error::invalid(format!(
            "parse error : query of {} bytes is longer than {bytes_max} bytes",
            text.len()
        )));
    }
    let mut lexer = Lexer { text, at: 0, position: Position { line: 1, col: 1 } };
    let mut out = Vec::new();
    loop {
        lexer.skip_blank();
        let at = lexer.position;
        let token = lexer.next()?;
        let end = token == Token::End;
        out.push(Spanned { token, at });
        if end {
            return Ok(out);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    position: Position,
}

const PUNCT: [&str; 32] = [
    "|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<=", "|", "=", ">", "<", "{", "}", "(", ")", "[",
    "]", ",", "+", "-", "*", "/", "%", "^", ".", ":", ";", "!", "@",
];

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let taken = &self.text[self.at..self.at + bytes];
        for c in taken.chars() {
            if c == '\n' {
                self.position = Position { line: self.position.line + 1, col: 1 };
            } else {
                self.position.col += 1;
            }
        }
        self.at += bytes;
        taken
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.advance(blank);
            if !self.rest().starts_with('#') {
                return;
            }
            let comment = self.rest().find('\n').unwrap_or(self.rest().len());
            self.advance(comment);
        }
    }

    fn next(&mut self) -> Result<Token> {
        let at = self.position;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Token::End) };
        match first {
            '"' | '`' => self.string(first),
            '0'..='9' => self.number(),
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            c if c == '_' || c.is_alphabetic() => {
                let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
                Ok(Token::Ident(self.advance(length).to_owned()))
            }
            '-' if rest.starts_with("--") && rest[2..].starts_with(|c: char| c.is_ascii_alphabetic()) => {
                let length =
                    rest[2..].find(|c: char| !c.is_ascii_alphabetic() && c != '-').unwrap_or(rest.len() - 2);
                Ok(Token::Flag(self.advance(length + 2)[2..].to_owned()))
            }
            _ => match PUNCT.iter().find(|p| rest.starts_with(**p)) {
                Some(punct) => {
                    self.advance(punct.len());
                    Ok(Token::Punct(punct))
                }
                None => Err(error_at(at, format_args!("syntax error: unexpected character {first:?}"))),
            },
        }
    }

    fn number(&mut self) -> Result<Token> {
        let at = self.position;
        let rest = self.rest();
        let mut length = rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '_' | 'µ' | 'μ')))
            .unwrap_or(rest.len());
        // An exponent's sign: 1e-3.
        if rest[..length].ends_with(['e', 'E'])
            && rest[..length - 1].bytes().all(|b| b.is_ascii_digit() || b == b'.')
            && let Some(tail) = rest[length..].strip_prefix(['+', '-'])
        {
            let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
            if digits > 0 {
                length += 1 + digits;
            }
        }
        let text = self.advance(length);
        if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
            && let Ok(value) = u64::from_str_radix(hex, 16)
        {
            return Ok(Token::Number(value as f64));
        }
        if text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
            && let Ok(value) = text.parse::<f64>()
            && value.is_finite()
        {
            return Ok(Token::Number(value));
        }
        if let Some(ns) = units::parse_duration_ns(text) {
            return Ok(Token::Duration(ns));
        }
        if let Some(bytes) = units::parse_bytes(text) {
            return Ok(Token::Bytes(bytes));
        }
        Err(error_at(at, format_args!("syntax error: bad number {text:?}")))
    }

    fn string(&mut self, quote: char) -> Result<Token> {
        let at = self.position;
        let rest = self.rest();
        let unterminated = || error_at(at, "literal not terminated");
        if quote == '`' {
            let length = rest[1..].find('`').ok_or_else(unterminated)?;
            let taken = self.advance(length + 2);
            return Ok(Token::String(taken[1..=length].replace('\r', "")));
        }
        let mut out = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.advance(i + 1);
                    return Ok(Token::String(out));
                }
                '\n' => return Err(unterminated()),
                '\\' => {
                    let (_, escape) = chars.next().ok_or_else(unterminated)?;
                    let bad =
                        || error_at(at, format_args!("syntax error: invalid escape \\{escape} in string"));
                    let digits = match escape {
                        'a' => {
                            out.push('\x07');
                            continue;
                        }
                        'b' => {
                            out.push('\x08');
                            continue;
                        }
                        'f' => {
                            out.push('\x0c');
                            continue;
                        }
                        'n' => {
                            out.push('\n');
                            continue;
                        }
                        'r' => {
                            out.push('\r');
                            continue;
                        }
                        't' => {
                            out.push('\t');
                            continue;
                        }
                        'v' => {
                            out.push('\x0b');
                            continue;
                        }
                        '\\' | '"' => {
                            out.push(escape);
                            continue;
                        }
                        'x' => (16, 2, 0),
                        'u' => (16, 4, 0),
                        'U' => (16, 8, 0),
                        '0'..='7' => (8, 2, escape.to_digit(8).unwrap_or(0)),
                        _ => return Err(bad()),
                    };
                    let (radix, count, mut value) = digits;
                    for _ in 0..count {
                        let (_, digit) = chars.next().ok_or_else(unterminated)?;
                        let digit = digit.to_digit(radix).ok_or_else(bad)?;
                        value = value.wrapping_mul(radix) | digit;
                    }
                    // `\xff` is a byte in Go; lines are UTF-8 here, so it is read as the code point.
                    out.push(char::from_u32(value).ok_or_else(bad)?);
                }
                _ => out.push(c),
            }
        }
        Err(unterminated())
    }
}
