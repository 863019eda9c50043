//! Hostile loads against a process with little memory: it stays within its limit, lives, and serves who does no harm.
//!
//! Takes minutes and the whole machine, so it is not part of `cargo test`: `make limits` runs it and prints the table of
//! `docs/operations.md`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{BoxFuture, FutureExt, join_all};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;
use tokio::time::Instant;
use triptych_e2e::client::{Line, Pairs, Series, Stream, pairs, remote_write_body};
use triptych_e2e::{Client, Options, Process, now_ms, now_ns};

const MIB: u64 = 1 << 20;
const MEMORY_LIMIT: u64 = 512 * MIB;
const SECONDS: u64 = 20;
/// Senders at the same time.
const SENDERS: usize = 6;

/// How often each status was answered.
type Statuses = Arc<Mutex<BTreeMap<u16, usize>>>;

async fn count(statuses: &Statuses, reply: Result<u16>) {
    // 0: no answer at all.
    *statuses.lock().await.entry(reply.unwrap_or(0)).or_default() += 1;
}

fn over(began: Instant) -> bool {
    began.elapsed() > Duration::from_secs(SECONDS)
}

async fn write(client: &Client, series: &[Series]) -> Result<u16> {
    let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];
    Ok(client.post("/api/v1/write", &headers, remote_write_body(series)?).await?.status)
}

fn lines(sender: usize, number: usize, count: usize) -> Vec<Stream> {
    let line = |i: usize| Line {
        ts_ns: now_ns(),
        text: format!("{number} {i} {}", "abcdefghij klmnopqrst ".repeat(40)),
        metadata: Pairs::new(),
    };
    let labels = pairs([("service_name", "flood"), ("sender", &sender.to_string())]);
    vec![Stream { labels, lines: (0..count).map(line).collect() }]
}

/// New series all the time, from one tenant.
fn cardinality(client: Client, statuses: Statuses) -> BoxFuture<'static, Result<()>> {
    async move {
        let began = Instant::now();
        let client = client.tenant("flood");
        join_all((0..SENDERS).map(|sender| {
            let (client, statuses) = (client.clone(), statuses.clone());
            async move {
                let mut number = 0;
                while !over(began) {
                    let series: Vec<_> = (0..1000)
                        .map(|i| Series {
                            labels: pairs([
                                ("__name__", "exploding"),
                                ("id", &format!("{sender}-{number}-{i}-{}", "x".repeat(80))),
                            ]),
                            samples: vec![(now_ms(), 1.0)],
                        })
                        .collect();
                    count(&statuses, write(&client, &series).await).await;
                    number += 1;
                }
            }
        }))
        .await;
        Ok(())
    }
    .boxed()
}

/// Questions that want everything at once, many at a time.
fn giant_queries(client: Client, statuses: Statuses) -> BoxFuture<'static, Result<()>> {
    async move {
        let client = client.tenant("flood");
        for part in 0..20 {
            let series: Vec<_> = (0..500)
                .map(|i| Series {
                    labels: pairs([("__name__", "wide"), ("id", &format!("{part}-{i}"))]),
                    samples: (0..60).map(|s| (now_ms() - s * 1000, s as f64)).rev().collect(),
                })
                .collect();
            write(&client, &series).await?;
            client.loki_json(&lines(part, part, 200)).await?;
        }
        let began = Instant::now();
        join_all((0..4 * SENDERS).map(|asker| {
            let (client, statuses) = (client.clone(), statuses.clone());
            async move {
                while !over(began) {
                    let (start, end) = ((now_ms() / 1000 - 3000).to_string(), (now_ms() / 1000).to_string());
                    let (path, query, step) = match asker % 3 {
                        0 => ("/api/v1/query_range", r#"{__name__=~".+"}"#, "1"),
                        1 => ("/api/v1/query_range", r#"sum by (id) (rate(wide[5m])) * wide"#, "1"),
                        _ => (
                            "/loki/api/v1/query_range",
                            r#"sum by (l) (count_over_time({sender=~".+"} | pattern "<l> <_>" [10m]))"#,
                            "1",
                        ),
                    };
                    let params = [("query", query), ("start", &start), ("end", &end), ("step", step)];
                    count(&statuses, client.get(path, &params).await.map(|reply| reply.status)).await;
                }
            }
        }))
        .await;
        Ok(())
    }
    .boxed()
}

/// Thousands of tenants, each with a little of everything.
fn tenants(client: Client, statuses: Statuses) -> BoxFuture<'static, Result<()>> {
    async move {
        join_all((0..SENDERS).map(|sender| {
            let (client, statuses) = (client.clone(), statuses.clone());
            async move {
                for number in (sender..5000).step_by(SENDERS) {
                    let client = client.tenant(&format!("tenant-{number}"));
                    let series =
                        Series { labels: pairs([("__name__", "up")]), samples: vec![(now_ms(), 1.0)] };
                    count(&statuses, write(&client, &[series]).await).await;
                    let pushed = client.loki_json(&lines(0, 0, 1)).await;
                    count(&statuses, pushed.map(|()| 204)).await;
                }
            }
        }))
        .await;
        client.flush().await
    }
    .boxed()
}

/// Those who ask for much and read nothing.
fn slow_readers(client: Client, statuses: Statuses) -> BoxFuture<'static, Result<()>> {
    async move {
        let tenant = client.tenant("flood");
        for number in 0..40 {
            tenant.loki_json(&lines(number, number, 500)).await?;
        }
        let address = client.base().trim_start_matches("http://").to_owned();
        let mut sockets = Vec::new();
        for _ in 0..60 {
            let mut socket = tokio::net::TcpStream::connect(&address).await?;
            let ask = "GET /loki/api/v1/query_range?query=%7Bservice_name%3D%22flood%22%7D&limit=5000 HTTP/1.1\r\n\
                       host: x\r\nx-scope-orgid: flood\r\n\r\n";
            socket.write_all(ask.as_bytes()).await?;
            sockets.push(socket);
            count(&statuses, Ok(0)).await;
        }
        tokio::time::sleep(Duration::from_secs(SECONDS)).await;
        Ok(())
    }
    .boxed()
}

/// Tails that read nothing while lines pour in.
fn tails(client: Client, statuses: Statuses) -> BoxFuture<'static, Result<()>> {
    async move {
        let address = client.base().replacen("http", "ws", 1);
        let mut sockets = Vec::new();
        for _ in 0..40 {
            use tokio_tungstenite::tungstenite::client::IntoClientRequest;
            let url = format!("{address}/loki/api/v1/tail?query=%7Bservice_name%3D%22flood%22%7D");
            let mut request = url.into_client_request()?;
            request.headers_mut().insert("x-scope-orgid", "flood".parse()?);
            sockets.push(tokio_tungstenite::connect_async(request).await?);
        }
        let began = Instant::now();
        let tenant = client.tenant("flood");
        join_all((0..SENDERS).map(|sender| {
            let (tenant, statuses) = (tenant.clone(), statuses.clone());
            async move {
                let mut number = 0;
                while !over(began) {
                    let body = triptych_e2e::client::loki_json_body(&lines(sender, number, 200));
                    let headers = [("content-type", "application/json")];
                    let reply = tenant.post("/loki/api/v1/push", &headers, body).await;
                    count(&statuses, reply.map(|reply| reply.status)).await;
                    number += 1;
                }
            }
        }))
        .await;
        Ok(())
    }
    .boxed()
}

type Load = fn(Client, Statuses) -> BoxFuture<'static, Result<()>>;

/// A load, beside it a tenant that does no harm, and what became of both.
async fn run(name: &str, load: Load) -> Result<String> {
    let options = Options::default()
        .set("memory_limit", MEMORY_LIMIT)
        .set("multitenancy", true)
        .set("ingester.retain_after_flush", "5s")
        .set("store_gateway.sync_interval", "1s")
        .set("store_gateway.sync_age_max", "4s")
        .set("limits.metrics.series_max", 100_000_000)
        .set("limits.query.timeout", "30s");
    let mut process = Process::start(options).await?;
    let client = process.client();
    let statuses = Statuses::default();
    let loading = tokio::spawn(load(client.clone(), statuses.clone()));
    let (mut good, mut bad) = (0, BTreeMap::new());
    while !loading.is_finished() {
        let series = Series { labels: pairs([("__name__", "quiet")]), samples: vec![(now_ms(), 1.0)] };
        match write(&client.tenant("quiet"), &[series]).await {
            Ok(204) => good += 1,
            Ok(status) => *bad.entry(status).or_insert(0) += 1,
            Err(_) => *bad.entry(0).or_insert(0) += 1,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    loading.await?.with_context(|| name.to_owned())?;
    let peak = process.memory_peak_bytes()?;
    let is_alive = process.is_alive() && client.is_ready().await;
    let answered =
        statuses.lock().await.iter().map(|(s, n)| format!("{s}: {n}")).collect::<Vec<_>>().join(", ");
    let refused: usize = bad.values().sum();
    process.kill().await?;
    let row = format!(
        "| {name} | {} MiB | {} MiB | {} | {answered} | {good} of {} |",
        peak / MIB,
        MEMORY_LIMIT / MIB,
        if is_alive { "yes" } else { "no" },
        good + refused,
    );
    println!("{row}");
    ensure!(is_alive, "{name}: {}", process.log());
    ensure!(peak <= MEMORY_LIMIT, "{name}: {peak} bytes were resident, allowed are {MEMORY_LIMIT}");
    ensure!(good > 0 && refused * 20 <= good, "{name}: the quiet tenant was refused: {bad:?}");
    Ok(row)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and the whole machine: make limits"]
async fn hostile_loads() -> Result<()> {
    println!(
        "| load | peak RSS | limit | alive and ready | answers to the load | writes of a quiet tenant taken |"
    );
    println!("|---|---|---|---|---|---|");
    let loads: [(&str, Load); 5] = [
        ("cardinality explosion", cardinality),
        ("giant queries", giant_queries),
        ("5,000 tenants", tenants),
        ("60 slow readers", slow_readers),
        ("40 tails that read nothing", tails),
    ];
    let only = std::env::var("LOAD").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, load) in loads.into_iter().filter(|(name, _)| name.contains(&only)) {
        if let Err(error) = run(name, load).await {
            println!("{name}: {error:#}");
            failed.push(name);
        }
    }
    ensure!(failed.is_empty(), "{failed:?}");
    Ok(())
}
