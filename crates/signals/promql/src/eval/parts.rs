//! What the shards of a query answer, and what becomes of it (see [`crate::split`]).
//!
//! Most answers merge as they are: counts are added, of minima the least stays. A `sum` and an `avg` would lose what their
//! compensation holds, so as parts they answer several series for each group, told apart by the label [`PART`]: the `sum`, what
//! rounding has `lost` of it, the `count`, and the `mean` where the sum is beyond what a float can hold. Put together they are as
//! exact as if one querier had seen all series.

use futures::StreamExt;
use futures::stream;
use hashbrown::HashMap;
use triptych_model::metrics::{QueryValue, SeriesSamples};
use triptych_model::{Error, Labels, Result};
use triptych_runtime::QueryContext;

use super::Eval;
use super::aggregate::Gathered;
use super::column::{ABSENT, Column, ColumnStream, Held, Steps, is_absent};
use super::math::kahan_add;
use crate::ast::AggregateOp;
use crate::split::Sharded;

/// The label that tells the series of a part apart. No series of an answer has it.
const PART: &str = "__part__";
const SUM: &str = "sum";
const LOST: &str = "lost";
const MEAN: &str = "mean";
const COUNT: &str = "count";

/// Adds the series of a group of a `sum` or an `avg` that is a part.
pub(super) fn emit(labels: &Labels, group: Gathered, held: &mut Held) -> Result<()> {
    let mut push = |part: &str, values: Vec<f64>| match values.iter().all(|v| is_absent(*v)) {
        true => Ok(()),
        false => {
            let labels = labels.to_builder().set(PART, part).build();
            held.push(Column { labels, drop_name: false, values })
        }
    };
    match group {
        Gathered::Sum { sum, compensation } => {
            let lost = sum.iter().zip(compensation).map(|(s, c)| known(!is_absent(*s) && c != 0.0, c));
            push(LOST, lost.collect())?;
            push(SUM, sum)
        }
        Gathered::Mean(means) => {
            let each = |f: &dyn Fn(&super::math::Mean) -> Option<f64>| -> Vec<f64> {
                means.iter().map(|m| m.as_ref().and_then(f).unwrap_or(ABSENT)).collect()
            };
            push(SUM, each(&|m| m.sum().map(|(sum, _)| sum)))?;
            push(LOST, each(&|m| m.sum().map(|(_, lost)| lost).filter(|lost| *lost != 0.0)))?;
            push(MEAN, each(&|m| m.sum().is_none().then(|| m.get())))?;
            push(COUNT, each(&|m| Some(m.count)))
        }
        _ => Err(Error::internal("a part of this aggregation is its answer")),
    }
}

fn known(is: bool, value: f64) -> f64 {
    if is { value } else { ABSENT }
}

/// The columns that the leaves of a sharded query amount to, in the leaves' order. `answers` come leaf by leaf, shard by shard.
pub(super) fn gather(
    ctx: &QueryContext,
    sharded: &Sharded,
    steps: Steps,
    answers: Vec<QueryValue>,
) -> Result<Vec<Held>> {
    let shards = sharded.count() as usize;
    if answers.len() != shards * sharded.leaves().len() {
        return Err(Error::internal(format!("{} answers for {shards} shards", answers.len())));
    }
    let mut answers = answers.into_iter();
    let mut out = Vec::with_capacity(sharded.leaves().len());
    for leaf in sharded.leaves() {
        ctx.check()?;
        let of_leaf = answers.by_ref().take(shards);
        out.push(match leaf.op {
            Some(AggregateOp::Sum | AggregateOp::Avg) => sums(ctx, leaf.op, steps, of_leaf)?,
            Some(AggregateOp::Count | AggregateOp::CountValues) => {
                folded(ctx, AggregateOp::Sum, steps, of_leaf)?
            }
            Some(op @ (AggregateOp::Min | AggregateOp::Max | AggregateOp::Group)) => {
                folded(ctx, op, steps, of_leaf)?
            }
            _ => side_by_side(ctx, steps, of_leaf)?,
        });
    }
    Ok(out)
}

impl Eval<'_> {
    pub(super) fn given<'a>(&'a self, at: usize) -> Result<ColumnStream<'a>> {
        let held = self.given.get(at).ok_or_else(|| Error::internal("nothing was given for a leaf"))?;
        Ok(stream::iter(held.columns.iter().cloned().map(Ok)).boxed())
    }
}

fn series(answer: QueryValue) -> Result<Vec<SeriesSamples>> {
    match answer {
        QueryValue::Vector(series) | QueryValue::Matrix(series) => Ok(series),
        _ => Err(Error::damaged("a shard answered with what is no vector")),
    }
}

fn column_values(steps: Steps, series: &SeriesSamples) -> Result<Vec<f64>> {
    let mut values = vec![ABSENT; steps.count];
    for sample in &series.samples {
        let since = sample.t_ms - steps.start_ms;
        let at = if steps.step_ms == 0 { since } else { since / steps.step_ms };
        let slot = usize::try_from(at).ok().and_then(|at| values.get_mut(at));
        *slot.ok_or_else(|| Error::damaged("a shard answered for an instant that was not asked for"))? =
            sample.value;
    }
    Ok(values)
}

/// The shards' series, which have nothing to do with each other, in the order of one querier's answer.
fn side_by_side(ctx: &QueryContext, steps: Steps, answers: impl Iterator<Item = QueryValue>) -> Result<Held> {
    let mut held = Held::new(ctx)?;
    for answer in answers {
        for one in series(answer)? {
            let values = column_values(steps, &one)?;
            held.push(Column { labels: one.labels, drop_name: false, values })?;
        }
    }
    held.columns.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(held)
}

/// Series with the same labels folded by an aggregation.
fn folded(
    ctx: &QueryContext,
    op: AggregateOp,
    steps: Steps,
    answers: impl Iterator<Item = QueryValue>,
) -> Result<Held> {
    let mut held = Held::new(ctx)?;
    let mut groups: HashMap<Labels, Gathered> = HashMap::new();
    for answer in answers {
        for one in series(answer)? {
            let values = column_values(steps, &one)?;
            let group = match groups.entry(one.labels) {
                hashbrown::hash_map::Entry::Occupied(group) => group.into_mut(),
                hashbrown::hash_map::Entry::Vacant(slot) => {
                    let bytes = steps.count * Gathered::step_bytes(op) + slot.key().as_encoded().len() + 96;
                    held.reservation.grow(bytes)?;
                    slot.insert(Gathered::new(op, steps.count))
                }
            };
            group.add(&values, &mut held.reservation)?;
        }
    }
    for (labels, group) in groups {
        held.columns.push(Column { labels, drop_name: false, values: group.finish(None) });
    }
    held.columns.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(held)
}

/// A group's sum and mean at one step.
#[derive(Clone, Copy, Default)]
struct Total {
    sum: f64,
    lost: f64,
    count: f64,
    mean: f64,
    /// A shard's sum was beyond what a float can hold.
    running: bool,
}

impl Total {
    fn value(&self, op: Option<AggregateOp>) -> f64 {
        match op {
            _ if self.count == 0.0 => ABSENT,
            Some(AggregateOp::Avg) if self.running || self.sum.is_infinite() => self.mean,
            Some(AggregateOp::Avg) => self.sum / self.count + self.lost / self.count,
            _ => self.sum + self.lost,
        }
    }
}

/// The parts of `sum` and `avg` put together.
fn sums(
    ctx: &QueryContext,
    op: Option<AggregateOp>,
    steps: Steps,
    answers: impl Iterator<Item = QueryValue>,
) -> Result<Held> {
    let mut held = Held::new(ctx)?;
    let mut groups: HashMap<Labels, Vec<Total>> = HashMap::new();
    for answer in answers {
        let mut parts: HashMap<Labels, Vec<(String, Vec<f64>)>> = HashMap::new();
        for one in series(answer)? {
            let part = one.labels.value(PART).to_owned();
            let values = column_values(steps, &one)?;
            parts.entry(one.labels.filter(|name| name != PART)).or_default().push((part, values));
        }
        for (labels, parts) in parts {
            let group = match groups.entry(labels) {
                hashbrown::hash_map::Entry::Occupied(group) => group.into_mut(),
                hashbrown::hash_map::Entry::Vacant(slot) => {
                    held.reservation.grow(steps.count * (size_of::<Total>() + 8) + 128)?;
                    slot.insert(vec![Total::default(); steps.count])
                }
            };
            let of = |name: &str| parts.iter().find(|(part, _)| part == name).map(|(_, values)| values);
            let at = |values: Option<&Vec<f64>>, i: usize| {
                values.and_then(|v| v.get(i)).copied().filter(|v| !is_absent(*v))
            };
            let (sum, lost, mean, count) = (of(SUM), of(LOST), of(MEAN), of(COUNT));
            for (i, total) in group.iter_mut().enumerate() {
                let (sum, mean) = (at(sum, i), at(mean, i));
                if sum.is_none() && mean.is_none() {
                    continue;
                }
                // A sum tells no count, and needs none.
                let n = at(count, i).unwrap_or(1.0);
                let own = mean.or(sum.map(|s| s / n)).unwrap_or_default();
                let all = total.count + n;
                total.mean = total.mean * (total.count / all) + own * (n / all);
                total.count = all;
                total.running |= mean.is_some();
                for value in [sum, at(lost, i)].into_iter().flatten() {
                    if total.count == n && total.sum == 0.0 && total.lost == 0.0 {
                        total.sum = value;
                    } else {
                        kahan_add(value, &mut total.sum, &mut total.lost);
                    }
                }
            }
        }
    }
    for (labels, totals) in groups {
        let values = totals.iter().map(|total| total.value(op)).collect();
        held.columns.push(Column { labels, drop_name: false, values });
    }
    held.columns.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(held)
}
