//! A cluster of processes: that it looks at itself, and what it says when it cannot go on. What it survives: `faults`.

#![allow(clippy::disallowed_methods, reason = "real time, from outside of the process")]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use triptych_e2e::client::strings;
use triptych_e2e::cluster::Plan;
use triptych_e2e::dataset::{Dataset, same};
use triptych_e2e::{Cluster, now_ms, now_ns};

/// Scraped, tailed and traced by itself: every member is up, this host has metrics, the members' lines and spans are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looks_at_itself() -> Result<()> {
    let cluster = Cluster::start(Plan { is_observed: true, ..Plan::default() }).await?;
    let gateway = cluster.gateway()?;
    let mut members: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    members.sort();
    let instances = async |query: &str| -> Result<Vec<String>> {
        let data = gateway.data("/api/v1/query", &[("query", query)]).await?;
        strings(&data["result"], |series| &series["metric"]["instance"])
    };
    until("all members are up", async || {
        same(instances("up{job=\"triptych\"} == 1").await?, members.clone())
    })
    .await?;
    until("host metrics of the agent", async || {
        let hosts = instances("node_memory_MemTotal_bytes > 0").await?;
        ensure!(hosts.len() == 1, "{hosts:?}");
        Ok(())
    })
    .await?;
    until("lines of every member", async || {
        let query = "{job=\"triptych\"} |= \"active\"";
        let files = gateway.streams(query, now_ns() - 600_000_000_000, now_ns(), true).await?;
        let missing =
            members.iter().filter(|name| !files.iter().any(|s| s.labels.values().any(|v| v.contains(*name))));
        let missing: Vec<_> = missing.collect();
        ensure!(missing.is_empty(), "none of {missing:?}");
        Ok(())
    })
    .await?;
    until("the cluster's own spans", async || {
        let now_s = now_ns() / 1_000_000_000;
        let found =
            gateway.search("{ resource.service.name =~ \"triptych.*\" }", now_s - 600, now_s + 1).await?;
        ensure!(!found.is_empty(), "none");
        Ok(())
    })
    .await
}

/// Waits for what comes by itself.
async fn until(what: &str, mut check: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(why) = check().await {
        if Instant::now() > deadline {
            return Err(why.context(format!("{what}, after a minute")));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// What is read is in the bucket alone, in several blocks that two store-gateways divide; one of them dies while questions are under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_gateway_is_killed_under_questions() -> Result<()> {
    let plan =
        Plan::default().set("ingester.retain_after_flush", "6s").set("store_gateway.sync_age_max", "5s");
    let mut cluster = Cluster::start(plan).await?;
    let (distributor, gateway) = (cluster.distributor()?, cluster.gateway()?);
    let from_ms = now_ms() - 600_000;
    let mut written = Dataset::default();
    for number in 0..3 {
        let part = Dataset::part(number, from_ms + i64::from(number) * 120_000);
        part.write(&distributor).await?;
        written.extend(part);
        cluster.flush().await?;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    written.check(&gateway, "in the bucket").await?;
    let owned =
        [cluster.blocks_owned("store-gateway-0").await?, cluster.blocks_owned("store-gateway-1").await?];
    // Three ingesters, three flushes, metrics and traces.
    assert!(owned.iter().all(|owned| *owned > 0.0) && owned[0] + owned[1] >= 18.0, "{owned:?}");

    let reading = async {
        for _ in 0..4 {
            written.check(&gateway, "a store-gateway is being killed").await?;
        }
        anyhow::Ok(())
    };
    let killing = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cluster.node("store-gateway-0")?.kill().await
    };
    tokio::try_join!(reading, killing)?;
    cluster.settle().await?;
    written.check(&gateway, "the other one has it all").await?;
    cluster.node("store-gateway-0")?.again().await?;
    cluster.settle().await?;
    written.check(&gateway, "they divide it again").await
}

/// Clients may write where they read, as long as a distributor is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn written_through_the_gateway() -> Result<()> {
    let mut cluster = Cluster::start(Plan::default()).await?;
    let gateway = cluster.gateway()?;
    let from_ms = now_ms() - 600_000;
    let mut written = Dataset::default();
    for number in 0..4 {
        if number == 1 {
            cluster.kill("distributor-0").await?;
        }
        let part = Dataset::part(number, from_ms + i64::from(number) * 60_000);
        part.write(&gateway).await?;
        written.extend(part);
    }
    written.check(&gateway, "written through the gateway").await
}

/// Two of three zones: writes are refused, and what is read says that it may not be all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_zones_are_gone() -> Result<()> {
    let mut cluster = Cluster::start(Plan::default().set("querier.whole_wait_max", "2s")).await?;
    let (distributor, gateway) = (cluster.distributor()?, cluster.gateway()?);
    let written = Dataset::part(0, now_ms() - 600_000);
    written.write(&distributor).await?;
    cluster.kill("ingester-a-0").await?;
    cluster.kill("ingester-b-0").await?;
    cluster.settle().await?;
    let refused = Dataset::part(1, now_ms() - 300_000).write(&distributor).await.unwrap_err();
    assert!(format!("{refused:#}").contains("2 of 3 zones"), "{refused:#}");
    let answer = gateway.get("/api/v1/labels", &[]).await?.ok()?.json()?;
    assert!(answer["warnings"].is_array(), "{answer}");
    // Queriers that begin meanwhile answer the same way.
    for querier in cluster.names("querier") {
        cluster.kill(&querier).await?;
    }
    for querier in cluster.names("querier") {
        cluster.again(&querier).await?;
    }
    until("queriers that began without two zones are asked", async || {
        let answer = gateway.get("/api/v1/labels", &[]).await?.ok()?.json()?;
        ensure!(
            answer["warnings"].is_array() && answer["data"].as_array().is_some_and(|all| !all.is_empty()),
            "{answer}"
        );
        Ok(())
    })
    .await
}
