//! One question, several who could answer it: each answers for its share.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Who else is asked the same question, and which of them is *me*. Whatever is stored where all of them can read it is answered by
/// one of them: the one that ranks first for its key (rendezvous hashing over exactly this list). So an answer is whole for any list,
/// as long as everyone asked got the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    members: Arc<[Arc<str>]>,
    mine: usize,
}

impl Share {
    /// `None` where `mine` is no position in `members`.
    pub fn new(members: Arc<[Arc<str>]>, mine: usize) -> Option<Self> {
        (mine < members.len()).then_some(Self { members, mine })
    }

    /// Names of all who are asked.
    pub fn members(&self) -> &Arc<[Arc<str>]> {
        &self.members
    }

    /// My position in [`Share::members`].
    pub fn mine(&self) -> usize {
        self.mine
    }

    /// Whether I am to answer for what is stored under `key`: an object's name, without what differs between those who are asked.
    pub fn owns(&self, key: &[u8]) -> bool {
        let rank = |member: &Arc<str>| xxh3_64_with_seed(key, xxh3_64_with_seed(member.as_bytes(), 0));
        let mine = (rank(&self.members[self.mine]), &self.members[self.mine]);
        self.members.iter().all(|member| (rank(member), member) <= mine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Arc<[Arc<str>]> {
        (0..n).map(|i| format!("store-gateway-{i}").into()).collect()
    }

    #[test]
    fn everything_is_owned_once_and_evenly() {
        let members = names(4);
        let mut owned = [0usize; 4];
        for key in 0..1000 {
            let owners: Vec<usize> = (0..4)
                .filter(|i| Share::new(members.clone(), *i).unwrap().owns(format!("block-{key}").as_bytes()))
                .collect();
            assert_eq!(owners.len(), 1, "{key}: {owners:?}");
            owned[owners[0]] += 1;
        }
        assert!(owned.iter().all(|n| (200..300).contains(n)), "{owned:?}");
    }

    #[test]
    fn who_goes_leaves_only_its_own() {
        let (four, three) = (names(4), names(3));
        for key in 0..200 {
            let key = format!("block-{key}");
            let owner = |members: &Arc<[Arc<str>]>| {
                (0..members.len()).find(|i| Share::new(members.clone(), *i).unwrap().owns(key.as_bytes()))
            };
            let before = owner(&four);
            assert!(before == Some(3) || before == owner(&three), "{key}");
        }
        assert!(Share::new(three, 3).is_none());
    }
}
