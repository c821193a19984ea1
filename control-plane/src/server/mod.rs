//! The life of the process: start, readiness, stop.
//!
//! Everything runs on one current-thread runtime, apart from the source's own thread. The order of the start: the CA and
//! the tokens, then the listeners, then the source; nothing is served before the source is read, callers wait. The
//! order of the stop: no new connections, every stream ends with a reason, then the tasks are dropped.

mod addresses;
mod lifecycle;
mod listener;
mod options;
mod pipeline;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::istio_ca::IstioCertificateServiceServer;
use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

pub use addresses::{ADDRESSES_FILE, Addresses};
pub use lifecycle::Lifecycle;
pub(crate) use lifecycle::shutting_down;
pub use options::{Options, Source};

use crate::admin::{self, Admin};
use crate::ads::proxies::Proxies;
use crate::ads::{self, DiscoveryService};
use crate::auth::{Authenticator, FileTokens, PodIdentity, TokenError};
use crate::ca::CertificateAuthority;
use crate::ca::root::{Root, RootError, private_data_dir};
use crate::ca::service::CertificateService;
use crate::ca::serving::{ServingCertificate, ServingError};
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;
use lifecycle::Switch;

/// How long streams may take to end after the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that is silent for this long is asked for a sign of life, and closed without one.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The CA warns from this long before its own chain expires.
const EXPIRY_WARNING: time::Duration = time::Duration::days(30);

/// Why the control plane did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A plaintext listener that others could reach.
    #[error(
        "--xds-address {0}: is not a loopback address; tokens and configuration travel in plaintext there, use --xds-tls-address"
    )]
    NotLoopback(SocketAddr),
    /// The CA has no usable root, or the data directory is not private.
    #[error("certificate authority: {0}")]
    Root(#[from] RootError),
    /// The token directory cannot be made.
    #[error("tokens: {0}")]
    Tokens(#[from] TokenError),
    /// The control plane's own certificate.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// rustls refuses the configuration.
    #[error("--xds-tls-address: {0}")]
    Tls(#[from] rustls::Error),
    /// An address cannot be bound.
    #[error("{flag} {address}: {source}")]
    Bind {
        /// The flag that named it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The source cannot be read.
    #[error("--source {location}: {source}")]
    Source {
        /// The source as it was given.
        location: Source,
        /// What the system said.
        source: io::Error,
    },
    /// `addresses.json` cannot be written.
    #[error("{ADDRESSES_FILE} in --data-dir: {0}")]
    Addresses(io::Error),
    /// Two metrics have one name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A task that lives as long as the process ended.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// A running control plane. Dropping it stops it at once; see [`ControlPlane::stop`] for the graceful way.
pub struct ControlPlane {
    addresses: Addresses,
    lifecycle: Lifecycle,
    switch: Switch,
    tasks: JoinSet<&'static str>,
    grpc: tokio::task::JoinHandle<()>,
}

/// Runs a control plane until `shutdown` completes, then stops it gracefully.
pub async fn run(options: Options, shutdown: impl Future<Output = ()>) -> Result<(), StartError> {
    let mut control_plane = ControlPlane::start(options).await?;
    let ended = tokio::select! {
        () = shutdown => None,
        ended = control_plane.ended() => Some(ended),
    };
    control_plane.stop().await;
    match ended {
        Some(task) => Err(StartError::Ended(task)),
        None => Ok(()),
    }
}

impl ControlPlane {
    /// Starts a control plane on the current runtime; returns once its listeners are bound. It serves as soon as its
    /// source is read: see [`ControlPlane::ready`].
    pub async fn start(options: Options) -> Result<Self, StartError> {
        if !options.xds_address.ip().is_loopback() {
            return Err(StartError::NotLoopback(options.xds_address));
        }
        let mut tasks = JoinSet::new();
        let snapshots = pipeline::start(&options, &mut tasks)
            .map_err(|source| StartError::Source { location: options.source.clone(), source })?;
        serve(options, snapshots, tasks).await
    }

    /// Starts on free ports with what a test publishes.
    #[cfg(test)]
    pub(crate) async fn start_with(
        data_dir: &std::path::Path,
        snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> Result<Self, StartError> {
        use clap::Parser as _;
        let flags = ["x", "--source=file:x", "--xds-address=127.0.0.1:0", "--admin-address=127.0.0.1:0"];
        let mut options = Options::parse_from(flags.into_iter().chain(["--data-dir=x"]));
        options.data_dir = data_dir.to_owned();
        options.xds_tls_address = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        serve(options, snapshots, JoinSet::new()).await
    }

    /// The bound addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Waits until the source is read, so that proxies and certificate requests are served.
    pub async fn ready(&self) {
        // The only error is that the process stops, when nobody waits any more.
        let _ = self.lifecycle.serving().await;
    }

    /// Waits until a task that should never end has ended; names it.
    async fn ended(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(_)) => "a task",
            None => std::future::pending().await,
        }
    }

    /// Stops accepting, ends every stream with a reason and waits for them, at most 5 s.
    pub async fn stop(mut self) {
        self.switch.stop();
        if tokio::time::timeout(STOP_TIMEOUT, &mut self.grpc).await.is_err() {
            tracing::warn!("streams did not end in time");
            self.grpc.abort();
        }
        self.tasks.shutdown().await;
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.grpc.abort();
    }
}

async fn serve(
    options: Options,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    mut tasks: JoinSet<&'static str>,
) -> Result<ControlPlane, StartError> {
    let metrics = Arc::new(Metrics::new()?);
    let authority = Arc::new(open_authority(&options, &metrics)?);
    let authenticator = Arc::new(Authenticator::new(FileTokens::open(&options.data_dir)?));
    Addresses::forget(&options.data_dir).map_err(StartError::Addresses)?;

    let xds = bind("--xds-address", options.xds_address).await?;
    let xds_tls = match options.xds_tls_address {
        Some(address) => Some(bind("--xds-tls-address", address).await?),
        None => None,
    };
    let admin = bind("--admin-address", options.admin_address).await?;
    let local = |listener: &TcpListener| listener.local_addr().map_err(StartError::Addresses);
    let addresses = Addresses {
        xds: local(&xds)?,
        xds_tls: xds_tls.as_ref().map(local).transpose()?,
        admin: local(&admin)?,
    };

    let (switch, lifecycle) = lifecycle::start();
    let proxies = Arc::new(Proxies::new(Arc::clone(&metrics)));
    let (accepted, incoming) = mpsc::channel(listener::BACKLOG);
    if let Some(listener) = xds_tls {
        let (serving, not_after) = ServingCertificate::issue(
            Arc::clone(&authority),
            serving_addresses(addresses.xds_tls),
            OffsetDateTime::now_utc(),
        )?;
        let acceptor = listener::acceptor(Arc::clone(&serving) as _, authority.root_certificate())?;
        let accepted = accepted.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = serving.keep_fresh(not_after) => {}
                () = listener::accept(listener, Some(acceptor), accepted) => {}
            }
            "the TLS listener"
        });
    }
    tasks.spawn(async move {
        listener::accept(xds, None, accepted).await;
        "the plaintext listener"
    });

    let certificates = CertificateService::new(
        Arc::clone(&authority),
        Arc::clone(&authenticator),
        Arc::clone(&metrics),
        lifecycle.clone(),
    );
    let discovery = DiscoveryService::new(ads::Shared {
        snapshots: snapshots.clone(),
        lifecycle: lifecycle.clone(),
        authenticator: Arc::clone(&authenticator),
        trust_domain: options.trust_domain.clone(),
        proxies: Arc::clone(&proxies),
        metrics: Arc::clone(&metrics),
    });
    let until_stopped = lifecycle.clone();
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(AggregatedDiscoveryServiceServer::new(discovery))
        .add_service(IstioCertificateServiceServer::new(certificates));
    let grpc = tokio::spawn(async move {
        let stop = async move { until_stopped.stopping().await };
        if let Err(error) = router.serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop).await {
            tracing::error!(%error, "gRPC server");
        }
    });
    let pages = Arc::new(Admin {
        lifecycle: lifecycle.clone(),
        metrics: Arc::clone(&metrics),
        proxies,
        snapshots: snapshots.clone(),
    });
    tasks.spawn(async move {
        admin::serve(admin, pages).await;
        "the admin server"
    });
    let reader = switch.clone();
    tasks.spawn(async move {
        follow(snapshots, &authenticator, &metrics, &reader).await;
        "the source"
    });

    addresses.write(&options.data_dir).map_err(StartError::Addresses)?;
    tracing::info!(
        xds = %addresses.xds, xds_tls = ?addresses.xds_tls, admin = %addresses.admin, "control plane started"
    );
    Ok(ControlPlane { addresses, lifecycle, switch, tasks, grpc })
}

/// Keeps tokens and gauges equal to what is published, until the source is gone.
async fn follow(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    authenticator: &Authenticator,
    metrics: &Metrics,
    switch: &Switch,
) {
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        if snapshot.generation() > 0 {
            follow_snapshot(&snapshot, authenticator, metrics);
            if switch.serve() {
                tracing::info!("the source is read; serving");
            }
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

fn follow_snapshot(snapshot: &Snapshot, authenticator: &Authenticator, metrics: &Metrics) {
    let pods = snapshot.pods().map(|(pod, service_account)| PodIdentity {
        namespace: pod.namespace.clone(),
        pod: pod.pod.clone(),
        service_account: service_account.to_owned(),
    });
    for error in authenticator.tokens().replace(pods) {
        tracing::error!(%error, "a pod has no token");
    }
    let count = |findings: &[_]| i64::try_from(findings.len()).unwrap_or(i64::MAX);
    metrics.rejected_objects.set(count(snapshot.rejections()));
    metrics.objects_with_problems.set(count(snapshot.problems()));
}

fn open_authority(options: &Options, metrics: &Metrics) -> Result<CertificateAuthority, StartError> {
    let now = OffsetDateTime::now_utc();
    private_data_dir(&options.data_dir)?;
    let root = match (&options.ca_cert, &options.ca_key) {
        (Some(certificate), Some(key)) => Root::load(certificate, key, now)?,
        _ => Root::open_or_create(&options.data_dir, &options.trust_domain, now)?,
    };
    metrics.root_expiry.set(root.not_after().unix_timestamp());
    if root.not_after() - now < EXPIRY_WARNING {
        tracing::warn!(not_after = %root.not_after(), "the certificate authority's certificate expires soon");
    }
    Ok(CertificateAuthority::new(root, &options.trust_domain, options.workload_cert_ttl))
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Bind { flag, address, source })
}

/// The addresses that the serving certificate is good for: loopback, and the listener's own unless it is "any".
fn serving_addresses(listener: Option<SocketAddr>) -> Vec<IpAddr> {
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    if let Some(ip) = listener.map(|address| address.ip())
        && !ip.is_unspecified()
        && !addresses.contains(&ip)
    {
        addresses.push(ip);
    }
    addresses
}
