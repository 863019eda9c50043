//! How the process' memory is shared out among the roles that it runs.

use std::time::Duration;

use serde_json::{Value, json};
use triptych_runtime::{MemoryShare, ProcessBudget, Tasks, budget};

use crate::config::Config;
use crate::roles::Role;

triptych_model::telemetry! {
    /// Memory that this process may use (`memory_limit`, the cgroup's limit, or the machine's memory).
    gauge limit_bytes() = "triptych_memory_limit_bytes";
    /// Memory that is counted for a share of the limit: `pushes`, `writes`, `heads`, `caches`, `results`, `queries`,
    /// `flushes`, `compaction`.
    gauge share_used_bytes(share) = "triptych_memory_share_used_bytes";
    /// Memory that a share may hold; over it is refused what would need more.
    gauge share_limit_bytes(share) = "triptych_memory_share_limit_bytes";
}

/// What a role needs memory for, in parts of a whole that all roles of the process make up: one that is not there takes nothing.
fn weights(role: Role) -> &'static [(MemoryShare, usize)] {
    match role {
        Role::Ingester => &[
            (MemoryShare::Writes, 2),
            (MemoryShare::Heads, 10),
            (MemoryShare::Queries, 2),
            (MemoryShare::Flushes, 3),
        ],
        Role::StoreGateway => &[(MemoryShare::Caches, 3), (MemoryShare::Queries, 2)],
        Role::Distributor => &[(MemoryShare::Pushes, 3)],
        Role::Querier => &[(MemoryShare::Queries, 3)],
        Role::Gateway => &[(MemoryShare::Queries, 1), (MemoryShare::Results, 1), (MemoryShare::Pushes, 1)],
        Role::Compactor => &[(MemoryShare::Compaction, 2)],
        // They write through the distributor of their process, which counts it.
        Role::Scraper | Role::Agent => &[],
    }
}

/// The budget of a process with these roles; every query of the process draws on it from now on.
pub fn build(config: &Config, roles: &[Role]) -> ProcessBudget {
    let bytes_max = if config.memory_limit == 0 { budget::memory_limit_bytes() } else { config.memory_limit };
    let is_wanted = |role: Role, share| match (role, share) {
        (Role::Gateway, MemoryShare::Results) => config.gateway.result_cache,
        // It passes on what it does not take itself.
        (Role::Gateway, MemoryShare::Pushes) => !roles.contains(&Role::Distributor),
        _ => true,
    };
    let of_role = |role: &Role| {
        let role = *role;
        weights(role).iter().filter(move |(share, _)| is_wanted(role, *share)).copied()
    };
    let weights: Vec<_> = roles.iter().flat_map(of_role).collect();
    let cache_bytes_max = config.store_gateway.cache_bytes_max as usize;
    let fixed = [
        (MemoryShare::Pushes, config.distributor.in_flight_bytes_max),
        (MemoryShare::Writes, config.ingester.in_flight_bytes_max),
        (MemoryShare::Heads, config.ingester.memory_bytes_max),
        // One cache for each signal.
        (MemoryShare::Caches, 3 * cache_bytes_max),
        (MemoryShare::Results, config.gateway.result_cache_bytes_max as usize),
        (MemoryShare::Compaction, config.compactor.memory_bytes_max),
    ];
    // What is said for a role that is not here is not meant for this process.
    let fixed = fixed.map(|(share, bytes)| {
        let is_used = weights.iter().any(|(used, _)| *used == share);
        (share, if is_used { bytes } else { 0 })
    });
    let budget = ProcessBudget::new(bytes_max, &weights, &fixed);
    budget::limit_queries(budget.share(MemoryShare::Queries));
    for share in MemoryShare::ALL {
        let bytes = budget.share(share).bytes_max();
        tracing::debug!(share = share.as_str(), bytes, "memory shared out");
    }
    let counted =
        MemoryShare::ALL.iter().map(|s| budget.share(*s).bytes_max()).fold(0, usize::saturating_add);
    if counted > bytes_max {
        tracing::warn!(counted, memory_limit = bytes_max, "memory settings of single roles exceed the limit");
    }
    tracing::info!(memory_limit = bytes_max, counted, "memory budget");
    budget
}

/// Writes the gauges from time to time.
pub fn watch(budget: &ProcessBudget, tasks: &Tasks, pool: &tokio::runtime::Handle) {
    let budget = budget.clone();
    tasks.spawn_periodic(pool, "memory-gauges", Duration::from_secs(5), move || {
        limit_bytes().set(budget.bytes_max() as f64);
        for share in MemoryShare::ALL {
            let held = budget.share(share);
            share_used_bytes(share.as_str()).set(held.used() as f64);
            share_limit_bytes(share.as_str()).set(held.bytes_max() as f64);
        }
        std::future::ready(())
    });
}

/// For the page.
pub fn shown(budget: &ProcessBudget) -> Value {
    let shares: Vec<_> = MemoryShare::ALL
        .iter()
        .map(|share| (share, budget.share(*share)))
        .filter(|(_, held)| held.bytes_max() > 0)
        .map(|(share, held)| {
            json!({"share": share.as_str(), "usedBytes": held.used(), "maxBytes": held.bytes_max(),
                "tenants": held.tenants()})
        })
        .collect();
    json!({"limitBytes": budget.bytes_max(), "shares": shares})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_roles_fit_and_each_gets_what_it_uses() {
        let config = Config { memory_limit: 512 << 20, ..Config::default() };
        let all = build(&config, &Role::ALL);
        let sum: usize = MemoryShare::ALL.iter().map(|s| all.share(*s).bytes_max()).sum();
        assert!(sum <= 384 << 20 && sum > 383 << 20, "{sum}");
        // A sealed batch and what it unfolds to must fit beside each other: a batch may be a fifth of `pushes`.
        let part = all.share(MemoryShare::Pushes).bytes_max() / 5;
        assert!(2 * part < all.share(MemoryShare::Writes).bytes_max() / 9 * 8);

        let alone = build(&config, &[Role::Querier]);
        assert_eq!(alone.share(MemoryShare::Queries).bytes_max(), 384 << 20);
        assert_eq!(alone.share(MemoryShare::Heads).bytes_max(), 0);
    }
}
