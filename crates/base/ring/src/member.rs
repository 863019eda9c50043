//! A process of a role as the others see it.

use std::sync::Arc;

/// Where a member is in its life. It goes from top to bottom; a restart begins again at [`MemberState::Joining`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberState {
    /// Has come for the first time and waits until everybody has heard of it. Whoever knows of it asks it, so that nobody is surprised
    /// when it begins to hold data.
    New,
    /// Starts: replays its log, warms its caches, waits to be known. Takes no writes; may hold data.
    Joining,
    /// Does its work.
    Active,
    /// On its way out: brings what it holds to the bucket. Still answers reads.
    Leaving,
    /// Holds nothing any more. Still answers reads: others of its zone may ask for it.
    Left,
    /// Holds nothing, and nobody asks for it.
    Gone,
}

impl MemberState {
    pub const ALL: [MemberState; 6] = [
        MemberState::New,
        MemberState::Joining,
        MemberState::Active,
        MemberState::Leaving,
        MemberState::Left,
        MemberState::Gone,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            MemberState::New => "new",
            MemberState::Joining => "joining",
            MemberState::Active => "active",
            MemberState::Leaving => "leaving",
            MemberState::Left => "left",
            MemberState::Gone => "gone",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether one in this state may hold data that others of its zone have to stand up for.
    pub fn is_established(self) -> bool {
        !matches!(self, MemberState::New | MemberState::Left | MemberState::Gone)
    }

    /// What to think of one in this state when the failure detector finds it alive or not: it has no opinion yet of one that is new.
    pub fn is_taken_as_alive(self, is_found_alive: bool) -> bool {
        is_found_alive || self == MemberState::New
    }
}

impl std::fmt::Display for MemberState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One process of one role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Unique within the role, the same after a restart.
    pub id: Arc<str>,
    /// What may fail together. Never empty: a member that names none is a zone of its own.
    pub zone: Arc<str>,
    /// `host:port` of its internal services.
    pub address: Arc<str>,
    pub state: MemberState,
    /// Time at which the process started, in nanoseconds since the epoch: tells a restart from a silence.
    pub incarnation: i64,
    /// What the failure detector of whoever looks thinks of it. Of one that is new it has no opinion yet: that is taken to be alive.
    pub is_alive: bool,
}

impl Member {
    /// A living, active member.
    pub fn new(id: &str, zone: &str, address: &str) -> Self {
        let id: Arc<str> = id.into();
        let zone = if zone.is_empty() { id.clone() } else { zone.into() };
        Self { id, zone, address: address.into(), state: MemberState::Active, incarnation: 0, is_alive: true }
    }

    /// Whether it does its work.
    pub fn is_serving(&self) -> bool {
        self.is_alive && self.state == MemberState::Active
    }

    /// Whether new data may be sent to it.
    pub fn takes_writes(&self) -> bool {
        self.is_serving()
    }

    /// Whether a read has to do with it: to ask it, or to count it as missing.
    pub fn is_there(&self) -> bool {
        self.state != MemberState::Gone
    }

    /// Whether a read asks it.
    pub fn is_asked(&self) -> bool {
        self.is_alive && self.is_there()
    }

    /// Whether it cannot be asked, and may hold data that nobody else has.
    pub fn is_missing(&self) -> bool {
        !self.is_alive && self.is_established()
    }

    /// Whether the others of its zone stand up for it: it may hold data, and who asks its zone has to ask it too.
    pub fn is_established(&self) -> bool {
        self.state.is_established()
    }

    /// The number at the end of the name; the name where there is none.
    pub fn slot(&self) -> &str {
        let digits = self.id.bytes().rev().take_while(u8::is_ascii_digit).count();
        match self.id.len() - digits {
            at if digits > 0 => &self.id[at..],
            _ => &self.id,
        }
    }
}
