//! Reading back what a process left: streaming, bounded, past any damage.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, StoredFile};
use crate::segment::{self, FRAME_HEADER_BYTES, PAGE_BYTES, Salt, SegmentId, Stored};

/// What is read of a file at one time; more only for a frame that is larger.
const WINDOW_BYTES: usize = 1 << 20;
/// Most places of damage that are kept with their details; all are counted.
const DAMAGE_KEPT_MAX: usize = 64;

/// A place that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub segment: SegmentId,
    pub offset: u64,
    /// Bytes skipped.
    pub bytes: u64,
    pub what: String,
}

/// What a replay has seen so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplayReport {
    pub segments: u64,
    /// Frames handed out, and the bytes of their payloads.
    pub frames: u64,
    pub payload_bytes: u64,
    /// Bytes at the ends of segments after which nothing good came: what a crash leaves of an unacknowledged group.
    pub torn_bytes: u64,
    /// Places of damage, and the bytes skipped there. Frames may have been lost.
    pub damages: u64,
    pub damaged_bytes: u64,
    /// The first of them.
    pub damage: Vec<Damage>,
}

/// Hands out (segment, payload) in the order of writing.
#[derive(Debug)]
pub struct Replay {
    name: &'static str,
    disk: Arc<dyn Disk>,
    left: VecDeque<Stored>,
    left_bytes: u64,
    last: Option<SegmentId>,
    current: Option<Reader>,
    report: ReplayReport,
}

impl Replay {
    pub(crate) fn new(name: &'static str, disk: Arc<dyn Disk>, segments: Vec<Stored>) -> Self {
        let left_bytes = segments.iter().map(|stored| stored.bytes).sum();
        let last = segments.last().map(|stored| stored.id);
        let left = segments.into();
        Self { name, disk, left, left_bytes, last, current: None, report: ReplayReport::default() }
    }

    /// The last segment that will be read, if there is any.
    pub fn last_segment(&self) -> Option<SegmentId> {
        self.last
    }

    /// Bytes of the files that are not read yet, for progress.
    pub fn left_bytes(&self) -> u64 {
        self.left_bytes + self.current.as_ref().map_or(0, |r| r.end - r.offset.min(r.end))
    }

    /// So far; whole when the iterator has ended.
    pub fn report(&self) -> &ReplayReport {
        &self.report
    }

    fn damaged(&mut self, segment: SegmentId, offset: u64, bytes: u64, what: impl Into<String>) {
        let what = what.into();
        tracing::warn!(wal = self.name, %segment, offset, bytes, what, "damage in the WAL was skipped");
        self.report.damages += 1;
        self.report.damaged_bytes += bytes;
        if self.report.damage.len() < DAMAGE_KEPT_MAX {
            self.report.damage.push(Damage { segment, offset, bytes, what });
        }
    }

    /// Opens the next segment that can be read. False at the end.
    fn open_next(&mut self) -> bool {
        while let Some(Stored { id, path, bytes: listed }) = self.left.pop_front() {
            self.left_bytes = self.left_bytes.saturating_sub(listed);
            if let Some(Stored { id: next, .. }) = self.left.front()
                && next.0 != id.0 + 1
            {
                let next = *next;
                self.damaged(SegmentId(id.0 + 1), 0, 0, format!("segments before {next} are missing"));
            }
            self.report.segments += 1;
            let opened = self.disk.open(&path).and_then(|file| {
                let bytes = file.bytes()?;
                let mut page = vec![0; bytes.min(PAGE_BYTES as u64) as usize];
                file.read_exact_at(&mut page, 0)?;
                Ok((file, bytes, page))
            });
            let (file, bytes, page) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    self.damaged(id, 0, 0, format!("opening: {error}"));
                    continue;
                }
            };
            match segment::read_first_page(&page, id) {
                Ok(salt) => {
                    let offset = PAGE_BYTES as u64;
                    let window = Window { file, start: 0, bytes: Vec::new() };
                    self.current = Some(Reader { window, id, salt, offset, end: bytes, bad_from: None });
                    return true;
                }
                // Creation was cut short: no frame was ever in it.
                Err(_) if bytes <= PAGE_BYTES as u64 => self.report.torn_bytes += bytes,
                Err(error) => self.damaged(id, 0, bytes, error.to_string()),
            }
        }
        false
    }
}

impl Iterator for Replay {
    type Item = (SegmentId, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.current.is_none() && !self.open_next() {
                return None;
            }
            let reader = self.current.as_mut()?;
            let id = reader.id;
            match reader.next_frame() {
                Ok(Some((payload, skipped))) => {
                    if let Some((from, to)) = skipped {
                        self.damaged(id, from, to - from, "no intact frame");
                    }
                    self.report.frames += 1;
                    self.report.payload_bytes += payload.len() as u64;
                    return Some((id, payload));
                }
                Ok(None) => {
                    if let Some(from) = reader.bad_from {
                        let bytes = reader.end - from;
                        tracing::info!(wal = self.name, segment = %id, from, bytes, "torn tail of the WAL was cut");
                        self.report.torn_bytes += bytes;
                    }
                }
                Err(error) => {
                    let (offset, bytes) = (reader.offset, reader.end - reader.offset);
                    self.damaged(id, offset, bytes, format!("reading: {error}"));
                }
            }
            self.current = None;
        }
    }
}

/// A payload, and the range of bytes that was skipped to get to it.
type Frame = (Bytes, Option<(u64, u64)>);

#[derive(Debug)]
struct Reader {
    window: Window,
    id: SegmentId,
    salt: Salt,
    offset: u64,
    /// The file's length.
    end: u64,
    /// Where the bytes began that are not good, if the last thing read was not.
    bad_from: Option<u64>,
}

impl Reader {
    fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let header_bytes = FRAME_HEADER_BYTES as u64;
        while self.offset + header_bytes < self.end {
            let at = self.offset;
            let header = self.window.get(at, FRAME_HEADER_BYTES, self.end)?.first_chunk();
            match header.and_then(|h| self.salt.read_frame_header(at, h)) {
                Some((length, crc)) if at + header_bytes + u64::from(length) <= self.end => {
                    self.offset = at + header_bytes + u64::from(length);
                    let payload = self.window.get(at + header_bytes, length as usize, self.end)?;
                    if crc32c::crc32c(payload) == crc {
                        let payload = Bytes::copy_from_slice(payload);
                        return Ok(Some((payload, self.bad_from.take().map(|from| (from, at)))));
                    }
                    // The header vouches for the length: the next frame is behind this one.
                    self.bad_from.get_or_insert(at);
                }
                Some(_) => {
                    // An intact header of a frame that runs over the end: nothing can follow.
                    self.bad_from.get_or_insert(at);
                    self.offset = self.end;
                }
                None => {
                    self.bad_from.get_or_insert(at);
                    self.offset = self.seek(at + 1)?;
                }
            }
        }
        if self.offset < self.end {
            self.bad_from.get_or_insert(self.offset);
        }
        Ok(None)
    }

    /// The next offset at which a frame's header stands; the end where there is none.
    fn seek(&mut self, from: u64) -> io::Result<u64> {
        let mut from = from;
        while from + (FRAME_HEADER_BYTES as u64) < self.end {
            let length = WINDOW_BYTES.min((self.end - from) as usize);
            let bytes = self.window.get(from, length, self.end)?;
            for (i, header) in bytes.windows(FRAME_HEADER_BYTES).enumerate() {
                let found =
                    header.first_chunk().and_then(|h| self.salt.read_frame_header(from + i as u64, h));
                if found.is_some() {
                    return Ok(from + i as u64);
                }
            }
            from += (length - FRAME_HEADER_BYTES + 1) as u64;
        }
        Ok(self.end)
    }
}

/// A part of a file in memory.
#[derive(Debug)]
struct Window {
    file: Box<dyn StoredFile>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// `length` bytes at `offset`; they must lie before `end`.
    fn get(&mut self, offset: u64, length: usize, end: u64) -> io::Result<&[u8]> {
        let held = offset >= self.start && offset + length as u64 <= self.start + self.bytes.len() as u64;
        if !held {
            let want = (length.max(WINDOW_BYTES) as u64).min(end - offset) as usize;
            self.bytes.clear();
            self.bytes.shrink_to(WINDOW_BYTES);
            self.bytes.resize(want, 0);
            self.start = offset;
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, offset) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let at = (offset - self.start) as usize;
        self.bytes.get(at..at + length).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
