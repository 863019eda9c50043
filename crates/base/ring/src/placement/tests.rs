use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::MemberState;

fn cluster(zones: usize, each: usize) -> Vec<Member> {
    (0..zones * each)
        .map(|i| {
            let zone = ["a", "b", "c", "d", "e"][i % zones];
            Member::new(&format!("ingester-{zone}-{}", i / zones), zone, "")
        })
        .collect()
}

fn place(members: &[Member]) -> Placement {
    Placement::new(Replication::new(3), &members.iter().collect::<Vec<_>>())
}

/// Ids that keep a shard.
fn keepers<'a>(placement: &Placement, members: &'a [Member], shard: usize) -> BTreeSet<&'a str> {
    let set = &placement.sets()[placement.set_of((shard as u64) << 52)];
    set.iter().map(|i| &*members[usize::from(*i)].id).collect()
}

#[test]
fn zones_mirror_each_other() {
    let members = cluster(3, 4);
    let placement = place(&members);
    assert_eq!(placement.sets().len(), 4);
    for set in placement.sets() {
        let zones: BTreeSet<_> = set.iter().map(|i| &members[usize::from(*i)].zone).collect();
        let slots: BTreeSet<_> = set.iter().map(|i| members[usize::from(*i)].slot()).collect();
        assert_eq!((zones.len(), slots.len()), (3, 1), "{set:?}");
    }
}

#[test]
fn load_is_even() {
    for members in
        [cluster(3, 5), cluster(5, 2), (0..9).map(|i| Member::new(&format!("i-{i}"), "", "")).collect()]
    {
        let placement = place(&members);
        let mut load = BTreeMap::<u16, usize>::new();
        for shard in 0..SHARDS {
            for member in &placement.sets()[placement.set_of((shard as u64) << 52)] {
                *load.entry(*member).or_default() += 1;
            }
        }
        let even = SHARDS * 3 / members.len();
        assert_eq!(load.len(), members.len());
        assert!(load.values().all(|n| n.abs_diff(even) < even / 5), "{load:?}, even would be {even}");
    }
}

#[test]
fn nobody_takes_writes() {
    let mut members = cluster(3, 1);
    members[0].is_alive = false;
    members[1].state = MemberState::Leaving;
    assert_eq!(place(&members).sets().len(), 1);
    assert_eq!(place(&members).sets()[0].as_slice(), &[2]);
    members[2].state = MemberState::Joining;
    assert!(place(&members).sets().is_empty());
    assert_eq!(place(&members).set_of(u64::MAX), 0);
}

#[test]
fn a_tenant_has_its_own_few() {
    let members = cluster(3, 8);
    let refs: Vec<&Member> = members.iter().collect();
    let used = |tenant: &str, size: usize| -> BTreeSet<u16> {
        let placement = Placement::for_tenant(Replication::new(3), &refs, tenant, size);
        placement.sets().iter().flatten().copied().collect()
    };
    assert_eq!(used("a", 0).len(), 24);
    assert_eq!(used("a", 6).len(), 6);
    assert_eq!(used("a", 1).len(), 3, "one of each zone at least");
    assert_eq!(used("a", 100).len(), 24);
    let different: BTreeSet<_> = (0..20).map(|i| used(&format!("tenant-{i}"), 6)).collect();
    assert!(different.len() > 10, "{different:?}");
}

#[test]
fn names_without_numbers_and_with_equal_ones() {
    let members =
        [Member::new("red-1", "a", ""), Member::new("blue-1", "a", ""), Member::new("green", "b", "")];
    let placement = place(&members);
    let used: BTreeSet<u16> = placement.sets().iter().flatten().copied().collect();
    assert_eq!(used.len(), 3, "both of zone a");
}

proptest! {
    /// Who leaves moves only what it had; who comes takes only what it gets.
    #[test]
    fn movement_is_bounded(zones in 1usize..5, each in 1usize..6, gone in 0usize..25) {
        let members = cluster(zones, each);
        let gone = gone % members.len();
        let mut fewer = members.clone();
        fewer.remove(gone);
        let (before, after) = (place(&members), place(&fewer));
        prop_assume!(!after.sets().is_empty());
        for shard in 0..SHARDS {
            let (had, has) = (keepers(&before, &members, shard), keepers(&after, &fewer, shard));
            if had.contains(&*members[gone].id) {
                let lost: Vec<&str> = had.difference(&has).copied().collect();
                prop_assert_eq!(lost, [&*members[gone].id]);
            } else {
                prop_assert_eq!(had, has);
            }
        }
    }

    /// The order in which members are listed does not matter.
    #[test]
    fn equal_views_agree(seed in any::<u64>()) {
        let members = cluster(3, 3);
        let mut shuffled = members.clone();
        shuffled.sort_by_key(|m| xxh3_64(format!("{seed}{}", m.id).as_bytes()));
        let (one, other) = (place(&members), place(&shuffled));
        for shard in 0..SHARDS {
            prop_assert_eq!(keepers(&one, &members, shard), keepers(&other, &shuffled, shard));
        }
    }
}
