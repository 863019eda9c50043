//! What became of a write.

use std::collections::BTreeMap;

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushReport {
    /// Samples, lines or spans taken.
    pub accepted: u64,
    /// Refused items by reason, in Prometheus', Loki's and Tempo's words (`out_of_bounds`, `per_user_series_limit`, ...).
    pub refused: BTreeMap<String, Refused>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refused {
    pub items: u64,
    /// One example in a sentence, with the limit and the value.
    pub example: String,
}

impl PushReport {
    pub fn refuse(&mut self, reason: &str, items: u64, example: impl FnOnce() -> String) {
        match self.refused.get_mut(reason) {
            Some(refused) => refused.items += items,
            None => {
                self.refused.insert(reason.to_owned(), Refused { items, example: example() });
            }
        }
    }

    pub fn refused_items(&self) -> u64 {
        self.refused.values().map(|r| r.items).sum()
    }

    pub fn add(&mut self, other: PushReport) {
        self.accepted += other.accepted;
        for (reason, refused) in other.refused {
            self.refuse(&reason, refused.items, || refused.example);
        }
    }
}
