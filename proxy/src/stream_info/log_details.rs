//! What only some logs print of a stream: kept only when a format of the logs asks for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::HeaderValue;
use smallvec::SmallVec;

use super::ConnectionEnds;
use crate::cluster::{ConnectTimes, Host};
use crate::metadata::Metadata;

/// When a log line is written: `envoy.data.accesslog.v3.AccessLogType`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccessLogType {
    /// By a listener.
    #[default]
    NotSet,
    /// The TCP proxy has its upstream connection.
    TcpUpstreamConnected,
    /// From time to time, by the TCP proxy.
    TcpPeriodic,
    /// A TCP connection has ended.
    TcpConnectionEnd,
    /// A request has come.
    DownstreamStart,
    /// From time to time, by the connection manager.
    DownstreamPeriodic,
    /// A stream has ended.
    DownstreamEnd,
    /// The client was told that its tunnel is there.
    DownstreamTunnelSuccessfullyEstablished,
    /// A TCP connection has come.
    TcpConnectionStart,
}

impl AccessLogType {
    /// `%ACCESS_LOG_TYPE%`.
    pub fn name(self) -> &'static str {
        match self {
            AccessLogType::NotSet => "NotSet",
            AccessLogType::TcpUpstreamConnected => "TcpUpstreamConnected",
            AccessLogType::TcpPeriodic => "TcpPeriodic",
            AccessLogType::TcpConnectionEnd => "TcpConnectionEnd",
            AccessLogType::DownstreamStart => "DownstreamStart",
            AccessLogType::DownstreamPeriodic => "DownstreamPeriodic",
            AccessLogType::DownstreamEnd => "DownstreamEnd",
            AccessLogType::DownstreamTunnelSuccessfullyEstablished => {
                "DownstreamTunnelSuccessfullyEstablished"
            }
            AccessLogType::TcpConnectionStart => "TcpConnectionStart",
        }
    }
}

/// Bytes of one stream on one side of the proxy, framing included. HTTP/2 has none here: its streams share a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WireBytes {
    /// Of its whole messages, read.
    pub received: u64,
    /// The same, written.
    pub sent: u64,
    /// Of their header fields, as Envoy counts them: name, value, colon and the end of the line.
    pub fields_received: u64,
    /// The same, written.
    pub fields_sent: u64,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct LogDetails {
    /// Values of the trailers in the `CapturePlan`, in its order.
    pub trailers: SmallVec<[Option<HeaderValue>; 2]>,
    /// Bytes of the request's headers, names and values.
    pub request_header_bytes: u64,
    /// The same of the response.
    pub response_header_bytes: u64,
    /// The same of the response's trailers.
    pub trailer_bytes: u64,
    /// Its bytes between the client and here.
    pub downstream_wire: WireBytes,
    /// Its bytes between here and the upstream, of all attempts.
    pub upstream_wire: WireBytes,
    /// How its connections ended.
    pub ends: ConnectionEnds,
    /// The hosts of all attempts.
    pub hosts_attempted: SmallVec<[Arc<Host>; 1]>,
    /// The upstream connections of all attempts.
    pub connections_attempted: SmallVec<[u64; 1]>,
    /// The upstream connection's beginning.
    pub connect: Option<ConnectTimes>,
    /// From the attempt's beginning until it had a connection.
    pub pool_ready: Option<Duration>,
    /// The request began to go upstream.
    pub upstream_tx_begin: Option<Instant>,
    /// The first byte of the upstream's body came.
    pub upstream_rx_body_begin: Option<Instant>,
    /// The last byte of the upstream's response came.
    pub upstream_rx_end: Option<Instant>,
    /// The response began to go downstream.
    pub downstream_tx_begin: Option<Instant>,
    /// `metadata` of the route.
    pub route_metadata: Option<Arc<Metadata>>,
    /// `metadata` of the virtual host that has the route.
    pub virtual_host_metadata: Option<Arc<Metadata>>,
    /// The virtual cluster that counts it.
    pub virtual_cluster: Option<Arc<str>>,
    /// Names a TCP connection.
    pub stream_id: Option<HeaderValue>,
}
