//! A whole chunk, as Loki's `chunkenc` lays it out.
//!
//! ```text
//! magic 0x012EE56A u32 BE | version (1 B) = 4 | compression (1 B)
//! symbols: uvarint count | compressed (uvarint length, bytes)* | crc32c u32 BE of both
//! blocks:  (compressed entries | crc32c u32 BE)*
//! metas:   uvarint blocks | blocks x (uvarint entries, varint from ns, varint through ns, uvarint offset,
//!          uvarint uncompressed bytes, uvarint length) | crc32c u32 BE
//! footer:  symbols length u64 BE, symbols offset u64 BE, metas length u64 BE, metas offset u64 BE
//! ```
//! Versions 1 to 3 have no symbols and end with `metas offset u64 BE`; version 1 has no compression byte (gzip); versions 1 and 2
//! have no uncompressed bytes.

use std::sync::Arc;

use bytes::Bytes;
use triptych_model::Result;
use triptych_model::labels::{put_uvarint, take_uvarint};

use super::{Block, Codec, SymbolTable, damaged, put_varint, take_varint};

pub const MAGIC: u32 = 0x012E_E56A;
pub const VERSION: u8 = 4;

/// Most bytes one block may inflate to: a block is cut at some 256 KiB, but holds at least one line of any length.
pub const BLOCK_PLAIN_BYTES_MAX: usize = 64 << 20;

/// Where a block lies and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockMeta {
    pub entries: u32,
    pub from_ns: i64,
    pub through_ns: i64,
    pub offset: usize,
    pub length: usize,
    /// 0 before version 3.
    pub uncompressed_bytes: u64,
}

/// A chunk that was checked: header, metas, symbols. Blocks are checked when they are read.
#[derive(Debug, Clone)]
pub struct Chunk {
    pub version: u8,
    pub codec: Codec,
    pub blocks: Vec<BlockMeta>,
    pub symbols: Arc<SymbolTable>,
    data: Bytes,
}

/// Writes a chunk of version 4.
pub fn encode(codec: Codec, level: i32, symbols: &SymbolTable, blocks: &[Block]) -> Result<Vec<u8>> {
    let blocks_bytes: usize = blocks.iter().map(|b| b.data.len() + 64).sum();
    let mut out = Vec::with_capacity(blocks_bytes + symbols.text_bytes() + 128);
    out.extend_from_slice(&MAGIC.to_be_bytes());
    out.extend_from_slice(&[VERSION, codec as u8]);

    let symbols_offset = out.len();
    put_uvarint(&mut out, symbols.len() as u64);
    out.extend_from_slice(&codec.compress(&symbols.encode(), level)?);
    let symbols_length = out.len() - symbols_offset;
    put_crc(&mut out, symbols_offset);

    let mut offsets = Vec::with_capacity(blocks.len());
    for block in blocks {
        offsets.push(out.len());
        out.extend_from_slice(&block.data);
        out.extend_from_slice(&crc32c::crc32c(&block.data).to_be_bytes());
    }

    let metas_offset = out.len();
    put_uvarint(&mut out, blocks.len() as u64);
    for (block, offset) in blocks.iter().zip(offsets) {
        put_uvarint(&mut out, u64::from(block.entries));
        put_varint(&mut out, block.from_ns);
        put_varint(&mut out, block.through_ns);
        put_uvarint(&mut out, offset as u64);
        put_uvarint(&mut out, u64::from(block.uncompressed_bytes));
        put_uvarint(&mut out, block.data.len() as u64);
    }
    let metas_length = out.len() - metas_offset;
    put_crc(&mut out, metas_offset);
    for number in [symbols_length, symbols_offset, metas_length, metas_offset] {
        out.extend_from_slice(&(number as u64).to_be_bytes());
    }
    Ok(out)
}

fn put_crc(out: &mut Vec<u8>, from: usize) {
    let crc = crc32c::crc32c(&out[from..]);
    out.extend_from_slice(&crc.to_be_bytes());
}

fn be64(data: &[u8], at: usize) -> Option<usize> {
    let bytes = data.get(at..)?.first_chunk::<8>()?;
    usize::try_from(u64::from_be_bytes(*bytes)).ok()
}

/// The bytes of a section; fails unless the checksum that follows them is theirs.
fn section<'a>(data: &'a [u8], offset: usize, length: usize, what: &str) -> Result<&'a [u8]> {
    let get = || {
        let (bytes, rest) = data.get(offset..)?.split_at_checked(length)?;
        Some((bytes, u32::from_be_bytes(*rest.first_chunk::<4>()?)))
    };
    let (bytes, crc) = get().ok_or_else(|| damaged(&format!("{what} lie outside")))?;
    if crc32c::crc32c(bytes) != crc {
        return Err(damaged(&format!("checksum of {what} differs")));
    }
    Ok(bytes)
}

impl Chunk {
    /// Checks header, metas and symbols.
    pub fn parse(data: Bytes) -> Result<Self> {
        let torn = || damaged("torn");
        let magic = u32::from_be_bytes(*data.first_chunk::<4>().ok_or_else(torn)?);
        if magic != MAGIC {
            return Err(damaged(&format!("magic number {magic:#x}")));
        }
        let version = *data.get(4).ok_or_else(torn)?;
        let codec = match version {
            1 => Codec::Gzip,
            2..=4 => Codec::from_u8(*data.get(5).ok_or_else(torn)?)?,
            other => return Err(damaged(&format!("unknown version {other}"))),
        };
        let footer = |n: usize| data.len().checked_sub(n).and_then(|at| be64(&data, at)).ok_or_else(torn);
        let (metas_length, metas_offset) = if version >= 4 {
            (footer(16)?, footer(8)?)
        } else {
            let offset = footer(8)?;
            let length = data.len().checked_sub(12).and_then(|end| end.checked_sub(offset));
            (length.ok_or_else(torn)?, offset)
        };
        let metas = section(&data, metas_offset, metas_length, "block metas")?;
        let blocks = parse_metas(metas, version).ok_or_else(|| damaged("torn block metas"))?;
        let symbols = if version >= 4 {
            let mut rest = section(&data, footer(24)?, footer(32)?, "symbols")?;
            let count = take_uvarint(&mut rest).and_then(|n| usize::try_from(n).ok());
            let plain = codec.decompress(rest, BLOCK_PLAIN_BYTES_MAX)?;
            Arc::new(SymbolTable::decode(&plain, count.ok_or_else(torn)?)?)
        } else {
            Arc::default()
        };
        Ok(Self { version, codec, blocks, symbols, data })
    }

    /// A block's entries, checked and decompressed; walk them with [`super::EntryReader`].
    pub fn read_block(&self, meta: &BlockMeta) -> Result<Vec<u8>> {
        let data = section(&self.data, meta.offset, meta.length, "a block")?;
        self.codec.decompress(data, BLOCK_PLAIN_BYTES_MAX)
    }

    /// First and last time of all blocks.
    pub fn bounds_ns(&self) -> Option<(i64, i64)> {
        let from = self.blocks.iter().map(|b| b.from_ns).min()?;
        Some((from, self.blocks.iter().map(|b| b.through_ns).max()?))
    }

    /// Estimated memory, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.data.len() + self.blocks.len() * size_of::<BlockMeta>() + self.symbols.text_bytes() + 256
    }
}

fn parse_metas(mut rest: &[u8], version: u8) -> Option<Vec<BlockMeta>> {
    let count = usize::try_from(take_uvarint(&mut rest)?).ok()?;
    // A meta takes five bytes at least.
    if count > rest.len() / 5 {
        return None;
    }
    let mut blocks = Vec::with_capacity(count);
    for _ in 0..count {
        blocks.push(BlockMeta {
            entries: u32::try_from(take_uvarint(&mut rest)?).ok()?,
            from_ns: take_varint(&mut rest)?,
            through_ns: take_varint(&mut rest)?,
            offset: usize::try_from(take_uvarint(&mut rest)?).ok()?,
            uncompressed_bytes: if version >= 3 { take_uvarint(&mut rest)? } else { 0 },
            length: usize::try_from(take_uvarint(&mut rest)?).ok()?,
        });
    }
    Some(blocks)
}
