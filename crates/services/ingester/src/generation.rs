//! The mechanics that the three signals share: generations, from the first append to the last segment deleted.
//!
//! A *generation* is a run of WAL segments plus the heads that were built from them. It is `current` (takes writes), then *frozen*
//! (waits for its flush, oldest first), then *retained* (in the bucket; still readable here), then gone. A frozen generation that the
//! bucket does not take goes to the [`Spool`] on the local disk instead, heads and all.
//!
//! ```text
//!  push ---- read lock: append to the head, enqueue in the WAL ---- await the ticket ---- acknowledge
//!  rotate -- write lock: cut the WAL, current -> frozen, a new current
//!  flush --- no lock: every tenant's head to the bucket (or spool); write lock: frozen -> retained
//!  tick ---- write lock: retained -> gone; no lock: delete the segments up to its cut
//! ```
//! **Lock order**: `state`, then a generation's `tenants`, then what a head has inside. `flushing` (async) is taken first of all and
//! alone. No lock but `flushing` is held across an await.
//!
//! Flushes of one signal run one after the other, oldest generation first; one that fails is tried again later and lets those after it
//! pass. Segments are deleted up to the cut before the oldest generation that is still to be flushed (I2).

mod flush;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use hashbrown::HashMap;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use triptych_blob::Bucket;
use triptych_blob::object_store::path::Path;
use triptych_model::push::PushReport;
use triptych_model::{Error, Result, Signal, TenantId, batch};
use triptych_ring::Spread;
use triptych_runtime::{MemoryBudget, QueryContext, SharedClock, Tasks, blocking, invariant};
use triptych_wal::{Cut, Replay, SegmentId, Wal};

use crate::config::GenerationConfig;
use crate::disk::DiskBudget;
use crate::memory::Memory;
use crate::spool::Spool;
use crate::{Config, Zone, record, telemetry};

/// What the mechanics need to know of a signal. A door (`metrics.rs`, `logs.rs`, `traces.rs`) implements it.
pub(crate) trait Kind: Send + Sync + 'static {
    const SIGNAL: Signal;
    /// What one tenant wrote in one generation. Clones share it.
    type Head: Clone + Send + Sync + 'static;
    /// Reads what flushes have written to a bucket.
    type Store: Clone + Send + Sync + 'static;

    /// `spread`: among whom the tenant's limits are divided.
    fn new_head(&self, tenant: &TenantId, spread: Spread) -> Self::Head;
    /// Applies a plain batch. `replay`: it was acknowledged before the process started.
    fn append(&self, head: &Self::Head, plain: &[u8], replay: bool) -> Result<PushReport>;
    /// Memory held.
    fn bytes(&self, head: &Self::Head) -> usize;
    /// Series, streams or traces.
    fn items(&self, head: &Self::Head) -> usize;
    /// Takes over limits that may have been changed.
    fn refresh(&self, _head: &Self::Head, _tenant: &TenantId, _spread: Spread) {}
    /// Writes the head to the bucket; the object that makes a block visible comes last. May be repeated, and dropped at any time; what is
    /// whole in this very bucket need not be written again, what is in another one counts for nothing.
    fn flush(
        &self,
        head: Self::Head,
        tenant: TenantId,
        bucket: Bucket,
    ) -> BoxFuture<'static, Result<Flushed>>;
    /// Looks through the bucket, once; it holds few blocks, and none will come.
    fn open_store(&self, bucket: Bucket) -> BoxFuture<'static, Result<Self::Store>>;
    /// Whether the object makes others visible.
    fn completes(path: &Path) -> bool;
}

/// What a question is about: heads, and stores of what is spooled.
pub(crate) type Parts<K> = (Vec<<K as Kind>::Head>, Vec<<K as Kind>::Store>);

/// What a flush wrote.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Flushed {
    pub objects: u64,
    pub bytes: u64,
}

struct TenantHead<H> {
    tenant: TenantId,
    head: H,
    /// As counted in the generation's and the tenant's memory.
    bytes: AtomicI64,
    memory: MemoryBudget,
    flushed: AtomicBool,
}

impl<H> Drop for TenantHead<H> {
    fn drop(&mut self) {
        self.memory.add(-self.bytes.load(Ordering::Relaxed));
    }
}

/// See the module.
struct Generation<K: Kind> {
    id: u64,
    started_ns: i64,
    /// Time of the last append; 0 before the first.
    appended_ns: AtomicI64,
    tenants: RwLock<HashMap<TenantId, Arc<TenantHead<K::Head>>>>,
    bytes: AtomicI64,
    memory: Memory,
    spread: watch::Receiver<Spread>,
    /// When it began.
    spread_then: Spread,
}

impl<K: Kind> Generation<K> {
    fn new(id: u64, started_ns: i64, memory: Memory, spread: watch::Receiver<Spread>) -> Self {
        let spread_then = *spread.borrow();
        Self {
            id,
            started_ns,
            appended_ns: AtomicI64::new(0),
            tenants: RwLock::default(),
            bytes: AtomicI64::new(0),
            memory,
            spread,
            spread_then,
        }
    }

    /// Those who come take over nothing of what is here already.
    fn spread(&self) -> Spread {
        self.spread_then.or_narrower(*self.spread.borrow())
    }

    fn is_unused(&self) -> bool {
        self.appended_ns.load(Ordering::Relaxed) == 0
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed).max(0) as usize
    }

    fn tenant(&self, kind: &K, tenant: &TenantId) -> Arc<TenantHead<K::Head>> {
        if let Some(found) = self.tenants.read().get(tenant) {
            return found.clone();
        }
        let mut tenants = self.tenants.write();
        let new = || {
            let head = kind.new_head(tenant, self.spread());
            let head = TenantHead {
                tenant: tenant.clone(),
                head,
                bytes: AtomicI64::new(0),
                memory: self.memory.tenant(tenant),
                flushed: AtomicBool::new(false),
            };
            self.count(kind, &head);
            Arc::new(head)
        };
        tenants.entry_ref(tenant).or_insert_with(new).clone()
    }

    fn head(&self, tenant: &TenantId) -> Option<K::Head> {
        self.tenants.read().get(tenant).map(|t| t.head.clone())
    }

    /// Notes how large the head is now.
    fn count(&self, kind: &K, head: &TenantHead<K::Head>) {
        let now = kind.bytes(&head.head) as i64;
        let grown = now - head.bytes.swap(now, Ordering::Relaxed);
        self.bytes.fetch_add(grown, Ordering::Relaxed);
        head.memory.add(grown);
    }

    fn append(
        &self,
        kind: &K,
        tenant: &TenantId,
        plain: &[u8],
        now_ns: i64,
        replay: bool,
    ) -> Result<PushReport> {
        let head = self.tenant(kind, tenant);
        self.appended_ns.store(now_ns.max(1), Ordering::Relaxed);
        let report = kind.append(&head.head, plain, replay);
        self.count(kind, &head);
        report
    }

    /// Every tenant's, in the order of their ids.
    fn heads(&self) -> Vec<Arc<TenantHead<K::Head>>> {
        let mut heads: Vec<_> = self.tenants.read().values().cloned().collect();
        heads.sort_unstable_by(|a, b| a.tenant.cmp(&b.tenant));
        heads
    }

    fn is_flushed(&self) -> bool {
        self.tenants.read().values().all(|tenant| tenant.flushed.load(Ordering::Acquire))
    }

    /// Drops heads that are somewhere else now, and the memory they hold.
    fn forget(&self, heads: &[Arc<TenantHead<K::Head>>]) {
        let mut tenants = self.tenants.write();
        let gone: Vec<_> = heads.iter().filter_map(|head| tenants.remove(&head.tenant)).collect();
        drop(tenants);
        let bytes: i64 = gone.iter().map(|head| head.bytes.load(Ordering::Relaxed)).sum();
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A generation that takes no writes any more, and the place in the WAL up to which everything is of it or older.
struct Closed<K: Kind> {
    generation: Arc<Generation<K>>,
    cut: Cut,
    /// When its flush was complete; 0 before.
    flushed_ns: i64,
    /// Attempts to flush it that failed, and when the next one may begin.
    tries: u32,
    retry_at: Instant,
}

struct State<K: Kind> {
    current: Arc<Generation<K>>,
    /// Oldest first.
    frozen: VecDeque<Closed<K>>,
    /// In the order in which they were flushed.
    retained: VecDeque<Closed<K>>,
    /// Generations that are gone while an older one is not: their segments must wait for its.
    gone: BTreeMap<u64, Cut>,
    /// No more writes are taken.
    draining: bool,
}

impl<K: Kind> State<K> {
    /// Oldest first.
    fn closed(&self) -> impl Iterator<Item = &Arc<Generation<K>>> {
        self.retained.iter().chain(&self.frozen).map(|c| &c.generation)
    }

    /// The cut up to which everything is gone, once.
    fn take_deletable(&mut self) -> Option<Cut> {
        let kept =
            self.retained.iter().chain(&self.frozen).map(|c| c.generation.id).min().unwrap_or(u64::MAX);
        let mut cut = None;
        while self.gone.first_key_value().is_some_and(|(id, _)| *id < kept) {
            cut = self.gone.pop_first().map(|(_, cut)| cut);
        }
        cut
    }
}

/// All generations of one signal, and its WAL.
pub(crate) struct Generations<K: Kind> {
    pub(crate) kind: K,
    config: Arc<Config>,
    when: GenerationConfig,
    wal: Arc<Wal>,
    bucket: Bucket,
    spool: Spool<K>,
    disk: DiskBudget,
    clock: SharedClock,
    memory: Memory,
    /// What flushes draw on.
    flush_memory: MemoryBudget,
    flush_pool: Handle,
    zone: Zone,
    spread: watch::Receiver<Spread>,
    state: RwLock<State<K>>,
    next_id: AtomicU64,
    replayed: AtomicBool,
    /// Nothing is here from before, neither in the log nor in the spool.
    is_new: bool,
    /// Segments up to here may be deleted and are not yet.
    deletable: parking_lot::Mutex<Option<Cut>>,
    /// One flush at a time.
    flushing: tokio::sync::Mutex<()>,
    /// One copy from the spool to the bucket at a time.
    uploading: tokio::sync::Mutex<()>,
    /// The last flush or copy to the bucket failed.
    bucket_fails: AtomicBool,
    /// The spool took nothing when it was last asked; not before this it is asked again.
    spool_retry_at: parking_lot::Mutex<Instant>,
    /// There is something to copy.
    spooled: Notify,
    /// What the WAL kept, until it is replayed.
    replay: parking_lot::Mutex<Option<Replay>>,
    /// There may be something to rotate.
    wake: Notify,
    /// There is something to flush.
    frozen: Notify,
    /// Changes with each rotation: the id of the current generation.
    rotations: watch::Sender<u64>,
}

/// What a part of a replay did.
#[derive(Default)]
struct ReplayStep {
    records: u64,
    skipped: u64,
    /// The last record's; `None` at the end of the log.
    more_after: Option<SegmentId>,
}

/// What the generations of the three signals have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    pub config: Arc<Config>,
    pub bucket: Bucket,
    /// Local and durable: where flushes go while the bucket does not take them.
    pub spool: Bucket,
    pub disk: DiskBudget,
    pub clock: SharedClock,
    pub memory: Memory,
    pub flush_memory: MemoryBudget,
    pub flush_pool: Handle,
    pub zone: Zone,
    pub is_new: bool,
    pub spread: watch::Receiver<Spread>,
}

/// What a replay applies between two looks at memory and shutdown, in bytes of records.
const REPLAY_STEP_BYTES: usize = 1 << 20;
/// Between two looks at memory of a replay that waits for flushes.
const REPLAY_PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at what is due.
const TICK: Duration = Duration::from_secs(1);
/// Deleting waits this long for a writer that is behind.
const CUT_WAIT_MAX: Duration = Duration::from_secs(2);

impl<K: Kind> Generations<K> {
    pub(crate) fn new(kind: K, when: GenerationConfig, wal: (Wal, Replay), shared: Shared) -> Self {
        let Shared {
            config,
            bucket,
            spool,
            disk,
            clock,
            memory,
            flush_memory,
            flush_pool,
            zone,
            is_new,
            spread,
        } = shared;
        // So that a generation is on its way to the bucket before memory is tight, whatever the other two hold.
        let when = GenerationConfig { bytes_max: when.bytes_max.min(memory.bytes_max() / 4), ..when };
        let current = Arc::new(Generation::new(1, clock.elapsed_ns(), memory.clone(), spread.clone()));
        let state = State {
            current,
            frozen: VecDeque::new(),
            retained: VecDeque::new(),
            gone: BTreeMap::new(),
            draining: false,
        };
        Self {
            kind,
            config,
            when,
            wal: Arc::new(wal.0),
            bucket,
            spool: Spool::new(spool),
            disk,
            clock,
            memory,
            flush_memory,
            flush_pool,
            zone,
            spread,
            state: RwLock::new(state),
            next_id: AtomicU64::new(2),
            replayed: AtomicBool::new(false),
            is_new,
            deletable: parking_lot::Mutex::new(None),
            flushing: tokio::sync::Mutex::new(()),
            uploading: tokio::sync::Mutex::new(()),
            bucket_fails: AtomicBool::new(false),
            spool_retry_at: parking_lot::Mutex::new(Instant::now()),
            spooled: Notify::new(),
            replay: parking_lot::Mutex::new(Some(wal.1)),
            wake: Notify::new(),
            frozen: Notify::new(),
            rotations: watch::Sender::new(1),
        }
    }

    pub(crate) fn is_replayed(&self) -> bool {
        self.replayed.load(Ordering::Acquire)
    }

    /// Takes a write: into the head and the WAL at once, acknowledged when it is on disk.
    pub(crate) async fn push(&self, tenant: &TenantId, sealed: Bytes, plain: &[u8]) -> Result<PushReport> {
        if !self.is_replayed() {
            return Err(Error::unavailable("the ingester is replaying its write-ahead log")
                .retry_after(Duration::from_secs(5)));
        }
        self.memory.check(tenant, plain.len(), || self.state.read().frozen.len())?;
        let header = record::header(tenant);
        let wanted = header.len() + sealed.len();
        self.disk.check(wanted as u64)?;
        let permit = match tokio::time::timeout(self.config.wal_wait_max, self.wal.reserve(wanted)).await {
            Ok(permit) => permit?,
            Err(_) => return Err(self.wal.full(wanted)),
        };
        let (report, ticket, bytes) = {
            let state = self.state.read();
            if state.draining {
                return Err(
                    Error::unavailable("the ingester is shutting down").retry_after(Duration::from_secs(1))
                );
            }
            let report = state.current.append(&self.kind, tenant, plain, self.clock.elapsed_ns(), false)?;
            (report, self.wal.enqueue(permit, [header, sealed])?, state.current.bytes())
        };
        self.disk.add(K::SIGNAL, wanted as u64);
        if bytes >= self.when.bytes_max || self.memory.is_tight() {
            self.wake.notify_one();
        }
        ticket.await?;
        Ok(report)
    }

    /// The heads that the question is about, oldest first: retained, frozen, current. Fails when what is here is not all that whoever
    /// asks has to take it for.
    pub(crate) fn heads(&self, ctx: &QueryContext) -> Result<Vec<K::Head>> {
        let state = self.state_for(ctx)?;
        let generations = state.closed().chain([&state.current]);
        Ok(generations.filter_map(|generation| generation.head(ctx.tenant())).collect())
    }

    /// As [`Generations::heads`], and the stores of what is spooled.
    pub(crate) fn parts(&self, ctx: &QueryContext) -> Result<Parts<K>> {
        let heads = self.heads(ctx)?;
        // In this order: what leaves the heads was in the spool before.
        Ok((heads, self.spool.stores()))
    }

    /// As [`Generations::parts`], with the current head apart (made where there is none), and what changes when it is current no
    /// more.
    pub(crate) fn follow(&self, ctx: &QueryContext) -> Result<(Parts<K>, K::Head, watch::Receiver<u64>)> {
        let state = self.state_for(ctx)?;
        let older = state.closed().filter_map(|generation| generation.head(ctx.tenant())).collect();
        let current = state.current.tenant(&self.kind, ctx.tenant()).head.clone();
        // Under the lock: it was not rotated in between.
        Ok(((older, self.spool.stores()), current, self.rotations.subscribe()))
    }

    /// An ingester stands for its zone together with the others of the zone: when whoever asks does not know one of these (a
    /// new one, in a view of the ring that lags or is cut off), the answer would seem whole and not be.
    fn state_for(&self, ctx: &QueryContext) -> Result<RwLockReadGuard<'_, State<K>>> {
        // Who asks one that has just come must not miss anything for that.
        if !self.is_replayed() && !self.is_new {
            return Err(Error::unavailable(format!("recent {} are still being replayed", K::SIGNAL)));
        }
        let asked = ctx.share().map(|share| share.members());
        let zone = self.zone.borrow();
        if let Some(unknown) = asked.and_then(|asked| zone.iter().find(|member| !asked.contains(member))) {
            return Err(Error::unavailable(format!(
                "{unknown}, of the same zone, is not known to the querier yet"
            )));
        }
        drop(zone);
        Ok(self.state.read())
    }

    /// Freezes the current generation. Returns the newest generation that waits for its flush, if any does.
    pub(crate) fn rotate(&self) -> Option<u64> {
        let mut state = self.state.write();
        if !state.current.is_unused() {
            // Under the write lock no push is between its append and its enqueue: the cut belongs to this generation.
            let cut = self.wal.cut();
            self.freeze(&mut state, cut);
        }
        state.frozen.back().map(|c| c.generation.id)
    }

    fn freeze(&self, state: &mut State<K>, cut: Cut) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let new =
            Arc::new(Generation::new(id, self.clock.elapsed_ns(), self.memory.clone(), self.spread.clone()));
        let generation = std::mem::replace(&mut state.current, new);
        tracing::debug!(
            signal = %K::SIGNAL,
            generation = generation.id,
            bytes = generation.bytes(),
            tenants = generation.tenants.read().len(),
            "generation frozen"
        );
        let retry_at = Instant::now();
        state.frozen.push_back(Closed { generation, cut, flushed_ns: 0, tries: 0, retry_at });
        self.rotations.send_replace(id);
        self.frozen.notify_one();
    }

    /// Whether the current generation is old, big or idle.
    fn is_due(&self) -> bool {
        let state = self.state.read();
        let (current, now_ns) = (&state.current, self.clock.elapsed_ns());
        let since = |ns: i64| Duration::from_nanos(now_ns.saturating_sub(ns).max(0) as u64);
        !current.is_unused()
            && (since(current.started_ns) >= self.when.age_max
                || since(current.appended_ns.load(Ordering::Relaxed)) >= self.when.idle_max
                || current.bytes() >= self.when.bytes_max)
    }

    fn rotate_if_due(&self) {
        if self.is_due() || self.memory_is_due() {
            self.rotate();
        }
    }

    /// Whether to flush early because memory runs out: of each signal what is worth a block.
    fn memory_is_due(&self) -> bool {
        let worth = self.memory.bytes_max() / 16;
        self.memory.is_tight() && !self.has_frozen() && self.state.read().current.bytes() > worth
    }

    fn has_frozen(&self) -> bool {
        !self.state.read().frozen.is_empty()
    }

    /// What has to be looked at from time to time: rotates what is due, forgets what was retained long enough, deletes its
    /// segments, updates gauges and limits.
    pub(crate) async fn tick(&self) {
        if !self.is_replayed() {
            return;
        }
        self.rotate_if_due();
        self.forget_retained(self.config.retain_after_flush);
        if let Err(error) =
            self.spool.forget(self.clock.elapsed_ns(), nanos(self.config.retain_after_flush)).await
        {
            tracing::warn!(signal = %K::SIGNAL, %error, "spooled data could not be deleted, will be tried again");
        }
        if let Err(error) = self.delete_segments().await {
            tracing::warn!(signal = %K::SIGNAL, %error, "WAL segments could not be deleted, will be tried again");
        }
        let (current, frozen, retained) = {
            let state = self.state.read();
            (state.current.clone(), state.frozen.len(), state.retained.len())
        };
        let wal_disk_bytes = self.wal.disk_bytes();
        self.disk.set(K::SIGNAL, wal_disk_bytes + self.spool.bytes());
        let heads = current.heads();
        let spread = current.spread();
        heads.iter().for_each(|h| self.kind.refresh(&h.head, &h.tenant, spread));
        let gauges = telemetry::Gauges {
            current_bytes: current.bytes(),
            frozen,
            retained,
            tenants: heads.len(),
            items: heads.iter().map(|h| self.kind.items(&h.head)).sum(),
            wal_queued_bytes: self.wal.queued_bytes(),
            wal_disk_bytes,
            spool_units: self.spool.waiting(),
            spool_bytes: self.spool.bytes(),
            disk_limit_bytes: self.disk.bytes_max(),
        };
        telemetry::gauges(K::SIGNAL, &gauges);
    }

    fn forget_retained(&self, after: Duration) {
        let now_ns = self.clock.elapsed_ns();
        let mut gone = Vec::new();
        let mut state = self.state.write();
        while let Some(closed) =
            state.retained.pop_front_if(|closed| now_ns.saturating_sub(closed.flushed_ns) >= nanos(after))
        {
            check_deletable(&closed);
            state.gone.insert(closed.generation.id, closed.cut.clone());
            gone.push(closed);
        }
        if let Some(cut) = state.take_deletable() {
            *self.deletable.lock() = Some(cut);
        }
        drop(state);
        // Heads are freed here, outside of the lock.
        drop(gone);
    }

    async fn delete_segments(&self) -> Result<()> {
        let Some(cut) = self.deletable.lock().clone() else { return Ok(()) };
        // Not for ever: truncate says what is missing.
        let _ = tokio::time::timeout(CUT_WAIT_MAX, cut.written()).await;
        let (wal, upto) = (self.wal.clone(), cut.clone());
        blocking(move || wal.truncate(&upto)).await??;
        let mut deletable = self.deletable.lock();
        // Unless there is a newer one by now.
        if deletable.as_ref().and_then(Cut::segment) == cut.segment() {
            *deletable = None;
        }
        Ok(())
    }

    /// Starts this signal's tasks: replay, then ticks; flushes.
    pub(crate) fn start(self: &Arc<Self>, tasks: &Tasks, pool: &Handle, names: [&'static str; 3]) {
        let (this, shutdown) = (self.clone(), tasks.shutdown().clone());
        tasks.spawn(pool, names[0], async move {
            if let Err(error) = this.spool.open(&this.kind).await {
                // As below: what is spooled could not be read.
                tracing::error!(signal = %K::SIGNAL, %error, "the spool could not be opened");
                return;
            }
            this.spooled.notify_one();
            if let Err(error) = this.replay(|| shutdown.is_triggered()).await {
                // Ends this task before shutdown, which ends the process: without its replay it must not serve.
                tracing::error!(signal = %K::SIGNAL, %error, "the WAL's replay died");
                return;
            }
            let mut interval = tokio::time::interval(TICK);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.triggered() => return,
                    _ = interval.tick() => this.tick().await,
                    // Asked by every push while memory is tight: only what is cheap.
                    () = this.wake.notified() => this.rotate_if_due(),
                }
            }
        });
        let (this, shutdown) = (self.clone(), tasks.shutdown().clone());
        tasks.spawn(pool, names[1], async move {
            tokio::select! {
                biased;
                () = shutdown.triggered() => {}
                () = this.flush_loop() => {}
            }
        });
        let (this, shutdown) = (self.clone(), tasks.shutdown().clone());
        tasks.spawn(pool, names[2], async move {
            tokio::select! {
                biased;
                () = shutdown.triggered() => {}
                () = this.upload_loop() => {}
            }
        });
    }

    /// Applies what the WAL kept, beside the async threads. When the heads grow past the memory they may use, waits for flushes.
    async fn replay(self: &Arc<Self>, is_stopped: impl Fn() -> bool) -> Result<()> {
        let Some(mut replay) = self.replay.lock().take() else { return Ok(()) };
        let start = Instant::now();
        let all_bytes = replay.left_bytes();
        let (mut records, mut skipped) = (0_u64, 0_u64);
        let mut said = Instant::now();
        if all_bytes > 0 {
            tracing::info!(signal = %K::SIGNAL, bytes = all_bytes, "replaying the WAL");
        }
        loop {
            if is_stopped() {
                return Ok(());
            }
            let this = self.clone();
            let (step, rest) = blocking(move || (this.replay_step(&mut replay), replay)).await?;
            replay = rest;
            records += step.records;
            skipped += step.skipped;
            let Some(segment) = step.more_after else { break };
            while self.memory.is_tight() && !is_stopped() {
                // Rather late than out of memory: what is frozen goes to the bucket first.
                if !self.has_frozen() && !self.freeze_replayed(segment) {
                    break;
                }
                tokio::time::sleep(REPLAY_PAUSE).await;
                self.forget_retained(Duration::ZERO);
            }
            if said.elapsed() > Duration::from_secs(5) {
                said = Instant::now();
                let left_bytes = replay.left_bytes();
                tracing::info!(signal = %K::SIGNAL, records, left_bytes, all_bytes, "replaying the WAL");
            }
        }
        let report = replay.report();
        telemetry::replayed(
            K::SIGNAL,
            start.elapsed(),
            records,
            skipped,
            report.damaged_bytes,
            report.torn_bytes,
        );
        if report.damages > 0 {
            tracing::error!(
                signal = %K::SIGNAL,
                places = report.damages,
                bytes = report.damaged_bytes,
                first = ?report.damage.first(),
                "the WAL was damaged; acknowledged data may be missing here, its replicas have it"
            );
        }
        tracing::info!(
            signal = %K::SIGNAL,
            records,
            skipped,
            torn_bytes = report.torn_bytes,
            took = ?start.elapsed(),
            "WAL replayed"
        );
        // Segments without a record: nothing will ever be flushed for them.
        if self.state.read().current.is_unused()
            && !self.has_frozen()
            && let Some(last) = replay.last_segment()
        {
            self.deletable.lock().get_or_insert_with(|| last.into());
        }
        self.replayed.store(true, Ordering::Release);
        self.wake.notify_one();
        Ok(())
    }

    /// Applies at least one record, more until memory is tight or enough were applied.
    fn replay_step(&self, replay: &mut Replay) -> ReplayStep {
        let mut step = ReplayStep::default();
        let mut bytes = 0;
        for (segment, payload) in replay.by_ref() {
            if let Err(error) = self.replay_record(segment, &payload) {
                step.skipped += 1;
                tracing::error!(signal = %K::SIGNAL, %segment, %error, "a WAL record was skipped");
            }
            step.records += 1;
            bytes += payload.len();
            if bytes >= REPLAY_STEP_BYTES || self.memory.is_tight() {
                step.more_after = Some(segment);
                break;
            }
        }
        step
    }

    fn replay_record(&self, segment: SegmentId, payload: &Bytes) -> Result<()> {
        let (tenant, sealed) = record::parse(payload)?;
        let plain = batch::open(&sealed, self.config.batch_bytes_max.max(payload.len()))?;
        let current = self.state.read().current.clone();
        let report = current.append(&self.kind, &tenant, &plain, self.clock.elapsed_ns(), true)?;
        if let Some((reason, refused)) = report.refused.first_key_value() {
            tracing::debug!(signal = %K::SIGNAL, %tenant, reason, items = refused.items, "refused in the replay");
        }
        if current.bytes() >= self.when.bytes_max {
            self.freeze_replayed(segment);
        }
        Ok(())
    }

    /// Freezes in the middle of a replay: the rest of `segment` belongs to the next generation, so the cut is before it.
    fn freeze_replayed(&self, segment: SegmentId) -> bool {
        let mut state = self.state.write();
        if state.current.is_unused() {
            return false;
        }
        self.freeze(&mut state, SegmentId(segment.0 - 1).into());
        true
    }

    /// From now on writes are refused.
    pub(crate) fn refuse_writes(&self) {
        self.state.write().draining = true;
    }

    /// Writes out what the WAL has queued. Writes are refused after it.
    pub(crate) async fn close(&self) {
        self.wal.close().await;
    }

    /// Generations that are not in the bucket, those in the spool and the current one included if anything was written to it.
    pub(crate) fn unflushed(&self) -> usize {
        let state = self.state.read();
        state.frozen.len() + usize::from(!state.current.is_unused()) + self.spool.waiting()
    }
}

fn check_deletable<K: Kind>(closed: &Closed<K>) {
    let id = closed.generation.id;
    invariant!(I2, closed.generation.is_flushed(), "{}: generation {id} is not in the bucket", K::SIGNAL);
}

fn nanos(duration: Duration) -> i64 {
    duration.as_nanos().min(i64::MAX as u128) as i64
}

#[cfg(test)]
mod tests;
