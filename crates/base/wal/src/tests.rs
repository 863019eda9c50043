use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::BoxFuture;
use proptest::prelude::*;
use triptych_model::Kind;

use super::*;
use crate::disk::{SegmentFile, StoredFile};
use crate::segment::{FRAME_HEADER_BYTES, PAGE_BYTES};

fn config(segment_bytes_max: u64) -> WalConfig {
    WalConfig { segment_bytes_max, ..WalConfig::default() }
}

fn enqueue(wal: &Wal, payload: &[u8]) -> Ticket {
    let (a, b) = payload.split_at(payload.len() / 3);
    let permit = wal.try_reserve(payload.len()).unwrap();
    wal.enqueue(permit, [Bytes::copy_from_slice(a), Bytes::copy_from_slice(b)]).unwrap()
}

fn replayed(dir: &Path) -> (Vec<(SegmentId, Bytes)>, ReplayReport) {
    let (_wal, mut replay) = Wal::open(Arc::new(OsDisk), dir, "test", &config(1 << 20)).unwrap();
    let frames = replay.by_ref().collect();
    (frames, replay.report().clone())
}

/// Distinct payloads: the number, then filling.
fn payload(number: usize, length: usize) -> Vec<u8> {
    let mut bytes = (number as u32).to_le_bytes().to_vec();
    bytes.resize(length.max(4), (number % 251) as u8);
    bytes
}

fn files(dir: &Path) -> Vec<u64> {
    segment::list(&OsDisk, dir).unwrap().iter().map(|stored| stored.id.0).collect()
}

#[test]
fn frames_come_back_in_order_and_segments_roll() {
    let dir = tempfile::tempdir().unwrap();
    let sent: Vec<_> = (0..100).map(|i| payload(i, i * 13 % 700)).collect();
    {
        let (wal, replay) = Wal::open(Arc::new(OsDisk), dir.path(), "test", &config(16 << 10)).unwrap();
        assert_eq!((replay.last_segment(), replay.count()), (None, 0));
        assert!(files(dir.path()).is_empty(), "segments are created when needed");
        let tickets: Vec<_> = sent.iter().map(|p| enqueue(&wal, p)).collect();
        for ticket in tickets {
            block_on(ticket).unwrap();
        }
        assert_eq!(wal.queued_bytes(), 0);
        assert!(wal.disk_bytes() > 30_000);
    }
    let (frames, report) = replayed(dir.path());
    assert_eq!(frames.iter().map(|(_, p)| p.to_vec()).collect::<Vec<_>>(), sent);
    assert!(frames.is_sorted_by_key(|(id, _)| *id));
    assert!(report.segments >= 3, "{report:?}");
    assert_eq!((report.frames, report.torn_bytes, report.damages), (100, 0, 0));
    assert!(segment::list(&OsDisk, dir.path()).unwrap().iter().all(|stored| stored.bytes <= 16 << 10));
}

#[test]
fn a_frame_larger_than_a_segment_or_the_queue_goes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let config = WalConfig { segment_bytes_max: 8192, queue_bytes_max: 1000, fsync: true };
    let (wal, _) = Wal::open(Arc::new(OsDisk), dir.path(), "test", &config).unwrap();
    for length in [10, 3 << 20, 10] {
        let bytes = vec![7; length];
        block_on(async {
            let permit = wal.reserve(bytes.len()).await.unwrap();
            wal.enqueue(permit, [Bytes::new(), bytes.into()]).unwrap().await.unwrap();
        });
    }
    drop(wal);
    let (frames, _) = replayed(dir.path());
    assert_eq!(
        frames.iter().map(|(id, p)| (id.0, p.len())).collect::<Vec<_>>(),
        [(1, 10), (2, 3 << 20), (3, 10)]
    );
}

#[test]
fn what_is_before_a_cut_can_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(Arc::new(OsDisk), dir.path(), "test", &config(1 << 20)).unwrap();
    let empty = wal.cut();
    let first = enqueue(&wal, b"first");
    let cut = wal.cut();
    let second = enqueue(&wal, b"second");
    block_on(async { (first.await.unwrap(), second.await.unwrap()) });
    assert_eq!((empty.segment(), cut.segment()), (Some(SegmentId(0)), Some(SegmentId(1))));
    wal.truncate(&empty).unwrap();
    assert_eq!(files(dir.path()), [1, 2]);
    wal.truncate(&cut).unwrap();
    wal.truncate(&cut).unwrap();
    assert_eq!(files(dir.path()), [2]);
    let open = wal.truncate(&SegmentId(2).into()).unwrap_err();
    assert_eq!(open.kind, Kind::Internal, "an open segment is never deleted");
    drop(wal);

    // A new process does not write where the old one did, and deletes what it has replayed.
    let (wal, mut replay) = Wal::open(Arc::new(OsDisk), dir.path(), "test", &config(1 << 20)).unwrap();
    assert_eq!(replay.next(), Some((SegmentId(2), Bytes::from_static(b"second"))));
    block_on(enqueue(&wal, b"third")).unwrap();
    assert_eq!(replay.next(), None);
    wal.truncate(&replay.last_segment().unwrap().into()).unwrap();
    assert_eq!(files(dir.path()), [3]);
    block_on(wal.close());
    assert_eq!(wal.try_reserve(1).unwrap_err().kind, Kind::Unavailable);
}

#[test]
fn only_one_process_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let first = Wal::open(Arc::new(OsDisk), dir.path(), "test", &config(1 << 20)).unwrap();
    assert_eq!(
        Wal::open(Arc::new(OsDisk), dir.path(), "test", &config(1 << 20)).unwrap_err().kind,
        Kind::Conflict
    );
    drop(first);
    Wal::open(Arc::new(OsDisk), dir.path(), "test", &config(1 << 20)).unwrap();
}

#[test]
fn a_full_queue_refuses_with_numbers_or_waits() {
    let dir = tempfile::tempdir().unwrap();
    let config = WalConfig { queue_bytes_max: 100, ..WalConfig::default() };
    let (wal, _) = Wal::open(Arc::new(OsDisk), dir.path(), "test", &config).unwrap();
    let held = wal.try_reserve(60).unwrap();
    let refused = wal.try_reserve(50).unwrap_err();
    assert_eq!(refused.kind, Kind::Unavailable);
    assert!(refused.retry_after.is_some());
    assert_eq!(
        refused.to_string(),
        "test WAL: the disk is behind: 60 of 100 bytes of the queue are waiting for it, 50 more are wanted"
    );
    let waiting = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| block_on(wal.reserve(50)));
        #[expect(clippy::disallowed_methods, reason = "real threads")]
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiter.is_finished());
        drop(held);
        waiter.join().unwrap()
    });
    assert!(waiting.is_ok());
    for bytes in [0, PAYLOAD_BYTES_MAX + 1] {
        assert_eq!(wal.try_reserve(bytes).unwrap_err().kind, Kind::Invalid);
    }
    let short = wal.try_reserve(3).unwrap();
    let too_long = wal.enqueue(short, [Bytes::from_static(b"ab"), Bytes::from_static(b"cd")]).unwrap_err();
    assert_eq!(too_long.kind, Kind::Internal);
}

/// A disk that is full after some bytes, and that can refuse to sync.
#[derive(Debug)]
struct SmallDisk {
    left: Arc<AtomicI64>,
    sync_fails: Arc<AtomicBool>,
}

struct SmallFile {
    file: Box<dyn SegmentFile>,
    left: Arc<AtomicI64>,
    sync_fails: Arc<AtomicBool>,
}

impl SegmentFile for SmallFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.left.fetch_sub(bytes.len() as i64, Ordering::SeqCst);
        if left < bytes.len() as i64 {
            self.file.write_all(&bytes[..left.max(0) as usize])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(bytes)
    }
    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        if self.sync_fails.load(Ordering::SeqCst) {
            return async { Err(io::Error::other("sync failed")) }.boxed();
        }
        self.file.sync()
    }
    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

impl Disk for SmallDisk {
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Debug + Send + Sync>> {
        OsDisk.lock(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
        OsDisk.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn StoredFile>> {
        OsDisk.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let (left, sync_fails) = (self.left.clone(), self.sync_fails.clone());
        Ok(Box::new(SmallFile { file: OsDisk.create(path)?, left, sync_fails }))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsDisk.sync_dir(dir)
    }
    fn run(&self, name: String, writer: BoxFuture<'static, ()>) -> io::Result<Option<JoinHandle<()>>> {
        OsDisk.run(name, writer)
    }
}

#[test]
fn a_full_disk_fails_tickets_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let left = Arc::new(AtomicI64::new(3 * PAGE_BYTES as i64));
    let sync_fails = Arc::new(AtomicBool::new(false));
    let disk = SmallDisk { left: left.clone(), sync_fails: sync_fails.clone() };
    let (wal, _) = Wal::open(Arc::new(disk), dir.path(), "test", &config(1 << 20)).unwrap();
    let mut acknowledged = Vec::new();
    let mut number = 0;
    let mut push = |acknowledged: &mut Vec<Vec<u8>>| {
        number += 1;
        let sent = payload(number, 1500);
        let done = block_on(enqueue(&wal, &sent));
        if done.is_ok() {
            acknowledged.push(sent);
        }
        done
    };
    let full = (0..20).find_map(|_| push(&mut acknowledged).err()).unwrap();
    assert_eq!(full.kind, Kind::Unavailable);
    assert!(full.to_string().contains("test WAL: the write failed"), "{full}");
    assert!(acknowledged.len() > 1);
    assert!(push(&mut acknowledged).is_err(), "still full");
    left.store(1 << 20, Ordering::SeqCst);
    push(&mut acknowledged).unwrap();
    sync_fails.store(true, Ordering::SeqCst);
    assert!(push(&mut acknowledged).is_err());
    assert!(push(&mut acknowledged).is_err(), "no new segment either");
    sync_fails.store(false, Ordering::SeqCst);
    push(&mut acknowledged).unwrap();
    drop(wal);

    let (frames, report) = replayed(dir.path());
    let frames: Vec<_> = frames.into_iter().map(|(_, p)| p.to_vec()).collect();
    assert_eq!(frames, acknowledged, "{report:?}");
    assert_eq!(report.damages, 0, "{report:?}");
}

#[test]
fn frames_inside_a_payload_are_not_found() {
    // The bytes of a whole segment, as the payload of a frame whose own header is then damaged.
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(Arc::new(OsDisk), dir.path(), "test", &config(1 << 20)).unwrap();
    block_on(enqueue(&wal, b"forged")).unwrap();
    drop(wal);
    let path = segment::path(dir.path(), SegmentId(1));
    let forged = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let (wal, _) = Wal::open(Arc::new(OsDisk), dir.path(), "test", &config(1 << 20)).unwrap();
    let sent = [enqueue(&wal, &forged), enqueue(&wal, b"good")];
    sent.into_iter().for_each(|t| block_on(t).unwrap());
    drop(wal);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[PAGE_BYTES + 5] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (frames, report) = replayed(dir.path());
    assert_eq!(frames, [(SegmentId(1), Bytes::from_static(b"good"))]);
    assert_eq!((report.damages, report.damaged_bytes), (1, (FRAME_HEADER_BYTES + forged.len()) as u64));
    assert_eq!(report.damage[0].offset, PAGE_BYTES as u64);
}

#[test]
fn missing_and_foreign_files() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(Arc::new(OsDisk), dir.path(), "test", &config(1)).unwrap();
    (0..4).for_each(|i| block_on(enqueue(&wal, &payload(i, 10))).unwrap());
    drop(wal);
    let path = |id| segment::path(dir.path(), SegmentId(id));
    std::fs::remove_file(path(2)).unwrap();
    std::fs::rename(path(4), path(5)).unwrap();
    std::fs::write(path(6), b"").unwrap();
    std::fs::write(dir.path().join("notes.txt"), b"x").unwrap();
    std::fs::write(dir.path().join("99999999999999999999999.wal"), b"x").unwrap();
    let (frames, report) = replayed(dir.path());
    assert_eq!(frames.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [1, 3]);
    let what: Vec<_> = report.damage.iter().map(|d| (d.segment.0, d.what.as_str())).collect();
    assert_eq!(
        what,
        [
            (2, "segments before 00000003 are missing"),
            (4, "segments before 00000005 are missing"),
            (5, "the header says segment 00000004")
        ]
    );
}

#[derive(Debug, Clone)]
enum Harm {
    Truncate,
    Flip(u8),
    Zero(usize),
    Garbage(Vec<u8>),
    ZeroTail(usize),
    /// Overwrites with bytes of the first segment: what a recycled block would show.
    Stale(usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        Just(Harm::Truncate),
        (0_u8..8).prop_map(Harm::Flip),
        (1_usize..600).prop_map(Harm::Zero),
        prop::collection::vec(any::<u8>(), 1..100).prop_map(Harm::Garbage),
        (1_usize..5000).prop_map(Harm::ZeroTail),
        (1_usize..1500).prop_map(Harm::Stale),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever happens to the files: no panic, every undamaged frame comes back, in order, and nothing else does.
    #[test]
    fn undamaged_frames_survive(
        lengths in prop::collection::vec(1_usize..900, 1..40),
        harms in prop::collection::vec((any::<prop::sample::Index>(), 0.0..1.0_f64, harm()), 0..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let sent: Vec<_> = lengths.iter().enumerate().map(|(i, l)| payload(i, *l)).collect();
        {
            let mut config = config(9 << 10);
            config.fsync = false;
            let (wal, _) = Wal::open(Arc::new(OsDisk), dir.path(), "test", &config).unwrap();
            let tickets: Vec<_> = sent.iter().map(|p| enqueue(&wal, p)).collect();
            for ticket in tickets {
                block_on(ticket).unwrap();
            }
        }
        let (clean, _) = replayed(dir.path());
        prop_assert_eq!(clean.iter().map(|(_, p)| p.to_vec()).collect::<Vec<_>>(), sent);

        // Which bytes of which file are not what they were.
        let paths: Vec<_> = segment::list(&OsDisk, dir.path()).unwrap().into_iter().map(|s| (s.id, s.path)).collect();
        let before: Vec<_> = paths.iter().map(|(_, p)| std::fs::read(p).unwrap()).collect();
        for (file, place, harm) in harms {
            let file = file.index(paths.len());
            let mut bytes = std::fs::read(&paths[file].1).unwrap();
            let at = (bytes.len() as f64 * place) as usize;
            match harm {
                Harm::Truncate => bytes.truncate(at),
                Harm::Flip(bit) if at < bytes.len() => bytes[at] ^= 1 << bit,
                Harm::Flip(_) => {}
                Harm::Zero(n) => bytes.iter_mut().skip(at).take(n).for_each(|b| *b = 0),
                Harm::Garbage(garbage) => bytes.extend(garbage),
                Harm::ZeroTail(n) => bytes.resize(bytes.len() + n, 0),
                Harm::Stale(n) => {
                    let stale = before[0][PAGE_BYTES..].iter().copied();
                    bytes.iter_mut().skip(at).zip(stale.take(n)).for_each(|(b, s)| *b = s);
                }
            }
            std::fs::write(&paths[file].1, bytes).unwrap();
        }
        let after: Vec<_> = paths.iter().map(|(_, p)| std::fs::read(p).unwrap()).collect();

        let intact = |file: usize, range: std::ops::Range<usize>| before[file].get(range.clone()) == after[file].get(range);
        let mut expected = Vec::new();
        let mut offset = PAGE_BYTES;
        let mut file = 0;
        for (id, frame) in &clean {
            if paths[file].0 != *id {
                (file, offset) = (file + 1, PAGE_BYTES);
            }
            let end = offset + FRAME_HEADER_BYTES + frame.len();
            let readable = intact(file, 0..32) || (intact(file, 2048..2080));
            if readable && intact(file, offset..end) {
                expected.push((*id, frame.clone()));
            }
            offset = end;
        }
        let (found, report) = replayed(dir.path());
        prop_assert_eq!(&found, &expected);
        if expected.len() == clean.len() {
            prop_assert_eq!(report.damages, 0);
        }
    }
}
