//! Binary operations: arithmetic, comparisons, sets, with Prometheus' rules of matching.

use hashbrown::HashMap;
use triptych_model::{Error, Labels, Result};

use super::{Columns, Evaluated, Scope};
use crate::syntax::ast::{Binary, BinaryOp, Group, Matching};

pub fn eval(scope: Scope<'_>, binary: &Binary, left: Evaluated, right: Evaluated) -> Result<Evaluated> {
    Ok(match (left, right) {
        (Evaluated::Scalar(l), Evaluated::Scalar(r)) => Evaluated::Scalar(match binary.op {
            BinaryOp::Compare(op) => f64::from(u8::from(op.test(l, r))),
            op => arithmetic(op, l, r),
        }),
        (Evaluated::Scalar(l), Evaluated::Columns(columns)) => {
            Evaluated::Columns(with_scalar(binary, columns, |value| (l, value)))
        }
        (Evaluated::Columns(columns), Evaluated::Scalar(r)) => {
            Evaluated::Columns(with_scalar(binary, columns, |value| (value, r)))
        }
        (Evaluated::Columns(left), Evaluated::Columns(right)) => Evaluated::Columns(if binary.op.is_set() {
            set(scope, binary, left, right)?
        } else {
            match_vectors(scope, binary, left, right)?
        }),
    })
}

/// Division and remainder by 0 are NaN, as in Loki.
fn arithmetic(op: BinaryOp, l: f64, r: f64) -> f64 {
    match op {
        BinaryOp::Add => l + r,
        BinaryOp::Sub => l - r,
        BinaryOp::Mul => l * r,
        BinaryOp::Div | BinaryOp::Mod if r == 0.0 => f64::NAN,
        BinaryOp::Div => l / r,
        BinaryOp::Mod => l % r,
        BinaryOp::Pow => l.powf(r),
        BinaryOp::Compare(_) | BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => f64::NAN,
    }
}

/// `kept`: the value that stays where a comparison without `bool` holds.
fn apply(binary: &Binary, l: f64, r: f64, kept: f64) -> Option<f64> {
    match binary.op {
        BinaryOp::Compare(op) if binary.return_bool => Some(f64::from(u8::from(op.test(l, r)))),
        BinaryOp::Compare(op) => op.test(l, r).then_some(kept),
        op => Some(arithmetic(op, l, r)),
    }
}

fn with_scalar(binary: &Binary, mut columns: Columns, sides: impl Fn(f64) -> (f64, f64)) -> Columns {
    for column in &mut columns.list {
        for slot in &mut column.values {
            *slot = slot.and_then(|value| {
                let (l, r) = sides(value);
                apply(binary, l, r, value)
            });
        }
    }
    columns
}

/// What two series must have in common.
fn signature(labels: &Labels, matching: &Matching) -> Labels {
    labels.filter(|n| matching.labels.iter().any(|l| l == n) == matching.on)
}

fn by_signature(columns: &Columns, matching: &Matching) -> HashMap<Labels, Vec<usize>> {
    let mut out: HashMap<Labels, Vec<usize>> = HashMap::new();
    for (i, column) in columns.list.iter().enumerate() {
        out.entry(signature(&column.labels, matching)).or_default().push(i);
    }
    out
}

fn set(scope: Scope<'_>, binary: &Binary, mut left: Columns, mut right: Columns) -> Result<Columns> {
    let steps = scope.steps.count;
    // Which steps a signature is there in.
    let present = |columns: &Columns| -> HashMap<Labels, Vec<bool>> {
        let mut out: HashMap<Labels, Vec<bool>> = HashMap::new();
        for column in &columns.list {
            let seen =
                out.entry(signature(&column.labels, &binary.matching)).or_insert_with(|| vec![false; steps]);
            for (seen, value) in seen.iter_mut().zip(&column.values) {
                *seen |= value.is_some();
            }
        }
        out
    };
    scope.ctx.check()?;
    // The presence maps are at most a sixteenth of the columns they come from.
    let (filtered, other, keep) = match binary.op {
        BinaryOp::And => (&mut left, present(&right), true),
        BinaryOp::Unless => (&mut left, present(&right), false),
        _ => (&mut right, present(&left), false),
    };
    for column in &mut filtered.list {
        let seen = other.get(&signature(&column.labels, &binary.matching));
        for (step, slot) in column.values.iter_mut().enumerate() {
            if seen.is_some_and(|s| s[step]) != keep {
                *slot = None;
            }
        }
    }
    if binary.op != BinaryOp::Or {
        return Ok(left);
    }
    // Left, and from the right what the left has not. The same labels may be on both sides, at different steps.
    let index: HashMap<Labels, usize> =
        left.list.iter().enumerate().map(|(i, c)| (c.labels.clone(), i)).collect();
    for column in right.list {
        match index.get(&column.labels) {
            Some(at) => {
                for (slot, value) in left.list[*at].values.iter_mut().zip(column.values) {
                    *slot = slot.or(value);
                }
            }
            None => {
                let added = left.add(column.labels, 0)?;
                added.values = column.values;
                left.memory.grow(steps * size_of::<Option<f64>>())?;
            }
        }
    }
    Ok(left)
}

fn match_vectors(scope: Scope<'_>, binary: &Binary, left: Columns, right: Columns) -> Result<Columns> {
    let matching = &binary.matching;
    let steps = scope.steps.count;
    // `one`: the side of which each signature may be there once.
    let swapped = matching.group == Group::Right;
    let (many, one) = if swapped { (&right, &left) } else { (&left, &right) };
    let ones = by_signature(one, matching);
    let side = if swapped { "left" } else { "right" };
    let mut out = Columns::new(scope.ctx)?;
    let mut index: HashMap<Labels, usize> = HashMap::new();
    for column in &many.list {
        scope.ctx.check()?;
        let signature = signature(&column.labels, matching);
        let Some(partners) = ones.get(&signature) else { continue };
        // Partners may take turns: the labels of the answer depend on which is there.
        for partner in partners {
            let partner = &one.list[*partner];
            let labels = result_labels(&column.labels, &partner.labels, matching);
            let mut at = None;
            for step in 0..steps {
                let (Some(m), Some(o)) = (column.values[step], partner.values[step]) else { continue };
                if partners.len() > 1
                    && partners.iter().filter(|p| one.list[**p].values[step].is_some()).count() > 1
                {
                    return Err(Error::invalid(format!(
                        "found duplicate series for the match group {signature} on the {side} hand-side of the operation: \
                         many-to-many matching not allowed: matching labels must be unique on one side"
                    )));
                }
                let (l, r) = if swapped { (o, m) } else { (m, o) };
                let value = apply(binary, l, r, l);
                let at = match at {
                    Some(at) => at,
                    None => {
                        let found = match index.get(&labels) {
                            Some(found) => *found,
                            None => {
                                out.add(labels.clone(), steps)?;
                                index.insert(labels.clone(), out.list.len() - 1);
                                out.list.len() - 1
                            }
                        };
                        at = Some(found);
                        found
                    }
                };
                let slot = &mut out.list[at].values[step];
                if slot.is_some() && value.is_some() {
                    return Err(Error::invalid(if matching.group == Group::OneToOne {
                        format!(
                            "multiple matches for labels {labels}: many-to-one matching must be explicit (group_left/group_right)"
                        )
                    } else {
                        format!(
                            "multiple matches for labels {labels}: grouping labels must ensure unique matches"
                        )
                    }));
                }
                *slot = slot.or(value);
            }
        }
    }
    Ok(out)
}

fn result_labels(many: &Labels, one: &Labels, matching: &Matching) -> Labels {
    let kept = match matching.group {
        Group::OneToOne if matching.on || !matching.labels.is_empty() => signature(many, matching),
        _ => many.clone(),
    };
    if matching.include.is_empty() {
        return kept;
    }
    let mut builder = kept.to_builder();
    for name in &matching.include {
        builder.set(name, one.value(name));
    }
    builder.build()
}
