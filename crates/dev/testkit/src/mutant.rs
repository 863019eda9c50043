//! Bugs that are put in on purpose, into the simulated machines and never into the product: each must be found.

use crate::disk::DiskMutant;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The write-ahead log is acknowledged without `fsync`.
    SyncIgnored,
    /// A new segment's name is not synced.
    DirectorySyncIgnored,
    /// The distributor acknowledges what one zone has taken, although queriers count on a quorum.
    QuorumOfOne,
    /// Ingesters forget what they have flushed at once, before every store-gateway has seen it.
    NotRetained,
    /// A store-gateway leaves what replaced its block to the owner of that, who may not have found it yet.
    HiddenAtOnce,
    /// Ingesters that come count from the beginning, before everybody has heard of them.
    NewSkipped,
    /// Store-gateways answer however long they have not looked through the bucket.
    StaleAnswers,
    /// Copies of a log entry are not told as such by the querier: the key that it removes them by differs from source to source.
    CopiesShown,
}

impl Mutant {
    pub const ALL: &[Self] = &[
        Self::SyncIgnored,
        Self::DirectorySyncIgnored,
        Self::QuorumOfOne,
        Self::NotRetained,
        Self::HiddenAtOnce,
        Self::NewSkipped,
        Self::StaleAnswers,
        Self::CopiesShown,
    ];

    pub(crate) fn disk(mutant: Option<Self>) -> DiskMutant {
        match mutant {
            Some(Self::SyncIgnored) => DiskMutant::SyncIgnored,
            Some(Self::DirectorySyncIgnored) => DiskMutant::DirectorySyncIgnored,
            _ => DiskMutant::Honest,
        }
    }
}
