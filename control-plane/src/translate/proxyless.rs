//! The resources of gRPC clients that speak xDS themselves, without a sidecar (gRFC A27, A28; "proxyless" in Istio, whose names
//! these are).
//!
//! | type | name | one for each |
//! |---|---|---|
//! | Listener | `HOST:PORT`, what stands after `xds:///` | name of an HTTP port of a Service, and namespace of clients |
//! | RouteConfiguration | `outbound\|PORT\|\|FQDN` | HTTP port of a Service, and namespace of clients |
//! | Cluster, ClusterLoadAssignment | `outbound\|PORT\|\|FQDN` | HTTP port of a Service |
//! | Cluster, ClusterLoadAssignment | `BlackHoleCluster` | mesh |
//!
//! gRPC refuses what it does not know of Envoy's messages, or passes over it. So these say the same with less: routes by what it
//! matches, round robin, weighted localities. A client has no certificate of the mesh to show, so it calls applications
//! in plaintext; endpoints that take mutual TLS only are not among its own.

use std::collections::BTreeMap;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use outrigger_xds_api::wire::core::v3 as wire_core;
use outrigger_xds_api::wire::endpoint::v3::lb_endpoint::HostIdentifier;
use outrigger_xds_api::wire::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as WireEndpoint, LbEndpoint, LocalityLbEndpoints,
};
use outrigger_xds_api::wire::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use outrigger_xds_api::wire::http_connection_manager::v3::{HttpConnectionManager, Rds};
use outrigger_xds_api::wire::listener::v3::{ApiListener, Listener};
use outrigger_xds_api::wire::route::v3::header_matcher::HeaderMatchSpecifier;
use outrigger_xds_api::wire::route::v3::route::Action;
use outrigger_xds_api::wire::route::v3::route_action::MaxStreamDuration;
use outrigger_xds_api::wire::route::v3::route_match::PathSpecifier;
use outrigger_xds_api::wire::route::v3::{HeaderMatcher, Route, RouteConfiguration, VirtualHost};
use outrigger_xds_api::wire::r#type::matcher::v3::string_matcher::MatchPattern;
use prost::Message;

use crate::model::{
    Client, Endpoint, EndpointAddress, Finding, Locality, MutualTlsMode, Name, Service, ServicePort, Subset,
};
use crate::translate::endpoints::wire_locality;
use crate::translate::wire::{ads, any, duration, endpoint_address, number};
use crate::translate::{InputView, Output, cluster, http, metadata, names, route};

/// Listeners and route configurations of the clients in one namespace.
pub(crate) fn proxyless_routes(view: &InputView<'_>, namespace: &str) -> Output {
    let mut output = Output::default();
    let domain = &view.settings().cluster_domain;
    let hosts = route::Hosts::seen_in(view, namespace);
    // All clients of a namespace share what they get, so rules that tell callers apart by labels are not for them.
    let client = Client { namespace: namespace.to_owned(), ..Client::default() };
    for name in view.service_names() {
        let Some(service) = view.service(name).filter(|service| service.is_visible_in(namespace)) else {
            continue;
        };
        for port in ports(service) {
            let routes = names::outbound_cluster(name, port.number, None, domain);
            for host in route::domains(name, port.number, namespace, domain) {
                let wire = listener(host, routes.clone());
                output.add(ResourceType::Listener, &wire.name, wire.encode_to_vec());
            }
            let host = VirtualHost {
                name: names::service_routes(name, port.number, domain),
                // The listener has said already what is meant.
                domains: vec!["*".to_owned()],
                routes: route::of_service(view, &hosts, &client, service, port)
                    .into_iter()
                    .flat_map(in_terms_of_grpc)
                    .collect(),
                ..VirtualHost::default()
            };
            let wire = RouteConfiguration {
                name: routes.clone(),
                virtual_hosts: vec![host],
                ..RouteConfiguration::default()
            };
            output.add(ResourceType::RouteConfiguration, &routes, wire.encode_to_vec());
        }
    }
    output
}

/// The clusters of a Service.
pub(crate) fn proxyless_clusters(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(service) = view.service(name) else { return output };
    let domain = &view.settings().cluster_domain;
    let policies = view.destination_of(service);
    for port in ports(service) {
        let whole = (None, &policies.settings, policies.made_by.as_deref());
        let parts = policies.subsets.iter();
        let parts = parts.map(|(part, origin)| (Some(part.name.as_str()), &part.settings, Some(&**origin)));
        for (subset, settings, made_by) in std::iter::once(whole).chain(parts) {
            let mut wire = eds_cluster(names::outbound_cluster(name, port.number, subset, domain));
            let pool = &settings.at(port.number).connection_pool;
            wire.circuit_breakers = Some(cluster::circuit_breakers(pool, None));
            output.add(
                ResourceType::Cluster,
                &wire.name,
                cluster::encode(&wire, [name], made_by, None, domain),
            );
        }
    }
    output
}

/// The endpoints of a Service.
pub(crate) fn proxyless_endpoints(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(service) = view.service(name) else { return output };
    for port in ports(service) {
        let (open, closed): (Vec<Endpoint>, Vec<Endpoint>) =
            of_addresses(view, service, port).partition(|endpoint| takes_plaintext(view, endpoint));
        if !closed.is_empty() {
            let reason = format!(
                "port {}: {} of the endpoints take mutual TLS only; gRPC clients without a sidecar use plaintext and do \
                 not get them",
                port.number,
                closed.len()
            );
            output.problems.push(Finding::at(&service.origin, "spec.selector", reason));
        }
        let policies = view.destination_of(service);
        let parts = policies.subsets.iter().map(|(part, _)| Some(part));
        for part in std::iter::once(None).chain(parts) {
            let of_part = |endpoint: &&Endpoint| {
                endpoint.ready && part.is_none_or(|part: &Subset| part.selects(endpoint.labels()))
            };
            let subset = part.map(|part| part.name.as_str());
            let cluster_name =
                names::outbound_cluster(name, port.number, subset, &view.settings().cluster_domain);
            let wire = assignment(cluster_name, open.iter().filter(of_part));
            output.add(ResourceType::ClusterLoadAssignment, &wire.cluster_name, wire.encode_to_vec());
        }
    }
    output
}

fn assignment<'a>(
    cluster_name: String,
    endpoints: impl Iterator<Item = &'a Endpoint>,
) -> ClusterLoadAssignment {
    let mut localities: BTreeMap<Locality, Vec<LbEndpoint>> = BTreeMap::new();
    for Endpoint { address, port, locality, .. } in endpoints {
        localities.entry(locality.clone()).or_default().push(LbEndpoint {
            host_identifier: Some(HostIdentifier::Endpoint(WireEndpoint {
                address: Some(endpoint_address(address, *port)),
                ..WireEndpoint::default()
            })),
            health_status: wire_core::HealthStatus::Healthy as i32,
            ..LbEndpoint::default()
        });
    }
    // gRPC wants the place to be said, also when nothing is known of it, and passes over places without a weight.
    let endpoints = localities.into_iter().map(|(locality, lb_endpoints)| LocalityLbEndpoints {
        locality: Some(wire_locality(locality)),
        load_balancing_weight: number(u32::try_from(lb_endpoints.len()).unwrap_or(u32::MAX)),
        lb_endpoints,
        ..LocalityLbEndpoints::default()
    });
    ClusterLoadAssignment { cluster_name, endpoints: endpoints.collect(), ..ClusterLoadAssignment::default() }
}

/// Where the share of a missing backend goes. gRPC takes no static cluster, so its endpoints are none.
pub(crate) fn proxyless_black_hole() -> Output {
    let mut output = Output::default();
    let wire = eds_cluster(names::BLACK_HOLE.to_owned());
    output.add(ResourceType::Cluster, &wire.name, wire.encode_to_vec());
    let wire = ClusterLoadAssignment { cluster_name: wire.name, ..ClusterLoadAssignment::default() };
    output.add(ResourceType::ClusterLoadAssignment, &wire.cluster_name, wire.encode_to_vec());
    output
}

/// The ports that gRPC can call. It knows no cluster whose hosts are those that clients mean, and looks names up that are whole.
fn ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    let has_none = service.is_original_destination() || service.name.name.starts_with('*');
    service.ports.iter().filter(move |port| !has_none && port.protocol.may_be_http())
}

/// gRPC takes addresses only from endpoints that the control plane tells.
fn of_addresses(
    view: &InputView<'_>,
    service: &Service,
    port: &ServicePort,
) -> impl Iterator<Item = Endpoint> + use<> {
    let endpoints = view.endpoints(service, port).into_iter();
    endpoints.filter(|endpoint| matches!(endpoint.address, EndpointAddress::Ip(_)))
}

fn takes_plaintext(view: &InputView<'_>, endpoint: &Endpoint) -> bool {
    let workload = endpoint.workload.as_deref().filter(|workload| workload.sidecar);
    workload.is_none_or(|workload| view.mutual_tls_mode(workload, endpoint.port) != MutualTlsMode::Strict)
}

/// A listener that is only looked up (`api_listener`), under the name that a client calls.
fn listener(name: String, routes: String) -> Listener {
    let manager = HttpConnectionManager {
        stat_prefix: routes.clone(),
        http_filters: vec![http::router()],
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: routes,
        })),
        ..HttpConnectionManager::default()
    };
    let api_listener = Some(ApiListener { api_listener: Some(any(&manager)) });
    Listener { name, api_listener, ..Listener::default() }
}

/// Round robin is the one policy that every gRPC has.
fn eds_cluster(name: String) -> Cluster {
    Cluster {
        name,
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), ..Default::default() }),
        connect_timeout: duration(cluster::CONNECT_TIMEOUT),
        lb_policy: LbPolicy::RoundRobin as i32,
        ..Cluster::default()
    }
}

/// A sidecar's route as gRPC understands it: mostly one, none when it can match no call.
fn in_terms_of_grpc(mut route: Route) -> Vec<Route> {
    // Filters that it does not have.
    route.typed_per_filter_config.clear();
    metadata::remove_policies(&mut route.metadata);
    let Some(request) = &mut route.r#match else { return Vec::new() };
    // The pseudo header is not there to be matched. Each call is a POST.
    let method = |header: &HeaderMatcher| match &header.header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(text)) if header.name == ":method" => {
            text.match_pattern.clone()
        }
        _ => None,
    };
    let methods = request.headers.extract_if(.., |header| method(header).is_some());
    let methods: Vec<MatchPattern> = methods.filter_map(|header| method(&header)).collect();
    if methods.iter().any(|method| *method != MatchPattern::Exact("POST".to_owned())) {
        return Vec::new();
    }
    if let Some(Action::Route(action)) = &mut route.action {
        // gRFC A31 has the limit of a call here; zero is none in both places.
        let limit = action.timeout.take().filter(|timeout| timeout.seconds != 0 || timeout.nanos != 0);
        action.max_stream_duration =
            limit.map(|limit| MaxStreamDuration { max_stream_duration: Some(limit), ..Default::default() });
    }
    let paths = match request.path_specifier.take() {
        Some(PathSpecifier::PathSeparatedPrefix(path)) => {
            let below = PathSpecifier::Prefix(format!("{path}/"));
            vec![Some(PathSpecifier::Path(path)), Some(below)]
        }
        path => vec![path],
    };
    let with = |path_specifier| {
        let mut route = route.clone();
        if let Some(request) = &mut route.r#match {
            request.path_specifier = path_specifier;
        }
        route
    };
    paths.into_iter().map(with).collect()
}
