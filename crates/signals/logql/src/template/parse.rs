//! Template text to nodes.

use std::sync::Arc;

use triptych_model::{Error, Result};

use super::functions::Function;
use super::value::Value;
use super::{Node, Pipe, Term};
use crate::pipeline::regexes;

/// Blocks and parentheses inside each other.
const NESTING_MAX: usize = 32;

/// Text, or what stands between `{{` and `}}`.
enum Item<'a> {
    Text(&'a str),
    Action(&'a str),
}

struct Items<'a> {
    rest: &'a str,
    /// `-}}` was read: blanks in front of what follows go.
    trim: bool,
}

fn bad(what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("invalid template: {what}"))
}

impl<'a> Items<'a> {
    fn next(&mut self) -> Result<Option<Item<'a>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if !self.rest.starts_with("{{") {
            let end = self.rest.find("{{").unwrap_or(self.rest.len());
            let (mut text, rest) = self.rest.split_at(end);
            self.rest = rest;
            if std::mem::take(&mut self.trim) {
                text = text.trim_start();
            }
            let mut after = rest.strip_prefix("{{-").unwrap_or("").chars();
            if after.next().is_some_and(char::is_whitespace) {
                text = text.trim_end();
            }
            return Ok(Some(Item::Text(text)));
        }
        self.trim = false;
        let inside = &self.rest[2..];
        let inside = match inside.strip_prefix('-') {
            Some(tail) if tail.starts_with(char::is_whitespace) => tail,
            _ => inside,
        };
        if inside.trim_start().starts_with("/*") {
            let (_, tail) = inside.split_once("*/").ok_or_else(|| bad("unclosed comment"))?;
            let (dash, tail) = tail.split_once("}}").ok_or_else(|| bad("unclosed action"))?;
            self.trim = dash.trim() == "-";
            self.rest = tail;
            return Ok(Some(Item::Text("")));
        }
        // The end, outside of string literals.
        let bytes = inside.as_bytes();
        let mut at = 0;
        loop {
            match bytes.get(at) {
                None => return Err(bad("unclosed action")),
                Some(b'}') if bytes.get(at + 1) == Some(&b'}') => break,
                Some(&quote @ (b'"' | b'`' | b'\'')) => {
                    at += 1;
                    loop {
                        match bytes.get(at) {
                            None => return Err(bad("unterminated string")),
                            Some(b'\\') if quote != b'`' => at += 2,
                            Some(&b) if b == quote => break,
                            Some(_) => at += 1,
                        }
                    }
                    at += 1;
                }
                Some(_) => at += 1,
            }
        }
        let action = &inside[..at];
        self.rest = &inside[at + 2..];
        let action = match action.strip_suffix('-') {
            Some(head) if head.ends_with(char::is_whitespace) => {
                self.trim = true;
                head
            }
            _ => action,
        };
        Ok(Some(Item::Action(action.trim())))
    }
}

pub fn parse(text: &str) -> Result<Vec<Node>> {
    let mut items = Items { rest: text, trim: false };
    let mut variables = Vec::new();
    let (nodes, end) = list(&mut items, &mut variables, 0)?;
    match end {
        End::Eof => Ok(nodes),
        End::Closed => Err(bad("unexpected {{end}}")),
        End::Else(_) => Err(bad("unexpected {{else}}")),
    }
}

enum End<'a> {
    Eof,
    Closed,
    /// What stands behind `else`.
    Else(&'a str),
}

fn list<'a>(
    items: &mut Items<'a>,
    variables: &mut Vec<String>,
    depth: usize,
) -> Result<(Vec<Node>, End<'a>)> {
    if depth > NESTING_MAX {
        return Err(bad(format_args!("nested deeper than {NESTING_MAX}")));
    }
    let mut nodes = Vec::new();
    loop {
        let action = match items.next()? {
            None => return Ok((nodes, End::Eof)),
            Some(Item::Text("")) => continue,
            Some(Item::Text(text)) => {
                nodes.push(Node::Text(text.to_owned()));
                continue;
            }
            Some(Item::Action(action)) => action,
        };
        let word_length = action.find(|c: char| !c.is_alphanumeric()).unwrap_or(action.len());
        let (word, tail) = action.split_at(word_length);
        let scope = variables.len();
        match word {
            "end" if tail.is_empty() => return Ok((nodes, End::Closed)),
            "else" => return Ok((nodes, End::Else(tail.trim()))),
            "if" => {
                let mut branches = Vec::new();
                let mut condition = tail;
                let otherwise = loop {
                    let condition_pipe = pipe(condition, variables)?;
                    let (body, end) = list(items, variables, depth + 1)?;
                    branches.push((condition_pipe, body));
                    match end {
                        End::Closed => break Vec::new(),
                        End::Eof => return Err(bad("unexpected EOF: {{end}} is missing")),
                        End::Else("") => break closed(list(items, variables, depth + 1)?)?,
                        End::Else(more) => match more.strip_prefix("if") {
                            Some(next) if next.starts_with([' ', '\t', '(', '\n']) => condition = next,
                            _ => return Err(bad(format_args!("unexpected {more:?} behind else"))),
                        },
                    }
                };
                variables.truncate(scope);
                nodes.push(Node::If { branches, otherwise });
            }
            "with" | "range" => {
                let pipe = pipe(tail, variables)?;
                let (body, end) = list(items, variables, depth + 1)?;
                let otherwise = match end {
                    End::Closed => Vec::new(),
                    End::Eof => return Err(bad("unexpected EOF: {{end}} is missing")),
                    End::Else("") => closed(list(items, variables, depth + 1)?)?,
                    End::Else(more) => return Err(bad(format_args!("unexpected {more:?} behind else"))),
                };
                variables.truncate(scope);
                nodes.push(if word == "with" {
                    Node::With { pipe, body, otherwise }
                } else {
                    Node::Range { pipe, body, otherwise }
                });
            }
            "define" | "block" | "template" | "break" | "continue" => {
                return Err(bad(format_args!("{{{{{word}}}}} is not supported")));
            }
            _ if action.is_empty() => return Err(bad("missing value for command")),
            _ => nodes.push(Node::Output(pipe(action, variables)?)),
        }
    }
}

fn closed((nodes, end): (Vec<Node>, End<'_>)) -> Result<Vec<Node>> {
    match end {
        End::Closed => Ok(nodes),
        End::Eof => Err(bad("unexpected EOF: {{end}} is missing")),
        End::Else(_) => Err(bad("unexpected {{else}}")),
    }
}

struct Cursor<'a> {
    rest: &'a str,
    depth: usize,
}

fn pipe(text: &str, variables: &mut Vec<String>) -> Result<Pipe> {
    let mut cursor = Cursor { rest: text.trim(), depth: 0 };
    let pipe = cursor.pipe(variables)?;
    if !cursor.rest.is_empty() {
        return Err(bad(format_args!("unexpected {:?} in command", cursor.rest)));
    }
    Ok(pipe)
}

impl<'a> Cursor<'a> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn name(&mut self) -> &'a str {
        let length = self.rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest;
        name
    }

    /// `$a :=`, `$a, $b :=`, `$a =`, if that is what stands here.
    fn declaration(&mut self, pipe: &mut Pipe) {
        let mut look = Cursor { rest: self.rest, depth: 0 };
        let mut names = Vec::new();
        loop {
            let Some(tail) = look.rest.strip_prefix('$') else { return };
            look.rest = tail;
            let name = look.name();
            if name.is_empty() {
                return;
            }
            names.push(name.to_owned());
            look.skip();
            match look.rest.strip_prefix(',') {
                Some(tail) if names.len() < 2 => look.rest = tail.trim_start(),
                _ => break,
            }
        }
        let declares = look.rest.starts_with(":=");
        let Some(tail) = look.rest.strip_prefix(":=").or_else(|| look.rest.strip_prefix('=')) else { return };
        self.rest = tail;
        pipe.variables = names;
        pipe.declares = declares;
    }

    fn pipe(&mut self, variables: &mut Vec<String>) -> Result<Pipe> {
        if self.depth > NESTING_MAX {
            return Err(bad(format_args!("nested deeper than {NESTING_MAX}")));
        }
        let mut pipe = Pipe::default();
        self.skip();
        self.declaration(&mut pipe);
        loop {
            let mut command = Vec::new();
            loop {
                self.skip();
                if self.rest.is_empty() || self.rest.starts_with(['|', ')']) {
                    break;
                }
                command.push(self.term(variables)?);
            }
            if command.is_empty() {
                return Err(bad("missing value for command"));
            }
            if let [Term::Call(function), Term::Literal(first), ..] = command.as_mut_slice()
                && function.wants_regex()
                && let Value::Text(pattern) = &first
            {
                *first = Value::Regex(Arc::new(regexes::compile(pattern)?));
            }
            let callable = matches!(command.first(), Some(Term::Call(_)));
            if !callable && (command.len() > 1 || !pipe.commands.is_empty()) {
                return Err(bad("non executable command in pipeline"));
            }
            pipe.commands.push(command);
            match self.rest.strip_prefix('|') {
                Some(tail) => self.rest = tail,
                None => break,
            }
        }
        for name in &pipe.variables {
            if pipe.declares {
                variables.push(name.clone());
            } else if !variables.contains(name) {
                return Err(bad(format_args!("undefined variable \"${name}\"")));
            }
        }
        Ok(pipe)
    }

    /// `.a.b` behind something.
    fn path(&mut self) -> Vec<String> {
        let mut path = Vec::new();
        while let Some(tail) = self.rest.strip_prefix('.') {
            self.rest = tail;
            let name = self.name();
            if name.is_empty() {
                break;
            }
            path.push(name.to_owned());
        }
        path
    }

    fn term(&mut self, variables: &mut Vec<String>) -> Result<Term> {
        let first = self.rest.chars().next().unwrap_or(' ');
        match first {
            '(' => {
                self.rest = &self.rest[1..];
                self.depth += 1;
                let pipe = self.pipe(variables)?;
                self.depth -= 1;
                self.rest = self.rest.strip_prefix(')').ok_or_else(|| bad("unclosed left paren"))?;
                Ok(Term::Paren(Box::new(pipe), self.path()))
            }
            '.' if self.rest[1..].starts_with(|c: char| c == '_' || c.is_alphabetic()) => {
                Ok(Term::Field(self.path()))
            }
            '.' if !self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                self.rest = &self.rest[1..];
                Ok(Term::Dot)
            }
            '$' => {
                self.rest = &self.rest[1..];
                let name = self.name();
                if !name.is_empty() && !variables.iter().any(|v| v == name) {
                    return Err(bad(format_args!("undefined variable \"${name}\"")));
                }
                Ok(Term::Variable(name.to_owned(), self.path()))
            }
            '"' => {
                let mut end = 1;
                let bytes = self.rest.as_bytes();
                while end < bytes.len() && bytes[end] != b'"' {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                let literal = self.rest.get(..=end).ok_or_else(|| bad("unterminated quoted string"))?;
                let tokens = crate::syntax::lexer::lex(literal, usize::MAX).map_err(|e| bad(e.message))?;
                let Some(crate::syntax::lexer::Token::String(text)) =
                    tokens.into_iter().next().map(|t| t.token)
                else {
                    return Err(bad("bad string literal"));
                };
                self.rest = &self.rest[end + 1..];
                Ok(Term::Literal(Value::Text(text)))
            }
            '`' => {
                let end = self.rest[1..].find('`').ok_or_else(|| bad("unterminated raw quoted string"))?;
                let text = self.rest[1..=end].to_owned();
                self.rest = &self.rest[end + 2..];
                Ok(Term::Literal(Value::Text(text)))
            }
            '0'..='9' | '-' | '+' | '.' => {
                let length = self
                    .rest
                    .char_indices()
                    .skip(1)
                    .find(|(_, c)| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+')))
                    .map_or(self.rest.len(), |(i, _)| i);
                let (token, rest) = self.rest.split_at(length);
                let value = if let Ok(value) = token.parse::<i64>() {
                    Value::Int(value)
                } else if let Some(value) =
                    token.strip_prefix("0x").and_then(|h| i64::from_str_radix(h, 16).ok())
                {
                    Value::Int(value)
                } else if let Ok(value) = token.parse::<f64>() {
                    Value::Float(value)
                } else {
                    return Err(bad(format_args!("bad number syntax: {token:?}")));
                };
                self.rest = rest;
                Ok(Term::Literal(value))
            }
            c if c == '_' || c.is_alphabetic() => {
                let name = self.name();
                Ok(match name {
                    "true" => Term::Literal(Value::Bool(true)),
                    "false" => Term::Literal(Value::Bool(false)),
                    "nil" => Term::Literal(Value::Nil),
                    _ => Term::Call(
                        Function::from_name(name)
                            .ok_or_else(|| bad(format_args!("function {name:?} not defined")))?,
                    ),
                })
            }
            c => Err(bad(format_args!("unexpected {c:?} in command"))),
        }
    }
}
