//! The time of day in the simulation: one world, hosts whose clocks are wrong by a little.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use triptych_runtime::Clock;

/// The true time. It goes with tokio's (paused) time, and can leap.
#[derive(Debug)]
pub struct WorldClock {
    start: Instant,
    start_ns: i64,
    leapt_ns: AtomicI64,
}

impl WorldClock {
    pub fn new(start_ns: i64) -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), start_ns, leapt_ns: AtomicI64::new(0) })
    }

    /// Hours pass in which nothing happens: nobody's timers run.
    pub fn leap(&self, by: Duration) {
        self.leapt_ns.fetch_add(by.as_nanos() as i64, Ordering::Relaxed);
    }
}

impl Clock for WorldClock {
    fn now_ns(&self) -> i64 {
        self.start_ns + self.leapt_ns.load(Ordering::Relaxed) + self.start.elapsed().as_nanos() as i64
    }
}

/// A host's clock.
#[derive(Debug)]
pub struct HostClock {
    pub world: Arc<WorldClock>,
    /// How far it is ahead.
    pub skew_ns: AtomicI64,
}

impl Clock for HostClock {
    fn now_ns(&self) -> i64 {
        self.world.now_ns() + self.skew_ns.load(Ordering::Relaxed)
    }

    fn elapsed_ns(&self) -> i64 {
        self.world.now_ns()
    }
}
