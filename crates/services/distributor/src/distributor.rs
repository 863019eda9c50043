//! The part itself: what all doors share.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use http::HeaderMap;
use tokio::sync::watch;
use triptych_config::{Limits, TenantLimits};
use triptych_model::batch::{LogsBuilder, MetricsBuilder, TracesBuilder};
use triptych_model::push::PushReport;
use triptych_model::{Error, Result, Signal, TenantId};
use triptych_ring::Replication;
use triptych_rpc::WriteContext;
use triptych_runtime::{MemoryBudget, Reservation, SharedClock};

use crate::limiter::RateLimiter;
use crate::refusal::Refusal;
use crate::replicate::{Ingesters, Route, Router};
use crate::{Config, telemetry};

/// What the distributor works with.
#[derive(Clone)]
pub struct Deps {
    pub ingesters: Ingesters,
    /// How many zones keep a write.
    pub replication: Replication,
    /// How many distributors take pushes, this one included: each allows its part of a tenant's rate.
    pub distributors: watch::Receiver<usize>,
    pub limits: TenantLimits,
    pub clock: SharedClock,
    /// Every push must name its tenant in `X-Scope-OrgID`. Off: the header is ignored, all data belong to one tenant.
    pub multitenancy: bool,
    /// What bodies and batches of requests draw on.
    pub memory: MemoryBudget,
}

/// Receives, validates, distributes. Cheap to clone.
#[derive(Clone)]
pub struct Distributor(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub config: Arc<Config>,
    pub router: Router,
    distributors: watch::Receiver<usize>,
    pub limits: TenantLimits,
    pub clock: SharedClock,
    pub multitenancy: bool,
    pub memory: MemoryBudget,
    rates: RateLimiter,
}

/// A batch of one request, for one replica set.
pub(crate) trait Batch: Default + Send + Sync {
    const SIGNAL: Signal;
    fn bytes(&self) -> usize;
    fn items(&self) -> usize;
    fn is_empty(&self) -> bool;
    fn seal(&self) -> Bytes;
}

macro_rules! batch {
    ($builder:ident, $signal:ident) => {
        impl Batch for $builder {
            const SIGNAL: Signal = Signal::$signal;
            fn bytes(&self) -> usize {
                $builder::bytes(self)
            }
            fn items(&self) -> usize {
                $builder::items(self)
            }
            fn is_empty(&self) -> bool {
                $builder::is_empty(self)
            }
            fn seal(&self) -> Bytes {
                $builder::seal(self)
            }
        }
    };
}

batch!(MetricsBuilder, Metrics);
batch!(LogsBuilder, Logs);
batch!(TracesBuilder, Traces);

/// What a sink fills: a batch per replica set, bounded, and what was refused on the way.
pub(crate) struct Shards<B> {
    route: Arc<Route>,
    pub batches: Vec<B>,
    pub report: PushReport,
    /// Exemplars in the batches; remote write 2.0 answers with their number.
    pub exemplars: u64,
    bytes: usize,
    bytes_max: usize,
    /// Set when the request unfolds to more than `bytes_max`.
    pub over: bool,
}

/// Longest example in a report; labels and lines of any size may stand in it.
const EXAMPLE_BYTES_MAX: usize = 1024;

impl<B: Batch> Shards<B> {
    pub fn new(inner: &Inner, tenant: &TenantId) -> Self {
        let route = inner.router.route(tenant, inner.limits.of(tenant).ingesters_max);
        Self {
            batches: (0..route.sets()).map(|_| B::default()).collect(),
            route,
            report: PushReport::default(),
            exemplars: 0,
            bytes: 0,
            bytes_max: inner.config.batch_bytes_max,
            over: false,
        }
    }

    /// The batch for a hash, which about `bytes` will be added to; fails when these would be too many.
    #[inline]
    pub fn batch(&mut self, hash: u64, bytes: usize) -> Result<&mut B> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.bytes_max {
            self.over = true;
            return Err(Error::invalid(format!(
                "the request unfolds to more than {} bytes of data, the limit; send fewer items at once",
                self.bytes_max
            )));
        }
        let set = self.route.set_of(hash);
        Ok(&mut self.batches[set])
    }

    /// Counts refused items; the sentence is written for the first of each reason only.
    pub fn refuse(&mut self, reason: &str, items: u64, why: std::fmt::Arguments<'_>) {
        if items == 0 {
            return;
        }
        self.report.refuse(reason, items, || cut(why.to_string()));
    }
}

fn cut(mut text: String) -> String {
    if text.len() > EXAMPLE_BYTES_MAX {
        let end = (0..=EXAMPLE_BYTES_MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

impl Distributor {
    pub(crate) fn new(config: Arc<Config>, deps: Deps) -> Self {
        Self(Arc::new(Inner {
            router: Router::new(deps.ingesters, deps.replication, config.push_timeout),
            distributors: deps.distributors,
            limits: deps.limits,
            clock: deps.clock,
            multitenancy: deps.multitenancy,
            memory: deps.memory,
            rates: RateLimiter::default(),
            config,
        }))
    }

    /// Whether a quorum of zones takes writes.
    pub fn is_ready(&self) -> bool {
        self.0.router.is_ready()
    }

    /// Bytes of requests under way, and the most there may be.
    pub fn in_flight_bytes(&self) -> (usize, usize) {
        (self.0.memory.used(), self.0.memory.bytes_max())
    }

    /// Who sends.
    pub(crate) fn tenant(&self, headers: &HeaderMap) -> Result<TenantId, Refusal> {
        triptych_rpc::tenant_of(headers, self.0.multitenancy)
            .map_err(|e| Refusal::new(e.http_status(), e.to_string()))
    }

    pub(crate) fn limits(&self, tenant: &TenantId) -> Arc<Limits> {
        self.0.limits.of(tenant)
    }

    /// Applies the rate limit, writes every batch to its replica set, adds up what became of it.
    pub(crate) async fn send<B: Batch>(
        &self,
        tenant: &TenantId,
        shards: Shards<B>,
        memory: &mut Reservation,
    ) -> Result<PushReport, Refusal> {
        let Shards { route, batches, mut report, .. } = shards;
        let full: Vec<(usize, B)> = batches.into_iter().enumerate().filter(|(_, b)| !b.is_empty()).collect();
        let bytes: usize = full.iter().map(|(_, b)| b.bytes()).sum();
        let items: usize = full.iter().map(|(_, b)| b.items()).sum();
        // The batches, and their sealed form beside them.
        memory.grow(bytes.saturating_mul(2)).map_err(Refusal::memory)?;
        self.check_rate(tenant, B::SIGNAL, bytes as u64, items as u64)?;
        let ctx = WriteContext { tenant: tenant.clone() };
        let mut sealed = Vec::with_capacity(full.len());
        for (set, batch) in full {
            let bytes = batch.seal();
            // What goes on in the background when this request has its answer.
            let held = self.0.memory.tenant(tenant).reserve(bytes.len()).map_err(Refusal::memory)?;
            sealed.push((set, bytes, Arc::new(held)));
        }
        let pushes = sealed.into_iter().map(|(set, bytes, held)| {
            let (ctx, route) = (&ctx, &route);
            async move { self.0.router.push(route, set, ctx, B::SIGNAL, bytes, &held).await }
        });
        for part in try_join_all(pushes).await? {
            report.add(part);
        }
        telemetry::batch(B::SIGNAL, bytes as u64, &report);
        Ok(report)
    }

    fn check_rate(&self, tenant: &TenantId, signal: Signal, bytes: u64, items: u64) -> Result<(), Refusal> {
        let limits = self.limits(tenant);
        let (rate, burst) = match signal {
            Signal::Metrics => (limits.metrics.ingestion_rate_bytes, limits.metrics.ingestion_burst_bytes),
            Signal::Logs => (limits.logs.ingestion_rate_bytes, limits.logs.ingestion_burst_bytes),
            Signal::Traces => (limits.traces.ingestion_rate_bytes, limits.traces.ingestion_burst_bytes),
        };
        let distributors = (*self.0.distributors.borrow()).max(1);
        let part = rate.div_ceil(distributors as u64);
        let burst = if burst == 0 { rate } else { burst };
        let now_ns = self.0.clock.elapsed_ns();
        let Err(after) = self.0.rates.take(tenant, signal, bytes, (part, burst), now_ns) else {
            return Ok(());
        };
        telemetry::rate_limited(signal, items);
        let message = match signal {
            Signal::Metrics => format!(
                "ingestion rate limit exceeded for tenant {tenant} (limit: {rate} bytes/sec, burst: {burst}) with \
                 {items} samples of {bytes} bytes; see metrics.ingestion_rate_bytes"
            ),
            Signal::Logs => format!(
                "Ingestion rate limit exceeded for user {tenant} (limit: {rate} bytes/sec) with {items} lines of \
                 {bytes} bytes in total; send less, or raise logs.ingestion_rate_bytes"
            ),
            Signal::Traces => format!(
                "RATE_LIMITED: ingestion rate limit exceeded for user {tenant} (limit: {rate} bytes/sec) with {items} \
                 spans of {bytes} bytes; see traces.ingestion_rate_bytes"
            ),
        };
        Err(Refusal::too_fast(message, after))
    }
}
