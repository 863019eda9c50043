//! Which blocks this store-gateway is going to be asked for, as the ring shows it. For opening them in time, and for nothing else: what is
//! answered is decided by each question's own [`Share`].

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use triptych_config::TenantLimits;
use triptych_model::{Share, TenantId};
use triptych_ring::Members;

/// How far down the order of a block's members its index is kept open: its owner, and who stands in for that one.
pub(crate) const PLACES: usize = 2;

pub(crate) struct Ring {
    pub node: Arc<str>,
    pub members: Members,
    /// When the others have been heard of: before, this store-gateway would seem to own everything.
    pub known_at: Instant,
    pub limits: TenantLimits,
}

/// Who would be asked now if this store-gateway were active.
pub(crate) struct View {
    members: Vec<Arc<str>>,
    node: Arc<str>,
    limits: TenantLimits,
    shares: Mutex<HashMap<TenantId, Option<Share>>>,
}

impl Ring {
    /// As it is now, or as soon as the others are known.
    pub async fn view(&self) -> View {
        sleep_until(self.known_at).await;
        self.now()
    }

    fn now(&self) -> View {
        let known = self.members.borrow().clone();
        let others = known.iter().filter(|m| m.is_serving());
        let mut members: Vec<_> = others.map(|m| m.id.clone()).chain([self.node.clone()]).collect();
        members.sort();
        members.dedup();
        let (node, limits) = (self.node.clone(), self.limits.clone());
        View { members, node, limits, shares: Mutex::default() }
    }
}

impl View {
    /// Whether questions of the tenant come here at all.
    pub fn is_asked(&self, tenant: &TenantId) -> bool {
        self.of(tenant, Option::is_some)
    }

    /// This store-gateway's place in the order of a key's members. `None`: it is not asked.
    pub fn place(&self, tenant: &TenantId, key: &[u8]) -> Option<usize> {
        self.of(tenant, |share| share.as_ref().map(|share| share.place(key)))
    }

    fn of<T>(&self, tenant: &TenantId, look: impl Fn(&Option<Share>) -> T) -> T {
        let mut shares = self.shares.lock();
        if let Some(share) = shares.get(tenant) {
            return look(share);
        }
        look(shares.entry(tenant.clone()).or_insert(self.share(tenant)))
    }

    fn share(&self, tenant: &TenantId) -> Option<Share> {
        let all: Vec<&Arc<str>> = self.members.iter().collect();
        let asked = triptych_ring::subset(&all, tenant.as_str(), self.limits.of(tenant).store_gateways_max);
        let asked: Arc<[Arc<str>]> = asked.into_iter().map(|at| all[at].clone()).collect();
        let mine = asked.iter().position(|member| *member == self.node)?;
        Share::new(asked, mine)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::watch;
    use triptych_config::Limits;
    use triptych_ring::Member;

    use super::*;

    fn ring(node: &str, others: &[&str], store_gateways_max: usize) -> Ring {
        let members: Arc<[_]> = others.iter().map(|id| Arc::new(Member::new(id, "", ""))).collect();
        let limits = Limits { store_gateways_max, ..Limits::default() };
        Ring {
            node: node.into(),
            members: watch::Sender::new(members).subscribe(),
            known_at: Instant::now(),
            limits: TenantLimits::new(&limits, &BTreeMap::new()).unwrap(),
        }
    }

    #[test]
    fn all_of_a_key_have_their_places() {
        let names = ["s-0", "s-1", "s-2"];
        let views = names.map(|name| ring(name, &names, 0).now());
        for key in 0..50_u8 {
            let mut places = views.each_ref().map(|view| view.place(&TenantId::single(), &[key]).unwrap());
            places.sort_unstable();
            assert_eq!(places, [0, 1, 2]);
        }
        // One that joins counts itself in, and nobody else that joins or died.
        let alone = ring("s-0", &[], 0).now();
        assert!((0..50_u8).all(|key| alone.place(&TenantId::single(), &[key]) == Some(0)));
    }

    #[test]
    fn a_small_tenant_is_not_everybodys() {
        let names = ["s-0", "s-1", "s-2", "s-3", "s-4"];
        let views = names.map(|name| ring(name, &names, 2).now());
        for tenant in ["a", "b", "c"].map(|name| TenantId::new(name).unwrap()) {
            let asked: Vec<_> = views.iter().filter(|view| view.is_asked(&tenant)).collect();
            assert_eq!(asked.len(), 2);
            let owners = asked.iter().filter(|view| view.place(&tenant, b"block") == Some(0));
            assert_eq!(owners.count(), 1);
        }
    }
}
