//! HTTP/2: few connections with many streams. A new connection is made only when all are full; those who wait for one share it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use tokio::sync::Notify;

use super::{HostPool, UpstreamConnection};
use crate::cluster::{self, Cluster};
use crate::http::body::RequestBody;
use crate::http::codec::{self, Http2Sender, Incoming, SendError};
use crate::http::error::StreamError;
use crate::stats::ClusterStats;

#[derive(Debug, Default)]
pub(super) struct Pool {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// A connection is being made.
    connecting: Cell<bool>,
    /// The number of that attempt.
    attempt: Cell<u64>,
    /// That attempt ended, well or not.
    connected: Notify,
    /// The last attempt that failed: those who waited for it fail with it, instead of each trying in turn.
    failed: RefCell<Option<(u64, StreamError)>>,
    /// A stream ended: there is room, or its connection has gone.
    room: Rc<Notify>,
    closed: Cell<bool>,
}

#[derive(Debug)]
struct Connection {
    sender: Http2Sender,
    about: UpstreamConnection,
    streams: Cell<u32>,
    requests: Cell<u32>,
    idle_since: Cell<Instant>,
    room: Rc<Notify>,
}

/// One stream, lent to one request.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Rc<Connection>,
    sender: Http2Sender,
    reused: bool,
}

impl Lease {
    fn new(connection: &Rc<Connection>) -> Self {
        let requests = connection.requests.get();
        connection.requests.set(requests + 1);
        connection.streams.set(connection.streams.get() + 1);
        Self { connection: connection.clone(), sender: connection.sender.clone(), reused: requests > 0 }
    }

    pub(super) fn connection(&self) -> &UpstreamConnection {
        &self.connection.about
    }

    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.sender.send(request).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let streams = self.connection.streams.get() - 1;
        self.connection.streams.set(streams);
        if streams == 0 {
            self.connection.idle_since.set(Instant::now());
        }
        self.connection.room.notify_one();
    }
}

impl Pool {
    /// A stream of the first connection that has room; full or finished ones are skipped or dropped.
    fn take_stream(&self, max_streams: u32, max_requests: u32, stats: &ClusterStats) -> Option<Lease> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|c| {
            if c.sender.is_closed() {
                return false;
            }
            let used_up = max_requests > 0 && c.requests.get() >= max_requests;
            if used_up {
                stats.upstream_cx_max_requests.inc();
            }
            !used_up
        });
        connections
            .iter()
            .find(|c| (c.streams.get() as usize) < c.sender.peer_max_streams().min(max_streams as usize))
            .map(Lease::new)
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
        self.connections.borrow_mut().clear();
    }

    /// Gives the number of connections that were idle for too long.
    pub(super) fn sweep(&self, now: Instant, idle_timeout: Option<Duration>) -> u64 {
        let mut timed_out = 0;
        self.connections.borrow_mut().retain(|c| {
            if c.sender.is_closed() {
                return false;
            }
            let idle = c.streams.get() == 0
                && idle_timeout.is_some_and(|t| now.saturating_duration_since(c.idle_since.get()) >= t);
            timed_out += u64::from(idle);
            !idle
        });
        timed_out
    }
}

/// Ends the attempt for those who wait, even when it is cancelled.
struct Attempt<'p>(&'p Pool);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.connected.notify_waiters();
    }
}

pub(super) async fn checkout(
    pool: &Rc<HostPool>,
    cluster: &Cluster,
    high_priority: bool,
) -> Result<Lease, StreamError> {
    let settings = &pool.settings;
    let take = || {
        let (streams, requests) = (settings.max_concurrent_streams, settings.max_requests_per_connection);
        pool.http2.take_stream(streams, requests, &pool.stats)
    };
    if let Some(lease) = take() {
        return Ok(lease);
    }
    let _pending = HostPool::pending(cluster, high_priority)?;
    loop {
        if let Some(lease) = take() {
            return Ok(lease);
        }
        if pool.http2.connecting.get() {
            let attempt = pool.http2.attempt.get();
            pool.http2.connected.notified().await;
            match &*pool.http2.failed.borrow() {
                Some((failed, error)) if *failed == attempt => return Err(error.clone()),
                _ => continue,
            }
        }
        let none_open = pool.http2.connections.borrow().is_empty();
        if !none_open && !cluster.circuit_breakers.connection_allowed(high_priority) {
            cluster.stats.upstream_cx_overflow.inc();
            pool.http2.room.notified().await;
            continue;
        }
        pool.http2.connecting.set(true);
        let attempt = pool.http2.attempt.get() + 1;
        pool.http2.attempt.set(attempt);
        let _attempt = Attempt(&pool.http2);
        let connection = match connect(pool, cluster, high_priority, none_open).await {
            Ok(connection) => Rc::new(connection),
            Err(error) => {
                pool.http2.failed.replace(Some((attempt, error.clone())));
                return Err(error);
            }
        };
        let lease = Lease::new(&connection);
        if !pool.http2.closed.get() {
            pool.http2.connections.borrow_mut().push(connection);
        }
        return Ok(lease);
    }
}

async fn connect(
    pool: &HostPool,
    cluster: &Cluster,
    high_priority: bool,
    beyond_limit: bool,
) -> Result<Connection, StreamError> {
    let connected = cluster::connect(cluster, &pool.host, high_priority, beyond_limit).await?;
    cluster.stats.upstream_cx_http2_total.inc();
    let sender = codec::connect_http2(cluster, connected.stream, connected.guard).await?;
    Ok(Connection {
        sender,
        about: UpstreamConnection { local_address: connected.local_address, tls: connected.tls },
        streams: Cell::new(0),
        requests: Cell::new(0),
        idle_since: Cell::new(Instant::now()),
        room: pool.http2.room.clone(),
    })
}
