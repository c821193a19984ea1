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

/// HTTP filter that answers preflights of browsers, and its name in `typed_per_filter_config`.
pub(super) const CORS_FILTER: &str = "envoy.filters.http.cors";

/// HTTP filter that delays and refuses requests on purpose.
pub(super) const FAULT_FILTER: &str = "envoy.filters.http.fault";

/// HTTP filter that refuses requests beyond a limit.
pub(super) const LOCAL_RATE_LIMIT_FILTER: &str = "envoy.filters.http.local_ratelimit";

/// HTTP filter that changes headers and queries.
pub(super) const HEADER_MUTATION_FILTER: &str = "envoy.filters.http.header_mutation";

/// Cluster without endpoints.
pub(super) const BLACK_HOLE: &str = "BlackHoleCluster";

/// Full host name of a Service. That of a ServiceEntry's is its name, which has a dot.
pub(super) fn fqdn(service: &Name, domain: &str) -> String {
    match is_whole(service) {
        true => service.name.clone(),
        false => format!("{}.{}.svc.{domain}", service.name, service.namespace),
    }
}

/// Whether the name of a Service is a whole host name: a ServiceEntry made it.
pub(super) fn is_whole(service: &Name) -> bool {
    service.name.contains('.')
}

/// Cluster of a Service's port, or of a subset of it, for its clients.
pub(super) fn outbound_cluster(service: &Name, port: u16, subset: Option<&str>, domain: &str) -> String {
    format!("outbound|{port}|{}|{}", subset.unwrap_or_default(), fqdn(service, domain))
}

/// Cluster of a Service's port for what is not HTTP: the same one, except where the protocol is detected. (No subset is called
/// `tcp`, and none has a dot in its name.)
pub(super) fn outbound_tcp_cluster(
    service: &Name,
    port: &ServicePort,
    subset: Option<&str>,
    domain: &str,
) -> String {
    match (port.protocol, subset) {
        (Protocol::Detect, None) => outbound_cluster(service, port.number, Some("tcp"), domain),
        (Protocol::Detect, Some(subset)) => {
            outbound_cluster(service, port.number, Some(&format!("tcp.{subset}")), domain)
        }
        (_, subset) => outbound_cluster(service, port.number, subset, domain),
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

/// The Service in a name that was made here: of a cluster, a server name, a route configuration or a virtual host.
pub(super) fn service_in(name: &str) -> Option<Name> {
    let fqdn = if name.starts_with("outbound|") {
        name.rsplit('|').next()?
    } else if name.starts_with("outbound_.") {
        // `outbound_.PORT_.SUBSET_.FQDN`, and what may follow it begins with `-`, which no domain ends in.
        name.splitn(4, "_.").nth(3)?
    } else {
        name.rsplit_once(':')?.0
    };
    let (service, rest) = fqdn.split_once('.')?;
    let (namespace, rest) = rest.split_once('.')?;
    (rest == "svc" || rest.starts_with("svc.")).then(|| Name::new(namespace, service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_in_a_name() {
        let service = Name::new("shop", "reviews");
        for name in [
            outbound_cluster(&service, 80, None, "cluster.local"),
            outbound_cluster(&service, 80, Some("v1"), "cluster.local"),
            format!("outbound|80|tcp|{}", fqdn(&service, "mesh")),
            sni(&service, 80, "cluster.local"),
            format!("{}-http", sni(&service, 80, "cluster.local")),
            service_routes(&service, 80, "cluster.local"),
        ] {
            assert_eq!(service_in(&name), Some(service.clone()), "{name}");
        }
        for name in ["", "15001", BLACK_HOLE, PASSTHROUGH, "inbound|80||", "outbound|80||example.com", "a:80"]
        {
            assert_eq!(service_in(name), None, "{name}");
        }
    }
}
