//! Which chunks of a stream are merged: a pure function of what the index says of them.
//!
//! The index knows times in milliseconds. Chunks that share one may hold copies and are merged, and so are neighbours that are small
//! together. Merged chunks end between two milliseconds, and an index file that is *settled* says so of all that it names: of two of its
//! chunks one may end in the millisecond in which the other begins, and still they share no entry. So what was merged stays as it is,
//! and what comes late is merged with those alone that it touches.

use crate::index::ChunkMeta;
use crate::layout::DAY_MS;

/// A chunk of the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub meta: ChunkMeta,
    /// The settled files that name it, a bit each.
    pub settled: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Neighbours are joined as long as they have no more than this together, uncompressed.
    pub join_kb_max: u32,
    /// Chunks that are open at the same time have no more than this together, uncompressed; two may always be.
    pub open_kb_max: u64,
}

/// What is to be done for a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Positions of chunks that become one run of new ones. A single one reaches out of the day, and is cut.
    pub groups: Vec<Vec<usize>>,
    /// Some chunks had to be left for another round.
    pub is_partial: bool,
}

struct Group {
    chunks: Vec<usize>,
    kb: u64,
}

/// `chunks`: ascending, each once; of the table of `day`.
pub(super) fn plan(chunks: &[Named], day: i64, limits: Limits) -> Plan {
    let mut groups: Vec<Group> = Vec::new();
    for group in touching(chunks) {
        let kb = group.iter().map(|i| u64::from(chunks[*i].meta.kb)).sum();
        let next = Group { chunks: group, kb };
        match groups.last_mut() {
            Some(last)
                if last.kb + next.kb <= u64::from(limits.join_kb_max)
                    && !(last.chunks.len() == 1
                        && next.chunks.len() == 1
                        && chunks[last.chunks[0]].settled & chunks[next.chunks[0]].settled != 0) =>
            {
                last.chunks.extend(next.chunks);
                last.kb += next.kb;
            }
            _ => groups.push(next),
        }
    }
    let mut plan = Plan::default();
    for mut group in groups {
        group.chunks.sort_unstable();
        let chosen = bounded(chunks, &group.chunks, limits.open_kb_max);
        plan.is_partial |= chosen.len() < group.chunks.len();
        if chosen.len() > 1 || reaches_out(&chunks[chosen[0]], day) {
            plan.groups.push(chosen);
        }
    }
    plan
}

/// Groups of chunks that hang together, in the order of their first ones.
fn touching(chunks: &[Named]) -> Vec<Vec<usize>> {
    let mut root: Vec<usize> = (0..chunks.len()).collect();
    fn find(root: &mut [usize], mut i: usize) -> usize {
        while root[i] != i {
            root[i] = root[root[i]];
            i = root[i];
        }
        i
    }
    let mut open: Vec<usize> = Vec::new();
    for (i, chunk) in chunks.iter().enumerate() {
        open.retain(|o| chunks[*o].meta.through_ms >= chunk.meta.from_ms);
        for o in &open {
            if may_share(&chunks[*o], chunk) {
                let (a, b) = (find(&mut root, *o), find(&mut root, i));
                root[a.max(b)] = a.min(b);
            }
        }
        open.push(i);
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut at: Vec<Option<usize>> = vec![None; chunks.len()];
    for i in 0..chunks.len() {
        let first = find(&mut root, i);
        let group = *at[first].get_or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[group].push(i);
    }
    groups
}

/// Whether two chunks may hold the same entry; `a` begins first.
fn may_share(a: &Named, b: &Named) -> bool {
    b.meta.from_ms < a.meta.through_ms
        || b.meta.from_ms == a.meta.from_ms
        || (b.meta.from_ms == a.meta.through_ms && a.settled & b.settled == 0)
}

/// Whether it may hold entries of other days.
fn reaches_out(chunk: &Named, day: i64) -> bool {
    let start_ms = day.saturating_mul(DAY_MS);
    let end_ms = start_ms.saturating_add(DAY_MS);
    let through_ms = chunk.meta.through_ms;
    // Rounded up, the last one may end with the day.
    chunk.meta.from_ms < start_ms || through_ms > end_ms || (through_ms == end_ms && chunk.settled == 0)
}

/// As many of a group as may be open at the same time; the first always.
fn bounded(chunks: &[Named], group: &[usize], open_kb_max: u64) -> Vec<usize> {
    let mut open: Vec<usize> = Vec::new();
    let mut chosen = Vec::with_capacity(group.len());
    for &i in group {
        open.retain(|o| chunks[*o].meta.through_ms >= chunks[i].meta.from_ms);
        let kb: u64 = open.iter().chain([&i]).map(|o| u64::from(chunks[*o].meta.kb)).sum();
        if open.len() < 2 || kb <= open_kb_max {
            open.push(i);
            chosen.push(i);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 100;
    const START_MS: i64 = DAY * DAY_MS;
    const LIMITS: Limits = Limits { join_kb_max: 100, open_kb_max: 10_000 };

    /// (from, through, KB, settled files).
    fn check(chunks: &[(i64, i64, u32, u64)], limits: Limits, groups: &[&[usize]], is_partial: bool) {
        let named: Vec<Named> = chunks
            .iter()
            .map(|(from, through, kb, settled)| {
                let (from_ms, through_ms) = (START_MS + from, START_MS + through);
                let meta = ChunkMeta { from_ms, through_ms, checksum: 0, kb: *kb, entries: 1 };
                Named { meta, settled: *settled }
            })
            .collect();
        let groups = groups.iter().map(|g| g.to_vec()).collect();
        assert_eq!(plan(&named, DAY, limits), Plan { groups, is_partial }, "{chunks:?}");
    }

    #[test]
    fn what_touches_is_merged() {
        check(&[], LIMITS, &[], false);
        check(&[(0, 10, 90, 0), (20, 30, 90, 0)], LIMITS, &[], false);
        check(
            &[(0, 10, 90, 0), (5, 30, 90, 0), (30, 40, 90, 0), (50, 60, 90, 0)],
            LIMITS,
            &[&[0, 1, 2]],
            false,
        );
        // Through one that is large.
        check(&[(0, 100, 900, 0), (5, 6, 90, 0), (50, 60, 90, 0)], LIMITS, &[&[0, 1, 2]], false);
        // One instant.
        check(&[(5, 5, 90, 1), (5, 5, 90, 1)], LIMITS, &[&[0, 1]], false);
    }

    #[test]
    fn what_is_settled_stays() {
        check(&[(0, 10, 90, 1), (10, 20, 90, 1), (20, 30, 90, 1)], LIMITS, &[], false);
        // Of two files.
        check(&[(0, 10, 90, 1), (10, 20, 90, 2), (20, 30, 90, 3)], LIMITS, &[&[0, 1]], false);
        // What comes late takes with it what it touches.
        check(&[(0, 10, 90, 1), (10, 20, 90, 1), (15, 16, 9, 0), (20, 30, 90, 1)], LIMITS, &[&[1, 2]], false);
        check(&[(0, 10, 40, 1), (20, 30, 40, 1)], LIMITS, &[], false);
    }

    #[test]
    fn small_ones_are_joined() {
        check(
            &[(0, 10, 40, 0), (20, 30, 40, 0), (40, 50, 40, 0), (60, 70, 1, 0)],
            LIMITS,
            &[&[0, 1], &[2, 3]],
            false,
        );
        check(&[(0, 10, 40, 1), (20, 30, 40, 0)], LIMITS, &[&[0, 1]], false);
    }

    #[test]
    fn the_day_is_cut_out() {
        check(&[(-1, 10, 90, 1), (20, DAY_MS, 90, 1)], LIMITS, &[&[0]], false);
        check(&[(0, 10, 90, 0), (20, DAY_MS, 90, 0)], LIMITS, &[&[1]], false);
        check(&[(0, 10, 90, 0), (20, DAY_MS + 1, 90, 1)], LIMITS, &[&[1]], false);
    }

    #[test]
    fn memory_is_bounded() {
        let limits = Limits { open_kb_max: 1000, ..LIMITS };
        check(
            &[(0, 10, 400, 0), (1, 10, 400, 0), (2, 10, 400, 0), (3, 10, 100, 0)],
            limits,
            &[&[0, 1, 3]],
            true,
        );
        // Two always; one after the other any number.
        check(&[(0, 10, 4000, 0), (1, 10, 4000, 0)], limits, &[&[0, 1]], false);
        let chain: Vec<_> = (0..100).map(|i| (i * 10, i * 10 + 12, 400, 0)).collect();
        check(&chain, limits, &[&(0..100).collect::<Vec<_>>()], false);
    }
}
