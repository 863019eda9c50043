//! Seeds that must pass. `SEED=7` replays one of any number and prints what happens; `STORM=10`: with a storm of ten seconds.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use triptych_testkit::{Mutant, Options, Outcome, run};

/// Of every run of the tests: the list is fixed, so that a change either passes or does not.
const SEEDS: u64 = 100;
/// Besides, with a storm of a quarter of the length: most of what the first seconds can do, for half the time.
const SHORT_SEEDS: u64 = 200;
const SHORT: Duration = Duration::from_secs(10);
/// A mutant must be found among so many.
const MUTANT_SEEDS: u64 = 60;

fn simulate(seed: u64, options: Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(run(seed, options))
}

/// The seeds on all cores, in any order; what failed, in the order of the seeds.
fn simulate_all(seeds: u64, options: Options, stop_at_first: bool) -> Vec<(u64, Outcome)> {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let outcome = simulate(seed, options);
                    if !outcome.violations.is_empty() {
                        failed.lock().unwrap().push((seed, outcome));
                        if stop_at_first {
                            next.store(seeds, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_by_key(|(seed, _)| *seed);
    failed
}

#[test]
fn nothing_acknowledged_is_lost_and_no_answer_lies() {
    if let Ok(seed) = std::env::var("SEED") {
        let seed = seed.parse().unwrap();
        if std::env::var("RUST_LOG").is_ok() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
        }
        let storm = std::env::var("STORM").map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
        let options = Options::default();
        let outcome =
            simulate(seed, Options { is_printed: true, storm: storm.unwrap_or(options.storm), ..options });
        println!("digest {:016x}", outcome.digest);
        assert!(outcome.violations.is_empty(), "seed {seed}: {outcome:#?}");
        return;
    }
    let storms = [(SEEDS, Options::default()), (SHORT_SEEDS, Options { storm: SHORT, ..Options::default() })];
    for (seeds, options) in storms {
        let failed = simulate_all(seeds, options, false);
        let seeds: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
        let (first, storm) = (failed.first(), options.storm.as_secs());
        assert!(
            failed.is_empty(),
            "seeds that fail: {seeds:?}; STORM={storm} SEED={} shows the first: {first:#?}",
            seeds[0]
        );
    }
}

#[test]
fn a_seed_decides_everything() {
    if std::env::var("SEED").is_ok() {
        return;
    }
    let mut digests = Vec::new();
    for seed in 0..4 {
        let outcome = simulate(seed, Options::default());
        assert!(outcome.acknowledged > 50, "seed {seed} does next to nothing: {outcome:?}");
        assert_eq!(
            simulate(seed, Options::default()),
            outcome,
            "seed {seed} is not the same the second time"
        );
        digests.push(outcome.digest);
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 4, "seeds differ");
}

#[test]
#[ignore = "takes a minute: shows that the simulation finds bugs"]
fn mutants_are_found() {
    let mut unseen = Vec::new();
    for mutant in Mutant::ALL {
        let options = Options { mutant: Some(*mutant), ..Options::default() };
        match simulate_all(MUTANT_SEEDS, options, true).first() {
            Some((seed, outcome)) => println!("{mutant:?}: seed {seed}: {}", outcome.violations[0]),
            None => unseen.push(mutant),
        }
    }
    assert!(unseen.is_empty(), "not found in {MUTANT_SEEDS} seeds: {unseen:?}");
}
