//! A cluster under faults: every acknowledged item is read exactly once, and no answer is wrong, or not whole without saying so.
//!
//! Each scenario has a load that knows what was acknowledged, readers that check every answer meanwhile, and checks in the end: as the
//! cluster is, after a flush, and by a new process that has nothing but the bucket. The short ones are part of `cargo test`; the others
//! take a quarter of an hour and more: `make faults` runs them and prints the table of `docs/operations.md` (`FAULT=zone` those whose
//! name has it; `BUCKET_AWAY_SECONDS=3600` leaves the bucket away for an hour).

#![allow(clippy::disallowed_methods, reason = "real time, from outside of the process")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::{FutureExt, LocalBoxFuture};
use tokio::time::{Instant, sleep};
use triptych_e2e::client::{Line, Pairs, Stream, loki_json_body, pairs};
use triptych_e2e::cluster::{Plan, TWINS, ZONES};
use triptych_e2e::load::{Load, Wrong};
use triptych_e2e::network::Rules;
use triptych_e2e::s3::Mood;
use triptych_e2e::{Client, Cluster, Process, now_ms};

const MIB: u64 = 1 << 20;
const MEMORY_LIMIT: u64 = 512 * MIB;
/// Load before a fault, and after it.
const CALM: Duration = Duration::from_secs(2);

/// How long answers may be partial, or missing, after a fault of [`Reads::Honest`].
const HEALS_MAX: Duration = Duration::from_secs(180);

/// Brings a fault about and takes it away again; returns when it began to do so.
type Fault = for<'a> fn(&'a mut Cluster) -> LocalBoxFuture<'a, Result<Instant>>;

/// Its name, what the cluster is made of, what readers may be told, what happens.
type Scenario = (&'static str, fn() -> Plan, Reads, Fault);

/// What readers may be told meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// Every answer is whole.
    Whole,
    /// An answer may say that something is missing, or that it cannot be given.
    Honest,
}

/// A cluster with its load.
struct Storm {
    cluster: Cluster,
    load: Load,
}

/// Counts that every row shows as what was added.
#[derive(Clone, Copy, Default)]
struct Seen {
    writes: usize,
    writes_retried: usize,
    writes_failed: usize,
    reads: usize,
    reads_retried: usize,
    reads_failed: usize,
    reads_partial: usize,
}

const HEAD: &str = "| scenario | acknowledged | read back | requests: written, retried, failed | questions: asked, asked elsewhere, failed, partial | peak RSS | healed in |\n|---|---|---|---|---|---|---|";

impl Storm {
    async fn begin(plan: Plan) -> Result<Self> {
        let cluster = Cluster::start(plan.set("memory_limit", MEMORY_LIMIT)).await?;
        let load = Load::start(&cluster.clients("distributor"), &cluster.clients("gateway"));
        Ok(Self { cluster, load })
    }

    fn seen(&self) -> Seen {
        let counts = &self.load.counts;
        let of = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        Seen {
            writes: of(&counts.writes),
            writes_retried: of(&counts.writes_retried),
            writes_failed: of(&counts.writes_failed),
            reads: of(&counts.reads),
            reads_retried: of(&counts.reads_retried),
            reads_failed: of(&counts.reads_failed),
            reads_partial: of(&counts.reads_partial),
        }
    }

    /// One fault under load, until all see each other again and everything acknowledged is read. Prints its row.
    async fn run(&mut self, name: &str, reads: Reads, fault: Fault) -> Result<()> {
        let before = self.seen();
        sleep(CALM).await;
        let heals = fault(&mut self.cluster).await?;
        self.cluster.settle().await?;
        let mut healed_in = heals.elapsed();
        sleep(CALM).await;
        let acknowledged = self.load.acknowledged();
        let gateway = self.cluster.gateway()?;
        let there = loop {
            match self.load.check(&gateway, "after the fault").await {
                // Store-gateways that find a thousand new blocks at once have to look at each first.
                Err(error)
                    if reads == Reads::Honest && !error.is::<Wrong>() && heals.elapsed() < HEALS_MAX =>
                {
                    sleep(CALM).await;
                    healed_in = heals.elapsed();
                }
                outcome => break outcome?,
            }
        };
        self.cluster.note_memory();
        let most =
            self.cluster.nodes.iter().max_by_key(|node| node.memory_peak_bytes).context("no members")?;
        let (after, peak) = (self.seen(), most.memory_peak_bytes);
        println!(
            "| {name} | {acknowledged} | {there} | {}, {}, {} | {}, {}, {}, {} | {} MiB ({}) | {:.1} s |",
            after.writes - before.writes,
            after.writes_retried - before.writes_retried,
            after.writes_failed - before.writes_failed,
            after.reads - before.reads,
            after.reads_retried - before.reads_retried,
            after.reads_failed - before.reads_failed,
            after.reads_partial - before.reads_partial,
            peak / MIB,
            most.name,
            healed_in.as_secs_f64(),
        );
        ensure!(
            peak <= MEMORY_LIMIT,
            "{}: {peak} bytes were resident, allowed are {MEMORY_LIMIT}",
            most.name
        );
        let mut kinds = vec!["write failed"];
        if reads == Reads::Whole {
            kinds.extend(["read failed", "read partial"]);
        }
        let failures = self.load.counts.failures(&kinds);
        ensure!(failures.is_empty(), "{} failures:\n  {}", failures.len(), failures.join("\n  "));
        ensure!(after.writes > before.writes && after.reads > before.reads, "nothing was written or read");
        self.cluster.check_logs()
    }

    /// What was acknowledged is there, at last in the bucket alone.
    async fn end(mut self) -> Result<()> {
        self.load.stop().await?;
        let gateway = self.cluster.gateway()?;
        self.load.check(&gateway, "in the end").await?;
        self.cluster.flush().await?;
        self.load.check(&gateway, "after the flush").await?;
        let alone = Process::start(self.cluster.bucket.options.clone()).await?;
        self.load.check(&alone.client(), "from the bucket alone").await?;
        self.cluster.check_logs()
    }
}

/// Runs one fault in a cluster of its own.
async fn alone(name: &str, plan: Plan, reads: Reads, fault: Fault) -> Result<()> {
    let mut storm = Storm::begin(plan).await?;
    let outcome = storm.run(name, reads, fault).await;
    if outcome.is_err() {
        for kind in ["write retried", "read retried"] {
            storm.load.counts.failures(&[kind]).iter().take(10).for_each(|failure| println!("  {failure}"));
        }
    }
    outcome?;
    storm.end().await
}

/// `kill -9` of a member; the others notice; it comes back.
async fn kill(cluster: &mut Cluster, name: &str) -> Result<Instant> {
    cluster.kill(name).await?;
    cluster.settle().await?;
    let heals = Instant::now();
    cluster.again(name).await?;
    cluster.settle().await?;
    Ok(heals)
}

/// One member of each role after the other.
async fn kill_each_role(cluster: &mut Cluster) -> Result<Instant> {
    let mut heals = Instant::now();
    for role in ["ingester"].iter().chain(&TWINS) {
        let name = cluster.names(role).swap_remove(0);
        heals = kill(cluster, &name).await.with_context(|| format!("kill {name}"))?;
    }
    Ok(heals)
}

/// Every ingester, the next one as soon as the last one is back.
async fn kill_one_ingester_after_the_other(cluster: &mut Cluster) -> Result<Instant> {
    let mut heals = Instant::now();
    for name in cluster.names("ingester") {
        heals = kill(cluster, &name).await.with_context(|| format!("kill {name}"))?;
    }
    Ok(heals)
}

fn of_zone(cluster: &Cluster, zone: &str) -> Vec<String> {
    cluster.nodes.iter().filter(|node| node.zone == zone).map(|node| node.name.clone()).collect()
}

async fn kill_a_zone(cluster: &mut Cluster) -> Result<Instant> {
    let members = of_zone(cluster, ZONES[0]);
    for name in &members {
        cluster.kill(name).await?;
    }
    cluster.settle().await?;
    let heals = Instant::now();
    cluster.start_zone(ZONES[0]).await?;
    Ok(heals)
}

/// Nothing passes between these members and the others, for as long as that takes to be noticed, and some more.
async fn part(cluster: &mut Cluster, names: Vec<String>, pause: Duration) -> Result<Instant> {
    cluster.network.rule(Rules { apart: cluster.hosts(&names), ..Rules::default() });
    cluster.settle_parted(&names).await?;
    sleep(pause).await;
    let heals = Instant::now();
    cluster.network.rule(Rules::default());
    cluster.settle().await?;
    Ok(heals)
}

async fn part_an_ingester(cluster: &mut Cluster) -> Result<Instant> {
    part(cluster, vec!["ingester-b-0".to_owned()], Duration::from_secs(2)).await
}

/// A member of each role that is asked by others, one after the other.
async fn part_each_role(cluster: &mut Cluster) -> Result<Instant> {
    let mut heals = Instant::now();
    for name in ["ingester-c-0", "store-gateway-0", "querier-1", "distributor-1"] {
        heals = part(cluster, vec![name.to_owned()], Duration::from_secs(5))
            .await
            .with_context(|| format!("part {name}"))?;
    }
    Ok(heals)
}

async fn part_a_zone(cluster: &mut Cluster) -> Result<Instant> {
    let members = of_zone(cluster, ZONES[0]);
    part(cluster, members, Duration::from_secs(10)).await
}

async fn disturb(cluster: &mut Cluster, rules: Rules) -> Result<Instant> {
    cluster.network.rule(rules);
    sleep(Duration::from_secs(30)).await;
    let heals = Instant::now();
    cluster.network.rule(Rules::default());
    Ok(heals)
}

async fn slow_network(cluster: &mut Cluster) -> Result<Instant> {
    disturb(cluster, Rules { delay: Duration::from_millis(100), ..Rules::default() }).await
}

async fn lossy_network(cluster: &mut Cluster) -> Result<Instant> {
    disturb(cluster, Rules { loss_percent: 20, ..Rules::default() }).await
}

async fn breaking_connections(cluster: &mut Cluster) -> Result<Instant> {
    disturb(cluster, Rules { reset_after_bytes: MIB, ..Rules::default() }).await
}

/// How long the bucket is away: `BUCKET_AWAY_SECONDS`, or long enough for flushes that are refused to fail more often than they are tried
/// before they go to the local disk.
fn bucket_away_for() -> Duration {
    let seconds = std::env::var("BUCKET_AWAY_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(90))
}

/// Generations that are flushed every half minute, so that there are flushes to fail.
fn many_flushes() -> Plan {
    let ages = ["metrics", "logs", "traces"].map(|signal| format!("ingester.{signal}.age_max"));
    let plan =
        ages.iter().fold(plan(), |plan, age| plan.set(age, "30s")).set("ingester.flush_retry_max", "2s");
    if bucket_away_for() < Duration::from_secs(600) {
        return plan;
    }
    // Thousands of blocks are not looked through within the times of the other tests. Retained for less than generations last, so that
    // there are moments when nothing is.
    plan.set("store_gateway.sync_interval", "2s")
        .set("store_gateway.sync_age_max", "15s")
        .set("ingester.retain_after_flush", "20s")
}

async fn bucket_refuses(cluster: &mut Cluster) -> Result<Instant> {
    cluster.bucket.set_mood(Mood::Refuses);
    sleep(bucket_away_for()).await;
    for ingester in cluster.clients("ingester") {
        let spooled = sum(&ingester, "triptych_ingester_spooled_generations_total").await?;
        ensure!(spooled > 0.0, "{} keeps everything in memory", ingester.base());
    }
    let heals = Instant::now();
    cluster.bucket.set_mood(Mood::Well);
    cluster.flush().await?;
    Ok(heals)
}

/// A request that is not answered takes a minute to fail: within a few of them nothing goes to the local disk.
async fn bucket_silent(cluster: &mut Cluster) -> Result<Instant> {
    cluster.bucket.set_mood(Mood::Silent);
    sleep(bucket_away_for()).await;
    let heals = Instant::now();
    cluster.bucket.set_mood(Mood::Well);
    cluster.flush().await?;
    Ok(heals)
}

/// Local disk that is used up within a minute.
fn little_disk() -> Plan {
    many_flushes().set("ingester.disk_bytes_max", MIB)
}

/// The bucket is away until no ingester has local disk left: writes are refused, and taken again as soon as there is room.
async fn bucket_away_and_disk_used_up(cluster: &mut Cluster) -> Result<Instant> {
    cluster.bucket.set_mood(Mood::Refuses);
    let (distributor, began) = (cluster.distributor()?, Instant::now());
    loop {
        let (status, retry_after, text) = probe(&distributor).await?;
        if status == 503 && text.contains("local disk") {
            ensure!(retry_after.is_some(), "a refusal that does not say when to come again: {text}");
            break;
        }
        ensure!(
            began.elapsed() < Duration::from_secs(180),
            "the local disk is never used up: {status} {text}"
        );
        sleep(Duration::from_secs(1)).await;
    }
    sleep(Duration::from_secs(20)).await;
    let heals = Instant::now();
    cluster.bucket.set_mood(Mood::Well);
    cluster.flush().await?;
    while probe(&distributor).await?.0 != 204 {
        ensure!(heals.elapsed() < Duration::from_secs(180), "it still refuses");
        sleep(Duration::from_secs(1)).await;
    }
    Ok(heals)
}

/// A line that is not the load's: status, `Retry-After` and text of the answer.
async fn probe(distributor: &Client) -> Result<(u16, Option<String>, String)> {
    let line = Line { ts_ns: now_ms() * 1_000_000, text: "probe".to_owned(), metadata: Pairs::new() };
    let stream = Stream { labels: pairs([("service_name", "probe")]), lines: vec![line] };
    let request = distributor.request(reqwest::Method::POST, "/loki/api/v1/push");
    let request = request.header("content-type", "application/json").body(loki_json_body(&[stream]));
    let answer = request.timeout(Duration::from_secs(20)).send().await?;
    let retry_after = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
    Ok((answer.status().as_u16(), retry_after, answer.text().await?))
}

async fn shell(command: &str) -> Result<()> {
    let output = tokio::process::Command::new("sh").args(["-c", command]).output().await?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// The data directory of an ingester becomes a small file system of its own, and that is filled up.
async fn disk_full(cluster: &mut Cluster) -> Result<Instant> {
    let name = "ingester-a-0";
    let data = cluster.node(name)?.data_dir().display().to_string();
    cluster.stop(name).await?;
    shell(&format!("mv {data} {data}.before && mkdir {data} && mount -t tmpfs -o size=48m tmpfs {data} && cp -a {data}.before/. {data}")).await?;
    let filled = async {
        cluster.again(name).await?;
        cluster.settle().await?;
        let _ = shell(&format!("dd if=/dev/zero of={data}/ballast bs=64k")).await;
        sleep(Duration::from_secs(10)).await;
        let failed = refused_pushes(cluster, name).await?;
        ensure!(failed > 0.0, "the full disk was not noticed");
        let heals = Instant::now();
        shell(&format!("rm {data}/ballast")).await?;
        loop {
            let before = refused_pushes(cluster, name).await?;
            sleep(Duration::from_secs(1)).await;
            if refused_pushes(cluster, name).await? == before {
                break;
            }
            ensure!(heals.elapsed() < Duration::from_secs(60), "it still refuses");
        }
        anyhow::Ok(heals)
    }
    .await;
    // The process lives on the old files until its end; what it has is in the bucket then.
    let stopped = cluster.stop(name).await;
    shell(&format!(
        "cp -a {data}/. {data}.before && umount {data} && rmdir {data} && mv {data}.before {data}"
    ))
    .await?;
    stopped?;
    cluster.again(name).await?;
    filled
}

async fn refused_pushes(cluster: &mut Cluster, name: &str) -> Result<f64> {
    sum(&cluster.node(name)?.client(), "triptych_ingester_failed_pushes_total").await
}

/// All series of one of a member's own metrics, added up.
async fn sum(member: &Client, metric: &str) -> Result<f64> {
    let text = member.get("/metrics", &[]).await?.ok()?.text;
    let series =
        text.lines().filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{')));
    Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// A process that stands still: its ports take connections, nothing answers. For a minute after all have noticed.
async fn pause(cluster: &mut Cluster, name: &str) -> Result<Instant> {
    cluster.node(name)?.signal("-STOP").await?;
    let noticed = cluster.settle_without(&[name.to_owned()]).await;
    if noticed.is_ok() {
        sleep(Duration::from_secs(60)).await;
    }
    let heals = Instant::now();
    cluster.node(name)?.signal("-CONT").await?;
    noticed?;
    Ok(heals)
}

async fn pause_an_ingester(cluster: &mut Cluster) -> Result<Instant> {
    pause(cluster, "ingester-a-0").await
}

async fn pause_a_querier(cluster: &mut Cluster) -> Result<Instant> {
    pause(cluster, "querier-0").await
}

async fn pause_a_store_gateway(cluster: &mut Cluster) -> Result<Instant> {
    pause(cluster, "store-gateway-0").await
}

/// Every member, one after the other, as a new version is rolled out.
async fn rolling_restart(cluster: &mut Cluster) -> Result<Instant> {
    let heals = Instant::now();
    cluster.restart_all().await?;
    Ok(heals)
}

/// All members of a zone at a time: one of each role, and an ingester.
async fn restart_zone_by_zone(cluster: &mut Cluster) -> Result<Instant> {
    let heals = Instant::now();
    cluster.restart_zones().await?;
    Ok(heals)
}

/// 3 -> 6 -> 3 ingesters; the three that were there from the beginning go, so that all data move.
async fn scale_out_and_in(cluster: &mut Cluster) -> Result<Instant> {
    let heals = Instant::now();
    cluster.add(&ZONES.map(|zone| ("ingester", zone, 1))).await?;
    sleep(CALM).await;
    cluster.remove(&ZONES.map(|zone| format!("ingester-{zone}-0"))).await?;
    Ok(heals)
}

fn plan() -> Plan {
    Plan { has_doors: true, ..Plan::default() }
}

macro_rules! fault {
    ($f:ident) => {
        |cluster| $f(cluster).boxed_local()
    };
}

/// The most telling ones, in one cluster.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short() -> Result<()> {
    println!("{HEAD}");
    let mut storm = Storm::begin(plan()).await?;
    storm.run("kill -9, a zone", Reads::Whole, fault!(kill_a_zone)).await?;
    storm.run("an ingester is cut off", Reads::Whole, fault!(part_an_ingester)).await?;
    storm.run("ingesters 3 -> 6 -> 3", Reads::Whole, fault!(scale_out_and_in)).await?;
    storm.run("restart, zone by zone", Reads::Whole, fault!(restart_zone_by_zone)).await?;
    storm.end().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a quarter of an hour and more: make faults"]
async fn all_faults() -> Result<()> {
    println!("{HEAD}");
    let faults: [Scenario; 19] = [
        ("kill -9, each role in turn", plan, Reads::Whole, fault!(kill_each_role)),
        (
            "kill -9, one ingester after the other",
            plan,
            Reads::Whole,
            fault!(kill_one_ingester_after_the_other),
        ),
        ("kill -9, a zone", plan, Reads::Whole, fault!(kill_a_zone)),
        ("partition: a member of each role", plan, Reads::Whole, fault!(part_each_role)),
        ("partition: a zone", plan, Reads::Honest, fault!(part_a_zone)),
        ("every message 100 ms late", plan, Reads::Whole, fault!(slow_network)),
        ("20 % of the datagrams lost", plan, Reads::Whole, fault!(lossy_network)),
        ("connections break after 1 MiB", plan, Reads::Whole, fault!(breaking_connections)),
        ("the bucket refuses (503)", many_flushes, Reads::Honest, fault!(bucket_refuses)),
        ("the bucket does not answer", many_flushes, Reads::Honest, fault!(bucket_silent)),
        (
            "the bucket refuses until the disk is used up",
            little_disk,
            Reads::Honest,
            fault!(bucket_away_and_disk_used_up),
        ),
        ("disk of an ingester full", plan, Reads::Whole, fault!(disk_full)),
        ("an ingester stands still", plan, Reads::Whole, fault!(pause_an_ingester)),
        ("a querier stands still", plan, Reads::Whole, fault!(pause_a_querier)),
        ("a store-gateway stands still", plan, Reads::Whole, fault!(pause_a_store_gateway)),
        ("rolling restart, member by member", plan, Reads::Whole, fault!(rolling_restart)),
        ("rolling restart, zone by zone", plan, Reads::Whole, fault!(restart_zone_by_zone)),
        ("ingesters 3 -> 6 -> 3", plan, Reads::Whole, fault!(scale_out_and_in)),
        ("nothing happens", plan, Reads::Whole, |_| async { Ok(Instant::now()) }.boxed_local()),
    ];
    let only = std::env::var("FAULT").unwrap_or_default();
    let can_mount =
        shell("d=$(mktemp -d) && mount -t tmpfs -o size=1m tmpfs $d && umount $d && rmdir $d").await;
    let mut failed = Vec::new();
    for (name, plan, reads, fault) in faults.into_iter().filter(|(name, ..)| name.contains(&only)) {
        if name.starts_with("disk")
            && let Err(why) = &can_mount
        {
            println!("{name}: left out, no small file system can be mounted here: {why:#}");
            continue;
        }
        if let Err(error) = alone(name, plan(), reads, fault).await {
            println!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("{failed:?}");
    }
    Ok(())
}
