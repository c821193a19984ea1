//! A compiled cluster: everything that a request needs to know about one upstream service.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::outlier::OutlierDetection;
use super::{CircuitBreakers, EndpointSet, HappyEyeballs, Host};
use crate::cluster::lb::LbPolicy;
use crate::config::live::Live;
use crate::metadata::Metadata;
use crate::route::ResponsePredicate;
use crate::stats::ClusterStats;
use crate::transport_socket::UpstreamTransport;

/// `envoy.config.cluster.v3.Cluster`, compiled. Immutable; what changes while it lives sits behind its own `Arc`.
#[derive(Debug)]
pub struct Cluster {
    /// `name`.
    pub name: Arc<str>,
    /// `lb_policy`.
    pub lb: LbPolicy,
    /// Hosts, published by EDS or by the cluster itself (`STATIC`). The cell outlives updates of the cluster.
    pub endpoints: Arc<Live<EndpointSet>>,
    /// How connections are made; kept (same `Arc`) by an update that does not touch it, so that pools stay.
    pub connection: Arc<ConnectionSettings>,
    /// `circuit_breakers`; counters survive updates of the cluster.
    pub circuit_breakers: Arc<CircuitBreakers>,
    /// `outlier_detection`.
    pub outlier: Option<Arc<OutlierDetection>>,
    /// `envoy_cluster_*`.
    pub stats: Arc<ClusterStats>,
    /// Destination labels for mesh metrics, from `metadata.filter_metadata.istio.services[0]`, else taken from the name.
    pub destination: Arc<MeshDestination>,
    /// `metadata`, for logs.
    pub metadata: Option<Arc<Metadata>>,
}

impl Cluster {
    /// Its hosts now, each with its priority.
    pub fn hosts(&self) -> Vec<(usize, Arc<Host>)> {
        if let LbPolicy::OriginalDst { destinations, .. } = &self.lb {
            return destinations.hosts().into_iter().map(|host| (0, host)).collect();
        }
        let set = self.endpoints.get();
        let priorities = set.iter().flat_map(|set| set.priorities.iter().enumerate());
        priorities
            .flat_map(|(priority, hosts)| hosts.hosts.iter().map(move |host| (priority, host.clone())))
            .collect()
    }
}

/// How a connection to a host of the cluster is made, and what `HttpProtocolOptions` say of what it carries.
#[derive(Debug)]
pub struct ConnectionSettings {
    /// `connect_timeout`, default 5 s; includes the TLS handshake.
    pub connect_timeout: Duration,
    /// `transport_socket`.
    pub transport: UpstreamTransport,
    /// `HttpProtocolOptions`: which HTTP version is spoken.
    pub protocol: UpstreamProtocol,
    /// `common_http_protocol_options.idle_timeout`, default 1 h; `None` = never.
    pub idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`, default off: no request begins on an older connection.
    pub max_connection_duration: Option<Duration>,
    /// `common_http_protocol_options.max_stream_duration` of an attempt, default off.
    pub max_stream_duration: Option<Duration>,
    /// `outlier_detection.error_matcher`: the responses that are errors to outlier detection; `None`: 5xx.
    pub errors: Option<Arc<ResponsePredicate>>,
    /// `common_http_protocol_options.max_requests_per_connection`; 0 = no limit.
    pub max_requests_per_connection: u32,
    /// `common_http_protocol_options.max_response_headers_kb`, in bytes; `None` = the default of the HTTP version.
    pub max_response_headers_bytes: Option<u32>,
    /// `common_http_protocol_options.max_headers_count`, default 100.
    pub max_response_headers_count: u32,
    /// `http2_protocol_options.max_concurrent_streams` (as a client: how many we open), default 2147483647 (Envoy 1.40: 1024).
    pub max_concurrent_streams: u32,
    /// `per_connection_buffer_limit_bytes`, default 1 MiB; `u32::MAX`: no limit (0 in the file).
    pub buffer_limit_bytes: u32,
    /// `http2_protocol_options.initial_stream_window_size`, bytes; no more than the buffer limit is granted.
    pub initial_stream_window_bytes: u32,
    /// `http2_protocol_options.initial_connection_window_size`, bytes.
    pub initial_connection_window_bytes: u32,
    /// `http2_protocol_options.connection_keepalive`, default off.
    pub http2_keep_alive: Option<Http2KeepAlive>,
    /// `http_protocol_options.enable_trailers`: trailers go on to HTTP/1 hosts and from them.
    pub http1_trailers: bool,
    /// `http_protocol_options.header_key_format`: how names of requests are written to HTTP/1 hosts.
    pub header_case: HeaderCase,
    /// `upstream_bind_config.source_address` (the cluster's, else the cluster manager's).
    pub source_address: Option<IpAddr>,
    /// `upstream_connection_options.tcp_keepalive`: idle seconds, interval seconds, probes.
    pub tcp_keepalive: Option<(Duration, Duration, u32)>,
    /// `upstream_connection_options.happy_eyeballs_config`: in which order the addresses of a host are tried.
    pub happy_eyeballs: HappyEyeballs,
    /// How long a connection may outlive its peer's certificate; `None`: as long as it lasts.
    pub peer_certificate_grace: Option<Duration>,
}

/// `header_key_format`: how names of header fields are written in HTTP/1. Lower case, when nothing is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeaderCase {
    /// `stateful_formatter` with `preserve_case`: the names of messages that are read here keep their case where they are written.
    pub keeps: bool,
    /// `proper_case_words`, or `formatter_type_on_envoy_headers: PROPER_CASE` for names that have no case to keep: a capital letter at
    /// the beginning and after each hyphen.
    pub proper: bool,
}

/// `connection_keepalive` of `http2_protocol_options`: PINGs, and for how long the peer may say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2KeepAlive {
    /// `interval`: from the last answer to the next PING.
    pub interval: Duration,
    /// `timeout`: after a PING something must be heard of the peer within.
    pub timeout: Duration,
    /// `interval_jitter`, of the interval, which it makes longer; default 15.
    pub jitter_percent: u32,
}

/// Which HTTP version goes upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// `explicit_http_config.http_protocol_options`, and the default.
    Http1,
    /// `explicit_http_config.http2_protocol_options`.
    Http2,
    /// `use_downstream_protocol_config`.
    UseDownstream,
}

/// Labels of the service behind a cluster, for `istio_requests_total`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MeshDestination {
    /// `destination_service`: host name.
    pub service: Arc<str>,
    /// `destination_service_name`.
    pub service_name: Arc<str>,
    /// `destination_service_namespace`.
    pub service_namespace: Arc<str>,
}
