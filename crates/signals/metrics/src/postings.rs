//! Set logic on ascending lists of series ids.

/// Ascending union. A series has one value per name, so nothing occurs twice.
pub(crate) fn union(lists: &[&[u32]]) -> Vec<u32> {
    let mut all = lists.concat();
    if lists.len() > 1 {
        // The stable sort finds the runs and merges them.
        all.sort();
    }
    all
}

/// Keeps those that are (`present`) or are not in `other`; both ascend. Gallops through the longer list.
pub(crate) fn retain(ids: &mut Vec<u32>, mut other: &[u32], present: bool) {
    ids.retain(|id| {
        let mut step = 1;
        while step < other.len() && other[step] < *id {
            step *= 2;
        }
        let window = &other[..other.len().min(step + 1)];
        let at = window.partition_point(|o| o < id);
        other = &other[at..];
        (other.first() == Some(id)) == present
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn retain_is_set_logic(a in proptest::collection::btree_set(0u32..500, 0..100), b in proptest::collection::btree_set(0u32..500, 0..300)) {
            let other: Vec<u32> = b.iter().copied().collect();
            let mut both: Vec<u32> = a.iter().copied().collect();
            retain(&mut both, &other, true);
            prop_assert_eq!(both.into_iter().collect::<BTreeSet<_>>(), a.intersection(&b).copied().collect::<BTreeSet<_>>());
            let mut only: Vec<u32> = a.iter().copied().collect();
            retain(&mut only, &other, false);
            prop_assert_eq!(only.into_iter().collect::<BTreeSet<_>>(), a.difference(&b).copied().collect::<BTreeSet<_>>());
        }
    }
}
