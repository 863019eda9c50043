//! The mechanics, over a signal whose head is a list of texts.

use std::collections::BTreeSet;
use std::path::Path;

use futures::TryStreamExt;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio_util::task::AbortOnDropHandle;
use triptych_blob::failing::Fault;
use triptych_blob::object_store::{ObjectStore, ObjectStoreExt, path};
use triptych_blob::{Bucket, FailingBucket};
use triptych_model::Kind as ErrorKind;
use triptych_runtime::{Clock, ManualClock, Shutdown};

use super::*;

mod spool;

struct Texts;

/// What is in the whole blocks of a bucket, by tenant.
type TextStore = Arc<HashMap<TenantId, Vec<String>>>;

#[derive(Clone, Default)]
struct TextHead {
    texts: Arc<Mutex<Vec<String>>>,
    /// Blocks that an earlier flush has completed, and where.
    flushed: Arc<Mutex<Vec<(Bucket, u64)>>>,
}

impl TextHead {
    fn texts(&self) -> Vec<String> {
        self.texts.lock().clone()
    }
}

impl Kind for Texts {
    const SIGNAL: Signal = Signal::Logs;
    type Head = TextHead;
    type Store = TextStore;

    fn new_head(&self, _: &TenantId, _: Spread) -> TextHead {
        TextHead::default()
    }
    fn append(&self, head: &TextHead, plain: &[u8], _: bool) -> Result<PushReport> {
        let text = std::str::from_utf8(plain).map_err(|_| Error::damaged("no text"))?;
        head.texts.lock().push(text.to_owned());
        Ok(PushReport { accepted: 1, ..PushReport::default() })
    }
    fn bytes(&self, head: &TextHead) -> usize {
        head.texts.lock().iter().map(String::len).sum()
    }
    fn items(&self, head: &TextHead) -> usize {
        head.texts.lock().len()
    }
    /// A block, and a second one of texts that begin with `late`; of two objects each, the second makes the first visible.
    fn flush(&self, head: TextHead, tenant: TenantId, bucket: Bucket) -> BoxFuture<'static, Result<Flushed>> {
        Box::pin(async move {
            let (late, other): (Vec<_>, Vec<_>) =
                head.texts().into_iter().partition(|text| text.starts_with("late"));
            for body in [other, late].iter().filter(|texts| !texts.is_empty()).map(|texts| texts.join("\n")) {
                let name = crc(&body);
                if head
                    .flushed
                    .lock()
                    .iter()
                    .any(|(there, done)| Arc::ptr_eq(there, &bucket) && *done == name)
                {
                    continue;
                }
                for (part, body) in [("data", body), ("meta", "done".to_owned())] {
                    let path = path::Path::from(format!("texts/{tenant}/{name}/{part}"));
                    bucket.put(&path, body.into()).await.map_err(triptych_blob::store_error)?;
                }
                head.flushed.lock().push((bucket.clone(), name));
            }
            Ok(Flushed { objects: 2, bytes: 0 })
        })
    }
    fn open_store(&self, bucket: Bucket) -> BoxFuture<'static, Result<TextStore>> {
        Box::pin(async move { Ok(Arc::new(texts_in(&bucket).await)) })
    }
    fn completes(path: &path::Path) -> bool {
        path.filename() == Some("meta")
    }
}

async fn texts_in(bucket: &dyn ObjectStore) -> HashMap<TenantId, Vec<String>> {
    let all: Vec<_> = bucket.list(None).try_collect().await.unwrap();
    let mut texts: HashMap<_, Vec<String>> = HashMap::new();
    for meta in all.iter().filter(|m| Texts::completes(&m.location)) {
        let data = path::Path::from(meta.location.as_ref().replace("/meta", "/data"));
        let body = bucket.get(&data).await.unwrap().bytes().await.unwrap();
        let tenant = TenantId::new(meta.location.parts().nth(1).unwrap().as_ref()).unwrap();
        let lines = std::str::from_utf8(&body).unwrap().lines().map(str::to_owned);
        texts.entry(tenant).or_default().extend(lines);
    }
    texts
}

fn crc(text: &str) -> u64 {
    text.bytes().fold(7, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

fn tenant(number: u8) -> TenantId {
    TenantId::new(&format!("tenant-{number}")).unwrap()
}

impl Generations<Texts> {
    async fn flush_oldest(&self) -> Result<bool> {
        let Some(generation) = self.state.read().frozen.front().map(|c| c.generation.clone()) else {
            return Ok(false);
        };
        self.flush(&generation).await.map(|()| true)
    }
}

/// Time that passes when the test says so, and a time of day that the test sets.
struct Watch {
    steady: Arc<ManualClock>,
    ahead_ns: AtomicI64,
}

impl Watch {
    fn advance(&self, by: Duration) {
        self.steady.advance(by);
    }
}

impl Clock for Watch {
    fn now_ns(&self) -> i64 {
        self.steady.now_ns() + self.ahead_ns.load(Ordering::Relaxed)
    }
    fn elapsed_ns(&self) -> i64 {
        self.steady.now_ns()
    }
}

/// A bucket that outlives processes, a directory that is copied when a process dies, a clock.
struct World {
    dir: tempfile::TempDir,
    bucket: FailingBucket,
    /// On the disk that outlives the process.
    spool: FailingBucket,
    clock: Arc<Watch>,
    config: Config,
    heads_bytes_max: usize,
    when: GenerationConfig,
    zone: crate::Zone,
    /// A process has been here.
    is_old: AtomicBool,
}

const HOUR: Duration = Duration::from_secs(3600);

impl World {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            bucket: FailingBucket::new(triptych_blob::memory(), 1),
            spool: FailingBucket::new(triptych_blob::memory(), 1),
            clock: Arc::new(Watch {
                steady: ManualClock::at_ns(1_000_000_000_000),
                ahead_ns: AtomicI64::new(0),
            }),
            config: Config {
                flush_retry_max: Duration::from_millis(10),
                wal_segment_bytes_max: 5 << 10,
                ..Config::default()
            },
            heads_bytes_max: 1 << 20,
            when: GenerationConfig { age_max: HOUR, bytes_max: 100 << 10, idle_max: HOUR },
            zone: crate::alone(),
            is_old: AtomicBool::new(false),
        }
    }

    /// A process on the directory as it is; the replay is not begun.
    fn open(&self) -> Arc<Generations<Texts>> {
        let wal =
            Wal::open(Arc::new(triptych_wal::OsDisk), self.dir.path(), "test", &self.config.wal(64 << 20))
                .unwrap();
        let shared = Shared {
            config: Arc::new(self.config.clone()),
            bucket: Arc::new(self.bucket.clone()),
            spool: Arc::new(self.spool.clone()),
            disk: DiskBudget::new(self.config.disk_bytes_max, self.dir.path()),
            clock: self.clock.clone(),
            memory: Memory::new(MemoryBudget::new("heads", self.heads_bytes_max)),
            flush_memory: MemoryBudget::new("flushes", 1 << 20),
            flush_pool: Handle::current(),
            zone: self.zone.clone(),
            is_new: !self.is_old.swap(true, Ordering::Relaxed),
            spread: Spread::ALONE.fixed(),
        };
        Arc::new(Generations::new(Texts, self.when.clone(), wal, shared))
    }

    async fn started(&self) -> Arc<Generations<Texts>> {
        let generations = self.open();
        generations.replay(|| false).await.unwrap();
        generations
    }

    /// What a kill leaves: a copy of the directory as it is at this moment.
    async fn kill(&mut self, process: Arc<Generations<Texts>>) -> Arc<Generations<Texts>> {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), copy.path());
        drop(process);
        self.dir = copy;
        self.started().await
    }

    /// Texts of a tenant in blocks that are complete.
    async fn in_bucket(&self, tenant: &TenantId) -> BTreeSet<String> {
        texts_in(&self.bucket).await.remove(tenant).unwrap_or_default().into_iter().collect()
    }
}

fn copy_dir(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn in_memory(process: &Generations<Texts>, tenant: &TenantId) -> Vec<String> {
    let ctx = QueryContext::unlimited(tenant.clone());
    process.heads(&ctx).unwrap().iter().flat_map(TextHead::texts).collect()
}

async fn push(process: &Generations<Texts>, tenant: &TenantId, text: &str) -> Result<PushReport> {
    process.push(tenant, batch::seal(text.as_bytes()), text.as_bytes()).await
}

fn segments(world: &World) -> usize {
    let files = std::fs::read_dir(world.dir.path()).unwrap();
    files.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "wal")).count()
}

#[tokio::test]
async fn from_the_first_append_to_the_last_segment_deleted() {
    let world = World::new();
    let (process, a) = (world.started().await, tenant(0));
    push(&process, &a, "one").await.unwrap();
    assert_eq!(process.rotate(), Some(1));
    assert_eq!(process.rotate(), Some(1), "nothing new to freeze");
    push(&process, &a, "two").await.unwrap();
    assert_eq!(in_memory(&process, &a), ["one", "two"]);
    assert!(in_memory(&process, &tenant(1)).is_empty());

    assert!(process.flush_oldest().await.unwrap());
    assert!(!process.flush_oldest().await.unwrap());
    assert_eq!(world.in_bucket(&a).await, BTreeSet::from(["one".to_owned()]));
    assert_eq!(in_memory(&process, &a), ["one", "two"], "retained");
    world.clock.advance(Duration::from_secs(59));
    process.tick().await;
    assert_eq!(in_memory(&process, &a), ["one", "two"]);
    assert_eq!(segments(&world), 2, "segments go last of all");
    world.clock.advance(Duration::from_secs(1));
    process.tick().await;
    assert_eq!(in_memory(&process, &a), ["two"]);
    assert_eq!(segments(&world), 1);
    assert_eq!(process.memory.used(), 3);

    // Old and idle generations are rotated, untouched ones are not.
    world.clock.advance(HOUR);
    process.tick().await;
    assert!(process.has_frozen());
    process.flush_oldest().await.unwrap();
    world.clock.advance(2 * HOUR);
    process.tick().await;
    assert!(!process.has_frozen());
    assert_eq!((process.memory.used(), segments(&world)), (0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, u16),
    Rotate,
    Flush,
    /// The bucket takes so many more writes, then a flush is tried.
    FlushThatFails(u8),
    Tick(u8),
    Kill,
    FlushAll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..3, 1_u16..2000).prop_map(|(t, l)| Step::Push(t, l)),
        2 => Just(Step::Rotate),
        2 => Just(Step::Flush),
        2 => (0_u8..5).prop_map(Step::FlushThatFails),
        2 => (0_u8..90).prop_map(Step::Tick),
        2 => Just(Step::Kill),
        1 => Just(Step::FlushAll),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever happens in whatever order: what was acknowledged can be read, from memory or the bucket, at every moment; nothing
    /// is in memory twice; what was never sent is nowhere.
    #[test]
    fn nothing_acknowledged_is_lost(steps in prop::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            world.config.wal_fsync = false;
            let mut process = world.started().await;
            let mut acknowledged = vec![BTreeSet::new(); 3];
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(t, length) => {
                        let text = format!("{number:05}{}", "x".repeat(length.into()));
                        push(&process, &tenant(t), &text).await.unwrap();
                        acknowledged[usize::from(t)].insert(text);
                    }
                    Step::Rotate => _ = process.rotate(),
                    Step::Flush => _ = process.flush_oldest().await.unwrap(),
                    Step::FlushThatFails(writes) => {
                        world.bucket.fail_after_writes(writes.into());
                        let _ = process.flush_oldest().await;
                        world.bucket.heal();
                    }
                    Step::Tick(seconds) => {
                        world.clock.advance(Duration::from_secs(seconds.into()));
                        process.tick().await;
                    }
                    Step::Kill => process = world.kill(process).await,
                    Step::FlushAll => {
                        if let Some(id) = process.rotate() {
                            process.flush_upto(id).await;
                        }
                        prop_assert_eq!(process.unflushed(), 0);
                    }
                }
                for t in 0..3 {
                    let in_memory = in_memory(&process, &tenant(t));
                    let mut visible: BTreeSet<String> = in_memory.iter().cloned().collect();
                    prop_assert_eq!(visible.len(), in_memory.len(), "twice in memory");
                    visible.extend(world.in_bucket(&tenant(t)).await);
                    prop_assert_eq!(&visible, &acknowledged[usize::from(t)]);
                }
            }
            Ok(())
        })?;
    }
}

/// The directory is copied while writers run: what was acknowledged before the copy began is in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_middle_of_writes_and_flushes() {
    for round in 0..5 {
        let mut world = World::new();
        world.when.bytes_max = 20 << 10;
        world.config.wal_fsync = false;
        let tasks = Tasks::new(Shutdown::new());
        let process = world.open();
        process.start(&tasks, &Handle::current(), ["a", "b", "c"]);
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let writers: Vec<_> = (0..4)
            .map(|w| {
                let (process, acknowledged) = (process.clone(), acknowledged.clone());
                AbortOnDropHandle::new(tokio::spawn(async move {
                    for i in 0.. {
                        let text = format!("{w}-{i}-{}", "y".repeat(i % 700));
                        if push(&process, &tenant(0), &text).await.is_ok() {
                            acknowledged.lock().insert(text);
                        } else {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                }))
            })
            .collect();
        while acknowledged.lock().len() < 100 + 150 * round {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = acknowledged.lock().clone();
        let copy = tempfile::tempdir().unwrap();
        // A file that is deleted while the directory is copied was in the bucket before.
        for entry in std::fs::read_dir(world.dir.path()).unwrap().flatten() {
            let _ = std::fs::copy(entry.path(), copy.path().join(entry.file_name()));
        }
        drop(writers);
        tasks.shutdown().trigger();
        assert!(tasks.drained(Duration::from_secs(5)).await);
        drop(process);
        world.dir = copy;
        let process = world.started().await;
        let mut visible: BTreeSet<_> = in_memory(&process, &tenant(0)).into_iter().collect();
        visible.extend(world.in_bucket(&tenant(0)).await);
        let lost: Vec<_> = before.difference(&visible).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}

#[tokio::test]
async fn refused_over_the_memory_budget_with_numbers() {
    let mut world = World::new();
    world.heads_bytes_max = 10_000;
    world.when.bytes_max = usize::MAX;
    let process = world.started().await;
    world.bucket.fail(Fault::default());
    let text = "z".repeat(1000);
    let (mut refused, mut taken) = (None, 0);
    for _ in 0..20 {
        process.tick().await;
        if let Err(error) = push(&process, &tenant(0), &text).await {
            refused = Some(error);
            break;
        }
        taken += 1;
        assert!(process.memory.used() <= 10_000);
    }
    let refused = refused.unwrap();
    assert_eq!(refused.kind, ErrorKind::Exhausted);
    assert!(refused.retry_after.is_some());
    assert!(
        refused.to_string().contains("of 10000 bytes") && refused.to_string().contains("generations wait"),
        "{refused}"
    );
    assert!(process.flush_oldest().await.is_err(), "the bucket is away");
    assert!(taken >= 8, "alone a tenant may hold eight ninths: {taken}");
    assert_eq!(in_memory(&process, &tenant(0)).len(), taken, "and all of it is still here");

    // The bucket comes back, and all goes on.
    world.bucket.heal();
    process.flush_upto(u64::MAX).await;
    world.clock.advance(HOUR);
    process.tick().await;
    push(&process, &tenant(0), &text).await.unwrap();
}

#[tokio::test]
async fn a_flush_is_tried_again_and_done_tenants_are_not() {
    let world = World::new();
    let process = world.started().await;
    for t in 0..3 {
        push(&process, &tenant(t), &format!("of {t}")).await.unwrap();
    }
    let id = process.rotate().unwrap();
    world.bucket.fail(Fault { path: "tenant-1".into(), ..Fault::default() });
    let error = process.flush_oldest().await.unwrap_err();
    assert!(error.to_string().contains("tenant-1"), "{error}");
    let writes = world.bucket.writes();
    assert!(process.flush_oldest().await.is_err());
    assert_eq!(world.bucket.writes() - writes, 1, "only the tenant that failed");

    // While it fails it is tried again and again, and it ends when the bucket is back.
    let flush = process.flush_upto(id);
    let heal = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.bucket.heal();
    };
    tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(flush, heal) }).await.unwrap();
    for t in 0..3 {
        assert_eq!(world.in_bucket(&tenant(t)).await.len(), 1);
    }
}

/// One that has just come holds nothing, and says so from the first moment; one that was there before has to replay first.
#[tokio::test]
async fn who_is_new_answers_at_once() {
    let world = World::new();
    let ctx = QueryContext::unlimited(tenant(0));
    let process = world.open();
    assert_eq!(process.heads(&ctx).unwrap().len(), 0);
    drop(process);
    // What it had may all be in the spool, and none of it in the log.
    let refused = world.open().heads(&ctx).err().unwrap();
    assert!(refused.to_string().contains("being replayed"), "{refused}");
    let process = world.started().await;
    push(&process, &tenant(0), "first").await.unwrap();
    drop(process);
    let refused = world.open().heads(&ctx).err().unwrap();
    assert!(refused.to_string().contains("being replayed"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_needs_no_more_memory_than_allowed() {
    let mut world = World::new();
    world.when.bytes_max = 1 << 20;
    let process = world.started().await;
    let texts: BTreeSet<String> = (0..200).map(|i| format!("{i:04}{}", "w".repeat(1000))).collect();
    for text in &texts {
        push(&process, &tenant(0), text).await.unwrap();
    }
    drop(process);

    world.heads_bytes_max = 40_000;
    let process = world.open();
    assert!(push(&process, &tenant(0), "early").await.unwrap_err().retry_after.is_some());
    let ctx = QueryContext::unlimited(tenant(0));
    let early = process.heads(&ctx).err().unwrap();
    assert!(early.to_string().contains("being replayed"), "{early}");
    let tasks = Tasks::new(Shutdown::new());
    process.start(&tasks, &Handle::current(), ["a", "b", "c"]);
    let mut most = 0;
    while !process.is_replayed() {
        most = most.max(process.memory.used());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(most > 10_000 && most <= 40_000, "{most}");
    let mut visible: BTreeSet<_> = in_memory(&process, &tenant(0)).into_iter().collect();
    visible.extend(world.in_bucket(&tenant(0)).await);
    assert_eq!(visible, texts);
    tasks.shutdown().trigger();
}

#[tokio::test]
async fn records_that_cannot_be_read_are_skipped() {
    let world = World::new();
    let process = world.started().await;
    push(&process, &tenant(0), "good").await.unwrap();
    for bad in
        [&b"\x07"[..], b"\x01\x02..zzzz", b"\x01\x08tenant-0\xff\xff\xff\xffhuge", b"\x01\x08tenant-0x"]
    {
        let permit = process.wal.try_reserve(bad.len()).unwrap();
        process.wal.enqueue(permit, [Bytes::new(), Bytes::from_static(bad)]).unwrap().await.unwrap();
    }
    push(&process, &tenant(0), "also good").await.unwrap();
    drop(process);
    let process = world.started().await;
    assert_eq!(in_memory(&process, &tenant(0)), ["good", "also good"]);
}

#[tokio::test]
async fn writes_are_refused_at_the_end() {
    let world = World::new();
    let process = world.started().await;
    push(&process, &tenant(0), "in time").await.unwrap();
    process.refuse_writes();
    let late = push(&process, &tenant(0), "late").await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::Unavailable);
    process.flush_upto(process.rotate().unwrap()).await;
    process.close().await;
    assert!(
        segments(&world) > 0,
        "the next process answers for it until the store-gateways have seen the block"
    );
    assert_eq!(in_memory(&process, &tenant(0)), ["in time"], "readable to the end");
}

#[tokio::test]
async fn who_follows_the_current_head_is_told_of_rotations() {
    let world = World::new();
    let process = world.started().await;
    let ctx = QueryContext::unlimited(tenant(0));
    let (_, head, mut rotations) = process.follow(&ctx).unwrap();
    assert!(!rotations.has_changed().unwrap());
    push(&process, &tenant(0), "one").await.unwrap();
    assert_eq!(head.texts(), ["one"]);
    process.rotate();
    rotations.changed().await.unwrap();
    let ((older, _), next, _) = process.follow(&ctx).unwrap();
    assert_eq!((older.len(), next.texts().len()), (1, 0));
}

#[tokio::test]
async fn who_does_not_know_the_zone_gets_no_answer_for_it() {
    let mut world = World::new();
    let zone = tokio::sync::watch::Sender::new(Arc::from(["ingester-0".into(), "ingester-1".into()]));
    world.zone = zone.subscribe();
    let process = world.started().await;
    let asked = |names: &[&str]| {
        let members = names.iter().map(|name| (*name).into()).collect();
        let share = triptych_model::Share::new(members, 0).unwrap();
        process.heads(&QueryContext::unlimited(tenant(0)).with_share(share)).map(|heads| heads.len())
    };
    assert!(asked(&["ingester-0", "ingester-1", "ingester-2"]).is_ok());
    let refused = asked(&["ingester-0", "ingester-2"]).unwrap_err();
    assert_eq!(refused.kind, triptych_model::Kind::Unavailable);
    assert!(refused.to_string().contains("ingester-1"), "{refused}");
    zone.send_replace(Arc::from(["ingester-0".into()]));
    assert!(asked(&["ingester-0", "ingester-2"]).is_ok());
}

#[tokio::test]
async fn a_time_of_day_that_jumps_changes_no_age() {
    let world = World::new();
    let process = world.started().await;
    push(&process, &tenant(0), "one").await.unwrap();
    // A day back: what is old enough is flushed all the same, and not kept for a day more.
    world.clock.ahead_ns.store(-24 * HOUR.as_nanos() as i64, Ordering::Relaxed);
    world.clock.advance(HOUR);
    process.tick().await;
    assert!(process.flush_oldest().await.unwrap());
    world.clock.advance(process.config.retain_after_flush);
    process.tick().await;
    assert_eq!((in_memory(&process, &tenant(0)).len(), segments(&world)), (0, 0));
    // A day ahead: nothing is old before its time.
    push(&process, &tenant(0), "two").await.unwrap();
    world.clock.ahead_ns.store(24 * HOUR.as_nanos() as i64, Ordering::Relaxed);
    process.tick().await;
    assert!(!process.has_frozen());
}
