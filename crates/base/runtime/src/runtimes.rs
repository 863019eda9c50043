//! Thread pools by workload. The reasons stand at the fields.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// The pools of a process. Dropped in `main`, after everything that runs on them.
#[derive(Debug)]
pub struct Runtimes {
    /// Receives, appends, acknowledges, and carries all I/O. An acknowledgement must never wait for a query.
    pub ingest: Runtime,
    /// Decodes, filters, evaluates. CPU-bound, in batches that yield; may be saturated without harm to the others.
    pub query: Runtime,
    /// Flush, compaction, retention: everything that can wait.
    pub background: Runtime,
}

/// Handles to the pools, for whoever spawns.
#[derive(Debug, Clone)]
pub struct Handles {
    pub ingest: Handle,
    pub query: Handle,
    pub background: Handle,
}

impl Runtimes {
    /// Each pool has a thread per core, background half of them; the kernel shares the cores out.
    pub fn new() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let pool = |name: &str, threads: usize| {
            Builder::new_multi_thread().worker_threads(threads.max(1)).thread_name(name).enable_all().build()
        };
        Ok(Self {
            ingest: pool("ingest", cores)?,
            query: pool("query", cores)?,
            background: pool("background", cores.div_ceil(2))?,
        })
    }

    pub fn handles(&self) -> Handles {
        Handles {
            ingest: self.ingest.handle().clone(),
            query: self.query.handle().clone(),
            background: self.background.handle().clone(),
        }
    }
}

impl Handles {
    /// All three on the current runtime, for tests and small tools.
    pub fn current() -> Self {
        let handle = Handle::current();
        Self { ingest: handle.clone(), query: handle.clone(), background: handle }
    }
}
