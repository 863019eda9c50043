//! A cluster on one machine: each role its own process at its own address, ingesters in three zones, one bucket on an S3 server.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use tokio::task::JoinSet;

use crate::network::{GOSSIP_PORT, Host, Network};
use crate::{Client, Options, Process, s3};

/// How long members may take to find each other, or to notice that one has gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a flush may take: after a failure the next attempt comes up to `ingester.flush_retry_max` later.
const FLUSH_PATIENCE: Duration = Duration::from_secs(180);

pub const ZONES: [&str; 3] = ["a", "b", "c"];

/// Roles that keep nothing, or nothing of their own: two of each, in two zones.
pub const TWINS: [&str; 5] = ["distributor", "querier", "store-gateway", "compactor", "gateway"];

/// Members by which others find the ring: the first ingesters, and the distributors, as ingesters may leave for good.
const SEEDS: usize = 5;

/// What a cluster is made of.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// `key=value` for every member.
    pub set: Vec<String>,
    /// A scraper that scrapes all members, an agent that tails their logs; the members' own spans go to the first distributor.
    pub is_observed: bool,
    /// What members say to each other passes doors (see [`crate::network`]).
    pub has_doors: bool,
}

impl Plan {
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.set.push(format!("{key}={value}"));
        self
    }
}

/// One process of the cluster.
pub struct Node {
    /// `ingester-a-0`.
    pub name: String,
    pub role: &'static str,
    pub zone: &'static str,
    pub host: Host,
    pub process: Process,
    /// Most memory that any of its lives had resident; see [`Cluster::note_memory`].
    pub memory_peak_bytes: u64,
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub network: Network,
    pub bucket: s3::Server,
    plan: Plan,
    /// A directory per member, the bucket, the scraper's targets.
    dir: tempfile::TempDir,
    /// How many members there ever were.
    hosts: usize,
}

impl Cluster {
    /// Three ingesters in three zones, two of every other role, and what the plan adds; all see each other.
    pub async fn start(plan: Plan) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let bucket = s3::Server::start(&dir.path().join("bucket")).await?;
        let network = Network::claim(plan.has_doors)?;
        let is_observed = plan.is_observed;
        let mut cluster = Self { nodes: Vec::new(), network, bucket, plan, dir, hosts: 0 };
        // The seeds first.
        let mut members: Vec<(&str, &str, usize)> = ZONES.iter().map(|zone| ("ingester", *zone, 0)).collect();
        members.extend(TWINS.iter().flat_map(|role| (0..2).map(|n| (*role, ZONES[n], n))));
        if is_observed {
            members.extend([("scraper", ZONES[0], 0), ("agent", ZONES[0], 0)]);
        }
        cluster.add(&members).await?;
        Ok(cluster)
    }

    /// Starts further members (role, zone, number) and waits until all see them.
    pub async fn add(&mut self, members: &[(&'static str, &'static str, usize)]) -> Result<()> {
        let mut starting = JoinSet::new();
        for (role, zone, number) in members {
            let name = match *role {
                "ingester" => format!("{role}-{zone}-{number}"),
                _ => format!("{role}-{number}"),
            };
            let host = self.network.host(self.hosts);
            self.hosts += 1;
            self.network.open_door(host).await?;
            let process =
                Process::within(&self.dir.path().join(&name), self.options(role, zone, &name, host))?;
            let mut node = Node { name, role, zone, host, process, memory_peak_bytes: 0 };
            starting.spawn(async move {
                node.process.spawn().await.with_context(|| node.name.clone())?;
                node.process.ready().await.with_context(|| node.name.clone())?;
                anyhow::Ok(node)
            });
        }
        while let Some(node) = starting.join_next().await {
            let node = node??;
            self.network.set_pid(node.host, node.process.pid()?);
            self.nodes.push(node);
        }
        self.nodes.sort_by_key(|node| node.host);
        self.write_targets()?;
        self.settle().await
    }

    fn options(&self, role: &'static str, zone: &str, name: &str, host: Host) -> Options {
        let network = &self.network;
        let seed = |n| format!("\"{}:{GOSSIP_PORT}\"", network.advertised(network.host(n)));
        let seeds = (0..SEEDS).map(seed).collect::<Vec<_>>().join(",");
        let mut options = Options::role(role)
            .set("node", name)
            .set("membership.seeds", format_args!("[{seeds}]"))
            .set("membership.listen", format_args!("{}:{GOSSIP_PORT}", network.address(host)))
            .set("membership.advertise", format_args!("{}:{GOSSIP_PORT}", network.advertised(host)))
            .set("membership.zone", zone)
            .set("membership.interval", "200ms")
            .set("store_gateway.sync_interval", "500ms")
            .set("store_gateway.sync_age_max", "5s")
            .set("ingester.retain_after_flush", "8s");
        options.host = Some(network.address(host));
        options.set.extend(self.bucket.options.set.iter().cloned());
        if self.plan.is_observed {
            let collector = network.address(network.host(ZONES.len()));
            let logs = self.dir.path().join("*/data/triptych.log");
            options = options
                .set("telemetry.trace_enabled", role != "distributor")
                .set("telemetry.trace_endpoint", format_args!("http://{collector}:4317"))
                .set("scraper.enabled", role == "scraper")
                .set("scraper.self_scrape", false)
                .set("scraper.global.scrape_interval", "5s")
                .set("scraper.global.scrape_timeout", "4s")
                .set("scraper.scrape_configs", format_args!("[{{job_name: triptych, file_sd_configs: [{{files: [{:?}], refresh_interval: 2s}}]}}]", self.targets()))
                .set("agent.enabled", role == "agent")
                .set("agent.host_metrics_interval", "5s")
                .set("agent.files", format_args!("[{{job: triptych, paths: [{logs:?}], exclude: [{:?}]}}]", self.dir.path().join("agent-0/**")));
        }
        options.set.extend(self.plan.set.iter().cloned());
        options
    }

    fn targets(&self) -> PathBuf {
        self.dir.path().join("targets.json")
    }

    /// Whom the scraper scrapes.
    fn write_targets(&self) -> Result<()> {
        let target = |node: &Node| {
            let labels = serde_json::json!({"instance": node.name, "role": node.role, "zone": node.zone});
            serde_json::json!({"targets": [format!("{}:3300", self.network.address(node.host))], "labels": labels})
        };
        let targets: Vec<_> = self.nodes.iter().map(target).collect();
        // Renamed, so that no half of it is read.
        let written = self.dir.path().join("targets.json.new");
        std::fs::write(&written, serde_json::to_vec_pretty(&targets)?)?;
        Ok(std::fs::rename(written, self.targets())?)
    }

    fn find(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes
            .iter_mut()
            .find(|node| node.name == name)
            .with_context(|| format!("no {name} in the cluster"))
    }

    pub fn node(&mut self, name: &str) -> Result<&mut Process> {
        Ok(&mut self.find(name)?.process)
    }

    /// The members of a role, by name.
    pub fn names(&self, role: &str) -> Vec<String> {
        self.nodes.iter().filter(|node| node.role == role).map(|node| node.name.clone()).collect()
    }

    /// The hosts of some members.
    pub fn hosts(&self, names: &[String]) -> BTreeSet<Host> {
        self.nodes.iter().filter(|node| names.contains(&node.name)).map(|node| node.host).collect()
    }

    /// A client of each member of a role, those that do not run among them: they come back at the same address.
    pub fn clients(&self, role: &str) -> Vec<Client> {
        self.nodes.iter().filter(|node| node.role == role).map(|node| self.client_of(node)).collect()
    }

    fn client_of(&self, node: &Node) -> Client {
        Client::new(format!("http://{}:3300", self.network.address(node.host)))
    }

    fn first(&self, role: &str) -> Result<Client> {
        self.clients(role).into_iter().next().with_context(|| format!("no {role}"))
    }

    /// Where to write.
    pub fn distributor(&self) -> Result<Client> {
        self.first("distributor")
    }

    /// Where to read.
    pub fn gateway(&self) -> Result<Client> {
        self.first("gateway")
    }

    /// Writes to a distributor, reads from a gateway.
    pub fn client(&self) -> Result<Client> {
        Ok(self.gateway()?.pushing_to(self.distributor()?.base()))
    }

    /// `kill -9`.
    pub async fn kill(&mut self, name: &str) -> Result<()> {
        self.note_memory();
        self.node(name)?.kill().await
    }

    /// SIGTERM; returns when it has ended well.
    pub async fn stop(&mut self, name: &str) -> Result<()> {
        self.note_memory();
        self.node(name)?.stop().await
    }

    /// Starts a member that was killed or stopped.
    pub async fn again(&mut self, name: &str) -> Result<()> {
        let node = self.find(name)?;
        node.process.again().await.with_context(|| name.to_owned())?;
        let (host, pid) = (node.host, node.process.pid()?);
        self.network.set_pid(host, pid);
        Ok(())
    }

    /// Every member after the other: stopped, started again, seen by all.
    pub async fn restart_all(&mut self) -> Result<()> {
        for name in self.nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>() {
            self.stop(&name).await.with_context(|| name.clone())?;
            self.again(&name).await?;
            self.settle().await?;
        }
        Ok(())
    }

    /// All members of a zone at the same time: stopped, started again, seen by all; then those of the next.
    pub async fn restart_zones(&mut self) -> Result<()> {
        for zone in ZONES {
            self.note_memory();
            let members = self.nodes.iter_mut().filter(|node| node.zone == zone);
            try_join_all(
                members.map(|node| async { node.process.stop().await.with_context(|| node.name.clone()) }),
            )
            .await?;
            self.start_zone(zone).await?;
            self.settle().await?;
        }
        Ok(())
    }

    /// Starts all members of a zone.
    pub async fn start_zone(&mut self, zone: &str) -> Result<()> {
        let members = self.nodes.iter_mut().filter(|node| node.zone == zone);
        try_join_all(
            members.map(|node| async { node.process.again().await.with_context(|| node.name.clone()) }),
        )
        .await?;
        for node in self.nodes.iter().filter(|node| node.zone == zone) {
            self.network.set_pid(node.host, node.process.pid()?);
        }
        Ok(())
    }

    /// Takes ingesters out for good: they leave, end, and are no members any more.
    pub async fn remove(&mut self, names: &[String]) -> Result<()> {
        self.note_memory();
        let (mut leaving, staying) = (Vec::new(), std::mem::take(&mut self.nodes));
        for node in staying {
            if names.contains(&node.name) { leaving.push(node) } else { self.nodes.push(node) }
        }
        let clients = leaving.iter().map(|node| (self.client_of(node), &node.name));
        let leave = clients.map(|(client, name)| async move {
            client.post("/-/leave", &[], "").await?.ok().with_context(|| format!("{name} leaves"))
        });
        try_join_all(leave).await?;
        for node in &mut leaving {
            node.process.stop().await?;
            ensure!(
                !node.process.log().contains("panicked"),
                "{} panicked:\n{}",
                node.name,
                node.process.log()
            );
        }
        self.write_targets()
    }

    /// How many blocks of metrics and traces a store-gateway owns, as it says itself.
    pub async fn blocks_owned(&self, store_gateway: &str) -> Result<f64> {
        let node = self.nodes.iter().find(|node| node.name == store_gateway);
        let node = node.with_context(|| format!("no {store_gateway} in the cluster"))?;
        let shown = self.client_of(node).get("/metrics", &[]).await?.ok()?.text;
        let owned = shown.lines().filter(|line| {
            line.starts_with("triptych_store_gateway_blocks{")
                && line.contains("state=\"owned\"")
                && !line.contains("signal=\"logs\"")
        });
        Ok(owned.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Waits until every process that runs sees every member as it is: active where it runs, not alive where it does not.
    pub async fn settle(&mut self) -> Result<()> {
        let running: Vec<(String, bool)> =
            self.nodes.iter_mut().map(|n| (n.name.clone(), n.process.is_alive())).collect();
        self.sees(&running).await
    }

    /// Waits until every process that runs sees all but these as active, and these as not alive.
    pub async fn settle_without(&mut self, dead: &[String]) -> Result<()> {
        let expected: Vec<_> = self.nodes.iter().map(|n| (n.name.clone(), !dead.contains(&n.name))).collect();
        self.sees(&expected).await
    }

    /// Waits until those who are cut off and all others do not see each other any more.
    pub async fn settle_parted(&mut self, parted: &[String]) -> Result<()> {
        let names: Vec<_> = self.nodes.iter().map(|n| n.name.clone()).collect();
        let side = |is_parted: bool| -> Vec<(String, bool)> {
            names.iter().map(|name| (name.clone(), parted.contains(name) == is_parted)).collect()
        };
        self.sees(&side(false)).await?;
        self.sees(&side(true)).await
    }

    async fn sees(&mut self, expected: &[(String, bool)]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for (name, _) in expected.iter().filter(|(_, is_active)| *is_active) {
            let Some(node) = self.nodes.iter().find(|node| node.name == *name) else { continue };
            let client = self.client_of(node);
            while let Err(why) = sees(&client, expected).await {
                if Instant::now() > deadline {
                    bail!("{name} after {PATIENCE:?}: {why:#}");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Everything that the ingesters hold is in the bucket alone: flushed, seen by the store-gateways, forgotten here.
    pub async fn flush(&self) -> Result<()> {
        let ingesters = self.clients("ingester");
        try_join_all(
            ingesters.iter().map(|ingester| async { ingester.timeout(FLUSH_PATIENCE).flush().await }),
        )
        .await?;
        let deadline = Instant::now() + FLUSH_PATIENCE;
        for ingester in self.clients("ingester") {
            loop {
                let metrics = ingester.get("/metrics", &[]).await?.ok()?.text;
                let waiting = metrics.lines().find(|line| {
                    line.starts_with("triptych_ingester_generations{")
                        && !line.contains("current")
                        && !line.ends_with(" 0")
                });
                match waiting {
                    None => break,
                    Some(line) if Instant::now() > deadline => bail!("after {FLUSH_PATIENCE:?}: {line}"),
                    Some(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        }
        Ok(())
    }

    /// One round of each compactor; what they did together, by name.
    pub async fn compact(&self) -> Result<serde_json::Value> {
        let mut all = serde_json::Map::new();
        for compactor in self.clients("compactor") {
            let done = compactor.compact().await?;
            for (name, count) in done.as_object().context("no object")? {
                let before = all.get(name).and_then(|n| n.as_u64()).unwrap_or(0);
                all.insert(name.clone(), (before + count.as_u64().unwrap_or(0)).into());
            }
        }
        Ok(all.into())
    }

    /// Looks what memory everybody has had so far: a process that ended cannot be asked.
    pub fn note_memory(&mut self) {
        for node in &mut self.nodes {
            let now = node.process.memory_peak_bytes().unwrap_or(0);
            node.memory_peak_bytes = node.memory_peak_bytes.max(now);
        }
    }

    /// Fails with the log of a member that panicked.
    pub fn check_logs(&self) -> Result<()> {
        for node in &self.nodes {
            let log = node.process.log();
            ensure!(!log.contains("panicked"), "{} panicked:\n{log}", node.name);
        }
        Ok(())
    }
}

/// Whether a process sees the members as they are.
async fn sees(client: &Client, expected: &[(String, bool)]) -> Result<()> {
    let ring = client.get("/api/ours/ring", &[]).await?.ok()?.json()?;
    let roles = ring.as_object().context("no object")?;
    let members: Vec<_> = roles.values().filter_map(|all| all.as_array()).flatten().collect();
    for (name, should_be) in expected {
        let member = members.iter().find(|member| member["id"] == **name);
        let is_active = member.is_some_and(|m| m["alive"] == true && m["state"] == "active");
        ensure!(is_active == *should_be, "{name} is seen as {member:?}, it should be active: {should_be}");
    }
    Ok(())
}
