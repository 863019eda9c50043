//! What the shards of a query answer, and what becomes of it (see [`crate::split`]).

use hashbrown::HashMap;
use triptych_model::metrics::QueryValue;
use triptych_model::{Error, Labels, Result};
use triptych_runtime::QueryContext;

use super::{Columns, Steps, ms};
use crate::split::{Merge, Sharded, merge_of_leaf};
use crate::syntax::ast::MetricExpr;

/// The columns that the leaves of a sharded query amount to. `answers` come leaf by leaf, shard by shard.
pub(super) fn gather<'a>(
    ctx: &QueryContext,
    sharded: &'a Sharded,
    steps: Steps,
    answers: Vec<QueryValue>,
) -> Result<Vec<(&'a MetricExpr, Columns)>> {
    let (leaves, shards) = (sharded.leaves(), sharded.count() as usize);
    if answers.len() != shards * leaves.len() {
        return Err(Error::internal(format!("{} answers for {shards} shards", answers.len())));
    }
    // Answers tell times in milliseconds, in which short steps may look the same: they come in order.
    let times: Vec<i64> = (0..steps.count).map(|i| ms(steps.t_ns(i))).collect();
    let mut answers = answers.into_iter();
    let mut out = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        ctx.check()?;
        let merge = merge_of_leaf(leaf).ok_or_else(|| Error::internal("a leaf that does not merge"))?;
        let mut columns = Columns::new(ctx)?;
        let mut index: HashMap<Labels, usize> = HashMap::new();
        for answer in answers.by_ref().take(shards) {
            let (QueryValue::Vector(series) | QueryValue::Matrix(series)) = answer else {
                return Err(Error::damaged("a shard answered with what is no vector"));
            };
            for one in series {
                let at = match index.get(&one.labels) {
                    Some(at) => *at,
                    None => {
                        columns.add(one.labels.clone(), steps.count)?;
                        index.insert(one.labels, columns.list.len() - 1);
                        columns.list.len() - 1
                    }
                };
                let values = &mut columns.list[at].values;
                let mut step = 0;
                for sample in one.samples {
                    while times.get(step).is_some_and(|t| *t < sample.t_ms) {
                        step += 1;
                    }
                    let slot = values.get_mut(step).filter(|_| times[step] == sample.t_ms);
                    let slot = slot.ok_or_else(|| {
                        Error::damaged("a shard answered for an instant that was not asked for")
                    })?;
                    *slot = Some(slot.map_or(sample.value, |old| merged(merge, old, sample.value)));
                    step += 1;
                }
            }
        }
        out.push((leaf, columns));
    }
    Ok(out)
}

fn merged(merge: Merge, old: f64, new: f64) -> f64 {
    match merge {
        Merge::Add => old + new,
        Merge::Least if new < old || old.is_nan() => new,
        Merge::Most if new > old || old.is_nan() => new,
        Merge::Least | Merge::Most => old,
    }
}
