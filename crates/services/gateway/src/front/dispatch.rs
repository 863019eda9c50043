//! Which querier is asked, and what happens when it fails.
//!
//! Of the queriers that the ring shows alive and active, the one with the fewest outstanding sub-queries is asked. One that is not to be reached (`Unavailable`) is avoided for a
//! while, and the sub-query goes to another, a few times, with growing pauses; a question that is over (deadline, cancelled) is
//! nobody's fault and is not sent again. Every attempt is a part of the question ([`QueryContext::remote_part`]): only the report of
//! the one that succeeded counts.
//!
//! An answer that says that it has missed something is asked for again, of another querier where there is one: a connection broke, or that
//! querier has not heard yet who came. The fullest of these answers counts. Where asking again brought nothing, partial answers are taken
//! as they are for a while: while two zones are away, answers cost no more than before.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::StreamExt;
use parking_lot::Mutex;
use tokio::time::Instant;
use triptych_model::{Error, Kind, Result};
use triptych_ring::Peers;
use triptych_rpc::traits::Stream;
use triptych_runtime::QueryContext;
use triptych_runtime::random::random_u64;

use super::Backend;
use crate::telemetry;

/// A sub-query is sent at most so often.
const ATTEMPTS_MAX: usize = 3;
/// The pause before the second attempt; doubled for each further one. Half of it is left to chance.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A querier that failed is asked last for so long.
const AVOIDED: Duration = Duration::from_secs(10);
/// Before a partial answer is asked for again: until views that lag have come up to date, and connections are there again.
const PARTIAL_PAUSE: Duration = Duration::from_millis(400);
/// When asking again has mended nothing, that is not tried for so long.
const PARTIAL_TAKEN: Duration = Duration::from_secs(10);
/// With less time left, a failure is the deadline's: a querier's clock may be ahead of ours by as much.
const DEADLINE_NEAR: Duration = Duration::from_millis(100);

/// What is known of one querier.
#[derive(Debug, Default)]
struct Health {
    outstanding: AtomicUsize,
    avoided_until: Mutex<Option<Instant>>,
}

impl Health {
    fn is_avoided(&self) -> bool {
        self.avoided_until.lock().is_some_and(|until| Instant::now() < until)
    }
}

/// A sub-query that a querier is busy with.
struct Outstanding(Arc<Health>);

impl Outstanding {
    fn new(health: &Arc<Health>) -> Self {
        health.outstanding.fetch_add(1, Ordering::Relaxed);
        Self(health.clone())
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The queriers, as the membership shows them.
pub struct Queriers {
    peers: Peers<Backend>,
    health: Mutex<HashMap<Arc<str>, Arc<Health>>>,
    /// Until when partial answers are taken as they are.
    partial_taken_until: Mutex<Option<Instant>>,
}

struct Chosen {
    name: Arc<str>,
    backend: Backend,
    outstanding: Outstanding,
}

impl Queriers {
    pub fn new(peers: Peers<Backend>) -> Self {
        Self { peers, health: Mutex::default(), partial_taken_until: Mutex::default() }
    }

    /// How many serve now.
    pub fn count(&self) -> usize {
        self.peers.borrow().iter().filter(|peer| peer.member.is_serving()).count()
    }

    /// Asks one querier, and others where it fails or has missed something.
    pub async fn ask<T>(
        &self,
        ctx: &QueryContext,
        memory_shares: usize,
        question: impl Fn(Backend, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let mut tried = Vec::new();
        let (mut answer, mut part) = self.ask_one(ctx, memory_shares, &mut tried, &question).await?;
        let was_partial = missed(&part) > 0;
        for _ in 1..ATTEMPTS_MAX {
            if missed(&part) == 0 || self.partial_is_taken() || ctx.remaining() < 2 * PARTIAL_PAUSE {
                break;
            }
            tokio::time::sleep(PARTIAL_PAUSE).await;
            // What is here already is better than an error.
            let again = self.ask_one(ctx, memory_shares, &mut tried, &question).await;
            let Ok((other, other_part)) = again else { break };
            if missed(&other_part) < missed(&part) {
                (answer, part) = (other, other_part);
            }
        }
        if was_partial {
            let is_mended = missed(&part) == 0;
            telemetry::partial_answers(if is_mended { "mended" } else { "taken" }).increment(1);
            if !is_mended && !self.partial_is_taken() {
                *self.partial_taken_until.lock() = Some(Instant::now() + PARTIAL_TAKEN);
            }
        }
        ctx.add_part(&part)?;
        Ok(answer)
    }

    /// As [`Queriers::ask`], for answers that are of use as they are.
    pub async fn ask_once<T>(
        &self,
        ctx: &QueryContext,
        question: impl Fn(Backend, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let (answer, part) = self.ask_one(ctx, 1, &mut Vec::new(), &question).await?;
        ctx.add_part(&part)?;
        Ok(answer)
    }

    fn partial_is_taken(&self) -> bool {
        self.partial_taken_until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// The answer of one querier, and the part of the question that has its report. A failed attempt's report does not count: what it
    /// missed, another may have read.
    async fn ask_one<T>(
        &self,
        ctx: &QueryContext,
        memory_shares: usize,
        tried: &mut Vec<Arc<str>>,
        question: &impl Fn(Backend, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<(T, QueryContext)> {
        self.attempt(ctx, tried, |backend, outstanding| {
            let part = ctx.remote_part(memory_shares);
            let asked = part.clone().map(|part| question(backend, part));
            async move {
                let (part, asked) = (part?, asked?);
                let outcome = asked.await;
                drop(outstanding);
                Ok((outcome?, part))
            }
        })
        .await
    }

    /// Opens a stream at one querier, and at others where that fails; a stream that breaks later ends with its error. It is
    /// read with the question's own context.
    pub async fn open<T: Send + 'static>(
        &self,
        ctx: &QueryContext,
        question: impl Fn(Backend, QueryContext) -> BoxFuture<'static, Result<Stream<T>>>,
    ) -> Result<Stream<T>> {
        self.attempt(ctx, &mut Vec::new(), |backend, outstanding| {
            let asked = question(backend, ctx.clone());
            async move { Ok(asked.await?.inspect(move |_| _ = &outstanding).boxed()) }
        })
        .await
    }

    /// Until one answers; adds whom it asks to those who were `tried`.
    async fn attempt<T, F: Future<Output = Result<T>>>(
        &self,
        ctx: &QueryContext,
        tried: &mut Vec<Arc<str>>,
        ask: impl Fn(Backend, Outstanding) -> F,
    ) -> Result<T> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            ctx.check()?;
            let Chosen { name, backend, outstanding } = self.choose(tried)?;
            tried.push(name.clone());
            let health = outstanding.0.clone();
            let asked = ask(backend, outstanding);
            // The client's side of a call heeds the deadline too; this holds where there is no wire.
            let outcome = tokio::select! {
                biased;
                () = ctx.cancelled() => return Err(Error::cancelled("query was cancelled")),
                outcome = asked => outcome,
            };
            let error = match outcome {
                Ok(answer) => {
                    *health.avoided_until.lock() = None;
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if error.kind != Kind::Unavailable || ctx.remaining() < DEADLINE_NEAR {
                return Err(error);
            }
            *health.avoided_until.lock() = Some(Instant::now() + AVOIDED);
            telemetry::querier_failures(name.to_string()).increment(1);
            if attempt >= ATTEMPTS_MAX {
                return Err(error.context(format_args!("querier {name}, after {ATTEMPTS_MAX} attempts")));
            }
            tracing::debug!(querier = %name, %error, "a sub-query is sent to another querier");
            tokio::time::sleep(pause(attempt)).await;
        }
    }

    /// Of those that serve and were not tried yet the least busy, those that failed lately last; where all were tried, any.
    fn choose(&self, tried: &[Arc<str>]) -> Result<Chosen> {
        let peers = self.peers.borrow().clone();
        let mut health = self.health.lock();
        if health.len() > peers.len() {
            health.retain(|name, _| peers.iter().any(|peer| peer.member.id == *name));
        }
        let serving = peers.iter().filter(|peer| peer.member.is_serving());
        let known = serving.map(|peer| (peer, health.entry(peer.member.id.clone()).or_default().clone()));
        let best = known.min_by_key(|(peer, health)| {
            (tried.contains(&peer.member.id), health.is_avoided(), health.outstanding.load(Ordering::Relaxed))
        });
        let Some((peer, health)) = best else {
            let text = match peers.len() {
                0 => "no querier is known".to_owned(),
                known => format!("none of the {known} known queriers serves now"),
            };
            return Err(Error::unavailable(text).retry_after(AVOIDED));
        };
        Ok(Chosen {
            name: peer.member.id.clone(),
            backend: peer.service.clone(),
            outstanding: Outstanding::new(&health),
        })
    }
}

fn missed(part: &QueryContext) -> usize {
    part.report().missed.len()
}

/// Grows with the attempts, with a cap; gateways that failed together do not come back together.
fn pause(attempts: usize) -> Duration {
    let most = PAUSE.saturating_mul(1 << (attempts - 1).min(16)).min(PAUSE_MAX);
    let chance = random_u64() as f64 / u64::MAX as f64;
    most.mul_f64(0.5 + chance / 2.0)
}
