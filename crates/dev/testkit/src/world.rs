//! A whole Triptych on one thread: machines with the real parts, and the network between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use triptych_config::{Limits, TenantLimits};
use triptych_ingester::GenerationConfig;
use triptych_model::{Result, TenantId};
use triptych_querier::{Querier, Sources};
use triptych_ring::{Member, Peer, Peers, Replication, peers};
use triptych_rpc::{Ingest, Write};
use triptych_runtime::{Clock, MemoryBudget};

use crate::bucket::{BucketFaults, SimBucket};
use crate::clock::WorldClock;
use crate::dice::Dice;
use crate::disk::DiskFaults;
use crate::gossip::{Gossip, Listener, Role};
use crate::host::{CompactorHost, IngesterHost, Machine, Place, Process, StoreHost, Stores};
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::mutant::Mutant;
use crate::network::{Network, Remote, Service};

/// The first moment: a Thursday, a bit before midnight UTC, so that a day changes in most runs.
const START_NS: i64 = 1_767_225_000_000_000_000;

/// How many of each there are; drawn from the seed.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Zones of ingesters: 1 without replicas, 3 with as many.
    pub zones: usize,
    pub ingesters_per_zone: usize,
    /// Ingesters of every zone that come later, all at once: during the storm, or after it.
    pub ingesters_later: usize,
    pub store_gateways: usize,
    pub compactors: usize,
    pub queriers: usize,
    pub distributors: usize,
    pub tenants: usize,
}

impl Shape {
    pub fn draw(dice: &mut Dice) -> Self {
        let zones = if dice.chance(0.6) { 3 } else { 1 };
        let ingesters_later = dice.below(2);
        Self {
            zones,
            ingesters_per_zone: 1 + dice.below(2 - ingesters_later),
            ingesters_later,
            store_gateways: 1 + dice.below(3),
            compactors: 1 + dice.below(2),
            queriers: 1 + dice.below(2),
            distributors: 1 + dice.below(2),
            tenants: 2,
        }
    }
}

pub struct World {
    pub journal: Arc<Journal>,
    pub ledger: Arc<Ledger>,
    pub clock: Arc<WorldClock>,
    pub network: Network,
    pub bucket: SimBucket,
    pub ingesters: Vec<IngesterHost>,
    pub store_gateways: Vec<StoreHost>,
    pub compactors: Vec<CompactorHost>,
    pub distributors: Vec<(Machine, Arc<dyn Write>)>,
    pub queriers: Vec<(Machine, Querier)>,
    pub replication: Replication,
    pub tenants: Vec<TenantId>,
    place: Place,
    /// Distributors and queriers, which are not killed.
    _others: Vec<Process>,
}

/// How long ingesters keep what they have flushed.
pub const RETAIN: Duration = Duration::from_secs(16);

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The product's defaults with all times a good deal shorter, in the same order.
fn ingester_config(mutant: Option<Mutant>) -> triptych_ingester::Config {
    let retain_after_flush = if mutant == Some(Mutant::NotRetained) { Duration::ZERO } else { RETAIN };
    let when = GenerationConfig { age_max: seconds(25), bytes_max: 1 << 20, idle_max: seconds(15) };
    triptych_ingester::Config {
        metrics: when.clone(),
        logs: when.clone(),
        traces: when,
        retain_after_flush,
        flush_retry_max: seconds(4),
        wal_segment_bytes_max: 16 << 10,
        ..Default::default()
    }
}

fn store_gateway_config(mutant: Option<Mutant>) -> triptych_store_gateway::Config {
    let sync_age_max = seconds(if mutant == Some(Mutant::StaleAnswers) { 1_000_000 } else { 12 });
    let replaced_shown = seconds(if mutant == Some(Mutant::HiddenAtOnce) { 0 } else { 16 });
    triptych_store_gateway::Config {
        sync_interval: seconds(4),
        sync_age_max,
        replaced_shown,
        warm_max: seconds(8),
        ..Default::default()
    }
}

fn compactor_config() -> triptych_compactor::Config {
    triptych_compactor::Config { interval: seconds(10), delete_delay: seconds(36), ..Default::default() }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.metrics.out_of_order_window = seconds(48 * 3600);
    limits.logs.out_of_order_window = seconds(48 * 3600);
    limits.metrics.ingestion_rate_bytes = u64::MAX >> 8;
    limits.logs.ingestion_rate_bytes = u64::MAX >> 8;
    limits.traces.ingestion_rate_bytes = u64::MAX >> 8;
    limits
}

impl World {
    /// Everything built and started.
    pub fn new(dice: &mut Dice, journal: Arc<Journal>, mutant: Option<Mutant>) -> Result<Self> {
        let shape = Shape::draw(dice);
        journal.note("world", format_args!("{shape:?}"));
        let clock = WorldClock::new(START_NS);
        let bucket = SimBucket::new(dice, clock.clone(), journal.clone());
        let network = Network::new(dice, journal.clone(), mutant);
        let gossip = Gossip::new(network.clone(), journal.clone());
        tokio::spawn(gossip.clone().run(dice.fork("gossip")));
        let place = Place {
            journal: journal.clone(),
            clock: clock.clone(),
            bucket: bucket.clone(),
            gossip,
            ingesters: shape.zones * shape.ingesters_per_zone,
            limits: TenantLimits::new(&limits(), &BTreeMap::new())?,
            dice: dice.fork("machines"),
            mutant,
        };
        let mut machine = |name: &str, zone: &str| {
            let skew_ms = dice.below(4000) as i64 - 2000;
            Machine::new(name, zone, skew_ms * 1_000_000, &place)
        };
        let mut ingesters = Vec::new();
        for i in 0..shape.ingesters_per_zone + shape.ingesters_later {
            for zone in ["a", "b", "c"].iter().take(shape.zones) {
                let machine = machine(&format!("ingester-{zone}-{i}"), zone);
                ingesters.push(IngesterHost::new(machine, ingester_config(mutant)));
            }
        }
        let at_first = shape.zones * shape.ingesters_per_zone;
        let store_gateways: Vec<_> = (0..shape.store_gateways)
            .map(|i| StoreHost::new(machine(&format!("store-{i}"), ""), store_gateway_config(mutant)))
            .collect();
        let compactors: Vec<_> = (0..shape.compactors)
            .map(|i| CompactorHost::new(machine(&format!("compactor-{i}"), ""), compactor_config()))
            .collect();
        let replication = Replication::new(shape.zones);
        let mut others = Vec::new();
        let mut distributors = Vec::new();
        for i in 0..shape.distributors {
            let machine = machine(&format!("distributor-{i}"), "");
            let (peers, listener) = ingest_peers(&machine, &ingesters, &network);
            others.push(machine.boot(Role::Other, vec![listener]));
            let replication =
                if mutant == Some(Mutant::QuorumOfOne) { Replication::new(1) } else { replication };
            let distributor = triptych_distributor::Config::default().build(triptych_distributor::Deps {
                ingesters: peers,
                replication,
                distributors: tokio::sync::watch::Sender::new(1).subscribe(),
                limits: place.limits.clone(),
                clock: machine.clock.clone(),
                multitenancy: true,
                memory: MemoryBudget::new("pushes", 512 << 20),
            })?;
            distributors.push((machine, Arc::new(distributor) as Arc<dyn Write>));
        }
        let mut queriers = Vec::new();
        for i in 0..shape.queriers {
            let machine = machine(&format!("querier-{i}"), "");
            let hosts = ingesters.iter().map(|host| (&host.machine, &host.stores));
            let (ingesters, of_ingesters) = store_peers(&machine, Role::Ingester, hosts, &network);
            let hosts = store_gateways.iter().map(|host| (&host.machine, &host.stores));
            let (store_gateways, of_gateways) = store_peers(&machine, Role::StoreGateway, hosts, &network);
            others.push(machine.boot(Role::Other, vec![of_ingesters, of_gateways]));
            let sources = Sources { ingesters, store_gateways, has_bucket: true, replication };
            let querier = querier(sources, &place.limits);
            queriers.push((machine, querier));
        }
        for host in &ingesters[..at_first] {
            host.come()?;
        }
        store_gateways.iter().for_each(StoreHost::start);
        compactors.iter().for_each(CompactorHost::start);
        let tenants =
            (0..shape.tenants).map(|i| TenantId::new(&format!("tenant-{i}"))).collect::<Result<_>>()?;
        let ledger = Arc::default();
        Ok(Self {
            journal,
            ledger,
            clock,
            network,
            bucket,
            ingesters,
            store_gateways,
            compactors,
            distributors,
            queriers,
            replication,
            tenants,
            place,
            _others: others,
        })
    }

    /// All faults are over, and everything runs.
    pub fn heal(&self) {
        self.journal.note("world", format_args!("healed"));
        self.network.heal();
        self.bucket.set_faults(BucketFaults::default());
        for name in self.machines() {
            self.bucket.set_away(&name, false);
        }
        for host in &self.ingesters {
            host.machine.disk.set_faults(DiskFaults::default());
            host.abandon_end();
            // What does not start is said by the readers.
            let _ = host.start();
        }
        self.store_gateways.iter().for_each(StoreHost::start);
        self.compactors.iter().for_each(CompactorHost::start);
    }

    /// The ingesters that are still to come do so, all at once.
    pub fn grow(&self) {
        for host in self.ingesters.iter().filter(|host| host.is_to_come()) {
            // Where that fails, the end of the storm starts it.
            let _ = host.come();
        }
    }

    /// A querier or distributor begins again, and has to hear who is there.
    pub fn restart_stateless(&self, dice: &mut Dice) {
        let machines: Vec<_> =
            self.queriers.iter().map(|(m, _)| m).chain(self.distributors.iter().map(|(m, _)| m)).collect();
        if let Some(machine) = dice.pick(&machines) {
            self.place.gossip.forget(&machine.name);
        }
    }

    /// Names of all machines.
    pub fn machines(&self) -> Vec<Arc<str>> {
        let ingesters = self.ingesters.iter().map(|h| &h.machine);
        let stores = self.store_gateways.iter().map(|h| &h.machine);
        let others = self.distributors.iter().map(|(m, _)| m).chain(self.queriers.iter().map(|(m, _)| m));
        let compactors = self.compactors.iter().map(|h| &h.machine);
        let all = ingesters.chain(stores).chain(compactors).chain(others);
        all.map(|machine| machine.name.clone()).collect()
    }

    /// A querier over nothing but a new store-gateway: what is found is in the bucket.
    pub async fn bucket_only(&self) -> Result<Querier> {
        let host = StoreHost::new(Machine::new("store-new", "", 0, &self.place), store_gateway_config(None));
        host.start();
        if let Some(gateway) = host.gateway() {
            gateway.sync().await?;
        }
        let from: Arc<str> = "querier-new".into();
        let member = Arc::new(Member::new(&host.machine.name, "", ""));
        let service = stores(&from, &host.machine.name, &host.stores, &self.network);
        // One ingester that holds nothing, so that a zone is known.
        let (nobody, replication) = (peers::fixed([]), Replication { factor: 0 });
        let store_gateways = peers::fixed([Peer { member, service }]);
        let sources = Sources { ingesters: nobody, store_gateways, has_bucket: true, replication };
        Ok(querier(sources, &self.place.limits))
    }

    /// From long before the first item to after the last one.
    pub fn range_ns(&self) -> (i64, i64) {
        const DAY_NS: i64 = 86_400_000_000_000;
        (START_NS - DAY_NS, self.clock.now_ns() + DAY_NS / 24)
    }
}

fn remote<S: ?Sized>(from: &Arc<str>, to: &Arc<str>, service: &Service<S>, network: &Network) -> Remote<S> {
    Remote { network: network.clone(), from: from.clone(), to: to.clone(), service: service.clone() }
}

fn stores(from: &Arc<str>, to: &Arc<str>, served: &Stores, network: &Network) -> triptych_querier::Stores {
    triptych_querier::Stores {
        metrics: Arc::new(remote(from, to, &served.metrics, network)),
        logs: Arc::new(remote(from, to, &served.logs, network)),
        traces: Arc::new(remote(from, to, &served.traces, network)),
    }
}

/// Peers as the machine's process hears of them, and what listens for it.
fn heard<T: Clone + Send + Sync + 'static>(
    role: Role,
    services: BTreeMap<Arc<str>, T>,
) -> (Peers<T>, (Role, Listener)) {
    let peers = watch::Sender::new(Arc::from([]));
    let heard = peers.subscribe();
    let listener = move |members: &[Member]| {
        let peer = |member: &Member| {
            let service = services.get(&member.id)?.clone();
            Some(Peer { member: Arc::new(member.clone()), service })
        };
        peers.send_replace(members.iter().filter_map(peer).collect());
    };
    (heard, (role, Box::new(listener)))
}

fn ingest_peers(
    from: &Machine,
    hosts: &[IngesterHost],
    network: &Network,
) -> (Peers<Arc<dyn Ingest>>, (Role, Listener)) {
    let services = hosts.iter().map(|host| {
        let to = &host.machine.name;
        let ingest: Arc<dyn Ingest> = Arc::new(remote(&from.name, to, &host.ingest, network));
        (to.clone(), ingest)
    });
    heard(Role::Ingester, services.collect())
}

fn store_peers<'a>(
    from: &Machine,
    role: Role,
    hosts: impl Iterator<Item = (&'a Machine, &'a Stores)>,
    network: &Network,
) -> (Peers<triptych_querier::Stores>, (Role, Listener)) {
    let services = hosts.map(|(to, served)| (to.name.clone(), stores(&from.name, &to.name, served, network)));
    heard(role, services.collect())
}

fn querier(sources: Sources, limits: &TenantLimits) -> Querier {
    let deps = triptych_querier::Deps { sources, limits: limits.clone(), query: Handle::current() };
    triptych_querier::Config::default().build(deps)
}
