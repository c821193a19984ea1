//! From the source to the published configuration: starts the watcher and the task that owns the model.

use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::options::{Options, Source};
use crate::model::MeshSettings;
use crate::snapshot::{self, Snapshot};
use crate::source;

/// Batches of events that may wait for the model; a source that is faster waits.
const EVENTS_MAX: usize = 64;

/// Starts reading the source. Fails when it cannot be read at all.
pub(super) fn start(
    options: &Options,
    tasks: &mut JoinSet<&'static str>,
) -> io::Result<watch::Receiver<Arc<Snapshot>>> {
    let settings = mesh_settings(options);
    let (events, received) = mpsc::channel(EVENTS_MAX);
    let (publish, snapshots) = watch::channel(Arc::default());
    match &options.source {
        Source::File(directory) => source::file::watch(directory.clone(), events)?,
    }
    tasks.spawn(async move {
        snapshot::run(settings, received, publish).await;
        "the source"
    });
    Ok(snapshots)
}

/// What decoding and translation depend on besides the objects.
pub(super) fn mesh_settings(options: &Options) -> MeshSettings {
    MeshSettings {
        trust_domain: options.trust_domain.clone(),
        cluster_domain: options.cluster_domain.clone(),
        root_namespace: options.root_namespace.clone(),
        access_log: options.access_log,
        ..MeshSettings::default()
    }
}
