//! One budget for the process, shared out by name.

use std::sync::OnceLock;

use super::MemoryBudget;

/// What the process' memory is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemoryShare {
    /// Bodies and batches of requests that are being received (distributor, scraper, agent).
    Pushes,
    /// Batches that are being applied, and those that wait for the disk (ingester).
    Writes,
    /// What was written and is not in the bucket yet, or was flushed just now (ingester).
    Heads,
    /// Parts of blocks, chunks (store-gateway).
    Caches,
    /// Remembered answers (gateway).
    Results,
    /// All queries together.
    Queries,
    /// What is on its way to the bucket (ingester).
    Flushes,
    /// Merges of blocks (compactor).
    Compaction,
}

impl MemoryShare {
    pub const ALL: [MemoryShare; 8] = [
        MemoryShare::Pushes,
        MemoryShare::Writes,
        MemoryShare::Heads,
        MemoryShare::Caches,
        MemoryShare::Results,
        MemoryShare::Queries,
        MemoryShare::Flushes,
        MemoryShare::Compaction,
    ];

    /// The value of the label `share`.
    pub fn as_str(self) -> &'static str {
        match self {
            MemoryShare::Pushes => "pushes",
            MemoryShare::Writes => "writes",
            MemoryShare::Heads => "heads",
            MemoryShare::Caches => "caches",
            MemoryShare::Results => "results",
            MemoryShare::Queries => "queries",
            MemoryShare::Flushes => "flushes",
            MemoryShare::Compaction => "compaction",
        }
    }

    fn describe(self) -> &'static str {
        match self {
            MemoryShare::Pushes => "memory of pushes under way",
            MemoryShare::Writes => "memory of writes in flight",
            MemoryShare::Heads => "memory of data that is not in the bucket yet",
            MemoryShare::Caches => "memory of caches",
            MemoryShare::Results => "memory of remembered answers",
            MemoryShare::Queries => "memory of all queries",
            MemoryShare::Flushes => "memory of flushes",
            MemoryShare::Compaction => "memory of compactions",
        }
    }
}

/// Of four bytes that the process may use, three are shared out. The rest is for what nobody counts: code, stacks, buffers of
/// connections, and what the allocator has not given back yet.
const COUNTED_OF_4: usize = 3;

/// The process' memory by what it is used for. Clones are the same.
#[derive(Debug, Clone)]
pub struct ProcessBudget {
    bytes_max: usize,
    shares: [MemoryBudget; MemoryShare::ALL.len()],
}

impl ProcessBudget {
    /// Shares out three quarters of `bytes_max`. What is `fixed` is given first, as it is asked for (also where that is more than there
    /// is); the others share the rest by their weights. A share with neither gets nothing.
    pub fn new(bytes_max: usize, weights: &[(MemoryShare, usize)], fixed: &[(MemoryShare, usize)]) -> Self {
        let fixed_of = |share| fixed.iter().find(|(s, bytes)| *s == share && *bytes > 0).map(|(_, b)| *b);
        let weight_of = |share| match fixed_of(share) {
            Some(_) => 0,
            None => weights.iter().filter(|(s, _)| *s == share).map(|(_, w)| w).sum::<usize>(),
        };
        let fixed_bytes = MemoryShare::ALL.iter().filter_map(|s| fixed_of(*s)).fold(0, usize::saturating_add);
        let left = (bytes_max / 4 * COUNTED_OF_4).saturating_sub(fixed_bytes);
        let parts = MemoryShare::ALL.iter().map(|s| weight_of(*s)).sum::<usize>().max(1);
        let shares = MemoryShare::ALL.map(|share| {
            let bytes = fixed_of(share).unwrap_or_else(|| left / parts * weight_of(share));
            MemoryBudget::new(share.describe(), bytes)
        });
        Self { bytes_max, shares }
    }

    /// No limits: for tests and tools.
    pub fn unlimited() -> Self {
        Self::new(0, &[], &MemoryShare::ALL.map(|share| (share, usize::MAX / MemoryShare::ALL.len())))
    }

    /// What the process may use, counted or not.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub fn share(&self, share: MemoryShare) -> &MemoryBudget {
        &self.shares[share as usize]
    }
}

static QUERIES: OnceLock<MemoryBudget> = OnceLock::new();

/// What every query of this process draws on from now on. Said once, at the start; a process has one memory, so there is one of
/// these, and no question can be asked past it.
pub fn limit_queries(share: &MemoryBudget) {
    let _ = QUERIES.set(share.clone());
}

/// What all queries draw on: no limit unless one was set.
pub(crate) fn queries() -> &'static MemoryBudget {
    static UNLIMITED: OnceLock<MemoryBudget> = OnceLock::new();
    QUERIES.get().unwrap_or_else(|| UNLIMITED.get_or_init(|| MemoryBudget::new("queries", usize::MAX / 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn sizes(budget: &ProcessBudget) -> [usize; 8] {
        MemoryShare::ALL.map(|share| budget.share(share).bytes_max() / MIB)
    }

    #[test]
    fn who_is_not_there_gets_nothing_and_what_is_fixed_comes_first() {
        let weights = [
            (MemoryShare::Heads, 4),
            (MemoryShare::Queries, 3),
            (MemoryShare::Queries, 1),
            (MemoryShare::Writes, 2),
        ];
        let budget = ProcessBudget::new(400 * MIB, &weights, &[]);
        assert_eq!(sizes(&budget), [0, 60, 120, 0, 0, 120, 0, 0]);
        let budget = ProcessBudget::new(
            400 * MIB,
            &weights,
            &[(MemoryShare::Heads, 100 * MIB), (MemoryShare::Writes, 0)],
        );
        assert_eq!(sizes(&budget), [0, 66, 100, 0, 0, 133, 0, 0]);
        let budget = ProcessBudget::new(400 * MIB, &weights, &[(MemoryShare::Heads, 1000 * MIB)]);
        assert_eq!(sizes(&budget), [0, 0, 1000, 0, 0, 0, 0, 0]);
    }
}
