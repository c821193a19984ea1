//! Clusters of Service ports, for their clients. A port whose protocol is detected has two: what is said to the peer's sidecar
//! about the bytes (ALPN) belongs to the cluster.
//!
//! They are the same for every proxy: the address that upstream sockets bind to is in the proxy's own bootstrap.

use std::collections::HashMap;
use std::time::Duration;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::cluster::v3::circuit_breakers::Thresholds;
use outrigger_xds_api::wire::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy, OriginalDstLbConfig,
};
use outrigger_xds_api::wire::cluster::v3::{CircuitBreakers, Cluster, UpstreamConnectionOptions};
use outrigger_xds_api::wire::core::v3::{
    self as wire_core, Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpOptions,
    TransportSocket,
};
use outrigger_xds_api::wire::http_protocol_options::v3::HttpProtocolOptions;
use outrigger_xds_api::wire::http_protocol_options::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use outrigger_xds_api::wire::http_protocol_options::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
};
use outrigger_xds_api::wire::protobuf::Any;
use prost::Message;

use crate::model::{
    Audience, ClientTls, ConnectionPool, DestinationSettings, HttpUpgrade, MeshSettings, Name,
    OutlierDetection, Protocol, Readmission, ReadmissionBy, RetryBudget, Service, ServicePort,
    StaticEndpoint, Subset, TcpKeepalive,
};
use crate::source::Origin;
use crate::translate::balancing::{common_lb, lb_config, lb_policy, load_balancing_policy};
use crate::translate::health::{self, outlier_detection};
use crate::translate::http::http2_options;
use crate::translate::metadata::{OrderedMetadata, PEER_CERTIFICATE_GRACE};
use crate::translate::reach::Reach;
use crate::translate::wire::{ads, any, duration, number};
use crate::translate::{InputView, Output, dns, endpoints, names, reach, tls, traffic_policy};

/// Istio's default connect timeout.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of field `metadata` in `Cluster`.
const CLUSTER_METADATA: u32 = 25;

/// One cluster for each port of a Service, and one for each subset of it, as these callers get it.
pub(crate) fn outbound_clusters(view: &InputView<'_>, name: &Name, audience: &Audience) -> Output {
    let mut output = Output::default();
    let Some(service) = view.service(name) else { return output };
    let policies = view.destination_of(service);
    // Nothing else tells who made it of a host name that is no Kubernetes Service's.
    let entry = service.external.as_ref().map(|_| &*service.origin);
    for port in &service.ports {
        let whole = Part {
            subset: None,
            settings: policies.settings.at(port.number),
            made_by: policies.made_by.as_deref().or(entry),
        };
        let subsets = policies.subsets.iter().map(|(subset, origin)| Part {
            subset: Some(subset),
            settings: subset.settings.at(port.number),
            made_by: Some(origin),
        });
        for part in std::iter::once(whole).chain(subsets) {
            clusters_of(view, service, port, &part, audience, &mut output);
        }
    }
    output
}

/// All endpoints of a Service, or a subset of them.
struct Part<'a> {
    subset: Option<&'a Subset>,
    settings: &'a DestinationSettings,
    made_by: Option<&'a Origin>,
}

/// The cluster of a part of a port; where the protocol is detected, two.
fn clusters_of(
    view: &InputView<'_>,
    service: &Service,
    port: &ServicePort,
    part: &Part<'_>,
    audience: &Audience,
    output: &mut Output,
) {
    let (name, domain) = (&service.name, &view.settings().cluster_domain);
    let subset = part.subset.map(|subset| subset.name.as_str());
    let (settings, made_by) = (part.settings, part.made_by);
    let (pool, outlier) = (&settings.connection_pool, settings.outlier_detection.as_ref());
    let budget = traffic_policy::retry_budget(view, service, port);
    // Who is never taken out needs no way back.
    let readmission = outlier.and_then(|_| traffic_policy::readmission(view, service, port));
    let reach = reach::reach(view, service, port, part.subset, settings);
    if reach.mixed && subset.is_none() {
        output.problems.push(reach::mixed(service, port));
    }
    let cluster_name = names::outbound_cluster(name, port.number, subset, domain);
    let (upstream, alpn): (_, &[&str]) = match port.protocol {
        // Between sidecars HTTP is HTTP/2.
        // What a server of TLS should expect by its ALPN is known only by what the client speaks.
        Protocol::Http | Protocol::Http2 if pool.upgrade == HttpUpgrade::AsClient => {
            (Upstream::SameAsDownstream, &[])
        }
        Protocol::Http => match (pool.upgrade, reach.mutual_tls.is_some()) {
            (HttpUpgrade::Default, true) | (HttpUpgrade::Always, _) => (Upstream::Http2, &["h2"]),
            (HttpUpgrade::Default | HttpUpgrade::Never | HttpUpgrade::AsClient, _) => {
                (Upstream::Http1, &["http/1.1"])
            }
        },
        Protocol::Http2 => (Upstream::Http2, &["h2"]),
        Protocol::Tcp => (Upstream::Http1, &[]),
        // What the application speaks is known only by what its client speaks.
        Protocol::Detect if matches!(settings.tls, ClientTls::Origination(_)) => {
            (Upstream::SameAsDownstream, &[])
        }
        Protocol::Detect => (Upstream::SameAsDownstream, &[names::DETECTED_HTTP_ALPN]),
    };
    // Subsets too call the port by the Service's name: the callee's sidecar does not know them.
    let transport_socket = |alpn: &[&str]| {
        if let ClientTls::Origination(origination) = &settings.tls {
            return Some(tls::origination(origination, names::fqdn(name, domain), alpn));
        }
        let sni = names::sni(name, port.number, domain);
        reach.mutual_tls.as_ref().map(|identities| tls::upstream(sni, identities, alpn))
    };
    let by_client = service.is_original_destination();
    let health_checks = |protocol: Protocol| {
        // There is nobody to ask before a client names one.
        let check = settings.health_check.as_ref().filter(|_| !by_client);
        let host = names::fqdn(name, domain);
        check.and_then(|check| health::health_check(check, protocol, upstream, &host)).into_iter().collect()
    };
    let discovery = |name: String| {
        let of = Discovery { service, port, part, reach: &reach, settings: view.settings() };
        of.wire(audience, &name, &cluster_name)
    };
    let locality_balancing = settings.locality_balancing(service).filter(|_| !by_client);
    let wire = Cluster {
        name: cluster_name.clone(),
        connect_timeout: duration(pool.connect_timeout.unwrap_or(CONNECT_TIMEOUT)),
        lb_policy: match by_client {
            true => LbPolicy::ClusterProvided,
            false => lb_policy(settings.load_balancing(service)),
        } as i32,
        lb_config: match by_client {
            true => at_other_port(port),
            false => lb_config(settings.load_balancing(service), settings.slow_start),
        },
        circuit_breakers: Some(circuit_breakers(pool, budget)),
        outlier_detection: outlier.map(outlier_detection),
        common_lb_config: common_lb(settings.said_panic_percent(), locality_balancing),
        load_balancing_policy: load_balancing_policy(settings.load_balancing(service), locality_balancing)
            .filter(|_| !by_client),
        health_checks: health_checks(port.protocol),
        typed_extension_protocol_options: protocol_options(upstream, pool, outlier),
        upstream_connection_options: pool.tcp_keepalive.map(keepalive),
        transport_socket: transport_socket(alpn),
        ..discovery(cluster_name.clone())
    };
    // Where nothing can be asked, its time decides.
    let readmission = |wire: &Cluster| {
        readmission.map(|said| match said.by {
            ReadmissionBy::Check if wire.health_checks.is_empty() => {
                Readmission { by: ReadmissionBy::Time, ..said }
            }
            _ => said,
        })
    };
    output.add(
        ResourceType::Cluster,
        &cluster_name,
        encode(&wire, [name], made_by, readmission(&wire), domain),
    );
    if port.protocol == Protocol::Detect {
        let tcp_name = names::outbound_tcp_cluster(name, port, subset, domain);
        // The same endpoints.
        let discovery = discovery(tcp_name.clone());
        let tcp = Cluster {
            name: tcp_name,
            eds_cluster_config: discovery.eds_cluster_config,
            load_assignment: discovery.load_assignment,
            typed_extension_protocol_options: protocol_options(
                Upstream::Http1,
                &ConnectionPool::default(),
                None,
            ),
            health_checks: health_checks(Protocol::Tcp),
            transport_socket: transport_socket(&[]),
            ..wire
        };
        output.add(
            ResourceType::Cluster,
            &tcp.name,
            encode(&tcp, [name], made_by, readmission(&tcp), domain),
        );
    }
}

/// Where a cluster has its endpoints from.
struct Discovery<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    part: &'a Part<'a>,
    reach: &'a Reach,
    settings: &'a MeshSettings,
}

impl Discovery<'_> {
    /// Of the cluster `name`: the load assignment of the name `endpoints`, DNS, or the client, which has found it.
    fn wire(&self, audience: &Audience, name: &str, endpoints: &str) -> Cluster {
        if self.service.is_original_destination() {
            let of_client = ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32);
            return Cluster { cluster_discovery_type: Some(of_client), ..Cluster::default() };
        }
        let Some(named) = &self.service.named else {
            // The cluster's own name goes without saying.
            let service_name = if name == endpoints { String::new() } else { endpoints.to_owned() };
            return Cluster {
                cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
                eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), service_name }),
                ..Cluster::default()
            };
        };
        let is_of_part = |endpoint: &&StaticEndpoint| {
            self.part.subset.is_none_or(|subset| subset.selects(&endpoint.labels))
        };
        let written = named.endpoints.iter().filter(is_of_part);
        let selected = self.reach.addresses.iter().map(|dial| endpoints::placed(dial, self.settings));
        let placed = written.map(|endpoint| dns::placed(endpoint, self.port)).chain(selected).collect();
        let balancing = self.part.settings.locality_balancing(self.service);
        dns::discovery(placed, named.is_logical, balancing, audience.place(), name)
    }
}

/// Of a cluster whose hosts are those that clients mean: another port than the one that they call (Istio: `targetPort`).
fn at_other_port(port: &ServicePort) -> Option<LbConfig> {
    let target = port.target_number();
    let config = OriginalDstLbConfig { upstream_port_override: number(target.into()), ..Default::default() };
    (target != port.number).then_some(LbConfig::OriginalDstLbConfig(config))
}

/// The cluster that refuses everything.
pub(crate) fn black_hole() -> Output {
    let mut output = Output::default();
    let wire = Cluster {
        name: names::BLACK_HOLE.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        connect_timeout: duration(CONNECT_TIMEOUT),
        ..Cluster::default()
    };
    output.add(ResourceType::Cluster, names::BLACK_HOLE, wire.encode_to_vec());
    output
}

/// A cluster whose host is the address that a captured connection was meant for.
pub(super) fn original_destination(name: &str, transport_socket: Option<TransportSocket>) -> Cluster {
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)),
        lb_policy: LbPolicy::ClusterProvided as i32,
        connect_timeout: duration(CONNECT_TIMEOUT),
        circuit_breakers: Some(circuit_breakers(&ConnectionPool::default(), None)),
        transport_socket,
        ..Cluster::default()
    }
}

/// Encodes a cluster with the metadata of the Services that it belongs to, of the policy that shaped it, and of what is ours alone.
pub(super) fn encode<'a>(
    wire: &Cluster,
    services: impl IntoIterator<Item = &'a Name>,
    policy: Option<&Origin>,
    readmission: Option<Readmission>,
    domain: &str,
) -> Vec<u8> {
    let mut encoded = wire.encode_to_vec();
    let grace = wire.transport_socket.as_ref().map(|_| PEER_CERTIFICATE_GRACE);
    let metadata =
        OrderedMetadata::services(services, domain).with_config(policy).with_own(None, grace, readmission);
    metadata.append_to(CLUSTER_METADATA, &mut encoded);
    encoded
}

/// Limits. Istio sets those that nobody configured to the largest number, not to Envoy's 1,024.
pub(super) fn circuit_breakers(pool: &ConnectionPool, budget: Option<&RetryBudget>) -> CircuitBreakers {
    let limit = |limit: Option<u32>| number(limit.unwrap_or(u32::MAX));
    let thresholds = Thresholds {
        max_connections: limit(pool.max_connections),
        max_pending_requests: limit(pool.max_pending_requests),
        max_requests: limit(pool.max_requests),
        max_retries: limit(pool.max_retries),
        retry_budget: budget.map(traffic_policy::wire_budget),
        ..Default::default()
    };
    let of_each = |connections| Thresholds { max_connections: number(connections), ..Default::default() };
    CircuitBreakers {
        thresholds: vec![thresholds],
        per_host_thresholds: pool.max_connections_per_endpoint.map(of_each).into_iter().collect(),
    }
}

/// The HTTP that a cluster is spoken to in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Upstream {
    Http1,
    Http2,
    SameAsDownstream,
}

/// Protocol towards the cluster, and how long its connections last; Envoy's default is HTTP/1.1. One key, so its bytes are always the
/// same.
pub(super) fn protocol_options(
    upstream: Upstream,
    pool: &ConnectionPool,
    outlier: Option<&OutlierDetection>,
) -> HashMap<String, Any> {
    let outlier_detection = outlier.and_then(health::error_matcher);
    let common = CommonHttpOptions {
        idle_timeout: pool.idle_timeout.and_then(duration),
        max_requests_per_connection: pool.max_requests_per_connection.and_then(number),
        max_connection_duration: pool.max_connection_duration.and_then(duration),
        ..CommonHttpOptions::default()
    };
    let common = Some(common).filter(|common| *common != CommonHttpOptions::default());
    let http2 = || Http2ProtocolOptions {
        max_concurrent_streams: pool.max_concurrent_streams.and_then(number),
        ..http2_options()
    };
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let upstream = match upstream {
        Upstream::Http1 if common.is_none() && outlier_detection.is_none() => return HashMap::new(),
        Upstream::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())),
        Upstream::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2())),
        Upstream::SameAsDownstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(http2()),
                ..Default::default()
            })
        }
    };
    let options = HttpProtocolOptions {
        common_http_protocol_options: common,
        outlier_detection,
        upstream_protocol_options: Some(upstream),
        ..Default::default()
    };
    HashMap::from([("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), any(&options))])
}

fn keepalive(of: TcpKeepalive) -> UpstreamConnectionOptions {
    let tcp_keepalive = wire_core::TcpKeepalive {
        keepalive_probes: of.probes.and_then(number),
        keepalive_time: of.time.and_then(number),
        keepalive_interval: of.interval.and_then(number),
    };
    UpstreamConnectionOptions { tcp_keepalive: Some(tcp_keepalive), ..UpstreamConnectionOptions::default() }
}
