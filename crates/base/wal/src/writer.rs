//! The one writer. It takes everything that waits, writes it, syncs once, and says so to all.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, mem};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, SetOnce, oneshot};
use tokio::time::Instant;
use triptych_model::{Error, Result};

use crate::disk::{Disk, SegmentFile};
use crate::segment::{self, FRAME_HEADER_BYTES, PAGE_BYTES, Salt, SegmentId};
use crate::{Cut, Permit, RETRY_AFTER, WalConfig, telemetry};

/// Frames are collected to writes of about this size; a larger payload is written from where it is.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) enum Item {
    Frame { parts: [Bytes; 2], done: oneshot::Sender<Result<()>>, permit: Permit },
    Cut(Cut),
}

#[derive(Debug, Default)]
struct Queue {
    items: Vec<Item>,
    closed: bool,
}

/// Between the callers and the writer.
#[derive(Debug)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
    /// Set when nothing will be written any more.
    pub(crate) ended: SetOnce<()>,
    /// Segments from this id on may still be written.
    pub(crate) writable_from: AtomicU64,
}

impl Shared {
    pub(crate) fn new(next: SegmentId) -> Self {
        let writable_from = AtomicU64::new(next.0);
        Self { queue: Mutex::default(), wake: Notify::new(), ended: SetOnce::new(), writable_from }
    }

    /// False when the log is closed.
    pub(crate) fn push(&self, item: Item) -> bool {
        let mut queue = self.queue.lock();
        if queue.closed {
            return false;
        }
        queue.items.push(item);
        drop(queue);
        self.wake.notify_one();
        true
    }

    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_one();
    }

    /// Waits for work; false when there is none and never will be.
    async fn take(&self, items: &mut Vec<Item>) -> bool {
        loop {
            {
                let mut queue = self.queue.lock();
                if !queue.items.is_empty() {
                    mem::swap(&mut queue.items, items);
                    return true;
                }
                if queue.closed {
                    return false;
                }
            }
            // A push or close since then left its permit.
            self.wake.notified().await;
        }
    }
}

struct Open {
    file: Box<dyn SegmentFile>,
    path: PathBuf,
    salt: Salt,
    /// Where the next frame goes.
    offset: u64,
    /// Everything before it was synced.
    synced: u64,
}

pub(crate) struct Writer {
    name: &'static str,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    config: WalConfig,
    shared: Arc<Shared>,
    /// The id of the open segment, or of the one to be opened.
    id: SegmentId,
    open: Option<Open>,
    buffer: Vec<u8>,
    /// Written or in `buffer`, but not synced.
    pending: Vec<(oneshot::Sender<Result<()>>, Permit)>,
}

impl Writer {
    pub(crate) fn new(
        name: &'static str,
        dir: PathBuf,
        disk: Arc<dyn Disk>,
        config: &WalConfig,
        shared: Arc<Shared>,
        id: SegmentId,
    ) -> Self {
        let config = config.clone();
        Self { name, dir, disk, config, shared, id, open: None, buffer: Vec::new(), pending: Vec::new() }
    }

    /// Until the log is closed and everything that waited is written.
    pub(crate) async fn run(mut self) {
        let mut items = Vec::new();
        while self.shared.take(&mut items).await {
            self.group(&mut items).await;
        }
    }

    async fn group(&mut self, items: &mut Vec<Item>) {
        // After an error the rest of the group fails too: a full disk is asked once a group, not once a frame.
        let mut broken: Option<Error> = None;
        for item in items.drain(..) {
            match item {
                Item::Cut(cut) => {
                    if let Err(error) = self.commit().await {
                        broken = Some(self.abandon(error));
                    }
                    self.next_segment();
                    let _ = cut.0.set(SegmentId(self.id.0 - 1));
                }
                Item::Frame { parts, done, permit } => {
                    if let Some(error) = &broken {
                        let _ = done.send(Err(error.clone()));
                        continue;
                    }
                    self.pending.push((done, permit));
                    if let Err(error) = self.append([&parts[0], &parts[1]]).await {
                        broken = Some(self.abandon(error));
                    }
                }
            }
        }
        if let Err(error) = self.commit().await {
            self.abandon(error);
        }
    }

    /// Puts one frame behind the others, in the next segment where this one is full.
    async fn append(&mut self, parts: [&[u8]; 2]) -> io::Result<()> {
        let length = (FRAME_HEADER_BYTES + parts[0].len() + parts[1].len()) as u64;
        if let Some(open) = &self.open
            && open.offset > PAGE_BYTES as u64
            && open.offset + length > self.config.segment_bytes_max
        {
            // The new frame belongs to the next segment; it must not be acknowledged with this one.
            let last = self.pending.pop();
            let committed = self.commit().await;
            self.pending.extend(last);
            committed?;
            self.next_segment();
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(create(&*self.disk, &self.dir, self.id).await?),
        };
        self.buffer.extend_from_slice(&open.salt.frame_header(open.offset, parts));
        for part in parts {
            if part.len() >= BUFFER_BYTES {
                open.file.write_all(&self.buffer)?;
                self.buffer.clear();
                open.file.write_all(part)?;
            } else {
                self.buffer.extend_from_slice(part);
            }
        }
        if self.buffer.len() >= BUFFER_BYTES {
            open.file.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        open.offset += length;
        Ok(())
    }

    /// Writes and syncs what is pending, and says so.
    async fn commit(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if let Some(open) = &mut self.open {
            open.file.write_all(&self.buffer)?;
            self.buffer.clear();
            if self.config.fsync {
                let start = Instant::now();
                open.file.sync().await?;
                telemetry::fsync_seconds(self.name).record(start.elapsed().as_secs_f64());
            }
            telemetry::written_bytes(self.name).increment(open.offset - open.synced);
            open.synced = open.offset;
        }
        telemetry::group_frames(self.name).record(self.pending.len() as f64);
        for (done, permit) in self.pending.drain(..) {
            drop(permit);
            let _ = done.send(Ok(()));
        }
        Ok(())
    }

    /// Leaves the open segment at its last good length, for good, and fails what was pending.
    fn abandon(&mut self, error: io::Error) -> Error {
        telemetry::write_failures(self.name).increment(1);
        tracing::error!(wal = self.name, segment = %self.id, %error, frames = self.pending.len(), "WAL write failed");
        let error = Error::unavailable(format!("{} WAL: the write failed: {error}", self.name))
            .retry_after(RETRY_AFTER);
        self.buffer.clear();
        if let Some(mut open) = self.open.take() {
            // Both are only to save space and replay time: nothing beyond `synced` was acknowledged.
            // An empty segment's id is used again, so that ids have no gaps.
            if open.synced == PAGE_BYTES as u64 {
                let _ = self.disk.remove(&open.path);
            } else {
                let _ = open.file.set_len(open.synced);
                self.id.0 += 1;
                self.shared.writable_from.store(self.id.0, Ordering::Release);
            }
        }
        for (done, permit) in self.pending.drain(..) {
            drop(permit);
            let _ = done.send(Err(error.clone()));
        }
        error
    }

    /// Closes the open segment; without one there is nothing to close.
    fn next_segment(&mut self) {
        if self.open.take().is_some() {
            self.id.0 += 1;
            self.shared.writable_from.store(self.id.0, Ordering::Release);
        }
    }
}

/// However the writer ends: nobody shall wait for it in vain.
impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.shared.ended.set(());
    }
}

/// A new segment, on disk with its directory entry.
async fn create(disk: &dyn Disk, dir: &std::path::Path, id: SegmentId) -> io::Result<Open> {
    let path = segment::path(dir, id);
    let mut file = match disk.create(&path) {
        // Left over from a creation that failed half way and could not be undone; nothing in it was acknowledged.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&path)?;
            disk.create(&path)?
        }
        other => other?,
    };
    let salt = Salt::random();
    let mut made = file.write_all(&segment::first_page(id, salt));
    if made.is_ok() {
        made = file.sync().await;
    }
    if let Err(error) = made.and_then(|()| disk.sync_dir(dir)) {
        drop(file);
        let _ = disk.remove(&path);
        return Err(error);
    }
    let offset = PAGE_BYTES as u64;
    Ok(Open { file, path, salt, offset, synced: offset })
}
