//! Services and EndpointSlices.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{External, LocalityBalancing, Name, NamedEndpoints};
use crate::source::Origin;

/// A Kubernetes Service, or what a ServiceEntry makes of one of its host names.
#[derive(Debug)]
pub struct Service {
    /// Its name. That of a ServiceEntry's is its host name.
    pub name: Name,
    /// Its TCP ports. UDP and SCTP ports are not the mesh's business.
    pub ports: Vec<ServicePort>,
    /// Labels of the Pods behind it. Empty: no Pod, only EndpointSlices.
    pub selector: BTreeMap<String, String>,
    /// The addresses that the cluster gave it; none for a headless one.
    pub cluster_ips: Vec<IpAddr>,
    /// What it is, where a ServiceEntry makes it.
    pub external: Option<External>,
    /// Its endpoints, where proxies resolve their names.
    pub named: Option<NamedEndpoints>,
    /// Whether a caller stays at its endpoint (`sessionAffinity: ClientIP`).
    pub session_affinity: bool,
    /// How the place of its callers counts, where it says so (`trafficDistribution`).
    pub traffic_distribution: Option<LocalityBalancing>,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

impl Service {
    /// Its port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Whether clients in `namespace` see it.
    pub fn is_visible_in(&self, namespace: &str) -> bool {
        self.external.as_ref().is_none_or(|external| external.visibility.includes(namespace))
    }

    /// Whether its connections go to the address that the client meant.
    pub fn is_original_destination(&self) -> bool {
        self.external.as_ref().is_some_and(|external| external.is_original_destination)
    }

    /// Whether captured connections to it are told from others by what they say, and not by an address of its own.
    pub fn is_found_by_content(&self) -> bool {
        let has_own_only = |external: &External| !self.cluster_ips.is_empty() && external.ranges.is_empty();
        self.external.as_ref().is_some_and(|external| !has_own_only(external))
    }

    /// What the policies for it are found by. A policy that names a host does not know whose ServiceEntry has it.
    pub(crate) fn policy_key(&self) -> Name {
        match self.external {
            Some(_) => Name::new("", &self.name.name),
            None => self.name.clone(),
        }
    }

    /// Whether it selects a Pod with these labels (in its own namespace).
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; may be empty when there is only one.
    pub name: String,
    /// The number that clients use.
    pub number: u16,
    /// The port of the Pod.
    pub target: TargetPort,
    /// What is spoken on it.
    pub protocol: Protocol,
}

impl ServicePort {
    /// The number at an endpoint that is no Pod.
    pub fn target_number(&self) -> u16 {
        match self.target {
            TargetPort::Number(number) => number,
            TargetPort::Named(_) => self.number,
        }
    }
}

/// Where a Service's port leads in a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// This port.
    Number(u16),
    /// The container port with this name.
    Named(String),
}

/// What is spoken on a port: `appProtocol`, else the port's name up to the first `-`, as in Istio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 at the application.
    Http,
    /// HTTP/2 at the application: HTTP/2 without TLS, gRPC.
    Http2,
    /// Bytes.
    Tcp,
    /// Nobody says it: the first bytes of each connection tell.
    Detect,
}

/// Ports of well-known protocols in which the server speaks first, or which the sidecar cannot tell from others: SMTP, DNS, POP3,
/// IMAP, LDAP, SMTP submission, MySQL, Galera, PostgreSQL, Redis, Elasticsearch's transport, memcached, MongoDB. Waiting for the
/// client's bytes would only cost time. (Istio's and Linkerd's lists.)
const OPAQUE_PORTS: [u16; 14] =
    [25, 53, 110, 143, 389, 587, 3306, 4444, 5432, 6379, 9300, 11211, 27017, 27018];

impl Protocol {
    /// Decides by `appProtocol`, the name of the port, and its number.
    pub fn of(app_protocol: Option<&str>, port_name: &str, number: u16) -> Self {
        let named = || port_name.split('-').next().unwrap_or_default();
        match app_protocol.unwrap_or_else(named).to_ascii_lowercase().as_str() {
            "http" | "kubernetes.io/ws" => Self::Http,
            "http2" | "grpc" | "kubernetes.io/h2c" => Self::Http2,
            "tcp" | "tls" | "https" | "kubernetes.io/wss" | "mongo" | "mysql" | "redis" | "postgres"
            | "postgresql" | "amqp" | "kafka" => Self::Tcp,
            _ if OPAQUE_PORTS.contains(&number) => Self::Tcp,
            _ => Self::Detect,
        }
    }

    /// Whether requests can be routed on it.
    pub fn may_be_http(self) -> bool {
        self != Self::Tcp
    }

    /// Whether it takes connections of any other protocol.
    pub fn may_be_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Detect)
    }
}

/// A Kubernetes EndpointSlice.
#[derive(Debug)]
pub struct EndpointSlice {
    /// Its name.
    pub name: Name,
    /// The Service that it belongs to, in its namespace.
    pub service: Name,
    /// Its ports.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

/// A port of every endpoint of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port.
    pub name: String,
    /// Number at the Pod.
    pub number: u16,
}

/// One endpoint of an EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address. (Kubernetes: all addresses of an endpoint are equivalent; the first is used.)
    pub address: IpAddr,
    /// `conditions.ready`; not said means yes.
    pub ready: bool,
    /// `conditions.terminating`
    pub is_ending: bool,
    /// Name of the Pod, in the slice's namespace, when the slice tells it.
    pub pod: Option<String>,
    /// Name of the Node, when the slice tells it.
    pub node: Option<String>,
    /// Zone of the topology, when the slice tells it.
    pub zone: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_by_app_protocol_then_name_then_number() {
        let of = |app_protocol, name| Protocol::of(app_protocol, name, 8080);
        assert_eq!(of(None, "http"), Protocol::Http);
        assert_eq!(of(None, "http-web"), Protocol::Http);
        assert_eq!(of(None, "httpx"), Protocol::Detect);
        assert_eq!(of(None, "grpc-api"), Protocol::Http2);
        assert_eq!(of(None, "http2"), Protocol::Http2);
        assert_eq!(of(Some("kubernetes.io/h2c"), "http"), Protocol::Http2);
        assert_eq!(of(Some("tcp"), "http"), Protocol::Tcp);
        assert_eq!(of(Some("example.com/own"), "http"), Protocol::Detect);
        assert_eq!(of(None, ""), Protocol::Detect);
        assert_eq!(of(None, "https"), Protocol::Tcp);
        assert_eq!(Protocol::of(None, "", 3306), Protocol::Tcp);
        assert_eq!(Protocol::of(None, "http", 3306), Protocol::Http);
    }

    #[test]
    fn an_empty_selector_selects_nothing() {
        let origin = crate::source::test_origin("Service", "a", "b");
        let service = Service {
            name: Name::new("a", "b"),
            ports: vec![],
            selector: BTreeMap::new(),
            cluster_ips: vec![],
            external: None,
            named: None,
            session_affinity: false,
            traffic_distribution: None,
            origin,
        };
        assert!(!service.selects(&BTreeMap::new()));
    }
}
