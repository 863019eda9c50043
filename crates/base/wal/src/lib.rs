//! The write-ahead log: what was acknowledged survives `kill -9` and power loss.
//!
//! **Owns** framed and checksummed segment files, group commit (one `fdatasync` for everything that waits), streaming replay that
//! gets past damage, deletion of segments.
//! **Must not know** what a payload means, tenants, signals, heads, generations.
//!
//! | module | what is in it |
//! |---|---|
//! | [`segment`] | the format: file header, frame, checks |
//! | `writer` | the one thread that writes and syncs |
//! | [`replay`] | reading back after a start |
//! | [`disk`] | the few file operations that are needed, so that a simulation can lose, tear and refuse them |
//!
//! # Words and flow
//! A *frame* is one payload with its header. A *group* is every frame that waits when the writer comes round: it is written and
//! synced as one, then all of its *tickets* resolve. A *segment* is a file of frames. A *cut* is a place between two frames
//! that is also a boundary between two segments; what lies before it can be deleted with [`Wal::truncate`].
//!
//! 1. [`Wal::reserve`] takes room in the queue (waits, before the caller takes any lock), or [`Wal::try_reserve`] refuses.
//! 2. [`Wal::enqueue`] is synchronous and ordered with every other `enqueue` and [`Wal::cut`].
//! 3. Awaiting the [`Ticket`] says whether the frame is on disk.
//!
//! # Layout on disk
//! `<dir>/00000001.wal`, `00000002.wal`, ..: ids ascend; a gap is damage (reported). `<dir>/LOCK` is locked by the process that has
//! the log open. A segment is created when the first frame for it comes, synced together with its directory before any frame
//! in it is acknowledged, and never written again by a later process.
//!
//! # Consistency
//! - A ticket that resolved `Ok` means: written, `fdatasync` returned, and the file is in a synced directory.
//! - A write or sync that fails (disk full, I/O error) fails the tickets of its group, kind Unavailable. After a failed `fsync` the
//!   kernel may have dropped the dirty pages, so the segment is never synced again: it is left at its last good length
//!   and a new one is begun. The process goes on. A frame whose ticket failed may still appear in a replay.
//! - Replay hands out undamaged frames in the order in which they were enqueued. A torn tail is cut and counted. A
//!   damaged middle is skipped up to the next good frame or segment, counted and reported with its place.
//!
//! # Memory
//! At most `queue_bytes_max` of payloads wait; the writer adds a buffer of 1 MiB. Replay holds a window of 1 MiB, or one frame where
//! that is larger.
//!
//! # Known holes
//! - Frames that are missing at the very end of a segment, cut exactly at a frame's end, cannot be told from frames that were never
//!   written.
//! - A segment that lost its first 4 KiB (both copies of its header) is unreadable as a whole; this is reported.
//! - Segments are not preallocated: each sync also writes the file's new length.

pub mod disk;
pub mod replay;
pub mod segment;
mod telemetry;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SetOnce, oneshot};
use triptych_model::{Error, Result};

pub use disk::{Disk, OsDisk};
pub use replay::{Damage, Replay, ReplayReport};
pub use segment::SegmentId;
pub use telemetry::TELEMETRY;

use writer::{Item, Shared};

/// Longest payload of a frame, in bytes. A batch is a few MiB; this bounds what one item can make the queue hold.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// What a caller that was refused is told to wait: a few group commits of a slow disk.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How a write-ahead log works. The defaults are good.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WalConfig {
    /// A segment file is closed when the next frame would make it larger than this, in bytes.
    pub segment_bytes_max: u64,
    /// Payload bytes that may wait for the disk; more than that and writers wait, then are refused (503).
    pub queue_bytes_max: usize,
    /// Whether to sync before acknowledging. `false` loses acknowledged data on power loss: for throw-away setups only.
    pub fsync: bool,
}

impl Default for WalConfig {
    fn default() -> Self {
        Self { segment_bytes_max: 128 << 20, queue_bytes_max: 64 << 20, fsync: true }
    }
}

/// A write-ahead log that is open for writing. Dropping it writes what is queued and stops the thread.
#[derive(Debug)]
pub struct Wal {
    name: &'static str,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    room_bytes: usize,
    /// The thread that the writer runs on, where it has one.
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held for as long as the log is open.
    _lock: Box<dyn Debug + Send + Sync>,
}

/// Room in the queue for one frame; given back when the frame is on disk, or on drop.
#[derive(Debug)]
pub struct Permit {
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

/// Resolves when the frame's group was synced, or could not be.
#[derive(Debug)]
#[must_use = "an enqueued frame is on disk only when its ticket says so"]
pub struct Ticket(oneshot::Receiver<Result<()>>);

impl Future for Ticket {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|done| {
            done.unwrap_or_else(|_| Err(Error::unavailable("write-ahead log: the writer has stopped")))
        })
    }
}

/// A boundary between segments: everything enqueued before [`Wal::cut`] lies in segments up to it. Clones are the same cut.
#[derive(Debug, Clone)]
pub struct Cut(Arc<SetOnce<SegmentId>>);

impl Cut {
    /// The last segment before the cut; `None` until the writer has come to it.
    pub fn segment(&self) -> Option<SegmentId> {
        self.0.get().copied()
    }

    /// Waits for the writer to come to the cut.
    pub async fn written(&self) -> SegmentId {
        *self.0.wait().await
    }
}

impl From<SegmentId> for Cut {
    fn from(id: SegmentId) -> Self {
        Self(Arc::new(SetOnce::new_with(Some(id))))
    }
}

impl Wal {
    /// Opens the log in `dir` (created where missing) and what it holds from before. `name` is the value of the label `wal` in
    /// metrics and the first word of errors. Blocks on a few directory operations.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        name: &'static str,
        config: &WalConfig,
    ) -> Result<(Self, Replay)> {
        let failed = |e: io::Error| Error::unavailable(format!("{name} WAL: opening {}: {e}", dir.display()));
        let lock = disk.lock(dir).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => {
                Error::conflict(format!("{name} WAL: {} is in use by another process", dir.display()))
            }
            _ => failed(e),
        })?;
        let segments = segment::list(&*disk, dir).map_err(failed)?;
        let next = SegmentId(segments.last().map_or(1, |stored| stored.id.0 + 1));
        let replay = Replay::new(name, disk.clone(), segments);

        let shared = Arc::new(Shared::new(next));
        let writer = writer::Writer::new(name, dir.to_owned(), disk.clone(), config, shared.clone(), next);
        let thread = disk.run(format!("wal-{name}"), Box::pin(writer.run())).map_err(failed)?;
        let room_bytes = config.queue_bytes_max.clamp(1, u32::MAX as usize >> 1);
        let wal = Self {
            name,
            dir: dir.to_owned(),
            disk,
            shared,
            room: Arc::new(Semaphore::new(room_bytes)),
            room_bytes,
            thread: Mutex::new(thread),
            _lock: lock,
        };
        Ok((wal, replay))
    }

    /// Waits until a payload of `bytes` has room in the queue; first come, first served.
    pub async fn reserve(&self, bytes: usize) -> Result<Permit> {
        let units = self.units(bytes)?;
        match self.room.clone().acquire_many_owned(units).await {
            Ok(room) => Ok(Permit { bytes, _room: room }),
            Err(_) => Err(self.closed()),
        }
    }

    /// As [`Wal::reserve`], but refuses instead of waiting (Unavailable, with a time to come again).
    pub fn try_reserve(&self, bytes: usize) -> Result<Permit> {
        let units = self.units(bytes)?;
        match self.room.clone().try_acquire_many_owned(units) {
            Ok(room) => Ok(Permit { bytes, _room: room }),
            Err(_) if self.room.is_closed() => Err(self.closed()),
            Err(_) => Err(self.full(bytes)),
        }
    }

    /// The refusal of a write that waited long enough: names the queue's size and what is in it.
    pub fn full(&self, bytes: usize) -> Error {
        Error::unavailable(format!(
            "{} WAL: the disk is behind: {} of {} bytes of the queue are waiting for it, {bytes} more are wanted",
            self.name,
            self.queued_bytes(),
            self.room_bytes
        ))
        .retry_after(RETRY_AFTER)
    }

    /// A frame larger than the whole queue takes all of it.
    fn units(&self, bytes: usize) -> Result<u32> {
        if bytes == 0 || bytes > PAYLOAD_BYTES_MAX {
            return Err(Error::invalid(format!(
                "{} WAL: a payload of {bytes} bytes, allowed are 1 to {PAYLOAD_BYTES_MAX}",
                self.name
            )));
        }
        Ok(bytes.min(self.room_bytes) as u32)
    }

    fn closed(&self) -> Error {
        Error::unavailable(format!("{} WAL: closed", self.name))
    }

    /// Queues one frame whose payload is the two parts, one after the other (so that a small header needs no copy of what it
    /// stands before). Never waits. The parts together must not be longer than what was reserved.
    pub fn enqueue(&self, permit: Permit, parts: [Bytes; 2]) -> Result<Ticket> {
        let bytes = parts[0].len() + parts[1].len();
        if bytes == 0 || bytes > permit.bytes {
            return Err(Error::internal(format!(
                "{} WAL: {bytes} bytes enqueued, {} reserved",
                self.name, permit.bytes
            )));
        }
        let (done, ticket) = oneshot::channel();
        if !self.shared.push(Item::Frame { parts, done, permit }) {
            return Err(self.closed());
        }
        Ok(Ticket(ticket))
    }

    /// Marks a boundary. Never waits; the writer closes the current segment when it comes to it.
    pub fn cut(&self) -> Cut {
        let cut = Cut(Arc::default());
        if !self.shared.push(Item::Cut(cut.clone())) {
            // Nothing is written any more: all that there is lies before the cut.
            let _ = cut.0.set(SegmentId(self.shared.writable_from.load(Ordering::Acquire) - 1));
        }
        cut
    }

    /// Deletes every segment up to and including `upto`, oldest first, and syncs the directory. Blocks. Deleting what is
    /// already gone is fine. Unavailable before the writer has come to the cut ([`Cut::written`]).
    pub fn truncate(&self, upto: &Cut) -> Result<()> {
        let Some(upto) = upto.segment() else {
            return Err(Error::unavailable(format!("{} WAL: the cut is not written yet", self.name)));
        };
        let writable_from = self.shared.writable_from.load(Ordering::Acquire);
        if upto.0 >= writable_from {
            return Err(Error::internal(format!(
                "{} WAL: segments up to {upto} to be deleted, but {writable_from} may still be written",
                self.name
            )));
        }
        let failed = |e: io::Error| Error::unavailable(format!("{} WAL: deleting segments: {e}", self.name));
        let mut removed = 0_u64;
        for stored in segment::list(&*self.disk, &self.dir).map_err(failed)? {
            if stored.id > upto {
                break;
            }
            match self.disk.remove(&stored.path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
                _ => removed += 1,
            }
        }
        if removed > 0 {
            self.disk.sync_dir(&self.dir).map_err(failed)?;
            telemetry::segments_deleted(self.name).increment(removed);
        }
        Ok(())
    }

    /// Payload bytes that wait for the disk.
    pub fn queued_bytes(&self) -> usize {
        self.room_bytes - self.room.available_permits().min(self.room_bytes)
    }

    /// Bytes of all segments on disk.
    pub fn disk_bytes(&self) -> u64 {
        let Ok(segments) = segment::list(&*self.disk, &self.dir) else { return 0 };
        segments.iter().map(|stored| stored.bytes).sum()
    }

    /// Writes and syncs what is queued and refuses everything after it; returns when the writer has ended.
    pub async fn close(&self) {
        self.refuse();
        self.shared.ended.wait().await;
    }

    fn refuse(&self) {
        self.room.close();
        self.shared.close();
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.refuse();
        if let Some(thread) = self.thread.get_mut().take()
            && thread.join().is_err()
        {
            tracing::error!(wal = self.name, "the WAL's writer panicked");
        }
    }
}
