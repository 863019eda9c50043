use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use triptych_ring::MemberState;
use triptych_runtime::MemoryBudget;

use super::*;

type Answer = fn() -> Result<PushReport>;

/// An ingester that answers as it is told.
struct Fake {
    asked: AtomicUsize,
    answer: Answer,
    pause: Duration,
}

#[async_trait]
impl Ingest for Fake {
    async fn push(&self, _: &WriteContext, _: Signal, _: Bytes) -> Result<PushReport> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.pause).await;
        (self.answer)()
    }
}

fn takes() -> Result<PushReport> {
    Ok(PushReport { accepted: 10, ..PushReport::default() })
}

fn refuses_three() -> Result<PushReport> {
    let mut report = PushReport { accepted: 7, ..PushReport::default() };
    report.refuse("too_old", 3, || "too old".to_owned());
    Ok(report)
}

fn down() -> Result<PushReport> {
    Err(Error::unavailable("connection refused"))
}

fn full() -> Result<PushReport> {
    Err(Error::exhausted("memory: 9 of 9 bytes").retry_after(Duration::from_secs(7)))
}

/// One or more per zone: `a`, `a`, `b`: `ingester-a-0`, `ingester-a-1`, `ingester-b-2`.
struct Cluster {
    fakes: Vec<Arc<Fake>>,
    router: Router,
    budget: MemoryBudget,
}

fn cluster(members: &[(&str, Answer)]) -> Cluster {
    paused(members, Duration::ZERO)
}

fn paused(members: &[(&str, Answer)], last: Duration) -> Cluster {
    let fakes: Vec<Arc<Fake>> = members
        .iter()
        .enumerate()
        .map(|(i, (_, answer))| {
            let pause = if i + 1 == members.len() { last } else { Duration::ZERO };
            Arc::new(Fake { asked: AtomicUsize::new(0), answer: *answer, pause })
        })
        .collect();
    let peers = members.iter().enumerate().map(|(i, (zone, _))| Peer {
        member: Arc::new(Member::new(&format!("ingester-{zone}-{i}"), zone, "")),
        service: fakes[i].clone() as Arc<dyn Ingest>,
    });
    let ingesters = triptych_ring::peers::fixed(peers);
    let router = Router::new(ingesters, Replication::new(3), Duration::from_secs(10));
    Cluster { fakes, router, budget: MemoryBudget::new("test", 1000) }
}

impl Cluster {
    async fn push(&self) -> Result<PushReport> {
        let route = self.router.route(&TenantId::single(), 0);
        let ctx = WriteContext { tenant: TenantId::single() };
        let memory = Arc::new(self.budget.reserve(100).unwrap());
        self.router.push(&route, 0, &ctx, Signal::Metrics, Bytes::from_static(b"x"), &memory).await
    }

    fn asked(&self) -> Vec<usize> {
        self.fakes.iter().map(|fake| fake.asked.load(Ordering::SeqCst)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_quorum_of_zones_takes_it() {
    let all = cluster(&[("a", takes), ("b", takes), ("c", takes)]);
    assert_eq!(all.push().await.unwrap().accepted, 10);
    let one_down = cluster(&[("a", takes), ("b", down), ("c", takes)]);
    assert_eq!(one_down.push().await.unwrap().accepted, 10);
    assert_eq!(one_down.asked(), [1, 1, 1]);

    let two_down = cluster(&[("a", takes), ("b", down), ("c", down)]);
    let error = two_down.push().await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable);
    assert!(error.retry_after.is_some());
    let text = error.to_string();
    assert!(text.starts_with("ingesters in 2 of 3 zones must take a write, 1 did: ingester-"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_reads_as_one() {
    let error = cluster(&[("a", down), ("b", full), ("c", takes)]).push().await.unwrap_err();
    assert_eq!((error.kind, error.retry_after), (Kind::Exhausted, Some(Duration::from_secs(2))));
    assert!(error.to_string().contains("memory: 9 of 9 bytes"));
}

#[tokio::test(start_paused = true)]
async fn what_is_slow_is_not_waited_for() {
    let slow = paused(&[("a", takes), ("b", takes), ("c", takes)], Duration::from_secs(5));
    let began = tokio::time::Instant::now();
    slow.push().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(slow.budget.used(), 100, "the slow one still holds the batch");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(slow.budget.used(), 0);

    // Longer than the timeout, and needed: its failure is the write's.
    let hung = paused(&[("a", takes), ("b", down), ("c", takes)], Duration::from_secs(60));
    let text = hung.push().await.unwrap_err().to_string();
    assert!(began.elapsed() < Duration::from_secs(30) && text.contains("1 did"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn another_one_of_the_zone_stands_in() {
    let both = cluster(&[("a", down), ("a", takes), ("b", takes), ("c", down)]);
    assert_eq!(both.push().await.unwrap().accepted, 10);
    let asked = both.asked();
    assert_eq!((asked[1], asked[2]), (1, 1), "{asked:?}");
    assert!(both.router.is_ready());
}

#[tokio::test(start_paused = true)]
async fn refused_by_one_is_refused() {
    let report = cluster(&[("a", refuses_three), ("b", takes), ("c", down)]).push().await.unwrap();
    assert_eq!((report.accepted, report.refused_items()), (7, 3));
}

#[tokio::test(start_paused = true)]
async fn too_few_zones_are_not_asked() {
    let few = cluster(&[("a", takes), ("a", takes)]);
    let text = few.push().await.unwrap_err().to_string();
    assert_eq!(
        text,
        "ingesters in 2 of 3 zones must take a write, and only 1 can be written to now; try again"
    );
    assert_eq!(few.asked(), [0, 0]);
    assert!(!few.router.is_ready());
    let text = cluster(&[]).push().await.unwrap_err().to_string();
    assert_eq!(text, "ingesters in 2 of 3 zones must take a write, and there is none; try again");
}

#[tokio::test]
async fn a_changed_view_makes_new_routes() {
    let member = |state| Peer {
        member: Arc::new(Member { state, ..Member::new("ingester-0", "a", "") }),
        service: Arc::new(Fake { asked: AtomicUsize::new(0), answer: takes, pause: Duration::ZERO })
            as Arc<dyn Ingest>,
    };
    let sender = tokio::sync::watch::Sender::new(Arc::from([member(MemberState::Joining)]));
    let router = Router::new(sender.subscribe(), Replication::new(1), Duration::from_secs(1));
    assert!(!router.is_ready());
    let before = router.route(&TenantId::single(), 0);
    assert!(Arc::ptr_eq(&before, &router.route(&TenantId::single(), 0)));
    sender.send_replace(Arc::from([member(MemberState::Active)]));
    assert!(router.is_ready());
    assert!(!Arc::ptr_eq(&before, &router.route(&TenantId::single(), 0)));
}
