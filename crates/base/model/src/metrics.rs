//! Metrics: what is selected and what comes back. Times are milliseconds since the epoch.

use bytes::Bytes;

use crate::{Labels, Matcher, Shard};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub t_ms: i64,
    pub value: f64,
}

/// Bits of the NaN that marks a series as stale (Prometheus `model/value/value.go`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Whether the value is the staleness marker; every other NaN is a value.
#[inline]
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum MetricKind {
    #[default]
    Unknown = 0,
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    GaugeHistogram = 4,
    Summary = 5,
    Info = 6,
    StateSet = 7,
}

impl MetricKind {
    /// The numbers are those of remote_write's `MetricMetadata.MetricType`.
    pub fn from_u8(kind: u8) -> Self {
        match kind {
            1 => Self::Counter,
            2 => Self::Gauge,
            3 => Self::Histogram,
            4 => Self::GaugeHistogram,
            5 => Self::Summary,
            6 => Self::Info,
            7 => Self::StateSet,
            _ => Self::Unknown,
        }
    }

    /// As `/api/v1/metadata` and the exposition formats write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricMetadata {
    pub metric: String,
    pub kind: MetricKind,
    pub help: String,
    pub unit: String,
}

/// How a chunk's data is encoded: the byte of Prometheus' chunk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChunkEncoding {
    Xor = 1,
    Histogram = 2,
    FloatHistogram = 3,
}

impl ChunkEncoding {
    pub fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Xor),
            2 => Some(Self::Histogram),
            3 => Some(Self::FloatHistogram),
            _ => None,
        }
    }
}

/// An encoded chunk: what travels instead of samples. `data` is the chunk as in Prometheus' files, without length, encoding
/// byte and checksum. Both ends of the range are inclusive.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedChunk {
    pub start_ms: i64,
    pub end_ms: i64,
    pub encoding: ChunkEncoding,
    pub data: Bytes,
}

/// One series and its chunks, sorted by start; chunks may overlap (late data, several sources).
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesChunks {
    pub labels: Labels,
    pub chunks: Vec<EncodedChunk>,
}

/// Which series, and over which time (both ends inclusive). Answers come sorted by labels, each series once per source.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesSelect {
    pub matchers: Vec<Matcher>,
    pub start_ms: i64,
    pub end_ms: i64,
    /// Labels only, no chunks.
    pub skip_chunks: bool,
    /// Only the series of this shard.
    pub shard: Option<Shard>,
}

/// Which label names or values. Any of the matcher sets may match; no set at all means every series.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LabelsSelect {
    pub matcher_sets: Vec<Vec<Matcher>>,
    pub start_ms: i64,
    pub end_ms: i64,
    /// At most this many answers; 0: no limit.
    pub limit: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    pub labels: Labels,
    pub value: f64,
    pub t_ms: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SeriesExemplars {
    pub series: Labels,
    pub exemplars: Vec<Exemplar>,
}

/// Head and cardinality figures for `/api/v1/status/tsdb`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CardinalityStats {
    pub series: u64,
    pub chunks: u64,
    pub samples: u64,
    pub start_ms: i64,
    pub end_ms: i64,
    /// (metric name, series), largest first.
    pub series_by_metric: Vec<(String, u64)>,
    /// (label name, distinct values), largest first.
    pub values_by_label: Vec<(String, u64)>,
}

/// A PromQL question. `step_ms` 0 asks at the one instant `start_ms`.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsQuery {
    pub expr: String,
    pub start_ms: i64,
    pub end_ms: i64,
    pub step_ms: i64,
    /// 0: the default of five minutes.
    pub lookback_ms: i64,
    /// Where this is a part of a longer query: start and end of that, which is what `@ start()`, `end()` and `range()` mean.
    pub whole_ms: Option<(i64, i64)>,
    /// Evaluate over the series of this shard alone, and answer what merges with the other shards' (`promql::split`).
    pub shard: Option<Shard>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SeriesSamples {
    pub labels: Labels,
    pub samples: Vec<Sample>,
}

/// What a PromQL or a LogQL metric query answers with.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryValue {
    Scalar(Sample),
    String {
        t_ms: i64,
        value: String,
    },
    /// One sample per series, in the order the answer should have (`sort`, `topk`).
    Vector(Vec<SeriesSamples>),
    Matrix(Vec<SeriesSamples>),
}
