//! `envoy_tcp_*`: the TCP proxies that share a `stat_prefix`.

use super::scope::scope;

scope! {
    /// Statistics of all TCP proxies with one `stat_prefix`.
    TcpStats in "tcp" ["envoy_tcp_prefix"] {
        Counter downstream_cx_total "Connections.";
        Counter downstream_cx_no_route "Connections whose cluster does not exist.";
        Counter downstream_cx_rx_bytes_total "Bytes received from clients.";
        Counter downstream_cx_tx_bytes_total "Bytes sent to clients.";
        Counter idle_timeout "Connections closed because they were idle.";
        Counter max_downstream_connection_duration "Connections closed because of their maximum duration.";
    }
    with {}
    nested {}
}
