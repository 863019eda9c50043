//! `make cluster`: a cluster on this machine, to look at and to play with.

use anyhow::Result;
use triptych_e2e::Cluster;

#[tokio::main]
async fn main() -> Result<()> {
    println!(
        "starting three ingesters in three zones, two distributors, queriers, store-gateways, compactors, a gateway, S3 .."
    );
    let cluster = Cluster::over_s3().await?;
    println!("{:<18} address", "member");
    for node in &cluster.nodes {
        println!("{:<18} {}", node.name, node.process.http());
    }
    println!("write  {}   (remote_write, Loki push, OTLP)", cluster.distributor()?.base());
    println!("read   {}   (Prometheus, Loki, Tempo APIs, the page)", cluster.gateway()?.base());
    println!("ring   {}/ring", cluster.gateway()?.base());
    println!("Ctrl-C ends it; its data go with it");
    tokio::signal::ctrl_c().await?;
    Ok(())
}
