//! Outbound: a listener without a socket for each port of Services that connections tell by what they say, whatever address they were
//! meant for (`0.0.0.0_PORT`, as in Istio).
//!
//! It takes all connections to its port that no Service's own address takes, so it does with Pods and with what is unknown as the
//! listener `virtualOutbound` does.
//!
//! | called at | with | goes |
//! |---|---|---|
//! | a Pod of the mesh | anything | to the Pod |
//! | any other address | HTTP | by route configuration `PORT`, to the Service whose host is asked for |
//! | an address of the Service, or any where it has none | TLS with the name of its host | to that Service |
//! | the same | anything else | to the Service of a TCP port there, else where unknown connections go |

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use outrigger_xds_api::wire::core::v3::{CidrRange, TrafficDirection};
use outrigger_xds_api::wire::http_connection_manager::v3::Rds;
use outrigger_xds_api::wire::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use outrigger_xds_api::wire::listener::v3::{FilterChain, FilterChainMatch, Listener};
use outrigger_xds_api::wire::protobuf::BoolValue;

use super::Family;
use super::outbound::Peers;
use super::service::is_shared;
use crate::model::{Service, Workload};
use crate::translate::connections::{self, Rules, range};
use crate::translate::wire::ads;
use crate::translate::{InputView, by_content, detect, http};

/// The listeners of one family that are the same for all.
pub(super) fn shared_listeners(view: &InputView<'_>, peers: &Peers<'_>, family: Family) -> Vec<Listener> {
    let services = by_content::services(view).into_iter();
    let shared = services.filter(|(_, services)| services.iter().all(|service| is_shared(view, service)));
    shared.map(|(port, services)| listener(view, peers, family, port, &services, &Rules::none())).collect()
}

/// The listeners of a workload's own, in the place of those that are not the same for all.
pub(super) fn own_listeners(view: &InputView<'_>, workload: &Workload, rules: &Rules<'_>) -> Vec<Listener> {
    let mut listeners = Vec::new();
    let mut peers = None;
    for (port, mut services) in by_content::services(view) {
        if services.iter().all(|service| is_shared(view, service)) {
            continue;
        }
        services.retain(|service| service.is_visible_in(&workload.name.namespace));
        if services.is_empty() {
            continue;
        }
        let peers = peers.get_or_insert_with(|| Peers::of(view));
        for family in super::families(workload) {
            listeners.push(listener(view, peers, family, port, &services, rules));
        }
    }
    listeners
}

/// A chain, and which connections it may take: those to `ranges`, or all where there are none.
struct Claim {
    chain: FilterChain,
    ranges: Vec<IpNet>,
    server_names: Vec<String>,
}

fn listener(
    view: &InputView<'_>,
    peers: &Peers<'_>,
    family: Family,
    port: u16,
    services: &[&Arc<Service>],
    rules: &Rules<'_>,
) -> Listener {
    let mut claims = Vec::new();
    let mut has_http = false;
    for service in services {
        for service_port in service.ports.iter().filter(|found| found.number == port) {
            has_http |= service_port.protocol.may_be_http();
            if service_port.protocol.may_be_tcp() {
                let is_tls = by_content::is_tls(service, service_port);
                let chains = rules.chains(view, &service.name, service_port, "");
                claims.extend(chains.into_iter().filter_map(|chain| claim(service, chain, is_tls, family)));
            }
        }
    }
    let of_peers = peers.chains(view, port, family);
    let taken: HashSet<IpNet> = of_peers.iter().flat_map(|(_, ips)| ips).copied().map(IpNet::from).collect();
    let ranges: BTreeSet<IpNet> = claims
        .iter()
        .flat_map(|claim| &claim.ranges)
        .filter(|range| !taken.contains(range))
        .copied()
        .collect();

    let mut chains: Vec<FilterChain> = of_peers.into_iter().map(|(chain, _)| chain).collect();
    // A match of an address does not fall back, so each range has all that may be meant there.
    for range in ranges.into_iter().map(Some).chain([None]) {
        chains.extend(chains_in(view, range, &claims, has_http.then_some(port)));
    }
    let needs_name = chains.iter().any(connections::needs_server_name);
    let ip: IpAddr = family.any_address();
    let mut listener = http::listener(format!("{ip}_{port}"), ip, port, TrafficDirection::Outbound, chains);
    listener.bind_to_port = Some(BoolValue { value: false });
    let inspect_tls = needs_name.then(detect::tls_inspector);
    let inspect_http = has_http.then(detect::http_inspector);
    listener.listener_filters = inspect_tls.into_iter().chain(inspect_http).collect();
    if !listener.listener_filters.is_empty() {
        detect::limit(&mut listener);
    }
    listener
}

/// What a chain claims. `None`: nothing of this family.
fn claim(service: &Service, mut chain: FilterChain, is_tls: bool, family: Family) -> Option<Claim> {
    let found = chain.filter_chain_match.take().unwrap_or_default();
    let mut server_names = found.server_names;
    if is_tls && server_names.is_empty() {
        server_names.push(service.name.name.clone());
    }
    let of_rule: Vec<IpNet> = found.prefix_ranges.iter().filter_map(net).collect();
    let of_service = service.external.as_ref().map(|external| external.ranges.as_slice()).unwrap_or_default();
    // A rule for some addresses is for those that are the Service's too.
    let ranges: Vec<IpNet> = match (of_rule.as_slice(), of_service) {
        ([], all) | (all, []) => all.to_vec(),
        (rule, own) => {
            let both = |a: IpNet| own.iter().filter_map(move |b| smaller(a, *b));
            rule.iter().flat_map(|range| both(*range)).collect()
        }
    };
    let is_everywhere = of_rule.is_empty() && of_service.is_empty();
    let ranges: Vec<IpNet> = ranges.into_iter().filter(|range| family.has(&range.addr())).collect();
    (is_everywhere || !ranges.is_empty()).then_some(Claim { chain, ranges, server_names })
}

/// The chains for connections to a range, or to all other addresses.
fn chains_in(
    view: &InputView<'_>,
    within: Option<IpNet>,
    claims: &[Claim],
    http_port: Option<u16>,
) -> Vec<FilterChain> {
    // The longest range first, then the order of the claims.
    let mut here: Vec<(u8, &Claim)> =
        claims.iter().filter_map(|claim| Some((claim.length(within)?, claim))).collect();
    here.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    let prefix_ranges: Vec<CidrRange> = within.map(range).into_iter().collect();
    let matched = |server_names: Vec<String>| FilterChainMatch {
        prefix_ranges: prefix_ranges.clone(),
        server_names,
        ..FilterChainMatch::default()
    };
    let mut chains = Vec::new();
    if let Some(port) = http_port {
        let found =
            FilterChainMatch { application_protocols: detect::http_protocols(), ..matched(Vec::new()) };
        chains.push(http_chain(view, port, found));
    }
    let mut names = HashSet::new();
    let mut is_open = true;
    for (_, claim) in here {
        let free: Vec<String> =
            claim.server_names.iter().filter(|name| names.insert(name.as_str())).cloned().collect();
        let is_first =
            if claim.server_names.is_empty() { std::mem::take(&mut is_open) } else { !free.is_empty() };
        if is_first {
            chains.push(FilterChain { filter_chain_match: Some(matched(free)), ..claim.chain.clone() });
        }
    }
    if is_open {
        let unknown = super::outbound::unknown(view.settings());
        let name = within.map_or_else(|| "unknown".to_owned(), |range| format!("unknown-{range}"));
        chains.push(FilterChain {
            name,
            filter_chain_match: Some(matched(Vec::new())),
            filters: vec![http::tcp_proxy_to(view.settings(), unknown.to_owned(), unknown.to_owned())],
            ..FilterChain::default()
        });
    }
    chains
}

impl Claim {
    /// The length of the longest of its ranges that all of `within` is in. `None`: it is not for these connections.
    fn length(&self, within: Option<IpNet>) -> Option<u8> {
        if self.ranges.is_empty() {
            return Some(0);
        }
        let around = self.ranges.iter().filter(|range| within.is_some_and(|within| range.contains(&within)));
        around.map(IpNet::prefix_len).max()
    }
}

fn http_chain(view: &InputView<'_>, port: u16, found: FilterChainMatch) -> FilterChain {
    let rds = Rds { config_source: Some(ads()), route_config_name: port.to_string() };
    let stat_prefix = format!("outbound_0.0.0.0_{port}");
    let filter = http::connection_manager(
        view.settings(),
        stat_prefix,
        RouteSpecifier::Rds(rds),
        http::OUTBOUND_FILTERS,
    );
    FilterChain { filter_chain_match: Some(found), filters: vec![filter], ..FilterChain::default() }
}

fn net(of: &CidrRange) -> Option<IpNet> {
    let length = u8::try_from(of.prefix_len.as_ref()?.value).ok()?;
    IpNet::new(of.address_prefix.parse().ok()?, length).ok()
}

/// What is in both ranges.
fn smaller(a: IpNet, b: IpNet) -> Option<IpNet> {
    match (a.contains(&b), b.contains(&a)) {
        (true, _) => Some(b),
        (_, true) => Some(a),
        _ => None,
    }
}
