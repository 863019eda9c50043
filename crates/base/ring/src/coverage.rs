//! Which failures a read survives.
//!
//! An acknowledged write is in a quorum of zones. A read in which fewer zones than that are incomplete has seen at least one whole
//! copy of everything. A zone is incomplete as soon as one of its members that may hold data did not answer; a zone that should
//! be there and of which no member is known counts as incomplete, too.

use std::sync::Arc;

use crate::{Member, Replication};

/// Counts what is missing from one read.
#[derive(Debug, Clone)]
pub struct Coverage {
    quorum: usize,
    /// Zones that should be there and are not known.
    unknown: usize,
    incomplete: Vec<Arc<str>>,
}

impl Coverage {
    /// A read of all `members`, of which none has failed yet. Those that are known to be dead have to be [lost](Self::lose) like
    /// those that turn out to be.
    pub fn new<'a>(replication: Replication, members: impl IntoIterator<Item = &'a Member>) -> Self {
        let mut zones: Vec<&str> = members.into_iter().filter(|m| m.is_there()).map(|m| &*m.zone).collect();
        zones.sort_unstable();
        zones.dedup();
        Self {
            quorum: replication.quorum(),
            unknown: replication.factor.saturating_sub(zones.len()),
            incomplete: Vec::new(),
        }
    }

    /// A member of `zone` did not answer, or not whole. Returns whether the read still is complete.
    pub fn lose(&mut self, zone: &Arc<str>) -> bool {
        if !self.incomplete.contains(zone) {
            self.incomplete.push(zone.clone());
        }
        self.is_complete()
    }

    pub fn is_complete(&self) -> bool {
        self.unknown + self.incomplete.len() < self.quorum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(zones: &[&str]) -> Vec<Member> {
        zones.iter().enumerate().map(|(i, zone)| Member::new(&format!("i-{i}"), zone, "")).collect()
    }

    #[test]
    fn one_zone_of_three_may_be_incomplete() {
        let members = members(&["a", "a", "b", "b", "c"]);
        let mut coverage = Coverage::new(Replication::new(3), &members);
        assert!(coverage.is_complete());
        assert!(coverage.lose(&"a".into()));
        assert!(coverage.lose(&"a".into()), "a second one of the same zone");
        assert!(!coverage.lose(&"b".into()));
    }

    #[test]
    fn a_zone_that_nobody_knows_is_incomplete() {
        let mut coverage = Coverage::new(Replication::new(3), &members(&["a", "b"]));
        assert!(coverage.is_complete());
        assert!(!coverage.lose(&"a".into()));
        assert!(!Coverage::new(Replication::new(3), &members(&["a"])).is_complete());
    }

    #[test]
    fn without_replicas_nothing_may_be_missing() {
        let mut coverage = Coverage::new(Replication::new(1), &members(&["a", "b"]));
        assert!(coverage.is_complete());
        assert!(!coverage.lose(&"b".into()));
        assert!(!Coverage::new(Replication::new(1), &[]).is_complete());
    }

    #[test]
    fn who_is_gone_is_not_missed() {
        let mut members = members(&["a", "b", "c"]);
        members[2].state = crate::MemberState::Gone;
        assert!(!Coverage::new(Replication::new(3), &members).lose(&"a".into()));
    }
}
