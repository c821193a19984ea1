//! Rules for connections that are not HTTP: `tls` and `tcp` of VirtualServices, as filter chains.
//!
//! A chain is chosen by the most specific match, not by the order written (Envoy): a whole server name before one with `*`, a longer
//! range of addresses before a shorter one. Of two equal matches the first counts.

use std::collections::{BTreeSet, HashSet};

use ipnet::IpNet;
use outrigger_xds_api::wire::core::v3::CidrRange;
use outrigger_xds_api::wire::listener::v3::{FilterChain, FilterChainMatch};
use outrigger_xds_api::wire::tcp_proxy::v3::tcp_proxy::weighted_cluster::ClusterWeight;
use outrigger_xds_api::wire::tcp_proxy::v3::tcp_proxy::{ClusterSpecifier, WeightedCluster};
use outrigger_xds_api::wire::r#type::v3::HashPolicy;
use outrigger_xds_api::wire::r#type::v3::hash_policy::{PolicySpecifier, SourceIp};

use crate::model::{Client, HashOf, L4Match, L4Rule, Name, ServicePort, VirtualService, Workload};
use crate::translate::names::BLACK_HOLE;
use crate::translate::route::Hosts;
use crate::translate::target::Target;
use crate::translate::wire::number;
use crate::translate::{InputView, http, metadata, names};

/// The rules that the connections of one workload follow.
pub(super) struct Rules<'a> {
    hosts: Hosts<'a>,
    client: Client,
}

impl<'a> Rules<'a> {
    /// Those that a workload sees.
    pub(super) fn of(view: &InputView<'a>, workload: &Workload) -> Self {
        let hosts = Hosts::with_connections(view, &workload.name.namespace);
        Self { hosts, client: view.client_of(workload) }
    }

    /// No rules.
    pub(super) fn none() -> Self {
        Self { hosts: Hosts::default(), client: Client::default() }
    }

    /// The chains for connections to a Service's port. The last one takes what no rule is for, and leads to the Service itself;
    /// `stat_prefix` is its name in statistics, or empty for that of its cluster.
    pub(super) fn chains(
        &self,
        view: &InputView<'a>,
        service: &Name,
        port: &ServicePort,
        stat_prefix: &str,
    ) -> Vec<FilterChain> {
        let settings = view.settings();
        let mut chains: Vec<FilterChain> = Vec::new();
        let mut taken = HashSet::new();
        if let Some(of) = self.hosts.of_service(view, service) {
            for rule in of.tls.iter().chain(&of.tcp) {
                for condition in rule.matches.iter().filter(|condition| self.applies(condition, port)) {
                    for found in chain_matches(condition, &mut taken) {
                        let filter_chain_match = Some(found);
                        chains.push(FilterChain { filter_chain_match, ..chain(view, of, rule, port) });
                    }
                }
            }
        }
        let takes_all = Some(FilterChainMatch::default());
        if chains.iter().all(|chain| chain.filter_chain_match != takes_all) {
            let cluster = names::outbound_tcp_cluster(service, port, None, &settings.cluster_domain);
            let stat_prefix = if stat_prefix.is_empty() { &cluster } else { stat_prefix }.to_owned();
            let called = view.service(service);
            let said = called.map(|service| view.destination_of(service)).unwrap_or_default();
            let said = said.settings.at(port.number);
            let hash = called.and_then(|service| hash_policy(said.load_balancing(service).hash_of()?));
            let clusters = ClusterSpecifier::Cluster(cluster);
            let filter = http::tcp_proxy(settings, stat_prefix, clusters, hash, &said.connection_pool);
            chains.push(FilterChain { filters: vec![filter], ..FilterChain::default() });
        }
        chains
    }

    fn applies(&self, condition: &L4Match, port: &ServicePort) -> bool {
        self.client.is(&condition.source) && condition.port.is_none_or(|number| number == port.number)
    }
}

/// The Services whose connections some rule is for, for whatever client.
pub(super) fn ruled(view: &InputView<'_>) -> BTreeSet<Name> {
    let domain = &view.settings().cluster_domain;
    let mut names = BTreeSet::new();
    for host in view.connection_rules().flat_map(|service| &service.hosts) {
        if host.is_wildcard() {
            let is_meant = |name: &&Name| host.matches(&names::fqdn(name, domain));
            names.extend(view.service_names().filter(is_meant).cloned());
        } else {
            names.extend(Name::of_host(&host.name, domain));
        }
    }
    names
}

/// Whether it is one of them, or a ServiceEntry's.
pub(super) fn is_ruled(view: &InputView<'_>, service: &Name) -> bool {
    let fqdn = names::fqdn(service, &view.settings().cluster_domain);
    let mut hosts = view.connection_rules().flat_map(|service| &service.hosts);
    hosts.any(|host| host.matches(&fqdn))
}

/// Whether a chain can only be chosen once the server name is known.
pub(super) fn needs_server_name(chain: &FilterChain) -> bool {
    chain.filter_chain_match.as_ref().is_some_and(|found| !found.server_names.is_empty())
}

/// What a condition matches of what no earlier one has `taken`, by server name and range of addresses: two chains must not match
/// the same. Mostly one match.
fn chain_matches<'a>(
    condition: &'a L4Match,
    taken: &mut HashSet<(&'a str, Option<IpNet>)>,
) -> Vec<FilterChainMatch> {
    let mut ranges: Vec<Option<IpNet>> = condition.destinations.iter().map(|net| Some(net.trunc())).collect();
    if ranges.is_empty() {
        ranges.push(None);
    }
    let mut names: Vec<&'a str> = condition.server_names.iter().map(String::as_str).collect();
    if names.is_empty() {
        names.push("");
    }
    // Server names by the ranges that are left for them.
    let mut left: Vec<(Vec<Option<IpNet>>, Vec<&'a str>)> = Vec::new();
    for name in names {
        let free: Vec<_> = ranges.iter().copied().filter(|range| taken.insert((name, *range))).collect();
        match left.iter_mut().find(|(ranges, _)| *ranges == free) {
            Some((_, names)) => names.push(name),
            None if free.is_empty() => {}
            None => left.push((free, vec![name])),
        }
    }
    let found = left.into_iter().map(|(ranges, names)| FilterChainMatch {
        server_names: names.into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        prefix_ranges: ranges.into_iter().flatten().map(range).collect(),
        ..FilterChainMatch::default()
    });
    found.collect()
}

pub(super) fn range(net: IpNet) -> CidrRange {
    CidrRange { address_prefix: net.network().to_string(), prefix_len: number(net.prefix_len().into()) }
}

/// The chain of a rule, without its match.
fn chain(view: &InputView<'_>, of: &VirtualService, rule: &L4Rule, port: &ServicePort) -> FilterChain {
    let settings = view.settings();
    let target = |backend| Target::of(view, backend, port.number);
    let mut hash = None;
    let mut pool = None;
    let mut weighted = Vec::new();
    for backend in rule.backends.iter().filter(|backend| backend.weight > 0) {
        let target = target(&backend.destination);
        hash = hash.or_else(|| hash_policy(target.as_ref()?.hash_of()?));
        // The first one's word counts for all (Istio): which it is is not known before the connection is there.
        pool = pool.or_else(|| target.as_ref().map(|target| target.pool().clone()));
        let cluster = target.map(|target| target.tcp_cluster(&settings.cluster_domain));
        weighted.push((cluster.unwrap_or_else(|| BLACK_HOLE.to_owned()), backend.weight));
    }
    let stat_prefix = weighted.first().map(|(cluster, _)| cluster.clone()).unwrap_or_default();
    let clusters = match weighted.as_slice() {
        [(cluster, _)] => ClusterSpecifier::Cluster(cluster.clone()),
        all => {
            let weight = |(cluster, weight): &(String, u32)| ClusterWeight {
                name: cluster.clone(),
                weight: *weight,
                ..ClusterWeight::default()
            };
            ClusterSpecifier::WeightedClusters(WeightedCluster { clusters: all.iter().map(weight).collect() })
        }
    };
    FilterChain {
        filters: vec![http::tcp_proxy(settings, stat_prefix, clusters, hash, &pool.unwrap_or_default())],
        metadata: Some(metadata::made_by(&of.origin, &rule.field)),
        ..FilterChain::default()
    }
}

/// Connections have nothing but an address to be hashed.
fn hash_policy(of: &HashOf) -> Option<HashPolicy> {
    let by_address = HashPolicy { policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})) };
    (*of == HashOf::SourceIp).then_some(by_address)
}
