//! What lies in a range and nothing else, each sample once: what is handed to those who read the store from outside.

use futures::StreamExt;
use futures::stream::BoxStream;
use triptych_model::Result;
use triptych_model::metrics::{ChunkEncoding, EncodedChunk, SeriesChunks, SeriesSamples};
use triptych_promql::SampleIter;

use super::{ChunkSamples, ChunkStream, merge_chunks, separate};
use crate::chunk;

/// Both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub start_ms: i64,
    pub end_ms: i64,
}

impl Window {
    fn holds(self, t_ms: i64) -> bool {
        self.start_ms <= t_ms && t_ms <= self.end_ms
    }
}

/// Merges the sources into chunks that ascend, do not overlap, and hold nothing outside of the window. A chunk that is so
/// already passes as it is. Native histograms pass whole. Series with nothing in the window are left out.
pub fn merge_chunks_within(sources: Vec<ChunkStream>, window: Window) -> ChunkStream {
    let cut = move |series: Result<SeriesChunks>| {
        let SeriesChunks { labels, mut chunks } = series?;
        for chunk in &mut chunks {
            cut_chunk(chunk, window)?;
        }
        Ok(SeriesChunks { labels, chunks: separate(chunks)? })
    };
    let found = |series: &Result<SeriesChunks>| series.as_ref().map_or(true, |s| !s.chunks.is_empty());
    merge_chunks(sources).map(cut).filter(move |series| std::future::ready(found(series))).boxed()
}

/// Merges the sources and decodes the samples in the window, staleness markers among them. Series with none are left out.
pub fn merge_samples_within(
    sources: Vec<ChunkStream>,
    window: Window,
) -> BoxStream<'static, Result<SeriesSamples>> {
    let decode = move |series: Result<SeriesChunks>| {
        let SeriesChunks { labels, chunks } = series?;
        let mut iter = ChunkSamples::new(chunks);
        let (mut run, mut samples) = (Vec::new(), Vec::new());
        while iter.next_run(&mut run)? {
            samples.extend(run.drain(..).filter(|s| window.holds(s.t_ms)));
        }
        Ok(SeriesSamples { labels, samples })
    };
    let found = |series: &Result<SeriesSamples>| series.as_ref().map_or(true, |s| !s.samples.is_empty());
    merge_chunks(sources).map(decode).filter(move |series| std::future::ready(found(series))).boxed()
}

/// Leaves of a chunk what is in the window; of one outside of it an empty chunk.
fn cut_chunk(chunk: &mut EncodedChunk, window: Window) -> Result<()> {
    let inside = window.holds(chunk.start_ms) && window.holds(chunk.end_ms);
    if inside || chunk.encoding != ChunkEncoding::Xor {
        return Ok(());
    }
    let mut samples = Vec::new();
    chunk::decode_chunk(chunk, &mut samples)?;
    samples.retain(|s| window.holds(s.t_ms));
    chunk.data = chunk::encode(&samples).into();
    if let (Some(first), Some(last)) = (samples.first(), samples.last()) {
        (chunk.start_ms, chunk.end_ms) = (first.t_ms, last.t_ms);
    }
    Ok(())
}
