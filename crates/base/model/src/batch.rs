//! Write batches: what a receiver decodes once and everybody after it passes on as bytes.
//!
//! A receiver appends what it decodes to a builder. [`seal`] compresses the result; the sealed bytes travel to the ingester
//! and rest in its WAL as they are. The ingester [`open`]s them once and walks them with a reader that borrows.
//!
//! ```text
//! sealed  = u32 LE length of the plain batch | LZ4 block
//! plain   = version (1 B) = 1 | record*
//! metrics record = 1 | hash u64 LE | bytes(labels) | count u32 LE | count x (t_ms i64 LE, value f64 LE)
//!                | 2 | bytes(metric name) | kind (1 B) | bytes(help) | bytes(unit)                      metadata
//!                | 3 | hash u64 LE | bytes(labels) | bytes(exemplar labels) | t_ms i64 LE | value f64 LE   exemplar
//! logs record    = 1 | hash u64 LE | bytes(labels) | count u32 LE | count x (ts_ns i64 LE, bytes(line), bytes(metadata labels))
//! traces record  = 1 | trace id (16 B) | start_ns i64 LE | end_ns i64 LE | spans u32 LE | bytes(OTLP TracesData)
//! bytes(x)       = uvarint length | x         labels = as in `labels`
//! ```
//! Order inside a batch is the order of arrival. The same series, stream or trace may occur more than once.

use bytes::Bytes;

use crate::labels::{put_uvarint, take_bytes};
use crate::metrics::{MetricKind, Sample};
use crate::{Error, Result};

const VERSION: u8 = 1;
const RECORD_DATA: u8 = 1;
const RECORD_METADATA: u8 = 2;
const RECORD_EXEMPLAR: u8 = 3;

/// Compresses a plain batch for the wire and the WAL.
pub fn seal(plain: &[u8]) -> Bytes {
    lz4_flex::block::compress_prepend_size(plain).into()
}

/// Decompresses; refuses a batch that claims more than `plain_bytes_max`.
pub fn open(sealed: &[u8], plain_bytes_max: usize) -> Result<Vec<u8>> {
    let (size, block) = lz4_flex::block::uncompressed_size(sealed)
        .map_err(|_| Error::damaged("batch: shorter than its header"))?;
    if size > plain_bytes_max {
        return Err(Error::exhausted(format!("batch claims {size} bytes, the limit is {plain_bytes_max}")));
    }
    lz4_flex::block::decompress(block, size).map_err(|e| Error::damaged(format!("batch: {e}")))
}

fn damaged() -> Error {
    Error::damaged("batch: torn record")
}

fn take_array<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or_else(damaged)?;
    *rest = tail;
    Ok(head)
}

fn take_slice<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    take_bytes(rest).ok_or_else(damaged)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(take_slice(rest)?).map_err(|_| Error::damaged("batch: text is not UTF-8"))
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The shared part of the three builders: a buffer, how many items it holds.
macro_rules! builder {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            out: Vec<u8>,
            items: usize,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { out: vec![VERSION], items: 0 }
            }
        }

        impl $name {
            /// Samples, lines or spans in the batch.
            pub fn items(&self) -> usize {
                self.items
            }
            pub fn is_empty(&self) -> bool {
                self.out.len() == 1
            }
            /// Plain size so far, in bytes.
            pub fn bytes(&self) -> usize {
                self.out.len()
            }
            /// The plain batch.
            pub fn plain(&self) -> &[u8] {
                &self.out
            }
            /// Takes a plain batch back. It is checked as a whole.
            pub fn from_plain(plain: Vec<u8>) -> Result<Self> {
                let items = Self::count(&plain)?;
                Ok(Self { out: plain, items })
            }
            /// See [`seal`].
            pub fn seal(&self) -> Bytes {
                seal(&self.out)
            }
            /// Makes the builder empty and keeps its memory.
            pub fn clear(&mut self) {
                self.out.truncate(1);
                self.items = 0;
            }
        }
    };
}

fn check_version(plain: &[u8]) -> Result<&[u8]> {
    match plain.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((other, _)) => Err(Error::damaged(format!("batch: unknown version {other}"))),
        None => Err(Error::damaged("batch: empty")),
    }
}

builder!(
    /// Collects samples, metadata and exemplars.
    MetricsBuilder
);

impl MetricsBuilder {
    fn count(plain: &[u8]) -> Result<usize> {
        MetricsReader::new(plain)?.try_fold(0, |sum, record| {
            Ok(sum + if let MetricsRecord::Series { samples, .. } = record? { samples.len() } else { 0 })
        })
    }

    /// Adds a series; `labels` is the encoding of a label set, `hash` its [`crate::labels::hash_pairs`].
    pub fn series(&mut self, hash: u64, labels: &[u8], samples: &[Sample]) {
        self.out.push(RECORD_DATA);
        self.out.extend_from_slice(&hash.to_le_bytes());
        put_bytes(&mut self.out, labels);
        self.out.extend_from_slice(&(samples.len() as u32).to_le_bytes());
        for sample in samples {
            self.out.extend_from_slice(&sample.t_ms.to_le_bytes());
            self.out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
        }
        self.items += samples.len();
    }

    pub fn metadata(&mut self, metric: &str, kind: MetricKind, help: &str, unit: &str) {
        self.out.push(RECORD_METADATA);
        put_bytes(&mut self.out, metric.as_bytes());
        self.out.push(kind as u8);
        put_bytes(&mut self.out, help.as_bytes());
        put_bytes(&mut self.out, unit.as_bytes());
    }

    pub fn exemplar(&mut self, hash: u64, labels: &[u8], exemplar_labels: &[u8], sample: Sample) {
        self.out.push(RECORD_EXEMPLAR);
        self.out.extend_from_slice(&hash.to_le_bytes());
        put_bytes(&mut self.out, labels);
        put_bytes(&mut self.out, exemplar_labels);
        self.out.extend_from_slice(&sample.t_ms.to_le_bytes());
        self.out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
    }
}

/// One record of a metrics batch. `labels` are encoded and **not checked**: compare them with known sets, or go through
/// [`crate::Labels::from_encoded`].
#[derive(Debug, Clone, Copy)]
pub enum MetricsRecord<'a> {
    Series { hash: u64, labels: &'a [u8], samples: Samples<'a> },
    Metadata { metric: &'a str, kind: MetricKind, help: &'a str, unit: &'a str },
    Exemplar { hash: u64, labels: &'a [u8], exemplar_labels: &'a [u8], sample: Sample },
}

/// The samples of one record: 16 bytes each.
#[derive(Debug, Clone, Copy)]
pub struct Samples<'a>(&'a [[u8; 16]]);

impl<'a> Samples<'a> {
    pub fn len(&self) -> usize {
        self.0.len()
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Sample> + use<'a> {
        self.0.iter().map(|bytes| {
            let [t @ .., _, _, _, _, _, _, _, _] = bytes;
            let [_, _, _, _, _, _, _, _, v @ ..] = bytes;
            Sample { t_ms: i64::from_le_bytes(*t), value: f64::from_bits(u64::from_le_bytes(*v)) }
        })
    }
}

/// Walks a plain metrics batch. Ends after the first error.
pub struct MetricsReader<'a> {
    rest: &'a [u8],
}

impl<'a> MetricsReader<'a> {
    pub fn new(plain: &'a [u8]) -> Result<Self> {
        Ok(Self { rest: check_version(plain)? })
    }

    fn record(&mut self) -> Result<MetricsRecord<'a>> {
        let rest = &mut self.rest;
        let [tag] = *take_array::<1>(rest)?;
        match tag {
            RECORD_DATA => {
                let hash = u64::from_le_bytes(*take_array(rest)?);
                let labels = take_slice(rest)?;
                let count = u32::from_le_bytes(*take_array(rest)?) as usize;
                let length = count.checked_mul(16).ok_or_else(damaged)?;
                let (head, tail) = rest.split_at_checked(length).ok_or_else(damaged)?;
                *rest = tail;
                Ok(MetricsRecord::Series { hash, labels, samples: Samples(head.as_chunks::<16>().0) })
            }
            RECORD_METADATA => {
                let metric = take_text(rest)?;
                let [kind] = *take_array::<1>(rest)?;
                let (help, unit) = (take_text(rest)?, take_text(rest)?);
                Ok(MetricsRecord::Metadata { metric, kind: MetricKind::from_u8(kind), help, unit })
            }
            RECORD_EXEMPLAR => {
                let hash = u64::from_le_bytes(*take_array(rest)?);
                let (labels, exemplar_labels) = (take_slice(rest)?, take_slice(rest)?);
                let t_ms = i64::from_le_bytes(*take_array(rest)?);
                let value = f64::from_bits(u64::from_le_bytes(*take_array(rest)?));
                Ok(MetricsRecord::Exemplar { hash, labels, exemplar_labels, sample: Sample { t_ms, value } })
            }
            other => Err(Error::damaged(format!("batch: unknown record {other}"))),
        }
    }
}

builder!(
    /// Collects log lines by stream.
    LogsBuilder
);

/// Where a stream that was begun keeps its count.
#[derive(Debug, Clone, Copy)]
pub struct StreamMark(usize);

impl LogsBuilder {
    fn count(plain: &[u8]) -> Result<usize> {
        LogsReader::new(plain)?.try_fold(0, |sum, record| Ok(sum + record?.len()))
    }

    /// Begins a stream whose entries come one by one, by [`Self::entry`], before anything else is added.
    pub fn begin(&mut self, hash: u64, labels: &[u8]) -> StreamMark {
        self.out.push(RECORD_DATA);
        self.out.extend_from_slice(&hash.to_le_bytes());
        put_bytes(&mut self.out, labels);
        self.out.extend_from_slice(&0u32.to_le_bytes());
        StreamMark(self.out.len())
    }

    /// Adds an entry to the stream begun last.
    pub fn entry(&mut self, stream: StreamMark, entry: LogRecordEntry<'_>) {
        let count = self.out.get_mut(..stream.0).and_then(|head| head.last_chunk_mut::<4>());
        if let Some(count) = count {
            *count = u32::from_le_bytes(*count).wrapping_add(1).to_le_bytes();
            self.items += 1;
            self.put_entry(entry);
        }
    }

    fn put_entry(&mut self, entry: LogRecordEntry<'_>) {
        self.out.extend_from_slice(&entry.ts_ns.to_le_bytes());
        put_bytes(&mut self.out, entry.line.as_bytes());
        put_bytes(&mut self.out, entry.metadata);
    }

    /// Adds a stream with its entries.
    pub fn stream<'a>(
        &mut self,
        hash: u64,
        labels: &[u8],
        entries: impl ExactSizeIterator<Item = LogRecordEntry<'a>>,
    ) {
        self.out.push(RECORD_DATA);
        self.out.extend_from_slice(&hash.to_le_bytes());
        put_bytes(&mut self.out, labels);
        self.out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
        self.items += entries.len();
        entries.for_each(|entry| self.put_entry(entry));
    }
}

/// One line on its way in. `metadata` is the encoding of a label set (structured metadata).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRecordEntry<'a> {
    pub ts_ns: i64,
    pub line: &'a str,
    pub metadata: &'a [u8],
}

/// One stream of a logs batch; `labels` as in [`MetricsRecord`].
#[derive(Debug, Clone, Copy)]
pub struct LogsRecord<'a> {
    pub hash: u64,
    pub labels: &'a [u8],
    count: usize,
    entries: &'a [u8],
}

impl<'a> LogsRecord<'a> {
    pub fn len(&self) -> usize {
        self.count
    }
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// The lines in order of arrival; they were checked when the record was read.
    pub fn entries(&self) -> impl Iterator<Item = LogRecordEntry<'a>> + use<'a> {
        let mut rest = self.entries;
        (0..self.count).map_while(move |_| take_entry(&mut rest).ok())
    }
}

fn take_entry<'a>(rest: &mut &'a [u8]) -> Result<LogRecordEntry<'a>> {
    let ts_ns = i64::from_le_bytes(*take_array(rest)?);
    Ok(LogRecordEntry { ts_ns, line: take_text(rest)?, metadata: take_slice(rest)? })
}

/// Walks a plain logs batch. Ends after the first error.
pub struct LogsReader<'a> {
    rest: &'a [u8],
}

impl<'a> LogsReader<'a> {
    pub fn new(plain: &'a [u8]) -> Result<Self> {
        Ok(Self { rest: check_version(plain)? })
    }

    fn record(&mut self) -> Result<LogsRecord<'a>> {
        let rest = &mut self.rest;
        let [tag] = *take_array::<1>(rest)?;
        if tag != RECORD_DATA {
            return Err(Error::damaged(format!("batch: unknown record {tag}")));
        }
        let hash = u64::from_le_bytes(*take_array(rest)?);
        let labels = take_slice(rest)?;
        let count = u32::from_le_bytes(*take_array(rest)?) as usize;
        let before = *rest;
        for _ in 0..count {
            take_entry(rest)?;
        }
        let entries = &before[..before.len() - rest.len()];
        Ok(LogsRecord { hash, labels, count, entries })
    }
}

builder!(
    /// Collects pieces of traces.
    TracesBuilder
);

impl TracesBuilder {
    fn count(plain: &[u8]) -> Result<usize> {
        TracesReader::new(plain)?.try_fold(0, |sum, record| Ok(sum + record?.spans as usize))
    }

    /// Adds spans of one trace. `otlp` is an OTLP `TracesData` message (repeated field 1, ResourceSpans).
    pub fn trace(&mut self, trace_id: &[u8; 16], start_ns: i64, end_ns: i64, spans: u32, otlp: &[u8]) {
        self.out.push(RECORD_DATA);
        self.out.extend_from_slice(trace_id);
        self.out.extend_from_slice(&start_ns.to_le_bytes());
        self.out.extend_from_slice(&end_ns.to_le_bytes());
        self.out.extend_from_slice(&spans.to_le_bytes());
        put_bytes(&mut self.out, otlp);
        self.items += spans as usize;
    }
}

/// Some spans of one trace. `otlp` is not checked.
#[derive(Debug, Clone, Copy)]
pub struct TracesRecord<'a> {
    pub trace_id: &'a [u8; 16],
    pub start_ns: i64,
    pub end_ns: i64,
    pub spans: u32,
    pub otlp: &'a [u8],
}

/// Walks a plain traces batch. Ends after the first error.
pub struct TracesReader<'a> {
    rest: &'a [u8],
}

impl<'a> TracesReader<'a> {
    pub fn new(plain: &'a [u8]) -> Result<Self> {
        Ok(Self { rest: check_version(plain)? })
    }

    fn record(&mut self) -> Result<TracesRecord<'a>> {
        let rest = &mut self.rest;
        let [tag] = *take_array::<1>(rest)?;
        if tag != RECORD_DATA {
            return Err(Error::damaged(format!("batch: unknown record {tag}")));
        }
        Ok(TracesRecord {
            trace_id: take_array(rest)?,
            start_ns: i64::from_le_bytes(*take_array(rest)?),
            end_ns: i64::from_le_bytes(*take_array(rest)?),
            spans: u32::from_le_bytes(*take_array(rest)?),
            otlp: take_slice(rest)?,
        })
    }
}

macro_rules! iterate {
    ($reader:ident, $record:ident) => {
        impl<'a> Iterator for $reader<'a> {
            type Item = Result<$record<'a>>;
            fn next(&mut self) -> Option<Self::Item> {
                if self.rest.is_empty() {
                    return None;
                }
                let record = self.record();
                if record.is_err() {
                    self.rest = &[];
                }
                Some(record)
            }
        }
    };
}

iterate!(MetricsReader, MetricsRecord);
iterate!(LogsReader, LogsRecord);
iterate!(TracesReader, TracesRecord);

#[cfg(test)]
mod tests;
