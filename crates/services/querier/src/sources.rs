//! Who is asked: every ingester that may hold data, and the tenant's store-gateways, as the ring shows them when a question begins.
//!
//! Each is told who else is asked ([`Share`]). An ingester refuses when it knows a living member of its zone that is not on the list. A
//! store-gateway answers for its share of the blocks: all of them know all blocks, so the list is all they need to divide them. One that
//! failed is not asked for a while; the others stand in for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;
use triptych_config::TenantLimits;
use triptych_model::{Share, TenantId};
use triptych_ring::{Coverage, Member, Peer, Peers, Replication, subset};
use triptych_rpc::{LogsStore, MetricsStore, TracesStore};

/// How long a store-gateway that failed is left alone, as long as there is another one.
const AVOID: Duration = Duration::from_secs(5);

/// The Store API of one process.
#[derive(Clone)]
pub struct Stores {
    pub metrics: Arc<dyn MetricsStore>,
    pub logs: Arc<dyn LogsStore>,
    pub traces: Arc<dyn TracesStore>,
}

/// Everybody who holds data.
#[derive(Clone)]
pub struct Sources {
    pub ingesters: Peers<Stores>,
    pub store_gateways: Peers<Stores>,
    /// There have to be store-gateways: where none is known, yet or any more, an answer says that the bucket is missing from it.
    pub has_bucket: bool,
    /// How many zones of ingesters keep each item.
    pub replication: Replication,
}

impl Sources {
    /// Whether a question that begins now can be answered whole, as far as the ring shows.
    pub fn are_whole(&self) -> bool {
        let (ingesters, gateways) = (self.ingesters.borrow(), self.store_gateways.borrow());
        let mut coverage = Coverage::new(self.replication, ingesters.iter().map(|peer| &*peer.member));
        for peer in ingesters.iter().filter(|peer| peer.member.is_missing()) {
            coverage.lose(&peer.member.zone);
        }
        let is_expected = self.has_bucket || !gateways.is_empty();
        coverage.is_complete() && (!is_expected || gateways.iter().any(|peer| peer.member.is_serving()))
    }

    /// Whether a question that begins now can be answered at all, as far as the ring shows.
    pub fn are_any(&self) -> bool {
        let (ingesters, gateways) = (self.ingesters.borrow(), self.store_gateways.borrow());
        ingesters.iter().any(|peer| peer.member.is_asked())
            || gateways.iter().any(|peer| peer.member.is_serving())
    }
}

/// Someone who is asked.
pub(crate) struct Source<S: ?Sized> {
    /// Shown to people where it fails: `ingester-a-0`.
    pub name: Arc<str>,
    /// The zone of an ingester; a store-gateway has none, as another one can stand in for it.
    pub zone: Option<Arc<str>>,
    pub share: Share,
    pub store: Arc<S>,
}

impl<S: ?Sized> Clone for Source<S> {
    fn clone(&self) -> Self {
        let Self { name, zone, share, store } = self;
        Self { name: name.clone(), zone: zone.clone(), share: share.clone(), store: store.clone() }
    }
}

/// What a store-gateway needs to have of a tenant's blocks to answer a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Any part: the tenant's store-gateways divide the blocks between them.
    Divided,
    /// All of them: one store-gateway is asked.
    Whole,
}

/// Who one question is asked of, and what is known to be missing before it begins.
pub(crate) struct Asked<S: ?Sized> {
    pub sources: Vec<Source<S>>,
    pub coverage: Coverage,
    /// Ingesters that cannot be asked, a sentence each.
    pub dead: Vec<String>,
    /// There should be store-gateways, and none serves.
    pub is_without_bucket: bool,
}

/// Store-gateways that failed just now.
#[derive(Default)]
pub(crate) struct Avoided {
    until: Mutex<HashMap<Arc<str>, Instant>>,
    /// Grows with every failure.
    failures: AtomicU64,
}

impl Avoided {
    /// Leaves a store-gateway that failed alone for a while.
    pub fn add(&self, name: &Arc<str>) {
        self.until.lock().insert(name.clone(), Instant::now() + AVOID);
        self.failures.fetch_add(1, Ordering::AcqRel);
    }

    fn names(&self) -> Vec<Arc<str>> {
        let now = Instant::now();
        let mut until = self.until.lock();
        until.retain(|_, until| *until > now);
        until.keys().cloned().collect()
    }
}

/// One signal's view of the sources. Clones share what is avoided.
pub(crate) struct Pool<S: ?Sized> {
    sources: Sources,
    limits: TenantLimits,
    avoided: Arc<Avoided>,
    pick: fn(&Stores) -> Arc<S>,
}

impl<S: ?Sized> Clone for Pool<S> {
    fn clone(&self) -> Self {
        let Self { sources, limits, avoided, pick } = self;
        Self { sources: sources.clone(), limits: limits.clone(), avoided: avoided.clone(), pick: *pick }
    }
}

impl<S: ?Sized> Pool<S> {
    pub fn new(sources: Sources, limits: TenantLimits, pick: fn(&Stores) -> Arc<S>) -> Self {
        Self { sources, limits, avoided: Arc::default(), pick }
    }

    pub fn replication(&self) -> Replication {
        self.sources.replication
    }

    /// Whom to ask now, for a tenant.
    pub fn now(&self, tenant: &TenantId, reach: Reach) -> Asked<S> {
        let ingesters = self.sources.ingesters.borrow().clone();
        let members = || ingesters.iter().map(|peer| &*peer.member);
        let mut coverage = Coverage::new(self.sources.replication, members());
        let mut dead = Vec::new();
        for member in members().filter(|member| member.is_missing()) {
            coverage.lose(&member.zone);
            dead.push(format!("{}: does not answer", member.id));
        }
        let mut sources =
            self.divide(ingesters.iter().filter(|p| p.member.is_asked()), |member| Some(member.zone.clone()));
        let gateways = self.gateways(tenant, reach);
        let is_expected = self.sources.has_bucket || !self.sources.store_gateways.borrow().is_empty();
        let is_without_bucket = gateways.is_empty() && is_expected;
        sources.extend(gateways);
        Asked { sources, coverage, dead, is_without_bucket }
    }

    /// The tenant's store-gateways now, without those that failed just now as long as there are others.
    fn gateways(&self, tenant: &TenantId, reach: Reach) -> Vec<Source<S>> {
        let known = self.sources.store_gateways.borrow().clone();
        let mut serving: Vec<&Peer<Stores>> = known.iter().filter(|p| p.member.is_serving()).collect();
        let avoided = self.avoided.names();
        let is_healthy = |peer: &&Peer<Stores>| !avoided.contains(&peer.member.id);
        if serving.iter().any(is_healthy) {
            serving.retain(is_healthy);
        }
        let max = match reach {
            Reach::Divided => self.limits.of(tenant).store_gateways_max,
            Reach::Whole => 1,
        };
        let names: Vec<&Arc<str>> = serving.iter().map(|peer| &peer.member.id).collect();
        let asked = subset(&names, tenant.as_str(), max);
        self.divide(asked.into_iter().map(|at| serving[at]), |_| None)
    }

    /// Whom to ask instead of store-gateways that failed, of all that were `asked`: the others, each for its part of what the failed ones
    /// should have answered for; where none is left, others of the ring for everything. Empty: there is nobody.
    pub fn instead_of(
        &self,
        asked: &[Source<S>],
        failed: &[Arc<str>],
        tenant: &TenantId,
        reach: Reach,
    ) -> Vec<Source<S>> {
        let has_failed = |source: &Source<S>| failed.contains(&source.name);
        let members: Arc<[Arc<str>]> = asked.iter().map(|source| source.name.clone()).collect();
        let positions: Arc<[usize]> = (0..asked.len()).filter(|at| has_failed(&asked[*at])).collect();
        let stand_in = |(at, source): (usize, &Source<S>)| {
            let share = Share::instead_of(members.clone(), at, positions.clone())?;
            Some(Source { share, ..source.clone() })
        };
        let mut others: Vec<Source<S>> = asked.iter().enumerate().filter_map(stand_in).collect();
        if others.is_empty() {
            others = self.gateways(tenant, reach);
            // They are all that there are.
            if others.iter().any(has_failed) {
                others.clear();
            }
        }
        others
    }

    pub fn avoided(&self) -> Arc<Avoided> {
        self.avoided.clone()
    }

    fn divide<'a>(
        &self,
        peers: impl Iterator<Item = &'a Peer<Stores>>,
        zone: impl Fn(&Member) -> Option<Arc<str>>,
    ) -> Vec<Source<S>> {
        let peers: Vec<&Peer<Stores>> = peers.collect();
        let members: Arc<[Arc<str>]> = peers.iter().map(|peer| peer.member.id.clone()).collect();
        let source = |(mine, peer): (usize, &&Peer<Stores>)| {
            Some(Source {
                name: peer.member.id.clone(),
                zone: zone(&peer.member),
                share: Share::new(members.clone(), mine)?,
                store: (self.pick)(&peer.service),
            })
        };
        peers.iter().enumerate().filter_map(source).collect()
    }

    /// Changes whenever a store-gateway failed: what was asked meanwhile may be asked again for a better answer.
    pub fn failures(&self) -> u64 {
        self.avoided.failures.load(Ordering::Acquire)
    }
}
