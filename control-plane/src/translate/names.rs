//! Names of resources and hosts: Istio's.

use crate::model::Name;

/// Port of the outbound HTTP listener, and name of its route configuration.
pub(super) const OUTBOUND_PORT: u16 = 15001;

/// Port of the inbound listener.
pub(super) const INBOUND_PORT: u16 = 15006;

/// Ports that the sidecar itself listens on, so that no TCP listener can be bound there.
pub(super) const SIDECAR_PORTS: [u16; 9] = [15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090];

/// Cluster without endpoints.
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";

/// Full host name of a Service.
pub(super) fn fqdn(service: &Name, domain: &str) -> String {
    format!("{}.{}.svc.{domain}", service.name, service.namespace)
}

/// Cluster of a Service's port, for its clients.
pub(super) fn outbound_cluster(service: &Name, port: u16, domain: &str) -> String {
    format!("outbound|{port}||{}", fqdn(service, domain))
}

/// Cluster of a workload's own port.
pub(super) fn inbound_cluster(target: u16) -> String {
    format!("inbound|{target}||")
}

/// Server name (SNI) by which a client tells the peer's sidecar the port that it wants.
pub(super) fn sni(service: &Name, port: u16, domain: &str) -> String {
    format!("outbound_.{port}_._.{}", fqdn(service, domain))
}
