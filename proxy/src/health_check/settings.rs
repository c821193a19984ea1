//! `envoy.config.core.v3.HealthCheck`, compiled.

use std::ops::Range;
use std::time::Duration;

use http::Method;
use http::uri::PathAndQuery;

use super::{EventLog, Payload};
use crate::route::{HeaderMutations, StringMatcher};

/// How the hosts of a cluster are checked.
#[derive(Debug)]
pub struct HealthCheck {
    /// `readmission`, `check`, of our own metadata: only hosts are checked that outlier detection has taken out.
    pub only_ejected: bool,
    /// `timeout`, connecting included.
    pub timeout: Duration,
    /// When the next check is due.
    pub intervals: Intervals,
    /// What it takes for a host to change.
    pub thresholds: Thresholds,
    /// `reuse_connection`, default true.
    pub reuses_connection: bool,
    /// `tls_options.alpn_protocols`; empty: those of the cluster.
    pub alpn: Vec<Vec<u8>>,
    /// `http_health_check` and its like.
    pub kind: Kind,
    /// `event_log_path` and `event_logger`, open.
    pub logs: Vec<EventLog>,
    /// `always_log_health_check_failures`: not only those that change something.
    pub logs_each_failure: bool,
    /// `always_log_health_check_success`.
    pub logs_each_success: bool,
    /// `common_lb_config.ignore_new_hosts_until_first_hc`: a new host does not count among the hosts before its first check.
    pub ignores_new_hosts: bool,
    /// Not `ignore_health_on_host_removal`: a host that discovery has no more stays while its checks pass.
    pub keeps_healthy_hosts: bool,
}

/// How many checks in a row.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    /// `healthy_threshold`; the first check of all is enough by itself.
    pub healthy: u32,
    /// `unhealthy_threshold`.
    pub unhealthy: u32,
}

/// Times between the end of a check and the next one.
#[derive(Debug, Clone, Copy)]
pub struct Intervals {
    /// `interval`.
    pub healthy: Duration,
    /// `unhealthy_interval`, default `interval`.
    pub unhealthy: Duration,
    /// `healthy_edge_interval`, default `interval`: after a good check that did not change the host yet.
    pub healthy_edge: Duration,
    /// `unhealthy_edge_interval`, default `unhealthy_interval`: after a bad one that did not.
    pub unhealthy_edge: Duration,
    /// `no_traffic_interval`, default 60 s: while the cluster has never had a connection.
    pub no_traffic: Duration,
    /// `no_traffic_healthy_interval`, default `no_traffic_interval`: the same for a healthy host.
    pub no_traffic_healthy: Duration,
    /// `initial_jitter`: the first check is up to so much later.
    pub initial_jitter: Duration,
    /// `interval_jitter`: the others.
    pub jitter: Duration,
    /// `interval_jitter_percent`: and up to so many percent of the interval.
    pub jitter_percent: u32,
}

/// What a check does.
#[derive(Debug)]
pub enum Kind {
    /// `http_health_check`.
    Http(HttpCheck),
    /// `grpc_health_check`.
    Grpc(GrpcCheck),
    /// `tcp_health_check`.
    Tcp(TcpCheck),
}

/// The HTTP version of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `HTTP1`.
    Http1,
    /// `HTTP2`.
    Http2,
}

/// `HttpHealthCheck`.
#[derive(Debug)]
pub struct HttpCheck {
    /// `host`, else the cluster's name. An endpoint may have its own.
    pub host: Box<str>,
    /// `path`.
    pub path: PathAndQuery,
    /// `method`, default GET.
    pub method: Method,
    /// `send`: the request's body.
    pub send: Payload,
    /// `receive`: what must be in the response's body.
    pub receive: Payload,
    /// `response_buffer_size`, default 1024 bytes: how much of the body is looked at; 0: all.
    pub response_buffer_bytes: usize,
    /// `request_headers_to_add`, `request_headers_to_remove`.
    pub headers: HeaderMutations,
    /// `expected_statuses`, default 200.
    pub expected: Vec<Range<u16>>,
    /// `retriable_statuses`: others than these fail a host at once.
    pub retriable: Vec<Range<u16>>,
    /// `codec_client_type`.
    pub version: Version,
    /// `service_name_matcher`, for `x-envoy-upstream-healthchecked-cluster`.
    pub service_name: Option<StringMatcher>,
}

/// `GrpcHealthCheck`.
#[derive(Debug)]
pub struct GrpcCheck {
    /// `service_name`; empty: the server as a whole.
    pub service: Box<str>,
    /// `authority`, else the cluster's name. An endpoint may have its own.
    pub authority: Box<str>,
    /// `initial_metadata`.
    pub metadata: HeaderMutations,
}

/// `TcpHealthCheck`.
#[derive(Debug)]
pub struct TcpCheck {
    /// `send`.
    pub send: Payload,
    /// `receive`; empty: to be connected is enough.
    pub receive: Payload,
}

impl Kind {
    /// `envoy.data.core.v3.HealthCheckerType`.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Kind::Http(_) => "HTTP",
            Kind::Grpc(_) => "GRPC",
            Kind::Tcp(_) => "TCP",
        }
    }
}
