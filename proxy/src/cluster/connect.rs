//! One connection to a host: socket, source address, TLS, within the cluster's connect timeout and counted as Envoy counts it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::circuit_breaker::Resource;
use super::happy_eyeballs;
use super::{Cluster, Host, Permit};
use crate::net::{self, Address, RawStream, Stream};
use crate::stats::ClusterStats;
use crate::transport_socket::{TlsInfo, UpstreamTransport};

/// A connection that is up, TLS included.
#[derive(Debug)]
pub struct Connected {
    /// The stream to speak on.
    pub stream: Stream,
    /// The handshake, for TLS.
    pub tls: Option<Arc<TlsInfo>>,
    /// Our end.
    pub local_address: Option<SocketAddr>,
    /// When it came about.
    pub times: ConnectTimes,
    /// Increasing number, unique among upstream connections of the process.
    pub id: u64,
    /// When it has to end because the peer's certificate expires, if it has to.
    pub expiry: Option<Expiry>,
    /// Keeps the connection counted until it is gone: hold it as long as the stream.
    pub guard: ConnectionGuard,
}

/// When an upstream connection came about.
#[derive(Debug, Clone, Copy)]
pub struct ConnectTimes {
    /// Connecting began.
    pub begin: Instant,
    /// The socket was connected.
    pub connected: Instant,
    /// The TLS handshake was finished.
    pub secured: Option<Instant>,
}

/// The end of a connection whose peer's certificate expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// Nothing new goes over it from then on.
    pub expires: Instant,
    /// What is left then is closed.
    pub closes: Instant,
}

impl Expiry {
    fn of(tls: &TlsInfo, grace: Duration) -> Option<Self> {
        // Later than any clock reaches is never.
        let expires = Instant::now().checked_add(tls.peer_expires_in()?)?;
        Some(Self { expires, closes: expires.checked_add(grace)? })
    }
}

/// Counts one upstream connection; dropped, the connection no longer counts.
#[derive(Debug)]
pub struct ConnectionGuard {
    host: Arc<Host>,
    stats: Arc<ClusterStats>,
    _permit: Permit,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.stats.upstream_cx_active.dec();
        self.stats.upstream_cx_destroy.inc();
        self.host.connections_active.fetch_sub(1, Ordering::Relaxed);
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Why there is no connection.
#[derive(Debug, Clone)]
pub enum ConnectError {
    /// The connection circuit breaker is open.
    Overflow,
    /// Connect timeout, handshake included.
    Timeout,
    /// The socket could not be connected, or the TLS handshake failed: the reason for people.
    Failed(Arc<str>),
}

/// Connects to `host`. With `beyond_limit` the connection breaker does not refuse (a pool's first connection).
///
/// # Errors
/// See [`ConnectError`]; statistics of the cluster and the host are already counted.
pub async fn connect(
    cluster: &Cluster,
    host: &Arc<Host>,
    high_priority: bool,
    beyond_limit: bool,
) -> Result<Connected, ConnectError> {
    let stats = &cluster.stats;
    let breakers = &cluster.circuit_breakers;
    let acquire = || breakers.acquire(Resource::Connection, high_priority);
    let permit = match breakers.host_allows(high_priority, host).then(acquire).flatten() {
        Some(permit) => permit,
        None if beyond_limit => {
            stats.upstream_cx_overflow.inc();
            breakers.acquire_anyway(Resource::Connection, high_priority)
        }
        None => {
            stats.upstream_cx_overflow.inc();
            return Err(ConnectError::Overflow);
        }
    };
    stats.upstream_cx_total.inc();
    stats.upstream_cx_active.inc();
    host.connections_total.fetch_add(1, Ordering::Relaxed);
    host.connections_active.fetch_add(1, Ordering::Relaxed);
    let guard = ConnectionGuard { host: host.clone(), stats: stats.clone(), _permit: permit };

    let settings = &cluster.connection;
    let started = tokio::time::Instant::now();
    let begin = Instant::now();
    let attempt = async |address: Address| {
        let raw = net::connect(&address, settings.source_address, settings.tcp_keepalive)
            .await
            .map_err(|e| ConnectError::Failed(failure_reason(&address, &e).into()))?;
        let mut times = ConnectTimes { begin, connected: Instant::now(), secured: None };
        let local_address = match &raw {
            RawStream::Tcp(tcp) => tcp.local_addr().ok(),
            RawStream::Unix(_) => None,
        };
        let (stream, tls) = match &settings.transport {
            UpstreamTransport::Plaintext => (Stream::from(raw), None),
            UpstreamTransport::Tls(tls) => {
                let (stream, info) =
                    tls.connect(raw, &stats.ssl).await.map_err(|e| ConnectError::Failed(e.reason))?;
                (stream, Some(info))
            }
        };
        times.secured = tls.as_ref().map(|_| Instant::now());
        Ok((stream, tls, local_address, times))
    };
    let connecting = async {
        let more = host.more_addresses.load_full();
        let (Some(more), Address::Ip(first)) = (more, &host.address) else {
            return attempt(host.address.clone()).await;
        };
        let mut is_first = true;
        let order = settings.happy_eyeballs.order(*first, &more);
        // On the heap, so that connections to hosts with one address do not carry its state.
        Box::pin(happy_eyeballs::race(order, |address| {
            // As in Envoy each attempt is a connection, but only one of them is ever active.
            if !std::mem::replace(&mut is_first, false) {
                stats.upstream_cx_total.inc();
                host.connections_total.fetch_add(1, Ordering::Relaxed);
            }
            attempt(Address::Ip(address))
        }))
        .await
    };
    let outcome = tokio::time::timeout(settings.connect_timeout, connecting).await;
    let outcome = outcome.unwrap_or(Err(ConnectError::Timeout));
    match outcome {
        Ok((stream, tls, local_address, times)) => {
            stats.upstream_cx_connect_ms.observe(started.elapsed().as_secs_f64() * 1e3);
            let grace = settings.peer_certificate_grace;
            let expiry = tls.as_ref().zip(grace).and_then(|(tls, grace)| Expiry::of(tls, grace));
            let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
            Ok(Connected { stream, tls, local_address, times, id, expiry, guard })
        }
        Err(error) => {
            host.connect_failures.fetch_add(1, Ordering::Relaxed);
            stats.upstream_cx_connect_fail.inc();
            if matches!(error, ConnectError::Timeout) {
                stats.upstream_cx_connect_timeout.inc();
            }
            Err(error)
        }
    }
}

/// In Envoy's words. A Unix socket answers at once, so Envoy calls its errors immediate, and names the address.
fn failure_reason(address: &Address, error: &std::io::Error) -> String {
    let text = system_text(error);
    match address {
        Address::Ip(_) => format!("delayed connect error: {text}"),
        Address::Pipe(path) => format!("immediate connect error: {text}|remote address:{}", path.display()),
    }
}

/// The system's words as Envoy prints them, `Connection refused`, without the number that Rust adds.
fn system_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => text.trim_end_matches(&format!(" (os error {number})")).to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_in_envoys_words() {
        let refused = std::io::Error::from_raw_os_error(111);
        let pipe = Address::Pipe(Arc::new("/run/s".into()));
        assert_eq!(
            failure_reason(&Address::Ip(([127, 0, 0, 1], 80).into()), &refused),
            "delayed connect error: Connection refused"
        );
        assert_eq!(
            failure_reason(&pipe, &refused),
            "immediate connect error: Connection refused|remote address:/run/s"
        );
        assert_eq!(system_text(&std::io::Error::other("why not")), "why not");
    }
}
