//! The ceiling on what all heads hold together.

use std::time::Duration;

use triptych_model::{Result, TenantId};
use triptych_runtime::MemoryBudget;

/// What a refused writer is told to wait: about the time a flush takes.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Memory of all generations of all signals, and of each tenant in them. Heads say how large they are; nothing is taken from here in
/// advance, so the ceiling may be passed by what the writes in flight add.
#[derive(Debug, Clone)]
pub(crate) struct Memory(MemoryBudget);

impl Memory {
    pub(crate) fn new(heads: MemoryBudget) -> Self {
        Self(heads)
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.0.bytes_max()
    }

    pub(crate) fn used(&self) -> usize {
        self.0.used()
    }

    /// What a tenant's heads count for.
    pub(crate) fn tenant(&self, tenant: &TenantId) -> MemoryBudget {
        self.0.tenant(tenant)
    }

    /// Time to flush, long before anybody is refused.
    pub(crate) fn is_tight(&self) -> bool {
        self.used() > self.bytes_max() / 2
    }

    /// What is frozen must go now, to wherever it can.
    pub(crate) fn is_short(&self) -> bool {
        self.used() > self.bytes_max() / 4 * 3
    }

    /// Whether the tenant may add `bytes`; `waiting` generations wait for the bucket.
    pub(crate) fn check(
        &self,
        tenant: &TenantId,
        bytes: usize,
        waiting: impl FnOnce() -> usize,
    ) -> Result<()> {
        self.tenant(tenant).check(bytes).map_err(|mut error| {
            let waiting = waiting();
            error.message = format!("{}; {waiting} generations wait to be flushed", error.message).into();
            error.retry_after(RETRY_AFTER)
        })
    }
}

#[cfg(test)]
mod tests {
    use triptych_model::Kind;

    use super::*;

    #[test]
    fn refuses_with_numbers_and_the_flood_first() {
        let memory = Memory::new(MemoryBudget::new("heads", 1000));
        let (flood, other) = (TenantId::new("flood").unwrap(), TenantId::new("other").unwrap());
        let held = memory.tenant(&flood);
        held.add(500);
        assert!(!memory.is_tight());
        held.add(200);
        assert!(memory.is_tight() && !memory.is_short());
        held.add(150);
        assert!(memory.is_short());
        let refused = memory.check(&flood, 100, || 2).unwrap_err();
        assert_eq!((refused.kind, refused.retry_after), (Kind::Exhausted, Some(RETRY_AFTER)));
        assert!(
            refused
                .to_string()
                .starts_with("heads: tenant flood holds 850 bytes and wants 100 more; 150 of 1000"),
            "{refused}"
        );
        assert!(refused.to_string().ends_with("; 2 generations wait to be flushed"), "{refused}");
        memory.check(&other, 100, || 0).unwrap();
        let refused = memory.check(&other, 151, || 2).unwrap_err();
        assert_eq!((refused.kind, refused.retry_after), (Kind::Unavailable, Some(RETRY_AFTER)));
        assert_eq!(
            refused.to_string(),
            "heads: 151 bytes wanted, 850 in use, the limit is 1000; 2 generations wait to be flushed"
        );
    }
}
