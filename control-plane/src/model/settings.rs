//! Settings of the whole mesh.

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
}

impl Default for MeshSettings {
    /// Istio's defaults.
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".into(),
            cluster_domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            cluster_name: "Kubernetes".into(),
            access_log: false,
        }
    }
}
