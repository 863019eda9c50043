//! How work runs: thread pools by workload, background tasks of one shape, time from outside, and the one object that a query
//! carries.
//!
//! **Owns** [`QueryContext`] (deadline, cancellation, budgets, report), [`MemoryBudget`] and [`ProcessBudget`], [`Clock`], [`Runtimes`],
//! [`tasks`] (supervised background tasks, drain), [`blocking`], [`random`], the registry of [`Invariant`]s.
//! **Must not know** signals, storage, wire formats.
//!
//! Invariants: ingest never waits for a query (separate [`Runtimes`]); every loop over data asks [`QueryContext::check`] once a
//! batch.
//!
//! # One seed replays the world
//! What decides anything comes from where a simulation can decide it: the wall clock from a [`Clock`], monotonic time and sleep from
//! `tokio::time`, random numbers from [`random`], work that blocks through [`blocking`]. `clippy.toml` bans the others. A `select!` is
//! `biased`, and what is kept in a hash map is sorted before its order shows.

pub mod blocking;
pub mod budget;
pub mod clock;
pub mod invariant;
pub mod query;
pub mod random;
pub mod runtimes;
pub mod tasks;
mod telemetry;

pub use blocking::blocking;
pub use budget::{MemoryBudget, MemoryShare, ProcessBudget, Reservation};
pub use clock::{Clock, ManualClock, SharedClock, SystemClock, now_ms, now_ns};
pub use invariant::Invariant;
pub use query::{QueryContext, QueryLimits, ReadReport};
pub use runtimes::{Runtimes, ahead, on};
pub use tasks::{Shutdown, Tasks};
pub use telemetry::TELEMETRY;
