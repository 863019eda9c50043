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

use crate::sources::{Asked, Avoided, Pool, Reach, Source};
use crate::telemetry;

/// Batches between a source's task and whoever merges.
const HANDOVER_BATCHES: usize = 2;

/// How often a question is asked: once, and again of those who stand in for store-gateways that failed.
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
pub(crate) struct Fan<S: ?Sized> {
    signal: Signal,
    sources: Pool<S>,
    pool: Handle,
    /// Most items of a stream that are handed over at once.
    items_max: usize,
}

impl<S: ?Sized> Clone for Fan<S> {
    fn clone(&self) -> Self {
        let Self { signal, sources, pool, items_max } = self;
        Self { signal: *signal, sources: sources.clone(), pool: pool.clone(), items_max: *items_max }
    }
}

impl<S: ?Sized + Send + Sync + 'static> Fan<S> {
    pub fn new(signal: Signal, sources: Pool<S>, pool: Handle) -> Self {
        // Items of logs and metrics are batches already; of traces they are single traces, as many as in a frame.
        let items_max = if signal == Signal::Traces { 256 } else { 1 };
        Self { signal, sources, pool, items_max }
    }

    pub fn replication(&self) -> Replication {
        self.sources.replication()
    }

    /// See [`Pool::failures`].
    pub fn failures(&self) -> u64 {
        self.sources.failures()
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

    /// The answers of the sources that gave one. Asks again where other store-gateways can stand in for one that failed.
    pub async fn ask<T: Send + 'static>(
        &self,
        ctx: &QueryContext,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<Vec<T>> {
        let (answers, _) = self.ask_all(ctx, Reach::Divided, question).await?;
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// As [`Fan::ask`], for answers that are added up: those of the ingesters hold copies.
    pub async fn figures<T: Send + 'static>(
        &self,
        ctx: &QueryContext,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<Answers<T>> {
        let (answers, _) = self.ask_all(ctx, Reach::Divided, question).await?;
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
    pub async fn open<T: Send + 'static>(
        &self,
        ctx: &QueryContext,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<Stream<T>>>,
    ) -> Result<Vec<Stream<T>>> {
        self.open_reaching(ctx, Reach::Divided, question).await
    }

    /// As [`Fan::open`], for questions that may need a store-gateway to have all blocks.
    pub async fn open_reaching<T: Send + 'static>(
        &self,
        ctx: &QueryContext,
        reach: Reach,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<Stream<T>>>,
    ) -> Result<Vec<Stream<T>>> {
        let (opened, failures) = self.ask_all(ctx, reach, question).await?;
        Ok(opened
            .into_iter()
            .map(|(source, stream)| self.ahead(ctx, excused(source, stream, failures.clone())))
            .collect())
    }

    async fn ask_all<T: Send + 'static>(
        &self,
        ctx: &QueryContext,
        reach: Reach,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<(Vec<(Source<S>, T)>, Arc<Failures>)> {
        let asked = self.sources.now(ctx.tenant(), reach);
        let failures = Failures::new(self.signal, ctx, &asked, self.sources.avoided())?;
        let mut answers: Vec<(Source<S>, T)> = Vec::new();
        let mut asked = asked.sources;
        for attempt in 1.. {
            answers.extend(in_time(ctx, self.ask_each(asked.clone(), &failures, &question)).await?);
            asked.retain(|source| source.zone.is_none());
            let failed = failures.failed_gateways();
            // Others answer for all that these have, what they answered before included.
            answers.retain(|(source, _)| !failed.contains(&source.name));
            asked = match attempt < ATTEMPTS_MAX && !failed.is_empty() {
                true => self.sources.instead_of(&asked, &failed, ctx.tenant(), reach),
                false => Vec::new(),
            };
            if asked.is_empty() {
                break;
            }
            failures.are_stood_in_for();
        }
        failures.begin_streams(answers.len())?;
        Ok((answers, failures))
    }

    async fn ask_each<T: Send + 'static>(
        &self,
        sources: Vec<Source<S>>,
        failures: &Arc<Failures>,
        question: impl Fn(Arc<S>, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<Vec<(Source<S>, T)>> {
        let asked = sources.into_iter().map(|source| {
            let ctx = failures.ctx.with_share(source.share.clone());
            let task = self.spawn(question(source.store.clone(), ctx));
            async move {
                match task.await {
                    Ok(answer) => Ok(Some((source, answer))),
                    Err(error) => failures.note(&source, error).map(|()| None),
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
    avoided: Arc<Avoided>,
    lost: Mutex<Lost>,
}

struct Lost {
    coverage: Coverage,
    /// Ingesters without which the answer still is whole, a sentence each.
    excused: Vec<String>,
    /// Store-gateways that others may stand in for, a sentence each.
    gateways: Vec<(Arc<str>, String)>,
    first: Option<Error>,
    /// Streams under way; `None` before any has begun.
    streams: Option<usize>,
}

impl Failures {
    fn new<S: ?Sized>(
        signal: Signal,
        ctx: &QueryContext,
        asked: &Asked<S>,
        avoided: Arc<Avoided>,
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
            gateways: Vec::new(),
            first: None,
            streams: None,
        };
        if !lost.coverage.is_complete() {
            let dead = std::mem::take(&mut lost.excused);
            if dead.is_empty() {
                ctx.missed("too few zones of ingesters are known: recent data may be missing");
            }
            dead.into_iter().for_each(|sentence| ctx.missed(sentence));
        }
        Ok(Arc::new(Self { signal, ctx: ctx.clone(), avoided, lost: Mutex::new(lost) }))
    }

    /// `Ok`: the question goes on without the source, if there are others. A source is noted once.
    fn note<S: ?Sized>(&self, source: &Source<S>, error: Error) -> Result<()> {
        if matches!(error.kind, Kind::Invalid | Kind::Exhausted | Kind::Cancelled) {
            return Err(error);
        }
        // A query that is over fails everywhere, and that is nobody's fault.
        self.ctx.check()?;
        let Source { name, zone, .. } = source;
        telemetry::source_failures(self.signal.as_str(), name.to_string()).increment(1);
        let sentence = format!("{name}: {error}");
        let mut lost = self.lost.lock();
        match zone {
            Some(zone) => {
                lost.excused.push(sentence);
                if !lost.coverage.lose(zone) {
                    lost.excused.drain(..).for_each(|sentence| self.ctx.missed(sentence));
                }
            }
            // Another one would find the same.
            None if matches!(error.kind, Kind::Damaged | Kind::NotFound) => self.ctx.missed(sentence),
            None => {
                self.avoided.add(name);
                match lost.streams {
                    None => lost.gateways.push((name.clone(), sentence)),
                    Some(_) => self.ctx.missed(sentence),
                }
            }
        }
        let first = lost.first.get_or_insert(error).clone();
        match &mut lost.streams {
            None => Ok(()),
            Some(streams) => {
                *streams = streams.saturating_sub(1);
                if *streams == 0 { Err(first) } else { Ok(()) }
            }
        }
    }

    /// Those that nobody stands in for yet.
    fn failed_gateways(&self) -> Vec<Arc<str>> {
        self.lost.lock().gateways.iter().map(|(name, _)| name.clone()).collect()
    }

    fn are_stood_in_for(&self) {
        self.lost.lock().gateways.clear();
    }

    /// All have been asked, and so many answered; nobody stands in for others from now on. Fails where nobody has answered.
    fn begin_streams(&self, answers: usize) -> Result<()> {
        let mut lost = self.lost.lock();
        lost.gateways.drain(..).for_each(|(_, sentence)| self.ctx.missed(sentence));
        lost.streams = Some(answers);
        match &lost.first {
            Some(first) if answers == 0 => Err(first.clone()),
            _ => Ok(()),
        }
    }
}

/// The stream without the failure of its source, where the answer may go on.
fn excused<S, T>(source: Source<S>, stream: Stream<T>, failures: Arc<Failures>) -> Stream<T>
where
    S: ?Sized + Send + Sync + 'static,
    T: Send + 'static,
{
    stream::unfold(Some((source, stream, failures)), async |state| {
        let (source, mut stream, failures) = state?;
        match stream.next().await? {
            Ok(item) => Some((Ok(item), Some((source, stream, failures)))),
            Err(error) => {
                let outcome = failures.note(&source, error);
                outcome.err().map(|error| (Err(error), None))
            }
        }
    })
    .boxed()
}
