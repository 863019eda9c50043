//! A querier over a list of writes, which counts: at each step those of the five minutes before it.

use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use triptych_model::logs::{LogsQuery, LogsValue};
use triptych_model::metrics::{MetricsQuery, Sample, SeriesChunks, SeriesSelect};
use triptych_model::traces::TracesMetricsQuery;
use triptych_model::{Labels, TenantId};
use triptych_ring::{Member, Peer, peers};
use triptych_rpc::Query;
use triptych_rpc::traits::Stream;
use triptych_runtime::MemoryBudget;
use triptych_runtime::random::split_mix;

use super::super::{Backend, Engines, Settings};
use super::*;
use crate::tests::{Fake, Writes};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

struct Counting {
    writes: Writes,
    /// Start and end of what was asked.
    asked: Mutex<Vec<(i64, i64)>>,
    /// What the next one is answered with.
    fails: Mutex<Option<Error>>,
    /// Said of each answer.
    says: Mutex<Option<fn(&QueryContext)>>,
    /// Written while an answer is being made.
    meanwhile: Mutex<Option<(&'static str, i64)>>,
    /// Answers wait for it when they have read what there is.
    gate: Semaphore,
}

#[async_trait]
impl Query for Counting {
    async fn metrics(&self, ctx: &QueryContext, query: &MetricsQuery) -> Result<QueryValue> {
        self.asked.lock().push((query.start_ms, query.end_ms));
        let steps = (query.start_ms..=query.end_ms).step_by(query.step_ms.max(1) as usize);
        let writes = self.writes.lock().clone();
        if let Some((tenant, t_ms)) = self.meanwhile.lock().take() {
            self.writes.lock().push((tenant.to_owned(), t_ms));
        }
        self.gate.acquire().await.unwrap().forget();
        if let Some(error) = self.fails.lock().take() {
            return Err(error);
        }
        let count = |t: i64| {
            let counts = |(tenant, at): &&(String, i64)| {
                tenant == ctx.tenant().as_str() && *at > t - 5 * MINUTE_MS && *at <= t
            };
            writes.iter().filter(counts).count() as f64
        };
        let samples: Vec<_> = steps.map(|t_ms| Sample { t_ms, value: count(t_ms) }).collect();
        let samples = samples.into_iter().filter(|s| s.value > 0.0).collect::<Vec<_>>();
        if let Some(say) = *self.says.lock() {
            say(ctx);
        }
        let labels = Labels::from_pairs([("__name__", "up")]);
        let series = SeriesSamples { labels, samples };
        Ok(QueryValue::Matrix(Some(series).into_iter().filter(|s| !s.samples.is_empty()).collect()))
    }
    async fn logs(&self, _: &QueryContext, _: &LogsQuery) -> Result<LogsValue> {
        Err(Error::unavailable("metrics only"))
    }
    async fn traces(&self, _: &QueryContext, _: &TracesMetricsQuery) -> Result<QueryValue> {
        Err(Error::unavailable("metrics only"))
    }
    async fn read_samples(&self, _: &QueryContext, _: &SeriesSelect) -> Result<Stream<SeriesSamples>> {
        Err(Error::unavailable("metrics only"))
    }
    async fn read_chunks(&self, _: &QueryContext, _: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        Err(Error::unavailable("metrics only"))
    }
}

struct World {
    front: Front,
    querier: Arc<Counting>,
    stores: Arc<Fake>,
}

impl World {
    fn new() -> Self {
        let stores = Arc::new(Fake { writes: Some(Writes::default()), ..Fake::default() });
        let querier = Arc::new(Counting {
            writes: stores.writes.clone().unwrap(),
            asked: Mutex::default(),
            fails: Mutex::default(),
            says: Mutex::default(),
            meanwhile: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let (metrics, logs, traces) = (stores.clone(), stores.clone(), stores.clone());
        let service = Backend { metrics, logs, traces, query: querier.clone() };
        let peers = peers::fixed([Peer { member: Arc::new(Member::new("querier", "", "")), service }]);
        let settings = Settings {
            running_per_querier_max: 100,
            tenant_share_percent: 100,
            queued_per_tenant_max: 100,
            subqueries_per_request_max: 8,
            split_interval: Duration::ZERO,
            shards: 1,
        };
        let memory = MemoryBudget::new("results", 1 << 20);
        Self { front: Front::new(settings, peers, Engines::default(), Some(memory)), querier, stores }
    }

    /// From now on no answer is whole, and the front knows that asking again mends nothing.
    async fn miss_a_zone(&self, question: &MetricsQuery) {
        *self.querier.says.lock() = Some(|ctx| ctx.missed("a zone"));
        self.anew(question).await;
        self.asked();
    }

    fn write(&self, tenant: &str, t_ms: i64) {
        self.querier.writes.lock().push((tenant.to_owned(), t_ms));
    }

    /// What was asked of the querier since the last time.
    fn asked(&self) -> Vec<(i64, i64)> {
        std::mem::take(&mut self.querier.asked.lock())
    }

    /// The answer, the same as one made anew; and what was asked for it.
    async fn ask_query(&self, tenant: &str, query: &MetricsQuery) -> Vec<(i64, i64)> {
        let ctx = || QueryContext::unlimited(TenantId::new(tenant).unwrap());
        self.asked();
        let got = self.front.metrics(&ctx(), query).await.unwrap();
        let asked = self.asked();
        let want = self.front.fresh().metrics(&ctx(), query).await.unwrap();
        assert_eq!(got, want, "{query:?}");
        asked
    }

    async fn ask(&self, tenant: &str, start_ms: i64, end_ms: i64) -> Vec<(i64, i64)> {
        self.ask_query(tenant, &query("up", start_ms, end_ms, MINUTE_MS)).await
    }
}

/// Lets everybody come as far as they can.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

type Asking = JoinHandle<(Result<QueryValue>, Vec<String>)>;

impl World {
    fn begin(&self, query: &MetricsQuery) -> Asking {
        let (front, query) = (self.front.clone(), query.clone());
        tokio::spawn(async move {
            let ctx = QueryContext::unlimited(TenantId::new("a").unwrap());
            let answer = front.metrics(&ctx, &query).await;
            (answer, ctx.report().missed)
        })
    }

    /// So many ask the same at once; they have come as far as they can.
    async fn crowd(&self, count: usize, query: &MetricsQuery) -> Vec<Asking> {
        let asking = (0..count).map(|_| self.begin(query)).collect();
        settle().await;
        asking
    }

    async fn anew(&self, query: &MetricsQuery) -> QueryValue {
        let ctx = QueryContext::unlimited(TenantId::new("a").unwrap());
        self.front.fresh().metrics(&ctx, query).await.unwrap()
    }

    fn hang(&self) {
        self.querier.gate.forget_permits(usize::MAX);
    }

    fn answer(&self, answers: usize) {
        self.querier.gate.add_permits(answers);
    }
}

#[tokio::test(start_paused = true)]
async fn what_many_ask_at_once_is_evaluated_once() {
    let world = World::new();
    (0..600).for_each(|minute| world.write("a", minute * MINUTE_MS));
    let question = query("up", HOUR_MS, 7 * HOUR_MS, MINUTE_MS);
    let want = world.anew(&question).await;
    world.asked();
    world.hang();
    let crowd = world.crowd(20, &question).await;
    assert_eq!(world.asked(), [(HOUR_MS, 7 * HOUR_MS)]);
    // A part of it, by others.
    let part = query("up", 2 * HOUR_MS, 3 * HOUR_MS, MINUTE_MS);
    let others = world.crowd(5, &part).await;
    assert_eq!(world.asked(), []);
    // Written since: what is asked now has to show it. The extents that do not have it are the same as before.
    tokio::time::advance(Duration::from_millis(1)).await;
    world.write("a", 6 * HOUR_MS);
    let later = world.crowd(5, &question).await;
    assert_eq!(world.asked(), [(6 * HOUR_MS, 6 * HOUR_MS + 29 * MINUTE_MS)]);
    world.answer(2);
    for asking in crowd {
        assert_eq!(asking.await.unwrap().0.unwrap(), want);
    }
    world.answer(1);
    let want = world.anew(&question).await;
    for asking in later {
        assert_eq!(asking.await.unwrap().0.unwrap(), want);
    }
    world.answer(1);
    let want = world.anew(&part).await;
    for asking in others {
        assert_eq!(asking.await.unwrap().0.unwrap(), want);
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_takes_nobody_along() {
    let world = World::new();
    (0..600).for_each(|minute| world.write("a", minute * MINUTE_MS));
    let question = query("up", HOUR_MS, 7 * HOUR_MS, MINUTE_MS);
    let want = world.anew(&question).await;
    world.asked();
    world.hang();
    let mut crowd = world.crowd(10, &question).await;
    assert_eq!(world.asked().len(), 1);
    crowd.remove(0).abort();
    settle().await;
    assert_eq!(world.asked().len(), 1, "the next one makes it, and the others wait for that");
    world.answer(1);
    for asking in crowd {
        assert_eq!(asking.await.unwrap().0.unwrap(), want);
    }
    assert_eq!(world.asked().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_whole_is_its_askers_alone() {
    let world = World::new();
    (0..600).for_each(|minute| world.write("a", minute * MINUTE_MS));
    let question = query("up", HOUR_MS, 7 * HOUR_MS, MINUTE_MS);
    world.miss_a_zone(&question).await;
    world.hang();
    let crowd = world.crowd(10, &question).await;
    assert_eq!(world.asked().len(), 1);
    world.answer(1);
    settle().await;
    assert_eq!(world.asked().len(), 9, "all at the same time");
    world.answer(9);
    for asking in crowd {
        let (answer, missed) = asking.await.unwrap();
        assert_eq!((answer.is_ok(), missed), (true, vec!["a zone".to_owned()]));
    }
    // An error is nobody else's either.
    *world.querier.says.lock() = None;
    *world.querier.fails.lock() = Some(Error::exhausted("too many rows"));
    let crowd = world.crowd(10, &question).await;
    assert_eq!(world.asked().len(), 1);
    world.answer(1);
    settle().await;
    assert_eq!(world.asked().len(), 9);
    world.answer(9);
    let mut failed = 0;
    for asking in crowd {
        failed += usize::from(asking.await.unwrap().0.is_err());
    }
    assert_eq!(failed, 1, "who met it");
}

/// Many ask and write, as their turns come; some go away. Nobody misses what was written before he asked, nobody sees what was not written
/// when he was answered.
#[test]
fn what_was_written_before_a_question_is_in_its_answer() {
    for seed in 0..12 {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(async {
                let world = Arc::new(World::new());
                let crowd: Vec<_> =
                    (0..8).map(|who| tokio::spawn(wander(world.clone(), seed * 8 + who))).collect();
                for one in crowd {
                    one.await.unwrap();
                }
            });
    }
}

async fn wander(world: Arc<World>, seed: u64) {
    let mut state = seed;
    let mut dice = move |sides: u64| split_mix(&mut state) % sides;
    let count = |writes: &[(String, i64)], t: i64| {
        writes.iter().filter(|(_, at)| *at > t - 5 * MINUTE_MS && *at <= t).count() as f64
    };
    for _ in 0..30 {
        if dice(3) == 0 {
            world.write("a", dice(120) as i64 * MINUTE_MS);
        }
        let question = query("up", 0, dice(4) as i64 * HOUR_MS / 2, MINUTE_MS);
        let before = world.querier.writes.lock().clone();
        let asking = world.begin(&question);
        for _ in 0..dice(12) {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(Duration::from_nanos(dice(2))).await;
        if dice(8) == 0 {
            asking.abort();
            continue;
        }
        let QueryValue::Matrix(series) = asking.await.unwrap().0.unwrap() else { panic!() };
        let after = world.querier.writes.lock().clone();
        for t in (question.start_ms..=question.end_ms).step_by(MINUTE_MS as usize) {
            let samples = series.first().map_or(&[][..], |s| &s.samples[..]);
            let got = samples.iter().find(|s| s.t_ms == t).map_or(0.0, |s| s.value);
            assert!(count(&before, t) <= got && got <= count(&after, t), "seed {seed}, step {t}: {got}");
        }
    }
}

fn query(expr: &str, start_ms: i64, end_ms: i64, step_ms: i64) -> MetricsQuery {
    MetricsQuery { expr: expr.into(), start_ms, end_ms, step_ms, lookback_ms: 0, whole_ms: None, shard: None }
}

#[tokio::test]
async fn what_has_not_changed_is_not_asked_again() {
    let world = World::new();
    for minute in 0..600 {
        world.write("a", minute * MINUTE_MS);
    }
    let (from, to) = (HOUR_MS + 7 * MINUTE_MS, 7 * HOUR_MS);
    assert_eq!(world.ask("a", from, to).await, [(from, to)], "all at once");
    assert_eq!(world.ask("a", from, to).await, []);
    assert_eq!(world.ask("a", from + 3 * MINUTE_MS, to - 3 * MINUTE_MS).await, [], "a part of it");
    // A bit later: extents have half an hour where steps have a minute.
    assert_eq!(world.ask("a", from + MINUTE_MS, to + MINUTE_MS).await, [(to, to + MINUTE_MS)]);
    assert_eq!(world.ask("a", from + MINUTE_MS, to + MINUTE_MS).await, []);
    // Back in time: the first extent has earlier steps now.
    let border = HOUR_MS + 29 * MINUTE_MS;
    assert_eq!(world.ask("a", from - MINUTE_MS, to).await, [(from - MINUTE_MS, border)]);
    // Other questions.
    let all = [(from, to)];
    assert_eq!(world.ask("b", from, to).await, all, "another tenant");
    assert_eq!(world.ask("a", from + 1, to).await, [(from + 1, to - MINUTE_MS + 1)], "between the steps");
    assert_eq!(world.ask_query("a", &query("up offset 1m", from, to, MINUTE_MS)).await, all);
    let lookback = MetricsQuery { lookback_ms: MINUTE_MS, ..query("up", from, to, MINUTE_MS) };
    assert_eq!(world.ask_query("a", &lookback).await, all);
    assert_eq!(world.ask_query("a", &query(" up ", from, to, MINUTE_MS)).await, [], "the same");
    // What depends on the ends of the whole is remembered for these.
    let ends = "up + up @ end()";
    assert_eq!(world.ask_query("a", &query(ends, from, to, MINUTE_MS)).await, all);
    assert_eq!(world.ask_query("a", &query(ends, from, to, MINUTE_MS)).await, []);
    assert_eq!(
        world.ask_query("a", &query(ends, from, to - MINUTE_MS, MINUTE_MS)).await,
        [(from, to - MINUTE_MS)]
    );
}

#[tokio::test]
async fn a_late_write_is_seen_at_once() {
    let world = World::new();
    (0..600).for_each(|minute| world.write("a", minute * MINUTE_MS));
    let (from, to) = (HOUR_MS, 7 * HOUR_MS - MINUTE_MS);
    world.ask("a", from, to).await;
    // Steps up to five minutes later see it: the extent that it is in, and the next one.
    world.write("a", 3 * HOUR_MS - MINUTE_MS);
    let seen = (3 * HOUR_MS - 30 * MINUTE_MS, 3 * HOUR_MS + 29 * MINUTE_MS);
    assert_eq!(world.ask("a", from, to).await, [seen]);
    assert_eq!(world.ask("a", from, to).await, []);
    world.write("b", 3 * HOUR_MS);
    assert_eq!(world.ask("a", from, to).await, [], "of another tenant");
    // One that arrives while the answer is being made: what is remembered is without it, and known to be.
    world.write("a", 2 * HOUR_MS + MINUTE_MS);
    *world.querier.meanwhile.lock() = Some(("a", 2 * HOUR_MS + 2 * MINUTE_MS));
    let ctx = QueryContext::unlimited(TenantId::new("a").unwrap());
    world.front.metrics(&ctx, &query("up", from, to, MINUTE_MS)).await.unwrap();
    assert_eq!(world.ask("a", from, to).await, [(2 * HOUR_MS, 2 * HOUR_MS + 29 * MINUTE_MS)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_whole_is_not_remembered() {
    let world = World::new();
    (0..600).for_each(|minute| world.write("a", minute * MINUTE_MS));
    let (from, to) = (HOUR_MS, 2 * HOUR_MS);
    world.miss_a_zone(&query("up", from, to, MINUTE_MS)).await;
    assert_eq!(world.ask("a", from, to).await, [(from, to)]);
    let says: [fn(&QueryContext); 2] = [|ctx| ctx.warn("a warning"), |ctx| ctx.info("an info")];
    for say in says {
        *world.querier.says.lock() = Some(say);
        assert_eq!(world.ask("a", from, to).await, [(from, to)]);
    }
    *world.querier.says.lock() = None;
    assert_eq!(world.ask("a", from, to).await, [(from, to)], "nothing was remembered");
    // Where not everybody tells what he has, what is remembered does not count, and the answer is whole all the same.
    *world.stores.missed.lock() = Some("ingester-b-0: does not answer");
    let ctx = QueryContext::unlimited(TenantId::new("a").unwrap());
    world.asked();
    world.front.metrics(&ctx, &query("up", from, to, MINUTE_MS)).await.unwrap();
    assert_eq!((world.asked(), ctx.report().missed.len()), (vec![(from, to)], 0));
    *world.stores.missed.lock() = None;
    assert_eq!(world.ask("a", from, to).await, []);
    // Who asks for an answer made anew gets one.
    world.front.fresh().metrics(&ctx, &query("up", from, to, MINUTE_MS)).await.unwrap();
    assert_eq!(world.asked(), [(from, to), (from, to)], "once to compare");
    // No series, no time, too many steps: asked as they are.
    for question in [
        query("vector(1)", from, to, MINUTE_MS),
        query("up", from, from, 0),
        query("up", from, to, 400 * 24 * HOUR_MS),
        query("up", 0, 10 * HOUR_MS, 1000),
    ] {
        let first = world.ask_query("a", &question).await;
        assert_eq!((first.len(), world.ask_query("a", &question).await), (1, first));
    }
}

#[tokio::test]
async fn few_pieces_are_asked_at_a_time() {
    let found = |text: &str| pieces(text.chars().map(|c| c != 'x'));
    assert_eq!(found("xx"), []);
    assert_eq!(found("..x.xx.."), [(0, 1), (3, 3), (6, 7)]);
    assert_eq!(found("x.x.x.x.x.x"), [(1, 9)]);
    let world = World::new();
    (0..600).for_each(|minute| world.write("a", minute * MINUTE_MS));
    world.ask("a", HOUR_MS, 9 * HOUR_MS).await;
    (2..8).for_each(|hour| world.write("a", hour * HOUR_MS + 10 * MINUTE_MS));
    let all = (2 * HOUR_MS, 7 * HOUR_MS + 29 * MINUTE_MS);
    assert_eq!(world.ask("a", HOUR_MS, 9 * HOUR_MS).await, [all]);
    assert_eq!(world.ask("a", HOUR_MS, 9 * HOUR_MS).await, []);
}

#[test]
fn extents_have_all_steps_between_their_ends() {
    for (extent, step, phase) in [(100, 7, 3), (100, 10, 0), (60, 60, 5), (30, 1, 0)] {
        for at in (-3 * extent + phase..3 * extent).step_by(step as usize) {
            let (first, last) = steps_of_extent(at, step, extent);
            let all: Vec<i64> = (-1000..1000)
                .filter(|t: &i64| (t - at) % step == 0 && t.div_euclid(extent) == at.div_euclid(extent))
                .collect();
            assert_eq!((Some(&first), Some(&last)), (all.first(), all.last()), "{at} {step} {extent}");
        }
    }
}

#[test]
fn extents_follow_from_the_step() {
    let minutes = |step_ms| extent_length(step_ms, 1).map(|ms| ms / MINUTE_MS);
    assert_eq!(minutes(1), Some(15));
    assert_eq!(minutes(30_000), Some(15));
    assert_eq!(minutes(MINUTE_MS), Some(30));
    assert_eq!(minutes(HOUR_MS), Some(32 * 60));
    assert_eq!(minutes(365 * 24 * HOUR_MS), None);
    assert_eq!(extent_length(30_000_000_000, 1_000_000), Some(15 * 60 * 1_000_000_000));
}

#[derive(Debug, Clone)]
enum Act {
    Write { tenant: bool, minute: i64 },
    Ask { tenant: bool, start: i64, minutes: i64, step: i64 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (any::<bool>(), 0i64..600).prop_map(|(tenant, minute)| Act::Write { tenant, minute }),
        (any::<bool>(), 0i64..300, 0i64..300, 1i64..5).prop_map(|(tenant, start, minutes, step)| Act::Ask {
            tenant,
            start,
            minutes,
            step
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn remembered_is_made_anew(acts in proptest::collection::vec(act(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
            let world = World::new();
            let name = |tenant| if tenant { "a" } else { "b" };
            for act in acts {
                match act {
                    Act::Write { tenant, minute } => world.write(name(tenant), minute * MINUTE_MS),
                    Act::Ask { tenant, start, minutes, step } => {
                        let (start, step) = (start * MINUTE_MS, step * 20_000);
                        let query = query("up", start, start + minutes * MINUTE_MS, step);
                        world.ask_query(name(tenant), &query).await;
                    }
                }
            }
        });
    }
}
