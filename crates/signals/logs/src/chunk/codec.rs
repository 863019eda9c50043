//! The compressions of a chunk's blocks, by Loki's numbers. Writing knows all but the LZ4 variants' block sizes: they differ in
//! the writer only, any LZ4 frame reads the same.

use std::cell::RefCell;
use std::io::{Read, Write};

use triptych_model::{Error, Result};

use super::damaged;

/// A block's compression; the discriminant is the byte in the chunk's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Lz4x64k = 3,
    Snappy = 4,
    Lz4x256k = 5,
    Lz4x1m = 6,
    Lz4x4m = 7,
    Flate = 8,
    #[default]
    Zstd = 9,
}

impl Codec {
    pub const ALL: [Codec; 9] = [
        Codec::None,
        Codec::Gzip,
        Codec::Lz4x64k,
        Codec::Snappy,
        Codec::Lz4x256k,
        Codec::Lz4x1m,
        Codec::Lz4x4m,
        Codec::Flate,
        Codec::Zstd,
    ];

    pub fn from_u8(byte: u8) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|c| *c as u8 == byte)
            .ok_or_else(|| damaged(&format!("unknown compression {byte}")))
    }

    /// Compresses. `level` counts for zstd alone; the others use their usual one.
    pub fn compress(self, plain: &[u8], level: i32) -> Result<Vec<u8>> {
        let failed = |e: std::io::Error| Error::internal(format!("chunk: compression failed: {e}"));
        match self {
            Codec::None => Ok(plain.to_vec()),
            Codec::Gzip => {
                let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                to.write_all(plain).and_then(|()| to.finish()).map_err(failed)
            }
            Codec::Flate => {
                let mut to = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                to.write_all(plain).and_then(|()| to.finish()).map_err(failed)
            }
            Codec::Snappy => {
                let mut to = snap::write::FrameEncoder::new(Vec::new());
                to.write_all(plain).map_err(failed)?;
                to.into_inner().map_err(|e| Error::internal(format!("chunk: compression failed: {e}")))
            }
            Codec::Lz4x64k | Codec::Lz4x256k | Codec::Lz4x1m | Codec::Lz4x4m => {
                use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
                let size = match self {
                    Codec::Lz4x64k => BlockSize::Max64KB,
                    Codec::Lz4x256k => BlockSize::Max256KB,
                    Codec::Lz4x1m => BlockSize::Max1MB,
                    _ => BlockSize::Max4MB,
                };
                let mut to = FrameEncoder::with_frame_info(FrameInfo::new().block_size(size), Vec::new());
                to.write_all(plain).map_err(failed)?;
                to.finish().map_err(|e| Error::internal(format!("chunk: compression failed: {e}")))
            }
            Codec::Zstd => zstd_compress(plain, level).map_err(failed),
        }
    }

    /// Decompresses; refuses what inflates past `bytes_max`. Memory grows with what really comes out.
    pub fn decompress(self, data: &[u8], bytes_max: usize) -> Result<Vec<u8>> {
        match self {
            Codec::None if data.len() > bytes_max => Err(inflates(bytes_max)),
            Codec::None => Ok(data.to_vec()),
            Codec::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(data), data.len(), bytes_max),
            Codec::Flate => read_bounded(flate2::read::DeflateDecoder::new(data), data.len(), bytes_max),
            Codec::Snappy => read_bounded(snap::read::FrameDecoder::new(data), data.len(), bytes_max),
            Codec::Lz4x64k | Codec::Lz4x256k | Codec::Lz4x1m | Codec::Lz4x4m => {
                read_bounded(lz4_flex::frame::FrameDecoder::new(data), data.len(), bytes_max)
            }
            Codec::Zstd => match zstd::zstd_safe::get_frame_content_size(data) {
                // One frame that says its size (what we write). More frames behind it, or no size (what Go writes): streaming.
                Ok(Some(size)) if is_one_frame(data) => {
                    let size = usize::try_from(size).ok().filter(|s| *s <= bytes_max);
                    let size = size.ok_or_else(|| inflates(bytes_max))?;
                    zstd_decompress(data, size)
                }
                _ => {
                    let from = zstd::stream::read::Decoder::with_buffer(data)
                        .map_err(|e| damaged(&format!("zstd: {e}")))?;
                    read_bounded(from, data.len(), bytes_max)
                }
            },
        }
    }
}

fn is_one_frame(data: &[u8]) -> bool {
    zstd::zstd_safe::find_frame_compressed_size(data) == Ok(data.len())
}

fn inflates(bytes_max: usize) -> Error {
    damaged(&format!("compressed data inflates past {bytes_max} bytes"))
}

fn read_bounded(from: impl Read, hint: usize, bytes_max: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(hint.saturating_mul(4).min(bytes_max).min(1 << 20));
    from.take(bytes_max as u64 + 1)
        .read_to_end(&mut out)
        .map_err(|e| damaged(&format!("compressed data: {e}")))?;
    if out.len() > bytes_max { Err(inflates(bytes_max)) } else { Ok(out) }
}

/// A thread's compressor: a zstd context costs more to make than a block costs to compress.
struct Compressor {
    level: i32,
    zstd: zstd::bulk::Compressor<'static>,
    /// Compressed data are written here first: zstd wants room for the worst case, which would stay with every block that is kept.
    out: Vec<u8>,
}

/// A larger buffer than this does not stay with the thread.
const SCRATCH_BYTES_MAX: usize = 1 << 20;

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Exactly as much memory as what comes out.
fn zstd_compress(plain: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|c| c.level != level) {
            *slot = None;
        }
        let compressor = match slot {
            Some(compressor) => compressor,
            None => {
                let zstd = zstd::bulk::Compressor::new(level)?;
                slot.insert(Compressor { level, zstd, out: Vec::new() })
            }
        };
        let Compressor { zstd, out, .. } = compressor;
        out.clear();
        out.reserve_exact(zstd::zstd_safe::compress_bound(plain.len()));
        zstd.compress_to_buffer(plain, out)?;
        let exact = out.as_slice().to_vec();
        if out.capacity() > SCRATCH_BYTES_MAX {
            *out = Vec::new();
        }
        Ok(exact)
    })
}

fn zstd_decompress(data: &[u8], size: usize) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| damaged(&format!("zstd: {e}"));
    DECOMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(zstd::bulk::Decompressor::new().map_err(failed)?);
        }
        match slot {
            Some(decompressor) => decompressor.decompress(data, size).map_err(failed),
            None => Err(Error::internal("zstd: no decompressor")),
        }
    })
}
