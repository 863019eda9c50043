//! The metrics door: checks series against the tenant's limits and fills batches.

use std::fmt;

use triptych_config::limits::MetricsLimits;
use triptych_intake::sink::{MetricsSink, Pairs};
use triptych_model::batch::MetricsBuilder;
use triptych_model::labels::{METRIC_NAME, encode_pairs, hash_pairs};
use triptych_model::metrics::{MetricKind, Sample};
use triptych_model::{Result, TenantId};

use crate::distributor::{Inner, Shards};

/// Longest text of a metadata record that is kept.
const METADATA_BYTES_MAX: usize = 4096;

pub(crate) struct MetricsDoor<'l> {
    limits: &'l MetricsLimits,
    pub shards: Shards<MetricsBuilder>,
    now_ms: i64,
    future_ms: i64,
    encoded: Vec<u8>,
    exemplar_encoded: Vec<u8>,
    in_time: Vec<Sample>,
}

impl<'l> MetricsDoor<'l> {
    pub fn new(inner: &Inner, tenant: &TenantId, limits: &'l MetricsLimits) -> Self {
        let now_ms = inner.clock.now_ms();
        let grace_ms = i64::try_from(limits.creation_grace_period.as_millis()).unwrap_or(i64::MAX);
        let future_ms = if grace_ms == 0 { i64::MAX } else { now_ms.saturating_add(grace_ms) };
        Self {
            limits,
            shards: Shards::new(inner, tenant),
            now_ms,
            future_ms,
            encoded: Vec::new(),
            exemplar_encoded: Vec::new(),
            in_time: Vec::new(),
        }
    }

    /// `false` when the series cannot be taken; `items` are counted then.
    fn check_labels(&mut self, labels: &Pairs<'_>, items: u64) -> bool {
        let limits = self.limits;
        let over = |len: usize, max: usize| max != 0 && len > max;
        // Sorted: a name is found where it would stand.
        if labels.binary_search_by(|(name, _)| (*name).cmp(METRIC_NAME)).is_err() {
            let series = Show(labels);
            self.shards.refuse(
                "missing_metric_name",
                items,
                format_args!("received series has no metric name: {series}"),
            );
            return false;
        }
        if over(labels.len(), limits.label_names_per_series_max) {
            self.shards.refuse(
                "max_label_names_per_series",
                items,
                format_args!(
                    "series has {} labels, the limit is {}: {}",
                    labels.len(),
                    limits.label_names_per_series_max,
                    Show(labels)
                ),
            );
            return false;
        }
        for (name, value) in labels {
            let (reason, what, bytes, max) = if name.is_empty() {
                ("label_invalid", "an empty label name", 0, 0)
            } else if over(name.len(), limits.label_name_bytes_max) {
                ("label_name_too_long", "a label name", name.len(), limits.label_name_bytes_max)
            } else if over(value.len(), limits.label_value_bytes_max) {
                ("label_value_too_long", "a label value", value.len(), limits.label_value_bytes_max)
            } else {
                continue;
            };
            self.shards.refuse(
                reason,
                items,
                format_args!(
                    "series has {what} of {bytes} bytes, the limit is {max}; label {:.100}, series {}",
                    name,
                    Show(labels)
                ),
            );
            return false;
        }
        true
    }
}

impl MetricsSink for MetricsDoor<'_> {
    fn series(&mut self, labels: &Pairs<'_>, samples: &[Sample]) -> Result<()> {
        if !self.check_labels(labels, samples.len() as u64) {
            return Ok(());
        }
        let mut samples = samples;
        if let Some(late) = samples.iter().find(|s| s.t_ms > self.future_ms) {
            self.in_time.clear();
            self.in_time.extend(samples.iter().filter(|s| s.t_ms <= self.future_ms));
            self.shards.refuse(
                "too_far_in_future",
                (samples.len() - self.in_time.len()) as u64,
                format_args!(
                    "sample at {} ms is {} ms in the future, the limit is {:?}: series {}",
                    late.t_ms,
                    late.t_ms.saturating_sub(self.now_ms),
                    self.limits.creation_grace_period,
                    Show(labels)
                ),
            );
            samples = &self.in_time;
        }
        if samples.is_empty() {
            return Ok(());
        }
        self.encoded.clear();
        encode_pairs(labels.iter().copied(), &mut self.encoded);
        let hash = hash_pairs(labels.iter().copied());
        let batch = self.shards.batch(hash, self.encoded.len() + 16 * samples.len())?;
        batch.series(hash, &self.encoded, samples);
        Ok(())
    }

    fn metadata(&mut self, metric: &str, kind: MetricKind, help: &str, unit: &str) -> Result<()> {
        // Metadata is a courtesy: what is too long is cut, what has no name is left out.
        if metric.is_empty() || metric.len() > METADATA_BYTES_MAX {
            return Ok(());
        }
        let (help, unit) = (cut(help), cut(unit));
        let hash = hash_pairs([(METRIC_NAME, metric)]);
        let batch = self.shards.batch(hash, metric.len() + help.len() + unit.len() + 16)?;
        batch.metadata(metric, kind, help, unit);
        Ok(())
    }

    fn exemplar(&mut self, labels: &Pairs<'_>, exemplar_labels: &Pairs<'_>, sample: Sample) -> Result<()> {
        if sample.t_ms > self.future_ms
            || !self.check_labels(labels, 0)
            || !self.check_exemplar(exemplar_labels)
        {
            return Ok(());
        }
        self.encoded.clear();
        encode_pairs(labels.iter().copied(), &mut self.encoded);
        self.exemplar_encoded.clear();
        encode_pairs(exemplar_labels.iter().copied(), &mut self.exemplar_encoded);
        let hash = hash_pairs(labels.iter().copied());
        let batch = self.shards.batch(hash, self.encoded.len() + self.exemplar_encoded.len() + 32)?;
        batch.exemplar(hash, &self.encoded, &self.exemplar_encoded, sample);
        self.shards.exemplars += 1;
        Ok(())
    }

    fn refuse(&mut self, reason: &'static str, items: u64, why: fmt::Arguments<'_>) {
        self.shards.refuse(reason, items, why);
    }
}

impl MetricsDoor<'_> {
    /// OpenMetrics: 128 characters of names and values together. Longer ones are left out, as Prometheus does.
    fn check_exemplar(&self, labels: &Pairs<'_>) -> bool {
        let runes: usize = labels.iter().map(|(n, v)| n.chars().count() + v.chars().count()).sum();
        runes <= 128
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(METADATA_BYTES_MAX)).rev().find(|i| text.is_char_boundary(*i));
    &text[..end.unwrap_or(0)]
}

/// Labels in an error, in the form of the query languages; long values are cut.
pub(crate) struct Show<'a>(pub &'a Pairs<'a>);

impl fmt::Display for Show<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.0.iter().enumerate() {
            if i == 30 {
                f.write_str(", ...")?;
                break;
            }
            let value: String = value.chars().take(64).collect();
            write!(f, "{}{name:.64}={value:?}", if i > 0 { ", " } else { "" })?;
        }
        f.write_str("}")
    }
}
