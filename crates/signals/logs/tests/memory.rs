//! `Head::bytes`, which the ingester's ceiling rests on, against what the allocator handed out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use triptych_logs::{Head, HeadConfig};
use triptych_model::Labels;
use triptych_model::batch::{LogRecordEntry, LogsBuilder};

static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[allow(
    unsafe_code,
    reason = "counts what the system's allocator hands out; every call is passed on as it is"
)]
// SAFETY: every method forwards its arguments to `System` unchanged and returns what it returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How far the estimate may be from what is held.
const FACTOR: f64 = 1.25;

/// What is sent to a head.
struct Load {
    streams: usize,
    lines_per_stream: usize,
    /// Structured metadata that differs from line to line.
    ids: bool,
}

fn batch(load: &Load, round: usize, lines: usize) -> LogsBuilder {
    let mut out = LogsBuilder::default();
    for stream in 0..load.streams {
        let pod = format!("checkout-6f7c9d8b5-{stream:05x}");
        let labels =
            Labels::from_pairs([("app", "checkout"), ("cluster", "prod-eu-1"), ("pod", pod.as_str())]);
        let lines: Vec<(i64, String, Labels)> = (0..lines)
            .map(|i| {
                let n = (round * lines + i) as u64;
                let random = (n * 1_000_003 + stream as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let line = format!(
                    "level=info caller=handler.go:{} msg=\"request handled\" path=/api/v1/resource-{} \
                     status=200 took_us={} user={} trace={random:016x}",
                    random % 40,
                    random % 71,
                    random % 900_000,
                    random % 1_000_003,
                );
                let id = if load.ids { format!("{random:032x}") } else { String::new() };
                let metadata = Labels::from_pairs([("detected_level", "info"), ("trace_id", id.as_str())]);
                (1_700_000_000_000_000_000 + n as i64 * 1_000_000, line, metadata)
            })
            .collect();
        let entries: Vec<LogRecordEntry<'_>> = lines
            .iter()
            .map(|(ts_ns, line, metadata)| LogRecordEntry {
                ts_ns: *ts_ns,
                line,
                metadata: metadata.as_encoded(),
            })
            .collect();
        out.stream(labels.hash64(), labels.as_encoded(), entries.into_iter());
    }
    out
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn the_estimate_is_what_is_held() {
    const LINES_PER_BATCH: usize = 100;
    // The thread's compressor is not the head's.
    let warm = Head::new(HeadConfig::default());
    let once = Load { streams: 1, lines_per_stream: 3_000, ids: false };
    warm.append(batch(&once, 0, once.lines_per_stream).plain()).expect("batch");
    drop(warm);
    for (name, load) in [
        ("many blocks", Load { streams: 4, lines_per_stream: 20_000, ids: false }),
        ("open blocks", Load { streams: 20, lines_per_stream: 1_000, ids: false }),
        ("metadata", Load { streams: 4, lines_per_stream: 10_000, ids: true }),
        ("streams", Load { streams: 5_000, lines_per_stream: 2, ids: false }),
    ] {
        let before = HELD.load(Ordering::Relaxed);
        let head = Head::new(HeadConfig::default());
        let lines = LINES_PER_BATCH.min(load.lines_per_stream);
        for round in 0..load.lines_per_stream / lines {
            let report = head.append(batch(&load, round, lines).plain()).expect("batch");
            assert_eq!(report.accepted as usize, load.streams * lines);
        }
        let held = HELD.load(Ordering::Relaxed) - before;
        let factor = head.bytes() as f64 / held as f64;
        println!("{name}: {held} bytes held, {} estimated: {factor:.2}", head.bytes());
        assert!((1.0 / FACTOR..FACTOR).contains(&factor), "{name}: {held} held, {} estimated", head.bytes());
        drop(head);
        let left = HELD.load(Ordering::Relaxed) - before;
        assert!(left < 64 << 10, "{name}: {left} bytes left behind");
    }
}
