//! Processes that can be killed and started again: the real parts, on a simulated machine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use triptych_config::TenantLimits;
use triptych_ingester::Ingester;
use triptych_model::Result;
use triptych_ring::{Member, MemberState, Ownership, Spread};
use triptych_rpc::{Ingest, LogsStore, MetricsStore, TracesStore};
use triptych_runtime::runtimes::Handles;
use triptych_runtime::{Invariant, MemoryBudget, MemoryShare, ProcessBudget, Shutdown, Tasks};
use triptych_store_gateway::StoreGateway;

use crate::bucket::SimBucket;
use crate::clock::{HostClock, WorldClock};
use crate::dice::Dice;
use crate::disk::SimDisk;
use crate::gossip::{Gossip, Listener, ROUND, Role, SETTLE};
use crate::journal::Journal;
use crate::life::Life;
use crate::mutant::Mutant;
use crate::network::Service;

/// What every machine of a world shares.
#[derive(Clone)]
pub struct Place {
    pub journal: Arc<Journal>,
    pub clock: Arc<WorldClock>,
    pub bucket: SimBucket,
    pub gossip: Gossip,
    /// Ingesters of the world; who starts first waits for the others.
    pub ingesters: usize,
    pub limits: TenantLimits,
    pub dice: Dice,
    pub mutant: Option<Mutant>,
}

/// A machine: its name, its clock, its disk. They outlive its processes.
pub struct Machine {
    pub name: Arc<str>,
    pub zone: Arc<str>,
    starts: AtomicI64,
    pub clock: Arc<HostClock>,
    pub disk: SimDisk,
    /// The part of the disk that is laid out like a bucket. What was put there is synced.
    spool: SimBucket,
    place: Place,
}

fn ingester_budget() -> ProcessBudget {
    let weights = [(MemoryShare::Writes, 1), (MemoryShare::Flushes, 1)];
    ProcessBudget::new(1 << 30, &weights, &[(MemoryShare::Heads, 64 << 20)])
}

impl Machine {
    pub fn new(name: &str, zone: &str, skew: i64, place: &Place) -> Self {
        let disk =
            SimDisk::new(name, &place.dice.fork(name), Mutant::disk(place.mutant), place.journal.clone());
        let spool = place.dice.fork(&format!("{name}-spool"));
        let spool = SimBucket::new(&spool, place.clock.clone(), place.journal.clone());
        let clock = Arc::new(HostClock { world: place.clock.clone(), skew_ns: AtomicI64::new(skew) });
        let starts = AtomicI64::new(0);
        Self { name: name.into(), zone: zone.into(), starts, clock, disk, spool, place: place.clone() }
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.place.journal.note(&self.name, what);
    }

    /// Begins a process, which listens to what is said of others. Should one of its tasks die, that is noted: no fault of this world may
    /// do that.
    pub fn boot(&self, role: Role, listeners: Vec<(Role, Listener)>) -> Process {
        let (life, tasks) = (Life::default(), Tasks::new(Shutdown::new()));
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let state = match role {
            Role::Ingester if start == 0 && self.place.mutant != Some(Mutant::NewSkipped) => MemberState::New,
            Role::Ingester | Role::StoreGateway => MemberState::Joining,
            Role::Compactor | Role::Other => MemberState::Active,
        };
        self.place.gossip.join(&self.name, (role, &self.zone, state), start, &life, listeners);
        tokio::spawn({
            let (life, tasks, name, journal) =
                (life.clone(), tasks.clone(), self.name.clone(), self.place.journal.clone());
            async move {
                tokio::select! {
                    biased;
                    () = life.ended() => {}
                    () = tasks.died() => journal.violation(Invariant::I8, &format!("{name}: a task died")),
                }
            }
        });
        Process { life, tasks }
    }
}

/// A process that runs.
pub struct Process {
    pub life: Life,
    tasks: Tasks,
}

impl Process {
    fn end(&self) {
        self.life.end();
        // What is left of it can reach nothing any more; its loops shall end too.
        self.tasks.shutdown().trigger();
    }
}

/// The stores that a process serves.
#[derive(Default, Clone)]
pub struct Stores {
    pub metrics: Service<dyn MetricsStore>,
    pub logs: Service<dyn LogsStore>,
    pub traces: Service<dyn TracesStore>,
}

impl Stores {
    fn serve(
        &self,
        life: &Life,
        (metrics, logs, traces): (Arc<dyn MetricsStore>, Arc<dyn LogsStore>, Arc<dyn TracesStore>),
    ) {
        self.metrics.set(life, metrics);
        self.logs.set(life, logs);
        self.traces.set(life, traces);
    }
}

/// A machine with an ingester.
pub struct IngesterHost {
    pub machine: Machine,
    pub ingest: Service<dyn Ingest>,
    pub stores: Stores,
    config: triptych_ingester::Config,
    running: Mutex<Option<(Arc<Process>, Ingester)>>,
    /// It was set up; before, it is not started.
    is_there: AtomicBool,
    /// It has left for good.
    is_gone: AtomicBool,
}

impl IngesterHost {
    pub fn new(machine: Machine, config: triptych_ingester::Config) -> Self {
        let (ingest, stores, running, is_there, is_gone) = Default::default();
        Self { machine, ingest, stores, config, running, is_there, is_gone }
    }

    /// Sets the machine up and starts a process, where it was not there before.
    pub fn come(&self) -> Result<()> {
        self.is_there.store(true, Ordering::Relaxed);
        self.start()
    }

    /// It was not set up yet.
    pub fn is_to_come(&self) -> bool {
        !self.is_there.load(Ordering::Relaxed)
    }

    /// Starts a process, unless one runs, or the machine is not there yet or was given up.
    pub fn start(&self) -> Result<()> {
        if self.running.lock().is_some() || self.is_to_come() || self.is_gone.load(Ordering::Relaxed) {
            return Ok(());
        }
        let zone = watch::Sender::new(Arc::from([]));
        let listener = {
            let (own, zone) = (self.machine.zone.clone(), zone.clone());
            let listener = move |members: &[Member]| {
                let of_zone = members.iter().filter(|m| m.is_established() && m.zone == own);
                zone.send_replace(of_zone.map(|m| m.id.clone()).collect());
            };
            (Role::Ingester, Box::new(listener) as Listener)
        };
        let is_new = self.machine.starts.load(Ordering::Relaxed) == 0;
        let process = Arc::new(self.machine.boot(Role::Ingester, vec![listener]));
        let place = &self.machine.place;
        let ingester = self.config.clone().build(triptych_ingester::Deps {
            bucket: place.bucket.view(&self.machine.name, &process.life),
            spool: self.machine.spool.view(&self.machine.name, &process.life),
            budget: ingester_budget(),
            data_dir: PathBuf::from("/data"),
            is_new,
            disk: self.machine.disk.mount(&process.life),
            clock: self.machine.clock.clone(),
            pools: Handles::current(),
            limits: place.limits.clone(),
            node: self.machine.name.to_string(),
            zone: zone.subscribe(),
            spread: Spread::ALONE.fixed(),
        });
        let ingester = match ingester {
            Ok(ingester) => ingester,
            Err(error) => {
                self.machine.note(format_args!("does not start: {error}"));
                process.end();
                return Err(error);
            }
        };
        ingester.start(&process.tasks);
        self.machine.note(format_args!("started"));
        self.ingest.set(&process.life, Arc::new(ingester.clone()));
        self.stores.serve(&process.life, (ingester.metrics(), ingester.logs(), ingester.traces()));
        let is_ready = {
            let ingester = ingester.clone();
            move || ingester.is_ready()
        };
        tokio::spawn(activate(
            place.clone(),
            self.machine.name.clone(),
            process.life.clone(),
            place.ingesters,
            is_ready,
        ));
        *self.running.lock() = Some((process, ingester));
        Ok(())
    }

    /// Ends the process at once. With `power`, the machine forgets what was not synced.
    pub fn kill(&self, power: bool) {
        let Some((process, _)) = self.running.lock().take() else { return };
        self.machine.note(format_args!("killed{}", if power { ", power lost" } else { "" }));
        process.end();
        if power {
            self.machine.disk.crash();
        }
    }

    /// Ends the process as an operator does.
    pub async fn stop(&self, deadline: Duration) {
        let Some((process, ingester)) = self.running.lock().clone() else { return };
        self.machine.note(format_args!("stopping"));
        self.machine.place.gossip.set_state(&self.machine.name, MemberState::Leaving);
        let drained = ingester.drain(deadline).await;
        // Unless it was killed meanwhile.
        if !process.life.has_ended() {
            self.machine.note(format_args!("stopped: {drained:?}"));
            process.end();
            self.running.lock().take();
        }
    }

    fn state(&self) -> Option<MemberState> {
        self.machine.place.gossip.state(&self.machine.name)
    }

    pub fn is_active(&self) -> bool {
        self.running.lock().is_some() && self.state() == Some(MemberState::Active)
    }

    /// Kills a process whose orderly end was begun and is waited for by nobody any more.
    pub fn abandon_end(&self) {
        if self.running.lock().is_some()
            && matches!(self.state(), Some(MemberState::Leaving | MemberState::Left))
        {
            self.kill(false);
        }
    }

    /// Leaves for good: takes no more writes, brings what it holds to the bucket, answers until every store-gateway has seen it. Where
    /// the bucket does not take it in time, or it is killed on the way, the next process goes on with what the log has.
    pub async fn leave(&self, deadline: Duration) {
        let Some((process, ingester)) = self.running.lock().clone() else { return };
        self.machine.place.gossip.set_state(&self.machine.name, MemberState::Leaving);
        sleep(SETTLE).await;
        let _ = timeout(deadline, ingester.leave()).await;
        if process.life.has_ended() {
            return;
        }
        self.machine.note(format_args!("has left: {}", ingester.has_left()));
        if ingester.has_left() {
            let (gossip, name) = (&self.machine.place.gossip, &self.machine.name);
            gossip.set_state(name, MemberState::Left);
            // Somebody has to be there who can tell.
            while !process.life.has_ended()
                && (gossip.advance(name, true) != Some(MemberState::Gone)
                    || gossip.told(name, MemberState::Gone) < 3)
            {
                sleep(ROUND).await;
            }
            if process.life.has_ended() {
                return;
            }
            self.is_gone.store(true, Ordering::Relaxed);
        }
        self.kill(false);
        // Where that fails, the end of the storm starts it.
        let _ = self.start();
    }

    pub fn ingester(&self) -> Option<Ingester> {
        self.running.lock().as_ref().map(|(_, ingester)| ingester.clone())
    }

    pub fn freeze(&self, time: Duration) {
        if let Some((process, _)) = &*self.running.lock() {
            self.machine.note(format_args!("frozen for {time:?}"));
            process.life.freeze(time);
        }
    }
}

/// As a process of the product becomes active. `known_min`: so many of its role it must know, itself included, before it asks them whether
/// they know it; the product waits for a while and asks whomever it knows then.
async fn activate(place: Place, name: Arc<str>, life: Life, known_min: usize, is_ready: impl Fn() -> bool) {
    sleep(SETTLE).await;
    while !life.has_ended() {
        if place.gossip.known(&name) >= known_min
            && place.gossip.advance(&name, is_ready()) == Some(MemberState::Active)
        {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// A machine with a store-gateway.
pub struct StoreHost {
    pub machine: Machine,
    pub stores: Stores,
    config: triptych_store_gateway::Config,
    running: Mutex<Option<(Arc<Process>, Arc<StoreGateway>)>>,
}

impl StoreHost {
    pub fn new(machine: Machine, config: triptych_store_gateway::Config) -> Self {
        Self { machine, stores: Stores::default(), config, running: Mutex::default() }
    }

    pub fn start(&self) {
        let mut running = self.running.lock();
        if running.is_some() {
            return;
        }
        let known = watch::Sender::new(Arc::from([]));
        let members = known.subscribe();
        let listener = move |members: &[Member]| {
            known.send_replace(members.iter().cloned().map(Arc::new).collect());
        };
        let listener = (Role::StoreGateway, Box::new(listener) as Listener);
        let process = Arc::new(self.machine.boot(Role::StoreGateway, vec![listener]));
        let gateway = Arc::new(self.config.clone().build(triptych_store_gateway::Deps {
            memory: MemoryBudget::new("caches", 256 << 20),
            bucket: self.machine.place.bucket.view(&self.machine.name, &process.life),
            pools: Handles::current(),
            node: self.machine.name.clone(),
            members,
            settle_time: SETTLE,
            limits: self.machine.place.limits.clone(),
        }));
        gateway.start(&process.tasks);
        self.machine.note(format_args!("started"));
        self.stores.serve(&process.life, (gateway.metrics(), gateway.logs(), gateway.traces()));
        let (place, name, warming) = (self.machine.place.clone(), self.machine.name.clone(), gateway.clone());
        tokio::spawn(activate(place, name, process.life.clone(), 1, move || warming.is_ready()));
        *running = Some((process, gateway));
    }

    pub fn kill(&self) {
        let Some((process, _)) = self.running.lock().take() else { return };
        self.machine.note(format_args!("killed"));
        process.end();
    }

    pub fn gateway(&self) -> Option<Arc<StoreGateway>> {
        self.running.lock().as_ref().map(|(_, gateway)| gateway.clone())
    }

    pub fn freeze(&self, time: Duration) {
        if let Some((process, _)) = &*self.running.lock() {
            self.machine.note(format_args!("frozen for {time:?}"));
            process.life.freeze(time);
        }
    }
}

/// A machine with a compactor.
pub struct CompactorHost {
    pub machine: Machine,
    config: triptych_compactor::Config,
    running: Mutex<Option<(Arc<Process>, triptych_compactor::Compactor)>>,
}

impl CompactorHost {
    pub fn new(machine: Machine, config: triptych_compactor::Config) -> Self {
        Self { machine, config, running: Mutex::default() }
    }

    pub fn start(&self) {
        let mut running = self.running.lock();
        if running.is_some() {
            return;
        }
        let members = watch::Sender::new(Arc::from([]));
        let heard = members.subscribe();
        let listener = move |now: &[Member]| {
            members.send_replace(now.iter().cloned().map(Arc::new).collect());
        };
        let listeners = vec![(Role::Compactor, Box::new(listener) as Listener)];
        let process = Arc::new(self.machine.boot(Role::Compactor, listeners));
        let compactor = self.config.clone().build(triptych_compactor::Deps {
            memory: MemoryBudget::new("compactions", 512 << 20),
            bucket: self.machine.place.bucket.view(&self.machine.name, &process.life),
            limits: self.machine.place.limits.clone(),
            clock: self.machine.clock.clone(),
            pools: Handles::current(),
            ownership: Ownership::among(heard, &self.machine.name),
            node: self.machine.name.to_string(),
        });
        compactor.start(&process.tasks);
        self.machine.note(format_args!("started"));
        *running = Some((process, compactor));
    }

    pub fn kill(&self) {
        let Some((process, _)) = self.running.lock().take() else { return };
        self.machine.note(format_args!("killed"));
        process.end();
    }

    pub fn compactor(&self) -> Option<triptych_compactor::Compactor> {
        self.running.lock().as_ref().map(|(_, compactor)| compactor.clone())
    }

    pub fn freeze(&self, time: Duration) {
        if let Some((process, _)) = &*self.running.lock() {
            self.machine.note(format_args!("frozen for {time:?}"));
            process.life.freeze(time);
        }
    }
}
