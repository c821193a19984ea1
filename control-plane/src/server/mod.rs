//! The life of the process: start, readiness, stop.
//!
//! Everything runs on one current-thread runtime, apart from the source's own thread. The start: the source begins to
//! be read, then the CA and the tokens, then the listeners; nothing is served before the source is read in full,
//! callers wait. The stop: no new connections, every stream ends with a reason, then the tasks are dropped.

mod addresses;
mod error;
mod grpc;
mod lifecycle;
mod listener;
mod options;
mod pipeline;
mod trust_anchors;
mod unix_socket;
mod webhooks;
mod xds_address;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use addresses::{ADDRESSES_FILE, Addresses};
pub use error::StartError;
pub use lifecycle::Lifecycle;
pub(crate) use lifecycle::shutting_down;
pub use options::{Options, Source};
pub use xds_address::XdsAddress;

use crate::admin::{self, Admin};
use crate::ads;
use crate::ads::proxies::Proxies;
use crate::auth::{Authenticator, FileTokens, PodIdentity, TokenReviews, Tokens};
use crate::ca::CertificateAuthority;
use crate::ca::root::{Root, private_data_dir};
use crate::ca::secret::RootSecret;
use crate::metrics::Metrics;
use crate::model::Name;
use crate::snapshot::Snapshot;
use crate::status;
use lifecycle::Switch;
use listener::Listener;
use pipeline::Pipeline;
use trust_anchors::TrustAnchors;

/// How long streams may take to end after the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The CA warns from this long before its own chain expires.
const EXPIRY_WARNING: time::Duration = time::Duration::days(30);

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
        if let XdsAddress::Tcp(address) = options.xds_address
            && !address.ip().is_loopback()
        {
            return Err(StartError::NotLoopback(address));
        }
        let metrics = Arc::new(Metrics::new()?);
        let mut tasks = JoinSet::new();
        let pipeline = pipeline::start(&options, &metrics, &mut tasks).await?;
        serve(options, pipeline, metrics, tasks).await
    }

    /// Starts with what a test publishes, on free ports apart from `xds_address`.
    #[cfg(test)]
    pub(crate) async fn start_with(
        data_dir: &std::path::Path,
        xds_address: XdsAddress,
        snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> Result<Self, StartError> {
        use clap::Parser as _;
        let flags =
            ["x", "--source=file:x", "--admin-address=127.0.0.1:0", "--data-dir=x", "--no-status-files"];
        let mut options = Options::parse_from(flags);
        options.xds_address = xds_address;
        options.data_dir = data_dir.to_owned();
        options.xds_tls_address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let (_, progress) = watch::channel(String::new());
        let pipeline = Pipeline { snapshots, progress, cluster: None };
        serve(options, pipeline, Arc::new(Metrics::new()?), JoinSet::new()).await
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
    Pipeline { snapshots, progress, cluster }: Pipeline,
    metrics: Arc<Metrics>,
    mut tasks: JoinSet<&'static str>,
) -> Result<ControlPlane, StartError> {
    let authority = Arc::new(open_authority(&options, cluster.as_ref(), &metrics).await?);
    let authenticator = Arc::new(Authenticator::new(match cluster.clone() {
        Some(client) => Tokens::Reviews(TokenReviews::new(client, &options.token_audience)),
        None => Tokens::Files(FileTokens::open(&options.data_dir)?),
    }));
    Addresses::forget(&options.data_dir).map_err(StartError::Addresses)?;

    let xds = Listener::bind(&options.xds_address).await.map_err(|source| {
        let address = options.xds_address.to_string();
        StartError::Bind { flag: "--xds-address", address, source }
    })?;
    let xds_tls = match options.xds_tls_address {
        Some(address) => Some(bind("--xds-tls-address", address).await?),
        None => None,
    };
    let admin = bind("--admin-address", options.admin_address).await?;
    let webhook = match options.webhook_address {
        Some(address) => Some(bind("--webhook-address", address).await?),
        None => None,
    };
    let local = |listener: &TcpListener| listener.local_addr().map_err(StartError::Addresses);
    let addresses = Addresses {
        xds: xds.address().map_err(StartError::Addresses)?,
        xds_tls: xds_tls.as_ref().map(local).transpose()?,
        admin: local(&admin)?,
        webhook: webhook.as_ref().map(local).transpose()?,
    };

    let (switch, lifecycle) = lifecycle::start();
    let proxies = Arc::new(Proxies::new(Arc::clone(&metrics)));
    let discovery = ads::Shared {
        snapshots: snapshots.clone(),
        lifecycle: lifecycle.clone(),
        authenticator: Arc::clone(&authenticator),
        trust_domain: options.trust_domain.clone(),
        proxies: Arc::clone(&proxies),
        metrics: Arc::clone(&metrics),
    };
    if let (Source::File(source), Some(folder)) = (&options.source, options.status_folder()?) {
        let keep = status::keep_files(source.clone(), folder, snapshots.clone(), Arc::clone(&proxies));
        tasks.spawn(async move {
            keep.await;
            "the status of the objects"
        });
    }
    let injection = webhooks::injection_settings(&options)?;
    if let Some(client) = cluster {
        let statuses = status::InCluster::new(
            client.clone(),
            Name::new(&options.namespace, &options.lease),
            options.pod_name.clone(),
        );
        let followed = snapshots.clone();
        tasks.spawn(async move {
            statuses.keep(followed).await;
            "the status of the objects"
        });
        let anchors = TrustAnchors {
            client,
            authority: Arc::clone(&authority),
            config_map: injection.root_cert_config_map.clone(),
            webhooks: webhook.is_some().then(|| options.webhook_configuration.clone()),
        };
        tasks.spawn(async move {
            anchors.keep().await;
            "the root certificate's distribution"
        });
    }
    if let Some(listener) = webhook {
        webhooks::serve(listener, &options, injection, Arc::clone(&authority), &metrics, &mut tasks)?;
    }
    let grpc =
        grpc::serve(xds, xds_tls.map(|tls| (tls, options.serving_names)), authority, discovery, &mut tasks)?;
    let pages = Arc::new(Admin {
        lifecycle: lifecycle.clone(),
        metrics: Arc::clone(&metrics),
        proxies,
        snapshots: snapshots.clone(),
        progress,
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
        xds = %addresses.xds, xds_tls = ?addresses.xds_tls, admin = %addresses.admin,
        webhook = ?addresses.webhook, "control plane started"
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
    for error in authenticator.replace_pods(pods) {
        tracing::error!(%error, "a pod has no token");
    }
    let count = |findings: &[_]| i64::try_from(findings.len()).unwrap_or(i64::MAX);
    metrics.rejected_objects.set(count(snapshot.rejections()));
    metrics.objects_with_problems.set(count(snapshot.problems()));
}

async fn open_authority(
    options: &Options,
    cluster: Option<&Client>,
    metrics: &Metrics,
) -> Result<CertificateAuthority, StartError> {
    let now = OffsetDateTime::now_utc();
    private_data_dir(&options.data_dir)?;
    let root = match (&options.ca_cert, &options.ca_key, &options.ca_secret, cluster) {
        (Some(certificate), Some(key), ..) => Root::load(certificate, key, now)?,
        (_, _, Some(name), Some(client)) => {
            let secret = RootSecret { namespace: options.namespace.clone(), name: name.clone() };
            let (data_dir, trust_domain) = (&options.data_dir, &options.trust_domain);
            secret.open_or_create(client.clone(), data_dir, trust_domain, now).await?
        }
        _ => Root::open_or_create(&options.data_dir, &options.trust_domain, now)?,
    };
    metrics.root_expiry.set(root.not_after().unix_timestamp());
    if root.not_after() - now < EXPIRY_WARNING {
        tracing::warn!(not_after = %root.not_after(), "the certificate authority's certificate expires soon");
    }
    let (roots, trust_domain) = (options.trusted_roots.clone(), &options.trust_domain);
    CertificateAuthority::new(root, roots, trust_domain, options.workload_cert_ttl)
        .map_err(StartError::TrustedRoots)
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let refused = |source| StartError::Bind { flag, address: address.to_string(), source };
    TcpListener::bind(address).await.map_err(refused)
}
