//! Members with a way to reach them.

use std::sync::Arc;

use tokio::sync::watch;

use crate::Member;

/// A member and its service: a client, or whatever stands for one.
#[derive(Debug)]
pub struct Peer<T> {
    pub member: Arc<Member>,
    pub service: T,
}

impl<T: Clone> Clone for Peer<T> {
    fn clone(&self) -> Self {
        Self { member: self.member.clone(), service: self.service.clone() }
    }
}

/// All members of a role that are known now, in the order of their ids, exchanged as a whole: gossip, a fixed list, the one member
/// of `all` and a simulation feed it alike.
pub type Peers<T> = watch::Receiver<Arc<[Peer<T>]>>;

/// Peers that never change.
pub fn fixed<T>(peers: impl IntoIterator<Item = Peer<T>>) -> Peers<T> {
    watch::Sender::new(peers.into_iter().collect()).subscribe()
}
