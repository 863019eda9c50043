//! One seed: a world, those who write and read, a storm, and the reckoning afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use triptych_compactor::Done;
use triptych_model::{Signal, TenantId};
use triptych_querier::Querier;
use triptych_runtime::{Clock, Invariant, QueryContext, QueryLimits, invariant, random};

use crate::dice::Dice;
use crate::host::IngesterHost;
use crate::journal::Journal;
use crate::ledger::{Key, Read, Seen};
use crate::mutant::Mutant;
use crate::storm::storm;
use crate::workload::{self, QUERY_TIMEOUT};
use crate::world::World;

/// What is to be simulated besides the seed.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long faults happen, in simulated time.
    pub storm: Duration,
    /// A bug that is to be found.
    pub mutant: Option<Mutant>,
    /// Print every event.
    pub is_printed: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { storm: Duration::from_secs(40), mutant: None, is_printed: false }
    }
}

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Of everything that happened; the same for the same seed and options.
    pub digest: u64,
    pub events: u64,
    /// Items written, and of them those that were acknowledged.
    pub written: usize,
    pub acknowledged: usize,
    /// What does not hold, with the time at which it was seen. Empty is good.
    pub violations: Vec<String>,
}

/// Series, streams or services of a tenant.
const STREAMS: u32 = 3;
/// What comes late is at least so old: of a window that is over, and merged already during the storm.
const LATE: Duration = Duration::from_secs(3 * 3600);
/// After this much calm every read must be complete.
const CALM_MAX: Duration = Duration::from_secs(120);
/// So long it takes ingesters to come, about.
const GROWTH: Duration = Duration::from_secs(8);
/// After the storm time goes on by so many leaps, each longer than what anybody waits for.
const LEAPS: usize = 3;
const LEAP: Duration = Duration::from_secs(20 * 3600);
/// Every compactor has had a round of its own.
const ROUND: Duration = Duration::from_secs(12);
/// What was merged in the first rounds has become known to all, and nobody but its owner asks it any more.
const WATCHED: Duration = Duration::from_secs(26);

/// Runs a seed. To be called on a tokio runtime of one thread whose time is paused.
pub async fn run(seed: u64, options: Options) -> Outcome {
    random::seed(Some(seed));
    let journal = Arc::new(Journal::new(options.is_printed));
    let mut dice = Dice::new(seed);
    let mut counts = (0, 0);
    match World::new(&mut dice, journal.clone(), options.mutant) {
        Ok(world) => {
            let world = Arc::new(world);
            live(&world, dice, options).await;
            counts = world.ledger.counts();
        }
        Err(error) => journal.violation(Invariant::I8, &format!("the world does not start: {error}")),
    }
    for (number, what) in invariant::violations() {
        journal.violation(number, &what);
    }
    random::seed(None);
    Outcome {
        digest: journal.digest(),
        events: journal.events(),
        written: counts.0,
        acknowledged: counts.1,
        violations: journal.violations(),
    }
}

async fn live(world: &Arc<World>, mut dice: Dice, options: Options) {
    let mut busy = Vec::new();
    for tenant in &world.tenants {
        for signal in Signal::ALL {
            let dice = dice.fork(&format!("writer {tenant} {signal}"));
            busy.push(AbortOnDropHandle::new(tokio::spawn(write(
                world.clone(),
                tenant.clone(),
                signal,
                dice,
            ))));
        }
    }
    busy.extend(readers(world, &mut dice));
    sleep(Duration::from_secs(6)).await;
    storm(world, dice.fork("storm"), options.storm).await;
    world.heal();
    sleep(Duration::from_secs(8)).await;
    drop(busy);
    let (written, acknowledged) = world.ledger.counts();
    world.journal.note("world", format_args!("calm: {written} written, {acknowledged} acknowledged"));

    for (_, querier) in &world.queriers {
        whole(world, querier, "calm").await;
    }
    grow(world).await;
    for host in &world.ingesters {
        if let Some(ingester) = host.ingester()
            && timeout(CALM_MAX, ingester.flush_all()).await.is_err()
        {
            world.journal.violation(Invariant::I1, &format!("{} does not flush", host.machine.name));
        }
    }
    sync(world).await;
    for (_, querier) in &world.queriers {
        whole(world, querier, "flushed").await;
    }
    // Blocks of ranges that are over are merged, and what was merged goes.
    for leap in 0..LEAPS {
        world.clock.leap(LEAP);
        // The first one has most to be merged.
        let watching = if leap == 0 { watch(world, &mut dice) } else { Vec::new() };
        sleep(if leap == 0 { WATCHED } else { ROUND }).await;
        drop(watching);
        compact(world).await;
        sync(world).await;
        for (_, querier) in &world.queriers {
            whole(world, querier, "compacted").await;
        }
    }
    let rest = compact(world).await;
    if rest.merged > 0 || rest.copies > 0 {
        world.journal.violation(Invariant::I4, &format!("compaction does not come to rest: {rest:?}"));
    }
    for host in &world.ingesters {
        host.kill(true);
    }
    match world.bucket_only().await {
        Ok(querier) => whole(world, &querier, "bucket only").await,
        Err(error) => world.journal.violation(Invariant::I3, &format!("the bucket cannot be read: {error}")),
    }
}

/// A reader at every querier, until it is dropped.
fn readers(world: &Arc<World>, dice: &mut Dice) -> Vec<AbortOnDropHandle<()>> {
    let reader = |i| {
        AbortOnDropHandle::new(tokio::spawn(read_on(world.clone(), i, dice.fork(&format!("reader {i}")))))
    };
    let readers = (0..world.queriers.len()).map(reader).collect();
    dice.number();
    readers
}

/// Readers, while one store-gateway after the other stands still.
fn watch(world: &Arc<World>, dice: &mut Dice) -> Vec<AbortOnDropHandle<()>> {
    let mut all = readers(world, dice);
    all.push(AbortOnDropHandle::new(tokio::spawn(hesitate(world.clone(), dice.fork("hesitate")))));
    all
}

/// One store-gateway after the other stands still, and looks through the bucket later than the others.
async fn hesitate(world: Arc<World>, mut dice: Dice) {
    while let Some(host) = dice.pick(&world.store_gateways) {
        let time = dice.ms(4000..=12_000);
        host.freeze(time);
        sleep(time).await;
    }
}

/// The ingesters that are still to come do so, and no answer is partial for that.
async fn grow(world: &World) {
    if !world.ingesters.iter().any(IngesterHost::is_to_come) {
        return;
    }
    let began = Instant::now();
    world.grow();
    let mut all = world.tenants.iter().flat_map(|tenant| Signal::ALL.map(|signal| (tenant, signal))).cycle();
    while began.elapsed() < GROWTH {
        for (machine, querier) in &world.queriers {
            let Some((tenant, signal)) = all.next() else { return };
            let why = match read(world, querier, "growing", tenant, signal).await {
                Ok(read) => {
                    world.ledger.check(&read, |_| true, &world.journal);
                    read.missed.join("; ")
                }
                Err(error) => error.to_string(),
            };
            if !why.is_empty() {
                let text =
                    format!("{} {tenant} {signal}: not whole because ingesters come: {why}", machine.name);
                world.journal.violation(Invariant::I1, &text);
            }
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// A round of every compactor at the same time; what they did together.
async fn compact(world: &World) -> Done {
    let rounds = world.compactors.iter().filter_map(|host| host.compactor());
    let mut sum = Done::default();
    for outcome in join_all(rounds.map(|compactor| async move { compactor.round().await })).await {
        match outcome {
            Ok(Done { merged, written, removed, copies }) => {
                sum.merged += merged;
                sum.written += written;
                sum.removed += removed;
                sum.copies += copies;
            }
            Err(error) => {
                world.journal.violation(Invariant::I3, &format!("compaction fails in the calm: {error}"));
            }
        }
    }
    sum
}

async fn sync(world: &World) {
    for gateway in world.store_gateways.iter().filter_map(|host| host.gateway()) {
        if let Err(error) = gateway.sync().await {
            world.journal.violation(Invariant::I3, &format!("the bucket cannot be listed: {error}"));
        }
    }
}

/// Reads everything of everybody: complete within the calm, and right.
async fn whole(world: &World, querier: &Querier, what: &'static str) {
    let began = Instant::now();
    for tenant in &world.tenants {
        for signal in Signal::ALL {
            loop {
                match read(world, querier, what, tenant, signal).await {
                    Ok(read) if read.missed.is_empty() => {
                        world.ledger.check(&read, |_| true, &world.journal);
                        break;
                    }
                    outcome if began.elapsed() > CALM_MAX => {
                        let why = outcome.map_or_else(|e| e.to_string(), |read| read.missed.join("; "));
                        let text = format!("{what} {tenant} {signal}: still not whole: {why}");
                        world.journal.violation(Invariant::I1, &text);
                        break;
                    }
                    _ => sleep(Duration::from_secs(1)).await,
                }
            }
        }
    }
}

fn context(tenant: &TenantId) -> QueryContext {
    QueryContext::new(tenant.clone(), QueryLimits { timeout: QUERY_TIMEOUT, ..QueryLimits::default() })
}

async fn read(
    world: &World,
    querier: &Querier,
    what: &'static str,
    tenant: &TenantId,
    signal: Signal,
) -> triptych_model::Result<Read> {
    let (ctx, began) = (context(tenant), Instant::now());
    let found = workload::read(querier, &ctx, signal, world.range_ns()).await?;
    let missed = ctx.report().missed;
    let workload::Found { items, foreign } = found;
    Ok(Read { what, tenant: tenant.clone(), signal, began, missed, items, foreign })
}

/// Reads again and again; an answer may be partial or an error, but what it says must be right.
async fn read_on(world: Arc<World>, querier: usize, mut dice: Dice) {
    let Some((machine, querier)) = world.queriers.get(querier) else { return };
    loop {
        sleep(dice.ms(100..=2500)).await;
        let Some(tenant) = dice.pick(&world.tenants) else { return };
        let Some(signal) = dice.pick(&Signal::ALL).copied() else { return };
        if signal == Signal::Traces && dice.chance(0.5) {
            let keys = world.ledger.keys(tenant, signal);
            let Some(key) = dice.pick(&keys).copied() else { continue };
            let (ctx, began) = (context(tenant), Instant::now());
            match workload::read_trace(querier, &ctx, key).await {
                Ok((among, workload::Found { items, foreign })) => {
                    let missed = ctx.report().missed;
                    let (what, tenant) = ("trace", tenant.clone());
                    let read = Read { what, tenant, signal, began, missed, items, foreign };
                    world.ledger.check(&read, among, &world.journal);
                }
                Err(error) => world.journal.note(&machine.name, format_args!("trace: {error}")),
            }
            continue;
        }
        match read(&world, querier, "storm", tenant, signal).await {
            Ok(read) => world.ledger.check(&read, |_| true, &world.journal),
            Err(error) => world.journal.note(&machine.name, format_args!("{tenant} {signal}: {error}")),
        }
    }
}

/// Writes again and again; what fails is sent again some times.
async fn write(world: Arc<World>, tenant: TenantId, signal: Signal, mut dice: Dice) {
    let mut numbers = vec![0_u64; STREAMS as usize];
    let mut times = BTreeSet::new();
    loop {
        sleep(dice.ms(50..=2500)).await;
        let items: Vec<Seen> = (0..1 + dice.below(5))
            .map(|_| {
                let stream = dice.below(STREAMS as usize);
                let number = numbers[stream];
                numbers[stream] += 1;
                let late = if dice.chance(0.1) { LATE + dice.ms(0..=30 * 60_000) } else { dice.ms(0..=1000) };
                let mut time_ms = world.clock.now_ms() - late.as_millis() as i64;
                // A series has one value at a time.
                while !times.insert((stream, time_ms)) {
                    time_ms -= 1;
                }
                Seen { key: Key { stream: stream as u32, number }, time_ns: time_ms * 1_000_000 }
            })
            .collect();
        world.ledger.wrote(&tenant, signal, &items);
        for _attempt in 0..4 {
            let Some((machine, writer)) = dice.pick(&world.distributors) else { return };
            match workload::push(writer, &tenant, signal, &items).await {
                Ok(report) if report.refused.is_empty() => {
                    world.ledger.acknowledged(&tenant, signal, &items);
                    let (first, more) = (items[0].key, items.len() - 1);
                    world.journal.note(
                        &machine.name,
                        format_args!("{tenant} {signal} {first} and {more} more: acknowledged"),
                    );
                    break;
                }
                Ok(report) => {
                    world
                        .journal
                        .note(&machine.name, format_args!("{tenant} {signal}: refused {:?}", report.refused));
                    break;
                }
                Err(error) => world.journal.note(&machine.name, format_args!("{tenant} {signal}: {error}")),
            }
            sleep(dice.ms(100..=1500)).await;
        }
    }
}
