//! Who the others are: gossip, turned into ways to reach them, and the life of this process as they see it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tonic::transport::Channel;
use triptych_ingester::Zone;
use triptych_model::batch::{LogsBuilder, MetricsBuilder, TracesBuilder};
use triptych_model::push::PushReport;
use triptych_model::{Error, Kind, Signal};
use triptych_ring::{Gossip, Member, MemberState, Members, Myself, Peer, Peers, Replication, Spread};
use triptych_rpc::{Write, WriteClient, WriteContext};
use triptych_runtime::now_ns;

use crate::config::Config;
use crate::roles::Role;

/// How often a process looks whether it is ready to be active.
const LOOK: Duration = Duration::from_millis(100);

/// Joins the others, where the config names some. A process of several roles has everybody it needs inside.
pub async fn join(
    config: &Config,
    roles: &[Role],
    grpc: Option<std::net::SocketAddr>,
) -> Result<Option<Gossip>> {
    let [role] = roles else { return Ok(None) };
    let membership = &config.membership;
    if !membership.is_on() {
        return Ok(None);
    }
    let address = match (grpc, membership.advertise.rsplit_once(':')) {
        (None, _) => String::new(),
        // The others reach all ports of this process at one address.
        (Some(grpc), Some((host, _))) => format!("{host}:{}", grpc.port()),
        (Some(grpc), None) => grpc.to_string(),
    };
    let is_new = *role == Role::Ingester && !triptych_ingester::has_been_here(&config.data_dir);
    let state = if is_new { MemberState::New } else { MemberState::Joining };
    let myself = Myself { role: role.name(), id: config.node(), address, started_ns: now_ns(), state };
    let gossip = membership.start(myself).await.context("membership")?;
    Ok(Some(gossip))
}

/// New until everybody has heard of it, joining until `is_ready` and known to all of its zone, then active, until the process ends.
pub async fn live(gossip: Gossip, is_ready: impl Fn() -> bool) {
    // Until the others have been heard of: who is not known yet cannot be asked whether it knows this process.
    tokio::time::sleep(gossip.settle_time()).await;
    while gossip.advance(is_ready()).await != MemberState::Active {
        tokio::time::sleep(LOOK).await;
    }
    tracing::info!(zone = gossip.zone(), "active");
    std::future::pending().await
}

/// Nothing is left here: waits until nobody of the zone stands up for this process, and until everybody has heard that it is gone.
pub async fn leave(gossip: &Gossip) {
    gossip.set_state(MemberState::Left).await;
    while gossip.advance(true).await != MemberState::Gone {
        tokio::time::sleep(LOOK).await;
    }
    tokio::time::sleep(gossip.settle_time()).await;
}

/// The members of a role with a client each. A member that comes back at the same address keeps its channel.
pub fn peers<T: Clone + Send + Sync + 'static>(
    gossip: &Gossip,
    role: Role,
    client: impl Fn(&Channel) -> T + Send + 'static,
) -> Peers<T> {
    let mut channels: HashMap<Arc<str>, (Channel, T)> = HashMap::new();
    derived(gossip.members(role.name()), move |members| {
        channels.retain(|address, _| members.iter().any(|member| member.address == *address));
        let mut peers = Vec::with_capacity(members.len());
        for member in members {
            let service = match channels.get(&member.address) {
                Some((_, service)) => service.clone(),
                None => match triptych_rpc::channel::connect(&member.address) {
                    Ok(channel) => {
                        let service = client(&channel);
                        channels.insert(member.address.clone(), (channel, service.clone()));
                        service
                    }
                    Err(error) => {
                        tracing::warn!(member = %member.id, %error, "a member cannot be reached");
                        continue;
                    }
                },
            };
            peers.push(Peer { member: member.clone(), service });
        }
        peers.into()
    })
}

/// The names of the ingesters of this process' zone that may hold data, dead ones too.
pub fn zone(gossip: &Gossip) -> Zone {
    let zone: Arc<str> = gossip.zone().into();
    derived(gossip.members(Role::Ingester.name()), move |members| {
        let of_zone = members.iter().filter(|m| m.zone == zone && m.is_established());
        of_zone.map(|member| member.id.clone()).collect()
    })
}

/// Over how many ingesters what a tenant has is spread.
pub fn spread(gossip: &Gossip, replication: Replication) -> watch::Receiver<Spread> {
    let zone: Arc<str> = gossip.zone().into();
    derived(gossip.members(Role::Ingester.name()), move |members| {
        Spread::new(replication, &zone, members.iter().map(|member| &**member))
    })
}

/// How many members of a role do their work.
pub fn serving(gossip: &Gossip, role: Role) -> watch::Receiver<usize> {
    derived(gossip.members(role.name()), |members| members.iter().filter(|m| m.is_serving()).count())
}

/// What follows from the members, as they are now and whenever they change.
fn derived<T: Send + Sync + 'static>(
    mut members: Members,
    mut of: impl FnMut(&[Arc<Member>]) -> T + Send + 'static,
) -> watch::Receiver<T> {
    let (sender, receiver) = watch::channel(of(&members.borrow_and_update().clone()));
    tokio::spawn(async move {
        while members.changed().await.is_ok() {
            let now = members.borrow_and_update().clone();
            if sender.send(of(&now)).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The write path through whichever distributor takes it: each in turn, and the next one when one fails.
pub struct Writers {
    distributors: Peers<WriteClient>,
    turn: AtomicUsize,
}

impl Writers {
    pub fn new(distributors: Peers<WriteClient>) -> Self {
        Self { distributors, turn: AtomicUsize::new(0) }
    }

    async fn send(
        &self,
        ctx: &WriteContext,
        signal: Signal,
        sealed: Bytes,
    ) -> triptych_model::Result<PushReport> {
        let peers = self.distributors.borrow().clone();
        let active: Vec<_> = peers.iter().filter(|peer| peer.member.takes_writes()).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = Error::unavailable("no distributor takes writes now");
        for at in 0..active.len() {
            let peer = active[(turn + at) % active.len()];
            match peer.service.write(ctx, signal, sealed.clone()).await {
                Err(error) if error.kind == Kind::Unavailable => last = error.context(&peer.member.id),
                outcome => return outcome,
            }
        }
        Err(last)
    }
}

#[async_trait]
impl Write for Writers {
    async fn metrics(&self, ctx: &WriteContext, batch: MetricsBuilder) -> triptych_model::Result<PushReport> {
        self.send(ctx, Signal::Metrics, batch.seal()).await
    }

    async fn logs(&self, ctx: &WriteContext, batch: LogsBuilder) -> triptych_model::Result<PushReport> {
        self.send(ctx, Signal::Logs, batch.seal()).await
    }

    async fn traces(&self, ctx: &WriteContext, batch: TracesBuilder) -> triptych_model::Result<PushReport> {
        self.send(ctx, Signal::Traces, batch.seal()).await
    }
}
