//! Clusters whose endpoints proxies look up in DNS: `resolution: DNS` and `DNS_ROUND_ROBIN` of a ServiceEntry.

use std::time::Duration;

use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::cluster::v3::cluster::{ClusterDiscoveryType, CustomClusterType};
use outrigger_xds_api::wire::endpoint::v3::lb_endpoint::HostIdentifier;
use outrigger_xds_api::wire::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint};
use outrigger_xds_api::wire::extensions::clusters::common::dns::v3::DnsLookupFamily;
use outrigger_xds_api::wire::extensions::clusters::dns::v3::DnsCluster;

use crate::model::{LocalityBalancing, Place, ServicePort, StaticEndpoint};
use crate::translate::locality::{Placed, arrange};
use crate::translate::wire::{any, duration, endpoint_address, number};

/// Istio's `meshConfig.dnsRefreshRate`; a shorter time to live counts.
const REFRESH_RATE: Duration = Duration::from_secs(60);
/// Istio's `PILOT_DNS_JITTER_DURATION`.
const JITTER: Duration = Duration::from_millis(100);

/// What a cluster says of where these endpoints come from, to callers at a place.
pub(super) fn discovery(
    endpoints: Vec<Placed<'_>>,
    is_logical: bool,
    balancing: Option<&LocalityBalancing>,
    place: Option<&Place>,
    cluster_name: &str,
) -> Cluster {
    // A logical cluster has one name, no more and no less: a subset may have none, and what is selected may be several.
    let is_logical = is_logical && endpoints.len() == 1;
    let endpoints = arrange(endpoints, balancing, place);
    let settings = DnsCluster {
        dns_refresh_rate: duration(REFRESH_RATE),
        dns_jitter: duration(JITTER),
        respect_dns_ttl: true,
        // The cluster is the same for all proxies, whichever IP version they have.
        dns_lookup_family: DnsLookupFamily::V4Preferred as i32,
        all_addresses_in_single_endpoint: is_logical,
        ..DnsCluster::default()
    };
    Cluster {
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.cluster.dns".to_owned(),
            typed_config: Some(any(&settings)),
        })),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: cluster_name.to_owned(),
            endpoints,
            ..ClusterLoadAssignment::default()
        }),
        ..Cluster::default()
    }
}

/// An endpoint of a port that is written down.
pub(super) fn placed<'a>(endpoint: &'a StaticEndpoint, port: &ServicePort) -> Placed<'a> {
    let wire = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(endpoint_address(&endpoint.address, endpoint.port(port))),
            ..Endpoint::default()
        })),
        load_balancing_weight: (endpoint.weight > 1).then(|| number(endpoint.weight)).flatten(),
        ..LbEndpoint::default()
    };
    Placed {
        endpoint: wire,
        locality: &endpoint.locality,
        node: None,
        labels: &endpoint.labels,
        weight: endpoint.weight,
    }
}
