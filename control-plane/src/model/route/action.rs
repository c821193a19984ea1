//! What happens to a request.

use std::fmt;
use std::time::Duration;

use crate::model::Name;
use crate::model::route::{HeaderChanges, Ppm, Retry};

/// What happens to a request that matches.
#[derive(Debug, Clone)]
pub enum RouteAction {
    /// It is forwarded.
    Forward(Box<Forward>),
    /// It is answered with a redirect.
    Redirect(Redirect),
    /// It is answered.
    Respond(DirectResponse),
}

impl RouteAction {
    /// How it is forwarded, if it is.
    pub fn forward(&self) -> Option<&Forward> {
        match self {
            Self::Forward(forward) => Some(forward),
            _ => None,
        }
    }

    /// How the path changes, if it does.
    pub fn path(&self) -> Option<&PathRewrite> {
        match self {
            Self::Forward(forward) => forward.path.as_ref(),
            Self::Redirect(redirect) => redirect.path.as_ref(),
            Self::Respond(_) => None,
        }
    }
}

/// How a request is forwarded.
#[derive(Debug, Clone, Default)]
pub struct Forward {
    /// To one of these, by weight. Empty: answered with 500 (Gateway API).
    pub backends: Vec<Backend>,
    /// Limit for the whole request. Zero or none: no limit.
    pub timeout: Option<Duration>,
    /// When it is tried again.
    pub retry: Option<Retry>,
    /// Who gets a copy of it.
    pub mirrors: Vec<Mirror>,
    /// The path that the backend sees.
    pub path: Option<PathRewrite>,
    /// The host that the backend sees.
    pub host: Option<String>,
}

/// A Service that requests are forwarded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The Service.
    pub destination: Destination,
    /// Its share is this by the sum of all.
    pub weight: u32,
    /// Changes of headers, for this backend only.
    pub headers: HeaderChanges,
    /// The host that this backend sees.
    pub host: Option<String>,
    /// Path of the field, for findings.
    pub field: String,
}

/// Part of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The Service.
    pub service: ServiceRef,
    /// Its port. None: its only one, or the one that the client called (Istio).
    pub port: Option<u16>,
    /// Only these of its endpoints (DestinationRule).
    pub subset: Option<String>,
}

/// How a rule names a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceRef {
    /// A Kubernetes Service.
    Name(Name),
    /// Whatever has this host name: a ServiceEntry.
    Host(String),
    /// An object of another kind, by kind and name: a rule may name it, and leads nowhere (Gateway API).
    OtherKind(String),
}

impl fmt::Display for ServiceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Host(text) | Self::OtherKind(text) => text.fmt(f),
        }
    }
}

/// A Service that gets copies of requests. Its answers are thrown away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The Service.
    pub destination: Destination,
    /// Of how many requests.
    pub share: Ppm,
    /// Path of the field, for findings.
    pub field: String,
}

/// A redirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// New scheme, `http` or `https`.
    pub scheme: Option<String>,
    /// New host name.
    pub hostname: Option<String>,
    /// New port. None: that of the new scheme, or what the request has.
    pub port: Option<RedirectPort>,
    /// New path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// The port of a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The one that the client called.
    OfRequest,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// How the path changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path becomes this.
    Full(String),
    /// The matched prefix becomes this, path element by path element.
    Prefix(String),
    /// What is matched becomes this, character by character.
    Characters(String),
    /// What this expression (RE2 syntax) finds becomes the text, in which `\1` is what the first group found.
    Regex(String, String),
}
