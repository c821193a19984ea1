//! The gRPC services: the aggregated one, and one for each resource type, each in both variants of the protocol.
//!
//! All of them open the same streams; a service of one type serves that type only, and may leave it out of its requests.

use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{delta, sotw};
use outrigger_xds_api::wire::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use outrigger_xds_api::wire::service::cluster::v3::cluster_discovery_service_server::{
    ClusterDiscoveryService, ClusterDiscoveryServiceServer,
};
use outrigger_xds_api::wire::service::endpoint::v3::endpoint_discovery_service_server::{
    EndpointDiscoveryService, EndpointDiscoveryServiceServer,
};
use outrigger_xds_api::wire::service::listener::v3::listener_discovery_service_server::{
    ListenerDiscoveryService, ListenerDiscoveryServiceServer,
};
use outrigger_xds_api::wire::service::route::v3::route_discovery_service_server::{
    RouteDiscoveryService, RouteDiscoveryServiceServer,
};
use outrigger_xds_api::wire::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};

use super::Shared;
use super::stream::{self, RESPONSES_MAX};
use super::variant::Variant;
use crate::auth::Peer;

/// A request may be this large, in bytes. In the state of the world each names the whole subscription.
const REQUEST_MAX_BYTES: usize = 16 * 1024 * 1024;

/// One of the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// All types in one stream.
    Aggregated,
    /// A stream for this type.
    Of(ResourceType),
}

impl Service {
    /// Its usual abbreviation.
    pub(super) fn short_name(self) -> &'static str {
        match self {
            Self::Aggregated => "ads",
            Self::Of(of) => of.short_name(),
        }
    }
}

/// Implements every service.
struct Discovery {
    shared: Arc<Shared>,
}

type Responses<V> = ReceiverStream<Result<<V as Variant>::Response, Status>>;

/// Adds every service to the gRPC server.
pub(crate) fn add_to(router: Router, shared: Shared) -> Router {
    let discovery = Arc::new(Discovery { shared: Arc::new(shared) });
    macro_rules! with {
        ($($server:ident),*) => {
            router$(.add_service(
                $server::from_arc(Arc::clone(&discovery)).max_decoding_message_size(REQUEST_MAX_BYTES),
            ))*
        };
    }
    with!(
        AggregatedDiscoveryServiceServer,
        ClusterDiscoveryServiceServer,
        EndpointDiscoveryServiceServer,
        ListenerDiscoveryServiceServer,
        RouteDiscoveryServiceServer,
        SecretDiscoveryServiceServer
    )
}

impl Discovery {
    /// Opens a stream for a caller that has proved who it is.
    async fn open<V: Variant>(
        &self,
        service: Service,
        request: Request<Streaming<V::Request>>,
    ) -> Result<Response<Responses<V>>, Status> {
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
        let (sender, receiver) = mpsc::channel(RESPONSES_MAX);
        tokio::spawn(stream::serve::<V>(shared, service, peer, proof, request.into_inner(), sender));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Responses<sotw::Server>;
    type DeltaAggregatedResourcesStream = Responses<delta::Server>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<sotw::Server>(Service::Aggregated, request).await
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<delta::Server>(Service::Aggregated, request).await
    }
}

/// Implements the service of one type; the names are those of its methods and of their streams.
macro_rules! service_of {
    ($of:ident, $service:ident, $stream:ident, $Stream:ident, $delta:ident, $Delta:ident, $fetch:ident) => {
        #[tonic::async_trait]
        impl $service for Discovery {
            type $Stream = Responses<sotw::Server>;
            type $Delta = Responses<delta::Server>;

            async fn $stream(
                &self,
                request: Request<Streaming<DiscoveryRequest>>,
            ) -> Result<Response<Self::$Stream>, Status> {
                self.open::<sotw::Server>(Service::Of(ResourceType::$of), request).await
            }

            async fn $delta(
                &self,
                request: Request<Streaming<DeltaDiscoveryRequest>>,
            ) -> Result<Response<Self::$Delta>, Status> {
                self.open::<delta::Server>(Service::Of(ResourceType::$of), request).await
            }

            async fn $fetch(
                &self,
                _: Request<DiscoveryRequest>,
            ) -> Result<Response<DiscoveryResponse>, Status> {
                Err(Status::unimplemented("fetching once is not served; open a stream (api_type: GRPC)"))
            }
        }
    };
}

service_of!(
    Cluster,
    ClusterDiscoveryService,
    stream_clusters,
    StreamClustersStream,
    delta_clusters,
    DeltaClustersStream,
    fetch_clusters
);
service_of!(
    ClusterLoadAssignment,
    EndpointDiscoveryService,
    stream_endpoints,
    StreamEndpointsStream,
    delta_endpoints,
    DeltaEndpointsStream,
    fetch_endpoints
);
service_of!(
    Listener,
    ListenerDiscoveryService,
    stream_listeners,
    StreamListenersStream,
    delta_listeners,
    DeltaListenersStream,
    fetch_listeners
);
service_of!(
    RouteConfiguration,
    RouteDiscoveryService,
    stream_routes,
    StreamRoutesStream,
    delta_routes,
    DeltaRoutesStream,
    fetch_routes
);
service_of!(
    Secret,
    SecretDiscoveryService,
    stream_secrets,
    StreamSecretsStream,
    delta_secrets,
    DeltaSecretsStream,
    fetch_secrets
);
