//! Binary operators on two vectors: a hash join by matching labels, column against column.
//!
//! The series of both sides are put into groups with equal matching labels. Within a group the usual case is one series
//! each: one pass over two columns. Several series of a group may share it as long as they do not meet at a step.

use hashbrown::HashMap;
use triptych_model::{Error, Labels, Result};
use triptych_runtime::QueryContext;

use super::binary::element;
use super::column::{ABSENT, Column, Held, Steps, is_absent, is_metadata_label, merge_same};
use crate::ast::{BinaryOp, Grouping, Matching};

/// Series of both sides (indices) with equal matching labels.
#[derive(Default)]
struct Group {
    left: Vec<usize>,
    right: Vec<usize>,
}

/// The labels that are compared; `labels` is sorted.
fn matching_labels(labels: &Labels, matching: &Matching) -> Labels {
    let listed = |name: &str| matching.labels.binary_search_by(|l| l.as_str().cmp(name)).is_ok();
    labels.filter(|name| if matching.on { listed(name) } else { name != "__name__" && !listed(name) })
}

fn groups(left: &[Column], right: &[Column], matching: &Matching) -> Vec<(Labels, Group)> {
    let mut index: HashMap<Labels, usize> = HashMap::with_capacity(left.len());
    let mut groups: Vec<(Labels, Group)> = Vec::new();
    let mut find = |labels: Labels, groups: &mut Vec<(Labels, Group)>| match index.get(&labels) {
        Some(at) => *at,
        None => {
            groups.push((labels.clone(), Group::default()));
            index.insert(labels, groups.len() - 1);
            groups.len() - 1
        }
    };
    for (i, column) in left.iter().enumerate() {
        let at = find(matching_labels(&column.labels, matching), &mut groups);
        groups[at].1.left.push(i);
    }
    for (i, column) in right.iter().enumerate() {
        let at = find(matching_labels(&column.labels, matching), &mut groups);
        groups[at].1.right.push(i);
    }
    groups
}

/// Which steps have a value of any of the series.
fn any_present(columns: &[Column], indices: &[usize], steps: usize) -> Vec<bool> {
    let mut present = vec![false; steps];
    for i in indices {
        for (p, v) in present.iter_mut().zip(&columns[*i].values) {
            *p |= !is_absent(*v);
        }
    }
    present
}

/// `and`, `or`, `unless`.
pub(super) fn set(
    ctx: &QueryContext,
    op: BinaryOp,
    left: Held,
    right: Held,
    matching: &Matching,
) -> Result<Held> {
    let mut out = Held { columns: left.columns, reservation: left.reservation };
    let mut right = right;
    let steps = out.columns.first().or(right.columns.first()).map_or(0, |c| c.values.len());
    let mut dead = vec![false; right.columns.len()];
    for (_, group) in groups(&out.columns, &right.columns, matching) {
        ctx.check()?;
        if op == BinaryOp::Or {
            if group.left.is_empty() {
                continue;
            }
            let present = any_present(&out.columns, &group.left, steps);
            for i in group.right {
                let column = &mut right.columns[i];
                for (v, p) in column.values.iter_mut().zip(&present) {
                    if *p {
                        *v = ABSENT;
                    }
                }
                dead[i] = column.is_empty();
            }
        } else {
            let present = any_present(&right.columns, &group.right, steps);
            for i in group.left {
                for (v, p) in out.columns[i].values.iter_mut().zip(&present) {
                    if *p != (op == BinaryOp::And) {
                        *v = ABSENT;
                    }
                }
            }
        }
    }
    if op == BinaryOp::Or {
        let Held { columns, reservation: _freed } = right;
        for (column, dead) in columns.into_iter().zip(dead) {
            if !dead {
                out.push(column)?;
            }
        }
        out.columns = merge_same(out.columns)?;
    } else {
        out.columns.retain(|c| !c.is_empty());
    }
    Ok(out)
}

/// An arithmetic operator or a comparison.
pub(super) struct Join<'a> {
    pub op: BinaryOp,
    pub return_bool: bool,
    pub matching: &'a Matching,
    pub delayed: bool,
}

/// A series of the answer while its group is being joined.
struct Joined {
    labels: Labels,
    drop_name: bool,
    values: Vec<f64>,
    /// Steps at which a pair met, also where a comparison then filtered it.
    matched: Vec<bool>,
}

impl Join<'_> {
    pub fn run(&self, ctx: &QueryContext, left: Held, right: Held, steps: Steps) -> Result<Held> {
        // For group_right the right side is the one with many series.
        let swapped = self.matching.grouping == Grouping::Right;
        let (many, one) = if swapped { (&right, &left) } else { (&left, &right) };
        // Not swapped with the sides: in Prometheus `fill_right` stands in for the side of one also with group_right.
        let (fill_one, fill_many) = (self.matching.fill_right, self.matching.fill_left);
        let mut out = Held::new(ctx)?;
        let mut any_many: Option<Vec<bool>> = None;
        for (signature, group) in groups(&many.columns, &one.columns, self.matching) {
            ctx.check()?;
            if (group.left.is_empty() && fill_many.is_none())
                || (group.right.is_empty() && fill_one.is_none())
            {
                if group.right.len() > 1 {
                    self.check_one_side(
                        &one.columns,
                        &group.right,
                        &signature,
                        &many.columns,
                        &mut any_many,
                    )?;
                }
                continue;
            }
            if group.right.len() > 1 {
                self.check_one_side(&one.columns, &group.right, &signature, &many.columns, &mut any_many)?;
            }
            let joined =
                self.group(&many.columns, &one.columns, &signature, &group, (fill_many, fill_one), steps)?;
            for j in joined {
                let column = Column { labels: j.labels, drop_name: j.drop_name, values: j.values };
                if !column.is_empty() {
                    out.push(column)?;
                }
            }
        }
        out.columns = merge_same(out.columns)?;
        Ok(out)
    }

    /// The side that must be unique: no two of its series with equal matching labels may meet at a step at which the other
    /// side has anything at all.
    fn check_one_side(
        &self,
        one: &[Column],
        indices: &[usize],
        signature: &Labels,
        many: &[Column],
        any_many: &mut Option<Vec<bool>>,
    ) -> Result<()> {
        let steps = one[indices[0]].values.len();
        for i in 0..steps {
            let mut present = indices.iter().filter(|at| !is_absent(one[**at].values[i]));
            let (Some(a), Some(b)) = (present.next(), present.next()) else { continue };
            let any_many = any_many
                .get_or_insert_with(|| any_present(many, &(0..many.len()).collect::<Vec<_>>(), steps));
            if !any_many[i] {
                continue;
            }
            let side = if self.matching.grouping == Grouping::Right { "left" } else { "right" };
            let mut pair = [one[*a].labels.to_string(), one[*b].labels.to_string()];
            pair.sort();
            let [a, b] = pair;
            return Err(Error::invalid(format!(
                "found duplicate series for the match group {signature} on the {side} hand-side of the operation: \
                 [{a}, {b}];many-to-many matching not allowed: matching labels must be unique on one side"
            )));
        }
        Ok(())
    }

    fn group(
        &self,
        many: &[Column],
        one: &[Column],
        signature: &Labels,
        group: &Group,
        (fill_many, fill_one): (Option<f64>, Option<f64>),
        steps: Steps,
    ) -> Result<Vec<Joined>> {
        let mut out: Vec<Joined> = Vec::new();
        let one_to_one = self.matching.grouping == Grouping::None;
        // Of one-to-one: steps at which the group has its match already.
        let mut taken = vec![false; if one_to_one && group.left.len() > 1 { steps.count } else { 0 }];
        let mut meet = |m: Option<&Column>, o: Option<&Column>, only: Option<&[bool]>| -> Result<bool> {
            let mut slot = None;
            for i in 0..steps.count {
                if only.is_some_and(|only| !only[i]) {
                    continue;
                }
                let value = |c: Option<&Column>, fill: Option<f64>| match c {
                    Some(c) => c.values[i],
                    None => fill.unwrap_or(ABSENT),
                };
                let (mv, ov) = (value(m, fill_many), value(o, fill_one));
                if is_absent(mv) || is_absent(ov) {
                    continue;
                }
                if let Some(taken) = taken.get_mut(i) {
                    if *taken {
                        return Err(Error::invalid(
                            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                        ));
                    }
                    *taken = true;
                }
                let at = match slot {
                    Some(at) => at,
                    None => {
                        let fake = Column { labels: signature.clone(), drop_name: false, values: Vec::new() };
                        let (labels, drop_name) = self.result(m.unwrap_or(&fake), o.unwrap_or(&fake));
                        let found = out.iter().position(|j| j.labels == labels);
                        let at = found.unwrap_or_else(|| {
                            out.push(Joined {
                                labels,
                                drop_name,
                                values: vec![ABSENT; steps.count],
                                matched: vec![false; steps.count],
                            });
                            out.len() - 1
                        });
                        slot = Some(at);
                        at
                    }
                };
                let joined = &mut out[at];
                if joined.matched[i] {
                    return Err(Error::invalid(
                        "multiple matches for labels: grouping labels must ensure unique matches",
                    ));
                }
                joined.matched[i] = true;
                let (l, r) = if self.matching.grouping == Grouping::Right { (ov, mv) } else { (mv, ov) };
                joined.values[i] = element(self.op, self.return_bool, l, r, l);
            }
            Ok(slot.is_some())
        };
        for m in &group.left {
            for o in &group.right {
                meet(Some(&many[*m]), Some(&one[*o]), None)?;
            }
        }
        let without = |present: Vec<bool>| -> Vec<bool> { present.into_iter().map(|p| !p).collect() };
        if fill_one.is_some() {
            let missing = without(any_present(one, &group.right, steps.count));
            for m in &group.left {
                meet(Some(&many[*m]), None, Some(&missing))?;
            }
        }
        if fill_many.is_some() {
            let missing = without(any_present(many, &group.left, steps.count));
            for o in &group.right {
                meet(None, Some(&one[*o]), Some(&missing))?;
            }
        }
        Ok(out)
    }

    /// The labels of what two series give.
    fn result(&self, many: &Column, one: &Column) -> (Labels, bool) {
        let m = self.matching;
        let listed = |name: &str| m.labels.binary_search_by(|l| l.as_str().cmp(name)).is_ok();
        let arithmetic = !self.op.is_comparison();
        let drops = arithmetic || (self.return_bool && !self.delayed);
        let kept = many.labels.filter(|name| {
            !(drops && is_metadata_label(name))
                && match m.grouping {
                    Grouping::None => m.on == listed(name),
                    _ => true,
                }
        });
        let labels = if m.include.is_empty() {
            kept
        } else {
            let mut builder = kept.to_builder();
            for name in &m.include {
                builder.set(name, one.labels.value(name));
            }
            builder.build()
        };
        (labels, self.delayed && self.return_bool || (!drops && many.drop_name))
    }
}
