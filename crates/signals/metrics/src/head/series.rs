//! One series in the head: an open chunk, closed chunks, and what came late.

use bytes::Bytes;
use triptych_model::Labels;
use triptych_model::metrics::{ChunkEncoding, EncodedChunk, Sample};

use crate::chunk::{self, XorAppender};

/// Late samples kept sorted before they are encoded, Prometheus' `out_of_order_cap_max`.
const LATE_SAMPLES_MAX: usize = 32;

/// A finished chunk. It never crosses the border of a block range.
#[derive(Debug, Clone)]
pub(crate) struct ClosedChunk {
    pub start_ms: i64,
    pub end_ms: i64,
    pub data: Bytes,
}

impl ClosedChunk {
    fn encoded(&self) -> EncodedChunk {
        EncodedChunk {
            start_ms: self.start_ms,
            end_ms: self.end_ms,
            encoding: ChunkEncoding::Xor,
            data: self.data.clone(),
        }
    }

    fn bytes(&self) -> i64 {
        (size_of::<Self>() + self.data.len()) as i64
    }
}

#[derive(Debug, Default)]
struct Late {
    /// Ascending, at most [`LATE_SAMPLES_MAX`].
    samples: Vec<Sample>,
    chunks: Vec<ClosedChunk>,
}

#[derive(Debug)]
pub(crate) struct Series {
    pub hash: u64,
    pub labels: Labels,
    open: XorAppender,
    open_start_ms: i64,
    /// End (exclusive) of the block range the open chunk lies in.
    open_limit_ms: i64,
    closed: Vec<ClosedChunk>,
    late: Option<Box<Late>>,
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Outcome {
    Taken,
    /// The same sample is there already.
    Copy,
    /// Another value is there already.
    Conflict(f64),
}

/// How samples become chunks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub samples_max: u16,
    pub range_ms: i64,
}

impl Cut {
    fn range_start(self, t_ms: i64) -> i64 {
        t_ms.saturating_sub(t_ms.rem_euclid(self.range_ms))
    }
}

fn push_exact<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 2).max(1));
    }
    list.push(item);
}

impl Series {
    pub fn new(hash: u64, labels: Labels) -> Self {
        Self {
            hash,
            labels,
            open: XorAppender::default(),
            open_start_ms: 0,
            open_limit_ms: 0,
            closed: Vec::new(),
            late: None,
        }
    }

    /// Adds a sample; `bytes` follows the memory held.
    #[inline]
    pub fn append(&mut self, sample: Sample, cut: Cut, bytes: &mut i64) -> Outcome {
        if self.open.is_empty() {
            self.start_chunk(sample, cut, bytes);
            return Outcome::Taken;
        }
        let last = self.open.last();
        if sample.t_ms > last.t_ms {
            if self.open.samples() >= cut.samples_max || sample.t_ms >= self.open_limit_ms {
                self.close_chunk(bytes);
                self.start_chunk(sample, cut, bytes);
            } else {
                let before = self.open.capacity();
                self.open.append(sample.t_ms, sample.value);
                *bytes += self.open.capacity() as i64 - before as i64;
            }
            return Outcome::Taken;
        }
        if sample.t_ms == last.t_ms {
            return compare(last, sample);
        }
        self.append_late(sample, cut, bytes)
    }

    fn start_chunk(&mut self, sample: Sample, cut: Cut, bytes: &mut i64) {
        self.open.append(sample.t_ms, sample.value);
        self.open_start_ms = sample.t_ms;
        self.open_limit_ms = cut.range_start(sample.t_ms).saturating_add(cut.range_ms);
        *bytes += self.open.capacity() as i64;
    }

    fn close_chunk(&mut self, bytes: &mut i64) {
        let end_ms = self.open.last().t_ms;
        *bytes -= self.open.capacity() as i64;
        let data = Bytes::from(self.open.take().into_boxed_slice());
        let chunk = ClosedChunk { start_ms: self.open_start_ms, end_ms, data };
        *bytes += chunk.bytes();
        push_exact(&mut self.closed, chunk);
    }

    /// The rare way: the sample is older than the newest of its series.
    #[cold]
    fn append_late(&mut self, sample: Sample, cut: Cut, bytes: &mut i64) -> Outcome {
        let mut decoded = Vec::new();
        let mut find = |data: &[u8]| -> Option<Sample> {
            decoded.clear();
            chunk::decode(data, &mut decoded).ok()?;
            let at = decoded.binary_search_by_key(&sample.t_ms, |s| s.t_ms).ok()?;
            decoded.get(at).copied()
        };
        if sample.t_ms >= self.open_start_ms
            && let Some(there) = find(self.open.bytes())
        {
            return compare(there, sample);
        }
        let late = self.late.get_or_insert_with(|| {
            *bytes += size_of::<Late>() as i64;
            Box::default()
        });
        for chunk in self.closed.iter().chain(&late.chunks) {
            if chunk.start_ms <= sample.t_ms
                && sample.t_ms <= chunk.end_ms
                && let Some(there) = find(&chunk.data)
            {
                return compare(there, sample);
            }
        }
        match late.samples.binary_search_by_key(&sample.t_ms, |s| s.t_ms) {
            Ok(at) => return compare(late.samples[at], sample),
            Err(at) => {
                let before = late.samples.capacity();
                late.samples.insert(at, sample);
                *bytes += ((late.samples.capacity() - before) * size_of::<Sample>()) as i64;
            }
        }
        if late.samples.len() >= LATE_SAMPLES_MAX {
            for chunk in encode_by_range(&late.samples, cut) {
                *bytes += chunk.bytes();
                push_exact(&mut late.chunks, chunk);
            }
            late.samples.clear();
        }
        Outcome::Taken
    }

    /// Chunks that overlap the range, sorted by start; they may overlap one another.
    pub fn chunks(&self, start_ms: i64, end_ms: i64, cut: Cut) -> Vec<EncodedChunk> {
        let hit = |from: i64, to: i64| from <= end_ms && to >= start_ms;
        let mut chunks: Vec<EncodedChunk> = self
            .closed
            .iter()
            .chain(self.late.iter().flat_map(|l| &l.chunks))
            .filter(|c| hit(c.start_ms, c.end_ms))
            .map(ClosedChunk::encoded)
            .collect();
        if !self.open.is_empty() && hit(self.open_start_ms, self.open.last().t_ms) {
            chunks.push(EncodedChunk {
                start_ms: self.open_start_ms,
                end_ms: self.open.last().t_ms,
                encoding: ChunkEncoding::Xor,
                data: Bytes::copy_from_slice(self.open.bytes()),
            });
        }
        if let Some(late) = &self.late {
            chunks.extend(
                encode_by_range(&late.samples, cut)
                    .iter()
                    .filter(|c| hit(c.start_ms, c.end_ms))
                    .map(ClosedChunk::encoded),
            );
        }
        chunks.sort_by_key(|c| (c.start_ms, c.end_ms));
        chunks
    }

    /// Whether any chunk overlaps the range.
    pub fn overlaps(&self, start_ms: i64, end_ms: i64) -> bool {
        let hit = |from: i64, to: i64| from <= end_ms && to >= start_ms;
        (!self.open.is_empty() && hit(self.open_start_ms, self.open.last().t_ms))
            || self.closed.iter().any(|c| hit(c.start_ms, c.end_ms))
            || self.late.iter().any(|l| {
                l.samples.iter().any(|s| hit(s.t_ms, s.t_ms))
                    || l.chunks.iter().any(|c| hit(c.start_ms, c.end_ms))
            })
    }

    /// Calls back with the start of each block range that holds samples (some of them more than once).
    pub fn ranges(&self, cut: Cut, mut found: impl FnMut(i64)) {
        if !self.open.is_empty() {
            found(cut.range_start(self.open_start_ms));
        }
        self.closed.iter().for_each(|c| found(cut.range_start(c.start_ms)));
        if let Some(late) = &self.late {
            late.chunks.iter().for_each(|c| found(cut.range_start(c.start_ms)));
            late.samples.iter().for_each(|s| found(cut.range_start(s.t_ms)));
        }
    }

    /// Chunks held.
    pub fn chunk_count(&self) -> usize {
        self.closed.len()
            + usize::from(!self.open.is_empty())
            + self.late.as_ref().map_or(0, |l| l.chunks.len() + usize::from(!l.samples.is_empty()))
    }
}

fn compare(there: Sample, sample: Sample) -> Outcome {
    if there.value.to_bits() == sample.value.to_bits() {
        Outcome::Copy
    } else {
        Outcome::Conflict(there.value)
    }
}

/// Encodes ascending samples, a chunk for each block range they lie in.
fn encode_by_range(samples: &[Sample], cut: Cut) -> Vec<ClosedChunk> {
    samples
        .chunk_by(|a, b| cut.range_start(a.t_ms) == cut.range_start(b.t_ms))
        .filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            let data = Bytes::from(chunk::encode(run).into_boxed_slice());
            Some(ClosedChunk { start_ms: first.t_ms, end_ms: last.t_ms, data })
        })
        .collect()
}
