//! The other answers of the Store API, from several sources into one.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use triptych_model::Labels;
use triptych_model::metrics::{CardinalityStats, MetricMetadata, SeriesExemplars};

use crate::select::{cap, top};

/// Sorted, each once, at most `limit` (0: no limit): label names, label values.
pub fn merge_strings(lists: Vec<Vec<String>>, limit: usize) -> Vec<String> {
    merge_sorted(lists, limit)
}

/// Sorted, each once, at most `limit` (0: no limit).
pub fn merge_series(lists: Vec<Vec<Labels>>, limit: usize) -> Vec<Labels> {
    merge_sorted(lists, limit)
}

fn merge_sorted<T: Ord>(mut lists: Vec<Vec<T>>, limit: usize) -> Vec<T> {
    let mut all = match lists.len() {
        1 => lists.pop().unwrap_or_default(),
        _ => {
            let mut all: Vec<T> = lists.into_iter().flatten().collect();
            // The stable sort merges sorted runs.
            all.sort();
            all.dedup();
            all
        }
    };
    cap(&mut all, limit);
    all
}

/// By metric; the first source that knows one counts. At most `limit` (0: no limit).
pub fn merge_metadata(lists: Vec<Vec<MetricMetadata>>, limit: usize) -> Vec<MetricMetadata> {
    let mut by_metric: BTreeMap<String, MetricMetadata> = BTreeMap::new();
    for metadata in lists.into_iter().flatten() {
        by_metric.entry(metadata.metric.clone()).or_insert(metadata);
    }
    let mut all: Vec<MetricMetadata> = by_metric.into_values().collect();
    cap(&mut all, limit);
    all
}

/// By series; exemplars ascending by time, copies shown once.
pub fn merge_exemplars(lists: Vec<Vec<SeriesExemplars>>) -> Vec<SeriesExemplars> {
    let mut by_series: BTreeMap<Labels, SeriesExemplars> = BTreeMap::new();
    for mut series in lists.into_iter().flatten() {
        match by_series.get_mut(&series.series) {
            Some(known) => known.exemplars.append(&mut series.exemplars),
            None => {
                by_series.insert(series.series.clone(), series);
            }
        }
    }
    by_series
        .into_values()
        .map(|mut series| {
            series.exemplars.sort_by(|a, b| (a.t_ms, &a.labels).cmp(&(b.t_ms, &b.labels)));
            series.exemplars.dedup();
            series
        })
        .collect()
}

/// Sources hold copies of the same series (replicas, generations): of each figure the largest counts. At most `limit` names.
pub fn merge_cardinality(all: Vec<CardinalityStats>, limit: usize) -> CardinalityStats {
    join_cardinality(all, limit, u64::max)
}

/// Statistics of sources that divide the series between them, each series in `copies` of them.
pub fn add_cardinality(all: Vec<CardinalityStats>, copies: u64) -> CardinalityStats {
    let mut added = join_cardinality(all, 0, |a, b| a + b);
    added.series /= copies;
    added.chunks /= copies;
    added.samples /= copies;
    added.series_by_metric.iter_mut().for_each(|(_, series)| *series /= copies);
    added
}

/// `series` says how many series two sources have together, of all and of one metric.
fn join_cardinality(
    all: Vec<CardinalityStats>,
    limit: usize,
    series: fn(u64, u64) -> u64,
) -> CardinalityStats {
    let mut merged = CardinalityStats { start_ms: i64::MAX, end_ms: i64::MIN, ..CardinalityStats::default() };
    let mut metrics: HashMap<String, u64> = HashMap::new();
    let mut labels: HashMap<String, u64> = HashMap::new();
    for stats in all.into_iter().filter(|s| s.series > 0) {
        merged.series = series(merged.series, stats.series);
        merged.chunks += stats.chunks;
        merged.samples += stats.samples;
        merged.start_ms = merged.start_ms.min(stats.start_ms);
        merged.end_ms = merged.end_ms.max(stats.end_ms);
        for (metric, count) in stats.series_by_metric {
            let known = metrics.entry(metric).or_default();
            *known = series(*known, count);
        }
        for (label, count) in stats.values_by_label {
            let known = labels.entry(label).or_default();
            *known = count.max(*known);
        }
    }
    if merged.start_ms > merged.end_ms {
        (merged.start_ms, merged.end_ms) = (0, 0);
    }
    merged.series_by_metric = top(metrics.into_iter().collect(), limit);
    merged.values_by_label = top(labels.into_iter().collect(), limit);
    merged
}
