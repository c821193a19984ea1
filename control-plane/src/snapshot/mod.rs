//! The published configuration of the whole mesh: immutable, shared, encoded once.
//!
//! A [`Snapshot`] is a value behind an `Arc`. The engine builds the next one from the last by recomputing only what
//! changed; whatever did not change keeps its `Arc`, so that the ADS server sees by pointer comparison which type of
//! which proxy may need a push. The engine runs on one task of the control plane's runtime; readers run anywhere.

mod pods;
mod publish;
mod resource;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use publish::{MeshSettings, run};
pub use resource::{Resource, ResourceMap, ResourceSet};

use crate::scope::{ProxyId, ScopeError, ScopeKey};

/// The types of resources that a snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster`
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`
    Endpoints,
    /// `envoy.config.listener.v3.Listener`
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`
    Route,
}

/// Everything that is served at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    generation: u64,
    workloads: BTreeMap<ScopeKey, Arc<ProxyScope>>,
}

/// One proxy's configuration.
#[derive(Debug)]
pub(crate) struct ProxyScope {
    pub(crate) service_account: String,
    pub(crate) ips: Vec<std::net::IpAddr>,
    pub(crate) clusters: ResourceSet,
    pub(crate) endpoints: ResourceSet,
    pub(crate) listeners: ResourceSet,
    pub(crate) routes: ResourceSet,
}

impl Snapshot {
    /// A number that grows with every published snapshot. 0 is the empty snapshot before every source was read.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Finds the scope of a proxy and checks that the identity which it proved is its Pod's.
    ///
    /// # Errors
    /// See [`ScopeError`]. Ask again with a later snapshot after [`ScopeError::UnknownPod`].
    pub fn scope_of(&self, proxy: &ProxyId) -> Result<ScopeKey, ScopeError> {
        let key = ScopeKey { namespace: proxy.namespace.clone(), pod: proxy.pod.clone() };
        let Some(scope) = self.workloads.get(&key) else {
            return Err(ScopeError::UnknownPod { namespace: key.namespace, pod: key.pod });
        };
        if scope.service_account != proxy.service_account {
            let proved = proxy.service_account.clone();
            return Err(ScopeError::WrongServiceAccount { pod: key.to_string(), proved });
        }
        match proxy.ip {
            Some(ip) if !scope.ips.contains(&ip) => {
                Err(ScopeError::WrongAddress { pod: key.to_string(), ip })
            }
            _ => Ok(key),
        }
    }

    /// What the proxy of `scope` gets of type `of`. Empty when the workload is gone.
    pub fn resources(&self, scope: &ScopeKey, of: ResourceType) -> ResourceSet {
        let Some(proxy) = self.workloads.get(scope) else { return ResourceSet::default() };
        match of {
            ResourceType::Cluster => proxy.clusters.clone(),
            ResourceType::Endpoints => proxy.endpoints.clone(),
            ResourceType::Listener => proxy.listeners.clone(),
            ResourceType::Route => proxy.routes.clone(),
        }
    }
}
