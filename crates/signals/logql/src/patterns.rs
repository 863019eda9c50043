//! What lines have in common: `GET <_> took <_>`, and how many lines there were of each kind, step by step.
//!
//! Lines are cut into words and what stands between them. A word with a digit is taken for a value. Lines with as many parts, the same
//! first words and most other words in common are of one kind; where they differ the kind's pattern has `<_>`. (The tree of He et al.,
//! "Drain: An Online Log Parsing Approach with Fixed Depth Tree", 2017, kept as one map.)
//!
//! Memory: [`KINDS_MAX`] kinds of at most [`PARTS_MAX`] parts, and a count for each step that has lines of a kind. When there are too many,
//! the rarest make room: what they counted is in [`Patterns::forgotten`].

use std::collections::BTreeMap;

use hashbrown::HashMap;

/// What stands for words that differ.
pub const ANY: &str = "<_>";
/// Kinds that are kept.
const KINDS_MAX: usize = 500;
/// Parts of a line that are looked at; what follows is `<_>`.
const PARTS_MAX: usize = 160;
/// Longest word that is told; a longer one is taken for a value.
const WORD_BYTES_MAX: usize = 64;
/// Words at the beginning that lines of one kind share whatever else they do.
const FIRST_WORDS: usize = 1;
/// Lines of one kind share so many of their words, in percent.
const ALIKE_PERCENT: usize = 60;

/// Lines of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The words that its lines share, `<_>` where they differ.
    pub text: String,
    /// Lines by the start of their step, in nanoseconds.
    pub lines: BTreeMap<i64, u64>,
}

impl Pattern {
    pub fn total(&self) -> u64 {
        self.lines.values().sum()
    }
}

/// Counts lines by kind.
#[derive(Debug)]
pub struct Patterns {
    step_ns: i64,
    /// By number of parts and first words.
    kinds: HashMap<(usize, String), Vec<Kind>>,
    count: usize,
    forgotten: u64,
}

#[derive(Debug)]
struct Kind {
    parts: Vec<Part>,
    lines: BTreeMap<i64, u64>,
}

/// A piece of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Between(char),
    Word(String),
    Value,
}

impl Patterns {
    /// Counts are told by step, in nanoseconds; at least 1.
    pub fn new(step_ns: i64) -> Self {
        Self { step_ns: step_ns.max(1), kinds: HashMap::new(), count: 0, forgotten: 0 }
    }

    pub fn add(&mut self, ts_ns: i64, line: &str) {
        let parts = parts(line);
        let step = ts_ns.div_euclid(self.step_ns) * self.step_ns;
        let alike = self.kinds.entry((parts.len(), first_words(&parts))).or_default();
        let best = alike.iter_mut().map(|kind| (likeness(&kind.parts, &parts), kind)).max_by_key(|(l, _)| *l);
        match best {
            Some((likeness, kind)) if likeness >= ALIKE_PERCENT => {
                for (known, part) in kind.parts.iter_mut().zip(&parts).filter(|(known, part)| known != part) {
                    // Parts of one kind differ in words alone.
                    if !matches!((&*known, part), (Part::Between(_), _) | (_, Part::Between(_))) {
                        *known = Part::Value;
                    }
                }
                *kind.lines.entry(step).or_default() += 1;
            }
            _ => {
                alike.push(Kind { parts, lines: BTreeMap::from([(step, 1)]) });
                self.count += 1;
                if self.count > KINDS_MAX {
                    self.forget();
                }
            }
        }
    }

    /// Lines of kinds that were too rare to be kept.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The kinds, the most frequent first.
    pub fn finish(self) -> Vec<Pattern> {
        let mut by_text: BTreeMap<String, BTreeMap<i64, u64>> = BTreeMap::new();
        for kind in self.kinds.into_values().flatten() {
            let lines = by_text.entry(text(&kind.parts)).or_default();
            kind.lines.into_iter().for_each(|(step, count)| *lines.entry(step).or_default() += count);
        }
        let mut all: Vec<Pattern> =
            by_text.into_iter().map(|(text, lines)| Pattern { text, lines }).collect();
        all.sort_by_key(|pattern| std::cmp::Reverse(pattern.total()));
        all
    }

    /// The rarer half goes.
    fn forget(&mut self) {
        let total = |kind: &Kind| kind.lines.values().sum::<u64>();
        let mut totals: Vec<u64> = self.kinds.values().flatten().map(total).collect();
        let middle = totals.len() / 2;
        let (_, least, _) = totals.select_nth_unstable(middle);
        let least = *least;
        // Of those that are as frequent as the middle one as many stay as there is room for.
        let mut room = KINDS_MAX / 2;
        for kinds in self.kinds.values_mut() {
            kinds.retain(|kind| {
                let total = total(kind);
                let stays = total > least || (total == least && room > 0);
                room -= usize::from(stays && total == least);
                if !stays {
                    self.forgotten += total;
                }
                stays
            });
        }
        self.kinds.retain(|_, kinds| !kinds.is_empty());
        self.count = self.kinds.values().map(Vec::len).sum();
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '%' | '+')
}

fn parts(line: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        if parts.len() >= PARTS_MAX {
            parts.push(Part::Value);
            break;
        }
        let length =
            if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (piece, after) = rest.split_at(length);
        rest = after;
        parts.push(match first {
            _ if !is_word(first) => Part::Between(first),
            _ if piece.len() > WORD_BYTES_MAX || piece.bytes().any(|b| b.is_ascii_digit()) => Part::Value,
            _ => Part::Word(piece.to_owned()),
        });
    }
    parts
}

/// What is looked up: the first words, with all that stands between parts, so that lines of one kind differ in words alone.
fn first_words(parts: &[Part]) -> String {
    let mut key = String::new();
    let mut words = 0;
    for part in parts {
        match part {
            Part::Between(c) => key.push(*c),
            Part::Value => key.push('\0'),
            Part::Word(word) => {
                words += 1;
                key.push_str(if words <= FIRST_WORDS { word } else { "\0" });
            }
        }
    }
    key
}

/// Shared words, in percent of all words of the kind; a line without words is like any other with the same parts.
fn likeness(kind: &[Part], line: &[Part]) -> usize {
    let (mut words, mut same) = (0, 0);
    for (known, part) in kind.iter().zip(line) {
        if matches!(part, Part::Word(_)) {
            words += 1;
            same += usize::from(known == part);
        }
    }
    (100 * same).checked_div(words).unwrap_or(100)
}

/// `<_>` for a value, and once for values that nothing but a mark stands between: `<_>:<_>:<_>` is a time of day.
fn text(parts: &[Part]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while let Some(part) = parts.get(at) {
        at += 1;
        match part {
            Part::Between(c) => out.push(*c),
            Part::Word(word) => out.push_str(word),
            Part::Value => {
                while let [Part::Between(':' | ','), Part::Value, ..] = parts.get(at..).unwrap_or_default() {
                    at += 2;
                }
                out.push_str(ANY);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
