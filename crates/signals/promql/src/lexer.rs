//! Text to tokens. Knows no grammar, except that `:` belongs to a metric name outside of braces and brackets only.
//!
//! Keywords are not tokens of their own: nearly all of them may also be metric or label names, so the parser decides by
//! place. A lexical error becomes a token, so that an earlier mistake in the grammar is reported first.

use crate::ast::Span;

#[derive(Debug, Clone, PartialEq)]
pub enum Tok {
    /// `foo`, and outside of braces and brackets also `foo:bar`.
    Ident,
    Number(f64),
    /// `5m`, in seconds.
    Duration(f64),
    Str(StringValue),
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    At,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    /// `=`
    Assign,
    /// `==`
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// `=~`
    EqRegex,
    /// `!~`
    NeRegex,
    /// `</`
    TrimUpper,
    /// `>/`
    TrimLower,
    Eof,
    Error(String),
}

/// An unquoted string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StringValue {
    /// Bytes that are not UTF-8, which escapes can write, stand here as `\xff`.
    pub text: String,
    /// The bytes, where they are not UTF-8.
    pub raw: Option<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub tok: Tok,
    pub span: Span,
}

/// All tokens of `text`; the last one is `Eof` or `Error`.
pub fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, braces: false, brackets: false, parens: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank();
        let mut start = lexer.at;
        let tok = lexer.next().unwrap_or_else(Tok::Error);
        let mut end = lexer.at;
        if matches!(tok, Tok::Error(_)) {
            // Prometheus points behind a parenthesis too many.
            start += usize::from(!lexer.braces && lexer.peek(0) == b')');
            end = text.len();
        }
        let last = matches!(tok, Tok::Eof | Tok::Error(_));
        tokens.push(Token { tok, span: Span::new(start, end) });
        if last {
            return tokens;
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    braces: bool,
    brackets: bool,
    parens: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_blank(&mut self) {
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                b'#' => {
                    while self.at < self.bytes.len() && self.peek(0) != b'\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn eat(&mut self, bytes: usize, tok: Tok) -> Result<Tok, String> {
        self.at += bytes;
        Ok(tok)
    }

    fn next(&mut self) -> Result<Tok, String> {
        if self.at >= self.bytes.len() {
            return if self.braces {
                Err("unexpected end of input inside braces".into())
            } else if self.brackets {
                Err("unexpected end of input in duration expression".into())
            } else if self.parens > 0 {
                Err("unclosed left parenthesis".into())
            } else {
                Ok(Tok::Eof)
            };
        }
        let c = self.peek(0);
        if self.braces {
            return self.next_in_braces(c);
        }
        match c {
            b',' => self.eat(1, Tok::Comma),
            b'+' => self.eat(1, Tok::Add),
            b'-' => self.eat(1, Tok::Sub),
            b'*' => self.eat(1, Tok::Mul),
            b'/' => self.eat(1, Tok::Div),
            b'%' => self.eat(1, Tok::Mod),
            b'^' => self.eat(1, Tok::Pow),
            b'@' => self.eat(1, Tok::At),
            b'=' => match self.peek(1) {
                b'=' => self.eat(2, Tok::Eq),
                b'~' => Err("unexpected character after '=': '~'".into()),
                _ => self.eat(1, Tok::Assign),
            },
            b'!' => match self.peek(1) {
                b'=' => self.eat(2, Tok::Ne),
                _ => Err(format!("unexpected character after '!': {}", self.shown(1))),
            },
            b'<' => match self.peek(1) {
                b'=' => self.eat(2, Tok::Le),
                b'/' => self.eat(2, Tok::TrimUpper),
                _ => self.eat(1, Tok::Lt),
            },
            b'>' => match self.peek(1) {
                b'=' => self.eat(2, Tok::Ge),
                b'/' => self.eat(2, Tok::TrimLower),
                _ => self.eat(1, Tok::Gt),
            },
            b'(' => {
                self.parens += 1;
                self.eat(1, Tok::LeftParen)
            }
            b')' => {
                self.parens = self.parens.checked_sub(1).ok_or("unexpected right parenthesis ')'")?;
                self.eat(1, Tok::RightParen)
            }
            b'{' => {
                self.braces = true;
                self.eat(1, Tok::LeftBrace)
            }
            b'[' => {
                if self.brackets {
                    return Err("unexpected left bracket '['".into());
                }
                self.brackets = true;
                self.eat(1, Tok::LeftBracket)
            }
            b']' => {
                if !self.brackets {
                    return Err("unexpected right bracket ']'".into());
                }
                self.brackets = false;
                self.eat(1, Tok::RightBracket)
            }
            b':' if self.brackets => self.eat(1, Tok::Colon),
            b'"' | b'\'' | b'`' if self.brackets => {
                Err(format!("unexpected character in duration expression: {}", self.shown(0)))
            }
            b'"' | b'\'' | b'`' => self.string(c),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_ascii_digit() => self.number(),
            c if c.is_ascii_alphabetic() || c == b'_' || c == b':' => {
                let colons = !self.brackets;
                while matches!(self.peek(0), b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_')
                    || (colons && self.peek(0) == b':')
                {
                    self.at += 1;
                }
                Ok(Tok::Ident)
            }
            _ => Err(format!("unexpected character: {}", self.shown(0))),
        }
    }

    fn next_in_braces(&mut self, c: u8) -> Result<Tok, String> {
        match c {
            b',' => self.eat(1, Tok::Comma),
            b'}' => {
                self.braces = false;
                self.eat(1, Tok::RightBrace)
            }
            b'{' => Err("unexpected left brace '{'".into()),
            b'=' => match self.peek(1) {
                b'~' => self.eat(2, Tok::EqRegex),
                _ => self.eat(1, Tok::Assign),
            },
            b'!' => match self.peek(1) {
                b'=' => self.eat(2, Tok::Ne),
                b'~' => self.eat(2, Tok::NeRegex),
                _ => Err(format!("unexpected character after '!' inside braces: {}", self.shown(1))),
            },
            b'"' | b'\'' | b'`' => self.string(c),
            c if c.is_ascii_alphabetic() || c == b'_' => {
                while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == b'_' {
                    self.at += 1;
                }
                Ok(Tok::Ident)
            }
            _ => Err(format!("unexpected character inside braces: {}", self.shown(0))),
        }
    }

    /// The character at `ahead`, quoted for an error text.
    fn shown(&self, ahead: usize) -> String {
        match self.text.get(self.at + ahead..).and_then(|rest| rest.chars().next()) {
            Some(c) => format!("{c:?}"),
            None => "end of input".into(),
        }
    }

    fn number(&mut self) -> Result<Tok, String> {
        let start = self.at;
        if let Some((seconds, length)) = duration_prefix(&self.text[start..]) {
            self.at += length;
            return Ok(Tok::Duration(seconds));
        }
        let hex = self.peek(0) == b'0' && matches!(self.peek(1), b'x' | b'X');
        if hex {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() || self.peek(0) == b'_' {
                self.at += 1;
            }
        } else {
            let digits = |l: &mut Self| {
                while l.peek(0).is_ascii_digit() || l.peek(0) == b'_' {
                    l.at += 1;
                }
            };
            digits(self);
            if self.peek(0) == b'.' {
                self.at += 1;
                digits(self);
            }
            if matches!(self.peek(0), b'e' | b'E') {
                let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
                if self.peek(1 + sign).is_ascii_digit() {
                    self.at += 1 + sign;
                    digits(self);
                }
            }
        }
        let text = &self.text[start..self.at];
        let follows = self.peek(0);
        let value = if follows.is_ascii_alphanumeric() || follows == b'_' || follows == b'.' {
            None
        } else {
            parse_number(text)
        };
        value.map(Tok::Number).ok_or_else(|| {
            let rest = &self.text[start..];
            let end =
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_.:".contains(c))).unwrap_or(rest.len());
            format!("bad number or duration syntax: {:?}", &rest[..end])
        })
    }

    fn string(&mut self, quote: u8) -> Result<Tok, String> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek(0) {
                _ if self.at >= self.bytes.len() => {
                    return Err(if quote == b'`' {
                        "unterminated raw string"
                    } else {
                        "unterminated quoted string"
                    }
                    .into());
                }
                b'\n' if quote != b'`' => return Err("unterminated quoted string".into()),
                b'\\' if quote != b'`' => {
                    self.at += 1;
                    // What follows may be a character of several bytes: stepping over its first byte is enough, no
                    // later byte of it can be a quote or a backslash.
                    self.at += 1;
                }
                c if c == quote => {
                    self.at += 1;
                    break;
                }
                _ => self.at += 1,
            }
        }
        let inner = self.bytes.get(start + 1..self.at - 1).unwrap_or_default();
        if quote == b'`' {
            return Ok(Tok::Str(StringValue {
                text: String::from_utf8_lossy(inner).into_owned(),
                raw: None,
            }));
        }
        match unescape(inner, quote) {
            Some(bytes) => Ok(Tok::Str(string_value(bytes))),
            None => Err(format!(
                "error unquoting string {:?}: invalid syntax",
                String::from_utf8_lossy(&self.bytes[start..self.at])
            )),
        }
    }
}

fn string_value(bytes: Vec<u8>) -> StringValue {
    match String::from_utf8(bytes) {
        Ok(text) => StringValue { text, raw: None },
        Err(e) => {
            let mut text = String::new();
            for chunk in e.as_bytes().utf8_chunks() {
                text.push_str(chunk.valid());
                for byte in chunk.invalid() {
                    text.push_str(&format!("\\x{byte:02x}"));
                }
            }
            StringValue { text, raw: Some(e.into_bytes()) }
        }
    }
}

/// The escapes of Go's interpreted string literals.
fn unescape(inner: &[u8], quote: u8) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&c, tail)) = rest.split_first() {
        rest = tail;
        if c != b'\\' {
            out.push(c);
            continue;
        }
        let (&e, tail) = rest.split_first()?;
        rest = tail;
        let mut digits = |count: usize, radix: u32| -> Option<u32> {
            let (head, tail) = rest.split_at_checked(count)?;
            rest = tail;
            let head = std::str::from_utf8(head).ok()?;
            if head.starts_with(['+', '-']) {
                return None;
            }
            u32::from_str_radix(head, radix).ok()
        };
        match e {
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'\\' => out.push(b'\\'),
            q if q == quote => out.push(q),
            b'x' => out.push(digits(2, 16)? as u8),
            b'u' | b'U' => {
                let code = digits(if e == b'u' { 4 } else { 8 }, 16)?;
                out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
            }
            b'0'..=b'7' => {
                let low = digits(2, 8)?;
                out.push(u8::try_from(u32::from(e - b'0') * 64 + low).ok()?);
            }
            _ => return None,
        }
    }
    Some(out)
}

/// `5m30s` at the start of `text`: seconds and length. Units must come in descending order, each once.
fn duration_prefix(text: &str) -> Option<(f64, usize)> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    let bytes = text.as_bytes();
    let (mut at, mut next_unit, mut total_ms) = (0, 0, 0i64);
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        let digits = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        let letters = bytes[at + digits..].iter().take_while(|b| b.is_ascii_alphabetic()).count();
        let unit = &text[at + digits..at + digits + letters];
        let found = UNITS.iter().enumerate().skip(next_unit).find(|(_, (name, _))| *name == unit);
        let (index, (_, unit_ms)) = found?;
        let count: i64 = text[at..at + digits].parse().ok()?;
        total_ms = count.checked_mul(*unit_ms).and_then(|ms| total_ms.checked_add(ms))?;
        next_unit = index + 1;
        at += digits + letters;
    }
    let ends = !bytes.get(at).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'.');
    (at > 0 && ends).then_some((total_ms as f64 / 1000.0, at))
}

/// A Prometheus duration such as `5m` or `1h30m`, in milliseconds.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    match duration_prefix(text) {
        Some((seconds, length)) if length == text.len() => Some((seconds * 1000.0).round() as i64),
        _ if text == "0" => Some(0),
        _ => None,
    }
}

/// Integers in Go's base-0 notation (`0x1f`, `017`, `1_000`), else a float.
pub fn parse_number(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    let plain: String = lower.chars().filter(|c| *c != '_').collect();
    let badly_placed = lower.starts_with('_') || lower.ends_with('_') || lower.contains("__");
    if badly_placed || (lower.contains('_') && lower.contains(['.', 'e']) && !lower.starts_with("0x")) {
        return None;
    }
    if let Some(hex) = plain.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(|v| v as f64);
    }
    let digits = plain.len() > 1 && plain.starts_with('0') && plain.bytes().all(|b| b.is_ascii_digit());
    if let (true, Ok(octal)) = (digits, i64::from_str_radix(&plain, 8)) {
        return Some(octal as f64);
    }
    match plain.as_str() {
        "inf" | "+inf" => return Some(f64::INFINITY),
        "-inf" => return Some(f64::NEG_INFINITY),
        "nan" | "+nan" | "-nan" => return Some(f64::NAN),
        _ => {}
    }
    let first = plain.trim_start_matches(['+', '-']);
    if !first.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    // A literal beyond the range of f64 is an error in Go, infinity in Rust.
    plain.parse::<f64>().ok().filter(|v| v.is_finite())
}
