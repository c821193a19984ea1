//! The nodes: what is computed by itself.

use crate::model::{Audience, Client, Name, Registry, RouteKey};
use crate::translate::{self, Family, InputView, Output};

/// One call of a translator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Node {
    /// Clusters of a Service.
    Clusters(Name, Audience),
    /// Load assignments of a Service.
    Endpoints(Name, Audience),
    /// Route configurations of a client.
    Routes(Client),
    /// Listeners of a Service's cluster IPs, for captured connections.
    ServiceListeners(Name, Family),
    /// The listener that captured connections arrive at, with its clusters.
    OutboundVirtual(Family),
    /// Listeners of a workload.
    Listeners(Name),
    /// Inbound clusters of a workload.
    InboundClusters(Name),
    /// Clusters of a Service, for gRPC clients without a sidecar.
    ProxylessClusters(Name),
    /// Load assignments of a Service, for the same.
    ProxylessEndpoints(Name),
    /// Listeners and route configurations of such clients in a namespace.
    ProxylessRoutes(String),
    /// What is wrong with a route.
    RouteCheck(RouteKey),
    /// What is wrong with a VirtualService.
    VirtualServiceCheck(Name),
    /// What is wrong with a ServiceEntry.
    ServiceEntryCheck(Name),
    /// What is wrong with a WorkloadEntry.
    WorkloadEntryCheck(Name),
    /// What is wrong with a WorkloadGroup.
    WorkloadGroupCheck(Name),
    /// What is wrong with a destination policy.
    PolicyCheck(Name),
    /// What is wrong with a traffic policy.
    TrafficPolicyCheck(Name),
    /// What is wrong with the PeerAuthentications of a namespace.
    PeerAuthnCheck(String),
}

impl Node {
    /// Whose destination policies count in it; `None`: those that all follow. What is wrong with a rule is said as the clients of its
    /// namespace see it.
    pub(super) fn client(&self, registry: &Registry) -> Option<Client> {
        let in_namespace = |namespace: &String| Client { namespace: namespace.clone(), ..Client::default() };
        match self {
            Self::Clusters(_, audience) | Self::Endpoints(_, audience) => audience.client().cloned(),
            Self::Routes(client) => Some(client.clone()),
            // It reads by which labels clients are told apart, as its rules depend on them too.
            Self::Listeners(name) => registry.workload(name).map(|workload| registry.client_of(workload)),
            Self::RouteCheck(key) => Some(in_namespace(&key.name.namespace)),
            Self::VirtualServiceCheck(name) => Some(in_namespace(&name.namespace)),
            Self::PolicyCheck(name) => {
                let policy = registry.policy(name)?;
                Some(Client { labels: policy.selector.clone(), ..in_namespace(&name.namespace) })
            }
            _ => None,
        }
    }

    /// Calls the translator.
    pub(super) fn translate(&self, view: &InputView<'_>) -> Output {
        match self {
            Self::Clusters(service, audience) => translate::outbound_clusters(view, service, audience),
            Self::Endpoints(service, audience) => translate::load_assignments(view, service, audience),
            Self::Routes(client) => translate::route_configurations(view, client),
            Self::ServiceListeners(service, family) => translate::service_listeners(view, service, *family),
            Self::OutboundVirtual(family) => translate::outbound_virtual(view, *family),
            Self::Listeners(workload) => translate::listeners(view, workload),
            Self::InboundClusters(workload) => translate::inbound_clusters(view, workload),
            Self::ProxylessClusters(service) => translate::proxyless_clusters(view, service),
            Self::ProxylessEndpoints(service) => translate::proxyless_endpoints(view, service),
            Self::ProxylessRoutes(namespace) => translate::proxyless_routes(view, namespace),
            Self::RouteCheck(route) => translate::check_route(view, route),
            Self::VirtualServiceCheck(service) => translate::check_virtual_service(view, service),
            Self::ServiceEntryCheck(entry) => translate::check_service_entry(view, entry),
            Self::WorkloadEntryCheck(entry) => translate::check_workload_entry(view, entry),
            Self::WorkloadGroupCheck(group) => translate::check_workload_group(view, group),
            Self::PolicyCheck(policy) => translate::check_policy(view, policy),
            Self::TrafficPolicyCheck(policy) => translate::check_traffic_policy(view, policy),
            Self::PeerAuthnCheck(namespace) => translate::check_peer_authentications(view, namespace),
        }
    }
}
