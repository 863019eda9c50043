//! Range questions over what is remembered.
//!
//! The steps of a question are cut into *extents* at multiples of a length that follows from the step alone, so that later questions, with
//! another start and end, have the same ones. Before anything is evaluated all sources are asked for the versions of the data that each
//! whole extent reads ([`triptych_model::version`]), in one round trip. An extent that is remembered with that version is taken, one that
//! somebody else evaluates is waited for (`results`); neighbours that are left are evaluated as one question, and remembered with the version
//! that was asked for before.
//!
//! **Consistency.** A write that was acknowledged before a question has changed the version of every extent that reads it: whoever took it
//! says so, at any age of the sample. What arrives while an extent is evaluated makes it stale at once. What says that it is partial, has
//! missed something, or comes with warnings is never remembered; where not all sources tell their versions, nothing is.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;
use triptych_model::metrics::{QueryValue, SeriesSamples};
use triptych_model::{Error, Result, Signal, Version, span};
use triptych_runtime::{QueryContext, Reservation};

use super::Front;
use super::packed::{Packed, Steps};
use super::queries::Held;
use super::results::{Found, Key, Promise, Question, Results, Theirs, Told, Wanted};

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

/// A question's extents, in their order.
struct Plan {
    question: Arc<Question>,
    /// When the question began.
    asked_at: Instant,
    extents: Vec<Extent>,
}

struct Extent {
    /// First and last of its steps that are wanted.
    steps: (i64, i64),
    key: i64,
    version: Version,
}

/// How far an extent's answer is.
enum Slot<'a> {
    /// To be looked for.
    Open,
    /// To be evaluated; others wait for it.
    Ours(Promise<'a>),
    /// To be evaluated: what others make is of no use here.
    Alone,
    /// Somebody else evaluates it.
    Theirs(Theirs),
    Here(Held<QueryValue>),
    /// Part of the answer of a slot before it.
    Covered,
}

impl Slot<'_> {
    fn is_done(&self) -> bool {
        matches!(self, Slot::Here(_) | Slot::Covered)
    }

    fn is_to_be_evaluated(&self) -> bool {
        matches!(self, Slot::Ours(_) | Slot::Alone)
    }
}

impl Plan {
    fn steps_ms<Q: Ranged>(&self, (first, last): (i64, i64)) -> Steps {
        Steps {
            first_ms: first.div_euclid(Q::PER_MS),
            last_ms: last.div_euclid(Q::PER_MS),
            step_ms: self.question.step / Q::PER_MS,
        }
    }

    fn wanted<Q: Ranged>(&self, extent: &Extent) -> (Key, Wanted) {
        let Extent { steps, key, version } = *extent;
        let wanted = Wanted { steps: self.steps_ms::<Q>(steps), version, asked_at: self.asked_at };
        ((self.question.clone(), key), wanted)
    }

    /// The extent's part of an answer. One that cannot be read is evaluated.
    fn unpacked<'a, Q: Ranged>(
        &self,
        ctx: &QueryContext,
        extent: &Extent,
        answer: &Packed,
    ) -> Result<Slot<'a>> {
        Ok(match answer.series(self.steps_ms::<Q>(extent.steps)) {
            Ok(series) => Slot::Here(Held::new(ctx, QueryValue::Matrix(series))?),
            Err(_) => Slot::Alone,
        })
    }

    /// What is open becomes what there is of it.
    fn look<'a, Q: Ranged>(
        &self,
        ctx: &QueryContext,
        results: &'a Results,
        slots: &mut [Slot<'a>],
    ) -> Result<()> {
        let open: Vec<usize> = (0..slots.len()).filter(|at| matches!(slots[*at], Slot::Open)).collect();
        let wanted: Vec<_> = open.iter().map(|at| self.wanted::<Q>(&self.extents[*at])).collect();
        for (at, found) in open.into_iter().zip(results.look(&wanted)) {
            slots[at] = match found {
                Found::Answer(answer) => self.unpacked::<Q>(ctx, &self.extents[at], &answer)?,
                Found::Theirs(theirs) => Slot::Theirs(theirs),
                Found::Ours(promise) => Slot::Ours(promise),
            };
        }
        Ok(())
    }

    /// Evaluates what is to be evaluated, and tells those who wait.
    async fn evaluate<Q: Ranged>(&self, ctx: &QueryContext, asked: &Q, slots: &mut [Slot<'_>]) -> Result<()> {
        for (first, last) in pieces(slots.iter().map(Slot::is_to_be_evaluated)) {
            let steps = (self.extents[first].steps.0, self.extents[last].steps.1);
            let part = ctx.part();
            let outcome = asked.evaluate(&part, steps).await;
            let outcome = outcome.and_then(|answer| within(answer, self.steps_ms::<Q>(steps)));
            let report = part.report();
            let is_whole = report.missed.is_empty() && report.warnings.is_empty() && report.infos.is_empty();
            let outcome = outcome.and_then(|series| ctx.add_part(&part).map(|()| series));
            for (slot, extent) in slots[first..=last].iter_mut().zip(&self.extents[first..=last]) {
                let Slot::Ours(promise) = std::mem::replace(slot, Slot::Covered) else { continue };
                match &outcome {
                    Ok(series) if is_whole => match Packed::new(series, self.steps_ms::<Q>(extent.steps)) {
                        Some(answer) => promise.keep(answer),
                        None => promise.refuse(),
                    },
                    // Whoever is out of time, or gone, is not the measure of those who wait: one of them goes on.
                    Err(_) if ctx.check().is_err() => drop(promise),
                    _ => promise.refuse(),
                }
            }
            slots[first] = Slot::Here(Held::new(ctx, QueryValue::Matrix(outcome?))?);
        }
        Ok(())
    }

    /// Waits for what others evaluate. What they did not is open again, or to be evaluated.
    async fn wait<Q: Ranged>(&self, ctx: &QueryContext, slots: &mut [Slot<'_>]) -> Result<()> {
        for (slot, extent) in slots.iter_mut().zip(&self.extents) {
            *slot = match std::mem::replace(slot, Slot::Covered) {
                Slot::Theirs(theirs) => match in_time(ctx, theirs.told()).await? {
                    Told::Answer(answer) => self.unpacked::<Q>(ctx, extent, &answer)?,
                    Told::Refused => Slot::Alone,
                    Told::GivenUp => Slot::Open,
                },
                other => other,
            };
        }
        Ok(())
    }
}

/// Waits, but not beyond the query's end.
async fn in_time<T>(ctx: &QueryContext, work: impl Future<Output = T>) -> Result<T> {
    tokio::select! {
        biased;
        outcome = work => Ok(outcome),
        () = ctx.cancelled() => Err(Error::cancelled("query was cancelled")),
        () = tokio::time::sleep_until(ctx.deadline()) => {
            Err(Error::unavailable(format!("query timed out after {:?}", ctx.limits().timeout)))
        }
    }
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
        let mut slots: Vec<Slot<'_>> = plan.extents.iter().map(|_| Slot::Open).collect();
        while !slots.iter().all(Slot::is_done) {
            plan.look::<Q>(ctx, results, &mut slots)?;
            // What is ours first: nobody waits for one who waits for others.
            plan.evaluate(ctx, asked, &mut slots).await?;
            plan.wait::<Q>(ctx, &mut slots).await?;
        }
        let held = slots.into_iter().filter_map(|slot| match slot {
            Slot::Here(held) => Some((held.value, held.memory)),
            _ => None,
        });
        Ok(Some(held.unzip()))
    }

    /// The question's extents and the versions of what they read.
    async fn plan<Q: Ranged>(&self, ctx: &QueryContext, asked: &Q) -> Option<Plan> {
        let asked_at = Instant::now();
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
        Some(Plan { question: Arc::new(question), asked_at, extents: extents.collect() })
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

/// First and last of the neighbours that are to be evaluated; where these are many, all from the first to the last.
fn pieces(to_be_evaluated: impl Iterator<Item = bool>) -> Vec<(usize, usize)> {
    let mut pieces: Vec<(usize, usize)> = Vec::new();
    for (at, _) in to_be_evaluated.enumerate().filter(|(_, is)| *is) {
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
