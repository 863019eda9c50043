//! Prometheus remote write 2.0: `io.prometheus.write.v2.Request` (prometheus `prompb/io/prometheus/write/v2/types.proto`).
//!
//! ```text
//! Request    { 4 symbols*, 5 timeseries* }                         symbols[0] is ""
//! TimeSeries { 1 labels_refs* packed, 2 samples*, 3 histograms*, 4 exemplars*, 5 metadata }
//! Sample     { 1 value double, 2 timestamp ms }
//! Exemplar   { 1 labels_refs* packed, 2 value double, 3 timestamp ms }
//! Metadata   { 1 type, 3 help_ref, 4 unit_ref }
//! ```
//! References come in pairs (name, value) and are indexes into `symbols`.

use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::{MetricKind, Sample};
use triptych_model::{Error, Result};

use super::{SAMPLES_AT_ONCE, accept_labels, decode_sample};
use crate::sink::{MetricsSink, check_pairs, sort_last_wins};
use crate::wire::{Fields, Value, each_varint};

/// Most symbols in a request: each takes two bytes on the wire and 16 in memory.
const SYMBOLS_MAX: usize = 1 << 20;

/// Decodes a plain `Request`.
pub fn decode(body: &[u8], sink: &mut impl MetricsSink) -> Result<()> {
    let mut symbols: Vec<&str> = Vec::new();
    for field in Fields::new(body) {
        if let (4, symbol) = field? {
            if symbols.len() == SYMBOLS_MAX {
                return Err(Error::invalid(format!("Request.symbols: more than {SYMBOLS_MAX} symbols")));
            }
            symbols.push(symbol.text("Request.symbols")?);
        }
    }
    if symbols.first().is_some_and(|first| !first.is_empty()) {
        return Err(Error::invalid("Request.symbols: the first symbol must be empty"));
    }
    let mut scratch = Scratch { symbols, ..Scratch::default() };
    for field in Fields::new(body) {
        if let (5, series) = field? {
            scratch.series(series.bytes("Request.timeseries")?, sink)?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Scratch<'a> {
    symbols: Vec<&'a str>,
    refs: Vec<u64>,
    labels: Vec<(&'a str, &'a str)>,
    exemplar_labels: Vec<(&'a str, &'a str)>,
    samples: Vec<Sample>,
}

/// Collects references, which may be split over several fields.
fn push_refs(refs: &mut Vec<u64>, value: Value<'_>, what: &str) -> Result<()> {
    let mut over = Ok(());
    each_varint(value, what, |r| {
        if over.is_ok() {
            over = check_pairs(refs.len() / 2, what);
            refs.push(r);
        }
    })?;
    over
}

impl<'a> Scratch<'a> {
    fn symbol(&self, reference: u64) -> Result<&'a str> {
        let symbol = usize::try_from(reference).ok().and_then(|i| self.symbols.get(i));
        symbol.copied().ok_or_else(|| {
            Error::invalid(format!(
                "symbol reference {reference} is out of range, there are {}",
                self.symbols.len()
            ))
        })
    }

    /// Resolves `refs`, which come in pairs.
    fn resolve(&self, out: &mut Vec<(&'a str, &'a str)>) -> Result<()> {
        let (pairs, rest) = self.refs.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(Error::invalid(format!("labels_refs: {} references, not pairs", self.refs.len())));
        }
        out.clear();
        for [name, value] in pairs {
            out.push((self.symbol(*name)?, self.symbol(*value)?));
        }
        Ok(())
    }

    fn series(&mut self, series: &'a [u8], sink: &mut impl MetricsSink) -> Result<()> {
        self.refs.clear();
        self.samples.clear();
        let (mut samples, mut histograms, mut exemplars) = (0usize, 0u64, false);
        let mut metadata = None;
        for field in Fields::new(series) {
            match field? {
                (1, refs) => push_refs(&mut self.refs, refs, "TimeSeries.labels_refs")?,
                (2, sample) => {
                    let sample = sample.bytes("TimeSeries.samples")?;
                    samples += 1;
                    if samples <= SAMPLES_AT_ONCE {
                        self.samples.push(decode_sample(sample)?);
                    }
                }
                (3, histogram) => {
                    histogram.bytes("TimeSeries.histograms")?;
                    histograms += 1;
                }
                (4, exemplar) => {
                    exemplar.bytes("TimeSeries.exemplars")?;
                    exemplars = true;
                }
                (5, v) => metadata = Some(v.bytes("TimeSeries.metadata")?),
                _ => {}
            }
        }
        let mut labels = std::mem::take(&mut self.labels);
        self.resolve(&mut labels)?;
        self.labels = labels;
        if !accept_labels(&mut self.labels, samples as u64, histograms, sink) {
            return Ok(());
        }
        if samples > SAMPLES_AT_ONCE {
            self.samples.clear();
            for field in Fields::new(series) {
                if let (2, sample) = field? {
                    self.samples.push(decode_sample(sample.bytes("TimeSeries.samples")?)?);
                    if self.samples.len() == SAMPLES_AT_ONCE {
                        sink.series(&self.labels, &self.samples)?;
                        self.samples.clear();
                    }
                }
            }
        }
        if !self.samples.is_empty() {
            sink.series(&self.labels, &self.samples)?;
        }
        if exemplars {
            for field in Fields::new(series) {
                if let (4, exemplar) = field? {
                    self.exemplar(exemplar.bytes("TimeSeries.exemplars")?, sink)?;
                }
            }
        }
        match metadata {
            Some(metadata) => self.metadata(metadata, sink),
            None => Ok(()),
        }
    }

    fn exemplar(&mut self, exemplar: &'a [u8], sink: &mut impl MetricsSink) -> Result<()> {
        let mut sample = Sample { t_ms: 0, value: 0.0 };
        self.refs.clear();
        for field in Fields::new(exemplar) {
            match field? {
                (1, refs) => push_refs(&mut self.refs, refs, "Exemplar.labels_refs")?,
                (2, value) => sample.value = value.double("Exemplar.value")?,
                (3, t) => sample.t_ms = t.varint("Exemplar.timestamp")? as i64,
                _ => {}
            }
        }
        let mut labels = std::mem::take(&mut self.exemplar_labels);
        self.resolve(&mut labels)?;
        sort_last_wins(&mut labels);
        self.exemplar_labels = labels;
        sink.exemplar(&self.labels, &self.exemplar_labels, sample)
    }

    /// Metadata stands on every series of a metric; it is told as metadata of the metric.
    fn metadata(&self, metadata: &[u8], sink: &mut impl MetricsSink) -> Result<()> {
        let (mut kind, mut help, mut unit) = (0, "", "");
        for field in Fields::new(metadata) {
            match field? {
                (1, v) => kind = v.varint("Metadata.type")?,
                (3, v) => help = self.symbol(v.varint("Metadata.help_ref")?)?,
                (4, v) => unit = self.symbol(v.varint("Metadata.unit_ref")?)?,
                _ => {}
            }
        }
        let metric = self.labels.iter().find(|(name, _)| *name == METRIC_NAME).map_or("", |(_, value)| value);
        if metric.is_empty() || (kind == 0 && help.is_empty() && unit.is_empty()) {
            return Ok(());
        }
        sink.metadata(metric, MetricKind::from_u8(u8::try_from(kind).unwrap_or(0)), help, unit)
    }
}

#[cfg(test)]
mod tests;
