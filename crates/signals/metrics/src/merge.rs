//! Streams of several sources into one, without copies.
//!
//! Sources hand out series in ascending order of labels. [`merge_chunks`] puts the chunks of equal series together,
//! [`merge`] decodes them as they are asked for. Chunks may overlap in any way: the samples come out in ascending time, each
//! time once. Where two sources have another value for the same time, both ends of the stack choose the same one
//! ([`prefer`]), whatever the order of the sources.

mod lists;
mod samples;
mod window;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use futures::StreamExt;
use futures::future::join_all;
use futures::stream::{self, BoxStream};
use triptych_model::metrics::{ChunkEncoding, EncodedChunk, Sample, SeriesChunks, is_stale};
use triptych_model::{Labels, Result};
use triptych_promql::{Series, SeriesStream};

pub use lists::{
    add_cardinality, merge_cardinality, merge_exemplars, merge_metadata, merge_series, merge_strings,
};
pub use samples::ChunkSamples;
pub use window::{Window, merge_chunks_within, merge_samples_within};

use crate::chunk::{self, CHUNK_SAMPLES_MAX};

type ChunkStream = BoxStream<'static, Result<SeriesChunks>>;

/// Merges the sources and decodes: what PromQL reads. The first error of a source ends the stream.
pub fn merge(sources: Vec<ChunkStream>) -> SeriesStream {
    merge_chunks(sources)
        .map(|series| {
            let series = series?;
            Ok(Series { labels: series.labels, samples: Box::new(ChunkSamples::new(series.chunks)) })
        })
        .boxed()
}

/// Merges the sources and leaves chunks encoded. Chunks of a series come sorted by start and may overlap; identical ones are
/// dropped.
pub fn merge_chunks(mut sources: Vec<ChunkStream>) -> ChunkStream {
    if sources.len() < 2 {
        return sources.pop().unwrap_or_else(|| stream::empty().boxed());
    }
    let merged = async_stream::try_stream! {
        let mut chunks: Vec<Vec<EncodedChunk>> = vec![Vec::new(); sources.len()];
        let mut heap: BinaryHeap<Reverse<(Labels, usize)>> = BinaryHeap::with_capacity(sources.len());
        let mut advance: Vec<usize> = (0..sources.len()).collect();
        loop {
            // All that have to move do so at the same time.
            let moving = sources
                .iter_mut()
                .enumerate()
                .filter(|(i, _)| advance.contains(i))
                .map(|(i, source)| async move { (i, source.next().await) });
            for (i, next) in join_all(moving).await {
                if let Some(series) = next {
                    let series = series?;
                    chunks[i] = series.chunks;
                    heap.push(Reverse((series.labels, i)));
                }
            }
            advance.clear();
            let Some(Reverse((labels, i))) = heap.pop() else { return };
            let mut all = std::mem::take(&mut chunks[i]);
            advance.push(i);
            while heap.peek().is_some_and(|Reverse((l, _))| *l == labels) {
                if let Some(Reverse((_, i))) = heap.pop() {
                    all.append(&mut chunks[i]);
                    advance.push(i);
                }
            }
            if advance.len() > 1 {
                sort_chunks(&mut all);
            }
            yield SeriesChunks { labels, chunks: all };
        }
    };
    merged.boxed()
}

fn sort_chunks(chunks: &mut Vec<EncodedChunk>) {
    chunks.sort_by(|a, b| (a.start_ms, a.end_ms, &a.data).cmp(&(b.start_ms, b.end_ms, &b.data)));
    chunks.dedup();
}

/// Which of two samples of the same time is shown: a value rather than the staleness marker, then the larger one. It does not
/// matter which is asked first.
pub fn prefer(a: Sample, b: Sample) -> Sample {
    match (is_stale(a.value), is_stale(b.value)) {
        (true, false) => b,
        (false, true) => a,
        _ if a.value.total_cmp(&b.value).is_lt() => b,
        _ => a,
    }
}

/// Sorts by time and leaves one sample for each time.
pub(crate) fn sort_samples(samples: &mut Vec<Sample>) {
    if samples.is_sorted_by(|a, b| a.t_ms < b.t_ms) {
        return;
    }
    samples.sort_by_key(|s| s.t_ms);
    samples.dedup_by(|next, kept| {
        let same = next.t_ms == kept.t_ms;
        if same {
            *kept = prefer(*kept, *next);
        }
        same
    });
}

/// Makes the chunks of one series fit for a block: ascending, without overlaps, small neighbours joined. Chunks that are fine
/// as they are stay untouched. Native histograms are kept as they are; where they overlap they keep overlapping.
pub(crate) fn tidy_chunks(chunks: Vec<EncodedChunk>) -> Result<Vec<EncodedChunk>> {
    regroup(chunks, usize::from(CHUNK_SAMPLES_MAX))
}

/// The same, but small neighbours stay apart: only chunks that overlap are written anew.
pub(crate) fn separate(chunks: Vec<EncodedChunk>) -> Result<Vec<EncodedChunk>> {
    regroup(chunks, 0)
}

/// Joins chunks that overlap, and neighbours that have no more than so many samples together.
fn regroup(mut chunks: Vec<EncodedChunk>, joined_samples_max: usize) -> Result<Vec<EncodedChunk>> {
    sort_chunks(&mut chunks);
    chunks.retain(|chunk| chunk::samples_in(&chunk.data) > 0);
    let (chunks, mut others): (Vec<_>, Vec<_>) =
        chunks.into_iter().partition(|chunk| chunk.encoding == ChunkEncoding::Xor);
    let mut out: Vec<EncodedChunk> = Vec::with_capacity(chunks.len() + others.len());
    let mut group: Vec<EncodedChunk> = Vec::new();
    let mut group_end_ms = i64::MIN;
    let mut group_samples = 0usize;
    for chunk in chunks {
        let samples = usize::from(chunk::samples_in(&chunk.data));
        let overlaps = !group.is_empty() && chunk.start_ms <= group_end_ms;
        let small = group_samples + samples <= joined_samples_max;
        if !overlaps && !small {
            write_group(&mut group, &mut out)?;
            group_samples = 0;
        }
        group_samples += samples;
        group_end_ms = group_end_ms.max(chunk.end_ms);
        group.push(chunk);
    }
    write_group(&mut group, &mut out)?;
    if !others.is_empty() {
        out.append(&mut others);
        out.sort_by_key(|chunk| (chunk.start_ms, chunk.end_ms));
    }
    Ok(out)
}

fn write_group(group: &mut Vec<EncodedChunk>, out: &mut Vec<EncodedChunk>) -> Result<()> {
    if group.len() < 2 {
        out.append(group);
        return Ok(());
    }
    let mut samples = Vec::new();
    for chunk in group.drain(..) {
        chunk::decode_chunk(&chunk, &mut samples)?;
    }
    sort_samples(&mut samples);
    // Even parts rather than full ones and a small rest.
    let parts = samples.len().div_ceil(usize::from(CHUNK_SAMPLES_MAX)).max(1);
    for part in samples.chunks(samples.len().div_ceil(parts).max(1)) {
        if let (Some(first), Some(last)) = (part.first(), part.last()) {
            out.push(EncodedChunk {
                start_ms: first.t_ms,
                end_ms: last.t_ms,
                encoding: ChunkEncoding::Xor,
                data: chunk::encode(part).into(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
