//! From the source to the published configuration: starts the watcher and the task that owns the model.

use std::sync::Arc;

use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::options::{Options, Source};
use super::{StartError, webhooks};
use crate::inject::settings::InterceptionMode;
use crate::metrics::Metrics;
use crate::model::{Interception, MeshSettings, Sidecars};
use crate::snapshot::{self, Snapshot};
use crate::source;

/// Batches of events that may wait for the model; a source that is faster waits.
const EVENTS_MAX: usize = 64;

/// What comes out of the source.
pub(super) struct Pipeline {
    /// The published configuration.
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What the first configuration waits for.
    pub(super) progress: watch::Receiver<String>,
    /// The API server, where that is the source.
    pub(super) cluster: Option<Client>,
}

/// Starts reading the source. Fails when it cannot be read at all.
pub(super) async fn start(
    options: &Options,
    metrics: &Arc<Metrics>,
    tasks: &mut JoinSet<&'static str>,
) -> Result<Pipeline, StartError> {
    let settings = mesh_settings(options)?;
    let (events, received) = mpsc::channel(EVENTS_MAX);
    let (publish, snapshots) = watch::channel(Arc::default());
    let (tell, progress) = watch::channel("the source is not read yet".to_owned());
    let cluster = match &options.source {
        Source::File(directory) => {
            source::file::watch(directory.clone(), options.status_folder()?, events)
                .map_err(|source| StartError::Source { location: options.source.clone(), source })?;
            None
        }
        Source::Kubernetes => {
            let client = source::kubernetes::connect(options.kubeconfig.as_deref()).await?;
            let watch = source::kubernetes::run(client.clone(), events, tell, Arc::clone(metrics));
            tasks.spawn(async move {
                watch.await;
                "the watch of the API server"
            });
            Some(client)
        }
    };
    tasks.spawn(async move {
        snapshot::run(settings, received, publish).await;
        "the source"
    });
    Ok(Pipeline { snapshots, progress, cluster })
}

/// What decoding and translation depend on besides the objects. In a cluster the injector gives Pods their sidecars, and its
/// settings say how they capture; for a directory sidecars are started by hand.
pub(super) fn mesh_settings(options: &Options) -> Result<MeshSettings, StartError> {
    let (sidecars, interception) = match options.source {
        Source::File(_) => (Sidecars::Assumed, Interception::None),
        Source::Kubernetes => match webhooks::injection_settings(options)?.interception_mode {
            InterceptionMode::None => (Sidecars::Injected, Interception::None),
            InterceptionMode::Redirect => (Sidecars::Injected, Interception::Redirect),
        },
    };
    Ok(MeshSettings {
        sidecars,
        interception,
        trust_domain: options.trust_domain.clone(),
        cluster_domain: options.cluster_domain.clone(),
        root_namespace: options.root_namespace.clone(),
        access_log: options.access_log,
        proxy_status: options.proxy_status,
        unknown_destinations: options.outbound_traffic_policy.into(),
        ..MeshSettings::default()
    })
}
