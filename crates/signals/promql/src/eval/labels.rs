//! Functions of label sets: `label_replace`, `label_join`, sorting.

use std::cmp::Ordering;

use regex::Regex;
use triptych_model::Labels;

use super::column::Column;
use super::math::compare;

/// `label_replace`. The replacement is a template in Go's syntax: `$1`, `${1}`, `$name`, `$$`.
pub(super) struct Replace<'a> {
    pub target: &'a str,
    pub replacement: &'a str,
    pub source: &'a str,
    pub regex: &'a Regex,
}

impl Replace<'_> {
    pub fn apply(&self, labels: &Labels) -> Option<Labels> {
        let captures = self.regex.captures(labels.value(self.source))?;
        let mut value = String::new();
        captures.expand(self.replacement, &mut value);
        Some(labels.to_builder().set(self.target, &value).build())
    }
}

/// `label_join`.
pub(super) fn join(labels: &Labels, target: &str, separator: &str, sources: &[String]) -> Labels {
    let values: Vec<&str> = sources.iter().map(|s| labels.value(s)).collect();
    labels.to_builder().set(target, &values.join(separator)).build()
}

fn first_value(column: &Column) -> f64 {
    column.values.first().copied().unwrap_or(f64::NAN)
}

/// NaN comes last either way.
pub(super) fn sort_by_value(columns: &mut [Column], descending: bool) {
    columns.sort_by(|a, b| {
        let (a, b) = (first_value(a), first_value(b));
        match (a.is_nan(), b.is_nan()) {
            (false, false) if descending => compare(b, a),
            (false, false) => compare(a, b),
            (a, b) => a.cmp(&b),
        }
    });
}

/// In natural order of the labels' values, then by the whole label set.
pub(super) fn sort_by_label(columns: &mut [Column], names: &[String], descending: bool) {
    columns.sort_by(|a, b| {
        let by_names = names.iter().map(|n| natural(a.labels.value(n), b.labels.value(n)));
        let order = by_names.fold(Ordering::Equal, Ordering::then).then_with(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    });
}

/// Runs of digits compare as numbers: `node2` before `node10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() && !b.is_empty() {
        let (x, y) = (chunk(&mut a), chunk(&mut b));
        let order = match (x[0].is_ascii_digit(), y[0].is_ascii_digit()) {
            (true, true) => {
                let (x, y) = (without_zeros(x), without_zeros(y));
                x.len().cmp(&y.len()).then_with(|| x.cmp(y))
            }
            _ => x.cmp(y),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// Takes a run of digits, or of anything else, off the front.
fn chunk<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let digit = rest[0].is_ascii_digit();
    let length = rest.iter().take_while(|b| b.is_ascii_digit() == digit).count();
    let (head, tail) = rest.split_at(length);
    *rest = tail;
    head
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    &digits[zeros..]
}
