//! One line.
//!
//! ```text
//! sample   = name [ "{" [pairs] "}" ] value [timestamp] [ " # {" [pairs] "}" value [timestamp] ]
//!          | "{" quoted-name [ "," pairs ] "}" value ...
//! pairs    = (name | quoted) "=" quoted { "," ... } [","]
//! comment  = "# TYPE" name kind | "# HELP" name text | "# UNIT" name unit | "#" anything (text format only)
//! ```

use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::MetricKind;

use super::{ExposedExemplar, ExposedSample, ExpositionSink, Format, LineError};
use crate::sink::{PAIRS_MAX, recycle, sort_unique};

type Result<T> = std::result::Result<T, LineError>;

#[cold]
fn fail<T>(what: &'static str, found: &str) -> Result<T> {
    Err(LineError::Text(what, found.chars().take(60).collect()))
}

#[derive(Clone, Copy)]
enum Piece<'a> {
    Line(&'a str),
    /// In the buffer: it had escapes.
    Unescaped(usize, usize),
}

/// Memory that all lines share; empty between lines.
#[derive(Default)]
pub(super) struct Parser {
    unescaped: String,
    pieces: Vec<(Piece<'static>, Piece<'static>)>,
    labels: Vec<(&'static str, &'static str)>,
    exemplar_labels: Vec<(&'static str, &'static str)>,
}

impl Parser {
    pub fn line(&mut self, line: &str, format: Format, sink: &mut impl ExpositionSink) -> Result<()> {
        let line = match format {
            Format::Text => line.trim_matches([' ', '\t', '\r']),
            Format::OpenMetrics => line,
        };
        match line.as_bytes().first() {
            Some(b'#') => self.comment(&line[1..], format, sink),
            Some(_) => self.sample(line, format, sink),
            None if format == Format::Text => Ok(()),
            None => fail("empty line", ""),
        }
    }

    fn comment(&mut self, text: &str, format: Format, sink: &mut impl ExpositionSink) -> Result<()> {
        let mut cursor = Cursor { rest: text };
        cursor.spaces();
        let word = cursor.word();
        if !matches!(word, "TYPE" | "HELP" | "UNIT") || (word == "UNIT" && format == Format::Text) {
            return match format {
                Format::Text => Ok(()),
                Format::OpenMetrics => fail("expected # TYPE, # HELP, # UNIT or # EOF", text),
            };
        }
        cursor.spaces();
        self.unescaped.clear();
        let metric = if cursor.rest.starts_with('"') {
            cursor.quoted(&mut self.unescaped)?
        } else {
            Piece::Line(cursor.word())
        };
        if cursor.rest.starts_with([' ', '\t']) {
            cursor.rest = &cursor.rest[1..];
        }
        let start = self.unescaped.len();
        let rest = match word {
            "HELP" if cursor.rest.contains('\\') => {
                unescape(cursor.rest, format == Format::OpenMetrics, &mut self.unescaped);
                &self.unescaped[start..]
            }
            "HELP" => cursor.rest,
            _ => cursor.rest.trim_matches([' ', '\t']),
        };
        let metric = match metric {
            Piece::Line(name) => name,
            Piece::Unescaped(from, to) => &self.unescaped[from..to],
        };
        if metric.is_empty() {
            return fail("expected a metric name after # TYPE, # HELP or # UNIT", text);
        }
        match word {
            "TYPE" => match kind(rest, format) {
                Some(kind) => sink.kind(metric, kind),
                None => return fail("invalid metric type", rest),
            },
            "HELP" => sink.help(metric, rest),
            _ => sink.unit(metric, rest),
        }
        .map_err(LineError::Sink)
    }

    fn sample<'l>(&'l mut self, line: &'l str, format: Format, sink: &mut impl ExpositionSink) -> Result<()> {
        self.unescaped.clear();
        // A vector of this line's lifetime, with the memory of the last one.
        let mut pieces: Vec<(Piece<'l>, Piece<'l>)> = std::mem::take(&mut self.pieces);
        let mut cursor = Cursor { rest: line };
        let name = cursor.metric_name();
        if !name.is_empty() {
            pieces.push((Piece::Line(METRIC_NAME), Piece::Line(name)));
        }
        cursor.spaces();
        if cursor.took('{') {
            cursor.pairs(&mut pieces, &mut self.unescaped, name.is_empty())?;
        }
        if pieces.first().is_none_or(|(label, _)| !matches!(label, Piece::Line(METRIC_NAME))) {
            return fail("expected a metric name", line);
        }
        let of_series = pieces.len();
        let series_text = line[..line.len() - cursor.rest.len()].trim_end_matches([' ', '\t']);
        let value = cursor.number()?;
        let t_ms = cursor.timestamp(format)?;
        let mut exemplar_at = None;
        cursor.spaces();
        if format == Format::OpenMetrics && cursor.took('#') {
            cursor.spaces();
            if !cursor.took('{') {
                return fail("expected '{' of an exemplar", cursor.rest);
            }
            cursor.pairs(&mut pieces, &mut self.unescaped, false)?;
            exemplar_at = Some((cursor.number()?, cursor.timestamp(format)?));
            cursor.spaces();
        }
        if !cursor.rest.is_empty() {
            return fail("expected the end of the line", cursor.rest);
        }
        let unescaped = self.unescaped.as_str();
        let get = |piece: Piece<'l>| match piece {
            Piece::Line(text) => text,
            Piece::Unescaped(from, to) => &unescaped[from..to],
        };
        let mut labels = recycle(std::mem::take(&mut self.labels));
        let mut exemplar_labels = recycle(std::mem::take(&mut self.exemplar_labels));
        labels.extend(pieces[..of_series].iter().map(|(n, v)| (get(*n), get(*v))));
        exemplar_labels.extend(pieces[of_series..].iter().map(|(n, v)| (get(*n), get(*v))));
        for pairs in [&mut labels, &mut exemplar_labels] {
            if let Some(twice) = sort_unique(pairs) {
                return fail("label name is not unique", twice);
            }
        }
        let exemplar =
            exemplar_at.map(|(value, t_ms)| ExposedExemplar { labels: &exemplar_labels, value, t_ms });
        let result = sink.sample(&ExposedSample { series_text, labels: &labels, value, t_ms, exemplar });
        self.labels = recycle(labels);
        self.exemplar_labels = recycle(exemplar_labels);
        pieces.clear();
        self.pieces = pieces.into_iter().map(|_| (Piece::Line(""), Piece::Line(""))).collect();
        result.map_err(LineError::Sink)
    }
}

fn kind(text: &str, format: Format) -> Option<MetricKind> {
    Some(match (text, format) {
        ("counter", _) => MetricKind::Counter,
        ("gauge", _) => MetricKind::Gauge,
        ("histogram", _) => MetricKind::Histogram,
        ("summary", _) => MetricKind::Summary,
        ("untyped", Format::Text) => MetricKind::Unknown,
        ("gaugehistogram", _) => MetricKind::GaugeHistogram,
        ("info", _) => MetricKind::Info,
        ("stateset", _) => MetricKind::StateSet,
        ("unknown", _) => MetricKind::Unknown,
        _ => return None,
    })
}

/// `\\`, `\n`, and with `quotes` `\"`; any other escape stays as it is, as in Prometheus.
fn unescape(text: &str, quotes: bool, out: &mut String) {
    let mut rest = text;
    while let Some(i) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..i]);
        let c = match rest.as_bytes().get(i + 1) {
            Some(b'\\') => '\\',
            Some(b'n') => '\n',
            Some(b'"') if quotes => '"',
            _ => {
                out.push('\\');
                rest = &rest[i + 1..];
                continue;
            }
        };
        out.push(c);
        rest = &rest[i + 2..];
    }
    out.push_str(rest);
}

struct Cursor<'l> {
    rest: &'l str,
}

impl<'l> Cursor<'l> {
    #[inline]
    fn spaces(&mut self) {
        let bytes = self.rest.as_bytes();
        let n = bytes.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
        self.rest = &self.rest[n..];
    }

    #[inline]
    fn took(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Up to the next space.
    fn word(&mut self) -> &'l str {
        let n = self.rest.bytes().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(n);
        self.rest = rest;
        word
    }

    #[inline]
    fn name(&mut self, colon: bool) -> &'l str {
        let bytes = self.rest.as_bytes();
        let n = match bytes.first() {
            Some(b) if b.is_ascii_digit() => 0,
            _ => bytes
                .iter()
                .take_while(|b| b.is_ascii_alphanumeric() || **b == b'_' || (colon && **b == b':'))
                .count(),
        };
        let (name, rest) = self.rest.split_at(n);
        self.rest = rest;
        name
    }

    fn metric_name(&mut self) -> &'l str {
        self.name(true)
    }

    /// A quoted text; escapes are resolved into `unescaped`.
    fn quoted(&mut self, unescaped: &mut String) -> Result<Piece<'l>> {
        if !self.took('"') {
            return fail("expected a quoted text", self.rest);
        }
        let bytes = self.rest.as_bytes();
        let mut i = 0;
        let mut escaped = false;
        loop {
            match memchr::memchr2(b'"', b'\\', &bytes[i..]) {
                Some(n) if bytes[i + n] == b'"' => {
                    i += n;
                    break;
                }
                // The byte after the backslash is ASCII where it matters; a longer character is skipped from its first byte on.
                Some(n) if i + n + 1 < bytes.len() => {
                    escaped = true;
                    i += n + 2;
                }
                _ => return fail("quoted text is not closed", self.rest),
            }
        }
        let text = &self.rest[..i];
        self.rest = &self.rest[i + 1..];
        if !escaped {
            return Ok(Piece::Line(text));
        }
        let start = unescaped.len();
        unescape(text, true, unescaped);
        Ok(Piece::Unescaped(start, unescaped.len()))
    }

    /// After `{` up to and with `}`. With `name_inside` a quoted text without `=` is the metric's name.
    fn pairs(
        &mut self,
        out: &mut Vec<(Piece<'l>, Piece<'l>)>,
        unescaped: &mut String,
        mut name_inside: bool,
    ) -> Result<()> {
        loop {
            self.spaces();
            if self.took('}') {
                return Ok(());
            }
            if out.len() >= PAIRS_MAX {
                return fail("too many labels", "");
            }
            let quoted = self.rest.starts_with('"');
            let name = if quoted { self.quoted(unescaped)? } else { Piece::Line(self.name(false)) };
            if let Piece::Line("") = name {
                return fail("expected a label name", self.rest);
            }
            self.spaces();
            if self.took('=') {
                self.spaces();
                out.push((name, self.quoted(unescaped)?));
            } else if quoted && name_inside {
                name_inside = false;
                out.insert(0, (Piece::Line(METRIC_NAME), name));
            } else {
                return fail("expected '=' after a label name", self.rest);
            }
            self.spaces();
            if !self.took(',') && !self.rest.starts_with('}') {
                return fail("expected ',' or '}'", self.rest);
            }
        }
    }

    fn number(&mut self) -> Result<f64> {
        self.spaces();
        let word = self.word();
        match parse_number(word) {
            Some(value) => Ok(value),
            None => fail("expected a number", word),
        }
    }

    /// Milliseconds in the text format, seconds in OpenMetrics.
    fn timestamp(&mut self, format: Format) -> Result<Option<i64>> {
        self.spaces();
        if self.rest.is_empty() || self.rest.starts_with('#') {
            return Ok(None);
        }
        let word = self.word();
        let t_ms = match format {
            Format::Text => word.parse::<i64>().ok(),
            Format::OpenMetrics => {
                parse_number(word).filter(|s| s.is_finite() && s.abs() < 9e15).map(|s| (s * 1000.0) as i64)
            }
        };
        match t_ms {
            Some(t_ms) => Ok(Some(t_ms)),
            None => fail("expected a timestamp", word),
        }
    }
}

/// Numbers as Go's `strconv.ParseFloat` reads them, without hexadecimal ones. Short integers, the most frequent form, are
/// read without the general parser.
#[inline]
fn parse_number(word: &str) -> Option<f64> {
    let bytes = word.as_bytes();
    if (1..=15).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_digit) {
        return Some(bytes.iter().fold(0u64, |n, b| n * 10 + u64::from(b - b'0')) as f64);
    }
    word.parse().ok()
}
