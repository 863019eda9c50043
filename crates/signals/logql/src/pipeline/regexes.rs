//! Go's regex dialect (RE2) on the `regex` crate, and what can be said about a regex without running it.
//!
//! Differences that matter and are evened out here: `{` that starts no repetition is a plain brace, `\d`, `\w`, `\s`, `\b` are
//! ASCII, `[` and `&&` inside a class are plain, `\Q..\E` quotes.

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};
use triptych_model::matcher::REGEX_COMPILED_BYTES_MAX;
use triptych_model::{Error, Result};

/// Compiles a regex that may match anywhere in the text.
pub fn compile(pattern: &str) -> Result<Regex> {
    RegexBuilder::new(&translate(pattern))
        .size_limit(REGEX_COMPILED_BYTES_MAX)
        .build()
        .map_err(|e| Error::invalid(format!("error parsing regexp: {pattern:?}: {e}")))
}

/// RE2's syntax as the `regex` crate reads it.
pub fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut in_class = false;
    let mut class_start = false;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let at_class_start = std::mem::take(&mut class_start);
        match c {
            '\\' => {
                let Some(escaped) = after.chars().next() else {
                    out.push('\\');
                    return out;
                };
                let tail = &after[escaped.len_utf8()..];
                match (escaped, in_class) {
                    ('Q', false) => {
                        let (quoted, next) = tail.split_once("\\E").unwrap_or((tail, ""));
                        out.push_str(&regex::escape(quoted));
                        rest = next;
                        continue;
                    }
                    ('d', true) => out.push_str("0-9"),
                    ('w', true) => out.push_str("0-9A-Za-z_"),
                    ('s', true) => out.push_str("\\t\\n\\f\\r "),
                    ('d', false) => out.push_str("[0-9]"),
                    ('w', false) => out.push_str("[0-9A-Za-z_]"),
                    ('s', false) => out.push_str("[\\t\\n\\f\\r ]"),
                    ('D', _) => out.push_str("[^0-9]"),
                    ('W', _) => out.push_str("[^0-9A-Za-z_]"),
                    ('S', _) => out.push_str("[^\\t\\n\\f\\r ]"),
                    ('b', false) => out.push_str("(?-u:\\b)"),
                    ('B', false) => out.push_str("\\B"),
                    ('1'..='7', _) if tail.starts_with(|c: char| c.is_digit(8)) => {
                        // Octal.
                        let digits =
                            1 + tail.bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                        let value = u32::from_str_radix(&after[..digits], 8).unwrap_or(0);
                        out.push_str(&format!("\\x{{{value:x}}}"));
                        rest = &after[digits..];
                        continue;
                    }
                    ('0', _) => {
                        let digits = tail.bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                        let value = u32::from_str_radix(&tail[..digits], 8).unwrap_or(0);
                        out.push_str(&format!("\\x{{{value:x}}}"));
                        rest = &tail[digits..];
                        continue;
                    }
                    // `\p{Greek}`, `\x{41}`: the braces belong to it.
                    ('p' | 'P' | 'x', _) if tail.starts_with('{') && tail.contains('}') => {
                        let (name, next) = tail.split_at(tail.find('}').map_or(0, |end| end + 1));
                        out.push('\\');
                        out.push(escaped);
                        out.push_str(name);
                        rest = next;
                        continue;
                    }
                    _ => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
                rest = tail;
                continue;
            }
            '[' if in_class => match after.strip_prefix(':').and_then(|t| t.split_once(":]")) {
                Some((name, tail)) if !name.is_empty() && name.len() <= 8 => {
                    out.push_str("[:");
                    out.push_str(name);
                    out.push_str(":]");
                    rest = tail;
                    continue;
                }
                _ => out.push_str("\\["),
            },
            '[' => {
                in_class = true;
                class_start = true;
                out.push('[');
                if let Some(tail) = after.strip_prefix('^') {
                    out.push('^');
                    rest = tail;
                    continue;
                }
            }
            // Right behind `[` or `[^` it is a member.
            ']' if in_class && at_class_start => out.push_str("\\]"),
            ']' => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '-' if in_class && after.starts_with('-') => out.push_str("\\-"),
            '{' if !in_class && !is_repetition(after) => out.push_str("\\{"),
            '}' if !in_class && !closes_repetition(&out) => out.push_str("\\}"),
            _ => out.push(c),
        }
        rest = after;
    }
    out
}

/// Whether `2}`, `2,}` or `2,3}` stands here.
fn is_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
    !low.is_empty() && low.bytes().chain(high.bytes()).all(|b| b.is_ascii_digit())
}

/// Whether what was written so far ends inside of `{..` of a repetition or of `\x{..`, `\p{..`.
fn closes_repetition(out: &str) -> bool {
    match out.rfind('{') {
        Some(open) => !out[..open].ends_with('\\') && !out[open..].contains('}'),
        None => false,
    }
}

/// Texts of which at least one is in everything that matches. `ignore_case`: as ASCII letters of either case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Required {
    pub texts: Vec<Vec<u8>>,
    pub ignore_case: bool,
}

/// Most alternatives worth searching for.
const REQUIRED_TEXTS_MAX: usize = 64;

/// What must be in a line for the regex to match; `None` where nothing can be said.
pub fn required(pattern: &str) -> Option<Required> {
    let hir = parse_hir(pattern)?;
    let mut found = required_of(&hir)?;
    found.texts.sort();
    found.texts.dedup();
    (found.texts.iter().all(|t| !t.is_empty()) && found.texts.len() <= REQUIRED_TEXTS_MAX).then_some(found)
}

fn parse_hir(pattern: &str) -> Option<Hir> {
    regex_syntax::ParserBuilder::new().nest_limit(100).build().parse(&translate(pattern)).ok()
}

/// The alternatives if the regex does nothing else than look for them: `foo`, `foo|bar`, `.*foo.*`, `(?i)foo`.
pub fn only_literals(pattern: &str) -> Option<Required> {
    let hir = parse_hir(pattern)?;
    let found = literals_of(strip_any(&hir)?)?;
    (found.texts.iter().all(|t| !t.is_empty()) && found.texts.len() <= REQUIRED_TEXTS_MAX).then_some(found)
}

/// Without `.*` at both ends. `None` where more than one thing is left.
fn strip_any(hir: &Hir) -> Option<&Hir> {
    let HirKind::Concat(parts) = hir.kind() else { return Some(hir) };
    let is_any = |h: &Hir| match h.kind() {
        HirKind::Repetition(r) => {
            r.min == 0 && r.max.is_none() && matches!(r.sub.kind(), HirKind::Class(c) if is_dot(c))
        }
        _ => false,
    };
    if !parts.iter().any(is_any) {
        return Some(hir);
    }
    let mut left = parts.iter().filter(|p| !is_any(p));
    match (left.next(), left.next(), parts.iter().skip(1).take(parts.len().saturating_sub(2)).any(is_any)) {
        (Some(one), None, false) => Some(one),
        _ => None,
    }
}

fn is_dot(class: &Class) -> bool {
    let Class::Unicode(class) = class else { return false };
    let ranges: Vec<(char, char)> = class.iter().map(|r| (r.start(), r.end())).collect();
    ranges == [('\0', '\u{10ffff}')] || ranges == [('\0', '\u{9}'), ('\u{b}', '\u{10ffff}')]
}

/// The pair of an ASCII letter's cases, or one byte.
fn case_pair(class: &Class) -> Option<u8> {
    let Class::Unicode(class) = class else { return None };
    let mut letters = class.iter().flat_map(|r| r.start()..=r.end());
    match (letters.next(), letters.next(), letters.next()) {
        (Some(upper), Some(lower), None)
            if upper.is_ascii_uppercase() && upper.to_ascii_lowercase() == lower =>
        {
            Some(lower as u8)
        }
        _ => None,
    }
}

/// The text of a run that is literal but for the case of letters.
fn folded(parts: &[&Hir]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for part in parts {
        match part.kind() {
            HirKind::Literal(literal) => out.extend_from_slice(&literal.0),
            HirKind::Class(class) => out.push(case_pair(class)?),
            _ => return None,
        }
    }
    out.make_ascii_lowercase();
    Some(out)
}

fn literals_of(hir: &Hir) -> Option<Required> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(Required { texts: vec![literal.0.to_vec()], ignore_case: false }),
        HirKind::Capture(capture) => literals_of(&capture.sub),
        HirKind::Class(_) => folded(&[hir]).map(|text| Required { texts: vec![text], ignore_case: true }),
        // A mixed run such as `(?i)a-b`: its plain bytes have no case, or the literal would be a class. A plain letter in it
        // (`x(?i:foo)`) would be matched too widely.
        HirKind::Concat(parts) => {
            let parts: Vec<&Hir> = parts.iter().collect();
            let plain_letters = parts
                .iter()
                .any(|p| matches!(p.kind(), HirKind::Literal(l) if l.0.iter().any(u8::is_ascii_alphabetic)));
            if plain_letters {
                return None;
            }
            folded(&parts).map(|text| Required { texts: vec![text], ignore_case: true })
        }
        HirKind::Alternation(all) => union(all.iter().map(literals_of)),
        _ => None,
    }
}

fn union(all: impl Iterator<Item = Option<Required>>) -> Option<Required> {
    let mut out: Option<Required> = None;
    for one in all {
        let one = one?;
        match &mut out {
            None => out = Some(one),
            Some(out) if out.ignore_case == one.ignore_case => out.texts.extend(one.texts),
            Some(_) => return None,
        }
        if out.as_ref().is_some_and(|o| o.texts.len() > REQUIRED_TEXTS_MAX) {
            return None;
        }
    }
    out
}

fn required_of(hir: &Hir) -> Option<Required> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(Required { texts: vec![literal.0.to_vec()], ignore_case: false }),
        HirKind::Class(_) => folded(&[hir]).map(|text| Required { texts: vec![text], ignore_case: true }),
        HirKind::Capture(capture) => required_of(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => required_of(&repetition.sub),
        HirKind::Alternation(all) => {
            // Sides of different kinds are compared without case: that lets more through, never less.
            let sides: Option<Vec<Required>> = all.iter().map(required_of).collect();
            let mut sides = sides?;
            if sides.iter().any(|s| s.ignore_case) {
                for side in &mut sides {
                    side.ignore_case = true;
                    side.texts.iter_mut().for_each(|t| t.make_ascii_lowercase());
                }
            }
            union(sides.into_iter().map(Some))
        }
        HirKind::Concat(parts) => {
            // The best of: single parts, and runs that are literal but for case.
            let mut best: Option<Required> = None;
            let mut consider = |one: Required| {
                let shortest = |r: &Required| r.texts.iter().map(Vec::len).min().unwrap_or(0);
                if best.as_ref().is_none_or(|b| shortest(b) < shortest(&one)) {
                    best = Some(one);
                }
            };
            let mut run: Vec<&Hir> = Vec::new();
            let folds = |h: &Hir| match h.kind() {
                HirKind::Literal(_) => true,
                HirKind::Class(class) => case_pair(class).is_some(),
                _ => false,
            };
            for part in parts {
                if let Some(one) = required_of(part) {
                    consider(one);
                }
                if folds(part) {
                    run.push(part);
                    if run.len() > 1
                        && let Some(text) = folded(&run)
                    {
                        consider(Required { texts: vec![text], ignore_case: true });
                    }
                } else {
                    run.clear();
                }
            }
            best
        }
        _ => None,
    }
}
