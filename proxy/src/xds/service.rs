//! The discovery services and the paths of their streams.

use outrigger_xds_api::ResourceType;

use crate::config::sources::Variant;

/// A discovery service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// `AggregatedDiscoveryService`: all types on one stream.
    Aggregated,
    /// The service of one type.
    Of(ResourceType),
}

impl Service {
    /// Path of the streaming method.
    pub(super) fn path(self, variant: Variant) -> &'static str {
        use ResourceType::{
            Cluster, ClusterLoadAssignment, ExtensionConfig, Listener, RouteConfiguration, Secret,
            VirtualHost,
        };
        match (self, variant) {
            (Service::Aggregated, Variant::StateOfTheWorld) => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
            }
            (Service::Aggregated, Variant::Delta) => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            }
            (Service::Of(Cluster), Variant::StateOfTheWorld) => {
                "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
            }
            (Service::Of(Cluster), Variant::Delta) => {
                "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"
            }
            (Service::Of(ClusterLoadAssignment), Variant::StateOfTheWorld) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
            }
            (Service::Of(ClusterLoadAssignment), Variant::Delta) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
            }
            (Service::Of(Listener), Variant::StateOfTheWorld) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
            }
            (Service::Of(Listener), Variant::Delta) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners"
            }
            (Service::Of(RouteConfiguration), Variant::StateOfTheWorld) => {
                "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes"
            }
            (Service::Of(RouteConfiguration), Variant::Delta) => {
                "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes"
            }
            (Service::Of(Secret), Variant::StateOfTheWorld) => {
                "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
            }
            (Service::Of(Secret), Variant::Delta) => {
                "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
            }
            (Service::Of(ExtensionConfig), Variant::StateOfTheWorld) => {
                "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs"
            }
            (Service::Of(ExtensionConfig), Variant::Delta) => {
                "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/DeltaExtensionConfigs"
            }
            // There is no other variant of it.
            (Service::Of(VirtualHost), _) => {
                "/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts"
            }
        }
    }
}
