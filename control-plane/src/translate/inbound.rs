//! The inbound side of a workload: one listener for all ports, one cluster for each port of the application.
//!
//! In explicit mode peers dial one port, so the wanted port travels in the SNI, and one filter chain per Service port
//! takes mutual TLS. In plaintext there is no SNI: one filter chain takes all HTTP ports and tells them apart by host
//! name; TCP in plaintext works only for a workload that has no other port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use outrigger_xds_api::wire::core::v3::TrafficDirection;
use outrigger_xds_api::wire::endpoint::v3::lb_endpoint::HostIdentifier;
use outrigger_xds_api::wire::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use outrigger_xds_api::wire::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use outrigger_xds_api::wire::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use outrigger_xds_api::wire::route::v3::{Route, RouteConfiguration, VirtualHost};
use prost::Message;

use crate::model::{
    ConnectionPool, Finding, InboundPort, MeshSettings, MutualTlsMode, Name, Protocol, Workload,
};
use crate::translate::cluster::Upstream;
use crate::translate::names::{INBOUND_PORT, LOCAL_RATE_LIMIT_FILTER, inbound_cluster};
use crate::translate::wire::{address, any, duration};
use crate::translate::{
    InputView, Output, captured, cluster, detect, http, metadata, names, route, tls, traffic_policy,
};

/// Clusters of a workload's own ports, at its address.
pub(crate) fn inbound_clusters(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(workload) = view.workload(name).filter(|workload| workload.sidecar) else { return output };
    let Some(&ip) = workload.ips.first() else { return output };
    let mut targets: BTreeMap<u16, Vec<InboundPort>> = BTreeMap::new();
    for inbound in view.inbound_ports(workload) {
        targets.entry(inbound.target).or_default().push(inbound);
    }
    for (target, ports) in targets {
        let cluster_name = inbound_cluster(target);
        let endpoint = Endpoint { address: Some(address(ip, target)), ..Endpoint::default() };
        let lb_endpoint =
            LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
        let wire = Cluster {
            name: cluster_name.clone(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
            lb_policy: LbPolicy::RoundRobin as i32,
            connect_timeout: duration(cluster::CONNECT_TIMEOUT),
            circuit_breakers: Some(cluster::circuit_breakers(&ConnectionPool::default(), None)),
            typed_extension_protocol_options: cluster::protocol_options(
                upstream(&ports),
                &ConnectionPool::default(),
                None,
            ),
            upstream_bind_config: workload.is_captured().then(|| captured::to_application(ip)),
            load_assignment: Some(ClusterLoadAssignment {
                cluster_name: cluster_name.clone(),
                endpoints: vec![LocalityLbEndpoints {
                    lb_endpoints: vec![lb_endpoint],
                    ..LocalityLbEndpoints::default()
                }],
                ..ClusterLoadAssignment::default()
            }),
            ..Cluster::default()
        };
        // Sorted by Service, and a Service may have two ports with one target.
        let mut services: Vec<&Name> = ports.iter().map(|port| &port.service.name).collect();
        services.dedup();
        let encoded = cluster::encode(&wire, services, None, None, &view.settings().cluster_domain);
        output.add(ResourceType::Cluster, &cluster_name, encoded);
    }
    if workload.is_captured() {
        for cluster in captured::passthrough_clusters(workload) {
            output.add(ResourceType::Cluster, &cluster.name, cluster.encode_to_vec());
        }
    }
    output
}

/// The inbound listener; none for a workload that no Service leads to.
pub(super) fn listener(
    view: &InputView<'_>,
    workload: &Workload,
    ip: IpAddr,
    ports: &[InboundPort],
    problems: &mut Vec<Finding>,
) -> Option<Listener> {
    problems.extend(disagreements(ports));
    let mode = |inbound: &InboundPort| view.mutual_tls_mode(workload, inbound.target);
    // Where mutual TLS is disabled too: a caller may not have heard of it yet.
    let mut chains: Vec<FilterChain> =
        ports.iter().flat_map(|inbound| mutual_tls_chains(view, inbound)).collect();
    let plaintext: Vec<&InboundPort> =
        ports.iter().filter(|inbound| mode(inbound) != MutualTlsMode::Strict).collect();
    chains.extend(plaintext_chains(view, ports, &plaintext));
    if chains.is_empty() {
        return None;
    }
    let name = "virtualInbound".to_owned();
    let mut listener = http::listener(name, ip, INBOUND_PORT, TrafficDirection::Inbound, chains);
    listener.listener_filters = vec![detect::tls_inspector()];
    if plaintext.iter().any(|inbound| inbound.port.protocol == Protocol::Detect) {
        listener.listener_filters.push(detect::http_inspector());
        detect::limit(&mut listener);
    }
    Some(listener)
}

/// The chains for peers that name a port in the SNI. Where the protocol is detected they say what they found by ALPN.
pub(super) fn mutual_tls_chains(view: &InputView<'_>, inbound: &InboundPort) -> Vec<FilterChain> {
    let settings = view.settings();
    let sni = names::sni(&inbound.service.name, inbound.port.number, &settings.cluster_domain);
    let chain = |name: String, offered: &[&str], alpn: &[&str], filter: Filter| FilterChain {
        name,
        filter_chain_match: Some(FilterChainMatch {
            server_names: vec![sni.clone()],
            transport_protocol: "tls".to_owned(),
            application_protocols: offered.iter().map(|&protocol| protocol.to_owned()).collect(),
            ..FilterChainMatch::default()
        }),
        filters: vec![filter],
        transport_socket: Some(tls::downstream(&settings.trust_domain, alpn)),
        ..FilterChain::default()
    };
    let http = || http_filter(view, inbound);
    let tcp = || tcp_filter(settings, inbound);
    match inbound.port.protocol {
        Protocol::Http | Protocol::Http2 => vec![chain(sni.clone(), &[], &["h2", "http/1.1"], http())],
        Protocol::Tcp => vec![chain(sni.clone(), &[], &[], tcp())],
        Protocol::Detect => {
            let detected = [names::DETECTED_HTTP_ALPN];
            vec![
                chain(format!("{sni}-http"), &detected, &detected, http()),
                chain(sni.clone(), &[], &[], tcp()),
            ]
        }
    }
}

/// The chains for plaintext, when there is something that they can tell apart.
fn plaintext_chains(view: &InputView<'_>, all: &[InboundPort], allowed: &[&InboundPort]) -> Vec<FilterChain> {
    let http: Vec<&InboundPort> =
        allowed.iter().copied().filter(|inbound| inbound.port.protocol.may_be_http()).collect();
    // Ports that do not take plaintext count too: a request that is meant for one must not end at another.
    let all_http = all.iter().filter(|inbound| inbound.port.protocol.may_be_http());
    let chain = |name: &str, detected: bool, filter: Filter| FilterChain {
        name: name.to_owned(),
        filter_chain_match: Some(FilterChainMatch {
            transport_protocol: "raw_buffer".to_owned(),
            application_protocols: if detected { detect::http_protocols() } else { Vec::new() },
            ..FilterChainMatch::default()
        }),
        filters: vec![filter],
        ..FilterChain::default()
    };
    let settings = view.settings();
    let only = allowed.first().filter(|_| targets(all.iter()) == 1);
    match (http.first(), only) {
        (Some(first), Some(only)) if only.port.protocol == Protocol::Detect => vec![
            chain("plaintext-http", true, http_filter(view, first)),
            chain("plaintext", false, tcp_filter(settings, only)),
        ],
        (Some(first), _) if targets(all_http) == 1 => {
            vec![chain("plaintext", false, http_filter(view, first))]
        }
        (Some(_), _) => vec![chain("plaintext", false, by_host_filter(view, &http))],
        (None, Some(only)) => vec![chain("plaintext", false, tcp_filter(settings, only))],
        (None, None) => Vec::new(),
    }
}

/// How many ports of the workload these are.
fn targets<'a>(ports: impl Iterator<Item = &'a InboundPort>) -> usize {
    ports.map(|inbound| inbound.target).collect::<BTreeSet<_>>().len()
}

/// All requests to one port.
pub(super) fn http_filter(view: &InputView<'_>, inbound: &InboundPort) -> Filter {
    let port = inbound.port.number;
    let host = VirtualHost {
        name: format!("inbound|http|{port}"),
        domains: vec!["*".to_owned()],
        routes: vec![to_application(view, inbound)],
        ..VirtualHost::default()
    };
    connection_manager(view.settings(), inbound.target, format!("inbound|{port}||"), vec![host])
}

/// Requests to several ports, by the host that the client asked for.
fn by_host_filter(view: &InputView<'_>, ports: &[&InboundPort]) -> Filter {
    let settings = view.settings();
    let hosts = ports.iter().map(|inbound| {
        let Name { name, namespace } = &inbound.service.name;
        let number = inbound.port.number;
        VirtualHost {
            name: format!("inbound|http|{number}|{name}.{namespace}"),
            // Clients of the same namespace use short names.
            domains: route::domains(&inbound.service.name, number, namespace, &settings.cluster_domain),
            routes: vec![to_application(view, inbound)],
            ..VirtualHost::default()
        }
    });
    connection_manager(settings, INBOUND_PORT, "inbound|plaintext||".to_owned(), hosts.collect())
}

/// The route for all requests to one port, with the limit of the Service that they are to.
fn to_application(view: &InputView<'_>, inbound: &InboundPort) -> Route {
    let mut route = route::everything_to(inbound_cluster(inbound.target));
    if let Some((limit, policy)) = traffic_policy::inbound_limit(view, &inbound.service, &inbound.port) {
        metadata::add_policies(&mut route.metadata, &[(&policy.origin, traffic_policy::RATE_LIMIT)]);
        let limit = any(&traffic_policy::local_rate_limit(limit));
        route.typed_per_filter_config.insert(LOCAL_RATE_LIMIT_FILTER.to_owned(), limit);
    }
    route
}

fn connection_manager(
    settings: &MeshSettings,
    stat_port: u16,
    name: String,
    virtual_hosts: Vec<VirtualHost>,
) -> Filter {
    let mut routes = virtual_hosts.iter().flat_map(|host| &host.routes);
    // The routes are the listener's own, so it changes with a limit anyway.
    let filters: &[&str] = match routes.any(|route| !route.typed_per_filter_config.is_empty()) {
        true => &[LOCAL_RATE_LIMIT_FILTER],
        false => &[],
    };
    let routes = RouteConfiguration { name, virtual_hosts, ..RouteConfiguration::default() };
    let stat_prefix = format!("inbound_0.0.0.0_{stat_port};");
    http::connection_manager(settings, stat_prefix, RouteSpecifier::RouteConfig(routes), filters)
}

pub(super) fn tcp_filter(settings: &MeshSettings, inbound: &InboundPort) -> Filter {
    let cluster = inbound_cluster(inbound.target);
    http::tcp_proxy_to(settings, cluster.clone(), cluster)
}

/// What a port's application speaks: what the first Service says.
fn upstream(ports: &[InboundPort]) -> Upstream {
    match ports.first().map_or(Protocol::Tcp, |first| first.port.protocol) {
        Protocol::Http | Protocol::Tcp => Upstream::Http1,
        Protocol::Http2 => Upstream::Http2,
        Protocol::Detect => Upstream::SameAsDownstream,
    }
}

/// Services that do not agree on what a port speaks.
pub(super) fn disagreements(ports: &[InboundPort]) -> Vec<Finding> {
    let mut first: BTreeMap<u16, &InboundPort> = BTreeMap::new();
    let mut problems = Vec::new();
    for inbound in ports {
        let first = first.entry(inbound.target).or_insert(inbound);
        if first.port.protocol != inbound.port.protocol {
            let reason = format!(
                "port {} of the Pods speaks another protocol according to Service {}, which comes first",
                inbound.target, first.service.name
            );
            problems.push(Finding::at(&inbound.service.origin, "spec.ports", reason));
        }
    }
    problems
}
