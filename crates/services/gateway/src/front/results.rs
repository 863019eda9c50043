//! What is remembered of answers, and which answers are being made.
//!
//! An entry is what a question is worth at consecutive steps of one *extent* of time, with the [`Version`] of the data that it was made
//! from. Keys hold the tenant, so no tenant finds what another one asked (I6).
//!
//! **What an answer is good for** ([`Made::is_good_for`]): a question that found the same version, however long ago the answer was made; and
//! a question that began before the making did, whatever has been written since: all that it has to show was there to be read.
//!
//! **Together.** Who finds neither an entry nor somebody who makes one promises to make it ([`Promise`]); who asks for the same meanwhile
//! waits for that, where it will be good for him. A promise that is dropped (its client went away) is taken over by one of those who
//! wait. An answer that is of use to its maker alone (an error, a partial answer) is made again by each of them.
//!
//! **Memory**: every entry's bytes, its key's and about what the tables take for it are reserved from the cache's budget. When there is no
//! room, what nobody has asked for within [`IDLE`] goes, whoever's it is; then the oldest of the tenant that holds the most. So a tenant that
//! floods makes its own answers go and nobody else's, and one that is alone has everything: the max-min fairness of
//! [`triptych_runtime::budget`], without refusals, as a cache can give back at once. An entry larger than an eighth of the whole is not taken.
//!
//! Known holes: finding who is to give looks at every tenant that has an entry. Who waits for an answer that turns out to be of no use to
//! him has waited in vain. While the data of an extent change with every write, only those who ask at the same time share it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use triptych_model::{Signal, TenantId, Version};
use triptych_runtime::{MemoryBudget, Reservation};

use super::packed::{Packed, Steps};
use crate::telemetry;

/// Beside the text and the answer: the entry in all tables, the question.
const ENTRY_BYTES: usize = 384;
/// Of the whole cache an entry may take this part.
const ENTRY_SHARE: usize = 8;
/// What nobody has asked for for so long goes first.
const IDLE: Duration = Duration::from_secs(3600);

/// A question over steps of time, whatever its start and end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub tenant: TenantId,
    pub signal: Signal,
    pub text: String,
    /// PromQL's, where the question names one.
    pub lookback_ms: i64,
    /// Start and end, where the answer at a step depends on them.
    pub whole_ms: Option<(i64, i64)>,
    /// In the unit of the signal, as are those that follow.
    pub step: i64,
    /// What steps leave over when they are divided by `step`.
    pub phase: i64,
    /// Length of the extents.
    pub extent: i64,
}

/// A question, and which of its extents.
pub(super) type Key = (Arc<Question>, i64);

/// What is wanted of an extent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub steps: Steps,
    /// Of the data of the whole extent.
    pub version: Version,
    /// When the question began: before `version` was asked for.
    pub asked_at: Instant,
}

/// What an answer was made from.
#[derive(Debug, Clone, Copy)]
struct Made {
    steps: Steps,
    /// Asked for before the making began.
    version: Version,
    began_at: Instant,
}

impl Made {
    fn is_good_for(&self, wanted: &Wanted) -> bool {
        self.steps.has(wanted.steps) && (self.version == wanted.version || wanted.asked_at < self.began_at)
    }
}

#[derive(Debug)]
struct Entry {
    made: Made,
    answer: Packed,
    /// When it was last asked for; and in numbers of questions.
    used_at: Instant,
    used: u64,
    memory: Reservation,
}

/// What a tenant has.
#[derive(Debug, Default)]
struct Holding {
    bytes: usize,
    /// By [`Entry::used`].
    order: BTreeMap<u64, Key>,
}

#[derive(Debug)]
struct Making {
    made: Made,
    told: watch::Receiver<Option<Told>>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// Those that have entries.
    tenants: HashMap<TenantId, Holding>,
    making: HashMap<Key, Making>,
    asked: u64,
}

impl State {
    /// The answer, noted as asked for.
    fn get(&mut self, key: &Key, wanted: &Wanted) -> Result<Packed, &'static str> {
        let entry = self.entries.get_mut(key).ok_or("miss")?;
        if !entry.made.is_good_for(wanted) {
            return Err(if entry.made.version == wanted.version { "miss" } else { "stale" });
        }
        self.asked += 1;
        entry.used_at = Instant::now();
        let before = std::mem::replace(&mut entry.used, self.asked);
        let answer = entry.answer.clone();
        if let Some(holding) = self.tenants.get_mut(&key.0.tenant) {
            holding.order.remove(&before);
            holding.order.insert(self.asked, key.clone());
        }
        Ok(answer)
    }

    fn insert(&mut self, key: Key, made: Made, answer: Packed, memory: Reservation) {
        self.asked += 1;
        let holding = self.tenants.entry(key.0.tenant.clone()).or_default();
        holding.bytes += memory.bytes();
        holding.order.insert(self.asked, key.clone());
        self.entries.insert(key, Entry { made, answer, used_at: Instant::now(), used: self.asked, memory });
    }

    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else { return };
        let tenant = &key.0.tenant;
        if let Some(holding) = self.tenants.get_mut(tenant) {
            holding.bytes -= entry.memory.bytes();
            holding.order.remove(&entry.used);
            if holding.order.is_empty() {
                self.tenants.remove(tenant);
            }
        }
    }

    /// Makes one entry go; see the module. False where there was none.
    fn evict(&mut self) -> bool {
        let is_idle = |key: &&Key| self.entries.get(*key).is_some_and(|entry| entry.used_at.elapsed() > IDLE);
        let idle = self.tenants.values().filter_map(|holding| holding.order.values().next()).find(is_idle);
        let largest = || self.tenants.values().max_by_key(|holding| holding.bytes)?.order.values().next();
        let Some(key) = idle.or_else(largest).cloned() else { return false };
        self.remove(&key);
        true
    }
}

/// What became of an answer that somebody else made.
#[derive(Debug, Clone)]
pub(super) enum Told {
    Answer(Packed),
    /// It is of use to its maker alone.
    Refused,
    /// It will not be made.
    GivenUp,
}

/// An answer that somebody else makes.
#[derive(Debug)]
pub(super) struct Theirs(watch::Receiver<Option<Told>>);

impl Theirs {
    pub async fn told(mut self) -> Told {
        match self.0.wait_for(Option::is_some).await {
            Ok(told) => told.clone().unwrap_or(Told::GivenUp),
            Err(_) => Told::GivenUp,
        }
    }
}

/// An answer that is being made by whoever holds this; others wait for it. Dropped: it will not be made.
#[derive(Debug)]
pub(super) struct Promise<'a> {
    results: &'a Results,
    key: Key,
    made: Made,
    tell: watch::Sender<Option<Told>>,
}

impl Promise<'_> {
    /// Remembers the answer, and tells it to all who wait.
    pub fn keep(self, answer: Packed) {
        self.results.put(self.key.clone(), self.made, answer.clone());
        self.tell.send_replace(Some(Told::Answer(answer)));
    }

    /// The answer is there and of use to nobody else.
    pub fn refuse(self) {
        self.tell.send_replace(Some(Told::Refused));
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        let mut state = self.results.state.lock();
        // Another one may have taken the place since, for newer data or more steps.
        let is_ours = |making: &Making| making.told.same_channel(&self.tell.subscribe());
        if state.making.get(&self.key).is_some_and(is_ours) {
            state.making.remove(&self.key);
        }
    }
}

/// What there is of an answer.
#[derive(Debug)]
pub(super) enum Found<'a> {
    Answer(Packed),
    Theirs(Theirs),
    /// Nothing: whoever asked has to make it.
    Ours(Promise<'a>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Results {
    memory: MemoryBudget,
    state: Mutex<State>,
}

impl Results {
    /// `memory`: what all entries together may take.
    pub fn new(memory: MemoryBudget) -> Self {
        Self { memory, state: Mutex::default() }
    }

    /// What there is of some extents.
    pub fn look(&self, wanted: &[(Key, Wanted)]) -> Vec<Found<'_>> {
        let mut state = self.state.lock();
        let found: Vec<_> =
            wanted.iter().map(|(key, wanted)| self.look_for(&mut state, key, wanted)).collect();
        drop(state);
        for ((key, _), (outcome, _)) in wanted.iter().zip(&found) {
            telemetry::result_cache_extents(key.0.signal.as_str(), *outcome).increment(1);
        }
        found.into_iter().map(|(_, found)| found).collect()
    }

    fn look_for<'a>(&'a self, state: &mut State, key: &Key, wanted: &Wanted) -> (&'static str, Found<'a>) {
        let outcome = match state.get(key, wanted) {
            Ok(answer) => return ("hit", Found::Answer(answer)),
            Err(outcome) => outcome,
        };
        if let Some(making) = state.making.get(key).filter(|making| making.made.is_good_for(wanted)) {
            return ("shared", Found::Theirs(Theirs(making.told.clone())));
        }
        let made = Made { steps: wanted.steps, version: wanted.version, began_at: Instant::now() };
        let (tell, told) = watch::channel(None);
        state.making.insert(key.clone(), Making { made, told });
        (outcome, Found::Ours(Promise { results: self, key: key.clone(), made, tell }))
    }

    /// Remembers an answer, in place of an older one.
    fn put(&self, key: Key, made: Made, answer: Packed) {
        let bytes = ENTRY_BYTES + key.0.text.len() + answer.bytes();
        if bytes > self.memory.bytes_max() / ENTRY_SHARE {
            return;
        }
        let mut evicted = 0;
        let mut state = self.state.lock();
        if state.entries.get(&key).is_some_and(|entry| entry.made.began_at > made.began_at) {
            return;
        }
        state.remove(&key);
        let memory = loop {
            match self.memory.reserve(bytes) {
                Ok(memory) => break Some(memory),
                Err(_) if state.evict() => evicted += 1,
                // Others draw on the budget, and left nothing.
                Err(_) => break None,
            }
        };
        if let Some(memory) = memory {
            state.insert(key, made, answer, memory);
        }
        drop(state);
        telemetry::result_cache_evictions().increment(evicted);
        telemetry::result_cache_bytes().set(self.memory.used() as f64);
    }
}

#[cfg(test)]
mod tests;
