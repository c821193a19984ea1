//! Inbound: one listener for all captured connections of a family, and for peers that dial it.
//!
//! | called at | with | goes |
//! |---|---|---|
//! | 15006 | mutual TLS, the SNI of a Service's port | to that port |
//! | 15006 | anything else | nowhere |
//! | a port that a Service leads to | mutual TLS of a sidecar (its ALPN) | to that port, as its protocol says |
//! | a port that a Service leads to | anything else, unless STRICT | to that port; foreign TLS stays as it is |
//! | any other port | the same two ways | to that port, byte by byte |

use std::collections::BTreeMap;

use outrigger_xds_api::wire::core::v3::TrafficDirection;
use outrigger_xds_api::wire::extensions::filters::listener::original_dst::v3::OriginalDst;
use outrigger_xds_api::wire::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, listener_filter,
};

use super::Family;
use crate::model::{Finding, InboundPort, MutualTlsMode, Workload};
use crate::translate::names::{BLACK_HOLE, INBOUND_PASSTHROUGH, INBOUND_PORT, MESH_ALPN};
use crate::translate::wire::{any, number};
use crate::translate::{InputView, http, inbound, tls};

/// The inbound listeners of a captured workload: one for each family that it has an address of.
pub(in crate::translate) fn inbound_listeners(
    view: &InputView<'_>,
    workload: &Workload,
    ports: &[InboundPort],
    problems: &mut Vec<Finding>,
) -> Vec<Listener> {
    problems.extend(inbound::disagreements(ports));
    let chains = chains(view, workload, ports);
    let families = Family::ALL.into_iter().filter(|family| workload.ips.iter().any(|ip| family.has(ip)));
    families
        .map(|family| {
            let name = family.named("virtualInbound");
            let (ip, inbound) = (family.any_address(), TrafficDirection::Inbound);
            let mut listener = http::listener(name, ip, INBOUND_PORT, inbound, chains.clone());
            listener.listener_filters = vec![original_destination(), inbound::tls_inspector()];
            listener
        })
        .collect()
}

/// The address that was called picks the filter chain.
fn original_destination() -> ListenerFilter {
    ListenerFilter {
        name: "envoy.filters.listener.original_dst".to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(any(&OriginalDst::default()))),
        ..ListenerFilter::default()
    }
}

fn chains(view: &InputView<'_>, workload: &Workload, ports: &[InboundPort]) -> Vec<FilterChain> {
    let settings = view.settings();
    let tcp = |cluster: &str| http::tcp_proxy(settings, cluster.to_owned(), cluster.to_owned());
    let mut chains = Vec::new();
    let mut targets: BTreeMap<u16, &InboundPort> = BTreeMap::new();
    for inbound in ports {
        targets.entry(inbound.target).or_insert(inbound);
        if view.mutual_tls_mode(workload, inbound.target) != MutualTlsMode::Disable {
            let mut chain = inbound::mutual_tls_chain(settings, inbound);
            chain.filter_chain_match.get_or_insert_default().destination_port = number(INBOUND_PORT.into());
            chains.push(chain);
        }
    }
    chains.push(plain("uncaptured".into(), Some(INBOUND_PORT), "", tcp(BLACK_HOLE)));
    for (&port, inbound) in &targets {
        let mode = view.mutual_tls_mode(workload, port);
        let is_http = inbound.port.protocol.is_http();
        let filter = || match is_http {
            true => inbound::http_filter(settings, inbound),
            false => inbound::tcp_filter(settings, inbound),
        };
        if mode != MutualTlsMode::Disable {
            chains.push(mutual_tls(&settings.trust_domain, Some(port), filter()));
        }
        if mode == MutualTlsMode::Strict {
            continue;
        }
        // An application that has TLS of its own keeps it.
        if is_http {
            chains.push(plain(
                format!("{port}-tls"),
                Some(port),
                "tls",
                inbound::tcp_filter(settings, inbound),
            ));
        }
        chains.push(plain(port.to_string(), Some(port), "", filter()));
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
