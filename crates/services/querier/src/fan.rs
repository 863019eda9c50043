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
use triptych_ring::{Coverage, Replication};
use triptych_rpc::traits::Stream;
use triptych_runtime::QueryContext;

use crate::sources::{Asked, Avoided, Pool, Source};
use crate::telemetry;

/// Batches between a source's task and whoever merges.
const HANDOVER_BATCHES: usize = 2;

/// How often a question is asked: once, and again without store-gateways that failed.
pub(crate) const ATTEMPTS_MAX: usize = 3;

/// What the sources answered.
pub(crate) struct Answers<T> {
    pub ingesters: Vec<T>,
    pub store_gateways: Vec<T>,
    /// Zones of the ingesters that answered.
    zones: Vec<Arc<str>>,
}

impl<T> Answers<T> {
    /// How many times the ingesters' answers hold each item, about.
    pub fn copies(&self, replication: Replication) -> u64 {
        self.zones.len().clamp(1, replication.factor) as u64
    }
}

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

    /// The answers of the sources that gave one. Asks again where another store-gateway can stand in for one that failed.
    pub async fn ask<S, T>(
        &self,
        ctx: &QueryContext,
        pool: &Pool<S>,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<Vec<T>>
    where
        S: ?Sized + Send + Sync + 'static,
        T: Send + 'static,
    {
        let (answers, _) = self.ask_again(ctx, pool, question).await?;
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// As [`Fan::ask`], for answers that are added up: those of the ingesters hold copies.
    pub async fn figures<S, T>(
        &self,
        ctx: &QueryContext,
        pool: &Pool<S>,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<Answers<T>>
    where
        S: ?Sized + Send + Sync + 'static,
        T: Send + 'static,
    {
        let (answers, _) = self.ask_again(ctx, pool, question).await?;
        let mut sorted = Answers { ingesters: vec![], store_gateways: vec![], zones: vec![] };
        for (source, answer) in answers {
            match source.zone {
                Some(zone) => {
                    sorted.ingesters.push(answer);
                    sorted.zones.push(zone);
                }
                None => sorted.store_gateways.push(answer),
            }
        }
        sorted.zones.sort_unstable();
        sorted.zones.dedup();
        Ok(sorted)
    }

    /// The streams of the sources that began one. Each runs ahead in a task of its own, by a few batches.
    pub async fn open<S, T>(
        &self,
        ctx: &QueryContext,
        pool: &Pool<S>,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<Stream<T>>>,
    ) -> Result<Vec<Stream<T>>>
    where
        S: ?Sized + Send + Sync + 'static,
        T: Send + 'static,
    {
        let (opened, failures) = self.ask_again(ctx, pool, question).await?;
        Ok(opened
            .into_iter()
            .map(|(source, stream)| self.ahead(ctx, excused(source, stream, failures.clone())))
            .collect())
    }

    async fn ask_again<S, T>(
        &self,
        ctx: &QueryContext,
        pool: &Pool<S>,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<(Vec<(Source<S>, T)>, Arc<Failures>)>
    where
        S: ?Sized + Send + Sync + 'static,
        T: Send + 'static,
    {
        let mut attempts = ATTEMPTS_MAX;
        loop {
            attempts -= 1;
            let asked = pool.now(ctx.tenant());
            let failures = Failures::new(self.signal, ctx, &asked, attempts > 0)?;
            let answers = in_time(ctx, self.ask_each(asked.sources, &failures, &question)).await;
            // The last attempt leaves nothing to be asked again.
            if !failures.is_again() {
                return answers.map(|answers| (answers, failures));
            }
        }
    }

    async fn ask_each<S, T>(
        &self,
        sources: Vec<Source<S>>,
        failures: &Arc<Failures>,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<Vec<(Source<S>, T)>>
    where
        S: ?Sized + Send + Sync + 'static,
        T: Send + 'static,
    {
        let asked = sources.into_iter().map(|source| {
            let ctx = failures.ctx.with_share(source.share.clone());
            let task = self.spawn(question(source.store.clone(), ctx));
            async move {
                match task.await {
                    Ok(answer) => Ok(Some((source, answer))),
                    Err(error) => failures.note(&source.name, source.zone.as_ref(), error).map(|()| None),
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
    /// Store-gateways that could be asked.
    gateways: usize,
    avoided: Arc<Avoided>,
    lost: Mutex<Lost>,
}

struct Lost {
    coverage: Coverage,
    /// Ingesters without which the answer still is whole, a sentence each.
    excused: Vec<String>,
    sources: usize,
    first: Option<Error>,
    /// Whether a store-gateway that fails, while there is another one, makes the question be asked again.
    may_ask_again: bool,
    ask_again: bool,
}

impl Failures {
    fn new<S: ?Sized>(
        signal: Signal,
        ctx: &QueryContext,
        asked: &Asked<S>,
        may_ask_again: bool,
    ) -> Result<Arc<Self>> {
        if asked.sources.is_empty() {
            return Err(Error::unavailable(format!(
                "no ingester and no store-gateway for {signal} can be asked now"
            )));
        }
        if asked.is_without_bucket {
            ctx.missed("no store-gateway serves now: what is in the bucket alone is missing");
        }
        let mut lost = Lost {
            coverage: asked.coverage.clone(),
            excused: asked.dead.clone(),
            sources: 0,
            first: None,
            may_ask_again,
            ask_again: false,
        };
        if !lost.coverage.is_complete() {
            let dead = std::mem::take(&mut lost.excused);
            if dead.is_empty() {
                ctx.missed("too few zones of ingesters are known: recent data may be missing");
            }
            dead.into_iter().for_each(|sentence| ctx.missed(sentence));
        }
        Ok(Arc::new(Self {
            signal,
            ctx: ctx.clone(),
            sources: asked.sources.len(),
            gateways: asked.gateways,
            avoided: asked.avoided.clone(),
            lost: Mutex::new(lost),
        }))
    }

    fn is_again(&self) -> bool {
        self.lost.lock().ask_again
    }

    /// `Ok`: the answer goes on without the source. A source is noted once.
    fn note(&self, source: &Arc<str>, zone: Option<&Arc<str>>, error: Error) -> Result<()> {
        if matches!(error.kind, Kind::Invalid | Kind::Exhausted | Kind::Cancelled) {
            return Err(error);
        }
        // A query that is over fails everywhere, and that is nobody's fault.
        self.ctx.check()?;
        telemetry::source_failures(self.signal.as_str(), source.to_string()).increment(1);
        let sentence = format!("{source}: {error}");
        let mut lost = self.lost.lock();
        match zone {
            Some(zone) => {
                lost.excused.push(sentence);
                if !lost.coverage.lose(zone) {
                    lost.excused.drain(..).for_each(|sentence| self.ctx.missed(sentence));
                }
            }
            None => {
                self.avoided.add(source);
                if lost.may_ask_again && self.gateways > 1 {
                    lost.ask_again = true;
                } else {
                    self.ctx.missed(sentence);
                }
            }
        }
        lost.sources += 1;
        let first = lost.first.get_or_insert(error).clone();
        if lost.sources >= self.sources { Err(first) } else { Ok(()) }
    }

    /// From now on a store-gateway that fails is missed: its stream has begun.
    fn begin(&self) {
        self.lost.lock().may_ask_again = false;
    }
}

/// The stream without the failure of its source, where the answer may go on.
fn excused<S, T>(source: Source<S>, stream: Stream<T>, failures: Arc<Failures>) -> Stream<T>
where
    S: ?Sized + Send + Sync + 'static,
    T: Send + 'static,
{
    failures.begin();
    stream::unfold(Some((source, stream, failures)), async |state| {
        let (source, mut stream, failures) = state?;
        match stream.next().await? {
            Ok(item) => Some((Ok(item), Some((source, stream, failures)))),
            Err(error) => {
                let outcome = failures.note(&source.name, source.zone.as_ref(), error);
                outcome.err().map(|error| (Err(error), None))
            }
        }
    })
    .boxed()
}
