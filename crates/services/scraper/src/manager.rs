//! Starts and stops a loop per target as discovery finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use triptych_intake::exposition::Format;
use triptych_model::batch::MetricsBuilder;
use triptych_model::{Error, Kind, Labels, Result, TenantId};
use triptych_rpc::{Write, WriteContext};
use triptych_runtime::runtimes::Handles;
use triptych_runtime::{Shutdown, Tasks, now_ms};

use crate::config::{Config, ScrapeConfig};
use crate::discovery;
use crate::relabel::Rules;
use crate::scrape::{Mapping, Series};
use crate::target::{Health, Target, build};
use crate::telemetry;

/// How often discovery looks, unless a job's `refresh_interval` is shorter.
const REFRESH: Duration = Duration::from_secs(5);
const BODY_BYTES_MAX: u64 = 256 << 20;
/// What is asked for, the best first.
const ACCEPTED: &str = "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// What the scraper is built from.
pub struct Deps {
    pub write: Arc<dyn Write>,
    pub pools: Handles,
    /// This process' own `host:port`, for its own `/metrics`.
    pub own_address: String,
}

/// Shown by `/api/v1/targets` and `/api/v1/scrape_pools`.
pub type Targets = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

pub struct Scraper(Arc<Inner>);

struct Inner {
    config: Config,
    jobs: Vec<Job>,
    ctx: WriteContext,
    external: Labels,
    deps: Deps,
    /// The loops that run, by target.
    running: Mutex<BTreeMap<String, Running>>,
}

struct Job {
    config: ScrapeConfig,
    rules: Rules,
    client: reqwest::Client,
    headers: HeaderMap,
}

struct Running {
    target: Target,
    health: Arc<Mutex<Health>>,
    stop: Shutdown,
    task: JoinHandle<()>,
}

impl Config {
    pub fn build(self, deps: Deps) -> Result<Scraper> {
        let jobs = self.jobs(&deps.own_address)?;
        let jobs = jobs.into_iter().map(Job::new).collect::<Result<_>>()?;
        let ctx =
            WriteContext { tenant: TenantId::new(&self.tenant).map_err(|e| e.context("scraper.tenant"))? };
        let external = Labels::from_pairs(&self.global.external_labels);
        Ok(Scraper(Arc::new(Inner { config: self, jobs, ctx, external, deps, running: Mutex::default() })))
    }
}

impl Job {
    fn new(config: ScrapeConfig) -> Result<Self> {
        let rules = Rules::new(&config.relabel_configs)?;
        Rules::new(&config.metric_relabel_configs)?;
        let wrong = |e: String| Error::invalid(format!("job {:?}: {e}", config.job_name));
        let mut builder = reqwest::Client::builder().gzip(config.enable_compression.unwrap_or(true));
        if config.follow_redirects == Some(false) {
            builder = builder.redirect(reqwest::redirect::Policy::none());
        }
        if let Some(tls) = &config.tls_config {
            builder = builder.danger_accept_invalid_certs(tls.insecure_skip_verify);
            if let Some(file) = &tls.ca_file {
                let pem = std::fs::read(file).map_err(|e| wrong(format!("{}: {e}", file.display())))?;
                let ca = reqwest::Certificate::from_pem(&pem).map_err(|e| wrong(e.to_string()))?;
                builder = builder.add_root_certificate(ca);
            }
        }
        let client = builder.build().map_err(|e| wrong(e.to_string()))?;
        let headers = headers(&config).map_err(|e| wrong(e.to_string()))?;
        Ok(Self { config, rules, client, headers })
    }
}

fn headers(config: &ScrapeConfig) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("triptych/", env!("CARGO_PKG_VERSION"))));
    let file = |path: &std::path::Path| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .map_err(|e| Error::invalid(format!("{}: {e}", path.display())))
    };
    let secret = if let Some(basic) = &config.basic_auth {
        let password = match &basic.password_file {
            Some(path) => file(path)?,
            None => basic.password.expose().to_owned(),
        };
        Some(format!("Basic {}", STANDARD.encode(format!("{}:{password}", basic.username))))
    } else if let Some(authorization) = &config.authorization {
        let credentials = match &authorization.credentials_file {
            Some(path) => file(path)?,
            None => authorization.credentials.expose().to_owned(),
        };
        Some(format!("{} {credentials}", authorization.kind))
    } else if let Some(path) = &config.bearer_token_file {
        Some(format!("Bearer {}", file(path)?))
    } else {
        config.bearer_token.as_ref().map(|token| format!("Bearer {}", token.expose()))
    };
    if let Some(secret) = secret {
        let mut value =
            HeaderValue::try_from(secret).map_err(|_| Error::invalid("credentials are not ASCII"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

impl Scraper {
    /// Starts discovery; loops follow.
    pub fn start(&self, tasks: &Tasks) {
        let inner = self.0.clone();
        let shutdown = tasks.shutdown().clone();
        let pool = self.0.deps.pools.ingest.clone();
        tasks.spawn(&pool, "scrape-discovery", async move {
            let configured = inner.jobs.iter().flat_map(|j| &j.config.file_sd_configs);
            let refresh = configured.map(|f| f.refresh_interval.0).min().unwrap_or(REFRESH).min(REFRESH);
            loop {
                inner.reconcile();
                tokio::select! {
                    () = shutdown.triggered() => break,
                    () = tokio::time::sleep(refresh.max(Duration::from_millis(100))) => {}
                }
            }
            // A restart is no end of a target: no staleness markers, so that rates go on over it.
            let running = std::mem::take(&mut *inner.running.lock());
            running.into_values().for_each(|r| r.task.abort());
        });
    }

    /// The answer of `/api/v1/targets`, and besides it `scrapePools`, the names of all jobs, sorted.
    pub fn targets(&self) -> Targets {
        let inner = self.0.clone();
        Arc::new(move || {
            let running = inner.running.lock();
            let active: Vec<_> = running.values().map(|r| r.target.shown(&r.health.lock())).collect();
            let pools: BTreeSet<_> = inner.jobs.iter().map(|j| j.config.job_name.as_str()).collect();
            serde_json::json!({
                "activeTargets": active, "droppedTargets": [], "droppedTargetCounts": {}, "scrapePools": pools,
            })
        })
    }
}

impl Inner {
    /// Makes the loops that run be those of the targets that are there.
    fn reconcile(self: &Arc<Self>) {
        let mut wanted: BTreeMap<String, (usize, Target)> = BTreeMap::new();
        let mut running = self.running.lock();
        for (position, job) in self.jobs.iter().enumerate() {
            match self.targets(job) {
                Ok(targets) => {
                    for target in targets {
                        let key = format!("{}\0{}\0{}", target.job, target.url, target.labels);
                        wanted.insert(key, (position, target));
                    }
                }
                Err(error) => {
                    tracing::warn!(job = job.config.job_name, %error, "targets could not be discovered, the known ones stay");
                    let known = running.iter().filter(|(_, r)| r.target.job == job.config.job_name);
                    wanted.extend(known.map(|(key, r)| (key.clone(), (position, r.target.clone()))));
                }
            }
        }
        running.retain(|key, one| {
            let stays = wanted.contains_key(key) && !one.task.is_finished();
            if !stays {
                one.stop.trigger();
            }
            stays
        });
        for (key, (position, target)) in wanted {
            if running.contains_key(&key) {
                continue;
            }
            let (stop, health) = (Shutdown::new(), Arc::new(Mutex::new(Health::default())));
            let scrape = self.clone().scrape_loop(position, target.clone(), health.clone(), stop.clone());
            let task = self.deps.pools.ingest.spawn(scrape);
            running.insert(key, Running { target, health, stop, task });
        }
        telemetry::targets().set(running.len() as f64);
    }

    fn targets(&self, job: &Job) -> Result<Vec<Target>> {
        let mut wrong = Vec::new();
        let groups = discovery::groups(&job.config, &mut wrong);
        if let Some(error) = wrong.into_iter().next() {
            return Err(error);
        }
        let (interval, timeout) = (self.config.interval(&job.config), self.config.timeout(&job.config));
        let mut targets = Vec::new();
        for group in &groups {
            for address in &group.targets {
                match build(&job.config, &job.rules, group, address, interval, timeout) {
                    Ok(target) => targets.extend(target),
                    Err(error) => tracing::warn!(%error, "target cannot be scraped"),
                }
            }
        }
        let max = job.config.target_limit;
        if max > 0 && targets.len() > max {
            return Err(Error::invalid(format!(
                "target_limit exceeded: {} targets, the limit is {max}",
                targets.len()
            )));
        }
        Ok(targets)
    }

    async fn scrape_loop(
        self: Arc<Self>,
        job: usize,
        target: Target,
        health: Arc<Mutex<Health>>,
        stop: Shutdown,
    ) {
        let job = &self.jobs[job];
        let mapping = match Mapping::new(&job.config, target.labels.clone(), self.external.clone()) {
            Ok(mapping) => mapping,
            Err(error) => {
                tracing::warn!(%error, job = target.job, "metric_relabel_configs");
                return;
            }
        };
        let mut series = Series::default();
        let spread = target.labels.hash64() % target.interval.as_nanos().max(1) as u64;
        let first =
            if self.config.self_scrape && target.job == "triptych" { 0 } else { spread.min(5_000_000_000) };
        let mut ticks =
            tokio::time::interval_at(Instant::now() + Duration::from_nanos(first), target.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.triggered() => break,
                _ = ticks.tick() => {}
            }
            self.scrape(job, &target, &mapping, &mut series, &health).await;
        }
        let mut batch = MetricsBuilder::default();
        series.end(&mapping, now_ms(), &mut batch);
        self.write(batch, Duration::from_secs(10)).await;
    }

    async fn scrape(
        &self,
        job: &Job,
        target: &Target,
        mapping: &Mapping,
        series: &mut Series,
        health: &Mutex<Health>,
    ) {
        let (began, at_ms) = (Instant::now(), now_ms());
        let fetched = match tokio::time::timeout(target.timeout, fetch(job, target)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(Error::unavailable(format!("no answer within {:?}", target.timeout))),
        };
        let mut batch = MetricsBuilder::default();
        let outcome = match fetched {
            Ok((body, format)) => series.body(mapping, &body, format, at_ms, &mut batch),
            Err(error) => {
                series.stale(at_ms, true, &mut batch);
                Err(error)
            }
        };
        let took = began.elapsed();
        Series::report(mapping, outcome.as_ref().ok().copied(), took, at_ms, &mut batch);
        let label = if outcome.is_ok() { "success" } else { "error" };
        telemetry::scrapes(label).increment(1);
        {
            let error = outcome.err().map_or_else(String::new, |e| e.to_string());
            let scraped_at = jiff::Timestamp::from_millisecond(at_ms).ok();
            *health.lock() = Health { scraped_at, took, error: Some(error) };
        }
        self.write(batch, target.interval).await;
    }

    /// Writes until it is taken, refused, or too late.
    async fn write(&self, batch: MetricsBuilder, deadline: Duration) {
        let until = Instant::now() + deadline;
        let plain = batch.plain().to_vec();
        let mut batch = Some(batch);
        let mut pause = Duration::from_millis(100);
        loop {
            let Some(attempt) = batch.take().or_else(|| MetricsBuilder::from_plain(plain.clone()).ok())
            else {
                return;
            };
            match self.deps.write.metrics(&self.ctx, attempt).await {
                Ok(report) => {
                    for (reason, refused) in report.refused {
                        telemetry::refused_samples(reason).increment(refused.items);
                        tracing::debug!(example = refused.example, "samples refused");
                    }
                    return;
                }
                Err(error)
                    if matches!(error.kind, Kind::Unavailable | Kind::Exhausted)
                        && Instant::now() + pause < until =>
                {
                    tokio::time::sleep(error.retry_after.unwrap_or(pause).min(deadline)).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
                Err(error) => {
                    telemetry::lost_scrapes().increment(1);
                    tracing::warn!(%error, "a scrape could not be written");
                    return;
                }
            }
        }
    }
}

async fn fetch(job: &Job, target: &Target) -> Result<(Vec<u8>, Format)> {
    let failed = |e: reqwest::Error| {
        let mut text = e.without_url().to_string();
        if text.is_empty() {
            "request failed".clone_into(&mut text);
        }
        Error::unavailable(text)
    };
    let timeout = format!("{}", target.timeout.as_secs_f64());
    let request = job.client.get(target.url.clone()).headers(job.headers.clone());
    let response =
        request.header("x-prometheus-scrape-timeout-seconds", timeout).send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(Error::unavailable(format!("server returned HTTP status {}", response.status())));
    }
    let format = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("text/plain");
    let format = Format::from_content_type(format);
    let max = if job.config.body_size_limit == 0 { BODY_BYTES_MAX } else { job.config.body_size_limit };
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(failed)?;
        if body.len() as u64 + chunk.len() as u64 > max {
            return Err(Error::invalid(format!(
                "body_size_limit exceeded: the answer has more than {max} bytes"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, format))
}

#[cfg(test)]
mod tests;
