//! Lines and samples of a head.

use std::sync::Arc;

use futures::stream::BoxStream;
use triptych_model::logs::{DetectedField, EntrySelect, LogEntry, LogSamples, SampleSelect};
use triptych_model::{Matcher, Result, Shard};
use triptych_runtime::QueryContext;

use super::Head;
use crate::figures::{check_matchers, check_range};
use crate::leaf::{EntryLeaf, ExtractLeaf};
use crate::scan::BlockTask;
use crate::scan::entries::EntryScan;
use crate::scan::samples::SampleScan;

/// Streams between two looks at the context.
const STREAMS_PER_CHECK: usize = 1024;

impl Head {
    /// What passes the expression, in the asked direction over all streams.
    pub async fn entries(
        &self,
        ctx: &QueryContext,
        select: &EntrySelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogEntry>>>> {
        let range = check_range(select.start_ns, select.end_ns)?;
        let leaf = Arc::new(EntryLeaf::compile(&select.expr)?);
        let matchers = leaf.matchers().to_vec();
        let mut scan = EntryScan::new(ctx, leaf, range, select.direction, select.limit);
        self.each_task(ctx, (&matchers, None), range, |task| scan.push(task))?;
        Ok(scan.into_stream())
    }

    /// What a range aggregation counts, in the order of [`SampleSelect`].
    pub async fn samples(
        &self,
        ctx: &QueryContext,
        select: &SampleSelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogSamples>>>> {
        let range = check_range(select.start_ns, select.end_ns)?;
        let leaf = Arc::new(ExtractLeaf::compile(&select.expr)?);
        let matchers = leaf.matchers().to_vec();
        let mut scan = SampleScan::new(ctx, leaf, range);
        self.each_task(ctx, (&matchers, select.shard), range, |task| scan.push(task))?;
        Ok(scan.into_stream())
    }

    /// The blocks that may hold something of the range.
    fn each_task(
        &self,
        ctx: &QueryContext,
        (matchers, shard): (&[Matcher], Option<Shard>),
        (start_ns, end_ns): (i64, i64),
        mut each: impl FnMut(BlockTask),
    ) -> Result<()> {
        check_matchers(matchers)?;
        for (i, stream) in self.select(std::slice::from_ref(&matchers.to_vec())).iter().enumerate() {
            if i % STREAMS_PER_CHECK == 0 {
                ctx.check()?;
            }
            if shard.is_some_and(|shard| !shard.has_hash(stream.info.fingerprint)) {
                continue;
            }
            stream.tasks(start_ns, end_ns, &mut each);
        }
        Ok(())
    }

    /// Fields found in the newest lines that pass.
    pub async fn detected_fields(
        &self,
        ctx: &QueryContext,
        select: &EntrySelect,
    ) -> Result<Vec<DetectedField>> {
        crate::fields::detect(self.entries(ctx, &crate::fields::sample_of(select)).await?).await
    }

    /// Values that a field has in the newest lines that pass.
    pub async fn detected_field_values(
        &self,
        ctx: &QueryContext,
        name: &str,
        select: &EntrySelect,
    ) -> Result<Vec<String>> {
        let lines = self.entries(ctx, &crate::fields::sample_of(select)).await?;
        crate::fields::values(ctx, lines, name).await
    }
}
