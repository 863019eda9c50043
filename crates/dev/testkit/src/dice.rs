//! Chance, from a seed.

use std::time::Duration;

use triptych_runtime::random::split_mix;

/// A sequence of random numbers that its seed decides.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        split_mix(&mut state);
        Self(state)
    }

    /// Dice of their own for one part of the world, so that what one part draws does not shift what the others draw.
    pub fn fork(&self, name: &str) -> Self {
        let mut state = self.0;
        for byte in name.bytes() {
            state = state.wrapping_add(u64::from(byte));
            state = split_mix(&mut state);
        }
        Self(state)
    }

    pub fn number(&mut self) -> u64 {
        split_mix(&mut self.0)
    }

    /// From 0 to `n - 1`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.number()) * n as u128) >> 64) as usize
    }

    /// True with the probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        ((self.number() >> 11) as f64 / (1_u64 << 53) as f64) < probability
    }

    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let range = most.saturating_sub(least).as_micros() as usize;
        least + Duration::from_micros(self.below(range + 1) as u64)
    }

    /// Milliseconds in the range, as a duration.
    pub fn ms(&mut self, range: std::ops::RangeInclusive<u64>) -> Duration {
        self.between(Duration::from_millis(*range.start()), Duration::from_millis(*range.end()))
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}
