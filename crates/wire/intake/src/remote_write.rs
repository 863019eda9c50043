//! Prometheus remote write 1.0: `prometheus.WriteRequest` (prometheus `prompb/remote.proto`, `prompb/types.proto`); 2.0 is in
//! [`v2`].
//!
//! ```text
//! WriteRequest   { 1 timeseries*, 3 metadata* }
//! TimeSeries     { 1 labels*, 2 samples*, 3 exemplars*, 4 histograms* }
//! Label          { 1 name, 2 value }         Sample { 1 value double, 2 timestamp ms }
//! Exemplar       { 1 labels*, 2 value double, 3 timestamp ms }
//! MetricMetadata { 1 type, 2 metric_family_name, 4 help, 5 unit }
//! ```
//! Labels need not be sorted. A label name that occurs twice makes the series refused, as in Prometheus. Labels with an empty
//! value are left out. Native histograms are counted as refused.

pub mod v2;

use triptych_model::Result;
use triptych_model::metrics::{MetricKind, Sample};

use crate::sink::{MetricsSink, check_pairs, sort_last_wins, sort_unique};
use crate::wire::Fields;

/// Reason of samples that are native histograms.
pub const NATIVE_HISTOGRAMS_UNSUPPORTED: &str = "native_histograms_unsupported";
/// Reason of series with a label name twice (Prometheus, Mimir and Loki use this word).
pub const DUPLICATE_LABEL_NAMES: &str = "duplicate_label_names";

/// What a `Content-Type` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// `application/x-protobuf`, with `proto=prometheus.WriteRequest` or `proto=io.prometheus.write.v2.Request`; an absent header
/// means 1.0, as in Prometheus. `None`: something else (415).
pub fn version(content_type: Option<&str>) -> Option<Version> {
    let Some(content_type) = content_type else { return Some(Version::V1) };
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or("");
    if !essence.is_empty() && !essence.eq_ignore_ascii_case("application/x-protobuf") {
        return None;
    }
    match parts.find_map(|p| p.strip_prefix("proto=")) {
        None | Some("prometheus.WriteRequest") => Some(Version::V1),
        Some("io.prometheus.write.v2.Request") => Some(Version::V2),
        Some(_) => None,
    }
}

/// Decodes a plain `WriteRequest`. What stood before an error may have reached the sink already.
pub fn decode(body: &[u8], sink: &mut impl MetricsSink) -> Result<()> {
    let mut scratch = Scratch::default();
    for field in Fields::new(body) {
        match field? {
            (1, series) => scratch.series(series.bytes("WriteRequest.timeseries")?, sink)?,
            (3, metadata) => decode_metadata(metadata.bytes("WriteRequest.metadata")?, sink)?,
            _ => {}
        }
    }
    Ok(())
}

/// Samples of one series that are collected before they are handed on: bounds the scratch memory of a series with millions.
const SAMPLES_AT_ONCE: usize = 4096;

/// Memory that all series of a request share.
#[derive(Default)]
struct Scratch<'a> {
    labels: Vec<(&'a str, &'a str)>,
    samples: Vec<Sample>,
    exemplar_labels: Vec<(&'a str, &'a str)>,
}

impl<'a> Scratch<'a> {
    /// One walk collects labels and samples. Labels may stand anywhere, so that what is rare (exemplars) or too much to collect
    /// (more than [`SAMPLES_AT_ONCE`]) waits for a second walk.
    fn series(&mut self, series: &'a [u8], sink: &mut impl MetricsSink) -> Result<()> {
        self.labels.clear();
        self.samples.clear();
        let (mut samples, mut histograms, mut exemplars) = (0usize, 0u64, false);
        for field in Fields::new(series) {
            match field? {
                (1, label) => {
                    check_pairs(self.labels.len(), "TimeSeries.labels")?;
                    self.labels.push(decode_label(label.bytes("TimeSeries.labels")?)?);
                }
                (2, sample) => {
                    let sample = sample.bytes("TimeSeries.samples")?;
                    samples += 1;
                    if samples <= SAMPLES_AT_ONCE {
                        self.samples.push(decode_sample(sample)?);
                    }
                }
                (3, exemplar) => {
                    exemplar.bytes("TimeSeries.exemplars")?;
                    exemplars = true;
                }
                (4, histogram) => {
                    histogram.bytes("TimeSeries.histograms")?;
                    histograms += 1;
                }
                _ => {}
            }
        }
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
                if let (3, exemplar) = field? {
                    self.exemplar(exemplar.bytes("TimeSeries.exemplars")?, sink)?;
                }
            }
        }
        Ok(())
    }

    fn exemplar(&mut self, exemplar: &'a [u8], sink: &mut impl MetricsSink) -> Result<()> {
        let mut sample = Sample { t_ms: 0, value: 0.0 };
        self.exemplar_labels.clear();
        for field in Fields::new(exemplar) {
            match field? {
                (1, label) => {
                    check_pairs(self.exemplar_labels.len(), "Exemplar.labels")?;
                    self.exemplar_labels.push(decode_label(label.bytes("Exemplar.labels")?)?);
                }
                (2, value) => sample.value = value.double("Exemplar.value")?,
                (3, t) => sample.t_ms = t.varint("Exemplar.timestamp")? as i64,
                _ => {}
            }
        }
        sort_last_wins(&mut self.exemplar_labels);
        sink.exemplar(&self.labels, &self.exemplar_labels, sample)
    }
}

/// Sorts; refuses a set with a name twice, counts native histograms. `false`: nothing of the series can be taken.
fn accept_labels<'a>(
    labels: &mut Vec<(&'a str, &'a str)>,
    samples: u64,
    histograms: u64,
    sink: &mut impl MetricsSink,
) -> bool {
    if let Some(name) = sort_unique(labels) {
        sink.refuse(
            DUPLICATE_LABEL_NAMES,
            (samples + histograms).max(1),
            format_args!("label name {name:?} is not unique in series {}", Show(labels)),
        );
        return false;
    }
    if histograms > 0 {
        sink.refuse(
            NATIVE_HISTOGRAMS_UNSUPPORTED,
            histograms,
            format_args!("native histograms are not supported: series {}", Show(labels)),
        );
    }
    true
}

#[inline]
fn decode_label(label: &[u8]) -> Result<(&str, &str)> {
    let (mut name, mut value) = ("", "");
    for field in Fields::new(label) {
        match field? {
            (1, v) => name = v.text("Label.name")?,
            (2, v) => value = v.text("Label.value")?,
            _ => {}
        }
    }
    Ok((name, value))
}

#[inline]
pub(crate) fn decode_sample(sample: &[u8]) -> Result<Sample> {
    let mut out = Sample { t_ms: 0, value: 0.0 };
    for field in Fields::new(sample) {
        match field? {
            (1, v) => out.value = v.double("Sample.value")?,
            (2, v) => out.t_ms = v.varint("Sample.timestamp")? as i64,
            _ => {}
        }
    }
    Ok(out)
}

fn decode_metadata(metadata: &[u8], sink: &mut impl MetricsSink) -> Result<()> {
    let (mut kind, mut metric, mut help, mut unit) = (0, "", "", "");
    for field in Fields::new(metadata) {
        match field? {
            (1, v) => kind = v.varint("MetricMetadata.type")?,
            (2, v) => metric = v.text("MetricMetadata.metric_family_name")?,
            (4, v) => help = v.text("MetricMetadata.help")?,
            (5, v) => unit = v.text("MetricMetadata.unit")?,
            _ => {}
        }
    }
    if metric.is_empty() {
        return Ok(());
    }
    sink.metadata(metric, MetricKind::from_u8(u8::try_from(kind).unwrap_or(0)), help, unit)
}

/// Labels in an error text, cut to a length a person can read.
pub(crate) struct Show<'a>(pub &'a [(&'a str, &'a str)]);

impl std::fmt::Display for Show<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const BYTES_MAX: usize = 500;
        let mut bytes = 0;
        f.write_str("{")?;
        for (i, (name, value)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            bytes += name.len() + value.len();
            if bytes > BYTES_MAX {
                return f.write_str("...}");
            }
            write!(f, "{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests;
