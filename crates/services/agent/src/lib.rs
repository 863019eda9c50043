//! What runs on every machine: tails log files, reads host metrics.
//!
//! **Owns** which files are tailed and from where (positions), how lines become entries (plain, CRI), batches and retries; host
//! metrics under node_exporter's names.
//! **Must not know** storage; what it reads leaves through [`triptych_rpc::Write`], where limits apply as for every receiver.
//!
//! | module | what is in it |
//! |---|---|
//! | [`config`] | which files, which labels, how large a batch |
//! | [`tail`] | one file: rotation, truncation, torn and long lines |
//! | [`cri`] | lines of container runtimes |
//! | [`positions`] | how far each file was acknowledged, in Promtail's file format |
//! | [`logs`] | the loop: find files, read, send, remember |
//! | [`host`] | `/proc` under node_exporter's names |
//!
//! Delivery: a position moves after the acknowledgement, so a crash sends the last batch again. CRI lines carry their time and
//! the copies are merged; a plain line is stamped when it is read and is seen twice then.
//! Files are looked at by polling, not by inotify: it behaves the same on every file system, and costs a `stat` per file and
//! `batch_wait`.
//! Memory: one batch, and one line in the making per file (at most `line_bytes_max`).
//! Known holes: Promtail's pipeline stages, journald, compressed rotated files.

pub mod config;
pub mod cri;
pub mod host;
pub mod logs;
pub mod positions;
pub mod tail;
mod telemetry;

use std::path::PathBuf;
use std::sync::Arc;

use triptych_model::{Result, TenantId};
use triptych_rpc::{Write, WriteContext};
use triptych_runtime::Tasks;
use triptych_runtime::runtimes::Handles;

pub use config::Config;
pub use telemetry::TELEMETRY;

/// What the agent is built from.
pub struct Deps {
    pub write: Arc<dyn Write>,
    pub pools: Handles,
    /// Where the positions are kept.
    pub data_dir: PathBuf,
    /// This machine's name: label `host` of lines, `instance` of host metrics.
    pub node: String,
}

pub struct Agent {
    config: Config,
    deps: Deps,
    ctx: WriteContext,
}

impl Config {
    pub fn build(self, deps: Deps) -> Result<Agent> {
        let ctx =
            WriteContext { tenant: TenantId::new(&self.tenant).map_err(|e| e.context("agent.tenant"))? };
        self.check()?;
        Ok(Agent { config: self, deps, ctx })
    }
}

impl Agent {
    pub fn start(&self, tasks: &Tasks) {
        let pool = &self.deps.pools.ingest;
        if self.config.logs_enabled {
            let job = logs::Job::new(&self.config, &self.deps, self.ctx.clone());
            tasks.spawn(pool, "agent-logs", job.run(tasks.shutdown().clone()));
        }
        if self.config.host_metrics_enabled {
            let (write, ctx, node) = (self.deps.write.clone(), self.ctx.clone(), self.deps.node.clone());
            tasks.spawn_periodic(pool, "agent-host-metrics", self.config.host_metrics_interval, move || {
                host::collect_and_write(write.clone(), ctx.clone(), node.clone())
            });
        }
    }
}
