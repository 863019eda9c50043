//! A dashboard's questions: rates of many series, plain and summed up.
//!
//! `cargo bench -p triptych-promql`; 5,000 series with a sample every 15 s for three hours, a point every minute.

use std::sync::Arc;

use async_trait::async_trait;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use futures::StreamExt;
use triptych_model::metrics::{MetricsQuery, Sample, SeriesSelect};
use triptych_model::{Labels, Result, TenantId};
use triptych_promql::{Engine, SampleIter, Series, SeriesSource, SeriesStream};
use triptych_runtime::{QueryContext, QueryLimits};

const SERIES: usize = 5_000;
const SAMPLES: i64 = 720;
/// Samples in a run: a chunk's.
const RUN: usize = 120;

struct Counters(Vec<(Labels, Arc<Vec<Sample>>)>);

impl Counters {
    fn new() -> Self {
        let labels = |i: usize| {
            Labels::from_pairs([
                ("__name__", "http_requests_total".to_owned()),
                ("instance", format!("10.0.{}.{}:9100", i / 256, i % 256)),
                ("job", format!("job-{}", i % 20)),
                ("path", format!("/api/v1/path/{}", i % 50)),
            ])
        };
        // A restart every 200 samples.
        let value = |i: usize, n: i64| ((n % 200) * (1 + i as i64 % 7)) as f64;
        let samples = |i| (0..SAMPLES).map(|n| Sample { t_ms: n * 15_000, value: value(i, n) }).collect();
        let mut all: Vec<_> = (0..SERIES).map(|i| (labels(i), Arc::new(samples(i)))).collect();
        all.sort_by(|a: &(Labels, _), b| a.0.cmp(&b.0));
        Self(all)
    }
}

struct Runs(Arc<Vec<Sample>>, usize);

impl SampleIter for Runs {
    fn next_run(&mut self, out: &mut Vec<Sample>) -> Result<bool> {
        let run = &self.0[self.1..(self.1 + RUN).min(self.0.len())];
        out.extend_from_slice(run);
        self.1 += run.len();
        Ok(!run.is_empty())
    }
}

#[async_trait]
impl SeriesSource for Counters {
    async fn select(&self, _: &QueryContext, _: &SeriesSelect) -> Result<SeriesStream> {
        let all: Vec<_> = self
            .0
            .iter()
            .map(|(labels, samples)| {
                Ok(Series { labels: labels.clone(), samples: Box::new(Runs(samples.clone(), 0)) })
            })
            .collect();
        Ok(futures::stream::iter(all).boxed())
    }
}

fn queries(c: &mut Criterion) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else { return };
    let (source, engine) = (Counters::new(), Engine::default());
    let mut group = c.benchmark_group("5000 series, 3 h, 180 steps");
    group.sample_size(10).throughput(Throughput::Elements(SERIES as u64 * SAMPLES as u64));
    for expr in [
        "http_requests_total",
        "rate(http_requests_total[5m])",
        "sum by (job) (rate(http_requests_total[5m]))",
        "sum by (job) (http_requests_total)",
        "avg_over_time(http_requests_total[30m])",
        "topk(5, rate(http_requests_total[5m]))",
        "http_requests_total / on (instance) group_left () http_requests_total",
    ] {
        let query = MetricsQuery {
            expr: expr.into(),
            start_ms: 0,
            end_ms: SAMPLES * 15_000 - 60_000,
            step_ms: 60_000,
            lookback_ms: 0,
            whole_ms: None,
            shard: None,
        };
        group.bench_function(expr, |b| {
            b.iter(|| {
                let ctx = QueryContext::new(TenantId::single(), QueryLimits::default());
                runtime.block_on(engine.query(&ctx, &source, &query))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, queries);
criterion_main!(benches);
