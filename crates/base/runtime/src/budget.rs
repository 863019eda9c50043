//! Ceilings in bytes: a tree of budgets, from the process down to one query.
//!
//! A [`MemoryBudget`] is a ceiling that many parties draw on. A budget below another draws on it too, so that what a query takes
//! counts for the query, for its tenant, and for all queries of the process, and is refused by the first that has no room:
//!
//! | level | made by | over it | means |
//! |---|---|---|---|
//! | one query or request | [`MemoryBudget::below`] | Exhausted | ask for less (422) |
//! | one tenant | [`MemoryBudget::tenant`] | Exhausted, to be tried again | this tenant holds more than its fair share (429) |
//! | a share of the process | [`MemoryBudget::new`], [`ProcessBudget`] | Unavailable, to be tried again | the process is busy (503) |
//!
//! What would not fit if all were free is Exhausted at any level.
//!
//! # Fairness
//! A tenant may hold at most [`FAIR`] times what is free ("dynamic thresholds", Choudhury and Hahne 1998, for the shared memory of
//! packet switches). Who takes as much as possible ends up with the same amount as all others who do; who needs less gets all of it:
//! max-min fairness, without a list of who is active and in constant time. What stays free, `1 / (1 + FAIR * n)` of the whole with n
//! greedy tenants, is for those who come later: one that floods does not make others fail.

mod limit;
mod process;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use triptych_model::{Error, Result, TenantId};

pub use limit::memory_limit_bytes;
pub(crate) use process::queries;
pub use process::{MemoryShare, ProcessBudget, limit_queries};

/// A tenant may hold this many times what is free: alone, eight ninths of the whole.
pub const FAIR: i64 = 8;

/// What a caller is told to wait who met a share that is full: others finish.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Between two tries of work that can wait.
const WAIT: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Inner {
    name: Cow<'static, str>,
    limit: Limit,
    /// Below zero only for an instant, where two changes cross.
    used: AtomicI64,
    parent: Option<MemoryBudget>,
    /// Those that hold a budget of their own below this one now.
    tenants: Mutex<HashMap<TenantId, Weak<Inner>>>,
}

#[derive(Debug)]
enum Limit {
    Bytes(i64),
    /// The fair part of the parent.
    Fair(TenantId),
}

/// A shared ceiling. Clones draw on the same one.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Inner>);

impl MemoryBudget {
    /// `name` appears in the refusal: `query memory`, `pushes under way`.
    pub fn new(name: impl Into<Cow<'static, str>>, bytes_max: usize) -> Self {
        Self::make(name.into(), Limit::Bytes(i64::try_from(bytes_max).unwrap_or(i64::MAX)), None)
    }

    fn make(name: Cow<'static, str>, limit: Limit, parent: Option<MemoryBudget>) -> Self {
        Self(Arc::new(Inner { name, limit, used: AtomicI64::new(0), parent, tenants: Mutex::default() }))
    }

    /// A budget of at most `bytes_max` that draws on this one: for one query or request.
    pub fn below(&self, name: &'static str, bytes_max: usize) -> Self {
        let limit = Limit::Bytes(i64::try_from(bytes_max).unwrap_or(i64::MAX));
        Self::make(name.into(), limit, Some(self.clone()))
    }

    /// The tenant's part of this budget, the same for all who ask; forgotten when nobody holds it.
    pub fn tenant(&self, tenant: &TenantId) -> Self {
        let mut tenants = self.0.tenants.lock();
        if let Some(found) = tenants.get(tenant).and_then(Weak::upgrade) {
            return Self(found);
        }
        let budget = Self::make(self.0.name.clone(), Limit::Fair(tenant.clone()), Some(self.clone()));
        tenants.insert(tenant.clone(), Arc::downgrade(&budget.0));
        budget
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed).max(0) as usize
    }

    /// The most that may be in use; a tenant's changes with what others hold.
    pub fn bytes_max(&self) -> usize {
        match (&self.0.limit, &self.0.parent) {
            (Limit::Bytes(bytes), _) => *bytes as usize,
            (Limit::Fair(_), Some(parent)) => parent.free().saturating_mul(FAIR) as usize,
            (Limit::Fair(_), None) => 0,
        }
    }

    /// Tenants that hold a part now.
    pub fn tenants(&self) -> usize {
        self.0.tenants.lock().len()
    }

    fn free(&self) -> i64 {
        (self.bytes_max() as i64).saturating_sub(self.0.used.load(Ordering::Relaxed)).max(0)
    }

    /// This budget and those it draws on, up to the root.
    fn chain(&self) -> impl Iterator<Item = &MemoryBudget> {
        std::iter::successors(Some(self), |budget| budget.0.parent.as_ref())
    }

    /// Notes that `bytes` more (or fewer) are held, over the limit too: for what is known only after it happened. Goes with
    /// [`MemoryBudget::check`] before.
    pub fn add(&self, bytes: i64) {
        self.chain().for_each(|budget| {
            budget.0.used.fetch_add(bytes, Ordering::Relaxed);
        });
    }

    /// Whether `bytes` more would be granted now. Takes nothing.
    pub fn check(&self, bytes: usize) -> Result<()> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.chain().try_for_each(|budget| budget.fits(bytes, budget.0.used.load(Ordering::Relaxed)))
    }

    /// Whether this level has room for `bytes` beside `used`.
    fn fits(&self, bytes: i64, used: i64) -> Result<()> {
        let after = used.saturating_add(bytes);
        let name = &self.0.name;
        match &self.0.limit {
            Limit::Bytes(max) if after <= *max => Ok(()),
            Limit::Bytes(max) => {
                let text =
                    format!("{name}: {bytes} bytes wanted, {} in use, the limit is {max}", used.max(0));
                Err(match self.0.parent {
                    None if bytes <= *max => Error::unavailable(text).retry_after(RETRY_AFTER),
                    _ => Error::exhausted(text),
                })
            }
            Limit::Fair(tenant) => {
                let Some(parent) = &self.0.parent else { return Ok(()) };
                let free = parent.free();
                // What is wanted is free no more when it is granted.
                let left = free.saturating_sub(bytes);
                // Where it does not fit at all, who holds no more than an even part is not to blame: the parent refuses.
                let even = parent.bytes_max() as i64 / parent.tenants().max(1) as i64;
                if after <= left.saturating_mul(FAIR) || (left < 0 && after <= even) {
                    return Ok(());
                }
                Err(Error::exhausted(format!(
                    "{name}: tenant {tenant} holds {} bytes and wants {bytes} more; {free} of {} bytes are free for {} \
                     tenants, and one may hold no more than {FAIR} times what is free: send or ask for less at a time",
                    used.max(0),
                    parent.bytes_max(),
                    parent.tenants(),
                ))
                .retry_after(RETRY_AFTER))
            }
        }
    }

    /// As [`MemoryBudget::reserve`], for work that can wait: comes back when there is room. More than the whole takes the whole, so that
    /// it runs alone.
    pub async fn reserve_when_free(&self, bytes: usize) -> Reservation {
        let bytes = bytes.min(self.bytes_max());
        loop {
            match self.reserve(bytes) {
                Ok(reservation) => return reservation,
                Err(_) => tokio::time::sleep(WAIT).await,
            }
        }
    }

    /// Takes `bytes` until the reservation is dropped, or says how much is in use and which limit was met.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation> {
        let mut reservation = Reservation { budget: self.clone(), bytes: 0 };
        reservation.grow(bytes)?;
        Ok(reservation)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let (Limit::Fair(tenant), Some(parent)) = (&self.limit, &self.parent) {
            let mut tenants = parent.0.tenants.lock();
            // Unless somebody has asked for it anew.
            if tenants.get(tenant).is_some_and(|held| held.strong_count() == 0) {
                tenants.remove(tenant);
            }
        }
    }
}

/// Bytes taken from a [`MemoryBudget`]; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: MemoryBudget,
    bytes: usize,
}

impl Reservation {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `bytes` more, or nothing.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let wanted = i64::try_from(bytes).unwrap_or(i64::MAX);
        // Added first and looked at then, so that of two at the same time one sees the other.
        for (level, budget) in self.budget.chain().enumerate() {
            let used = budget.0.used.fetch_add(wanted, Ordering::Relaxed);
            if let Err(error) = budget.fits(wanted, used) {
                for budget in self.budget.chain().take(level + 1) {
                    budget.0.used.fetch_sub(wanted, Ordering::Relaxed);
                }
                return Err(error);
            }
        }
        self.bytes += bytes;
        Ok(())
    }

    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.budget.add(-(bytes as i64));
        self.bytes -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}
