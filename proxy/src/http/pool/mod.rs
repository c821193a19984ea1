//! HTTP connection pools of one worker: per host, HTTP/1 and HTTP/2.
//!
//! Invariants:
//! * A connection is used by the worker that made it, and by one request at a time (HTTP/1) or up to the peer's limit (HTTP/2).
//! * A connection goes back to the pool only when its response was read to the end.
//! * A pool belongs to one host and one `ConnectionSettings`: other settings make another pool, and what the old one had goes
//!   away as it becomes idle.
//! * A pool without any connection may always make one, whatever the circuit breaker says (as in Envoy).
//! * A connection that was idle for a moment is looked at before it is used, and none is used shortly before its host closes it
//!   ([`cluster::IdleLimit`](crate::cluster::IdleLimit)).

mod http1;
mod http2;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Request, Response};
use rustc_hash::FxHashMap;

use super::body::RequestBody;
use super::codec::{Incoming, Interim, Meter, SendError, Switched, Version};
use super::error::{Failure, StreamError};
use crate::cluster::{
    Cluster, ConnectError, ConnectTimes, Connected, ConnectionSettings, Host, Permit, Resource,
    UpstreamProtocol,
};
use crate::stats::ClusterStats;
use crate::transport_socket::TlsInfo;

/// All pools of a worker.
#[derive(Debug, Default)]
pub struct Pools {
    hosts: RefCell<FxHashMap<u64, Rc<HostPool>>>,
}

/// A pause after which a connection is looked at before it is used: what is used all the time need not pay for it.
const LOOKED_AT_AFTER: Duration = Duration::from_millis(10);

/// Which of the connections that have carried a request another one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Any that is open: it can be sent again whatever becomes of it.
    Any,
    /// One that its host will not close now: it cannot be sent again once the host may have seen it.
    Proven,
    /// None, if another can be made.
    None,
}

/// The connections of this worker to one host.
#[derive(Debug)]
struct HostPool {
    host: Arc<Host>,
    settings: Arc<ConnectionSettings>,
    stats: Arc<ClusterStats>,
    /// `Host::drains` when it was made.
    drains: u32,
    http1: http1::Pool,
    http2: http2::Pool,
}

/// What is worth knowing of an upstream connection.
#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    pub(crate) id: u64,
    pub(crate) times: ConnectTimes,
    pub(crate) local_address: Option<SocketAddr>,
    pub(crate) tls: Option<Arc<TlsInfo>>,
    /// When its peer's certificate expires, if it has to end then.
    expires: Option<Instant>,
    /// When it is too old for another request.
    retires: Option<Instant>,
}

impl UpstreamConnection {
    fn new(connected: &Connected, settings: &ConnectionSettings) -> Self {
        Self {
            id: connected.id,
            times: connected.times,
            local_address: connected.local_address,
            tls: connected.tls.clone(),
            expires: connected.expiry.map(|expiry| expiry.expires),
            // Later than any clock reaches is never.
            retires: settings.max_connection_duration.and_then(|age| Instant::now().checked_add(age)),
        }
    }

    /// Whether it is too old for another request, which is counted: ask once.
    fn retires(&self, now: Instant, stats: &ClusterStats) -> bool {
        let retires = self.retires.is_some_and(|at| now >= at);
        if retires {
            stats.upstream_cx_max_duration_reached.inc();
        }
        retires
    }

    fn has_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| now >= at)
    }
}

/// A connection (or a stream of one) lent to one request.
#[derive(Debug)]
pub(crate) enum Lease {
    Http1(http1::Lease),
    Http2(http2::Lease),
}

impl Lease {
    pub(crate) fn connection(&self) -> &UpstreamConnection {
        match self {
            Lease::Http1(lease) => lease.connection(),
            Lease::Http2(lease) => lease.connection(),
        }
    }

    /// Whether the connection had carried a request before.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Lease::Http1(lease) => lease.is_reused(),
            Lease::Http2(lease) => lease.is_reused(),
        }
    }

    /// Whether it was idle for a while before.
    pub(crate) fn has_rested(&self) -> bool {
        match self {
            Lease::Http1(lease) => lease.has_rested(),
            Lease::Http2(lease) => lease.has_rested(),
        }
    }

    pub(crate) fn version(&self) -> Version {
        match self {
            Lease::Http1(_) => Version::Http1,
            Lease::Http2(_) => Version::Http2,
        }
    }

    /// Sends a request; what the upstream says before it answers goes to `interim`.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
        interim: Option<&Interim>,
    ) -> Result<Response<Incoming>, SendError> {
        match self {
            Lease::Http1(lease) => lease.send(request, interim).await,
            Lease::Http2(lease) => lease.send(request, interim).await,
        }
    }

    /// Sends a request that asks for another protocol: with the connection or stream that speaks it, when the upstream agrees.
    pub(crate) async fn send_upgrade(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Switched>), SendError> {
        match self {
            Lease::Http1(lease) => lease.send_upgrade(request).await,
            Lease::Http2(lease) => lease.send_upgrade(request).await,
        }
    }

    /// Counts the bytes of the exchange that begins now, with HTTP/1.
    pub(crate) fn meter(&self) -> Option<Meter> {
        match self {
            Lease::Http1(lease) => Some(lease.meter()),
            Lease::Http2(_) => None,
        }
    }

    /// The response was read to its end: the connection may serve the next request.
    pub(crate) fn finish(self) {
        match self {
            Lease::Http1(lease) => lease.finish(),
            Lease::Http2(lease) => drop(lease),
        }
    }
}

impl Pools {
    /// A connection to `host`: an idle one, a stream of an open one, or a new one.
    pub(crate) async fn checkout(
        &self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        downstream: Version,
        high_priority: bool,
        reuse: Reuse,
    ) -> Result<Lease, StreamError> {
        let pool = self.pool(cluster, host);
        let version = match cluster.connection.protocol {
            UpstreamProtocol::Http1 => Version::Http1,
            UpstreamProtocol::Http2 => Version::Http2,
            UpstreamProtocol::UseDownstream => downstream,
        };
        match version {
            Version::Http1 => http1::checkout(&pool, cluster, high_priority, reuse).await.map(Lease::Http1),
            Version::Http2 => http2::checkout(&pool, cluster, high_priority).await.map(Lease::Http2),
        }
    }

    fn pool(&self, cluster: &Cluster, host: &Arc<Host>) -> Rc<HostPool> {
        let mut hosts = self.hosts.borrow_mut();
        if let Some(pool) = hosts.get(&host.id) {
            if Arc::ptr_eq(&pool.settings, &cluster.connection) && pool.drains == host.drains() {
                return pool.clone();
            }
            pool.close();
        }
        let pool = Rc::new(HostPool {
            host: host.clone(),
            settings: cluster.connection.clone(),
            stats: cluster.stats.clone(),
            drains: host.drains(),
            http1: http1::Pool::default(),
            http2: http2::Pool::default(),
        });
        hosts.insert(host.id, pool.clone());
        pool
    }

    /// Once a second: drops connections that were idle for too long and pools whose host is gone, or wants new connections.
    pub fn sweep(&self, now: Instant) {
        self.hosts.borrow_mut().retain(|_, pool| {
            if pool.is_over() {
                pool.close();
                return false;
            }
            let timed_out = pool.http1.sweep(now, pool) + pool.http2.sweep(now, pool);
            pool.stats.upstream_cx_idle_timeout.inc_by(timed_out);
            true
        });
    }
}

/// Lets what has arrived for this worker reach its connections: the end of one of them, for example.
async fn look() {
    // The runtime asks the system for events before it goes on here.
    tokio::task::yield_now().await;
}

impl HostPool {
    /// Whether a connection that was idle for this long may serve such a request.
    fn allows(&self, pause: Duration, reuse: Reuse) -> bool {
        match reuse {
            Reuse::Any => self.host.idle_limit.allows(pause),
            Reuse::Proven => self.host.idle_limit.is_proven(pause),
            Reuse::None => false,
        }
    }

    /// Whether its connections take no further request.
    fn is_over(&self) -> bool {
        self.host.removed.load(Ordering::Relaxed) || self.drains != self.host.drains()
    }

    /// No connection comes back any more.
    fn close(&self) {
        self.http1.close();
        self.http2.close();
    }

    /// Counts a request that has to wait for a connection.
    fn pending(cluster: &Cluster, high_priority: bool) -> Result<Pending<'_>, StreamError> {
        let stats = &cluster.stats;
        let Some(permit) = cluster.circuit_breakers.acquire(Resource::Pending, high_priority) else {
            stats.upstream_rq_pending_overflow.inc();
            return Err(Failure::Overflow.into());
        };
        stats.upstream_rq_pending_total.inc();
        stats.upstream_rq_pending_active.inc();
        Ok(Pending { cluster, _permit: permit })
    }
}

/// A request that waits for a connection.
struct Pending<'c> {
    cluster: &'c Cluster,
    _permit: Permit,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.cluster.stats.upstream_rq_pending_active.dec();
    }
}

impl From<ConnectError> for StreamError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Overflow => Failure::Overflow.into(),
            ConnectError::Timeout => Failure::ConnectTimeout.into(),
            ConnectError::Failed(reason) => {
                StreamError { kind: Failure::ConnectRefused, transport_failure: Some(reason), retried: false }
            }
        }
    }
}
