//! What a matched route does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::cluster::Cluster;
use crate::config::live::Live;
use crate::route::Upgrades;

/// A name resolved once, at compile: the cell that holds (or will hold) the cluster.
pub type ClusterRef = Arc<Live<Cluster>>;

/// `Route.action`.
#[derive(Debug)]
pub enum Action {
    /// `route`.
    Route(RouteAction),
    /// `redirect`.
    Redirect(Redirect),
    /// `direct_response`.
    DirectResponse(DirectResponse),
}

/// `envoy.config.route.v3.RouteAction`.
#[derive(Debug)]
pub struct RouteAction {
    /// `cluster` or `weighted_clusters`.
    pub clusters: Clusters,
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
}

impl RouteAction {
    /// A timeout as the header that tells the upstream how long we wait, in milliseconds.
    pub fn expected_timeout(timeout: Option<Duration>) -> Option<HeaderValue> {
        timeout.map(|t| HeaderValue::from(t.as_millis() as u64))
    }
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
}

/// `WeightedCluster.ClusterWeight`.
#[derive(Debug)]
pub struct WeightedCluster {
    /// `name`.
    pub cluster: ClusterRef,
    /// `weight`, at least 1.
    pub weight: u32,
}

impl Clusters {
    /// Picks by `random`, uniform over all `u64`.
    pub fn pick(&self, random: u64) -> &ClusterRef {
        match self {
            Clusters::Single(c) => c,
            Clusters::Weighted { clusters, total } => {
                let mut left = random % total;
                for c in clusters {
                    match left.checked_sub(u64::from(c.weight)) {
                        Some(rest) => left = rest,
                        None => return &c.cluster,
                    }
                }
                // Unreachable while `total` is the sum; the last one keeps it total.
                &clusters[clusters.len() - 1].cluster
            }
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
    Regex(regex::Regex, Box<str>),
}
