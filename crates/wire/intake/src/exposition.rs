//! What targets expose: Prometheus' text format 0.0.4 and OpenMetrics 1.0, for the scraper.
//!
//! [`parse`] walks the text once and hands out borrowed items; nothing is allocated per line (escaped label values are written
//! into one buffer that is reused). An error names its line; what stood before it has reached the sink.
//!
//! Taken from both: UTF-8 names in quotes (`{"http.requests", "a.b"="c"} 1`). OpenMetrics must end with `# EOF`. Exemplars are
//! read in OpenMetrics only. Known holes: `_created` series are plain series, as in Prometheus by default; native histograms
//! have no text form.

mod line;

use triptych_model::metrics::{MetricKind, Sample};
use triptych_model::{Error, Result};

use crate::sink::Pairs;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Text,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// From the answer's `Content-Type`; what is unknown is read as text, as Prometheus does with a fallback protocol.
    pub fn from_content_type(content_type: &str) -> Self {
        let essence = content_type.split(';').next().unwrap_or("").trim();
        if essence.eq_ignore_ascii_case("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }
}

/// A line with a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExposedSample<'a> {
    /// The line's name and labels as they stand there: equal text is the same series, a key for caches.
    pub series_text: &'a str,
    /// With `__name__`; sorted, unique, without empty values.
    pub labels: &'a Pairs<'a>,
    pub value: f64,
    /// Where the line has a timestamp.
    pub t_ms: Option<i64>,
    pub exemplar: Option<ExposedExemplar<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExposedExemplar<'a> {
    pub labels: &'a Pairs<'a>,
    pub value: f64,
    pub t_ms: Option<i64>,
}

impl ExposedExemplar<'_> {
    /// With the scrape's time where the line has none.
    pub fn sample(&self, default_t_ms: i64) -> Sample {
        Sample { t_ms: self.t_ms.unwrap_or(default_t_ms), value: self.value }
    }
}

pub trait ExpositionSink {
    fn sample(&mut self, sample: &ExposedSample<'_>) -> Result<()>;
    /// `# TYPE`
    fn kind(&mut self, _metric: &str, _kind: MetricKind) -> Result<()> {
        Ok(())
    }
    /// `# HELP`
    fn help(&mut self, _metric: &str, _help: &str) -> Result<()> {
        Ok(())
    }
    /// `# UNIT`
    fn unit(&mut self, _metric: &str, _unit: &str) -> Result<()> {
        Ok(())
    }
}

/// Parses a whole exposition.
pub fn parse(body: &[u8], format: Format, sink: &mut impl ExpositionSink) -> Result<()> {
    let text = std::str::from_utf8(body).map_err(|e| {
        let line = 1 + memchr::memchr_iter(b'\n', &body[..e.valid_up_to()]).count();
        Error::invalid(format!("line {line}: not valid UTF-8"))
    })?;
    let mut parser = line::Parser::default();
    let mut rest = text;
    let mut number = 0;
    let mut ended = false;
    while !rest.is_empty() {
        number += 1;
        let (line, tail) = match memchr::memchr(b'\n', rest.as_bytes()) {
            Some(i) => (&rest[..i], &rest[i + 1..]),
            None => (rest, ""),
        };
        rest = tail;
        if ended {
            return Err(Error::invalid(format!("line {number}: text after # EOF")));
        }
        ended = match format {
            Format::OpenMetrics if line == "# EOF" => true,
            _ => parser.line(line, format, sink).map_err(|e| e.at(number)).map(|()| false)?,
        };
    }
    if format == Format::OpenMetrics && !ended {
        return Err(Error::invalid(format!("line {}: data does not end with # EOF", number + 1)));
    }
    Ok(())
}

/// A sentence about a line, or an error of the sink.
pub(crate) enum LineError {
    Text(&'static str, String),
    Sink(Error),
}

impl LineError {
    fn at(self, number: usize) -> Error {
        match self {
            LineError::Text(what, found) if found.is_empty() => {
                Error::invalid(format!("line {number}: {what}"))
            }
            LineError::Text(what, found) => Error::invalid(format!("line {number}: {what}, found {found:?}")),
            LineError::Sink(error) => error,
        }
    }
}

#[cfg(test)]
mod tests;
