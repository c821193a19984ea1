//! The Aggregated Discovery Service: configuration to proxies over one gRPC stream each, in the incremental ("delta")
//! variant of the protocol.
//!
//! [`stream`] is the life of one stream, [`push`] decides what is sent when, [`proxies`] remembers how far each
//! proxy is, [`refusals`] what each refuses and why. Invariants: no stream is served before every source is synced; a proxy gets the
//! configuration of the identity that it proved and of no other. Runs on the main runtime.

pub mod proxies;
mod push;
pub mod refusals;
mod stream;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use outrigger_xds_api::wire::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::auth::{Authenticator, InvalidNodeId, Peer, Refusal};
use crate::metrics::Metrics;
use crate::scope::ScopeError;
use crate::server::Lifecycle;
use crate::snapshot::Snapshot;
use proxies::Proxies;

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

/// The gRPC service.
pub struct DiscoveryService {
    shared: Arc<Shared>,
}

impl DiscoveryService {
    /// Serves what `shared` publishes.
    pub fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared) }
    }
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
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for DiscoveryService {
    type StreamAggregatedResourcesStream = tokio_stream::Empty<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(
            "the state-of-the-world variant is not served; use DeltaAggregatedResources (api_type: DELTA_GRPC)",
        ))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let shared = Arc::clone(&self.shared);
        shared.lifecycle.serving().await?;
        let peer = Peer::of(request.extensions())?.clone();
        // The request itself cannot be held while the token is checked: its stream is not shareable.
        let metadata = request.metadata().clone();
        let proof = shared.authenticator.authenticate(&peer, &metadata).await.map_err(|refusal| {
            shared.metrics.refused_proxies.with_label_values(&[refusal.reason()]).inc();
            tracing::warn!(address = %peer.address, error = %refusal, "proxy refused");
            Status::from(refusal)
        })?;
        let (sender, receiver) = mpsc::channel(stream::RESPONSES_MAX);
        tokio::spawn(stream::serve(shared, peer, proof, request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
