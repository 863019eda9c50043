//! Which blocks are merged: a pure function of what is there and the time.

use std::collections::{BTreeMap, BTreeSet};

use super::CompactConfig;
use crate::block::{BlockId, BlockMeta};

/// Groups of blocks to merge, each ascending by time; every block in one group at most.
///
/// For each range, the longest first: the blocks that lie in the same aligned window are merged where the window is over. So a
/// backlog is merged once, not once per range. What fits into no window (foreign blocks) is merged where it overlaps.
pub(super) fn plan(blocks: &[&BlockMeta], config: &CompactConfig, now_ms: i64) -> Vec<Vec<BlockId>> {
    let mut used: BTreeSet<BlockId> = BTreeSet::new();
    let mut groups = Vec::new();
    let mut ranges: Vec<i64> = config.ranges_ms.iter().copied().filter(|r| *r > 0).collect();
    ranges.sort_unstable();
    let is_over = |end_ms: i64| end_ms.saturating_add(config.grace_ms) <= now_ms;
    let shortest = ranges.first().copied();

    for &range in ranges.iter().rev() {
        let mut windows: BTreeMap<i64, Vec<&BlockMeta>> = BTreeMap::new();
        for block in blocks.iter().filter(|b| !used.contains(&b.ulid)) {
            let last_ms = block.end_ms.saturating_sub(1).max(block.start_ms);
            let window = block.start_ms.div_euclid(range);
            if window == last_ms.div_euclid(range) {
                windows.entry(window).or_default().push(block);
            }
        }
        for (window, mut found) in windows {
            let end_ms = window.saturating_add(1).saturating_mul(range);
            if found.len() < 2 || !is_over(end_ms) {
                continue;
            }
            found.sort_by_key(|b| (b.start_ms, b.ulid));
            if found.len() > config.merge_blocks_max {
                // Too many at once: shorter windows first, or a part.
                if Some(range) != shortest {
                    continue;
                }
                found.truncate(config.merge_blocks_max.max(2));
            }
            used.extend(found.iter().map(|b| b.ulid));
            groups.push(found.iter().map(|b| b.ulid).collect());
        }
    }

    let longest = ranges.last().copied().unwrap_or(i64::MAX);
    let mut rest: Vec<&&BlockMeta> =
        blocks.iter().filter(|b| !used.contains(&b.ulid) && is_over(b.end_ms)).collect();
    rest.sort_by_key(|b| (b.start_ms, b.ulid));
    let mut run: Vec<&BlockMeta> = Vec::new();
    let mut run_end_ms = i64::MIN;
    let crosses = |b: &BlockMeta| {
        b.start_ms.div_euclid(longest) != b.end_ms.saturating_sub(1).max(b.start_ms).div_euclid(longest)
    };
    let mut close = |run: &mut Vec<&BlockMeta>| {
        if run.len() > 1 && run.iter().any(|b| crosses(b)) {
            groups.push(run.iter().take(config.merge_blocks_max.max(2)).map(|b| b.ulid).collect());
        }
        run.clear();
    };
    for block in rest {
        if block.start_ms >= run_end_ms {
            close(&mut run);
        }
        run_end_ms = if run.is_empty() { block.end_ms } else { run_end_ms.max(block.end_ms) };
        run.push(block);
    }
    close(&mut run);
    groups
}
