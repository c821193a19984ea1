//! The discovery services: configuration to proxies over gRPC streams, aggregated (ADS) or one for each type, in both
//! variants of the protocol, incremental ("delta") and state of the world ("sotw").
//!
//! [`services`] are the gRPC services, [`stream`] is the life of one stream, [`push`] decides what is sent when,
//! [`variant`] is what the two variants have in common there, [`proxies`] remembers how far each proxy is, [`refusals`] what
//! each refuses and why. Invariants: no stream is served before every source is synced; a proxy gets the configuration of the
//! identity that it proved and of no other. The order across types is kept within a stream; across separate streams the
//! protocol has none. Runs on the main runtime.

pub mod proxies;
mod push;
pub mod refusals;
mod services;
mod stream;
mod variant;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::watch;
use tonic::Status;

use crate::auth::{Authenticator, InvalidNodeId, Refusal};
use crate::metrics::Metrics;
use crate::scope::{ScopeError, ScopeKey};
use crate::server::Lifecycle;
use crate::snapshot::Snapshot;
use proxies::Proxies;
pub(crate) use services::add_to;

/// What all streams share.
pub struct Shared {
    /// The published configuration.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Whether there is one to serve, and when to stop.
    pub lifecycle: Lifecycle,
    /// Checks who a proxy is.
    pub authenticator: Arc<Authenticator>,
    /// The trust domain that every proxy's identity is in.
    pub trust_domain: String,
    /// The connected proxies.
    pub proxies: Arc<Proxies>,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
}

/// Why a proxy gets no configuration.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("node: the first request must name the node")]
    NoNode,
    #[error(transparent)]
    NodeId(#[from] InvalidNodeId),
    #[error(transparent)]
    Identity(#[from] Refusal),
    #[error("{0}")]
    Scope(ScopeError),
    #[error(
        "pod {0} is not one with gRPC clients that need no sidecar: it has no annotation `inject.istio.io/templates: \
         grpc-agent`"
    )]
    NotProxyless(ScopeKey),
    #[error("pod {0} has gRPC clients that need no sidecar (`inject.istio.io/templates`), and this is none")]
    NotGrpc(ScopeKey),
}

impl Refused {
    /// The value of the metric's label, and what the proxy is told.
    fn into_parts(self) -> (&'static str, Status) {
        let text = self.to_string();
        match self {
            Self::NoNode | Self::NodeId(_) => ("invalid_node_id", Status::invalid_argument(text)),
            Self::Identity(refusal) => (refusal.reason(), refusal.into()),
            Self::Scope(ScopeError::UnknownPod { .. }) => ("unknown_pod", Status::not_found(text)),
            Self::Scope(ScopeError::WrongServiceAccount { .. } | ScopeError::WrongAddress { .. }) => {
                ("node_mismatch", Status::permission_denied(text))
            }
            Self::NotProxyless(_) | Self::NotGrpc(_) => ("other_client", Status::failed_precondition(text)),
        }
    }
}
