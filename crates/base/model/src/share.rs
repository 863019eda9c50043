//! One question, asked of several who may divide the answer between them.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

/// Who else is asked the same question, and which of them is *me*.
///
/// Whoever answers can tell whether those who ask know everybody (ingesters), and which part of what all of them know is *mine* to
/// answer for (store-gateways): each key has an order of the members, by rendezvous hashing, and belongs to the first. Nothing else is
/// needed for everything to be answered by exactly one of them: not the same view of the ring, nor any agreement. A member that comes
/// or goes moves only the keys that it wins or had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    members: Arc<[Arc<str>]>,
    mine: usize,
    failed: Arc<[usize]>,
}

impl Share {
    /// `None` where `mine` is no position in `members`.
    pub fn new(members: Arc<[Arc<str>]>, mine: usize) -> Option<Self> {
        Self::instead_of(members, mine, Arc::default())
    }

    /// The question asked once more, for the part of the members at the positions `failed` alone: it is divided between the others.
    /// `None` where one of them is no position in `members`, or where *I* am among them.
    pub fn instead_of(members: Arc<[Arc<str>]>, mine: usize, failed: Arc<[usize]>) -> Option<Self> {
        let is_valid = mine < members.len() && failed.iter().all(|at| *at < members.len() && *at != mine);
        is_valid.then_some(Self { members, mine, failed })
    }

    /// Names of all who are asked, or were when the question was asked first.
    pub fn members(&self) -> &Arc<[Arc<str>]> {
        &self.members
    }

    /// My position in [`Share::members`].
    pub fn mine(&self) -> usize {
        self.mine
    }

    /// Positions of those whose part alone is asked for; empty: the part of everybody.
    pub fn failed(&self) -> &Arc<[usize]> {
        &self.failed
    }

    /// Whether it is *me* who answers for this key: the first in the key's order; where a part is asked for that others failed to answer
    /// for, the first behind these.
    pub fn owns(&self, key: &[u8]) -> bool {
        let mut is_first = true;
        self.before(xxh3_64(key)).all(|at| {
            is_first = false;
            self.failed.contains(&at)
        }) && is_first == self.failed.is_empty()
    }

    /// My place in the key's order: 0 is who owns it, 1 who stands in for it.
    pub fn place(&self, key: &[u8]) -> usize {
        self.before(xxh3_64(key)).count()
    }

    /// Who comes before me in the order of a key.
    fn before(&self, key: u64) -> impl Iterator<Item = usize> {
        let score = move |at: usize| (rendezvous(xxh3_64(self.members[at].as_bytes()), key), at);
        let mine = score(self.mine);
        (0..self.members.len()).filter(move |at| score(*at) > mine)
    }
}

/// What a member scores for a key, the highest wins: a finalizer over both, so that every bit of each moves every bit of the result.
#[inline]
pub fn rendezvous(member: u64, key: u64) -> u64 {
    let mut x = member ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(names: &[&str]) -> Arc<[Arc<str>]> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn keys() -> impl Iterator<Item = [u8; 8]> {
        (0..3000_u64).map(u64::to_be_bytes)
    }

    /// The position of whoever owns a key; there is exactly one.
    fn owner(members: &Arc<[Arc<str>]>, failed: &[usize], key: &[u8]) -> Option<usize> {
        let shares = (0..members.len()).filter_map(|at| {
            Share::instead_of(members.clone(), at, failed.into()).filter(|share| share.owns(key))
        });
        let owners: Vec<usize> = shares.map(|share| share.mine()).collect();
        assert!(owners.len() < 2, "{owners:?}");
        owners.first().copied()
    }

    #[test]
    fn every_key_has_one_owner_and_members_have_as_much_as_each_other() {
        let four = members(&["s-0", "s-1", "s-2", "s-3"]);
        let mut owned = [0; 4];
        keys().for_each(|key| owned[owner(&four, &[], &key).unwrap()] += 1);
        assert!(owned.iter().all(|owned| (600..900).contains(owned)), "{owned:?}");
    }

    #[test]
    fn who_fails_leaves_his_part_to_the_others_and_nothing_else_is_asked_for() {
        let four = members(&["s-0", "s-1", "s-2", "s-3"]);
        let left = members(&["s-0", "s-3"]);
        for key in keys() {
            let before = owner(&four, &[], &key).unwrap();
            let again = owner(&four, &[1, 2], &key);
            if [1, 2].contains(&before) {
                let stands_in = owner(&left, &[], &key).map(|at| [0, 3][at]);
                assert_eq!(again, stands_in, "as if they had never been asked");
            } else {
                assert_eq!(again, None);
            }
        }
        assert!(Share::instead_of(four.clone(), 1, [1].into()).is_none());
        assert!(Share::instead_of(four.clone(), 1, [4].into()).is_none());
        assert!(Share::new(four, 4).is_none());
    }

    #[test]
    fn who_comes_takes_what_is_his_and_moves_nothing_else() {
        let three = members(&["s-0", "s-1", "s-2"]);
        let four = members(&["s-0", "s-1", "s-2", "s-3"]);
        for key in keys() {
            let (before, after) = (owner(&three, &[], &key), owner(&four, &[], &key));
            assert!(after == before || after == Some(3));
            let places: Vec<usize> =
                (0..4).map(|at| Share::new(four.clone(), at).unwrap().place(&key)).collect();
            assert_eq!(places.iter().position(|place| *place == 0), after);
            assert_eq!(places.iter().sum::<usize>(), 6, "an order: {places:?}");
        }
    }
}
