//! `envoy_listener_*`: one listening address; and the counters of TLS.

use super::Counter;
use super::scope::scope;

/// Counters of TLS handshakes, of a listener or of a cluster.
#[derive(Debug, Default)]
pub struct SslStats {
    /// Handshakes that succeeded.
    pub handshake: Counter,
    /// Connections that failed, certificate checks apart.
    pub connection_error: Counter,
    /// Refused: the peer sent no certificate.
    pub fail_verify_no_cert: Counter,
    /// Refused: the peer's certificate is not trusted.
    pub fail_verify_error: Counter,
    /// Refused: the peer's name does not match.
    pub fail_verify_san: Counter,
    /// The peer sent no certificate and needed none.
    pub no_certificate: Counter,
    /// Handshakes that resumed a session.
    pub session_reused: Counter,
}

scope! {
    /// Statistics of one listening address.
    ListenerStats in "listener" ["envoy_listener_address"] {
        Counter downstream_cx_total "Connections.";
        Gauge downstream_cx_active "Connections that are open now.";
        Counter downstream_cx_destroy "Connections that ended.";
        Histogram downstream_cx_length_ms "How long connections lived, milliseconds.";
        Gauge downstream_pre_cx_active "Sockets in listener filters now.";
        Counter downstream_pre_cx_timeout "Sockets whose listener filters ran into their timeout.";
        Counter downstream_listener_filter_error "Sockets that a listener filter could not read.";
        Counter downstream_listener_filter_remote_close "Sockets that the peer closed during listener filters.";
        Counter downstream_cx_overload_reject "Connections closed at once by the overload manager.";
        Counter downstream_global_cx_overflow "Connections closed at once because too many are open in the process.";
        Counter no_filter_chain_match "Connections that no filter chain took.";
        Counter downstream_cx_transport_socket_connect_timeout "Connections whose TLS handshake ran into its timeout.";
    }
    with {
        /// TLS towards the clients.
        ssl: SslStats,
    }
    nested {
        ssl.handshake as "ssl.handshake" "TLS handshakes that succeeded.";
        ssl.connection_error as "ssl.connection_error" "TLS connections that failed, certificate checks apart.";
        ssl.fail_verify_no_cert as "ssl.fail_verify_no_cert" "TLS connections refused: the peer sent no certificate.";
        ssl.fail_verify_error as "ssl.fail_verify_error" "TLS connections refused: the peer's certificate is not trusted.";
        ssl.fail_verify_san as "ssl.fail_verify_san" "TLS connections refused: the peer's name does not match.";
        ssl.no_certificate as "ssl.no_certificate" "TLS connections whose peer sent no certificate and needed none.";
        ssl.session_reused as "ssl.session_reused" "TLS handshakes that resumed a session.";
    }
}
