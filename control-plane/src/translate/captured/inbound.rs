//! Inbound: one listener for all captured connections of a family, and for peers that dial it.
//!
//! | called at | with | goes |
//! |---|---|---|
//! | 15006 | mutual TLS, the SNI of a Service's port | to that port |
//! | 15006 | anything else | nowhere |
//! | a port that a Service leads to | mutual TLS of a sidecar (its ALPN) | to that port, as its protocol says |
//! | a port that a Service leads to | anything else, unless STRICT | to that port; foreign TLS stays as it is |
//! | any other port | the same two ways | to that port, byte by byte |

use std::collections::{BTreeMap, BTreeSet};

use outrigger_xds_api::wire::core::v3::TrafficDirection;
use outrigger_xds_api::wire::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};

use super::Family;
use crate::model::{Finding, InboundPort, MutualTlsMode, Protocol, Workload};
use crate::translate::names::{BLACK_HOLE, INBOUND_PASSTHROUGH, INBOUND_PORT, MESH_ALPN};
use crate::translate::wire::number;
use crate::translate::{InputView, detect, http, inbound, tls};

/// The inbound listeners of a captured workload: one for each family that it has an address of.
pub(in crate::translate) fn inbound_listeners(
    view: &InputView<'_>,
    workload: &Workload,
    ports: &[InboundPort],
    problems: &mut Vec<Finding>,
) -> Vec<Listener> {
    problems.extend(inbound::disagreements(ports));
    let chains = chains(view, workload, ports);
    let detected: BTreeSet<u16> = ports
        .iter()
        .filter(|inbound| inbound.port.protocol == Protocol::Detect)
        .map(|inbound| inbound.target)
        .collect();
    let families = Family::ALL.into_iter().filter(|family| workload.ips.iter().any(|ip| family.has(ip)));
    families
        .map(|family| {
            let name = family.named("virtualInbound");
            let (ip, inbound) = (family.any_address(), TrafficDirection::Inbound);
            let mut listener = http::listener(name, ip, INBOUND_PORT, inbound, chains.clone());
            listener.listener_filters = vec![detect::original_destination(), detect::tls_inspector()];
            if !detected.is_empty() {
                listener.listener_filters.push(detect::http_inspector_at(detected.iter().copied()));
            }
            // A client in plaintext may wait for the server to speak.
            detect::limit(&mut listener);
            listener
        })
        .collect()
}

fn chains(view: &InputView<'_>, workload: &Workload, ports: &[InboundPort]) -> Vec<FilterChain> {
    let settings = view.settings();
    let tcp = |cluster: &str| http::tcp_proxy(settings, cluster.to_owned(), cluster.to_owned());
    let mut chains = Vec::new();
    let mut targets: BTreeMap<u16, &InboundPort> = BTreeMap::new();
    for inbound in ports {
        targets.entry(inbound.target).or_insert(inbound);
        if view.mutual_tls_mode(workload, inbound.target) != MutualTlsMode::Disable {
            for mut chain in inbound::mutual_tls_chains(settings, inbound) {
                let matched = chain.filter_chain_match.get_or_insert_default();
                matched.destination_port = number(INBOUND_PORT.into());
                chains.push(chain);
            }
        }
    }
    chains.push(plain("uncaptured".into(), Some(INBOUND_PORT), "", tcp(BLACK_HOLE)));
    for (&port, inbound) in &targets {
        let mode = view.mutual_tls_mode(workload, port);
        let to_http = || inbound::http_filter(settings, inbound);
        let to_tcp = || inbound::tcp_filter(settings, inbound);
        // The peer's sidecar knows only the address, so it passes on whatever its client says. What that is can be seen
        // only before TLS: where nothing is declared it stays bytes.
        let inside = || if inbound.port.protocol.may_be_tcp() { to_tcp() } else { to_http() };
        if mode != MutualTlsMode::Disable {
            chains.push(mutual_tls(&settings.trust_domain, Some(port), inside()));
        }
        if mode == MutualTlsMode::Strict {
            continue;
        }
        // An application that has TLS of its own keeps it.
        match inbound.port.protocol {
            Protocol::Http | Protocol::Http2 => {
                chains.push(plain(format!("{port}-tls"), Some(port), "tls", to_tcp()));
                chains.push(plain(port.to_string(), Some(port), "", to_http()));
            }
            Protocol::Tcp => chains.push(plain(port.to_string(), Some(port), "", to_tcp())),
            Protocol::Detect => {
                let mut http = plain(format!("{port}-http"), Some(port), "", to_http());
                let matched = http.filter_chain_match.get_or_insert_default();
                matched.application_protocols = detect::http_protocols();
                chains.push(http);
                chains.push(plain(port.to_string(), Some(port), "", to_tcp()));
            }
        }
    }
    let mode = view.mutual_tls_mode(workload, 0);
    if mode != MutualTlsMode::Disable {
        chains.push(mutual_tls(&settings.trust_domain, None, tcp(INBOUND_PASSTHROUGH)));
    }
    if mode != MutualTlsMode::Strict {
        chains.push(plain("other".to_owned(), None, "", tcp(INBOUND_PASSTHROUGH)));
    }
    chains
}

/// A peer's sidecar that called the port itself.
fn mutual_tls(trust_domain: &str, port: Option<u16>, filter: Filter) -> FilterChain {
    let name = port.map_or_else(|| "other".to_owned(), |port| port.to_string());
    FilterChain {
        name: format!("{name}-mtls"),
        filter_chain_match: Some(FilterChainMatch {
            destination_port: port.and_then(|port| number(port.into())),
            transport_protocol: "tls".to_owned(),
            application_protocols: vec![MESH_ALPN.to_owned()],
            ..FilterChainMatch::default()
        }),
        filters: vec![filter],
        transport_socket: Some(tls::downstream(trust_domain, &[MESH_ALPN])),
        ..FilterChain::default()
    }
}

fn plain(name: String, port: Option<u16>, transport_protocol: &str, filter: Filter) -> FilterChain {
    FilterChain {
        name,
        filter_chain_match: Some(FilterChainMatch {
            destination_port: port.and_then(|port| number(port.into())),
            transport_protocol: transport_protocol.to_owned(),
            ..FilterChainMatch::default()
        }),
        filters: vec![filter],
        ..FilterChain::default()
    }
}
