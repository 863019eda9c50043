//! What LogQL needs from storage.

use async_trait::async_trait;
use futures::stream::BoxStream;
use triptych_model::Result;
use triptych_model::logs::{EntrySelect, LogEntry, LogSample, SampleSelect};
use triptych_runtime::QueryContext;

/// Implemented by heads, the bucket's chunks, and the querier's merge over Store API clients. The pipeline runs inside the
/// source, next to the data. Order and limits: see the fields of the two selects.
#[async_trait]
pub trait StreamSource: Send + Sync {
    async fn entries(
        &self,
        ctx: &QueryContext,
        select: &EntrySelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogEntry>>>>;

    async fn samples(
        &self,
        ctx: &QueryContext,
        select: &SampleSelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogSample>>>>;
}
