//! What was written, what was acknowledged, and whether an answer agrees with it.

use std::collections::BTreeMap;
use std::fmt;

use parking_lot::Mutex;
use tokio::time::Instant;
use triptych_model::{Signal, TenantId};
use triptych_runtime::Invariant;

use crate::journal::Journal;

/// Names one item of one tenant and signal: a sample, a line or a span. Its time and content follow from what is written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Series, log stream, or service.
    pub stream: u32,
    /// Of the item in its stream.
    pub number: u64,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream, self.number)
    }
}

/// An item as a reader saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub key: Key,
    pub time_ns: i64,
}

#[derive(Debug)]
struct Entry {
    time_ns: i64,
    acknowledged: Option<Instant>,
}

/// An answer.
#[derive(Debug)]
pub struct Read {
    /// Which reader, for the journal.
    pub what: &'static str,
    pub tenant: TenantId,
    pub signal: Signal,
    /// When it was asked.
    pub began: Instant,
    /// What the answer says is missing; empty: it says that it is complete.
    pub missed: Vec<String>,
    pub items: Vec<Seen>,
    /// What was found that cannot be an item of this tenant and signal.
    pub foreign: Vec<String>,
}

/// Shared by writers and readers.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<BTreeMap<(TenantId, u8), BTreeMap<Key, Entry>>>);

impl Ledger {
    /// The items may be seen from now on.
    pub fn wrote(&self, tenant: &TenantId, signal: Signal, items: &[Seen]) {
        let mut all = self.0.lock();
        let entries = all.entry((tenant.clone(), signal as u8)).or_default();
        for Seen { key, time_ns } in items {
            entries.insert(*key, Entry { time_ns: *time_ns, acknowledged: None });
        }
    }

    /// The items must be seen by every complete read that begins from now on.
    pub fn acknowledged(&self, tenant: &TenantId, signal: Signal, items: &[Seen]) {
        let mut all = self.0.lock();
        let Some(entries) = all.get_mut(&(tenant.clone(), signal as u8)) else { return };
        for seen in items {
            if let Some(entry) = entries.get_mut(&seen.key) {
                entry.acknowledged.get_or_insert_with(Instant::now);
            }
        }
    }

    /// (written, acknowledged) of all tenants and signals.
    pub fn counts(&self) -> (usize, usize) {
        let all = self.0.lock();
        let entries = || all.values().flat_map(BTreeMap::values);
        (entries().count(), entries().filter(|e| e.acknowledged.is_some()).count())
    }

    /// Every trace's number of spans is found by its first key: the keys that were written for a stream.
    pub fn keys(&self, tenant: &TenantId, signal: Signal) -> Vec<Key> {
        let all = self.0.lock();
        all.get(&(tenant.clone(), signal as u8)).map(|e| e.keys().copied().collect()).unwrap_or_default()
    }

    /// Compares an answer with what it may and must hold; notes every disagreement. `among`: the read asked for these only.
    pub fn check(&self, read: &Read, among: impl Fn(&Key) -> bool, journal: &Journal) {
        let all = self.0.lock();
        let none = BTreeMap::new();
        let entries = all.get(&(read.tenant.clone(), read.signal as u8)).unwrap_or(&none);
        let Read { what, tenant, signal, .. } = read;
        let is_complete = read.missed.is_empty();
        journal.note(
            what,
            format_args!("{tenant} {signal}: {} items, complete: {is_complete}", read.items.len()),
        );
        for foreign in &read.foreign {
            journal.violation(Invariant::I6, &format!("{what} {tenant} {signal}: {foreign}"));
        }
        let mut items = read.items.clone();
        items.sort_unstable();
        for pair in items.windows(2) {
            if let [a, b] = pair
                && a.key == b.key
            {
                journal.violation(Invariant::I4, &format!("{what} {tenant} {signal}: {} twice", a.key));
            }
        }
        for seen in &items {
            match entries.get(&seen.key) {
                Some(entry) if entry.time_ns == seen.time_ns => {}
                Some(entry) => journal.violation(
                    Invariant::I9,
                    &format!(
                        "{what} {tenant} {signal}: {} has time {} ns, written was {} ns",
                        seen.key, seen.time_ns, entry.time_ns
                    ),
                ),
                None => journal.violation(
                    Invariant::I9,
                    &format!("{what} {tenant} {signal}: {} was never written", seen.key),
                ),
            }
        }
        if !is_complete {
            return;
        }
        let missing: Vec<&Key> = entries
            .iter()
            .filter(|(key, entry)| among(key) && entry.acknowledged.is_some_and(|at| at < read.began))
            .map(|(key, _)| key)
            .filter(|key| items.binary_search_by(|seen| seen.key.cmp(key)).is_err())
            .collect();
        if let Some(first) = missing.first() {
            let number = missing.len();
            let acknowledged = entries.get(first).and_then(|e| e.acknowledged);
            let before = acknowledged.map(|at| read.began - at).unwrap_or_default();
            journal.violation(
                Invariant::I5,
                &format!(
                    "{what} {tenant} {signal}: says that it is complete, but {number} items are missing that were \
                     acknowledged before it began, the first {first}, {before:?} before"
                ),
            );
        }
    }
}
