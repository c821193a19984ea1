//! Clusters whose endpoints proxies look up in DNS: `resolution: DNS` and `DNS_ROUND_ROBIN` of a ServiceEntry.

use std::time::Duration;

use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::cluster::v3::cluster::{ClusterDiscoveryType, CustomClusterType};
use outrigger_xds_api::wire::endpoint::v3::lb_endpoint::HostIdentifier;
use outrigger_xds_api::wire::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint};
use outrigger_xds_api::wire::extensions::clusters::common::dns::v3::DnsLookupFamily;
use outrigger_xds_api::wire::extensions::clusters::dns::v3::DnsCluster;

use crate::model::{LocalityBalancing, NamedEndpoints, Place, ServicePort, StaticEndpoint, Subset};
use crate::translate::locality::{Placed, arrange};
use crate::translate::wire::{any, duration, named_address, number};

/// Istio's `meshConfig.dnsRefreshRate`; a shorter time to live counts.
const REFRESH_RATE: Duration = Duration::from_secs(60);
/// Istio's `PILOT_DNS_JITTER_DURATION`.
const JITTER: Duration = Duration::from_millis(100);

/// What a cluster of a port, or of a subset of its endpoints, says of where they come from, to callers at a place.
pub(super) fn discovery(
    named: &NamedEndpoints,
    port: &ServicePort,
    subset: Option<&Subset>,
    balancing: Option<&LocalityBalancing>,
    place: Option<&Place>,
    cluster_name: &str,
) -> Cluster {
    let is_wanted =
        |endpoint: &&StaticEndpoint<String>| subset.is_none_or(|subset| subset.selects(&endpoint.labels));
    let wire = |endpoint: &StaticEndpoint<String>| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(named_address(endpoint.address.clone(), endpoint.port(port))),
            ..Endpoint::default()
        })),
        load_balancing_weight: (endpoint.weight > 1).then(|| number(endpoint.weight)).flatten(),
        ..LbEndpoint::default()
    };
    let placed = named.endpoints.iter().filter(is_wanted).map(|endpoint| Placed {
        endpoint: wire(endpoint),
        locality: &endpoint.locality,
        node: None,
        labels: &endpoint.labels,
        weight: endpoint.weight,
    });
    let endpoints = arrange(placed.collect(), balancing, place);
    let settings = DnsCluster {
        dns_refresh_rate: duration(REFRESH_RATE),
        dns_jitter: duration(JITTER),
        respect_dns_ttl: true,
        // The cluster is the same for all proxies, whichever IP version they have.
        dns_lookup_family: DnsLookupFamily::V4Preferred as i32,
        // A logical cluster has one name, no less: a subset may have none.
        all_addresses_in_single_endpoint: named.is_logical && !endpoints.is_empty(),
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
