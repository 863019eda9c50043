//! Who is asked: every ingester that may hold data, and one store-gateway, as the ring shows them when a question begins.
//!
//! Each ingester is told who else is asked ([`Share`]): it refuses when it knows a living member of its zone that is not on the list.
//! Every store-gateway can answer for the whole bucket; a tenant has one of its own (rendezvous hashing), so that caches stay warm.
//! One that failed is not asked for a while, so the question can be asked again of the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;
use triptych_model::{Share, TenantId};
use triptych_ring::{Coverage, Member, MemberState, Peer, Peers, Replication};
use triptych_rpc::{LogsStore, MetricsStore, TracesStore};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

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
    /// How many zones of ingesters keep each item.
    pub replication: Replication,
}

impl Sources {
    /// Whether a question that begins now can be answered whole, as far as the ring shows.
    pub fn are_whole(&self) -> bool {
        let (ingesters, gateways) = (self.ingesters.borrow(), self.store_gateways.borrow());
        let mut coverage = Coverage::new(self.replication, ingesters.iter().map(|peer| &*peer.member));
        for peer in ingesters.iter().filter(|peer| peer.member.holds_data() && !peer.member.is_alive) {
            coverage.lose(&peer.member.zone);
        }
        coverage.is_complete()
            && (gateways.is_empty() || gateways.iter().any(|peer| peer.member.is_serving()))
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

/// Who one question is asked of, and what is known to be missing before it begins.
pub(crate) struct Asked<S: ?Sized> {
    pub sources: Vec<Source<S>>,
    pub coverage: Coverage,
    /// Ingesters that cannot be asked, a sentence each.
    pub dead: Vec<String>,
    /// There are store-gateways, and none of them serves.
    pub is_without_bucket: bool,
    /// Store-gateways that serve; one of them is asked.
    pub gateways: usize,
    pub avoided: Arc<Avoided>,
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
    avoided: Arc<Avoided>,
    pick: fn(&Stores) -> Arc<S>,
}

impl<S: ?Sized> Clone for Pool<S> {
    fn clone(&self) -> Self {
        Self { sources: self.sources.clone(), avoided: self.avoided.clone(), pick: self.pick }
    }
}

impl<S: ?Sized> Pool<S> {
    pub fn new(sources: Sources, pick: fn(&Stores) -> Arc<S>) -> Self {
        Self { sources, avoided: Arc::default(), pick }
    }

    pub fn replication(&self) -> Replication {
        self.sources.replication
    }

    /// Whom to ask now, for a tenant.
    pub fn now(&self, tenant: &TenantId) -> Asked<S> {
        let ingesters = self.sources.ingesters.borrow().clone();
        let members = || ingesters.iter().map(|peer| &*peer.member);
        let mut coverage = Coverage::new(self.sources.replication, members());
        let mut dead = Vec::new();
        for member in members().filter(|member| member.holds_data() && !member.is_alive) {
            coverage.lose(&member.zone);
            dead.push(format!("{}: does not answer", member.id));
        }
        let mut sources = self
            .divide(ingesters.iter().filter(|p| p.member.holds_data() && p.member.is_alive), |member| {
                Some(member.zone.clone())
            });
        let gateways = self.sources.store_gateways.borrow().clone();
        let serving: Vec<&Peer<Stores>> =
            gateways.iter().filter(|p| p.member.is_alive && p.member.state == MemberState::Active).collect();
        let avoided = self.avoided.names();
        let members: Vec<&Arc<str>> = serving.iter().map(|peer| &peer.member.id).collect();
        let healthy = |at: &usize| !avoided.contains(members[*at]);
        let ranked = ranked(tenant, &members);
        let first = ranked.iter().copied().find(healthy).or(ranked.first().copied());
        sources.extend(self.divide(first.into_iter().map(|at| serving[at]), |_| None));
        let is_without_bucket = first.is_none() && !gateways.is_empty();
        Asked {
            sources,
            coverage,
            dead,
            is_without_bucket,
            gateways: serving.len(),
            avoided: self.avoided.clone(),
        }
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

/// Positions of `members`, the tenant's own first.
fn ranked(tenant: &TenantId, members: &[&Arc<str>]) -> Vec<usize> {
    let rank = |at: &usize| {
        let member = xxh3_64(members[*at].as_bytes());
        (xxh3_64_with_seed(tenant.as_str().as_bytes(), member), members[*at])
    };
    let mut ranked: Vec<usize> = (0..members.len()).collect();
    ranked.sort_by(|a, b| rank(b).cmp(&rank(a)));
    ranked
}
