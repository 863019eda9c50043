//! Merges what was flushed, applies retention, removes what was left behind.
//!
//! **Owns** when a round runs, over which tenants, one after the other, and its telemetry.
//! **Must not know** any format: what is merged and how is decided by the signals (`triptych_metrics::compact` and its
//! siblings), through the doors `metrics`, `logs`, `traces`.
//!
//! A round may die anywhere and be run again: every step of a signal's `compact` is idempotent, sources go only after what
//! replaces them is whole, and they go late enough that readers have seen the replacement.
//! A tenant that fails is logged and counted; the others go on.

mod logs;
mod metrics;
mod telemetry;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use triptych_blob::Bucket;
use triptych_config::{Limits, TenantLimits};
use triptych_model::{Error, Result, Signal, TenantId};
use triptych_runtime::runtimes::Handles;
use triptych_runtime::{MemoryBudget, SharedClock, Tasks};

pub use telemetry::TELEMETRY;

/// Merges blocks and applies retention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Pause between two rounds.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// How long replaced blocks stay, so that queries that began with them can end.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub delete_delay: Duration,
    /// Memory for what a merge holds. 0: a share of `memory_limit`.
    #[serde(with = "triptych_config::bytes")]
    #[schemars(with = "String")]
    pub memory_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(300),
            delete_delay: Duration::from_secs(900),
            memory_bytes_max: 0,
        }
    }
}

/// What the compactor is built from.
pub struct Deps {
    pub bucket: Bucket,
    pub limits: TenantLimits,
    pub clock: SharedClock,
    pub pools: Handles,
    /// What merges may hold, where the config does not say.
    pub memory: MemoryBudget,
}

/// What one round of one tenant and signal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Blocks (or index files) that were merged away.
    pub merged: usize,
    /// Blocks (or index files) that were written.
    pub written: usize,
    /// Objects or blocks that were removed.
    pub removed: usize,
}

/// What a door offers.
trait CompactDoor {
    const SIGNAL: Signal;
    fn tenants<'a>(bucket: &'a Bucket) -> BoxFuture<'a, Result<Vec<TenantId>>>;
    fn round<'a>(
        bucket: &'a Bucket,
        tenant: &'a TenantId,
        limits: &'a Limits,
        config: &'a Config,
        now_ns: i64,
    ) -> BoxFuture<'a, Result<Done>>;
}

#[derive(Clone)]
pub struct Compactor {
    config: Arc<Config>,
    deps: Arc<Deps>,
    /// One round at a time in this process.
    running: Arc<Mutex<()>>,
}

impl Config {
    pub fn build(mut self, deps: Deps) -> Compactor {
        if self.memory_bytes_max == 0 {
            self.memory_bytes_max = deps.memory.bytes_max();
        }
        Compactor { config: Arc::new(self), deps: Arc::new(deps), running: Arc::default() }
    }
}

impl Compactor {
    pub fn start(&self, tasks: &Tasks) {
        let compactor = self.clone();
        tasks.spawn(&self.deps.pools.background, "compactor", {
            let shutdown = tasks.shutdown().clone();
            async move {
                loop {
                    tokio::select! {
                        biased;
                        () = shutdown.triggered() => return,
                        () = tokio::time::sleep(compactor.config.interval) => {}
                    }
                    tokio::select! {
                        biased;
                        // A round may stop anywhere; the next one goes on.
                        () = shutdown.triggered() => return,
                        outcome = compactor.round() => if let Err(error) = outcome {
                            tracing::warn!(%error, "compaction round did not finish, will try again");
                        }
                    }
                }
            }
        });
    }

    /// One round over all signals and tenants. Fails with the first error after all tenants had their turn.
    pub async fn round(&self) -> Result<Done> {
        let _one = self.running.lock().await;
        let mut total = Done::default();
        let outcomes = [
            self.signal::<metrics::Door>(&mut total).await,
            self.signal::<logs::Door>(&mut total).await,
            self.signal::<traces::Door>(&mut total).await,
        ];
        outcomes.into_iter().collect::<Result<Vec<()>>>()?;
        Ok(total)
    }

    async fn signal<D: CompactDoor>(&self, total: &mut Done) -> Result<()> {
        let Deps { bucket, limits, clock, .. } = &*self.deps;
        let mut first: Option<Error> = None;
        for tenant in D::tenants(bucket).await.map_err(|e| e.context(format!("{}: tenants", D::SIGNAL)))? {
            let began = Instant::now();
            let outcome = D::round(bucket, &tenant, &limits.of(&tenant), &self.config, clock.now_ns()).await;
            let signal = D::SIGNAL.as_str();
            telemetry::rounds(signal, if outcome.is_ok() { "success" } else { "error" }).increment(1);
            telemetry::round_seconds(signal).record(began.elapsed().as_secs_f64());
            match outcome {
                Ok(done) => {
                    let Done { merged, written, removed } = done;
                    if done != Done::default() {
                        tracing::info!(signal = %D::SIGNAL, %tenant, merged, written, removed, "compacted");
                    }
                    total.merged += merged;
                    total.written += written;
                    total.removed += removed;
                }
                Err(error) => {
                    tracing::warn!(signal = %D::SIGNAL, %tenant, %error, "compaction failed, will try again");
                    first.get_or_insert(error.context(format!("{} of {tenant}", D::SIGNAL)));
                }
            }
        }
        first.map_or(Ok(()), Err)
    }
}
