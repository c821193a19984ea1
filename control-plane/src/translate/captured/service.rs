//! Outbound: a listener without a socket for each port and cluster IP of a Service.
//!
//! They are the same for every captured workload of the mesh, except those of Services that not all clients see, and of those
//! whose connections follow rules or policies that may be about the caller: these are made for each workload.

use std::collections::BTreeSet;
use std::net::IpAddr;

use outrigger_xds_api::wire::core::v3::TrafficDirection;
use outrigger_xds_api::wire::http_connection_manager::v3::Rds;
use outrigger_xds_api::wire::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use outrigger_xds_api::wire::listener::v3::{FilterChain, FilterChainMatch, Listener};
use outrigger_xds_api::wire::protobuf::BoolValue;

use super::{Family, by_content};
use crate::model::{Finding, Name, Protocol, Service, ServicePort, Visibility, Workload};
use crate::translate::connections::{self, Rules};
use crate::translate::wire::ads;
use crate::translate::{InputView, Output, detect, http, names};

/// The listeners of a Service's cluster IPs of one family, if they are the same for all.
pub(crate) fn service_listeners(view: &InputView<'_>, name: &Name, family: Family) -> Output {
    let mut output = Output::default();
    let Some(service) = view.service(name) else { return output };
    for ip in service.cluster_ips.iter().filter(|ip| family.has(ip)) {
        if let Some(owner) = view.service_at(*ip).filter(|owner| *owner != name) {
            let reason = format!("{ip} is the address of Service {owner} too, which gets what is sent to it");
            output.problems.push(Finding::at(&service.origin, "spec.clusterIP", reason));
        }
    }
    if is_shared(view, service) {
        for listener in of_service(view, service, &Rules::none(), |ip| family.has(ip)) {
            http::add_listener(&mut output, &listener);
        }
    }
    output
}

/// The listeners for Services that are not the same for all.
pub(in crate::translate) fn own_service_listeners(
    view: &InputView<'_>,
    workload: &Workload,
) -> Vec<Listener> {
    let rules = Rules::of(view, workload);
    let has_v6 = workload.ips.iter().any(IpAddr::is_ipv6);
    let mut names: BTreeSet<Name> = connections::ruled(view);
    names.extend(view.services_at_hosts().cloned());
    names.extend(view.services_with_own_policies());
    let services = names.iter().filter_map(|name| view.service(name));
    let own = services
        .filter(|service| service.is_visible_in(&workload.name.namespace) && !is_shared(view, service));
    let by_address = own.flat_map(|service| of_service(view, service, &rules, |ip| has_v6 || ip.is_ipv4()));
    by_address.chain(by_content::own_listeners(view, workload, &rules)).collect()
}

/// Whether a Service's listeners are the same for all clients.
pub(super) fn is_shared(view: &InputView<'_>, service: &Service) -> bool {
    let is_seen_by_all =
        service.external.as_ref().is_none_or(|external| external.visibility == Visibility::Mesh);
    is_seen_by_all && !connections::is_ruled(view, &service.name) && !view.has_own_policies(service)
}

/// The listeners of those of a Service's addresses that `is_wanted`, and that are its own.
fn of_service(
    view: &InputView<'_>,
    service: &Service,
    rules: &Rules<'_>,
    is_wanted: impl Fn(&IpAddr) -> bool,
) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for ip in service.cluster_ips.iter().filter(|ip| is_wanted(ip)) {
        if view.service_at(*ip).is_some_and(|owner| *owner != service.name) {
            continue;
        }
        for port in &service.ports {
            let chains = to_service(view, &service.name, port, rules);
            let needs_name = chains.iter().any(connections::needs_server_name);
            let name = format!("{ip}_{}", port.number);
            let mut listener = http::listener(name, *ip, port.number, TrafficDirection::Outbound, chains);
            listener.bind_to_port = Some(BoolValue { value: false });
            let inspect_tls = needs_name.then(detect::tls_inspector);
            let inspect_http = (port.protocol == Protocol::Detect).then(detect::http_inspector);
            listener.listener_filters = inspect_tls.into_iter().chain(inspect_http).collect();
            if !listener.listener_filters.is_empty() {
                detect::limit(&mut listener);
            }
            listeners.push(listener);
        }
    }
    listeners
}

/// The filter chains for a Service's port.
fn to_service(view: &InputView<'_>, name: &Name, port: &ServicePort, rules: &Rules<'_>) -> Vec<FilterChain> {
    let settings = view.settings();
    let mut others = Vec::new();
    if port.protocol.may_be_tcp() {
        others = rules.chains(view, name, port, "");
    }
    let mut chains = Vec::new();
    if port.protocol.may_be_http() {
        let routes = names::service_routes(name, port.number, &settings.cluster_domain);
        let stat_prefix = format!("outbound_{routes}");
        let rds = Rds { config_source: Some(ads()), route_config_name: routes };
        let filter =
            http::connection_manager(settings, stat_prefix, RouteSpecifier::Rds(rds), http::OUTBOUND_FILTERS);
        let chain = |filter_chain_match| FilterChain {
            filter_chain_match,
            filters: vec![filter.clone()],
            ..FilterChain::default()
        };
        match port.protocol {
            Protocol::Detect => {
                // An address is looked at before a protocol, so each range of them needs the chain.
                let mut ranges = vec![Vec::new()];
                for other in &others {
                    let range = other.filter_chain_match.clone().unwrap_or_default().prefix_ranges;
                    if !ranges.contains(&range) {
                        ranges.push(range);
                    }
                }
                chains.extend(ranges.into_iter().map(|prefix_ranges| {
                    chain(Some(FilterChainMatch {
                        prefix_ranges,
                        application_protocols: detect::http_protocols(),
                        ..FilterChainMatch::default()
                    }))
                }));
            }
            _ => chains.push(chain(None)),
        }
    }
    chains.extend(others);
    chains
}
