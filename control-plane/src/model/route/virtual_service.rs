//! A VirtualService: rules for whatever has one of its host names.

use std::sync::Arc;

use ipnet::IpNet;

use crate::model::route::{Destination, HeaderChanges, RequestMatch, RouteRule, Source};
use crate::model::{Cors, Fault, Forward, Name};
use crate::source::Origin;

/// Rules for the calls to host names (a VirtualService), as far as they are for sidecars.
#[derive(Debug)]
pub struct VirtualService {
    /// Its name.
    pub name: Name,
    /// Its host names. Empty: others may delegate to it.
    pub hosts: Vec<Host>,
    /// Whose clients see it.
    pub visibility: Visibility,
    /// Rules for requests, in the order in which they are tried.
    pub http: Vec<HttpRules>,
    /// Rules for TLS connections, by server name.
    pub tls: Vec<L4Rule>,
    /// Rules for other connections.
    pub tcp: Vec<L4Rule>,
    /// Gateways that its rules are for, other than the mesh itself, with the path of the field.
    pub gateways: Vec<(String, String)>,
    /// `metadata.creationTimestamp`, or empty. The oldest VirtualService for a host counts.
    pub created: String,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

impl VirtualService {
    /// Whether it has rules for connections.
    pub fn rules_connections(&self) -> bool {
        !self.tls.is_empty() || !self.tcp.is_empty()
    }

    /// Whether only its own namespace sees it.
    pub fn is_private(&self) -> bool {
        match &self.visibility {
            Visibility::Mesh => false,
            Visibility::Namespaces(namespaces) => {
                namespaces.iter().all(|seeing| *seeing == self.name.namespace)
            }
        }
    }
}

/// A host name that rules are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The whole name, or `*` and what it ends in.
    pub name: String,
    /// Path of the field, for findings.
    pub field: String,
}

impl Host {
    /// Whether it stands for many names.
    pub fn is_wildcard(&self) -> bool {
        self.name.starts_with('*')
    }

    /// Whether it stands for `host`.
    pub fn matches(&self, host: &str) -> bool {
        match self.name.strip_prefix('*') {
            Some(end) => host.ends_with(end) && host.len() > end.len(),
            None => self.name == host,
        }
    }
}

/// Who sees an object (`exportTo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody.
    Mesh,
    /// These namespaces.
    Namespaces(Vec<String>),
}

impl Visibility {
    /// Whether those in `namespace` see it.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Mesh => true,
            Self::Namespaces(namespaces) => namespaces.iter().any(|other| other == namespace),
        }
    }
}

/// One entry of `http`.
#[derive(Debug, Clone)]
pub enum HttpRules {
    /// A rule.
    Rule(RouteRule),
    /// The rules of another VirtualService.
    Delegate(DelegateRule),
}

/// What a rule says that leaves the rest to another VirtualService.
#[derive(Debug, Clone)]
pub struct DelegateRule {
    /// The other one.
    pub to: Name,
    /// `name`, or empty.
    pub name: String,
    /// The requests that the other one may rule. Never empty.
    pub matches: Vec<RequestMatch>,
    /// Stand for what the other one does not say.
    pub defaults: Forward,
    /// Likewise.
    pub headers: HeaderChanges,
    /// Likewise.
    pub fault: Option<Fault>,
    /// Likewise.
    pub cors: Option<Cors>,
    /// Path of the field, for findings.
    pub field: String,
}

/// One entry of `tls` or `tcp`.
#[derive(Debug, Clone)]
pub struct L4Rule {
    /// A connection matches when one of these does. Never empty.
    pub matches: Vec<L4Match>,
    /// It goes to one of these, by weight.
    pub backends: Vec<L4Backend>,
    /// Path of the field, for findings.
    pub field: String,
}

/// A condition on connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct L4Match {
    /// Server names (SNI); `*.` stands for one label or more. Empty for plain TCP.
    pub server_names: Vec<String>,
    /// Where they were meant to go.
    pub destinations: Vec<IpNet>,
    /// The port of the Service that is called.
    pub port: Option<u16>,
    /// Who calls.
    pub source: Source,
}

/// A Service that connections are forwarded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct L4Backend {
    /// The Service.
    pub destination: Destination,
    /// Its share is this by the sum of all.
    pub weight: u32,
    /// Path of the field, for findings.
    pub field: String,
}
