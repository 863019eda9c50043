//! OTLP over HTTP: as a collector sends it, spans of 50 traces by service, 10 spans per trace.

use crate::load::{Question, Source, Span, now_ns};
use crate::patch::{Body, Random, Request};

const TRACES_PER_REQUEST: usize = 50;
const SERVICES: [&str; 5] = ["frontend", "checkout", "cart", "payments", "users"];
/// Two in each service.
const SPANS_PER_TRACE: usize = 2 * SERVICES.len();
/// Different requests per connection.
const VARIANTS: usize = 4;
/// trace id, span id, parent, start, end, user
const HOLES_PER_SPAN: usize = 6;

struct Traces {
    variants: Vec<Request>,
    turn: usize,
    random: Random,
}

pub fn sources(connections: usize) -> Vec<Box<dyn Source>> {
    (0..connections)
        .map(|connection| {
            let mut random = Random((connection as u64 + 1) << 32 | now_ns() & 0xffff_ffff);
            let variants = (0..VARIANTS).map(|_| request(connection, &mut random)).collect();
            Box::new(Traces { variants, turn: 0, random }) as Box<dyn Source>
        })
        .collect()
}

fn request(connection: usize, random: &mut Random) -> Request {
    let mut body = Body::default();
    for service in SERVICES {
        let mut resource = Body::default();
        for (name, value) in [
            ("service.name", service.to_owned()),
            ("service.version", "1.14.2".to_owned()),
            ("service.instance.id", format!("{service}-6f7c9d8b5-{connection:05x}")),
            ("k8s.namespace.name", format!("shop-{service}")),
            ("k8s.pod.name", format!("{service}-6f7c9d8b5-{connection:05x}")),
            ("k8s.node.name", format!("ip-10-0-{}-7.eu-west-1.compute.internal", connection % 9)),
            ("telemetry.sdk.language", "go".to_owned()),
            ("telemetry.sdk.name", "opentelemetry".to_owned()),
        ] {
            resource.message(1, attribute(name, Value::Text(&value)));
        }
        let mut scope = Body::default();
        scope.text(1, "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp");
        scope.text(2, "0.58.0");
        let mut spans = Body::default();
        spans.message(1, scope);
        for _ in 0..TRACES_PER_REQUEST {
            spans.message(2, server_span(service, random));
            spans.message(2, client_span(service, random));
        }
        let mut resource_spans = Body::default();
        resource_spans.message(1, resource);
        resource_spans.message(2, spans);
        body.message(1, resource_spans);
    }
    let data_bytes = body.bytes.len() as u64;
    let headers = [("content-type", "application/x-protobuf")];
    let items = (TRACES_PER_REQUEST * SPANS_PER_TRACE) as u64;
    Request::new("/v1/traces", &headers, body, items, data_bytes)
}

enum Value<'a> {
    Text(&'a str),
    Number(u64),
    /// Eight digits that differ with each sending.
    Hole,
}

/// KeyValue with its AnyValue.
fn attribute(name: &str, value: Value<'_>) -> Body {
    let mut any = Body::default();
    match value {
        Value::Text(text) => any.text(1, text),
        Value::Number(number) => any.varint(3, number),
        Value::Hole => any.hole_field(1, 8),
    }
    let mut out = Body::default();
    out.text(1, name);
    out.message(2, any);
    out
}

fn span_head(name: &str, kind: u64) -> Body {
    let mut span = Body::default();
    span.hole_field(1, 16);
    span.hole_field(2, 8);
    span.hole_field(4, 8);
    span.text(5, name);
    span.varint(6, kind);
    span.tag(7, 1);
    span.hole(8);
    span.tag(8, 1);
    span.hole(8);
    span
}

fn server_span(service: &str, random: &mut Random) -> Body {
    let method = random.pick(&["GET", "GET", "GET", "POST", "PUT"]);
    let route = format!("/api/v1/{service}/resource-{}", random.below(20));
    let status = [200, 200, 200, 200, 200, 200, 201, 404, 500][random.below(9) as usize];
    let mut span = span_head(&format!("{method} {route}"), 2);
    span.message(9, attribute("http.request.method", Value::Text(method)));
    span.message(9, attribute("http.route", Value::Text(&route)));
    span.message(9, attribute("http.response.status_code", Value::Number(status)));
    span.message(9, attribute("server.address", Value::Text(&format!("{service}.shop.svc.cluster.local"))));
    span.message(
        9,
        attribute("user_agent.original", Value::Text("Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101")),
    );
    span.message(9, attribute("app.user.id", Value::Hole));
    if status == 500 {
        let mut code = Body::default();
        code.varint(3, 2);
        span.message(15, code);
    }
    span
}

fn client_span(service: &str, random: &mut Random) -> Body {
    let table = random.pick(&["orders", "items", "users", "stock", "prices"]);
    let mut span = span_head(&format!("SELECT {table}"), 3);
    span.message(9, attribute("db.system.name", Value::Text("postgresql")));
    span.message(9, attribute("db.namespace", Value::Text(service)));
    let text = format!("SELECT id, name, price FROM {table} WHERE id = $1 AND deleted_at IS NULL LIMIT 20");
    span.message(9, attribute("db.query.text", Value::Text(&text)));
    span.message(9, attribute("server.address", Value::Text("postgres-0.db.svc.cluster.local")));
    span.message(9, attribute("server.port", Value::Number(5432)));
    span.message(9, attribute("app.user.id", Value::Hole));
    span
}

impl Source for Traces {
    fn next(&mut self) -> &Request {
        let turn = self.turn;
        self.turn = (turn + 1) % self.variants.len();
        let (request, random) = (&mut self.variants[turn], &mut self.random);
        let now_ns = now_ns();
        for trace in 0..TRACES_PER_REQUEST {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&random.next().to_be_bytes());
            id[8..].copy_from_slice(&random.next().to_be_bytes());
            let user = random.hex();
            let (mut start_ns, mut end_ns) = (now_ns - 1_500_000_000, now_ns - random.below(1_000_000_000));
            // Each span is the child of the one before; the first has no parent, said by an id of zeros.
            let mut parent = [0; 8];
            for depth in 0..SPANS_PER_TRACE {
                let (service, second) = (depth / 2, depth % 2);
                let base = HOLES_PER_SPAN * (service * 2 * TRACES_PER_REQUEST + 2 * trace + second);
                let span_id = random.next().to_be_bytes();
                request.fill(base, &id);
                request.fill(base + 1, &span_id);
                request.fill(base + 2, &parent);
                request.fill(base + 3, &start_ns.to_le_bytes());
                request.fill(base + 4, &end_ns.to_le_bytes());
                request.fill(base + 5, &user[..8]);
                parent = span_id;
                let inside = (end_ns - start_ns) / 8;
                start_ns += random.below(inside + 1);
                end_ns -= random.below(inside + 1);
            }
        }
        request
    }
}

pub fn questions() -> Vec<Question> {
    let search = |name, pairs| Question { name, path: "/api/search", pairs, span: Span::Seconds };
    let metrics =
        |name, pairs| Question { name, path: "/api/metrics/query_range", pairs, span: Span::Seconds };
    vec![
        search(
            "one service, 20 traces",
            &[("q", "{ resource.service.name = \"checkout\" }"), ("limit", "20")],
        ),
        search(
            "slow and failed, 20 traces",
            &[("q", "{ span.http.response.status_code = 500 && duration > 500ms }"), ("limit", "20")],
        ),
        search("nothing found", &[("q", "{ span.app.user.id = \"nobody\" }"), ("limit", "20")]),
        search(
            "parent and child",
            &[
                ("q", "{ resource.service.name = \"frontend\" } >> { span.db.namespace = \"payments\" }"),
                ("limit", "20"),
            ],
        ),
        metrics("rate by service", &[("q", "{ } | rate() by (resource.service.name)"), ("step", "60s")]),
        Question {
            name: "values of service.name",
            path: "/api/v2/search/tag/resource.service.name/values",
            pairs: &[],
            span: Span::Seconds,
        },
    ]
}
