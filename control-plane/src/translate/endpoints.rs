//! Endpoints of Service ports.

use std::collections::BTreeMap;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3 as wire_core;
use outrigger_xds_api::wire::endpoint::v3::lb_endpoint::HostIdentifier;
use outrigger_xds_api::wire::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use prost::Message;

use crate::model::{Finding, Locality, Name};
use crate::translate::wire::address;
use crate::translate::{InputView, Output, metadata, names, reach};

/// One load assignment for each port of a Service.
pub(crate) fn load_assignments(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(service) = view.service(name) else { return output };
    let settings = view.settings();
    for port in &service.ports {
        let reach = reach::reach(view, service, port);
        if let Some(pod) = view.pod_without_target(service, port) {
            let reason = format!(
                "port {}: Pod {} has no container port of the name in targetPort, so it gets no traffic",
                port.number, pod.name
            );
            output.problems.push(Finding::at(&service.origin, "spec.ports", reason));
        }
        // By locality, and in each in the order of addresses.
        let mut localities: BTreeMap<Locality, Vec<LbEndpoint>> = BTreeMap::new();
        for dial in reach.addresses {
            localities.entry(dial.locality).or_default().push(LbEndpoint {
                host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
                    address: Some(address(dial.ip, dial.port)),
                    ..Endpoint::default()
                })),
                health_status: wire_core::HealthStatus::Healthy as i32,
                metadata: dial.workload.map(|workload| {
                    metadata::one("istio", "workload", &workload.description(&settings.cluster_name))
                }),
                ..LbEndpoint::default()
            });
        }
        let endpoints = localities.into_iter().map(|(locality, lb_endpoints)| LocalityLbEndpoints {
            locality: (!locality.is_empty()).then(|| wire_locality(locality)),
            lb_endpoints,
            ..LocalityLbEndpoints::default()
        });
        let cluster_name = names::outbound_cluster(name, port.number, &settings.cluster_domain);
        let wire = ClusterLoadAssignment {
            cluster_name: cluster_name.clone(),
            endpoints: endpoints.collect(),
            ..ClusterLoadAssignment::default()
        };
        output.add(ResourceType::ClusterLoadAssignment, &cluster_name, wire.encode_to_vec());
    }
    output
}

pub(super) fn wire_locality(Locality { region, zone, sub_zone }: Locality) -> wire_core::Locality {
    wire_core::Locality { region, zone, sub_zone }
}
