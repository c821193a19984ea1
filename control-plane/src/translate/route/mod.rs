//! The route configurations of outbound HTTP: a virtual host for each HTTP port of each Service.
//!
//! Whose rules a port's requests follow is decided in [`rules`], how a rule is said in xDS in [`matches`], [`action`] and
//! [`policies`].

mod action;
pub(super) mod delegate;
mod elsewhere;
mod encode;
mod hosts;
mod matches;
mod policies;
mod rules;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::route::v3::route::Action;
use outrigger_xds_api::wire::route::v3::route_action::ClusterSpecifier;
use outrigger_xds_api::wire::route::v3::route_match::PathSpecifier;
use outrigger_xds_api::wire::route::v3::{Route, RouteConfiguration, RouteMatch, VirtualHost};

use crate::model::{Client, Name, Service, ServicePort, VirtualService};
use crate::translate::names::{OUTBOUND_PORT, SIDECAR_PORTS};
use crate::translate::{InputView, Output, metadata, names, traffic_policy};
pub(super) use hosts::Hosts;
use matches::path_specifiers;
use rules::{Rules, Tried};
pub(super) use rules::{applicable, may_refer};

/// Port of host names that no Service has. (Istio's.)
const HTTP_PORT: u16 = 80;

/// The route configurations of a client: one by host name for explicit mode, one for each port of each Service that has an
/// address for connections that are captured. There the address says what is meant, not the host name, except that hosts without
/// an address of their own have one by host name for each port.
pub(crate) fn route_configurations(view: &InputView<'_>, client: &Client) -> Output {
    let mut output = Output::default();
    let domain = &view.settings().cluster_domain;
    let hosts = Hosts::seen_in(view, &client.namespace);
    let mut by_name = Vec::new();
    let mut by_port: BTreeMap<u16, Vec<VirtualHost>> = BTreeMap::new();
    for name in view.service_names() {
        let Some(service) = view.service(name).filter(|service| service.is_visible_in(&client.namespace))
        else {
            continue;
        };
        for port in service.ports.iter().filter(|port| port.protocol.may_be_http()) {
            let mut host = VirtualHost {
                name: names::service_routes(name, port.number, domain),
                domains: domains(name, port.number, &client.namespace, domain),
                routes: of_service(view, &hosts, client, service, port),
                ..VirtualHost::default()
            };
            if service.is_found_by_content() {
                let mut host = host.clone();
                // Whoever has called the port need not say it again.
                host.domains.push(names::fqdn(name, domain));
                by_port.entry(port.number).or_default().push(host);
            }
            if service.is_original_destination() && hosts.of_service(view, name).is_none() {
                let mut host = host.clone();
                host.routes = vec![elsewhere::needs_capture(&host.name)];
                by_name.push((name, host));
            } else {
                by_name.push((name, host.clone()));
            }
            if !service.cluster_ips.is_empty() {
                host.domains = vec!["*".to_owned()];
                add(&mut output, host.name.clone(), vec![host]);
            }
        }
    }
    // What a Kubernetes Service is called by is never another's.
    by_name.sort_by_key(|(name, _)| names::is_whole(name));
    let mut by_name: Vec<VirtualHost> = by_name.into_iter().map(|(_, host)| host).collect();
    let without_service = without_service(view, &hosts, client);
    by_name.extend(without_service.iter().cloned());
    add(&mut output, OUTBOUND_PORT.to_string(), without_twins(by_name));
    for (port, mut hosts) in by_port.into_iter().filter(|(port, _)| !SIDECAR_PORTS.contains(port)) {
        if port == HTTP_PORT {
            hosts.extend(without_service.iter().cloned());
        }
        hosts.push(elsewhere::others(view.settings()));
        add(&mut output, port.to_string(), without_twins(hosts));
    }
    output
}

/// Virtual hosts of which each domain is the first one's alone.
fn without_twins(mut hosts: Vec<VirtualHost>) -> Vec<VirtualHost> {
    let mut taken = HashSet::new();
    for host in &mut hosts {
        host.domains.retain(|domain| taken.insert(domain.clone()));
    }
    hosts.retain(|host| !host.domains.is_empty());
    hosts
}

fn add(output: &mut Output, name: String, virtual_hosts: Vec<VirtualHost>) {
    let wire = RouteConfiguration { name: name.clone(), virtual_hosts, ..RouteConfiguration::default() };
    output.add(ResourceType::RouteConfiguration, &name, encode::encode(wire));
}

/// Hosts by which clients in `namespace` call a port. Without a port the client means 80. Short names are for the Service's
/// own namespace.
pub(super) fn domains(service: &Name, port: u16, namespace: &str, domain: &str) -> Vec<String> {
    let Name { name, namespace: own } = service;
    let mut hosts = vec![names::fqdn(service, domain)];
    if !names::is_whole(service) {
        hosts.extend([format!("{name}.{own}.svc"), format!("{name}.{own}")]);
        if own == namespace {
            hosts.push(name.clone());
        }
    }
    let mut domains: Vec<String> = hosts.iter().map(|host| format!("{host}:{port}")).collect();
    if port == HTTP_PORT {
        domains.extend(hosts);
    }
    domains
}

/// A route for all requests to one cluster, without a limit in time.
pub(super) fn everything_to(cluster: String) -> Route {
    Route {
        name: "default".to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(action::forward(ClusterSpecifier::Cluster(cluster)))),
        ..Route::default()
    }
}

/// The routes of one port of a Service, in the order in which they are tried.
pub(super) fn of_service(
    view: &InputView<'_>,
    hosts: &Hosts<'_>,
    client: &Client,
    service: &Service,
    port: &ServicePort,
) -> Vec<Route> {
    match Rules::of_service(view, hosts, client, service, port) {
        Some(rules) => routes(view, rules, port.number, Some((service, port))),
        None => {
            let domain = &view.settings().cluster_domain;
            let cluster = names::outbound_cluster(&service.name, port.number, None, domain);
            let mut route = everything_to(cluster);
            let settings = view.destination_of(service).settings;
            if let (Some(of), Some(Action::Route(action))) =
                (settings.at(port.number).load_balancing(service).hash_of(), &mut route.action)
            {
                action.hash_policy.push(policies::hash_policy(of));
            }
            traffic_policy::add_filters(view, &[], Some((service, port)), &mut route);
            vec![route]
        }
    }
}

/// Virtual hosts of VirtualServices whose host names no Service has.
fn without_service(view: &InputView<'_>, hosts: &Hosts<'_>, client: &Client) -> Vec<VirtualHost> {
    let named = hosts.without_service(view, &client.namespace);
    let virtual_host = |(host, service): (String, &Arc<VirtualService>)| {
        let rules = Rules::of_virtual_service(view, service, client, HTTP_PORT)?;
        Some(VirtualHost {
            name: format!("{host}:{HTTP_PORT}"),
            domains: vec![format!("{host}:{HTTP_PORT}"), host],
            routes: routes(view, rules, HTTP_PORT, None),
            ..VirtualHost::default()
        })
    };
    named.into_iter().filter_map(virtual_host).collect()
}

/// The routes for rules about the calls to `port`; `called` is the Service, if one has the host name.
fn routes(
    view: &InputView<'_>,
    rules: Rules<'_>,
    port: u16,
    called: Option<(&Service, &ServicePort)>,
) -> Vec<Route> {
    rules.tried.iter().flat_map(|tried| of_rule(view, tried, port, called)).collect()
}

/// The routes for one match of a rule, mostly one.
fn of_rule(
    view: &InputView<'_>,
    tried: &Tried<'_>,
    port: u16,
    called: Option<(&Service, &ServicePort)>,
) -> Vec<Route> {
    let (request, rule) = (&tried.request, &tried.rule);
    let (to_add, to_remove) = policies::headers(&rule.headers.request);
    let (response_to_add, response_to_remove) = policies::headers(&rule.headers.response);
    let mut template = Route {
        name: tried.name.clone(),
        metadata: Some(metadata::made_by(tried.origin, &rule.field)),
        stat_prefix: request.stat_prefix.clone(),
        typed_per_filter_config: policies::per_filter(rule),
        request_headers_to_add: to_add,
        request_headers_to_remove: to_remove,
        response_headers_to_add: response_to_add,
        response_headers_to_remove: response_to_remove,
        ..Route::default()
    };
    traffic_policy::add_filters(view, &tried.places, called, &mut template);
    let mut routes = Vec::new();
    for (path, rewrite) in path_specifiers(&request.path, rule.action.path()) {
        for (share, action) in action::actions(view, tried, rewrite, port) {
            let mut request = matches::route_match(request, path.clone());
            request.runtime_fraction = share.map(policies::runtime_fraction);
            let mut route = Route { r#match: Some(request), action: Some(action), ..template.clone() };
            traffic_policy::heed_retry_after(view, &tried.places, called, &mut route);
            routes.push(route);
        }
    }
    routes
}
