//! A ceiling in bytes that many parties draw on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use triptych_model::{Error, Result};

#[derive(Debug)]
struct Inner {
    name: &'static str,
    bytes_max: usize,
    used: AtomicUsize,
}

/// A shared ceiling. Clones draw on the same one.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Inner>);

impl MemoryBudget {
    /// `name` appears in the refusal: `query memory`, `write queue`.
    pub fn new(name: &'static str, bytes_max: usize) -> Self {
        Self(Arc::new(Inner { name, bytes_max, used: AtomicUsize::new(0) }))
    }

    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    pub fn bytes_max(&self) -> usize {
        self.0.bytes_max
    }

    /// Takes `bytes` until the reservation is dropped, or says how much is in use.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation> {
        let mut reservation = Reservation { budget: self.clone(), bytes: 0 };
        reservation.grow(bytes)?;
        Ok(reservation)
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

    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let inner = &*self.budget.0;
        let used = inner.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if used > inner.bytes_max {
            inner.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Error::exhausted(format!(
                "{}: {bytes} bytes wanted, {} in use, the limit is {}",
                inner.name,
                used - bytes,
                inner.bytes_max
            )));
        }
        self.bytes += bytes;
        Ok(())
    }

    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.budget.0.used.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = MemoryBudget::new("test", 100);
        let held = budget.reserve(60).unwrap();
        let refused = budget.reserve(50).unwrap_err();
        assert_eq!(refused.to_string(), "test: 50 bytes wanted, 60 in use, the limit is 100");
        drop(held);
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(100).is_ok());
    }
}
