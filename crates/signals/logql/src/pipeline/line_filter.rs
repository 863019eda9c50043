//! Line filters, and what they say about whole blocks.

use std::net::{IpAddr, Ipv4Addr};

use memchr::memmem::Finder;
use regex::Regex;
use triptych_model::{Error, Result};

use super::pattern::LinePattern;
use super::regexes::{self, Required};
use crate::syntax::ast::{LineFilterExpr, LineNeedle, LineOp};

/// One compiled line filter.
#[derive(Debug)]
pub struct LineTest {
    negative: bool,
    any: Vec<Needle>,
}

#[derive(Debug)]
enum Needle {
    Everything,
    Literal(Box<Finder<'static>>),
    Regex(Regex),
    Pattern(LinePattern),
    Ip(IpPattern),
}

impl LineTest {
    pub fn compile(expr: &LineFilterExpr) -> Result<Self> {
        let any =
            expr.needles.iter().map(|needle| Needle::compile(expr.op, needle)).collect::<Result<_>>()?;
        Ok(Self { negative: expr.op.is_negative(), any })
    }

    #[inline]
    pub fn passes(&self, line: &str) -> bool {
        self.any.iter().any(|needle| needle.is_in(line)) != self.negative
    }
}

/// Any of the texts, in bytes that need not be UTF-8. The regex crate searches for few texts with vector instructions, in
/// either case, where an automaton goes byte by byte.
fn searcher(required: &Required) -> Result<regex::bytes::Regex> {
    let texts: Vec<String> =
        required.texts.iter().map(|t| regex::escape(&String::from_utf8_lossy(t))).collect();
    let case = if required.ignore_case { "(?i)" } else { "" };
    regex::bytes::Regex::new(&format!("{case}(?:{})", texts.join("|")))
        .map_err(|e| Error::invalid(format!("line filter: {e}")))
}

impl Needle {
    fn compile(op: LineOp, needle: &LineNeedle) -> Result<Self> {
        let text = match needle {
            LineNeedle::Ip(pattern) => return Ok(Needle::Ip(IpPattern::parse(pattern)?)),
            LineNeedle::Text(text) => text,
        };
        Ok(match op {
            LineOp::Contains | LineOp::NotContains if text.is_empty() => Needle::Everything,
            LineOp::Contains | LineOp::NotContains => {
                Needle::Literal(Box::new(Finder::new(text.as_bytes()).into_owned()))
            }
            LineOp::Pattern | LineOp::NotPattern => Needle::Pattern(LinePattern::parse(text)?),
            LineOp::Regex | LineOp::NotRegex => {
                // In a line filter `.` matches newlines, too (Loki's documentation of line filters).
                let regex = regexes::compile(&format!("(?s:{text})"))?;
                match regexes::only_literals(text) {
                    Some(found) if !found.ignore_case && found.texts.len() == 1 => {
                        Needle::Literal(Box::new(Finder::new(&found.texts[0]).into_owned()))
                    }
                    _ => Needle::Regex(regex),
                }
            }
        })
    }

    #[inline]
    fn is_in(&self, line: &str) -> bool {
        match self {
            Needle::Everything => true,
            Needle::Literal(finder) => finder.find(line.as_bytes()).is_some(),
            Needle::Regex(regex) => regex.is_match(line),
            Needle::Pattern(pattern) => pattern.matches(line),
            Needle::Ip(pattern) => pattern.is_in(line),
        }
    }
}

/// What a block's raw bytes must contain for any of its lines to pass. Sound for bytes in which each line is stored whole and
/// uncompressed, whatever lies between the lines.
#[derive(Debug, Clone)]
pub struct LineFilter {
    clauses: Vec<Clause>,
}

/// All clauses must be met; a clause is met by any of its texts.
#[derive(Debug, Clone)]
struct Clause {
    required: Required,
    search: Search,
}

#[derive(Debug, Clone)]
enum Search {
    One(Box<Finder<'static>>),
    Any(regex::bytes::Regex),
}

impl LineFilter {
    /// From the line filters that see the line as it is stored; `None` where they say nothing about blocks.
    pub fn compile<'a>(filters: impl IntoIterator<Item = &'a LineFilterExpr>) -> Option<Self> {
        let clauses: Vec<Clause> = filters.into_iter().filter_map(Clause::compile).collect();
        (!clauses.is_empty()).then_some(Self { clauses })
    }

    /// Whether a line in `block` may pass. False is certain.
    #[inline]
    pub fn may_match(&self, block: &[u8]) -> bool {
        self.clauses.iter().all(|clause| match &clause.search {
            Search::One(finder) => finder.find(block).is_some(),
            Search::Any(searcher) => searcher.is_match(block),
        })
    }

    /// Per clause the texts of which one must be there, and whether ASCII case is ignored (the texts are in lower case then).
    /// For filters over tokens.
    pub fn required(&self) -> impl Iterator<Item = (&[Vec<u8>], bool)> {
        self.clauses.iter().map(|c| (c.required.texts.as_slice(), c.required.ignore_case))
    }
}

impl Clause {
    fn compile(filter: &LineFilterExpr) -> Option<Self> {
        if filter.op.is_negative() {
            return None;
        }
        let mut texts = Vec::new();
        let mut ignore_case = false;
        for needle in &filter.needles {
            let LineNeedle::Text(text) = needle else { return None };
            // Stored bytes that are no UTF-8 show as U+FFFD in the line only.
            if text.contains(char::REPLACEMENT_CHARACTER) {
                return None;
            }
            match filter.op {
                LineOp::Contains if !text.is_empty() => texts.push(text.clone().into_bytes()),
                LineOp::Regex => {
                    let found = regexes::required(text)?;
                    ignore_case |= found.ignore_case;
                    texts.extend(found.texts);
                }
                LineOp::Pattern => {
                    texts.push(LinePattern::parse(text).ok()?.longest_literal()?.as_bytes().to_vec())
                }
                _ => return None,
            }
        }
        if ignore_case {
            texts.iter_mut().for_each(|t| t.make_ascii_lowercase());
        }
        let required = Required { texts, ignore_case };
        let search = match required.texts.as_slice() {
            [one] if !ignore_case => Search::One(Box::new(Finder::new(one).into_owned())),
            _ => Search::Any(searcher(&required).ok()?),
        };
        Some(Self { required, search })
    }
}

/// `10.0.0.1`, `10.0.0.1-10.0.0.9`, `10.0.0.0/8`, and the same for IPv6.
#[derive(Debug)]
pub enum IpPattern {
    Range(IpAddr, IpAddr),
    Prefix(IpAddr, u32),
}

impl IpPattern {
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            Error::invalid(format!("ip: invalid pattern {text:?}: an address, a range a-b, or a prefix a/n"))
        };
        let address = |t: &str| t.trim().parse::<IpAddr>().map_err(|_| bad());
        if let Some((address_text, bits)) = text.split_once('/') {
            let (ip, bits) = (address(address_text)?, bits.trim().parse::<u32>().map_err(|_| bad())?);
            let bits_max = if ip.is_ipv4() { 32 } else { 128 };
            if bits > bits_max {
                return Err(bad());
            }
            return Ok(IpPattern::Prefix(ip, bits));
        }
        let (low, high) = match text.split_once('-') {
            Some((low, high)) => (address(low)?, address(high)?),
            None => (address(text)?, address(text)?),
        };
        if low.is_ipv4() != high.is_ipv4() || low > high {
            return Err(bad());
        }
        Ok(IpPattern::Range(low, high))
    }

    pub fn matches(&self, ip: IpAddr) -> bool {
        match (self, ip) {
            (IpPattern::Range(low, high), ip) => low.is_ipv4() == ip.is_ipv4() && *low <= ip && ip <= *high,
            (IpPattern::Prefix(IpAddr::V4(net), bits), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            (IpPattern::Prefix(IpAddr::V6(net), bits), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }

    /// Whether an address that matches stands anywhere in the text.
    pub fn is_in(&self, text: &str) -> bool {
        // Long enough for any IPv6 address with a port; longer runs are hex dumps.
        const RUN_BYTES_MAX: usize = 64;
        text.split(|c: char| !(c.is_ascii_hexdigit() || c == '.' || c == ':'))
            .filter(|run| (2..=RUN_BYTES_MAX).contains(&run.len()))
            .any(|run| {
                let trimmed = run.trim_end_matches(['.', ':']);
                if let Ok(ip) = run.parse::<IpAddr>().or_else(|_| trimmed.parse::<IpAddr>()) {
                    return self.matches(ip);
                }
                // An IPv4 address with letters, a port or more digits around it.
                run.split(|c: char| !(c.is_ascii_digit() || c == '.'))
                    .filter_map(|part| part.trim_matches('.').parse::<Ipv4Addr>().ok())
                    .any(|ip| self.matches(IpAddr::V4(ip)))
            })
    }
}
