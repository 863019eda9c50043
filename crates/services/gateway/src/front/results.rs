//! What is remembered of answers: an LRU by bytes.
//!
//! An entry is what a question is worth at consecutive steps of one *extent* of time, with the [`Version`] of the data it was made from:
//! it counts only as long as that version is still the data's. Keys hold the tenant, so no tenant finds what another one asked (I6).
//!
//! **Memory**: every entry's bytes, its key's and about what the tables take for it are reserved from the cache's budget; what has not
//! been asked for the longest time goes first. An entry larger than an eighth of the whole is not taken.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{Buf, BufMut};
use parking_lot::Mutex;
use triptych_model::metrics::{Sample, SeriesSamples};
use triptych_model::{Error, Labels, Result, Signal, TenantId, Version};
use triptych_runtime::{MemoryBudget, Reservation};

use crate::telemetry;

/// Beside the text and the answer: the entry in both tables, the question.
const ENTRY_BYTES: usize = 384;
/// Of the whole cache an entry may take this part.
const ENTRY_SHARE: usize = 8;

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

/// First and last step in milliseconds, and what is between two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps {
    pub first_ms: i64,
    pub last_ms: i64,
    pub step_ms: i64,
}

impl Steps {
    fn count(self) -> usize {
        ((self.last_ms - self.first_ms) / self.step_ms + 1) as usize
    }

    fn has(self, other: Self) -> bool {
        self.first_ms <= other.first_ms && other.last_ms <= self.last_ms
    }

    /// The samples of these steps.
    pub fn of(self, samples: &[Sample]) -> &[Sample] {
        let from = samples.partition_point(|s| s.t_ms < self.first_ms);
        let until = samples.partition_point(|s| s.t_ms <= self.last_ms);
        &samples[from..until.max(from)]
    }
}

/// Series at consecutive steps: labels, which steps have a value (unless all have), values; compressed with LZ4.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    steps: Steps,
    data: Arc<[u8]>,
}

impl Packed {
    /// What the series are worth at the steps. `None` where they have samples between them.
    pub fn new(series: &[SeriesSamples], steps: Steps) -> Option<Self> {
        let mut plain = Vec::new();
        for one in series {
            let samples = steps.of(&one.samples);
            if samples.is_empty() {
                continue;
            }
            let labels = one.labels.as_encoded();
            plain.put_u32_le(u32::try_from(labels.len()).ok()?);
            plain.put_slice(labels);
            plain.put_u32_le(u32::try_from(samples.len()).ok()?);
            if samples.len() != steps.count() {
                for sample in samples {
                    let since_ms = sample.t_ms - steps.first_ms;
                    if since_ms % steps.step_ms != 0 {
                        return None;
                    }
                    plain.put_u32_le(u32::try_from(since_ms / steps.step_ms).ok()?);
                }
            }
            samples.iter().for_each(|sample| plain.put_u64_le(sample.value.to_bits()));
        }
        Some(Self { steps, data: lz4_flex::compress_prepend_size(&plain).into() })
    }

    /// What the series are worth at some of the steps; those worth nothing there are left out.
    pub fn series(&self, wanted: Steps) -> Result<Vec<SeriesSamples>> {
        let torn = |_| Error::internal("a remembered answer is torn");
        let plain = lz4_flex::decompress_size_prepended(&self.data)
            .map_err(|e| Error::internal(format!("a remembered answer: {e}")))?;
        let (mut rest, mut out) = (&plain[..], Vec::new());
        while !rest.is_empty() {
            let length = rest.try_get_u32_le().map_err(torn)? as usize;
            let labels = rest.get(..length).ok_or_else(|| Error::internal("a remembered answer is torn"))?;
            let labels = Labels::from_encoded(labels)?;
            rest.advance(length);
            let count = rest.try_get_u32_le().map_err(torn)? as usize;
            let all = count == self.steps.count();
            let mut places = rest;
            if !all {
                if rest.len() < 4 * count {
                    return Err(Error::internal("a remembered answer is torn"));
                }
                rest.advance(4 * count);
            }
            let mut samples = Vec::new();
            for at in 0..count {
                let place = if all { at as i64 } else { i64::from(places.try_get_u32_le().map_err(torn)?) };
                let t_ms = self.steps.first_ms + place * self.steps.step_ms;
                let value = f64::from_bits(rest.try_get_u64_le().map_err(torn)?);
                if (wanted.first_ms..=wanted.last_ms).contains(&t_ms) {
                    samples.push(Sample { t_ms, value });
                }
            }
            if !samples.is_empty() {
                out.push(SeriesSamples { labels, samples });
            }
        }
        Ok(out)
    }
}

/// A question, and which of its extents.
type Key = (Arc<Question>, i64);

#[derive(Debug)]
struct Entry {
    version: Version,
    answer: Packed,
    /// When it was last asked for, in numbers of questions.
    used: u64,
    _memory: Reservation,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Entry>,
    /// By [`Entry::used`].
    order: BTreeMap<u64, Key>,
    asked: u64,
}

impl State {
    fn next(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.used);
        }
    }

    /// False where there was none.
    fn remove_oldest(&mut self) -> bool {
        self.order.pop_first().is_some_and(|(_, key)| self.entries.remove(&key).is_some())
    }
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

    /// The answer at (at least) the wanted steps, made from data of this version.
    pub fn get(&self, key: &Key, version: Version, wanted: Steps) -> Option<Packed> {
        let mut state = self.state.lock();
        let used = state.next();
        let found = match state.entries.get_mut(key) {
            Some(entry) if entry.version != version => Err("stale"),
            Some(entry) if entry.answer.steps.has(wanted) => {
                Ok((entry.answer.clone(), std::mem::replace(&mut entry.used, used)))
            }
            _ => Err("miss"),
        };
        if let Ok((_, before)) = &found {
            state.order.remove(before);
            state.order.insert(used, key.clone());
        }
        drop(state);
        let outcome = found.as_ref().map_or_else(|outcome| *outcome, |_| "hit");
        telemetry::result_cache_extents(key.0.signal.as_str(), outcome).increment(1);
        found.ok().map(|(answer, _)| answer)
    }

    /// Remembers an answer, in place of an older one. `version`: of the data, asked for before the answer was.
    pub fn put(&self, key: Key, version: Version, answer: Packed) {
        let bytes = ENTRY_BYTES + key.0.text.len() + answer.data.len();
        if bytes > self.memory.bytes_max() / ENTRY_SHARE {
            return;
        }
        let mut evicted = 0;
        let mut state = self.state.lock();
        state.remove(&key);
        let memory = loop {
            match self.memory.reserve(bytes) {
                Ok(memory) => break Some(memory),
                Err(_) if state.remove_oldest() => evicted += 1,
                // Others draw on the budget, and left nothing.
                Err(_) => break None,
            }
        };
        if let Some(memory) = memory {
            let used = state.next();
            state.order.insert(used, key.clone());
            state.entries.insert(key, Entry { version, answer, used, _memory: memory });
        }
        drop(state);
        telemetry::result_cache_evictions().increment(evicted);
        telemetry::result_cache_bytes().set(self.memory.used() as f64);
    }
}

#[cfg(test)]
mod tests;
