//! The published configuration of the whole mesh: immutable, shared, encoded once.
//!
//! A [`Snapshot`] is a value behind an `Arc`. The engine builds the next one from the last by recomputing only what
//! changed; whatever did not change keeps its `Arc`, so that the ADS server sees by pointer comparison which type of
//! which proxy may need a push. The engine runs on one task of the control plane's runtime; readers run anywhere.

mod by_audience;
mod callers;
mod engine;
mod lanes;
mod pods;
mod proxyless;
mod publish;
mod resource;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use outrigger_xds_api::ResourceType;

pub use crate::model::MeshSettings;
use crate::model::{Client, Finding, Findings, Origins, Place};
use crate::scope::{ProxyId, ScopeError, ScopeKey};
use by_audience::ByAudience;
pub use engine::Engine;
use proxyless::Proxyless;
pub use publish::run;
pub use resource::{Resource, ResourceMap, ResourceSet};

/// Everything that is served at one moment. Cloning copies pointers.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    generation: u64,
    /// Clusters of Service ports.
    clusters: ByAudience,
    /// Load assignments of Service ports.
    endpoints: ByAudience,
    /// Route configurations by client.
    routes: Arc<BTreeMap<Client, Arc<ResourceMap>>>,
    proxies: Arc<BTreeMap<ScopeKey, Arc<ProxyScope>>>,
    captured_listeners: CapturedListeners,
    proxyless: Proxyless,
    findings: Arc<Findings>,
    origins: Arc<Origins>,
}

/// Outbound listeners of every proxy whose workload's connections are captured. Most Pods have no IPv6 address, and may
/// then not be able to bind an IPv6 socket.
#[derive(Debug, Clone, Default)]
struct CapturedListeners {
    v4: Arc<ResourceMap>,
    both: Arc<ResourceMap>,
}

/// What one proxy has of its own.
#[derive(Debug, Clone)]
struct ProxyScope {
    service_account: String,
    /// See [`Workload::description`](crate::model::Workload::description).
    description: Arc<str>,
    client: Client,
    place: Place,
    ips: Vec<IpAddr>,
    captured: bool,
    /// Its clients have no sidecar: they get [`Proxyless`] and nothing of their own.
    proxyless: bool,
    clusters: Arc<ResourceMap>,
    listeners: Arc<ResourceMap>,
}

impl Snapshot {
    /// A number that grows with every published snapshot. 0 is the empty snapshot before every source was read.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Finds the scope of a proxy and checks that the identity which it proved is its Pod's.
    ///
    /// # Errors
    /// See [`ScopeError`]. After [`ScopeError::UnknownPod`] ask again with a later snapshot.
    pub fn scope_of(&self, proxy: &ProxyId) -> Result<ScopeKey, ScopeError> {
        let key = ScopeKey { namespace: proxy.namespace.clone(), pod: proxy.pod.clone() };
        let Some(scope) = self.proxies.get(&key) else {
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

    /// Whether the clients of `scope` are gRPC's own, without a sidecar.
    pub fn is_proxyless(&self, scope: &ScopeKey) -> bool {
        self.proxies.get(scope).is_some_and(|scope| scope.proxyless)
    }

    /// Whether the workload of `scope` is in the mesh.
    pub fn has_scope(&self, scope: &ScopeKey) -> bool {
        self.proxies.contains_key(scope)
    }

    /// What the proxy of `scope` gets of type `of`. Empty when the workload is gone, and for secrets, which the workload's
    /// own sidecar serves.
    pub fn resources(&self, scope: &ScopeKey, of: ResourceType) -> ResourceSet {
        let Some(proxy) = self.proxies.get(scope) else { return ResourceSet::default() };
        if proxy.proxyless {
            return self.proxyless.resources(&scope.namespace, of);
        }
        match of {
            ResourceType::Cluster => {
                self.clusters.for_caller(&proxy.client, &proxy.place, proxy.clusters.clone())
            }
            ResourceType::ClusterLoadAssignment => {
                self.endpoints.for_caller(&proxy.client, &proxy.place, Arc::default())
            }
            ResourceType::Listener => {
                let captured = &self.captured_listeners;
                let shared = match (proxy.captured, proxy.ips.iter().any(IpAddr::is_ipv6)) {
                    (false, _) => Arc::default(),
                    (true, false) => captured.v4.clone(),
                    (true, true) => captured.both.clone(),
                };
                ResourceSet::of(shared, proxy.listeners.clone())
            }
            ResourceType::RouteConfiguration => {
                let shared = self.routes.get(&proxy.client).cloned().unwrap_or_default();
                ResourceSet::of(shared, Arc::default())
            }
            ResourceType::Secret | ResourceType::VirtualHost | ResourceType::ExtensionConfig => {
                ResourceSet::default()
            }
        }
    }

    /// All scopes that have a configuration.
    pub fn scopes(&self) -> impl Iterator<Item = &ScopeKey> {
        self.proxies.keys()
    }

    /// Objects and files that were refused, each with file, field and reason; sorted. The last good version of each is in
    /// force.
    pub fn rejections(&self) -> &[Finding] {
        &self.findings.rejections
    }

    /// Objects that are in force without their whole effect, for example a route to a Service that does not exist; sorted.
    pub fn problems(&self) -> &[Finding] {
        &self.findings.problems
    }

    /// Where the objects that people write stand.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }
}
