//! Binary operators on numbers, and on a vector with a scalar.

use super::column::{ABSENT, ScalarColumn, is_absent};
use crate::ast::BinaryOp;

/// Comparisons give 1 or 0. Set and trim operators have no meaning for numbers and give NaN.
#[inline]
pub fn scalar_op(op: BinaryOp, l: f64, r: f64) -> f64 {
    match op {
        BinaryOp::Add => l + r,
        BinaryOp::Sub => l - r,
        BinaryOp::Mul => l * r,
        BinaryOp::Div => l / r,
        BinaryOp::Mod => l % r,
        BinaryOp::Pow => l.powf(r),
        BinaryOp::Atan2 => l.atan2(r),
        BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::TrimUpper | BinaryOp::TrimLower => {
            f64::NAN
        }
        _ => f64::from(u8::from(holds(op, l, r))),
    }
}

#[inline]
fn holds(op: BinaryOp, l: f64, r: f64) -> bool {
    match op {
        BinaryOp::Eq => l == r,
        BinaryOp::Ne => l != r,
        BinaryOp::Gt => l > r,
        BinaryOp::Ge => l >= r,
        BinaryOp::Lt => l < r,
        BinaryOp::Le => l <= r,
        _ => false,
    }
}

/// What an operator gives for two values that are there: a comparison without `bool` keeps `kept` where it holds.
#[inline]
pub(super) fn element(op: BinaryOp, return_bool: bool, l: f64, r: f64, kept: f64) -> f64 {
    if op.is_comparison() && !return_bool {
        if holds(op, l, r) { kept } else { ABSENT }
    } else if matches!(op, BinaryOp::TrimUpper | BinaryOp::TrimLower) {
        ABSENT
    } else {
        scalar_op(op, l, r)
    }
}

/// Applies `op` to each value of a series and the scalar of its step.
pub(super) fn with_scalar(
    op: BinaryOp,
    return_bool: bool,
    scalar_left: bool,
    scalar: &ScalarColumn,
    values: &mut [f64],
) {
    for (i, v) in values.iter_mut().enumerate().filter(|(_, v)| !is_absent(**v)) {
        let s = scalar.at(i);
        let (l, r) = if scalar_left { (s, *v) } else { (*v, s) };
        *v = element(op, return_bool, l, r, *v);
    }
}
