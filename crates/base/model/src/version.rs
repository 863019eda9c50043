//! Whether data may have changed since they were read, without reading them again: what a cache of answers asks, as HTTP asks for an
//! `ETag`.
//!
//! What a source holds of a tenant in a range of time is a set of *parts*: blocks, which never change, and heads, which grow. A
//! [`Version`] is the sum of the parts' hashes, so the versions of several sources add up to the version of all, however blocks are
//! divided among them. Equal versions mean equal parts; other parts may hold the same data (a flush, a compaction), which costs a cache
//! a miss and nothing else.
//!
//! **The one rule**: a version must have been asked for *before* the data are read. A head counts a change after it can be seen
//! ([`Changes::count`]), so an answer that lacks the change has an older version.

use std::iter::Sum;
use std::sync::atomic::{AtomicU32, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, Result};

/// What was there when it was asked for. The default: nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Version(u64);

impl Version {
    /// Of a part that never changes, by a name that no other part has.
    pub fn of_part(name: &[u8]) -> Self {
        Self(xxh3_64(name))
    }

    /// As it travels.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// See [`Version::from_bits`].
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The versions of `ranges` ranges, of what all sources hold. Fails where a source answered for other ranges.
    pub fn of_all(sources: Vec<Vec<Version>>, ranges: usize) -> Result<Vec<Version>> {
        let mut all = vec![Version::default(); ranges];
        for source in sources {
            if source.len() != ranges {
                return Err(Error::damaged(format!("{} versions for {ranges} ranges", source.len())));
            }
            all.iter_mut().zip(source).for_each(|(sum, one)| *sum = [*sum, one].into_iter().sum());
        }
        Ok(all)
    }
}

impl Sum for Version {
    fn sum<I: Iterator<Item = Self>>(versions: I) -> Self {
        Self(versions.fold(0, |sum, version| sum.wrapping_add(version.0)))
    }
}

const SLOTS: i64 = 64;

/// Slots of time, as a set; see [`Changes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slots(u64);

impl std::ops::BitOrAssign for Slots {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How often a head has changed, by the time of what changed: `SLOT` units of time to a counter, and 64 counters that are used in turns,
/// so that what arrives now makes no version of an hour ago another one. 256 bytes; a batch costs one addition for each slot that it
/// touches.
#[derive(Debug)]
pub struct Changes<const SLOT: i64> {
    /// No other head has it.
    id: u64,
    counts: [AtomicU32; SLOTS as usize],
}

impl<const SLOT: i64> Changes<SLOT> {
    /// `id`: random, so that a head built anew from the same batches has versions of its own.
    pub fn new(id: u64) -> Self {
        Self { id, counts: [const { AtomicU32::new(0) }; SLOTS as usize] }
    }

    /// The slot of an instant.
    #[inline]
    pub fn slot(at: i64) -> Slots {
        Slots(1 << at.div_euclid(SLOT).rem_euclid(SLOTS))
    }

    /// The slots that a range touches, both ends inclusive.
    pub fn slots(start: i64, end: i64) -> Slots {
        let (first, last) = (start.div_euclid(SLOT), end.div_euclid(SLOT));
        match i128::from(last) - i128::from(first) {
            _ if end < start => Slots(0),
            more @ 0..63 => Slots(((1 << (more + 1)) - 1_u64).rotate_left(first.rem_euclid(SLOTS) as u32)),
            _ => Slots(u64::MAX),
        }
    }

    /// Something in these slots has changed. To be said when it can be seen, bounds of the head included, and before it is acknowledged.
    pub fn count(&self, slots: Slots) {
        let mut left = slots.0;
        while left != 0 {
            self.counts[left.trailing_zeros() as usize].fetch_add(1, Ordering::Release);
            left &= left - 1;
        }
    }

    /// Of what is in the range, both ends inclusive. To be asked for only where the range and the head's bounds overlap: far from
    /// them other times have the same slots.
    pub fn version(&self, start: i64, end: i64) -> Version {
        let slots = Self::slots(start, end).0;
        let counted = (0..SLOTS as usize).filter(|slot| slots >> slot & 1 == 1).map(|slot| {
            let count = self.counts[slot].load(Ordering::Acquire);
            if count == 0 {
                return Version::default();
            }
            let mut name = [0; 16];
            name[..8].copy_from_slice(&self.id.to_le_bytes());
            name[8..12].copy_from_slice(&(slot as u32).to_le_bytes());
            name[12..].copy_from_slice(&count.to_le_bytes());
            Version::of_part(&name)
        });
        counted.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Tens = Changes<10>;

    #[test]
    fn a_range_has_the_slots_of_its_instants() {
        for (start, end) in [(0, 0), (-5, 5), (9, 10), (-1, 630), (600, 1239), (1_234_567, 1_234_600), (5, 4)]
        {
            let mut each = Slots::default();
            (start..=end).for_each(|at| each |= Tens::slot(at));
            assert_eq!(Tens::slots(start, end), each, "{start}..={end}");
        }
        assert_eq!(Tens::slots(i64::MIN, i64::MAX), Slots(u64::MAX));
    }

    #[test]
    fn a_version_changes_with_what_is_in_its_range() {
        let head = Tens::new(7);
        assert_eq!(head.version(0, 1000), Version::default(), "nothing is there");
        head.count(Tens::slots(10, 29));
        let before = [head.version(0, 9), head.version(10, 19), head.version(25, 60), head.version(30, 60)];
        assert_eq!([before[0], before[3]], [Version::default(); 2]);
        head.count(Tens::slot(20));
        let after = [head.version(0, 9), head.version(10, 19), head.version(25, 60), head.version(30, 60)];
        assert_eq!((before[1], before[0], before[3]), (after[1], after[0], after[3]));
        assert_ne!(before[2], after[2]);
        let same = Tens::new(8);
        same.count(Tens::slots(10, 29));
        assert_ne!(same.version(10, 19), head.version(10, 19), "another head");
    }

    #[test]
    fn versions_of_sources_add_up_whoever_has_what() {
        let parts: Vec<Version> = [&b"a"[..], b"b", b"c"].map(Version::of_part).to_vec();
        let sum = |parts: &[Version]| parts.iter().copied().sum::<Version>();
        let one = Version::of_all(vec![vec![sum(&parts)], vec![Version::default()]], 1).unwrap();
        let two = Version::of_all(vec![vec![sum(&parts[1..])], vec![parts[0]]], 1).unwrap();
        assert_eq!(one, two);
        assert_ne!(one, Version::of_all(vec![vec![parts[0]]], 1).unwrap());
        assert!(Version::of_all(vec![vec![parts[0]], vec![]], 1).is_err());
        assert_eq!(Version::from_bits(one[0].to_bits()), one[0]);
    }
}
