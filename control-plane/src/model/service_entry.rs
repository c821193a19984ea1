//! Services that Kubernetes does not know: ServiceEntries.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{Locality, Name, Remark, Service, ServicePort, Visibility};
use crate::source::Origin;

/// A ServiceEntry.
#[derive(Debug)]
pub struct ServiceEntry {
    /// Its name.
    pub name: Name,
    /// One Service for each of its host names. The name of such a Service is the host name, which has a dot as no Service of
    /// Kubernetes has.
    pub services: Vec<Arc<Service>>,
    /// `metadata.creationTimestamp`, or empty. Of two for one host name the older counts.
    pub created: String,
    /// What of it has no effect.
    pub remarks: Vec<Remark>,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

/// What a Service is that a ServiceEntry makes.
#[derive(Debug)]
pub struct External {
    /// Whose clients see it.
    pub visibility: Visibility,
    /// Whether it is a part of the mesh (`MESH_INTERNAL`).
    pub is_internal: bool,
    /// `NONE`: a connection goes to the address that the client meant. Then it has no endpoints.
    pub is_original_destination: bool,
    /// Addresses that it shares with others: ranges, and those of several hosts. What a connection says tells which of them is
    /// meant.
    pub ranges: Vec<IpNet>,
    /// Ports whose connections say by TLS which host they mean.
    pub tls_ports: BTreeSet<u16>,
    /// Its endpoints that have addresses; none where it selects workloads, or where proxies resolve names (`Service::named`).
    pub endpoints: Vec<StaticEndpoint>,
}

/// Where proxies find a Service's endpoints that have names in DNS.
#[derive(Debug)]
pub struct NamedEndpoints {
    /// The endpoints: names, or addresses all the same. None where the Service selects workloads.
    pub endpoints: Vec<StaticEndpoint>,
    /// `DNS_ROUND_ROBIN`: a connection goes to the first address of the newest answer. Else each address is an endpoint.
    pub is_logical: bool,
}

/// Where an endpoint is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// At an address.
    Ip(IpAddr),
    /// At a name in DNS, which proxies resolve.
    Name(String),
    /// At a Unix socket of the caller's own machine: its path, or `@` and a name of the abstract namespace.
    Pipe(String),
}

impl EndpointAddress {
    /// Whether it is of the other version of IP than the one that is asked for.
    pub(super) fn is_of_other_version(&self, is_v4: bool) -> bool {
        matches!(self, Self::Ip(ip) if ip.is_ipv4() != is_v4)
    }
}

impl From<IpAddr> for EndpointAddress {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

/// An endpoint that is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticEndpoint {
    /// Where it is called.
    pub address: EndpointAddress,
    /// Its port for each port of the Service by name, where it differs.
    pub ports: BTreeMap<String, u16>,
    /// Its labels, which subsets ask for.
    pub labels: BTreeMap<String, String>,
    /// Where it is.
    pub locality: Locality,
    /// Its share is this by the sum of all; 1 where nothing is said.
    pub weight: u32,
}

impl StaticEndpoint {
    /// Its port for a port of the Service.
    pub fn port(&self, port: &ServicePort) -> u16 {
        self.ports.get(&port.name).copied().unwrap_or_else(|| port.target_number())
    }

    /// One about which nothing but its name is said.
    pub fn named(name: &str) -> Self {
        Self {
            address: EndpointAddress::Name(name.to_owned()),
            ports: BTreeMap::new(),
            labels: BTreeMap::new(),
            locality: Locality::default(),
            weight: 1,
        }
    }
}

impl NamedEndpoints {
    /// One endpoint, all of whose addresses count.
    pub fn one(name: &str) -> Self {
        Self { endpoints: vec![StaticEndpoint::named(name)], is_logical: false }
    }
}
