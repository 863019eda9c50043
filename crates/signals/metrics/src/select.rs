//! Small rules that all reads share.

use triptych_model::Labels;
use triptych_model::metrics::LabelsSelect;

/// The asked range; 0 to 0 (the default) is unbounded.
pub(crate) fn range(select: &LabelsSelect) -> (i64, i64) {
    if select.start_ms == 0 && select.end_ms == 0 {
        (i64::MIN, i64::MAX)
    } else {
        (select.start_ms, select.end_ms)
    }
}

/// Whether any of the matcher sets accepts the labels; no set at all accepts everything.
pub(crate) fn matches(select: &LabelsSelect, labels: &Labels) -> bool {
    select.matcher_sets.is_empty()
        || select.matcher_sets.iter().any(|set| set.iter().all(|m| m.matches_labels(labels)))
}

/// At most `limit`; 0: no limit.
pub(crate) fn cap<T>(list: &mut Vec<T>, limit: usize) {
    if limit != 0 {
        list.truncate(limit);
    }
}

/// Largest counts first, names break ties; at most `limit`.
pub(crate) fn top(mut counts: Vec<(String, u64)>, limit: usize) -> Vec<(String, u64)> {
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    cap(&mut counts, limit);
    counts
}
