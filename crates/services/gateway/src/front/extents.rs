//! Range questions over what is remembered.
//!
//! The steps of a question are cut into *extents* at multiples of a length that follows from the step alone, so that later questions, with
//! another start and end, have the same ones. Before anything is evaluated all sources are asked for the versions of the data that each
//! whole extent reads ([`triptych_model::version`]), in one round trip. An extent that is remembered with that version is taken; neighbours that
//! are not are evaluated as one question, and remembered with the version that was asked for before.
//!
//! **Consistency.** A write that was acknowledged before a question has changed the version of every extent that reads it: whoever took it
//! says so, at any age of the sample. What arrives while an extent is evaluated makes it stale at once. What says that it is partial, has
//! missed something, or comes with warnings is never remembered; where not all sources tell their versions, nothing is.

use std::sync::Arc;

use async_trait::async_trait;
use triptych_model::metrics::{QueryValue, SeriesSamples};
use triptych_model::{Error, Result, Signal, Version, span};
use triptych_runtime::{QueryContext, Reservation};

use super::Front;
use super::queries::Held;
use super::results::{Packed, Question, Results, Steps};

/// The shortest extent: how finely heads tell times apart ([`triptych_model::version::Changes`]).
const EXTENT_MS_MIN: i64 = 15 * 60_000;
/// The longest; a question with longer steps is not worth it.
const EXTENT_MS_MAX: i64 = EXTENT_MS_MIN << 14;
/// Steps in an extent, at least.
const STEPS_MIN: i64 = 30;
/// Extents of a question; one with more is not worth it.
const EXTENTS_MAX: i64 = 400;
/// Evaluated pieces of a question, at most: a few extents that are remembered in between are not worth more questions.
const PIECES_MAX: usize = 4;

/// A question whose answer at each step depends on nothing but the data that the step reads. Times are in the unit of its signal.
#[async_trait]
pub(super) trait Ranged: Sync {
    const SIGNAL: Signal;
    /// Times of the signal in a millisecond.
    const PER_MS: i64;

    fn text(&self) -> &str;
    /// First step, no step after it, and from one to the next.
    fn steps(&self) -> (i64, i64, i64);
    fn lookback_ms(&self) -> i64 {
        0
    }
    /// See [`Question::whole_ms`].
    fn whole_ms(&self) -> Option<(i64, i64)> {
        None
    }
    /// The range of time that the answer from one step to another is made from; `None`: it is not known.
    fn reads(&self, steps: (i64, i64)) -> Option<(i64, i64)>;
    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>>;
    /// The answer from one step to another, or to more than these: a matrix.
    async fn evaluate(&self, ctx: &QueryContext, steps: (i64, i64)) -> Result<QueryValue>;
}

/// What one question has to do with what is remembered.
struct Plan {
    question: Arc<Question>,
    extents: Vec<Extent>,
}

struct Extent {
    /// First and last of its steps that are wanted.
    steps: (i64, i64),
    key: i64,
    version: Version,
}

impl Front {
    /// The answers to consecutive pieces of the question, ascending, and the memory they take. `None`: nothing can be remembered of this
    /// question, and nothing but versions was asked for.
    pub(super) async fn remembered<Q: Ranged>(
        &self,
        ctx: &QueryContext,
        asked: &Q,
    ) -> Result<Option<(Vec<QueryValue>, Vec<Reservation>)>> {
        let Some(results) = self.results() else { return Ok(None) };
        let Some(plan) = self.plan(ctx, asked).await else { return Ok(None) };
        let steps_ms = |(first, last): (i64, i64)| Steps {
            first_ms: first.div_euclid(Q::PER_MS),
            last_ms: last.div_euclid(Q::PER_MS),
            step_ms: plan.question.step / Q::PER_MS,
        };
        let mut found: Vec<Option<Held<QueryValue>>> = Vec::with_capacity(plan.extents.len());
        for extent in &plan.extents {
            let wanted = steps_ms(extent.steps);
            let answer = results.get(&(plan.question.clone(), extent.key), extent.version, wanted);
            // One that cannot be read is evaluated.
            let series = answer.and_then(|answer| answer.series(wanted).ok());
            found.push(series.map(|series| Held::new(ctx, QueryValue::Matrix(series))).transpose()?);
        }
        for (first, last) in pieces(&found) {
            let steps = (plan.extents[first].steps.0, plan.extents[last].steps.1);
            let part = ctx.part();
            let series = within(asked.evaluate(&part, steps).await?, steps_ms(steps))?;
            let report = part.report();
            let is_whole = report.missed.is_empty() && report.warnings.is_empty() && report.infos.is_empty();
            ctx.add_part(&part)?;
            for extent in plan.extents[first..=last].iter().filter(|_| is_whole) {
                if let Some(answer) = Packed::new(&series, steps_ms(extent.steps)) {
                    results.put((plan.question.clone(), extent.key), extent.version, answer);
                }
            }
            found[first..=last].iter_mut().for_each(|slot| *slot = None);
            found[first] = Some(Held::new(ctx, QueryValue::Matrix(series))?);
        }
        Ok(Some(found.into_iter().flatten().map(|held| (held.value, held.memory)).unzip()))
    }

    /// The question's extents and the versions of what they read.
    async fn plan<Q: Ranged>(&self, ctx: &QueryContext, asked: &Q) -> Option<Plan> {
        let (first, end, step) = asked.steps();
        let range = end.checked_sub(first).filter(|range| *range >= 0)?;
        if step <= 0 || step % Q::PER_MS != 0 || range / step > self.points_max() {
            return None;
        }
        let extent = extent_length(step, Q::PER_MS)?;
        if range / extent >= EXTENTS_MAX {
            return None;
        }
        let question = Question {
            tenant: ctx.tenant().clone(),
            signal: Q::SIGNAL,
            text: asked.text().trim().to_owned(),
            lookback_ms: asked.lookback_ms(),
            whole_ms: asked.whole_ms(),
            step,
            phase: first.rem_euclid(step),
            extent,
        };
        let last = end - range % step;
        let spans = span::spans((first, last), step, extent, 0);
        // Versions are those of whole extents, whichever of their steps are wanted.
        let whole = |steps: &(i64, i64)| asked.reads(steps_of_extent(steps.0, step, extent));
        let reads = spans.iter().map(whole).collect::<Option<Vec<_>>>()?;
        // Of a part of its own, so that it shows whether all of it was told; what is missing is no fault of the answer.
        let part = ctx.part();
        let versions = asked.versions(&part, &reads).await.ok()?;
        if !part.report().missed.is_empty() || versions.len() != spans.len() {
            return None;
        }
        let extents = spans.into_iter().zip(versions);
        let extents =
            extents.map(|(steps, version)| Extent { steps, key: steps.0.div_euclid(extent), version });
        Some(Plan { question: Arc::new(question), extents: extents.collect() })
    }

    fn results(&self) -> Option<&Results> {
        self.inner.results.as_ref().filter(|_| !self.is_fresh)
    }

    /// More points than an answer may have are refused where they are evaluated.
    fn points_max(&self) -> i64 {
        self.inner.promql.config().points_max
    }
}

/// The series of an answer at the steps that were asked for; a question may be answered for more.
fn within(answer: QueryValue, steps: Steps) -> Result<Vec<SeriesSamples>> {
    let QueryValue::Matrix(mut series) = answer else {
        return Err(Error::damaged("a piece of a range query answered with what is no matrix"));
    };
    for one in &mut series {
        if steps.of(&one.samples).len() != one.samples.len() {
            one.samples = steps.of(&one.samples).to_vec();
        }
    }
    series.retain(|one| !one.samples.is_empty());
    Ok(series)
}

/// First and last step of the extent that a step lies in.
fn steps_of_extent(at: i64, step: i64, extent: i64) -> (i64, i64) {
    let since = at.rem_euclid(extent);
    (at - since / step * step, at + (extent - 1 - since) / step * step)
}

/// Doubled until it holds enough steps.
fn extent_length(step: i64, per_ms: i64) -> Option<i64> {
    let extents = std::iter::successors(Some(EXTENT_MS_MIN), |ms| Some(ms * 2));
    let mut extents = extents.take_while(|ms| *ms <= EXTENT_MS_MAX).map(|ms| ms * per_ms);
    extents.find(|extent| extent / step >= STEPS_MIN)
}

/// First and last of the neighbours that were not found; where these are many, all from the first to the last.
fn pieces<T>(found: &[Option<T>]) -> Vec<(usize, usize)> {
    let mut pieces: Vec<(usize, usize)> = Vec::new();
    for (at, _) in found.iter().enumerate().filter(|(_, found)| found.is_none()) {
        match pieces.last_mut() {
            Some((_, last)) if *last + 1 == at => *last = at,
            _ => pieces.push((at, at)),
        }
    }
    match pieces.as_slice() {
        [(first, _), .., (_, last)] if pieces.len() > PIECES_MAX => vec![(*first, *last)],
        _ => pieces,
    }
}

#[cfg(test)]
mod tests;
