//! `make cluster`: a cluster on this machine, to look at and to play with.

use anyhow::{Result, bail};
use triptych_e2e::Cluster;
use triptych_e2e::cluster::Plan;
use triptych_e2e::network::Rules;

const COMMANDS: &str = "commands (NAME is a member)
  kill NAME      kill -9; its WAL stays
  stop NAME      SIGTERM
  start NAME     again, over its data
  cut NAME       nothing passes between it and the others any more; `heal` ends that
  roll           every member after the other is stopped and started
  quit           or Ctrl-C: all end, their data go with them";

#[tokio::main]
async fn main() -> Result<()> {
    println!(
        "starting three ingesters in three zones, two distributors, queriers, store-gateways, compactors and gateways, \
         a scraper, an agent, and an S3 server .."
    );
    let plan = Plan { is_observed: true, has_doors: true, ..Plan::default() };
    let mut cluster = Cluster::start(plan).await?;
    println!("{:<18} {:<5} {:<8} address", "member", "zone", "pid");
    for node in &cluster.nodes {
        let address = cluster.network.address(node.host);
        println!("{:<18} {:<5} {:<8} http://{address}:3300", node.name, node.zone, node.process.pid()?);
    }
    let (write, read) = (cluster.distributor()?, cluster.gateway()?);
    let (write, read) = (write.base(), read.base());
    println!("try");
    println!("  write      {write}   (remote_write, Loki push, OTLP)");
    println!("  read       {read}   (the page; Prometheus, Loki and Tempo data sources of Grafana)");
    println!("  the ring   {read}/ring");
    println!("  members    curl -sG {read}/api/v1/query --data-urlencode 'query=up{{job=\"triptych\"}}'");
    println!("  this host  curl -sG {read}/api/v1/query --data-urlencode 'query=node_load1'");
    println!(
        "  their logs curl -sG {read}/loki/api/v1/query_range --data-urlencode 'query={{job=\"triptych\"}} |= \"active\"'"
    );
    println!(
        "  their spans curl -sG {read}/api/search --data-urlencode 'q={{resource.service.name=~\"triptych.*\"}}'"
    );
    println!("{COMMANDS}");
    let (sender, mut lines) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(Result::ok);
        for line in lines {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    loop {
        tokio::select! {
            ended = tokio::signal::ctrl_c() => return Ok(ended?),
            Some(line) = lines.recv() => match line.trim() {
                "quit" => return Ok(()),
                line => match command(&mut cluster, line).await {
                    Ok(()) => println!("done: {line}"),
                    Err(error) => println!("{error:#}"),
                },
            },
        }
    }
}

async fn command(cluster: &mut Cluster, line: &str) -> Result<()> {
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["kill", name] => cluster.kill(name).await,
        ["stop", name] => cluster.stop(name).await,
        ["start", name] => cluster.again(name).await,
        ["cut", name] => {
            cluster.node(name)?;
            let apart = cluster.hosts(&[name.to_owned()]);
            cluster.network.rule(Rules { apart, ..Rules::default() });
            Ok(())
        }
        ["heal"] => {
            cluster.network.rule(Rules::default());
            Ok(())
        }
        ["roll"] => cluster.restart_all().await,
        _ => bail!("{COMMANDS}"),
    }
}
