//! Serves what is in the bucket, through the Store API.
//!
//! **Owns** when the bucket is looked through, what is opened before it is asked for, readiness, and the sizes of the caches.
//! **Must not know** any format: the three doors (`metrics`, `logs`, `traces`) delegate to the signals' bucket stores.
//!
//! **All know all blocks; each question says who answers for which** ([`triptych_model::Share`]: metrics and traces by block, logs by
//! stream). Nothing about who owns what is agreed on, or kept.
//!
//! The bucket is listed every `sync_interval`; a block that an ingester uploads is known here after at most that time, and
//! the ingester keeps serving it for longer (`ingester.retain_after_flush`).
//! Whoever has not listed the bucket for longer than `sync_age_max`, or not at all yet, does not know what is in it and answers nothing
//! (Unavailable): an answer without the newest blocks would look whole (I5).
//!
//! **Views differ** by what one store-gateway has listed and another one has not yet. Who owns a block that was replaced (compaction) asks
//! what replaced it, beside the owner of that, until everybody who answers must have seen it: for `replaced_shown` since it was found.
//! Copies are merged by their natural key. The replaced block itself is not asked any more, so it does not matter when it goes.
//!
//! **Warm before it owns**: every look opens the indexes of the blocks that questions will come for as the ring shows it, as the owner
//! or as who stands in for it, as far as the caches have room. Ready, and so active, after the first look through all signals and the
//! opening that followed it, which takes `warm_max` at most.
//!
//! Memory: the caches named in [`Config`], plus what queries hold and their own budgets bound.
//!
//! Known holes: a signal whose cache is full opens nothing ahead; questions then push out what was used least.

mod logs;
mod metrics;
mod ring;
mod telemetry;
mod traces;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use triptych_blob::{Bucket, WarmReport};
use triptych_config::TenantLimits;
use triptych_model::{Error, Result, Signal};
use triptych_ring::Members;
use triptych_rpc::{LogsStore, MetricsStore, TracesStore};
use triptych_runtime::runtimes::Handles;
use triptych_runtime::{MemoryBudget, Tasks};

use ring::{PLACES, Ring, View};
pub use telemetry::TELEMETRY;

/// Serves older data from the bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often the bucket is looked through for new and vanished blocks. Keep it well below `ingester.retain_after_flush`.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub sync_interval: Duration,
    /// A store-gateway that could not look through the bucket for this long answers no more questions until it could. Keep it above
    /// `sync_interval`, and below `ingester.retain_after_flush` by more than a query takes to reach everybody.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub sync_age_max: Duration,
    /// A store-gateway that owns a block which was replaced by a merged one asks the merged one for this long after it was found: every
    /// other store-gateway knows it by then. Keep it above `sync_age_max` by as much as a query may take, and below
    /// `compactor.delete_delay`: for as long a block is shown that was marked and that nothing replaces.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub replaced_shown: Duration,
    /// Longest time that a store-gateway which starts opens the blocks that it is going to own, before it answers questions.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub warm_max: Duration,
    /// Index parts, chunks and pages kept in memory, per signal. 0: a share of `memory_limit`.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub cache_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sync_interval: Duration::from_secs(15),
            sync_age_max: Duration::from_secs(45),
            replaced_shown: Duration::from_secs(180),
            warm_max: Duration::from_secs(60),
            cache_bytes_max: 0,
        }
    }
}

/// What the store-gateway is built from.
pub struct Deps {
    pub bucket: Bucket,
    /// What the caches of all signals may hold together, where the config does not say.
    pub memory: MemoryBudget,
    pub pools: Handles,
    /// The name of this store-gateway among the members.
    pub node: Arc<str>,
    /// All store-gateways; [`alone`] where they are not known.
    pub members: Members,
    /// How long it takes to hear of them after a start.
    pub settle_time: Duration,
    pub limits: TenantLimits,
}

/// No other store-gateways.
pub fn alone() -> Members {
    watch::Sender::new(Arc::from([])).subscribe()
}

pub struct StoreGateway {
    config: Config,
    pools: Handles,
    ring: Arc<Ring>,
    built: Instant,
    metrics: Arc<metrics::Door>,
    logs: Arc<logs::Door>,
    traces: Arc<traces::Door>,
}

impl Config {
    pub fn build(mut self, deps: Deps) -> StoreGateway {
        if self.cache_bytes_max == 0 {
            self.cache_bytes_max = (deps.memory.bytes_max() / Signal::ALL.len()) as u64;
        }
        let built = Instant::now();
        StoreGateway {
            metrics: Arc::new(metrics::Door::new(&self, deps.bucket.clone())),
            logs: Arc::new(logs::Door::new(&self, deps.bucket.clone())),
            traces: Arc::new(traces::Door::new(&self, deps.bucket)),
            ring: Arc::new(Ring {
                node: deps.node,
                members: deps.members,
                known_at: built + deps.settle_time,
                limits: deps.limits,
            }),
            built,
            pools: deps.pools,
            config: self,
        }
    }
}

/// A signal's part of the bucket.
trait BucketDoor: Send + Sync + 'static {
    const SIGNAL: Signal;
    fn freshness(&self) -> &Freshness;
    /// Looks what there is.
    fn sync(&self) -> BoxFuture<'_, Result<()>>;
    /// Opens, as far as there is room, that of which this store-gateway has the place in its order of members.
    fn warm<'a>(&'a self, view: &'a View, place: usize) -> BoxFuture<'a, WarmReport>;
    /// How many are open.
    fn open(&self) -> u64;
}

impl StoreGateway {
    pub fn metrics(&self) -> Arc<dyn MetricsStore> {
        self.metrics.clone()
    }

    pub fn logs(&self) -> Arc<dyn LogsStore> {
        self.logs.clone()
    }

    pub fn traces(&self) -> Arc<dyn TracesStore> {
        self.traces.clone()
    }

    /// True after the first look through the bucket and when what it will own is open, or took too long to open.
    pub fn is_ready(&self) -> bool {
        let is_late = self.built.elapsed() >= self.config.warm_max;
        let doors = [self.metrics.freshness(), self.logs.freshness(), self.traces.freshness()];
        doors.iter().all(|door| door.listed.lock().is_some() && (is_late || door.is_warm()))
    }

    /// Looks through the bucket now; for `/-/compact` and tests.
    pub async fn sync(&self) -> Result<()> {
        let ring = &*self.ring;
        look(&*self.metrics, ring, self.config.sync_interval).await?;
        look(&*self.logs, ring, self.config.sync_interval).await?;
        look(&*self.traces, ring, self.config.sync_interval).await
    }

    /// Starts the periodic looks.
    pub fn start(&self, tasks: &Tasks) {
        self.spawn(tasks, "sync-metrics", self.metrics.clone());
        self.spawn(tasks, "sync-logs", self.logs.clone());
        self.spawn(tasks, "sync-traces", self.traces.clone());
    }

    fn spawn<D: BucketDoor>(&self, tasks: &Tasks, name: &'static str, door: Arc<D>) {
        let (ring, interval) = (self.ring.clone(), self.config.sync_interval);
        tasks.spawn_periodic(&self.pools.background, name, interval, move || {
            let (door, ring) = (door.clone(), ring.clone());
            async move {
                if let Err(error) = look(&*door, &ring, interval).await {
                    tracing::warn!(signal = %D::SIGNAL, %error, "bucket could not be looked through, will try again");
                }
            }
        });
    }
}

/// What is known of one signal's part of the bucket.
struct Freshness {
    age_max: Duration,
    /// When the last look that succeeded began.
    listed: Mutex<Option<Instant>>,
    /// What was found was opened, as far as there is room.
    is_warm: AtomicBool,
}

impl Freshness {
    fn new(config: &Config) -> Self {
        Self { age_max: config.sync_age_max, listed: Mutex::default(), is_warm: AtomicBool::new(false) }
    }

    fn is_warm(&self) -> bool {
        self.is_warm.load(Ordering::Acquire)
    }

    /// Fails where blocks may be missing.
    fn check(&self) -> Result<()> {
        let age = self.listed.lock().map(|at| at.elapsed());
        match age {
            Some(age) if age <= self.age_max => Ok(()),
            Some(age) => Err(Error::unavailable(format!(
                "the bucket was last looked through {} s ago, at most {} s are allowed: newer blocks would be missing",
                age.as_secs(),
                self.age_max.as_secs()
            ))),
            None => Err(Error::unavailable("the bucket was not looked through yet since the start")),
        }
    }
}

/// Looks through a signal's part of the bucket, then opens what is new, until the next look is due.
async fn look<D: BucketDoor>(door: &D, ring: &Ring, warm_max: Duration) -> Result<()> {
    let began = Instant::now();
    let outcome = door.sync().await;
    let signal = D::SIGNAL.as_str();
    telemetry::syncs(signal, if outcome.is_ok() { "success" } else { "error" }).increment(1);
    telemetry::sync_seconds(signal).record(began.elapsed().as_secs_f64());
    outcome?;
    *door.freshness().listed.lock() = Some(began);
    let (took, age_max) = (began.elapsed(), door.freshness().age_max);
    if took > age_max / 2 {
        tracing::warn!(
            signal,
            ?took,
            "looking through the bucket takes so long that answers will be refused when it takes {age_max:?} \
             (store_gateway.sync_age_max): raise that, and ingester.retain_after_flush with it"
        );
    }
    let warm = async {
        let view = ring.view().await;
        for place in 0..PLACES {
            let WarmReport { wanted, opened, failed } = door.warm(&view, place).await;
            if place == 0 {
                telemetry::blocks(signal, "owned").set(wanted as f64);
            }
            telemetry::opened(signal).increment(opened as u64);
            for error in failed {
                tracing::debug!(signal, error, "a block could not be opened ahead of questions");
            }
        }
    };
    if timeout(warm_max, warm).await.is_ok() {
        door.freshness().is_warm.store(true, Ordering::Release);
    }
    telemetry::blocks(signal, "open").set(door.open() as f64);
    Ok(())
}

#[cfg(test)]
mod tests;
