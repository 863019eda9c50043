//! What was written is read back, exactly: at once, after a flush, after a restart, after a merge; over a directory and over S3;
//! in one process and in a cluster.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use triptych_e2e::client::list;
use triptych_e2e::cluster::Plan;
use triptych_e2e::dataset::{Dataset, same, spans};
use triptych_e2e::sdk::Application;
use triptych_e2e::{Cluster, Deployment, Options, Process, grpc, now_ms, now_ns, s3};

const HOUR_MS: i64 = 3_600_000;

/// Writes old parts with a flush after each, so that there is something to merge, and a part of now; looks after each step.
async fn scenario(deployment: &mut impl Deployment) -> Result<()> {
    // The parts are years of waiting in a minute: blocks of the same hours, all long ended.
    let client = deployment.client()?;
    let mut all = Dataset::default();
    // Inside of one window of two hours, 26 to 28 hours ago.
    let window = 2 * HOUR_MS;
    let old = (now_ms() - 26 * HOUR_MS) / window * window;
    for number in 0..3 {
        let part = Dataset::part(number, old + i64::from(number) * 600_000);
        part.write(&client).await?;
        all.extend(part);
        if number == 0 {
            all.check(&client, "at once").await?;
        }
        deployment.flush().await?;
    }
    let part = Dataset::part(3, now_ms() - 180_000);
    part.write(&client).await?;
    all.extend(part);
    all.check(&client, "partly flushed").await?;
    deployment.flush().await?;
    all.check(&client, "after the flush").await?;

    deployment.restart().await?;
    let client = deployment.client()?;
    all.check(&client, "after the restart").await?;

    let done = deployment.compact().await?;
    println!("compaction: {done}");
    ensure!(done["merged"].as_u64() >= Some(3), "nothing was merged: {done}");
    all.check(&client, "after the merge").await?;
    let done = deployment.compact().await?;
    println!("again: {done}");
    all.check(&client, "after a second round").await?;

    // And what comes later still finds its place.
    let part = Dataset::part(4, now_ms() - 125_000);
    part.write(&client).await?;
    all.extend(part);
    all.check(&client, "after more was written").await?;
    deployment.restart().await?;
    all.check(&deployment.client()?, "at the end").await?;
    deployment.check_logs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directory() -> Result<()> {
    let mut process = Process::start(Options::default()).await?;
    scenario(&mut process).await?;
    let bucket = process.data_dir().join("bucket");
    for signal in ["metrics", "logs", "traces"] {
        ensure!(bucket.join(signal).is_dir(), "no {signal} in {}", bucket.display());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_compatible() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = s3::Server::start(dir.path()).await?;
    let mut process = Process::start(server.options.clone()).await?;
    scenario(&mut process).await?;
    for signal in ["metrics", "logs", "traces"] {
        let prefix = dir.path().join(s3::BUCKET).join(signal);
        ensure!(prefix.is_dir(), "no {} on the server", prefix.display());
    }
    ensure!(
        !process.data_dir().join("bucket").exists(),
        "a bucket in the data directory beside the one on S3"
    );
    let config = process.client().get("/config", &[]).await?.ok()?.text;
    ensure!(!config.contains(s3::KEY_SECRET), "/config shows the secret");
    ensure!(config.contains(s3::BUCKET), "/config does not show the bucket: {config}");
    ensure!(!process.log().contains(s3::KEY_SECRET), "the log shows the secret");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster() -> Result<()> {
    let mut cluster = Cluster::start(impatient()).await?;
    scenario(&mut cluster).await?;
    application(&mut cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_of_tenants() -> Result<()> {
    tenants(&Cluster::start(impatient().set("multitenancy", true)).await?).await
}

/// Flushed data are soon served by store-gateways alone.
fn impatient() -> Plan {
    Plan::default().set("store_gateway.sync_age_max", "3s").set("ingester.retain_after_flush", "4s")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process() -> Result<()> {
    application(&mut Process::start(Options::default()).await?).await?;
    tenants(&Process::start(Options::default().set("multitenancy", true)).await?).await
}

/// An application that is instrumented with the OpenTelemetry SDK.
async fn application(deployment: &mut impl Deployment) -> Result<()> {
    let application = Application::new("shop", deployment)?;
    let began_ns = now_ns();
    let done = application.work(20);
    application.flush().await?;
    for when in ["at once", "after the flush", "after the restart"] {
        match when {
            "after the flush" => deployment.flush().await?,
            "after the restart" => deployment.restart().await?,
            _ => {}
        }
        let client = deployment.client()?;
        let (start_s, end_s) = (began_ns / 1_000_000_000 - 1, now_ns() / 1_000_000_000 + 1);
        for trace in &done.traces {
            let got = client.trace(&trace.id).await.context(when)?;
            let got: BTreeSet<_> =
                got.iter().flat_map(spans).map(|s| (s.span_id.clone(), s.name.clone())).collect();
            same(got, trace.spans.iter().map(|(id, name)| (id.to_vec(), name.clone())).collect())
                .context(when)?;
        }
        let query = "{ resource.service.name = \"shop\" && name = \"ship\" }";
        let found = client.search(query, start_s, end_s).await?;
        let mut wanted: Vec<_> = done.traces.iter().map(|t| hex(&t.id)).collect();
        wanted.sort();
        same(&found, &wanted).context(when)?;
        let streamed = grpc::search(client.base(), query, start_s, end_s).await?;
        same(streamed, (wanted, true)).context(when)?;

        let streams = client.streams("{service_name=\"shop\"}", began_ns, now_ns(), true).await?;
        let lines: Vec<_> = streams.iter().flat_map(|s| &s.lines).collect();
        same(
            lines
                .iter()
                .map(|l| (l.text.clone(), l.metadata.get("trace_id").cloned()))
                .collect::<BTreeSet<_>>(),
            done.traces.iter().map(|t| (t.line.clone(), Some(hex(&t.id)))).collect(),
        )
        .context(when)?;
        same(lines.len(), done.traces.len()).context(when)?;
        let number =
            client.number("sum(last_over_time(e2e_orders_total{job=\"shop\",kind=\"book\"}[1h]))", now_ms());
        same(number.await.context(when)?, done.orders as f64).context(when)?;
    }
    Ok(())
}

fn hex(id: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}

/// Every tenant sees its own, and an answer of one is never an answer for another.
async fn tenants(deployment: &impl Deployment) -> Result<()> {
    let client = deployment.client()?;
    let (a, b) = (client.tenant("a"), client.tenant("b"));
    let one = Dataset::part(1, now_ms() - 200_000);
    let two = Dataset::part(2, now_ms() - 200_000);
    one.write(&a).await?;
    two.write(&b).await?;
    for when in ["at once", "after the flush"] {
        one.check(&a, when).await.context("tenant a")?;
        two.check(&b, when).await.context("tenant b")?;
        let c = client.tenant("c");
        same(c.samples("{job=\"e2e\"}", now_ms() - HOUR_MS, now_ms()).await?, vec![])?;
        same(c.streams("{service_name=\"e2e\"}", 0, now_ns(), true).await?, vec![])?;
        let labels = c.data("/api/v1/labels", &[]).await?;
        ensure!(list(&labels)?.is_empty(), "labels of another tenant: {labels}");
        let id = &spans(&one.traces[0]).next().context("no span")?.trace_id;
        ensure!(c.trace(id).await.is_err(), "a trace of another tenant");
        deployment.flush().await?;
    }
    let refused = client.get("/api/v1/query", &[("query", "up")]).await?;
    same((refused.status, refused.text.contains("no org id")), (401, true))?;
    Ok(())
}
