//! The query front: stands between the HTTP handlers and the queriers, and speaks the queriers' own traits on both sides.
//!
//! **Owns** whose turn it is, which querier is asked and what happens when it fails, into which sub-queries a question is cut,
//! what is remembered of answers.
//! **Must not know** HTTP; how a language can be cut and put together (the languages' `split` modules say that).
//!
//! | module | |
//! |---|---|
//! | [`queue`] | so many sub-queries at a time, tenants take turns, bounded queues |
//! | [`dispatch`] | the least busy querier; another one when it fails or has missed something |
//! | `queries` | the languages: cut, asked, put together |
//! | `extents` | range questions over what is remembered of earlier ones, and over what others ask at the same time |
//! | `results`, `packed` | what is remembered, who makes what |
//! | `stores` | the Store API, passed on |
//!
//! **Budgets.** One [`QueryContext`] for each request: every sub-query gets what is left of its rows, bytes and memory, and the
//! same deadline; dropping the request cancels all of them, those that wait for their turn too.
//!
//! **Memory**: the answers of the sub-queries that are being put together, reserved from the query's budget; the queues' entries; what is
//! remembered, reserved from a budget of its own; while a partial answer is asked for again, it and the next one.
//!
//! Known holes: a stream (`tail`, `entries`, ..) that breaks after its beginning, or misses something, is not begun anew. A tail takes no turn: it is idle
//! mostly, and lives long.

pub mod dispatch;
mod extents;
mod packed;
mod queries;
pub mod queue;
mod results;
mod stores;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::StreamExt;
use triptych_model::{Result, Version};
use triptych_ring::Peers;
use triptych_rpc::traits::Stream;
use triptych_rpc::{LogsStore, MetricsStore, Query, TracesStore};
use triptych_runtime::{MemoryBudget, QueryContext};

use dispatch::Queriers;
use queue::{Places, Queue};
use results::Results;

/// One querier's services.
#[derive(Clone)]
pub struct Backend {
    pub metrics: Arc<dyn MetricsStore>,
    pub logs: Arc<dyn LogsStore>,
    pub traces: Arc<dyn TracesStore>,
    pub query: Arc<dyn Query>,
}

/// How much at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Sub-queries at one querier.
    pub running_per_querier_max: usize,
    /// Of all that run, those of one tenant.
    pub tenant_share_percent: usize,
    /// Sub-queries of one tenant that wait.
    pub queued_per_tenant_max: usize,
    /// Sub-queries of one request.
    pub subqueries_per_request_max: usize,
    /// Range queries are cut at multiples of it; 0: not at all.
    pub split_interval: Duration,
    /// Into how many parts series are cut; 1: not at all.
    pub shards: u32,
}

/// Clones are the same front.
#[derive(Clone)]
pub struct Front {
    inner: Arc<Inner>,
    /// Nothing is remembered.
    is_fresh: bool,
}

struct Inner {
    settings: Settings,
    queriers: Queriers,
    queue: Queue,
    results: Option<Results>,
    promql: triptych_promql::Engine,
    logql: triptych_logql::Engine,
}

/// How the queriers evaluate: what is left of a query that was cut is evaluated here, and must not differ.
#[derive(Debug, Clone, Default)]
pub struct Engines {
    pub promql: triptych_promql::Engine,
    pub logql: triptych_logql::Engine,
}

impl Front {
    /// `results`: what remembered answers may take; `None`: nothing is remembered.
    pub fn new(
        settings: Settings,
        queriers: Peers<Backend>,
        engines: Engines,
        results: Option<MemoryBudget>,
    ) -> Self {
        let queriers = Queriers::new(queriers);
        let queue = Queue::new(settings.places(queriers.count()));
        let Engines { promql, logql } = engines;
        let results = results.map(Results::new);
        let inner = Inner { settings, queriers, queue, results, promql, logql };
        Self { inner: Arc::new(inner), is_fresh: false }
    }

    /// The same front, for who wants every answer made anew: nothing is taken from what is remembered, and nothing added.
    pub fn fresh(&self) -> Self {
        Self { is_fresh: true, ..self.clone() }
    }

    /// Asks a querier when it is this tenant's turn. `memory_shares`: so many sub-queries of this question may run at a time.
    async fn ask<T>(
        &self,
        ctx: &QueryContext,
        memory_shares: usize,
        question: impl Fn(Backend, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let _place = self.place(ctx).await?;
        self.inner.queriers.ask(ctx, memory_shares, question).await
    }

    /// What the sources say of what they have. Where some do not, that is no reason to ask for more.
    async fn ask_versions(
        &self,
        ctx: &QueryContext,
        question: impl Fn(Backend, QueryContext) -> BoxFuture<'static, Result<Vec<Version>>>,
    ) -> Result<Vec<Version>> {
        let _place = self.place(ctx).await?;
        self.inner.queriers.ask_once(ctx, question).await
    }

    /// As [`Front::ask`]; the place is kept until the stream is dropped.
    async fn open<T: Send + 'static>(
        &self,
        ctx: &QueryContext,
        question: impl Fn(Backend, QueryContext) -> BoxFuture<'static, Result<Stream<T>>>,
    ) -> Result<Stream<T>> {
        let place = self.place(ctx).await?;
        let stream = self.inner.queriers.open(ctx, question).await?;
        Ok(stream.inspect(move |_| _ = &place).boxed())
    }

    async fn place(&self, ctx: &QueryContext) -> Result<queue::Place> {
        let Inner { settings, queriers, queue, .. } = &*self.inner;
        queue.set_places(settings.places(queriers.count()));
        queue.enter(ctx).await
    }
}

impl Settings {
    fn split_interval_ms(&self) -> i64 {
        i64::try_from(self.split_interval.as_millis()).unwrap_or(i64::MAX)
    }

    fn split_interval_ns(&self) -> i64 {
        i64::try_from(self.split_interval.as_nanos()).unwrap_or(i64::MAX)
    }

    fn places(&self, queriers: usize) -> Places {
        let running_max = self.running_per_querier_max.max(1).saturating_mul(queriers.max(1));
        Places {
            running_max,
            tenant_running_max: (running_max * self.tenant_share_percent.clamp(1, 100)).div_ceil(100),
            tenant_queued_max: self.queued_per_tenant_max,
        }
    }
}

#[cfg(test)]
mod tests;
