//! A million series: what they take, by the head's estimate and by the allocator. Ignored because it takes a gigabyte and a
//! release build: `cargo test -p triptych-metrics --release --test memory -- --ignored --nocapture`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use triptych_metrics::{Head, HeadConfig};
use triptych_model::Labels;
use triptych_model::batch::MetricsBuilder;
use triptych_model::metrics::Sample;

/// CPU time of this thread, so that a busy machine does not count. Linux only; 0 elsewhere.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[allow(
    unsafe_code,
    reason = "counts what the system's allocator hands out; every call is passed on as it is"
)]
// SAFETY: every method forwards its arguments to `System` unchanged and returns what it returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn labels(i: usize) -> Labels {
    let pod = format!("checkout-7d9f8b6c5d-{:05}", i / 100);
    let instance = format!("10.{}.{}.{}:9090", i / 25_600 % 256, i / 100 % 256, i % 7);
    Labels::from_pairs([
        ("__name__", format!("http_request_duration_seconds_{}", i % 100).as_str()),
        ("cluster", "eu-central-1"),
        ("container", "checkout"),
        ("endpoint", "/api/v1/orders"),
        ("instance", &instance),
        ("job", "default/checkout"),
        ("namespace", "shop"),
        ("pod", &pod),
        ("service", "checkout"),
        ("zone", ["a", "b", "c"][i % 3]),
    ])
}

#[test]
#[ignore = "takes a gigabyte; run in release"]
fn a_million_series_stay_below_a_gibibyte() {
    const SERIES: usize = 1_000_000;
    let head = Head::new(HeadConfig::default());
    let all: Vec<(u64, Labels)> = (0..SERIES).map(labels).map(|l| (l.hash64(), l)).collect();
    let before = HELD.load(Ordering::Relaxed);
    let mut builder = MetricsBuilder::default();
    let mut seconds = 0.0;
    // Half of a chunk each: a scrape a minute over an hour.
    for scrape in 0..60i64 {
        for from in (0..SERIES).step_by(5000) {
            builder.clear();
            for (i, (hash, labels)) in all.iter().enumerate().skip(from).take(5000) {
                let sample = Sample {
                    t_ms: 1_600_000_000_000 + scrape * 60_000,
                    value: (scrape * (i as i64 % 50)) as f64,
                };
                builder.series(*hash, labels.as_encoded(), &[sample]);
            }
            let start = cpu_seconds();
            assert_eq!(head.append(builder.plain()).expect("batch").accepted, 5000);
            seconds += cpu_seconds() - start;
        }
        if scrape == 0 {
            println!("creation: {:.0} series a CPU second", SERIES as f64 / seconds);
            seconds = 0.0;
            let held = HELD.load(Ordering::Relaxed) - before;
            println!("new: {} bytes a series held, {} estimated", held / SERIES, head.bytes() / SERIES);
        }
    }
    println!("append: {:.0} samples a CPU second", 59.0 * SERIES as f64 / seconds);
    drop(builder);
    let held = HELD.load(Ordering::Relaxed) - before;
    println!(
        "60 samples: {} bytes a series held, {} estimated, peak {} MiB",
        held / SERIES,
        head.bytes() / SERIES,
        PEAK.load(Ordering::Relaxed) >> 20
    );
    assert!(held < 1 << 30, "{held} bytes");
    let estimate = head.bytes() as f64 / held as f64;
    assert!((0.7..1.3).contains(&estimate), "the estimate is {estimate} of what is held");
}
