//! `cargo run --release -p triptych-testkit --example simulate -- [seeds] [first]`: runs seeds that no test has, on all cores.

use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use triptych_testkit::{Options, run};

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let seeds = args.next().unwrap_or(10_000);
    let first = args.next().unwrap_or_else(triptych_runtime::random::random_u64) >> 1;
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {elapsed}, {eta} left, {msg}");
    let bar = ProgressBar::new(seeds).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message("none failed");
    let (next, failed, events) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= seeds {
                        return;
                    }
                    let seed = first + number;
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_time()
                        .start_paused(true)
                        .build();
                    let Ok(runtime) = runtime else { return };
                    let outcome = runtime.block_on(run(seed, Options::default()));
                    events.fetch_add(outcome.events, Ordering::Relaxed);
                    if let Some(violation) = outcome.violations.first() {
                        let failed = failed.fetch_add(1, Ordering::Relaxed) + 1;
                        bar.set_message(format!("{failed} failed"));
                        bar.suspend(|| println!("SEED={seed}: {violation}"));
                    }
                    bar.inc(1);
                }
            });
        }
    });
    bar.finish();
    let (failed, events) = (failed.into_inner(), events.into_inner());
    println!("{seeds} seeds from {first}, {events} events, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}
