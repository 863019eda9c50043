//! What broke others, at every door: each gets a clear refusal, and the process goes on as if nothing had been.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use triptych_e2e::client::{gzip, snappy};
use triptych_e2e::dataset::Dataset;
use triptych_e2e::{Options, Process, now_ms, s3};

const MEMORY_BYTES_MAX: u64 = 400 << 20;
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

struct Push {
    path: &'static str,
    content_type: &'static str,
    encoding: &'static str,
    body: Vec<u8>,
    /// Status, and what the text must contain.
    status: u16,
    text: &'static str,
}

fn push(
    path: &'static str,
    content_type: &'static str,
    encoding: &'static str,
    body: impl Into<Vec<u8>>,
    (status, text): (u16, &'static str),
) -> Push {
    Push { path, content_type, encoding, body: body.into(), status, text }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A field of protobuf with bytes in it.
fn field(number: u64, body: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(body.len() as u64), body.to_vec()].concat()
}

/// `bytes` zeros, compressed.
fn zstd_bomb(bytes: usize) -> Result<Vec<u8>> {
    let mut out = zstd::Encoder::new(Vec::new(), 1)?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        out.write_all(&zeros)?;
    }
    Ok(out.finish()?)
}

/// `AnyValue { array_value { values { array_value ..` in a log record's body (`protobuf`), or the same as JSON.
fn nested_protobuf(depth: usize) -> Vec<u8> {
    let mut value = field(1, b"x");
    for _ in 0..depth {
        value = field(5, &field(1, &value));
    }
    field(1, &field(2, &field(2, &field(5, &value))))
}

fn nested_json(depth: usize) -> String {
    format!(
        r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{}{{"stringValue":"x"}}{}}}]}}]}}]}}"#,
        r#"{"arrayValue":{"values":["#.repeat(depth),
        "]}}".repeat(depth)
    )
}

fn pushes() -> Result<Vec<Push>> {
    let huge = [varint(3 << 30), vec![0; 64]].concat();
    let gzip_bomb = gzip(&vec![b' '; 48 << 20])?;
    let zstd_bomb = zstd_bomb(1 << 30)?;
    let endless = [vec![0x0a], vec![0xff; 64]].concat();
    let long = [vec![0x0a], varint(1 << 40), vec![0; 16]].concat();
    let mut cases = Vec::new();
    for path in ["/api/v1/write", "/loki/api/v1/push"] {
        cases.push(push(path, PROTOBUF, "snappy", huge.clone(), (413, "limit")));
        cases.push(push(
            path,
            PROTOBUF,
            "snappy",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            (400, "snappy"),
        ));
        cases.push(push(path, PROTOBUF, "snappy", b"".to_vec(), (400, "snappy")));
        cases.push(push(path, PROTOBUF, "snappy", snappy(&endless)?, (400, "")));
        cases.push(push(path, PROTOBUF, "snappy", snappy(&long)?, (400, "")));
    }
    // Remote read: no snappy, a lie about the size, no protobuf, what is no matcher, forms of an answer that do not exist.
    let read = "/api/v1/read";
    let matcher = field(3, &[vec![0x08, 2], field(2, b"a"), field(3, b"(a{0,1000}){0,1000}")].concat());
    let many = field(1, b"").repeat(100_000);
    for (body, wanted) in [
        (b"".to_vec(), (400, "snappy")),
        (b"<script>".to_vec(), (400, "snappy")),
        (huge.clone(), (413, "limit")),
        (snappy(&endless)?, (400, "protobuf")),
        (snappy(&long)?, (400, "protobuf")),
        (snappy(&field(1, &matcher))?, (400, "regex")),
        (snappy(&many)?, (400, "1000 queries")),
        (snappy(&[0x10, 9])?, (400, "response types")),
        (vec![0; 5 << 20], (413, "larger than")),
    ] {
        cases.push(push(read, PROTOBUF, "snappy", body, wanted));
    }
    for (path, content_type) in [
        ("/loki/api/v1/push", JSON),
        ("/v1/logs", JSON),
        ("/v1/logs", PROTOBUF),
        ("/v1/traces", PROTOBUF),
        ("/v1/metrics", PROTOBUF),
    ] {
        cases.push(push(path, content_type, "gzip", gzip_bomb.clone(), (413, "limit")));
        cases.push(push(path, content_type, "zstd", zstd_bomb.clone(), (413, "limit")));
        cases.push(push(path, content_type, "gzip", &b"\x1f\x8b\x08\x00garbage"[..], (400, "gzip")));
        cases.push(push(path, content_type, "br", &b"x"[..], (415, "br")));
    }
    for path in ["/v1/logs", "/v1/traces", "/v1/metrics"] {
        cases.push(push(path, PROTOBUF, "", endless.clone(), (400, "")));
        cases.push(push(path, PROTOBUF, "", long.clone(), (400, "")));
        cases.push(push(path, JSON, "", "[".repeat(200_000), (400, "")));
        cases.push(push(path, "text/html", "", "<b>", (415, "text/html")));
    }
    cases.push(push("/loki/api/v1/push", JSON, "", "[".repeat(200_000), (400, "")));
    cases.push(push("/loki/api/v1/push", JSON, "", r#"{"a":"#.repeat(200_000), (400, "")));
    cases.push(push(
        "/loki/api/v1/push",
        JSON,
        "",
        r#"{"streams":[{"stream":{"a":"b"},"values":[["x","y"]]}]}"#,
        (400, ""),
    ));
    cases.push(push(
        "/loki/api/v1/push",
        JSON,
        "",
        r#"{"streams":[{"stream":{"a-b":"b"},"values":[["1","y"]]}]}"#,
        (400, ""),
    ));
    cases.push(push("/v1/logs", JSON, "", nested_json(50_000), (400, "")));
    cases.push(push("/v1/logs", PROTOBUF, "", nested_protobuf(3_000), (400, "")));
    Ok(cases)
}

/// Path and parameters, status, what the text must contain.
type Question = (&'static str, Vec<(&'static str, String)>, u16, &'static str);

fn questions() -> Vec<Question> {
    let q = |pairs: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        pairs.iter().map(|(n, v)| (*n, (*v).to_owned())).collect()
    };
    let deep = "(".repeat(15_000);
    let many = "-".repeat(50_000) + "1";
    let bomb = r#"{a=~"((((a{0,1000}){0,1000}){0,1000}){0,1000})"}"#;
    let (query, range) = ("/api/v1/query", "/api/v1/query_range");
    let (logs, logs_range) = ("/loki/api/v1/query", "/loki/api/v1/query_range");
    let mut cases = vec![
        (range, q(&[("query", "up"), ("start", "-9e15"), ("end", "9e15"), ("step", "1")]), 400, "11,000"),
        (range, q(&[("query", "up"), ("start", "0"), ("end", "9e15"), ("step", "0.001")]), 400, "11,000"),
        (range, q(&[("query", "up"), ("start", "9"), ("end", "1"), ("step", "1")]), 400, "end timestamp"),
        (range, q(&[("query", "up"), ("start", "1"), ("end", "9")]), 400, "step"),
        (query, q(&[("query", "")]), 400, "query"),
        (query, q(&[("query", "up[99999999999999999999y]")]), 400, ""),
        (query, q(&[("query", "up offset 9999999999999999y")]), 400, ""),
        (query, q(&[("query", "max_over_time(up[100y:1ms])")]), 422, ""),
        (query, q(&[("query", "up\0")]), 400, ""),
        (
            query,
            q(&[("query", "label_replace(up, \"a\", \"$1\", \"b\", \"(a{0,1000}){0,1000}\")")]),
            422,
            "regular expression",
        ),
        (logs_range, q(&[("query", "{a=\"b\"}"), ("limit", "2147483648")]), 400, "limit"),
        (logs_range, q(&[("query", "{a=\"b\"}"), ("limit", "-1")]), 400, "limit"),
        (logs_range, q(&[("query", "{a=\"b\"}"), ("limit", "99999999999999999999")]), 400, "limit"),
        (logs_range, q(&[("query", "{a=\"b\"}"), ("direction", "sideways")]), 400, "sideways"),
        (logs_range, q(&[("query", "{a=\"b\"} |~ \"(a{0,1000}){0,1000}\"")]), 400, ""),
        (
            logs_range,
            q(&[("query", "rate({a=\"b\"}[1ms])"), ("start", "1"), ("end", "9000000000"), ("step", "1ms")]),
            400,
            "11,000",
        ),
        (
            logs_range,
            q(&[
                ("query", "rate({a=\"b\"}[1s])"),
                ("start", "-9223372036854775807"),
                ("end", "9223372036854775807"),
                ("step", "1s"),
            ]),
            400,
            "",
        ),
        (logs_range, q(&[("query", "{a=\"b\"}"), ("start", "9"), ("end", "1")]), 400, "end timestamp"),
        (logs_range, q(&[("query", "{a=\"b\"}[99999999999999999y]")]), 400, ""),
        (logs, q(&[("query", "{a=~\".*\"}")]), 400, ""),
        (logs_range, q(&[("query", "{a=\"b\"}"), ("interval", "-1")]), 400, "interval"),
        (logs_range, q(&[("query", "{a=\"b\"}"), ("interval", "1e300")]), 400, "interval"),
        ("/loki/api/v1/detected_field/x/values", vec![], 400, "query"),
        ("/loki/api/v1/detected_field/x/values", q(&[("query", bomb)]), 400, ""),
        ("/loki/api/v1/tail", q(&[("query", "{a=\"b\"}"), ("delay_for", "2147483648")]), 400, "delay_for"),
        ("/api/search", q(&[("q", "{ duration > 99999999999999999999h }")]), 400, ""),
        ("/api/search", q(&[("q", "{ span.a =~ \"((a{0,1000}){0,1000}){0,1000}\" }")]), 400, ""),
        ("/api/search", q(&[("q", "{}"), ("limit", "99999999999")]), 400, "limit"),
        ("/api/search", q(&[("q", "{}"), ("limit", "2147483648")]), 400, "limit"),
        ("/api/search", q(&[("q", "{}"), ("start", "9"), ("end", "1")]), 400, "end timestamp"),
        (
            "/api/metrics/query_range",
            q(&[("q", "{} | rate()"), ("start", "1"), ("end", "9000000000"), ("step", "1ms")]),
            400,
            "",
        ),
        ("/api/traces/zz", vec![], 400, "hex"),
        ("/api/traces/..%2f..%2fetc", vec![], 400, "hex"),
        ("/api/traces/%252e%252e%252f", vec![], 400, "hex"),
        ("/api/traces/%00", vec![], 400, "hex"),
        ("/api/traces/123456789012345678901234567890123", vec![], 400, "hex"),
        ("/api/v2/traces/%3Cscript%3E", vec![], 400, "hex"),
        ("/api/v1/series", vec![], 400, "match[]"),
        ("/api/v1/metadata", q(&[("limit_per_metric", "9e9")]), 400, "limit_per_metric"),
        ("/api/v1/targets/metadata", q(&[("limit", "99999999999999999999")]), 400, "limit"),
        ("/api/v1/targets/metadata", q(&[("match_target", bomb)]), 400, "match_target"),
        ("/api/v1/parse_query", q(&[("query", &deep)]), 400, "query"),
        ("/federate", q(&[("match[]", bomb)]), 400, "match[]"),
        (query, q(&[("query", "max_over_time(up[1h:1m])"), ("time", "9.2e15")]), 422, "out of bounds"),
        (
            "/loki/api/v1/index/volume_range",
            q(&[
                ("query", "{a=\"b\"}"),
                ("start", "-9223372036854775807"),
                ("end", "9223372036854775806"),
                ("step", "9e9"),
            ]),
            200,
            "success",
        ),
        ("/no/such/path", vec![], 404, ""),
    ];
    for odd in ["NaN", "Inf", "-Inf", "1e300", "99999999999999999999999999", "<script>"] {
        cases.push((query, q(&[("query", "up"), ("time", odd)]), 400, "timestamp"));
        cases.push((
            range,
            q(&[("query", "up"), ("start", odd), ("end", "1"), ("step", "1")]),
            400,
            "timestamp",
        ));
        cases.push((
            range,
            q(&[("query", "up"), ("start", "1"), ("end", "2"), ("step", odd)]),
            400,
            "duration",
        ));
        cases.push((logs_range, q(&[("query", "{a=\"b\"}"), ("start", odd)]), 400, "timestamp"));
        cases.push((logs_range, q(&[("query", "rate({a=\"b\"}[1m])"), ("step", odd)]), 400, "duration"));
        cases.push(("/api/search", q(&[("q", "{}"), ("start", odd)]), 400, "timestamp"));
    }
    for odd in ["0", "-1", "-1e9", "1e-9"] {
        cases.push((range, q(&[("query", "up"), ("start", "1"), ("end", "2"), ("step", odd)]), 400, "step"));
    }
    for text in [&deep, &many, bomb] {
        for path in [query, logs] {
            cases.push((path, q(&[("query", text)]), 400, ""));
        }
        cases.push(("/api/search", q(&[("q", text)]), 400, ""));
        cases.push(("/loki/api/v1/series", q(&[("match[]", text)]), 400, ""));
        cases.push(("/api/v1/series", q(&[("match[]", text)]), 400, ""));
    }
    cases
}

/// The beginning of a text.
fn cut(text: &str) -> String {
    text.chars().take(160).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door() -> Result<()> {
    let options = Options::default().set("multitenancy", true).set("distributor.request_bytes_max", "16MiB");
    let mut process = Process::start(options).await?;
    let pid = process.pid()?;
    let client = process.client().unpooled().tenant("t");
    let before = Dataset::part(1, now_ms() - 180_000);
    before.write(&client).await?;
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut see = |what: String, status: u16, text: &str, wanted: (u16, &str)| {
        count += 1;
        println!("{status} {what}: {}", cut(text.trim()));
        if status != wanted.0 || !text.contains(wanted.1) || text.trim().is_empty() && status != 404 {
            wrong.push(format!("{what}\n    wanted {wanted:?}, got {status} {:?}", cut(text)));
        }
    };

    for case in pushes()? {
        let mut headers = vec![("content-type", case.content_type)];
        if !case.encoding.is_empty() {
            headers.push(("content-encoding", case.encoding));
        }
        let what =
            format!("{} {} {} ({} bytes)", case.path, case.content_type, case.encoding, case.body.len());
        let (got, answer) = match client.post(case.path, &headers, case.body).await {
            Ok(reply) => (reply.status, reply.text),
            Err(error) => (0, format!("no answer: {error:#}")),
        };
        see(what, got, &answer, (case.status, case.text));
    }
    for (path, params, status, text) in questions() {
        let params: Vec<_> = params.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let what = format!("{path} {}", cut(&format!("{params:?}")));
        // As a form: what is too long for an address goes there. Where only GET is known, in the address.
        let form = params.iter().any(|(_, v)| v.len() > 10_000);
        let reply = if form && path != "/api/search" {
            let body = reqwest::Url::parse_with_params("http://x", &params)?;
            let headers = [("content-type", "application/x-www-form-urlencoded")];
            client.post(path, &headers, body.query().unwrap_or_default().to_owned()).await
        } else {
            client.get(path, &params).await
        };
        let (got, answer) = match reply {
            Ok(reply) => (reply.status, reply.text),
            Err(error) => (0, format!("no answer: {error:#}")),
        };
        see(what, got, &answer, (status, text));
    }
    for tenant in
        ["..", ".", "%2e%2e", "%2e%2e%2f", "a/b", "a|b", "a\\b", "index", "a b", "<b>", &"x".repeat(151)]
    {
        let odd = process.client().tenant(tenant);
        let reply = odd.get("/api/v1/query", &[("query", "up")]).await?;
        see(format!("read as tenant {tenant:?}"), reply.status, &reply.text, (400, "tenant id"));
        for (path, content_type) in
            [("/api/v1/write", PROTOBUF), ("/loki/api/v1/push", JSON), ("/v1/traces", PROTOBUF)]
        {
            let reply = odd.post(path, &[("content-type", content_type)], "{}").await?;
            see(format!("{path} as tenant {tenant:?}"), reply.status, &reply.text, (400, "tenant id"));
        }
    }
    for path in ["/api/v1/query?query=up", "/loki/api/v1/labels", "/api/search"] {
        let reply = process.client().get(path, &[]).await?;
        see(format!("{path} without a tenant"), reply.status, &reply.text, (401, "no org id"));
    }
    for path in [
        "/api/v1/write",
        "/api/v1/push",
        "/loki/api/v1/push",
        "/v1/traces",
        "/v1/logs",
        "/-/flush",
        "/-/compact",
    ] {
        for method in [Method::GET, Method::DELETE, Method::PUT] {
            let reply = client.send(client.request(method.clone(), path)).await?;
            ensure!(reply.status == 405, "{method} {path}: {reply:?}");
        }
    }
    // What no decent client sends.
    let address = process.http().trim_start_matches("http://").to_owned();
    let raw = async |request: &[u8]| -> Result<String> {
        let mut socket = tokio::net::TcpStream::connect(&address).await?;
        socket.write_all(request).await?;
        let mut answer = vec![0; 4096];
        let read =
            tokio::time::timeout(std::time::Duration::from_secs(10), socket.read(&mut answer)).await??;
        Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    };
    let nul = raw(b"GET /api/v1/labels HTTP/1.1\r\nhost: x\r\nx-scope-orgid: a\0b\r\n\r\n").await?;
    ensure!(nul.starts_with("HTTP/1.1 400"), "NUL in a tenant id: {nul}");
    let long = raw(b"POST /api/v1/write HTTP/1.1\r\nhost: x\r\nx-scope-orgid: t\r\ncontent-type: application/x-protobuf\r\ncontent-length: 99999999999\r\n\r\nxx").await?;
    ensure!(long.starts_with("HTTP/1.1 413"), "an endless body: {long}");
    let headers =
        [b"GET / HTTP/1.1\r\nhost: x\r\n".to_vec(), b"a: b\r\n".repeat(2000), b"\r\n".to_vec()].concat();
    let many = raw(&headers).await?;
    ensure!(many.starts_with("HTTP/1.1 431"), "2000 headers: {many}");

    // An error that repeats what was sent is no page.
    let request = client.request(Method::GET, "/api/v1/query?query=%3Cscript%3Ealert(1)%3C/script%3E");
    let response = request.send().await?;
    let kind =
        response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    ensure!(response.status() == 400 && !kind.contains("html"), "{kind}");

    println!("{count} requests, at most {} MiB resident", process.memory_peak_bytes()? >> 20);
    let log = process.log();
    let panics: Vec<_> = log.lines().filter(|l| l.contains("panicked")).collect();
    ensure!(wrong.is_empty(), "{} of {count}:\n  {}\n{panics:?}", wrong.len(), wrong.join("\n  "));
    ensure!(panics.is_empty(), "it panicked: {panics:?}");
    ensure!(process.is_alive() && process.pid()? == pid, "it died");
    ensure!(client.is_ready().await, "not ready any more");
    before.check(&client, "after all that").await?;
    let peak = process.memory_peak_bytes()?;
    ensure!(peak < MEMORY_BYTES_MAX, "{} MiB resident", peak >> 20);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_stay_inside() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let process = Process::start(s3::Server::start(dir.path()).await?.options).await?;
    for path in ["/config", "/metrics", "/api/v1/status/config", "/api/v1/status/flags", "/api/ours/roles"] {
        let reply = process.client().get(path, &[]).await?.ok().context(path)?;
        ensure!(!reply.text.contains(s3::KEY_SECRET), "{path} shows the secret");
    }
    ensure!(!process.log().contains(s3::KEY_SECRET), "the log shows the secret");
    Ok(())
}
