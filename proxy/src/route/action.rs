//! What a matched route does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::{
    HashPolicy, HeaderMutations, HeaderText, HostRewrite, InternalRedirectPolicy, MatchedHeader, PathRewrite,
    RateLimits, RegexSubstitution, RequestView, RetryPolicy, Upgrades,
};
use crate::cluster::lb::Criteria;
use crate::cluster::{Cluster, ClusterNames};
use crate::config::live::Live;
use crate::http::filters::Overrides;

/// A name resolved once, at compile: the cell that holds (or will hold) the cluster.
pub type ClusterRef = Arc<Live<Cluster>>;

/// `Route.action`.
#[derive(Debug)]
pub enum Action {
    /// `route`.
    Route(Box<RouteAction>),
    /// `redirect`.
    Redirect(Redirect),
    /// `direct_response`.
    DirectResponse(DirectResponse),
}

/// `envoy.config.route.v3.RouteAction`.
#[derive(Debug)]
pub struct RouteAction {
    /// `cluster_specifier`.
    pub clusters: Clusters,
    /// `metadata_match`: what is asked of the hosts.
    pub criteria: Option<Arc<Criteria>>,
    /// `timeout`: default 15 s; 0 on the wire means `None`.
    pub timeout: Option<Duration>,
    /// The timeout as `x-envoy-expected-rq-timeout-ms`: see [`RouteAction::expected_timeout`].
    pub expected_timeout: Option<HeaderValue>,
    /// `idle_timeout`, overrides the HCM's `stream_idle_timeout`; `Some(ZERO)` switches it off.
    pub idle_timeout: Option<Duration>,
    /// `cluster_not_found_response_code`, default 503.
    pub cluster_not_found: StatusCode,
    /// `priority`: HIGH uses the second set of circuit breaker thresholds.
    pub high_priority: bool,
    /// `upgrade_configs`: overrides the HCM's.
    pub upgrades: Upgrades,
    /// `prefix_rewrite` or `regex_rewrite`.
    pub path_rewrite: Option<PathRewrite>,
    /// `host_rewrite_specifier`.
    pub host_rewrite: Option<HostRewrite>,
    /// `append_x_forwarded_host`: the host before it was rewritten.
    pub append_forwarded_host: bool,
    /// `max_stream_duration` is there, whatever it says.
    pub limits_stream: bool,
    /// `max_stream_duration.max_stream_duration`: overrides the HCM's; `Some(ZERO)` switches it off.
    pub max_stream_duration: Option<Duration>,
    /// `max_stream_duration.grpc_timeout_header_*`: a `grpc-timeout` limits the stream.
    pub grpc_stream_timeout: Option<GrpcTimeout>,
    /// `max_grpc_timeout`: a `grpc-timeout` stands for the route's timeout.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// `retry_policy` of the route, else of its virtual host.
    pub retry: Option<Arc<RetryPolicy>>,
    /// `internal_redirect_policy`.
    pub internal_redirects: Option<Box<InternalRedirectPolicy>>,
    /// `request_mirror_policies` of the route, else of its virtual host, else of its route configuration.
    pub mirrors: Box<[Mirror]>,
    /// `request_body_buffer_limit` or `per_request_buffer_limit_bytes` of the route, else of its virtual host: what is kept of a body
    /// to be sent again.
    pub buffer_limit_bytes: Option<u64>,
    /// A format of a weighted cluster's `response_headers` prints something of the request.
    pub keeps_request_head: bool,
    /// `hash_policy`, in order.
    pub hash_policies: Box<[HashPolicy]>,
    /// `rate_limits` of the route and its virtual host; `None`: there are none.
    pub rate_limits: Option<Box<RateLimits>>,
}

/// How a client's `grpc-timeout` is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// No more than this; zero = whatever it says.
    pub max: Duration,
    /// So much less than it says, unless nothing would be left.
    pub offset: Duration,
}

/// `RouteAction.RequestMirrorPolicy`.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// `cluster` or `cluster_header`.
    pub cluster: ClusterSource,
    /// `runtime_fraction` in parts per million; `None` = always.
    pub fraction_ppm: Option<u32>,
    /// `host_rewrite_literal`.
    pub host: Option<HeaderValue>,
    /// Without `disable_shadow_host_suffix_append` the host ends in `-shadow`.
    pub host_suffix: bool,
}

impl RouteAction {
    /// Everything to this cluster, without limits.
    pub fn to(clusters: Clusters) -> Self {
        Self {
            clusters,
            criteria: None,
            timeout: None,
            expected_timeout: None,
            idle_timeout: None,
            cluster_not_found: StatusCode::SERVICE_UNAVAILABLE,
            high_priority: false,
            upgrades: Upgrades::default(),
            path_rewrite: None,
            host_rewrite: None,
            append_forwarded_host: false,
            limits_stream: false,
            max_stream_duration: None,
            grpc_stream_timeout: None,
            grpc_timeout: None,
            retry: None,
            internal_redirects: None,
            mirrors: Box::default(),
            buffer_limit_bytes: None,
            keeps_request_head: false,
            hash_policies: Box::default(),
            rate_limits: None,
        }
    }

    /// What is asked of the hosts when this cluster was drawn.
    pub fn criteria(&self, drawn: Drawn) -> Option<&Criteria> {
        let own = self.clusters.weighted(drawn).and_then(|weighted| weighted.criteria.as_deref());
        own.or(self.criteria.as_deref())
    }

    /// A timeout as the header that tells the upstream how long we wait, in milliseconds.
    pub fn expected_timeout(timeout: Option<Duration>) -> Option<HeaderValue> {
        timeout.map(|t| HeaderValue::from(t.as_millis() as u64))
    }
}

/// A cluster among several.
#[derive(Debug, Clone)]
pub enum ClusterSource {
    /// By its name.
    Named(ClusterRef),
    /// `cluster_header`: the request names it.
    Header(ClusterHeader),
}

/// Which cluster a request goes to.
#[derive(Debug)]
pub enum Clusters {
    /// `cluster`.
    Single(ClusterRef),
    /// `weighted_clusters`.
    Weighted {
        /// In wire order; zero weights are left out.
        clusters: Vec<WeightedCluster>,
        /// Sum of weights, at least 1.
        total: u64,
    },
    /// `cluster_header`.
    Header(ClusterHeader),
}

/// A header by which the request names its cluster. What it names is found when the route is; it may be anything.
#[derive(Debug, Clone)]
pub struct ClusterHeader {
    /// Only its first value counts.
    pub header: MatchedHeader,
    /// All clusters that there are.
    pub clusters: Arc<ClusterNames>,
}

/// The cluster that a request names by its header.
#[derive(Debug, Clone)]
pub struct NamedCluster {
    /// As the request says it.
    pub value: HeaderValue,
    /// `None`: there is none of this name.
    pub cell: Option<ClusterRef>,
}

impl ClusterHeader {
    /// The cluster that the request names; `None`: it names none.
    pub fn named(&self, request: &RequestView<'_>) -> Option<NamedCluster> {
        let value = self.header.first(request).filter(|value| !value.is_empty())?;
        let mut named = NamedCluster { value, cell: None };
        self.find(&mut named);
        Some(named)
    }

    /// Looks for the cluster again.
    pub fn find(&self, named: &mut NamedCluster) {
        named.cell = named.name().and_then(|name| self.clusters.find(name));
    }
}

impl NamedCluster {
    /// The name; `None`: it is not text, and so no cluster's.
    pub fn name(&self) -> Option<&str> {
        std::str::from_utf8(self.value.as_bytes()).ok()
    }
}

/// `WeightedCluster.ClusterWeight`.
#[derive(Debug)]
pub struct WeightedCluster {
    /// `name` or `cluster_header`.
    pub cluster: ClusterSource,
    /// `weight`, at least 1.
    pub weight: u32,
    /// `metadata_match`, on top of that of the route; `None`: that of the route.
    pub criteria: Option<Arc<Criteria>>,
    /// `request_headers_to_*`, before those of the route.
    pub request_headers: HeaderMutations,
    /// `response_headers_to_*`, before those of the route.
    pub response_headers: HeaderMutations,
    /// `host_rewrite_literal`: overrides the route's.
    pub host_rewrite: Option<HeaderValue>,
    /// `typed_per_filter_config`, on top of what the route says.
    pub overrides: Option<Arc<Overrides>>,
}

impl WeightedCluster {
    /// A share for a cluster, and nothing else.
    pub fn new(cluster: ClusterRef, weight: u32) -> Self {
        Self {
            cluster: ClusterSource::Named(cluster),
            weight,
            criteria: None,
            request_headers: HeaderMutations::default(),
            response_headers: HeaderMutations::default(),
            host_rewrite: None,
            overrides: None,
        }
    }
}

/// Which of the weighted clusters was drawn for a request; `None` where there is only one cluster.
pub type Drawn = Option<usize>;

impl Clusters {
    /// Draws by `random`, uniform over all `u64`.
    pub fn draw(&self, random: u64) -> Drawn {
        let Clusters::Weighted { clusters, total } = self else { return None };
        let mut left = random % total;
        let drawn = clusters.iter().position(|c| match left.checked_sub(u64::from(c.weight)) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        // Always one is found, as `total` is the sum.
        drawn.or(Some(clusters.len() - 1))
    }

    /// The weighted cluster that was drawn.
    pub fn weighted(&self, drawn: Drawn) -> Option<&WeightedCluster> {
        match self {
            Clusters::Single(_) | Clusters::Header(_) => None,
            Clusters::Weighted { clusters, .. } => clusters.get(drawn?),
        }
    }

    /// The cluster that was drawn; `None`: the request names it.
    pub fn cluster(&self, drawn: Drawn) -> Option<&ClusterRef> {
        match self {
            Clusters::Single(cluster) => Some(cluster),
            Clusters::Weighted { clusters, .. } => match &clusters[drawn.unwrap_or(0)].cluster {
                ClusterSource::Named(cluster) => Some(cluster),
                ClusterSource::Header(_) => None,
            },
            Clusters::Header(_) => None,
        }
    }

    /// The header by which the request names its cluster, if that was drawn.
    pub fn header(&self, drawn: Drawn) -> Option<&ClusterHeader> {
        match (self, self.weighted(drawn).map(|weighted| &weighted.cluster)) {
            (Clusters::Header(header), _) | (_, Some(ClusterSource::Header(header))) => Some(header),
            _ => None,
        }
    }
}

/// `envoy.config.route.v3.DirectResponseAction`.
#[derive(Debug)]
pub struct DirectResponse {
    /// `status`.
    pub status: StatusCode,
    /// `body`, read at compile.
    pub body: Bytes,
    /// Headers that the compiler added (`content-type: text/plain` with a body).
    pub headers: HeaderMap,
}

/// `envoy.config.route.v3.RedirectAction`.
#[derive(Debug)]
pub struct Redirect {
    /// `response_code`.
    pub status: StatusCode,
    /// `https_redirect` or `scheme_redirect`.
    pub scheme: Option<Box<str>>,
    /// `host_redirect`.
    pub host: Option<Box<str>>,
    /// `port_redirect`, 0 = unset.
    pub port: u16,
    /// `path_redirect`, `prefix_rewrite` or `regex_rewrite`.
    pub path: PathRedirect,
    /// `strip_query`.
    pub strip_query: bool,
}

/// How a redirect changes the path.
#[derive(Debug)]
pub enum PathRedirect {
    /// Not at all.
    Keep,
    /// `path_redirect`: the whole path; its own query, if any, wins.
    Replace(Box<str>),
    /// `prefix_rewrite`: the matched prefix.
    Prefix(Box<str>),
    /// `regex_rewrite`.
    Regex(RegexSubstitution),
    /// `path_rewrite`: the whole path.
    Format(HeaderText),
}
