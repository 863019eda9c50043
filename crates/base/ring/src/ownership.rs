//! Who does what has to be done once.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::{Member, MemberState, Members};
use triptych_model::share::rendezvous;

/// Which work is this process': each key belongs to one of the living, active members of its role, by rendezvous hashing.
///
/// Views differ for a while when members come and go, and for as long as a partition lasts: two may own a key at the same time, and for a
/// moment nobody. What is done must therefore do no harm when it is done twice.
#[derive(Debug, Clone)]
pub struct Ownership {
    /// `None`: there is nobody else.
    members: Option<Members>,
    myself: Arc<str>,
}

impl Ownership {
    /// Everything belongs to this process.
    pub fn alone() -> Self {
        Self { members: None, myself: "".into() }
    }

    /// `members`: those of the role. `myself`: the id of this process among them.
    pub fn among(members: Members, myself: &str) -> Self {
        Self { members: Some(members), myself: myself.into() }
    }

    /// Whether the key is this process' as it sees the others now.
    pub fn owns(&self, key: &str) -> bool {
        let Some(members) = &self.members else { return true };
        owner(&members.borrow(), key).is_some_and(|member| member.id == self.myself)
    }
}

fn owner<'a>(members: &'a [Arc<Member>], key: &str) -> Option<&'a Arc<Member>> {
    let key = xxh3_64(key.as_bytes());
    let working = members.iter().filter(|member| member.is_alive && member.state == MemberState::Active);
    working.max_by_key(|member| (rendezvous(xxh3_64(member.id.as_bytes()), key), &member.id))
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    fn members(n: usize) -> Vec<Arc<Member>> {
        (0..n).map(|i| Arc::new(Member::new(&format!("compactor-{i}"), "", ""))).collect()
    }

    #[test]
    fn every_key_has_one_owner_and_few_move() {
        let keys: Vec<String> = (0..3000).map(|i| format!("logs/tenant-{i}")).collect();
        let (four, three) = (members(4), members(3));
        let mut owned = [0; 4];
        for key in &keys {
            let by = four.iter().position(|m| m.id == owner(&four, key).unwrap().id).unwrap();
            owned[by] += 1;
            // Only what the fourth had goes to others.
            if by < 3 {
                assert_eq!(owner(&three, key).unwrap().id, four[by].id);
            }
        }
        assert!(owned.iter().all(|n| (600..900).contains(n)), "{owned:?}");
    }

    #[test]
    fn who_is_dead_or_not_active_owns_nothing() {
        let (sender, heard) = watch::channel(Arc::from(members(2)));
        let ours: Vec<Ownership> =
            (0..2).map(|i| Ownership::among(heard.clone(), &format!("compactor-{i}"))).collect();
        let owns = |key: &str| [ours[0].owns(key), ours[1].owns(key)];
        let key = (0..).map(|i| format!("traces/{i}")).find(|key| owns(key)[1]).unwrap();
        assert_eq!(owns(&key), [false, true]);
        for change in [
            |m: &mut Member| m.is_alive = false,
            |m: &mut Member| m.state = MemberState::Leaving,
            |m: &mut Member| m.state = MemberState::Joining,
        ] {
            let mut changed = members(2);
            change(Arc::make_mut(&mut changed[1]));
            sender.send_replace(changed.into());
            assert_eq!(owns(&key), [true, false]);
        }
        sender.send_replace(Arc::from([]));
        assert_eq!(owns(&key), [false, false]);
        assert!(Ownership::alone().owns(&key));
    }
}
