//! How a stream's connections ended, for logs that print it.

use std::io;
use std::sync::Arc;

/// `%DOWNSTREAM_DETECTED_CLOSE_TYPE%`, `%UPSTREAM_DETECTED_CLOSE_TYPE%`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CloseType {
    /// In order, or not yet.
    #[default]
    Normal,
    /// Reset by us.
    LocalReset,
    /// Reset by the peer.
    RemoteReset,
}

impl CloseType {
    /// A connection that broke with this error.
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset => CloseType::RemoteReset,
            _ => CloseType::Normal,
        }
    }

    /// As logs print it.
    pub fn name(self) -> &'static str {
        match self {
            CloseType::Normal => "Normal",
            CloseType::LocalReset => "LocalReset",
            CloseType::RemoteReset => "RemoteReset",
        }
    }
}

/// How they ended.
#[derive(Debug, Clone, Default)]
pub struct ConnectionEnds {
    /// The connection of the client.
    pub downstream: CloseType,
    /// The connection to the upstream, below HTTP.
    pub upstream: Option<CloseType>,
    /// Why we closed the client's: one of [`close_reasons`].
    pub local_reason: Option<&'static str>,
    /// Why we closed the upstream's.
    pub upstream_local_reason: Option<&'static str>,
    /// Why the client's transport failed, for people.
    pub transport_failure: Option<Arc<str>>,
}

/// Why a connection was closed by us, in Envoy's words.
pub mod close_reasons {
    /// It was idle for too long.
    pub const IDLE: &str = "on_idle_timeout";
    /// It was open for too long.
    pub const MAX_DURATION: &str = "duration_timeout";
    /// Its last response was written.
    pub const LAST_RESPONSE: &str = "deferred_close_on_drained_connection";
    /// The client did not end its side within `delayed_close_timeout`.
    pub const DELAYED_CLOSE: &str = "triggered_delayed_close_timeout";
    /// What came is not HTTP.
    pub const CODEC_ERROR: &str = "codec_error:http/1.1_protocol_error";
    /// A connection below HTTP was idle for too long.
    pub const TCP_IDLE: &str = "tcp_session_idle_timeout";
    /// It was open for too long.
    pub const TCP_MAX_DURATION: &str = "max_connection_duration_reached";
    /// No host of the cluster could be connected to; here and below the spelling is Envoy's.
    pub const TCP_NOT_CONNECTED: &str = "tcp_initializion_failure:0";
    /// No host of the cluster is healthy.
    pub const TCP_NO_HOST: &str = "tcp_initializion_failure:1";
    /// A circuit breaker was open.
    pub const TCP_OVERFLOW: &str = "tcp_initializion_failure:2";
    /// There is no cluster.
    pub const TCP_NO_CLUSTER: &str = "tcp_initializion_failure:3";
    /// The handshake took too long.
    pub const HANDSHAKE_TIMEOUT: &str = "transport_socket_timeout";
}
