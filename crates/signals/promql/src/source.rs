//! What PromQL needs from storage.

use async_trait::async_trait;
use futures::stream::BoxStream;
use triptych_model::metrics::{Sample, SeriesSelect};
use triptych_model::{Labels, Result};
use triptych_runtime::QueryContext;

/// Series in ascending order of labels, each once.
pub type SeriesStream = BoxStream<'static, Result<Series>>;

/// Implemented by heads, blocks, and the querier's merge over Store API clients.
#[async_trait]
pub trait SeriesSource: Send + Sync {
    /// The series that match, with their samples in the asked range (both ends inclusive). Samples just outside the range
    /// may come along; the evaluator cuts. Reads are counted on `ctx` by the source.
    async fn select(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<SeriesStream>;
}

/// One series: its labels, and its samples on demand.
pub struct Series {
    pub labels: Labels,
    pub samples: Box<dyn SampleIter>,
}

/// Hands out samples in runs, one chunk or so at a time: one virtual call per run, none per sample.
pub trait SampleIter: Send {
    /// Appends the next run to `out`; false when there are no more. Over all runs time ascends strictly: copies are merged,
    /// overlaps sorted. Staleness markers are samples too.
    fn next_run(&mut self, out: &mut Vec<Sample>) -> Result<bool>;
}

/// Samples that are in memory already: tests, subqueries.
impl SampleIter for std::vec::IntoIter<Sample> {
    fn next_run(&mut self, out: &mut Vec<Sample>) -> Result<bool> {
        let before = out.len();
        out.extend(self);
        Ok(out.len() > before)
    }
}
