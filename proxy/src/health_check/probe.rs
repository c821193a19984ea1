//! One check of one host, whatever it speaks.

use std::sync::Arc;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::checker::Subject;
use super::decide::Failure;
use super::{HealthCheck, Kind, grpc, http as http_check, tcp};
use crate::cluster::{Cluster, Host};
use crate::formatter::RequestLine;
use crate::net::Address;
use crate::route::HeaderMutations;
use crate::stream_info::{ConnectionInfo, StreamInfo};
use crate::transport_socket::UpstreamTransport;

/// What applications know checks by.
const USER_AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");

/// Whom a check asks.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) subject: Arc<Subject>,
    /// As it is now.
    pub(super) cluster: Arc<Cluster>,
    pub(super) host: Arc<Host>,
    /// Where it is checked.
    pub(super) address: Address,
    /// `health_check_config.hostname` of the endpoint.
    pub(super) hostname: Option<Box<str>>,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is well; `degraded`: but had rather not be asked for much.
    Passed { degraded: bool },
    /// It is not.
    Failed(Failure),
}

impl Outcome {
    pub(super) const WELL: Outcome = Outcome::Passed { degraded: false };
    pub(super) const NO_ANSWER: Outcome = Outcome::Failed(Failure::Network);
}

impl Context {
    pub(super) fn check(&self) -> &HealthCheck {
        &self.subject.check
    }

    /// The name that the host is asked by: the endpoint's own, else what the check says, else the cluster's.
    pub(super) fn name<'a>(&'a self, of_check: &'a str) -> &'a str {
        match &self.hostname {
            Some(own) => own,
            None if of_check.is_empty() => &self.cluster.name,
            None => of_check,
        }
    }

    pub(super) fn scheme(&self) -> Scheme {
        match &self.cluster.connection.transport {
            UpstreamTransport::Plaintext => Scheme::HTTP,
            UpstreamTransport::Tls(_) => Scheme::HTTPS,
        }
    }

    /// An absolute URI, for HTTP/2; `None`: the name is no authority.
    pub(super) fn uri(&self, name: &str, path: &PathAndQuery) -> Option<Uri> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme());
        parts.authority = Some(name.parse::<Authority>().ok()?);
        parts.path_and_query = Some(path.clone());
        Uri::from_parts(parts).ok()
    }

    /// Adds what all checks send and what the configuration changes of it.
    pub(super) fn complete(
        &self,
        headers: &mut HeaderMap,
        mutations: &HeaderMutations,
        (method, path, name): (&Method, &PathAndQuery, &str),
    ) {
        headers.insert(header::USER_AGENT, USER_AGENT);
        if mutations.is_empty() {
            return;
        }
        let scheme = self.scheme();
        let line = RequestLine {
            method: method.as_str(),
            path: path.as_str(),
            authority: name,
            scheme: scheme.as_str(),
        };
        let mut info = StreamInfo::new(Arc::new(ConnectionInfo::of_own_request()), None);
        info.upstream_host = Some(self.host.clone());
        mutations.apply_to_request(headers, line, &info);
    }
}

/// Does the checks of one host.
#[derive(Debug)]
pub(super) enum Probe {
    Http(http_check::HttpProbe),
    Grpc(grpc::GrpcProbe),
    Tcp(tcp::TcpProbe),
}

impl Probe {
    /// Without a connection.
    pub(super) fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Http(_) => Probe::Http(Default::default()),
            Kind::Grpc(_) => Probe::Grpc(Default::default()),
            Kind::Tcp(_) => Probe::Tcp(Default::default()),
        }
    }

    /// Asks the host. Has no timeout of its own; given up in the middle, it is to hear of that by [`Self::give_up`].
    pub(super) async fn check(&mut self, context: &Context) -> Outcome {
        match (self, &context.check().kind) {
            (Probe::Http(probe), Kind::Http(check)) => probe.check(context, check).await,
            (Probe::Grpc(probe), Kind::Grpc(check)) => probe.check(context, check).await,
            (Probe::Tcp(probe), Kind::Tcp(check)) => probe.check(context, check).await,
            // Made of the same check.
            _ => Outcome::NO_ANSWER,
        }
    }

    /// The host did not answer in time.
    pub(super) fn give_up(&mut self) {
        match self {
            Probe::Http(probe) => probe.close(),
            // The stream is reset, its connection is as good as before.
            Probe::Grpc(_) => {}
            Probe::Tcp(probe) => probe.close(),
        }
    }

    /// The cluster connects in another way now.
    pub(super) fn close(&mut self) {
        match self {
            Probe::Http(probe) => probe.close(),
            Probe::Grpc(probe) => probe.close(),
            Probe::Tcp(probe) => probe.close(),
        }
    }

    /// Waits until the connection breaks between two checks, where that says something of the host.
    pub(super) async fn breaks(&mut self) {
        match self {
            // Servers close idle connections.
            Probe::Http(_) | Probe::Grpc(_) => std::future::pending().await,
            Probe::Tcp(probe) => probe.breaks().await,
        }
    }
}
