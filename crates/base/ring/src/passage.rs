//! How a member comes in, and how it goes: whom everybody tells that it knows, and what whoever comes or goes makes of that. Carried by
//! [`gossip`](crate::gossip), and by the simulation; here is no I/O.
//!
//! A member that was never there before is [new](MemberState::New) until everybody who lives has heard of it: whoever knows of it asks
//! it, nobody misses it yet. Then it is [joining](MemberState::Joining): others stand up for it. It takes writes, as an
//! [active](MemberState::Active) one, when all of its zone who live have said that they know it: whoever asks any of them then
//! learns of all.
//!
//! A member that has [left](MemberState::Left) holds nothing any more. It is asked until all of its zone who live have said that they
//! know it no more: whoever asks any of them then need not ask it. Then it is [gone](MemberState::Gone).

use crate::MemberState;

/// A process as another one sees it: the latest start of it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub role: &'a str,
    /// Unique within the role.
    pub id: &'a str,
    pub zone: &'a str,
    pub state: MemberState,
    /// What the failure detector of whoever looks thinks of it.
    pub is_alive: bool,
    pub knows: &'a str,
    /// `None`: it has not said anything yet.
    pub heard_of: Option<&'a str>,
}

impl Seen<'_> {
    fn is(&self, other: &Seen<'_>) -> bool {
        (self.role, self.id) == (other.role, other.id)
    }

    fn is_beside(&self, other: &Seen<'_>) -> bool {
        (self.role, self.zone) == (other.role, other.zone)
    }
}

/// What a process tells of the others: names, with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Ids of those of its own role and zone who may hold data, living or dead, itself included.
    pub knows: String,
    /// `role/id` of those who are new and live.
    pub heard_of: String,
}

/// What `own` has to tell when `all` is what it sees, itself included.
pub fn told<'a>(own: &Seen<'_>, all: impl Iterator<Item = Seen<'a>>) -> Told {
    let (mut knows, mut heard_of) = (Vec::new(), Vec::new());
    for seen in all {
        if seen.is_beside(own) && seen.state.is_established() {
            knows.push(seen.id.to_owned());
        }
        if seen.is_alive && seen.state == MemberState::New {
            heard_of.push(node(seen.role, seen.id));
        }
    }
    Told { knows: knows.join(","), heard_of: heard_of.join(",") }
}

/// The state that `own` should have now, where it sees `all`, itself included or not. `is_ready`: its log is replayed, its caches are warm.
/// Who knows nobody yet should wait for a while before it asks.
pub fn next<'a>(own: &Seen<'_>, all: impl Iterator<Item = Seen<'a>>, is_ready: bool) -> MemberState {
    let mut others = all.filter(|seen| seen.is_alive && !seen.is(own));
    match own.state {
        MemberState::New if others.all(|seen| has_heard_of(&seen, own)) => MemberState::Joining,
        MemberState::Joining if is_ready && others.all(|seen| may_know(&seen, own)) => MemberState::Active,
        MemberState::Left if !others.any(|seen| seen.is_beside(own) && knows(&seen, own)) => {
            MemberState::Gone
        }
        state => state,
    }
}

/// Nobody who has told nothing at all can be surprised.
fn has_heard_of(seen: &Seen<'_>, own: &Seen<'_>) -> bool {
    let own = node(own.role, own.id);
    seen.heard_of.is_none_or(|all| all.split(',').any(|one| one == own))
}

fn may_know(seen: &Seen<'_>, own: &Seen<'_>) -> bool {
    !seen.is_beside(own) || seen.state == MemberState::Gone || knows(seen, own)
}

fn knows(seen: &Seen<'_>, own: &Seen<'_>) -> bool {
    seen.knows.split(',').any(|known| known == own.id)
}

/// The name of a process among those of all roles.
pub fn node(role: &str, id: &str) -> String {
    format!("{role}/{id}")
}

#[cfg(test)]
mod tests;
