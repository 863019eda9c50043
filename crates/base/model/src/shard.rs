//! A part of all series or streams, for evaluating one question in several places at once.

use crate::{Error, Labels, Result};

/// The series whose labels' hash is `index` modulo `count`. All shards of a count together are everything, and share nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// Fails unless `index < count`.
    pub fn new(index: u32, count: u32) -> Result<Self> {
        if index >= count {
            return Err(Error::invalid(format!("shard {index} of {count}: there is none")));
        }
        Ok(Self { index, count })
    }

    /// Every shard of `count`.
    pub fn all(count: u32) -> impl Iterator<Item = Shard> + Clone {
        (0..count).map(move |index| Shard { index, count })
    }

    pub fn index(self) -> u32 {
        self.index
    }

    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether a series or stream with these labels belongs to it.
    pub fn has(self, labels: &Labels) -> bool {
        self.has_hash(labels.hash64())
    }

    /// As [`Shard::has`], for who knows [`Labels::hash64`] already.
    pub fn has_hash(self, hash: u64) -> bool {
        hash % u64::from(self.count) == u64::from(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_everything_and_share_nothing() {
        for i in 0..100 {
            let labels = Labels::from_pairs([("i", i.to_string())]);
            assert_eq!(Shard::all(3).filter(|shard| shard.has(&labels)).count(), 1);
        }
        assert!(Shard::new(3, 3).is_err() && Shard::new(0, 0).is_err());
    }
}
