//! Loki chunks: one stream's lines of some hours, in compressed blocks. Byte by byte in `docs/formats/logs.md`.
//!
//! | module | |
//! |---|---|
//! | [`codec`] | the compressions a block may have |
//! | [`symbols`] | the strings of structured metadata, kept once per chunk |
//! | [`block`] | entries on their way into a block, and out of one |
//! | [`builder`] | a chunk that is being filled |
//! | [`format`] | a whole chunk: header, symbols, blocks, metas, footer |
//! | [`envelope`] | what stands around the chunk in an object, and the object's key |
//!
//! Versions 1 to 4 are read, 4 is written. Everything that comes from outside is checked before it is used: offsets and lengths
//! against the slice, checksums, counts against what the bytes can hold; a block that inflates past its bound is refused.

pub mod block;
pub mod builder;
pub mod codec;
pub mod envelope;
pub mod format;
pub mod symbols;
#[cfg(test)]
mod tests;

pub use block::{Block, EntryReader, OpenBlock, RawEntry};
pub use builder::ChunkBuilder;
pub use codec::Codec;
pub use envelope::ChunkRef;
pub use format::{BlockMeta, Chunk, encode};
pub use symbols::{SymbolTable, Symbols};

use triptych_model::Error;

pub(crate) fn damaged(what: &str) -> Error {
    Error::damaged(format!("chunk: {what}"))
}

/// Go's signed varint: zigzag, then LEB128.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i64) {
    triptych_model::labels::put_uvarint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Takes a signed varint off the front.
#[inline]
pub(crate) fn take_varint(rest: &mut &[u8]) -> Option<i64> {
    let raw = triptych_model::labels::take_uvarint(rest)?;
    Some((raw >> 1) as i64 ^ -((raw & 1) as i64))
}
