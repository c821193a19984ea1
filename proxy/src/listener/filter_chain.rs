//! A filter chain: how a connection is secured and what serves it.
//!
//! A chain is what its connections were opened with. What serves them can be swapped below them: the next request on an old
//! connection follows the new configuration, and no connection ends for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::http::LiveConnectionManager;
use crate::tcp::TcpProxy;
use crate::transport_socket::DownstreamTransport;

/// One compiled filter chain. It keeps its `Arc` (and so its connections) while a listener's next versions open connections in the
/// same way.
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
    /// `envoy.filters.network.http_connection_manager`: loaded for each request.
    Http(Arc<LiveConnectionManager>),
    /// `envoy.filters.network.tcp_proxy`: loaded for each connection.
    Tcp(Arc<ArcSwap<TcpProxy>>),
}
