//! Where batches go, and when they count as written.
//!
//! A [`Route`] is one view of the ingesters with the placement made of it. Every batch of a request belongs to one replica set; it is
//! sealed once and sent to all of the set's members, one of each zone. It is written when a quorum of them has it; the others
//! go on in the background, holding on to the batch's memory. A member that fails is replaced once by another one of its
//! zone, where there is one: any member of a zone will do, as reads ask them all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use triptych_model::push::PushReport;
use triptych_model::{Error, Kind, Result, Signal, TenantId};
use triptych_ring::{Member, Peer, Peers, Placement, ReplicaSet, Replication};
use triptych_rpc::{Ingest, WriteContext};
use triptych_runtime::Reservation;

use crate::telemetry;

pub type Ingesters = Peers<Arc<dyn Ingest>>;

/// The ingesters at one moment.
type View = Arc<[Peer<Arc<dyn Ingest>>]>;

/// Tenants whose placement is remembered; one takes 8 KiB.
const TENANTS_REMEMBERED: usize = 1024;

/// What a sender is told to wait when too few zones take writes: about what it takes to notice that one is back.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// One view of the ingesters, and what it means for one tenant.
pub(crate) struct Route {
    peers: View,
    placement: Placement,
    replication: Replication,
}

impl Route {
    fn new(peers: View, replication: Replication, tenant: &TenantId, size: usize) -> Self {
        let members: Vec<&Member> = peers.iter().map(|peer| &*peer.member).collect();
        let placement = Placement::for_tenant(replication, &members, tenant.as_str(), size);
        drop(members);
        Self { peers, placement, replication }
    }

    /// How many batches a request may fall into.
    pub fn sets(&self) -> usize {
        self.placement.sets().len().max(1)
    }

    /// The batch that a series', stream's or trace's hash belongs to.
    #[inline]
    pub fn set_of(&self, hash: u64) -> usize {
        self.placement.set_of(hash)
    }

    /// Another member of the same zone that takes writes.
    fn stand_in(&self, failed: u16) -> Option<u16> {
        let zone = &self.peers[usize::from(failed)].member.zone;
        let mut others = (0..self.peers.len() as u16).filter(|i| {
            let member = &self.peers[usize::from(*i)].member;
            *i != failed && member.takes_writes() && member.zone == *zone
        });
        // The next one in the order of ids, so that load does not pile up on the first.
        others.clone().find(|i| *i > failed).or_else(|| others.next())
    }

    fn too_few(&self, took: usize, why: Option<Error>) -> Error {
        let quorum = self.replication.quorum();
        let factor = self.replication.factor;
        let writable = self.placement.sets().first().map_or(0, ReplicaSet::len);
        let text = format!("ingesters in {quorum} of {factor} zones must take a write");
        match why {
            None if writable == 0 => Error::unavailable(format!("{text}, and there is none; try again")),
            None => {
                Error::unavailable(format!("{text}, and only {writable} can be written to now; try again"))
            }
            Some(why) => {
                // A limit of the tenant reads as such, and so does our mistake; everything else passes.
                let kind = match why.kind {
                    kind @ (Kind::Exhausted | Kind::Damaged | Kind::Internal) => kind,
                    _ => Kind::Unavailable,
                };
                Error::new(kind, format!("{text}, {took} did: {}", why.message))
            }
        }
        .retry_after(RETRY_AFTER)
    }
}

/// Routes by tenant, made anew when the view changes.
pub(crate) struct Router {
    ingesters: Ingesters,
    replication: Replication,
    push_timeout: Duration,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    peers: Option<View>,
    /// By tenant and size of its part of the ring; size 0 (all of it) is the same for everybody.
    routes: HashMap<(Option<TenantId>, usize), Arc<Route>>,
}

impl Router {
    pub fn new(ingesters: Ingesters, replication: Replication, push_timeout: Duration) -> Self {
        Self { ingesters, replication, push_timeout, known: Mutex::default() }
    }

    /// Whether writes can be taken at all now.
    pub fn is_ready(&self) -> bool {
        self.route(&TenantId::single(), 0)
            .placement
            .sets()
            .first()
            .is_some_and(|set| set.len() >= self.replication.quorum())
    }

    /// The route of a tenant whose data are kept by `size` ingesters (0: by all).
    pub fn route(&self, tenant: &TenantId, size: usize) -> Arc<Route> {
        let peers = self.ingesters.borrow().clone();
        let mut known = self.known.lock();
        if known.peers.as_ref().is_none_or(|before| !Arc::ptr_eq(before, &peers)) {
            *known = Known { peers: Some(peers.clone()), routes: HashMap::new() };
        }
        let key = ((size > 0).then(|| tenant.clone()), size);
        if let Some(route) = known.routes.get(&key) {
            return route.clone();
        }
        if known.routes.len() >= TENANTS_REMEMBERED {
            known.routes.clear();
        }
        let route = Arc::new(Route::new(peers, self.replication, tenant, size));
        known.routes.insert(key, route.clone());
        route
    }

    /// Writes one batch to the members of a set. Resolves as soon as a quorum has it, or cannot have it any more; `memory` is given
    /// back when the last member has answered.
    pub async fn push(
        &self,
        route: &Arc<Route>,
        set: usize,
        ctx: &WriteContext,
        signal: Signal,
        sealed: Bytes,
        memory: &Arc<Reservation>,
    ) -> Result<PushReport> {
        let quorum = self.replication.quorum();
        let Some(members) = route.placement.sets().get(set).filter(|set| set.len() >= quorum) else {
            return Err(route.too_few(0, None));
        };
        let mut under_way: FuturesUnordered<JoinHandle<Result<PushReport>>> = members
            .iter()
            .map(|member| {
                let (route, ctx, sealed) = (route.clone(), ctx.clone(), sealed.clone());
                let (memory, timeout, member) = (memory.clone(), self.push_timeout, *member);
                // A task of its own: it goes on when the quorum is there, and when the client has gone.
                tokio::spawn(async move {
                    let outcome = push_to_zone(&route, member, &ctx, signal, sealed, timeout).await;
                    drop(memory);
                    outcome
                })
            })
            .collect();
        drop(sealed);
        let (mut reports, mut worst): (Vec<PushReport>, Option<Error>) = (Vec::new(), None);
        while let Some(joined) = under_way.next().await {
            match joined.unwrap_or_else(|_| Err(Error::unavailable("the distributor is shutting down"))) {
                Ok(report) => reports.push(report),
                // The same bytes will not be better elsewhere.
                Err(error) if error.kind == Kind::Invalid => return Err(error),
                Err(error) => worst = Some(graver(worst, error)),
            }
            if reports.len() >= quorum {
                return Ok(combine(reports));
            }
            if reports.len() + under_way.len() < quorum {
                break;
            }
        }
        Err(route.too_few(reports.len(), worst))
    }
}

/// To a member, and if it does not take it, to another one of its zone.
async fn push_to_zone(
    route: &Route,
    member: u16,
    ctx: &WriteContext,
    signal: Signal,
    sealed: Bytes,
    timeout: Duration,
) -> Result<PushReport> {
    let first = push_to(route, member, ctx, signal, sealed.clone(), timeout).await;
    match &first {
        Err(error) if error.kind != Kind::Invalid => match route.stand_in(member) {
            Some(other) => {
                let second = push_to(route, other, ctx, signal, sealed, timeout).await;
                if second.is_ok() { second } else { first }
            }
            None => first,
        },
        _ => first,
    }
}

async fn push_to(
    route: &Route,
    member: u16,
    ctx: &WriteContext,
    signal: Signal,
    sealed: Bytes,
    timeout: Duration,
) -> Result<PushReport> {
    let peer = &route.peers[usize::from(member)];
    let outcome = match tokio::time::timeout(timeout, peer.service.push(ctx, signal, sealed)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::unavailable(format!("no answer in {timeout:?}"))),
    };
    outcome.map_err(|error| {
        telemetry::push_failed(signal, &peer.member.id, error.kind);
        error.context(&peer.member.id)
    })
}

/// The one to be told: what the tenant can do something about rather than what passes.
fn graver(known: Option<Error>, error: Error) -> Error {
    match known {
        Some(known) if known.kind == Kind::Exhausted || error.kind != Kind::Exhausted => known,
        _ => error,
    }
}

/// What became of a batch that several members have taken: of each reason the most that any of them refused, as an item that one
/// refused may lack its quorum.
fn combine(reports: Vec<PushReport>) -> PushReport {
    let mut reports = reports.into_iter();
    let Some(mut worst) = reports.next() else { return PushReport::default() };
    for report in reports {
        worst.accepted = worst.accepted.min(report.accepted);
        for (reason, refused) in report.refused {
            match worst.refused.get_mut(&reason) {
                Some(known) => known.items = known.items.max(refused.items),
                None => drop(worst.refused.insert(reason, refused)),
            }
        }
    }
    worst
}

#[cfg(test)]
mod tests;
