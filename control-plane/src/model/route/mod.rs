//! Rules for requests, whichever API they were written in.
//!
//! A [`RouteRule`] says which requests it is for ([`RequestMatch`]), what happens to them ([`RouteAction`]) and what is done to
//! them on the way. Gateway API's routes ([`HttpRoute`]) and Istio's VirtualServices hold the same rules; they differ in what
//! they are attached to and in which order rules are tried. Each node keeps the path of its field.

mod action;
mod matches;
mod policy;
mod virtual_service;

use std::fmt;
use std::sync::Arc;

use crate::model::Name;
use crate::source::Origin;

pub use action::{
    Backend, Destination, DirectResponse, Forward, Mirror, PathRewrite, Redirect, RedirectPort, RouteAction,
    ServiceRef,
};
pub use matches::{HeaderMatch, PathMatch, QueryMatch, RequestMatch, Source, StringMatch};
pub use policy::{Abort, AbortStatus, Cors, Delay, Fault, HeaderChanges, HeaderOperations, Retry};
pub use virtual_service::{
    DelegateRule, Host, HttpRules, L4Backend, L4Match, L4Rule, VirtualService, Visibility,
};

/// A share in parts of a million.
pub type Ppm = u32;

/// All.
pub const ALL_PPM: Ppm = 1_000_000;

/// Rules for the requests to one or more Services (an HTTPRoute or a GRPCRoute).
#[derive(Debug)]
pub struct HttpRoute {
    /// Which of the two, and its name.
    pub key: RouteKey,
    /// The Services whose requests it rules.
    pub parents: Vec<Parent>,
    /// Parents of other kinds, which are not the mesh's business, each with the path of the field.
    pub others: Vec<(String, String)>,
    /// The rules, in the order written.
    pub rules: Vec<RouteRule>,
    /// `metadata.creationTimestamp`, or empty. The older of two routes wins where both match equally well.
    pub created: String,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

/// What identifies a route: two of different kinds may have one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Its kind.
    pub kind: RouteKind,
    /// Its name.
    pub name: Name,
}

impl fmt::Display for RouteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}

/// Kinds of routes, the more specific one first: of two for one port it alone counts (GEP-1426).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// GRPCRoute.
    Grpc,
    /// HTTPRoute.
    Http,
}

impl RouteKind {
    /// The name of the kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
        }
    }

    /// The kind of this name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Grpc, Self::Http].into_iter().find(|kind| kind.name() == name)
    }
}

/// A Service whose requests are ruled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The Service.
    pub service: Name,
    /// Only this port of it.
    pub port: Option<u16>,
    /// Only the port of this name.
    pub section: Option<String>,
    /// Number of the parent in the object, from 0.
    pub index: usize,
    /// Path of the field, for findings.
    pub field: String,
}

impl Parent {
    /// Whether the route is for this port.
    pub fn has_port(&self, port: &crate::model::ServicePort) -> bool {
        self.port.is_none_or(|number| number == port.number)
            && self.section.as_ref().is_none_or(|name| *name == port.name)
    }
}

/// One rule: which requests it is for and what happens to them.
#[derive(Debug, Clone)]
pub struct RouteRule {
    /// `name`, or empty.
    pub name: String,
    /// A request matches when one of these does. Never empty.
    pub matches: Vec<RequestMatch>,
    /// What happens.
    pub action: RouteAction,
    /// Changes of headers, for all backends.
    pub headers: HeaderChanges,
    /// Requests that are delayed or refused on purpose.
    pub fault: Option<Fault>,
    /// Who may call from a browser.
    pub cors: Option<Cors>,
    /// Path of the field, for findings.
    pub field: String,
}
