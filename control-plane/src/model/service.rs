//! Services and EndpointSlices.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::Name;
use crate::source::Origin;

/// A Kubernetes Service.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// Its TCP ports. UDP and SCTP ports are not the mesh's business.
    pub ports: Vec<ServicePort>,
    /// Labels of the Pods behind it. Empty: no Pod, only EndpointSlices.
    pub selector: BTreeMap<String, String>,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

impl Service {
    /// Its port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
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

/// Where a Service's port leads in a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// This port.
    Number(u16),
    /// The container port with this name.
    Named(String),
}

/// What is spoken on a port: `appProtocol`, else the port's name up to the first `-`, as in Istio. Unlike Istio there is
/// no guessing from the bytes: a port that says nothing is TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 at the application.
    Http,
    /// HTTP/2 at the application: HTTP/2 without TLS, gRPC.
    Http2,
    /// Bytes.
    Tcp,
}

impl Protocol {
    /// Decides by `appProtocol` and the name of the port.
    pub fn of(app_protocol: Option<&str>, port_name: &str) -> Self {
        let named = || port_name.split('-').next().unwrap_or_default();
        match app_protocol.unwrap_or_else(named).to_ascii_lowercase().as_str() {
            "http" | "kubernetes.io/ws" => Self::Http,
            "http2" | "grpc" | "kubernetes.io/h2c" => Self::Http2,
            _ => Self::Tcp,
        }
    }

    /// Whether requests can be routed on it.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2)
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
    fn protocol_by_app_protocol_then_name() {
        assert_eq!(Protocol::of(None, "http"), Protocol::Http);
        assert_eq!(Protocol::of(None, "http-web"), Protocol::Http);
        assert_eq!(Protocol::of(None, "httpx"), Protocol::Tcp);
        assert_eq!(Protocol::of(None, "grpc-api"), Protocol::Http2);
        assert_eq!(Protocol::of(None, "http2"), Protocol::Http2);
        assert_eq!(Protocol::of(Some("kubernetes.io/h2c"), "http"), Protocol::Http2);
        assert_eq!(Protocol::of(Some("tcp"), "http"), Protocol::Tcp);
        assert_eq!(Protocol::of(None, ""), Protocol::Tcp);
        assert_eq!(Protocol::of(None, "https"), Protocol::Tcp);
    }

    #[test]
    fn an_empty_selector_selects_nothing() {
        let origin = crate::source::test_origin("Service", "a", "b");
        let service = Service { name: Name::new("a", "b"), ports: vec![], selector: BTreeMap::new(), origin };
        assert!(!service.selects(&BTreeMap::new()));
    }
}
