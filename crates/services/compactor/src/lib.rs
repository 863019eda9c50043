//! Merges what was flushed, applies retention, removes what was left behind.
//!
//! **Owns** when a round runs, over which tenants, one after the other, and its telemetry.
//! **Must not know** any format: what is merged and how is decided by the signals (`triptych_metrics::compact` and its
//! siblings), through the doors `metrics`, `logs`, `traces`.
//!
//! A round may die anywhere and be run again: every step of a signal's `compact` is idempotent, sources go only after what
//! replaces them is whole, and they go late enough that readers have seen the replacement.
//! A tenant that fails is logged and counted; the others go on.
//!
//! # Several compactors
//! Each (signal, tenant) has one owner among the living, active compactors ([`Ownership`]). It is looked at before each tenant, and by
//! the [`FencedBucket`] that a signal gets before each write and each deletion. Two may believe that they own the same for as long as
//! their views differ: correctness does not rest on ownership, only how often work is done twice. `docs/ARCHITECTURE.md` says why two
//! at a time lose nothing and show nothing twice.

mod logs;
mod metrics;
mod telemetry;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;
use triptych_blob::object_store::path::Path;
use triptych_blob::{Bucket, FencedBucket, probe};
use triptych_config::{Limits, TenantLimits};
use triptych_model::{Error, Result, Signal, TenantId};
use triptych_ring::Ownership;
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
    /// Which tenants are this process' to compact; keys are `<signal>/<tenant>`.
    pub ownership: Ownership,
    /// The name of this process, unique among compactors.
    pub node: String,
}

/// What one round of one tenant and signal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Done {
    /// Blocks (or chunks and index files) that were merged away.
    pub merged: usize,
    /// Blocks (or chunks and index files) that were written.
    pub written: usize,
    /// Objects or blocks that were removed.
    pub removed: usize,
    /// Copies of samples, lines or spans that merges left out.
    pub copies: u64,
}

/// One signal of one tenant, and what its round may use.
struct Turn<'a> {
    bucket: &'a Bucket,
    tenant: &'a TenantId,
    limits: &'a Limits,
    config: &'a Config,
    has_conditional_puts: bool,
    now_ns: i64,
}

/// What a door offers.
trait CompactDoor {
    const SIGNAL: Signal;
    fn tenants<'a>(bucket: &'a Bucket) -> BoxFuture<'a, Result<Vec<TenantId>>>;
    fn round(turn: Turn<'_>) -> BoxFuture<'_, Result<Done>>;
}

#[derive(Clone)]
pub struct Compactor {
    config: Arc<Config>,
    deps: Arc<Deps>,
    /// One round at a time in this process.
    running: Arc<Mutex<()>>,
    has_conditional_puts: Arc<OnceCell<bool>>,
}

impl Config {
    pub fn build(mut self, deps: Deps) -> Compactor {
        if self.memory_bytes_max == 0 {
            self.memory_bytes_max = deps.memory.bytes_max();
        }
        let (running, has_conditional_puts) = Default::default();
        Compactor { config: Arc::new(self), deps: Arc::new(deps), running, has_conditional_puts }
    }
}

impl Compactor {
    pub fn start(&self, tasks: &Tasks) {
        let compactor = self.clone();
        tasks.spawn(&self.deps.pools.background, "compactor", {
            let shutdown = tasks.shutdown().clone();
            async move {
                compactor.probe().await;
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

    /// Whether the bucket honours conditional puts; asked until it has answered once.
    async fn probe(&self) -> bool {
        let Deps { bucket, node, .. } = &*self.deps;
        let path = Path::from_iter(["control", "compactor", "probe", node]);
        let asked = self.has_conditional_puts.get_or_try_init(|| probe::honours_create(bucket, &path)).await;
        match asked {
            Ok(honoured) => {
                telemetry::conditional_puts().set(f64::from(u8::from(*honoured)));
                *honoured
            }
            Err(error) => {
                tracing::warn!(%error, "whether the bucket honours conditional puts is not known yet");
                false
            }
        }
    }

    /// One round over all signals and the tenants that are this process' own. Fails with the first error after all tenants had their turn.
    pub async fn round(&self) -> Result<Done> {
        let _one = self.running.lock().await;
        let has_conditional_puts = self.probe().await;
        let mut total = Done::default();
        let outcomes = [
            self.signal::<metrics::Door>(has_conditional_puts, &mut total).await,
            self.signal::<logs::Door>(has_conditional_puts, &mut total).await,
            self.signal::<traces::Door>(has_conditional_puts, &mut total).await,
        ];
        outcomes.into_iter().collect::<Result<Vec<()>>>()?;
        Ok(total)
    }

    async fn signal<D: CompactDoor>(&self, has_conditional_puts: bool, total: &mut Done) -> Result<()> {
        let Deps { bucket, limits, clock, ownership, .. } = &*self.deps;
        let signal = D::SIGNAL.as_str();
        let mut first: Option<Error> = None;
        let mut owned = 0;
        for tenant in D::tenants(bucket).await.map_err(|e| e.context(format!("{signal}: tenants")))? {
            let key = format!("{signal}/{tenant}");
            if !ownership.owns(&key) {
                continue;
            }
            owned += 1;
            let is_owner = {
                let ownership = ownership.clone();
                move || ownership.owns(&key)
            };
            let fenced: Bucket = Arc::new(FencedBucket::new(bucket.clone(), is_owner.clone()));
            let began = Instant::now();
            let outcome = D::round(Turn {
                bucket: &fenced,
                tenant: &tenant,
                limits: &limits.of(&tenant),
                config: &self.config,
                has_conditional_puts,
                now_ns: clock.now_ns(),
            })
            .await;
            let result = match &outcome {
                Ok(_) => "success",
                Err(_) if !is_owner() => "handed_over",
                Err(_) => "error",
            };
            telemetry::rounds(signal, result).increment(1);
            telemetry::round_seconds(signal).record(began.elapsed().as_secs_f64());
            match outcome {
                Ok(done) => {
                    let Done { merged, written, removed, copies } = done;
                    if done != Done::default() {
                        tracing::info!(signal, %tenant, merged, written, removed, copies, "compacted");
                    }
                    telemetry::copies_removed(signal).increment(copies);
                    total.merged += merged;
                    total.written += written;
                    total.removed += removed;
                    total.copies += copies;
                }
                // What it did is whole; the new owner goes on.
                Err(_) if result == "handed_over" => tracing::info!(signal, %tenant, "handed over"),
                Err(error) => {
                    tracing::warn!(signal, %tenant, %error, "compaction failed, will try again");
                    first.get_or_insert(error.context(format!("{signal} of {tenant}")));
                }
            }
        }
        telemetry::owned_tenants(signal).set(f64::from(owned));
        first.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
