//! Plugs traces in: the merged Store API, and TraceQL metrics over it.

use async_trait::async_trait;
use triptych_model::metrics::QueryValue;
use triptych_model::traces::{
    ScopeTags, SpanSampleSelect, TagsSelect, TraceId, TraceMatch, TraceParts, TraceSamples, TraceSearch,
    TracesMetricsQuery, Value,
};
use triptych_model::{Result, Version};
use triptych_rpc::traits::Stream;
use triptych_rpc::{TracesStore, question};
use triptych_runtime::QueryContext;
use triptych_traceql::{
    evaluate, is_by_span, leaves, merge_matches, merge_samples, merge_tags, merge_values,
};

use crate::fan::Fan;
use crate::sources::Reach;

#[derive(Clone)]
pub(crate) struct Door {
    fan: Fan<dyn TracesStore>,
}

impl Door {
    pub fn new(fan: Fan<dyn TracesStore>) -> Self {
        Self { fan }
    }

    /// See [`Fan::failures`].
    pub fn failures(&self) -> u64 {
        self.fan.failures()
    }

    pub async fn query(&self, ctx: &QueryContext, query: &TracesMetricsQuery) -> Result<QueryValue> {
        let (door, context, query) = (self.clone(), ctx.clone(), query.clone());
        let work = async move {
            let mut streams = Vec::new();
            for leaf in leaves(&query)? {
                streams.push(merge_samples(door.open_samples(&context, &leaf).await?));
            }
            evaluate(&context, &query, streams).await
        };
        self.fan.run(ctx, work).await
    }

    async fn open_samples(
        &self,
        ctx: &QueryContext,
        select: &SpanSampleSelect,
    ) -> Result<Vec<Stream<TraceSamples>>> {
        self.fan.open_reaching(ctx, reach(&select.query)?, question!(store.samples(&select))).await
    }
}

/// A trace may lie in several blocks.
fn reach(query: &str) -> Result<Reach> {
    Ok(if is_by_span(query)? { Reach::Divided } else { Reach::Whole })
}

#[async_trait]
impl TracesStore for Door {
    /// At most one part: those of all sources, combined.
    async fn find(
        &self,
        ctx: &QueryContext,
        trace_id: &TraceId,
        start_ns: i64,
        end_ns: i64,
    ) -> Result<TraceParts> {
        let found = self.fan.ask(ctx, question!(store.find(&trace_id, start_ns, end_ns))).await?;
        let parts: Vec<_> = found.into_iter().flat_map(|p| p.otlp).collect();
        if parts.len() < 2 {
            return Ok(TraceParts { otlp: parts });
        }
        // The combined trace is about as large as its parts.
        let held = ctx.reserve(parts.iter().map(|p| 2 * p.len()).sum())?;
        let combine = async move {
            let combined = triptych_traces::combine(parts)?;
            drop(held);
            Ok(combined)
        };
        let combined = self.fan.run(ctx, combine).await?;
        Ok(TraceParts { otlp: if combined.is_empty() { Vec::new() } else { vec![combined] } })
    }

    /// As the sources find them; a trace again when another adds to it. Each source stops at the limit for itself.
    async fn search(&self, ctx: &QueryContext, search: &TraceSearch) -> Result<Stream<TraceMatch>> {
        let streams =
            self.fan.open_reaching(ctx, reach(&search.query)?, question!(store.search(&search))).await?;
        Ok(self.fan.ahead(ctx, merge_matches(search, streams)?))
    }

    async fn samples(&self, ctx: &QueryContext, select: &SpanSampleSelect) -> Result<Stream<TraceSamples>> {
        let streams = self.open_samples(ctx, select).await?;
        Ok(self.fan.ahead(ctx, merge_samples(streams)))
    }

    async fn tag_names(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<ScopeTags>> {
        let lists = self.fan.ask(ctx, question!(store.tag_names(&select))).await?;
        Ok(merge_tags(lists, select.limit))
    }

    async fn tag_values(&self, ctx: &QueryContext, select: &TagsSelect) -> Result<Vec<Value>> {
        let lists = self.fan.ask(ctx, question!(store.tag_values(&select))).await?;
        Ok(merge_values(lists, select.limit))
    }

    async fn versions(&self, ctx: &QueryContext, ranges: &[(i64, i64)]) -> Result<Vec<Version>> {
        let sources = self.fan.ask(ctx, question!(store.versions(&ranges))).await?;
        Version::of_all(sources, ranges.len())
    }
}
