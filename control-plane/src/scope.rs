//! What a proxy may see.
//!
//! A proxy is tied to one workload (a Pod) and gets the configuration of that workload and of no other: the identity
//! that it proved must be the Pod's. What it gets has two layers. The *outbound* layer is equal for all proxies of a
//! namespace and shared between them: every Service of the mesh, with short host names for those of the own namespace.
//! The *own* layer holds what carries the workload's address: its listeners and inbound clusters.

use std::fmt;

/// Who a proxy says (node id) and proved (token or certificate) that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyId {
    /// Namespace of the Pod.
    pub namespace: String,
    /// Name of the Pod.
    pub pod: String,
    /// Kubernetes service account that the proxy proved, in the Pod's namespace.
    pub service_account: String,
    /// The proxy's address (INSTANCE_IP) as its node id tells it, when it does.
    pub ip: Option<std::net::IpAddr>,
}

/// The scope of one proxy: what [`Snapshot::scope_of`](crate::snapshot::Snapshot::scope_of) found for its [`ProxyId`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeKey {
    pub(crate) namespace: String,
    pub(crate) pod: String,
}

impl fmt::Display for ScopeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.pod)
    }
}

/// Why a proxy gets no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// There is no such Pod (yet), or it has no address (yet), or no sidecar: the proxy may be told to wait.
    #[error(
        "pod {namespace}/{pod} is not in the mesh: it does not exist, has no address yet, or has no sidecar"
    )]
    UnknownPod {
        /// Namespace that the proxy named.
        namespace: String,
        /// Pod that the proxy named.
        pod: String,
    },
    /// The Pod runs under another service account than the one that the proxy proved.
    #[error("pod {pod} does not run as service account {proved}")]
    WrongServiceAccount {
        /// `namespace/pod`.
        pod: String,
        /// Service account that the proxy proved.
        proved: String,
    },
    /// The node id names another address than the Pod has.
    #[error("pod {pod} does not have the address {ip}")]
    WrongAddress {
        /// `namespace/pod`.
        pod: String,
        /// Address in the node id.
        ip: std::net::IpAddr,
    },
}
