//! A source in memory, and the engine over it as a target.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use triptych_model::metrics::{MetricsQuery, Sample, SeriesSamples, SeriesSelect};
use triptych_model::{Labels, Result, TenantId};
use triptych_runtime::{QueryContext, QueryLimits};

use super::{Answer, Target};
use crate::eval::Engine;
use crate::source::{SampleIter, Series, SeriesSource, SeriesStream};

/// Samples by series, sorted. Hands them out in short runs, so that their borders are met often.
#[derive(Debug, Clone, Default)]
pub struct MemorySource {
    series: BTreeMap<Labels, Arc<Vec<Sample>>>,
}

/// Samples in a run.
const RUN_SAMPLES: usize = 7;

impl MemorySource {
    pub fn clear(&mut self) {
        self.series.clear();
    }

    /// Adds samples; of two at the same time the later one added counts.
    pub fn add(&mut self, series: SeriesSamples) {
        let samples = Arc::make_mut(self.series.entry(series.labels).or_default());
        samples.extend(series.samples);
        samples.sort_by_key(|s| s.t_ms);
        samples.reverse();
        samples.dedup_by_key(|s| s.t_ms);
        samples.reverse();
    }
}

#[async_trait]
impl SeriesSource for MemorySource {
    async fn select(&self, _: &QueryContext, select: &SeriesSelect) -> Result<SeriesStream> {
        let (start_ms, end_ms) = (select.start_ms, select.end_ms);
        let hits: Vec<_> = self
            .series
            .iter()
            .filter(|(labels, _)| select.matchers.iter().all(|m| m.matches_labels(labels)))
            .filter(|(labels, _)| select.shard.is_none_or(|shard| shard.has(labels)))
            .map(|(labels, samples)| {
                let next = samples.partition_point(|s| s.t_ms < start_ms);
                let end = samples.partition_point(|s| s.t_ms <= end_ms).max(next);
                Ok(Series {
                    labels: labels.clone(),
                    samples: Box::new(Runs { samples: samples.clone(), next, end }),
                })
            })
            .collect();
        Ok(futures::stream::iter(hits).boxed())
    }
}

struct Runs {
    samples: Arc<Vec<Sample>>,
    next: usize,
    end: usize,
}

impl SampleIter for Runs {
    fn next_run(&mut self, out: &mut Vec<Sample>) -> Result<bool> {
        let end = self.end.min(self.next + RUN_SAMPLES);
        out.extend_from_slice(&self.samples[self.next..end]);
        let some = end > self.next;
        self.next = end;
        Ok(some)
    }
}

/// [`Engine`] over a [`MemorySource`].
#[derive(Debug, Default)]
pub struct EngineTarget {
    pub engine: Engine,
    pub source: MemorySource,
    pub limits: QueryLimits,
}

#[async_trait]
impl Target for EngineTarget {
    async fn clear(&mut self) -> Result<()> {
        self.source.clear();
        Ok(())
    }

    async fn load(&mut self, series: Vec<SeriesSamples>) -> Result<()> {
        series.into_iter().for_each(|s| self.source.add(s));
        Ok(())
    }

    async fn eval(&mut self, query: &MetricsQuery) -> Result<Answer> {
        let ctx = QueryContext::new(TenantId::single(), self.limits);
        let value = self.engine.query(&ctx, &self.source, query).await?;
        let report = ctx.report();
        Ok(Answer { value, warnings: report.warnings, infos: report.infos })
    }
}
