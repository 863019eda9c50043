//! What one tenant wrote in one generation, in memory.
//!
//! ```text
//! Head -> 16 shards (by hash), each under its own lock: table hash -> series; series = labels, open chunk, closed, late
//!      -> index (name -> value -> ids), written for new series only
//!      -> extras: metadata, exemplars
//! ```
//! **Lock order**: shard, then index. No reader holds both; no lock is held while a regex runs or across an await.
//! A request visits each shard once. An idle head has no allocation but its shards' empty tables.
//!
//! **Time.** A chunk is cut at 120 samples and at the borders of block ranges (2 h), so that a flush moves chunks into blocks
//! as they are. A sample older than the newest of its series is late: it goes to a sorted buffer of the series, cut to chunks
//! of its own. What is older than the head's newest minus the window is refused. The head has no clock: somebody before it
//! (the distributor) must refuse samples far in the future.

mod extras;
mod flush;
mod index;
mod read;
mod series;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use triptych_model::batch::{MetricsReader, MetricsRecord, Samples};
use triptych_model::metrics::{Exemplar, MetricKind, Sample};
use triptych_model::push::PushReport;
use triptych_model::version::{Changes, Slots};
use triptych_model::{Labels, Result, Version};
use triptych_runtime::random::random_u64;

pub use flush::{FlushOptions, FlushReport};

use crate::chunk::CHUNK_SAMPLES_MAX;
use extras::Extras;
use index::{Index, Location};
use series::{Cut, Outcome, Series};

const SHARD_BITS: u32 = 4;
const SHARDS: usize = 1 << SHARD_BITS;

/// Prometheus' words for why a sample is refused.
pub mod reason {
    /// Older than the out-of-order window allows.
    pub const OUT_OF_BOUNDS: &str = "out_of_bounds";
    /// Another value for this timestamp was taken before.
    pub const NEW_VALUE: &str = "new-value-for-timestamp";
    /// The tenant has as many series as it may.
    pub const SERIES_LIMIT: &str = "per_user_series_limit";
    /// The tenant has as much metric metadata as it may.
    pub const METADATA_LIMIT: &str = "per_user_metadata_limit";
    /// The label set is torn, unsorted, empty, or does not have the hash it came with.
    pub const LABELS_INVALID: &str = "labels_invalid";
}

/// A head's settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadConfig {
    /// Series the tenant may have in this head; 0: no limit. Known series go on when it is reached.
    pub series_max: usize,
    /// How far behind the head's newest sample a sample may be, in milliseconds.
    pub out_of_order_window_ms: i64,
    /// Length of a block in milliseconds; blocks are aligned to it.
    pub block_range_ms: i64,
    /// Exemplars kept; the oldest leave.
    pub exemplars_max: usize,
    /// Memory for metric metadata, in bytes.
    pub metadata_bytes_max: usize,
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self {
            series_max: 0,
            out_of_order_window_ms: 3_600_000,
            block_range_ms: 7_200_000,
            exemplars_max: 10_000,
            metadata_bytes_max: 8 << 20,
        }
    }
}

/// What one tenant wrote in one generation. Clones share it. Flushed heads stay readable.
#[derive(Debug, Clone)]
pub struct Head(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: HeadConfig,
    cut: Cut,
    series_max: AtomicUsize,
    shards: Box<[Mutex<Shard>]>,
    index: RwLock<Index>,
    extras: Mutex<Extras>,
    series: AtomicUsize,
    samples: AtomicU64,
    /// Memory of series, chunks, labels, tables; without index and extras.
    series_bytes: AtomicI64,
    start_ms: AtomicI64,
    end_ms: AtomicI64,
    changes: SampleChanges,
    flushed: flush::Flushed,
}

/// By the quarter of an hour of the samples.
type SampleChanges = Changes<{ 15 * 60_000 }>;

#[derive(Debug, Default)]
struct Shard {
    table: HashTable<u32>,
    series: Vec<Series>,
}

struct SeriesRecord<'a> {
    hash: u64,
    labels: &'a [u8],
    samples: Samples<'a>,
}

struct Limits {
    floor_ms: i64,
    series_max: usize,
}

/// Bits that neither the ring (top) nor the table (top seven and bottom) looks at.
fn shard_of(hash: u64) -> usize {
    (hash >> 32) as usize & (SHARDS - 1)
}

impl Head {
    pub fn new(config: HeadConfig) -> Self {
        let cut = Cut { samples_max: CHUNK_SAMPLES_MAX, range_ms: config.block_range_ms.max(1) };
        Self(Arc::new(Inner {
            cut,
            series_max: AtomicUsize::new(config.series_max),
            config,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            index: RwLock::default(),
            extras: Mutex::default(),
            series: AtomicUsize::new(0),
            samples: AtomicU64::new(0),
            series_bytes: AtomicI64::new(0),
            start_ms: AtomicI64::new(i64::MAX),
            end_ms: AtomicI64::new(i64::MIN),
            changes: SampleChanges::new(random_u64()),
            flushed: flush::Flushed::default(),
        }))
    }

    /// Applies a plain batch ([`triptych_model::batch`]). Fails, with nothing applied, only where the batch is torn.
    pub fn append(&self, plain: &[u8]) -> Result<PushReport> {
        let window_ms = self.0.config.out_of_order_window_ms;
        let series_max = self.0.series_max.load(Ordering::Relaxed);
        self.apply(plain, window_ms, series_max)
    }

    /// As [`Head::append`], for a batch that comes back from the WAL. Batches that were applied at the same time may stand in
    /// the log in another order: window and series limit are wider here, so that nothing acknowledged is refused now.
    pub fn replay(&self, plain: &[u8]) -> Result<PushReport> {
        let window_ms = self.0.config.out_of_order_window_ms;
        let series_max = self.0.series_max.load(Ordering::Relaxed);
        self.apply(
            plain,
            window_ms.saturating_add(window_ms / 4 + 60_000),
            series_max.saturating_add(series_max / 8),
        )
    }

    /// Changes the series limit (0: none), for limits that reload.
    pub fn set_series_max(&self, series_max: usize) {
        self.0.series_max.store(series_max, Ordering::Relaxed);
    }

    pub fn series_count(&self) -> usize {
        self.0.series.load(Ordering::Relaxed)
    }

    pub fn sample_count(&self) -> u64 {
        self.0.samples.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.series_count() == 0
    }

    /// Oldest and newest sample, both inclusive.
    pub fn time_range_ms(&self) -> Option<(i64, i64)> {
        let range = (self.0.start_ms.load(Ordering::Relaxed), self.0.end_ms.load(Ordering::Relaxed));
        (range.0 <= range.1).then_some(range)
    }

    /// Of the samples in the range, both ends inclusive.
    pub fn version(&self, start_ms: i64, end_ms: i64) -> Version {
        match self.overlaps(start_ms, end_ms) {
            true => self.0.changes.version(start_ms, end_ms),
            false => Version::default(),
        }
    }

    /// Memory held, estimated, in bytes.
    pub fn bytes(&self) -> usize {
        let series = self.0.series_bytes.load(Ordering::Relaxed).max(0) as usize;
        let own = size_of::<Inner>() + SHARDS * size_of::<Mutex<Shard>>();
        own + series + self.0.index.read().bytes() + self.0.extras.lock().bytes()
    }

    fn apply(&self, plain: &[u8], window_ms: i64, series_max: usize) -> Result<PushReport> {
        let inner = &*self.0;
        let mut records: Vec<SeriesRecord<'_>> = Vec::new();
        let mut metadata: Vec<(&str, MetricKind, &str, &str)> = Vec::new();
        let mut exemplars: Vec<(&[u8], &[u8], Sample)> = Vec::new();
        for record in MetricsReader::new(plain)? {
            match record? {
                MetricsRecord::Series { hash, labels, samples } => {
                    records.push(SeriesRecord { hash, labels, samples });
                }
                MetricsRecord::Metadata { metric, kind, help, unit } => {
                    metadata.push((metric, kind, help, unit))
                }
                MetricsRecord::Exemplar { labels, exemplar_labels, sample, .. } => {
                    exemplars.push((labels, exemplar_labels, sample));
                }
            }
        }

        // The head's newest before this batch, as Prometheus' appender does it: a batch is judged by what was there.
        let newest_ms = inner.end_ms.load(Ordering::Relaxed);
        let floor_ms = if newest_ms == i64::MIN { i64::MIN } else { newest_ms.saturating_sub(window_ms) };
        let limits = Limits { floor_ms, series_max };
        let mut report = PushReport::default();

        // Counting sort by shard: each lock is taken once.
        let mut ends = [0usize; SHARDS];
        records.iter().for_each(|r| ends[shard_of(r.hash)] += 1);
        let mut total = 0;
        for end in &mut ends {
            total += *end;
            *end = total - *end;
        }
        let mut order = vec![0u32; records.len()];
        for (i, record) in records.iter().enumerate() {
            let end = &mut ends[shard_of(record.hash)];
            order[*end] = i as u32;
            *end += 1;
        }
        let mut start = 0;
        for (shard, &end) in ends.iter().enumerate() {
            if start < end {
                self.apply_to_shard(shard, &records, &order[start..end], &limits, &mut report);
            }
            start = end;
        }

        if !metadata.is_empty() || !exemplars.is_empty() {
            self.apply_extras(&metadata, &exemplars, &mut report);
        }
        Ok(report)
    }

    fn apply_to_shard(
        &self,
        shard_index: usize,
        records: &[SeriesRecord<'_>],
        order: &[u32],
        limits: &Limits,
        report: &mut PushReport,
    ) {
        let inner = &*self.0;
        let (mut start_ms, mut end_ms) = (i64::MAX, i64::MIN);
        let (mut taken, mut copies, mut bytes) = (0u64, 0u64, 0i64);
        let mut touched = Slots::default();
        let mut created: Vec<(Labels, Location)> = Vec::new();
        let mut guard = inner.shards[shard_index].lock();
        let shard = &mut *guard;
        for &i in order {
            let record = &records[i as usize];
            let items = record.samples.len() as u64;
            let found = shard.table.find(record.hash, |&at| {
                let series = &shard.series[at as usize];
                series.hash == record.hash && series.labels.as_encoded() == record.labels
            });
            let at = match found {
                Some(&at) => at,
                None => {
                    if record.samples.iter().all(|s| s.t_ms < limits.floor_ms) {
                        if let Some(sample) = record.samples.iter().next() {
                            report.refuse(reason::OUT_OF_BOUNDS, items, || {
                                out_of_bounds(sample, limits.floor_ms)
                            });
                        }
                        continue;
                    }
                    let labels = match Labels::from_encoded(record.labels) {
                        Ok(labels) if !labels.is_empty() && labels.hash64() == record.hash => labels,
                        _ => {
                            report.refuse(reason::LABELS_INVALID, items, || {
                                "label set is torn, unsorted or empty, or has another hash".to_owned()
                            });
                            continue;
                        }
                    };
                    let before = inner.series.fetch_add(1, Ordering::Relaxed);
                    if limits.series_max != 0 && before >= limits.series_max {
                        inner.series.fetch_sub(1, Ordering::Relaxed);
                        report.refuse(reason::SERIES_LIMIT, items, || {
                            format!(
                                "{labels}: the tenant has {before} series in memory, the limit is {}",
                                limits.series_max
                            )
                        });
                        continue;
                    }
                    let at = shard.series.len() as u32;
                    let series = &mut shard.series;
                    let capacity = (series.capacity(), shard.table.capacity());
                    bytes += (labels.as_encoded().len() + 16) as i64;
                    created.push((labels.clone(), at << SHARD_BITS | shard_index as u32));
                    series.push(Series::new(record.hash, labels));
                    shard.table.insert_unique(record.hash, at, |&at| series[at as usize].hash);
                    bytes += ((series.capacity() - capacity.0) * size_of::<Series>()
                        + (shard.table.capacity() - capacity.1) * 6) as i64;
                    at
                }
            };
            let series = &mut shard.series[at as usize];
            for sample in record.samples.iter() {
                if sample.t_ms < limits.floor_ms {
                    report.refuse(reason::OUT_OF_BOUNDS, 1, || out_of_bounds(sample, limits.floor_ms));
                    continue;
                }
                match series.append(sample, inner.cut, &mut bytes) {
                    Outcome::Taken => {
                        taken += 1;
                        start_ms = start_ms.min(sample.t_ms);
                        end_ms = end_ms.max(sample.t_ms);
                        touched |= SampleChanges::slot(sample.t_ms);
                    }
                    Outcome::Copy => copies += 1,
                    Outcome::Conflict(there) => report.refuse(reason::NEW_VALUE, 1, || {
                        format!(
                            "{}: at {} ms the value is {there}, the new one {}",
                            series.labels, sample.t_ms, sample.value
                        )
                    }),
                }
            }
        }
        // Still under the shard's lock: whoever finds the series in the table can trust that the index has it.
        if !created.is_empty() {
            let mut index = inner.index.write();
            created.iter().for_each(|(labels, location)| index.insert(labels, *location));
        }
        drop(guard);
        report.accepted += taken + copies;
        inner.samples.fetch_add(taken, Ordering::Relaxed);
        inner.series_bytes.fetch_add(bytes, Ordering::Relaxed);
        inner.start_ms.fetch_min(start_ms, Ordering::Relaxed);
        inner.end_ms.fetch_max(end_ms, Ordering::Relaxed);
        // Last: everything can be seen.
        inner.changes.count(touched);
    }

    fn apply_extras(
        &self,
        metadata: &[(&str, MetricKind, &str, &str)],
        exemplars: &[(&[u8], &[u8], Sample)],
        report: &mut PushReport,
    ) {
        let config = &self.0.config;
        let mut extras = self.0.extras.lock();
        for &(metric, kind, help, unit) in metadata {
            if !extras.put_metadata(metric, kind, help, unit, config.metadata_bytes_max) {
                report.refuse(reason::METADATA_LIMIT, 1, || {
                    format!("{metric}: metadata uses all of its {} bytes", config.metadata_bytes_max)
                });
            }
        }
        for &(series, labels, sample) in exemplars {
            match (Labels::from_encoded(series), Labels::from_encoded(labels)) {
                (Ok(series), Ok(labels)) => {
                    let exemplar = Exemplar { labels, value: sample.value, t_ms: sample.t_ms };
                    extras.put_exemplar(series, exemplar, config.exemplars_max);
                }
                _ => report.refuse(reason::LABELS_INVALID, 1, || {
                    "exemplar: label set is torn or unsorted".to_owned()
                }),
            }
        }
    }
}

fn out_of_bounds(sample: Sample, floor_ms: i64) -> String {
    format!("sample at {} ms is too old, the oldest that is taken now is {floor_ms} ms", sample.t_ms)
}

#[cfg(test)]
mod tests;
