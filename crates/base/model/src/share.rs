//! One question, asked of several.

use std::sync::Arc;

/// Who else is asked the same question, and which of them is *me*: whoever answers can tell whether those who ask know everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    members: Arc<[Arc<str>]>,
    mine: usize,
}

impl Share {
    /// `None` where `mine` is no position in `members`.
    pub fn new(members: Arc<[Arc<str>]>, mine: usize) -> Option<Self> {
        (mine < members.len()).then_some(Self { members, mine })
    }

    /// Names of all who are asked.
    pub fn members(&self) -> &Arc<[Arc<str>]> {
        &self.members
    }

    /// My position in [`Share::members`].
    pub fn mine(&self) -> usize {
        self.mine
    }
}
