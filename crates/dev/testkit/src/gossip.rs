//! Who knows what of whom: every process has its own view, which lags, and which a partition divides.
//!
//! A process counts its own heartbeats. Now and then two processes that reach each other exchange what they know; of each
//! member the newest wins. Who was not heard of for a while is thought dead. A process that starts knows nobody.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use triptych_ring::{Member, MemberState};

use crate::dice::Dice;
use crate::journal::Journal;
use crate::life::Life;
use crate::network::Network;

/// Between two rounds of exchanges.
const ROUND: Duration = Duration::from_millis(400);
/// Who is silent for longer is thought dead.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Ingester,
    StoreGateway,
    Compactor,
    /// Asks and writes; nobody looks for it.
    Other,
}

#[derive(Debug, Clone)]
struct Rumour {
    role: Role,
    zone: Arc<str>,
    state: MemberState,
    /// (start of the process, heartbeats): the larger is newer.
    version: (i64, u64),
    heard: Instant,
}

/// Called with the members of a role whenever a process sees them differently.
pub type Listener = Box<dyn Fn(&[Member]) + Send>;

struct Process {
    life: Life,
    view: BTreeMap<Arc<str>, Rumour>,
    listeners: Vec<(Role, Vec<Member>, Listener)>,
}

impl Process {
    fn members(&self, role: Role) -> Vec<Member> {
        let members = self.view.iter().filter(|(_, rumour)| rumour.role == role);
        members
            .map(|(id, rumour)| Member {
                id: id.clone(),
                zone: rumour.zone.clone(),
                address: id.clone(),
                state: rumour.state,
                incarnation: rumour.version.0,
                is_alive: rumour.heard.elapsed() < SILENCE_MAX,
            })
            .collect()
    }

    fn tell(&mut self) {
        let seen: Vec<Vec<Member>> = self.listeners.iter().map(|(role, ..)| self.members(*role)).collect();
        for ((_, before, listener), now) in self.listeners.iter_mut().zip(seen) {
            if *before != now {
                listener(&now);
                *before = now;
            }
        }
    }
}

/// Clones are the same world's.
#[derive(Clone)]
pub struct Gossip(Arc<Inner>);

struct Inner {
    processes: Mutex<BTreeMap<Arc<str>, Process>>,
    network: Network,
    journal: Arc<Journal>,
}

impl Gossip {
    pub fn new(network: Network, journal: Arc<Journal>) -> Self {
        Self(Arc::new(Inner { processes: Mutex::default(), network, journal }))
    }

    /// A process starts. `incarnation` grows with every start.
    pub fn join(
        &self,
        name: &Arc<str>,
        (role, zone): (Role, &Arc<str>),
        incarnation: i64,
        life: &Life,
        listeners: Vec<(Role, Listener)>,
    ) {
        let state = match role {
            Role::Ingester | Role::StoreGateway => MemberState::Joining,
            Role::Compactor | Role::Other => MemberState::Active,
        };
        let own =
            Rumour { role, zone: zone.clone(), state, version: (incarnation, 0), heard: Instant::now() };
        let mut process = Process {
            life: life.clone(),
            view: BTreeMap::from([(name.clone(), own)]),
            listeners: listeners.into_iter().map(|(role, listener)| (role, Vec::new(), listener)).collect(),
        };
        process.tell();
        self.0.processes.lock().insert(name.clone(), process);
    }

    /// A process says something new about itself.
    pub fn set_state(&self, name: &Arc<str>, state: MemberState) {
        if let Some(process) = self.0.processes.lock().get_mut(name) {
            if let Some(own) = process.view.get_mut(name) {
                own.state = state;
                own.version.1 += 1;
            }
            process.tell();
        }
        self.0.journal.note(name, format_args!("is {state}"));
    }

    /// What a process says of itself, where one runs.
    pub fn state(&self, name: &Arc<str>) -> Option<MemberState> {
        let processes = self.0.processes.lock();
        let process = processes.get(name).filter(|process| !process.life.has_ended())?;
        process.view.get(name).map(|own| own.state)
    }

    /// How many others know a member in this state.
    pub fn told(&self, name: &Arc<str>, state: MemberState) -> usize {
        let processes = self.0.processes.lock();
        let others = processes.iter().filter(|(other, process)| *other != name && !process.life.has_ended());
        others
            .filter(|(_, process)| process.view.get(name).is_some_and(|rumour| rumour.state == state))
            .count()
    }

    /// Whether every living member of its zone that it knows, knows this start of the process; and it knows as many members of its
    /// role as `known_min`, itself included.
    pub fn is_known_in_zone(&self, name: &Arc<str>, known_min: usize) -> bool {
        let processes = self.0.processes.lock();
        let Some(process) = processes.get(name) else { return false };
        let Some(own) = process.view.get(name) else { return false };
        let members = process.members(own.role);
        members.len() >= known_min
            && members.iter().filter(|m| m.is_alive && m.zone == own.zone && m.id != *name).all(|member| {
                let theirs = processes.get(&member.id).and_then(|p| p.view.get(name));
                theirs.is_some_and(|rumour| rumour.version.0 == own.version.0)
            })
    }

    /// A process starts again and has forgotten everybody.
    pub fn forget(&self, name: &Arc<str>) {
        if let Some(process) = self.0.processes.lock().get_mut(name) {
            process.view.retain(|id, _| id == name);
            process.tell();
        }
        self.0.journal.note(name, format_args!("started again"));
    }

    /// Exchanges for ever.
    pub async fn run(self, mut dice: Dice) {
        loop {
            sleep(ROUND).await;
            let mut processes = self.0.processes.lock();
            processes.retain(|_, process| !process.life.has_ended());
            let awake: Vec<Arc<str>> = processes
                .iter()
                .filter(|(_, process)| !process.life.is_frozen())
                .map(|(name, _)| name.clone())
                .collect();
            for name in &awake {
                if let Some(own) = processes.get_mut(name).and_then(|p| p.view.get_mut(name)) {
                    own.version.1 += 1;
                    own.heard = Instant::now();
                }
            }
            for a in &awake {
                for _ in 0..2 {
                    let Some(b) = dice.pick(&awake) else { continue };
                    if a != b && !self.0.network.is_cut(a, b) && dice.chance(0.8) {
                        exchange(&mut processes, a, b, &mut dice);
                    }
                }
            }
            processes.values_mut().for_each(Process::tell);
        }
    }
}

/// Not everything fits into one exchange: a view may be partial for a while.
fn exchange(processes: &mut BTreeMap<Arc<str>, Process>, a: &Arc<str>, b: &Arc<str>, dice: &mut Dice) {
    for (from, to) in [(a, b), (b, a)] {
        let Some(news) = processes.get(from).map(|p| p.view.clone()) else { return };
        let Some(process) = processes.get_mut(to) else { return };
        for (id, rumour) in news {
            if id == *to || dice.chance(0.2) {
                continue;
            }
            match process.view.get_mut(&id) {
                Some(known) if known.version >= rumour.version => {}
                Some(known) => *known = Rumour { heard: Instant::now(), ..rumour },
                // Of whom it hears for the first time it does not know how long ago that was.
                None => drop(process.view.insert(id, rumour)),
            }
        }
    }
}
