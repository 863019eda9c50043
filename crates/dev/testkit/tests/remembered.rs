//! What gateways remember never shows: in worlds that write at any time of the past, flush, compact, lose processes and wait, a range
//! question has the same answer as from a front that remembers nothing. `SEED=7` replays one.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;
use triptych_gateway::front::{Backend, Engines, Front, Settings};
use triptych_model::logs::{Direction, LogsQuery, LogsValue};
use triptych_model::metrics::{MetricsQuery, QueryValue, SeriesChunks, SeriesSamples, SeriesSelect};
use triptych_model::traces::TracesMetricsQuery;
use triptych_model::{Result, Signal, TenantId};
use triptych_querier::Querier;
use triptych_ring::{Member, Peer, Peers, peers};
use triptych_rpc::Query;
use triptych_rpc::traits::Stream;
use triptych_runtime::{Clock, MemoryBudget, QueryContext, random};
use triptych_testkit::Dice;
use triptych_testkit::journal::Journal;
use triptych_testkit::ledger::{Key, Seen};
use triptych_testkit::workload::push;
use triptych_testkit::world::World;

const SEEDS: u64 = 6;
const ACTS: usize = 150;
const MINUTE_MS: i64 = 60_000;

const METRICS: [&str; 8] = [
    "simulated",
    "sum(count_over_time(simulated[5m]))",
    "sum by (stream) (rate(simulated[20m]))",
    "simulated offset 45m",
    "max_over_time(simulated[1h:1m])",
    "count(simulated) - count(last_over_time(simulated[3h]))",
    "simulated - simulated @ start()",
    "topk(1, simulated)",
];

const LOGS: [&str; 4] = [
    "sum(count_over_time({app=\"simulated\"}[5m]))",
    "rate({app=\"simulated\"} |= \"info\" [20m])",
    "topk(1, sum by (stream) (bytes_over_time({app=\"simulated\"}[1m])))",
    "count_over_time({app=\"simulated\"}[10m] offset 1h) or vector(0)",
];

const TRACES: [&str; 4] = [
    "{} | rate()",
    "{} | count_over_time() by (resource.service.name)",
    "{} | max_over_time(duration) by (resource.service.name)",
    "({} | count_over_time() by (resource.service.name)) / ({} | count_over_time())",
];

/// A querier that counts the steps it evaluates.
struct Counted {
    query: Arc<dyn Query>,
    steps: Arc<AtomicU64>,
}

impl Counted {
    fn count(&self, start: i64, end: i64, step: i64) {
        let steps = if step == 0 { 1 } else { (end - start) / step + 1 };
        self.steps.fetch_add(steps as u64, Ordering::Relaxed);
    }
}

#[async_trait]
impl Query for Counted {
    async fn metrics(&self, ctx: &QueryContext, query: &MetricsQuery) -> Result<QueryValue> {
        self.count(query.start_ms, query.end_ms, query.step_ms);
        self.query.metrics(ctx, query).await
    }
    async fn logs(&self, ctx: &QueryContext, query: &LogsQuery) -> Result<LogsValue> {
        self.count(query.start_ns, query.end_ns, query.step_ns);
        self.query.logs(ctx, query).await
    }
    async fn traces(&self, ctx: &QueryContext, query: &TracesMetricsQuery) -> Result<QueryValue> {
        self.count(query.start_ns, query.end_ns, query.step_ns);
        self.query.traces(ctx, query).await
    }
    async fn read_samples(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesSamples>> {
        self.query.read_samples(ctx, select).await
    }
    async fn read_chunks(&self, ctx: &QueryContext, select: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        self.query.read_chunks(ctx, select).await
    }
}

fn backends<'a>(
    queriers: impl Iterator<Item = (&'a str, &'a Querier)>,
    steps: &Arc<AtomicU64>,
) -> Peers<Backend> {
    let peer = |(name, querier): (&str, &Querier)| {
        let query = Arc::new(Counted { query: querier.query(), steps: steps.clone() });
        let (metrics, logs, traces) = (querier.metrics(), querier.logs(), querier.traces());
        let service = Backend { metrics, logs, traces, query };
        Peer { member: Arc::new(Member::new(name, "", "")), service }
    };
    peers::fixed(queriers.map(peer))
}

fn front(world: &World, shards: u32, remembered_bytes: usize, steps: &Arc<AtomicU64>) -> Front {
    let settings = Settings {
        running_per_querier_max: 16,
        tenant_share_percent: 100,
        queued_per_tenant_max: 1000,
        subqueries_per_request_max: 8,
        split_interval: Duration::from_secs(6 * 3600),
        shards,
    };
    let queriers = world.queriers.iter().map(|(machine, querier)| (&*machine.name, querier));
    let memory = MemoryBudget::new("results", remembered_bytes);
    Front::new(settings, backends(queriers, steps), Engines::default(), Some(memory))
}

/// What is asked: signal, expression, start, end, step in milliseconds.
#[derive(Debug, Clone)]
struct Question(Signal, &'static str, i64, i64, i64);

impl Question {
    fn draw(dice: &mut Dice, now_ms: i64) -> Self {
        let signal = *dice.pick(&Signal::ALL).unwrap();
        let text = match signal {
            Signal::Metrics => *dice.pick(&METRICS).unwrap(),
            Signal::Logs => *dice.pick(&LOGS).unwrap(),
            Signal::Traces => *dice.pick(&TRACES).unwrap(),
        };
        let step = *dice.pick(&[15_000, MINUTE_MS, 5 * MINUTE_MS]).unwrap();
        let end = now_ms - if dice.chance(0.6) { 0 } else { dice.below(120) as i64 * MINUTE_MS };
        let start = end - (1 + dice.below(360) as i64) * MINUTE_MS;
        // As dashboards do, mostly.
        let aligned = if dice.chance(0.8) { step } else { 1 };
        Self(signal, text, start - start % aligned, end - end % aligned, step)
    }

    /// The answer as text, in which each bit of a number shows.
    async fn ask(&self, front: &Front, tenant: &TenantId) -> (Result<String>, bool) {
        let ctx = QueryContext::unlimited(tenant.clone());
        let Question(signal, text, start, end, step) = self.clone();
        let answer = match signal {
            Signal::Metrics => {
                let (start_ms, end_ms, step_ms) = (start, end, step);
                let expr = text.to_owned();
                let (whole_ms, shard) = (None, None);
                let query = MetricsQuery { expr, start_ms, end_ms, step_ms, lookback_ms: 0, whole_ms, shard };
                front.metrics(&ctx, &query).await.map(|value| format!("{value:?}"))
            }
            Signal::Logs => {
                let query = LogsQuery {
                    expr: text.to_owned(),
                    start_ns: start * 1_000_000,
                    end_ns: end * 1_000_000,
                    step_ns: step * 1_000_000,
                    direction: Direction::Forward,
                    limit: 0,
                    shard: None,
                    interval_ns: 0,
                };
                Query::logs(front, &ctx, &query).await.map(|value| format!("{value:?}"))
            }
            Signal::Traces => {
                let query = TracesMetricsQuery {
                    query: text.to_owned(),
                    start_ns: start * 1_000_000,
                    end_ns: end * 1_000_000,
                    step_ns: step * 1_000_000,
                };
                Query::traces(front, &ctx, &query).await.map(|value| format!("{value:?}"))
            }
        };
        (answer, ctx.report().missed.is_empty())
    }
}

async fn write(world: &World, dice: &mut Dice, times: &mut BTreeSet<(u32, i64)>) {
    let tenant = dice.pick(&world.tenants).unwrap().clone();
    let signal = *dice.pick(&Signal::ALL).unwrap();
    let items: Vec<Seen> = (0..1 + dice.below(5))
        .map(|_| {
            let stream = dice.below(3) as u32;
            let late = if dice.chance(0.2) { dice.ms(0..=5 * 3_600_000) } else { dice.ms(0..=30_000) };
            let mut time_ms = world.clock.now_ms() - late.as_millis() as i64;
            while !times.insert((stream, time_ms)) {
                time_ms -= 1;
            }
            Seen { key: Key { stream, number: times.len() as u64 }, time_ns: time_ms * 1_000_000 }
        })
        .collect();
    let (_, writer) = dice.pick(&world.distributors).unwrap();
    // What fails may have been written or not; then it shows or not, to everybody.
    let _ = push(writer, &tenant, signal, &items).await;
}

/// Steps evaluated with and without what was remembered.
async fn live(seed: u64) -> (u64, u64) {
    random::seed(Some(seed));
    let mut dice = Dice::new(seed);
    let world = World::new(&mut dice, Arc::new(Journal::new(false)), None).unwrap();
    let (remembering, fresh) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let shards = 1 + dice.below(3) as u32;
    // One has room for everything, one for some dozens of entries.
    let gateways = [1 << 24, 1 << 16].map(|bytes| front(&world, shards, bytes, &remembering));
    let anew = front(&world, shards, 1, &fresh).fresh();
    sleep(Duration::from_secs(8)).await;
    let mut times = BTreeSet::new();
    let mut known: Vec<(Question, TenantId)> = Vec::new();
    for act in 0..ACTS {
        match dice.below(20) {
            0..6 => write(&world, &mut dice, &mut times).await,
            6 => sleep(dice.ms(0..=40_000)).await,
            7 if dice.chance(0.3) => world.clock.leap(dice.ms(0..=2 * 3_600_000)),
            8 if dice.chance(0.3) => {
                let host = dice.pick(&world.ingesters).unwrap();
                if host.is_active() {
                    host.kill(dice.chance(0.5));
                    host.start().unwrap();
                }
            }
            _ => {
                let now_ms = world.clock.now_ms();
                let mut question = Question::draw(&mut dice, now_ms);
                let mut tenant = dice.pick(&world.tenants).unwrap().clone();
                // The same dashboard again, a bit later.
                if dice.chance(0.8)
                    && let Some((again, of_tenant)) = dice.pick(&known[known.len().saturating_sub(8)..])
                {
                    let length = again.3 - again.2;
                    let end = (now_ms - now_ms % again.4).max(again.3);
                    question = Question(again.0, again.1, end - length, end, again.4);
                    tenant = of_tenant.clone();
                }
                known.push((question.clone(), tenant.clone()));
                let gateway = dice.pick(&gateways).unwrap();
                let (got, is_whole) = question.ask(gateway, &tenant).await;
                let (want, wants_whole) = question.ask(&anew, &tenant).await;
                // Partial answers need not be the same.
                if let (Ok(got), Ok(want), true, true) = (got, want, is_whole, wants_whole) {
                    assert!(
                        got == want,
                        "seed {seed}, act {act}: {question:?} of {tenant}: {got} is not {want}"
                    );
                }
            }
        }
    }
    random::seed(None);
    (remembering.load(Ordering::Relaxed), fresh.load(Ordering::Relaxed))
}

fn run(seed: u64) -> (u64, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(live(seed))
}

#[test]
fn remembered_answers_are_those_made_anew() {
    if let Ok(seed) = std::env::var("SEED") {
        println!("{:?}", run(seed.parse().unwrap()));
        return;
    }
    let counts: Vec<_> = (0..SEEDS).map(run).collect();
    let (remembering, fresh): (Vec<u64>, Vec<u64>) = counts.into_iter().unzip();
    let (remembering, fresh): (u64, u64) = (remembering.iter().sum(), fresh.iter().sum());
    assert!(
        remembering * 10 < fresh * 9,
        "{remembering} steps evaluated, {fresh} without what is remembered"
    );
}
