//! Outbound: the listener that captured connections arrive at, for what no other listener takes. It is the same for every captured
//! workload of the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::core::v3::{CidrRange, TrafficDirection};
use outrigger_xds_api::wire::listener::v3::{FilterChain, FilterChainMatch, Listener};
use outrigger_xds_api::wire::protobuf::BoolValue;
use prost::Message;

use super::Family;
use crate::model::{ConnectionPool, MeshSettings, MutualTlsMode, UnknownDestinations, Workload};
use crate::translate::wire::number;
use crate::translate::{InputView, Output, cluster, http, metadata, names, tls};

/// The listener that captured connections of one family arrive at, and the clusters of what no other listener takes.
pub(crate) fn outbound_virtual(view: &InputView<'_>, family: Family) -> Output {
    let mut output = Output::default();
    let settings = view.settings();
    let peers = Peers::of(view);
    let unknown = unknown(settings);
    let to = |cluster: &str| http::tcp_proxy_to(settings, cluster.to_owned(), cluster.to_owned());
    let chain = |name: String, matched: FilterChainMatch, cluster: &str| FilterChain {
        name,
        filter_chain_match: Some(matched),
        filters: vec![to(cluster)],
        ..FilterChain::default()
    };
    let at_port =
        |port: u16| FilterChainMatch { destination_port: number(port.into()), ..Default::default() };

    // Whoever calls the port itself, uncaptured, would be sent round in circles.
    let mut chains = vec![chain("uncaptured".into(), at_port(names::OUTBOUND_PORT), names::BLACK_HOLE)];
    let open = names::OPEN_PORTS.into_iter();
    chains.extend(open.map(|port| chain(format!("open-{port}"), at_port(port), names::PASSTHROUGH)));
    // A chain for a port hides all without one, so a port that any Pod treats apart needs chains for every Pod.
    let ports: BTreeSet<u16> = peers.0.iter().flat_map(|peer| peer.modes.keys().copied()).collect();
    for port in ports.into_iter().map(Some).chain([None]) {
        let matched = || port.map(at_port).unwrap_or_default();
        let suffix = port.map(|port| format!("-{port}")).unwrap_or_default();
        for (cluster, ips) in peers.addresses(port, family) {
            let matched =
                FilterChainMatch { prefix_ranges: ips.into_iter().map(single).collect(), ..matched() };
            chains.push(chain(format!("{cluster}{suffix}"), matched, cluster));
        }
        chains.push(chain(format!("unknown{suffix}"), matched(), unknown));
    }
    let name = family.named("virtualOutbound");
    let mut listener = Listener {
        use_original_dst: Some(BoolValue { value: true }),
        ..http::listener(
            name.clone(),
            family.any_address(),
            names::OUTBOUND_PORT,
            TrafficDirection::Outbound,
            chains,
        )
    };
    listener.stat_prefix = name.clone();
    http::add_listener(&mut output, &listener);
    for listener in super::by_content::shared_listeners(view, &peers, family) {
        http::add_listener(&mut output, &listener);
    }
    // The clusters serve both families.
    if family == Family::V4 {
        let passthrough = Cluster {
            // Requests are passed on too, to hosts that no Service has.
            typed_extension_protocol_options: cluster::protocol_options(
                cluster::Upstream::SameAsDownstream,
                &ConnectionPool::default(),
                None,
            ),
            ..cluster::original_destination(names::PASSTHROUGH, None)
        };
        output.add(ResourceType::Cluster, names::PASSTHROUGH, passthrough.encode_to_vec());
        let clusters: BTreeMap<&str, &Peer<'_>> =
            peers.0.iter().rev().map(|peer| (peer.cluster.as_str(), peer)).collect();
        for (name, Peer { workload, .. }) in clusters {
            let (namespace, service_account) = (&workload.name.namespace, &workload.service_account);
            let sni = format!("{service_account}.{namespace}.sa.{}", settings.trust_domain);
            let identity = workload.spiffe_id(&settings.trust_domain);
            let socket = tls::upstream(sni, &[identity], &[names::MESH_ALPN]);
            let description = workload.description(&settings.cluster_name);
            let cluster = Cluster {
                metadata: Some(metadata::one("istio", "workload", &description)),
                ..cluster::original_destination(name, Some(socket))
            };
            output.add(ResourceType::Cluster, name, cluster.encode_to_vec());
        }
    }
    output
}

/// The cluster of connections to what the mesh does not know.
pub(super) fn unknown(settings: &MeshSettings) -> &'static str {
    match settings.unknown_destinations {
        UnknownDestinations::AllowAny => names::PASSTHROUGH,
        UnknownDestinations::RegistryOnly => names::BLACK_HOLE,
    }
}

/// All captured Pods.
pub(super) struct Peers<'a>(Vec<Peer<'a>>);

/// A captured Pod as its peers see it.
struct Peer<'a> {
    workload: &'a Arc<Workload>,
    /// The cluster of its workload.
    cluster: String,
    /// Whether it takes mutual TLS on ports that no policy names.
    mutual_tls: bool,
    /// Whether it does on those that one names.
    modes: BTreeMap<u16, bool>,
}

impl<'a> Peer<'a> {
    fn new(view: &InputView<'_>, workload: &'a Arc<Workload>) -> Self {
        let takes = |port: u16| view.mutual_tls_mode(workload, port) != MutualTlsMode::Disable;
        let mutual_tls = takes(0);
        let named = view.mutual_tls_ports(workload).into_iter().map(|port| (port, takes(port)));
        let modes = named.filter(|(_, takes)| *takes != mutual_tls).collect();
        Self { workload, cluster: names::peer_cluster(workload), mutual_tls, modes }
    }
}

impl<'a> Peers<'a> {
    pub(super) fn of(view: &InputView<'a>) -> Self {
        Self(view.captured().map(|workload| Peer::new(view, workload)).collect())
    }

    /// The chains to those of a family that take mutual TLS on `port`, each with the addresses that it is for.
    pub(super) fn chains(
        &self,
        view: &InputView<'_>,
        port: u16,
        family: Family,
    ) -> Vec<(FilterChain, BTreeSet<IpAddr>)> {
        let chain = |(cluster, ips): (&str, BTreeSet<IpAddr>)| {
            let found = FilterChainMatch {
                prefix_ranges: ips.iter().copied().map(single).collect(),
                ..FilterChainMatch::default()
            };
            let chain = FilterChain {
                name: cluster.to_owned(),
                filter_chain_match: Some(found),
                filters: vec![http::tcp_proxy_to(view.settings(), cluster.to_owned(), cluster.to_owned())],
                ..FilterChain::default()
            };
            (chain, ips)
        };
        self.addresses(Some(port), family).into_iter().map(chain).collect()
    }

    /// The addresses that take mutual TLS on `port`, by cluster.
    fn addresses(&self, port: Option<u16>, family: Family) -> BTreeMap<&str, BTreeSet<IpAddr>> {
        let mut found: BTreeMap<_, BTreeSet<IpAddr>> = BTreeMap::new();
        let takes = |peer: &&Peer<'_>| {
            port.and_then(|port| peer.modes.get(&port).copied()).unwrap_or(peer.mutual_tls)
        };
        for peer in self.0.iter().filter(takes) {
            for ip in peer.workload.ips.iter().filter(|ip| family.has(ip)) {
                found.entry(peer.cluster.as_str()).or_default().insert(*ip);
            }
        }
        found
    }
}

fn single(ip: IpAddr) -> CidrRange {
    CidrRange { address_prefix: ip.to_string(), prefix_len: number(if ip.is_ipv4() { 32 } else { 128 }) }
}
