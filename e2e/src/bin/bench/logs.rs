//! Loki push: 200 streams, lines of about 200 bytes, half JSON and half logfmt.

use crate::load::{Question, Source, Span, now_ns};
use crate::patch::{Body, Random, Request, padded_varint, snappy};

const STREAMS: usize = 200;
const LINES_PER_REQUEST: usize = 2000;
/// Different requests per connection.
const VARIANTS: usize = 4;

const APPS: [&str; 10] =
    ["checkout", "cart", "frontend", "payments", "search", "shipping", "users", "gateway", "mailer", "ads"];

struct Variant {
    request: Request,
    lines: usize,
}

struct Logs {
    variants: Vec<Variant>,
    turn: usize,
    random: Random,
}

/// One source per connection; a stream always comes through the same one.
pub fn sources(connections: usize) -> Vec<Box<dyn Source>> {
    (0..connections)
        .map(|connection| {
            let mut random = Random(connection as u64 + 1);
            let streams: Vec<usize> = (connection..STREAMS.max(connections)).step_by(connections).collect();
            let variants = (0..VARIANTS).map(|_| variant(&streams, &mut random)).collect();
            Box::new(Logs { variants, turn: 0, random }) as Box<dyn Source>
        })
        .collect()
}

fn variant(streams: &[usize], random: &mut Random) -> Variant {
    let mut body = Body::default();
    let mut data_bytes = 0;
    let per_stream = LINES_PER_REQUEST.div_ceil(streams.len());
    for stream in streams {
        let app = APPS[stream % APPS.len()];
        let mut one = Body::default();
        one.text(
            1,
            &format!(
                "{{app=\"{app}\", cluster=\"prod-eu-1\", container=\"{app}\", namespace=\"shop-{app}\", pod=\"{app}-6f7c9d8b5-{stream:05x}\"}}"
            ),
        );
        for _ in 0..per_stream {
            let (line, id_at) = line(app, stream % 2 == 0, random);
            data_bytes += line.len() as u64;
            let mut time = Body::default();
            time.tag(1, 0);
            time.hole(5);
            time.tag(2, 0);
            time.hole(5);
            let mut entry = Body::default();
            entry.message(1, time);
            entry.text(2, &line);
            let line_at = entry.bytes.len() - line.len();
            entry.holes.push((line_at + id_at, 16));
            one.message(2, entry);
        }
        body.message(1, one);
    }
    let lines = per_stream * streams.len();
    let headers = [("content-type", "application/x-protobuf")];
    let request = Request::new("/loki/api/v1/push", &headers, snappy(body), lines as u64, data_bytes);
    Variant { request, lines }
}

/// A line, and where its 16 digits of a trace id are.
fn line(app: &str, json: bool, random: &mut Random) -> (String, usize) {
    let level =
        random.pick(&["info", "info", "info", "info", "info", "info", "debug", "debug", "warn", "error"]);
    let status = match level {
        "error" => 500 + random.below(4),
        "warn" => 400 + random.below(30),
        _ => 200,
    };
    let message = random.pick(&[
        "request handled",
        "order was placed",
        "cache miss, asking the database",
        "upstream took longer than expected",
        "session renewed",
        "item added to the basket",
    ]);
    let (method, route) = (random.pick(&["GET", "POST", "PUT"]), random.below(40));
    let (user, took, bytes) = (random.below(1_000_000), random.below(900_000), random.below(60_000));
    let id = "0000000000000000";
    let text = if json {
        format!(
            "{{\"level\":\"{level}\",\"caller\":\"{app}/handler.go:{}\",\"msg\":\"{message}\",\"method\":\"{method}\",\"path\":\"/api/v1/{app}/resource-{route}\",\"status\":{status},\"took_us\":{took},\"user\":{user},\"bytes\":{bytes},\"trace\":\"{id}\"}}",
            40 + route
        )
    } else {
        format!(
            "level={level} caller={app}/handler.go:{} msg=\"{message}\" method={method} path=/api/v1/{app}/resource-{route} status={status} took_us={took} user={user} bytes={bytes} client=10.1.{}.{} trace={id}",
            40 + route,
            route,
            user % 256
        )
    };
    let at = text.rfind(id).unwrap_or(0);
    (text, at)
}

impl Source for Logs {
    fn next(&mut self) -> &Request {
        let turn = self.turn;
        self.turn = (turn + 1) % self.variants.len();
        let variant = &mut self.variants[turn];
        let now_ns = now_ns();
        for line in 0..variant.lines {
            let ns = now_ns + 100 * line as u64;
            variant.request.fill(3 * line, &padded_varint::<5>(ns / 1_000_000_000));
            variant.request.fill(3 * line + 1, &padded_varint::<5>(ns % 1_000_000_000));
            variant.request.fill(3 * line + 2, &self.random.hex());
        }
        &variant.request
    }
}

pub fn questions() -> Vec<Question> {
    let range =
        |name, pairs| Question { name, path: "/loki/api/v1/query_range", pairs, span: Span::Nanoseconds };
    vec![
        range("newest 100 lines of an app", &[("query", "{app=\"checkout\"}"), ("limit", "100")]),
        range("line filter, 100 lines", &[("query", "{app=\"cart\"} |= \"level=error\""), ("limit", "100")]),
        range(
            "needle that is not there, one app",
            &[("query", "{app=\"checkout\"} |= \"no such text\""), ("limit", "100")],
        ),
        range(
            "parsed fields, 100 lines",
            &[("query", "{app=\"checkout\"} | json | status >= 500 | took_us > 800000"), ("limit", "100")],
        ),
        range(
            "lines per app",
            &[("query", "sum by (app) (count_over_time({cluster=\"prod-eu-1\"}[1m]))"), ("step", "60")],
        ),
        range(
            "errors per minute of one app",
            &[
                ("query", "sum(count_over_time({app=\"cart\"} | logfmt | level=\"error\" [1m]))"),
                ("step", "60"),
            ],
        ),
        Question {
            name: "values of pod",
            path: "/loki/api/v1/label/pod/values",
            pairs: &[],
            span: Span::Nanoseconds,
        },
    ]
}
