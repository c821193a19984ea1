//! A filter chain: how a connection is secured and what serves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::http::HttpConnectionManager;
use crate::tcp::TcpProxy;
use crate::transport_socket::DownstreamTransport;

/// One compiled filter chain. Equal chains keep their `Arc` (and so their connections) across listener updates.
#[derive(Debug)]
pub struct FilterChain {
    /// Unique in the process (see [`FilterChain::next_id`]): connections of a chain that is no longer current drain by it.
    pub id: u64,
    /// `name`.
    pub name: Arc<str>,
    /// `transport_socket`.
    pub transport: DownstreamTransport,
    /// `transport_socket_connect_timeout`, `None` = off.
    pub handshake_timeout: Option<Duration>,
    /// How long a connection may outlive its peer's certificate; `None`: as long as it lasts.
    pub peer_certificate_grace: Option<Duration>,
    /// The last network filter.
    pub filter: NetworkFilter,
    /// Hash of the wire form, so that an equal one is reused.
    pub hash: u64,
}

impl FilterChain {
    /// An id that no other chain of this process has or will have.
    pub fn next_id() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }
}

/// What a connection is given to.
#[derive(Debug, Clone)]
pub enum NetworkFilter {
    /// `envoy.filters.network.http_connection_manager`.
    Http(Arc<HttpConnectionManager>),
    /// `envoy.filters.network.tcp_proxy`.
    Tcp(Arc<TcpProxy>),
}
