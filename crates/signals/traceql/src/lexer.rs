//! Text to tokens, each with its place in the text.
//!
//! An attribute is one token: a scope's word and a dot (`span.`, or a bare `.`), then every rune up to white space or one of
//! `{ } ( ) = ~ ! < > & | ^ ,`. So `.a+b` names one attribute and `.a + b` is a sum. Parts may be quoted, with `\"` and `\\`.
//! `//` and `/* */` comment.

use triptych_model::{Error, Result};

use crate::source::{Attribute, Scope};

/// Longest query accepted, in bytes (Tempo's default limit of an expression).
pub const QUERY_BYTES_MAX: usize = 128 * 1024;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Attribute(Attribute),
    /// `trace:`, `span:`, `event:`, `link:`, `instrumentation:` and the word after it.
    ScopedIntrinsic(String),
    Word(String),
    String(String),
    Int(i64),
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
    /// Operators and punctuation.
    Sign(&'static str),
    End,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::Attribute(a) => write!(f, "{a}"),
            Token::ScopedIntrinsic(s) | Token::Word(s) => f.write_str(s),
            Token::String(s) => write!(f, "{s:?}"),
            Token::Int(i) => write!(f, "{i}"),
            Token::Float(v) => write!(f, "{v:?}"),
            Token::Duration(ns) => write!(f, "{ns}ns"),
            Token::Sign(s) => f.write_str(s),
            Token::End => f.write_str("end of query"),
        }
    }
}

/// An error that says where: `parse error at line 1, col 5: ...`, both from 1, columns in runes.
pub(crate) fn error_at(text: &str, at: usize, message: impl std::fmt::Display) -> Error {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let col = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    Error::invalid(format!("parse error at line {line}, col {col}: {message}"))
}

/// Longest first.
const SIGNS: &[&str] = &[
    "!>>", "!<<", "&>>", "&<<", "&&", "||", ">>", "<<", ">=", "<=", "=~", "!~", "!=", "!>", "!<", "&>", "&<",
    "&~", "{", "}", "(", ")", ",", "|", "~", ">", "<", "=", "!", "+", "-", "*", "/", "%", "^",
];

const SCOPES: &[(&str, Scope)] = &[
    ("span", Scope::Span),
    ("resource", Scope::Resource),
    ("event", Scope::Event),
    ("link", Scope::Link),
    ("instrumentation", Scope::Instrumentation),
];

/// Whether a rune may stand in an attribute's name without quotes.
pub(crate) fn is_attribute_rune(c: char) -> bool {
    !c.is_whitespace()
        && !matches!(c, '{' | '}' | '(' | ')' | '=' | '~' | '!' | '<' | '>' | '&' | '|' | '^' | ',')
}

/// All tokens and where they begin; the last is [`Token::End`].
pub(crate) fn lex(text: &str) -> Result<Vec<(Token, usize)>> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the query has {} bytes, the limit is {QUERY_BYTES_MAX}",
            text.len()
        )));
    }
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space()?;
        let at = lexer.at;
        let token = lexer.token()?;
        let done = token == Token::End;
        tokens.push((token, at));
        if done {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn fail<T>(&self, at: usize, message: impl std::fmt::Display) -> Result<T> {
        Err(error_at(self.text, at, message))
    }

    /// Takes runes as long as `take` likes them.
    fn take_while(&mut self, take: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !take(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_space(&mut self) -> Result<()> {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest().starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest().starts_with("/*") {
                match self.rest().find("*/") {
                    Some(end) => self.at += end + 2,
                    None => return self.fail(self.at, "comment is not closed"),
                }
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Token> {
        let at = self.at;
        let Some(c) = self.peek() else { return Ok(Token::End) };
        if c.is_ascii_digit() || (c == '.' && self.rest()[1..].starts_with(|d: char| d.is_ascii_digit())) {
            return self.number();
        }
        if c == '.' {
            self.at += 1;
            return self.attribute(at, Scope::Any);
        }
        if c == '"' || c == '`' {
            return self.string(c);
        }
        if c.is_alphabetic() || c == '_' {
            let word = self.take_while(|c| c.is_alphanumeric() || c == '_');
            if let Some((_, scope)) = SCOPES.iter().find(|(name, _)| *name == word)
                && self.rest().starts_with('.')
            {
                self.at += 1;
                return self.attribute(at, *scope);
            }
            if word == "parent" && self.rest().starts_with('.') {
                return self.fail(at, "attributes of the parent span (parent.) are not supported");
            }
            if self.rest().starts_with(':')
                && (word == "trace" || SCOPES.iter().any(|(name, _)| *name == word))
            {
                self.at += 1;
                self.take_while(|c| c.is_alphanumeric() || c == '_');
                return Ok(Token::ScopedIntrinsic(self.text[at..self.at].to_owned()));
            }
            return Ok(Token::Word(word.to_owned()));
        }
        match SIGNS.iter().find(|s| self.rest().starts_with(**s)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => self.fail(at, format_args!("unexpected character {c:?}")),
        }
    }

    /// The name after the dot.
    fn attribute(&mut self, start: usize, scope: Scope) -> Result<Token> {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            if c == '"' {
                let quote_at = self.at;
                self.at += 1;
                loop {
                    match self.peek() {
                        None => return self.fail(quote_at, "attribute name: quote is not closed"),
                        Some('"') => break self.at += 1,
                        Some('\\') => {
                            self.at += 1;
                            match self.peek() {
                                Some(escaped @ ('"' | '\\')) => name.push(escaped),
                                _ => {
                                    return self
                                        .fail(self.at, r#"attribute name: only \" and \\ are escapes"#);
                                }
                            }
                            self.at += 1;
                        }
                        Some(other) => {
                            name.push(other);
                            self.at += other.len_utf8();
                        }
                    }
                }
            } else if is_attribute_rune(c) {
                name.push(c);
                self.at += c.len_utf8();
            } else {
                break;
            }
        }
        if name.is_empty() {
            return self.fail(start, "attribute has no name");
        }
        Ok(Token::Attribute(Attribute::Named(scope, name.into())))
    }

    /// An integer, a float, or a duration such as `1h15m30.5s`.
    fn number(&mut self) -> Result<Token> {
        let at = self.at;
        let digits = |l: &mut Self| l.take_while(|c| c.is_ascii_digit()).len();
        digits(self);
        let mut float = false;
        if self.rest().starts_with('.') {
            self.at += 1;
            digits(self);
            float = true;
        }
        if self.rest().starts_with(|c: char| c.is_ascii_alphabetic() || c == 'µ' || c == 'μ') {
            let number_end = self.at;
            // An exponent is `e`, perhaps a sign, and digits; no unit begins with `e`.
            let exponent = self.rest().strip_prefix(['e', 'E']).unwrap_or("");
            let signed = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if self.rest().starts_with(['e', 'E']) && signed.starts_with(|c: char| c.is_ascii_digit()) {
                self.at += 1 + exponent.len() - signed.len();
                digits(self);
                float = true;
            } else {
                self.at = at;
                if let Some(ns) = self.duration()? {
                    return Ok(Token::Duration(ns));
                }
                self.at = number_end;
            }
        }
        let text = &self.text[at..self.at];
        if float {
            return match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Token::Float(value)),
                _ => self.fail(at, format_args!("number {text} is out of range")),
            };
        }
        match text.parse::<i64>() {
            Ok(value) => Ok(Token::Int(value)),
            Err(_) => self.fail(at, format_args!("integer {text} is out of range")),
        }
    }

    /// `None` where what follows a number is no unit.
    fn duration(&mut self) -> Result<Option<i64>> {
        let at = self.at;
        let mut total = 0i128;
        while self.rest().starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            let whole = self.take_while(|c| c.is_ascii_digit());
            let mut fraction = "";
            if self.rest().starts_with('.') {
                self.at += 1;
                fraction = self.take_while(|c| c.is_ascii_digit());
            }
            let unit = self.take_while(|c| c.is_alphabetic());
            let unit_ns: i128 = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                "d" => 24 * 3_600_000_000_000,
                "w" => 7 * 24 * 3_600_000_000_000,
                "y" => 365 * 24 * 3_600_000_000_000,
                _ => return Ok(None),
            };
            // Beyond 18 digits a fraction of even a year is below a nanosecond; a whole beyond 19 is out of range.
            let fraction = &fraction[..fraction.len().min(18)];
            let parsed = (|| {
                let whole: i128 = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.into() };
                let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()?.into() };
                whole.checked_mul(unit_ns)?.checked_add(part * unit_ns / 10i128.pow(fraction.len() as u32))
            })();
            total = match parsed.and_then(|ns| total.checked_add(ns)) {
                Some(sum) if sum <= i128::from(i64::MAX) => sum,
                _ => return self.fail(at, "duration is out of range"),
            };
        }
        Ok(Some(total as i64))
    }

    /// Go's interpreted ("") and raw (``) strings.
    fn string(&mut self, quote: char) -> Result<Token> {
        let start = self.at;
        self.at += 1;
        if quote == '`' {
            let text = self.take_while(|c| c != '`');
            if self.peek().is_none() {
                return self.fail(start, "string is not closed");
            }
            self.at += 1;
            return Ok(Token::String(text.to_owned()));
        }
        let mut bytes = Vec::new();
        loop {
            let at = self.at;
            let Some(c) = self.peek() else { return self.fail(start, "string is not closed") };
            self.at += c.len_utf8();
            match c {
                '"' => break,
                '\n' => return self.fail(start, "string is not closed before the end of the line"),
                '\\' => {
                    let Some(e) = self.peek() else { return self.fail(start, "string is not closed") };
                    self.at += e.len_utf8();
                    match e {
                        'a' => bytes.push(7),
                        'b' => bytes.push(8),
                        'f' => bytes.push(12),
                        'n' => bytes.push(b'\n'),
                        'r' => bytes.push(b'\r'),
                        't' => bytes.push(b'\t'),
                        'v' => bytes.push(11),
                        '\\' | '"' => bytes.push(e as u8),
                        'x' => bytes.push(self.escape_digits(at, 2, 16)? as u8),
                        'u' | 'U' => {
                            let digits = if e == 'u' { 4 } else { 8 };
                            match char::from_u32(self.escape_digits(at, digits, 16)?) {
                                Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                                None => return self.fail(at, "escape is no Unicode character"),
                            }
                        }
                        '0'..='7' => {
                            self.at -= 1;
                            match u8::try_from(self.escape_digits(at, 3, 8)?) {
                                Ok(byte) => bytes.push(byte),
                                Err(_) => return self.fail(at, "octal escape is out of range"),
                            }
                        }
                        _ => return self.fail(at, format_args!("unknown escape \\{e}")),
                    }
                }
                _ => bytes.extend_from_slice(&self.text.as_bytes()[at..self.at]),
            }
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Token::String(text)),
            Err(_) => self.fail(start, "string is not UTF-8"),
        }
    }

    fn escape_digits(&mut self, at: usize, count: usize, radix: u32) -> Result<u32> {
        let digits = self.rest().get(..count).filter(|d| d.chars().all(|c| c.is_digit(radix)));
        let Some(value) = digits.and_then(|d| u32::from_str_radix(d, radix).ok()) else {
            return self.fail(at, format_args!("escape needs {count} digits"));
        };
        self.at += count;
        Ok(value)
    }
}
