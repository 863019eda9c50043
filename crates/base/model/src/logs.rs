//! Logs: what is selected and what comes back. Times are nanoseconds since the epoch; ranges include their start and exclude
//! their end, as in Loki.
//!
//! LogQL travels to the leaves as text: a leaf compiles the part it runs (selector, pipeline, sample extraction) itself.

use bytes::Bytes;

use crate::metrics::QueryValue;
use crate::{Labels, Matcher, Shard};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    Forward,
    #[default]
    Backward,
}

/// One line of an answer, after the pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// The stream's labels, as the pipeline left them.
    pub labels: Labels,
    /// Structured metadata.
    pub metadata: Labels,
    /// What parsers and `label_format` added.
    pub parsed: Labels,
    pub ts_ns: i64,
    /// UTF-8.
    pub line: Bytes,
    /// Identity of the stored entry, whatever the pipeline made of it: a hash of stream, line and metadata. Two entries with
    /// equal `ts_ns` and `key` are copies of one (replicas, or head and bucket).
    pub key: u64,
}

/// Samples of a log range aggregation, before they are folded into windows: some of one stream, by time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogSamples {
    /// Hash of the stream's labels.
    pub stream: u64,
    /// The series that the samples belong to; several where labels come from the lines. Each once.
    pub series: Vec<Labels>,
    pub samples: Vec<LogSample>,
}

/// What a line counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogSample {
    pub ts_ns: i64,
    /// As in [`LogEntry`].
    pub key: u64,
    pub value: f64,
    /// Position in [`LogSamples::series`].
    pub series: u32,
}

/// Which entries. Answers come in batches, in the asked direction over all streams, without copies from one source.
#[derive(Debug, Clone, PartialEq)]
pub struct EntrySelect {
    /// A LogQL log query: selector and pipeline.
    pub expr: String,
    pub start_ns: i64,
    pub end_ns: i64,
    pub direction: Direction,
    /// Stop after this many; 0: no limit.
    pub limit: usize,
}

/// Which samples. Answers come in batches, stream by stream with ascending [`LogSamples::stream`], the samples of each stream with
/// ascending time over all of its runs, without copies from one source. Copies have the same stream, so this is the order in
/// which several sources can be merged without more than one run of each at hand.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleSelect {
    /// A LogQL range aggregation, possibly inside the vector aggregation whose grouping tells which labels are needed:
    /// `sum by (app) (rate({..} | json [5m]))`. The leaf extracts; it does not fold.
    pub expr: String,
    pub start_ns: i64,
    pub end_ns: i64,
    /// Only the streams of this shard.
    pub shard: Option<Shard>,
}

/// Which stream labels, series, figures.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamsSelect {
    pub matcher_sets: Vec<Vec<Matcher>>,
    pub start_ns: i64,
    pub end_ns: i64,
    pub limit: usize,
}

/// `/loki/api/v1/index/stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamStats {
    pub streams: u64,
    pub chunks: u64,
    pub entries: u64,
    pub bytes: u64,
}

/// Bytes per label set, `/loki/api/v1/index/volume`.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    pub labels: Labels,
    pub bytes: u64,
}

/// A field found in lines, `/loki/api/v1/detected_fields`.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectedField {
    pub label: String,
    /// `string`, `int`, `float`, `boolean`, `duration`, `bytes`.
    pub kind: String,
    pub cardinality: u64,
    pub parsers: Vec<String>,
}

/// A LogQL question. `step_ns` 0 asks a metric query at the one instant `end_ns`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogsQuery {
    pub expr: String,
    pub start_ns: i64,
    pub end_ns: i64,
    pub step_ns: i64,
    pub direction: Direction,
    pub limit: usize,
    /// A metric query over the streams of this shard alone, which merges with the other shards' (`logql::split`).
    pub shard: Option<Shard>,
    /// Of a log query only lines that are at least so far from the one before; 0: all. What is left out does not count for the
    /// limit.
    pub interval_ns: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum LogsValue {
    /// In the asked direction, at most `limit`.
    Entries(Vec<LogEntry>),
    Metric(QueryValue),
}
