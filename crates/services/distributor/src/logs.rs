//! The logs door: checks streams and lines against the tenant's limits and fills batches.

use std::fmt;

use triptych_config::limits::LogsLimits;
use triptych_intake::otlp::logs::{SERVICE_NAME, SERVICE_NAME_LABELS, UNKNOWN_SERVICE};
use triptych_intake::sink::{LogsSink, Pairs};
use triptych_model::batch::{LogRecordEntry, LogsBuilder, StreamMark};
use triptych_model::labels::{encode_pairs, hash_pairs};
use triptych_model::{Result, TenantId};

use crate::distributor::{Inner, Shards};
use crate::level::{self, DETECTED_LEVEL};
use crate::metrics::Show;

pub(crate) struct LogsDoor<'l> {
    limits: &'l LogsLimits,
    discover_service_name: bool,
    discover_log_levels: bool,
    pub shards: Shards<LogsBuilder>,
    oldest_ns: i64,
    newest_ns: i64,
    stream: Stream,
    metadata: Vec<u8>,
}

/// The stream that entries belong to now.
#[derive(Default)]
struct Stream {
    hash: u64,
    labels: Vec<u8>,
    /// The level that its labels tell; its entries need not be looked at.
    level: Option<String>,
    /// For error texts.
    text: String,
    /// Why its entries are refused: reason, sentence.
    refused: Option<(&'static str, String)>,
    /// Set with the first entry: a stream without entries leaves no trace.
    mark: Option<StreamMark>,
}

impl<'l> LogsDoor<'l> {
    pub fn new(inner: &Inner, tenant: &TenantId, limits: &'l LogsLimits) -> Self {
        let now_ns = inner.clock.now_ns();
        let ns = |d: std::time::Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        let (age, grace) = (ns(limits.reject_old_samples_max_age), ns(limits.creation_grace_period));
        Self {
            limits,
            discover_service_name: inner.config.discover_service_name,
            discover_log_levels: inner.config.discover_log_levels,
            shards: Shards::new(inner, tenant),
            oldest_ns: if age == 0 { i64::MIN } else { now_ns.saturating_sub(age) },
            newest_ns: if grace == 0 { i64::MAX } else { now_ns.saturating_add(grace) },
            stream: Stream::default(),
            metadata: Vec::new(),
        }
    }

    fn check_labels(&self, labels: &Pairs<'_>) -> Option<(&'static str, String)> {
        let limits = self.limits;
        let over = |len: usize, max: usize| max != 0 && len > max;
        let stream = Show(labels);
        if labels.is_empty() {
            return Some((
                "missing_labels",
                "error at least one label pair is required per stream".to_owned(),
            ));
        }
        if over(labels.len(), limits.label_names_per_stream_max) {
            let max = limits.label_names_per_stream_max;
            let text = format!("entry for stream '{stream}' has {} label names; limit {max}", labels.len());
            return Some(("max_label_names_per_series", text));
        }
        for (name, value) in labels {
            if !is_label_name(name) {
                let text = format!("stream '{stream}' has an invalid label name: '{name:.100}'");
                return Some(("invalid_labels", text));
            }
            if over(name.len(), limits.label_name_bytes_max) {
                let max = limits.label_name_bytes_max;
                let text = format!(
                    "stream '{stream}' has label name too long: '{name:.100}' ({} bytes, limit {max})",
                    name.len()
                );
                return Some(("label_name_too_long", text));
            }
            if over(value.len(), limits.label_value_bytes_max) {
                let max = limits.label_value_bytes_max;
                let text = format!(
                    "stream '{stream}' has label value too long: '{value:.100}' ({} bytes, limit {max})",
                    value.len()
                );
                return Some(("label_value_too_long", text));
            }
        }
        None
    }

    fn begin(&mut self, labels: &Pairs<'_>) {
        let stream = &mut self.stream;
        stream.labels.clear();
        encode_pairs(labels.iter().copied(), &mut stream.labels);
        stream.hash = hash_pairs(labels.iter().copied());
    }

    /// Counts an entry that cannot be taken; `false` for one that can.
    fn refuse_entry(&mut self, ts_ns: i64, line: &str, metadata: &Pairs<'_>) -> bool {
        let limits = self.limits;
        let over = |len: usize, max: usize| max != 0 && len > max;
        let Self { stream: Stream { text: stream, refused, .. }, shards, .. } = self;
        if let Some((reason, text)) = refused {
            shards.refuse(reason, 1, format_args!("{text}"));
            return true;
        }
        if ts_ns < self.oldest_ns {
            let oldest = self.oldest_ns;
            shards.refuse(
                "greater_than_max_sample_age",
                1,
                format_args!(
                    "entry for stream '{stream}' has timestamp too old: {ts_ns} ns, oldest acceptable timestamp is: \
                     {oldest} ns"
                ),
            );
            return true;
        }
        if ts_ns > self.newest_ns {
            let newest = self.newest_ns;
            shards.refuse(
                "too_far_in_future",
                1,
                format_args!(
                    "entry for stream '{stream}' has timestamp too new: {ts_ns} ns, newest acceptable timestamp is: \
                     {newest} ns"
                ),
            );
            return true;
        }
        if over(line.len(), limits.line_bytes_max) {
            let (max, len) = (limits.line_bytes_max, line.len());
            shards.refuse(
                "line_too_long",
                1,
                format_args!(
                    "Max entry size '{max}' bytes exceeded for stream '{stream}' while adding an entry with length \
                     '{len}' bytes"
                ),
            );
            return true;
        }
        if over(metadata.len(), limits.structured_metadata_entries_max) {
            let (max, len) = (limits.structured_metadata_entries_max, metadata.len());
            shards.refuse(
                "structured_metadata_too_many",
                1,
                format_args!(
                    "stream '{stream}' has too many structured metadata labels: '{len}', limit: '{max}'"
                ),
            );
            return true;
        }
        let bytes: usize = metadata.iter().map(|(n, v)| n.len() + v.len()).sum();
        if over(bytes, limits.structured_metadata_bytes_max) {
            let max = limits.structured_metadata_bytes_max;
            shards.refuse(
                "structured_metadata_too_large",
                1,
                format_args!(
                    "stream '{stream}' has structured metadata too large: '{bytes}' bytes, limit: '{max}' bytes"
                ),
            );
            return true;
        }
        false
    }
}

fn is_label_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Structured metadata with `detected_level`: the sender's where it is there, else the stream's, else the entry's own.
fn encode_with_level(line: &str, metadata: &Pairs<'_>, of_stream: Option<&str>, out: &mut Vec<u8>) {
    let at = metadata.partition_point(|(name, _)| *name < DETECTED_LEVEL);
    let (before, after) = metadata.split_at(at);
    let (found, after) = match after.split_first() {
        Some(((DETECTED_LEVEL, word), after)) => (level::normalized(word), after),
        _ => (of_stream.unwrap_or_else(|| level::of_entry(line, metadata)), after),
    };
    let level = [(DETECTED_LEVEL, found)];
    encode_pairs(before.iter().chain(&level).chain(after).copied(), out);
}

impl LogsSink for LogsDoor<'_> {
    fn stream(&mut self, labels: &Pairs<'_>) -> Result<()> {
        self.stream.mark = None;
        self.stream.refused = self.check_labels(labels);
        self.stream.text.clear();
        let _ = fmt::Write::write_fmt(&mut self.stream.text, format_args!("{}", Show(labels)));
        if self.stream.refused.is_some() {
            return Ok(());
        }
        if self.discover_log_levels {
            self.stream.level = level::of_pairs(labels).map(|word| level::normalized(word).to_owned());
        }
        let find = |name: &str| labels.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        if self.discover_service_name && find(SERVICE_NAME).is_none() {
            let service = SERVICE_NAME_LABELS.iter().find_map(|name| find(name)).unwrap_or(UNKNOWN_SERVICE);
            let mut all = labels.to_vec();
            let at = all.partition_point(|(name, _)| *name < SERVICE_NAME);
            all.insert(at, (SERVICE_NAME, service));
            self.begin(&all);
        } else {
            self.begin(labels);
        }
        Ok(())
    }

    fn entry(&mut self, ts_ns: i64, line: &str, metadata: &Pairs<'_>) -> Result<()> {
        if self.refuse_entry(ts_ns, line, metadata) {
            return Ok(());
        }
        self.metadata.clear();
        if self.discover_log_levels {
            let Self { stream, metadata: out, .. } = self;
            encode_with_level(line, metadata, stream.level.as_deref(), out);
        } else {
            encode_pairs(metadata.iter().copied(), &mut self.metadata);
        }
        let Stream { hash, labels, mark, .. } = &mut self.stream;
        let bytes =
            line.len() + self.metadata.len() + 16 + if mark.is_none() { labels.len() + 16 } else { 0 };
        let batch = self.shards.batch(*hash, bytes)?;
        let mark = *mark.get_or_insert_with(|| batch.begin(*hash, labels));
        batch.entry(mark, LogRecordEntry { ts_ns, line, metadata: &self.metadata });
        Ok(())
    }

    fn refuse(&mut self, reason: &'static str, items: u64, why: fmt::Arguments<'_>) {
        self.shards.refuse(reason, items, why);
    }
}
