//! A process: listeners, roles, and the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use triptych_ring::MemberState;
use triptych_runtime::{Runtimes, Shutdown, SystemClock, Tasks, blocking};

use crate::admin::{self, Admin};
use crate::config::Config;
use crate::membership;
use crate::roles::{Parts, Role};

/// After the drain, requests that are still open get this long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A client that takes nothing of its answer for this long loses its connection.
const CLIENT_STALL_MAX: Duration = Duration::from_secs(60);

/// Runs the roles until SIGINT or SIGTERM, then drains with a deadline.
pub fn run(config: Config, roles: Vec<Role>) -> Result<()> {
    let runtimes = Runtimes::new().context("thread pools")?;
    let outcome = runtimes.ingest.block_on(serve(config, &roles, &runtimes));
    runtimes.query.shutdown_background();
    runtimes.background.shutdown_background();
    runtimes.ingest.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve(mut config: Config, roles: &[Role], runtimes: &Runtimes) -> Result<()> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("data directory {}", config.data_dir.display()))?;
    // Ports first: they may be 0, and a port in use should be the first thing a person reads.
    let ports = Ports::bind(&config, roles).await?;
    config.server.listen = ports.http.local_addr()?.to_string();

    let role = if let [one] = roles { one.name() } else { "all" };
    let telemetry =
        config.telemetry.start(role, ports.own_receiver().as_deref(), Some(&own_log(&config.data_dir)))?;
    triptych_telemetry::exposition::describe(crate::telemetry::metrics());
    tracing::info!(role, version = env!("CARGO_PKG_VERSION"), data_dir = %config.data_dir.display(), "starting");

    let shutdown = Shutdown::new();
    let tasks = Tasks::new(shutdown.clone());
    let (shutdown_delay, drain_timeout) = (config.server.shutdown_delay, config.server.drain_timeout);
    // What the roles of a process say to each other ends last: a request that is answered still needs them.
    let ended = Shutdown::new();
    let gossip = membership::join(&config, roles, ports.grpc_address()).await?;
    let mut parts = Parts::build(
        config,
        roles,
        runtimes.handles(),
        tasks.clone(),
        Arc::new(SystemClock),
        gossip.clone(),
        ended.clone(),
    )?;
    let draining = Shutdown::new();
    let admin = Arc::new(Admin {
        draining: draining.clone(),
        checks: std::mem::take(&mut parts.checks),
        config: parts.config.shown()?,
        budget: parts.budget.clone(),
        ingester: parts.ingester.clone(),
        store_gateway: parts.store_gateway.clone(),
        compactor: parts.compactor.clone(),
        gossip: gossip.clone(),
    });
    ports.announce(role)?;
    // Listeners close later than tasks: what is being written while we drain still gets its answer.
    let closing = Shutdown::new();
    let ingester = parts.ingester.clone();
    let mut servers = ports.serve(role, parts, admin.clone(), &closing);

    if let Some(gossip) = &gossip {
        let (running, living, admin) = (gossip.clone(), gossip.clone(), admin.clone());
        let pool = runtimes.ingest.handle();
        let stop = shutdown.clone();
        tasks.spawn(pool, "membership", async move {
            tokio::select! {
                () = stop.triggered() => {}
                () = running.run() => {}
                () = membership::live(living, || admin.waiting().is_empty()) => {}
            }
        });
    }

    let began = Instant::now();
    let mut announced = false;
    loop {
        tokio::select! {
            signal = stop_signal() => {
                tracing::info!(signal, "draining");
                break;
            }
            () = tasks.died() => {
                tracing::error!("a background task died, going down with it");
                break;
            }
            Some(ended) = servers.join_next() => {
                tracing::error!(?ended, "a listener ended, going down with it");
                break;
            }
            () = tokio::time::sleep(Duration::from_millis(50)), if !announced => {
                if admin.waiting().is_empty() {
                    announced = true;
                    tracing::info!(after = ?began.elapsed(), "ready");
                }
            }
        }
    }

    draining.trigger();
    let mut delay = shutdown_delay;
    if let Some(gossip) = &gossip {
        gossip.set_state(MemberState::Leaving).await;
        delay = delay.max(gossip.settle_time());
    }
    // What is sent to this process until everybody knows is still taken.
    tokio::time::sleep(delay).await;
    let deadline = Instant::now() + drain_timeout;
    shutdown.trigger();
    // An ingester that did not leave for good comes back: until then reads count it as missing.
    let comes_back = ingester.as_ref().is_some_and(|ingester| !ingester.has_left());
    if let Some(ingester) = ingester
        && let Err(error) = ingester.drain(drain_timeout).await
    {
        tracing::warn!(%error, "not everything was flushed; it waits in the write-ahead log for the next start");
    }
    if let Some(gossip) = &gossip
        && !comes_back
    {
        // Mostly it is gone already: whoever asked it to leave was told so.
        let _ = tokio::time::timeout(drain_timeout, membership::leave(gossip)).await;
    }
    closing.trigger();
    let closed = async { while servers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
    ended.trigger();
    if !tasks.drained(deadline.saturating_duration_since(Instant::now()).max(CLOSE_TIMEOUT)).await {
        tracing::warn!("background tasks did not end in time");
    }
    tracing::info!("stopped");
    blocking(move || telemetry.shutdown()).await?;
    Ok(())
}

/// Our own log, which the agent tails.
fn own_log(data_dir: &Path) -> PathBuf {
    data_dir.join("triptych.log")
}

async fn stop_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        },
        _ => std::future::pending().await,
    }
}

/// The ports of a process.
struct Ports {
    http: TcpListener,
    otlp_grpc: Option<TcpListener>,
    otlp_http: Option<TcpListener>,
    /// The internal services of a role that runs alone.
    grpc: Option<TcpListener>,
}

impl Ports {
    async fn bind(config: &Config, roles: &[Role]) -> Result<Self> {
        let receives = roles.contains(&Role::Distributor);
        let serves =
            matches!(roles, [Role::Ingester | Role::StoreGateway | Role::Querier | Role::Distributor]);
        let server = &config.server;
        let otlp_grpc = listen(receives, &server.otlp_grpc_listen, "--otlp-grpc-listen").await?;
        let otlp_http = listen(receives, &server.otlp_http_listen, "--otlp-http-listen").await?;
        let grpc = listen(serves, &server.grpc_listen, "--set server.grpc_listen=").await?;
        let http = listen(true, &server.listen, "--listen").await?.context("server.listen is empty")?;
        Ok(Self { http, otlp_grpc, otlp_http, grpc })
    }

    /// Where the internal services of a role that runs alone are.
    fn grpc_address(&self) -> Option<std::net::SocketAddr> {
        self.grpc.as_ref()?.local_addr().ok()
    }

    /// Where our own spans go: `http://127.0.0.1:4317`.
    fn own_receiver(&self) -> Option<String> {
        let address = self.otlp_grpc.as_ref()?.local_addr().ok()?;
        let host =
            if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
        Some(format!("http://{host}:{}", address.port()))
    }

    /// Prints the addresses, one per line for scripts, and what to try.
    fn announce(&self, role: &str) -> Result<()> {
        let http = self.http.local_addr()?;
        println!("triptych {role} {}", env!("CARGO_PKG_VERSION"));
        println!("  http       http://{http}");
        for (name, listener) in
            [("otlp-grpc", &self.otlp_grpc), ("otlp-http", &self.otlp_http), ("grpc", &self.grpc)]
        {
            if let Some(listener) = listener {
                println!("  {name:<10} http://{}", listener.local_addr()?);
            }
        }
        if role == "all" {
            println!("try");
            println!("  the page   http://{http}/");
            println!("  metrics    curl -s 'http://{http}/api/v1/query?query=up'");
            println!(
                "  logs       curl -sG http://{http}/loki/api/v1/query_range --data-urlencode 'query={{job=~\".+\"}}'"
            );
            println!("  traces     curl -sG http://{http}/api/search --data-urlencode 'q={{}}'");
            println!("  grafana    Prometheus, Loki and Tempo data sources, all with the URL http://{http}");
        }
        Ok(())
    }

    fn serve(
        self,
        role: &'static str,
        parts: Parts,
        admin: Arc<Admin>,
        closing: &Shutdown,
    ) -> JoinSet<Result<()>> {
        let mut servers = JoinSet::new();
        let stall_max = CLIENT_STALL_MAX;
        let routes = parts.http.merge(admin::routes(admin));
        servers.spawn(serve_http(self.http, routes, closing.clone(), stall_max));
        if let (Some(listener), Some(routes)) = (self.otlp_http, parts.otlp_http) {
            servers.spawn(serve_http(listener, routes, closing.clone(), stall_max));
        }
        if let (Some(listener), Some(routes)) = (self.otlp_grpc, parts.otlp_grpc) {
            servers.spawn(serve_grpc(role, listener, routes, closing.clone()));
        }
        if let (Some(listener), Some(routes)) = (self.grpc, parts.grpc) {
            servers.spawn(serve_grpc(role, listener, routes, closing.clone()));
        }
        servers
    }
}

async fn listen(wanted: bool, address: &str, flag: &str) -> Result<Option<TcpListener>> {
    if !wanted || address.is_empty() {
        return Ok(None);
    }
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another address with {flag} (port 0 picks a free one)")
    })?;
    Ok(Some(listener))
}

/// `stall_max`: how long a client may take nothing of its answer.
async fn serve_http(
    listener: TcpListener,
    routes: Router,
    closing: Shutdown,
    stall_max: Duration,
) -> Result<()> {
    let closed = async move { closing.triggered().await };
    // Outermost: a mistake of ours in one handler is a 500 for its caller, and nobody else notices.
    let routes = routes.layer(tower_http::catch_panic::CatchPanicLayer::new());
    let stall_ms_max = u32::try_from(stall_max.as_millis()).unwrap_or(u32::MAX);
    let listener = listener.tap_io(move |stream| {
        // Not every system has it; then such a client stays for as long as it likes, at its tenant's expense.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&*stream, stall_ms_max);
    });
    Ok(axum::serve(listener, routes).with_graceful_shutdown(closed).await?)
}

async fn serve_grpc(
    role: &'static str,
    listener: TcpListener,
    routes: Routes,
    closing: Shutdown,
) -> Result<()> {
    let closed = async move { closing.triggered().await };
    let server =
        triptych_rpc::channel::server().layer(triptych_telemetry::trace::layer(role)).add_routes(routes);
    Ok(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), closed).await?)
}

#[cfg(test)]
mod tests;
