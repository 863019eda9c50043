//! Who is there, and who keeps what.
//!
//! **Owns** members and their states, where a hash goes ([`Placement`]), who does what is to be done once ([`Ownership`]), whether what
//! answered makes a read whole ([`Coverage`]).
//! **Must not know** what is written or read, protocols between services, tenants beyond their name.
//!
//! | module | |
//! |---|---|
//! | [`member`] | a process of a role as the others see it |
//! | [`placement`] | hash -> shard -> replica set; shuffle sharding |
//! | [`spread`] | what part of a tenant's limits one member keeps |
//! | [`ownership`] | key -> the one member that works on it |
//! | [`coverage`] | which failures a read survives |
//! | [`passage`] | how a member comes in, and how it goes |
//! | [`peers`] | members with a way to reach them, exchanged as a whole |
//! | [`gossip`] | membership: the only module with I/O |
//!
//! # Words
//! A *member* is one process of one role. A *zone* is what may fail together; members that name none are zones of their own. A
//! *shard* is a 4096th of the space of hashes. A *replica set* is the members that keep a shard: one of each of as many
//! zones as the *replication factor* says. A *quorum* is more than half of these.
//!
//! # Why rendezvous hashing
//! Every shard ranks all members by a hash of (shard, member) and takes the first. No tokens to choose, store or collide; a member
//! that comes or goes moves only the shards it wins or had; two processes with the same view agree without talking.
//! Members are ranked by the number at the end of their name (`ingester-b-2`: 2), so that zones with equal numbers mirror each other:
//! a write over *n* members per zone then makes *n* batches, not *n*³.
//!
//! # Consistency
//! Views differ between processes for as long as gossip takes, and for as long as a partition lasts. Nothing here relies on equal
//! views: a write counts zones that took it, a read counts zones that answered whole, and two quorums of zones meet; what is owned is
//! done so that twice does no harm.

pub mod coverage;
pub mod gossip;
pub mod member;
pub mod ownership;
pub mod passage;
pub mod peers;
pub mod placement;
pub mod spread;

pub use coverage::Coverage;
pub use gossip::{Gossip, GossipConfig, Members, Myself};
pub use member::{Member, MemberState};
pub use ownership::Ownership;
pub use peers::{Peer, Peers};
pub use placement::{Placement, ReplicaSet, Replication, SHARDS, subset};
pub use spread::Spread;
