//! The seam to LogQL: what it compiled runs over one decompressed block at a time.

use bytes::Bytes;
use smallvec::SmallVec;
use triptych_logql::{LineFilter, LogLeaf, Pipeline, Processed, SampleLeaf, StreamExtractor, StreamPipeline};
use triptych_model::labels::take_uvarint;
use triptych_model::logs::{Direction, LogEntry, LogSample};
use triptych_model::{Error, Labels, Matcher, Result};

use crate::chunk::{EntryReader, RawEntry, SymbolTable};
use crate::scan::{Item, Leaf, PlainBlock, StreamInfo, Window};

/// A log query at a leaf.
pub(crate) struct EntryLeaf {
    leaf: LogLeaf,
    pipeline: Pipeline,
    prefilter: Option<LineFilter>,
}

/// A range aggregation at a leaf.
pub(crate) struct ExtractLeaf {
    leaf: SampleLeaf,
    prefilter: Option<LineFilter>,
}

/// The identity of a stored entry, see [`LogEntry::key`]; `metadata` is [`metadata_hash`].
#[inline]
pub(crate) fn entry_key(fingerprint: u64, line: &[u8], metadata: u64) -> u64 {
    let line = xxhash_rust::xxh3::xxh3_64_with_seed(line, fingerprint);
    if metadata == 0 { line } else { (line ^ metadata).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31) }
}

/// 0 for no metadata; otherwise a hash of the encoding of the label set.
fn metadata_hash(encoded: &[u8]) -> u64 {
    if encoded.is_empty() { 0 } else { xxhash_rust::xxh3::xxh3_64(encoded) | 1 }
}

type Pairs<'a> = SmallVec<[(&'a str, &'a str); 12]>;

/// The metadata of the entry at hand; looked up anew only when the references change.
struct Metadata<'a> {
    symbols: &'a SymbolTable,
    refs: &'a [u8],
    pairs: Pairs<'a>,
    hash: u64,
    encoded: Vec<u8>,
}

impl<'a> Metadata<'a> {
    fn new(symbols: &'a SymbolTable) -> Self {
        Self { symbols, refs: &[], pairs: Pairs::new(), hash: 0, encoded: Vec::new() }
    }

    fn set(&mut self, refs: &'a [u8]) -> Result<()> {
        if refs == self.refs {
            return Ok(());
        }
        self.refs = &[];
        self.pairs.clear();
        self.encoded.clear();
        let mut rest = refs;
        while !rest.is_empty() {
            let mut next = || take_uvarint(&mut rest).and_then(|n| self.symbols.get(n));
            match (next(), next()) {
                (Some(_), Some("")) => {}
                (Some(name), Some(value)) => self.pairs.push((name, value)),
                _ => return Err(Error::damaged("chunk: a symbol that is not in the table")),
            }
        }
        if !self.pairs.windows(2).all(|w| w[0].0 < w[1].0) {
            self.pairs.sort();
            self.pairs.dedup_by_key(|p| p.0);
        }
        triptych_model::labels::encode_pairs(self.pairs.iter().copied(), &mut self.encoded);
        self.hash = metadata_hash(&self.encoded);
        self.refs = refs;
        Ok(())
    }
}

/// Calls `each` with the entries of the window in the asked direction until enough have passed. Says how many there were.
fn walk<'a, T>(
    block: &'a PlainBlock,
    window: Window,
    prefilter: Option<&LineFilter>,
    out: &mut Vec<T>,
    mut each: impl FnMut(&RawEntry<'a>, &Metadata<'a>) -> Option<T>,
) -> Result<u64> {
    if prefilter.is_some_and(|p| !p.may_match(&block.plain)) {
        return Ok(0);
    }
    let mut metadata = Metadata::new(&block.symbols);
    let inside = |e: &RawEntry<'_>| e.ts_ns >= window.start_ns && e.ts_ns < window.end_ns;
    let mut rows = 0;
    let entries = EntryReader::new(&block.plain, block.version);
    match window.direction {
        Direction::Forward => {
            for entry in entries {
                let entry = entry?;
                if !inside(&entry) {
                    continue;
                }
                rows += 1;
                metadata.set(entry.refs)?;
                out.extend(each(&entry, &metadata));
                if out.len() >= window.items_max {
                    break;
                }
            }
        }
        Direction::Backward => {
            let mut found = Vec::new();
            for entry in entries {
                let entry = entry?;
                if inside(&entry) {
                    found.push(entry);
                }
            }
            for entry in found.iter().rev() {
                rows += 1;
                metadata.set(entry.refs)?;
                out.extend(each(entry, &metadata));
                if out.len() >= window.items_max {
                    break;
                }
            }
        }
    }
    Ok(rows)
}

/// Writers order entries; a chunk of unknown origin may not be trusted with that.
fn ensure_order<T: Item>(items: &mut [T], direction: Direction) {
    match direction {
        Direction::Forward if !items.is_sorted_by_key(Item::ts_ns) => items.sort_by_key(Item::ts_ns),
        Direction::Backward if !items.is_sorted_by_key(|t| std::cmp::Reverse(t.ts_ns())) => {
            items.sort_by_key(|t| std::cmp::Reverse(t.ts_ns()));
        }
        _ => {}
    }
}

impl EntryLeaf {
    pub fn compile(expr: &str) -> Result<Self> {
        let leaf = LogLeaf::compile(expr)?;
        Ok(Self { pipeline: leaf.pipeline(), prefilter: leaf.prefilter(), leaf })
    }

    pub fn matchers(&self) -> &[Matcher] {
        self.leaf.matchers()
    }

    pub fn tail_pipeline(&self, stream: &StreamInfo) -> TailPipeline {
        TailPipeline(self.pipeline.for_stream(&stream.labels))
    }
}

impl Leaf for EntryLeaf {
    type Item = LogEntry;
    type Pipeline = StreamPipeline;

    fn for_stream(&self, stream: &StreamInfo) -> StreamPipeline {
        self.pipeline.for_stream(&stream.labels)
    }

    fn scan(
        &self,
        pipeline: &mut StreamPipeline,
        stream: &StreamInfo,
        block: &PlainBlock,
        window: Window,
        out: &mut Vec<LogEntry>,
    ) -> Result<u64> {
        // The lines that pass lie in one buffer of their own: none keeps the whole block in memory. Until the buffer is
        // finished an entry's line is empty, and its place is in `places`.
        let mut text: Vec<u8> = Vec::new();
        let mut places: Vec<(usize, usize)> = Vec::new();
        let rows = walk(block, window, self.prefilter.as_ref(), out, |entry, metadata| {
            let pairs = metadata.pairs.iter().copied();
            let processed = match std::str::from_utf8(entry.line) {
                Ok(line) => pipeline.process(entry.ts_ns, line, pairs)?,
                Err(_) => pipeline.process_bytes(entry.ts_ns, entry.line, pairs)?,
            };
            let Processed { line, labels, metadata: kept, parsed } = processed;
            let place = text.len();
            text.extend_from_slice(line.as_bytes());
            places.push((place, text.len()));
            let key = entry_key(stream.fingerprint, entry.line, metadata.hash);
            Some(LogEntry { labels, metadata: kept, parsed, ts_ns: entry.ts_ns, line: Bytes::new(), key })
        })?;
        let text = Bytes::from(text);
        for (entry, (from, to)) in out.iter_mut().zip(places) {
            entry.line = text.slice(from..to);
        }
        ensure_order(out, window.direction);
        Ok(rows)
    }
}

impl ExtractLeaf {
    pub fn compile(expr: &str) -> Result<Self> {
        let leaf = SampleLeaf::compile(expr)?;
        Ok(Self { prefilter: leaf.prefilter(), leaf })
    }

    pub fn matchers(&self) -> &[Matcher] {
        self.leaf.matchers()
    }
}

impl Leaf for ExtractLeaf {
    type Item = LogSample;
    type Pipeline = StreamExtractor;

    fn for_stream(&self, stream: &StreamInfo) -> StreamExtractor {
        self.leaf.for_stream(&stream.labels)
    }

    fn scan(
        &self,
        pipeline: &mut StreamExtractor,
        stream: &StreamInfo,
        block: &PlainBlock,
        window: Window,
        out: &mut Vec<LogSample>,
    ) -> Result<u64> {
        let rows = walk(block, window, self.prefilter.as_ref(), out, |entry, metadata| {
            let pairs = metadata.pairs.iter().copied();
            let (value, labels) = match std::str::from_utf8(entry.line) {
                Ok(line) => pipeline.process(entry.ts_ns, line, pairs)?,
                Err(_) => pipeline.process(entry.ts_ns, &String::from_utf8_lossy(entry.line), pairs)?,
            };
            let key = entry_key(stream.fingerprint, entry.line, metadata.hash);
            Some(LogSample { labels, ts_ns: entry.ts_ns, value, key })
        })?;
        ensure_order(out, window.direction);
        Ok(rows)
    }
}

/// A pipeline for lines that arrive one by one.
pub(crate) struct TailPipeline(StreamPipeline);

impl TailPipeline {
    pub fn process(
        &mut self,
        stream: &StreamInfo,
        ts_ns: i64,
        line: &Bytes,
        metadata: &Labels,
    ) -> Option<LogEntry> {
        let text = std::str::from_utf8(line).ok()?;
        let processed = self.0.process(ts_ns, text, metadata)?;
        let out = match &processed.line {
            std::borrow::Cow::Borrowed(same)
                if same.len() == line.len() && same.as_ptr() == line.as_ptr() =>
            {
                line.clone()
            }
            other => Bytes::copy_from_slice(other.as_bytes()),
        };
        let key = entry_key(stream.fingerprint, line, metadata_hash(metadata.as_encoded()));
        let Processed { labels, metadata, parsed, .. } = processed;
        Some(LogEntry { labels, metadata, parsed, ts_ns, line: out, key })
    }
}
