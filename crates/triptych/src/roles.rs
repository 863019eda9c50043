//! The map of roles: what each is called, and how it is built from its config and from what other roles offer.
//!
//! A role offers its services through gRPC, in the same process too. What a role needs and this process does not run is
//! reached at `peers`.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Channel;
use triptych_blob::Bucket;
use triptych_compactor::Compactor;
use triptych_config::TenantLimits;
use triptych_gateway::front::{Backend, Engines};
use triptych_ingester::Ingester;
use triptych_querier::{Sources, Stores};
use triptych_ring::{Gossip, Member, Ownership, Peer, Replication, Spread, peers};
use triptych_rpc::{
    Ingest, IngestClient, IngestServer, LogsStore, LogsStoreClient, LogsStoreServer, MetricsStore,
    MetricsStoreClient, MetricsStoreServer, OnPool, QueryClient, QueryServer, TracesStore, TracesStoreClient,
    TracesStoreServer, Write, WriteClient, WriteServer,
};
use triptych_runtime::runtimes::Handles;
use triptych_runtime::{MemoryShare, ProcessBudget, SharedClock, Shutdown, Tasks};
use triptych_store_gateway::StoreGateway;

use crate::config::Config;
use crate::membership::{self, Writers};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Ingester,
    StoreGateway,
    Distributor,
    Querier,
    Scraper,
    Agent,
    Gateway,
    Compactor,
}

impl Role {
    /// In the order in which they are built: each finds what it needs.
    pub const ALL: [Role; 8] = [
        Role::Ingester,
        Role::StoreGateway,
        Role::Distributor,
        Role::Querier,
        Role::Scraper,
        Role::Agent,
        Role::Gateway,
        Role::Compactor,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Role::Ingester => "ingester",
            Role::StoreGateway => "store-gateway",
            Role::Distributor => "distributor",
            Role::Querier => "querier",
            Role::Scraper => "scraper",
            Role::Agent => "agent",
            Role::Gateway => "gateway",
            Role::Compactor => "compactor",
        }
    }

    fn build(self, parts: &mut Parts) -> Result<()> {
        match self {
            Role::Ingester => ingester(parts),
            Role::StoreGateway => store_gateway(parts),
            Role::Distributor => distributor(parts),
            Role::Querier => querier(parts),
            Role::Scraper => scraper(parts),
            Role::Agent => agent(parts),
            Role::Gateway => gateway(parts),
            Role::Compactor => compactor(parts),
        }
    }
}

type Check = Box<dyn Fn() -> bool + Send + Sync>;

/// What a process is made of, growing role by role.
pub struct Parts {
    pub config: Config,
    pub pools: Handles,
    pub tasks: Tasks,
    pub limits: TenantLimits,
    pub budget: ProcessBudget,
    clock: SharedClock,
    bucket: Bucket,
    gossip: Option<Gossip>,
    /// The end of what the roles say to each other.
    ended: Shutdown,

    ingest: Vec<Peer<Arc<dyn Ingest>>>,
    ingesters: Vec<Peer<Stores>>,
    store_gateways: Vec<Peer<Stores>>,
    queriers: Vec<Peer<Backend>>,
    write: Option<Arc<dyn Write>>,
    targets: Option<triptych_gateway::Targets>,

    /// The main port's routes.
    pub http: Router,
    pub otlp_http: Option<Router>,
    pub otlp_grpc: Option<Routes>,
    /// Internal services of a role that runs alone.
    pub grpc: Option<Routes>,
    pub checks: Vec<(&'static str, Check)>,
    pub ingester: Option<Ingester>,
    pub store_gateway: Option<Arc<StoreGateway>>,
    pub compactor: Option<Compactor>,
}

impl Parts {
    /// Builds the roles, in their order.
    pub fn build(
        config: Config,
        roles: &[Role],
        pools: Handles,
        tasks: Tasks,
        clock: SharedClock,
        gossip: Option<Gossip>,
        ended: Shutdown,
    ) -> Result<Self> {
        let bucket = config.bucket().build().context("bucket")?;
        let limits = config.tenant_limits()?;
        let budget = crate::budget::build(&config, roles);
        crate::budget::watch(&budget, &tasks, &pools.background);
        let mut parts = Parts {
            pools,
            tasks,
            limits,
            budget,
            clock,
            bucket,
            gossip,
            ended,
            ingest: vec![],
            ingesters: vec![],
            store_gateways: vec![],
            queriers: vec![],
            write: None,
            targets: None,
            http: Router::new(),
            otlp_http: None,
            otlp_grpc: None,
            grpc: None,
            checks: vec![],
            ingester: None,
            store_gateway: None,
            compactor: None,
            config,
        };
        parts.reach_peers(roles)?;
        for role in roles {
            role.build(&mut parts).with_context(|| role.name().to_owned())?;
        }
        Ok(parts)
    }

    /// Channels to what does not run here, where a fixed list says where it is.
    fn reach_peers(&mut self, roles: &[Role]) -> Result<()> {
        if self.gossip.is_some() {
            return Ok(());
        }
        let _guard = self.pools.ingest.enter();
        let peers = self.config.peers.clone();
        if !roles.contains(&Role::Ingester) {
            for address in &peers.ingesters {
                let channel = triptych_rpc::channel::connect(address)?;
                self.add_ingester(address, &channel);
            }
        }
        if !roles.contains(&Role::StoreGateway) {
            for address in &peers.store_gateways {
                self.store_gateways.push(stores(address, &triptych_rpc::channel::connect(address)?));
            }
        }
        if !roles.contains(&Role::Querier) {
            for address in &peers.queriers {
                self.add_querier(address, triptych_rpc::channel::connect(address)?);
            }
        }
        Ok(())
    }

    fn add_ingester(&mut self, name: &str, channel: &Channel) {
        let stores = stores(name, channel);
        self.ingest.push(Peer {
            member: stores.member.clone(),
            service: Arc::new(IngestClient::new(channel.clone())),
        });
        self.ingesters.push(stores);
    }

    fn add_querier(&mut self, name: &str, channel: Channel) {
        let service = query_clients(&channel);
        self.queriers.push(Peer { member: Arc::new(Member::new(name, "", name)), service });
    }

    /// Serves a role's services inside the process, and keeps them for the port of a role that runs alone.
    fn serve(&mut self, role: Role, routes: Routes) -> Channel {
        self.grpc = Some(routes.clone());
        triptych_rpc::channel::local(role.name(), routes, &self.pools.ingest, self.ended.clone())
    }

    /// How many zones keep each item: one process alone, and a fixed list, have no replicas.
    fn replication(&self) -> Replication {
        Replication::new(self.gossip.as_ref().map_or(1, |_| self.config.membership.replication_factor))
    }

    fn add_http(&mut self, routes: Router) {
        self.http = std::mem::take(&mut self.http).merge(routes);
    }

    fn ready_when(&mut self, role: Role, check: impl Fn() -> bool + Send + Sync + 'static) {
        self.checks.push((role.name(), Box::new(check)));
    }
}

fn stores(name: &str, channel: &Channel) -> Peer<Stores> {
    Peer { member: Arc::new(Member::new(name, "", name)), service: store_clients(channel) }
}

fn store_clients(channel: &Channel) -> Stores {
    Stores {
        metrics: Arc::new(MetricsStoreClient::new(channel.clone())),
        logs: Arc::new(LogsStoreClient::new(channel.clone())),
        traces: Arc::new(TracesStoreClient::new(channel.clone())),
    }
}

fn query_clients(channel: &Channel) -> Backend {
    let Stores { metrics, logs, traces } = store_clients(channel);
    Backend { metrics, logs, traces, query: Arc::new(QueryClient::new(channel.clone())) }
}

/// The Store API, on the query pool.
fn store_routes(
    parts: &Parts,
    metrics: Arc<dyn MetricsStore>,
    logs: Arc<dyn LogsStore>,
    traces: Arc<dyn TracesStore>,
) -> Routes {
    let pool = &parts.pools.query;
    Routes::new(OnPool::new(MetricsStoreServer::service(metrics), pool))
        .add_service(OnPool::new(LogsStoreServer::service(logs), pool))
        .add_service(OnPool::new(TracesStoreServer::service(traces), pool))
}

fn ingester(parts: &mut Parts) -> Result<()> {
    let ingester = parts.config.ingester.clone().build(triptych_ingester::Deps {
        bucket: parts.bucket.clone(),
        spool: triptych_blob::local(&parts.config.data_dir.join("spool"))?,
        data_dir: parts.config.data_dir.clone(),
        is_new: !triptych_ingester::has_been_here(&parts.config.data_dir),
        disk: Arc::new(triptych_wal::OsDisk),
        clock: parts.clock.clone(),
        pools: parts.pools.clone(),
        limits: parts.limits.clone(),
        budget: parts.budget.clone(),
        node: parts.config.node(),
        zone: parts.gossip.as_ref().map_or_else(triptych_ingester::alone, membership::zone),
        spread: match &parts.gossip {
            Some(gossip) => membership::spread(gossip, parts.replication()),
            None => Spread::ALONE.fixed(),
        },
    })?;
    ingester.start(&parts.tasks);
    let routes = store_routes(parts, ingester.metrics(), ingester.logs(), ingester.traces())
        .add_service(IngestServer::service(Arc::new(ingester.clone())));
    let channel = parts.serve(Role::Ingester, routes);
    parts.add_ingester("ingester", &channel);
    let watched = ingester.clone();
    parts.ready_when(Role::Ingester, move || watched.is_ready());
    parts.ingester = Some(ingester);
    Ok(())
}

fn store_gateway(parts: &mut Parts) -> Result<()> {
    let deps = triptych_store_gateway::Deps {
        bucket: parts.bucket.clone(),
        memory: parts.budget.share(MemoryShare::Caches).clone(),
        pools: parts.pools.clone(),
        node: parts.config.node().into(),
        members: match &parts.gossip {
            Some(gossip) => gossip.members(Role::StoreGateway.name()),
            None => triptych_store_gateway::alone(),
        },
        settle_time: parts.gossip.as_ref().map(Gossip::settle_time).unwrap_or_default(),
        limits: parts.limits.clone(),
    };
    let store_gateway = Arc::new(parts.config.store_gateway.clone().build(deps));
    store_gateway.start(&parts.tasks);
    let routes = store_routes(parts, store_gateway.metrics(), store_gateway.logs(), store_gateway.traces());
    let channel = parts.serve(Role::StoreGateway, routes);
    parts.store_gateways.push(stores("store-gateway", &channel));
    let watched = store_gateway.clone();
    parts.ready_when(Role::StoreGateway, move || watched.is_ready());
    parts.store_gateway = Some(store_gateway);
    Ok(())
}

fn distributor(parts: &mut Parts) -> Result<()> {
    let (ingesters, replication) = match &parts.gossip {
        Some(gossip) => {
            let client = |channel: &Channel| Arc::new(IngestClient::new(channel.clone())) as Arc<dyn Ingest>;
            (membership::peers(gossip, Role::Ingester, client), parts.replication())
        }
        None if parts.ingest.is_empty() => {
            bail!("it needs ingesters: set membership.seeds or peers.ingesters")
        }
        None => (peers::fixed(parts.ingest.clone()), parts.replication()),
    };
    let distributor = parts.config.distributor.clone().build(triptych_distributor::Deps {
        ingesters,
        replication,
        distributors: match &parts.gossip {
            Some(gossip) => membership::serving(gossip, Role::Distributor),
            None => watch::Sender::new(1).subscribe(),
        },
        limits: parts.limits.clone(),
        clock: parts.clock.clone(),
        multitenancy: parts.config.multitenancy,
        memory: parts.budget.share(MemoryShare::Pushes).clone(),
    })?;
    parts.add_http(distributor.routes());
    parts.otlp_http = Some(distributor.otlp_http_routes());
    parts.otlp_grpc = Some(distributor.otlp_grpc());
    // Gateways pass pushes on to the port of the internal services.
    let pushes = distributor.routes().merge(distributor.otlp_grpc_routes());
    let (write, watched): (Arc<dyn Write>, _) = (Arc::new(distributor.clone()), distributor);
    let internal = Routes::new(WriteServer::service(write.clone())).into_axum_router().merge(pushes);
    parts.serve(Role::Distributor, Routes::from(internal));
    parts.write = Some(write);
    parts.ready_when(Role::Distributor, move || watched.is_ready());
    Ok(())
}

fn querier(parts: &mut Parts) -> Result<()> {
    let (ingesters, store_gateways) = match &parts.gossip {
        Some(gossip) => (
            membership::peers(gossip, Role::Ingester, store_clients),
            membership::peers(gossip, Role::StoreGateway, store_clients),
        ),
        None if parts.ingesters.is_empty() && parts.store_gateways.is_empty() => {
            bail!("it needs sources: set membership.seeds, or peers.ingesters and peers.store_gateways")
        }
        None => (
            peers::fixed(std::mem::take(&mut parts.ingesters)),
            peers::fixed(std::mem::take(&mut parts.store_gateways)),
        ),
    };
    let sources = Sources {
        // A fixed list is what there is; who is not on it is not missing.
        has_bucket: parts.gossip.is_some(),
        ingesters,
        store_gateways,
        replication: parts.replication(),
    };
    let deps =
        triptych_querier::Deps { sources, limits: parts.limits.clone(), query: parts.pools.query.clone() };
    let querier = parts.config.querier.clone().build(deps);
    let routes = store_routes(parts, querier.metrics(), querier.logs(), querier.traces())
        .add_service(QueryServer::service(querier.query()));
    let channel = parts.serve(Role::Querier, routes);
    parts.add_querier("querier", channel);
    parts.ready_when(Role::Querier, move || querier.is_ready());
    Ok(())
}

fn gateway(parts: &mut Parts) -> Result<()> {
    let queriers = match &parts.gossip {
        Some(gossip) => membership::peers(gossip, Role::Querier, query_clients),
        None if parts.queriers.is_empty() => {
            bail!("it needs a querier: set membership.seeds or peers.queriers")
        }
        None => peers::fixed(std::mem::take(&mut parts.queriers)),
    };
    let engines = Engines { promql: parts.config.querier.promql(), logql: parts.config.querier.logql() };
    let elsewhere = parts.gossip.as_ref().filter(|_| parts.write.is_none());
    let pushes = elsewhere.map(|gossip| {
        let distributors = membership::peers(gossip, Role::Distributor, triptych_gateway::push::distributor);
        (distributors, parts.budget.share(MemoryShare::Pushes).clone())
    });
    let gateway = parts.config.gateway.clone().build(triptych_gateway::Deps {
        queriers,
        engines,
        limits: parts.limits.clone(),
        memory: parts.budget.share(MemoryShare::Results).clone(),
        multitenancy: parts.config.multitenancy,
        targets: parts.targets.clone(),
        pushes,
        config: parts.config.shown()?,
    });
    parts.add_http(gateway.routes());
    parts.ready_when(Role::Gateway, move || gateway.is_ready());
    Ok(())
}

fn compactor(parts: &mut Parts) -> Result<()> {
    let compactor = parts.config.compactor.clone().build(triptych_compactor::Deps {
        bucket: parts.bucket.clone(),
        limits: parts.limits.clone(),
        clock: parts.clock.clone(),
        pools: parts.pools.clone(),
        memory: parts.budget.share(MemoryShare::Compaction).clone(),
        ownership: parts.gossip.as_ref().map_or_else(Ownership::alone, |gossip| {
            Ownership::among(gossip.members(Role::Compactor.name()), &parts.config.node())
        }),
        node: parts.config.node(),
    });
    compactor.start(&parts.tasks);
    parts.ready_when(Role::Compactor, || true);
    parts.compactor = Some(compactor);
    Ok(())
}

fn write_path(parts: &Parts) -> Result<Arc<dyn Write>> {
    if let Some(gossip) = &parts.gossip {
        let client = |channel: &Channel| WriteClient::new(channel.clone());
        return Ok(Arc::new(Writers::new(membership::peers(gossip, Role::Distributor, client))));
    }
    parts.write.clone().context("it writes through distributors: set membership.seeds, or run `triptych all`")
}

fn scraper(parts: &mut Parts) -> Result<()> {
    if !parts.config.scraper.enabled {
        return Ok(());
    }
    let scraper = parts.config.scraper.clone().build(triptych_scraper::Deps {
        write: write_path(parts)?,
        pools: parts.pools.clone(),
        own_address: parts.config.server.listen.clone(),
    })?;
    scraper.start(&parts.tasks);
    parts.targets = Some(scraper.targets());
    parts.ready_when(Role::Scraper, || true);
    Ok(())
}

fn agent(parts: &mut Parts) -> Result<()> {
    if !parts.config.agent.enabled {
        return Ok(());
    }
    let agent = parts.config.agent.clone().build(triptych_agent::Deps {
        write: write_path(parts)?,
        pools: parts.pools.clone(),
        data_dir: parts.config.data_dir.clone(),
        node: parts.config.node(),
    })?;
    agent.start(&parts.tasks);
    parts.ready_when(Role::Agent, || true);
    Ok(())
}
