//! `topk`, `bottomk`, `limitk`, `limit_ratio`: which series stay, decided step by step. They keep the columns of their
//! argument in memory, and blank out what does not stay.

use std::cmp::Ordering;

use futures::StreamExt;
use triptych_model::{Error, Labels, Result};
use xxhash_rust::xxh64::xxh64;

use super::aggregate::{Aggregation, Groups, check_k};
use super::column::{ABSENT, ColumnStream, ScalarColumn, Steps, hold, is_absent};
use super::math::compare;
use super::{Eval, general_text};
use crate::ast::AggregateOp;
use crate::plan::Vector;

impl Eval<'_> {
    pub(super) async fn rank<'a>(
        &'a self,
        how: Aggregation<'a>,
        arg: &'a Vector,
        steps: Steps,
    ) -> Result<ColumnStream<'a>> {
        let param = how.param.clone().unwrap_or(ScalarColumn::Const(f64::NAN));
        let ratio = how.op == AggregateOp::LimitRatio;
        if ratio {
            self.check_ratio(&how, param.values())?;
        } else {
            check_k(param.values())?;
        }
        let nothing = |v: &f64| if ratio { *v == 0.0 } else { *v < 1.0 };
        if param.values().iter().all(nothing) {
            return Ok(futures::stream::empty().boxed());
        }
        let mut held = hold(self.ctx, self.vector(arg, steps).await?).await?;
        let mut groups = Groups::new(how.without, how.labels);
        let mut members: Vec<(Labels, Vec<usize>)> = Vec::new();
        for (i, column) in held.columns.iter().enumerate() {
            let (at, new) = groups.find(&column.labels)?;
            members.extend(new.map(|labels| (labels, Vec::new())));
            members[at].1.push(i);
        }
        // Not in the order in which the groups were met: which series were read before depends on how the query was cut.
        members.sort_by(|a, b| a.0.cmp(&b.0));
        // Which column is the how-manieth of the answer: an instant answer comes ranked, best first.
        let mut order: Vec<usize> = Vec::new();
        let mut ranked: Vec<(f64, usize)> = Vec::new();
        let offsets: Vec<f64> = match ratio {
            true => held.columns.iter().map(|c| hash_share(&c.labels)).collect(),
            false => Vec::new(),
        };
        for (number, (_, group)) in members.iter().enumerate() {
            if number % 64 == 0 {
                self.ctx.check()?;
                tokio::task::yield_now().await;
            }
            for step in 0..steps.count {
                ranked.clear();
                let at = |i: &usize| (held.columns[*i].values[step], *i);
                ranked.extend(group.iter().map(at).filter(|(v, _)| !is_absent(*v)));
                let k = param.at(step);
                let keep = match how.op {
                    AggregateOp::LimitRatio => {
                        ranked.sort_by_key(|(_, i)| !in_share(k.clamp(-1.0, 1.0), offsets[*i]));
                        ranked.iter().take_while(|(_, i)| in_share(k.clamp(-1.0, 1.0), offsets[*i])).count()
                    }
                    _ => (k.max(0.0) as usize).min(ranked.len()),
                };
                let better =
                    |a: &(f64, usize), b: &(f64, usize)| rank_order(how.op, a.0, b.0).then(a.1.cmp(&b.1));
                if matches!(how.op, AggregateOp::Topk | AggregateOp::Bottomk) {
                    if keep > 0 && keep < ranked.len() {
                        ranked.select_nth_unstable_by(keep - 1, better);
                    }
                    if steps.count == 1 {
                        ranked[..keep].sort_by(better);
                    }
                }
                for (_, i) in &ranked[keep..] {
                    held.columns[*i].values[step] = ABSENT;
                }
                if steps.count == 1 {
                    order.extend(ranked[..keep].iter().map(|(_, i)| *i));
                }
            }
        }
        if steps.count == 1 {
            let mut columns: Vec<_> = std::mem::take(&mut held.columns).into_iter().map(Some).collect();
            held.columns = order.iter().filter_map(|i| columns[*i].take()).collect();
        } else {
            held.columns.retain(|c| !c.is_empty());
        }
        Ok(held.into_stream())
    }

    fn check_ratio(&self, how: &Aggregation<'_>, values: &[f64]) -> Result<()> {
        if values.iter().any(|v| v.is_nan()) {
            return Err(Error::invalid("Ratio value is NaN"));
        }
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        for (value, bad, cap) in [(most, most > 1.0, 1), (least, least < -1.0, -1)] {
            if bad {
                let text = general_text(value);
                let message = format!("ratio value should be between -1 and 1, got {text}, capping to {cap}");
                self.warn(how.param_span, message);
            }
        }
        Ok(())
    }
}

/// Best first; NaN is worst in both directions.
fn rank_order(op: AggregateOp, a: f64, b: f64) -> Ordering {
    if op == AggregateOp::Topk || a.is_nan() || b.is_nan() { compare(b, a) } else { compare(a, b) }
}

/// Where a series falls between 0 and 1, by the hash of its labels: the same in every query. It is Prometheus' hash, of
/// labels that are shorter than 128 bytes each.
fn hash_share(labels: &Labels) -> f64 {
    xxh64(labels.as_encoded(), 0) as f64 / u64::MAX as f64
}

/// A positive ratio takes from the lower end, a negative one from the upper: `r` and `r - 1` share nothing.
fn in_share(ratio: f64, offset: f64) -> bool {
    if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
}
