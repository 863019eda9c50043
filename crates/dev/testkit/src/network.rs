//! What lies between two processes: delay, loss, partitions, questions that arrive twice, answers that do not arrive.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use triptych_model::{Error, Result};
use triptych_rpc::traits::Stream;
use triptych_runtime::{Invariant, QueryContext};
use xxhash_rust::xxh3::xxh3_64;

use crate::dice::Dice;
use crate::journal::Journal;
use crate::life::Life;
use crate::mutant::Mutant;
use crate::remote::Answer;

/// How the network treats a message. The default: it arrives after a few milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NetworkFaults {
    /// Share of the messages that are lost; one in two of them is a question, the others are answers.
    pub lost: f64,
    /// Share of the writes that arrive twice.
    pub twice: f64,
    /// A message takes so many milliseconds at most.
    pub delay_ms: u64,
}

impl Default for NetworkFaults {
    fn default() -> Self {
        Self { lost: 0.0, twice: 0.0, delay_ms: 5 }
    }
}

/// How long somebody waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clones are the same network.
#[derive(Debug, Clone)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    journal: Arc<Journal>,
    mutant: Option<Mutant>,
}

#[derive(Debug)]
struct State {
    faults: NetworkFaults,
    /// Pairs of hosts that do not reach each other, the smaller name first.
    cut: BTreeSet<(Arc<str>, Arc<str>)>,
    dice: Dice,
}

impl Network {
    pub fn new(dice: &Dice, journal: Arc<Journal>, mutant: Option<Mutant>) -> Self {
        let state =
            State { faults: NetworkFaults::default(), cut: BTreeSet::new(), dice: dice.fork("network") };
        Self(Arc::new(Inner { state: Mutex::new(state), journal, mutant }))
    }

    pub fn set_faults(&self, faults: NetworkFaults) {
        self.0.state.lock().faults = faults;
    }

    /// From now on the two do not reach each other.
    pub fn cut(&self, a: &Arc<str>, b: &Arc<str>) {
        self.0.state.lock().cut.insert((a.min(b).clone(), a.max(b).clone()));
    }

    /// They reach each other again.
    pub fn join(&self, a: &Arc<str>, b: &Arc<str>) {
        self.0.state.lock().cut.remove(&(a.min(b).clone(), a.max(b).clone()));
    }

    pub fn heal(&self) {
        let mut state = self.0.state.lock();
        state.cut.clear();
        state.faults = NetworkFaults::default();
    }

    pub fn is_cut(&self, a: &Arc<str>, b: &Arc<str>) -> bool {
        self.0.state.lock().cut.contains(&(a.min(b).clone(), a.max(b).clone()))
    }
}

/// A service that runs on a host for as long as one of its processes lives.
pub struct Service<S: ?Sized>(Arc<Mutex<Serving<S>>>);

/// The process, and what it serves.
type Serving<S> = Option<(Life, Arc<S>)>;

impl<S: ?Sized> Clone for Service<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: ?Sized> Default for Service<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: ?Sized> Service<S> {
    /// A process serves from now on.
    pub fn set(&self, life: &Life, service: Arc<S>) {
        *self.0.lock() = Some((life.clone(), service));
    }

    fn running(&self) -> Option<(Life, Arc<S>)> {
        self.0.lock().clone().filter(|(life, _)| !life.has_ended())
    }
}

/// A service as another host sees it.
pub struct Remote<S: ?Sized> {
    pub network: Network,
    pub from: Arc<str>,
    pub to: Arc<str>,
    pub service: Service<S>,
}

impl<S: ?Sized> Clone for Remote<S> {
    fn clone(&self) -> Self {
        let Self { network, from, to, service } = self;
        Self { network: network.clone(), from: from.clone(), to: to.clone(), service: service.clone() }
    }
}

impl<S: ?Sized + Send + Sync + 'static> Remote<S> {
    fn unreachable(&self, why: &str) -> Error {
        Error::unavailable(format!("{} -> {}: {why}", self.from, self.to))
    }

    /// One message. Fails late where nobody says that it was lost.
    async fn message(&self) -> Result<()> {
        let (delay, lost, refused) = {
            let mut state = self.network.0.state.lock();
            let State { faults, dice, .. } = &mut *state;
            (dice.ms(1..=faults.delay_ms), dice.chance(faults.lost / 2.0), dice.chance(0.5))
        };
        sleep(delay).await;
        let is_cut = self.network.is_cut(&self.from, &self.to);
        if is_cut && refused {
            return Err(self.unreachable("connection refused"));
        }
        if is_cut || lost {
            sleep(PATIENCE).await;
            return Err(self.unreachable("no answer"));
        }
        Ok(())
    }

    /// The other side works on it; what it was asked is dropped with whoever asked, or with its process.
    async fn work<T: Send + 'static>(
        &self,
        question: impl FnOnce(Arc<S>) -> BoxFuture<'static, Result<T>>,
    ) -> Result<(Life, T)> {
        let Some((life, service)) = self.service.running() else {
            return Err(self.unreachable("connection refused"));
        };
        let work = AbortOnDropHandle::new(tokio::spawn(question(service)));
        tokio::select! {
            biased;
            () = life.ended() => Err(self.unreachable("connection reset")),
            done = work => match done {
                Ok(answer) => Ok((life, answer?)),
                Err(e) => {
                    self.network.0.journal.violation(Invariant::I8, &format!("{}: a handler died: {e}", self.to));
                    Err(Error::internal(format!("{}: {e}", self.to)))
                }
            },
        }
    }

    /// A question with one answer.
    pub async fn call<T: Send + 'static>(
        &self,
        question: impl FnOnce(Arc<S>) -> BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        self.message().await?;
        let (_, answer) = self.work(question).await?;
        self.message().await?;
        Ok(answer)
    }

    /// Whether this write arrives twice.
    pub fn is_doubled(&self) -> bool {
        let mut state = self.network.0.state.lock();
        let State { faults, dice, .. } = &mut *state;
        dice.chance(faults.twice)
    }

    /// A read: the other side has its own context; its report comes back with the answer.
    pub async fn ask<T: Send + 'static>(
        &self,
        ctx: &QueryContext,
        question: impl FnOnce(Arc<S>, QueryContext) -> BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let theirs = theirs(ctx);
        let asked = theirs.clone();
        let answer = self.call(move |store| question(store, asked)).await?;
        ctx.add_report(theirs.report());
        Ok(answer)
    }

    fn received<T: Answer>(&self, item: T) -> T {
        match self.network.0.mutant {
            Some(Mutant::CopiesShown) => item.with_keys_of(xxh3_64(self.to.as_bytes())),
            _ => item,
        }
    }

    /// A read whose answer is a stream; the report comes with its end.
    pub async fn open<T: Answer>(
        &self,
        ctx: &QueryContext,
        question: impl FnOnce(Arc<S>, QueryContext) -> BoxFuture<'static, Result<Stream<T>>>,
    ) -> Result<Stream<T>> {
        let theirs = theirs(ctx);
        let asked = theirs.clone();
        self.message().await?;
        let (life, answer) = self.work(move |store| question(store, asked)).await?;
        let state = Some((self.clone(), life, answer, theirs, ctx.clone()));
        Ok(stream::unfold(state, async |state| {
            let (remote, life, mut answer, theirs, ours) = state?;
            let next = async {
                let next = tokio::select! {
                    biased;
                    () = life.ended() => return Err(remote.unreachable("connection reset")),
                    next = answer.next() => next.transpose()?,
                };
                remote.message().await?;
                Ok(next.map(|item| remote.received(item)))
            };
            match next.await {
                Ok(Some(item)) => Some((Ok(item), Some((remote, life, answer, theirs, ours)))),
                Ok(None) => {
                    ours.add_report(theirs.report());
                    None
                }
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed())
    }
}

/// The context of the other side.
fn theirs(ctx: &QueryContext) -> QueryContext {
    let theirs = QueryContext::new(ctx.tenant().clone(), *ctx.limits());
    match ctx.share() {
        Some(share) => theirs.with_share(share.clone()),
        None => theirs,
    }
}
