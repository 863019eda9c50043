//! Scripts: lines to commands.

use regex::Regex;
use triptych_model::metrics::{MetricsQuery, STALE_NAN_BITS, Sample, SeriesSamples};
use triptych_model::{Error, Labels, Result};

use super::series::{Value, parse_series};
use crate::lexer::{parse_duration_ms, parse_number};

pub enum Command {
    Clear,
    /// `histograms`: label sets of series with native histograms, which cannot be loaded.
    Load {
        series: Vec<SeriesSamples>,
        histograms: Vec<Labels>,
    },
    Eval(Box<Eval>),
}

/// A text that a message must equal or match.
#[derive(Debug, Clone)]
pub enum Text {
    Any,
    Equal(String),
    Regex(Regex),
}

impl Text {
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Text::Any => true,
            Text::Equal(expected) => expected == text,
            Text::Regex(regex) => regex.is_match(text),
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Expectations {
    pub ordered: bool,
    pub fail: Option<Text>,
    pub warn: Vec<Text>,
    pub info: Vec<Text>,
    pub no_warn: bool,
    pub no_info: bool,
}

/// One `eval` and what it should give.
#[derive(Debug, Clone)]
pub struct Eval {
    pub line: usize,
    pub query: MetricsQuery,
    pub expect: Expectations,
    pub scalar: Option<f64>,
    pub string: Option<String>,
    /// Where the samples of an expected range vector lie: (start, step).
    pub range_vector: Option<(i64, i64)>,
    pub series: Vec<(Labels, Vec<Value>)>,
    pub expects_histogram: bool,
}

impl Eval {
    /// Whether the instant's answer may be compared with a step of a range query around it.
    pub fn comparable_in_range(&self) -> bool {
        let of_the_query = ["start()", "end()", "range()", "step()"];
        !self.expect.ordered
            && self.expect.fail.is_none()
            && self.string.is_none()
            && self.range_vector.is_none()
            && !of_the_query.iter().any(|f| self.query.expr.contains(f))
    }
}

fn at(line: usize, message: impl std::fmt::Display) -> Error {
    Error::invalid(format!("line {}: {message}", line + 1))
}

/// Reads a whole script.
pub fn parse_script(text: &str) -> Result<Vec<Command>> {
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|l| if l.starts_with('#') { "" } else { l }).collect();
    let mut commands = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let head = lines[i];
        let word = head.split_whitespace().next().unwrap_or("").to_ascii_lowercase();
        // What belongs to a command follows it without an empty line.
        let body = lines[i + 1..].iter().take_while(|l| !l.is_empty()).count();
        if word.is_empty() {
            i += 1;
        } else if word == "clear" {
            commands.push(Command::Clear);
            i += 1;
        } else if word.starts_with("load") {
            commands.push(load(&lines[i..=i + body], i)?);
            i += 1 + body;
        } else if word.starts_with("eval") {
            commands.push(Command::Eval(Box::new(eval(&lines[i..=i + body], i)?)));
            i += 1 + body;
        } else {
            return Err(at(i, format!("unknown command {word:?}")));
        }
    }
    Ok(commands)
}

fn load(lines: &[&str], first: usize) -> Result<Command> {
    let mut words = lines[0].split_whitespace();
    let with_nhcb = words.next() == Some("load_with_nhcb");
    let step_ms = words
        .next()
        .and_then(parse_duration_ms)
        .ok_or_else(|| at(first, format!("{:?} needs a duration", lines[0])))?;
    let (mut series, mut histograms) = (Vec::new(), Vec::new());
    for (i, line) in lines.iter().enumerate().skip(1) {
        if line.split_whitespace().next().is_some_and(|metric| metric.ends_with("@st")) {
            return Err(at(first + i, "start timestamps are not supported"));
        }
        let (labels, values) = parse_series(line).map_err(|e| at(first + i, e))?;
        if values.contains(&Value::Histogram) {
            histograms.push(labels.clone());
        }
        if with_nhcb {
            histograms.extend(custom_histogram(&labels));
        }
        let samples: Vec<Sample> = values
            .iter()
            .enumerate()
            .filter_map(|(n, v)| match v {
                Value::Float(value) => Some(Sample { t_ms: n as i64 * step_ms, value: *value }),
                _ => None,
            })
            .collect();
        series.push(SeriesSamples { labels, samples });
    }
    Ok(Command::Load { series, histograms })
}

/// The native histogram that `load_with_nhcb` would make of a classic one's series.
fn custom_histogram(labels: &Labels) -> Option<Labels> {
    let name = labels.get("__name__")?;
    let base = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix))?;
    let mut builder = labels.to_builder();
    builder.set("__name__", base).remove("le");
    Some(builder.build())
}

/// Splits off the next word.
fn word<'a>(rest: &mut &'a str) -> &'a str {
    let text = rest.trim_start();
    let (head, tail) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    *rest = tail.trim_start();
    head
}

fn eval(lines: &[&str], first: usize) -> Result<Eval> {
    let mut rest = lines[0];
    let mut expect = Expectations::default();
    let command = word(&mut rest);
    match command {
        "eval" => {}
        "eval_fail" => expect.fail = Some(Text::Any),
        "eval_warn" => expect.warn.push(Text::Any),
        "eval_info" => expect.info.push(Text::Any),
        "eval_ordered" => expect.ordered = true,
        other => return Err(at(first, format!("unknown command {other:?}"))),
    }
    let time = |rest: &mut &str, before: &str| -> Result<i64> {
        let (key, value) = (word(rest), word(rest));
        let found = (key == before).then(|| signed_duration(value)).flatten();
        found.ok_or_else(|| at(first, format!("expected `{before} <duration>`, got `{key} {value}`")))
    };
    let (start_ms, end_ms, step_ms) = match word(&mut rest) {
        "instant" => {
            let t = time(&mut rest, "at")?;
            (t, t, 0)
        }
        "range" => (time(&mut rest, "from")?, time(&mut rest, "to")?, time(&mut rest, "step")?),
        other => return Err(at(first, format!("expected `instant` or `range`, got {other:?}"))),
    };
    let query = MetricsQuery {
        expr: rest.to_owned(),
        start_ms,
        end_ms,
        step_ms,
        lookback_ms: 0,
        whole_ms: None,
        shard: None,
    };
    let mut eval = Eval {
        line: first + 1,
        query,
        expect,
        scalar: None,
        string: None,
        range_vector: None,
        series: Vec::new(),
        expects_histogram: false,
    };
    for (i, line) in lines.iter().enumerate().skip(1) {
        eval.expectation(line).map_err(|e| at(first + i, e))?;
    }
    Ok(eval)
}

fn signed_duration(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(positive) => parse_duration_ms(positive).map(|ms| -ms),
        None => parse_duration_ms(text).or_else(|| parse_number(text).map(|s| (s * 1000.0) as i64)),
    }
}

impl Eval {
    fn expectation(&mut self, line: &str) -> Result<()> {
        if let Some(text) = line.strip_prefix("expected_fail_message") {
            self.expect.fail = Some(Text::Equal(text.trim().to_owned()));
        } else if let Some(text) = line.strip_prefix("expected_fail_regexp") {
            self.expect.fail = Some(Text::Regex(regex(text.trim())?));
        } else if let Some(text) = line.strip_prefix("expect range vector ") {
            let words: Vec<&str> = text.split_whitespace().collect();
            let ["from", from, "to", _, "step", step] = words[..] else {
                return Err(Error::invalid(format!("{line:?}: expected `from .. to .. step ..`")));
            };
            let times = signed_duration(from).zip(signed_duration(step));
            self.range_vector =
                Some(times.ok_or_else(|| Error::invalid(format!("{line:?}: not durations")))?);
        } else if let Some(text) = line.strip_prefix("expect string ") {
            let tokens = crate::lexer::lex(text.trim());
            match tokens.first().map(|t| &t.tok) {
                Some(crate::lexer::Tok::Str(s)) => self.string = Some(s.text.clone()),
                _ => return Err(Error::invalid(format!("{line:?}: not a quoted string"))),
            }
        } else if let Some(text) = line.strip_prefix("expect ") {
            self.expect(text.trim())?;
        } else if let Some(number) = parse_number(line) {
            self.scalar = Some(number);
        } else {
            let (labels, values) = parse_series(line)?;
            self.expects_histogram |= values.contains(&Value::Histogram);
            self.series.push((labels, values));
        }
        Ok(())
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        let mut rest = text;
        let kind = word(&mut rest);
        let matching = if let Some(message) = rest.strip_prefix("msg:") {
            Text::Equal(message.trim().to_owned())
        } else if let Some(pattern) = rest.strip_prefix("regex:") {
            Text::Regex(regex(pattern.trim())?)
        } else {
            Text::Any
        };
        match kind {
            "fail" => self.expect.fail = Some(matching),
            "warn" => self.expect.warn.push(matching),
            "info" => self.expect.info.push(matching),
            "no_warn" => self.expect.no_warn = true,
            "no_info" => self.expect.no_info = true,
            "ordered" => self.expect.ordered = true,
            other => return Err(Error::invalid(format!("unknown expectation {other:?}"))),
        }
        Ok(())
    }
}

fn regex(pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|e| Error::invalid(e.to_string()))
}

/// Whether an expected value is a staleness marker.
pub(super) fn is_marker(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}
