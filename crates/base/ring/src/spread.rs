//! Over how many members what one tenant has is spread: for limits that hold for all of them together.

use tokio::sync::watch;

use crate::{Member, Replication};

/// How the members that take writes divide the data, as one of them sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    replication: Replication,
    zones: usize,
    /// In the zone of whoever looks, itself included. 0: none is known yet.
    of_zone: usize,
}

impl Spread {
    /// One member that has everything.
    pub const ALONE: Self = Self { replication: Replication { factor: 1 }, zones: 1, of_zone: 1 };

    /// One that never changes.
    pub fn fixed(self) -> watch::Receiver<Self> {
        watch::Sender::new(self).subscribe()
    }

    /// For a member of `zone`.
    pub fn new<'a>(
        replication: Replication,
        zone: &str,
        members: impl IntoIterator<Item = &'a Member>,
    ) -> Self {
        let zones = members.into_iter().filter(|member| member.takes_writes()).map(|member| &*member.zone);
        let mut zones: Vec<&str> = zones.collect();
        let of_zone = zones.iter().filter(|one| **one == zone).count();
        zones.sort_unstable();
        zones.dedup();
        Self { replication, zones: zones.len(), of_zone }
    }

    /// What one member may have of `limit` (rounded up) of a tenant whose data are in at most `size` members (0: all), as
    /// [`Placement::for_tenant`](crate::Placement::for_tenant) places them. No limit, 0, stays none.
    pub fn part_of(self, limit: u64, size: usize) -> u64 {
        let Self { replication, zones, of_zone } = self;
        // What nobody knows is not divided.
        let (zones, mut members) = (zones.max(1), of_zone.max(1));
        let mut used = zones;
        if size != 0 {
            used = zones.min(size.max(replication.factor));
            members = members.min(size.div_ceil(used));
        }
        // A zone has each item once, or, where there are more zones than copies, its part of them.
        let copies = replication.factor.min(used) as u128;
        let part = (u128::from(limit) * copies).div_ceil((used * members) as u128);
        u64::try_from(part).unwrap_or(limit).min(limit)
    }

    /// The one of two views in which a member may have more: what is there moves only when it is flushed.
    pub fn or_narrower(self, other: Self) -> Self {
        let is_narrower = other.of_zone != 0 && other.part_of(1 << 32, 0) > self.part_of(1 << 32, 0);
        if self.of_zone == 0 || is_narrower { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemberState;

    fn spread(factor: usize, own: &str, zones: &[&str]) -> Spread {
        let members: Vec<Member> =
            zones.iter().enumerate().map(|(i, zone)| Member::new(&format!("i-{i}"), zone, "")).collect();
        Spread::new(Replication::new(factor), own, &members)
    }

    #[test]
    fn a_zone_divides_what_it_keeps() {
        assert_eq!(Spread::ALONE.part_of(1000, 0), 1000);
        assert_eq!(spread(3, "a", &["a", "b", "c"]).part_of(1000, 0), 1000);
        let uneven = ["a", "a", "a", "b", "c", "c"];
        let parts = ["a", "b", "c"].map(|zone| spread(3, zone, &uneven).part_of(1000, 0));
        assert_eq!(parts, [334, 1000, 500]);
        // Two copies in four zones: each has half of everything.
        assert_eq!(spread(2, "a", &["a", "a", "b", "b", "c", "c", "d", "d"]).part_of(1000, 0), 250);
        assert_eq!(spread(3, "a", &uneven).part_of(0, 0), 0, "no limit");
        assert_eq!(spread(3, "a", &uneven).part_of(u64::MAX, 0), u64::MAX.div_ceil(3));
    }

    #[test]
    fn a_small_tenant_has_few_members() {
        let nine = ["a", "a", "a", "b", "b", "b", "c", "c", "c"];
        let part = |size| spread(3, "a", &nine).part_of(900, size);
        assert_eq!([0, 1, 3, 4, 6, 9, 100].map(part), [300, 900, 900, 450, 450, 300, 300]);
        // Its zones are fewer than there are.
        let singles = spread(2, "a", &["a", "b", "c", "d"]);
        assert_eq!([0, 2, 3].map(|size| singles.part_of(900, size)), [450, 900, 600]);
    }

    #[test]
    fn only_who_takes_writes_counts() {
        let mut members: Vec<Member> = ["a", "a"].map(|zone| Member::new("i", zone, "")).into();
        members[1].state = MemberState::Joining;
        let before = Spread::new(Replication::new(1), "a", &members);
        members[1].state = MemberState::Active;
        let after = Spread::new(Replication::new(1), "a", &members);
        assert_eq!((before.part_of(10, 0), after.part_of(10, 0)), (10, 5));
        assert_eq!(after.or_narrower(before), before);
        assert_eq!(before.or_narrower(after), before);
        // Before anybody is known nothing is divided, and that does not last.
        let nobody = Spread::new(Replication::new(1), "a", &[]);
        assert_eq!(nobody.part_of(10, 0), 10);
        assert_eq!((nobody.or_narrower(after), after.or_narrower(nobody)), (after, after));
    }
}
