//! A remembered answer: series at consecutive steps, in as few bytes as is cheap.

use std::sync::Arc;

use bytes::{Buf, BufMut};
use triptych_model::metrics::{Sample, SeriesSamples};
use triptych_model::{Error, Labels, Result};

/// First and last step in milliseconds, and what is between two of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Steps {
    pub first_ms: i64,
    pub last_ms: i64,
    pub step_ms: i64,
}

impl Steps {
    fn count(self) -> usize {
        ((self.last_ms - self.first_ms) / self.step_ms + 1) as usize
    }

    /// Whether all of the other ones are among them.
    pub fn has(self, other: Self) -> bool {
        self.first_ms <= other.first_ms && other.last_ms <= self.last_ms
    }

    /// The samples of these steps.
    pub fn of(self, samples: &[Sample]) -> &[Sample] {
        let from = samples.partition_point(|s| s.t_ms < self.first_ms);
        let until = samples.partition_point(|s| s.t_ms <= self.last_ms);
        &samples[from..until.max(from)]
    }
}

/// Series at consecutive steps: labels, which steps have a value (unless all have), values; compressed with LZ4.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    steps: Steps,
    data: Arc<[u8]>,
}

impl Packed {
    /// What the series are worth at the steps. `None` where they have samples between them.
    pub fn new(series: &[SeriesSamples], steps: Steps) -> Option<Self> {
        let mut plain = Vec::new();
        for one in series {
            let samples = steps.of(&one.samples);
            if samples.is_empty() {
                continue;
            }
            let labels = one.labels.as_encoded();
            plain.put_u32_le(u32::try_from(labels.len()).ok()?);
            plain.put_slice(labels);
            plain.put_u32_le(u32::try_from(samples.len()).ok()?);
            if samples.len() != steps.count() {
                for sample in samples {
                    let since_ms = sample.t_ms - steps.first_ms;
                    if since_ms % steps.step_ms != 0 {
                        return None;
                    }
                    plain.put_u32_le(u32::try_from(since_ms / steps.step_ms).ok()?);
                }
            }
            samples.iter().for_each(|sample| plain.put_u64_le(sample.value.to_bits()));
        }
        Some(Self { steps, data: lz4_flex::compress_prepend_size(&plain).into() })
    }

    /// What the series are worth at some of the steps; those worth nothing there are left out.
    pub fn series(&self, wanted: Steps) -> Result<Vec<SeriesSamples>> {
        let torn = |_| Error::internal("a remembered answer is torn");
        let plain = lz4_flex::decompress_size_prepended(&self.data)
            .map_err(|e| Error::internal(format!("a remembered answer: {e}")))?;
        let (mut rest, mut out) = (&plain[..], Vec::new());
        while !rest.is_empty() {
            let length = rest.try_get_u32_le().map_err(torn)? as usize;
            let labels = rest.get(..length).ok_or_else(|| Error::internal("a remembered answer is torn"))?;
            let labels = Labels::from_encoded(labels)?;
            rest.advance(length);
            let count = rest.try_get_u32_le().map_err(torn)? as usize;
            let all = count == self.steps.count();
            let mut places = rest;
            if !all {
                if rest.len() < 4 * count {
                    return Err(Error::internal("a remembered answer is torn"));
                }
                rest.advance(4 * count);
            }
            let mut samples = Vec::new();
            for at in 0..count {
                let place = if all { at as i64 } else { i64::from(places.try_get_u32_le().map_err(torn)?) };
                let t_ms = self.steps.first_ms + place * self.steps.step_ms;
                let value = f64::from_bits(rest.try_get_u64_le().map_err(torn)?);
                if (wanted.first_ms..=wanted.last_ms).contains(&t_ms) {
                    samples.push(Sample { t_ms, value });
                }
            }
            if !samples.is_empty() {
                out.push(SeriesSamples { labels, samples });
            }
        }
        Ok(out)
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }
}

#[cfg(test)]
mod tests;
