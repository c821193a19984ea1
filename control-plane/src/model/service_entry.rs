//! Services that Kubernetes does not know: ServiceEntries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Locality, Name, Service, ServicePort, Visibility};
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
    /// Its endpoints that have addresses; none where it selects Pods, or where proxies resolve names (`Service::named`).
    pub endpoints: Vec<StaticEndpoint<IpAddr>>,
}

/// Where proxies find a Service's endpoints that have names in DNS.
#[derive(Debug)]
pub struct NamedEndpoints {
    /// The endpoints: names, or addresses all the same.
    pub endpoints: Vec<StaticEndpoint<String>>,
    /// `DNS_ROUND_ROBIN`: a connection goes to the first address of the newest answer. Else each address is an endpoint.
    pub is_logical: bool,
}

/// An endpoint that is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticEndpoint<A> {
    /// Its address, or its name in DNS.
    pub address: A,
    /// Its port for each port of the Service by name, where it differs.
    pub ports: BTreeMap<String, u16>,
    /// Its labels, which subsets ask for.
    pub labels: BTreeMap<String, String>,
    /// Where it is.
    pub locality: Locality,
    /// Its share is this by the sum of all; 1 where nothing is said.
    pub weight: u32,
}

impl<A> StaticEndpoint<A> {
    /// Its port for a port of the Service.
    pub fn port(&self, port: &ServicePort) -> u16 {
        self.ports.get(&port.name).copied().unwrap_or_else(|| port.target_number())
    }
}

impl NamedEndpoints {
    /// One endpoint, all of whose addresses count.
    pub fn one(name: &str) -> Self {
        Self { endpoints: vec![StaticEndpoint::named(name)], is_logical: false }
    }
}

impl StaticEndpoint<String> {
    /// One about which nothing but its name is said.
    pub fn named(name: &str) -> Self {
        Self {
            address: name.to_owned(),
            ports: BTreeMap::new(),
            labels: BTreeMap::new(),
            locality: Locality::default(),
            weight: 1,
        }
    }
}
