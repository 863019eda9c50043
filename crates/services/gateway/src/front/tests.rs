//! Queriers that fail, hang and count; time stands still unless everybody waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use triptych_model::logs::{Direction, LogEntry, LogsQuery, LogsValue};
use triptych_model::metrics::{MetricsQuery, QueryValue, Sample, SeriesChunks, SeriesSamples, SeriesSelect};
use triptych_model::traces::TracesMetricsQuery;
use triptych_model::{Error, Kind, Labels, TenantId};
use triptych_ring::{Member, MemberState, Peer, peers};
use triptych_runtime::QueryLimits;

use super::*;
use crate::tests::Fake;

/// A querier whose answers wait for `gate` and fail with `fails` while there is one.
struct Scripted {
    gate: Semaphore,
    fails: Mutex<Option<Error>>,
    /// So many of the next answers miss something.
    misses: AtomicUsize,
    asked: AtomicUsize,
    /// Tenants in the order in which they were asked for.
    tenants: Mutex<Vec<String>>,
}

impl Scripted {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            fails: Mutex::default(),
            misses: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            tenants: Mutex::default(),
        })
    }

    /// Answers nothing until [`Scripted::answer`].
    fn hanging() -> Arc<Self> {
        let querier = Self::new();
        querier.gate.forget_permits(usize::MAX);
        querier
    }

    fn answer(&self, questions: usize) {
        self.gate.add_permits(questions);
    }

    fn fail(&self, error: Option<Error>) {
        *self.fails.lock() = error;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Query for Scripted {
    async fn metrics(&self, ctx: &QueryContext, query: &MetricsQuery) -> Result<QueryValue> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.tenants.lock().push(ctx.tenant().as_str().to_owned());
        self.gate.acquire().await.unwrap().forget();
        if let Some(error) = self.fails.lock().clone() {
            ctx.missed("of an attempt that failed");
            return Err(error);
        }
        ctx.add_rows(10)?;
        let less = |left: usize| left.checked_sub(1);
        if self.misses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            ctx.missed("two zones");
        }
        if query.step_ms == 0 {
            return Ok(QueryValue::Scalar(Sample { t_ms: query.start_ms, value: 1.0 }));
        }
        // A shard's part of a sum, at every step.
        let labels = Labels::from_pairs([("job", "a"), ("__part__", "sum")]);
        let steps = (query.start_ms..=query.end_ms).step_by(query.step_ms as usize);
        let samples = steps.map(|t_ms| Sample { t_ms, value: 1.0 }).collect();
        Ok(QueryValue::Matrix(vec![SeriesSamples { labels, samples }]))
    }
    /// A line every hour.
    async fn logs(&self, _: &QueryContext, query: &LogsQuery) -> Result<LogsValue> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let hours = (query.start_ns / HOUR_NS..query.end_ns / HOUR_NS).rev().take(query.limit);
        let line = |hour| LogEntry {
            labels: Labels::empty(),
            metadata: Labels::empty(),
            parsed: Labels::empty(),
            ts_ns: hour * HOUR_NS,
            line: "x".into(),
            key: 1,
        };
        Ok(LogsValue::Entries(hours.map(line).collect()))
    }
    async fn traces(&self, _: &QueryContext, _: &TracesMetricsQuery) -> Result<QueryValue> {
        Ok(QueryValue::Matrix(vec![]))
    }
    async fn read_samples(&self, _: &QueryContext, _: &SeriesSelect) -> Result<Stream<SeriesSamples>> {
        Ok(futures::stream::empty().boxed())
    }
    async fn read_chunks(&self, _: &QueryContext, _: &SeriesSelect) -> Result<Stream<SeriesChunks>> {
        Ok(futures::stream::empty().boxed())
    }
}

const HOUR_NS: i64 = 3_600_000_000_000;

fn peer(name: &str, query: Arc<dyn Query>) -> Peer<Backend> {
    let fake = Arc::new(Fake::default());
    let service = Backend { metrics: fake.clone(), logs: fake.clone(), traces: fake, query };
    Peer { member: Arc::new(Member::new(name, "", "")), service }
}

const SETTINGS: Settings = Settings {
    running_per_querier_max: 100,
    tenant_share_percent: 100,
    queued_per_tenant_max: 100,
    subqueries_per_request_max: 8,
    split_interval: Duration::ZERO,
    shards: 1,
};

fn front(settings: Settings, queriers: &[Arc<Scripted>]) -> Front {
    let peers = queriers.iter().enumerate().map(|(i, q)| peer(&format!("querier-{i}"), q.clone()));
    Front::new(settings, peers::fixed(peers), Engines::default(), None)
}

fn context(tenant: &str) -> QueryContext {
    QueryContext::unlimited(TenantId::new(tenant).unwrap())
}

fn up() -> MetricsQuery {
    MetricsQuery {
        expr: "up".into(),
        start_ms: 1,
        end_ms: 1,
        step_ms: 0,
        lookback_ms: 0,
        whole_ms: None,
        shard: None,
    }
}

/// Asks in a task of its own, and lets it come as far as it can.
async fn ask(front: &Front, ctx: &QueryContext) -> tokio::task::JoinHandle<Result<QueryValue>> {
    let (front, ctx) = (front.clone(), ctx.clone());
    let task = tokio::spawn(async move { Query::metrics(&front, &ctx, &up()).await });
    settle().await;
    task
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_least_busy_querier_is_asked() {
    let queriers = [Scripted::hanging(), Scripted::hanging(), Scripted::hanging()];
    let front = front(SETTINGS, &queriers);
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(ask(&front, &context("a")).await);
    }
    assert_eq!(queriers.each_ref().map(|q| q.asked()), [2, 2, 2]);
    // Where two are done, the next two go.
    queriers[1].answer(2);
    settle().await;
    tasks.push(ask(&front, &context("a")).await);
    tasks.push(ask(&front, &context("a")).await);
    assert_eq!(queriers.each_ref().map(|q| q.asked()), [2, 4, 2]);
    queriers.iter().for_each(|q| q.answer(10));
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_serve_is_not_asked() {
    let queriers = [Scripted::new(), Scripted::new(), Scripted::new(), Scripted::new()];
    let peer = |at: usize, state, is_alive| {
        let peer = peer(&format!("querier-{at}"), queriers[at].clone());
        Peer { member: Arc::new(Member { state, is_alive, ..(*peer.member).clone() }), ..peer }
    };
    let dead = [
        peer(0, MemberState::Active, false),
        peer(1, MemberState::Joining, true),
        peer(2, MemberState::Leaving, true),
    ];
    let members = watch::Sender::new(Arc::from([&dead[..], &[peer(3, MemberState::Active, true)]].concat()));
    let front = Front::new(SETTINGS, members.subscribe(), Engines::default(), None);
    for _ in 0..5 {
        Query::metrics(&front, &context("a"), &up()).await.unwrap();
    }
    assert_eq!(queriers.each_ref().map(|q| q.asked()), [0, 0, 0, 5]);
    // It fails, and there is nobody else to ask.
    queriers[3].fail(Some(Error::unavailable("refused")));
    Query::metrics(&front, &context("a"), &up()).await.unwrap_err();
    assert_eq!(queriers.each_ref().map(|q| q.asked()), [0, 0, 0, 8]);
    members.send_replace(Arc::from(dead));
    let e = Query::metrics(&front, &context("a"), &up()).await.unwrap_err();
    assert_eq!((e.kind, &*e.to_string()), (Kind::Unavailable, "none of the 3 known queriers serves now"));
}

#[tokio::test(start_paused = true)]
async fn another_querier_answers_for_one_that_fails() {
    let queriers = [Scripted::new(), Scripted::new()];
    let front = front(SETTINGS, &queriers);
    queriers[0].fail(Some(Error::unavailable("connection refused")));
    let ctx = context("a");
    Query::metrics(&front, &ctx, &up()).await.unwrap();
    assert_eq!(queriers.each_ref().map(|q| q.asked()), [1, 1]);
    assert_eq!(
        (ctx.report().missed.len(), ctx.report().rows),
        (0, 10),
        "of the failed attempt nothing counts"
    );
    // It is well again, but that is not known before it is asked again.
    queriers[0].fail(None);
    for _ in 0..5 {
        Query::metrics(&front, &ctx, &up()).await.unwrap();
    }
    assert_eq!(queriers.each_ref().map(|q| q.asked()), [1, 6]);
    tokio::time::advance(Duration::from_secs(11)).await;
    Query::metrics(&front, &ctx, &up()).await.unwrap();
    assert_eq!(queriers.each_ref().map(|q| q.asked()), [2, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_partial_answer_is_asked_for_again() {
    let queriers = [Scripted::new(), Scripted::new()];
    let front = front(SETTINGS, &queriers);
    let ask = async || {
        let ctx = context("a");
        Query::metrics(&front, &ctx, &up()).await.unwrap();
        assert_eq!(ctx.report().rows, 10, "of one attempt");
        (ctx.report().missed.len(), queriers[0].asked() + queriers[1].asked())
    };
    // One of them has not heard yet who is there.
    queriers[0].misses.store(1, Ordering::SeqCst);
    assert_eq!(ask().await, (0, 2));
    assert_eq!(queriers.each_ref().map(|q| q.asked()), [1, 1]);
    // What is missing is away: that is tried now and then.
    queriers.iter().for_each(|q| q.misses.store(usize::MAX, Ordering::SeqCst));
    assert_eq!(ask().await, (1, 5));
    assert_eq!(ask().await, (1, 6));
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(ask().await, (1, 9));
    // A part is better than nothing.
    tokio::time::advance(Duration::from_secs(11)).await;
    queriers[1].fail(Some(Error::new(Kind::Exhausted, "no")));
    assert_eq!(ask().await, (1, 11));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_and_only_of_what_may_help() {
    let check = async |error: Error, attempts: usize| {
        let queriers = [Scripted::new(), Scripted::new()];
        let front = front(SETTINGS, &queriers);
        queriers.iter().for_each(|q| q.fail(Some(error.clone())));
        let e = Query::metrics(&front, &context("a"), &up()).await.unwrap_err();
        assert_eq!((e.kind, queriers[0].asked() + queriers[1].asked()), (error.kind, attempts), "{e}");
        e.to_string()
    };
    let text = check(Error::unavailable("refused"), 3).await;
    assert!(text.ends_with(", after 3 attempts: refused"), "{text}");
    for kind in [Kind::Invalid, Kind::Exhausted, Kind::Cancelled, Kind::Damaged, Kind::Internal] {
        assert_eq!(check(Error::new(kind, "no"), 1).await, "no");
    }
    // Nobody can answer within no time.
    let queriers = [Scripted::new(), Scripted::new()];
    queriers.iter().for_each(|q| q.fail(Some(Error::unavailable("query timed out"))));
    let limits = QueryLimits { timeout: Duration::from_millis(90), ..QueryLimits::default() };
    let late = QueryContext::new(TenantId::single(), limits);
    let e = Query::metrics(&front(SETTINGS, &queriers), &late, &up()).await.unwrap_err();
    assert_eq!((e.to_string().as_str(), queriers[0].asked() + queriers[1].asked()), ("query timed out", 1));
    let e = Query::metrics(&front(SETTINGS, &[]), &context("a"), &up()).await.unwrap_err();
    assert_eq!((e.kind, e.to_string().as_str()), (Kind::Unavailable, "no querier is known"));
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns() {
    let querier = Scripted::hanging();
    let one = Settings { running_per_querier_max: 1, ..SETTINGS };
    let front = front(one, std::slice::from_ref(&querier));
    let mut tasks = Vec::new();
    for tenant in ["a", "a", "a", "a", "b", "b", "c"] {
        tasks.push(ask(&front, &context(tenant)).await);
    }
    assert_eq!(querier.asked(), 1);
    querier.answer(7);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(*querier.tenants.lock(), ["a", "a", "b", "c", "a", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn one_tenant_does_not_take_all_places() {
    let querier = Scripted::hanging();
    let half = Settings { running_per_querier_max: 4, tenant_share_percent: 50, ..SETTINGS };
    let front = front(half, std::slice::from_ref(&querier));
    let mut tasks = Vec::new();
    for tenant in ["a", "a", "a", "a", "a", "b"] {
        tasks.push(ask(&front, &context(tenant)).await);
    }
    assert_eq!(*querier.tenants.lock(), ["a", "a", "b"]);
    querier.answer(6);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_with_numbers() {
    let querier = Scripted::hanging();
    let small = Settings { running_per_querier_max: 1, queued_per_tenant_max: 2, ..SETTINGS };
    let front = front(small, std::slice::from_ref(&querier));
    let ctx = context("a");
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(ask(&front, &ctx).await);
    }
    let refused = Query::metrics(&front, &context("a"), &up()).await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after), (Kind::Exhausted, Some(Duration::from_secs(5))));
    assert_eq!(
        refused.to_string(),
        "too many queries: 2 of this tenant wait already, the limit is 2; 1 run, 1 of all tenants"
    );
    let response = axum::response::IntoResponse::into_response(crate::logs::Problem::from(refused));
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"5".parse().unwrap())
    );
    // Others have a queue of their own.
    tasks.push(ask(&front, &context("b")).await);
    // Who goes away, or is cancelled, leaves room.
    tasks.remove(1).abort();
    settle().await;
    tasks.push(ask(&front, &context("a")).await);
    ctx.cancel();
    for task in [tasks.remove(0), tasks.remove(0)] {
        assert_eq!(task.await.unwrap().unwrap_err().kind, Kind::Cancelled);
    }
    querier.answer(2);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(*querier.tenants.lock(), ["a", "b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_at_the_deadline() {
    let querier = Scripted::hanging();
    let one = Settings { running_per_querier_max: 1, ..SETTINGS };
    let front = front(one, std::slice::from_ref(&querier));
    let running = ask(&front, &context("a")).await;
    let limits = QueryLimits { timeout: Duration::from_secs(30), ..QueryLimits::default() };
    let late = QueryContext::new(TenantId::single(), limits);
    let e = Query::metrics(&front, &late, &up()).await.unwrap_err();
    assert!(e.kind == Kind::Unavailable && e.to_string().contains("waited"), "{e}");
    querier.answer(1);
    running.await.unwrap().unwrap();
    assert_eq!(querier.asked(), 1);
}

const DAY: Duration = Duration::from_secs(86_400);

/// From noon, over three days, by the hour: four spans.
fn long_sum() -> MetricsQuery {
    let hour_ms = HOUR_NS / 1_000_000;
    MetricsQuery {
        expr: "sum by (job) (up) * 2".into(),
        start_ms: 12 * hour_ms,
        end_ms: 84 * hour_ms,
        step_ms: hour_ms,
        ..up()
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_query_is_cut_and_put_together() {
    let queriers = [Scripted::new(), Scripted::new()];
    let front = front(Settings { split_interval: DAY, shards: 2, ..SETTINGS }, &queriers);
    let ctx = context("a");
    let QueryValue::Matrix(series) = Query::metrics(&front, &ctx, &long_sum()).await.unwrap() else {
        panic!()
    };
    assert_eq!(queriers[0].asked() + queriers[1].asked(), 4 * 2);
    assert_eq!((series.len(), series[0].labels.to_string().as_str()), (1, r#"{job="a"}"#));
    assert_eq!(series[0].samples.len(), 73);
    assert!(series[0].samples.iter().all(|s| s.value == 4.0), "twice one of each shard");
    assert_eq!(ctx.report().rows, 80, "of all parts");
}

#[tokio::test(start_paused = true)]
async fn parts_run_so_many_at_a_time_and_share_the_budget() {
    let querier = Scripted::hanging();
    let few = Settings { split_interval: DAY, shards: 2, subqueries_per_request_max: 4, ..SETTINGS };
    let front = front(few, std::slice::from_ref(&querier));
    let limits = QueryLimits { rows_max: 50, ..QueryLimits::default() };
    let ctx = QueryContext::new(TenantId::single(), limits);
    let (asking, whole) = (front.clone(), ctx.clone());
    let task = tokio::spawn(async move { Query::metrics(&asking, &whole, &long_sum()).await });
    settle().await;
    assert_eq!(querier.asked(), 4);
    querier.answer(100);
    let e = task.await.unwrap().unwrap_err();
    assert!(e.kind == Kind::Exhausted && e.to_string().contains("more than 50 rows"), "{e}");

    // The client goes: nothing is asked any more, and no place is taken.
    let querier = Scripted::hanging();
    let front = Front::new(few, peers::fixed([peer("querier", querier.clone())]), Engines::default(), None);
    let (asking, whole) = (front.clone(), context("a"));
    let task = tokio::spawn(async move { Query::metrics(&asking, &whole, &long_sum()).await });
    settle().await;
    task.abort();
    settle().await;
    querier.answer(100);
    settle().await;
    assert_eq!(querier.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn lines_are_looked_for_until_there_are_enough() {
    let querier = Scripted::new();
    let front = front(Settings { split_interval: DAY, ..SETTINGS }, std::slice::from_ref(&querier));
    let query = LogsQuery {
        expr: "{a=\"b\"}".into(),
        start_ns: 0,
        end_ns: 240 * HOUR_NS,
        step_ns: HOUR_NS,
        direction: Direction::Backward,
        limit: 5,
        shard: None,
        interval_ns: 0,
    };
    // Windows of one, two and four hours.
    let LogsValue::Entries(found) = Query::logs(&front, &context("a"), &query).await.unwrap() else {
        panic!()
    };
    let hours: Vec<i64> = found.iter().map(|e| e.ts_ns / HOUR_NS).collect();
    assert_eq!((hours, querier.asked()), (vec![239, 238, 237, 236, 235], 3));
}
