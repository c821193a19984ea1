//! Requests of a part of a virtual host: `vhost.HOST.vcluster.NAME.upstream_rq_*` of a virtual cluster, `vhost.HOST.route.PREFIX.upstream_rq_*`
//! of a route with a `stat_prefix`.

use std::sync::Arc;

use super::scope::{Family, Field, Scope};
use super::{Counter, Histogram, ResponseClasses, ResponseCodes};

/// Of a virtual cluster.
pub type VirtualClusterStats = PartStats<false>;
/// Of a route.
pub type RouteStats = PartStats<true>;

/// What is counted of the requests.
#[derive(Debug, Default)]
pub struct RequestStats {
    /// Attempts that got a connection.
    pub total: Counter,
    /// Requests whose route's timeout ended them.
    pub timeout: Counter,
    /// Retries.
    pub retry: Counter,
    /// Requests that a retry saved.
    pub retry_success: Counter,
    /// Requests that were not retried because enough retries were made.
    pub retry_limit_exceeded: Counter,
    /// Requests that were not retried because a circuit breaker was open.
    pub retry_overflow: Counter,
    /// From a request's start to the end of its response.
    pub time: Histogram,
    completed: Counter,
    classes: ResponseClasses,
    codes: ResponseCodes,
}

impl RequestStats {
    /// Counts the response to a request, the upstream's or one in its place.
    pub fn response(&self, code: u16) {
        self.completed.inc();
        self.classes.count(code);
        self.codes.count(code);
    }
}

/// The requests of one part.
#[derive(Debug)]
pub struct PartStats<const ROUTE: bool> {
    labels: Box<[Arc<str>]>,
    /// Its requests.
    pub requests: RequestStats,
}

macro_rules! family {
    ($field:ident, $name:literal, $help:literal) => {
        Family { name: $name, help: $help, get: |stats| stats.requests.$field.metric() }
    };
}

impl<const ROUTE: bool> Scope for PartStats<ROUTE> {
    const GROUP: &'static str = if ROUTE { "vhost.route" } else { "vhost.vcluster" };
    const LABELS: &'static [&'static str] = if ROUTE {
        &["envoy_virtual_host", "envoy_route"]
    } else {
        &["envoy_virtual_host", "envoy_virtual_cluster"]
    };
    const FAMILIES: &'static [Family<Self>] = &[
        family!(total, "upstream_rq_total", "Attempts that got a connection."),
        family!(completed, "upstream_rq_completed", "Requests that got a response."),
        family!(timeout, "upstream_rq_timeout", "Requests whose route's timeout ended them."),
        family!(retry, "upstream_rq_retry", "Retries."),
        family!(retry_success, "upstream_rq_retry_success", "Requests that a retry saved."),
        family!(
            retry_limit_exceeded,
            "upstream_rq_retry_limit_exceeded",
            "Requests that were not retried because enough retries were made."
        ),
        family!(
            retry_overflow,
            "upstream_rq_retry_overflow",
            "Requests that were not retried because a circuit breaker was open."
        ),
        family!(
            time,
            "upstream_rq_time",
            "Time from a request's start to the end of its response, milliseconds."
        ),
    ];

    fn new(labels: Box<[Arc<str>]>) -> Self {
        Self { labels, requests: RequestStats::default() }
    }

    fn labels(&self) -> &[Arc<str>] {
        &self.labels
    }

    fn push_prefix(&self, dotted: &mut String) {
        let [host, part] = &*self.labels else { return };
        for part in ["vhost", host, if ROUTE { "route" } else { "vcluster" }, part] {
            dotted.push_str(part);
            dotted.push('.');
        }
    }

    fn responses(&self) -> Option<(&'static str, &ResponseClasses, Option<&ResponseCodes>)> {
        Some(("upstream_rq", &self.requests.classes, Some(&self.requests.codes)))
    }
}
