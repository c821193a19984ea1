//! The life of the process: bootstrap → workers → dynamic configuration → drain → end.
//!
//! [`Server`] lives on the main runtime (a current-thread one). Tests run it in process; the binary adds flags and signals.

mod concurrency;
mod shutdown;
mod sidecar_drain;
#[cfg(test)]
mod tests;
mod view;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use concurrency::default_concurrency;
pub use sidecar_drain::SidecarDrain;

use crate::access_log::LogFiles;
use crate::admin::{self, AdminState, AdminView, Drain, ServerState};
use crate::bootstrap::{Bootstrap, Document, Located, NodeFlags, compile_bootstrap};
use crate::cluster::lb::{LocalCluster, slow_start};
use crate::cluster::{EndpointSet, OriginalDestinations, original_dst, outlier};
use crate::config;
use crate::config::certificate_files::{self, Folders};
use crate::config::compile::{CompileCx, Inputs, Invalid, compile_locality_name};
use crate::config::configuration::Configuration;
use crate::config::handle::ConfigurationHandle;
use crate::config::listeners::Change;
use crate::config::registry::Registry;
use crate::config::sources::GrpcSource;
use crate::health_check;
use crate::identity::{self, IdentityHandle, IdentityOptions};
use crate::logging::Logging;
use crate::net::{Address, DnsOptions, Resolvers, Target};
use crate::on_demand;
use crate::overload::{self, Overload};
use crate::sidecar::agent::{Agent, AgentOptions};
use crate::state::{Recorder, Saved};
use crate::stats::{PeerLabels, Stats};
use crate::worker::{self, Command, Shared, WorkerHandle};
use crate::xds::{self, XdsOptions};
use view::{Facts, View};

/// How the process runs; what it does is in the bootstrap.
#[derive(Debug)]
pub struct Options {
    /// `--concurrency`: number of workers, at least 1.
    pub concurrency: usize,
    /// `--drain-time-s`: how long connections may take to end.
    pub drain_time: Duration,
    /// `--service-*`.
    pub node: NodeFlags,
    /// Drain as a sidecar does, within `drain_time`; else as Envoy does.
    pub sidecar_drain: Option<SidecarDrain>,
    /// Serves the pod's agent, for a sidecar.
    pub agent: Option<AgentOptions>,
    /// The process log.
    pub logging: Arc<Logging>,
    /// What `/server_info` shows as the command line.
    pub command_line: serde_json::Value,
    /// Bearer token for the control plane.
    pub token_file: Option<PathBuf>,
    /// Where the last good configuration is kept for the next start, and this one begins with it.
    pub state_dir: Option<PathBuf>,
    /// The workload's identity, for a sidecar.
    pub identity: Option<IdentityOptions>,
    /// Not ready without the control plane's first answers, however long they take, as a sidecar; else the process goes on
    /// without them after 15 s, as Envoy does.
    pub needs_control_plane: bool,
    /// The server of the ADS cluster, for a sidecar that knows it by a name: the cluster's hosts are where that leads.
    pub named_control_plane: Option<Target>,
    /// How the system looks names up.
    pub dns: DnsOptions,
    /// This workload in mesh metrics, for a sidecar.
    pub labels: Option<PeerLabels>,
    /// Serves `/stats/prometheus`, for a sidecar.
    pub prometheus_address: Option<SocketAddr>,
    /// Serves `/healthz/ready`, for a sidecar.
    pub status_address: Option<SocketAddr>,
}

impl Options {
    /// A plain proxy with one worker, as tests want it.
    pub fn new(logging: Arc<Logging>) -> Self {
        Self {
            concurrency: 1,
            drain_time: Duration::from_secs(600),
            node: NodeFlags::default(),
            sidecar_drain: None,
            agent: None,
            logging,
            command_line: serde_json::Value::Null,
            token_file: None,
            state_dir: None,
            identity: None,
            needs_control_plane: false,
            named_control_plane: None,
            dns: DnsOptions::default(),
            labels: None,
            prometheus_address: None,
            status_address: None,
        }
    }
}

/// Why a process does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is refused.
    #[error("{}", lines(.0))]
    Invalid(Vec<Located>),
    /// Something that it needs is not to be had.
    #[error("{0}")]
    Failed(String),
}

fn lines(problems: &[Located]) -> String {
    problems.iter().map(Located::to_string).collect::<Vec<_>>().join("\n")
}

/// What happens to the process from outside.
#[derive(Debug)]
enum Event {
    /// `/quitquitquit`: end now.
    Quit,
    /// `SIGTERM`: drain, then end.
    Shutdown,
    /// `/drain` of a sidecar: drain inbound connections; the end comes later.
    Drain,
    /// `/drain_listeners`.
    DrainListeners(Drain),
}

/// The configuration before anything runs, and what it leads to.
struct Prepared {
    configuration: Configuration,
    bootstrap: Bootstrap,
    ejections: UnboundedReceiver<outlier::Event>,
    checked_hosts: UnboundedReceiver<health_check::Start>,
    inhabited: UnboundedReceiver<Arc<OriginalDestinations>>,
    asks: UnboundedReceiver<on_demand::Ask>,
    names: config::dns::Wanted,
    folders: UnboundedReceiver<PathBuf>,
    warming: UnboundedReceiver<Weak<EndpointSet>>,
    identity: Option<IdentityHandle>,
}

/// Compiles everything that is static, with sockets for `workers` (0: none).
fn prepare(
    document: Document,
    node: &NodeFlags,
    stats: Arc<Stats>,
    identity: Option<IdentityHandle>,
    dns: DnsOptions,
    workers: usize,
) -> Result<Prepared, StartError> {
    let (events, ejections) = outlier::channel();
    let (checks, checked_hosts) = health_check::channel();
    let (inhabited, inhabited_clusters) = original_dst::channel();
    let (on_demand, asks) = on_demand::channel();
    let (names, wanted_names) = config::dns::channel();
    let (folders, wanted_folders) = Folders::channel();
    let (warm_ups, warming) = slow_start::channel();
    let mut registry = Registry::default();
    if let Some(identity) = &identity {
        registry.identity_certificate = identity.certificate.clone();
        registry.identity_validation = identity.roots.clone();
    }
    let mut inputs = Inputs {
        registry,
        sources: Default::default(),
        watches: Default::default(),
        log_files: LogFiles::new(stats.clone()),
        stats,
        ejections: events,
        checks,
        inhabited,
        on_demand,
        warm_ups,
        local_cluster: None,
        resolvers: Resolvers::new(dns),
        names,
        read_file: Box::new(|path| std::fs::read(path)),
        source_address: None,
        node_id: "".into(),
        service_cluster: "".into(),
        static_clusters: Default::default(),
        known_clusters: Default::default(),
        inline_certificates: Default::default(),
        inline_validations: Default::default(),
        folders,
        told: Default::default(),
        ads: None,
        has_cds: false,
        has_identity: identity.is_some(),
    };
    let refused = |prefix: &str, invalid: &Invalid| StartError::Invalid(document.locate(prefix, invalid));
    let bootstrap = compile_bootstrap(document.message.clone(), node, CompileCx::new(&mut inputs, true))
        .map_err(|invalid| refused("", &invalid))?;
    inputs.source_address = bootstrap.cluster_manager.source_address;
    if let Some(name) = &bootstrap.cluster_manager.local_cluster {
        let locality = compile_locality_name(&bootstrap.node.locality);
        let endpoints = inputs.registry.endpoints.cell(name);
        inputs.local_cluster = Some(LocalCluster::new(name.clone(), locality, endpoints));
    }
    inputs.node_id = bootstrap.node.id.as_str().into();
    inputs.service_cluster = bootstrap.node.cluster.as_str().into();
    let mut configuration = Configuration::new(inputs, workers);
    let now = Instant::now();
    let mut problems = Vec::new();
    for one in &bootstrap.resources {
        if let Err(invalid) = configuration.apply_static(one.resource_type, &one.resource, now) {
            problems.extend(document.locate(&one.path, &invalid));
        }
    }
    if let Some(GrpcSource { cluster, .. }) = &bootstrap.ads
        && !configuration.inputs().known_clusters.contains(cluster)
    {
        let path = "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name";
        let reason = format!("Unknown gRPC client cluster '{cluster}'");
        problems.extend(document.locate("", &Invalid::one("bootstrap", "", path, reason)));
    }
    if let Some(name) = &bootstrap.cluster_manager.local_cluster
        && !configuration.inputs().known_clusters.contains(name)
    {
        let reason = format!("local cluster '{name}' must be defined");
        let invalid = Invalid::one("bootstrap", "", "cluster_manager.local_cluster_name", reason);
        problems.extend(document.locate("", &invalid));
    }
    if !problems.is_empty() {
        return Err(StartError::Invalid(problems));
    }
    Ok(Prepared {
        configuration,
        bootstrap,
        ejections,
        checked_hosts,
        inhabited: inhabited_clusters,
        asks,
        names: wanted_names,
        folders: wanted_folders,
        warming,
        identity,
    })
}

/// `--mode validate`: everything but running.
///
/// # Errors
/// As a start would have them, addresses in use apart: nothing is bound.
pub fn validate(document: Document, node: &NodeFlags) -> Result<(), StartError> {
    prepare(document, node, Stats::new(), None, DnsOptions::default(), 0).map(drop)
}

/// A running proxy.
#[derive(Debug)]
pub struct Server {
    view: Arc<View>,
    workers: Workers,
    events: UnboundedReceiver<Event>,
    drain_time: Duration,
    sidecar_drain: Option<SidecarDrain>,
    /// Where the admin interface listens, with the port that the system picked.
    admin_address: Option<SocketAddr>,
    /// Where the agent listens.
    agent_address: Option<SocketAddr>,
    /// End with the server.
    tasks: Vec<JoinHandle<()>>,
    /// Change the configuration; end when draining begins.
    sources: Vec<JoinHandle<()>>,
}

/// The workers; empty once they have ended.
type Workers = Arc<Mutex<Vec<WorkerHandle>>>;

impl Server {
    /// Starts everything. Must be called on a tokio runtime, which then is the main runtime.
    ///
    /// # Errors
    /// The configuration is refused, an address is in use, threads cannot be made.
    pub async fn start(document: Document, options: Options) -> Result<Self, StartError> {
        let failed = |e: std::io::Error| StartError::Failed(e.to_string());
        let stats = Stats::new();
        let identity = options.identity.map(|identity| identity::start(identity, stats.clone()));
        let identity = identity.transpose().map_err(StartError::Failed)?;
        let Prepared {
            configuration,
            bootstrap,
            ejections,
            checked_hosts,
            inhabited,
            asks,
            names,
            folders,
            warming,
            identity,
        } = prepare(document, &options.node, stats.clone(), identity, options.dns, options.concurrency)?;
        let identity = identity.map(Arc::new);
        let log_files = configuration.inputs().log_files.clone();
        if let Some(labels) = options.labels {
            stats.mesh().set_local(labels);
        }
        stats.server().concurrency.set(i64::try_from(options.concurrency).unwrap_or(i64::MAX));
        let admin = bind_admin(bootstrap.admin.as_ref()).await?;
        let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
        let prometheus = bind(options.prometheus_address).await?;
        let status = bind(options.status_address).await?;
        let agent = bind(options.agent.as_ref().map(|agent| agent.address)).await?;
        let agent_address = agent.as_ref().and_then(|listener| listener.local_addr().ok());

        let overload = Arc::new(Overload::new(&bootstrap.overload, stats.clone()));
        let shared = Shared::with_overload(overload.clone(), stats.clone());
        let workers: Vec<WorkerHandle> = (0..options.concurrency)
            .map(|index| worker::spawn(index, shared.clone()))
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        let workers: Workers = Arc::new(Mutex::new(workers));
        let told = workers.clone();
        let (watches, watch_changes) = unbounded_channel();
        let configuration = Arc::new(ConfigurationHandle::new(
            configuration,
            Box::new(move |change| tell(&told.lock().unwrap_or_else(PoisonError::into_inner), change)),
            watches,
        ));
        let (recorder, saved) = open_state(options.state_dir.as_deref(), &bootstrap.node.id)?;
        let restored = configuration.update(|c| {
            let now = Instant::now();
            for (resource_type, mut fetch) in bootstrap.roots {
                if options.needs_control_plane {
                    fetch.timeout = Duration::MAX;
                }
                c.take_all(resource_type, fetch, now);
            }
            let restored = c.restore(&saved, now);
            c.settle(now);
            restored
        });
        if !restored.is_empty() {
            tracing::info!(target: "config", "started with {} resources from before", restored.len());
        }
        let (sender, events) = unbounded_channel();
        let node = crate::config::dump::node(&bootstrap.node);
        let facts = Facts { command_line: options.command_line, node, identity: identity.clone() };
        let view = Arc::new(View::new(configuration.clone(), shared, sender, facts));
        view.set_state(ServerState::Initializing);

        let mut tasks = vec![
            tokio::spawn(outlier::monitor(ejections, bootstrap.cluster_manager.ejection_log)),
            tokio::spawn(config::health_checks::run(configuration.clone(), checked_hosts)),
            tokio::spawn(original_dst::clean_up(inhabited)),
            tokio::spawn(slow_start::follow(warming)),
            tokio::spawn(overload::measure(bootstrap.overload, overload)),
            spawn_initialized(&view, &configuration),
        ];
        let state =
            AdminState { view: view.clone(), stats: stats.clone(), log_files, logging: options.logging };
        if let Some(listener) = admin {
            tasks.push(tokio::spawn(admin::serve(listener, state.clone())));
        }
        if let Some(listener) = prometheus {
            tasks.push(tokio::spawn(admin::serve_prometheus(listener, state.clone())));
        }
        if let Some(listener) = status {
            tasks.push(tokio::spawn(admin::serve_readiness(listener, state.clone())));
        }
        if let (Some(listener), Some(agent)) = (agent, options.agent) {
            let agent = Agent::new(agent, state, ShutdownHandle(view.clone()));
            tasks.push(tokio::spawn(agent.serve(listener)));
        }

        let deadlines = configuration.clone();
        let mut sources = vec![
            tokio::spawn(async move { deadlines.keep_deadlines().await }),
            tokio::spawn(certificate_files::follow(configuration.clone(), folders)),
            tokio::spawn(config::on_demand::answer(configuration.clone(), asks)),
            tokio::spawn(config::dns::follow(configuration.clone(), names)),
        ];
        if let Some(identity) = identity {
            let configuration = configuration.clone();
            sources.push(tokio::spawn(async move {
                identity.ready().await;
                configuration.update(|c| c.settle(Instant::now()));
            }));
        }
        let xds = XdsOptions {
            ads: bootstrap.ads,
            named: options.named_control_plane,
            node: bootstrap.node,
            token_file: options.token_file,
            recorder,
            restored,
        };
        sources.push(tokio::spawn(xds::run(xds, configuration, watch_changes)));
        Ok(Self {
            view,
            workers,
            events,
            drain_time: options.drain_time,
            sidecar_drain: options.sidecar_drain,
            admin_address,
            agent_address,
            tasks,
            sources,
        })
    }

    /// What runs, for the admin interface and for tests.
    pub fn view(&self) -> Arc<dyn AdminView> {
        self.view.clone()
    }

    /// Where the admin interface listens.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Where the agent of a sidecar listens.
    pub fn agent_address(&self) -> Option<SocketAddr> {
        self.agent_address
    }

    /// Ends when everything that a start waits for is there, or the time for it (15 s) is over.
    pub fn initialized(&self) -> impl Future<Output = ()> + Send + 'static {
        let configuration = self.view.configuration().clone();
        async move { configuration.initialized().await }
    }

    /// A way to make the server drain and end from elsewhere.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle(self.view.clone())
    }
}

/// Ends a server.
#[derive(Debug, Clone)]
pub struct ShutdownHandle(Arc<View>);

impl ShutdownHandle {
    /// Drains, then ends. A second call ends at once.
    pub fn shutdown(&self) {
        self.0.send(Event::Shutdown);
    }

    /// A sidecar drains its inbound connections and is not ready any more; the process goes on until [`Self::shutdown`]. Does
    /// nothing elsewhere.
    pub fn drain(&self) {
        self.0.send(Event::Drain);
    }

    /// Ends at once.
    pub fn quit(&self) {
        self.0.send(Event::Quit);
    }
}

/// Opens what was kept of the configuration; nothing without a directory.
fn open_state(directory: Option<&Path>, owner: &str) -> Result<(Option<Recorder>, Saved), StartError> {
    let Some(directory) = directory else { return Ok((None, Saved::new())) };
    let failed = |e| StartError::Failed(format!("state directory '{}': {e}", directory.display()));
    let (recorder, saved) = Recorder::open(directory, owner).map_err(failed)?;
    Ok((Some(recorder), saved))
}

fn spawn_initialized(view: &Arc<View>, configuration: &Arc<ConfigurationHandle>) -> JoinHandle<()> {
    let (view, configuration) = (view.clone(), configuration.clone());
    tokio::spawn(async move {
        configuration.initialized().await;
        view.initialized();
        tracing::info!(target: "main", "all dependencies initialized, taking traffic");
    })
}

async fn bind_admin(address: Option<&Address>) -> Result<Option<TcpListener>, StartError> {
    match address {
        None => Ok(None),
        Some(Address::Ip(ip)) => bind(Some(*ip)).await,
        Some(Address::Pipe(path)) => Err(StartError::Failed(format!(
            "admin.address.pipe: the admin interface on a Unix socket ('{}') is not supported",
            path.display()
        ))),
    }
}

async fn bind(address: Option<SocketAddr>) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(e) => Err(StartError::Failed(format!("cannot bind '{address}': {e}"))),
    }
}

/// A change of the listeners as commands.
pub(crate) fn tell(workers: &[WorkerHandle], change: Change) {
    let all = |command: &dyn Fn() -> Command| workers.iter().for_each(|worker| worker.send(command()));
    match change {
        Change::Listen { listener, addresses, sockets } => {
            for (worker, sockets) in workers.iter().zip(sockets) {
                let addresses = addresses.clone();
                worker.send(Command::Listen { listener: listener.clone(), addresses, sockets });
            }
        }
        Change::Stop { name, gone } => {
            all(&|| Command::StopListening { name: name.clone() });
            all(&|| Command::DrainChains { gone: gone.clone() });
        }
        Change::DrainChains { gone, .. } => all(&|| Command::DrainChains { gone: gone.clone() }),
    }
}

impl Server {
    /// Downstream connections that are open now.
    fn active_connections(&self) -> usize {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().map(WorkerHandle::active_connections).sum()
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().for_each(|worker| worker.send(command()));
    }

    fn shared(&self) -> &Arc<Shared> {
        self.view.shared()
    }

    fn set_draining(&self) {
        self.shared().draining.store(true, Ordering::Relaxed);
        self.view.set_state(ServerState::Draining);
    }
}
