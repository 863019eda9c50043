//! Lines as they arrive, pushes as agents send them, and the small clients of the binary; in one process and in a cluster.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_tungstenite::tungstenite::Message;
use triptych_e2e::client::{Line, Pairs, Series, Stream, list, pairs};
use triptych_e2e::cluster::Plan;
use triptych_e2e::dataset::same;
use triptych_e2e::{Client, Cluster, Deployment, Options, Process, now_ms, now_ns, process};

const PATIENCE: Duration = Duration::from_secs(20);

fn stream(service: &str, texts: &[String]) -> Vec<Stream> {
    let line = |text: &String| Line { ts_ns: now_ns(), text: text.clone(), metadata: Pairs::new() };
    vec![Stream { labels: pairs([("service_name", service)]), lines: texts.iter().map(line).collect() }]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process() -> Result<()> {
    all(&Process::start(Options::default()).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster() -> Result<()> {
    all(&Cluster::start(Plan::default()).await?).await
}

async fn all(deployment: &impl Deployment) -> Result<()> {
    let client = deployment.client()?;
    tail_over_websocket(&client).await.context("tail")?;
    others_take_samples_along(&client, deployment).await.context("remote read, federation")?;
    clients_of_the_binary(&client).await.context("the binary's clients")
}

async fn tail_over_websocket(client: &Client) -> Result<()> {
    client.loki_json_gzip(&stream("live", &["before".to_owned()])).await.context("gzip push")?;
    let address = client.base().replacen("http", "ws", 1);
    let query = "%7Bservice_name%3D%22live%22%7D%20%21%3D%20%22hidden%22";
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("{address}/loki/api/v1/tail?query={query}&limit=10"))
            .await?;
    let mut wanted = vec!["before".to_owned()];
    let mut got: Vec<String> = Vec::new();
    let receive = async {
        let mut sent = 0;
        while got.len() < 51 {
            let message = socket.next().await.context("the tail ended")??;
            if let Message::Text(text) = message {
                let json: serde_json::Value = serde_json::from_str(&text)?;
                for stream in list(&json["streams"])? {
                    ensure!(stream["stream"]["service_name"] == "live", "{stream}");
                    for value in list(&stream["values"])? {
                        got.push(value[1].as_str().context("no line")?.to_owned());
                    }
                }
            }
            // The past is here: what is sent from now on must arrive live.
            while !got.is_empty() && sent < 5 {
                let texts: Vec<_> = (0..10).map(|i| format!("live {sent} {i}")).collect();
                client.loki_protobuf(&stream("live", &texts)).await?;
                client.loki_json(&stream("live", &["hidden".to_owned()])).await?;
                wanted.extend(texts);
                sent += 1;
            }
        }
        anyhow::Ok(())
    };
    let received = tokio::time::timeout(PATIENCE, receive).await;
    received.with_context(|| format!("after {PATIENCE:?} only {} of 51 lines", got.len()))??;
    got.sort();
    wanted.sort();
    same(got, wanted)
}

async fn others_take_samples_along(client: &Client, deployment: &impl Deployment) -> Result<()> {
    let now = now_ms();
    let series = |samples: &[(i64, f64)]| {
        vec![Series { labels: pairs([("__name__", "far"), ("job", "read")]), samples: samples.to_vec() }]
    };
    let samples = [(now - 30_000, 1.0), (now - 20_000, 2.0), (now - 10_000, 1e21)];
    client.remote_write(&series(&samples[..2])).await?;
    deployment.flush().await?;
    // One in the bucket, one in both, one in memory.
    client.remote_write(&series(&samples[1..])).await?;
    let read = async |from, to| client.remote_read(("__name__", "far"), from, to).await;
    same(read(now - 30_000, now).await?, series(&samples))?;
    same(read(now - 29_999, now - 20_000).await?, series(&samples[1..2]))?;
    same(read(now - 9_999, now).await?, vec![])?;
    let page = client.get("/federate", &[("match[]", "far")]).await?.ok()?.text;
    let wanted = format!("# TYPE far untyped\nfar{{job=\"read\",instance=\"\"}} 1e+21 {}\n", now - 10_000);
    same(page, wanted)?;
    let answer = client.get("/api/v1/query", &[("query", "far")]).await?.ok()?.text;
    ensure!(answer.contains("\"1e+21\""), "{answer}");
    Ok(())
}

async fn clients_of_the_binary(client: &Client) -> Result<()> {
    let labels = pairs([("__name__", "answer"), ("job", "cli")]);
    client.remote_write(&[Series { labels, samples: vec![(now_ms() - 1000, 42.5)] }]).await?;
    client.loki_json(&stream("cli", &["hello from far".to_owned()])).await?;
    let part = triptych_e2e::dataset::Dataset::part(1, now_ms() - 200_000);
    client.otlp_traces(&part.traces).await?;

    let server = client.base();
    let run = async |args: &[&str]| process::run(&[args, &["--server", server]].concat()).await;
    let out = run(&["query", "metrics", "answer"]).await?;
    ensure!(out.contains("answer") && out.contains("42.5"), "query metrics: {out}");
    let out = run(&["query", "logs", "{service_name=\"cli\"}", "--since", "15m"]).await?;
    ensure!(out.contains("hello from far"), "query logs: {out}");
    let out = run(&["query", "traces", "{ name = \"step 2\" }", "--since", "1h"]).await?;
    let id = hex::encode(&part.traces[0].scope_spans[0].spans[0].trace_id);
    ensure!(out.contains(id.trim_start_matches('0')), "query traces: {out}");
    let out = run(&["query", "traces", &id]).await?;
    ensure!((1..=4).all(|i| out.contains(&format!("step {i}"))), "query traces by id: {out}");
    let refused = run(&["query", "metrics", "sum("]).await;
    ensure!(refused.is_err_and(|e| e.to_string().contains("400")), "a wrong query was not refused");

    let mut tail = tokio::process::Command::new(triptych_e2e::binary::path()?)
        .args(["logs", "tail", "{service_name=\"cli\"}", "--server", server])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(tail.stdout.take().context("no stdout")?).lines();
    let follow = async {
        let first = lines.next_line().await?.context("the tail ended")?;
        ensure!(first.contains("hello from far"), "{first}");
        client.loki_json(&stream("cli", &["and another".to_owned()])).await?;
        let second = lines.next_line().await?.context("the tail ended")?;
        ensure!(second.contains("and another"), "{second}");
        Ok(())
    };
    tokio::time::timeout(PATIENCE, follow).await.context("nothing came")??;
    tail.kill().await?;

    let own = client.at(client.push_base()).get("/metrics", &[]).await?.ok()?.text;
    for name in own.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        ensure!(own.contains(&format!("# HELP {name} ")), "/metrics does not say what {name} means");
    }
    ensure!(own.contains("triptych_distributor_accepted_items_total"), "{own}");
    Ok(())
}
