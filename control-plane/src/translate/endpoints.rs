//! Endpoints of Service ports.

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3 as wire_core;
use outrigger_xds_api::wire::endpoint::v3::lb_endpoint::HostIdentifier;
use outrigger_xds_api::wire::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint};
use prost::Message;

use crate::model::{Audience, Finding, Locality, MeshSettings, Name};
use crate::translate::locality::{Placed, arrange};
use crate::translate::reach::Dial;
use crate::translate::wire::{endpoint_address, number};
use crate::translate::{InputView, Output, metadata, names, reach};

/// One load assignment for each port of a Service, and one for each subset of it, as these callers get it.
pub(crate) fn load_assignments(view: &InputView<'_>, name: &Name, audience: &Audience) -> Output {
    let mut output = Output::default();
    let Some(service) = view.service(name) else { return output };
    // Those that have names stand in the clusters; the others are nobody's but the client's.
    if service.named.is_some() || service.is_original_destination() {
        return output;
    }
    let settings = view.settings();
    let policies = view.destination_of(service);
    for port in &service.ports {
        if let Some(workload) = view.workload_without_target(service, port) {
            let (what, kind) = match workload.entry {
                None => ("container port", "Pod"),
                Some(_) => ("port", "WorkloadEntry"),
            };
            let reason = format!(
                "port {}: {kind} {} has no {what} of the name in targetPort, so it gets no traffic",
                port.number, workload.name
            );
            output.problems.push(Finding::at(&service.origin, "spec.ports", reason));
        }
        let subsets = policies.subsets.iter().map(|(subset, _)| (Some(subset), &subset.settings));
        for (subset, policy) in std::iter::once((None, &policies.settings)).chain(subsets) {
            let of_port = policy.at(port.number);
            let reach = reach::reach(view, service, port, subset, of_port);
            let subset = subset.map(|subset| subset.name.as_str());
            let cluster_name = names::outbound_cluster(name, port.number, subset, &settings.cluster_domain);
            let wire = ClusterLoadAssignment {
                cluster_name: cluster_name.clone(),
                endpoints: arrange(
                    reach.addresses.iter().map(|dial| placed(dial, settings)).collect(),
                    of_port.locality_balancing(service),
                    audience.place(),
                ),
                ..ClusterLoadAssignment::default()
            };
            output.add(ResourceType::ClusterLoadAssignment, &cluster_name, wire.encode_to_vec());
        }
    }
    output
}

pub(super) fn placed<'a>(Dial { port, endpoint }: &'a Dial, settings: &MeshSettings) -> Placed<'a> {
    let health =
        if endpoint.ready { wire_core::HealthStatus::Healthy } else { wire_core::HealthStatus::Unhealthy };
    let wire = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(endpoint_address(&endpoint.address, *port)),
            ..Endpoint::default()
        })),
        health_status: health as i32,
        load_balancing_weight: (endpoint.weight > 1).then(|| number(endpoint.weight)).flatten(),
        metadata: endpoint.workload.as_ref().map(|workload| {
            metadata::one("istio", "workload", &workload.description(&settings.cluster_name))
        }),
    };
    Placed {
        endpoint: wire,
        locality: &endpoint.locality,
        node: endpoint.node.as_deref(),
        labels: endpoint.labels(),
        weight: endpoint.weight,
    }
}

pub(super) fn wire_locality(Locality { region, zone, sub_zone }: Locality) -> wire_core::Locality {
    wire_core::Locality { region, zone, sub_zone }
}
