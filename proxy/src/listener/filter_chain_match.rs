//! Which filter chain takes a connection: `FilterChainMatch`, compiled to a tree.
//!
//! One level for each criterion, in the order of the xDS specification. At each level the most specific entry that fits decides;
//! when nothing fits below it the search ends there, without going back to a less specific one, and the default chain takes the
//! connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::FilterChain;
use super::prefixes::Prefixes;
use super::sorted_map::SortedMap;
use crate::net::Address;

/// `envoy.config.listener.v3.FilterChainMatch`. An empty criterion fits every connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterChainMatch {
    /// `destination_port`.
    pub destination_port: Option<u16>,
    /// `prefix_ranges`: the connection's local address.
    pub prefix_ranges: Vec<IpNet>,
    /// `server_names`: host names, or `*.` and a suffix; case does not matter.
    pub server_names: Vec<Box<str>>,
    /// `transport_protocol`: `tls` or `raw_buffer`; empty = any.
    pub transport_protocol: Box<str>,
    /// `application_protocols`: ALPN.
    pub application_protocols: Vec<Box<str>>,
    /// `direct_source_prefix_ranges`: the direct peer's address.
    pub direct_source_prefix_ranges: Vec<IpNet>,
    /// `source_type`.
    pub source_type: SourceType,
    /// `source_prefix_ranges`.
    pub source_prefix_ranges: Vec<IpNet>,
    /// `source_ports`.
    pub source_ports: Vec<u16>,
}

/// `ConnectionSourceType`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SourceType {
    /// `ANY`.
    #[default]
    Any,
    /// `SAME_IP_OR_LOOPBACK`.
    SameIpOrLoopback,
    /// `EXTERNAL`.
    External,
}

/// What is known about a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// Our end, or the original destination that was restored.
    pub local: &'a Address,
    /// The direct peer's end.
    pub direct_peer: &'a Address,
    /// The peer's end, as later filters see it.
    pub peer: &'a Address,
    /// SNI, lower case; empty when there is none or nobody looked.
    pub server_name: &'a str,
    /// `tls`, or `raw_buffer` when nothing else was detected.
    pub transport_protocol: &'a str,
    /// ALPN protocols that the client offers, in its order; of plain HTTP its version.
    pub application_protocols: &'a [Box<str>],
}

/// What stands for the IP of a Unix socket (as in Envoy).
const NO_IP: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

impl ConnectionFacts<'_> {
    fn is_local(&self) -> bool {
        match (self.local.ip(), self.peer.ip()) {
            (Some(local), Some(peer)) => peer.is_loopback() || peer == local,
            _ => true,
        }
    }
}

/// Filter chains and their match.
#[derive(Debug)]
pub struct FilterChains {
    root: DestinationPorts,
    default: Option<Arc<FilterChain>>,
    all: Vec<Arc<FilterChain>>,
}

impl FilterChains {
    /// Compiles `filter_chains` and `default_filter_chain`.
    ///
    /// # Errors
    /// Two chains would take the same connections, or a server name has a wildcard in the wrong place.
    pub fn build(
        chains: Vec<(FilterChainMatch, Arc<FilterChain>)>,
        default: Option<Arc<FilterChain>>,
    ) -> Result<Self, String> {
        let mut root = DestinationPorts::default();
        for (i, (criteria, chain)) in chains.iter().enumerate() {
            for name in &criteria.server_names {
                if name.strip_prefix("*.").unwrap_or(name).contains('*') {
                    return Err(format!(
                        "filter chain '{}': partial wildcards are not supported in \"server_names\": '{name}'",
                        chain.name
                    ));
                }
            }
            if let Some((_, same)) = chains[..i].iter().find(|(earlier, _)| earlier == criteria) {
                return Err(format!(
                    "filter chain '{}' has the same matching rules defined as '{}'",
                    chain.name, same.name
                ));
            }
            root.insert(criteria, chain).map_err(|other| {
                format!(
                    "multiple filter chains with overlapping matching rules are defined: '{other}' and '{}'",
                    chain.name
                )
            })?;
        }
        let all = chains.into_iter().map(|(_, chain)| chain).chain(default.clone()).collect();
        Ok(Self { root, default, all })
    }

    /// The chain that takes this connection.
    pub fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        self.root.find(facts).or(self.default.as_ref())
    }

    /// All chains, the default one last.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.all.iter()
    }
}

/// The outcome of an insertion: the name of the chain that is there already.
type Inserted = Result<(), Arc<str>>;

/// A criterion's values, or the one that stands for any.
fn values<T: Clone>(values: &[T], any: &[T]) -> Vec<T> {
    if values.is_empty() { any.to_vec() } else { values.to_vec() }
}

fn any_ip() -> [IpNet; 2] {
    [
        Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
        Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
    ]
}

#[derive(Debug, Default)]
struct DestinationPorts(SortedMap<Option<u16>, DestinationPrefixes>);

impl DestinationPorts {
    fn insert(&mut self, criteria: &FilterChainMatch, chain: &Arc<FilterChain>) -> Inserted {
        self.0.entry(criteria.destination_port).insert(criteria, chain)
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        let exact = facts.local.port().and_then(|port| self.0.get(&Some(port)));
        exact.or_else(|| self.0.get(&None))?.find(facts)
    }
}

#[derive(Debug, Default)]
struct DestinationPrefixes(Prefixes<ServerNames>);

impl DestinationPrefixes {
    fn insert(&mut self, criteria: &FilterChainMatch, chain: &Arc<FilterChain>) -> Inserted {
        for prefix in values(&criteria.prefix_ranges, &any_ip()) {
            self.0.entry(prefix).insert(criteria, chain)?;
        }
        Ok(())
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        self.0.longest(facts.local.ip().unwrap_or(NO_IP))?.find(facts)
    }
}

/// Keys: a whole name, `.suffix`, or empty for any.
#[derive(Debug, Default)]
struct ServerNames(SortedMap<Box<str>, TransportProtocols>);

impl ServerNames {
    fn insert(&mut self, criteria: &FilterChainMatch, chain: &Arc<FilterChain>) -> Inserted {
        for name in values(&criteria.server_names, &["".into()]) {
            let key = name.strip_prefix('*').unwrap_or(&name).to_ascii_lowercase();
            self.0.entry(key.into()).insert(criteria, chain)?;
        }
        Ok(())
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        let name = facts.server_name;
        let suffixes = name.char_indices().filter(|(i, c)| *c == '.' && *i > 0 && *i + 1 < name.len());
        let found = self
            .0
            .get(name)
            .or_else(|| suffixes.into_iter().find_map(|(i, _)| self.0.get(&name[i..])))
            .or_else(|| self.0.get(""));
        found?.find(facts)
    }
}

#[derive(Debug, Default)]
struct TransportProtocols(SortedMap<Box<str>, ApplicationProtocols>);

impl TransportProtocols {
    fn insert(&mut self, criteria: &FilterChainMatch, chain: &Arc<FilterChain>) -> Inserted {
        self.0.entry(criteria.transport_protocol.clone()).insert(criteria, chain)
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        self.0.get(facts.transport_protocol).or_else(|| self.0.get(""))?.find(facts)
    }
}

#[derive(Debug, Default)]
struct ApplicationProtocols(SortedMap<Box<str>, DirectSources>);

impl ApplicationProtocols {
    fn insert(&mut self, criteria: &FilterChainMatch, chain: &Arc<FilterChain>) -> Inserted {
        for protocol in values(&criteria.application_protocols, &["".into()]) {
            self.0.entry(protocol).insert(criteria, chain)?;
        }
        Ok(())
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        let offered = facts.application_protocols.iter().find_map(|p| self.0.get::<str>(p));
        offered.or_else(|| self.0.get(""))?.find(facts)
    }
}

#[derive(Debug, Default)]
struct DirectSources(Prefixes<SourceTypes>);

impl DirectSources {
    fn insert(&mut self, criteria: &FilterChainMatch, chain: &Arc<FilterChain>) -> Inserted {
        for prefix in values(&criteria.direct_source_prefix_ranges, &any_ip()) {
            self.0.entry(prefix).insert(criteria, chain)?;
        }
        Ok(())
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        self.0.longest(facts.direct_peer.ip().unwrap_or(NO_IP))?.find(facts)
    }
}

#[derive(Debug, Default)]
struct SourceTypes {
    any: Option<Sources>,
    local: Option<Sources>,
    external: Option<Sources>,
}

impl SourceTypes {
    fn insert(&mut self, criteria: &FilterChainMatch, chain: &Arc<FilterChain>) -> Inserted {
        let sources = match criteria.source_type {
            SourceType::Any => &mut self.any,
            SourceType::SameIpOrLoopback => &mut self.local,
            SourceType::External => &mut self.external,
        };
        sources.get_or_insert_default().insert(criteria, chain)
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        let specific = if facts.is_local() { &self.local } else { &self.external };
        specific.as_ref().or(self.any.as_ref())?.find(facts)
    }
}

#[derive(Debug, Default)]
struct Sources(Prefixes<SourcePorts>);

impl Sources {
    fn insert(&mut self, criteria: &FilterChainMatch, chain: &Arc<FilterChain>) -> Inserted {
        for prefix in values(&criteria.source_prefix_ranges, &any_ip()) {
            self.0.entry(prefix).insert(criteria, chain)?;
        }
        Ok(())
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        self.0.longest(facts.peer.ip().unwrap_or(NO_IP))?.find(facts)
    }
}

#[derive(Debug, Default)]
struct SourcePorts(SortedMap<Option<u16>, Arc<FilterChain>>);

impl SourcePorts {
    fn insert(&mut self, criteria: &FilterChainMatch, chain: &Arc<FilterChain>) -> Inserted {
        let ports: Vec<_> = criteria.source_ports.iter().copied().map(Some).collect();
        for port in values(&ports, &[None]) {
            if let Some(other) = self.0.insert(port, chain.clone())
                && !Arc::ptr_eq(&other, chain)
            {
                return Err(other.name.clone());
            }
        }
        Ok(())
    }

    fn find(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        let exact = facts.peer.port().and_then(|port| self.0.get(&Some(port)));
        exact.or_else(|| self.0.get(&None))
    }
}

#[cfg(test)]
mod tests;
