//! The head's label index: name -> value -> ids, ascending. Names and values are interned here; a series keeps its encoded
//! label set only.
//!
//! The lock of the index is taken by writers for new series alone, and by readers never while a regex runs.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::RwLock;
use triptych_model::{Labels, Matcher};

use crate::postings::{retain, union};

/// Where a series is: shard in the lowest bits, position in the shard above.
pub(crate) type Location = u32;

/// A series' id in this head: the order of creation.
pub(crate) type SeriesId = u32;

type Values = HashMap<Arc<str>, Vec<SeriesId>>;

#[derive(Debug, Default)]
pub(crate) struct Index {
    names: HashMap<Arc<str>, Values>,
    locations: Vec<Location>,
    /// Memory of strings and id lists, without the tables' own.
    inner_bytes: usize,
}

/// Two counters, padding of the allocator.
const ARC_STR_OVERHEAD_BYTES: usize = 24;

impl Index {
    pub fn insert(&mut self, labels: &Labels, location: Location) {
        let id = self.locations.len() as SeriesId;
        self.locations.push(location);
        for (name, value) in labels {
            let values = match self.names.get_mut(name) {
                Some(values) => values,
                None => {
                    self.inner_bytes += name.len() + ARC_STR_OVERHEAD_BYTES;
                    self.names.entry(Arc::from(name)).or_default()
                }
            };
            match values.get_mut(value) {
                Some(ids) => {
                    let before = ids.capacity();
                    ids.push(id);
                    self.inner_bytes += (ids.capacity() - before) * size_of::<SeriesId>();
                }
                None => {
                    // Most values that are new stay rare: a list of one costs four bytes.
                    let ids = vec![id];
                    self.inner_bytes += value.len() + ARC_STR_OVERHEAD_BYTES + 16;
                    values.insert(Arc::from(value), ids);
                }
            }
        }
    }

    pub fn bytes(&self) -> usize {
        let slot = size_of::<Arc<str>>() + size_of::<Vec<SeriesId>>() + 1;
        self.inner_bytes
            + self.locations.capacity() * size_of::<Location>()
            + self.names.values().map(|v| v.capacity() * 8 / 7 * slot).sum::<usize>()
            + self.names.capacity() * (size_of::<Values>() + 17)
    }

    pub fn location(&self, id: SeriesId) -> Option<Location> {
        self.locations.get(id as usize).copied()
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.keys().map(|n| n.to_string()).collect();
        names.sort_unstable();
        names
    }

    pub fn values(&self, name: &str) -> Vec<Arc<str>> {
        self.names.get(name).map(|v| v.keys().cloned().collect()).unwrap_or_default()
    }

    /// (value, series), for one name.
    pub fn series_by_value(&self, name: &str) -> Vec<(String, u64)> {
        let count = |(v, ids): (&Arc<str>, &Vec<SeriesId>)| (v.to_string(), ids.len() as u64);
        self.names.get(name).map(|v| v.iter().map(count).collect()).unwrap_or_default()
    }

    /// (name, distinct values).
    pub fn values_by_name(&self) -> Vec<(String, u64)> {
        self.names.iter().map(|(n, v)| (n.to_string(), v.len() as u64)).collect()
    }
}

/// What one matcher asks of the index: the union of these values' ids, to keep or to take away.
struct Step {
    name: String,
    values: Vec<Arc<str>>,
    keep: bool,
}

/// The ids of the series that match all of the matchers, ascending.
pub(crate) fn resolve(index: &RwLock<Index>, matchers: &[Matcher]) -> Vec<SeriesId> {
    let mut steps: Vec<Step> = Vec::with_capacity(matchers.len());
    for matcher in matchers {
        // A matcher that accepts the absent label cannot be answered by the label's ids: take away those that fail it.
        let keep = !matcher.matches_empty();
        let values = match matcher.set_values() {
            Some(values) if keep => values.into_iter().map(Arc::from).collect(),
            _ => {
                let mut values = index.read().values(&matcher.name);
                values.retain(|v| matcher.matches(v) == keep);
                values
            }
        };
        steps.push(Step { name: matcher.name.clone(), values, keep });
    }
    let index = index.read();
    let lists = |step: &Step| -> Vec<&[SeriesId]> {
        let Some(values) = index.names.get(step.name.as_str()) else { return Vec::new() };
        step.values.iter().filter_map(|v| values.get(v)).map(Vec::as_slice).collect()
    };
    let mut kept: Vec<Vec<&[SeriesId]>> = steps.iter().filter(|s| s.keep).map(lists).collect();
    // The smallest first: what follows only shrinks it.
    kept.sort_by_key(|l| l.iter().map(|ids| ids.len()).sum::<usize>());
    let mut kept = kept.into_iter();
    let mut ids: Vec<SeriesId> = match kept.next() {
        Some(first) => union(&first),
        None => (0..index.locations.len() as SeriesId).collect(),
    };
    for next in kept {
        if ids.is_empty() {
            return ids;
        }
        match next.as_slice() {
            [one] => retain(&mut ids, one, true),
            many => retain(&mut ids, &union(many), true),
        }
    }
    for step in steps.iter().filter(|s| !s.keep) {
        retain(&mut ids, &union(&lists(step)), false);
    }
    ids
}
