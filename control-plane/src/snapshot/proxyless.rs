//! What gRPC clients without a sidecar get, whatever Pod they are in.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_xds_api::ResourceType;

use super::{ResourceMap, ResourceSet};

/// Their resources. Empty while no Pod has such clients.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxyless {
    pub(super) clusters: Arc<ResourceMap>,
    pub(super) endpoints: Arc<ResourceMap>,
    /// By the namespace of the clients.
    pub(super) listeners: Arc<BTreeMap<String, Arc<ResourceMap>>>,
    /// By the namespace of the clients.
    pub(super) routes: Arc<BTreeMap<String, Arc<ResourceMap>>>,
}

impl Proxyless {
    /// What the clients in a namespace get of one type.
    pub(super) fn resources(&self, namespace: &str, of: ResourceType) -> ResourceSet {
        let shared = match of {
            ResourceType::Cluster => self.clusters.clone(),
            ResourceType::ClusterLoadAssignment => self.endpoints.clone(),
            ResourceType::Listener => self.listeners.get(namespace).cloned().unwrap_or_default(),
            ResourceType::RouteConfiguration => self.routes.get(namespace).cloned().unwrap_or_default(),
            ResourceType::Secret | ResourceType::VirtualHost | ResourceType::ExtensionConfig => {
                Arc::default()
            }
        };
        ResourceSet::of(shared, Arc::default())
    }

    /// Whether both are the very same.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.clusters, &other.clusters)
            && Arc::ptr_eq(&self.endpoints, &other.endpoints)
            && Arc::ptr_eq(&self.listeners, &other.listeners)
            && Arc::ptr_eq(&self.routes, &other.routes)
    }
}
