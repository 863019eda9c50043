//! Time from outside, so that one seed replays the world.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Where storage logic gets the time of day from. For how long something took, and to wait, `tokio::time` is used: a simulation
/// moves both.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since the epoch.
    fn now_ns(&self) -> i64;

    /// Milliseconds since the epoch.
    fn now_ms(&self) -> i64 {
        self.now_ns() / 1_000_000
    }

    /// Nanoseconds since some moment, never backwards and never by leaps: for ages, pauses and rates, which must not care that somebody
    /// sets the clock.
    fn elapsed_ns(&self) -> i64 {
        self.now_ns()
    }
}

pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> i64 {
        now_ns()
    }

    fn elapsed_ns(&self) -> i64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as i64
    }
}

/// A clock that a test moves.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    pub fn at_ns(ns: i64) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(ns)))
    }
    pub fn set_ns(&self, ns: i64) {
        self.0.store(ns, Ordering::SeqCst);
    }
    pub fn advance(&self, by: std::time::Duration) {
        self.0.fetch_add(by.as_nanos() as i64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The machine's time, for the edges (HTTP defaults, log lines) where no clock is handed in.
#[expect(clippy::disallowed_methods, reason = "this is the replacement")]
pub fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
}

/// As [`now_ns`], in milliseconds.
pub fn now_ms() -> i64 {
    now_ns() / 1_000_000
}
