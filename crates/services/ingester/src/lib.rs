//! Takes sealed batches, keeps them (write-ahead log, heads), answers about them, and brings them to the bucket.
//!
//! **Owns** when things happen: acknowledgement after the fsync, generations, flushes and their retries, the memory ceiling, replay
//! after a start, drain before an end.
//! **Must not know** any format: what a head is, how it is read, merged and written is the signals' business. The three doors
//! ([`metrics`], [`logs`], [`traces`]) plug them in.
//!
//! | module | what is in it |
//! |---|---|
//! | [`config`] | [`Config`] |
//! | [`generation`] | the mechanics shared by the signals: append + WAL, rotate, flush, retain, replay |
//! | [`metrics`], [`logs`], [`traces`] | the doors: heads of the signal, and the Store API over several generations |
//! | [`spool`] | where flushes go while the bucket does not take them |
//! | [`record`] | what rests in the write-ahead log |
//! | [`memory`], [`disk`] | the ceilings on all heads, and on everything that is kept locally |
//! | [`telemetry`] | our own metrics |
//!
//! # Layout on disk
//! `<data_dir>/wal/{metrics,logs,traces}/00000001.wal`: see `triptych_wal`. `<data_dir>/spool/{metrics,logs,traces}/..`: see [`spool`].
//!
//! # Without the bucket
//! Frozen generations wait in memory. When that runs short, or when a generation failed to go several times, it is written to the spool, is
//! read from there, and leaves memory and the write-ahead log; the spool is emptied when the bucket is back, oldest first. Log and spool
//! together may hold `disk_bytes_max`; above it writes are refused (503) until the bucket takes some.
//!
//! # Consistency
//! I1, I2 and the table "the process dies" of `docs/ARCHITECTURE.md` are kept by [`generation`]. A push is acknowledged after the fsync
//! of its group. It was applied to the head before: a reader may see a sample whose write then fails; the writer sends it again, copies
//! are merged by their natural key. A push that is refused for memory, queue or shutdown was not applied.
//!
//! # Memory
//! Heads of all generations, waiting and retained ones included: the share `heads` of the process' budget, looked at before each append,
//! so it can be passed by what the writes in flight add (the share `writes`: sealed and decompressed). Both are shared out fairly among
//! the tenants. Flushes wait for room in the share `flushes`. The WAL's queue: `wal_queue_bytes_max` per signal, at most a third of `writes`. Replay flushes as it goes when the heads it
//! builds pass three quarters of the ceiling.
//!
//! # Known holes
//! - A head that can be written neither to the bucket nor to the spool stays in memory, and keeps the segments after it on disk.
//! - A query that relates spans of one trace sees only those of one generation at a time; a generation is older than most traces.

mod config;
mod disk;
mod generation;
mod logs;
mod memory;
mod metrics;
mod record;
mod spool;
mod telemetry;
#[cfg(test)]
mod tests;
mod traces;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use triptych_blob::Bucket;
use triptych_config::TenantLimits;
use triptych_model::push::PushReport;
use triptych_model::{Error, Result, Signal, batch};
use triptych_ring::Spread;
use triptych_rpc::{Ingest, LogsStore, MetricsStore, TracesStore, WriteContext};
use triptych_runtime::runtimes::Handles;
use triptych_runtime::{MemoryBudget, MemoryShare, ProcessBudget, SharedClock, Tasks};
use triptych_wal::{Disk, Wal};

pub use config::{Config, GenerationConfig};
pub use telemetry::TELEMETRY;

use disk::DiskBudget;
use generation::{Generations, Kind, Shared};
use memory::Memory;

/// Below the data directory.
const WAL: &str = "wal";

/// What the ingester is built from.
pub struct Deps {
    pub bucket: Bucket,
    /// Where flushes go while the bucket does not take them: local and durable (`<data_dir>/spool`).
    pub spool: Bucket,
    /// Local and durable; the ingester's own.
    pub data_dir: PathBuf,
    /// No ingester has ever run over `data_dir` ([`has_been_here`]): it holds nothing, which can be said before that is looked at.
    pub is_new: bool,
    /// What `data_dir` is on.
    pub disk: Arc<dyn Disk>,
    pub clock: SharedClock,
    pub pools: Handles,
    pub limits: TenantLimits,
    /// What heads and writes in flight draw on.
    pub budget: ProcessBudget,
    /// The name of this ingester among all; stands in what it writes. Restarts keep it.
    pub node: String,
    /// Members of its own zone that may hold data, the dead ones among them, by name (see [`Zone`]).
    pub zone: Zone,
    /// Over how many ingesters what a tenant has is spread: each keeps its part of a limit.
    pub spread: watch::Receiver<Spread>,
}

/// The ingesters of one zone that may hold data, this one included or not. They stand for the zone together.
pub type Zone = watch::Receiver<Arc<[Arc<str>]>>;

/// Nobody else: the zone of the one ingester of a process, and of tests.
pub fn alone() -> Zone {
    watch::Sender::new(Arc::from([])).subscribe()
}

/// Whether an ingester has ever run over this directory, and may have left data in it.
pub fn has_been_here(data_dir: &std::path::Path) -> bool {
    data_dir.join(WAL).exists()
}

/// See the module. Clones are the same ingester.
#[derive(Clone)]
pub struct Ingester(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    pools: Handles,
    memory: Memory,
    in_flight: MemoryBudget,
    metrics: Arc<Generations<metrics::Metrics>>,
    logs: Arc<Generations<logs::Logs>>,
    traces: Arc<Generations<traces::Traces>>,
    has_left: AtomicBool,
}

impl Config {
    /// Opens the write-ahead logs. Nothing is served before [`Ingester::start`].
    pub fn build(self, deps: Deps) -> Result<Ingester> {
        let config = Arc::new(self);
        let memory = Memory::new(deps.budget.share(MemoryShare::Heads).clone());
        let in_flight = deps.budget.share(MemoryShare::Writes).clone();
        let wal_config = config.wal(in_flight.bytes_max());
        let shared = Shared {
            config: config.clone(),
            bucket: deps.bucket.clone(),
            spool: deps.spool.clone(),
            disk: DiskBudget::new(config.disk_bytes_max, &deps.data_dir),
            clock: deps.clock.clone(),
            memory: memory.clone(),
            flush_memory: deps.budget.share(MemoryShare::Flushes).clone(),
            flush_pool: deps.pools.background.clone(),
            zone: deps.zone.clone(),
            is_new: deps.is_new,
            spread: deps.spread.clone(),
        };
        let wal = |signal: Signal| {
            let dir = deps.data_dir.join(WAL).join(signal.as_str());
            Wal::open(deps.disk.clone(), &dir, signal.as_str(), &wal_config)
        };
        let metrics = Generations::new(
            metrics::Metrics::new(&deps),
            config.metrics.clone(),
            wal(Signal::Metrics)?,
            shared.clone(),
        );
        let logs =
            Generations::new(logs::Logs::new(&deps), config.logs.clone(), wal(Signal::Logs)?, shared.clone());
        let traces =
            Generations::new(traces::Traces::new(&deps), config.traces.clone(), wal(Signal::Traces)?, shared);
        Ok(Ingester(Arc::new(Inner {
            pools: deps.pools,
            memory,
            in_flight,
            config,
            metrics: Arc::new(metrics),
            logs: Arc::new(logs),
            traces: Arc::new(traces),
            has_left: AtomicBool::new(false),
        })))
    }
}

impl Ingester {
    /// Starts the replay, in parallel for the signals, and the periodic work.
    pub fn start(&self, tasks: &Tasks) {
        let pool = &self.0.pools.background;
        self.0.metrics.start(
            tasks,
            pool,
            ["ingester-metrics", "ingester-flush-metrics", "ingester-upload-metrics"],
        );
        self.0.logs.start(tasks, pool, ["ingester-logs", "ingester-flush-logs", "ingester-upload-logs"]);
        self.0.traces.start(
            tasks,
            pool,
            ["ingester-traces", "ingester-flush-traces", "ingester-upload-traces"],
        );
    }

    /// True when the write-ahead log is replayed: writes are taken, reads are whole.
    pub fn is_ready(&self) -> bool {
        self.0.metrics.is_replayed() && self.0.logs.is_replayed() && self.0.traces.is_replayed()
    }

    pub fn metrics(&self) -> Arc<dyn MetricsStore> {
        self.0.metrics.clone()
    }

    pub fn logs(&self) -> Arc<dyn LogsStore> {
        Arc::new(logs::Door(self.0.logs.clone()))
    }

    pub fn traces(&self) -> Arc<dyn TracesStore> {
        self.0.traces.clone()
    }

    /// Memory that all heads hold, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.memory.used()
    }

    /// Brings everything that was acknowledged before the call to the bucket (`POST /-/flush`). Tries for as long as it is polled.
    pub async fn flush_all(&self) {
        let inner = &*self.0;
        let ((), (), ()) = tokio::join!(flush(&*inner.metrics), flush(&*inner.logs), flush(&*inner.traces));
    }

    /// The end: refuses writes, flushes (if the config says so) for at most `deadline`, closes the write-ahead logs. What is not in the
    /// bucket by then is replayed at the next start; the error says how much. What was flushed less than `retain_after_flush` ago stays
    /// in the log as well: the store-gateways may not have seen it yet, and the next process must answer for it until they have.
    pub async fn drain(&self, deadline: Duration) -> Result<()> {
        let inner = &*self.0;
        inner.metrics.refuse_writes();
        inner.logs.refuse_writes();
        inner.traces.refuse_writes();
        let mut result = Ok(());
        if inner.config.flush_on_shutdown {
            if !self.is_ready() {
                result = Err(Error::unavailable("drain: the write-ahead log was not replayed yet, it stays"));
            } else if tokio::time::timeout(deadline, self.flush_all()).await.is_err() {
                let left = inner.metrics.unflushed() + inner.logs.unflushed() + inner.traces.unflushed();
                result = Err(Error::unavailable(format!(
                    "drain: {left} generations are not in the bucket after {deadline:?}; they stay in the write-ahead log"
                )));
            }
        }
        tokio::join!(inner.metrics.close(), inner.logs.close(), inner.traces.close());
        result
    }

    /// Leaves for good (`POST /-/leave`, before a scale-in): refuses writes, brings everything to the bucket, and waits until the
    /// store-gateways have seen it. Reads are answered all along. Tries for as long as it is polled; then nothing is left here.
    pub async fn leave(&self) {
        let inner = &*self.0;
        inner.metrics.refuse_writes();
        inner.logs.refuse_writes();
        inner.traces.refuse_writes();
        self.flush_all().await;
        tokio::time::sleep(inner.config.retain_after_flush).await;
        inner.has_left.store(true, Ordering::Release);
    }

    /// Whether [`Ingester::leave`] has come to its end.
    pub fn has_left(&self) -> bool {
        self.0.has_left.load(Ordering::Acquire)
    }

    async fn take(&self, ctx: &WriteContext, signal: Signal, sealed: Bytes) -> Result<PushReport> {
        let inner = &*self.0;
        // What the batch claims to be is checked by `open`; here it is what the decompression will need.
        let claimed = sealed.first_chunk().map_or(0, |size| u32::from_le_bytes(*size) as usize);
        let wanted = sealed.len() + claimed.min(inner.config.batch_bytes_max);
        let _in_flight = inner.in_flight.tenant(&ctx.tenant).reserve(wanted)?;
        let plain = batch::open(&sealed, inner.config.batch_bytes_max)?;
        match signal {
            Signal::Metrics => inner.metrics.push(&ctx.tenant, sealed, &plain).await,
            Signal::Logs => inner.logs.push(&ctx.tenant, sealed, &plain).await,
            Signal::Traces => inner.traces.push(&ctx.tenant, sealed, &plain).await,
        }
    }
}

async fn flush<K: Kind>(generations: &Generations<K>) {
    // What went to the spool before is waited for, too.
    generations.flush_upto(generations.rotate().unwrap_or(0)).await;
}

#[async_trait]
impl Ingest for Ingester {
    async fn push(&self, ctx: &WriteContext, signal: Signal, sealed: Bytes) -> Result<PushReport> {
        let sealed_bytes = sealed.len();
        let result = self.take(ctx, signal, sealed).await;
        match &result {
            Ok(report) => telemetry::pushed(signal, sealed_bytes, report),
            Err(error) => telemetry::push_failed(signal, error.kind.as_str()),
        }
        result
    }
}
