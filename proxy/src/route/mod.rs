//! Routing: from (authority, path, headers) to a route. Pure: no I/O, no clock.

mod action;
mod cookie_match;
mod domains;
mod hash_policy;
mod header_mutation;
mod index;
mod internal_redirect;
mod matcher;
pub(crate) mod query_match;
mod rate_limit;
mod response_match;
mod retry;
mod retry_hosts;
mod rewrite;
mod upgrades;
mod virtual_cluster;

pub use action::{
    Action, ClusterHeader, ClusterRef, ClusterSource, Clusters, DirectResponse, Drawn, GrpcTimeout, Mirror,
    NamedCluster, PathRedirect, Redirect, RouteAction, WeightedCluster,
};
pub use cookie_match::CookieMatcher;
pub use domains::DomainIndex;
pub(crate) use domains::without_port;
pub use hash_policy::{HashCookie, HashPolicy, HashSource, HashedRequest, RequestHash, hash_address};
pub use header_mutation::{AppendAction, HeaderAddition, HeaderMutations, HeaderText, MutationSteps};
pub use internal_redirect::{InternalRedirectPolicy, RedirectPredicate};
pub use matcher::{
    HeaderMatcher, MatchedHeader, PathMatcher, PeerCertificate, PeerCertificateMatcher, RouteMatch,
    StringMatcher, ValueMatcher, is_grpc,
};
pub use query_match::QueryMatcher;
pub use rate_limit::{
    Described, Descriptor, DescriptorEntry, DescriptorValue, RateLimit, RateLimitAction, RateLimitCondition,
    RateLimits,
};
pub use response_match::ResponsePredicate;
pub use retry::{BackOff, RateLimitedBackOff, ResetFormat, RetryOn, RetryPolicy};
pub use retry_hosts::{HostPredicate, PreviousPriorities};
pub use rewrite::{HostRewrite, PathRewrite, RegexSubstitution};
pub use upgrades::{Upgrade, Upgrades};
pub use virtual_cluster::{VirtualCluster, VirtualClusters};

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::http::filters::Overrides;
use crate::metadata::Metadata;
use crate::on_demand::Asker;
use crate::stats::RouteStats;
use index::RouteIndex;

/// `envoy.config.route.v3.RouteConfiguration`, compiled.
#[derive(Debug)]
pub struct RouteConfiguration {
    /// `name`.
    pub name: Arc<str>,
    /// Domain look-up over `virtual_hosts`.
    pub domains: DomainIndex,
    /// `virtual_hosts`; those that an update leaves unchanged keep their `Arc`.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// `ignore_port_in_host_matching`.
    pub ignore_port: bool,
    /// `ignore_path_parameters_in_path_matching`: what stands in a segment of the path from `;` on does not count.
    pub ignore_path_parameters: bool,
    /// `vhost_header`: names the virtual host in place of the authority.
    pub vhost_header: Option<HeaderName>,
    /// `internal_only_headers`: taken from requests that come from outside.
    pub internal_only_headers: Box<[HeaderName]>,
    /// `max_direct_response_body_size_bytes` was checked at compile; kept for `/config_dump` readers.
    pub version: Arc<str>,
    /// `vhds`: asks for virtual hosts that are not here, by `name/authority`.
    pub vhds: Option<Asker>,
}

/// `envoy.config.route.v3.VirtualHost`, compiled.
#[derive(Debug)]
pub struct VirtualHost {
    /// `name`.
    pub name: Arc<str>,
    /// `domains`.
    pub domains: Vec<Box<str>>,
    /// `routes`, first match wins.
    pub routes: Vec<Arc<Route>>,
    /// `require_tls`: which plaintext requests are redirected to https.
    pub require_tls: RequireTls,
    /// Hash of the wire form, so that an equal one is reused.
    pub hash: u64,
    index: Option<RouteIndex>,
}

/// `VirtualHost.TlsRequirementType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequireTls {
    /// `NONE`.
    None,
    /// `EXTERNAL_ONLY`: requests that are not internal.
    ExternalOnly,
    /// `ALL`.
    All,
}

/// `envoy.config.route.v3.Route`, compiled.
#[derive(Debug)]
pub struct Route {
    /// `name`.
    pub name: Option<Arc<str>>,
    /// `match`.
    pub matcher: RouteMatch,
    /// `route`, `redirect` or `direct_response`.
    pub action: Action,
    /// `request_headers_to_*` of the route, its virtual host and its route configuration.
    pub request_headers: MutationSteps,
    /// `response_headers_to_*` of these.
    pub response_headers: MutationSteps,
    /// A format of `response_headers` prints something of the request, which has to be kept for it.
    pub keeps_request_head: bool,
    /// `typed_per_filter_config` of the route, its virtual host and its route configuration.
    pub overrides: Option<Arc<Overrides>>,
    /// `metadata`, for logs.
    pub metadata: Option<Arc<Metadata>>,
    /// `metadata` of the virtual host.
    pub virtual_host_metadata: Option<Arc<Metadata>>,
    /// Its own statistics, with a `stat_prefix`.
    pub stats: Option<Arc<RouteStats>>,
    /// `virtual_clusters` of the virtual host.
    pub virtual_clusters: Option<Arc<VirtualClusters>>,
    /// `include_request_attempt_count` of the virtual host.
    pub attempt_count_in_request: bool,
    /// `include_attempt_count_in_response` of the virtual host.
    pub attempt_count_in_response: bool,
}

impl Route {
    /// A route that changes no header.
    pub fn new(matcher: RouteMatch, action: Action) -> Self {
        Self {
            name: None,
            matcher,
            action,
            request_headers: Box::default(),
            response_headers: Box::default(),
            keeps_request_head: false,
            overrides: None,
            metadata: None,
            virtual_host_metadata: None,
            stats: None,
            virtual_clusters: None,
            attempt_count_in_request: false,
            attempt_count_in_response: false,
        }
    }

    /// Whether a request that goes this way may be another one then.
    pub fn changes_request(&self) -> bool {
        let Action::Route(action) = &self.action else { return false };
        !self.request_headers.is_empty()
            || self.attempt_count_in_request
            || action.host_rewrite.is_some()
            || action.path_rewrite.is_some()
            || matches!(action.clusters, Clusters::Weighted { .. })
    }
}

impl RouteConfiguration {
    /// The virtual host of a request.
    pub fn virtual_host_of(&self, request: &RequestView<'_>) -> Option<&Arc<VirtualHost>> {
        match &self.vhost_header {
            None => self.virtual_host(request.authority),
            Some(name) => self.virtual_host(request.headers.get(name)?.to_str().ok()?),
        }
    }

    /// The part of a path (without query) that routes are matched with.
    pub fn matched_path<'p>(&self, path: &'p str) -> Cow<'p, str> {
        if !self.ignore_path_parameters || !path.contains(';') {
            return path.into();
        }
        let segments = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
        segments.collect::<Vec<_>>().join("/").into()
    }

    /// The virtual host for an authority (`host[:port]`), by Envoy's precedence: exact, longest suffix wildcard, longest prefix
    /// wildcard, `*`.
    pub fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        self.domains.find(authority, self.ignore_port).map(|i| &self.virtual_hosts[i])
    }
}

impl VirtualHost {
    /// A virtual host with the index of its routes.
    pub fn new(
        name: Arc<str>,
        domains: Vec<Box<str>>,
        routes: Vec<Arc<Route>>,
        require_tls: RequireTls,
        hash: u64,
    ) -> Self {
        Self { index: RouteIndex::build(&routes), name, domains, routes, require_tls, hash }
    }

    /// The first route that matches; `path` is without query and fragment.
    pub fn route(&self, path: &str, request: &RequestView<'_>) -> Option<&Arc<Route>> {
        match &self.index {
            None => self.routes.iter().find(|r| r.matcher.matches(path, request)),
            Some(index) => {
                let candidates = index.candidates(path);
                candidates
                    .iter()
                    .map(|&i| &self.routes[i as usize])
                    .find(|r| r.matcher.matches(path, request))
            }
        }
    }

    /// The first route that matches a CONNECT, which has no path.
    pub fn connect_route(&self, request: &RequestView<'_>) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.matcher.matches_connect(request))
    }
}

/// The request as matchers see it: pseudo-headers are looked up by their names.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// `:method`.
    pub method: &'a str,
    /// `:path`, with its query.
    pub path: &'a str,
    /// `:authority`.
    pub authority: &'a str,
    /// `:scheme`.
    pub scheme: &'a str,
    /// All other headers.
    pub headers: &'a HeaderMap,
    /// Uniform in 0..1_000_000, for `runtime_fraction`.
    pub random_ppm: u32,
    /// What the client has shown.
    pub peer: PeerCertificate,
}
