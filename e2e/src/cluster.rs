//! A cluster on one machine: each role its own process, ingesters in three zones, one bucket for all.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{Client, Options, Process};

/// How long members may take to find each other, or to notice that one has gone.
const PATIENCE: Duration = Duration::from_secs(60);

const ZONES: [&str; 3] = ["a", "b", "c"];

/// One process of the cluster, by its name (`ingester-a-0`).
pub struct Node {
    pub name: String,
    pub process: Process,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    _bucket: tempfile::TempDir,
}

impl Cluster {
    /// Three ingesters in three zones, two of every other role that answers or takes anything, one gateway; the bucket is a directory.
    pub async fn start() -> Result<Self> {
        let bucket = tempfile::tempdir()?;
        let options = Options::default()
            .set("bucket.type", "filesystem")
            .set("bucket.dir", bucket.path().join("bucket").display());
        Self::over(bucket, options).await
    }

    /// The same over an S3 server in this process.
    pub async fn over_s3() -> Result<Self> {
        let bucket = tempfile::tempdir()?;
        let options = crate::s3::serve(bucket.path()).await?;
        Self::over(bucket, options).await
    }

    async fn over(bucket: tempfile::TempDir, shared: Options) -> Result<Self> {
        let ingesters = ZONES.map(|zone| (format!("ingester-{zone}-0"), "ingester", zone));
        let others = ["distributor", "querier", "store-gateway", "compactor"];
        let others =
            others.into_iter().flat_map(|role| (0..2).map(move |n| (format!("{role}-{n}"), role, ZONES[n])));
        let gateway = [("gateway-0".to_owned(), "gateway", ZONES[0])];
        let all: Vec<_> = ingesters.into_iter().chain(others).chain(gateway).collect();
        // All are open at once, so that no port is given twice.
        let sockets: Vec<UdpSocket> =
            all.iter().map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let gossip: Vec<String> =
            sockets.iter().map(|s| Ok(s.local_addr()?.to_string())).collect::<Result<_>>()?;
        drop(sockets);
        let seeds =
            gossip[..ZONES.len()].iter().map(|seed| format!("\"{seed}\"")).collect::<Vec<_>>().join(",");
        let mut cluster = Self { nodes: Vec::new(), _bucket: bucket };
        for ((name, role, zone), listen) in all.into_iter().zip(gossip) {
            let mut options = Options::role(role)
                .set("node", &name)
                .set("membership.seeds", format_args!("[{seeds}]"))
                .set("membership.listen", listen)
                .set("membership.zone", zone)
                .set("membership.interval", "200ms")
                .set("store_gateway.sync_interval", "2s");
            options.set.extend(shared.set.iter().cloned());
            let mut process = Process::new(options)?;
            process.spawn().await.with_context(|| name.clone())?;
            cluster.nodes.push(Node { name, process });
        }
        for node in &mut cluster.nodes {
            node.process.ready().await.with_context(|| node.name.clone())?;
        }
        cluster.settle().await?;
        Ok(cluster)
    }

    pub fn node(&mut self, name: &str) -> Result<&mut Process> {
        let node = self.nodes.iter_mut().find(|node| node.name == name);
        Ok(&mut node.with_context(|| format!("no {name} in the cluster"))?.process)
    }

    fn client_of(&self, name: &str) -> Result<Client> {
        let node = self.nodes.iter().find(|node| node.name == name);
        Ok(node.with_context(|| format!("no {name} in the cluster"))?.process.client())
    }

    /// Where to write.
    pub fn distributor(&self) -> Result<Client> {
        self.client_of("distributor-0")
    }

    /// Where to read.
    pub fn gateway(&self) -> Result<Client> {
        self.client_of("gateway-0")
    }

    /// Waits until every process that runs sees every member as it is: active where it runs, not alive where it does not.
    pub async fn settle(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let running: Vec<(String, bool)> =
            self.nodes.iter_mut().map(|n| (n.name.clone(), n.process.is_alive())).collect();
        for (name, _) in running.iter().filter(|(_, is_alive)| *is_alive) {
            let client = self.client_of(name)?;
            while let Err(why) = sees(&client, &running).await {
                if Instant::now() > deadline {
                    bail!("{name} after {PATIENCE:?}: {why:#}");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Everything that the ingesters hold is in the bucket, and the store-gateways have seen it.
    pub async fn flush(&self) -> Result<()> {
        for zone in ZONES {
            self.client_of(&format!("ingester-{zone}-0"))?.flush().await?;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        Ok(())
    }
}

/// Whether a process sees the members as they are.
async fn sees(client: &Client, running: &[(String, bool)]) -> Result<()> {
    let ring = client.get("/api/ours/ring", &[]).await?.ok()?.json()?;
    let roles = ring.as_object().context("no object")?;
    let members: Vec<_> = roles.values().filter_map(|all| all.as_array()).flatten().collect();
    for (name, is_running) in running {
        let member = members.iter().find(|member| member["id"] == **name);
        let is_active = member.is_some_and(|m| m["alive"] == true && m["state"] == "active");
        if is_active != *is_running {
            bail!("{name} is seen as {member:?}, it runs: {is_running}");
        }
    }
    Ok(())
}
