//! A series' values at every step of a query, and helpers for streams of them.

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use triptych_model::metrics::STALE_NAN_BITS;
use triptych_model::{Error, Labels, Result};
use triptych_runtime::{QueryContext, Reservation};

/// Stands where a series has no value at a step. The staleness marker serves: it ends a series, so no selector hands it out
/// as a value, and being a signaling NaN it is never the result of arithmetic.
pub(crate) const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

#[inline(always)]
pub(crate) fn is_absent(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The instants at which an expression is evaluated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    pub start_ms: i64,
    pub step_ms: i64,
    /// At least 1.
    pub count: usize,
}

impl Steps {
    #[inline]
    pub fn at(&self, index: usize) -> i64 {
        self.start_ms + self.step_ms * index as i64
    }
    pub fn end_ms(&self) -> i64 {
        self.at(self.count - 1)
    }
    /// The first instant alone.
    pub fn first(&self) -> Steps {
        Steps { count: 1, ..*self }
    }
}

/// One series: its labels, and a value or [`ABSENT`] for every step.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub labels: Labels,
    /// The name is to be dropped at the end of the query (delayed name removal).
    pub drop_name: bool,
    pub values: Vec<f64>,
}

impl Column {
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(|v| is_absent(*v))
    }
    /// About what it holds in memory.
    pub fn bytes(&self) -> usize {
        self.values.len() * 8 + self.labels.as_encoded().len() + 64
    }
}

/// A scalar at every step.
#[derive(Debug, Clone)]
pub(crate) enum ScalarColumn {
    Const(f64),
    Each(Vec<f64>),
}

impl ScalarColumn {
    #[inline]
    pub fn at(&self, index: usize) -> f64 {
        match self {
            ScalarColumn::Const(v) => *v,
            ScalarColumn::Each(all) => all[index],
        }
    }
    pub fn is_const(&self) -> bool {
        matches!(self, ScalarColumn::Const(_))
    }
    pub fn values(&self) -> &[f64] {
        match self {
            ScalarColumn::Const(v) => std::slice::from_ref(v),
            ScalarColumn::Each(all) => all,
        }
    }
    pub fn map(self, f: impl Fn(f64) -> f64) -> ScalarColumn {
        match self {
            ScalarColumn::Const(v) => ScalarColumn::Const(f(v)),
            ScalarColumn::Each(mut all) => {
                all.iter_mut().for_each(|v| *v = f(*v));
                ScalarColumn::Each(all)
            }
        }
    }
    pub fn zip(self, other: ScalarColumn, steps: Steps, f: impl Fn(f64, f64) -> f64) -> ScalarColumn {
        match (self, other) {
            (ScalarColumn::Const(l), ScalarColumn::Const(r)) => ScalarColumn::Const(f(l, r)),
            (l, r) => ScalarColumn::Each((0..steps.count).map(|i| f(l.at(i), r.at(i))).collect()),
        }
    }
}

pub(crate) type ColumnStream<'a> = BoxStream<'a, Result<Column>>;

/// Columns held in memory, and the reservation for them.
pub(crate) struct Held {
    pub columns: Vec<Column>,
    pub reservation: Reservation,
}

impl Held {
    pub fn new(ctx: &QueryContext) -> Result<Self> {
        Ok(Self { columns: Vec::new(), reservation: ctx.reserve(0)? })
    }

    pub fn push(&mut self, column: Column) -> Result<()> {
        self.reservation.grow(column.bytes())?;
        self.columns.push(column);
        Ok(())
    }

    pub fn into_stream<'a>(self) -> ColumnStream<'a> {
        let Held { columns, reservation } = self;
        let mut columns = columns.into_iter();
        stream::poll_fn(move |_| {
            let _keep = &reservation;
            std::task::Poll::Ready(columns.next().map(Ok))
        })
        .boxed()
    }
}

pub(crate) async fn hold(ctx: &QueryContext, mut columns: ColumnStream<'_>) -> Result<Held> {
    let mut held = Held::new(ctx)?;
    while let Some(column) = columns.next().await {
        held.push(column?)?;
    }
    Ok(held)
}

/// Makes one series of those with equal labels; fails where two of them have a value at the same step.
pub(crate) fn merge_same(columns: Vec<Column>) -> Result<Vec<Column>> {
    let mut seen: hashbrown::HashMap<Labels, usize> = hashbrown::HashMap::with_capacity(columns.len());
    let mut out: Vec<Column> = Vec::with_capacity(columns.len());
    for column in columns {
        match seen.entry(column.labels.clone()) {
            hashbrown::hash_map::Entry::Vacant(slot) => {
                slot.insert(out.len());
                out.push(column);
            }
            hashbrown::hash_map::Entry::Occupied(slot) => {
                let into = &mut out[*slot.get()];
                into.drop_name |= column.drop_name;
                for (a, b) in into.values.iter_mut().zip(&column.values) {
                    if is_absent(*b) {
                        continue;
                    }
                    if !is_absent(*a) {
                        return Err(Error::invalid("vector cannot contain metrics with the same labelset"));
                    }
                    *a = *b;
                }
            }
        }
    }
    Ok(out)
}

/// The labels that describe a metric rather than a series: they go when a value no longer is that metric's.
pub(crate) fn is_metadata_label(name: &str) -> bool {
    matches!(name, "__name__" | "__type__" | "__unit__")
}

/// The labels without the metric's name (and type and unit).
pub(crate) fn without_name(labels: &Labels) -> Labels {
    if labels.iter().any(|(name, _)| is_metadata_label(name)) {
        labels.filter(|name| !is_metadata_label(name))
    } else {
        labels.clone()
    }
}
