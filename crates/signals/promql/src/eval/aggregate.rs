//! Aggregations. Columns are folded into groups as they come and dropped; only `quantile` keeps values, and `topk` and its
//! like (see `rank`) keep columns.

use futures::StreamExt;
use hashbrown::HashMap;
use triptych_model::labels::encode_pairs;
use triptych_model::{Error, Labels, Result};
use triptych_runtime::Reservation;

use super::column::{ABSENT, Column, ColumnStream, Held, ScalarColumn, Steps, is_absent};
use super::math::{self, Mean, kahan_add};
use super::{Eval, general_text};
use crate::ast::{AggregateOp, Span};
use crate::format::number_text;
use crate::plan::Vector;

pub(super) struct Aggregation<'a> {
    pub op: AggregateOp,
    pub param: Option<ScalarColumn>,
    /// Of `count_values`.
    pub label: &'a str,
    pub without: bool,
    /// Sorted.
    pub labels: &'a [String],
    pub param_span: Span,
    /// To be merged with other shards' answers, see `parts`.
    pub partial: bool,
}

/// Finds groups by their labels. The key is the encoding of the group's label set: building it allocates nothing.
pub(super) struct Groups<'a> {
    without: bool,
    labels: &'a [String],
    index: HashMap<Box<[u8]>, usize>,
    key: Vec<u8>,
}

impl<'a> Groups<'a> {
    pub fn new(without: bool, labels: &'a [String]) -> Self {
        Self { without, labels, index: HashMap::new(), key: Vec::new() }
    }

    fn keeps(&self, name: &str) -> bool {
        let listed = self.labels.binary_search_by(|l| l.as_str().cmp(name)).is_ok();
        if self.without { !listed && name != "__name__" } else { listed }
    }

    /// The group's number; its labels where it is new.
    pub fn find(&mut self, labels: &Labels) -> Result<(usize, Option<Labels>)> {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        encode_pairs(labels.iter().filter(|(name, _)| self.keeps(name)), &mut key);
        let found = match self.index.get(&key[..]) {
            Some(at) => (*at, None),
            None => {
                let at = self.index.len();
                self.index.insert(key.clone().into(), at);
                (at, Some(Labels::from_encoded(&key)?))
            }
        };
        self.key = key;
        Ok(found)
    }
}

/// What a group has gathered, per step.
pub(super) enum Gathered {
    Sum {
        sum: Vec<f64>,
        compensation: Vec<f64>,
    },
    Mean(Vec<Option<Mean>>),
    Min(Vec<f64>),
    Max(Vec<f64>),
    Count(Vec<f64>),
    Any(Vec<f64>),
    /// (count, mean, sum of squared distances); Welford.
    Variance {
        count: Vec<f64>,
        mean: Vec<f64>,
        squares: Vec<f64>,
        root: bool,
    },
    Values(Vec<Vec<f64>>),
}

impl Gathered {
    pub fn new(op: AggregateOp, n: usize) -> Self {
        let absent = || vec![ABSENT; n];
        match op {
            AggregateOp::Avg => Gathered::Mean(vec![None; n]),
            AggregateOp::Min => Gathered::Min(absent()),
            AggregateOp::Max => Gathered::Max(absent()),
            AggregateOp::Count => Gathered::Count(vec![0.0; n]),
            AggregateOp::Group => Gathered::Any(absent()),
            AggregateOp::Stddev | AggregateOp::Stdvar => Gathered::Variance {
                count: vec![0.0; n],
                mean: vec![0.0; n],
                squares: vec![0.0; n],
                root: op == AggregateOp::Stddev,
            },
            AggregateOp::Quantile => Gathered::Values(vec![Vec::new(); n]),
            _ => Gathered::Sum { sum: absent(), compensation: vec![0.0; n] },
        }
    }

    /// Bytes per step that the group holds.
    pub fn step_bytes(op: AggregateOp) -> usize {
        match op {
            AggregateOp::Avg => size_of::<Option<Mean>>(),
            AggregateOp::Min | AggregateOp::Max | AggregateOp::Count | AggregateOp::Group => 8,
            AggregateOp::Sum => 16,
            _ => 24,
        }
    }

    pub fn add(&mut self, values: &[f64], held: &mut Reservation) -> Result<()> {
        let present = values.iter().enumerate().filter(|(_, v)| !is_absent(**v));
        match self {
            Gathered::Sum { sum, compensation } => {
                for ((sum, compensation), v) in sum.iter_mut().zip(compensation).zip(values) {
                    if is_absent(*v) {
                    } else if is_absent(*sum) {
                        *sum = *v;
                    } else {
                        kahan_add(*v, sum, compensation);
                    }
                }
            }
            Gathered::Mean(means) => {
                for (i, v) in present {
                    match &mut means[i] {
                        Some(mean) => mean.add(*v),
                        empty => *empty = Some(Mean::new(*v)),
                    }
                }
            }
            Gathered::Min(least) => {
                for (i, v) in present {
                    // The marker of absence is a NaN too.
                    if *v < least[i] || least[i].is_nan() {
                        least[i] = *v;
                    }
                }
            }
            Gathered::Max(most) => {
                for (i, v) in present {
                    if *v > most[i] || most[i].is_nan() {
                        most[i] = *v;
                    }
                }
            }
            Gathered::Count(count) => present.for_each(|(i, _)| count[i] += 1.0),
            Gathered::Any(any) => present.for_each(|(i, _)| any[i] = 1.0),
            Gathered::Variance { count, mean, squares, .. } => {
                for (i, v) in present {
                    count[i] += 1.0;
                    if count[i] == 1.0 {
                        mean[i] = *v;
                        squares[i] = if v.is_finite() { 0.0 } else { f64::NAN };
                    } else {
                        let delta = v - mean[i];
                        mean[i] += delta / count[i];
                        squares[i] += delta * (v - mean[i]);
                    }
                }
            }
            Gathered::Values(all) => {
                held.grow(size_of_val(values))?;
                present.for_each(|(i, v)| all[i].push(*v));
            }
        }
        Ok(())
    }

    pub fn finish(self, param: Option<&ScalarColumn>) -> Vec<f64> {
        match self {
            Gathered::Sum { mut sum, compensation } => {
                for (sum, c) in sum.iter_mut().zip(compensation) {
                    if !is_absent(*sum) {
                        *sum += c;
                    }
                }
                sum
            }
            Gathered::Mean(means) => means.iter().map(|m| m.as_ref().map_or(ABSENT, Mean::get)).collect(),
            Gathered::Min(v) | Gathered::Max(v) | Gathered::Any(v) => v,
            Gathered::Count(mut count) => {
                count.iter_mut().filter(|n| **n == 0.0).for_each(|n| *n = ABSENT);
                count
            }
            Gathered::Variance { count, squares, root, .. } => count
                .iter()
                .zip(&squares)
                .map(|(n, s)| match (*n == 0.0, root) {
                    (true, _) => ABSENT,
                    (false, true) => (s / n).sqrt(),
                    (false, false) => s / n,
                })
                .collect(),
            Gathered::Values(all) => all
                .into_iter()
                .enumerate()
                .map(|(i, mut values)| match values.is_empty() {
                    true => ABSENT,
                    false => math::quantile(param.map_or(f64::NAN, |p| p.at(i)), &mut values),
                })
                .collect(),
        }
    }
}

impl Eval<'_> {
    pub(super) async fn aggregate<'a>(
        &'a self,
        how: Aggregation<'a>,
        arg: &'a Vector,
        steps: Steps,
    ) -> Result<ColumnStream<'a>> {
        match how.op {
            AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
                return self.rank(how, arg, steps).await;
            }
            AggregateOp::CountValues => return self.count_values(how, arg, steps).await,
            AggregateOp::Quantile => {
                let bad = |v: &&f64| !(0.0..=1.0).contains(*v);
                let values = how.param.as_ref().map_or(&[][..], |p| p.values());
                if let Some(q) = values.iter().find(bad) {
                    let text = general_text(*q);
                    self.warn(
                        how.param_span,
                        format!("quantile value should be between 0 and 1, got {text}"),
                    );
                }
            }
            _ => {}
        }
        let mut columns = self.vector(arg, steps).await?;
        let mut groups = Groups::new(how.without, how.labels);
        let mut gathered: Vec<(Labels, bool, Gathered)> = Vec::new();
        let mut held = Held::new(self.ctx)?;
        while let Some(column) = columns.next().await {
            let column = column?;
            let (at, new) = groups.find(&column.labels)?;
            if let Some(labels) = new {
                let bytes = steps.count * Gathered::step_bytes(how.op) + labels.as_encoded().len() * 2 + 96;
                held.reservation.grow(bytes)?;
                gathered.push((labels, false, Gathered::new(how.op, steps.count)));
            }
            let (_, drop_name, group) = &mut gathered[at];
            *drop_name |= column.drop_name;
            group.add(&column.values, &mut held.reservation)?;
        }
        for (labels, drop_name, group) in gathered {
            if how.partial && matches!(group, Gathered::Sum { .. } | Gathered::Mean(_)) {
                super::parts::emit(&labels, group, &mut held)?;
                continue;
            }
            let values = group.finish(how.param.as_ref());
            held.columns.push(Column { labels, drop_name, values });
        }
        // Not in the order of the series: which of equal groups a `topk` keeps must not depend on how the series were read.
        held.columns.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(held.into_stream())
    }

    async fn count_values<'a>(
        &'a self,
        how: Aggregation<'a>,
        arg: &'a Vector,
        steps: Steps,
    ) -> Result<ColumnStream<'a>> {
        let mut by = how.labels.to_vec();
        if !how.without && !by.iter().any(|l| l == how.label) {
            by.push(how.label.to_owned());
            by.sort();
        }
        let mut columns = self.vector(arg, steps).await?;
        let mut groups = Groups::new(how.without, &by);
        let mut held = Held::new(self.ctx)?;
        while let Some(column) = columns.next().await {
            let column = column?;
            // Neighbouring steps mostly have the same value.
            let mut last: Option<(u64, usize)> = None;
            for (i, v) in column.values.iter().enumerate().filter(|(_, v)| !is_absent(**v)) {
                let at = match last {
                    Some((bits, at)) if bits == v.to_bits() => at,
                    _ => {
                        let labels = column.labels.to_builder().set(how.label, &number_text(*v)).build();
                        let (at, new) = groups.find(&labels)?;
                        if let Some(labels) = new {
                            let values = vec![ABSENT; steps.count];
                            held.push(Column { labels, drop_name: column.drop_name, values })?;
                        }
                        last = Some((v.to_bits(), at));
                        at
                    }
                };
                let count = &mut held.columns[at].values[i];
                *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
            }
        }
        held.columns.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(held.into_stream())
    }
}

/// Refuses parameters that cannot be counts.
pub(super) fn check_k(values: &[f64]) -> Result<()> {
    for v in values {
        if v.is_nan() {
            return Err(Error::invalid("Parameter value is NaN"));
        }
        if *v <= i64::MIN as f64 {
            return Err(Error::invalid(format!("Scalar value {} underflows int64", general_text(*v))));
        }
        if *v >= i64::MAX as f64 {
            return Err(Error::invalid(format!("Scalar value {} overflows int64", general_text(*v))));
        }
    }
    Ok(())
}
