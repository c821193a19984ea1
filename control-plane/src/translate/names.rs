//! Names of resources and hosts: Istio's.

use crate::model::{Name, Protocol, ServicePort, Workload};

/// Port of the outbound HTTP listener, and name of its route configuration.
pub(super) const OUTBOUND_PORT: u16 = 15001;

/// Port of the inbound listener.
pub(super) const INBOUND_PORT: u16 = 15006;

/// Ports that the sidecar itself listens on, so that no TCP listener can be bound there.
pub(super) const SIDECAR_PORTS: [u16; 9] = [15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090];

/// Cluster of connections to addresses that the mesh does not know: they go where they were meant to, as they are.
pub(super) const PASSTHROUGH: &str = "PassthroughCluster";

/// Cluster of captured inbound connections to ports that no Service leads to.
pub(super) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// ALPN by which a sidecar says that it is one: the bytes inside are the application's own, of whatever protocol. (Istio's.)
pub(super) const MESH_ALPN: &str = "istio";

/// ALPN by which a sidecar says that it has found the bytes inside to be HTTP, of either version.
pub(super) const DETECTED_HTTP_ALPN: &str = "istio-http";

/// Ports of a captured Pod's sidecar that are never captured, so that whoever scrapes or probes them finds them.
pub(super) const OPEN_PORTS: [u16; 3] = [15020, 15021, 15090];

/// Cluster of connections to the addresses of a workload's Pods.
pub(super) fn peer_cluster(workload: &Workload) -> String {
    let Workload { name: Name { namespace, .. }, controller, service_account, .. } = workload;
    format!("{PASSTHROUGH}|{namespace}/{controller}/{}/{service_account}", workload.canonical_revision())
}

/// Route configuration of one Service's port, for clients that call it by its own address.
pub(super) fn service_routes(service: &Name, port: u16, domain: &str) -> String {
    format!("{}:{port}", fqdn(service, domain))
}

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

/// Cluster of a Service's port for what is not HTTP: the same one, except where the protocol is detected.
pub(super) fn outbound_tcp_cluster(service: &Name, port: &ServicePort, domain: &str) -> String {
    match port.protocol {
        Protocol::Detect => format!("outbound|{}|tcp|{}", port.number, fqdn(service, domain)),
        _ => outbound_cluster(service, port.number, domain),
    }
}

/// Cluster of a workload's own port.
pub(super) fn inbound_cluster(target: u16) -> String {
    format!("inbound|{target}||")
}

/// Server name (SNI) by which a client tells the peer's sidecar the port that it wants.
pub(super) fn sni(service: &Name, port: u16, domain: &str) -> String {
    format!("outbound_.{port}_._.{}", fqdn(service, domain))
}
