use triptych_model::Labels;
use triptych_model::metrics::{Sample, SeriesSamples};

use super::*;

const STEPS: Steps = Steps { first_ms: 1000, last_ms: 1900, step_ms: 100 };

fn key(tenant: &str, extent: i64) -> Key {
    let question = Question {
        tenant: TenantId::new(tenant).unwrap(),
        signal: Signal::Metrics,
        text: "up".into(),
        lookback_ms: 0,
        whole_ms: None,
        step: 100,
        phase: 0,
        extent: 1000,
    };
    (Arc::new(question), extent)
}

fn answer(value: f64) -> Packed {
    let samples = vec![Sample { t_ms: 1000, value }];
    Packed::new(&[SeriesSamples { labels: Labels::from_pairs([("name", "a")]), samples }], STEPS).unwrap()
}

fn entry_bytes() -> usize {
    ENTRY_BYTES + "up".len() + answer(1.0).bytes()
}

fn version(name: &str) -> Version {
    Version::of_part(name.as_bytes())
}

/// Asked for now.
fn wanted(version: Version) -> Wanted {
    Wanted { steps: STEPS, version, asked_at: Instant::now() }
}

fn look<'a>(results: &'a Results, key: &Key, wanted: Wanted) -> Found<'a> {
    results.look(&[(key.clone(), wanted)]).remove(0)
}

/// Asks a moment later, so that it is not taken for a question that began before the making.
async fn look_later<'a>(results: &'a Results, key: &Key, version: Version) -> Found<'a> {
    tokio::time::advance(Duration::from_millis(1)).await;
    look(results, key, wanted(version))
}

async fn is_there(results: &Results, key: &Key) -> bool {
    matches!(look_later(results, key, Version::default()).await, Found::Answer(_))
}

async fn keep(results: &Results, key: &Key, version: Version, answer: Packed) {
    match look_later(results, key, version).await {
        Found::Ours(promise) => promise.keep(answer),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_with_its_version_and_for_its_steps() {
    let results = Results::new(MemoryBudget::new("results", 1 << 20));
    let [one, two] = ["1", "2"].map(version);
    keep(&results, &key("a", 1), one, answer(1.0)).await;
    tokio::time::advance(Duration::from_millis(1)).await;
    let has = |key, version, steps| {
        let wanted = Wanted { steps, ..wanted(version) };
        matches!(look(&results, &key, wanted), Found::Answer(_))
    };
    assert!(has(key("a", 1), one, STEPS) && has(key("a", 1), one, Steps { first_ms: 1300, ..STEPS }));
    assert!(!has(key("a", 1), two, STEPS), "the data are others");
    assert!(!has(key("a", 1), one, Steps { last_ms: 2000, ..STEPS }), "a step more");
    assert!(!has(key("a", 2), one, STEPS) && !has(key("b", 1), one, STEPS), "asked by nobody, by another");
    keep(&results, &key("a", 1), two, answer(2.0)).await;
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(has(key("a", 1), two, STEPS) && !has(key("a", 1), one, STEPS));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_asked_for_the_longest_time_goes_first() {
    let memory = MemoryBudget::new("results", 10 * entry_bytes());
    let results = Results::new(memory.clone());
    let keys: Vec<Key> = (0..12).map(|at| key("a", at)).collect();
    for key in &keys[..10] {
        keep(&results, key, Version::default(), answer(1.0)).await;
    }
    assert_eq!(memory.used(), 10 * entry_bytes());
    assert!(is_there(&results, &keys[0]).await);
    keep(&results, &keys[10], Version::default(), answer(1.0)).await;
    for (at, want) in [(0, true), (1, false), (2, true), (10, true)] {
        assert_eq!(is_there(&results, &keys[at]).await, want, "{at}");
    }
    assert_eq!(memory.used(), 10 * entry_bytes());
    // The same again takes its own place.
    keep(&results, &keys[10], version("newer"), answer(1.0)).await;
    assert_eq!(memory.used(), 10 * entry_bytes());
    // Random bits, which do not get smaller.
    let mut state = 1;
    let noise: Vec<_> = (0..2000)
        .map(|i| Sample {
            t_ms: i * 100,
            value: f64::from_bits(triptych_runtime::random::split_mix(&mut state)),
        })
        .collect();
    let noise = SeriesSamples { labels: Labels::empty(), samples: noise };
    let steps = Steps { first_ms: 0, last_ms: 199_900, step_ms: 100 };
    keep(&results, &keys[11], Version::default(), Packed::new(&[noise], steps).unwrap()).await;
    assert_eq!(memory.used(), 10 * entry_bytes(), "one that is too large makes nobody go");
    drop(results);
    assert_eq!(memory.used(), 0);
}

/// How many entries each tenant has.
fn entries(results: &Results) -> [usize; 3] {
    let state = results.state.lock();
    let entries =
        |tenant: &str| state.tenants.get(&TenantId::new(tenant).unwrap()).map_or(0, |h| h.order.len());
    ["flood", "busy", "idle"].map(entries)
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_floods_makes_its_own_answers_go() {
    let memory = MemoryBudget::new("results", 30 * entry_bytes());
    let results = Results::new(memory.clone());
    let fill = async |tenant: &str, count: i64, version: Version| {
        for at in 0..count {
            keep(&results, &key(tenant, at), version, answer(1.0)).await;
        }
    };
    fill("flood", 30, version("0")).await;
    assert_eq!(entries(&results), [30, 0, 0], "alone it has everything");
    fill("idle", 5, version("0")).await;
    fill("busy", 20, version("0")).await;
    let [flood, busy, idle] = entries(&results);
    assert!(
        flood + busy == 25 && flood.abs_diff(busy) == 1 && idle == 5,
        "who holds the most gives, until they are even"
    );
    // However much it asks for.
    for round in 1..4 {
        fill("flood", 200, version(&round.to_string())).await;
    }
    let [flood, busy, idle] = entries(&results);
    assert!(flood + busy == 25 && flood.abs_diff(busy) == 1 && idle == 5, "{flood} {busy} {idle}");
    assert_eq!(memory.used(), 30 * entry_bytes());
    assert_eq!(memory.used(), results.state.lock().tenants.values().map(|held| held.bytes).sum::<usize>());
    // What nobody asks for any more goes before anything else.
    tokio::time::advance(IDLE + Duration::from_secs(1)).await;
    fill("flood", 30, version("4")).await;
    assert_eq!(entries(&results), [30, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn who_asks_meanwhile_waits_where_the_answer_will_be_good() {
    let results = Results::new(MemoryBudget::new("results", 1 << 20));
    let (key, [one, two]) = (key("a", 1), ["1", "2"].map(version));
    let before = wanted(two);
    let Found::Ours(promise) = look_later(&results, &key, one).await else { panic!() };
    // The same version; another one, of a question that began before.
    let Found::Theirs(same) = look_later(&results, &key, one).await else { panic!() };
    let Found::Theirs(earlier) = look(&results, &key, before) else { panic!() };
    // More steps, of nobody's making.
    let more = Wanted { steps: Steps { last_ms: 2000, ..STEPS }, ..before };
    assert!(matches!(look(&results, &key, more), Found::Ours(_)));
    promise.keep(answer(1.0));
    for theirs in [same, earlier] {
        assert!(matches!(theirs.told().await, Told::Answer(_)));
    }
    assert!(matches!(look(&results, &key, before), Found::Answer(_)), "when it is too late to wait, too");
    // Later, of other data: made anew, and older data do not take the place of newer ones.
    let Found::Ours(older) = look_later(&results, &key, two).await else { panic!() };
    let Found::Ours(newer) = look_later(&results, &key, version("3")).await else { panic!() };
    newer.keep(answer(3.0));
    older.keep(answer(2.0));
    assert!(matches!(look_later(&results, &key, version("3")).await, Found::Answer(_)));
}

#[tokio::test(start_paused = true)]
async fn a_promise_that_is_not_kept_is_told() {
    let results = Results::new(MemoryBudget::new("results", 1 << 20));
    let (key, one) = (key("a", 1), version("1"));
    let Found::Ours(promise) = look_later(&results, &key, one).await else { panic!() };
    let Found::Theirs(theirs) = look_later(&results, &key, one).await else { panic!() };
    promise.refuse();
    assert!(matches!(theirs.told().await, Told::Refused));
    let Found::Ours(promise) = look_later(&results, &key, one).await else { panic!("it is over") };
    let Found::Theirs(theirs) = look_later(&results, &key, one).await else { panic!() };
    // Somebody makes it of newer data meanwhile, and goes on when the first one goes away.
    let Found::Ours(newer) = look_later(&results, &key, version("2")).await else { panic!() };
    drop(promise);
    assert!(matches!(theirs.told().await, Told::GivenUp));
    assert!(matches!(look_later(&results, &key, version("2")).await, Found::Theirs(_)));
    drop(newer);
    assert!(results.state.lock().making.is_empty());
}
