//! Whose turn it is: so many sub-queries run at a time, and tenants that wait take turns.
//!
//! A place is taken for as long as its [`Place`] lives. Whoever finds none waits in the queue of its tenant; a place that comes
//! free goes to the next tenant in the round that has less than its share. A waiter whose client went away, or whose deadline
//! passed, leaves no trace.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use triptych_model::{Error, Result, TenantId};
use triptych_runtime::QueryContext;

use crate::telemetry;

/// When a client whose tenant's queue is full should come again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How many may run and wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Of all tenants.
    pub running_max: usize,
    /// Of one tenant.
    pub tenant_running_max: usize,
    /// Waiting, of one tenant.
    pub tenant_queued_max: usize,
}

#[derive(Debug, Clone)]
pub struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    places: Places,
    running: usize,
    tenants: HashMap<TenantId, Tenant>,
    /// Tenants that wait, the next one first.
    round: VecDeque<TenantId>,
}

#[derive(Debug, Default)]
struct Tenant {
    running: usize,
    waiting: VecDeque<oneshot::Sender<Place>>,
}

/// A sub-query may run while this lives.
#[derive(Debug)]
pub struct Place {
    queue: Queue,
    tenant: TenantId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.queue.leave(&self.tenant);
    }
}

impl Queue {
    pub fn new(places: Places) -> Self {
        let state = State { places, running: 0, tenants: HashMap::new(), round: VecDeque::new() };
        Self(Arc::new(Inner { state: Mutex::new(state) }))
    }

    /// Other bounds from now on; what runs already goes on.
    pub fn set_places(&self, places: Places) {
        if std::mem::replace(&mut self.0.state.lock().places, places) != places {
            self.serve();
        }
    }

    /// Waits for a place. `Exhausted` with a time to come again where the tenant's queue is full, `Unavailable` at the deadline,
    /// `Cancelled` when the query is.
    pub async fn enter(&self, ctx: &QueryContext) -> Result<Place> {
        ctx.check()?;
        let began = tokio::time::Instant::now();
        let mut turn = match self.place_or_turn(ctx.tenant())? {
            Ok(place) => return Ok(place),
            Err(turn) => turn,
        };
        let outcome = tokio::select! {
            biased;
            () = ctx.cancelled() => Err(Error::cancelled("query was cancelled")),
            place = &mut turn => place.map_err(|_| Error::unavailable("the gateway is shutting down")),
            () = tokio::time::sleep(ctx.remaining()) => Err(Error::unavailable(format!(
                "query timed out after {:?}: it waited {:?} for its turn, other queries are running",
                ctx.limits().timeout,
                began.elapsed()
            ))
            .retry_after(RETRY_AFTER)),
        };
        telemetry::queue_wait_seconds().record(began.elapsed().as_secs_f64());
        outcome
    }

    fn place_or_turn(&self, tenant: &TenantId) -> Result<Result<Place, oneshot::Receiver<Place>>> {
        let mut state = self.0.state.lock();
        let state = &mut *state;
        let places = state.places;
        let own = state.tenants.entry(tenant.clone()).or_default();
        own.waiting.retain(|waiter| !waiter.is_closed());
        if state.running < places.running_max
            && own.running < places.tenant_running_max
            && own.waiting.is_empty()
        {
            state.running += 1;
            own.running += 1;
            return Ok(Ok(Place { queue: self.clone(), tenant: tenant.clone() }));
        }
        let waiting = own.waiting.len();
        if waiting >= places.tenant_queued_max {
            telemetry::queue_refusals().increment(1);
            return Err(Error::exhausted(format!(
                "too many queries: {waiting} of this tenant wait already, the limit is {}; {} run, {} of all tenants",
                places.tenant_queued_max, own.running, state.running
            ))
            .retry_after(RETRY_AFTER));
        }
        let (sender, receiver) = oneshot::channel();
        if waiting == 0 && !state.round.contains(tenant) {
            state.round.push_back(tenant.clone());
        }
        own.waiting.push_back(sender);
        state.show();
        Ok(Err(receiver))
    }

    fn leave(&self, tenant: &TenantId) {
        {
            let mut state = self.0.state.lock();
            state.running -= 1;
            if let Some(own) = state.tenants.get_mut(tenant) {
                own.running -= 1;
                if own.running == 0 && own.waiting.is_empty() {
                    state.tenants.remove(tenant);
                }
            }
        }
        self.serve();
    }

    /// Hands free places out. A place is sent outside of the lock: one that nobody takes any more comes back through `leave`.
    fn serve(&self) {
        while let Some((tenant, waiter)) = self.next() {
            // Nobody there any more: the place is dropped, which serves the next.
            let _ = waiter.send(Place { queue: self.clone(), tenant });
        }
    }

    /// Takes a place for the next in the round.
    fn next(&self) -> Option<(TenantId, oneshot::Sender<Place>)> {
        let mut state = self.0.state.lock();
        let state = &mut *state;
        if state.running >= state.places.running_max {
            return None;
        }
        for _ in 0..state.round.len() {
            let tenant = state.round.pop_front()?;
            let Some(own) = state.tenants.get_mut(&tenant) else { continue };
            own.waiting.retain(|waiter| !waiter.is_closed());
            let waiter = match own.running < state.places.tenant_running_max {
                true => own.waiting.pop_front(),
                false => None,
            };
            if !own.waiting.is_empty() {
                state.round.push_back(tenant.clone());
            } else if own.running == 0 && waiter.is_none() {
                state.tenants.remove(&tenant);
            }
            if let Some(waiter) = waiter {
                if let Some(own) = state.tenants.get_mut(&tenant) {
                    own.running += 1;
                }
                state.running += 1;
                state.show();
                return Some((tenant, waiter));
            }
        }
        state.show();
        None
    }
}

impl State {
    fn show(&self) {
        let waiting: usize = self.tenants.values().map(|t| t.waiting.len()).sum();
        telemetry::queue_length().set(waiting as f64);
        telemetry::running().set(self.running as f64);
    }
}
