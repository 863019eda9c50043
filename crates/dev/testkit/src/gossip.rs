//! Who knows what of whom: every process has its own view, which lags, and which a partition divides.
//!
//! A process counts its own heartbeats. Now and then two processes that reach each other exchange what they know; of each
//! member the newest wins. Who was not heard of for a while is thought dead. A process that starts knows nobody. How a member comes in
//! and goes is the product's own rule ([`triptych_ring::passage`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use triptych_ring::passage::{self, Seen, Told};
use triptych_ring::{Member, MemberState};

use crate::dice::Dice;
use crate::journal::Journal;
use crate::life::Life;
use crate::network::Network;

/// Between two rounds of exchanges.
pub const ROUND: Duration = Duration::from_millis(400);
/// After this time who starts has heard of those who can be reached, mostly.
pub const SETTLE: Duration = Duration::from_secs(2);
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

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Ingester => "ingester",
            Role::StoreGateway => "store-gateway",
            Role::Compactor => "compactor",
            Role::Other => "other",
        }
    }
}

#[derive(Debug, Clone)]
struct Rumour {
    role: Role,
    zone: Arc<str>,
    state: MemberState,
    /// What it tells of others.
    told: Arc<Told>,
    /// (start of the process, heartbeats): the larger is newer.
    version: (i64, u64),
    heard: Instant,
}

/// Called with the members of a role whenever a process sees them differently.
pub type Listener = Box<dyn Fn(&[Member]) + Send>;

impl Rumour {
    fn seen<'a>(&'a self, id: &'a str) -> Seen<'a> {
        Seen {
            role: self.role.name(),
            id,
            zone: &self.zone,
            state: self.state,
            is_alive: self.heard.elapsed() < SILENCE_MAX,
            knows: &self.told.knows,
            heard_of: Some(&self.told.heard_of),
        }
    }
}

struct Process {
    name: Arc<str>,
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
                is_alive: rumour.state.is_taken_as_alive(rumour.heard.elapsed() < SILENCE_MAX),
            })
            .collect()
    }

    fn seen(&self) -> impl Iterator<Item = Seen<'_>> {
        self.view.iter().map(|(id, rumour)| rumour.seen(id))
    }

    /// One more heartbeat, with what there is to tell of others now.
    fn beat(&mut self) {
        let Some(own) = self.view.get(&self.name) else { return };
        let told = passage::told(&own.seen(&self.name), self.seen());
        if let Some(own) = self.view.get_mut(&self.name) {
            own.version.1 += 1;
            own.heard = Instant::now();
            if *own.told != told {
                own.told = Arc::new(told);
            }
        }
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
        (role, zone, state): (Role, &Arc<str>, MemberState),
        incarnation: i64,
        life: &Life,
        listeners: Vec<(Role, Listener)>,
    ) {
        // Who names no zone is one of its own.
        let zone = if zone.is_empty() { name.clone() } else { zone.clone() };
        let told = Arc::new(Told { knows: String::new(), heard_of: String::new() });
        let own = Rumour { role, zone, state, told, version: (incarnation, 0), heard: Instant::now() };
        let mut process = Process {
            name: name.clone(),
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

    /// Where a process is on its way to be active; goes one step further where it is time for it.
    pub fn advance(&self, name: &Arc<str>, is_ready: bool) -> Option<MemberState> {
        let (now, next) = {
            let processes = self.0.processes.lock();
            let process = processes.get(name)?;
            let own = process.view.get(name)?.seen(name);
            (own.state, passage::next(&own, process.seen(), is_ready))
        };
        if now != next {
            self.set_state(name, next);
        }
        Some(next)
    }

    /// How many members of its role a process knows, itself included.
    pub fn known(&self, name: &Arc<str>) -> usize {
        let processes = self.0.processes.lock();
        let Some(process) = processes.get(name) else { return 0 };
        let role = process.view.get(name).map(|own| own.role);
        process.view.values().filter(|rumour| Some(rumour.role) == role).count()
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
                if let Some(process) = processes.get_mut(name) {
                    process.beat();
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
        let Some(news) = processes.get_mut(from).map(|process| std::mem::take(&mut process.view)) else {
            return;
        };
        if let Some(process) = processes.get_mut(to) {
            for (id, rumour) in &news {
                if id == to || dice.chance(0.2) {
                    continue;
                }
                match process.view.get_mut(id) {
                    Some(known) if known.version >= rumour.version => {}
                    Some(known) => *known = Rumour { heard: Instant::now(), ..rumour.clone() },
                    // Of whom it hears for the first time it does not know how long ago that was.
                    None => drop(process.view.insert(id.clone(), rumour.clone())),
                }
            }
        }
        if let Some(process) = processes.get_mut(from) {
            process.view = news;
        }
    }
}
