//! Serves what is in the bucket, through the Store API.
//!
//! **Owns** when the bucket is looked through, readiness, and the sizes of the caches.
//! **Must not know** any format: the three doors (`metrics`, `logs`, `traces`) delegate to the signals' bucket stores.
//!
//! The bucket is listed every `sync_interval`; a block that an ingester uploads is served here after at most that time, and
//! the ingester keeps serving it for longer (`ingester.retain_after_flush`). Ready after the first listing of all signals.
//! Whoever has not listed the bucket for longer than `sync_age_max`, or not at all yet, does not know what is in it and answers nothing
//! (Unavailable): an answer without the newest blocks would look whole (I5).
//! Memory: the caches named in [`Config`], plus what queries hold and their own budgets bound.

mod logs;
mod metrics;
mod telemetry;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use triptych_blob::Bucket;
use triptych_model::{Error, Result, Signal};
use triptych_rpc::{LogsStore, MetricsStore, TracesStore};
use triptych_runtime::runtimes::Handles;
use triptych_runtime::{MemoryBudget, Tasks};

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
}

pub struct StoreGateway {
    config: Config,
    pools: Handles,
    metrics: Arc<metrics::Door>,
    logs: Arc<logs::Door>,
    traces: Arc<traces::Door>,
}

impl Config {
    pub fn build(mut self, deps: Deps) -> StoreGateway {
        if self.cache_bytes_max == 0 {
            self.cache_bytes_max = (deps.memory.bytes_max() / Signal::ALL.len()) as u64;
        }
        StoreGateway {
            metrics: Arc::new(metrics::Door::new(&self, deps.bucket.clone())),
            logs: Arc::new(logs::Door::new(&self, deps.bucket.clone(), deps.pools.clone())),
            traces: Arc::new(traces::Door::new(&self, deps.bucket)),
            pools: deps.pools,
            config: self,
        }
    }
}

/// One look through a signal's part of the bucket.
trait BucketDoor: Send + Sync + 'static {
    const SIGNAL: Signal;
    fn freshness(&self) -> &Freshness;
    fn sync(&self) -> BoxFuture<'_, Result<()>>;
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

    /// True after the first look through the bucket.
    pub fn is_ready(&self) -> bool {
        let doors = [self.metrics.freshness(), self.logs.freshness(), self.traces.freshness()];
        doors.iter().all(|freshness| freshness.listed.lock().is_some())
    }

    /// Looks through the bucket now; for `/-/compact` and tests.
    pub async fn sync(&self) -> Result<()> {
        look(&*self.metrics).await?;
        look(&*self.logs).await?;
        look(&*self.traces).await
    }

    /// Starts the periodic looks.
    pub fn start(&self, tasks: &Tasks) {
        self.spawn(tasks, "sync-metrics", self.metrics.clone());
        self.spawn(tasks, "sync-logs", self.logs.clone());
        self.spawn(tasks, "sync-traces", self.traces.clone());
    }

    fn spawn<D: BucketDoor>(&self, tasks: &Tasks, name: &'static str, door: Arc<D>) {
        tasks.spawn_periodic(&self.pools.background, name, self.config.sync_interval, move || {
            let door = door.clone();
            async move {
                if let Err(error) = look(&*door).await {
                    tracing::warn!(signal = %D::SIGNAL, %error, "bucket could not be looked through, will try again");
                }
            }
        });
    }
}

/// When one signal's part of the bucket was listed.
struct Freshness {
    age_max: Duration,
    /// When the last look that succeeded began.
    listed: Mutex<Option<Instant>>,
}

impl Freshness {
    fn new(config: &Config) -> Self {
        Self { age_max: config.sync_age_max, listed: Mutex::default() }
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

async fn look<D: BucketDoor>(door: &D) -> Result<()> {
    let began = Instant::now();
    let outcome = door.sync().await;
    let signal = D::SIGNAL.as_str();
    telemetry::syncs(signal, if outcome.is_ok() { "success" } else { "error" }).increment(1);
    telemetry::sync_seconds(signal).record(began.elapsed().as_secs_f64());
    if outcome.is_ok() {
        *door.freshness().listed.lock() = Some(began);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use triptych_model::traces::TagsSelect;
    use triptych_model::{Kind, TenantId};
    use triptych_runtime::QueryContext;

    use super::*;

    #[tokio::test]
    async fn who_does_not_know_the_bucket_answers_nothing() {
        for (sync_age_max, is_fresh) in [(Duration::from_secs(60), true), (Duration::ZERO, false)] {
            let config = Config { sync_age_max, ..Config::default() };
            let memory = MemoryBudget::new("caches", 1 << 20);
            let deps = Deps { bucket: triptych_blob::memory(), memory, pools: Handles::current() };
            let gateway = config.build(deps);
            let ctx = QueryContext::unlimited(TenantId::single());
            let ask = async || {
                let tags = gateway.traces().tag_names(&ctx, &TagsSelect::default()).await.map(drop);
                let labels = gateway.logs().label_names(&ctx, &Default::default()).await.map(drop);
                let names = gateway.metrics().label_names(&ctx, &Default::default()).await.map(drop);
                [tags, labels, names].map(|answer| answer.err().map(|e| e.kind))
            };
            assert!(!gateway.is_ready());
            assert_eq!(ask().await, [Some(Kind::Unavailable); 3], "before the first look");
            gateway.sync().await.unwrap();
            assert!(gateway.is_ready());
            let expected = (!is_fresh).then_some(Kind::Unavailable);
            assert_eq!(ask().await, [expected; 3], "{sync_age_max:?} after the last look");
        }
    }
}
