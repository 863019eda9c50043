//! Decodes the chunks of one series as they are asked for.

use std::collections::VecDeque;

use triptych_model::Result;
use triptych_model::metrics::{EncodedChunk, Sample};
use triptych_promql::SampleIter;

use super::{prefer, sort_samples};
use crate::chunk;

/// Samples of a series in ascending time, each time once. Holds the decoded samples of overlapping chunks only.
pub struct ChunkSamples {
    /// Not decoded yet, ascending by start.
    waiting: VecDeque<EncodedChunk>,
    /// Decoded chunks that overlap one another, with what is left of each.
    open: Vec<Open>,
    last_ms: Option<i64>,
}

struct Open {
    samples: Vec<Sample>,
    at: usize,
}

impl ChunkSamples {
    /// The chunks of one series, in any order.
    pub fn new(mut chunks: Vec<EncodedChunk>) -> Self {
        if !chunks.is_sorted_by_key(|c| c.start_ms) {
            chunks.sort_by_key(|c| c.start_ms);
        }
        Self { waiting: chunks.into(), open: Vec::new(), last_ms: None }
    }

    fn open_next(&mut self) -> Result<()> {
        if let Some(chunk) = self.waiting.pop_front() {
            let mut samples = Vec::new();
            chunk::decode_chunk(&chunk, &mut samples)?;
            sort_samples(&mut samples);
            if !samples.is_empty() {
                self.open.push(Open { samples, at: 0 });
            }
        }
        Ok(())
    }

    /// Forgets what a chunk should not have held: samples before those that went out already.
    fn drop_repeated(&mut self, out: &mut Vec<Sample>, before: usize) {
        if let Some(last_ms) = self.last_ms {
            let repeated = out[before..].partition_point(|s| s.t_ms <= last_ms);
            out.drain(before..before + repeated);
        }
        if let Some(last) = out[before..].last() {
            self.last_ms = Some(last.t_ms);
        }
    }
}

impl SampleIter for ChunkSamples {
    fn next_run(&mut self, out: &mut Vec<Sample>) -> Result<bool> {
        let before = out.len();
        while out.len() == before {
            if self.open.is_empty() {
                let Some(chunk) = self.waiting.pop_front() else { return Ok(false) };
                if self.waiting.front().is_none_or(|next| next.start_ms > chunk.end_ms) {
                    // The common case: alone in its time.
                    chunk::decode_chunk(&chunk, out)?;
                    if !out[before..].is_sorted_by(|a, b| a.t_ms < b.t_ms) {
                        let mut run = out.split_off(before);
                        sort_samples(&mut run);
                        out.append(&mut run);
                    }
                    self.drop_repeated(out, before);
                    continue;
                }
                self.waiting.push_front(chunk);
                self.open_next()?;
                continue;
            }
            // Open everything that could hold the next sample, then merge up to the start of what is still closed.
            while let (Some(next), Some(now)) = (
                self.waiting.front(),
                self.open.iter().filter_map(|o| o.samples.get(o.at)).map(|s| s.t_ms).min(),
            ) && next.start_ms <= now
            {
                self.open_next()?;
            }
            let limit_ms = self.waiting.front().map(|c| c.start_ms);
            merge_until(&mut self.open, limit_ms, out);
            self.drop_repeated(out, before);
        }
        Ok(true)
    }
}

/// Moves samples before `limit_ms` to `out`, and drops what is used up.
fn merge_until(open: &mut Vec<Open>, limit_ms: Option<i64>, out: &mut Vec<Sample>) {
    let below = |t_ms: i64| limit_ms.is_none_or(|limit| t_ms < limit);
    if let [one] = open.as_mut_slice() {
        let rest = &one.samples[one.at..];
        let count = rest.partition_point(|s| below(s.t_ms));
        out.extend_from_slice(&rest[..count]);
        one.at += count;
    } else {
        loop {
            let next = open.iter().filter_map(|o| o.samples.get(o.at)).map(|s| s.t_ms).min();
            let Some(t_ms) = next.filter(|t| below(*t)) else { break };
            let mut chosen: Option<Sample> = None;
            let mut used_up = false;
            for one in open.iter_mut() {
                if let Some(sample) = one.samples.get(one.at)
                    && sample.t_ms == t_ms
                {
                    chosen = Some(chosen.map_or(*sample, |c| prefer(c, *sample)));
                    one.at += 1;
                    used_up |= one.at == one.samples.len();
                }
            }
            out.extend(chosen);
            if used_up {
                break;
            }
        }
    }
    open.retain(|o| o.at < o.samples.len());
}
