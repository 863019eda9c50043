//! A cluster of processes: written through distributors, read through the gateway, whatever dies.

#![allow(clippy::disallowed_methods, reason = "real time, from outside of the process")]

use std::time::Duration;

use anyhow::{Context, Result};
use triptych_e2e::dataset::Dataset;
use triptych_e2e::{Cluster, now_ms};

/// Written before and after, and read whole (a partial answer fails the check) at each step.
#[tokio::test]
async fn one_ingester_after_the_other_is_killed() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let (distributor, gateway) = (cluster.distributor()?, cluster.gateway()?);
    let from_ms = now_ms() - 600_000;
    let mut written = Dataset::part(0, from_ms);
    written.write(&distributor).await?;
    written.check(&gateway, "all there").await?;

    for (round, zone) in ["a", "b"].into_iter().enumerate() {
        let name = format!("ingester-{zone}-0");
        cluster.node(&name)?.kill().await?;
        // At once, before anybody can have noticed.
        let part = Dataset::part(round as u32 + 1, from_ms + (round as i64 + 1) * 60_000);
        part.write(&distributor).await.with_context(|| format!("{name} is dead"))?;
        written.extend(part);
        written.check(&gateway, &format!("{name} was killed")).await?;
        cluster.settle().await?;
        written.check(&gateway, &format!("{name} is known to be dead")).await?;
        cluster.node(&name)?.again().await?;
        cluster.settle().await?;
        written.check(&gateway, &format!("{name} is back")).await?;
    }

    cluster.flush().await?;
    written.check(&gateway, "flushed").await?;
    cluster.node("store-gateway-0")?.kill().await?;
    written.check(&gateway, "a store-gateway was killed").await?;
    cluster.node("querier-0")?.kill().await?;
    written.check(&gateway, "a querier was killed").await?;
    Ok(())
}

/// Two of three zones: writes are refused, and what is read says that it may not be all.
#[tokio::test]
async fn two_zones_are_gone() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    let (distributor, gateway) = (cluster.distributor()?, cluster.gateway()?);
    let written = Dataset::part(0, now_ms() - 600_000);
    written.write(&distributor).await?;
    cluster.node("ingester-a-0")?.kill().await?;
    cluster.node("ingester-b-0")?.kill().await?;
    cluster.settle().await?;
    let refused = Dataset::part(1, now_ms() - 300_000).write(&distributor).await.unwrap_err();
    assert!(format!("{refused:#}").contains("2 of 3 zones"), "{refused:#}");
    let answer = gateway.get("/api/v1/labels", &[]).await?.ok()?.json()?;
    assert!(answer["warnings"].is_array(), "{answer}");
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(())
}
