//! How spans are related, by their nested sets: a span's `left..right` encloses those of its descendants and no others.
//!
//! Everything is a look-up in a sorted list, so that a trace of a million spans takes no million squared steps. Spans whose place
//! in the tree is not known (`nested_left` 0) are related to nothing.

use hashbrown::{HashMap, HashSet};

use crate::ast::Relation;
use crate::source::{Span, TraceSpans};

/// The `right` spans that are (`wanted`) or are not (`!wanted`) what `relation` says to some `left` span.
pub(super) fn related(
    trace: &TraceSpans,
    relation: Relation,
    left: &[u32],
    right: &[u32],
    wanted: bool,
) -> Vec<u32> {
    let span = |at: &u32| &trace.spans[*at as usize];
    let placed = || left.iter().map(span).filter(|s| s.nested_left > 0);
    let keep = |is: &dyn Fn(&Span) -> bool| -> Vec<u32> {
        right.iter().copied().filter(|at| (span(at).nested_left > 0 && is(span(at))) == wanted).collect()
    };
    match relation {
        Relation::Child => {
            let parents: HashSet<i32> = placed().map(|s| s.nested_left).collect();
            keep(&|s| s.nested_parent > 0 && parents.contains(&s.nested_parent))
        }
        Relation::Parent => {
            let parents: HashSet<i32> = placed().map(|s| s.nested_parent).filter(|p| *p > 0).collect();
            keep(&|s| parents.contains(&s.nested_left))
        }
        Relation::Descendant => {
            let mut sets: Vec<(i32, i32)> = placed().map(|s| (s.nested_left, s.nested_right)).collect();
            sets.sort_unstable();
            // What lies inside another one adds nothing.
            let mut outermost: Vec<(i32, i32)> = Vec::new();
            for set in sets {
                if outermost.last().is_none_or(|last| last.1 < set.0) {
                    outermost.push(set);
                }
            }
            keep(&|s| {
                let before = outermost.partition_point(|set| set.0 < s.nested_left);
                before > 0 && s.nested_right < outermost[before - 1].1
            })
        }
        Relation::Ancestor => {
            let mut lefts: Vec<i32> = placed().map(|s| s.nested_left).collect();
            lefts.sort_unstable();
            keep(&|s| {
                let after = lefts.partition_point(|l| *l <= s.nested_left);
                lefts.get(after).is_some_and(|l| *l < s.nested_right)
            })
        }
        Relation::Sibling => {
            let mut children: HashMap<i32, usize> = HashMap::new();
            let mut own: HashSet<i32> = HashSet::new();
            for s in placed().filter(|s| s.nested_parent > 0) {
                *children.entry(s.nested_parent).or_default() += 1;
                own.insert(s.nested_left);
            }
            keep(&|s| {
                let others = children.get(&s.nested_parent).copied().unwrap_or(0);
                others > usize::from(own.contains(&s.nested_left))
            })
        }
    }
}
