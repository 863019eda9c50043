use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};

use futures::TryStreamExt;
use tokio::sync::watch;
use triptych_blob::FailingBucket;
use triptych_blob::failing::Fault;
use triptych_blob::object_store::{ObjectStore, ObjectStoreExt};
use triptych_ring::{Member, Members};
use triptych_runtime::Clock;

use super::*;

/// Looks on when it is asked for the time: at the beginning of each tenant's turn.
#[derive(Debug, Default)]
struct Turns(AtomicI64);

impl Clock for Turns {
    fn now_ns(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed);
        4_000_000_000_000_000_000
    }
}

fn compactor(bucket: &Bucket, members: Members, node: &str) -> (Compactor, Arc<Turns>) {
    let clock = Arc::new(Turns::default());
    let deps = Deps {
        bucket: bucket.clone(),
        limits: TenantLimits::new(&Limits::default(), &BTreeMap::new()).unwrap(),
        clock: clock.clone(),
        pools: Handles::current(),
        memory: MemoryBudget::new("compaction", 64 << 20),
        ownership: Ownership::among(members, node),
        node: node.to_owned(),
    };
    (Config::default().build(deps), clock)
}

fn members(names: &[&str]) -> Arc<[Arc<Member>]> {
    names.iter().map(|name| Arc::new(Member::new(name, "", ""))).collect()
}

/// What an upload that died left behind, for each of some tenants: the first round removes it.
async fn fill(bucket: &Bucket) -> usize {
    let tenants = 20;
    for i in 0..tenants {
        let path = Path::from(format!("metrics/tenant-{i}/01ARZ3NDEKTSV4RRFFQ69G5FAV/index"));
        bucket.put(&path, "left behind".into()).await.unwrap();
    }
    tenants
}

async fn left(bucket: &Bucket) -> BTreeSet<String> {
    let all: Vec<_> = bucket.list(None).try_collect().await.unwrap();
    all.into_iter().map(|object| object.location.to_string()).collect()
}

#[tokio::test]
async fn tenants_are_shared_out() {
    let bucket = triptych_blob::memory();
    let tenants = fill(&bucket).await;
    let (_sender, heard) = watch::channel(members(&["a", "b"]));
    let ((a, _), (b, _)) = (compactor(&bucket, heard.clone(), "a"), compactor(&bucket, heard, "b"));
    let first = a.round().await.unwrap().removed;
    assert!(first > 0 && first < tenants, "{first}");
    assert_eq!(left(&bucket).await.len(), tenants - first);
    assert_eq!(a.round().await.unwrap(), Done::default(), "the rest is not its own");
    assert_eq!(b.round().await.unwrap().removed, tenants - first);
    assert_eq!(left(&bucket).await, BTreeSet::new(), "the probes too are gone");
}

/// The tenant changes hands after its turn began: nothing is written any more, and that is no failure.
#[tokio::test]
async fn what_was_taken_over_is_left_alone() {
    let failing = FailingBucket::new(triptych_blob::memory(), 1);
    let bucket: Bucket = Arc::new(failing.clone());
    let tenants = fill(&bucket).await;
    let (sender, heard) = watch::channel(members(&["a"]));
    let (a, turns) = compactor(&bucket, heard.clone(), "a");
    a.probe().await;
    let before = failing.writes();
    failing.hesitate(8);
    let round = tokio::spawn(async move { a.round().await });
    while turns.0.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    sender.send_replace(members(&["b"]));
    assert_eq!(round.await.unwrap().unwrap(), Done::default());
    assert_eq!(turns.0.load(Ordering::Relaxed), 1, "the other tenants had no turn");
    assert_eq!((failing.writes(), left(&bucket).await.len()), (before, tenants));
    // Who owns it now does the work.
    let (b, _) = compactor(&bucket, heard, "b");
    assert_eq!(b.round().await.unwrap().removed, tenants);
}

#[tokio::test]
async fn the_bucket_is_probed_until_it_has_answered() {
    let failing = FailingBucket::new(triptych_blob::memory(), 1);
    let bucket: Bucket = Arc::new(failing.clone());
    let (_sender, heard) = watch::channel(members(&["a"]));
    let (a, _) = compactor(&bucket, heard, "a");
    failing.fail(Fault::default());
    assert!(!a.probe().await);
    failing.heal();
    assert!(a.probe().await);
    failing.ignore_conditions();
    assert!(a.probe().await, "asked once");
}
