//! The format of a segment file. All numbers are little-endian; checksums are CRC-32C.
//!
//! ```text
//! segment  = page 0 (4096 B) | frame*
//! page 0   = header at 0 | zeros | the same header at 2048 | zeros         two copies, in different disk sectors
//! header   = "TRIPWAL\0" (8 B) | version u32 = 1 | id u64 | salt u64 | crc u32 of the 28 bytes before       (32 B)
//!
//! frame    = check u32 | length u32 | crc u32 | payload (length bytes, at least 1)
//! crc      = of the payload
//! check    = crc32c(salt | offset of the frame in the file u64 | length | crc)
//! ```
//! The salt is random for each file. So `check` is good only for bytes that were written *here*: in this file, at this
//! place. Zeros (a tail that was allocated but not written), stale bytes of another file, frames that were moved, and frames
//! that somebody put into a payload on purpose do not pass. As `check` vouches for `length`, replay can step over a frame whose payload
//! is damaged, and needs no trust in a length before it allocates. To get past a damaged header it looks at every offset
//! for a `check` that holds, which costs a checksum of 24 bytes each.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Disk;

const MAGIC: [u8; 8] = *b"TRIPWAL\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
const SECOND_COPY_AT: usize = 2048;

/// The first frame of a segment is here.
pub const PAGE_BYTES: usize = 4096;
/// Before every payload.
pub const FRAME_HEADER_BYTES: usize = 12;

/// The number in a segment's file name; 0 stands before the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

pub(crate) fn path(dir: &Path, id: SegmentId) -> PathBuf {
    dir.join(format!("{id}.wal"))
}

/// Segments in ascending order with their lengths in bytes; other files are not ours and are left alone.
pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<Stored>> {
    let mut segments = Vec::new();
    for (path, bytes) in disk.list(dir)? {
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".wal"));
        let digits = name.filter(|n| n.len() >= 8 && n.bytes().all(|b| b.is_ascii_digit()));
        // The largest id is kept free so that there is always a next one.
        match digits.and_then(|n| n.parse::<u64>().ok()) {
            Some(id) if id > 0 && id < u64::MAX => segments.push(Stored { id: SegmentId(id), path, bytes }),
            _ => {}
        }
    }
    segments.sort_by_key(|stored| stored.id);
    Ok(segments)
}

/// A segment's file.
#[derive(Debug)]
pub(crate) struct Stored {
    pub id: SegmentId,
    pub path: PathBuf,
    pub bytes: u64,
}

/// What makes the checks of one segment's frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Salt {
    bytes: [u8; 8],
    /// Checksum of the salt, which every check begins with.
    state: u32,
}

impl Salt {
    fn from_bytes(bytes: [u8; 8]) -> Self {
        Self { bytes, state: crc32c::crc32c(&bytes) }
    }

    /// From the operating system's randomness, by way of the standard library's hash keys.
    pub(crate) fn random() -> Self {
        Self::from_bytes(RandomState::new().build_hasher().finish().to_le_bytes())
    }

    fn check(self, offset: u64, length: u32, crc: u32) -> u32 {
        let mut text = [0; 16];
        text[..8].copy_from_slice(&offset.to_le_bytes());
        text[8..12].copy_from_slice(&length.to_le_bytes());
        text[12..].copy_from_slice(&crc.to_le_bytes());
        crc32c::crc32c_append(self.state, &text)
    }

    /// The header of a frame at `offset`.
    pub(crate) fn frame_header(self, offset: u64, parts: [&[u8]; 2]) -> [u8; FRAME_HEADER_BYTES] {
        let length = (parts[0].len() + parts[1].len()) as u32;
        let crc = crc32c::crc32c_append(crc32c::crc32c(parts[0]), parts[1]);
        let mut header = [0; FRAME_HEADER_BYTES];
        header[..4].copy_from_slice(&self.check(offset, length, crc).to_le_bytes());
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[8..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// Reads a header that stands at `offset`: (length, crc) where it was written there.
    pub(crate) fn read_frame_header(
        self,
        offset: u64,
        header: &[u8; FRAME_HEADER_BYTES],
    ) -> Option<(u32, u32)> {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *header;
        let (check, length) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let crc = u32::from_le_bytes([i, j, k, l]);
        (length > 0 && check == self.check(offset, length, crc)).then_some((length, crc))
    }
}

/// Page 0 of a segment.
pub(crate) fn first_page(id: SegmentId, salt: Salt) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&id.0.to_le_bytes());
    header.extend_from_slice(&salt.bytes);
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    let mut page = vec![0; PAGE_BYTES];
    page[..HEADER_BYTES].copy_from_slice(&header);
    page[SECOND_COPY_AT..SECOND_COPY_AT + HEADER_BYTES].copy_from_slice(&header);
    page
}

/// Why a segment cannot be read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("no intact header")]
    Damaged,
    #[error("version {0}, known is {VERSION}")]
    Version(u32),
    #[error("the header says segment {0}")]
    Id(SegmentId),
}

/// Reads page 0: the salt, from whichever copy of the header is intact.
pub(crate) fn read_first_page(page: &[u8], id: SegmentId) -> Result<Salt, HeaderError> {
    for at in [0, SECOND_COPY_AT] {
        let Some(header) = page.get(at..at + HEADER_BYTES).and_then(|h| h.first_chunk::<HEADER_BYTES>())
        else {
            continue;
        };
        let (text, crc) = header.split_at(HEADER_BYTES - 4);
        if crc32c::crc32c(text).to_le_bytes() != crc || text[..8] != MAGIC {
            continue;
        }
        let [_, _, _, _, _, _, _, _, v0, v1, v2, v3, rest @ ..] = *header;
        let version = u32::from_le_bytes([v0, v1, v2, v3]);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let [i0, i1, i2, i3, i4, i5, i6, i7, s0, s1, s2, s3, s4, s5, s6, s7, ..] = rest;
        let found = SegmentId(u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]));
        if found != id {
            return Err(HeaderError::Id(found));
        }
        return Ok(Salt::from_bytes([s0, s1, s2, s3, s4, s5, s6, s7]));
    }
    Err(HeaderError::Damaged)
}
