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
use std::net::IpAddr;

use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::core::v3::address::Address;
use outrigger_xds_api::wire::core::v3::{BindConfig, TrafficDirection};
use outrigger_xds_api::wire::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};

use super::{Family, families};
use crate::model::{Finding, InboundPort, MutualTlsMode, Protocol, Workload};
use crate::translate::names::{BLACK_HOLE, INBOUND_PASSTHROUGH, INBOUND_PORT, MESH_ALPN};
use crate::translate::wire::{address, number};
use crate::translate::{InputView, cluster, detect, http, inbound, tls};

/// The inbound listeners of a captured workload: one for each family that it has an address of.
pub(in crate::translate) fn inbound_listeners(
    view: &InputView<'_>,
    workload: &Workload,
    ports: &[InboundPort],
    problems: &mut Vec<Finding>,
) -> Vec<Listener> {
    problems.extend(inbound::disagreements(ports));
    let detected: BTreeSet<u16> = ports
        .iter()
        .filter(|inbound| inbound.port.protocol == Protocol::Detect)
        .map(|inbound| inbound.target)
        .collect();
    families(workload)
        .map(|family| {
            let name = family.named("virtualInbound");
            let (ip, inbound) = (family.any_address(), TrafficDirection::Inbound);
            let chains = chains(view, workload, ports, family);
            let mut listener = http::listener(name, ip, INBOUND_PORT, inbound, chains);
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

/// The clusters of ports that no Service leads to.
pub(in crate::translate) fn passthrough_clusters(workload: &Workload) -> Vec<Cluster> {
    let passthrough = |family: Family| Cluster {
        upstream_bind_config: Some(bind(family)),
        ..cluster::original_destination(&family.named(INBOUND_PASSTHROUGH), None)
    };
    families(workload).map(passthrough).collect()
}

/// What a captured workload's sidecar binds to when it calls its own application at `ip`.
pub(in crate::translate) fn to_application(ip: IpAddr) -> BindConfig {
    bind(if ip.is_ipv4() { Family::V4 } else { Family::V6 })
}

fn bind(family: Family) -> BindConfig {
    let Some(Address::SocketAddress(source)) = address(family.to_application(), 0).address else {
        return BindConfig::default();
    };
    BindConfig { source_address: Some(source), ..BindConfig::default() }
}

fn chains(
    view: &InputView<'_>,
    workload: &Workload,
    ports: &[InboundPort],
    family: Family,
) -> Vec<FilterChain> {
    let passthrough = family.named(INBOUND_PASSTHROUGH);
    let settings = view.settings();
    let tcp = |cluster: &str| http::tcp_proxy_to(settings, cluster.to_owned(), cluster.to_owned());
    let mut chains = Vec::new();
    let mut targets: BTreeMap<u16, &InboundPort> = BTreeMap::new();
    for inbound in ports {
        targets.entry(inbound.target).or_insert(inbound);
        // Where mutual TLS is disabled too: a caller may not have heard of it yet.
        for mut chain in inbound::mutual_tls_chains(view, inbound) {
            let matched = chain.filter_chain_match.get_or_insert_default();
            matched.destination_port = number(INBOUND_PORT.into());
            chains.push(chain);
        }
    }
    chains.push(plain("uncaptured".into(), Some(INBOUND_PORT), "", tcp(BLACK_HOLE)));
    for (&port, inbound) in &targets {
        let mode = view.mutual_tls_mode(workload, port);
        let to_http = || inbound::http_filter(view, inbound);
        let to_tcp = || inbound::tcp_filter(settings, inbound);
        // The peer's sidecar knows only the address, so it passes on whatever its client says. What that is can be seen
        // only before TLS: where nothing is declared it stays bytes.
        let inside = || if inbound.port.protocol.may_be_tcp() { to_tcp() } else { to_http() };
        chains.push(mutual_tls(&settings.trust_domain, Some(port), inside()));
        if mode == MutualTlsMode::Strict {
            continue;
        }
        // An application that has TLS of its own keeps it. (A match does not fall back: TLS meets only chains for TLS
        // where there is one.)
        chains.push(plain(format!("{port}-tls"), Some(port), "tls", to_tcp()));
        match inbound.port.protocol {
            Protocol::Http | Protocol::Http2 => {
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
    chains.push(mutual_tls(&settings.trust_domain, None, tcp(&passthrough)));
    if view.mutual_tls_mode(workload, 0) != MutualTlsMode::Strict {
        chains.push(plain("other-tls".to_owned(), None, "tls", tcp(&passthrough)));
        chains.push(plain("other".to_owned(), None, "", tcp(&passthrough)));
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
