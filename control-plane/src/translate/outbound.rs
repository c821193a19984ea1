//! Listeners of a workload. Outbound: one HTTP listener that routes by host, and one listener for each TCP port.
//!
//! Explicit mode: the listeners are bound to the workload's address, and applications use them by configuration
//! (`http_proxy`). They speak with the workload's identity, so they take connections from the workload itself only: from
//! its own address or the loopback address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use outrigger_xds_api::wire::core::v3::TrafficDirection;
use outrigger_xds_api::wire::http_connection_manager::v3::Rds;
use outrigger_xds_api::wire::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use outrigger_xds_api::wire::listener::v3::filter_chain_match::ConnectionSourceType;
use outrigger_xds_api::wire::listener::v3::{FilterChain, Listener};

use crate::model::{Finding, InboundPort, Name, Service, ServicePort, Workload};
use crate::translate::connections::Rules;
use crate::translate::names::{OUTBOUND_PORT, SIDECAR_PORTS};
use crate::translate::wire::ads;
use crate::translate::{InputView, Output, captured, connections, detect, http, inbound, names};

/// The listeners of a workload's own: outbound and inbound, or only inbound when its connections are captured.
pub(crate) fn listeners(view: &InputView<'_>, name: &Name) -> Output {
    let mut output = Output::default();
    let Some(workload) = view.workload(name).filter(|workload| workload.sidecar) else { return output };
    let Some(&ip) = workload.ips.first() else { return output };
    let inbound_ports = view.inbound_ports(workload);
    if workload.is_captured() {
        let inbound = captured::inbound_listeners(view, workload, &inbound_ports, &mut output.problems);
        for listener in captured::own_service_listeners(view, workload).into_iter().chain(inbound) {
            http::add_listener(&mut output, &listener);
        }
        return output;
    }
    let mut listeners = vec![http_listener(view, ip)];
    listeners.extend(tcp_listeners(view, workload, ip, &inbound_ports, &mut output.problems));
    listeners.extend(inbound::listener(view, workload, ip, &inbound_ports, &mut output.problems));
    for listener in listeners {
        http::add_listener(&mut output, &listener);
    }
    output
}

fn http_listener(view: &InputView<'_>, ip: IpAddr) -> Listener {
    let routes = Rds { config_source: Some(ads()), route_config_name: OUTBOUND_PORT.to_string() };
    let stat_prefix = format!("outbound_0.0.0.0_{OUTBOUND_PORT}");
    let filter = http::connection_manager(
        view.settings(),
        stat_prefix,
        RouteSpecifier::Rds(routes),
        http::OUTBOUND_FILTERS,
    );
    outbound_listener(
        ip,
        OUTBOUND_PORT,
        vec![FilterChain { filters: vec![filter], ..FilterChain::default() }],
    )
}

fn outbound_listener(ip: IpAddr, port: u16, mut chains: Vec<FilterChain>) -> Listener {
    for chain in &mut chains {
        let found = chain.filter_chain_match.get_or_insert_default();
        found.source_type = ConnectionSourceType::SameIpOrLoopback as i32;
    }
    http::listener(format!("{ip}_{port}"), ip, port, TrafficDirection::Outbound, chains)
}

/// One listener for each TCP port that some Service has. An address and a port say nothing of a Service: of two with the
/// same port the one in the client's own namespace wins, then the first by name.
fn tcp_listeners(
    view: &InputView<'_>,
    workload: &Workload,
    ip: IpAddr,
    inbound_ports: &[InboundPort],
    problems: &mut Vec<Finding>,
) -> Vec<Listener> {
    let settings = view.settings();
    // Nobody knows here which address a client means.
    let can_be_seen = |service: &Service| {
        service.is_visible_in(&workload.name.namespace) && !service.is_original_destination()
    };
    let is_seen = |name: &Name| {
        !names::is_whole(name) || view.service(name).is_some_and(|service| can_be_seen(service))
    };
    let mut services: Vec<(&Name, &ServicePort)> =
        view.tcp_ports().filter(|(name, _)| is_seen(name)).collect();
    services.sort_by_key(|(service, _)| service.namespace != workload.name.namespace);
    let mut winners: BTreeMap<u16, (&Name, &ServicePort)> = BTreeMap::new();
    for (service, service_port) in services {
        let port = service_port.number;
        let mut problem = |reason: String| {
            let service = view.service(service);
            problems.extend(service.map(|service| Finding::at(&service.origin, "spec.ports", reason)));
        };
        if SIDECAR_PORTS.contains(&port) {
            problem(format!("TCP port {port} is the sidecar's own, so clients cannot use it"));
        } else if let Some((winner, _)) = winners.get(&port) {
            let namespace = &workload.name.namespace;
            problem(format!(
                "clients in namespace {namespace} cannot use TCP port {port}: it is that of Service {winner}"
            ));
        } else {
            winners.insert(port, (service, service_port));
        }
    }
    // The application listens on its own ports at this address.
    winners.retain(|port, _| inbound_ports.iter().all(|inbound| inbound.target != *port));
    let rules = Rules::of(view, workload);
    let listener = |(port, (service, service_port)): (u16, (&Name, &ServicePort))| {
        let stat_prefix = format!("outbound|{port}||{}", names::fqdn(service, &settings.cluster_domain));
        let chains = rules.chains(view, service, service_port, &stat_prefix);
        let needs_name = chains.iter().any(connections::needs_server_name);
        let mut listener = outbound_listener(ip, port, chains);
        if needs_name {
            listener.listener_filters = vec![detect::tls_inspector()];
            detect::limit(&mut listener);
        }
        listener
    };
    winners.into_iter().map(listener).collect()
}
