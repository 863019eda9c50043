//! The seam to LogQL: what it compiled runs over one decompressed block at a time.

use std::cmp::Reverse;

use bytes::Bytes;
use hashbrown::HashMap;
use smallvec::SmallVec;
use triptych_logql::{LineFilter, LogLeaf, Pipeline, Processed, SampleLeaf, StreamPipeline};
use triptych_model::labels::take_uvarint;
use triptych_model::logs::{Direction, LogEntry, LogSample, LogSamples};
use triptych_model::{Error, Labels, Matcher, Result};

use crate::chunk::{EntryReader, RawEntry, SymbolTable};
use crate::scan::entries::Window;
use crate::scan::{PlainBlock, StreamInfo};

/// What becomes of the entries of a block.
pub(crate) trait LineLeaf: Send + Sync + 'static {
    /// What is kept for a stream from block to block.
    type Pipeline: Send;

    fn for_stream(&self, stream: &StreamInfo) -> Self::Pipeline;

    /// Runs over the entries of the window, pushes what passes in the asked direction, says how many entries it looked at.
    fn scan(
        &self,
        pipeline: &mut Self::Pipeline,
        stream: &StreamInfo,
        block: &PlainBlock,
        window: Window,
        out: &mut Vec<LogEntry>,
    ) -> Result<u64>;
}

/// Passes every entry as it is stored; labels are left out.
pub(crate) struct RawLeaf;

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

/// Sets of references that are remembered while a block is walked: levels and the like take turns.
const METADATA_SETS: usize = 8;

/// What a set of references means.
#[derive(Default)]
struct MetadataSet<'a> {
    refs: &'a [u8],
    pairs: Pairs<'a>,
    /// See [`metadata_hash`].
    hash: u64,
}

/// The metadata of the entry at hand; looked up anew only where the references were not among the last few.
struct Metadata<'a> {
    symbols: &'a SymbolTable,
    sets: SmallVec<[MetadataSet<'a>; METADATA_SETS]>,
    /// Which of `sets` is overwritten next.
    oldest: usize,
    encoded: Vec<u8>,
}

impl<'a> Metadata<'a> {
    fn new(symbols: &'a SymbolTable) -> Self {
        // The first set is that of entries without metadata.
        let sets = SmallVec::from_iter([MetadataSet::default()]);
        Self { symbols, sets, oldest: 0, encoded: Vec::new() }
    }

    fn set(&mut self, refs: &'a [u8]) -> Result<&MetadataSet<'a>> {
        if let Some(at) = self.sets.iter().position(|set| set.refs == refs) {
            return Ok(&self.sets[at]);
        }
        let mut pairs = Pairs::new();
        let mut rest = refs;
        while !rest.is_empty() {
            let mut next = || take_uvarint(&mut rest).and_then(|n| self.symbols.get(n));
            match (next(), next()) {
                (Some(_), Some("")) => {}
                (Some(name), Some(value)) => pairs.push((name, value)),
                _ => return Err(Error::damaged("chunk: a symbol that is not in the table")),
            }
        }
        if !pairs.windows(2).all(|w| w[0].0 < w[1].0) {
            pairs.sort();
            pairs.dedup_by_key(|p| p.0);
        }
        self.encoded.clear();
        triptych_model::labels::encode_pairs(pairs.iter().copied(), &mut self.encoded);
        let set = MetadataSet { refs, pairs, hash: metadata_hash(&self.encoded) };
        let at = if self.sets.len() < METADATA_SETS {
            self.sets.push(set);
            self.sets.len() - 1
        } else {
            let at = self.oldest;
            self.sets[at] = set;
            self.oldest = (at + 1) % METADATA_SETS;
            at
        };
        Ok(&self.sets[at])
    }
}

/// Calls `each` with the entries of the window in the asked direction until enough have passed. Says how many there were.
fn walk<'a, T>(
    block: &'a PlainBlock,
    window: Window,
    prefilter: Option<&LineFilter>,
    out: &mut Vec<T>,
    mut each: impl FnMut(&RawEntry<'a>, &MetadataSet<'a>) -> Option<T>,
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
                out.extend(each(&entry, metadata.set(entry.refs)?));
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
                out.extend(each(entry, metadata.set(entry.refs)?));
                if out.len() >= window.items_max {
                    break;
                }
            }
        }
    }
    Ok(rows)
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
        TailPipeline(self.for_stream(stream))
    }
}

impl LineLeaf for EntryLeaf {
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
        scan_lines(block, window, self.prefilter.as_ref(), out, |entry, metadata, text| {
            let pairs = metadata.pairs.iter().copied();
            let processed = match std::str::from_utf8(entry.line) {
                Ok(line) => pipeline.process(entry.ts_ns, line, pairs)?,
                Err(_) => pipeline.process_bytes(entry.ts_ns, entry.line, pairs)?,
            };
            let Processed { line, labels, metadata: kept, parsed } = processed;
            text.extend_from_slice(line.as_bytes());
            let key = entry_key(stream.fingerprint, entry.line, metadata.hash);
            Some(LogEntry { labels, metadata: kept, parsed, ts_ns: entry.ts_ns, line: Bytes::new(), key })
        })
    }
}

impl LineLeaf for RawLeaf {
    type Pipeline = ();

    fn for_stream(&self, _: &StreamInfo) {}

    fn scan(
        &self,
        (): &mut (),
        stream: &StreamInfo,
        block: &PlainBlock,
        window: Window,
        out: &mut Vec<LogEntry>,
    ) -> Result<u64> {
        scan_lines(block, window, None, out, |entry, metadata, text| {
            text.extend_from_slice(entry.line);
            Some(LogEntry {
                labels: Labels::empty(),
                metadata: Labels::from_sorted(metadata.pairs.iter().copied()),
                parsed: Labels::empty(),
                ts_ns: entry.ts_ns,
                line: Bytes::new(),
                key: entry_key(stream.fingerprint, entry.line, metadata.hash),
            })
        })
    }
}

/// As [`walk`]; `each` writes the line of an entry that passes into the buffer and leaves it empty in the entry.
fn scan_lines<'a>(
    block: &'a PlainBlock,
    window: Window,
    prefilter: Option<&LineFilter>,
    out: &mut Vec<LogEntry>,
    mut each: impl FnMut(&RawEntry<'a>, &MetadataSet<'a>, &mut Vec<u8>) -> Option<LogEntry>,
) -> Result<u64> {
    // The lines that pass lie in one buffer of their own: none keeps the whole block in memory. Until the buffer is finished an
    // entry's line is empty, and its place is in `places`.
    let mut text: Vec<u8> = Vec::new();
    let mut places: Vec<(usize, usize)> = Vec::new();
    let rows = walk(block, window, prefilter, out, |entry, metadata| {
        let place = text.len();
        let passed = each(entry, metadata, &mut text)?;
        places.push((place, text.len()));
        Some(passed)
    })?;
    let text = Bytes::from(text);
    for (entry, (from, to)) in out.iter_mut().zip(places) {
        entry.line = text.slice(from..to);
    }
    // Writers order entries; a chunk of unknown origin may not be trusted with that.
    match window.direction {
        Direction::Forward if !out.is_sorted_by_key(|e| e.ts_ns) => out.sort_by_key(|e| e.ts_ns),
        Direction::Backward if !out.is_sorted_by_key(|e| Reverse(e.ts_ns)) => {
            out.sort_by_key(|e| Reverse(e.ts_ns));
        }
        _ => {}
    }
    Ok(rows)
}

impl ExtractLeaf {
    pub fn compile(expr: &str) -> Result<Self> {
        let leaf = SampleLeaf::compile(expr)?;
        Ok(Self { prefilter: leaf.prefilter(), leaf })
    }

    pub fn matchers(&self) -> &[Matcher] {
        self.leaf.matchers()
    }

    /// The samples of the entries of `start_ns..end_ns`, by time, and how many entries there were.
    pub fn extract(
        &self,
        stream: &StreamInfo,
        block: &PlainBlock,
        start_ns: i64,
        end_ns: i64,
    ) -> Result<(u64, LogSamples)> {
        let mut extractor = self.leaf.for_stream(&stream.labels);
        let (needs_line, needs_metadata) = (self.leaf.needs_line(), extractor.needs_metadata());
        let mut out = LogSamples { stream: stream.fingerprint, series: Vec::new(), samples: Vec::new() };
        let LogSamples { series, samples, .. } = &mut out;
        let mut positions: HashMap<Labels, u32> = HashMap::new();
        let mut last = 0;
        let window = Window { start_ns, end_ns, direction: Direction::Forward, items_max: usize::MAX };
        let rows = walk(block, window, self.prefilter.as_ref(), samples, |entry, metadata| {
            let pairs = if needs_metadata { &metadata.pairs[..] } else { &[] };
            let pairs = pairs.iter().copied();
            let (value, labels) = match std::str::from_utf8(if needs_line { entry.line } else { &[] }) {
                Ok(line) => extractor.process(entry.ts_ns, line, pairs)?,
                Err(_) => extractor.process(entry.ts_ns, &String::from_utf8_lossy(entry.line), pairs)?,
            };
            // Mostly it is the same series as for the line before.
            if series.get(last as usize) != Some(&labels) {
                last = *positions.entry(labels).or_insert_with_key(|labels| {
                    series.push(labels.clone());
                    series.len() as u32 - 1
                });
            }
            let key = entry_key(stream.fingerprint, entry.line, metadata.hash);
            Some(LogSample { ts_ns: entry.ts_ns, key, value, series: last })
        })?;
        // As in `scan_lines`.
        if !samples.is_sorted_by_key(|s| s.ts_ns) {
            samples.sort_by_key(|s| s.ts_ns);
        }
        Ok((rows, out))
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
