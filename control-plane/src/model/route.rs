//! Rules for requests to a Service.

use std::sync::Arc;
use std::time::Duration;

use crate::model::Name;
use crate::source::Origin;

/// Rules for the requests to one or more Services (an HTTPRoute).
#[derive(Debug)]
pub struct HttpRoute {
    /// Its name.
    pub name: Name,
    /// The Services whose requests it rules.
    pub parents: Vec<Parent>,
    /// The rules, in the order written.
    pub rules: Vec<RouteRule>,
    /// `metadata.creationTimestamp`, or empty. The older of two routes wins where both match equally well.
    pub created: String,
    /// Where it was written.
    pub origin: Arc<Origin>,
}

/// A Service whose requests are ruled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent {
    /// The Service.
    pub service: Name,
    /// Only this port of it.
    pub port: Option<u16>,
    /// Path of the field, for findings.
    pub field: String,
}

/// One rule: what it matches and what happens then.
#[derive(Debug)]
pub struct RouteRule {
    /// `name`, or empty.
    pub name: String,
    /// A request matches when one of these does. Never empty.
    pub matches: Vec<RequestMatch>,
    /// What happens.
    pub action: RouteAction,
    /// Path of the field, for findings.
    pub field: String,
}

/// One match: all conditions must hold.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestMatch {
    /// The path, without the query.
    pub path: PathMatch,
    /// The method.
    pub method: Option<String>,
    /// Headers, by lower-case name.
    pub headers: Vec<HeaderMatch>,
}

/// A condition on the path.
#[derive(Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Leading path elements: `/a` matches `/a` and `/a/b`, not `/ab`. Without a trailing `/`, unless it is `/`.
    Prefix(String),
    /// The whole path matches this expression (RE2 syntax).
    Regex(String),
}

/// A condition on one header.
#[derive(Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Lower-case name.
    pub name: String,
    /// What the value must be.
    pub value: StringMatch,
}

/// A condition on a string.
#[derive(Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// The whole string matches this expression (RE2 syntax).
    Regex(String),
}

/// What happens to a request that matches.
#[derive(Debug)]
pub enum RouteAction {
    /// It is forwarded.
    Forward {
        /// To one of these, by weight. Empty: answered with 500 (Gateway API).
        backends: Vec<Backend>,
        /// Limit for the whole request. Zero or none: no limit.
        timeout: Option<Duration>,
    },
    /// It is answered with a redirect.
    Redirect(Redirect),
}

/// A Service that requests are forwarded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The Service.
    pub service: Name,
    /// Its port.
    pub port: u16,
    /// Its share is this by the sum of all.
    pub weight: u32,
    /// Path of the field, for findings.
    pub field: String,
}

/// A redirect.
#[derive(Debug, PartialEq, Eq)]
pub struct Redirect {
    /// New scheme, `http` or `https`.
    pub scheme: Option<String>,
    /// New host name.
    pub hostname: Option<String>,
    /// New port.
    pub port: Option<u16>,
    /// New path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// How a redirect changes the path.
#[derive(Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path becomes this.
    Full(String),
    /// The matched prefix becomes this.
    Prefix(String),
}
