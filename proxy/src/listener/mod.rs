//! Downstream: accept → listener filters → filter chain match → transport socket → network filter.

use std::sync::Arc;
use std::time::Duration;

use crate::http::HttpConnectionManager;
use crate::net::Address;
use crate::stats::ListenerStats;
use crate::tcp::TcpProxy;
use crate::transport_socket::DownstreamTransport;

/// `envoy.config.listener.v3.Listener`, compiled. The sockets live apart from it: a new `Listener` under the same name and
/// address changes no socket.
#[derive(Debug)]
pub struct Listener {
    /// `name`.
    pub name: Arc<str>,
    /// `address` and `additional_addresses`.
    pub addresses: Vec<Address>,
    /// `filter_chains`, as a matcher.
    pub filter_chains: FilterChains,
    /// `listener_filters` contains `tls_inspector`.
    pub inspect_tls: bool,
    /// `listener_filters_timeout`, default 15 s, `None` = off.
    pub listener_filters_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`.
    pub continue_on_timeout: bool,
    /// `per_connection_buffer_limit_bytes`, default 1 MiB.
    pub buffer_limit_bytes: u32,
    /// `tcp_backlog_size`.
    pub backlog: u32,
    /// `envoy_listener_*`.
    pub stats: Arc<ListenerStats>,
    /// `access_log` of the listener: only for connections that no chain took.
    pub access_logs: Vec<crate::access_log::AccessLog>,
}

/// One compiled filter chain. Equal chains keep their `Arc` (and so their connections) across listener updates.
#[derive(Debug)]
pub struct FilterChain {
    /// `name`.
    pub name: Arc<str>,
    /// `transport_socket`.
    pub transport: DownstreamTransport,
    /// `transport_socket_connect_timeout`, `None` = off.
    pub handshake_timeout: Option<Duration>,
    /// The last network filter.
    pub filter: NetworkFilter,
    /// Hash of the wire form, so that an equal one is reused.
    pub hash: u64,
}

/// What a connection is given to.
#[derive(Debug, Clone)]
pub enum NetworkFilter {
    /// `envoy.filters.network.http_connection_manager`.
    Http(Arc<HttpConnectionManager>),
    /// `envoy.filters.network.tcp_proxy`.
    Tcp(Arc<TcpProxy>),
}

/// Filter chains and their match.
#[derive(Debug)]
pub struct FilterChains {}
