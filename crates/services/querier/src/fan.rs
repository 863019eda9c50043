//! One question to many sources. What counts as a failure, and what it does to the answer, is said in the crate's docs.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{self, BoxFuture};
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Instrument;
use triptych_model::{Error, Kind, Result, Signal};
use triptych_rpc::traits::Stream;
use triptych_runtime::QueryContext;

use crate::{Source, telemetry};

/// Batches between a source's task and whoever merges.
const HANDOVER_BATCHES: usize = 2;

/// Asks the sources of one signal, on the query pool.
#[derive(Debug, Clone)]
pub(crate) struct Fan {
    signal: Signal,
    pool: Handle,
    /// Most items of a stream that are handed over at once.
    items_max: usize,
}

impl Fan {
    pub fn new(signal: Signal, pool: Handle) -> Self {
        // Items of logs and metrics are batches already; of traces they are single traces, as many as in a frame.
        let items_max = if signal == Signal::Traces { 256 } else { 1 };
        Self { signal, pool, items_max }
    }

    /// Runs on the pool until done, cancelled, or too late; dropping the answer stops it.
    pub async fn run<T: Send + 'static>(
        &self,
        ctx: &QueryContext,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        in_time(ctx, self.spawn(work)).await
    }

    /// Inside of the caller's span, so that what the work asks of others belongs to the same trace.
    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Task<T> {
        Task(self.pool.spawn(work.in_current_span()))
    }

    /// The answers of the sources that gave one, in the order of the sources.
    pub async fn ask<S, T>(
        &self,
        ctx: &QueryContext,
        sources: &[Source<S>],
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<Vec<T>>
    where
        S: ?Sized + Send + Sync + 'static,
        T: Send + 'static,
    {
        let failures = Failures::new(self.signal, ctx, sources.len())?;
        let answers = self.ask_each(sources, &failures, question);
        Ok(in_time(ctx, answers).await?.into_iter().map(|(_, answer)| answer).collect())
    }

    /// The streams of the sources that began one. Each runs ahead in a task of its own, by a few batches.
    pub async fn open<S, T>(
        &self,
        ctx: &QueryContext,
        sources: &[Source<S>],
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<Stream<T>>>,
    ) -> Result<Vec<Stream<T>>>
    where
        S: ?Sized + Send + Sync + 'static,
        T: Send + 'static,
    {
        let failures = Failures::new(self.signal, ctx, sources.len())?;
        let opened = in_time(ctx, self.ask_each(sources, &failures, question)).await?;
        Ok(opened
            .into_iter()
            .map(|(name, stream)| self.ahead(ctx, excused(name, stream, failures.clone())))
            .collect())
    }

    async fn ask_each<S, T>(
        &self,
        sources: &[Source<S>],
        failures: &Arc<Failures>,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<Vec<(Arc<str>, T)>>
    where
        S: ?Sized + Send + Sync + 'static,
        T: Send + 'static,
    {
        let asked = sources.iter().map(|source| {
            let task = self.spawn(question(source.store.clone(), failures.ctx.clone()));
            async move {
                match task.await {
                    Ok(answer) => Ok(Some((source.name.clone(), answer))),
                    Err(error) => failures.note(&source.name, error).map(|()| None),
                }
            }
        });
        Ok(future::try_join_all(asked).await?.into_iter().flatten().collect())
    }

    /// Moves a stream to the pool, where it runs ahead of its reader.
    pub fn ahead<T: Send + 'static>(&self, ctx: &QueryContext, stream: Stream<T>) -> Stream<T> {
        let (sender, receiver) = mpsc::channel(HANDOVER_BATCHES);
        let mut batches = stream.ready_chunks(self.items_max);
        let ctx = ctx.clone();
        let task = self.spawn(async move {
            let pump = async {
                while let Some(batch) = batches.next().await {
                    let failed = batch.iter().any(Result::is_err);
                    if sender.send(batch).await.is_err() || failed {
                        break;
                    }
                }
                Ok(())
            };
            if let Err(error) = in_time(&ctx, pump).await {
                // Nobody there to hear it is fine.
                let _ = sender.send(vec![Err(error)]).await;
            }
            Ok(())
        });
        // The task lives as long as the stream.
        stream::unfold((receiver, task), async |(mut receiver, task)| {
            receiver.recv().await.map(|batch| (stream::iter(batch), (receiver, task)))
        })
        .flatten()
        .boxed()
    }
}

/// Waits, but not beyond the query's end.
pub(crate) async fn in_time<T>(ctx: &QueryContext, work: impl Future<Output = Result<T>>) -> Result<T> {
    ctx.check()?;
    tokio::select! {
        biased;
        outcome = work => outcome,
        () = ctx.cancelled() => Err(Error::cancelled("query was cancelled")),
        () = tokio::time::sleep_until(ctx.deadline()) => {
            let timeout = ctx.limits().timeout;
            Err(ctx.check().err().unwrap_or_else(|| Error::unavailable(format!("query timed out after {timeout:?}"))))
        }
    }
}

/// A task that ends when nobody waits for it any more.
struct Task<T>(JoinHandle<Result<T>>);

impl<T> Future for Task<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|joined| match joined {
            Ok(outcome) => outcome,
            Err(e) if e.is_panic() => Err(Error::internal("a task of the query panicked")),
            Err(_) => Err(Error::unavailable("the query pool is shutting down")),
        })
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What went wrong so far in one question.
struct Failures {
    signal: Signal,
    ctx: QueryContext,
    sources: usize,
    /// How many failed, and the first error.
    failed: Mutex<(usize, Option<Error>)>,
}

impl Failures {
    fn new(signal: Signal, ctx: &QueryContext, sources: usize) -> Result<Arc<Self>> {
        if sources == 0 {
            return Err(Error::unavailable(format!(
                "no ingester and no store-gateway for {signal} is known"
            )));
        }
        Ok(Arc::new(Self { signal, ctx: ctx.clone(), sources, failed: Mutex::default() }))
    }

    /// `Ok`: the answer goes on without the source. A source is noted once.
    fn note(&self, source: &str, error: Error) -> Result<()> {
        if matches!(error.kind, Kind::Invalid | Kind::Exhausted | Kind::Cancelled) {
            return Err(error);
        }
        // A query that is over fails everywhere, and that is nobody's fault.
        self.ctx.check()?;
        telemetry::source_failures(self.signal.as_str(), source.to_owned()).increment(1);
        self.ctx.missed(format!("{source}: {error}"));
        let mut failed = self.failed.lock();
        failed.0 += 1;
        let first = failed.1.get_or_insert(error).clone();
        if failed.0 >= self.sources { Err(first) } else { Ok(()) }
    }
}

/// The stream without the failure of its source, where the answer may go on.
fn excused<T: Send + 'static>(name: Arc<str>, stream: Stream<T>, failures: Arc<Failures>) -> Stream<T> {
    stream::unfold(Some((name, stream, failures)), async |state| {
        let (name, mut stream, failures) = state?;
        match stream.next().await? {
            Ok(item) => Some((Ok(item), Some((name, stream, failures)))),
            Err(error) => failures.note(&name, error).err().map(|error| (Err(error), None)),
        }
    })
    .boxed()
}
