//! From events to published snapshots.
//!
//! One task owns the model and the engine: it takes events from the sources, merges those that come close together, and
//! publishes one snapshot for them. Nothing is published before every source is synced, so no proxy ever sees half a mesh.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::snapshot::Snapshot;

/// Settings of the whole mesh that translation depends on. Fixed for the life of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// Trust domain of the SPIFFE identities, for example `cluster.local`.
    pub trust_domain: String,
    /// DNS suffix of Services, for example `cluster.local`.
    pub cluster_domain: String,
    /// Namespace whose PeerAuthentication without a selector holds for the whole mesh, for example `istio-system`.
    pub root_namespace: String,
    /// Whether proxies write Istio's access log line to standard output for each request and connection.
    pub access_log: bool,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".into(),
            cluster_domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            access_log: false,
        }
    }
}

/// What a source says. Filled in by `crate::source`.
#[derive(Debug)]
pub enum Event {}

/// Runs until every source is gone (`events` is closed).
pub async fn run(
    _settings: MeshSettings,
    mut events: mpsc::Receiver<Event>,
    _publish: watch::Sender<Arc<Snapshot>>,
) {
    while events.recv().await.is_some() {}
}
