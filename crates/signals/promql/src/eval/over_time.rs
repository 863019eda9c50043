//! Functions over a window of samples.
//!
//! A [`Slider`] moves over one series' samples and keeps those of the current window; a [`RangeFn`] makes a value of them.
//! Counter resets are found once, when a run is read: a step of `rate` then costs as much as it has resets.

use std::collections::VecDeque;

use triptych_model::Result;
use triptych_model::metrics::{Sample, is_stale};
use triptych_runtime::{QueryContext, Reservation};

use super::math::{self, Mean, kahan_add};
use crate::source::SampleIter;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeFn {
    Rate,
    Increase,
    Delta,
    Irate,
    Idelta,
    Deriv,
    PredictLinear,
    Smoothing,
    Resets,
    Changes,
    Avg,
    Min,
    Max,
    Sum,
    Count,
    Quantile,
    Stddev,
    Stdvar,
    Mad,
    Last,
    First,
    Present,
    TsOfFirst,
    TsOfLast,
    TsOfMax,
    TsOfMin,
}

impl RangeFn {
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "rate" => RangeFn::Rate,
            "increase" => RangeFn::Increase,
            "delta" => RangeFn::Delta,
            "irate" => RangeFn::Irate,
            "idelta" => RangeFn::Idelta,
            "deriv" => RangeFn::Deriv,
            "predict_linear" => RangeFn::PredictLinear,
            "double_exponential_smoothing" | "holt_winters" => RangeFn::Smoothing,
            "resets" => RangeFn::Resets,
            "changes" => RangeFn::Changes,
            "avg_over_time" => RangeFn::Avg,
            "min_over_time" => RangeFn::Min,
            "max_over_time" => RangeFn::Max,
            "sum_over_time" => RangeFn::Sum,
            "count_over_time" => RangeFn::Count,
            "quantile_over_time" => RangeFn::Quantile,
            "stddev_over_time" => RangeFn::Stddev,
            "stdvar_over_time" => RangeFn::Stdvar,
            "mad_over_time" => RangeFn::Mad,
            "last_over_time" => RangeFn::Last,
            "first_over_time" => RangeFn::First,
            "present_over_time" => RangeFn::Present,
            "ts_of_first_over_time" => RangeFn::TsOfFirst,
            "ts_of_last_over_time" => RangeFn::TsOfLast,
            "ts_of_max_over_time" => RangeFn::TsOfMax,
            "ts_of_min_over_time" => RangeFn::TsOfMin,
            _ => return None,
        })
    }

    /// Whether the result is still the metric's own value, so that the name stays.
    pub fn keeps_name(self) -> bool {
        matches!(self, RangeFn::Last | RangeFn::First)
    }

    /// Whether it expects a counter, and says so when the name does not look like one.
    pub fn wants_counter(self) -> bool {
        matches!(self, RangeFn::Rate | RangeFn::Increase)
    }

    /// The value of a window that is not empty; `None` where the function has none. `params` are its scalar arguments at
    /// this step, `scratch` is room to sort in.
    pub fn apply(self, w: &Window<'_>, params: [f64; 2], scratch: &mut Vec<f64>) -> Option<f64> {
        let samples = w.samples;
        let (first, last) = (samples.first()?, samples.last()?);
        let values = samples.iter().map(|s| s.value);
        Some(match self {
            RangeFn::Rate => extrapolated(w, true, true)?,
            RangeFn::Increase => extrapolated(w, true, false)?,
            RangeFn::Delta => extrapolated(w, false, false)?,
            RangeFn::Irate | RangeFn::Idelta => {
                let [.., a, b] = samples else { return None };
                let reset = self == RangeFn::Irate && b.value < a.value;
                let difference = if reset { b.value } else { b.value - a.value };
                match self {
                    RangeFn::Irate => difference / ((b.t_ms - a.t_ms) as f64 / 1000.0),
                    _ => difference,
                }
            }
            RangeFn::Deriv if samples.len() < 2 => return None,
            // Near the values in use, so that little precision is lost.
            RangeFn::Deriv => linear_regression(samples, first.t_ms).0,
            RangeFn::PredictLinear if samples.len() < 2 => return None,
            RangeFn::PredictLinear => {
                let (slope, intercept) = linear_regression(samples, w.step_ms);
                slope * params[0] + intercept
            }
            RangeFn::Smoothing => smoothed(samples, params[0], params[1])?,
            RangeFn::Resets => w.resets().count() as f64,
            RangeFn::Changes => {
                let changed = |p: &&[Sample; 2]| {
                    p[1].value != p[0].value && !(p[0].value.is_nan() && p[1].value.is_nan())
                };
                samples.array_windows::<2>().filter(changed).count() as f64
            }
            RangeFn::Avg => {
                let mut mean = Mean::new(first.value);
                values.skip(1).for_each(|v| mean.add(v));
                mean.get()
            }
            RangeFn::Min => values.skip(1).fold(first.value, |m, v| if v < m || m.is_nan() { v } else { m }),
            RangeFn::Max => values.skip(1).fold(first.value, |m, v| if v > m || m.is_nan() { v } else { m }),
            RangeFn::TsOfMin | RangeFn::TsOfMax => {
                let better = |s: &Sample, best: &Sample| {
                    let beats =
                        if self == RangeFn::TsOfMin { s.value <= best.value } else { s.value >= best.value };
                    beats || best.value.is_nan()
                };
                let best = samples[1..].iter().fold(first, |best, s| if better(s, best) { s } else { best });
                best.t_ms as f64 / 1000.0
            }
            RangeFn::Sum => {
                let (mut sum, mut compensation) = (0.0, 0.0);
                values.for_each(|v| kahan_add(v, &mut sum, &mut compensation));
                if sum.is_infinite() { sum } else { sum + compensation }
            }
            RangeFn::Count => samples.len() as f64,
            RangeFn::Quantile => {
                scratch.clear();
                scratch.extend(values);
                math::quantile(params[0], scratch)
            }
            RangeFn::Stdvar => variance(samples),
            RangeFn::Stddev => variance(samples).sqrt(),
            RangeFn::Mad => {
                if samples.iter().any(|s| s.value.is_nan()) {
                    return Some(f64::NAN);
                }
                scratch.clear();
                scratch.extend(values);
                let median = math::quantile(0.5, scratch);
                scratch.iter_mut().for_each(|v| *v = (*v - median).abs());
                math::quantile(0.5, scratch)
            }
            RangeFn::Last => last.value,
            RangeFn::First => first.value,
            RangeFn::Present => 1.0,
            RangeFn::TsOfFirst => first.t_ms as f64 / 1000.0,
            RangeFn::TsOfLast => last.t_ms as f64 / 1000.0,
        })
    }
}

/// The samples of one window, without staleness markers.
pub struct Window<'a> {
    pub samples: &'a [Sample],
    /// The window's start, not part of it.
    pub start_ms: i64,
    /// The window's end, part of it.
    pub end_ms: i64,
    /// The instant being evaluated: `end_ms` and the offset.
    pub step_ms: i64,
    /// Where in the slider's buffer the window begins.
    base: usize,
    reset_at: &'a VecDeque<usize>,
}

impl Window<'_> {
    /// Indices in `samples` whose value is below that of the sample before.
    fn resets(&self) -> impl Iterator<Item = usize> + '_ {
        let (base, len) = (self.base, self.samples.len());
        self.reset_at
            .iter()
            .filter(move |at| **at > base)
            .map(move |at| at - base)
            .take_while(move |at| *at < len)
    }
}

/// The change over the whole window, extrapolated from the samples in it to its borders, as Prometheus does: all the way
/// where the border is no more than 1.1 average intervals away, else half an interval; for counters never below zero.
fn extrapolated(w: &Window<'_>, counter: bool, per_second: bool) -> Option<f64> {
    let [first, .., last] = w.samples else { return None };
    let mut change = last.value - first.value;
    if counter {
        for at in w.resets() {
            change += w.samples[at - 1].value;
        }
    }
    let mut to_start = (first.t_ms - w.start_ms) as f64 / 1000.0;
    let mut to_end = (w.end_ms - last.t_ms) as f64 / 1000.0;
    let sampled = (last.t_ms - first.t_ms) as f64 / 1000.0;
    let average = sampled / (w.samples.len() - 1) as f64;
    let threshold = average * 1.1;
    if to_start >= threshold {
        to_start = average / 2.0;
    }
    if counter {
        let mut to_zero = to_start;
        if change > 0.0 && first.value >= 0.0 {
            to_zero = sampled * (first.value / change);
        }
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if per_second {
        factor /= (w.end_ms - w.start_ms) as f64 / 1000.0;
    }
    Some(change * factor)
}

/// Least squares: (slope per second, value at `intercept_ms`).
fn linear_regression(samples: &[Sample], intercept_ms: i64) -> (f64, f64) {
    let first = samples[0].value;
    if samples.iter().all(|s| s.value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let [mut x, mut y, mut xy, mut xx] = [(0.0, 0.0); 4];
    for s in samples {
        let seconds = (s.t_ms - intercept_ms) as f64 / 1000.0;
        kahan_add(seconds, &mut x.0, &mut x.1);
        kahan_add(s.value, &mut y.0, &mut y.1);
        kahan_add(seconds * s.value, &mut xy.0, &mut xy.1);
        kahan_add(seconds * seconds, &mut xx.0, &mut xx.1);
    }
    let n = samples.len() as f64;
    let [x, y, xy, xx] = [x, y, xy, xx].map(|(sum, compensation)| sum + compensation);
    let covariance = xy - x * y / n;
    let variance = xx - x * x / n;
    let slope = covariance / variance;
    (slope, y / n - slope * x / n)
}

/// Double exponential smoothing (Holt's linear trend).
fn smoothed(samples: &[Sample], smoothing: f64, trend: f64) -> Option<f64> {
    let [first, second, ..] = samples else { return None };
    let (mut before, mut level) = (0.0, first.value);
    let mut slope = second.value - first.value;
    for (i, s) in samples.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * s.value + (1.0 - smoothing) * (level + slope);
        (before, level) = (level, next);
    }
    Some(level)
}

/// The population variance (Welford, with compensation).
fn variance(samples: &[Sample]) -> f64 {
    let (mut count, mut mean, mut mean_c, mut aux, mut aux_c) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for s in samples {
        count += 1.0;
        let delta = s.value - (mean + mean_c);
        kahan_add(delta / count, &mut mean, &mut mean_c);
        kahan_add(delta * (s.value - (mean + mean_c)), &mut aux, &mut aux_c);
    }
    (aux + aux_c) / count
}

/// Moves a window over one series. Windows must be asked for in ascending order.
pub(crate) struct Slider<'a> {
    ctx: &'a QueryContext,
    samples: Box<dyn SampleIter>,
    done: bool,
    buffer: Vec<Sample>,
    /// The window: `buffer[low..high]`.
    low: usize,
    high: usize,
    reset_at: VecDeque<usize>,
    reservation: Reservation,
}

/// Samples before the window are thrown away in lots of at least this many.
const DISCARD_SAMPLES_MIN: usize = 1024;

impl<'a> Slider<'a> {
    /// `buffer` is reused memory.
    pub fn new(ctx: &'a QueryContext, samples: Box<dyn SampleIter>, mut buffer: Vec<Sample>) -> Result<Self> {
        buffer.clear();
        let reservation = ctx.reserve(buffer.capacity() * size_of::<Sample>())?;
        Ok(Self {
            ctx,
            samples,
            done: false,
            buffer,
            low: 0,
            high: 0,
            reset_at: VecDeque::new(),
            reservation,
        })
    }

    pub fn into_buffer(self) -> Vec<Sample> {
        self.buffer
    }

    fn read_run(&mut self) -> Result<()> {
        if self.low >= DISCARD_SAMPLES_MIN && self.low * 2 >= self.buffer.len() {
            self.buffer.drain(..self.low);
            self.high -= self.low;
            while self.reset_at.front().is_some_and(|at| *at <= self.low) {
                self.reset_at.pop_front();
            }
            self.reset_at.iter_mut().for_each(|at| *at -= self.low);
            self.low = 0;
        }
        let before = self.buffer.len();
        self.done = !self.samples.next_run(&mut self.buffer)?;
        self.ctx.add_rows((self.buffer.len() - before) as u64)?;
        let mut kept = before;
        for i in before..self.buffer.len() {
            let sample = self.buffer[i];
            if is_stale(sample.value) {
                continue;
            }
            if kept > 0 && sample.value < self.buffer[kept - 1].value {
                self.reset_at.push_back(kept);
            }
            self.buffer[kept] = sample;
            kept += 1;
        }
        self.buffer.truncate(kept);
        let held = self.buffer.capacity() * size_of::<Sample>();
        if held > self.reservation.bytes() {
            self.reservation.grow(held - self.reservation.bytes())?;
        }
        Ok(())
    }

    /// The samples with `start_ms < t <= end_ms`.
    pub fn window(&mut self, start_ms: i64, end_ms: i64, step_ms: i64) -> Result<Window<'_>> {
        while !self.done && self.buffer.last().is_none_or(|s| s.t_ms <= end_ms) {
            // What is before the window already need not wait for the next one.
            while self.low < self.buffer.len() && self.buffer[self.low].t_ms <= start_ms {
                self.low += 1;
            }
            self.high = self.high.max(self.low);
            self.read_run()?;
        }
        while self.low < self.buffer.len() && self.buffer[self.low].t_ms <= start_ms {
            self.low += 1;
        }
        self.high = self.high.max(self.low);
        while self.high < self.buffer.len() && self.buffer[self.high].t_ms <= end_ms {
            self.high += 1;
        }
        while self.reset_at.front().is_some_and(|at| *at <= self.low) {
            self.reset_at.pop_front();
        }
        Ok(Window {
            samples: &self.buffer[self.low..self.high],
            start_ms,
            end_ms,
            step_ms,
            base: self.low,
            reset_at: &self.reset_at,
        })
    }
}
