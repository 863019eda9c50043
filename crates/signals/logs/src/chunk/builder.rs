//! A chunk that is being filled: finished blocks, the open block, the strings of the metadata.

use std::sync::Arc;

use triptych_model::Result;
use triptych_model::labels::{put_uvarint, take_bytes};

use super::{Block, Codec, OpenBlock, SymbolTable, Symbols};

/// Takes entries in about the order of time. Who fills it decides when a block or the chunk is cut.
#[derive(Debug, Default)]
pub struct ChunkBuilder {
    symbols: Symbols,
    blocks: Vec<Block>,
    blocks_bytes: usize,
    /// Of the finished blocks.
    uncompressed_bytes: usize,
    open: OpenBlock,
    scratch: Scratch,
}

/// The metadata that came last, and its references: it is the same for line after line.
#[derive(Debug, Default)]
struct Scratch {
    metadata: Vec<u8>,
    pairs: usize,
    refs: Vec<u8>,
}

impl ChunkBuilder {
    /// `block_bytes`: see [`OpenBlock::new`].
    pub fn new(block_bytes: usize) -> Self {
        Self { open: OpenBlock::new(block_bytes), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.open.is_empty()
    }

    pub fn open(&self) -> &OpenBlock {
        &self.open
    }

    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Of the finished blocks, compressed.
    pub fn blocks_bytes(&self) -> usize {
        self.blocks_bytes
    }

    /// Loki's count of everything in it, see [`Block::uncompressed_bytes`].
    pub fn uncompressed_bytes(&self) -> usize {
        self.uncompressed_bytes + self.open.uncompressed_bytes()
    }

    pub fn symbols(&self) -> &Arc<SymbolTable> {
        self.symbols.table()
    }

    /// Sets the metadata of the entries to come, an encoded label set. False where it is none.
    pub fn set_metadata(&mut self, metadata: &[u8]) -> bool {
        if self.scratch.metadata == metadata {
            return true;
        }
        let is_set = self.set_refs(metadata).is_some();
        if !is_set {
            self.scratch = Scratch::default();
        }
        is_set
    }

    fn set_refs(&mut self, metadata: &[u8]) -> Option<()> {
        let Scratch { metadata: last, pairs, refs } = &mut self.scratch;
        refs.clear();
        last.clear();
        *pairs = 0;
        let mut rest = metadata;
        let mut previous: Option<&str> = None;
        while !rest.is_empty() {
            let mut text = || std::str::from_utf8(take_bytes(&mut rest)?).ok();
            let (name, value) = (text()?, text()?);
            if value.is_empty() || previous.is_some_and(|p| p >= name) {
                return None;
            }
            previous = Some(name);
            put_uvarint(refs, u64::from(self.symbols.intern(name)?));
            put_uvarint(refs, u64::from(self.symbols.intern(value)?));
            *pairs += 1;
        }
        last.extend_from_slice(metadata);
        Some(())
    }

    /// Adds an entry with the metadata that was set. False where the open block has the same one.
    pub fn append(&mut self, ts_ns: i64, line: &[u8]) -> bool {
        self.open.append(ts_ns, line, self.scratch.pairs, &self.scratch.refs)
    }

    /// Finishes the open block. False where it was empty.
    pub fn cut_block(&mut self, codec: Codec, level: i32) -> Result<bool> {
        let Some(block) = self.open.cut(codec, level)? else { return Ok(false) };
        self.blocks_bytes += block.data.len();
        self.uncompressed_bytes += block.uncompressed_bytes as usize;
        self.blocks.push(block);
        Ok(true)
    }

    /// The finished blocks and their symbols; what comes next is another chunk's. `None` where there are none.
    pub fn cut_chunk(&mut self) -> Option<(Arc<SymbolTable>, Vec<Block>)> {
        if self.blocks.is_empty() {
            return None;
        }
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.shrink_to_fit();
        (self.blocks_bytes, self.uncompressed_bytes) = (0, 0);
        self.scratch = Scratch::default();
        Some((std::mem::take(&mut self.symbols).finish(), blocks))
    }

    /// Memory it holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.blocks_bytes
            + self.blocks.capacity() * size_of::<Block>()
            + self.open.memory_bytes()
            + self.symbols.memory_bytes()
            + self.scratch.metadata.capacity()
            + self.scratch.refs.capacity()
    }
}
