//! Remote write: targets as a cluster has them, a thousand series each, 2,000 samples in a request.

use crate::load::{Question, Source, Span, now_ns};
use crate::patch::{Body, Random, Request, padded_varint, snappy};

const SAMPLES_PER_REQUEST: usize = 2000;
const SERIES_PER_TARGET: usize = 1000;
/// Distance of a series' samples as stored; they are sent as fast as they are taken.
const STEP_MS: u64 = 15_000;
/// Where the first sample of each series stands.
const SINCE_MS: u64 = 50 * 60 * 1000;

const JOBS: [&str; 8] =
    ["checkout", "cart", "frontend", "payments", "search", "shipping", "users", "gateway"];
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const STATUS: [&str; 5] = ["200", "201", "400", "404", "500"];
const BUCKETS: [&str; 10] = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf"];

#[derive(Clone, Copy)]
enum Shape {
    /// Grows by whole numbers.
    Counter,
    /// Wanders, two decimals.
    Gauge,
    /// Wanders, whole numbers (bytes in pages).
    Bytes,
}

struct Series {
    shape: Shape,
    value: f64,
}

struct Slice {
    request: Request,
    series: Vec<Series>,
    /// Of the samples sent last.
    t_ms: u64,
    rounds: u64,
}

struct Metrics {
    slices: Vec<Slice>,
    turn: usize,
    random: Random,
    start_ms: u64,
}

/// One source per connection; a series always comes through the same one.
pub fn sources(connections: usize, series: usize) -> Vec<Box<dyn Source>> {
    let start_ms = now_ns() / 1_000_000 - SINCE_MS;
    let requests = series.div_ceil(SAMPLES_PER_REQUEST);
    (0..connections.min(requests))
        .map(|connection| {
            let slices = (connection..requests)
                .step_by(connections)
                .map(|r| {
                    let first = r * SAMPLES_PER_REQUEST;
                    slice(first, series.min(first + SAMPLES_PER_REQUEST))
                })
                .collect();
            let random = Random(connection as u64);
            Box::new(Metrics { slices, turn: 0, random, start_ms }) as Box<dyn Source>
        })
        .collect()
}

fn slice(first: usize, end: usize) -> Slice {
    let mut body = Body::default();
    let mut series = Vec::new();
    for index in first..end {
        let (labels, shape) = labels(index);
        let mut one = Body::default();
        for (name, value) in &labels {
            let mut label = Body::default();
            label.text(1, name);
            label.text(2, value);
            one.message(1, label);
        }
        let mut sample = Body::default();
        sample.tag(1, 1);
        sample.hole(8);
        sample.tag(2, 0);
        sample.hole(6);
        one.message(2, sample);
        body.message(1, one);
        series.push(Series { shape, value: (index % 1000) as f64 * 17.0 });
    }
    let data_bytes = body.bytes.len() as u64;
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    let request = Request::new("/api/v1/write", &headers, snappy(body), (end - first) as u64, data_bytes);
    Slice { request, series, t_ms: 0, rounds: 0 }
}

/// Labels sorted by name, as remote write wants them.
fn labels(index: usize) -> (Vec<(&'static str, String)>, Shape) {
    let (target, n) = (index / SERIES_PER_TARGET, index % SERIES_PER_TARGET);
    let job = JOBS[target % JOBS.len()];
    let pod = format!(
        "{job}-{:010x}-{:05x}",
        (target as u64 / 7).wrapping_mul(0x9E37_79B9) & 0xff_ffff_ffff,
        target
    );
    let mut labels = vec![
        ("cluster", "prod-eu-1".to_owned()),
        ("instance", format!("10.{}.{}.{}:8080", target >> 16 & 255, target >> 8 & 255, target & 255)),
        ("job", job.to_owned()),
        ("namespace", format!("shop-{job}")),
        ("node", format!("ip-10-0-{}-{}.eu-west-1.compute.internal", target % 40, target % 11)),
        ("pod", pod),
    ];
    let route = |n: usize| format!("/api/v1/{job}/resource-{n}");
    let (name, shape) = match n {
        // 400 buckets: 10 routes, 4 methods, 10 bounds.
        0..400 => {
            labels.push(("le", BUCKETS[n % 10].to_owned()));
            labels.push(("method", METHODS[n / 10 % 4].to_owned()));
            labels.push(("route", route(n / 40)));
            ("http_request_duration_seconds_bucket".to_owned(), Shape::Counter)
        }
        // 200 counters: 10 routes, 4 methods, 5 codes.
        400..600 => {
            labels.push(("method", METHODS[n / 5 % 4].to_owned()));
            labels.push(("route", route(n / 20 % 10)));
            labels.push(("status", STATUS[n % 5].to_owned()));
            ("http_requests_total".to_owned(), Shape::Counter)
        }
        600..700 => {
            labels.push(("container", format!("{job}-{}", n % 5)));
            (format!("container_memory_stat_{}_bytes", (n - 600) / 5), Shape::Bytes)
        }
        700..900 => {
            labels.push(("pool", format!("pool-{}", n % 20)));
            (format!("runtime_pool_{}_total", (n - 700) / 20), Shape::Counter)
        }
        _ => (format!("app_internal_state_{}", n - 900), Shape::Gauge),
    };
    labels.push(("__name__", name));
    labels.sort_unstable_by_key(|(name, _)| *name);
    (labels, shape)
}

impl Source for Metrics {
    fn next(&mut self) -> &Request {
        let turn = self.turn;
        self.turn = (turn + 1) % self.slices.len();
        let slice = &mut self.slices[turn];
        // From the past towards now, then with the clock.
        let planned = self.start_ms + slice.rounds * STEP_MS;
        slice.t_ms = planned.min(now_ns() / 1_000_000).max(slice.t_ms + 1);
        slice.rounds += 1;
        let time = padded_varint::<6>(slice.t_ms);
        for (i, series) in slice.series.iter_mut().enumerate() {
            let random = self.random.next();
            series.value = match series.shape {
                Shape::Counter => series.value + (random & 31) as f64,
                Shape::Gauge => ((series.value * 100.0 + (random & 255) as f64 - 127.0).round()) / 100.0,
                Shape::Bytes => series.value + ((random & 15) as f64 - 7.0) * 4096.0,
            };
            slice.request.fill(2 * i, &series.value.to_bits().to_le_bytes());
            slice.request.fill(2 * i + 1, &time);
        }
        &slice.request
    }

    fn requests_min(&self) -> usize {
        self.slices.len()
    }
}

pub fn questions() -> Vec<Question> {
    let instant = |name, pairs| Question { name, path: "/api/v1/query", pairs, span: Span::Instant };
    let range = |name, pairs| Question { name, path: "/api/v1/query_range", pairs, span: Span::Seconds };
    vec![
        instant("one target's series", &[("query", "last_over_time({instance=\"10.0.0.3:8080\"}[1h])")]),
        instant(
            "sum by (job) over all requests",
            &[("query", "sum by (job) (last_over_time(http_requests_total[1h]))")],
        ),
        range(
            "rate by job, 1 h",
            &[("query", "sum by (job) (rate(http_requests_total{status=\"500\"}[5m]))"), ("step", "15")],
        ),
        range(
            "p99 of one job, 1 h",
            &[
                (
                    "query",
                    "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket{job=\"cart\"}[5m])))",
                ),
                ("step", "60"),
            ],
        ),
        range("topk(10), 1 h", &[("query", "topk(10, app_internal_state_7)"), ("step", "60")]),
        Question { name: "values of pod", path: "/api/v1/label/pod/values", pairs: &[], span: Span::Seconds },
    ]
}
