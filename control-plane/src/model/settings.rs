//! Settings of the whole mesh.

use crate::model::Interception;

/// What decoding and translation depend on besides the objects. Fixed for the life of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// Trust domain of the SPIFFE identities, for example `cluster.local`.
    pub trust_domain: String,
    /// DNS suffix of Services, for example `cluster.local`.
    pub cluster_domain: String,
    /// Namespace whose PeerAuthentication without a selector holds for the whole mesh, and whose DestinationRules hold
    /// for every Service that has none of its own.
    pub root_namespace: String,
    /// Name of the cluster, for metrics.
    pub cluster_name: String,
    /// Whether proxies write Istio's access log line to standard output for each request and connection.
    pub access_log: bool,
    /// Whether proxies say in the response header `Proxy-Status` (RFC 9209) why a request failed.
    pub proxy_status: bool,
    /// How the traffic of a Pod that does not say it gets to its sidecar (`sidecar.istio.io/interceptionMode`).
    pub interception: Interception,
    /// How it is known which Pods have a sidecar.
    pub sidecars: Sidecars,
    /// What becomes of captured connections to addresses that the mesh does not know.
    pub unknown_destinations: UnknownDestinations,
}

/// How it is known which Pods have a sidecar. One that uses the node's network never has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sidecars {
    /// All, unless label or annotation `sidecar.istio.io/inject` is `false`. In a directory of YAML nobody injects: whoever
    /// starts a workload starts its sidecar.
    Assumed,
    /// Those that the injector marked with the annotation `sidecar.istio.io/status`.
    Injected,
}

/// Istio's `outboundTrafficPolicy.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownDestinations {
    /// They are passed through as they are.
    AllowAny,
    /// They are closed.
    RegistryOnly,
}

impl Default for MeshSettings {
    /// Istio's defaults, for a mesh in explicit mode.
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".into(),
            cluster_domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            cluster_name: "Kubernetes".into(),
            access_log: false,
            proxy_status: false,
            interception: Interception::None,
            sidecars: Sidecars::Assumed,
            unknown_destinations: UnknownDestinations::AllowAny,
        }
    }
}
