//! Vector aggregations: columns into the columns of their groups.

use std::cmp::Ordering;

use hashbrown::HashMap;
use triptych_model::{Labels, Result};

use super::{Columns, Scope};
use crate::syntax::ast::{Grouping, VectorAgg, VectorOp};

/// The labels of the group a series belongs to.
pub fn group_of(labels: &Labels, grouping: Option<&Grouping>) -> Labels {
    match grouping {
        None => Labels::empty(),
        Some(Grouping { without, labels: names }) => {
            labels.filter(|n| names.iter().any(|name| name == n) != *without)
        }
    }
}

pub fn aggregate(scope: Scope<'_>, aggregation: &VectorAgg, inner: Columns) -> Result<Columns> {
    let VectorAgg { op, param, grouping, .. } = aggregation;
    match op {
        VectorOp::Sort | VectorOp::SortDesc => Ok(inner),
        VectorOp::Topk | VectorOp::ApproxTopk | VectorOp::Bottomk => {
            let k = usize::try_from(param.unwrap_or(1)).unwrap_or(usize::MAX);
            select(scope, *op != VectorOp::Bottomk, k, grouping.as_ref(), inner)
        }
        _ => fold(scope, *op, grouping.as_ref(), inner),
    }
}

/// Per step: count, and what the operation needs beside it.
#[derive(Clone, Copy, Default)]
struct Cell {
    count: f64,
    a: f64,
    b: f64,
}

fn fold(scope: Scope<'_>, op: VectorOp, grouping: Option<&Grouping>, inner: Columns) -> Result<Columns> {
    let steps = scope.steps.count;
    let mut groups: Vec<(Labels, Vec<Cell>)> = Vec::new();
    let mut index: HashMap<Labels, usize> = HashMap::new();
    let mut memory = scope.ctx.reserve(0)?;
    for column in inner.list {
        scope.ctx.check()?;
        let labels = group_of(&column.labels, grouping);
        let at = match index.get(&labels) {
            Some(at) => *at,
            None => {
                memory.grow(steps * size_of::<Cell>() + 2 * labels.as_encoded().len() + 64)?;
                groups.push((labels.clone(), vec![Cell::default(); steps]));
                index.insert(labels, groups.len() - 1);
                groups.len() - 1
            }
        };
        for (cell, value) in groups[at].1.iter_mut().zip(&column.values) {
            let Some(value) = *value else { continue };
            cell.count += 1.0;
            match op {
                VectorOp::Sum | VectorOp::Avg => cell.a += value,
                VectorOp::Min if cell.count == 1.0 || value < cell.a || cell.a.is_nan() => cell.a = value,
                VectorOp::Max if cell.count == 1.0 || value > cell.a || cell.a.is_nan() => cell.a = value,
                VectorOp::Stddev | VectorOp::Stdvar => {
                    let delta = value - cell.a;
                    cell.a += delta / cell.count;
                    cell.b += delta * (value - cell.a);
                }
                _ => {}
            }
        }
    }
    let mut columns = Columns::new(scope.ctx)?;
    for (labels, cells) in groups {
        let column = columns.add(labels, steps)?;
        for (slot, cell) in column.values.iter_mut().zip(cells) {
            if cell.count > 0.0 {
                *slot = Some(match op {
                    VectorOp::Count => cell.count,
                    VectorOp::Avg => cell.a / cell.count,
                    VectorOp::Stdvar => cell.b / cell.count,
                    VectorOp::Stddev => (cell.b / cell.count).sqrt(),
                    _ => cell.a,
                });
            }
        }
    }
    Ok(columns)
}

/// `topk` and `bottomk`: per step and group the `k` largest or smallest; NaN only where nothing else is left.
fn select(
    scope: Scope<'_>,
    largest: bool,
    k: usize,
    grouping: Option<&Grouping>,
    mut inner: Columns,
) -> Result<Columns> {
    let mut groups: HashMap<Labels, Vec<usize>> = HashMap::new();
    inner.list.sort_by(|a, b| a.labels.cmp(&b.labels));
    for (i, column) in inner.list.iter().enumerate() {
        groups.entry(group_of(&column.labels, grouping)).or_default().push(i);
    }
    let mut present: Vec<(f64, usize)> = Vec::new();
    for members in groups.values() {
        scope.ctx.check()?;
        if members.len() <= k {
            continue;
        }
        for step in 0..scope.steps.count {
            present.clear();
            present.extend(members.iter().filter_map(|i| Some((inner.list[*i].values[step]?, *i))));
            if present.len() <= k {
                continue;
            }
            // Equal values: the smaller labels stay.
            let better = |x: &(f64, usize), y: &(f64, usize)| -> Ordering {
                match (x.0.is_nan(), y.0.is_nan()) {
                    (false, false) if largest => y.0.total_cmp(&x.0),
                    (false, false) => x.0.total_cmp(&y.0),
                    (x, y) => x.cmp(&y),
                }
                .then(x.1.cmp(&y.1))
            };
            present.select_nth_unstable_by(k - 1, better);
            for (_, i) in &present[k..] {
                inner.list[*i].values[step] = None;
            }
        }
    }
    Ok(inner)
}
