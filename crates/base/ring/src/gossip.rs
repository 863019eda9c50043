//! Membership by gossip: everybody tells everybody, nobody is in charge.
//!
//! Every process gossips (chitchat: scuttlebutt over UDP, a phi-accrual failure detector) what others have to know of it: role, zone,
//! address, state, which members of its own role and zone it knows, and of which new members it has heard. A process that restarts is the same member with a later
//! incarnation. One that died stays a member that does not answer until it is forgotten ([`GossipConfig::forget_after`]): until
//! then reads count what it may hold as missing.
//!
//! **Views** lag by a few gossip intervals, and by as long as a partition lasts; see the crate's docs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::transport::UdpTransport;
use chitchat::{
    ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, ProtocolVersion,
    spawn_chitchat,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use triptych_model::{Error, Result};

use crate::passage::{self, Seen};
use crate::{Member, MemberState};

const ROLE: &str = "role";
const ZONE: &str = "zone";
const ADDRESS: &str = "address";
const STATE: &str = "state";
const KNOWS: &str = "knows";
const HEARD_OF: &str = "heard-of";

/// Looks at what chitchat knows this often in a gossip interval.
const LOOKS_PER_INTERVAL: u32 = 2;

/// Who the others are, and what this process is to them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GossipConfig {
    /// Where others are found in the beginning: `host:port` of some members' `listen`, or a DNS name that resolves to all of them. Empty:
    /// no gossip; what does not run in this process is reached at `peers`.
    pub seeds: Vec<String>,
    /// UDP address for gossip.
    pub listen: String,
    /// UDP address at which the others reach this process; empty: `listen`.
    pub advertise: String,
    /// What fails together with this process: a zone, a rack, a host. Empty: this process alone.
    pub zone: String,
    /// Zones that keep each item. Writes are acknowledged by more than half of them.
    pub replication_factor: usize,
    /// Pause between two rounds of gossip.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// A member that died is forgotten after this time; by then the bucket must have what it held, through its replicas. Keep it well above
    /// `ingester.*.age_max`.
    #[serde(with = "triptych_config::duration")]
    #[schemars(with = "String")]
    pub forget_after: Duration,
}

impl Default for GossipConfig {
    fn default() -> Self {
        Self {
            seeds: Vec::new(),
            listen: "127.0.0.1:7946".to_owned(),
            advertise: String::new(),
            zone: String::new(),
            replication_factor: 3,
            interval: Duration::from_secs(1),
            forget_after: Duration::from_secs(6 * 3600),
        }
    }
}

/// What the others are told of this process.
#[derive(Debug, Clone)]
pub struct Myself {
    pub role: &'static str,
    /// Unique within the role, the same after a restart.
    pub id: String,
    /// `host:port` of the internal services; empty where there are none.
    pub address: String,
    /// Nanoseconds since the epoch.
    pub started_ns: i64,
    /// [`MemberState::New`] or [`MemberState::Joining`].
    pub state: MemberState,
}

/// All members of a role, ascending by id.
pub type Members = watch::Receiver<Arc<[Arc<Member>]>>;

/// Membership of this process. Clones are the same.
#[derive(Clone)]
pub struct Gossip(Arc<Inner>);

struct Inner {
    myself: Myself,
    zone: String,
    interval: Duration,
    handle: ChitchatHandle,
    roles: watch::Sender<Arc<Roles>>,
}

type Roles = BTreeMap<String, Arc<[Arc<Member>]>>;

impl GossipConfig {
    /// Whether there is anybody to gossip with.
    pub fn is_on(&self) -> bool {
        !self.seeds.is_empty()
    }

    /// Joins the others.
    pub async fn start(&self, myself: Myself) -> Result<Gossip> {
        let address = |name: &str, text: &str| {
            text.parse::<SocketAddr>().map_err(|e| {
                Error::invalid(format!("membership.{name} {text:?}: {e}; it is written IP:PORT"))
            })
        };
        let listen = address("listen", &self.listen)?;
        let advertise = match &*self.advertise {
            "" => listen,
            text => address("advertise", text)?,
        };
        let node = passage::node(myself.role, &myself.id);
        let failure_detector_config = FailureDetectorConfig {
            initial_interval: self.interval,
            max_interval: self.interval * 5,
            dead_node_grace_period: self.forget_after,
            ..FailureDetectorConfig::default()
        };
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(node, myself.started_ns.max(0) as u64, advertise),
            cluster_id: "triptych".to_owned(),
            gossip_interval: self.interval,
            listen_addr: listen,
            seed_nodes: self.seeds.clone(),
            failure_detector_config,
            marked_for_deletion_grace_period: self.forget_after,
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V0,
        };
        let zone = if self.zone.is_empty() { myself.id.clone() } else { self.zone.clone() };
        let told = [
            (ROLE, myself.role.to_owned()),
            (ZONE, zone.clone()),
            (ADDRESS, myself.address.clone()),
            (STATE, myself.state.as_str().to_owned()),
        ];
        let told = told.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let handle = spawn_chitchat(config, told, &UdpTransport)
            .await
            .map_err(|e| Error::unavailable(format!("gossip on {listen}: {e:#}")))?;
        let inner = Inner {
            myself,
            zone,
            interval: self.interval,
            handle,
            roles: watch::Sender::new(Arc::default()),
        };
        let gossip = Gossip(Arc::new(inner));
        gossip.look().await;
        Ok(gossip)
    }
}

impl Gossip {
    /// The zone of this process.
    pub fn zone(&self) -> &str {
        &self.0.zone
    }

    /// Keeps the views current, for ever.
    pub async fn run(&self) {
        let mut pause = tokio::time::interval(self.0.interval / LOOKS_PER_INTERVAL);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            self.look().await;
        }
    }

    /// Tells the others a new state of this process. It never goes back to an earlier one.
    pub async fn set_state(&self, state: MemberState) {
        let set = |chitchat: &mut chitchat::Chitchat| {
            let own = chitchat.self_node_state();
            if own.get(STATE).and_then(MemberState::parse).is_none_or(|before| before < state) {
                own.set(STATE, state.as_str());
            }
        };
        self.0.handle.with_chitchat(set).await;
        self.look().await;
    }

    /// Time after which what was told is known to those who can be reached, about.
    pub fn settle_time(&self) -> Duration {
        self.0.interval * 3
    }

    /// All roles and their members, as they are now.
    pub fn roles(&self) -> Arc<Roles> {
        self.0.roles.borrow().clone()
    }

    /// The members of a role, whenever they change.
    pub fn members(&self, role: &'static str) -> Members {
        let mut roles = self.0.roles.subscribe();
        let of = move |roles: &Roles| roles.get(role).cloned().unwrap_or_default();
        let (sender, members) = watch::channel(of(&roles.borrow_and_update()));
        tokio::spawn(async move {
            while roles.changed().await.is_ok() {
                let now = of(&roles.borrow_and_update());
                let replace = |before: &mut Arc<[Arc<Member>]>| {
                    let differs = **before != *now;
                    if differs {
                        *before = now;
                    }
                    differs
                };
                sender.send_if_modified(replace);
                if sender.is_closed() {
                    break;
                }
            }
        });
        members
    }

    /// Where this process is on its way to [`MemberState::Active`], or from [`MemberState::Left`] to [`MemberState::Gone`] ([`passage`](crate::passage)); goes one step further where it is time for
    /// it. `is_ready`: its log is replayed, its caches are warm.
    pub async fn advance(&self, is_ready: bool) -> MemberState {
        let step = |chitchat: &mut chitchat::Chitchat| {
            let all = nodes(chitchat);
            let own = all.values().find(|node| node.id == chitchat.self_chitchat_id())?.seen();
            let (now, next) = (own.state, passage::next(&own, all.values().map(Node::seen), is_ready));
            if now != next {
                chitchat.self_node_state().set(STATE, next.as_str());
            }
            Some((now, next))
        };
        let (now, next) =
            self.0.handle.with_chitchat(step).await.unwrap_or((self.0.myself.state, self.0.myself.state));
        if now != next {
            self.look().await;
        }
        next
    }

    async fn look(&self) {
        let roles = self.0.handle.with_chitchat(|chitchat| self.view(chitchat)).await;
        self.0.roles.send_if_modified(|before| {
            let differs = **before != roles;
            if differs {
                *before = Arc::new(roles);
            }
            differs
        });
    }

    /// What chitchat knows, as members; tells the others whom this process knows.
    fn view(&self, chitchat: &mut chitchat::Chitchat) -> Roles {
        let all = nodes(chitchat);
        let own = all.values().find(|node| node.id == chitchat.self_chitchat_id());
        let told = own.map(|own| passage::told(&own.seen(), all.values().map(Node::seen)));
        let mut roles: BTreeMap<String, Vec<Arc<Member>>> = BTreeMap::new();
        for ((role, _), node) in all {
            let mut member = node.member;
            member.is_alive = member.state.is_taken_as_alive(member.is_alive);
            roles.entry(role.to_owned()).or_default().push(Arc::new(member));
        }
        for (key, told) in told.into_iter().flat_map(|told| [(KNOWS, told.knows), (HEARD_OF, told.heard_of)])
        {
            if chitchat.self_node_state().get(key) != Some(&told) {
                chitchat.self_node_state().set(key, told);
            }
        }
        roles.into_iter().map(|(role, members)| (role, members.into())).collect()
    }
}

/// What one process tells of itself, and whether the failure detector finds it alive.
struct Node<'a> {
    id: &'a ChitchatId,
    role: &'a str,
    member: Member,
    knows: &'a str,
    heard_of: Option<&'a str>,
}

impl<'a> Node<'a> {
    /// `None`: what it tells is not (yet) what a member tells.
    fn new(id: &'a ChitchatId, state: &'a NodeState, is_alive: bool) -> Option<Self> {
        let (role, name) = id.node_id.split_once('/')?;
        let member = Member {
            id: name.into(),
            zone: state.get(ZONE)?.into(),
            address: state.get(ADDRESS)?.into(),
            state: MemberState::parse(state.get(STATE)?)?,
            incarnation: id.generation_id as i64,
            is_alive,
        };
        let (knows, heard_of) = (state.get(KNOWS).unwrap_or_default(), state.get(HEARD_OF));
        Some(Self { id, role, member, knows, heard_of })
    }

    fn seen(&self) -> Seen<'_> {
        let Self { role, member, knows, heard_of, .. } = self;
        let Member { id, zone, state, is_alive, .. } = member;
        Seen { role, id, zone, state: *state, is_alive: *is_alive, knows, heard_of: *heard_of }
    }
}

/// The latest start of every process, by role and id.
fn nodes(chitchat: &chitchat::Chitchat) -> BTreeMap<(&str, Arc<str>), Node<'_>> {
    let alive: Vec<&ChitchatId> = chitchat.live_nodes().collect();
    let mut latest: BTreeMap<(&str, Arc<str>), Node<'_>> = BTreeMap::new();
    for (id, state) in chitchat.node_states() {
        let Some(node) = Node::new(id, state, alive.contains(&id)) else { continue };
        let key = (node.role, node.member.id.clone());
        // A restart: the earlier incarnation is the same member.
        if latest.get(&key).is_none_or(|known| known.member.incarnation < node.member.incarnation) {
            latest.insert(key, node);
        }
    }
    latest
}

#[cfg(test)]
mod tests;
