//! Model -> xDS resources.
//!
//! Each function here makes the resources of one *node* (the clusters of a Service, the listeners of a workload). All are
//! pure: they read the model through a recording [`InputView`] and nothing else, no clock and no randomness, and equal
//! inputs give equal bytes. They run on the task that owns the registry.
//!
//! Resources and their names (Istio's names, so that what people grep for is there):
//!
//! | type | name | one for each |
//! |---|---|---|
//! | Cluster, ClusterLoadAssignment | `outbound\|PORT\|\|FQDN` | Service port, and place of callers where it counts ([`locality`]) |
//! | Cluster | `outbound\|PORT\|tcp\|FQDN` | Service port whose protocol is detected, for what is not HTTP |
//! | Cluster | `inbound\|TARGETPORT\|\|` | port of a workload |
//! | Cluster | `BlackHoleCluster` | mesh: where the share of a missing backend goes |
//! | RouteConfiguration | `15001` | namespace of clients in explicit mode |
//! | Listener | `IP_15001`, `IP_PORT`, `virtualInbound` | workload |
//!
//! and for workloads whose connections are captured ([`captured`]):
//!
//! | type | name | one for each |
//! |---|---|---|
//! | Listener | `virtualOutbound`, `virtualOutbound6` | mesh |
//! | Listener | `IP_PORT` | port and cluster IP of a Service |
//! | Listener | `0.0.0.0_PORT`, `::_PORT` | port of hosts without an address of their own ([`by_content`]) |
//! | Listener | `virtualInbound`, `virtualInbound6` | workload |
//! | RouteConfiguration | `PORT` | HTTP port of such hosts, and namespace of clients |
//! | RouteConfiguration | `FQDN:PORT` | HTTP port of a Service with a cluster IP, and namespace of clients |
//! | Cluster | `PassthroughCluster`, `InboundPassthroughCluster` | mesh |
//! | Cluster | `PassthroughCluster\|NAMESPACE/WORKLOAD/REVISION/SERVICEACCOUNT` | captured workload |
//!
//! What gRPC clients without a sidecar get is in [`proxyless`].
//!
//! In explicit mode there is one HTTP listener for all Services, so there is one route configuration for all; it differs
//! between namespaces only by short host names and consumer routes, and is shared by all proxies of one.

mod access_log;
mod balancing;
mod by_content;
mod captured;
mod causes;
mod check;
mod cluster;
mod connections;
mod detect;
mod dns;
mod endpoints;
mod health;
mod http;
mod inbound;
mod locality;
mod metadata;
mod names;
mod outbound;
mod proxyless;
mod reach;
mod route;
mod target;
mod tls;
mod traffic_policy;
mod view;
mod wire;

#[cfg(test)]
mod tests;

use outrigger_xds_api::ResourceType;

use crate::model::Finding;
use crate::snapshot::Resource;

pub(crate) use captured::{Family, outbound_virtual, service_listeners};
pub(crate) use causes::{Cause, causes};
pub(crate) use check::{
    check_peer_authentications, check_policy, check_route, check_service_entry, check_traffic_policy,
    check_virtual_service, check_workload_entry, check_workload_group,
};
pub(crate) use cluster::{black_hole, outbound_clusters};
pub(crate) use endpoints::load_assignments;
pub(crate) use inbound::inbound_clusters;
pub(crate) use outbound::listeners;
pub(crate) use proxyless::{proxyless_black_hole, proxyless_clusters, proxyless_endpoints, proxyless_routes};
pub(crate) use route::route_configurations;
pub use view::InputView;

/// What one node comes to.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Its resources. Names are unique within a type.
    pub(crate) resources: Vec<(ResourceType, Resource)>,
    /// What about its inputs cannot have its whole effect.
    pub(crate) problems: Vec<Finding>,
}

impl Output {
    fn add(&mut self, of: ResourceType, name: &str, encoded: Vec<u8>) {
        self.resources.push((of, Resource::new(of, name, encoded)));
    }
}
