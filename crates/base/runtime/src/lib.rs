//! How work runs: thread pools by workload, background tasks of one shape, time from outside, and the one object that a query
//! carries.
//!
//! **Owns** [`QueryContext`] (deadline, cancellation, budgets, report), [`MemoryBudget`], [`Clock`], [`Runtimes`],
//! [`tasks`] (supervised background tasks, drain).
//! **Must not know** signals, storage, wire formats.
//!
//! Invariants: ingest never waits for a query (separate [`Runtimes`]); every loop over data asks [`QueryContext::check`] once a
//! batch; nothing but [`clock`] reads the wall clock on behalf of storage logic.

pub mod budget;
pub mod clock;
pub mod query;
pub mod runtimes;
pub mod tasks;

pub use budget::{MemoryBudget, Reservation};
pub use clock::{Clock, ManualClock, SharedClock, SystemClock, now_ms, now_ns};
pub use query::{QueryContext, QueryLimits, ReadReport};
pub use runtimes::{Runtimes, ahead};
pub use tasks::{Shutdown, Tasks};
