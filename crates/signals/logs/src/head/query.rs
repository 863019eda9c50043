//! Lines and samples of a head.

use std::sync::Arc;

use futures::stream::BoxStream;
use triptych_model::logs::{DetectedField, Direction, EntrySelect, LogEntry, LogSample, SampleSelect};
use triptych_model::{Matcher, Result};
use triptych_runtime::QueryContext;

use super::Head;
use crate::figures::{check_matchers, check_range};
use crate::leaf::{EntryLeaf, ExtractLeaf};
use crate::scan::{Leaf, Scan};

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
        self.scan(ctx, leaf, &matchers, range, select.direction, select.limit)
    }

    /// What a range aggregation counts, with ascending time over all streams.
    pub async fn samples(
        &self,
        ctx: &QueryContext,
        select: &SampleSelect,
    ) -> Result<BoxStream<'static, Result<Vec<LogSample>>>> {
        let range = check_range(select.start_ns, select.end_ns)?;
        let leaf = Arc::new(ExtractLeaf::compile(&select.expr)?);
        let matchers = leaf.matchers().to_vec();
        self.scan(ctx, leaf, &matchers, range, Direction::Forward, 0)
    }

    fn scan<L: Leaf>(
        &self,
        ctx: &QueryContext,
        leaf: Arc<L>,
        matchers: &[Matcher],
        (start_ns, end_ns): (i64, i64),
        direction: Direction,
        limit: usize,
    ) -> Result<BoxStream<'static, Result<Vec<L::Item>>>> {
        check_matchers(matchers)?;
        let mut scan = Scan::new(ctx, leaf, (start_ns, end_ns), direction, limit);
        for (i, stream) in self.select(std::slice::from_ref(&matchers.to_vec())).iter().enumerate() {
            if i % STREAMS_PER_CHECK == 0 {
                ctx.check()?;
            }
            stream.tasks(start_ns, end_ns, |task| scan.push(task));
        }
        Ok(scan.into_stream())
    }

    /// Fields found in the newest lines that pass.
    pub async fn detected_fields(
        &self,
        ctx: &QueryContext,
        select: &EntrySelect,
    ) -> Result<Vec<DetectedField>> {
        crate::fields::detect(self.entries(ctx, &crate::fields::sample_of(select)).await?).await
    }
}
