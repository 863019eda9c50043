//! Leaves: series from the source, as columns of instants or slid over by range functions.

use futures::{FutureExt, Stream, StreamExt, TryStreamExt, stream};
use triptych_model::labels::METRIC_NAME;
use triptych_model::metrics::{Sample, SeriesSamples, SeriesSelect, is_stale};
use triptych_model::{Error, Result};
use triptych_runtime::Reservation;

use super::column::{ABSENT, Column, ColumnStream, ScalarColumn, Steps, is_absent};
use super::over_time::{RangeFn, Slider, Window};
use super::{Eval, SERIES_PER_YIELD, general_text};
use crate::ast::Span;
use crate::plan::{RangeArg, Scalar, Selector};
use crate::source::{SampleIter, Series, SeriesStream};

/// Counts series and says when to give way.
#[derive(Default)]
struct Pace(usize);

impl Pace {
    async fn step(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(SERIES_PER_YIELD) {
            tokio::task::yield_now().await;
        }
    }
}

/// A series that a window slides over, and how its result is labelled.
struct Slid {
    series: Series,
    drop_name: bool,
}

impl Eval<'_> {
    /// The series of a selector. `before_ms`: how far before the first instant samples count.
    async fn series(&self, selector: &Selector, before_ms: i64, steps: Steps) -> Result<SeriesStream> {
        let (first, last) = match selector.at_ms {
            Some(at) => (at, at),
            None => (steps.start_ms, steps.end_ms()),
        };
        let select = SeriesSelect {
            matchers: selector.matchers.clone(),
            // The start of a window is not part of it.
            start_ms: first.saturating_sub(selector.offset_ms).saturating_sub(before_ms).saturating_add(1),
            end_ms: last.saturating_sub(selector.offset_ms),
            skip_chunks: false,
            shard: self.shard,
        };
        self.ctx.check()?;
        self.source.select(self.ctx, &select).await
    }

    /// An instant vector: at each step the newest sample that is not older than the lookback.
    pub(super) async fn select<'a>(
        &'a self,
        selector: &'a Selector,
        timestamps: bool,
        steps: Steps,
    ) -> Result<ColumnStream<'a>> {
        let series = self.series(selector, self.lookback_ms, steps).await?;
        let state = (series, Vec::<Sample>::new(), Pace::default());
        let columns = stream::try_unfold(state, move |(mut series, mut run, mut pace)| async move {
            while let Some(next) = series.next().await {
                let Series { labels, samples } = next?;
                let values = self.instants(samples, selector, timestamps, steps, &mut run)?;
                pace.step().await;
                let column = Column { labels, drop_name: false, values };
                if !column.is_empty() {
                    return Ok(Some((column, (series, run, pace))));
                }
            }
            Ok(None)
        });
        Ok(columns.boxed())
    }

    fn instants(
        &self,
        mut samples: Box<dyn SampleIter>,
        selector: &Selector,
        timestamps: bool,
        steps: Steps,
        run: &mut Vec<Sample>,
    ) -> Result<Vec<f64>> {
        let mut values = self.absent_column(steps)?;
        let mut newest: Option<Sample> = None;
        let (mut at, mut more) = (0, true);
        run.clear();
        for (i, value) in values.iter_mut().enumerate() {
            if i > 0 && selector.at_ms.is_some() {
                break;
            }
            let t_ms = selector.at_ms.unwrap_or(steps.at(i)).saturating_sub(selector.offset_ms);
            loop {
                while at < run.len() && run[at].t_ms <= t_ms {
                    newest = Some(run[at]);
                    at += 1;
                }
                if at < run.len() || !more {
                    break;
                }
                run.clear();
                at = 0;
                more = samples.next_run(run)?;
                self.ctx.add_rows(run.len() as u64)?;
            }
            let seen =
                newest.filter(|s| s.t_ms > t_ms.saturating_sub(self.lookback_ms) && !is_stale(s.value));
            if let Some(sample) = seen {
                *value = if timestamps { sample.t_ms as f64 / 1000.0 } else { sample.value };
            }
        }
        if selector.at_ms.is_some() {
            let value = values.first().copied().unwrap_or(ABSENT);
            values.fill(value);
        }
        Ok(values)
    }

    /// The instants at which the inner expression of a subquery is evaluated: multiples of its step after the start of the
    /// first window, up to the end of the last one.
    fn subquery_steps(
        &self,
        arg: &RangeArg,
        step_ms: i64,
        steps: Steps,
    ) -> Result<Option<(Steps, Reservation)>> {
        let (first, last) = match arg.at_ms() {
            Some(at) => (at, at),
            None => (steps.start_ms, steps.end_ms()),
        };
        let after = first.saturating_sub(arg.offset_ms()).saturating_sub(arg.range_ms());
        let start_ms = (after.div_euclid(step_ms) + 1).saturating_mul(step_ms);
        let end_ms = last.saturating_sub(arg.offset_ms());
        if end_ms < start_ms {
            return Ok(None);
        }
        let count = (end_ms - start_ms) / step_ms + 1;
        // One inner series at a time: its column, and that as samples.
        let bytes = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(8 + size_of::<Sample>());
        let held = self.ctx.reserve(bytes).map_err(|e| e.context(format!("subquery with {count} steps")))?;
        Ok(Some((Steps { start_ms, step_ms, count: count as usize }, held)))
    }

    /// The series that windows slide over.
    async fn slid<'a>(
        &'a self,
        arg: &'a RangeArg,
        steps: Steps,
    ) -> Result<std::pin::Pin<Box<dyn Stream<Item = Result<Slid>> + Send + 'a>>> {
        match arg {
            RangeArg::Matrix { selector, range_ms, .. } => {
                let series = self.series(selector, *range_ms, steps).await?;
                Ok(series.map(|s| s.map(|series| Slid { series, drop_name: false })).boxed())
            }
            RangeArg::Subquery { inner, step_ms, .. } => {
                let Some((inner_steps, held)) = self.subquery_steps(arg, *step_ms, steps)? else {
                    return Ok(stream::empty().boxed());
                };
                let columns = self.vector(inner, inner_steps).await?;
                let samples = move |column: Column| {
                    let _while_it_runs = &held;
                    let samples: Vec<Sample> = column
                        .values
                        .iter()
                        .enumerate()
                        .filter(|(_, v)| !is_absent(**v))
                        .map(|(i, v)| Sample { t_ms: inner_steps.at(i), value: *v })
                        .collect();
                    let series = Series { labels: column.labels, samples: Box::new(samples.into_iter()) };
                    Slid { series, drop_name: column.drop_name }
                };
                Ok(columns.map_ok(samples).boxed())
            }
        }
    }

    /// A range function over a range vector, names dropped where the function does so.
    pub(super) async fn over_time<'a>(
        &'a self,
        func: RangeFn,
        arg: &'a RangeArg,
        params: &'a [Scalar],
        param_span: Span,
        steps: Steps,
    ) -> Result<ColumnStream<'a>> {
        let params = self.scalars(params, steps).await?;
        let columns = self.windows(func, arg, params, param_span, steps).await?;
        if func.keeps_name() {
            return Ok(columns);
        }
        let unique = match arg {
            RangeArg::Matrix { selector, .. } => selector
                .matchers
                .iter()
                .any(|m| m.name == METRIC_NAME && m.op == triptych_model::MatchOp::Equal),
            RangeArg::Subquery { inner, .. } => inner.unique_without_name(),
        };
        self.drop_names(columns, unique).await
    }

    pub(super) async fn windows<'a>(
        &'a self,
        func: RangeFn,
        arg: &'a RangeArg,
        params: Vec<ScalarColumn>,
        param_span: Span,
        steps: Steps,
    ) -> Result<ColumnStream<'a>> {
        let series = self.slid(arg, steps).await?;
        let run = WindowRun { func, arg, params, param_span, steps };
        let state = (series, run, Vec::<Sample>::new(), Vec::<f64>::new(), Pace::default());
        let columns =
            stream::try_unfold(state, move |(mut series, run, mut buffer, mut scratch, mut pace)| {
                async move {
                    while let Some(next) = series.next().await {
                        let Slid { series: Series { labels, samples }, drop_name } = next?;
                        let mut slider = Slider::new(self.ctx, samples, buffer)?;
                        let values = self.slide(&run, &mut slider, &mut scratch)?;
                        buffer = slider.into_buffer();
                        pace.step().await;
                        let column = Column { labels, drop_name, values };
                        if column.is_empty() {
                            continue;
                        }
                        if func.wants_counter() {
                            self.note_non_counter(&column, run.arg.span());
                        }
                        return Ok(Some((column, (series, run, buffer, scratch, pace))));
                    }
                    Ok(None)
                }
                .boxed()
            });
        Ok(columns.boxed())
    }

    fn slide(
        &self,
        run: &WindowRun<'_>,
        slider: &mut Slider<'_>,
        scratch: &mut Vec<f64>,
    ) -> Result<Vec<f64>> {
        let steps = run.steps;
        let mut values = self.absent_column(steps)?;
        let (range_ms, offset_ms, fixed) = (run.arg.range_ms(), run.arg.offset_ms(), run.arg.at_ms());
        let param = |index: usize, step: usize| run.params.get(index).map_or(0.0, |p| p.at(step));
        // With `@` all windows are the same one: unless a parameter moves, so are all values.
        let once = fixed.is_some()
            && run.func != RangeFn::PredictLinear
            && run.params.iter().all(ScalarColumn::is_const);
        let mut checked = None;
        for i in 0..steps.count {
            let t_ms = steps.at(i);
            let end_ms = fixed.unwrap_or(t_ms).saturating_sub(offset_ms);
            let window = slider.window(end_ms.saturating_sub(range_ms), end_ms, t_ms)?;
            if window.samples.is_empty() {
                if once {
                    break;
                }
                continue;
            }
            let params = [param(0, i), param(1, i)];
            if checked != Some(params.map(f64::to_bits)) {
                checked = Some(params.map(f64::to_bits));
                self.check_params(run, params)?;
            }
            if let Some(value) = run.func.apply(&window, params, scratch) {
                values[i] = value;
            }
            if once {
                let value = values[i];
                values.fill(value);
                break;
            }
        }
        Ok(values)
    }

    fn check_params(&self, run: &WindowRun<'_>, params: [f64; 2]) -> Result<()> {
        match run.func {
            RangeFn::Quantile if !(0.0..=1.0).contains(&params[0]) => {
                let text = general_text(params[0]);
                self.warn(run.param_span, format!("quantile value should be between 0 and 1, got {text}"));
            }
            RangeFn::Smoothing => {
                for (value, what, short) in [(params[0], "smoothing", "sf"), (params[1], "trend", "tf")] {
                    if value <= 0.0 || value >= 1.0 {
                        let message =
                            format!("invalid {what} factor. Expected: 0 < {short} < 1, got: {value:.6}");
                        return Err(Error::invalid(message));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn note_non_counter(&self, column: &Column, span: Span) {
        let name = column.labels.value(METRIC_NAME);
        let counter = ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix));
        if !name.is_empty() && !counter {
            let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket:";
            self.info(span, format!("{text} {name:?}"));
        }
    }

    /// A range vector itself, as an instant query may ask for: the samples as they are.
    pub(super) async fn raw_windows(&self, arg: &RangeArg, steps: Steps) -> Result<Vec<SeriesSamples>> {
        let mut series = self.slid(arg, steps).await?;
        let end_ms = arg.at_ms().unwrap_or(steps.start_ms).saturating_sub(arg.offset_ms());
        let start_ms = end_ms.saturating_sub(arg.range_ms());
        let mut held = self.ctx.reserve(0)?;
        let (mut out, mut pace) = (Vec::new(), Pace::default());
        while let Some(next) = series.next().await {
            let Slid { series: Series { labels, samples }, drop_name } = next?;
            let mut slider = Slider::new(self.ctx, samples, Vec::new())?;
            let Window { samples, .. } = slider.window(start_ms, end_ms, steps.start_ms)?;
            if !samples.is_empty() {
                held.grow(size_of_val(samples) + labels.as_encoded().len() + 64)?;
                let labels = if drop_name { super::column::without_name(&labels) } else { labels };
                out.push(SeriesSamples { labels, samples: samples.to_vec() });
            }
            pace.step().await;
        }
        out.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(out)
    }
}

struct WindowRun<'a> {
    func: RangeFn,
    arg: &'a RangeArg,
    params: Vec<ScalarColumn>,
    param_span: Span,
    steps: Steps,
}
