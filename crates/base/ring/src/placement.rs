//! Hash -> shard -> replica set.

use std::sync::Arc;

use smallvec::SmallVec;
use triptych_model::share::rendezvous;
use xxhash_rust::xxh3::xxh3_64;

use crate::Member;

/// Parts of the space of hashes that are placed as one. With ten members a shard is a four-hundredth of a member's load; a table
/// over all of them is 8 KiB.
pub const SHARDS: usize = 4096;

/// How many zones keep a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replication {
    /// At least 1.
    pub factor: usize,
}

impl Replication {
    pub fn new(factor: usize) -> Self {
        Self { factor: factor.max(1) }
    }

    /// Zones that must have taken a write before it is acknowledged: more than half.
    pub fn quorum(self) -> usize {
        self.factor / 2 + 1
    }
}

/// The members that keep a shard, as positions in the list the placement was made of; no two in one zone.
pub type ReplicaSet = SmallVec<[u16; 3]>;

/// Which members keep which shard, for one view of the members (and, with shuffle sharding, for one tenant).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    sets: Vec<ReplicaSet>,
    /// A position in `sets` per shard; empty when there are no sets.
    by_shard: Vec<u16>,
}

impl Placement {
    /// Over those of `members` that take writes.
    pub fn new(replication: Replication, members: &[&Member]) -> Self {
        let writable: Vec<usize> = (0..members.len()).filter(|i| members[*i].takes_writes()).collect();
        Self::over(replication, members, &Zones::new(members, &writable))
    }

    /// For one tenant, over at most `size` of the members that take writes, the same number of each zone (rounded up). 0: all.
    pub fn for_tenant(replication: Replication, members: &[&Member], tenant: &str, size: usize) -> Self {
        let writable: Vec<usize> = (0..members.len()).filter(|i| members[*i].takes_writes()).collect();
        let mut zones = Zones::new(members, &writable);
        zones.shuffle(replication, tenant, size);
        Self::over(replication, members, &zones)
    }

    fn over(replication: Replication, members: &[&Member], zones: &Zones<'_>) -> Self {
        debug_assert!(members.len() <= usize::from(u16::MAX), "positions are 16 bits wide");
        let mut placement = Self { sets: Vec::new(), by_shard: Vec::new() };
        if zones.0.is_empty() {
            return placement;
        }
        let mut known = hashbrown::HashMap::<ReplicaSet, u16>::new();
        placement.by_shard.reserve_exact(SHARDS);
        for shard in 0..SHARDS as u64 {
            let set = zones.pick(replication.factor, shard);
            let at = *known.entry(set).or_insert_with_key(|set| {
                placement.sets.push(set.clone());
                (placement.sets.len() - 1) as u16
            });
            placement.by_shard.push(at);
        }
        placement
    }

    /// All sets that keep something. Empty: nobody takes writes.
    pub fn sets(&self) -> &[ReplicaSet] {
        &self.sets
    }

    /// The position in [`Placement::sets`] of the set that keeps a hash. There must be sets.
    #[inline]
    pub fn set_of(&self, hash: u64) -> usize {
        match self.by_shard.get((hash >> (64 - SHARDS.ilog2())) as usize) {
            Some(at) => usize::from(*at),
            None => 0,
        }
    }
}

/// Which of `members` (positions, ascending) work for one tenant: at most `max` of them (0: all), by rendezvous hashing. They need no
/// zones of their own: this is for services whose members can all stand in for each other.
pub fn subset(members: &[&Arc<str>], tenant: &str, max: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..members.len()).collect();
    if max != 0 && max < all.len() {
        let key = xxh3_64(tenant.as_bytes());
        let score = |at: &usize| (rendezvous(xxh3_64(members[*at].as_bytes()), key), members[*at]);
        all.sort_by_key(|at| std::cmp::Reverse(score(at)));
        all.truncate(max);
        all.sort_unstable();
    }
    all
}

struct Zone<'a> {
    name: &'a str,
    seed: u64,
    /// Position and seed of each member.
    members: Vec<(u16, u64)>,
}

/// Members by zone, in the order of the zones' names.
struct Zones<'a>(Vec<Zone<'a>>);

impl<'a> Zones<'a> {
    fn new(members: &[&'a Member], writable: &[usize]) -> Self {
        let mut sorted: Vec<usize> = writable.to_vec();
        sorted.sort_by_key(|i| (&members[*i].zone, &members[*i].id));
        let zones = sorted.chunk_by(|a, b| members[*a].zone == members[*b].zone).map(|zone| {
            let mut slots: Vec<&str> = zone.iter().map(|i| members[*i].slot()).collect();
            slots.sort_unstable();
            slots.dedup();
            // Two members of one zone with the same number: their names tell them apart.
            let by_slot = slots.len() == zone.len();
            let seed =
                |i: usize| xxh3_64(if by_slot { members[i].slot() } else { &members[i].id }.as_bytes());
            let name = &*members[zone[0]].zone;
            Zone {
                name,
                seed: xxh3_64(name.as_bytes()),
                members: zone.iter().map(|i| (*i as u16, seed(*i))).collect(),
            }
        });
        Self(zones.collect())
    }

    /// One member of each of `factor` zones.
    fn pick(&self, factor: usize, shard: u64) -> ReplicaSet {
        let winner = |zone: &Zone<'_>| {
            let best = zone.members.iter().max_by_key(|(at, seed)| (rendezvous(*seed, shard), *at));
            best.map(|(at, _)| *at)
        };
        if self.0.len() <= factor {
            return self.0.iter().filter_map(winner).collect();
        }
        let mut ranked: Vec<&Zone<'_>> = self.0.iter().collect();
        ranked.sort_by_key(|zone| std::cmp::Reverse((rendezvous(zone.seed, shard), zone.name)));
        let mut set: ReplicaSet = ranked.into_iter().take(factor).filter_map(winner).collect();
        set.sort_unstable();
        set
    }

    /// Leaves the tenant's members, and where there are more zones than replicas and members than zones, the tenant's zones.
    fn shuffle(&mut self, replication: Replication, tenant: &str, size: usize) {
        if size == 0 || self.0.is_empty() {
            return;
        }
        let key = xxh3_64(tenant.as_bytes());
        let zones = self.0.len().min(size.max(replication.factor));
        self.0.sort_by_key(|zone| std::cmp::Reverse((rendezvous(zone.seed, key), zone.name)));
        self.0.truncate(zones);
        self.0.sort_by_key(|zone| zone.name);
        let each = size.div_ceil(zones);
        for zone in &mut self.0 {
            zone.members.sort_by_key(|(at, seed)| std::cmp::Reverse((rendezvous(*seed, key), *at)));
            zone.members.truncate(each.max(1));
            zone.members.sort_unstable();
        }
    }
}

#[cfg(test)]
mod tests;
