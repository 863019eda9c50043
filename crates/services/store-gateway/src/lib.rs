//! Serves what is in the bucket, through the Store API.
//!
//! **Owns** when the bucket is looked through, readiness, and the sizes of the caches.
//! **Must not know** any format: the three doors (`metrics`, `logs`, `traces`) delegate to the signals' bucket stores.
//!
//! The bucket is listed every `sync_interval`; a block that an ingester uploads is served here after at most that time, and
//! the ingester keeps serving it for longer (`ingester.retain_after_flush`). Ready after the first listing of all signals.
//! Memory: the caches named in [`Config`], plus what queries hold and their own budgets bound.

mod logs;
mod metrics;
mod telemetry;
mod traces;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use triptych_blob::Bucket;
use triptych_model::{Result, Signal};
use triptych_rpc::{LogsStore, MetricsStore, TracesStore};
use triptych_runtime::Tasks;
use triptych_runtime::runtimes::Handles;

pub use telemetry::TELEMETRY;

/// Serves older data from the bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How often the bucket is looked through for new and vanished blocks. Keep it well below `ingester.retain_after_flush`.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub sync_interval: Duration,
    /// Index parts, chunks and pages kept in memory, per signal.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub cache_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { sync_interval: Duration::from_secs(15), cache_bytes_max: 256 << 20 }
    }
}

/// What the store-gateway is built from.
pub struct Deps {
    pub bucket: Bucket,
    pub pools: Handles,
}

pub struct StoreGateway {
    config: Config,
    pools: Handles,
    metrics: Arc<metrics::Door>,
    logs: Arc<logs::Door>,
    traces: Arc<traces::Door>,
    ready: Arc<[AtomicBool; 3]>,
}

impl Config {
    pub fn build(self, deps: Deps) -> StoreGateway {
        StoreGateway {
            metrics: Arc::new(metrics::Door::new(&self, deps.bucket.clone())),
            logs: Arc::new(logs::Door::new(&self, deps.bucket.clone(), deps.pools.clone())),
            traces: Arc::new(traces::Door::new(&self, deps.bucket)),
            pools: deps.pools,
            config: self,
            ready: Arc::default(),
        }
    }
}

/// One look through a signal's part of the bucket.
trait BucketDoor: Send + Sync + 'static {
    const SIGNAL: Signal;
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
        self.ready.iter().all(|signal| signal.load(Ordering::Acquire))
    }

    /// Looks through the bucket now; for `/-/compact` and tests.
    pub async fn sync(&self) -> Result<()> {
        look(&*self.metrics, &self.ready).await?;
        look(&*self.logs, &self.ready).await?;
        look(&*self.traces, &self.ready).await
    }

    /// Starts the periodic looks.
    pub fn start(&self, tasks: &Tasks) {
        self.spawn(tasks, "sync-metrics", self.metrics.clone());
        self.spawn(tasks, "sync-logs", self.logs.clone());
        self.spawn(tasks, "sync-traces", self.traces.clone());
    }

    fn spawn<D: BucketDoor>(&self, tasks: &Tasks, name: &'static str, door: Arc<D>) {
        let ready = self.ready.clone();
        tasks.spawn_periodic(&self.pools.background, name, self.config.sync_interval, move || {
            let (door, ready) = (door.clone(), ready.clone());
            async move {
                if let Err(error) = look(&*door, &ready).await {
                    tracing::warn!(signal = %D::SIGNAL, %error, "bucket could not be looked through, will try again");
                }
            }
        });
    }
}

async fn look<D: BucketDoor>(door: &D, ready: &[AtomicBool; 3]) -> Result<()> {
    let began = Instant::now();
    let outcome = door.sync().await;
    let signal = D::SIGNAL.as_str();
    telemetry::syncs(signal, if outcome.is_ok() { "success" } else { "error" }).increment(1);
    telemetry::sync_seconds(signal).record(began.elapsed().as_secs_f64());
    if outcome.is_ok() {
        ready[D::SIGNAL as usize].store(true, Ordering::Release);
    }
    outcome
}
