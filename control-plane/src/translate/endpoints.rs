//! Endpoints of Service ports.

use std::collections::BTreeMap;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3 as wire_core;
use outrigger_xds_api::wire::endpoint::v3::lb_endpoint::HostIdentifier;
use outrigger_xds_api::wire::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use prost::Message;

use crate::model::{Finding, Locality, MeshSettings, Name};
use crate::translate::reach::Dial;
use crate::translate::wire::{address, number};
use crate::translate::{InputView, Output, metadata, names, reach};

/// One load assignment for each port of a Service, and one for each subset of it.
pub(crate) fn load_assignments(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    // Those that have names stand in the clusters.
    let Some(service) = view.service(name).filter(|service| service.named.is_none()) else { return output };
    let settings = view.settings();
    let policies = view.destination_of(service);
    for port in &service.ports {
        if let Some(pod) = view.pod_without_target(service, port) {
            let reason = format!(
                "port {}: Pod {} has no container port of the name in targetPort, so it gets no traffic",
                port.number, pod.name
            );
            output.problems.push(Finding::at(&service.origin, "spec.ports", reason));
        }
        let subsets = policies.subsets.iter().map(|(subset, _)| (Some(subset), &subset.settings));
        for (subset, policy) in std::iter::once((None, &policies.settings)).chain(subsets) {
            let reach = reach::reach(view, service, port, subset, policy.at(port.number).tls);
            let subset = subset.map(|subset| subset.name.as_str());
            let cluster_name = names::outbound_cluster(name, port.number, subset, &settings.cluster_domain);
            let wire = ClusterLoadAssignment {
                cluster_name: cluster_name.clone(),
                endpoints: by_locality(reach.addresses, settings),
                ..ClusterLoadAssignment::default()
            };
            output.add(ResourceType::ClusterLoadAssignment, &cluster_name, wire.encode_to_vec());
        }
    }
    output
}

/// By locality, and in each in the order of addresses.
fn by_locality(addresses: Vec<Dial>, settings: &MeshSettings) -> Vec<LocalityLbEndpoints> {
    let mut localities: BTreeMap<Locality, Vec<LbEndpoint>> = BTreeMap::new();
    for dial in addresses {
        localities.entry(dial.locality).or_default().push(LbEndpoint {
            host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
                address: Some(address(dial.ip, dial.port)),
                ..Endpoint::default()
            })),
            health_status: wire_core::HealthStatus::Healthy as i32,
            load_balancing_weight: (dial.weight > 1).then(|| number(dial.weight)).flatten(),
            metadata: dial.workload.map(|workload| {
                metadata::one("istio", "workload", &workload.description(&settings.cluster_name))
            }),
        });
    }
    let endpoints = localities.into_iter().map(|(locality, lb_endpoints)| LocalityLbEndpoints {
        locality: (!locality.is_empty()).then(|| wire_locality(locality)),
        lb_endpoints,
        ..LocalityLbEndpoints::default()
    });
    endpoints.collect()
}

pub(super) fn wire_locality(Locality { region, zone, sub_zone }: Locality) -> wire_core::Locality {
    wire_core::Locality { region, zone, sub_zone }
}
